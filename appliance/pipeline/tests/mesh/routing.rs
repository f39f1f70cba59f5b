//! Between the networks of a router.

use pipeline::{DropReason, Finding, HostIndex, RouteConfig, Verdict};
use smoltcp::wire::{IpAddress, Ipv4Packet, Ipv6Packet, TcpPacket, UdpPacket};

use crate::frames::{Path, v4, v6};
use crate::world::{Config, Mesh, Node, Sent, address, called, gateway, host, index};

/// The way from a guest through its gateway.
fn routed(from: &str, to: &str, over_v6: bool) -> Path {
    let path = if over_v6 { v6(from, to) } else { v4(from, to) };
    path.to_mac(gateway(called(from).network))
}

/// What a receiver should get of a frame: sent by its own gateway, one hop less, all checksums right.
fn assert_forwarded(sent: &[u8], got: &[u8], to: &str) {
    let to = called(to);
    assert_eq!((&got[..6], &got[6..12]), (&to.mac()[..], &gateway(to.network)[..]));
    let hop = if got[12] == 0x86 { 14 + 7 } else { 14 + 8 };
    assert_eq!(got[hop], sent[hop] - 1);
    if got[12] == 8 {
        assert!(Ipv4Packet::new_checked(&got[14..]).unwrap().verify_checksum());
    }
    assert_eq!(got[34..], sent[34..], "nothing else is changed");
}

#[test]
fn packets_go_between_networks_in_both_directions_and_are_one_flow() {
    for over_v6 in [false, true] {
        // On one host, and over two.
        for (from, to, at) in [("web", "near", "a"), ("web", "db", "b")] {
            let mut mesh = Mesh::new(&Config::open());
            // The first makes the flow, the third goes the established path.
            for round in 0..3 {
                let frame = routed(from, to, over_v6).udp(5, 6, b"question");
                let (there, fate) = mesh.send(from, &frame);
                assert_eq!((there, fate.shown().as_str()), (at, to), "round {round}");
                assert_forwarded(&frame, &fate.bytes, to);
                let frame = routed(to, from, over_v6).udp(6, 5, b"answer");
                let (there, fate) = mesh.send(to, &frame);
                assert_eq!((there, fate.shown().as_str()), ("a", from), "round {round}");
                assert_forwarded(&frame, &fate.bytes, from);
            }
            for node in ["a", at] {
                assert_eq!(mesh.node(node).flows.len(), 1);
            }
        }
    }
}

#[test]
fn an_open_checksum_stays_open() {
    let mut node = Node::new("a", &Config::open());
    for _ in 0..3 {
        let mut sent = Sent::new(&routed("web", "near", false).udp(5, 6, b"question"));
        sent.net = [1, 0, 0, 0, 0, 0, 34, 0, 6, 0, 0, 0];
        let before = sent.clone();
        let fate = node.send_all("web", std::slice::from_mut(&mut sent)).remove(0);
        assert_eq!((fate.shown().as_str(), sent.net), ("near", before.net));
        assert_forwarded(&before.bytes(), &fate.bytes, "near");
        node.send("near", &routed("near", "web", false).udp(6, 5, b""));
    }
}

#[test]
fn addresses_of_two_routers_do_not_meet() {
    let mut mesh = Mesh::new(&Config::open());
    // The same four addresses twice, at the same time, over the same hosts.
    for _ in 0..3 {
        for (from, to) in [("web", "db"), ("red", "rouge")] {
            let frame = routed(from, to, false).udp(5, 6, from.as_bytes());
            let (at, fate) = mesh.send(from, &frame);
            assert_eq!((at, fate.shown().as_str()), ("b", to));
            assert_forwarded(&frame, &fate.bytes, to);
            let frame = routed(to, from, false).udp(6, 5, b"");
            assert_eq!(mesh.sent(to, &frame), format!("{from} at a"));
        }
    }
    assert_eq!(mesh.node("a").flows.len(), 2);
    // Plain has the same addresses once more, and no router.
    assert_eq!(mesh.sent("plain", &v4("plain", "flat").udp(5, 6, b"")), "flat at b");
    assert_eq!(mesh.sent("plain", &routed("plain", "db", false).udp(5, 6, b"")), "drop no-route at a");
}

