//! Neighbour discovery (RFC 4861): solicitations and advertisements of neighbours.
//!
//! ```text
//!  0      1      2          4                  8         24
//! +------+------+----------+------------------+---------+------------------------
//! | type | code | checksum | reserved / R S O | target  | options: type, len/8, ..
//! +------+------+----------+------------------+---------+------------------------
//! ```

use core::net::Ipv6Addr;

use crate::HeaderError;
use crate::checksum::Sum;
use crate::icmp::v6;
use crate::ipv6::ICMPV6;

/// Bytes of a message without options.
pub const LEN: usize = 24;
/// Bytes of an advertisement with its one option.
pub const ADVERTISEMENT_LEN: usize = 32;
/// The only hop limit of an honest message: it has not been routed.
pub const HOP_LIMIT: u8 = 255;
/// The sender's MAC, in a solicitation.
pub const SOURCE_LINK_LAYER: u8 = 1;
/// The target's MAC, in an advertisement.
pub const TARGET_LINK_LAYER: u8 = 2;

/// "R": the target is a router.
pub const ROUTER: u8 = 0x80;
/// "S": this answers a solicitation.
pub const SOLICITED: u8 = 0x40;
/// "O": replaces what is cached.
pub const OVERRIDE: u8 = 0x20;

/// A neighbour solicitation or advertisement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// The address in question.
    pub target: Ipv6Addr,
    /// The MAC in a source (solicitation) or target (advertisement) link-layer option.
    pub link_layer: Option<[u8; 6]>,
}

impl Neighbour {
    /// Reads a whole message, from its ICMPv6 header to the end of its options. The checksum is not looked at.
    ///
    /// # Errors
    /// What RFC 4861, sections 7.1.1 and 7.1.2, make a reason to discard: too short, code not 0, a multicast target, an
    /// option of length 0 or beyond the end. Also two link-layer options, or one that is not 8 bytes.
    pub fn parse(message: &[u8]) -> Result<Self, HeaderError> {
        let Some((fixed, mut options)) = message.split_first_chunk::<LEN>() else {
            return Err(HeaderError::Short { need: LEN, have: message.len() });
        };
        if fixed[1] != 0 {
            return Err(HeaderError::Field { want: 0, got: u16::from(fixed[1]) });
        }
        let [_, _, _, _, _, _, _, _, target @ ..] = *fixed;
        if target[0] == 0xff {
            return Err(HeaderError::Field { want: 0, got: 0xff });
        }
        let wanted = match fixed[0] {
            v6::NEIGHBOUR_SOLICITATION => SOURCE_LINK_LAYER,
            v6::NEIGHBOUR_ADVERTISEMENT => TARGET_LINK_LAYER,
            other => return Err(HeaderError::Field { want: 135, got: u16::from(other) }),
        };
        let mut link_layer = None;
        while let [kind, units, ..] = *options {
            let len = usize::from(units) * 8;
            let wrong = HeaderError::Length { says: len, least: 8, most: options.len() };
            let Some((option, rest)) = options.split_at_checked(len).filter(|_| len > 0) else {
                return Err(wrong);
            };
            if matches!(kind, SOURCE_LINK_LAYER | TARGET_LINK_LAYER) {
                // The option that belongs to the other message would be ignored by an honest receiver; a dishonest
                // sender gains nothing from our forwarding it.
                let [_, _, mac @ ..] = *option.as_array::<8>().ok_or(wrong)?;
                if kind != wanted || link_layer.replace(mac).is_some() {
                    return Err(wrong);
                }
            }
            options = rest;
        }
        if !options.is_empty() {
            return Err(HeaderError::Length { says: options.len(), least: 8, most: options.len() });
        }
        Ok(Self { target: Ipv6Addr::from(target), link_layer })
    }
}

