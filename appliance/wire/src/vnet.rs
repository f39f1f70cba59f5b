//! `virtio_net_hdr`: what a guest says about a frame's checksum and segmentation.
//!
//! ```text
//!  0       1          2         4          6            8             10             12
//! +-------+----------+---------+----------+------------+-------------+--------------+
//! | flags | gso_type | hdr_len | gso_size | csum_start | csum_offset | num_buffers  |
//! +-------+----------+---------+----------+------------+-------------+--------------+
//! ```
//! All fields are little endian (virtio 1.2, section 5.1.6). `num_buffers` belongs to whoever fills a receive ring.

use thiserror::Error;

use crate::HeaderError;

/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`: the checksum at `csum_start + csum_offset` holds only the pseudo header's sum.
pub const NEEDS_CSUM: u8 = 0x01;
/// `VIRTIO_NET_HDR_F_DATA_VALID`: the device vouches for the checksum. Never believed from a guest.
pub const DATA_VALID: u8 = 0x02;

/// `VIRTIO_NET_HDR_GSO_NONE`.
pub const GSO_NONE: u8 = 0;
/// `VIRTIO_NET_HDR_GSO_TCPV4`.
pub const GSO_TCPV4: u8 = 1;
/// `VIRTIO_NET_HDR_GSO_UDP`: fragmentation of one datagram (UFO). Not offered, not supported.
pub const GSO_UDP: u8 = 3;
/// `VIRTIO_NET_HDR_GSO_TCPV6`.
pub const GSO_TCPV6: u8 = 4;
/// `VIRTIO_NET_HDR_GSO_UDP_L4`: several datagrams of equal size (USO).
pub const GSO_UDP_L4: u8 = 5;
/// `VIRTIO_NET_HDR_GSO_ECN`: a flag on the type: the segments carry congestion marks.
pub const GSO_ECN: u8 = 0x80;

/// Bytes of the header, `num_buffers` included.
pub const LEN: usize = 12;

/// The header, by value, in host byte order. Any 12 bytes are one; only [`crate::gso`] says whether it fits a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VnetHeader {
    /// [`NEEDS_CSUM`], [`DATA_VALID`].
    pub flags: u8,
    /// `GSO_*`, possibly with [`GSO_ECN`].
    pub gso_type: u8,
    /// Bytes up to and including the transport header, as the guest says.
    pub hdr_len: u16,
    /// Payload bytes per segment.
    pub gso_size: u16,
    /// Where summing starts, in bytes from the start of the frame.
    pub csum_start: u16,
    /// Where the sum goes, in bytes from `csum_start`.
    pub csum_offset: u16,
    /// Receive buffers used by this frame.
    pub num_buffers: u16,
}

impl VnetHeader {
    /// Reads the 12 bytes in front of a frame.
    #[inline]
    pub const fn from_bytes(b: &[u8; LEN]) -> Self {
        Self {
            flags: b[0],
            gso_type: b[1],
            hdr_len: u16::from_le_bytes([b[2], b[3]]),
            gso_size: u16::from_le_bytes([b[4], b[5]]),
            csum_start: u16::from_le_bytes([b[6], b[7]]),
            csum_offset: u16::from_le_bytes([b[8], b[9]]),
            num_buffers: u16::from_le_bytes([b[10], b[11]]),
        }
    }

    /// The 12 bytes in front of a frame.
    #[inline]
    pub const fn to_bytes(self) -> [u8; LEN] {
        let [a, b] = self.hdr_len.to_le_bytes();
        let [c, d] = self.gso_size.to_le_bytes();
        let [e, f] = self.csum_start.to_le_bytes();
        let [g, h] = self.csum_offset.to_le_bytes();
        let [i, j] = self.num_buffers.to_le_bytes();
        [self.flags, self.gso_type, a, b, c, d, e, f, g, h, i, j]
    }

    /// Whether a checksum is left to be finished.
    #[inline]
    pub const fn needs_csum(&self) -> bool {
        self.flags & NEEDS_CSUM != 0
    }

    /// The segmentation asked for, without its ECN flag.
    #[inline]
    pub const fn gso_kind(&self) -> u8 {
        self.gso_type & !GSO_ECN
    }

    /// Whether the frame is to be cut into segments.
    #[inline]
    pub const fn is_gso(&self) -> bool {
        self.gso_kind() != GSO_NONE
    }
}

/// Why an offload request does not fit its frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum OffloadError {
    /// The checksum field lies beyond the frame.
    #[error("checksum at {start}+{offset} lies outside a frame of {len} bytes")]
    ChecksumOutside {
        /// `csum_start`.
        start: u16,
        /// `csum_offset`.
        offset: u16,
        /// Bytes of the frame.
        len: usize,
    },
    /// The checksum asked for is not the transport header's.
    #[error("checksum at {start}+{offset}; the transport header asks for {want_start}+{want_offset}")]
    ChecksumElsewhere {
        /// `csum_start`.
        start: u16,
        /// `csum_offset`.
        offset: u16,
        /// Offset of the transport header in the frame.
        want_start: usize,
        /// Offset of the checksum in the transport header.
        want_offset: usize,
    },
    /// A segmentation type that was never offered.
    #[error("segmentation type {0:#04x} is none of TCPv4 (1), TCPv6 (4), UDP (5)")]
    UnknownType(u8),
    /// Segments of zero bytes.
    #[error("segment size 0")]
    NoSize,
    /// Segmentation without [`NEEDS_CSUM`]: virtio 1.2, section 5.1.6.2 demands it.
    #[error("segmentation asked for without a partial checksum")]
    NoChecksum,
    /// The frame's protocols are not those of the segmentation type, or it is a fragment.
    #[error("segmentation type {gso_type:#04x} does not fit the frame's protocols")]
    WrongProtocol {
        /// `gso_type` as given.
        gso_type: u8,
    },
    /// A header of the frame is cut off.
    #[error("headers need {need} bytes, the frame has {have}")]
    Truncated {
        /// Bytes the headers need.
        need: usize,
        /// Bytes there are.
        have: usize,
    },
    /// A header contradicts itself.
    #[error("{0}")]
    Header(HeaderError),
    /// More headers than are copied in front of a segment.
    #[error("headers of {need} bytes, at most {most} are carried")]
    HeadersTooLong {
        /// Bytes of headers.
        need: usize,
        /// Bytes carried.
        most: usize,
    },
    /// More segments than any honest sender makes of one frame.
    #[error("{segments} segments of one frame, at most {most} are made")]
    TooManySegments {
        /// Segments asked for.
        segments: usize,
        /// The limit.
        most: usize,
    },
}

impl From<HeaderError> for OffloadError {
    fn from(error: HeaderError) -> Self {
        match error {
            HeaderError::Short { need, have } => Self::Truncated { need, have },
            other => Self::Header(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_survives_a_round_trip_and_is_little_endian() {
        let bytes = [1, 0x81, 54, 0, 0xb4, 0x05, 34, 0, 16, 0, 1, 0];
        let header = VnetHeader::from_bytes(&bytes);
        assert_eq!(
            (header.hdr_len, header.gso_size, header.csum_start, header.csum_offset),
            (54, 1460, 34, 16)
        );
        assert_eq!(header.gso_kind(), GSO_TCPV4);
        assert_eq!(header.to_bytes(), bytes);
    }
}
