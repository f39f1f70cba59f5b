//! Several agents in this process, each a host: their underlay is the loopback, on which each has an address of its own.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};

use crate::bed::guest::{Guest, NET, feature};
use crate::bed::packet::{TCP_HEADERS, checksums_hold, fragments, tcp_partial, udp};
use crate::bed::{Bed, eventually};
use agent::UnderlayConfig;
use mgmt_types::agent::{Link, PeerStatus, Slice, SliceHost};
use mgmt_types::{RuleAction, Tier};

/// The UDP port of GENEVE.
const GENEVE: u16 = 6081;
/// What the hosts' interfaces are said to take, and what is left inside: room for every header around it.
const MTUS: (u16, u16) = (1500, 1400);
/// No offload asked for.
const PLAIN: [u8; NET] = [0; NET];
/// NEEDS_CSUM, TCPv4, 54 bytes of headers, segments of 1360, checksum 16 bytes into the TCP header.
const TSO: [u8; NET] = [1, 1, 54, 0, 0x50, 0x05, 34, 0, 16, 0, 0, 0];

/// See the module. Hosts are called a, b, c.
pub(crate) struct Mesh {
    pub(crate) hosts: Vec<Bed>,
    revision: u64,
    number: u8,
}

impl Mesh {
    /// Hosts with agents. `number` keeps tests of one process apart.
    fn new(name: &str, number: u8, count: usize) -> Self {
        let beds = (0..count).map(|_| Bed::without_namespaces(name)).collect();
        Self::of(beds, number)
    }

    /// The same, with namespaces 1 to `namespaces` that belong to the first host's bed. `None` without the right to make
    /// them.
    pub(crate) fn with_namespaces(name: &str, number: u8, count: usize, namespaces: u32) -> Option<Self> {
        let mut beds = vec![Bed::new(name, namespaces)?];
        beds.extend((1..count).map(|_| Bed::without_namespaces(name)));
        Some(Self::of(beds, number))
    }

    fn of(mut hosts: Vec<Bed>, number: u8) -> Self {
        for (place, bed) in hosts.iter_mut().enumerate() {
            bed.host = host_name(place);
            let addresses = vec![address(number, place)];
            bed.underlay = UnderlayConfig { addresses, port: GENEVE, mtu: Some(MTUS.0) };
            bed.start();
        }
        Self { hosts, revision: 0, number }
    }

    /// The slice of one host in which port N is on host `homes[N - 1]`.
    fn slice(&self, of: usize, revision: u64, homes: &[usize], guests: bool) -> Slice {
        let ports: Vec<u32> = (1..=homes.len() as u32).collect();
        // All namespaces are the first bed's.
        let bed = &self.hosts[0];
        let mut slice = if guests { bed.guests(revision, &ports) } else { bed.slice(revision, &ports) };
        slice.host = host_name(of);
        slice.networks[0].mtu = MTUS.1;
        for (port, home) in slice.ports.iter_mut().zip(homes) {
            port.host = host_name(*home);
        }
        slice.hosts = (0..self.hosts.len())
            .map(|place| SliceHost {
                name: host_name(place),
                underlay: vec![address(self.number, place)],
                port: GENEVE,
                mtu: MTUS.0,
                options: true,
                external: false,
            })
            .collect();
        slice
    }

    /// Puts it in force at these hosts that the ports live there.
    fn put_at(&mut self, at: &[usize], homes: &[usize], guests: bool) {
        self.revision += 1;
        for &host in at {
            let slice = self.slice(host, self.revision, homes, guests);
            self.hosts[host].put(slice);
        }
    }

    /// The same at all hosts, with TAP ports.
    pub(crate) fn put_devices(&mut self, homes: &[usize]) {
        let all: Vec<usize> = (0..self.hosts.len()).collect();
        self.put_at(&all, homes, false);
    }

    fn put_guests(&mut self, homes: &[usize]) {
        let all: Vec<usize> = (0..self.hosts.len()).collect();
        self.put_at(&all, homes, true);
    }

    /// Boots the guest of a port at a host.
    fn boot(&self, host: usize, n: u32, features: u64) -> Guest {
        let bed = &self.hosts[host];
        let mut guest = Guest::boot(&bed.socket(n), 1, feature::PLAIN | features);
        eventually("the link is up", || bed.link(n) == Link::Up);
        bed.announcements(&mut guest);
        guest
    }

