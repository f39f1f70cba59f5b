//! IPv6 (RFC 8200) and the walk over its extension headers.
//!
//! ```text
//!  0                 4              6            7           8        24           40
//! +-----------------+--------------+------------+-----------+--------+------------+-----
//! |ver| class | flow|payload length| next header| hop limit | source | destination| extension headers, payload
//! +-----------------+--------------+------------+-----------+--------+------------+-----
//! ```

use core::net::Ipv6Addr;

use crate::HeaderError;

/// Bytes of the fixed header.
pub const HEADER_LEN: usize = 40;
/// More extension headers than this are refused: no honest sender needs them, and each costs time.
pub const MAX_EXTENSIONS: usize = 4;

/// Hop-by-hop options.
pub const HOP_BY_HOP: u8 = 0;
/// Routing header.
pub const ROUTING: u8 = 43;
/// Fragment header.
pub const FRAGMENT: u8 = 44;
/// ICMPv6.
pub const ICMPV6: u8 = 58;
/// Nothing follows.
pub const NO_NEXT_HEADER: u8 = 59;
/// Destination options.
pub const DESTINATION_OPTIONS: u8 = 60;

/// Where fields lie in the header, for those who rewrite them.
pub mod field {
    use core::ops::Range;
    /// Payload length.
    pub const LENGTH: Range<usize> = 4..6;
    /// Hop limit.
    pub const HOP_LIMIT: usize = 7;
    /// Source address.
    pub const SOURCE: Range<usize> = 8..24;
    /// Destination address.
    pub const DESTINATION: Range<usize> = 24..40;
}

/// A fixed header whose length is proven.
#[derive(Clone, Copy, Debug)]
pub struct Ipv6<'a> {
    fixed: &'a [u8; HEADER_LEN],
}

/// What the extension headers lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upper {
    /// The first protocol that is not an extension header.
    pub protocol: u8,
    /// Where it starts, from the start of the IPv6 header. In a later fragment: where the fragment's data starts.
    pub offset: usize,
    /// The fragment header's word: offset in units of 8 bytes in the upper 13 bits, "more" in the lowest.
    pub fragment: Option<u16>,
}

impl Upper {
    /// Whether the payload starts in the middle of the transport's data.
    #[inline]
    pub fn is_later_fragment(&self) -> bool {
        self.fragment.is_some_and(|word| word >> 3 != 0)
    }
}

impl<'a> Ipv6<'a> {
    /// Views the header at the start of `bytes`. The packet may go on beyond them: it has at most `packet_len` bytes.
    ///
    /// Proves: version 6; the fixed header lies within `bytes`; 40 + payload length <= packet_len. Jumbograms
    /// (RFC 2675) therefore count as empty.
    ///
    /// # Errors
    /// What of this is not so.
    #[inline]
    pub fn parse(bytes: &'a [u8], packet_len: usize) -> Result<Self, HeaderError> {
        let Some(fixed) = bytes.first_chunk::<HEADER_LEN>() else {
            return Err(HeaderError::Short { need: HEADER_LEN, have: bytes.len() });
        };
        if fixed[0] >> 4 != 6 {
            return Err(HeaderError::Field { want: 6, got: u16::from(fixed[0] >> 4) });
        }
        let this = Self { fixed };
        if this.total_len() > packet_len {
            return Err(HeaderError::Length { says: this.total_len(), least: HEADER_LEN, most: packet_len });
        }
        Ok(this)
    }

    /// Bytes of the packet, fixed header included.
    #[inline]
    pub fn total_len(&self) -> usize {
        HEADER_LEN + usize::from(u16::from_be_bytes([self.fixed[4], self.fixed[5]]))
    }

    /// What follows the fixed header.
    #[inline]
    pub fn next_header(&self) -> u8 {
        self.fixed[6]
    }

    /// Hop limit.
    #[inline]
    pub fn hop_limit(&self) -> u8 {
        self.fixed[7]
    }

    /// Source address.
    #[inline]
    pub fn source(&self) -> Ipv6Addr {
        let mut octets = [0; 16];
        octets.copy_from_slice(&self.fixed[field::SOURCE]);
        Ipv6Addr::from(octets)
    }

    /// Destination address.
    #[inline]
    pub fn destination(&self) -> Ipv6Addr {
        let mut octets = [0; 16];
        octets.copy_from_slice(&self.fixed[field::DESTINATION]);
        Ipv6Addr::from(octets)
    }
}

/// Whether a next-header number is one that [`upper`] walks over.
#[inline]
pub const fn is_extension(next_header: u8) -> bool {
    matches!(next_header, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION_OPTIONS)
}

