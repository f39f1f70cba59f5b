//! Segmentation against scapy's segments and against reassembly.

use std::net::Ipv6Addr;
use std::ops::ControlFlow;

use proptest::prelude::*;
use smoltcp::wire::{
    EthernetFrame, EthernetProtocol, IpAddress, IpProtocol, Ipv4Packet, Ipv6Packet, TcpPacket, UdpPacket,
};
use wire::gso::{Checksum, Segmenter, finish_checksum};
use wire::vnet::{
    GSO_ECN, GSO_TCPV4, GSO_TCPV6, GSO_UDP, GSO_UDP_L4, LEN, NEEDS_CSUM, OffloadError, VnetHeader,
};

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

struct Golden {
    name: &'static str,
    net: VnetHeader,
    frame: Vec<u8>,
    segments: Vec<Vec<u8>>,
}

/// `golden.hex`, printed by `golden.py`: name, GSO type, size, checksum start and offset, frame, segments.
fn golden() -> Vec<Golden> {
    let parse = |line: &'static str| {
        let mut words = line.split(' ');
        let name = words.next().unwrap();
        let mut number = || words.next().unwrap().parse::<u16>().unwrap();
        let net = VnetHeader {
            flags: NEEDS_CSUM,
            gso_type: number() as u8,
            hdr_len: 9999, // a lie that must not matter
            gso_size: number(),
            csum_start: number(),
            csum_offset: number(),
            num_buffers: 0,
        };
        let frame = hex(words.next().unwrap());
        Golden { name, net, frame, segments: words.map(hex).collect() }
    };
    include_str!("golden.hex").lines().map(parse).collect()
}

fn cut(frame: &[u8], net: &VnetHeader, checksum: Checksum) -> Vec<Vec<u8>> {
    let segmenter = Segmenter::new(frame, net).unwrap();
    let mut segments = Vec::new();
    let _ = segmenter.for_each(checksum, |header, payload| {
        segments.push([header, payload].concat());
        ControlFlow::Continue(())
    });
    assert_eq!(segments.len(), segmenter.count());
    assert_eq!(segments.iter().map(Vec::len).max(), Some(segmenter.largest()));
    segments
}

#[test]
fn segments_are_what_scapy_builds() {
    let cases = golden();
    assert_eq!(cases.len(), 4);
    for case in cases {
        assert_eq!(cut(&case.frame, &case.net, Checksum::Finish), case.segments, "{}", case.name);
    }
}

#[test]
fn partial_checksums_become_scapys_when_finished() {
    for case in golden() {
        let net = Segmenter::new(&case.frame, &case.net).unwrap().net_header(Checksum::Partial);
        let mut segments = cut(&case.frame, &case.net, Checksum::Partial);
        for segment in &mut segments {
            finish_checksum(segment, &net).unwrap();
        }
        assert_eq!(segments, case.segments, "{}", case.name);
        let done = Segmenter::new(&case.frame, &case.net).unwrap().net_header(Checksum::Finish);
        assert_eq!(done, VnetHeader::default());
    }
}

#[test]
fn trailing_padding_is_not_sent() {
    for case in golden() {
        let mut frame = case.frame.clone();
        frame.extend([0xaa; 9]);
        assert_eq!(cut(&frame, &case.net, Checksum::Finish), case.segments, "{}", case.name);
    }
}