    /// What a host says of another.
    fn peer(&self, host: usize, other: usize) -> PeerStatus {
        let peers = self.hosts[host].status().peers;
        peers.into_iter().find(|peer| peer.host == host_name(other)).expect("a peer")
    }
}

fn host_name(place: usize) -> String {
    ["a", "b", "c"][place].to_string()
}

/// An address of the loopback that no other test and no other process uses.
fn address(number: u8, place: usize) -> IpAddr {
    let [_, _, high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 3 * number + place as u8 + 1, high, low).into()
}

#[track_caller]
fn receive(guest: &mut Guest, count: usize) -> Vec<([u8; NET], Vec<u8>)> {
    let mut frames = Vec::new();
    eventually("the frames arrive", || {
        frames.extend(guest.receive(0));
        frames.len() >= count
    });
    assert_eq!(frames.len(), count);
    frames
}

#[test]
fn frames_reach_a_guest_on_another_host_whole_and_in_order() {
    let mut mesh = Mesh::new("mesh", 1, 2);
    mesh.put_guests(&[0, 1]);
    let (mut one, mut two) = (mesh.boot(0, 1, 0), mesh.boot(1, 2, 0));
    for (round, size) in [1usize, 18, 149, 150, 151, 900, 1372].into_iter().cycle().take(60).enumerate() {
        let frame = udp(1, 2, 1000 + round as u16, &vec![round as u8; size]);
        one.send(0, PLAIN, &frame);
        let frames = receive(&mut two, 1);
        assert_eq!((&frames[0].1, &frames[0].0[..10]), (&frame, &PLAIN[..10]));
        let back = udp(2, 1, 9, &[round as u8; 30]);
        two.send(0, PLAIN, &back);
        assert_eq!(receive(&mut one, 1)[0].1, back);
    }
    let (there, back) = (mesh.peer(0, 1), mesh.peer(1, 0));
    assert_eq!((there.tx.packets, there.rx.packets), (60, 60));
    assert_eq!((back.tx.packets, back.rx.packets), (60, 60));
    assert!(there.drops.is_empty() && back.drops.is_empty(), "{there:?} {back:?}");
}

#[test]
fn a_large_frame_crosses_as_segments_and_arrives_in_one_where_that_is_taken() {
    let mut mesh = Mesh::new("meshtso", 2, 2);
    mesh.put_guests(&[0, 1, 1]);
    let mut sender = mesh.boot(0, 1, feature::CSUM | feature::HOST_TSO4);
    let mut able = mesh.boot(1, 2, feature::GUEST_CSUM | feature::GUEST_TSO4);
    let mut plain = mesh.boot(1, 3, 0);
    let payload: Vec<u8> = (0..40_000u32).map(|n| (n / 7) as u8).collect();

    let frame = tcp_partial(1, 2, &payload);
    sender.send(0, TSO, &frame);
    let whole = receive(&mut able, 1);
    assert_eq!(whole[0].1, frame);
    assert_eq!(whole[0].0[..10], TSO[..10]);
    assert_eq!(mesh.peer(0, 1).tx.packets, 30, "40,000 bytes in segments of 1360");

    sender.send(0, TSO, &tcp_partial(1, 3, &payload));
    let mut joined: Vec<u8> = Vec::new();
    for (net, segment) in receive(&mut plain, 30) {
        assert_eq!(net[..10], PLAIN[..10]);
        assert!(checksums_hold(&segment));
        joined.extend(&segment[TCP_HEADERS..]);
    }
    assert_eq!(joined, payload);
}

#[test]
fn what_is_for_all_reaches_each_host_once() {
    let mut mesh = Mesh::new("meshall", 3, 3);
    mesh.put_guests(&[0, 1, 2, 2]);
    let mut one = mesh.boot(0, 1, 0);
    let mut others = [mesh.boot(1, 2, 0), mesh.boot(2, 3, 0), mesh.boot(2, 4, 0)];
    let mut frame = udp(1, 255, 68, b"hello all");
    frame[..6].fill(0xff);
    one.send(0, PLAIN, &frame);
    for guest in &mut others {
        assert_eq!(receive(guest, 1)[0].1, frame);
    }
    assert_eq!((mesh.peer(0, 1).tx.packets, mesh.peer(0, 2).tx.packets), (1, 1));
}

