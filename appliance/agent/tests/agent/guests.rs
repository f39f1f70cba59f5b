//! Guests with drivers of their own talk through vhost-user ports of an agent in this process.

use crate::bed::guest::{Guest, NET, feature};
use crate::bed::packet::{TCP_HEADERS, checksums_hold, tcp_partial, udp};
use crate::bed::{Bed, eventually};
use agent::Poll;
use mgmt_types::agent::Link;

/// No offload asked for.
const PLAIN: [u8; NET] = [0; NET];

/// A bed with an agent that serves guests 1 to `count`, which are not booted yet.
fn serving(name: &str, count: u32, adjust: impl FnOnce(&mut Bed)) -> Bed {
    let mut bed = Bed::without_namespaces(name);
    adjust(&mut bed);
    bed.start();
    let ports: Vec<u32> = (1..=count).collect();
    bed.put(bed.guests(1, &ports));
    bed
}

fn boot(bed: &Bed, n: u32, features: u64) -> Guest {
    let mut guest = Guest::boot(&bed.socket(n), 1, feature::PLAIN | features);
    eventually("the link is up", || bed.link(n) == Link::Up);
    bed.announcements(&mut guest);
    guest
}

/// Collects frames on a queue pair until there are `count`.
#[track_caller]
fn receive(guest: &mut Guest, pair: usize, count: usize) -> Vec<([u8; NET], Vec<u8>)> {
    let mut frames = Vec::new();
    eventually("the frames arrive", || {
        frames.extend(guest.receive(pair));
        frames.len() >= count
    });
    assert_eq!(frames.len(), count);
    frames
}

#[test]
fn frames_arrive_whole_and_in_order_whatever_their_size() {
    for poll in [Poll::Adaptive, Poll::Always, Poll::Sleep] {
        let bed = serving("order", 2, |bed| bed.poll = poll);
        let (mut one, mut two) = (boot(&bed, 1, 0), boot(&bed, 2, 0));
        let sizes = [1, 18, 149, 150, 151, 900, 1472];
        for round in 0..40u16 {
            let payload = vec![round as u8; sizes[usize::from(round) % sizes.len()]];
            one.send(0, PLAIN, &udp(1, 2, 1000 + round, &payload));
            let frames = receive(&mut two, 0, 1);
            assert_eq!(frames[0].1, udp(1, 2, 1000 + round, &payload), "{poll:?}");
            assert_eq!(frames[0].0[..10], PLAIN[..10], "{poll:?}");
        }
        let ports = bed.status().ports;
        assert_eq!((ports[0].from_guest.packets, ports[1].to_guest.packets), (40, 40));
        assert_eq!(ports[0].from_guest.bytes, ports[1].to_guest.bytes);
        assert_eq!(ports[0].drops, Default::default());
    }
}

#[test]
fn a_tso_frame_passes_uncut_to_who_takes_it_and_in_segments_to_who_does_not() {
    let bed = serving("tso", 3, |_| {});
    let mut sender = boot(&bed, 1, feature::CSUM | feature::HOST_TSO4);
    let mut able = boot(&bed, 2, feature::GUEST_CSUM | feature::GUEST_TSO4);
    let mut plain = boot(&bed, 3, 0);
    let payload: Vec<u8> = (0..40_000u32).map(|n| (n / 7) as u8).collect();
    // NEEDS_CSUM, TCPv4, 54 bytes of headers, segments of 1448, checksum 16 bytes into the TCP header.
    let net = [1, 1, 54, 0, 0xa8, 0x05, 34, 0, 16, 0, 0, 0];

    let frame = tcp_partial(1, 2, &payload);
    sender.send(0, net, &frame);
    let whole = receive(&mut able, 0, 1);
    assert_eq!(whole[0].1, frame);
    assert_eq!(whole[0].0[..10], net[..10]);

    sender.send(0, net, &tcp_partial(1, 3, &payload));
    let segments = receive(&mut plain, 0, payload.len().div_ceil(1448));
    let mut joined: Vec<u8> = Vec::new();
    for (net, segment) in &segments {
        assert_eq!(net[..2], [0, 0]);
        assert!(checksums_hold(segment), "{segment:02x?}");
        let sequence = u32::from_be_bytes(segment[38..42].try_into().expect("four bytes"));
        assert_eq!(sequence as usize, 1000 + joined.len());
        joined.extend(&segment[TCP_HEADERS..]);
    }
    assert_eq!(joined, payload);
}