#[test]
fn the_macs_of_one_network_are_nothing_in_another() {
    // `near` is on green; on blue nobody has its MAC.
    let mut node = Node::new("a", &Config::open());
    node.send("web", &routed("web", "near", false).udp(5, 6, b""));
    node.send("near", &routed("near", "web", false).udp(6, 5, b""));
    assert_eq!(node.send("web", &v4("web", "near").udp(5, 6, b"")).shown(), "drop unknown-destination");
}

#[test]
fn the_gateway_says_so_when_the_time_is_over() {
    for (over_v6, protocol, kind) in [(false, 1, 11), (true, 58, 3)] {
        let mut node = Node::new("a", &Config::open());
        // A flow that is established changes nothing.
        node.send("web", &routed("web", "near", over_v6).udp(5, 6, b""));
        node.send("near", &routed("near", "web", over_v6).udp(6, 5, b""));
        let mut frame = routed("web", "near", over_v6).udp(5, 6, b"probe");
        frame[if over_v6 { 14 + 7 } else { 14 + 8 }] = 1;
        if !over_v6 {
            Ipv4Packet::new_unchecked(&mut frame[14..]).fill_checksum();
        }
        let fate = node.send("web", &frame);
        assert_eq!(fate.verdict, Verdict::Refuse(DropReason::TtlExceeded));
        assert_error(&fate.bytes, "web", over_v6, (protocol, kind, 0));
        assert_eq!(fate.bytes[if over_v6 { 62 } else { 42 }..][..20], frame[14..34], "it quotes the packet");
    }
}

/// An ICMP error from the gateway of a guest's network to the guest.
fn assert_error(bytes: &[u8], to: &str, over_v6: bool, (protocol, kind, code): (u8, u8, u8)) {
    let to = called(to);
    assert_eq!((&bytes[..6], &bytes[6..12]), (&to.mac()[..], &gateway(to.network)[..]));
    if over_v6 {
        let packet = Ipv6Packet::new_checked(&bytes[14..]).unwrap();
        assert_eq!(u8::from(packet.next_header()), protocol);
        assert_eq!(
            (packet.src_addr(), packet.dst_addr()),
            match (address("fd00:1::1"), to.address(true)) {
                (std::net::IpAddr::V6(from), std::net::IpAddr::V6(to)) => (from, to),
                _ => panic!("IPv6"),
            }
        );
        let message = smoltcp::wire::Icmpv6Packet::new_checked(packet.payload()).unwrap();
        assert!(message.verify_checksum(&packet.src_addr(), &packet.dst_addr()));
        assert_eq!((packet.payload()[0], packet.payload()[1]), (kind, code));
    } else {
        let packet = Ipv4Packet::new_checked(&bytes[14..]).unwrap();
        assert!(packet.verify_checksum());
        assert_eq!(u8::from(packet.next_header()), protocol);
        assert_eq!(std::net::IpAddr::V4(packet.src_addr()), address("10.0.1.1"));
        assert_eq!(std::net::IpAddr::V4(packet.dst_addr()), to.address(false));
        let message = smoltcp::wire::Icmpv4Packet::new_checked(packet.payload()).unwrap();
        assert!(message.verify_checksum());
        assert_eq!((packet.payload()[0], packet.payload()[1]), (kind, code));
    }
}

#[test]
fn the_gateway_says_so_when_there_is_no_way() {
    let mut node = Node::new("a", &Config::open());
    for (over_v6, to, want) in [
        (false, "203.0.113.7", (1, 3, 0)),
        (false, "10.0.2.200", (1, 3, 0)),
        (true, "2001:db8::7", (58, 1, 0)),
    ] {
        let fate = node.send("web", &routed("web", "near", over_v6).to(to).udp(5, 6, b""));
        assert_eq!(fate.verdict, Verdict::Refuse(DropReason::NoRoute));
        assert_error(&fate.bytes, "web", over_v6, want);
    }
    // Nobody is told about errors, and of what was for many.
    let outside = Path { from: address("203.0.113.7"), ..v4("far", "web") };
    let error = routed("web", "near", false).to("203.0.113.7").unreachable(&outside.udp(1, 2, b"12345678"));
    assert_eq!(node.send("web", &error).shown(), "drop no-route");
    let broadcast = routed("web", "near", false).to("10.0.1.255").udp(5, 6, b"");
    assert_eq!(node.send("web", &broadcast).shown(), "drop no-route");
    let multicast = routed("web", "near", false).to("224.0.0.9").udp(5, 6, b"");
    assert_eq!(node.send("web", &multicast).shown(), "drop no-route");
    // Nor of what is for the gateway itself and is no ping.
    let to_gateway = routed("web", "near", false).to("10.0.2.1").udp(5, 6, b"");
    assert_eq!(node.send("web", &to_gateway).shown(), "drop no-route");
}

