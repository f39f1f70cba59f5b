//! Who may talk to whom, and what is told of a refusal.

use pipeline::policy::{Action, Peer, RuleConfig};
use pipeline::{Domain, DropReason, NetworkIndex, Origin, RuleId};

use crate::frames::{Path, v4, v6};
use crate::world::{
    APP, Config, DB, GUESTS, Guest, Host, IN, OUT, OUTSIDE, WEB, all_of, allow, called, dropped, groups,
    icmp, open, policy, port, rule, three_tiers,
};

const BOTH: [fn(&str, &str) -> Path; 2] = [v4, v6];

#[test]
fn what_a_rule_allows_passes_and_so_do_its_replies() {
    for path in BOTH {
        let mut host = Host::new(three_tiers());
        let there = path("web", "app");
        assert_eq!(host.send("web", &there.udp(4000, 53, b"?")), "app");
        assert_eq!(host.send("app", &there.back().udp(53, 4000, b"!")), "web");
        assert_eq!(host.send("web", &there.udp(4000, 53, b"?")), "app");
        assert_eq!(host.happened(), ["started udp-unreplied"]);
        let record = host.record();
        assert_eq!(record.key.source, (there.from, 4000));
        assert_eq!(record.key.destination, (there.to, 53));
        assert_eq!((record.key.domain, record.key.protocol), (Domain::Network(NetworkIndex(0)), 17));
        assert_eq!((record.state, record.packets), ("udp-stream", [2, 1]));
        assert_eq!(record.rules, [Some(RuleId(2)), Some(RuleId(2))], "egress of web, ingress of app");
        assert_eq!((record.revision, record.log), (1, false));
        assert_eq!(host.begun_by("web"), 1);
        assert_eq!(host.begun_by("app"), 0);
    }
}

/// Answers are remembered within a burst, and more questions come than there is room for.
#[test]
fn flows_that_begin_in_one_burst_are_judged_like_flows_that_begin_alone() {
    for path in BOTH {
        let ports = [53, 61, 69, 80, 5432];
        let frames: Vec<Vec<u8>> = ["app", "db", "app", "nobody"]
            .into_iter()
            .cycle()
            .zip(ports.into_iter().cycle())
            .take(30)
            .zip(4000..)
            .flat_map(|((to, port), own)| {
                let there = path("web", to);
                [there.udp(own, port, b"?"), there.tcp((own, port), "S", (1, 0), b"")]
            })
            .collect();
        let alone: Vec<String> =
            frames.iter().map(|frame| Host::new(three_tiers()).send("web", frame)).collect();
        assert!(["app", "drop default-deny"].iter().all(|one| alone.iter().any(|other| other == one)));
        assert_eq!(Host::new(three_tiers()).send_all("web", &frames), alone);
        // Nothing of it is left when another policy comes in force.
        let mut host = Host::new(three_tiers());
        assert_eq!(host.send_all("web", &[path("web", "app").udp(1, 53, b"?")]), ["app"]);
        host.change(vec![]);
        assert_eq!(host.send_all("web", &[path("web", "app").udp(2, 53, b"?")]), ["drop default-deny"]);
    }
}

#[test]
fn the_reverse_of_what_is_allowed_is_not_when_it_begins() {
    for path in BOTH {
        let mut host = Host::new(three_tiers());
        let back = path("app", "web");
        assert_eq!(host.send("app", &back.udp(53, 4000, b"!")), dropped(DropReason::DefaultDeny));
        assert_eq!(host.send("app", &back.tcp((4000, 80), "S", (1, 0), b"")), "drop default-deny");
        assert!(host.flows.is_empty());
    }
}

#[test]
fn another_port_address_or_protocol_is_another_flow() {
    let mut host = Host::new(three_tiers());
    let there = v4("web", "app");
    assert_eq!(host.send("web", &there.udp(4000, 53, b"?")), "app");
    for frame in [
        there.back().udp(54, 4000, b"!"),
        there.back().udp(53, 4001, b"!"),
        there.back().packet(33, b"\x00\x35\x0f\xa0...."),
        v6("app", "web").udp(53, 4000, b"!"),
    ] {
        assert_eq!(host.send("app", &frame), "drop default-deny");
    }
    assert_eq!(host.send("nobody", &v4("nobody", "web").udp(53, 4000, b"!")), "drop default-deny");
}

