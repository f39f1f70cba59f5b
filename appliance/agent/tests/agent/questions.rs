//! What became of packets, and why: asked of an agent on its local socket.

use std::io::{BufRead, BufReader};

use agent::Poll;
use mgmt_types::agent::{Link, Peer, ServiceMatch, Slice, SliceGroup, SliceIdentity, SlicePolicy, SliceRule};
use mgmt_types::question::{FlowTidings, FlowUpdate, Trace, TraceOutcome, Verdict, VerdictKind};
use mgmt_types::{PolicyMode, RuleAction, RuleDirection, Tier};

use crate::bed::guest::{Guest, NET, feature};
use crate::bed::packet::udp;
use crate::bed::{Bed, eventually};

const PLAIN: [u8; NET] = [0; NET];

fn policy(name: &str, tier: Tier, applies_to: Peer, rules: Vec<SliceRule>) -> SlicePolicy {
    let (mode, applies_to) = (PolicyMode::Enforce, vec![applies_to]);
    SlicePolicy { name: name.into(), revision: 5, tier, priority: 100, mode, applies_to, rules }
}

fn rule(id: u32, name: &str, direction: RuleDirection, action: RuleAction, from: Vec<Peer>) -> SliceRule {
    SliceRule {
        id,
        name: name.into(),
        direction: Some(direction),
        action,
        from,
        to: Vec::new(),
        services: Vec::new(),
        log: false,
        keep_established: false,
    }
}

/// box-1 is in group web, box-2 in db, box-3 in none. Into db only web may, by UDP to port 9.
fn shop(bed: &Bed, revision: u64) -> Slice {
    let mut slice = bed.guests(revision, &[1, 2, 3]);
    slice.groups = ["web", "db"].map(|name| SliceGroup { name: name.into(), cidrs: Vec::new() }).into();
    slice.identities =
        vec![SliceIdentity { id: 1, groups: vec![0] }, SliceIdentity { id: 2, groups: vec![1] }];
    (slice.ports[0].identity, slice.ports[1].identity) = (1, 2);
    let mut to_db = rule(1, "to-db", RuleDirection::In, RuleAction::Allow, vec![Peer::Group(0)]);
    to_db.services = vec![ServiceMatch { protocol: Some(17), ports: Some((9, 9)), icmp: None }];
    let out = rule(2, "out", RuleDirection::Out, RuleAction::Allow, Vec::new());
    slice.policies = vec![
        policy("shop", Tier::Application, Peer::Group(1), vec![to_db]),
        policy("baseline", Tier::Baseline, Peer::Any, vec![out]),
    ];
    slice
}

fn serving(name: &str, poll: Poll) -> (Bed, [Guest; 3]) {
    let mut bed = Bed::without_namespaces(name);
    bed.poll = poll;
    bed.start();
    bed.put(shop(&bed, 7));
    let guests = [1, 2, 3].map(|n| {
        let mut guest = Guest::boot(&bed.socket(n), 1, feature::PLAIN);
        eventually("the link is up", || bed.link(n) == Link::Up);
        bed.announcements(&mut guest);
        guest
    });
    (bed, guests)
}

fn verdicts(bed: &Bed, path: &str) -> Vec<Verdict> {
    serde_json::from_str(&bed.get(path)).expect("verdicts")
}

