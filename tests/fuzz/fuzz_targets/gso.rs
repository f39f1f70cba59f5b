//! Segmentation and checksum finishing of arbitrary frames with arbitrary requests.
#![no_main]

use std::ops::ControlFlow;

use arbitrary::{Arbitrary, Unstructured};
use libfuzzer_sys::fuzz_target;
use wire::gso::{Checksum, MAX_TCP_SEGMENTS, Segmenter, finish_checksum};
use wire::vnet::{LEN, NEEDS_CSUM, VnetHeader};

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    net: [u8; LEN],
    /// Whether the request is made to fit the frame where that is a matter of a few fields.
    honest: bool,
    v6: bool,
    udp: bool,
    words: u8,
    bytes: &'a [u8],
}

/// A frame of the bytes that has a chance to be cut, and its request.
fn dress(input: &Input<'_>, frame: &mut [u8]) -> VnetHeader {
    let mut net = VnetHeader::from_bytes(&input.net);
    let len = frame.len();
    let mut put = |at: usize, bytes: &[u8]| {
        if let Some(place) = frame.get_mut(at..).and_then(|rest| rest.get_mut(..bytes.len())) {
            place.copy_from_slice(bytes);
        }
    };
    if !input.honest {
        return net;
    }
    let protocol = if input.udp { 17 } else { 6 };
    let start: u16 = if input.v6 {
        put(12, &[0x86, 0xdd, 0x60]);
        put(18, &(len.saturating_sub(54) as u16).to_be_bytes());
        put(20, &[protocol]);
        54
    } else {
        put(12, &[8, 0, 0x45]);
        put(16, &(len.saturating_sub(14) as u16).to_be_bytes());
        put(20, &[0, 0, 64, protocol]);
        34
    };
    if !input.udp {
        put(usize::from(start) + 12, &[(5 + input.words % 11) << 4]);
    }
    net.flags |= NEEDS_CSUM;
    net.gso_type = if input.udp {
        5
    } else if input.v6 {
        4
    } else {
        1
    };
    net.csum_start = start;
    net.csum_offset = if input.udp { 6 } else { 16 };
    net
}

fuzz_target!(|data: &[u8]| {
    let Ok(input) = Input::arbitrary_take_rest(Unstructured::new(data)) else { return };
    let mut frame = input.bytes.to_vec();
    let net = dress(&input, &mut frame);
    let _ = finish_checksum(&mut frame.clone(), &net);
    let Ok(segmenter) = Segmenter::new(&frame, &net) else { return };
    for checksum in [Checksum::Finish, Checksum::Partial] {
        let header = segmenter.net_header(checksum);
        let (mut count, mut total, mut at) = (0, 0, None);
        let done = segmenter.for_each(checksum, |headers, payload| {
            count += 1;
            total += payload.len();
            assert!(headers.len() + payload.len() <= segmenter.largest());
            assert!(payload.len() <= usize::from(net.gso_size));
            // Payloads are the frame's own bytes, one after the other.
            let range = payload.as_ptr_range();
            assert!(payload.is_empty() || at.is_none_or(|end| end == range.start));
            at = Some(range.end);
            // Every segment is one that needs no further cutting.
            let mut segment = [headers, payload].concat();
            assert_eq!(finish_checksum(&mut segment, &header), Ok(()));
            ControlFlow::Continue(())
        });
        assert_eq!(done, ControlFlow::Continue(()));
        assert_eq!(count, segmenter.count());
        assert!(count <= MAX_TCP_SEGMENTS && total < frame.len());
    }
});
