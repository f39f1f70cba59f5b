//! Every reason for which a frame ends in the flow stage, at the firewall, or for want of one destination.

use std::collections::BTreeSet;

use pipeline::policy::{Action, RuleConfig};
use pipeline::{DropReason, Stage};

use crate::fragments::pieces;
use crate::frames::v4;
use crate::world::{Host, called, open, policy, port, rule, table};

#[test]
fn every_drop_reason_of_flows_and_rules_has_a_frame() {
    let there = v4("web", "app");
    let service =
        |number, action| RuleConfig { services: vec![port(17, number)], ..rule(u32::from(number), action) };
    let rules = vec![service(1, Action::Drop), service(2, Action::Reject), service(3, Action::Allow)];
    let tcp = RuleConfig { services: vec![port(6, 80)], ..rule(80, Action::Allow) };
    let mut host = Host::with(vec![policy("p", [rules, vec![tcp]].concat())], table(4096, 2));
    let [two, limit] = ["two firsts", "udp"].map(pieces);
    let mut shown: Vec<String> = Vec::new();
    for frame in [
        there.tcp((9, 80), "SF", (1, 0), b""),
        there.tcp((9, 80), "FA", (1, 1), b""),
        there.tcp((9, 80), "S", (1, 0), b""),
        there.tcp((9, 80), "S", (1, 0), b""),
        there.udp(9, 1, b""),
        there.udp(9, 2, b""),
        there.udp(9, 3, b""),
        there.udp(8, 3, b""),
        there.udp(9, 4, b""),
        there.to_mac(called("db").mac()).udp(9, 3, b""),
        there.unreachable(&there.back().udp(5, 5, b"datagram")),
        two[0].clone(),
        two[1].clone(),
    ] {
        shown.push(host.send("web", &frame));
    }
    shown.push(host.send("app", &there.back().tcp((80, 9), "SA", (5, 999), b"")));
    // A fragment that waits for too long, and more than can wait.
    let mut host = Host::new(open());
    shown.push(host.send("web", &limit[1]));
    host.wait(31_000);
    let mut piece = limit[1].clone();
    for id in 100..170u16 {
        piece[18..20].copy_from_slice(&id.to_be_bytes());
        shown.push(host.send("web", &piece));
    }
    shown.extend(host.released("web").into_iter().map(|(_, shown)| shown));
    let got: BTreeSet<&str> =
        shown.iter().filter_map(|shown| shown.split_once(' ')).map(|(_, reason)| reason).collect();
    for reason in DropReason::ALL {
        let ours = matches!(reason.stage(), Stage::Flow | Stage::Firewall);
        if ours || *reason == DropReason::DestinationMismatch {
            assert!(got.contains(reason.name()), "{reason}: {shown:?}");
        }
    }
}
