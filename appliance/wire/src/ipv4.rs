//! IPv4 (RFC 791).
//!
//! ```text
//!  0        1     2              4      6               8     9      10         12      16           20
//! +--------+-----+--------------+------+---------------+-----+------+----------+-------+------------+---------
//! |ver|ihl | tos | total length |  id  |flags| offset/8| ttl | prot | checksum | source| destination| options
//! +--------+-----+--------------+------+---------------+-----+------+----------+-------+------------+---------
//! ```

use core::net::Ipv4Addr;

use crate::HeaderError;
use crate::checksum::Sum;

/// Bytes of the header without options.
pub const HEADER_LEN: usize = 20;
/// ICMP.
pub const ICMP: u8 = 1;
/// IGMP.
pub const IGMP: u8 = 2;
/// TCP.
pub const TCP: u8 = 6;
/// UDP.
pub const UDP: u8 = 17;
/// SCTP.
pub const SCTP: u8 = 132;

/// The upper four bits of every multicast address (RFC 5771).
pub const MULTICAST_PREFIX: u32 = 0xe;
/// "More fragments follow", in the word of flags and fragment offset.
pub const MORE_FRAGMENTS: u16 = 0x2000;
/// The fragment's offset in units of 8 bytes, in the same word.
pub const FRAGMENT_OFFSET: u16 = 0x1fff;

/// Where fields lie in the header, for those who rewrite them.
pub mod field {
    use core::ops::Range;
    /// Total length.
    pub const LENGTH: Range<usize> = 2..4;
    /// Identification.
    pub const ID: Range<usize> = 4..6;
    /// Flags and fragment offset.
    pub const FRAGMENT: Range<usize> = 6..8;
    /// Time to live.
    pub const TTL: usize = 8;
    /// Header checksum.
    pub const CHECKSUM: Range<usize> = 10..12;
    /// Source address.
    pub const SOURCE: Range<usize> = 12..16;
    /// Destination address.
    pub const DESTINATION: Range<usize> = 16..20;
}

/// A header whose lengths are proven.
#[derive(Clone, Copy, Debug)]
pub struct Ipv4<'a> {
    fixed: &'a [u8; HEADER_LEN],
    options: &'a [u8],
}

impl<'a> Ipv4<'a> {
    /// Views the header at the start of `bytes`. The packet may go on beyond them: it has at most `packet_len` bytes.
    ///
    /// Proves: version 4; the header with its options lies within `bytes`; header length <= total length <= packet_len.
    ///
    /// # Errors
    /// What of this is not so.
    #[inline]
    pub fn parse(bytes: &'a [u8], packet_len: usize) -> Result<Self, HeaderError> {
        let Some((fixed, rest)) = bytes.split_first_chunk::<HEADER_LEN>() else {
            return Err(HeaderError::Short { need: HEADER_LEN, have: bytes.len() });
        };
        if fixed[0] >> 4 != 4 {
            return Err(HeaderError::Field { want: 4, got: u16::from(fixed[0] >> 4) });
        }
        let header_len = usize::from(fixed[0] & 0xf) * 4;
        if header_len < HEADER_LEN {
            return Err(HeaderError::Length { says: header_len, least: HEADER_LEN, most: 60 });
        }
        let Some(options) = rest.get(..header_len - HEADER_LEN) else {
            return Err(HeaderError::Short { need: header_len, have: bytes.len() });
        };
        let this = Self { fixed, options };
        let total = this.total_len();
        if total < header_len || total > packet_len {
            return Err(HeaderError::Length { says: total, least: header_len, most: packet_len });
        }
        Ok(this)
    }

    /// Bytes of the header, options included: 20 to 60.
    #[inline]
    pub fn header_len(&self) -> usize {
        HEADER_LEN + self.options.len()
    }

    /// Bytes of the packet, header included.
    #[inline]
    pub fn total_len(&self) -> usize {
        usize::from(u16::from_be_bytes([self.fixed[2], self.fixed[3]]))
    }

    /// Identification: what the fragments of one packet share.
    #[inline]
    pub fn id(&self) -> u16 {
        u16::from_be_bytes([self.fixed[4], self.fixed[5]])
    }

    /// Flags and fragment offset.
    #[inline]
    pub fn fragment_word(&self) -> u16 {
        u16::from_be_bytes([self.fixed[6], self.fixed[7]])
    }

    /// Whether this is a fragment, first or later.
    #[inline]
    pub fn is_fragment(&self) -> bool {
        self.fragment_word() & (MORE_FRAGMENTS | FRAGMENT_OFFSET) != 0
    }