/// An advertisement with its checksum and its target link-layer option. `flags` are [`ROUTER`], [`SOLICITED`],
/// [`OVERRIDE`]. Its source is the target itself.
pub fn advertisement(
    target: Ipv6Addr,
    mac: [u8; 6],
    flags: u8,
    destination: Ipv6Addr,
) -> [u8; ADVERTISEMENT_LEN] {
    let mut message = [0; ADVERTISEMENT_LEN];
    message[0] = v6::NEIGHBOUR_ADVERTISEMENT;
    message[4] = flags;
    message[8..24].copy_from_slice(&target.octets());
    message[24..26].copy_from_slice(&[TARGET_LINK_LAYER, 1]);
    message[26..32].copy_from_slice(&mac);
    let sum =
        Sum::pseudo_v6(target, destination, ICMPV6, ADVERTISEMENT_LEN as u32).bytes(&message).checksum();
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

/// The multicast group that solicitations for `target` go to: RFC 4291, section 2.7.1.
pub fn solicited_node(target: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = target.octets();
    Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c])
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: Ipv6Addr = Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 0xc);

    fn solicitation(options: &[u8]) -> Vec<u8> {
        let mut message = vec![135, 0, 0, 0, 0, 0, 0, 0];
        message.extend(TARGET.octets());
        message.extend(options);
        message
    }

    #[test]
    fn smoltcp_reads_the_advertisement_and_finds_its_checksum_right() {
        let asker = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
        let bytes = advertisement(TARGET, [2, 0, 0, 0, 0, 2], SOLICITED | OVERRIDE, asker);
        let packet = smoltcp::wire::Icmpv6Packet::new_checked(&bytes[..]).unwrap();
        let checks = smoltcp::phy::ChecksumCapabilities::default();
        let repr = smoltcp::wire::Icmpv6Repr::parse(&TARGET, &asker, &packet, &checks).unwrap();
        use smoltcp::wire::{Icmpv6Repr, NdiscNeighborFlags, NdiscRepr, RawHardwareAddress};
        let Icmpv6Repr::Ndisc(NdiscRepr::NeighborAdvert { flags, target_addr, lladdr }) = repr else {
            panic!("{repr:?}")
        };
        assert_eq!(flags, NdiscNeighborFlags::SOLICITED | NdiscNeighborFlags::OVERRIDE);
        assert_eq!(target_addr, TARGET);
        assert_eq!(lladdr, Some(RawHardwareAddress::from_bytes(&[2, 0, 0, 0, 0, 2])));
        assert_eq!(
            Neighbour::parse(&bytes),
            Ok(Neighbour { target: TARGET, link_layer: Some([2, 0, 0, 0, 0, 2]) })
        );
    }

    #[test]
    fn options_are_read_and_unknown_ones_skipped() {
        let nonce = [14, 1, 1, 2, 3, 4, 5, 6];
        let source = [1, 1, 2, 0, 0, 0, 0, 1];
        let message = solicitation(&[nonce, source].concat());
        let want = Neighbour { target: TARGET, link_layer: Some([2, 0, 0, 0, 0, 1]) };
        assert_eq!(Neighbour::parse(&message), Ok(want));
        assert_eq!(Neighbour::parse(&solicitation(&[])).unwrap().link_layer, None);
    }

    #[test]
    fn messages_to_be_discarded_are_refused() {
        let source = [1, 1, 2, 0, 0, 0, 0, 1];
        for (name, message) in [
            ("option of length zero", solicitation(&[14, 0, 0, 0, 0, 0, 0, 0])),
            ("option beyond the end", solicitation(&[14, 2, 0, 0, 0, 0, 0, 0])),
            ("half an option", solicitation(&[14])),
            ("two source options", solicitation(&[source, source].concat())),
            ("a long source option", solicitation(&[&[1, 2][..], &[0; 14]].concat())),
            ("a target option", solicitation(&[2, 1, 2, 0, 0, 0, 0, 1])),
            ("cut off", solicitation(&[])[..23].to_vec()),
        ] {
            assert!(Neighbour::parse(&message).is_err(), "{name}");
        }
        for (at, value) in [(0, 134), (1, 1), (8, 0xff)] {
            let mut message = solicitation(&[]);
            message[at] = value;
            assert!(Neighbour::parse(&message).is_err(), "byte {at}");
        }
    }
}
