//! Joining segments against cutting them: each undoes the other, and nothing else is joined.

use std::ops::ControlFlow;

use proptest::prelude::*;
use wire::checksum::Sum;
use wire::gro::{MAX_SEGMENTS, Run};
use wire::gso::{Checksum, MAX_HEADERS, Segmenter};
use wire::vnet::{GSO_ECN, GSO_TCPV4, GSO_TCPV6, NEEDS_CSUM, VnetHeader};

const ACK: u8 = 0x10;
const PSH: u8 = 0x08;
const FIN: u8 = 0x01;
const CWR: u8 = 0x80;

/// A large frame as a guest with offloads sends it: every field that segmentation reads is right.
fn large(v6: bool, options: usize, flags: u8, size: u16, payload: &[u8]) -> (Vec<u8>, VnetHeader) {
    let header = 20 + options * 4;
    let len = header + payload.len();
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    if v6 {
        frame.extend([0x86, 0xdd, 0x60, 0x21, 0x22, 0x23]);
        frame.extend((len as u16).to_be_bytes());
        frame.extend([6, 64]);
        frame.extend([0xfd; 16]);
        frame.extend([0xfe; 16]);
    } else {
        frame.extend([0x08, 0x00, 0x45, 2]);
        frame.extend((len as u16 + 20).to_be_bytes());
        frame.extend([0xff, 0xf0, 0x40, 0, 64, 6, 0, 0, 10, 0, 1, 11, 10, 0, 1, 12]);
        let sum = Sum::ZERO.bytes(&frame[14..34]).checksum();
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
    }
    let start = frame.len();
    frame.extend([0x9c, 0x40, 0x01, 0xbb, 0xff, 0xff, 0xff, 0, 0, 0, 0, 99]);
    frame.extend([((5 + options) as u8) << 4, flags, 1, 0xf5, 0, 0, 0, 0]);
    frame.extend((0..options * 4).map(|i| i as u8));
    frame.extend(payload);
    let addresses = if v6 { 22..54 } else { 26..34 };
    let pseudo = Sum::ZERO.bytes(&frame[addresses]).word(6).word(len as u16).folded();
    frame[start + 16..start + 18].copy_from_slice(&pseudo.to_be_bytes());
    let ecn = if flags & CWR == 0 { 0 } else { GSO_ECN };
    let net = VnetHeader {
        flags: NEEDS_CSUM,
        gso_type: ecn | if v6 { GSO_TCPV6 } else { GSO_TCPV4 },
        hdr_len: (start + header) as u16,
        gso_size: size,
        csum_start: start as u16,
        csum_offset: 16,
        num_buffers: 0,
    };
    (frame, net)
}

fn cut(frame: &[u8], net: &VnetHeader) -> Vec<Vec<u8>> {
    let mut segments = Vec::new();
    let _ = Segmenter::new(frame, net).unwrap().for_each(Checksum::Finish, |header, payload| {
        segments.push([header, payload].concat());
        ControlFlow::Continue(())
    });
    segments
}