    /// The protocol of the payload.
    #[inline]
    pub fn protocol(&self) -> u8 {
        self.fixed[9]
    }

    /// Source address.
    #[inline]
    pub fn source(&self) -> Ipv4Addr {
        let [.., a, b, c, d, _, _, _, _] = *self.fixed;
        Ipv4Addr::new(a, b, c, d)
    }

    /// Destination address.
    #[inline]
    pub fn destination(&self) -> Ipv4Addr {
        let [.., a, b, c, d] = *self.fixed;
        Ipv4Addr::new(a, b, c, d)
    }

    /// The options, padding included.
    #[inline]
    pub fn options(&self) -> &'a [u8] {
        self.options
    }

    /// Whether the options hold a loose or strict source route (types 131 and 137), or cannot be read to their end.
    pub fn has_source_route(&self) -> bool {
        let mut options = self.options;
        loop {
            options = match options {
                [] | [0, ..] => return false,
                [1, rest @ ..] => rest,
                [131 | 137, ..] => return true,
                [_, len, ..] if *len >= 2 => match options.get(usize::from(*len)..) {
                    Some(rest) => rest,
                    None => return true,
                },
                _ => return true,
            };
        }
    }

    /// Whether the header checksum is right.
    pub fn checksum_ok(&self) -> bool {
        Sum::ZERO.bytes(self.fixed).bytes(self.options).checksum() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `bytes(IP(src="10.0.1.11", dst="10.0.1.12", id=7, options=IPOption_RR(length=7, pointer=4, routers=["0.0.0.0"]))/"ab").hex()`
    const WITH_OPTIONS: [u8; 30] = [
        0x47, 0x00, 0x00, 0x1e, 0x00, 0x07, 0x00, 0x00, 0x40, 0x00, 0x57, 0xaa, 0x0a, 0x00, 0x01, 0x0b, 0x0a,
        0x00, 0x01, 0x0c, 0x07, 0x07, 0x04, 0x00, 0x00, 0x00, 0x00, 0x00, 0x61, 0x62,
    ];

    #[test]
    fn a_header_with_options_is_read() {
        let header = Ipv4::parse(&WITH_OPTIONS, 30).unwrap();
        assert_eq!((header.header_len(), header.total_len(), header.id()), (28, 30, 7));
        assert_eq!(header.source(), Ipv4Addr::new(10, 0, 1, 11));
        assert_eq!(header.destination(), Ipv4Addr::new(10, 0, 1, 12));
        assert!(!header.is_fragment() && !header.has_source_route());
    }

    #[test]
    fn lengths_that_contradict_each_other_are_refused() {
        let change = |at: usize, to: u8| {
            let mut bytes = WITH_OPTIONS;
            bytes[at] = to;
            Ipv4::parse(&bytes, 30).map(|_| ())
        };
        assert_eq!(change(0, 0x67), Err(HeaderError::Field { want: 4, got: 6 }));
        assert_eq!(change(0, 0x44), Err(HeaderError::Length { says: 16, least: 20, most: 60 }));
        assert_eq!(change(0, 0x4f), Err(HeaderError::Short { need: 60, have: 30 }));
        assert_eq!(change(3, 27), Err(HeaderError::Length { says: 27, least: 28, most: 30 }));
        assert_eq!(change(3, 31), Err(HeaderError::Length { says: 31, least: 28, most: 30 }));
        assert_eq!(
            Ipv4::parse(&WITH_OPTIONS[..19], 30).map(|_| ()),
            Err(HeaderError::Short { need: 20, have: 19 })
        );
    }

    #[test]
    fn source_routes_and_unreadable_options_are_found() {
        let with = |options: [u8; 8]| {
            let mut bytes = WITH_OPTIONS;
            bytes[20..28].copy_from_slice(&options);
            Ipv4::parse(&bytes, 30).unwrap().has_source_route()
        };
        assert!(with([131, 7, 4, 10, 0, 0, 1, 0]));
        assert!(with([1, 137, 7, 4, 10, 0, 0, 1]));
        assert!(with([7, 1, 131, 0, 0, 0, 0, 0]), "an option of one byte does not exist");
        assert!(with([7, 9, 4, 0, 0, 0, 0, 0]), "an option that is longer than the header");
        assert!(!with([0, 131, 7, 4, 0, 0, 0, 0]), "after the end of options nobody looks");
        assert!(!with([1, 1, 1, 1, 7, 3, 4, 0]));
    }
}
