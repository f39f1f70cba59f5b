//! Another snapshot while flows live.

use pipeline::policy::{Action, Peer, RuleConfig};
use pipeline::{Event, PortIndex, RuleId};

use crate::frames::{v4, v6};
use crate::world::{
    APP, Config, DB, GUESTS, Guest, Host, IN, OUT, WEB, allow, open, policy, port, rule, three_tiers,
};

/// An open TCP connection between two guests, from port 4000 to `to`.
fn connect(host: &mut Host, from: &'static str, into: &'static str, to: u16) {
    let path = v4(from, into);
    assert_eq!(host.send(from, &path.tcp((4000, to), "S", (100, 0), b"")), into);
    assert_eq!(host.send(into, &path.back().tcp((to, 4000), "SA", (500, 101), b"")), from);
    assert_eq!(host.send(from, &path.tcp((4000, to), "A", (101, 501), b"")), into);
}

#[test]
fn a_forbidden_flow_ends_at_its_next_packet_and_others_lose_nothing() {
    let mut host = Host::new(three_tiers());
    let (udp, ping) = (v4("web", "app"), v6("db", "web"));
    connect(&mut host, "web", "app", 80);
    assert_eq!(host.send("web", &udp.udp(4000, 53, b"?")), "app");
    assert_eq!(host.send("db", &ping.ping(1)), "web");
    assert_eq!(host.happened().len(), 3);

    // UDP goes, the others stay.
    let mut policies = three_tiers();
    policies[0].rules.remove(1);
    host.change(policies);
    assert_eq!(host.flows.len(), 3, "nothing is flushed");
    assert_eq!(host.send("app", &udp.back().udp(53, 4000, b"!")), "drop default-deny", "a reply too");
    assert_eq!(host.happened(), ["ended revoked udp-unreplied"]);
    assert_eq!(host.send("web", &udp.udp(4000, 53, b"?")), "drop default-deny");
    assert_eq!(host.send("web", &udp.tcp((4000, 80), "PA", (101, 501), b"GET")), "app");
    assert_eq!(host.send("app", &udp.back().tcp((80, 4000), "A", (501, 104), b"")), "web");
    assert_eq!(host.send("web", &ping.back().pong(1)), "db");
    assert_eq!(host.happened(), Vec::<String>::new(), "neither ended nor started");
    for record in host.records() {
        assert_eq!(record.revision, 2);
        assert_eq!(record.packets.iter().sum::<u64>(), if record.key.protocol == 6 { 5 } else { 2 });
    }
}

#[test]
fn counters_live_on_and_rules_follow_the_policy_in_force() {
    let mut host = Host::new(three_tiers());
    let there = v4("web", "app");
    let frame = there.udp(4000, 53, b"?");
    assert_eq!(host.send("web", &frame), "app");
    let log = RuleConfig { log: true, ..allow(77, WEB, APP, port(17, 53)) };
    host.change(vec![policy("new", vec![log])]);
    assert_eq!(host.record().rules, [Some(RuleId(2)), Some(RuleId(2))], "not judged yet");
    assert_eq!(host.send("web", &frame), "app");
    let record = host.record();
    assert_eq!(record.rules, [Some(RuleId(77)), Some(RuleId(77))]);
    assert_eq!((record.packets, record.bytes[0], record.log), ([2, 0], 2 * frame.len() as u64, true));
}

/// By direction: what the sender's rule keeps, the receiver's may end, and the other way round.
#[test]
fn what_a_rule_keeps_lives_on_until_the_other_side_forbids_it() {
    let keep = |id, direction| RuleConfig { direction, keep_established: true, ..rule(id, Action::Allow) };
    let plain = |id, direction| RuleConfig { direction, ..rule(id, Action::Allow) };
    let there = v4("web", "app");
    for kept in [OUT, IN] {
        let other = if kept == OUT { IN } else { OUT };
        let mut host = Host::new(vec![policy("p", vec![keep(1, kept), plain(2, other)])]);
        assert_eq!(host.send("web", &there.udp(1, 2, b"")), "app");
        connect(&mut host, "web", "db", 80);
        // The rule that keeps is gone; the other side still allows.
        host.change(vec![policy("p", vec![plain(2, other)])]);
        assert_eq!(host.send("web", &there.udp(1, 2, b"")), "app");
        assert_eq!(host.send("app", &there.back().udp(2, 1, b"")), "web");
        assert_eq!(host.send("web", &v4("web", "db").tcp((4000, 80), "A", (101, 501), b"x")), "db");
        let place = usize::from(kept == IN);
        assert_eq!(host.records()[0].rules[place], Some(RuleId(1)), "by the rule that kept it");
        assert_eq!(host.send("web", &there.udp(1, 3, b"")), "drop default-deny", "a new one is not");
        // Over any number of changes.
        host.change(vec![policy("q", vec![plain(2, other)])]);
        assert_eq!(host.send("web", &there.udp(1, 2, b"")), "app");
        // Now the other side forbids it, where no rule keeps.
        host.change(vec![]);
        assert_eq!(host.send("web", &there.udp(1, 2, b"")), "drop default-deny");
        assert!(host.happened().contains(&"ended revoked udp-stream".to_string()));
    }
}

