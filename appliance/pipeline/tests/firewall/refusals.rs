//! What a refused sender is told: checked by smoltcp, which computes every checksum anew.

use pipeline::policy::{Action, RuleConfig};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    EthernetFrame, EthernetProtocol, Icmpv4Packet, Icmpv4Repr, Icmpv6DstUnreachable, Icmpv6Packet,
    Icmpv6Repr, IpAddress, IpProtocol, Ipv4Packet, Ipv4Repr, Ipv6Packet, Ipv6Repr, TcpPacket, TcpRepr,
    TcpSeqNumber,
};

use crate::frames::{Path, v4, v6};
use crate::world::{Host, Sent, called, policy, rule};

fn host() -> Host {
    Host::new(vec![policy("no", vec![rule(1, Action::Reject)])])
}

/// The answer to a refused frame, as it goes back to its sender.
fn answer(host: &mut Host, from: &str, frame: &[u8]) -> Vec<u8> {
    let mut sent = [Sent::new(frame)];
    let verdict = host.burst(from, &mut sent)[0];
    assert_eq!(host.shown(verdict), "refuse policy-reject");
    let [sent] = sent;
    assert_eq!((usize::from(sent.head_len), sent.net), (sent.len as usize, [0; 12]));
    sent.bytes().to_vec()
}

/// Checks Ethernet and IP of an answer to what took `path`: protocol and payload.
fn opened(path: Path, answer: &[u8]) -> (IpProtocol, Vec<u8>) {
    let ethernet = EthernetFrame::new_checked(answer).expect("Ethernet");
    assert_eq!(ethernet.dst_addr().0, path.from_mac);
    assert_eq!(ethernet.src_addr().0, path.to_mac);
    let (from, to): (IpAddress, IpAddress) = (path.to.into(), path.from.into());
    if ethernet.ethertype() == EthernetProtocol::Ipv4 {
        let packet = Ipv4Packet::new_checked(ethernet.payload()).expect("IPv4");
        let repr = Ipv4Repr::parse(&packet, &ChecksumCapabilities::default()).expect("a good header");
        assert_eq!((IpAddress::from(repr.src_addr), IpAddress::from(repr.dst_addr)), (from, to));
        assert_eq!(repr.hop_limit, 64);
        return (repr.next_header, packet.payload().to_vec());
    }
    let packet = Ipv6Packet::new_checked(ethernet.payload()).expect("IPv6");
    let repr = Ipv6Repr::parse(&packet).expect("a good header");
    assert_eq!((IpAddress::from(repr.src_addr), IpAddress::from(repr.dst_addr)), (from, to));
    assert_eq!(repr.hop_limit, 64);
    (repr.next_header, packet.payload().to_vec())
}

fn reset(path: Path, answer: &[u8]) -> (u16, u16, TcpSeqNumber, Option<TcpSeqNumber>) {
    let (protocol, payload) = opened(path, answer);
    assert_eq!(protocol, IpProtocol::Tcp);
    let segment = TcpPacket::new_checked(&payload).expect("TCP");
    let (from, to) = (path.to.into(), path.from.into());
    let repr = TcpRepr::parse(&segment, &from, &to, &ChecksumCapabilities::default()).expect("good");
    assert!(segment.rst() && !segment.syn() && !segment.fin());
    assert!(repr.payload.is_empty());
    (repr.src_port, repr.dst_port, repr.seq_number, repr.ack_number)
}

#[test]
fn tcp_is_reset_with_the_numbers_that_its_sender_can_believe() {
    for path in [v4("web", "app"), v6("web", "app")] {
        let mut host = host();
        let frame = path.tcp((4000, 80), "S", (1000, 0), b"");
        // RFC 9293, section 3.10.7.1: to a segment without ACK, sequence number 0, acknowledging all of it.
        assert_eq!(
            reset(path, &answer(&mut host, "web", &frame)),
            (80, 4000, TcpSeqNumber(0), Some(TcpSeqNumber(1001)))
        );
        let frame = path.tcp((4000, 80), "S", (u32::MAX, 0), b"early data");
        let acknowledged = Some(TcpSeqNumber(10));
        assert_eq!(reset(path, &answer(&mut host, "web", &frame)), (80, 4000, TcpSeqNumber(0), acknowledged));
        // To one with ACK, the number that it acknowledges.
        let frame = path.tcp((4000, 80), "A", (1000, 77), b"data");
        assert_eq!(reset(path, &answer(&mut host, "web", &frame)), (80, 4000, TcpSeqNumber(77), None));
    }
}

#[test]
fn a_reset_is_not_answered_nor_is_nonsense() {
    let mut host = host();
    let path = v4("web", "app");
    for (flags, shown) in [
        ("R", "drop tcp-invalid-state"),
        ("RA", "drop tcp-invalid-state"),
        ("SA", "drop tcp-invalid-state"),
        ("FA", "drop tcp-invalid-state"),
        ("SF", "drop tcp-bad-flags"),
        ("", "drop tcp-bad-flags"),
    ] {
        assert_eq!(host.send("web", &path.tcp((4000, 80), flags, (1, 1), b"")), shown, "{flags}");
    }
}

