//! Fragments from another host share the fate of their first.

use pipeline::{Released, Verdict};
use smoltcp::wire::Ipv4Packet;
use wire::geneve::Builder;

use crate::frames::v4;
use crate::world::{Config, Datagram, Node, id, index, rule, to_port};
use pipeline::policy::Action;

/// The two halves of a datagram from `app` on b to `web` on a, to this port.
fn halves(port: u16) -> [Datagram; 2] {
    let path = v4("app", "web");
    let whole = path.udp(5, port, &[7; 64]);
    [(0, 32, true), (32, 72, false)].map(|(from, to, more)| {
        let mut frame = path.packet(17, &whole[34 + from..34 + to]);
        let mut packet = Ipv4Packet::new_unchecked(&mut frame[14..]);
        packet.set_ident(port);
        packet.set_more_frags(more);
        packet.set_frag_offset(from as u16);
        packet.fill_checksum();
        let header = Builder { vni: 100, identity: Some(2), port: Some(id("web")), ..Builder::default() };
        Datagram::new("b", header, &frame)
    })
}

fn node() -> Node {
    Node::new("a", &Config::of(vec![rule(1, Action::Allow, &[to_port(17, 6)])]))
}

fn shown(node: &mut Node, datagrams: &[Datagram]) -> Vec<String> {
    node.receive_all(datagrams).iter().map(|fate| fate.shown()).collect()
}

#[test]
fn in_order_they_pass_or_not_together() {
    let mut node = node();
    let [first, last] = halves(6);
    assert_eq!(shown(&mut node, std::slice::from_ref(&first)), ["web"]);
    assert_eq!(shown(&mut node, &[last]), ["web"]);
    let [first, last] = halves(7);
    assert_eq!(shown(&mut node, &[first]), ["drop default-deny"]);
    assert_eq!(shown(&mut node, &[last]), ["drop default-deny"]);
}

#[test]
fn within_a_burst_the_order_does_not_matter() {
    let mut node = node();
    for (port, want) in [(6, "web"), (7, "drop default-deny")] {
        let [first, last] = halves(port);
        assert_eq!(shown(&mut node, &[last, first]), [want, want]);
        assert!(node.work.released.is_empty());
    }
}

#[test]
fn over_bursts_one_waits_in_a_slot_of_the_underlay() {
    let mut node = node();
    let [first, last] = halves(6);
    assert_eq!(shown(&mut node, &[last]), ["hold 0"]);
    assert_eq!(shown(&mut node, &[first]), ["web"]);
    let released: Vec<Released> = node.work.released.drain(..).collect();
    assert_eq!(released, [Released { slot: 0, verdict: Verdict::Deliver(index("web")) }]);
    node.underlay.free(0);
    let [_, last] = halves(8);
    assert_eq!(shown(&mut node, &[last]), ["hold 0"], "the slot is free again");
}

#[test]
fn one_that_overlaps_ends_its_packet() {
    let mut node = node();
    let [first, last] = halves(6);
    assert_eq!(shown(&mut node, &[first.clone(), first]), ["web", "drop fragment-overlap"]);
    assert_eq!(shown(&mut node, &[last]), ["drop fragment-overlap"]);
    assert_eq!(node.last_drop().origin, pipeline::Origin::Host(crate::world::host("b")));
}