#[test]
fn emitting_stops_when_the_receiver_is_full() {
    let case = &golden()[0];
    let mut seen = 0;
    let end = Segmenter::new(&case.frame, &case.net).unwrap().for_each(Checksum::Finish, |_, _| {
        seen += 1;
        if seen == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert_eq!((end, seen), (ControlFlow::Break(()), 2));
}

#[test]
fn a_frame_without_payload_is_one_segment() {
    let case = &golden()[0];
    let mut frame = case.frame[..34 + 32].to_vec();
    frame[16..18].copy_from_slice(&52u16.to_be_bytes());
    let segments = cut(&frame, &case.net, Checksum::Finish);
    assert_eq!(segments.len(), 1);
    assert_eq!(segments[0].len(), frame.len());
}

#[test]
fn hostile_requests_are_refused() {
    let [tso4, _, uso4, uso6] = &golden()[..] else { panic!("four cases") };
    let refuse = |case: &Golden, change: &dyn Fn(&mut VnetHeader, &mut Vec<u8>)| {
        let (mut net, mut frame) = (case.net, case.frame.clone());
        change(&mut net, &mut frame);
        Segmenter::new(&frame, &net).map(|_| ()).unwrap_err()
    };
    let elsewhere =
        |start, offset| OffloadError::ChecksumElsewhere { start, offset, want_start: 34, want_offset: 16 };
    let wrong = |gso_type| OffloadError::WrongProtocol { gso_type };
    assert_eq!(refuse(tso4, &|net, _| net.gso_size = 0), OffloadError::NoSize);
    assert_eq!(refuse(tso4, &|net, _| net.flags = 0), OffloadError::NoChecksum);
    assert_eq!(refuse(tso4, &|net, _| net.gso_type = 0), OffloadError::UnknownType(0));
    assert_eq!(refuse(tso4, &|net, _| net.gso_type = GSO_UDP), OffloadError::UnknownType(GSO_UDP));
    assert_eq!(refuse(tso4, &|net, _| net.gso_type = 0x7f), OffloadError::UnknownType(0x7f));
    assert_eq!(refuse(uso4, &|net, _| net.gso_type |= GSO_ECN), OffloadError::UnknownType(0x85));
    assert_eq!(refuse(tso4, &|net, _| net.gso_type = GSO_TCPV6), wrong(GSO_TCPV6));
    assert_eq!(refuse(tso4, &|net, _| net.gso_type = GSO_UDP_L4), wrong(GSO_UDP_L4));
    assert_eq!(refuse(uso6, &|net, _| net.gso_type = GSO_TCPV6), wrong(GSO_TCPV6));
    assert_eq!(refuse(tso4, &|net, _| net.csum_start = 65535), elsewhere(65535, 16));
    assert_eq!(refuse(tso4, &|net, _| net.csum_start = 14), elsewhere(14, 16));
    assert_eq!(refuse(tso4, &|net, _| net.csum_offset = 6), elsewhere(34, 6));
    assert_eq!(refuse(tso4, &|net, _| net.csum_offset = 65535), elsewhere(34, 65535));
    assert_eq!(refuse(tso4, &|_, frame| frame[20] |= 0x20), wrong(0x81), "more fragments");
    assert_eq!(refuse(tso4, &|_, frame| frame[21] = 1), wrong(0x81), "a later fragment");
    assert_eq!(refuse(tso4, &|_, frame| frame[12] = 0x86), wrong(0x81), "not an IP ethertype");
}

#[test]
fn headers_that_lie_are_refused() {
    let [tso4, _, uso4, _] = &golden()[..] else { panic!("four cases") };
    let refuse = |case: &Golden, change: &dyn Fn(&mut VnetHeader, &mut Vec<u8>)| {
        let (mut net, mut frame) = (case.net, case.frame.clone());
        change(&mut net, &mut frame);
        Segmenter::new(&frame, &net).map(|_| ()).unwrap_err()
    };
    // A data offset below 5 words, and one beyond the packet's end.
    assert_eq!(
        refuse(tso4, &|_, frame| frame[46] = 0x40),
        OffloadError::Truncated { need: 54, have: 34 + 32 + 250 }
    );
    assert_eq!(
        refuse(tso4, &|_, frame| {
            frame[17] = 52;
            frame[16] = 0;
            frame[46] = 0xf0;
        }),
        OffloadError::Truncated { need: 94, have: 66 }
    );
    assert!(matches!(refuse(tso4, &|_, frame| frame.truncate(100)), OffloadError::Header(_)));
    assert_eq!(refuse(tso4, &|_, frame| frame.truncate(13)), OffloadError::Truncated { need: 14, have: 13 });
    assert_eq!(
        refuse(uso4, &|net, _| net.gso_size = 1),
        OffloadError::TooManySegments { segments: 250, most: 128 }
    );
    assert_eq!(
        refuse(tso4, &|net, frame| {
            frame.resize(34 + 32 + 2000, 0);
            frame[16..18].copy_from_slice(&2052u16.to_be_bytes());
            net.gso_size = 1;
        }),
        OffloadError::TooManySegments { segments: 2000, most: 1024 }
    );
}

#[test]
fn a_checksum_beyond_the_frame_is_an_error_and_changes_nothing() {
    let frame = [7u8; 64];
    for (start, offset) in [(65, 0), (64, 0), (63, 0), (62, 1), (0, 63), (65535, 65535)] {
        let net =
            VnetHeader { flags: NEEDS_CSUM, csum_start: start, csum_offset: offset, ..VnetHeader::default() };
        let mut copy = frame;
        let error = finish_checksum(&mut copy, &net).unwrap_err();
        assert_eq!(error, OffloadError::ChecksumOutside { start, offset, len: 64 });
        assert_eq!(copy, frame);
    }
    let net = VnetHeader { flags: NEEDS_CSUM, csum_start: 62, csum_offset: 0, ..VnetHeader::default() };
    assert_eq!(finish_checksum(&mut [0; 64], &net), Ok(()));
    assert_eq!(finish_checksum(&mut [0; 1], &VnetHeader::default()), Ok(()), "nothing was asked for");
}

/// A frame as a guest with offloads sends it, and its transport payload.
fn offered(v6: bool, udp: bool, options: usize, flags: u8, payload: &[u8]) -> (Vec<u8>, VnetHeader, usize) {
    let transport = if udp { 8 } else { 20 + options * 4 };
    let len = transport + payload.len();
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    let protocol = if udp { 17 } else { 6 };
    if v6 {
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        frame.extend((len as u16).to_be_bytes());
        frame.extend([protocol, 64]);
        frame.extend([0xfd; 16]);
        frame.extend([0xfe; 16]);
    } else {
        frame.extend([0x08, 0x00, 0x45, 0]);
        frame.extend((len as u16 + 20).to_be_bytes());
        frame.extend([0xff, 0xf0, 0x40, 0, 64, protocol, 0, 0, 10, 0, 1, 11, 10, 0, 1, 12]);
    }
    let start = frame.len();
    frame.extend([0x9c, 0x40, 0x01, 0xbb]);
    if udp {
        frame.extend((len as u16).to_be_bytes());
    } else {
        frame.extend([0xff, 0xff, 0xff, 0, 0, 0, 0, 99, ((5 + options) as u8) << 4, flags, 1, 0xf5]);
    }
    frame.extend([0, 0]);
    if !udp {
        frame.extend([0, 0]);
        frame.extend(std::iter::repeat_n(1, options * 4));
    }
    frame.extend(payload);
    let net = VnetHeader {
        flags: NEEDS_CSUM,
        gso_type: if udp {
            GSO_UDP_L4
        } else if v6 {
            GSO_TCPV6
        } else {
            GSO_TCPV4
        },
        csum_start: start as u16,
        csum_offset: if udp { 6 } else { 16 },
        ..VnetHeader::default()
    };
    (frame, net, transport)
}

proptest! {
    /// Cutting and joining gives the original data, and smoltcp finds every checksum, length and number right.
    #[test]
    fn segments_join_to_the_original(
        v6: bool,
        udp: bool,
        options in 0usize..=10,
        flags: u8,
        payload in proptest::collection::vec(any::<u8>(), 1..9000),
        size in 100u16..3000,
    ) {
        let (frame, net, transport) = offered(v6, udp, options, flags, &payload);
        let net = VnetHeader { gso_size: size, ..net };
        let segments = cut(&frame, &net, Checksum::Finish);
        let mut joined = Vec::new();
        for (number, bytes) in segments.iter().enumerate() {
            let ethernet = EthernetFrame::new_checked(&bytes[..]).unwrap();
            let (source, destination, protocol, payload): (IpAddress, IpAddress, _, &[u8]) = if v6 {
                prop_assert_eq!(ethernet.ethertype(), EthernetProtocol::Ipv6);
                let ip = Ipv6Packet::new_checked(ethernet.payload()).unwrap();
                (ip.src_addr().into(), ip.dst_addr().into(), ip.next_header(), ip.payload())
            } else {
                let ip = Ipv4Packet::new_checked(ethernet.payload()).unwrap();
                prop_assert!(ip.verify_checksum());
                prop_assert_eq!(ip.ident(), 0xfff0u16.wrapping_add(number as u16));
                (ip.src_addr().into(), ip.dst_addr().into(), ip.next_header(), ip.payload())
            };
            prop_assert_eq!(14 + if v6 { 40 } else { 20 } + payload.len(), bytes.len());
            let data = if protocol == IpProtocol::Udp {
                let datagram = UdpPacket::new_checked(payload).unwrap();
                prop_assert!(datagram.verify_checksum(&source, &destination));
                prop_assert_eq!(usize::from(datagram.len()), payload.len());
                datagram.payload().to_vec()
            } else {
                let segment = TcpPacket::new_checked(payload).unwrap();
                prop_assert!(segment.verify_checksum(&source, &destination));
                let want = 0xffff_ff00u32.wrapping_add(joined.len() as u32);
                prop_assert_eq!(segment.seq_number().0 as u32, want);
                let (first, last) = (number == 0, number + 1 == segments.len());
                prop_assert_eq!(segment.fin(), last && flags & 0x01 != 0);
                prop_assert_eq!(segment.psh(), last && flags & 0x08 != 0);
                prop_assert_eq!(segment.cwr(), first && flags & 0x80 != 0);
                prop_assert_eq!(segment.ece(), flags & 0x40 != 0);
                payload[transport..].to_vec()
            };
            prop_assert!(data.len() <= usize::from(size));
            joined.extend(data);
        }
        prop_assert_eq!(joined, payload);
    }

    /// A finished checksum is one that smoltcp accepts.
    #[test]
    fn finished_checksums_verify(v6: bool, udp: bool, payload in proptest::collection::vec(any::<u8>(), 0..3000)) {
        let (mut frame, net, _) = offered(v6, udp, 0, 0x18, &payload);
        let start = usize::from(net.csum_start);
        let (source, destination): (IpAddress, IpAddress) = if v6 {
            (Ipv6Addr::from([0xfd; 16]).into(), Ipv6Addr::from([0xfe; 16]).into())
        } else {
            (IpAddress::v4(10, 0, 1, 11), IpAddress::v4(10, 0, 1, 12))
        };
        let protocol = if udp { 17 } else { 6 };
        let len = (frame.len() - start) as u32;
        let pseudo = match (source, destination) {
            (IpAddress::Ipv4(s), IpAddress::Ipv4(d)) => wire::checksum::Sum::pseudo_v4(s, d, protocol, len),
            (IpAddress::Ipv6(s), IpAddress::Ipv6(d)) => wire::checksum::Sum::pseudo_v6(s, d, protocol, len),
            _ => unreachable!("both are of one family"),
        };
        let place = start + usize::from(net.csum_offset);
        frame[place..place + 2].copy_from_slice(&pseudo.folded().to_be_bytes());
        finish_checksum(&mut frame, &net).unwrap();
        let ok = if udp {
            UdpPacket::new_checked(&frame[start..]).unwrap().verify_checksum(&source, &destination)
        } else {
            TcpPacket::new_checked(&frame[start..]).unwrap().verify_checksum(&source, &destination)
        };
        prop_assert!(ok);
    }

    /// Whatever is claimed about whatever bytes, nothing panics and nothing is larger than it says.
    #[test]
    fn arbitrary_requests_never_panic(
        frame in proptest::collection::vec(any::<u8>(), 0..400),
        net: [u8; LEN],
        ethertype in 0usize..4,
        version in 0usize..3,
    ) {
        let mut frame = frame;
        if let Some(place) = frame.get_mut(12..15) {
            place[..2].copy_from_slice(&[[8, 0], [0x86, 0xdd], [0x81, 0], [1, 2]][ethertype]);
            place[2] = [0x45, 0x60, 0x4f][version];
        }
        let net = VnetHeader::from_bytes(&net);
        let _ = finish_checksum(&mut frame.clone(), &net);
        for gso_type in [net.gso_type, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4] {
            let net = VnetHeader { gso_type, ..net };
            if Segmenter::new(&frame, &net).is_ok() {
                cut(&frame, &net, Checksum::Finish);
            }
        }
    }
}
