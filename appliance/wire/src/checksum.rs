//! The Internet checksum (RFC 1071), its incremental update (RFC 1624) and pseudo headers.
//!
//! A [`Sum`] is the one's complement sum before folding, in network byte order as the CPU loads it: two byte-swapped
//! values have a byte-swapped sum, so nothing is swapped on the way (RFC 1071, section 2 (B)).

use core::net::{Ipv4Addr, Ipv6Addr};

/// A one's complement sum in the making.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum(u64);

impl Sum {
    /// The sum of nothing.
    pub const ZERO: Self = Self(0);

    /// Adds bytes. Each call starts at an even offset of the summed data: only the last may have an odd length.
    #[inline]
    pub fn bytes(self, bytes: &[u8]) -> Self {
        // Four independent accumulators of 32-bit words let the compiler use the widest vectors there are: a u64 lane
        // holds 2^32 words before it overflows.
        let mut lanes = [0u64; 4];
        let (blocks, rest) = bytes.as_chunks::<16>();
        for block in blocks {
            let (words, _) = block.as_chunks::<4>();
            for (lane, word) in lanes.iter_mut().zip(words) {
                *lane += u64::from(u32::from_ne_bytes(*word));
            }
        }
        let mut sum = lanes[0] + lanes[1] + lanes[2] + lanes[3];
        let (words, rest) = rest.as_chunks::<2>();
        for word in words {
            sum += u64::from(u16::from_ne_bytes(*word));
        }
        if let [last] = rest {
            sum += u64::from(u16::from_ne_bytes([*last, 0]));
        }
        self.add_raw(sum)
    }

    /// Adds one 16-bit word.
    #[inline]
    pub const fn word(self, word: u16) -> Self {
        self.add_raw(word.to_be() as u64)
    }

    /// Adds what another sum holds.
    #[inline]
    pub const fn add(self, other: Self) -> Self {
        self.add_raw(other.0)
    }

    /// The pseudo header of TCP or UDP over IPv4 (RFC 793, RFC 768): addresses, protocol, length in bytes.
    #[inline]
    pub fn pseudo_v4(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, len: u32) -> Self {
        Self::ZERO.bytes(&source.octets()).bytes(&destination.octets()).protocol_and_len(protocol, len)
    }

    /// The pseudo header of RFC 8200, section 8.1.
    #[inline]
    pub fn pseudo_v6(source: Ipv6Addr, destination: Ipv6Addr, protocol: u8, len: u32) -> Self {
        Self::ZERO.bytes(&source.octets()).bytes(&destination.octets()).protocol_and_len(protocol, len)
    }

    #[inline]
    const fn protocol_and_len(self, protocol: u8, len: u32) -> Self {
        self.word(protocol as u16).word((len >> 16) as u16).word(len as u16)
    }

    #[inline]
    const fn add_raw(self, raw: u64) -> Self {
        let (sum, carry) = self.0.overflowing_add(raw);
        Self(sum + carry as u64)
    }

    /// The 16-bit one's complement sum, not yet inverted: what a partial checksum field holds (virtio `NEEDS_CSUM`).
    #[inline]
    pub const fn folded(self) -> u16 {
        let mut sum = (self.0 >> 32) + (self.0 & 0xffff_ffff);
        sum = (sum >> 32) + (sum & 0xffff_ffff);
        sum = (sum >> 16) + (sum & 0xffff);
        sum = (sum >> 16) + (sum & 0xffff);
        sum = (sum >> 16) + (sum & 0xffff);
        u16::from_be(sum as u16)
    }

    /// The checksum: the inverted fold. 0 for data that sums to 0xffff.
    #[inline]
    pub const fn checksum(self) -> u16 {
        !self.folded()
    }

    /// The checksum for a UDP header, where 0 means "none" and is sent as 0xffff (RFC 768).
    #[inline]
    pub const fn udp_checksum(self) -> u16 {
        match self.checksum() {
            0 => 0xffff,
            sum => sum,
        }
    }
}

/// Updates a checksum after one 16-bit word of the covered data changed: RFC 1624, equation 3.
#[inline]
pub const fn update(checksum: u16, old: u16, new: u16) -> u16 {
    let sum = !checksum as u32 + !old as u32 + new as u32;
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    !(sum as u16)
}
