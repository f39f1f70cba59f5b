//! Fields that lie at the same place in every untagged frame, read from the head.
//!
//! Offsets are constants within the head's fixed size: nothing is checked at run time.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use wire::{ethernet, ipv4, ipv6};

use crate::HEAD;

/// Where the network header starts: nothing tagged gets past the parser.
pub(crate) const L3: usize = ethernet::HEADER_LEN;

const V4_SOURCE: usize = L3 + ipv4::field::SOURCE.start;
const V4_DESTINATION: usize = L3 + ipv4::field::DESTINATION.start;
const V6_SOURCE: usize = L3 + ipv6::field::SOURCE.start;
const V6_DESTINATION: usize = L3 + ipv6::field::DESTINATION.start;

/// The `N` bytes at `AT`.
#[inline]
fn field<const AT: usize, const N: usize>(head: &[u8; HEAD]) -> [u8; N] {
    const { assert!(AT + N <= HEAD, "a field within the head") };
    // Never without the bytes, as was just asserted; written so that it becomes one load.
    head.split_at(AT).1.first_chunk().copied().unwrap_or([0; N])
}

/// Whether the destination MAC is of a group.
#[inline]
pub(crate) fn to_group(head: &[u8; HEAD]) -> bool {
    head[0] & 1 != 0
}

/// The destination MAC, as a number.
#[inline]
pub(crate) fn destination_mac(head: &[u8; HEAD]) -> u64 {
    u64::from_be_bytes(field::<0, 8>(head)) >> 16
}

/// The source MAC, as a number.
#[inline]
pub(crate) fn source_mac(head: &[u8; HEAD]) -> u64 {
    u64::from_be_bytes(field::<4, 8>(head)) & 0xffff_ffff_ffff
}

/// The source MAC.
#[inline]
pub(crate) fn source_mac_octets(head: &[u8; HEAD]) -> [u8; 6] {
    field::<6, 6>(head)
}

/// The IPv4 source.
#[inline]
pub(crate) fn ipv4_source(head: &[u8; HEAD]) -> u32 {
    u32::from_be_bytes(field::<V4_SOURCE, 4>(head))
}

/// The IPv4 destination.
#[inline]
pub(crate) fn ipv4_destination(head: &[u8; HEAD]) -> u32 {
    u32::from_be_bytes(field::<V4_DESTINATION, 4>(head))
}

/// The IPv6 source.
#[inline]
pub(crate) fn ipv6_source(head: &[u8; HEAD]) -> u128 {
    u128::from_be_bytes(field::<V6_SOURCE, 16>(head))
}

/// The IPv6 destination.
#[inline]
pub(crate) fn ipv6_destination(head: &[u8; HEAD]) -> u128 {
    u128::from_be_bytes(field::<V6_DESTINATION, 16>(head))
}

/// The IPv6 hop limit.
#[inline]
pub(crate) fn hop_limit(head: &[u8; HEAD]) -> u8 {
    head[L3 + ipv6::field::HOP_LIMIT]
}

/// The time to live, or hop limit.
#[inline(always)]
pub(crate) fn time_to_live(head: &[u8; HEAD], v6: bool) -> u8 {
    if v6 { head[L3 + ipv6::field::HOP_LIMIT] } else { head[L3 + ipv4::field::TTL] }
}

/// Whether source or destination is of one link alone.
#[inline]
pub(crate) fn has_link_local(head: &[u8; HEAD], v6: bool) -> bool {
    if v6 {
        let link_local = |address: u128| address >> 118 == 0x3fa;
        link_local(ipv6_source(head)) || link_local(ipv6_destination(head))
    } else {
        let link_local = |address: u32| address >> 16 == 0xa9fe;
        link_local(ipv4_source(head)) || link_local(ipv4_destination(head))
    }
}

/// The word at `offset`, which the parser proved to lie in the head.
#[inline]
pub(crate) fn word(head: &[u8; HEAD], offset: usize) -> u16 {
    head.get(offset..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u16::from_be_bytes(*bytes))
}

/// The four bytes at `offset`, which the parser proved to lie in the head.
#[inline]
pub(crate) fn double_word(head: &[u8; HEAD], offset: usize) -> u32 {
    head.get(offset..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

/// Source and destination of an IP packet.
pub(crate) fn addresses(head: &[u8; HEAD], v6: bool) -> (IpAddr, IpAddr) {
    if v6 {
        let wide = |bits| IpAddr::V6(Ipv6Addr::from_bits(bits));
        return (wide(ipv6_source(head)), wide(ipv6_destination(head)));
    }
    let short = |bits| IpAddr::V4(Ipv4Addr::from_bits(bits));
    (short(ipv4_source(head)), short(ipv4_destination(head)))
}

/// Overwrites the bytes at `offset`, which the parser proved to lie in the head.
#[inline]
pub(crate) fn put(head: &mut [u8; HEAD], offset: usize, bytes: &[u8]) {
    if let Some(place) = head.get_mut(offset..).and_then(|rest| rest.get_mut(..bytes.len())) {
        place.copy_from_slice(bytes);
    }
}
