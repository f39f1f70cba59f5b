//! Ethernet II.
//!
//! ```text
//!  0             6             12          14
//! +-------------+-------------+-----------+----
//! | destination | source      | ethertype | payload
//! +-------------+-------------+-----------+----
//! ```

use crate::HeaderError;

/// Bytes of the header without tags.
pub const HEADER_LEN: usize = 14;
/// Bytes of one 802.1Q or 802.1ad tag.
pub const TAG_LEN: usize = 4;

/// IPv4.
pub const IPV4: u16 = 0x0800;
/// ARP.
pub const ARP: u16 = 0x0806;
/// IPv6.
pub const IPV6: u16 = 0x86dd;
/// 802.1Q: a customer tag.
pub const VLAN: u16 = 0x8100;
/// 802.1ad: a service tag.
pub const SERVICE_VLAN: u16 = 0x88a8;
/// 802.1ad as it was numbered before the standard, still in use.
pub const OLD_SERVICE_VLAN: u16 = 0x9100;

/// The address of everybody.
pub const BROADCAST: [u8; 6] = [0xff; 6];

/// Whether an ethertype announces a tag.
#[inline]
pub const fn is_tag(ethertype: u16) -> bool {
    matches!(ethertype, VLAN | SERVICE_VLAN | OLD_SERVICE_VLAN)
}

/// Whether an address is of a group (broadcast included).
#[inline]
pub const fn is_group(mac: [u8; 6]) -> bool {
    mac[0] & 1 != 0
}

/// Skips at most two tags: the ethertype of what they carry, and its offset in the frame.
///
/// # Errors
/// [`HeaderError::Short`].
pub fn payload(frame: &[u8]) -> Result<(u16, usize), HeaderError> {
    let mut offset = HEADER_LEN;
    loop {
        let Some([.., hi, lo]) = frame.get(..offset) else {
            return Err(HeaderError::Short { need: offset, have: frame.len() });
        };
        let ethertype = u16::from_be_bytes([*hi, *lo]);
        if !is_tag(ethertype) || offset == HEADER_LEN + 2 * TAG_LEN {
            return Ok((ethertype, offset));
        }
        offset += TAG_LEN;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(types: &[u16]) -> Vec<u8> {
        let mut frame = vec![0; 12];
        for (i, ethertype) in types.iter().enumerate() {
            if i > 0 {
                frame.extend([0, 7]);
            }
            frame.extend(ethertype.to_be_bytes());
        }
        frame
    }

    #[test]
    fn tags_are_skipped_up_to_two() {
        assert_eq!(payload(&frame(&[IPV4])), Ok((IPV4, 14)));
        assert_eq!(payload(&frame(&[VLAN, IPV6])), Ok((IPV6, 18)));
        assert_eq!(payload(&frame(&[SERVICE_VLAN, VLAN, ARP])), Ok((ARP, 22)));
        assert_eq!(payload(&frame(&[VLAN, VLAN, VLAN, IPV4])), Ok((VLAN, 22)));
        assert_eq!(payload(&frame(&[VLAN])), Err(HeaderError::Short { need: 18, have: 14 }));
        assert_eq!(payload(&[0; 13]), Err(HeaderError::Short { need: 14, have: 13 }));
    }
}