fn trace(bed: &Bed, source: &str, destination: &str, service: &str) -> Trace {
    let request =
        format!(r#"{{"source": "{source}", "destination": "{destination}", "service": "{service}"}}"#);
    let (status, body) = bed.post("/v1/trace", &request);
    assert_eq!(status, "HTTP/1.0 200 OK", "{body}");
    serde_json::from_str(&body).expect("a trace")
}

#[test]
fn what_passed_and_what_did_not_are_told_with_rule_groups_and_revision() {
    let (bed, [mut web, mut db, mut other]) = serving("why", Poll::Adaptive);
    web.send(0, PLAIN, &udp(1, 2, 4000, b"welcome"));
    eventually("it arrives", || db.receive(0).len() == 1);
    other.send(0, PLAIN, &udp(3, 2, 4001, b"nobody knows me"));
    eventually("it is dropped", || bed.port(3).drops.get("default-deny") == Some(&1));

    // Who was meant finds both, who sent only its own.
    let all = verdicts(&bed, "/v1/workloads/box-2/verdicts");
    let [admitted, denied] = all.as_slice() else { panic!("{all:#?}") };
    assert_eq!((admitted.verdict, admitted.port.as_str()), (VerdictKind::Admitted, "box-1.eth0"));
    let rules: Vec<String> = admitted.rules.iter().map(ToString::to_string).collect();
    assert_eq!(rules, ["baseline/out (baseline, allow out)", "shop/to-db (application, allow in)"]);
    assert_eq!(
        (denied.verdict, denied.port.as_str(), denied.revision),
        (VerdictKind::Dropped, "box-3.eth0", 7)
    );
    assert_eq!(denied.reason.as_deref(), Some("default-deny"));
    assert_eq!(denied.direction, Some(RuleDirection::In));
    assert_eq!(denied.source_groups.as_deref(), Some(&[][..]));
    assert_eq!(denied.destination_groups.as_deref(), Some(&["db".to_owned()][..]));
    let flow = denied.flow.as_ref().expect("a flow").to_string();
    assert_eq!(flow, "udp box-3.eth0 10.77.0.3:4001 > box-2.eth0 10.77.0.2:9");
    assert_eq!(verdicts(&bed, "/v1/workloads/box-3/verdicts?drops=true"), all[1..]);
    assert_eq!(verdicts(&bed, "/v1/workloads/box-1/verdicts?drops=true"), []);

    // The tables say the same of packets that nobody sent, and that one flow is known.
    let same = trace(&bed, "box-3", "box-2", "udp/9");
    assert_eq!(same.outcome, TraceOutcome::Dropped);
    assert_eq!(same.steps.last().and_then(|step| step.reason.as_deref()), Some("default-deny"));
    let good = trace(&bed, "box-1.eth0", "10.77.0.2", "udp/9");
    assert_eq!((good.outcome, good.revision), (TraceOutcome::Delivered, 7));
    assert_eq!(good.destination.groups, ["db"]);
    assert!(db.receive(0).is_empty(), "a trace was delivered");
    let (_, known) = bed.post(
        "/v1/trace",
        r#"{"source": "box-1", "destination": "box-2", "service": "udp/9", "sourcePort": 4000}"#,
    );
    assert!(known.contains("belongs to a flow (udp-unreplied, 1 packets), judged already"), "{known}");
}

#[test]
fn rules_and_ports_count_what_they_admit_and_refuse() {
    let (bed, [mut web, mut db, mut other]) = serving("count", Poll::Adaptive);
    let frame = udp(1, 2, 4000, b"a datagram");
    for _ in 0..5 {
        web.send(0, PLAIN, &frame);
    }
    db.send(0, PLAIN, &{
        let mut back = udp(2, 1, 9, b"and back");
        back[36..38].copy_from_slice(&4000u16.to_be_bytes());
        back
    });
    other.send(0, PLAIN, &udp(3, 1, 4001, b"no policy lets it in"));
    eventually("all is judged", || {
        bed.port(2).to_guest.packets == 5 && bed.port(1).to_guest.packets == 1 && bed.port(3).drops.len() == 1
    });
    let flows: FlowTidings = serde_json::from_str(&bed.get("/v1/flows?workload=box-2")).expect("flows");
    let [flow] = flows.flows.as_slice() else { panic!("{flows:#?}") };
    assert!(flow.state.starts_with("udp-"), "{flow:?}");
    assert_eq!(flow.packets, [5, 1]);
    assert_eq!(flow.bytes[0], 5 * frame.len() as u64);
    let none: FlowTidings = serde_json::from_str(&bed.get("/v1/flows?workload=box-3")).expect("flows");
    assert_eq!(none, FlowTidings::default());

    // Live flows are looked through once a second.
    eventually("the rules have it", || {
        bed.status().rules.iter().any(|rule| rule.id == 1 && rule.packets == 6)
    });
    let status = bed.status();
    let rules: Vec<(u32, u64, u64)> =
        status.rules.iter().map(|rule| (rule.id, rule.hits, rule.packets)).collect();
    assert_eq!(rules, [(1, 1, 6), (2, 1, 6)]);
    assert!(status.rules.iter().all(|rule| rule.last_hit.is_some_and(|time| time > 1_600_000_000_000)));
    let ports: Vec<(bool, u64)> = status.ports.iter().map(|port| (port.enforced, port.flows)).collect();
    assert_eq!(ports, [(true, 1), (true, 0), (true, 0)]);
    assert!(status.ports[0].flow_limit > 1);
}

#[test]
fn a_flood_is_told_in_part_with_its_size_and_hides_nothing() {
    let (bed, [_web, _db, mut other]) = serving("whyflood", Poll::Always);
    let mut spoofed = udp(3, 2, 1, b"not me");
    spoofed[11] = 9;
    other.send(0, PLAIN, &spoofed);
    let flood = 5000u16;
    for n in 0..flood {
        other.send(0, PLAIN, &udp(3, 2, 5000 + n, b"me me me"));
    }
    let count = u64::from(flood);
    eventually("all are dropped", || other.in_flight(0) == 0);
    assert_eq!(bed.port(3).drops.get("default-deny"), Some(&count), "{:?}", bed.port(3).drops);
    // What was held back is told with the next that is let through.
    let mut told = Vec::new();
    eventually("the flood is told", || {
        other.send(0, PLAIN, &udp(3, 2, 4999, b"me again"));
        told = verdicts(&bed, "/v1/workloads/box-3/verdicts?limit=1000");
        told.iter().any(|verdict| verdict.times > 1)
    });
    let [first, rest @ ..] = told.as_slice() else { panic!("nothing is told") };
    assert_eq!(first.reason.as_deref(), Some("spoofed-mac"));
    assert!(
        rest.len() <= 127 && rest.iter().all(|verdict| verdict.reason.as_deref() == Some("default-deny"))
    );
    let stands_for: u64 = rest.iter().map(|verdict| verdict.times).sum();
    assert!(stands_for <= bed.port(3).drops["default-deny"], "{stands_for}");
}

#[test]
fn who_follows_hears_of_flows_that_begin_end_and_are_refused() {
    let (mut bed, [mut web, mut db, mut other]) = serving("follow", Poll::Adaptive);
    let mut slice = shop(&bed, 8);
    slice.settings.timeouts.udp_unreplied = Some(1);
    bed.put(slice);
    let mut lines = BufReader::new(bed.open("/v1/flows?follow=true&workload=box-2")).lines();
    // The head is there once somebody is heard.
    assert_eq!(lines.next().expect("a line").expect("text"), "HTTP/1.0 200 OK");
    web.send(0, PLAIN, &udp(1, 2, 4000, b"once"));
    eventually("it arrives", || db.receive(0).len() == 1);
    other.send(0, PLAIN, &udp(3, 2, 4001, b"no"));
    other.send(0, PLAIN, &udp(3, 1, 4001, b"not box-2's business"));
    let mut heard = Vec::new();
    while heard.len() < 3 {
        let line = lines.next().expect("more").expect("text");
        let Some(data) = line.strip_prefix("data:") else { continue };
        let tidings: FlowTidings = serde_json::from_str(data).expect("tidings");
        assert_eq!(tidings.more, 0);
        heard.extend(tidings.events.into_iter().map(|event| event.update));
    }
    let [
        FlowUpdate::Started { flow: begun },
        FlowUpdate::Refused { verdict },
        FlowUpdate::Ended { flow, why },
    ] = heard.as_slice()
    else {
        panic!("{heard:#?}")
    };
    assert_eq!((&begun.flow, why.as_str(), flow.packets), (&flow.flow, "timed-out", [1, 0]));
    assert_eq!(verdict.port, "box-3.eth0");
}

#[test]
fn a_port_that_has_begun_most_of_what_it_may_shows_a_fault() {
    let mut bed = Bed::without_namespaces("alarm");
    bed.max_flows_per_port = 10;
    bed.start();
    bed.put(shop(&bed, 7));
    let mut web = Guest::boot(&bed.socket(1), 1, feature::PLAIN);
    eventually("the link is up", || bed.link(1) == Link::Up);
    for n in 0..7 {
        web.send(0, PLAIN, &udp(1, 2, 4000 + n, b"one more"));
    }
    eventually("seven flows", || bed.port(1).flows == 7);
    assert_eq!(bed.port(1).faults, Vec::<String>::new());
    web.send(0, PLAIN, &udp(1, 2, 5000, b"one more"));
    eventually("a fault", || {
        bed.port(1).faults == ["8 connections of at most 10: beyond, new ones end as state-limit"]
    });
}