#[test]
fn a_default_deny_names_no_rule_but_who_was_known() {
    let mut host = Host::new(three_tiers());
    let there = v4("app", "web");
    assert_eq!(host.send("app", &there.udp(4000, 53, b"?")), "drop default-deny");
    let record = host.last_drop();
    assert_eq!((record.reason, record.rule, record.direction), (DropReason::DefaultDeny, None, OUT));
    assert_eq!(groups(&host.snapshot, &record), [vec!["app".to_string()], vec!["web".to_string()]]);
    assert_eq!(record.origin, Origin::Port(host.index("app")));
    let key = record.key.expect("a key");
    assert_eq!((key.source, key.destination), ((there.from, 4000), (there.to, 53)));
    assert_eq!((record.revision, record.len), (1, 14 + 20 + 8 + 1));
    assert!(!record.would_allow);
}

#[test]
fn a_refusal_names_its_rule_and_whose_it_is() {
    let only_at_app = |action| RuleConfig { direction: IN, to: vec![APP], ..rule(7, action) };
    for (action, reason) in
        [(Action::Drop, DropReason::PolicyDrop), (Action::Reject, DropReason::PolicyReject)]
    {
        let mut host = Host::new(vec![policy("p", vec![only_at_app(action), rule(8, Action::Allow)])]);
        let shown = host.send("web", &v4("web", "app").udp(4000, 53, b"?"));
        assert_eq!(shown.split_once(' ').expect("two words").1, reason.name());
        let record = host.last_drop();
        assert_eq!((record.rule, record.direction), (Some(RuleId(7)), IN));
        assert_eq!(host.send("web", &v4("web", "db").udp(4000, 53, b"?")), "db");
    }
}

#[test]
fn the_senders_rules_are_asked_first() {
    let out = RuleConfig { direction: OUT, from: vec![WEB], ..rule(5, Action::Drop) };
    let into = RuleConfig { direction: IN, to: vec![APP], ..rule(6, Action::Reject) };
    let mut host = Host::new(vec![policy("p", vec![into, out, rule(8, Action::Allow)])]);
    assert_eq!(host.send("web", &v4("web", "app").udp(1, 2, b"")), "drop policy-drop");
    assert_eq!(host.last_drop().rule, Some(RuleId(5)));
    assert_eq!(host.send("db", &v4("db", "app").udp(1, 2, b"")), "refuse policy-reject");
    assert_eq!(host.last_drop().rule, Some(RuleId(6)));
}

#[test]
fn protocols_without_ports_are_tracked_by_their_ends() {
    for path in BOTH {
        let mut host = Host::new(vec![policy("gre", vec![allow(1, WEB, APP, all_of(47))])]);
        let there = path("web", "app");
        assert_eq!(host.send("app", &there.back().packet(47, b"\0\0\x08\0....")), "drop default-deny");
        assert_eq!(host.send("web", &there.packet(47, b"\0\0\x08\0....")), "app");
        assert_eq!(host.send("app", &there.back().packet(47, b"\0\0\x08\0....")), "web");
        assert_eq!(host.record().state, "replied");
        assert_eq!(host.send("web", &there.packet(50, b"........")), "drop default-deny", "another protocol");
    }
}

#[test]
fn sctp_has_ports() {
    let header = |from: u16, to: u16| [&from.to_be_bytes()[..], &to.to_be_bytes(), &[0; 12]].concat();
    for path in BOTH {
        let mut host = Host::new(vec![policy("sctp", vec![allow(1, WEB, APP, port(132, 5000))])]);
        let there = path("web", "app");
        assert_eq!(host.send("web", &there.packet(132, &header(9, 5001))), "drop default-deny");
        assert_eq!(host.send("web", &there.packet(132, &header(9, 5000))), "app");
        assert_eq!(host.send("app", &there.back().packet(132, &header(5000, 9))), "web");
        assert_eq!(host.send("app", &there.back().packet(132, &header(5000, 8))), "drop default-deny");
    }
}

#[test]
fn a_ping_is_answered_once_it_was_sent() {
    for path in BOTH {
        let mut host = Host::new(three_tiers());
        let there = path("db", "web");
        assert_eq!(host.send("web", &there.back().pong(7)), "drop icmp-unrelated");
        assert_eq!(host.send("db", &there.ping(7)), "web");
        assert_eq!(host.send("web", &there.back().pong(8)), "drop icmp-unrelated");
        assert_eq!(host.send("web", &there.back().pong(7)), "db");
        assert_eq!(host.happened(), ["started icmp-unreplied"]);
        assert_eq!(host.record().state, "icmp-replied");
    }
}