#[test]
fn hosts_know_each_other_and_how_large_packets_may_be() {
    let mut mesh = Mesh::new("meshpath", 4, 2);
    mesh.put_guests(&[0, 1]);
    for (host, other) in [(0, 1), (1, 0)] {
        eventually("they are up", || mesh.peer(host, other).up == Some(true));
        let peer = mesh.peer(host, other);
        assert_eq!((peer.path_mtu, peer.address), (Some(MTUS.0), Some(address(4, other))));
        assert!(peer.since.is_some() && peer.rtt_us.is_some_and(|rtt| rtt < 1_000_000), "{peer:?}");
        let own = mesh.hosts[host].status().underlay.expect("an underlay");
        assert_eq!((own.addresses, own.port, own.mtu), (vec![address(4, host)], GENEVE, MTUS.0));
    }
    mesh.hosts[1].stop();
    eventually("it is down", || mesh.peer(0, 1).up == Some(false));
    mesh.hosts[1].start();
    eventually("it is back", || mesh.peer(0, 1).up == Some(true));
    let metrics = mesh.hosts[0].get("/metrics");
    assert!(metrics.contains("palisade_peer_up{peer=\"b\"} 1"), "{metrics}");
}

#[test]
fn a_workload_that_moves_is_followed_by_what_was_on_its_way() {
    let mut mesh = Mesh::new("meshmove", 5, 3);
    mesh.put_guests(&[0, 1]);
    let (mut one, mut two) = (mesh.boot(0, 1, 0), mesh.boot(1, 2, 0));
    let frame = |n: u16| udp(1, 2, n, b"where are you");
    one.send(0, PLAIN, &frame(1));
    assert_eq!(receive(&mut two, 1)[0].1, frame(1));
    drop(two);

    // The new host knows, and the old one; the sender's does not yet.
    mesh.put_at(&[1, 2], &[0, 2], true);
    let mut two = mesh.boot(2, 2, 0);
    one.send(0, PLAIN, &frame(1));
    assert_eq!(receive(&mut two, 1)[0].1, frame(1), "passed on by the old host");
    assert_eq!(mesh.peer(1, 2).tx.packets, 1);

    mesh.put_at(&[0], &[0, 2], true);
    one.send(0, PLAIN, &frame(1));
    assert_eq!(receive(&mut two, 1)[0].1, frame(1));
    assert_eq!((mesh.peer(0, 2).tx.packets, mesh.peer(1, 2).tx.packets), (1, 1), "the straight way");
    two.send(0, PLAIN, &udp(2, 1, 9, b"here"));
    assert_eq!(receive(&mut one, 1)[0].1, udp(2, 1, 9, b"here"));
}

#[test]
fn fragments_wait_for_the_first_of_their_packet_at_either_end() {
    let mut mesh = Mesh::new("meshfrag", 8, 2);
    mesh.put_guests(&[0, 1]);
    let (mut one, mut two) = (mesh.boot(0, 1, 0), mesh.boot(1, 2, 0));
    let whole = udp(1, 2, 1, &[5; 400]);
    let [first, later] = fragments(&whole, 1, 200);
    one.send(0, PLAIN, &later);
    eventually("it is taken", || one.in_flight(0) == 0);
    one.send(0, PLAIN, &first);
    let frames: Vec<_> = receive(&mut two, 2).into_iter().map(|(_, frame)| frame).collect();
    assert_eq!(frames, [first, later], "held where they were sent");

    // Somebody with host a's address sends them in the wrong order.
    mesh.hosts[0].stop();
    let socket = UdpSocket::bind((address(8, 0), 0)).expect("a socket");
    let [first, later] = fragments(&whole, 2, 200);
    let send = |frame: &[u8]| {
        socket.send_to(&[&tunnel(7), frame].concat(), (address(8, 1), GENEVE)).expect("sent");
    };
    let other = udp(1, 2, 3, b"not a fragment");
    send(&later);
    send(&other);
    assert_eq!(receive(&mut two, 1)[0].1, other, "by now the other was taken");
    send(&first);
    let frames: Vec<_> = receive(&mut two, 2).into_iter().map(|(_, frame)| frame).collect();
    assert_eq!(frames, [first, later], "held where they arrived");
}