/// What comes of a list of frames: joined ones with what is said of them, others as they came.
fn join(frames: &[Vec<u8>]) -> Vec<(Vec<u8>, VnetHeader)> {
    fn end(run: Option<Run<'_>>, out: &mut Vec<(Vec<u8>, VnetHeader)>) {
        let Some(run) = run else { return };
        if let Some(only) = run.only() {
            return out.push((only.to_vec(), VnetHeader::default()));
        }
        let mut room = [0; MAX_HEADERS];
        let (headers, net) = run.headers(&mut room);
        let frame = [headers, &run.parts().concat()].concat();
        assert_eq!(frame.len(), run.len());
        out.push((frame, net));
    }
    let (mut out, mut run) = (Vec::new(), None::<Run<'_>>);
    for frame in frames {
        if run.as_mut().is_some_and(|run| run.join(frame)) {
            continue;
        }
        end(run.take(), &mut out);
        run = Run::begin(frame);
        if run.is_none() {
            out.push((frame.clone(), VnetHeader::default()));
        }
    }
    end(run, &mut out);
    out
}

/// How many frames come of two segments, the second of which was changed; its checksums are made right again.
fn joined_after(v6: bool, change: impl FnOnce(&mut Vec<u8>)) -> usize {
    let (frame, net) = large(v6, 3, ACK, 100, &[7; 200]);
    let mut segments = cut(&frame, &net);
    change(&mut segments[1]);
    mend(&mut segments[1]);
    join(&segments).len()
}

fn mend(segment: &mut [u8]) {
    let v6 = segment[12] == 0x86;
    let start = if v6 { 54 } else { 34 };
    if !v6 {
        segment[24..26].fill(0);
        let sum = Sum::ZERO.bytes(&segment[14..34]).checksum();
        segment[24..26].copy_from_slice(&sum.to_be_bytes());
    }
    segment[start + 16..start + 18].fill(0);
    let addresses = if v6 { 22..54 } else { 26..34 };
    let len = (segment.len() - start) as u16;
    let pseudo = Sum::ZERO.bytes(&segment[addresses]).word(6).word(len);
    let sum = pseudo.bytes(&segment[start..]).checksum();
    segment[start + 16..start + 18].copy_from_slice(&sum.to_be_bytes());
}

#[test]
fn every_header_field_that_differs_keeps_segments_apart() {
    assert_eq!((joined_after(false, |_| {}), joined_after(true, |_| {})), (1, 1));
    let fields4: &[(&str, usize, u8)] = &[
        ("destination MAC", 5, 1),
        ("source MAC", 11, 2),
        ("type of service", 15, 4),
        ("congestion mark", 15, 1),
        ("identification", 19, 4),
        ("don't fragment", 20, 0x40),
        ("more fragments", 20, 0x20),
        ("time to live", 22, 1),
        ("source", 29, 1),
        ("destination", 33, 8),
        ("source port", 35, 1),
        ("destination port", 37, 1),
        ("sequence number", 41, 1),
        ("acknowledgement", 45, 1),
        ("reserved bits", 46, 1),
        ("SYN", 47, 2),
        ("RST", 47, 4),
        ("URG", 47, 0x20),
        ("ECE", 47, 0x40),
        ("CWR", 47, 0x80),
        ("no ACK", 47, 0x10),
        ("window", 49, 1),
        ("urgent pointer", 53, 1),
        ("options", 57, 1),
    ];
    for (name, at, bits) in fields4 {
        assert_eq!(joined_after(false, |segment| segment[*at] ^= bits), 2, "{name}");
    }
    let fields6 =
        [("class", 14, 1), ("label", 17, 1), ("hop limit", 21, 1), ("source", 37, 1), ("to", 53, 1)];
    for (name, at, bits) in fields6 {
        assert_eq!(joined_after(true, |segment| segment[at] ^= bits), 2, "IPv6 {name}");
    }
}

#[test]
fn lengths_that_segmentation_does_not_make_keep_segments_apart() {
    let resized = |to: usize| {
        move |segment: &mut Vec<u8>| {
            segment.resize(66 + to, 7);
            segment[16..18].copy_from_slice(&((52 + to) as u16).to_be_bytes());
        }
    };
    assert_eq!(joined_after(false, resized(101)), 2, "longer than the first");
    assert_eq!(joined_after(false, resized(0)), 2, "no data");
    assert_eq!(joined_after(false, resized(1)), 1, "a short one ends the run");
    assert_eq!(joined_after(false, |segment| segment.push(0)), 2, "padding behind the packet");
    let (frame, net) = large(false, 0, ACK, 100, &[7; 350]);
    let mut segments = cut(&frame, &net);
    segments.swap(2, 3);
    assert_eq!(join(&segments).len(), 3, "nothing follows out of order");
}

#[test]
fn damage_is_not_covered_up() {
    let (frame, net) = large(false, 0, ACK, 100, &[7; 300]);
    for (number, at) in [(0, 60), (1, 60), (2, 60), (0, 25), (1, 24), (1, 51)] {
        let mut segments = cut(&frame, &net);
        segments[number][at] ^= 1;
        let joined = join(&segments);
        assert!(joined.len() > 1, "byte {at} of segment {number}");
        assert!(joined.iter().any(|(frame, net)| *frame == segments[number] && !net.needs_csum()));
    }
}

#[test]
fn an_identification_that_stays_is_joined_only_where_it_means_nothing() {
    assert_eq!(joined_after(false, |segment| segment[19] -= 1), 1, "not to be fragmented");
    let (frame, net) = large(false, 0, ACK, 100, &[7; 200]);
    let mut segments = cut(&frame, &net);
    for segment in &mut segments {
        segment[20] = 0;
        segment[19] = 0;
        mend(segment);
    }
    assert_eq!(join(&segments).len(), 2);
}

#[test]
fn a_run_has_a_largest_number_of_segments_and_of_bytes() {
    let (frame, net) = large(true, 0, ACK, 100, &[7; 6600]);
    let joined = join(&cut(&frame, &net));
    assert_eq!(joined.len(), 2);
    assert_eq!(joined[0].0.len(), 74 + 100 * MAX_SEGMENTS);
    let (frame, net) = large(false, 0, ACK, 1400, &[7; 65_495]);
    assert_eq!(frame.len(), 65_549);
    let mut segments = cut(&frame, &net);
    assert_eq!(join(&segments).len(), 1, "the largest packet there is");
    let last = segments.len() - 1;
    segments[last].push(7);
    let total = segments[last].len() as u16 - 14;
    segments[last][16..18].copy_from_slice(&total.to_be_bytes());
    mend(&mut segments[last]);
    assert_eq!(join(&segments).len(), 2, "one byte more");
}

proptest! {
    /// Joining undoes cutting.
    #[test]
    fn joined_segments_are_the_frame_that_was_cut(
        v6: bool,
        options in 0usize..=10,
        pushed: bool,
        ends: bool,
        reduced: bool,
        payload in proptest::collection::vec(any::<u8>(), 101..9000),
        size in 100u16..3000,
    ) {
        let flags = ACK | if pushed { PSH } else { 0 } | if ends { FIN } else { 0 } | if reduced { CWR } else { 0 };
        prop_assume!(payload.len().div_ceil(usize::from(size)) <= MAX_SEGMENTS);
        let (frame, net) = large(v6, options, flags, size, &payload);
        let segments = cut(&frame, &net);
        let joined = join(&segments);
        if segments.len() == 1 {
            prop_assert_eq!(joined, vec![(segments[0].clone(), VnetHeader::default())]);
        } else {
            prop_assert_eq!(joined, vec![(frame, net)]);
        }
    }

    /// Whatever comes in whatever order: cutting what was joined gives what came, byte for byte.
    #[test]
    fn nothing_is_lost_or_changed_by_joining(
        frames in proptest::collection::vec((any::<bool>(), 0usize..3, 0usize..5, 1usize..400), 1..4),
        order in proptest::collection::vec((0usize..12, 0usize..200, 0u8..=255), 0..30),
    ) {
        let mut came = Vec::new();
        for (v6, options, ack, len) in frames {
            let flags = ACK | [0, PSH, FIN, CWR, 2][ack];
            let (frame, net) = large(v6, options, flags, 90, &vec![len as u8; len]);
            came.extend(cut(&frame, &net));
        }
        for (which, at, bits) in order {
            let count = came.len();
            let segment = &mut came[which % count];
            let at = at % segment.len();
            match bits {
                0..64 => segment[at] ^= bits,
                64..128 => {
                    segment[at] ^= bits;
                    mend(segment);
                }
                _ => came.swap(which % count, at % count),
            }
        }
        let mut went = Vec::new();
        for (frame, net) in join(&came) {
            if net.is_gso() { went.extend(cut(&frame, &net)) } else { went.push(frame) }
        }
        // An identification that stayed counts up afterwards; its checksum with it.
        let plain = |frames: &[Vec<u8>]| -> Vec<Vec<u8>> {
            frames.iter().map(|frame| {
                let mut frame = frame.clone();
                if frame[12] == 8 && frame[20] & 0x40 != 0 {
                    (frame[18], frame[19]) = (0, 0);
                    frame[24..26].fill(0);
                }
                frame
            }).collect()
        };
        prop_assert_eq!(plain(&went), plain(&came));
    }

    #[test]
    fn arbitrary_frames_never_panic(
        frames in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..5),
        kind in 0usize..3,
    ) {
        let frames: Vec<Vec<u8>> = frames.into_iter().map(|mut frame| {
            if let Some(place) = frame.get_mut(12..15) {
                place.copy_from_slice(&[[8, 0, 0x45], [0x86, 0xdd, 0x60], [1, 2, 3]][kind]);
            }
            frame
        }).collect();
        join(&frames);
    }
}