/// The identifier of a ping is the sender's choice: it must not be taken for type and code of another message.
#[test]
fn who_may_ping_may_not_send_other_messages_with_that_number() {
    let mut host = Host::new(three_tiers());
    let there = v4("web", "app");
    assert_eq!(host.send("web", &there.ping(0x2a00)), "app");
    for (kind, name) in [(42, "extended echo"), (15, "information"), (13, "timestamp")] {
        let id = u16::from_be_bytes([kind, 0]);
        assert_eq!(host.send("web", &there.ping(id)), "app");
        let frame = there.icmp(kind, 0, [kind, 0, 0, 1], b"");
        assert_eq!(host.send("web", &frame), "drop default-deny", "{name}");
        let back = there.back().icmp(kind, 0, [kind, 0, 0, 1], b"");
        assert_eq!(host.send("app", &back), "drop default-deny", "{name}");
    }
    let there = v6("web", "app");
    assert_eq!(host.send("web", &there.ping(0xa000)), "app");
    assert_eq!(host.send("web", &there.icmp(160, 0, [0xa0, 0, 0, 1], b"")), "drop default-deny");
    assert_eq!(host.send("app", &there.back().icmp(160, 0, [0xa0, 0, 0, 1], b"")), "drop default-deny");
}

#[test]
fn a_timestamp_is_answered_as_a_ping_is() {
    let mut host = Host::new(vec![policy("time", vec![allow(1, WEB, APP, icmp(1, 13))])]);
    let there = v4("web", "app");
    assert_eq!(host.send("app", &there.back().icmp(14, 0, [0, 7, 0, 1], &[0; 12])), "drop icmp-unrelated");
    assert_eq!(host.send("web", &there.icmp(13, 0, [0, 7, 0, 1], &[0; 12])), "app");
    assert_eq!(host.send("web", &there.ping(7)), "drop default-deny");
    assert_eq!(host.send("app", &there.back().pong(7)), "drop icmp-unrelated");
    assert_eq!(host.send("app", &there.back().icmp(14, 0, [0, 7, 0, 1], &[0; 12])), "web");
}

#[test]
fn neighbour_discovery_is_the_guards_and_no_rules() {
    // An advertisement of the own address: flags, target, and the link-layer address as option 2.
    let (web, app) = (called("web"), called("app"));
    let std::net::IpAddr::V6(own) = web.address(true) else { panic!("IPv6") };
    let data = [&own.octets()[..], &[2, 1], &web.mac()].concat();
    let mut frame = v6("web", "app").icmp(136, 0, [0x20, 0, 0, 0], &data);
    frame[21] = 255;
    let mut host = Host::new(vec![]);
    assert_eq!(host.send("web", &frame), app.name);
    assert!(host.flows.is_empty() && host.take_events().is_empty());
    assert!(host.trace("web", &frame).passes());
}

#[test]
fn a_packet_for_one_goes_to_no_other() {
    for path in BOTH {
        let mut host = Host::new(open());
        let db = called("db").mac();
        let frame = path("web", "app").to_mac(db).udp(1, 2, b"");
        assert_eq!(host.send("web", &frame), dropped(DropReason::DestinationMismatch));
        // Neither with a flow: its address alone does not bring it to another port.
        assert_eq!(host.send("web", &path("web", "app").udp(1, 2, b"")), "app");
        assert_eq!(host.send("web", &frame), dropped(DropReason::DestinationMismatch));
    }
    let gateway = v4("web", "app").to("10.0.1.1").udp(1, 2, b"");
    assert_eq!(Host::new(open()).send("web", &gateway), dropped(DropReason::DestinationMismatch));
}

/// Sent to the MAC of a virtual machine that routes.
#[test]
fn an_address_that_nobody_has_is_judged_as_one_outside() {
    let rules = || vec![allow(1, WEB, OUTSIDE, port(17, 53)), allow(2, WEB, APP, port(17, 80))];
    let admit = |to: Vec<Peer>, id| RuleConfig { to, ..rule(id, Action::Allow) };
    let outside = |address| v4("web", "app").to(address);
    // The routing machine admits what it gets as what it is: its rules name its own groups.
    let app_only = RuleConfig { direction: IN, ..admit(vec![APP], 3) };
    let mut host = Host::new(vec![policy("p", [rules(), vec![app_only]].concat())]);
    assert_eq!(host.send("web", &outside("198.51.100.9").udp(1, 53, b"")), "app");
    assert_eq!(host.send("web", &outside("203.0.113.9").udp(1, 53, b"")), "drop default-deny");
    let record = host.last_drop();
    assert_eq!(record.direction, OUT);
    assert_eq!(groups(&host.snapshot, &record)[1], Vec::<String>::new());
}