#[test]
fn errors_of_the_gateway_are_limited() {
    let mut node = Node::new("a", &Config::open());
    let frame = routed("web", "near", false).to("203.0.113.7").udp(5, 6, b"");
    let told = (0..200).filter(|_| matches!(node.send("web", &frame).verdict, Verdict::Refuse(_))).count();
    assert_eq!(told, 50, "a burst, and then 200 a second");
}

#[test]
fn every_gateway_of_the_router_answers_ping() {
    let mut node = Node::new("a", &Config::open());
    for (over_v6, to) in [(false, "10.0.1.1"), (false, "10.0.2.1"), (true, "fd00:1::1"), (true, "fd00:2::1")]
    {
        let fate = node.send("web", &routed("web", "near", over_v6).to(to).ping(1));
        assert_eq!(fate.shown(), "reply", "{to}");
        assert_eq!(fate.bytes[..6], called("web").mac());
    }
    assert_eq!(
        node.send("web", &routed("web", "near", false).ping(1)).shown(),
        "near",
        "others answer themselves"
    );
}

#[test]
fn the_rules_see_the_real_ends() {
    use pipeline::policy::{Action, Direction, Peer, RuleConfig};
    let only = |direction, from, to| RuleConfig {
        direction: Some(direction),
        from: vec![Peer::Group(from)],
        to: vec![Peer::Group(to)],
        ..crate::world::rule(1 + u32::from(direction == Direction::In), Action::Allow, &[])
    };
    // Web is in group 0, db in 2, near in 4.
    for (to, group, at) in [("db", 2, "b"), ("near", 4, "a")] {
        let frame = routed("web", to, false).udp(5, 6, b"");
        let both = vec![only(Direction::Out, 0, group), only(Direction::In, 0, group)];
        assert_eq!(Mesh::new(&Config::of(both)).sent("web", &frame), format!("{to} at {at}"));
        let out = vec![only(Direction::Out, 0, group)];
        assert_eq!(Mesh::new(&Config::of(out)).sent("web", &frame), format!("drop default-deny at {at}"));
        let into = vec![only(Direction::In, 0, group)];
        assert_eq!(Mesh::new(&Config::of(into)).sent("web", &frame), "drop default-deny at a");
    }
}

#[test]
fn a_static_route_leads_through_a_port_and_the_longest_prefix_counts() {
    let route = |to: &str, len, via: &str| RouteConfig { to: (address(to), len), via: address(via) };
    let routes = vec![
        route("0.0.0.0", 0, "10.0.2.16"),
        route("198.51.100.0", 24, "10.0.1.12"),
        route("198.51.100.64", 26, "10.0.2.13"),
        route("192.0.2.0", 24, "10.0.1.200"),
    ];
    let mut mesh = Mesh::new(&Config { routes, ..Config::open() });
    for (to, want) in [
        ("203.0.113.7", "near at a"),
        ("198.51.100.1", "app at b"),
        ("198.51.100.65", "db at b"),
        ("192.0.2.1", "refuse no-route at a"),
        ("10.0.2.13", "db at b"),
    ] {
        for _ in 0..2 {
            let frame = routed("web", "near", false).to(to).udp(5, 6, b"");
            assert_eq!(mesh.sent("web", &frame), want, "{to}");
        }
    }
}

