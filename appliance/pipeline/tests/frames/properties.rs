//! What holds for frames that nobody chose.

use pipeline::{DropReason, HEAD, PortIndex, Verdict};
use proptest::prelude::*;
use smoltcp::wire::{
    ArpPacket, ArpRepr, EthernetFrame, EthernetProtocol, IpAddress, IpProtocol, Ipv4Packet, Ipv6Packet,
    TcpPacket, UdpPacket,
};
use wire::gso::Segmenter;
use wire::vnet::VnetHeader;

use crate::world::{PORTS, Sent, golden, send, world};

const PORT_A: PortIndex = PortIndex(0);
const MAC_A: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// A golden frame with some bytes changed, cut or added: it gets deeper than noise does.
fn nearly_golden() -> impl Strategy<Value = (PortIndex, [u8; 12], Vec<u8>)> {
    let changes = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6);
    let nets = prop_oneof![Just(None), any::<[u8; 12]>().prop_map(Some)];
    let tails = prop_oneof![4 => Just(0i32), 1 => -60..300i32];
    (any::<prop::sample::Index>(), changes, nets, tails).prop_map(|(pick, changes, net, tail)| {
        let case = &golden()[pick.index(golden().len())];
        let mut frame = case.frame.clone();
        for (at, value) in changes {
            // The first bytes decide most.
            let len = frame.len().min(120);
            if len > 0 {
                frame[at.index(len)] = value;
            }
        }
        frame.resize(frame.len().saturating_add_signed(tail as isize), 0x5a);
        (case.sender, net.unwrap_or(case.net), frame)
    })
}

