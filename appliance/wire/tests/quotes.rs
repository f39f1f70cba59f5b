//! Quotes in ICMP errors that scapy built, and any bytes.

use proptest::prelude::*;
use wire::icmp::{self, Query};
use wire::quote::{Quote, QuoteError};

fn shown(result: Result<Quote, QuoteError>) -> String {
    match result {
        Ok(quote) => {
            let Quote { protocol, source, destination, source_port, destination_port, sequence, .. } = quote;
            let sequence = sequence.map_or("-".to_string(), |sequence| sequence.to_string());
            format!("{protocol} {source} {destination} {source_port} {destination_port} {sequence}")
        }
        Err(QuoteError::Header(_)) => "header".to_string(),
        Err(QuoteError::Transport { have }) => format!("transport {have}"),
        Err(QuoteError::LaterFragment { units }) => format!("fragment {units}"),
        Err(QuoteError::NoQuery { kind }) => format!("no-query {kind}"),
    }
}

/// The lines of `quotes.tsv`, which `quotes.py` prints: case, IPv6, what must be read, the ICMP message.
fn golden() -> impl Iterator<Item = (&'static str, bool, &'static str, Vec<u8>)> {
    include_str!("quotes.tsv").lines().map(|line| {
        let [case, version, wanted, message] = line.split('\t').collect::<Vec<_>>()[..] else {
            panic!("{line}")
        };
        let byte = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
        (case, version == "6", wanted, message.as_bytes().chunks(2).map(byte).collect())
    })
}

#[test]
fn each_quote_gives_its_flow_or_why_it_gives_none() {
    for (case, v6, wanted, message) in golden() {
        assert_eq!(shown(Quote::parse(v6, &message[icmp::HEADER_LEN..])), wanted, "{case}");
    }
}

#[test]
fn each_message_that_quotes_is_an_error_and_no_query() {
    for (case, v6, _, message) in golden() {
        let kind = message[0];
        let (error, query) = if v6 {
            (icmp::v6::is_error(kind), icmp::v6::query(kind))
        } else {
            (icmp::v4::is_error(kind), icmp::v4::query(kind))
        };
        assert!(error && query.is_none(), "{case}");
    }
}

/// RFC 792 and the IANA registry of ICMP types: 0, 3, 4, 5, 8 to 14 are in use.
#[test]
fn icmp_types_are_errors_queries_or_neither() {
    let of = |kinds: [u8; 4], is: fn(u8) -> bool| {
        assert_eq!((0..=255).filter(|kind| is(*kind)).collect::<Vec<_>>(), kinds)
    };
    of([3, 4, 11, 12], icmp::v4::is_error);
    of([0, 8, 13, 14], |kind| icmp::v4::query(kind).is_some());
    assert_eq!((icmp::v4::query(8), icmp::v4::query(0)), (Some(Query::Request), Some(Query::Reply)));
    // RFC 4443: types 0 to 127 are errors, 128 and 129 echo.
    assert!((0..=255).all(|kind| icmp::v6::is_error(kind) == (kind < 128)));
    let queries: Vec<u8> = (0..=255).filter(|kind| icmp::v6::query(*kind).is_some()).collect();
    assert_eq!(queries, [128, 129]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_bytes_are_read_or_refused(v6: bool, bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
        let _ = Quote::parse(v6, &bytes);
    }

    #[test]
    fn what_is_read_lies_within_the_bytes(number in 0..golden().count(), changes in proptest::collection::vec(any::<(usize, u8)>(), 0..4), cut: usize) {
        let (_, v6, _, message) = golden().nth(number).unwrap();
        let mut quote = message[icmp::HEADER_LEN..].to_vec();
        quote.truncate(cut % (quote.len() + 1));
        for (at, to) in changes {
            if !quote.is_empty() {
                let at = at % quote.len();
                quote[at] = to;
            }
        }
        if let Ok(read) = Quote::parse(v6, &quote) {
            prop_assert!(read.transport + 8 <= quote.len());
            prop_assert_eq!(read.source.is_ipv6(), v6);
        }
    }
}
