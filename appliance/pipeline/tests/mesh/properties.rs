//! What holds for anything that a host or a guest may send.

use pipeline::{Finding, Verdict};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use wire::geneve::Builder;

use crate::frames::{Path, between};
use crate::world::{
    Config, Datagram, Fate, GUESTS, Guest, HOSTS, NETWORKS, Node, address, called, gateway, id, index,
};

fn guest() -> impl Strategy<Value = Guest> {
    any::<Index>().prop_map(|place| *place.get(&GUESTS))
}

/// Somebody's MAC: a guest's or a gateway's.
fn mac() -> impl Strategy<Value = [u8; 6]> {
    prop_oneof![3 => guest().prop_map(|guest| guest.mac()), 1 => (0..NETWORKS.len()).prop_map(gateway)]
}

/// Any claims, true ones more often than chance has it.
fn path() -> impl Strategy<Value = Path> {
    let between = |(from, to, v6, gateways, other): (Guest, Guest, bool, (bool, bool), Option<[u8; 6]>)| {
        let mut path = between(from, to, v6);
        if gateways.0 {
            path.from_mac = gateway(to.network);
        }
        if gateways.1 {
            path.to_mac = gateway(from.network);
        }
        path.from_mac = other.unwrap_or(path.from_mac);
        path
    };
    (guest(), guest(), any::<bool>(), any::<(bool, bool)>(), prop::option::weighted(0.2, mac()))
        .prop_map(between)
}

fn header() -> impl Strategy<Value = Builder> {
    let vni = select(vec![100, 200, 300, 400, 500, 600]);
    let port = prop::option::of(guest().prop_map(|guest| id(guest.name)));
    (vni, prop::option::weighted(0.9, 0..8u32), port).prop_map(|(vni, identity, port)| Builder {
        vni,
        identity,
        port,
        ..Builder::default()
    })
}

/// Whether a host may have sent this, looked up the slow way: the inner source is a guest's of that host, on the VNI's
/// network, or, from the gateway, on another of its router.
fn may_send(from: &str, datagram: &Builder, path: &Path) -> bool {
    let network = NETWORKS.iter().position(|(vni, ..)| *vni == datagram.vni);
    let Some(network) = network else { return false };
    GUESTS.iter().any(|guest| {
        let near = guest.network == network && guest.mac() == path.from_mac;
        let router = NETWORKS[network].1;
        let joined =
            router.is_some() && NETWORKS[guest.network].1 == router && path.from_mac == gateway(network);
        let speaks = guest.address(path.from.is_ipv6()) == path.from;
        guest.host == Some(from) && speaks && (near || joined)
    })
}

/// Whether the identity is of a guest of the host, or missing where it may be.
fn may_name(from: &str, datagram: &Builder) -> bool {
    match datagram.identity {
        None => from == "x",
        // Seven is more than any guest has.
        Some(7) => true,
        Some(identity) => GUESTS.iter().any(|guest| guest.host == Some(from) && guest.identity == identity),
    }
}

