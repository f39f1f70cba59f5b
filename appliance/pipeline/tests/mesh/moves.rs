//! A workload moves from one host to another, and what is under way follows it.

use pipeline::Instant;
use wire::geneve::Builder;

use crate::frames::v4;
use crate::world::{Config, Datagram, GUESTS, Mesh, called, id, index};

/// Much later than any test.
const LATER: Instant = Instant::from_nanos(u64::MAX);

/// `app` has moved from b to c, and that counts until then.
fn moved(until: Instant) -> Config {
    Config::open().with("app", |app| (app.host, app.moved) = (Some("c"), Some(("b", until))))
}

#[test]
fn a_straggler_is_passed_on_to_where_the_port_has_gone() {
    let mut mesh = Mesh::new(&moved(LATER));
    // Host a does not know yet.
    mesh.node("a").go_over_to(&Config::open());
    let frame = v4("web", "app").udp(5, 6, b"late");
    let fate = mesh.node("a").send("web", &frame);
    let datagram = mesh.node("a").datagram(Some(index("web")), &fate);
    let fate = mesh.node("b").receive(&datagram);
    assert_eq!(fate.shown(), "app");
    assert_eq!(mesh.node("b").snapshot.port(index("app")).host(), Some(crate::world::host("c")));
    let again = mesh.node("b").datagram(None, &fate);
    let fate = mesh.node("c").receive(&again);
    assert_eq!((fate.shown().as_str(), &fate.bytes), ("app", &frame));
    // The answer goes straight.
    assert_eq!(mesh.node("c").send("app", &v4("app", "web").udp(6, 5, b"")).shown(), "web");
}

#[test]
fn after_a_while_nothing_is_passed_on_or_taken() {
    let until = Instant::from_nanos(1);
    let mut mesh = Mesh::new(&moved(until));
    let frame = v4("web", "app").udp(5, 6, b"late");
    let header = Builder { vni: 100, identity: Some(1), port: Some(id("app")), ..Builder::default() };
    let straight = Datagram::new("a", header, &frame);
    assert_eq!(mesh.node("b").receive(&straight).shown(), "drop remote-destination");
    assert_eq!(mesh.node("c").receive(&Datagram::new("b", header, &frame)).shown(), "drop remote-spoofed");
}

#[test]
fn what_was_passed_on_goes_no_further_and_never_back() {
    // As c sees it the port has moved on: from c to a.
    let config = Config::open().with("app", |app| (app.host, app.moved) = (Some("a"), Some(("c", LATER))));
    let mut mesh = Mesh::new(&config);
    let header = Builder { vni: 100, identity: Some(1), port: Some(id("app")), ..Builder::default() };
    let frame = v4("web", "app").udp(5, 6, b"late");
    // From b, which passes on what `web` on a had sent.
    let fate = mesh.node("c").receive(&Datagram::new("b", header, &frame));
    assert_eq!(fate.shown(), "drop remote-spoofed");
    // From a itself, where the port is now.
    let fate = mesh.node("c").receive(&Datagram::new("a", header, &frame));
    assert_eq!(fate.shown(), "drop remote-destination");
}

#[test]
fn what_the_port_had_sent_before_it_left_is_still_taken() {
    let mut mesh = Mesh::new(&moved(LATER));
    let header = Builder { vni: 100, identity: Some(2), port: Some(id("web")), ..Builder::default() };
    let frame = v4("app", "web").udp(5, 6, b"");
    for from in ["b", "c"] {
        assert_eq!(
            mesh.node("a").receive(&Datagram::new(from, header, &frame)).shown(),
            "web",
            "from {from}"
        );
    }
    let bare = Builder { vni: 100, ..Builder::default() };
    let from_x = Datagram::new("x", bare, &frame);
    assert_eq!(mesh.node("a").receive(&from_x).shown(), "drop remote-spoofed", "it never lived there");
}

#[test]
fn the_old_host_passes_on_only_what_is_for_the_port_that_has_left_it() {
    let mut mesh = Mesh::new(&moved(LATER));
    let header = Builder { vni: 100, identity: Some(1), ..Builder::default() };
    let to_far = v4("web", "far").udp(5, 6, b"");
    assert_eq!(mesh.node("c").receive(&Datagram::new("b", header, &to_far)).shown(), "drop remote-spoofed");
}

#[test]
fn a_flow_goes_on_after_the_receiver_has_moved() {
    let mut mesh = Mesh::new(&Config::open());
    let there = v4("web", "app").udp(5, 6, b"");
    assert_eq!(mesh.sent("web", &there), "app at b");
    assert_eq!(mesh.sent("app", &v4("app", "web").udp(6, 5, b"")), "web at a");
    let config = moved(LATER);
    mesh.nodes.iter_mut().for_each(|node| node.go_over_to(&config));
    assert_eq!(mesh.sent("web", &there), "app at c");
    assert_eq!(mesh.node("a").flows.len(), 1, "the same flow, judged again");
    assert_eq!(GUESTS.len(), mesh.node("a").snapshot.ports().len());
    assert_eq!(called("app").host, Some("b"), "as it was");
}
