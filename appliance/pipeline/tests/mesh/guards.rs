//! What another host may not say: each refusal has its reason, and names the host.

use std::collections::BTreeSet;

use pipeline::policy::Action;
use pipeline::{DropReason, Origin, Stage};
use wire::geneve::Builder;

use crate::frames::{between, v4, v6};
use crate::world::{Config, Datagram, GUESTS, Node, called, gateway, host, id, rule};

/// From `app` on host b to `web` on host a.
fn honest() -> Datagram {
    let header = Builder { vni: 100, identity: Some(2), port: Some(id("web")), ..Builder::default() };
    Datagram::new("b", header, &v4("app", "web").udp(5, 6, b"datagram"))
}

fn with(change: impl FnOnce(&mut Builder)) -> Datagram {
    let mut header = Builder { vni: 100, identity: Some(2), port: Some(id("web")), ..Builder::default() };
    change(&mut header);
    Datagram::new("b", header, &honest().frame)
}

fn carrying(frame: Vec<u8>) -> Datagram {
    Datagram { frame, ..honest() }
}

/// What may not come from host b, and why.
fn refused() -> Vec<(&'static str, Datagram)> {
    let tunnel = |change: fn(&mut Vec<u8>)| {
        let mut datagram = honest();
        change(&mut datagram.tunnel);
        datagram
    };
    let mut stolen = v4("far", "web");
    stolen.from_mac = gateway(0);
    let mut of_other_router = v4("rouge", "web");
    (of_other_router.from_mac, of_other_router.from) = (gateway(0), called("near").address(false));
    vec![
        ("unknown-peer", Datagram { from: "192.0.2.99".parse().unwrap(), ..honest() }),
        ("untrusted-underlay", Datagram { trusted: false, ..honest() }),
        ("geneve-version", tunnel(|bytes| bytes[0] |= 0x40)),
        ("geneve-length", tunnel(|bytes| bytes.truncate(12))),
        ("geneve-length", tunnel(|bytes| bytes[0] -= 1)),
        ("geneve-length", tunnel(|bytes| bytes.clear())),
        ("geneve-length", tunnel(|bytes| bytes.extend([0; 4]))),
        ("geneve-critical-option", tunnel(|bytes| bytes[10] = 0x85)),
        ("geneve-protocol", tunnel(|bytes| bytes[2] = 0x08)),
        ("geneve-control", with(|header| header.control = true)),
        ("unknown-vni", with(|header| header.vni = 101)),
        ("vni-not-owned", Datagram { from: "192.0.2.3".parse().unwrap(), ..with(|header| header.vni = 500) }),
        ("identity-missing", with(|header| header.identity = None)),
        ("identity-not-owned", with(|header| header.identity = Some(4))),
        ("identity-not-owned", with(|header| header.identity = Some(1))),
        ("congestion-marked", Datagram { ecn: 3, ..honest() }),
        // A port of another host, one of our own, nobody; an address of another's, over either version.
        ("remote-spoofed", carrying(v4("far", "web").udp(5, 6, b""))),
        ("remote-spoofed", carrying(v4("free", "web").udp(5, 6, b""))),
        ("remote-spoofed", carrying(v4("lost", "web").udp(5, 6, b""))),
        ("remote-spoofed", carrying(v6("far", "web").udp(5, 6, b""))),
        (
            "remote-spoofed",
            carrying(between(called("app"), called("web"), false).to("10.0.1.12").back().udp(5, 6, b"")),
        ),
        // The gateway with a packet of another host's port, or of nobody.
        ("remote-spoofed", carrying(stolen.udp(5, 6, b""))),
        ("remote-spoofed", carrying(of_other_router.udp(5, 6, b""))),
        ("stale-destination", with(|header| header.port = Some(id("free")))),
        // Not through a move: host a is not on the way.
        ("remote-destination", with(|header| header.port = None).to(&v4("app", "far").udp(5, 6, b""))),
        ("unknown-destination", carrying(v4("app", "web").to_mac([2, 0, 0, 0, 0, 99]).udp(5, 6, b""))),
        ("rogue-dhcp-server", carrying(v4("app", "web").udp(67, 68, b"offer"))),
    ]
}

impl Datagram {
    fn to(self, frame: &[u8]) -> Self {
        Self { frame: frame.to_vec(), ..self }
    }
}

#[test]
fn what_is_honest_passes() {
    let mut node = Node::new("a", &Config::open());
    assert_eq!(node.receive(&honest()).shown(), "web");
    assert_eq!(node.receive(&with(|header| header.port = None)).shown(), "web", "the port is a hint");
    let mut from_gateway = v4("db", "web");
    from_gateway.from_mac = gateway(0);
    let header = Builder { vni: 100, identity: Some(3), port: Some(id("web")), ..Builder::default() };
    let routed = Datagram::new("b", header, &from_gateway.udp(5, 6, b""));
    assert_eq!(node.receive(&routed).shown(), "web");
}