/// What must hold whatever was sent.
fn check(from: PortIndex, net: [u8; 12], frame: &[u8]) -> Result<(), TestCaseError> {
    let snapshot = world();
    let mut sent = Sent::new(net, frame);
    let verdict = send(snapshot, from, &mut sent);
    let bytes = sent.bytes();
    prop_assert!(usize::from(sent.head_len) <= HEAD && u32::from(sent.head_len) <= sent.len);
    match verdict {
        Verdict::Deliver(port) => {
            prop_assert_ne!(port, from);
            prop_assert!(snapshot.port(port).is_local());
            prop_assert_eq!(snapshot.port(port).network(), snapshot.port(from).network());
            prop_assert_eq!(&bytes[..6], snapshot.port(port).mac());
        }
        Verdict::Flood => prop_assert!(bytes[0] & 1 == 1),
        Verdict::Hold(_) => prop_assert!(false, "the firewall is off"),
        Verdict::Reply | Verdict::Refuse(_) => {
            let back = bytes[..6] == snapshot.port(from).mac() || bytes[0] & 1 == 1;
            prop_assert!(back, "an answer goes to who asked");
            prop_assert_ne!(&bytes[6..12], snapshot.port(from).mac());
        }
        Verdict::Drop(_) => return Ok(()),
    }
    if verdict != Verdict::Reply {
        prop_assert_eq!(&bytes[..], frame, "what goes on goes on as it came");
        prop_assert_eq!(&bytes[6..12], snapshot.port(from).mac());
    }
    let net = VnetHeader::from_bytes(&sent.net);
    if net.is_gso() {
        let segmenter = Segmenter::new(&bytes, &net);
        prop_assert!(segmenter.is_ok(), "{:?}", segmenter);
        let mtu = usize::from(snapshot.network(snapshot.port(from).network()).mtu());
        prop_assert!(segmenter.unwrap().largest() <= 14 + mtu);
    }
    let mut finished = bytes.clone();
    prop_assert_eq!(wire::gso::finish_checksum(&mut finished, &net), Ok(()));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100_000))]

    #[test]
    fn no_frame_breaks_an_invariant((from, net, frame) in nearly_golden()) {
        check(from, net, &frame)?;
    }

    #[test]
    fn noise_breaks_no_invariant(
        net: [u8; 12],
        from in 0..PORTS.len() as u32,
        bytes in proptest::collection::vec(any::<u8>(), 0..400),
        ethertype in 0usize..4,
    ) {
        let mut frame = bytes;
        if let Some(header) = frame.get_mut(..15) {
            header[6..12].copy_from_slice(&world().port(PortIndex(from)).mac());
            header[12..15].copy_from_slice(&[[8, 0, 0x45], [0x86, 0xdd, 0x60], [8, 6, 0], [1, 2, 3]][ethertype]);
        }
        check(PortIndex(from), net, &frame)?;
    }

    /// A partial checksum, when somebody finishes it, changes nothing that was judged: the finished frame gets the
    /// same verdict.
    #[test]
    fn finishing_a_checksum_changes_no_verdict((from, net, frame) in nearly_golden()) {
        let snapshot = world();
        let mut sent = Sent::new(net, &frame);
        let verdict = send(snapshot, from, &mut sent);
        let asked = VnetHeader::from_bytes(&sent.net);
        if matches!(verdict, Verdict::Deliver(_) | Verdict::Flood) && !asked.is_gso() {
            let mut finished = sent.bytes();
            wire::gso::finish_checksum(&mut finished, &asked).unwrap();
            prop_assert_eq!(send(snapshot, from, &mut Sent::new([0; 12], &finished)), verdict);
        }
    }

    /// What goes on is a packet for smoltcp too, and its addresses are the sender's.
    #[test]
    fn smoltcp_understands_what_goes_on((from, net, frame) in nearly_golden()) {
        let snapshot = world();
        let mut sent = Sent::new(net, &frame);
        let verdict = send(snapshot, from, &mut sent);
        if let Verdict::Drop(_) = verdict {
            return Ok(());
        }
        let bytes = sent.bytes();
        let ethernet = EthernetFrame::new_checked(&bytes[..]).unwrap();
        let (source, protocol, fragment, payload): (IpAddress, _, bool, &[u8]) = match ethernet.ethertype() {
            EthernetProtocol::Arp => {
                let arp = ArpPacket::new_checked(ethernet.payload()).unwrap();
                prop_assert!(ArpRepr::parse(&arp).is_ok());
                return Ok(());
            }
            EthernetProtocol::Ipv4 => {
                let ip = Ipv4Packet::new_checked(ethernet.payload()).unwrap();
                let fragment = ip.more_frags() || ip.frag_offset() > 0;
                (ip.src_addr().into(), ip.next_header(), fragment, ip.payload())
            }
            EthernetProtocol::Ipv6 => {
                let ip = Ipv6Packet::new_checked(ethernet.payload()).unwrap();
                (ip.src_addr().into(), ip.next_header(), false, ip.payload())
            }
            other => return Err(TestCaseError::fail(format!("{other} went on"))),
        };
        if verdict != Verdict::Reply {
            let own = snapshot.neighbour(snapshot.port(from).network(), source.into());
            prop_assert_eq!(own.map(|found| found.mac), Some(snapshot.port(from).mac()));
        }
        match protocol {
            _ if fragment => {}
            IpProtocol::Tcp => {
                prop_assert!(TcpPacket::new_checked(payload).is_ok());
            }
            IpProtocol::Udp => {
                prop_assert!(UdpPacket::new_checked(payload).is_ok());
                let datagram = UdpPacket::new_unchecked(payload);
                prop_assert!(![67, 68].contains(&datagram.dst_port()) || !matches!(source, IpAddress::Ipv4(_)));
            }
            _ => {}
        }
    }
}

#[test]
fn a_head_that_is_longer_than_its_frame_is_survived() {
    // The caller's mistake, not a guest's; it must not become a panic.
    let case = golden().iter().find(|case| case.name == "udp over ipv4").unwrap();
    let mut sent = Sent::new(case.net, &case.frame);
    sent.head_len = u16::MAX;
    assert_eq!(send(world(), PORT_A, &mut sent), Verdict::Deliver(PortIndex(1)));
    sent.len = 13;
    assert_eq!(send(world(), PORT_A, &mut sent), Verdict::Drop(DropReason::Truncated));
    assert_eq!(sent.head[6..12], MAC_A);
}