#[test]
fn fragments_follow_their_first_through_the_router() {
    let mut node = Node::new("a", &Config::open());
    let path = routed("web", "near", false);
    let whole = path.udp(5, 6, &[7; 64]);
    let piece = |from: usize, to: usize, more: bool| {
        let mut frame = path.packet(17, &whole[34 + from..34 + to]);
        let mut packet = Ipv4Packet::new_unchecked(&mut frame[14..]);
        packet.set_ident(9);
        packet.set_more_frags(more);
        packet.set_frag_offset(from as u16);
        packet.fill_checksum();
        frame
    };
    let (first, last) = (piece(0, 32, true), piece(32, 72, false));
    // In one burst the later one is held and goes on with the first.
    let fates = node.send_all("web", &mut [Sent::new(&last), Sent::new(&first)]);
    for (fate, sent) in fates.iter().zip([&last, &first]) {
        assert_eq!(fate.shown(), "near");
        assert_forwarded(sent, &fate.bytes, "near");
    }
}

#[test]
fn hosts_that_do_not_route_are_routed_for() {
    let mut mesh = Mesh::new(&Config::open());
    // `near` on green sends to `ext` on blue behind somebody else's endpoint, which answers through the gateway.
    let frame = routed("near", "ext", false).udp(5, 6, b"question");
    let fate = mesh.node("a").send("near", &frame);
    assert_eq!(fate.shown(), "ext");
    assert_forwarded(&frame, &fate.bytes, "ext");
    let bare = wire::geneve::Builder { vni: 100, ..wire::geneve::Builder::default() };
    let answer = routed("ext", "near", false).udp(6, 5, b"answer");
    let datagram = crate::world::Datagram::new("x", bare, &answer);
    for _ in 0..2 {
        let fate = mesh.node("a").receive(&datagram);
        assert_eq!(fate.shown(), "near");
        assert_forwarded(&answer, &fate.bytes, "near");
    }
    assert_eq!(mesh.node("a").flows.len(), 1);
    // To a port of a third host it would take two hops.
    let beyond = routed("ext", "db", false).udp(6, 5, b"");
    let datagram = crate::world::Datagram::new("x", bare, &beyond);
    assert_eq!(mesh.node("a").receive(&datagram).shown(), "drop remote-destination");
    let ping = crate::world::Datagram::new("x", bare, &routed("ext", "db", false).to("10.0.2.1").ping(1));
    assert_eq!(mesh.node("a").receive(&ping).shown(), "reply");
}

#[test]
fn an_excluded_port_is_routed_without_a_flow() {
    let mut mesh = Mesh::new(&Config::open());
    let frame = routed("free", "idle", false).udp(5, 6, b"");
    let (at, fate) = mesh.send("free", &frame);
    assert_eq!((at, fate.shown().as_str()), ("b", "idle"));
    assert_forwarded(&frame, &fate.bytes, "idle");
    assert!(mesh.nodes.iter().all(|node| node.flows.is_empty()));
}

#[test]
fn a_trace_shows_egress_route_and_header() {
    let node = Node::new("a", &Config::open());
    let trace = node.trace("web", &routed("web", "db", false).udp(5, 6, b""));
    let findings: Vec<Finding> = trace.steps.iter().map(|step| step.finding).collect();
    assert!(findings.contains(&Finding::Routed(index("db"))), "{findings:?}");
    let asked = findings.iter().filter(|finding| matches!(finding, Finding::Asked(_))).count();
    assert_eq!(asked, 1, "the sender's rules, here");
    let [.., Finding::Encapsulated(way), Finding::Delivered(to)] = findings[..] else {
        panic!("{findings:?}")
    };
    assert_eq!((way.host, way.header.vni, to), (host("b"), 200, index("db")));
    assert_eq!(HostIndex(1), way.host);
}

/// The largest packet that fits between these hosts: IPv4 without options 20, UDP 8, GENEVE 8, two options 16, Ethernet 14.
const INNER: usize = 1400 - 66;

#[test]
fn what_is_too_large_for_the_way_is_answered_by_the_gateway() {
    let config = Config { path_mtu: 1400, ..Config::open() };
    for over_v6 in [false, true] {
        let header = if over_v6 { 40 } else { 20 };
        let mut node = Node::new("a", &config);
        for path in [routed("web", "db", over_v6), if over_v6 { v6("web", "app") } else { v4("web", "app") }]
        {
            let to = if path.to_mac == called("app").mac() { "app" } else { "db" };
            let fits = path.udp(5, 6, &vec![0; INNER - header - 8]);
            assert_eq!(node.send("web", &fits).shown(), to);
            let larger = path.udp(5, 6, &vec![0; INNER - header - 7]);
            let fate = node.send("web", &larger);
            assert_eq!(fate.verdict, Verdict::Refuse(DropReason::PathMtu));
            let mtu = if over_v6 {
                u32::from_be_bytes(fate.bytes[58..62].try_into().unwrap())
            } else {
                u32::from(u16::from_be_bytes([fate.bytes[40], fate.bytes[41]]))
            };
            assert_eq!(mtu as usize, INNER);
            let message = if over_v6 { (58, 2, 0) } else { (1, 3, 4) };
            if to == "db" {
                assert_error(&fate.bytes, "web", over_v6, message);
            }
        }
        // Near by it fits.
        let near = routed("web", "near", over_v6).udp(5, 6, &[0; 1400]);
        assert_eq!(node.send("web", &near).shown(), "near");
    }
}

