//! Congestion marks on the way from another host (RFC 6040, section 4.2): what the underlay marked on the datagram counts
//! for the packet inside.

use wire::{checksum, ipv4};

use crate::header::{self, L3};
use crate::parse::Packet;
use crate::{DropReason, Frame};

/// The two bits: not capable, capable (1), capable (0), congestion.
const NOT_CAPABLE: u8 = 0b00;
const CAPABLE_1: u8 = 0b01;
const CAPABLE_0: u8 = 0b10;
const CONGESTION: u8 = 0b11;

/// Where the traffic class's lower half lies in IPv6, and by how much the bits are shifted there.
const V6_CLASS: usize = L3 + 1;
const V6_SHIFT: u32 = 4;
/// Where the type of service lies in IPv4.
const V4_TOS: usize = L3 + 1;

/// Carries the outer mark over to the packet inside. What is not IP keeps its silence: it has no marks, and is not lost for
/// them.
///
/// # Errors
/// [`DropReason::CongestionMarked`]: congestion on a packet whose ends do not understand marks.
#[inline(always)]
pub(crate) fn combine(outer: u8, frame: &mut Frame<'_>, packet: &Packet) -> Result<(), DropReason> {
    match packet {
        Packet::Ip(ip) if outer & CAPABLE_1 != 0 => carry(outer & CONGESTION, frame, ip.v6),
        _ => Ok(()),
    }
}

#[cold]
fn carry(outer: u8, frame: &mut Frame<'_>, v6: bool) -> Result<(), DropReason> {
    let inner = if v6 { frame.head[V6_CLASS] >> V6_SHIFT } else { frame.head[V4_TOS] } & CONGESTION;
    let mark = match (inner, outer) {
        (NOT_CAPABLE, CONGESTION) => return Err(DropReason::CongestionMarked),
        (CAPABLE_0 | CAPABLE_1, CONGESTION) => CONGESTION,
        (CAPABLE_0, CAPABLE_1) => CAPABLE_1,
        _ => return Ok(()),
    };
    if v6 {
        frame.head[V6_CLASS] = frame.head[V6_CLASS] & !(CONGESTION << V6_SHIFT) | mark << V6_SHIFT;
        return Ok(());
    }
    let old = header::word(frame.head, L3);
    frame.head[V4_TOS] = frame.head[V4_TOS] & !CONGESTION | mark;
    let sum = L3 + ipv4::field::CHECKSUM.start;
    let updated = checksum::update(header::word(frame.head, sum), old, header::word(frame.head, L3));
    header::put(frame.head, sum, &updated.to_be_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::HEAD;
    use crate::parse::parse;

    /// `IP(src="10.0.1.11", dst="10.0.1.12", tos=ECN)/ICMP()` and `IPv6(src="fd00:1::11", dst="fd00:1::12", tc=ECN)/ICMPv6EchoRequest()`
    /// without their checksums' help: only the IPv4 header's own is looked at.
    fn packet(v6: bool, ecn: u8) -> [u8; HEAD] {
        let mut head = [0; HEAD];
        if v6 {
            head[12..14].copy_from_slice(&[0x86, 0xdd]);
            head[L3..L3 + 8].copy_from_slice(&[0x60, ecn << 4, 0, 0, 0, 8, 58, 64]);
            head[L3 + 40] = 128;
        } else {
            head[12..14].copy_from_slice(&[8, 0]);
            head[L3..L3 + 20]
                .copy_from_slice(&[0x45, ecn, 0, 28, 0, 1, 0, 0, 64, 1, 0, 0, 10, 0, 1, 11, 10, 0, 1, 12]);
            let sum = checksum::Sum::default().bytes(&head[L3..L3 + 20]).checksum();
            head[L3 + 10..L3 + 12].copy_from_slice(&sum.to_be_bytes());
            head[L3 + 20] = 8;
        }
        head
    }

    #[test]
    fn marks_are_combined_as_the_table_of_rfc_6040_says() {
        // Figure 4: by inner and outer mark, `None` for dropped.
        let table = [
            (0b00, [Some(0b00), Some(0b00), Some(0b00), None]),
            (0b01, [Some(0b01), Some(0b01), Some(0b01), Some(0b11)]),
            (0b10, [Some(0b10), Some(0b01), Some(0b10), Some(0b11)]),
            (0b11, [Some(0b11), Some(0b11), Some(0b11), Some(0b11)]),
        ];
        for v6 in [false, true] {
            for (inner, row) in table {
                for (outer, want) in (0..).zip(row) {
                    let (mut head, mut head_len, mut len, mut net) = (packet(v6, inner), 62, 62, [0; 12]);
                    let mut frame =
                        Frame { head: &mut head, head_len: &mut head_len, len: &mut len, net: &mut net };
                    let parsed = parse(&frame).unwrap();
                    let done = combine(outer, &mut frame, &parsed);
                    assert_eq!(done.is_ok(), want.is_some(), "inner {inner} outer {outer}");
                    let mark = want.unwrap_or(inner);
                    assert_eq!(head, packet(v6, mark), "inner {inner} outer {outer}, IPv6 {v6}");
                }
            }
        }
    }
}
