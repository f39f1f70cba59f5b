//! What passes between hosts: on one network, between networks, and what the rules of both ends say.

use pipeline::policy::Action;
use pipeline::{DropReason, NetworkIndex, Verdict};
use wire::geneve::Builder;

use crate::frames::{v4, v6};
use crate::world::{Config, Datagram, Mesh, Node, called, host, id, index, rule, to_port};

#[test]
fn a_frame_reaches_a_port_of_another_host_as_it_was_sent() {
    for v6_too in [false, true] {
        let path = |from, to| if v6_too { v6(from, to) } else { v4(from, to) };
        let mut mesh = Mesh::new(&Config::open());
        let there = path("web", "app").udp(5, 6, b"question");
        let (at, fate) = mesh.send("web", &there);
        assert_eq!((at, fate.shown().as_str(), &fate.bytes), ("b", "app", &there));
        assert_eq!(fate.ends.sender, Some(index("web")));
        let (at, fate) = mesh.send("app", &path("app", "web").udp(6, 5, b"answer"));
        assert_eq!((at, fate.shown().as_str()), ("a", "web"));
        for node in &mesh.nodes[..2] {
            assert_eq!(node.flows.len(), 1, "one flow at each end, both ways");
        }
    }
}

#[test]
fn the_header_names_network_identity_and_port_to_those_who_understand() {
    let node = Node::new("a", &Config::open());
    let to = |name| node.snapshot.encapsulation(Some(index("web")), index(name));
    let all = Builder { vni: 100, identity: Some(1), port: Some(id("app")), ..Builder::default() };
    assert_eq!(to("app").map(|way| (way.host, way.header)), Some((host("b"), all)));
    let green = Builder { vni: 200, port: Some(id("db")), ..all };
    assert_eq!(to("db").map(|way| (way.host, way.header)), Some((host("b"), green)));
    let bare = Builder { vni: 100, ..Builder::default() };
    assert_eq!(to("ext").map(|way| (way.host, way.header)), Some((host("x"), bare)));
    assert_eq!((to("free"), to("lost")), (None, None));
    let flood = node.snapshot.flood_encapsulation(index("web"), host("b")).map(|way| way.header);
    assert_eq!(flood, Some(Builder { port: None, ..all }));
}

#[test]
fn what_is_for_many_goes_to_hosts_that_have_the_network() {
    let node = Node::new("a", &Config::open());
    assert_eq!(node.snapshot.flood_hosts(NetworkIndex(0)), [host("b"), host("c"), host("x")]);
    assert_eq!(node.snapshot.flood_hosts(NetworkIndex(2)), [host("b")]);
}

#[test]
fn the_senders_rules_are_asked_at_its_host_and_the_receivers_at_the_other() {
    let out = |action| {
        let direction = Some(pipeline::policy::Direction::Out);
        pipeline::policy::RuleConfig { direction, ..rule(1, action, &[to_port(17, 6)]) }
    };
    let into = |action| {
        let direction = Some(pipeline::policy::Direction::In);
        pipeline::policy::RuleConfig { direction, ..rule(2, action, &[to_port(17, 6)]) }
    };
    let frame = v4("web", "app").udp(5, 6, b"");
    for (rules, want) in [
        (vec![out(Action::Drop), into(Action::Allow)], "drop policy-drop at a"),
        (vec![out(Action::Allow), into(Action::Drop)], "drop policy-drop at b"),
        (vec![out(Action::Allow)], "drop default-deny at b"),
        (vec![out(Action::Allow), into(Action::Allow)], "app at b"),
    ] {
        assert_eq!(Mesh::new(&Config::of(rules)).sent("web", &frame), want);
    }
}

#[test]
fn a_rejection_at_the_receivers_host_reaches_the_sender() {
    let direction = Some(pipeline::policy::Direction::In);
    let reject = pipeline::policy::RuleConfig { direction, ..rule(1, Action::Reject, &[]) };
    let allow = pipeline::policy::RuleConfig {
        direction: Some(pipeline::policy::Direction::Out),
        ..rule(2, Action::Allow, &[])
    };
    let mut mesh = Mesh::new(&Config::of(vec![reject, allow]));
    for (frame, protocol) in
        [(v4("web", "app").tcp((5, 80), "S", (9, 0), b""), 6), (v4("web", "app").udp(5, 6, b""), 1)]
    {
        let (at, fate) = mesh.send("web", &frame);
        assert_eq!((at, fate.verdict), ("b", Verdict::Refuse(DropReason::PolicyReject)));
        let back = mesh.node("b").datagram(None, &fate);
        let fate = mesh.node("a").receive(&back);
        assert_eq!((fate.shown().as_str(), fate.bytes[23]), ("web", protocol));
    }
}

#[test]
fn a_host_without_an_address_is_out_of_reach() {
    let mut mesh = Mesh::new(&Config::open());
    assert_eq!(mesh.sent("web", &v4("web", "lost").udp(5, 6, b"")), "drop remote-destination at a");
}

#[test]
fn neighbours_on_other_hosts_are_answered_for_and_an_endpoint_of_somebody_else_may_ask() {
    let mut node = Node::new("a", &Config::open());
    let ask = |from: &str, to: &str| {
        let (from, to) = (called(from), called(to));
        let mut frame = vec![0xff; 6];
        frame.extend(from.mac());
        frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
        frame.extend(from.mac());
        let octets = |address| match address {
            std::net::IpAddr::V4(address) => std::net::Ipv4Addr::octets(&address),
            std::net::IpAddr::V6(_) => panic!("IPv4"),
        };
        frame.extend(octets(from.address(false)));
        frame.extend([0; 6]);
        frame.extend(octets(to.address(false)));
        frame
    };
    assert_eq!(node.send("web", &ask("web", "app")).shown(), "reply");
    let bare = Builder { vni: 100, ..Builder::default() };
    let fate = node.receive(&Datagram::new("x", bare, &ask("ext", "web")));
    assert_eq!((fate.shown().as_str(), &fate.bytes[..6]), ("reply", &called("ext").mac()[..]));
    let back = node.datagram(None, &fate);
    assert_eq!(back.tunnel.len(), 8, "without options");
}