proptest! {
    /// Nothing is delivered or answered that its host may not have sent, and what is delivered goes to the port that is named.
    #[test]
    fn nothing_passes_that_the_host_may_not_have_sent(
        from in select(HOSTS.map(|(name, _)| name).to_vec()), header in header(), path in path(),
    ) {
        let mut node = Node::new("a", &Config::open());
        let fate = node.receive(&Datagram::new(from, header, &path.udp(5, 6, b"datagram")));
        let honest = from != "a" && may_send(from, &header, &path) && may_name(from, &header);
        if !honest {
            prop_assert!(matches!(fate.verdict, Verdict::Drop(_)), "{}", fate.shown());
        }
        if let Verdict::Deliver(to) = fate.verdict {
            let port = node.snapshot.port(to);
            prop_assert!(port.is_local());
            prop_assert_eq!(&fate.bytes[..6], &port.mac()[..]);
            // What was routed here by us has no say in which port it names.
            let routed_here = path.to_mac == gateway(called(GUESTS[to.0 as usize].name).network);
            prop_assert!(header.port.is_none_or(|id| id == port.id()) || routed_here || path.to_mac != port.mac());
        }
    }

    /// Whatever the bytes: nobody panics, and lengths stay within what there is.
    #[test]
    fn any_tunnel_and_any_frame_are_survived(
        mut tunnel in proptest::collection::vec(any::<u8>(), 0..40),
        mut frame in proptest::collection::vec(any::<u8>(), 0..300),
        honest: bool,
        ecn in 0..4u8,
    ) {
        let good = Datagram::new("b", Builder { vni: 100, identity: Some(2), ..Builder::default() }, &[]);
        if honest {
            tunnel = good.tunnel.clone();
            let own = between(called("app"), called("web"), false).udp(5, 6, &[]);
            let len = own.len().min(frame.len()).min(34);
            frame[..len].copy_from_slice(&own[..len]);
        }
        let mut node = Node::new("a", &Config::open());
        let len = frame.len();
        let fate = node.receive(&Datagram { tunnel, frame, ecn, ..good });
        if !matches!(fate.verdict, Verdict::Reply | Verdict::Refuse(_)) {
            prop_assert_eq!(fate.bytes.len(), len);
        }
    }

    /// A trace's last word is the pipeline's, and the same frame twice has the same fate.
    #[test]
    fn a_trace_says_what_the_pipeline_does(path in path(), ttl in select(vec![1u8, 2, 64]), to_outside: bool) {
        let path = if to_outside && path.from.is_ipv4() { path.to("203.0.113.9") } else { path };
        let mut frame = path.udp(5, 6, b"datagram");
        let hop = if path.from.is_ipv6() { 14 + 7 } else { 14 + 8 };
        frame[hop] = ttl;
        if path.from.is_ipv4() {
            smoltcp::wire::Ipv4Packet::new_unchecked(&mut frame[14..]).fill_checksum();
        }
        for from in ["web", "near", "red", "plain", "free"] {
            let mut node = Node::new("a", &Config::open());
            for _ in 0..2 {
                let traced = node.trace(from, &frame).steps.last().map(|step| step.finding);
                let Fate { verdict, .. } = node.send(from, &frame);
                let agrees = match (traced, verdict) {
                    (Some(Finding::Delivered(one)), Verdict::Deliver(other)) => one == other,
                    (Some(Finding::Dropped(one)), Verdict::Drop(other) | Verdict::Refuse(other)) => one == other,
                    (Some(Finding::Answered), Verdict::Reply) | (Some(Finding::Flooded), Verdict::Flood) => true,
                    _ => false,
                };
                prop_assert!(agrees, "{traced:?} {verdict:?}");
            }
        }
    }
}

#[test]
fn a_burst_replayed_twice_gives_equal_bytes_verdicts_and_events() {
    let all = || -> Vec<Datagram> {
        let header = |identity| Builder { vni: 100, identity: Some(identity), ..Builder::default() };
        let path = |from, to| between(called(from), called(to), false);
        let frames = (0..200u16).map(|number| match number % 4 {
            0 => (2, path("app", "web").udp(number / 8, 6, b"")),
            1 => (2, path("app", "web").tcp((number / 16, 80), "S", (1, 0), b"")),
            2 => (3, path("app", "web").ping(number)),
            _ => (5, path("app", "far").to_mac(address_mac()).udp(number, 6, b"")),
        });
        frames.map(|(identity, frame)| Datagram::new("b", header(identity), &frame)).collect()
    };
    let run = |chunk: usize| {
        let mut node = Node::new("a", &Config::open());
        let fates: Vec<Fate> =
            all().chunks(chunk).flat_map(|datagrams| node.receive_all(datagrams)).collect();
        (fates, node.events)
    };
    assert_eq!(run(200), run(200));
    assert_eq!(run(200).0, run(1).0, "packets of a burst do not touch each other");
    assert_eq!(address("10.0.1.11"), called("web").address(false));
    assert_eq!(index("web"), pipeline::PortIndex(0));
}

fn address_mac() -> [u8; 6] {
    called("far").mac()
}