#[test]
fn each_refusal_has_its_reason_and_names_the_host() {
    let mut node = Node::new("a", &Config::open());
    for (reason, datagram) in refused() {
        assert_eq!(node.receive(&datagram).shown(), format!("drop {reason}"), "{datagram:02x?}");
        let record = node.last_drop();
        let origin = if reason == "unknown-peer" { Origin::Stranger } else { Origin::Host(host("b")) };
        if reason != "vni-not-owned" {
            assert_eq!((record.origin, record.reason.name()), (origin, reason));
        }
        assert_eq!(record.len as usize, datagram.frame.len());
    }
    assert!(node.flows.is_empty(), "nothing was made of it");
}

#[test]
fn every_reason_of_the_way_from_the_underlay_has_a_frame() {
    let tested: BTreeSet<&str> = refused().iter().map(|(reason, _)| *reason).collect();
    for reason in DropReason::ALL {
        let ours = reason.stage() == Stage::Decap
            || matches!(reason, DropReason::RemoteSpoofed | DropReason::StaleDestination);
        assert!(!ours || tested.contains(reason.name()), "{reason}");
    }
}

#[test]
fn a_mark_of_congestion_reaches_who_understands_it() {
    let mut node = Node::new("a", &Config::open());
    let mut capable = honest();
    capable.frame[15] |= 2;
    let mut packet = smoltcp::wire::Ipv4Packet::new_unchecked(&mut capable.frame[14..]);
    packet.fill_checksum();
    capable.ecn = 3;
    let fate = node.receive(&capable);
    assert_eq!((fate.shown().as_str(), fate.bytes[15] & 3), ("web", 3));
    assert!(smoltcp::wire::Ipv4Packet::new_unchecked(&fate.bytes[14..]).verify_checksum());
}

#[test]
fn an_identity_counts_as_what_its_host_says() {
    // Group 2 (identity 3, which b has by `db`) may; `app` (identity 2) may not.
    let allowed = |from: u32| {
        let rule = rule(1, Action::Allow, &[]);
        pipeline::policy::RuleConfig { from: vec![pipeline::policy::Peer::Group(from)], ..rule }
    };
    let config = Config::of(vec![allowed(2)]);
    let mut node = Node::new("a", &config);
    assert_eq!(node.receive(&honest()).shown(), "drop default-deny");
    let record = node.last_drop();
    assert_eq!(record.origin, Origin::Host(host("b")));
    assert_eq!(record.key.map(|key| key.source.0), Some(called("app").address(false)));
    // The label changes: b knows first. Its number is one that we know of another port of b's.
    assert_eq!(node.receive(&with(|header| header.identity = Some(3))).shown(), "web");
}

#[test]
fn an_identity_that_is_not_known_yet_is_judged_by_the_address() {
    let mut node = Node::new("a", &Config::open());
    assert_eq!(node.receive(&with(|header| header.identity = Some(900))).shown(), "web");
    let denied = Config::of(vec![]);
    let mut node = Node::new("a", &denied);
    assert_eq!(node.receive(&with(|header| header.identity = Some(900))).shown(), "drop default-deny");
}

#[test]
fn an_identity_that_the_host_had_until_just_now_is_taken_from_it() {
    let config = Config { identities: vec![4], ..Config::open() };
    let mut node = Node::new("a", &config);
    assert_eq!(node.receive(&with(|header| header.identity = Some(4))).shown(), "web");
}

#[test]
fn somebody_elses_endpoint_needs_no_options_but_speaks_only_for_its_own() {
    let mut node = Node::new("a", &Config::open());
    let bare = Builder { vni: 100, ..Builder::default() };
    let frame = v4("ext", "web").udp(5, 6, b"");
    assert_eq!(node.receive(&Datagram::new("x", bare, &frame)).shown(), "web");
    assert_eq!(node.receive(&Datagram::new("b", bare, &frame)).shown(), "drop remote-spoofed");
    let claims = Builder { identity: Some(2), ..bare };
    assert_eq!(node.receive(&Datagram::new("x", claims, &frame)).shown(), "drop identity-not-owned");
}

#[test]
fn the_reasons_of_a_port_are_those_of_every_guest() {
    // Each guest of another host may send as itself, and none as another of its host.
    for guest in GUESTS.iter().filter(|guest| matches!(guest.host, Some("b" | "c"))) {
        let mut node = Node::new("a", &Config::open());
        let (vni, ..) = crate::world::NETWORKS[guest.network];
        let header = Builder { vni, identity: Some(guest.identity), ..Builder::default() };
        let own = between(*guest, called("web"), false);
        let broadcast = own.to("255.255.255.255").to_mac([0xff; 6]).udp(5, 6, b"");
        let host = guest.host.unwrap_or_default();
        assert_eq!(node.receive(&Datagram::new(host, header, &broadcast)).shown(), "flood");
        let mut stolen = broadcast.clone();
        stolen[29] ^= 0x40;
        assert_eq!(node.receive(&Datagram::new(host, header, &stolen)).shown(), "drop remote-spoofed");
    }
}