/// Walks from the fixed header to the transport. `packet` starts with the IPv6 header and ends where the payload
/// length says, or earlier if fewer bytes are at hand.
///
/// Hop-by-hop options may only come first; a fragment header must be followed by the transport itself: with more
/// headers behind it, overlapping fragments could replace what was looked at (RFC 7112 and RFC 5722 ask hosts for less).
/// Authentication and encapsulating headers count as transport.
///
/// # Errors
/// [`HeaderError::Short`] when the chain does not end within `packet`; [`HeaderError::Extension`],
/// [`HeaderError::Routing`].
pub fn upper(packet: &[u8]) -> Result<Upper, HeaderError> {
    let short = |need| HeaderError::Short { need, have: packet.len() };
    let mut protocol = *packet.get(6).ok_or(short(HEADER_LEN))?;
    let mut offset = HEADER_LEN;
    let mut fragment = None;
    let mut walked = 0;
    while is_extension(protocol) {
        if walked == MAX_EXTENSIONS || fragment.is_some() || (protocol == HOP_BY_HOP && walked > 0) {
            return Err(HeaderError::Extension(protocol));
        }
        walked += 1;
        let Some(&[next, len, hi, lo, ..]) = packet.get(offset..).and_then(|rest| rest.first_chunk::<8>())
        else {
            return Err(short(offset + 8));
        };
        match protocol {
            FRAGMENT => {
                fragment = Some(u16::from_be_bytes([hi, lo]));
                offset += 8;
            }
            ROUTING if lo != 0 => return Err(HeaderError::Routing(lo)),
            _ => offset += 8 + usize::from(len) * 8,
        }
        protocol = next;
    }
    if offset > packet.len() {
        return Err(short(offset));
    }
    Ok(Upper { protocol, offset, fragment })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A packet with the given extension headers: (type, units of 8 bytes beyond the first, bytes 2 and 3).
    fn chain(headers: &[(u8, u8, [u8; 2])], last: u8) -> Vec<u8> {
        let mut packet = vec![0x60; HEADER_LEN];
        packet[6] = headers.first().map_or(last, |header| header.0);
        for (i, (_, units, word)) in headers.iter().enumerate() {
            let next = headers.get(i + 1).map_or(last, |header| header.0);
            packet.extend([next, *units, word[0], word[1]]);
            packet.resize(packet.len() + 4 + usize::from(*units) * 8, 0);
        }
        packet
    }

    #[test]
    fn options_and_spent_routing_headers_are_walked_over() {
        let packet = chain(
            &[(HOP_BY_HOP, 0, [5, 2]), (DESTINATION_OPTIONS, 2, [1, 1]), (ROUTING, 0, [0, 0])],
            crate::ipv4::TCP,
        );
        assert_eq!(upper(&packet), Ok(Upper { protocol: 6, offset: 40 + 8 + 24 + 8, fragment: None }));
    }

    #[test]
    fn fragments_are_told_apart() {
        let first = upper(&chain(&[(FRAGMENT, 0, [0, 1])], 17)).unwrap();
        assert_eq!((first.protocol, first.offset, first.fragment), (17, 48, Some(1)));
        assert!(!first.is_later_fragment());
        assert!(upper(&chain(&[(FRAGMENT, 0, [0, 8])], 17)).unwrap().is_later_fragment());
    }

    #[test]
    fn chains_made_to_confuse_are_refused() {
        let late_hop = chain(&[(DESTINATION_OPTIONS, 0, [0, 0]), (HOP_BY_HOP, 0, [0, 0])], 17);
        assert_eq!(upper(&late_hop), Err(HeaderError::Extension(HOP_BY_HOP)));
        let behind_fragment = chain(&[(FRAGMENT, 0, [0, 1]), (DESTINATION_OPTIONS, 0, [0, 0])], 58);
        assert_eq!(upper(&behind_fragment), Err(HeaderError::Extension(DESTINATION_OPTIONS)));
        let routed = chain(&[(ROUTING, 2, [0, 1])], 17);
        assert_eq!(upper(&routed), Err(HeaderError::Routing(1)));
        let long = chain(&[(DESTINATION_OPTIONS, 0, [0, 0]); MAX_EXTENSIONS + 1], 17);
        assert_eq!(upper(&long), Err(HeaderError::Extension(DESTINATION_OPTIONS)));
        let cut = chain(&[(DESTINATION_OPTIONS, 3, [0, 0])], 17);
        assert_eq!(upper(&cut[..60]), Err(HeaderError::Short { need: 72, have: 60 }));
        assert_eq!(upper(&cut[..44]), Err(HeaderError::Short { need: 48, have: 44 }));
    }
}