/// Bans of a service are of use only when they end what is going on.
#[test]
fn a_banned_connection_is_not_picked_up_as_the_reverse() {
    let ban = |rules: Vec<RuleConfig>| [vec![policy("a-ban", rules)], open()].concat();
    let https = || RuleConfig { services: vec![port(6, 443)], ..rule(1, Action::Drop) };
    let mut host = Host::new(ban(vec![]));
    connect(&mut host, "web", "app", 443);
    let there = v4("web", "app");
    host.change(ban(vec![https()]));
    let request = there.tcp((4000, 443), "PA", (101, 501), b"GET");
    let answer = there.back().tcp((443, 4000), "PA", (501, 101), b"200");
    assert_eq!(host.send("web", &request), "drop policy-drop");
    assert_eq!(host.happened(), ["started syn-sent", "ended revoked established"]);
    for _ in 0..3 {
        assert_eq!(host.send("app", &answer), "drop policy-drop", "from its other end, to a port not banned");
        assert_eq!(host.send("web", &request), "drop policy-drop");
        host.wait(7_000_000);
    }
    assert_eq!(host.flows.len(), 0);
    assert_eq!(host.begun_by("web"), 0, "it counts no more");
    assert_eq!(host.records(), []);
    assert_eq!(host.happened(), Vec::<String>::new(), "its end was told once");
    assert_eq!(host.last_drop_of("web", &request), Some(RuleId(1)));

    // What is allowed again goes on, as the same connection.
    host.change(ban(vec![]));
    assert_eq!(host.send("app", &answer), "web");
    assert_eq!(host.happened(), ["started established"]);
    assert_eq!((host.flows.len(), host.begun_by("web")), (1, 1));
    assert_eq!(host.record().key.destination.1, 443);
}

#[test]
fn a_banned_connection_is_forgotten_after_its_time_and_tells_its_end_once() {
    let mut host = Host::new(open());
    connect(&mut host, "web", "app", 443);
    host.change(vec![]);
    let frame = v4("web", "app").tcp((4000, 443), "A", (101, 501), b"");
    assert_eq!(host.send("web", &frame), "drop default-deny");
    assert_eq!(host.happened(), ["started syn-sent", "ended revoked established"]);
    host.wait(7_441_000);
    assert_eq!(host.expire(), []);
    // Gone: with the reverse allowed it could be picked up again.
    host.change(open());
    assert_eq!(host.send("web", &frame), "app");
    assert_eq!(host.happened(), ["started established"]);
}

#[test]
fn a_new_connection_takes_the_place_of_a_banned_one() {
    let mut host = Host::new(open());
    connect(&mut host, "web", "app", 443);
    let https = RuleConfig { services: vec![port(6, 443)], ..rule(1, Action::Drop) };
    host.change([vec![policy("a-ban", vec![https])], open()].concat());
    let there = v4("web", "app");
    assert_eq!(host.send("web", &there.tcp((4000, 443), "A", (101, 501), b"")), "drop policy-drop");
    assert_eq!(host.send("web", &there.tcp((4000, 443), "S", (9, 0), b"")), "drop policy-drop");
    // The other end may ask it, and is judged as who asks.
    assert_eq!(host.send("app", &there.back().tcp((443, 4000), "S", (7, 0), b"")), "web");
    assert_eq!(host.record().key.source.1, 443);
    assert_eq!(host.happened(), ["started syn-sent", "ended revoked established", "started syn-sent"]);
}