#[test]
fn an_open_checksum_is_finished_for_who_does_not_take_it_and_validity_is_never_claimed() {
    let bed = serving("csum", 3, |_| {});
    let mut sender = boot(&bed, 1, feature::CSUM);
    let mut able = boot(&bed, 2, feature::GUEST_CSUM);
    let mut plain = boot(&bed, 3, 0);
    let net = [1, 0, 0, 0, 0, 0, 34, 0, 16, 0, 0, 0];

    let open = tcp_partial(1, 2, b"some payload, odd");
    sender.send(0, net, &open);
    let frames = receive(&mut able, 0, 1);
    assert_eq!((frames[0].0[0], &frames[0].1), (1, &open));

    sender.send(0, net, &tcp_partial(1, 3, b"some payload, odd"));
    let frames = receive(&mut plain, 0, 1);
    assert_eq!(frames[0].0[0], 0);
    assert!(checksums_hold(&frames[0].1));

    // DATA_VALID from a guest is a claim that nobody checked.
    sender.send(0, [2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], &udp(1, 2, 1000, b"trust me"));
    assert_eq!(receive(&mut able, 0, 1)[0].0[0], 0);
}

#[test]
fn flows_spread_over_the_queues_of_a_guest_and_stay_in_order() {
    let bed = serving("queues", 2, |bed| (bed.queues, bed.workers) = (4, 2));
    let features = feature::PLAIN | feature::MQ | feature::CTRL_VQ;
    let mut one = Guest::boot(&bed.socket(1), 4, features);
    let mut two = Guest::boot(&bed.socket(2), 4, features);
    eventually("both links are up", || bed.link(1) == Link::Up && bed.link(2) == Link::Up);
    bed.announcements(&mut one);
    bed.announcements(&mut two);

    let (flows, rounds) = (32u16, 6u8);
    let mut received: Vec<Vec<Vec<u8>>> = vec![Vec::new(); 4];
    for round in 0..rounds {
        for flow in 0..flows {
            one.send(usize::from(flow) % 4, PLAIN, &udp(1, 2, 2000 + flow, &[round; 20]));
        }
        eventually("a round arrives", || {
            for (pair, frames) in received.iter_mut().enumerate() {
                frames.extend(two.receive(pair).into_iter().map(|(_, frame)| frame));
            }
            received.iter().map(Vec::len).sum::<usize>() == usize::from(flows) * usize::from(round + 1)
        });
    }
    assert!(received.iter().all(|frames| !frames.is_empty()), "a queue was not used");
    for flow in 0..flows {
        let port = (2000 + flow).to_be_bytes();
        let of_flow = |frames: &Vec<Vec<u8>>| -> Vec<u8> {
            frames.iter().filter(|frame| frame[34..36] == port).map(|frame| frame[42]).collect()
        };
        let seen: Vec<Vec<u8>> = received.iter().map(of_flow).filter(|rounds| !rounds.is_empty()).collect();
        assert_eq!(seen, [(0..rounds).collect::<Vec<u8>>()], "flow {flow}");
    }
}

#[test]
fn what_a_receiver_cannot_take_is_counted_at_the_receiver() {
    let bed = serving("full", 2, |_| {});
    let mut one = boot(&bed, 1, 0);
    one.send(0, PLAIN, &udp(1, 2, 1000, b"nobody there"));
    eventually("the drop shows", || bed.port(2).drops.get("destination-down") == Some(&1));

    let mut two = boot(&bed, 2, 0);
    for n in 0..300u16 {
        one.send(0, PLAIN, &udp(1, 2, 1000 + n, b"too many"));
    }
    eventually("all are taken", || one.in_flight(0) == 0);
    eventually("the drops show", || bed.port(2).drops.get("destination-full") == Some(&(300 - 256)));
    assert_eq!(two.receive(0).len(), 256);
    assert_eq!(bed.port(2).to_guest.packets, 256);
}

