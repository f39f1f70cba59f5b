//! GENEVE headers against scapy's, and every way to be wrong.

use proptest::prelude::*;
use wire::geneve::{self, BUILT_LEN, Builder, GeneveError, HEADER_LEN, Header, MOST_LEN};

/// A line of `geneve.tsv`, which `geneve.py` prints.
fn golden(name: &str) -> Vec<u8> {
    let line =
        include_str!("geneve.tsv").lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('\t'));
    let digits = line.unwrap_or_else(|| panic!("no line {name}")).as_bytes();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

fn parse(name: &str) -> Result<Header, GeneveError> {
    Header::parse(&golden(name))
}

fn built(builder: Builder) -> Vec<u8> {
    let mut buffer = [0xa5; BUILT_LEN];
    let len = builder.write(&mut buffer);
    assert_eq!(len, builder.len());
    assert!(buffer[len..].iter().all(|byte| *byte == 0xa5), "nothing is written behind the header");
    buffer[..len].to_vec()
}

#[test]
fn headers_are_read_and_written_as_scapy_does() {
    let plain = Builder { vni: 100, ..Builder::default() };
    let table = [
        ("bare", plain),
        ("control", Builder { control: true, ..plain }),
        (
            "all options",
            Builder { vni: 0x12_3456, control: false, identity: Some(7), tags: Some((1, 2)), port: Some(42) },
        ),
        ("identity", Builder { vni: geneve::MOST_VNI, identity: Some(7), ..plain }),
        ("port", Builder { vni: 0, port: Some(42), ..plain }),
        ("tags", Builder { vni: 1, tags: Some((1, 2)), ..plain }),
    ];
    for (name, builder) in table {
        let Builder { vni, control, identity, tags, port } = builder;
        assert_eq!(built(builder), golden(name), "{name}");
        let want = Header { len: builder.len(), vni, control, identity, tags, port };
        assert_eq!(parse(name), Ok(want), "{name}");
    }
}

#[test]
fn critical_options_count_with_and_without_the_headers_c_bit() {
    let header = parse("no C bit").unwrap();
    assert_eq!((header.vni, header.identity, header.port), (0x12_3456, Some(7), Some(42)));
    assert_eq!(parse("C bit and nothing critical").unwrap().tags, Some((1, 2)));
}

#[test]
fn an_unknown_option_that_is_not_critical_is_skipped() {
    let header = parse("unknown option").unwrap();
    assert_eq!((header.identity, header.len), (Some(7), HEADER_LEN + 4 + 8));
    assert_eq!(parse("unknown option of our class").map(|header| header.identity), Ok(None));
    assert_eq!(parse("longest").map(|header| header.len), Ok(MOST_LEN));
    assert_eq!(parse("tags of one word").map(|header| header.tags), Ok(None));
}

#[test]
fn a_critical_option_that_cannot_be_honoured_ends_the_packet() {
    for (name, class, kind, len) in [
        ("unknown critical option", 0x0103, 0x80, 4),
        ("unknown critical option of our class", 0xff00, 0x82, 8),
        ("identity twice", 0xff00, 0x81, 4),
        ("identity of two words", 0xff00, 0x81, 8),
        ("port of no word", 0xff00, 0x83, 0),
    ] {
        assert_eq!(parse(name), Err(GeneveError::CriticalOption { class, kind, len }), "{name}");
    }
}

#[test]
fn another_version_or_protocol_is_refused() {
    assert_eq!(parse("version 1"), Err(GeneveError::Version(1)));
    assert_eq!(parse("IPv4 inside"), Err(GeneveError::Protocol(0x0800)));
}

#[test]
fn lengths_must_add_up_exactly() {
    let whole = golden("all options");
    for len in 0..whole.len() {
        let need = if len < HEADER_LEN { HEADER_LEN } else { whole.len() };
        assert_eq!(Header::parse(&whole[..len]), Err(GeneveError::Short { need, have: len }));
    }
    // The options are said to be a word shorter: the last ends behind them.
    let mut short = whole.clone();
    short[0] -= 1;
    assert_eq!(Header::parse(&short), Err(GeneveError::OptionLength { need: 8, have: 4 }));
    // And a word longer, which the frame's first bytes are then taken for.
    let mut long = [whole.as_slice(), &[0xff, 0xff, 0x01, 0x01, 9, 9]].concat();
    long[0] += 1;
    assert_eq!(Header::parse(&long), Err(GeneveError::OptionLength { need: 8, have: 4 }));
}

#[test]
fn reserved_bits_are_not_looked_at() {
    let mut bytes = golden("all options");
    bytes[1] |= 0x3f;
    bytes[7] = 0xff;
    for option in [8, 16, 28] {
        bytes[option + 3] |= 0xe0;
    }
    assert_eq!(Header::parse(&bytes), parse("all options"));
}

#[test]
fn a_datagram_is_split_behind_its_header() {
    let header = golden("all options");
    let datagram = [header.as_slice(), b"frame"].concat();
    assert_eq!(geneve::split(&datagram), (header.as_slice(), b"frame".as_slice()));
    assert_eq!(geneve::split(&header[..20]), (&header[..20], [].as_slice()));
    assert_eq!(geneve::split(&[]), ([].as_slice(), [].as_slice()));
}

#[test]
fn nothing_is_written_into_a_buffer_that_is_too_short() {
    let builder = Builder { identity: Some(1), ..Builder::default() };
    assert_eq!(builder.write(&mut [0; 15]), 0);
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(
        vni in 0..=geneve::MOST_VNI, control: bool, identity: Option<u32>, tags: Option<(u32, u32)>, port: Option<u32>,
    ) {
        let bytes = built(Builder { vni, control, identity, tags, port });
        prop_assert_eq!(Header::parse(&bytes), Ok(Header { len: bytes.len(), vni, control, identity, tags, port }));
    }

    /// Whatever comes, the options that are read fill the header: walked once more by hand.
    #[test]
    fn any_bytes_are_survived(mut bytes in proptest::collection::vec(any::<u8>(), 0..300), honest: bool) {
        if let (true, Some(start)) = (honest, bytes.get_mut(..4)) {
            start.copy_from_slice(&[start[0] & 0x3f, start[1], 0x65, 0x58]);
        }
        let Ok(header) = Header::parse(&bytes) else { return Ok(()) };
        prop_assert!(header.len <= bytes.len() && header.vni <= geneve::MOST_VNI);
        let mut at = HEADER_LEN;
        while at < header.len {
            at += 4 + usize::from(bytes[at + 3] & 0x1f) * 4;
        }
        prop_assert_eq!(at, header.len);
    }
}