#[test]
fn a_refusal_finds_its_way_back_to_the_sender_on_another_host() {
    let mut mesh = Mesh::new("meshref", 9, 2);
    mesh.put_guests(&[0, 1]);
    let mut strict = mesh.slice(1, 9, &[0, 1], true);
    let mut refusing = strict.policies[0].clone();
    (refusing.name, refusing.tier) = ("refusing".into(), Tier::Security);
    (refusing.rules[0].id, refusing.rules[0].action) = (2, RuleAction::Reject);
    strict.policies.insert(0, refusing);
    mesh.hosts[1].put(strict);
    let mut one = mesh.boot(0, 1, feature::CSUM);
    let _two = mesh.boot(1, 2, 0);
    let open = [1, 0, 0, 0, 0, 0, 34, 0, 16, 0, 0, 0];
    one.send(0, open, &tcp_partial(1, 2, b"let me in"));
    let frames = receive(&mut one, 1);
    let reset = &frames[0].1;
    assert_eq!((reset[33], reset[47] & 0x04), (1, 0x04), "a RST for port 1");
    assert!(checksums_hold(reset));
    assert_eq!(mesh.peer(1, 0).drops.get("policy-reject"), Some(&1));
}

/// A GENEVE header with identity 0, for port 2.
fn tunnel(vni: u8) -> Vec<u8> {
    vec![4, 0x40, 0x65, 0x58, 0, 0, vni, 0, 0xff, 0, 0x81, 1, 0, 0, 0, 0, 0xff, 0, 0x83, 1, 0, 0, 0, 2]
}

#[test]
fn what_a_host_may_not_send_is_refused_for_its_own_reason() {
    let mut mesh = Mesh::new("meshbad", 6, 2);
    mesh.put_guests(&[0, 1]);
    let mut two = mesh.boot(1, 2, 0);
    // Host a speaks no more; somebody with its address does.
    mesh.hosts[0].stop();
    let to = (address(6, 1), GENEVE);
    let known = UdpSocket::bind((address(6, 0), 0)).expect("a socket");
    let frame = udp(1, 2, 1, b"may I");
    let with = |header: Vec<u8>| [header, frame.clone()].concat();
    let change = |at: usize, to: u8| {
        let mut header = tunnel(7);
        header[at] = to;
        with(header)
    };
    let cases = [
        ("geneve-version", change(0, 0x44)),
        ("geneve-length", vec![0x3f, 0, 0x65, 0x58]),
        ("geneve-length", change(19, 2)),
        ("geneve-critical-option", change(10, 0x85)),
        ("geneve-protocol", change(2, 8)),
        ("geneve-control", change(1, 0xc0)),
        ("unknown-vni", with(tunnel(9))),
        ("stale-destination", change(23, 9)),
        ("remote-spoofed", [tunnel(7), udp(2, 1, 1, b"not mine")].concat()),
    ];
    for (reason, datagram) in &cases {
        let before = mesh.peer(1, 0).drops.get(*reason).copied().unwrap_or(0);
        known.send_to(datagram, to).expect("sent");
        eventually(reason, || mesh.peer(1, 0).drops.get(*reason) == Some(&(before + 1)));
    }
    let stranger = UdpSocket::bind((address(6, 2), 0)).expect("a socket");
    stranger.send_to(&with(tunnel(7)), to).expect("sent");
    stranger.send_to(&change(1, 0xc0), to).expect("sent");
    let strangers = || mesh.hosts[1].status().peers.into_iter().find(|peer| peer.host == "?");
    eventually("strangers are counted", || {
        strangers().is_some_and(|peer| peer.drops.get("unknown-peer") == Some(&2))
    });
    assert!(two.receive(0).is_empty());
    known.send_to(&with(tunnel(7)), to).expect("sent");
    assert_eq!(receive(&mut two, 1)[0].1, frame, "what it may send arrives");
}

#[test]
fn tcp_between_hosts_travels_in_bursts_and_arrives_joined() {
    let Some(mut mesh) = Mesh::with_namespaces("meshtcp", 7, 2, 2) else { return };
    mesh.put_devices(&[0, 1]);
    let bed = &mesh.hosts[0];
    bed.address_all();
    for (from, to) in [(1, 2), (2, 1)] {
        bed.ping(from, &format!("10.77.0.{to}"));
        bed.ping(from, &format!("fd77::{to}"));
        for address in [format!("10.77.0.{to}"), format!("fd77::{to}")] {
            assert_eq!(bed.transfer(from, to, &address, 20 << 20), 20 << 20);
        }
    }
    let segments = mesh.peer(0, 1).tx.packets;
    let port = mesh.hosts[1].port(2);
    assert!(segments > 2 * (20 << 20) / 1400, "{segments}");
    assert!(port.to_guest.packets < segments / 4, "{} of {segments} arrived", port.to_guest.packets);
    assert!(mesh.peer(0, 1).drops.is_empty() && mesh.peer(1, 0).drops.is_empty());
}