#[test]
fn a_broadcast_reaches_everybody_else_and_a_question_for_a_neighbour_is_answered_in_place() {
    let bed = serving("flood", 3, |_| {});
    let (mut one, mut two, mut three) = (boot(&bed, 1, 0), boot(&bed, 2, 0), boot(&bed, 3, 0));
    let mut frame = udp(1, 255, 68, b"hello all");
    frame[..6].fill(0xff);
    one.send(0, PLAIN, &frame);
    assert_eq!(receive(&mut two, 0, 1)[0].1, frame);
    assert_eq!(receive(&mut three, 0, 1)[0].1, frame);

    let mut question =
        vec![0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1];
    question.extend([2, 0, 0, 0, 0, 1, 10, 77, 0, 1, 0, 0, 0, 0, 0, 0, 10, 77, 0, 2]);
    one.send(0, PLAIN, &question);
    let answer = receive(&mut one, 0, 1);
    assert_eq!(answer[0].1[20..32], [0, 2, 2, 0, 0, 0, 0, 2, 10, 77, 0, 2]);
    assert!(two.receive(0).is_empty(), "the question went on");
}

#[test]
fn a_guest_that_reconnects_goes_on_and_one_that_leaves_shows_as_waiting() {
    let mut bed = serving("again", 2, |_| {});
    let mut two = boot(&bed, 2, 0);
    for round in 0..5u16 {
        let mut one = boot(&bed, 1, 0);
        one.send(0, PLAIN, &udp(1, 2, 1000 + round, b"back again"));
        receive(&mut two, 0, 1);
        drop(one);
        eventually("the port waits", || bed.link(1) == Link::Waiting);
    }
    // The next agent serves the same sockets from what is on disk.
    bed.stop();
    bed.start();
    let (mut one, mut two) = (boot(&bed, 1, 0), boot(&bed, 2, 0));
    one.send(0, PLAIN, &udp(1, 2, 1000, b"a new agent"));
    receive(&mut two, 0, 1);
}

#[test]
fn a_guest_is_told_of_its_neighbours_whenever_its_link_comes_up() {
    let bed = serving("told", 2, |_| {});
    let mut one = Guest::boot(&bed.socket(1), 1, feature::PLAIN);
    let first = bed.announcements(&mut one);
    // By ARP replies of the gateway and of the other guest, to nobody but this one.
    let sender = |last| [&[2, 0, 0, 0, 0, 1][..], &[2, 0, 0, 0], last, &[8, 6]].concat();
    for (sender, address) in [(sender(&[9, 9]), [10, 77, 0, 254]), (sender(&[0, 2]), [10, 77, 0, 2])] {
        let reply = first.iter().find(|frame| frame.starts_with(&sender)).expect("an ARP reply");
        assert_eq!((reply[21], &reply[28..32], &reply[38..42]), (2, &address[..], &[10, 77, 0, 1][..]));
    }
    // By advertisements of both: the gateway's link-local address, and fd77::2.
    let advertised: Vec<&[u8]> =
        first.iter().filter(|frame| frame[12] == 0x86).map(|frame| &frame[62..78]).collect();
    let expected = ["fe80::ff:fe00:909", "fd77::2"]
        .map(|address| address.parse::<std::net::Ipv6Addr>().expect("an address").octets());
    assert!(expected.iter().all(|address| advertised.contains(&&address[..])), "{advertised:02x?}");
    assert_eq!(first.len(), 4);

    drop(one);
    eventually("the port waits", || bed.link(1) == Link::Waiting);
    let mut again = Guest::boot(&bed.socket(1), 1, feature::PLAIN);
    assert_eq!(bed.announcements(&mut again), first);
}

#[test]
fn a_rate_limit_lets_its_burst_pass_and_no_more_at_once() {
    let mut bed = serving("limit", 2, |_| {});
    let (mut one, mut two) = (boot(&bed, 1, 0), boot(&bed, 2, 0));
    let mut limited = bed.guests(2, &[1, 2]);
    limited.ports[0].rate_limit = Some(mgmt_types::RateLimit {
        packets_per_second: Some(1),
        burst_packets: Some(10),
        ..Default::default()
    });
    bed.put(limited);
    for n in 0..50 {
        one.send(0, PLAIN, &udp(1, 2, 1000 + n, b"quick"));
    }
    eventually("all are judged", || {
        let port = bed.port(1);
        port.from_guest.packets + port.drops.get("rate-limit").unwrap_or(&0) == 50
    });
    let passed = bed.port(1).from_guest.packets;
    assert!((10..=12).contains(&passed), "{passed} passed");
    assert_eq!(two.receive(0).len() as u64, passed);
}