#[test]
fn labels_that_change_move_a_workload_between_groups() {
    let mut host = Host::new(three_tiers());
    connect(&mut host, "web", "app", 80);
    connect(&mut host, "app", "db", 5432);
    let relabelled = |identity| {
        let change = |guest: Guest| if guest.name == "web" { Guest { identity, ..guest } } else { guest };
        GUESTS.map(change).to_vec()
    };
    host.go_over_to(Config { revision: 2, guests: relabelled(3), ..host.config.clone() });
    assert_eq!(
        host.send("web", &v4("web", "app").tcp((4000, 80), "A", (101, 501), b"x")),
        "drop default-deny"
    );
    assert_eq!(host.send("app", &v4("app", "db").tcp((4000, 5432), "A", (101, 501), b"x")), "db");
    // It is a database now.
    assert_eq!(host.send("app", &v4("app", "web").tcp((4000, 5432), "S", (1, 0), b"")), "web");
    host.go_over_to(Config { revision: 3, guests: relabelled(1), ..host.config.clone() });
    assert_eq!(host.send("web", &v4("web", "app").tcp((4001, 80), "S", (1, 0), b"")), "app");
    assert_eq!(host.send("app", &v4("app", "web").tcp((4000, 5432), "S", (1, 0), b"")), "drop default-deny");
}

/// Ports are numbered anew with every snapshot: flows that remember old numbers reach the same guests.
#[test]
fn numbers_that_shift_between_snapshots_bring_no_packet_to_another() {
    let mut host = Host::new(open());
    let udp = |from, to| v4(from, to).udp(1, 2, b"");
    let pairs = [("web", "app"), ("app", "db"), ("db", "nobody"), ("red", "rose"), ("web", "free")];
    for (from, to) in pairs {
        assert_eq!(host.send(from, &udp(from, to)), to);
    }
    let mut guests = GUESTS.to_vec();
    for revision in 2..40 {
        guests.rotate_left(1 + revision as usize % 3);
        let here: Vec<Guest> =
            guests.iter().copied().filter(|guest| revision % 5 != 0 || guest.name != "app").collect();
        host.go_over_to(Config { revision, guests: here, policies: open() });
        for (from, to) in pairs {
            let gone = |name| revision % 5 == 0 && name == "app";
            if gone(from) {
                continue;
            }
            let wanted = if gone(to) { "drop unknown-destination" } else { to };
            assert_eq!(host.send(from, &udp(from, to)), wanted, "revision {revision}");
            if !gone(to) {
                assert_eq!(host.send(to, &v4(to, from).udp(2, 1, b"")), from, "revision {revision}");
            }
        }
    }
}

#[test]
fn an_address_that_moves_to_another_port_takes_its_flows_along_if_they_are_allowed() {
    let mut host = Host::new(open());
    let there = v4("web", "app");
    assert_eq!(host.send("web", &there.udp(1, 2, b"")), "app");
    // Another guest with app's address and its own MAC.
    let moved = |guest: Guest| match guest.name {
        "app" => Guest { last: 40, ..guest },
        _ => guest,
    };
    host.go_over_to(Config { revision: 2, guests: GUESTS.map(moved).to_vec(), policies: open() });
    assert_eq!(host.send("web", &there.udp(1, 2, b"")), "drop unknown-destination");
    assert_eq!(host.happened(), ["started udp-unreplied"]);
}

#[test]
fn a_snapshot_of_the_same_rules_ends_nothing() {
    let mut host = Host::new(three_tiers());
    connect(&mut host, "web", "app", 80);
    for _ in 0..5 {
        host.change(three_tiers());
        let frame = v4("web", "app").tcp((4000, 80), "A", (101, 501), b"");
        assert_eq!(host.send("web", &frame), "app");
        assert_eq!(host.send("app", &v4("app", "web").tcp((80, 4000), "A", (501, 101), b"")), "web");
    }
    assert_eq!(host.happened(), ["started syn-sent"]);
    assert_eq!(host.record().packets, [7, 6]);
}

#[test]
fn a_rule_for_a_peer_counts_from_its_next_packet_on() {
    let mut host = Host::new(vec![]);
    let frame = v4("web", "db").udp(1, 2, b"");
    assert_eq!(host.send("web", &frame), "drop default-deny");
    host.change(vec![policy("p", vec![allow(1, WEB, DB, port(17, 2))])]);
    assert_eq!(host.send("web", &frame), "db");
    host.change(vec![policy("p", vec![allow(1, Peer::Any, APP, port(17, 2))])]);
    assert_eq!(host.send("web", &frame), "drop default-deny");
    let ended = host.take_events().into_iter().filter(|event| matches!(event, Event::FlowEnded(..)));
    assert_eq!(ended.count(), 1);
    assert_eq!(host.index("web"), PortIndex(0));
}
