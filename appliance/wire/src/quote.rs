//! The packet that an ICMP error quotes (RFC 792, RFC 4443): which flow it is about.
//!
//! ```text
//!  0          8                      8 + IP header
//! +----------+----------------------+-------------------------------
//! | ICMP err | quoted IP header     | first bytes of quoted transport
//! +----------+----------------------+-------------------------------
//! ```
//!
//! Quotes are cut: RFC 792 asks for 8 bytes of the transport, which hold the ports and the sequence number. Lengths in a
//! quoted header are those of the packet that was, and not compared with what is there.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use thiserror::Error;

use crate::icmp::{self, Query};
use crate::{HeaderError, ipv4, ipv6, sctp};

/// Bytes of the transport that every quote must have.
pub const TRANSPORT_LEN: usize = 8;

/// What a quoted packet says of its flow. It was sent by whom the error is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quote {
    /// IPv6, not IPv4.
    pub v6: bool,
    /// The transport protocol.
    pub protocol: u8,
    /// Who sent the quoted packet.
    pub source: IpAddr,
    /// For whom it was.
    pub destination: IpAddr,
    /// Source port; of an ICMP query its identifier; 0 where there is neither.
    pub source_port: u16,
    /// Destination port; of an ICMP query its identifier; 0 where there is neither.
    pub destination_port: u16,
    /// Of TCP, the sequence number.
    pub sequence: Option<u32>,
    /// Where the transport header starts in the quote. At least 8 bytes of it are there.
    pub transport: usize,
}

/// Why bytes are no quote that a flow could be found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum QuoteError {
    /// The IP header cannot be read.
    #[error("quoted IP header: {0}")]
    Header(#[from] HeaderError),
    /// Fewer than 8 bytes of the transport.
    #[error("a quote needs {TRANSPORT_LEN} bytes of the transport, there are {have}")]
    Transport {
        /// Bytes there are.
        have: usize,
    },
    /// Not the first fragment: nobody may send errors about it (RFC 1122, section 3.2.2).
    #[error("the quoted packet is a later fragment, {units} units of 8 bytes into the data")]
    LaterFragment {
        /// Its offset in units of 8 bytes.
        units: u16,
    },
    /// An ICMP message that is no query: nobody may send errors about errors, and others have no flow.
    #[error("the quoted packet is an ICMP message of type {kind}, which is no query")]
    NoQuery {
        /// Its type.
        kind: u8,
    },
}

impl Quote {
    /// Reads the quote of an ICMP error: `bytes` starts behind its 8 bytes of header and ends where the message does, or
    /// earlier if fewer bytes are at hand.
    ///
    /// Proves: a version 4 header with all its options, or a version 6 header with a chain that [`ipv6::upper`] walks,
    /// of the first fragment or the whole packet; at least [`TRANSPORT_LEN`] bytes behind it; if these are ICMP, a query.
    ///
    /// # Errors
    /// What of this is not so.
    pub fn parse(v6: bool, bytes: &[u8]) -> Result<Self, QuoteError> {
        let quote = if v6 { network_v6(bytes)? } else { network_v4(bytes)? };
        let rest = bytes.get(quote.transport..).unwrap_or_default();
        let Some(transport) = rest.first_chunk::<TRANSPORT_LEN>() else {
            return Err(QuoteError::Transport { have: rest.len() });
        };
        quote.with_transport(transport)
    }

    fn with_transport(mut self, transport: &[u8; TRANSPORT_LEN]) -> Result<Self, QuoteError> {
        let [kind, _, _, _, fourth, fifth, sixth, seventh] = *transport;
        match self.protocol {
            ipv4::TCP | ipv4::UDP | ipv4::SCTP => {
                (self.source_port, self.destination_port) = sctp::ports(transport).unwrap_or_default();
                if self.protocol == ipv4::TCP {
                    self.sequence = Some(u32::from_be_bytes([fourth, fifth, sixth, seventh]));
                }
            }
            ipv4::ICMP if !self.v6 => self.set_identifier(kind, icmp::v4::query(kind), [fourth, fifth])?,
            ipv6::ICMPV6 if self.v6 => self.set_identifier(kind, icmp::v6::query(kind), [fourth, fifth])?,
            _ => {}
        }
        Ok(self)
    }

    fn set_identifier(&mut self, kind: u8, query: Option<Query>, id: [u8; 2]) -> Result<(), QuoteError> {
        if query.is_none() {
            return Err(QuoteError::NoQuery { kind });
        }
        self.source_port = u16::from_be_bytes(id);
        self.destination_port = self.source_port;
        Ok(())
    }
}

fn network_v4(bytes: &[u8]) -> Result<Quote, QuoteError> {
    // Its length field is what the quoting host left there: some count without the header, some in the host's order.
    let Some((fixed, rest)) = bytes.split_first_chunk::<{ ipv4::HEADER_LEN }>() else {
        return Err(HeaderError::Short { need: ipv4::HEADER_LEN, have: bytes.len() }.into());
    };
    let [version_ihl, _, _, _, _, _, word0, word1, _, protocol, _, _, s0, s1, s2, s3, d0, d1, d2, d3] =
        *fixed;
    if version_ihl >> 4 != 4 {
        return Err(HeaderError::Field { want: 4, got: u16::from(version_ihl >> 4) }.into());
    }
    let transport = usize::from(version_ihl & 0xf) * 4;
    if transport < ipv4::HEADER_LEN {
        return Err(HeaderError::Length { says: transport, least: ipv4::HEADER_LEN, most: 60 }.into());
    }
    if rest.len() < transport - ipv4::HEADER_LEN {
        return Err(HeaderError::Short { need: transport, have: bytes.len() }.into());
    }
    let units = u16::from_be_bytes([word0, word1]) & ipv4::FRAGMENT_OFFSET;
    if units != 0 {
        return Err(QuoteError::LaterFragment { units });
    }
    let source = IpAddr::V4(Ipv4Addr::new(s0, s1, s2, s3));
    let destination = IpAddr::V4(Ipv4Addr::new(d0, d1, d2, d3));
    Ok(network(false, protocol, source, destination, transport))
}

fn network_v6(bytes: &[u8]) -> Result<Quote, QuoteError> {
    let Some(fixed) = bytes.first_chunk::<{ ipv6::HEADER_LEN }>() else {
        return Err(HeaderError::Short { need: ipv6::HEADER_LEN, have: bytes.len() }.into());
    };
    if fixed[0] >> 4 != 6 {
        return Err(HeaderError::Field { want: 6, got: u16::from(fixed[0] >> 4) }.into());
    }
    let upper = ipv6::upper(bytes)?;
    if let Some(units) = upper.fragment.map(|word| word >> 3).filter(|units| *units != 0) {
        return Err(QuoteError::LaterFragment { units });
    }
    let address = |range: core::ops::Range<usize>| {
        let mut octets = [0; 16];
        octets.copy_from_slice(&fixed[range]);
        IpAddr::V6(Ipv6Addr::from(octets))
    };
    let (source, destination) = (address(ipv6::field::SOURCE), address(ipv6::field::DESTINATION));
    Ok(network(true, upper.protocol, source, destination, upper.offset))
}

fn network(v6: bool, protocol: u8, source: IpAddr, destination: IpAddr, transport: usize) -> Quote {
    Quote {
        v6,
        protocol,
        source,
        destination,
        source_port: 0,
        destination_port: 0,
        sequence: None,
        transport,
    }
}
