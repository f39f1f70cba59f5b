//! Any bytes and any segments: nothing panics, and what is kept is what was.

use pipeline::conntrack::Side;
use pipeline::conntrack::datagram::Datagram;
use pipeline::conntrack::tcp::{Kind, Segment, Settings, Tcp};
use proptest::prelude::*;

/// Segments whose numbers are near each other, or anywhere.
fn segments() -> impl Strategy<Value = (Side, Segment)> {
    let number = || prop_oneof![3 => 0..2000_u32, 1 => (u32::MAX - 2000)..=u32::MAX, 1 => any::<u32>()];
    let len = prop_oneof![3 => 0..3_u32, 1 => 0..70_000_u32];
    let scale = proptest::option::of(0..15_u8);
    let side = prop_oneof![Just(Side::Initiator), Just(Side::Responder)];
    (side, 0..Kind::ALL.len(), number(), number(), any::<u16>(), len, scale).prop_map(
        |(side, kind, seq, ack, window, len, scale)| {
            (side, Segment { kind: Kind::ALL[kind], seq, ack, window, len, scale, partial: len % 7 == 0 })
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_bytes_are_a_segment_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..80), len: u32) {
        if let Ok(segment) = Segment::parse(&bytes, len) {
            prop_assert!(bytes.len() >= 20);
            prop_assert!(segment.scale.is_none_or(|scale| scale <= 14));
        }
    }

    #[test]
    fn any_segments_are_survived_and_words_keep_a_connection(
        words: [u64; 3],
        rest: u32,
        opens: bool,
        segments in proptest::collection::vec(segments(), 1..60),
    ) {
        let settings = Settings { pick_up: true };
        let mut tcp = match Tcp::open(&segments[0].1, &settings) {
            Ok(tcp) if opens => tcp,
            _ => Tcp::from_words(words, rest),
        };
        for (side, segment) in &segments {
            let was = tcp;
            if tcp.track(*side, segment).is_err() {
                prop_assert_eq!(tcp, was);
            }
            let (words, rest) = tcp.to_words();
            prop_assert_eq!(Tcp::from_words(words, rest), tcp);
            let _ = (tcp.has_sent(*side, segment.seq), tcp.class(), tcp.state().name());
        }
    }

    #[test]
    fn a_datagram_flow_never_goes_back(sides in proptest::collection::vec(any::<bool>(), 0..20)) {
        let mut flow = Datagram::default();
        for initiator in sides {
            let was = flow as u8;
            let _ = flow.track(if initiator { Side::Initiator } else { Side::Responder });
            prop_assert!(flow as u8 >= was);
            prop_assert_eq!(Datagram::from_number(flow as u8), flow);
        }
    }
}
