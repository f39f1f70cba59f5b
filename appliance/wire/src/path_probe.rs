//! Probes of the way between two hosts: control packets inside GENEVE (its O bit is set), which no workload ever sees.
//!
//! An Ethernet frame of a type for local experiments, so that whoever looks at the wire sees what it is:
//! ```text
//!  0             6             12       14        15     16     18      26
//! +-------------+-------------+--------+---------+------+------+-------+---------
//! | 0           | 0           | 0x88b5 | version | kind | size | nonce | padding
//! +-------------+-------------+--------+---------+------+------+-------+---------
//! ```
//! A request is padded to the size that it asks about. Its answer is never longer than it, has no padding, and gives
//! back size and nonce.

use thiserror::Error;

use crate::{HeaderError, ethernet};

/// Bytes of a probe without padding.
pub const LEN: usize = ethernet::HEADER_LEN + 12;
/// "Local experimental ethertype 1" (IEEE 802).
pub const ETHERTYPE: u16 = 0x88b5;
/// The only version so far.
pub const VERSION: u8 = 1;

/// Asks for an answer.
const REQUEST: u8 = 1;
/// Is one.
const ANSWER: u8 = 2;

/// What a probe is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Asks for an answer.
    Request,
    /// Answers.
    Answer,
}

/// A probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathProbe {
    /// Request or answer.
    pub kind: Kind,
    /// Bytes of the whole outer IP packet that carries the request.
    pub size: u16,
    /// What the answer gives back: nobody off the way can guess it.
    pub nonce: u64,
}

/// Why bytes are no probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ProbeError {
    /// Too short, or another ethertype.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// From a version that is not known.
    #[error("path probe of version {0}; only {VERSION} is known")]
    Version(u8),
    /// Neither request nor answer.
    #[error("path probe of kind {0}, none of request (1) and answer (2)")]
    Kind(u8),
}

impl PathProbe {
    /// Reads what lies behind the GENEVE header of a control packet.
    ///
    /// # Errors
    /// Why it is no probe.
    pub fn parse(bytes: &[u8]) -> Result<Self, ProbeError> {
        let Some(fixed) = bytes.first_chunk::<LEN>() else {
            return Err(HeaderError::Short { need: LEN, have: bytes.len() }.into());
        };
        let [.., e0, e1, version, kind, s0, s1, n0, n1, n2, n3, n4, n5, n6, n7] = *fixed;
        let ethertype = u16::from_be_bytes([e0, e1]);
        if ethertype != ETHERTYPE {
            return Err(HeaderError::Field { want: ETHERTYPE, got: ethertype }.into());
        }
        if version != VERSION {
            return Err(ProbeError::Version(version));
        }
        let kind = match kind {
            REQUEST => Kind::Request,
            ANSWER => Kind::Answer,
            other => return Err(ProbeError::Kind(other)),
        };
        let nonce = u64::from_be_bytes([n0, n1, n2, n3, n4, n5, n6, n7]);
        Ok(Self { kind, size: u16::from_be_bytes([s0, s1]), nonce })
    }

    /// What lies behind the GENEVE header, without padding.
    pub fn to_bytes(self) -> [u8; LEN] {
        let [e0, e1] = ETHERTYPE.to_be_bytes();
        let [s0, s1] = self.size.to_be_bytes();
        let [n0, n1, n2, n3, n4, n5, n6, n7] = self.nonce.to_be_bytes();
        let kind = match self.kind {
            Kind::Request => REQUEST,
            Kind::Answer => ANSWER,
        };
        let mut bytes = [0; LEN];
        let (_, body) = bytes.split_at_mut(LEN - 14);
        body.copy_from_slice(&[e0, e1, VERSION, kind, s0, s1, n0, n1, n2, n3, n4, n5, n6, n7]);
        bytes
    }

    /// The answer to a request; none to an answer.
    pub fn answer(self) -> Option<Self> {
        (self.kind == Kind::Request).then_some(Self { kind: Kind::Answer, ..self })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As drawn above.
    const REQUEST_OF_1400: [u8; LEN] = [
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x88, 0xb5, 1, 1, 0x05, 0x78, 0x01, 0x23, 0x45, 0x67, 0x89, 0xab,
        0xcd, 0xef,
    ];

    #[test]
    fn a_request_is_read_and_answered_once() {
        let request = PathProbe::parse(&REQUEST_OF_1400).unwrap();
        assert_eq!(request, PathProbe { kind: Kind::Request, size: 1400, nonce: 0x0123_4567_89ab_cdef });
        assert_eq!(request.to_bytes(), REQUEST_OF_1400);
        let answer = request.answer().unwrap();
        assert_eq!(PathProbe::parse(&answer.to_bytes()), Ok(answer));
        assert_eq!((answer.size, answer.nonce), (request.size, request.nonce));
        assert_eq!(answer.answer(), None);
    }

    #[test]
    fn padding_is_not_looked_at_and_anything_else_says_what_is_wrong() {
        let padded = [&REQUEST_OF_1400[..], &[0xff; 1000]].concat();
        assert!(PathProbe::parse(&padded).is_ok());
        let change = |at: usize, to: u8| {
            let mut bytes = REQUEST_OF_1400;
            bytes[at] = to;
            PathProbe::parse(&bytes).unwrap_err()
        };
        assert_eq!(change(13, 0), HeaderError::Field { want: 0x88b5, got: 0x8800 }.into());
        assert_eq!(change(14, 2), ProbeError::Version(2));
        assert_eq!(change(15, 3), ProbeError::Kind(3));
        let short = PathProbe::parse(&REQUEST_OF_1400[..25]).unwrap_err();
        assert_eq!(short, HeaderError::Short { need: 26, have: 25 }.into());
    }
}
