//! Nothing that comes from another host, or goes between networks, allocates.
#![expect(unsafe_code, reason = "a global allocator that counts can only be written so")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use pipeline::{Arrival, Ends, Frame, Instant, PortState, Verdict, from_port, from_underlay};
use wire::geneve::Builder;

use crate::frames::{v4, v6};
use crate::world::{Config, Datagram, Node, Sent, gateway, id, index};

thread_local! {
    /// Allocations of this thread: other tests of the process do not count.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // Not there any more while the thread ends; nothing is counted then.
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps `alloc`'s contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps `dealloc`'s contract, and the pointer came from the system's allocator.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// What comes from host b: to be delivered, refused, answered, dropped.
fn datagrams(round: u16) -> Vec<Datagram> {
    let to_web = Builder { vni: 100, identity: Some(2), port: Some(id("web")), ..Builder::default() };
    let from_db = Builder { identity: Some(3), ..to_web };
    let mut routed = v4("db", "web");
    routed.from_mac = gateway(0);
    let broadcast = v4("app", "web").to("255.255.255.255").to_mac([0xff; 6]);
    let plain = [
        v4("app", "web").udp(round, 6, b""),
        v6("app", "web").udp(round, 6, b""),
        v4("app", "web").tcp((round, 80), "S", (1, 0), b""),
        broadcast.udp(5, 6, b""),
        v4("far", "web").udp(round, 6, b""),
    ];
    let mut all: Vec<Datagram> = plain.iter().map(|frame| Datagram::new("b", to_web, frame)).collect();
    all.push(Datagram::new("b", from_db, &routed.udp(round, 6, b"")));
    all.push(Datagram::new("b", Builder { vni: 7, ..to_web }, &plain[0]));
    all.push(Datagram { ecn: 3, ..Datagram::new("b", to_web, &plain[0]) });
    all
}

#[test]
fn no_arrival_allocates_whatever_becomes_of_it() {
    let mut node = Node::new("a", &Config::open());
    let underlay = PortState::of_underlay();
    for round in 0..4u16 {
        let datagrams = datagrams(round);
        let mut sent: Vec<Sent> = datagrams.iter().map(|datagram| Sent::new(&datagram.frame)).collect();
        let mut verdicts = vec![Verdict::Flood; sent.len()];
        let mut arrivals: Vec<Arrival<'_>> = Vec::with_capacity(sent.len());
        for (datagram, sent) in datagrams.iter().zip(sent.iter_mut()) {
            arrivals.push(Arrival {
                source: datagram.from,
                trusted: datagram.trusted,
                ecn: datagram.ecn,
                tunnel: &datagram.tunnel,
                frame: sent.frame(),
                ends: Ends::default(),
            });
        }
        let now = Instant::from_nanos(1 + u64::from(round) * 1_000_000);
        let before = ALLOCATIONS.get();
        from_underlay(
            &node.snapshot,
            &node.flows,
            &underlay,
            now,
            &mut arrivals,
            &mut verdicts,
            &mut node.work,
        );
        let after = ALLOCATIONS.get();
        assert_eq!(after - before, 0, "round {round}");
        assert!(verdicts.iter().filter(|verdict| matches!(verdict, Verdict::Deliver(_))).count() >= 4);
        assert!(node.work.report.drain().count() > 4);
    }
}

#[test]
fn no_packet_between_networks_allocates() {
    let mut node = Node::new("a", &Config { path_mtu: 1400, ..Config::open() });
    let state = PortState::default();
    let path = v4("web", "db").to_mac(gateway(0));
    for round in 0..4u16 {
        let frames = [
            path.udp(round, 6, b""),
            path.udp(5, 6, b""),
            path.udp(5, 6, &[0; 1400]),
            path.to("203.0.113.7").udp(5, 6, b""),
        ];
        let mut sent: Vec<Sent> = frames.iter().map(|frame| Sent::new(frame)).collect();
        let mut verdicts = vec![Verdict::Flood; sent.len()];
        let mut frames: Vec<Frame<'_>> = sent.iter_mut().map(Sent::frame).collect();
        let now = Instant::from_nanos(1);
        let before = ALLOCATIONS.get();
        let (snapshot, flows, work) = (&node.snapshot, &node.flows, &mut node.work);
        from_port(snapshot, flows, index("web"), &state, now, &mut frames, &mut verdicts, work);
        assert_eq!(ALLOCATIONS.get() - before, 0, "round {round}");
        let told = verdicts.iter().filter(|verdict| matches!(verdict, Verdict::Refuse(_))).count();
        assert_eq!(told, 2);
        let _ = node.work.report.drain().count();
    }
}
