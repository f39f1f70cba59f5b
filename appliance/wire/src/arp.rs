//! ARP for IPv4 over Ethernet (RFC 826).
//!
//! ```text
//!  0       2        4    5    6    8            14          18           24          28
//! +-------+--------+----+----+----+------------+-----------+------------+-----------+
//! | htype | ptype  |hlen|plen| op | sender MAC | sender IP | target MAC | target IP |
//! +-------+--------+----+----+----+------------+-----------+------------+-----------+
//! ```

use core::net::Ipv4Addr;

use crate::HeaderError;

/// Bytes of the packet.
pub const LEN: usize = 28;
/// "Who has?"
pub const REQUEST: u16 = 1;
/// "Is at."
pub const REPLY: u16 = 2;

/// Hardware type 1, protocol type IPv4, lengths 6 and 4.
const ETHERNET_IPV4: [u8; 6] = [0, 1, 0x08, 0, 6, 4];

/// A request or a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arp {
    /// [`REQUEST`] or [`REPLY`].
    pub operation: u16,
    /// Who speaks.
    pub sender_mac: [u8; 6],
    /// Which address it claims; 0.0.0.0 in a probe (RFC 5227).
    pub sender: Ipv4Addr,
    /// Who is spoken to; meaningless in a request.
    pub target_mac: [u8; 6],
    /// The address in question.
    pub target: Ipv4Addr,
}

impl Arp {
    /// Reads what follows the Ethernet header. Bytes behind it are padding.
    ///
    /// # Errors
    /// [`HeaderError::Short`]; [`HeaderError::Field`] for other hardware, protocols or operations.
    pub fn parse(bytes: &[u8]) -> Result<Self, HeaderError> {
        let Some(b) = bytes.first_chunk::<LEN>() else {
            return Err(HeaderError::Short { need: LEN, have: bytes.len() });
        };
        for (pair, want) in b.as_chunks::<2>().0.iter().zip(ETHERNET_IPV4.as_chunks::<2>().0) {
            if pair != want {
                let [want, got] = [want, pair].map(|bytes| u16::from_be_bytes(*bytes));
                return Err(HeaderError::Field { want, got });
            }
        }
        let operation = u16::from_be_bytes([b[6], b[7]]);
        if operation != REQUEST && operation != REPLY {
            return Err(HeaderError::Field { want: REQUEST, got: operation });
        }
        Ok(Self {
            operation,
            sender_mac: [b[8], b[9], b[10], b[11], b[12], b[13]],
            sender: Ipv4Addr::new(b[14], b[15], b[16], b[17]),
            target_mac: [b[18], b[19], b[20], b[21], b[22], b[23]],
            target: Ipv4Addr::new(b[24], b[25], b[26], b[27]),
        })
    }

    /// The packet's bytes.
    pub fn to_bytes(self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        bytes[0..6].copy_from_slice(&ETHERNET_IPV4);
        bytes[6..8].copy_from_slice(&self.operation.to_be_bytes());
        bytes[8..14].copy_from_slice(&self.sender_mac);
        bytes[14..18].copy_from_slice(&self.sender.octets());
        bytes[18..24].copy_from_slice(&self.target_mac);
        bytes[24..28].copy_from_slice(&self.target.octets());
        bytes
    }

    /// The answer to this request: its target is at `mac`.
    pub fn answer(self, mac: [u8; 6]) -> Self {
        Self {
            operation: REPLY,
            sender_mac: mac,
            sender: self.target,
            target_mac: self.sender_mac,
            target: self.sender,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smoltcp_reads_the_answer_as_it_was_meant() {
        let request = Arp {
            operation: REQUEST,
            sender_mac: [2, 0, 0, 0, 0, 1],
            sender: Ipv4Addr::new(10, 0, 1, 11),
            target_mac: [0; 6],
            target: Ipv4Addr::new(10, 0, 1, 12),
        };
        let bytes = request.answer([2, 0, 0, 0, 0, 2]).to_bytes();
        let packet = smoltcp::wire::ArpPacket::new_checked(&bytes).unwrap();
        let repr = smoltcp::wire::ArpRepr::parse(&packet).unwrap();
        let want = smoltcp::wire::ArpRepr::EthernetIpv4 {
            operation: smoltcp::wire::ArpOperation::Reply,
            source_hardware_addr: smoltcp::wire::EthernetAddress([2, 0, 0, 0, 0, 2]),
            source_protocol_addr: Ipv4Addr::new(10, 0, 1, 12),
            target_hardware_addr: smoltcp::wire::EthernetAddress([2, 0, 0, 0, 0, 1]),
            target_protocol_addr: Ipv4Addr::new(10, 0, 1, 11),
        };
        assert_eq!(repr, want);
        assert_eq!(Arp::parse(&bytes), Ok(request.answer([2, 0, 0, 0, 0, 2])));
    }

    #[test]
    fn other_hardware_protocols_and_operations_are_refused() {
        let good = Arp {
            operation: REQUEST,
            sender_mac: [2; 6],
            sender: Ipv4Addr::LOCALHOST,
            target_mac: [0; 6],
            target: Ipv4Addr::LOCALHOST,
        }
        .to_bytes();
        for (at, value, want, got) in [
            (1, 6, 1, 6),
            (2, 0x86, 0x0800, 0x8600),
            (4, 8, 0x0604, 0x0804),
            (5, 16, 0x0604, 0x0610),
            (7, 0, 1, 0),
            (7, 3, 1, 3),
        ] {
            let mut bytes = good;
            bytes[at] = value;
            assert_eq!(Arp::parse(&bytes), Err(HeaderError::Field { want, got }), "byte {at}");
        }
        assert_eq!(Arp::parse(&good[..27]), Err(HeaderError::Short { need: 28, have: 27 }));
    }
}