/// A policy that protects one group would be passed by, if a frame to a member's MAC were judged by whatever address it
/// names: hosts take broadcasts, and multicast of groups they joined, in any frame.
#[test]
fn a_ports_own_rules_are_not_escaped_by_another_address() {
    let closed =
        policy("closed", vec![RuleConfig { direction: IN, from: vec![WEB], ..rule(1, Action::Drop) }]);
    let applies_to_app = pipeline::policy::FirewallPolicyConfig { applies_to: vec![APP], ..closed };
    let mut host = Host::new([vec![applies_to_app], open()].concat());
    let there = v4("web", "app");
    assert_eq!(host.send("web", &there.udp(1, 2, b"")), "drop policy-drop");
    for address in ["10.0.1.255", "255.255.255.255", "224.0.0.251", "198.51.100.9", "10.0.1.200"] {
        assert_eq!(host.send("web", &there.to(address).udp(1, 2, b"")), "drop policy-drop", "{address}");
    }
    for address in ["ff02::1", "ff02::fb", "2001:db8::1"] {
        let frame = v6("web", "app").to(address).udp(1, 2, b"");
        assert_eq!(host.send("web", &frame), "drop policy-drop", "{address}");
    }
    // By its addresses too: it is at its first.
    let by_address = Peer::Cidr("10.0.1.12".parse().expect("an address"), 32);
    let mut policies = host.config.policies.clone();
    policies[0].applies_to = vec![by_address];
    host.change(policies);
    assert_eq!(host.send("web", &there.udp(1, 2, b"")), "drop policy-drop");
    assert_eq!(host.send("web", &there.to("255.255.255.255").udp(1, 2, b"")), "drop policy-drop");
}

#[test]
fn networks_do_not_share_flows() {
    let mut host = Host::new(vec![policy("p", vec![allow(1, WEB, DB, port(17, 53))])]);
    assert_eq!(host.send("web", &v4("web", "db").udp(1, 53, b"")), "db");
    // The same MACs and addresses.
    assert_eq!(v4("web", "db").udp(1, 53, b""), v4("red", "rose").udp(1, 53, b""));
    assert_eq!(host.send("red", &v4("red", "rose").udp(1, 53, b"")), "drop default-deny");
    assert_eq!(host.send("rose", &v4("rose", "red").udp(53, 1, b"")), "drop default-deny");
    host.change(open());
    assert_eq!(host.send("red", &v4("red", "rose").udp(1, 53, b"")), "rose");
    assert_eq!(host.records().len(), 2);
}

#[test]
fn excluded_ports_ask_nobody_and_between_two_nothing_is_tracked() {
    for path in BOTH {
        let mut host = Host::new(vec![]);
        assert_eq!(host.send("free", &path("free", "idle").udp(1, 2, b"")), "idle");
        assert_eq!(host.send("idle", &path("idle", "free").tcp((1, 2), "SF", (0, 0), b"")), "free");
        assert!(host.flows.is_empty() && host.take_events().is_empty());
        // The other's rules still hold.
        assert_eq!(host.send("free", &path("free", "web").udp(1, 2, b"")), "drop default-deny");
        assert_eq!(host.last_drop().direction, IN);
        assert_eq!(host.send("web", &path("web", "free").udp(1, 2, b"")), "drop default-deny");
        assert_eq!(host.last_drop().direction, OUT);
    }
}

#[test]
fn one_enforced_side_is_enough_to_track() {
    let to_web =
        RuleConfig { direction: IN, services: vec![port(17, 53)], ..allow(1, Peer::Any, WEB, port(17, 53)) };
    let mut host = Host::new(vec![policy("p", vec![to_web])]);
    let there = v4("free", "web");
    assert_eq!(host.send("web", &there.back().udp(53, 9, b"!")), "drop default-deny");
    assert_eq!(host.send("free", &there.udp(9, 53, b"?")), "web");
    assert_eq!(host.record().rules, [None, Some(RuleId(1))], "nobody was asked at the excluded port");
    assert_eq!(host.send("web", &there.back().udp(53, 9, b"!")), "free");
    assert_eq!(host.begun_by("free"), 1);
}

#[test]
fn a_port_that_is_excluded_and_back_again_is_judged_again() {
    let mut host = Host::new(vec![]);
    let web_off = |firewall| {
        let off = |guest: Guest| match guest.name {
            "web" | "app" => Guest { firewall, ..guest },
            _ => guest,
        };
        GUESTS.map(off).to_vec()
    };
    let there = v4("web", "app");
    assert_eq!(host.send("web", &there.udp(1, 2, b"")), "drop default-deny");
    host.go_over_to(Config { revision: 2, guests: web_off(false), ..host.config.clone() });
    assert_eq!(host.send("web", &there.udp(1, 2, b"")), "app");
    host.go_over_to(Config { revision: 3, guests: web_off(true), ..host.config.clone() });
    assert_eq!(host.send("web", &there.udp(1, 2, b"")), "drop default-deny");
}