#[test]
fn segments_are_measured_and_not_the_frame_that_is_cut() {
    let mut node = Node::new("a", &Config { path_mtu: 1400, ..Config::open() });
    let frame = v4("web", "app").tcp((5, 80), "S", (1, 0), b"");
    node.send("web", &frame);
    let mut send = |size: usize| {
        let mut sent = Sent::new(&v4("web", "app").tcp((5, 80), "A", (2, 1), &[0; 20000]));
        let [low, high] = (size as u16).to_le_bytes();
        sent.net = [1, 1, 54, 0, low, high, 34, 0, 16, 0, 0, 0];
        node.send_all("web", std::slice::from_mut(&mut sent)).remove(0).shown()
    };
    // Not through the handshake: too large comes first.
    assert_eq!(send(INNER - 40 + 1), "refuse path-mtu");
    assert_ne!(send(INNER - 40), "refuse path-mtu");
}

#[test]
fn the_largest_segment_is_made_to_fit_where_a_network_asks_for_it() {
    for (clamp_mss, open_checksum) in [(false, false), (true, false), (true, true)] {
        let mut node = Node::new("a", &Config { path_mtu: 1400, clamp_mss, ..Config::open() });
        // Nothing, and the option at an odd place; again, as a SYN that is sent again.
        for options in [&[2, 4, 5, 180][..], &[1, 2, 4, 5, 180, 0, 0, 0]] {
            for _ in 0..2 {
                let (from, to) = (called("web").address(false), called("app").address(false));
                let mut segment = vec![0; 20];
                segment[..4].copy_from_slice(&[0, 5, 0, 80]);
                segment[12] = ((20 + options.len()) as u8 / 4) << 4;
                segment[13] = 2;
                segment.extend(options);
                let ends: (IpAddress, IpAddress) = (from.into(), to.into());
                if !open_checksum {
                    TcpPacket::new_unchecked(&mut segment[..]).fill_checksum(&ends.0, &ends.1);
                }
                let mut sent = Sent::new(&v4("web", "app").packet(6, &segment));
                if open_checksum {
                    sent.net = [1, 0, 0, 0, 0, 0, 34, 0, 16, 0, 0, 0];
                }
                let fate = node.send_all("web", std::slice::from_mut(&mut sent)).remove(0);
                assert_eq!(fate.shown(), "app");
                let segment = TcpPacket::new_checked(&fate.bytes[34..]).unwrap();
                let mss = smoltcp::wire::TcpRepr::parse(
                    &segment,
                    &ends.0,
                    &ends.1,
                    &smoltcp::phy::ChecksumCapabilities::ignored(),
                );
                let want = if clamp_mss { INNER as u16 - 40 } else { 1460 };
                assert_eq!(mss.unwrap().max_seg_size, Some(want));
                if open_checksum {
                    assert_eq!(fate.bytes[50..52], [0, 0], "left to who finishes it");
                } else {
                    assert!(segment.verify_checksum(&ends.0, &ends.1));
                }
            }
        }
    }
}

#[test]
fn a_datagram_that_is_forwarded_keeps_its_checksum() {
    let mut mesh = Mesh::new(&Config::open());
    let (_, fate) = mesh.send("web", &routed("web", "db", true).udp(5, 6, b"payload"));
    let packet = Ipv6Packet::new_checked(&fate.bytes[14..]).unwrap();
    let datagram = UdpPacket::new_checked(packet.payload()).unwrap();
    assert!(datagram.verify_checksum(&packet.src_addr().into(), &packet.dst_addr().into()));
}
