//! A trace says what the pipeline would do, and does nothing.

use pipeline::policy::{Action, Direction, RuleConfig};
use pipeline::{DropReason, Finding, Stage, Verdict};
use proptest::prelude::*;

use crate::frames::{v4, v6};
use crate::world::{
    APP, Config, DB, GUESTS, Guest, Host, OUTSIDE, Sent, WEB, allow, called, icmp, policy, port, rule,
    three_tiers,
};

/// Who sends what to whom.
#[derive(Clone, Debug)]
struct Packet {
    from: usize,
    frame: Vec<u8>,
}

fn packets() -> impl Strategy<Value = Packet> {
    let ends = (0..GUESTS.len(), 0..GUESTS.len(), any::<bool>(), 0..12_u8);
    let numbers = (0..3_u16, 0..3_u16, 0..8_usize, 0..10_u8);
    (ends, numbers).prop_map(|((from, to, v6_, odd), (one, other, flags, kind))| {
        let (sender, receiver) = (GUESTS[from], GUESTS[to]);
        let mut path = if v6_ { v6(sender.name, receiver.name) } else { v4(sender.name, receiver.name) };
        match odd {
            0 => path = path.to_mac(called("db").mac()),
            1 if !v6_ => path = path.to("198.51.100.7"),
            2 if !v6_ => path = path.to("255.255.255.255"),
            3 if !v6_ => path = path.to("255.255.255.255").to_mac([0xff; 6]),
            4 => path = path.to_mac([2, 0, 0, 0, 0xff, 1]),
            _ => {}
        }
        let ports = [53, 80, 5432];
        let (one, other) = (ports[usize::from(one)], ports[usize::from(other)]);
        let flags = ["S", "SA", "A", "A", "FA", "R", "RA", "SF"][flags];
        let frame = match kind {
            0..4 => path.tcp((one, other), flags, (1000, 1001), b""),
            4..7 => path.udp(one, other, b"datagram"),
            7 => path.ping(one),
            8 => path.pong(one),
            _ => path.unreachable(&path.back().udp(other, one, b"datagram")),
        };
        Packet { from, frame }
    })
}

#[derive(Clone, Debug)]
enum Step {
    Send(Packet),
    Wait(u64),
    Change(usize, usize),
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => packets().prop_map(Step::Send),
        2 => (0..200_000_u64).prop_map(Step::Wait),
        1 => (0..4_usize, 0..3_usize).prop_map(|(policies, guests)| Step::Change(policies, guests)),
    ]
}

fn config(revision: u64, policies: usize, guests: usize) -> Config {
    let keep = RuleConfig { keep_established: true, ..rule(30, Action::Allow) };
    let policies = match policies {
        0 => three_tiers(),
        1 => vec![policy("keep", vec![keep])],
        2 => vec![
            policy("ban", vec![RuleConfig { services: vec![port(6, 80)], ..rule(20, Action::Reject) }]),
            policy("open", vec![rule(21, Action::Allow)]),
        ],
        _ => vec![policy(
            "some",
            vec![
                allow(40, WEB, OUTSIDE, port(17, 53)),
                allow(41, APP, DB, icmp(1, 8)),
                RuleConfig { direction: Some(Direction::In), ..rule(42, Action::Allow) },
            ],
        )],
    };
    let change = |guest: Guest| match (guests, guest.name) {
        (1, "web") => Guest { identity: 3, ..guest },
        (2, "app") => Guest { firewall: false, ..guest },
        _ => guest,
    };
    Config { revision, guests: GUESTS.map(change).to_vec(), policies }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn a_trace_agrees_with_the_pipeline_and_changes_nothing(all in proptest::collection::vec(steps(), 1..60)) {
        let mut host = Host::new(three_tiers());
        for step in all {
            match step {
                Step::Wait(milliseconds) => host.wait(milliseconds),
                Step::Change(policies, guests) => {
                    host.go_over_to(config(host.config.revision + 1, policies, guests));
                }
                Step::Send(Packet { from, frame }) => {
                    let name = GUESTS[from].name;
                    let before = host.records();
                    let trace = host.trace(name, &frame);
                    prop_assert_eq!(host.records(), before);
                    // So that no answer is spared.
                    host.wait(5);
                    let trace_again = host.trace(name, &frame);
                    prop_assert_eq!(trace.passes(), trace_again.passes());
                    let verdict = host.burst(name, &mut [Sent::new(&frame)])[0];
                    let last = trace_again.steps.last().expect("a step").finding;
                    match verdict {
                        Verdict::Deliver(to) => prop_assert_eq!(last, Finding::Delivered(to)),
                        Verdict::Flood => prop_assert_eq!(last, Finding::Flooded),
                        Verdict::Reply => prop_assert_eq!(last, Finding::Answered),
                        Verdict::Drop(reason) | Verdict::Refuse(reason) => {
                            prop_assert_eq!(last, Finding::Dropped(reason));
                        }
                        Verdict::Hold(_) => prop_assert!(false, "nothing is in fragments"),
                    }
                    prop_assert_eq!(trace.passes(), !matches!(verdict, Verdict::Drop(_) | Verdict::Refuse(_)));
                }
            }
        }
    }
}

fn stages(host: &Host, from: &str, frame: &[u8]) -> Vec<Stage> {
    host.trace(from, frame).steps.iter().map(|step| step.stage).collect()
}

#[test]
fn a_trace_names_each_stage_and_who_decided() {
    use Stage::{Deliver, Firewall, Flow, Guard, Offload, Parse, Respond};
    let mut host = Host::new(three_tiers());
    let frame = v4("web", "app").udp(4000, 53, b"?");
    assert_eq!(
        stages(&host, "web", &frame),
        [Parse, Guard, Offload, Respond, Flow, Firewall, Firewall, Deliver]
    );
    let trace = host.trace("web", &frame);
    let asked: Vec<_> = trace
        .steps
        .iter()
        .filter_map(|step| match step.finding {
            Finding::Asked(answer) => Some(answer),
            _ => None,
        })
        .collect();
    assert_eq!([asked[0].direction, asked[1].direction], [Direction::Out, Direction::In]);
    assert_eq!([asked[0].port, asked[1].port], [host.index("web"), host.index("app")]);
    for answer in asked {
        let rule = host.snapshot.policy().rule(answer.rule.expect("a rule"));
        assert_eq!((rule.id.0, answer.action), (2, Action::Allow));
    }
    assert_eq!(trace.key.expect("a key").destination.1, 53);
    assert!(host.flows.is_empty());

    assert_eq!(host.send("web", &frame), "app");
    assert_eq!(stages(&host, "web", &frame), [Parse, Guard, Offload, Respond, Flow, Deliver]);
    host.change(vec![]);
    let trace = host.trace("web", &frame);
    assert!(matches!(trace.steps[4].finding, Finding::Stale(record) if record.packets == [1, 0]));
    assert_eq!(trace.steps.last().expect("one").finding, Finding::Dropped(DropReason::DefaultDeny));
    assert_eq!(host.flows.len(), 1, "the trace ends nothing");

    let trace = host.trace("free", &v4("free", "web").udp(1, 2, b""));
    let excluded = Finding::Excluded { port: host.index("free"), direction: Direction::Out };
    assert!(trace.steps.iter().any(|step| step.finding == excluded));
}