#[test]
fn all_else_is_told_by_icmp_that_an_administrator_forbids_it() {
    let mut host = host();
    let path = v4("web", "app");
    for frame in [
        path.udp(4000, 53, b"a question"),
        path.ping(7),
        path.packet(47, &[0; 8]),
        path.udp(4000, 53, &[b'x'; 1400]),
    ] {
        let (protocol, payload) = opened(path, &answer(&mut host, "web", &frame));
        assert_eq!(protocol, IpProtocol::Icmp);
        let message = Icmpv4Packet::new_checked(&payload[..]).expect("ICMP");
        assert!(message.verify_checksum());
        assert_eq!(u8::from(message.msg_type()), 3);
        // RFC 1812, section 5.2.7.1: communication administratively prohibited.
        assert_eq!(message.msg_code(), 13);
        let quoted = message.data();
        assert!(quoted.len() >= (frame.len() - 14).min(28) && frame[14..].starts_with(quoted), "the quote");
        if frame.len() < 100 {
            let repr = Icmpv4Repr::parse(&message, &ChecksumCapabilities::default());
            assert!(matches!(repr, Ok(Icmpv4Repr::DstUnreachable { .. })), "{repr:?}");
        }
    }
    let path = v6("web", "app");
    for frame in [path.udp(4000, 53, b"a question"), path.ping(7), path.udp(4000, 53, &[b'x'; 1400])] {
        let (protocol, payload) = opened(path, &answer(&mut host, "web", &frame));
        assert_eq!(protocol, IpProtocol::Icmpv6);
        let message = Icmpv6Packet::new_checked(&payload[..]).expect("ICMPv6");
        let (std::net::IpAddr::V6(from), std::net::IpAddr::V6(to)) = (path.to, path.from) else { panic!() };
        let caps = ChecksumCapabilities::default();
        match Icmpv6Repr::parse(&from, &to, &message, &caps).expect("a good checksum") {
            Icmpv6Repr::DstUnreachable { reason, header, .. } => {
                assert_eq!(reason, Icmpv6DstUnreachable::AdminProhibit);
                assert_eq!((header.src_addr, header.dst_addr), (to, from));
            }
            other => panic!("{other:?}"),
        }
        assert!(frame[14..].starts_with(message.payload()) || frame[14..].starts_with(&payload[8..]));
    }
}

#[test]
fn nobody_is_told_of_errors_and_of_what_was_for_many() {
    let mut host = host();
    let path = v4("web", "app");
    assert_eq!(
        host.send("web", &path.unreachable(&path.back().udp(1, 2, b"12345678"))),
        "drop icmp-unrelated"
    );
    // In a frame to one, or to all.
    for address in ["255.255.255.255", "10.0.1.255", "224.0.0.251"] {
        let frame = path.to(address).udp(1, 2, b"");
        assert_eq!(host.send("web", &frame), "drop policy-reject", "{address}");
        assert_eq!(
            host.send("web", &path.to(address).to_mac([0xff; 6]).udp(1, 2, b"")),
            "drop policy-reject"
        );
    }
    let frame = v6("web", "app").to("ff02::fb").udp(1, 2, b"");
    assert_eq!(host.send("web", &frame), "drop policy-reject");
}

#[test]
fn refusals_are_answered_200_times_a_second_after_a_burst_of_50() {
    let mut host = host();
    let frame = v4("web", "app").udp(4000, 53, b"?");
    let answered = |host: &mut Host, tries| {
        (0..tries).filter(|_| host.send("web", &frame) == "refuse policy-reject").count()
    };
    assert_eq!(answered(&mut host, 300), 50);
    assert_eq!(answered(&mut host, 10), 0, "no answer, yet dropped for the same reason");
    host.wait(100);
    assert_eq!(answered(&mut host, 300), 20);
    // Another port has its own.
    let other = v4("app", "db").udp(4000, 53, b"?");
    assert_eq!(host.send("app", &other), "refuse policy-reject");
    assert_eq!(answered(&mut host, 1), 0);
}

#[test]
fn a_receivers_rejection_is_answered_in_its_name() {
    let at_app = RuleConfig { direction: crate::world::IN, ..rule(1, Action::Reject) };
    let out = RuleConfig { direction: crate::world::OUT, ..rule(2, Action::Allow) };
    let mut host = Host::new(vec![policy("p", vec![at_app, out])]);
    let path = v4("web", "app");
    let frame = answer(&mut host, "web", &path.tcp((4000, 80), "S", (5, 0), b""));
    assert_eq!(reset(path, &frame).0, 80);
    assert_eq!(frame[6..12], called("app").mac());
}
