//! Bytes to headers and back.
//!
//! Views prove their lengths once, in `parse`, and are then infallible. Nothing here allocates, and nothing here
//! trusts a length that it has not compared with the bytes it was given.

#![forbid(unsafe_code)]

pub mod arp;
pub mod checksum;
pub mod ethernet;
pub mod geneve;
pub mod gro;
pub mod gso;
pub mod icmp;
pub mod ipv4;
pub mod ipv6;
pub mod nd;
pub mod path_probe;
pub mod quote;
pub mod sctp;
pub mod tcp;
pub mod udp;
pub mod vnet;

use thiserror::Error;

/// Why bytes are not the header they were taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HeaderError {
    /// The bytes end before the header does.
    #[error("a header needs {need} bytes, there are {have}")]
    Short {
        /// Bytes needed, from the start of what was parsed.
        need: usize,
        /// Bytes there are.
        have: usize,
    },
    /// The version, or another field with one right value, has another.
    #[error("a field that must be {want:#x} is {got:#x}")]
    Field {
        /// The value there must be.
        want: u16,
        /// The value there is.
        got: u16,
    },
    /// A length field contradicts the header or the bytes there are.
    #[error("a length field says {says} bytes, possible are {least} to {most}")]
    Length {
        /// Bytes the field says.
        says: usize,
        /// The smallest possible value.
        least: usize,
        /// The largest possible value.
        most: usize,
    },
    /// An extension header where none may be, or more than [`ipv6::MAX_EXTENSIONS`].
    #[error("IPv6 extension header {0} is out of place")]
    Extension(u8),
    /// A routing header with segments left (RFC 8200, section 4.4).
    #[error("IPv6 routing header with {0} segments left")]
    Routing(u8),
}
