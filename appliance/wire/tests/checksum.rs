//! The checksum against smoltcp's and against RFC examples.

use proptest::prelude::*;
use wire::checksum::{Sum, update};

/// RFC 1071, section 3: 00 01 f2 03 f4 f5 f6 f7 sum to ddf2.
#[test]
fn the_example_of_rfc_1071() {
    assert_eq!(Sum::ZERO.bytes(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]).folded(), 0xddf2);
}

/// RFC 1624, section 4: checksum dd2f, a word changes from 5555 to 3285, the sum must become 0000 and not ffff.
#[test]
fn the_example_of_rfc_1624() {
    assert_eq!(update(0xdd2f, 0x5555, 0x3285), 0x0000);
}

#[test]
fn a_udp_checksum_of_zero_is_sent_as_all_ones() {
    assert_eq!(Sum::ZERO.bytes(&[0xff, 0xff]).checksum(), 0);
    assert_eq!(Sum::ZERO.bytes(&[0xff, 0xff]).udp_checksum(), 0xffff);
}

#[test]
fn carries_survive_64_kib_of_ones() {
    assert_eq!(Sum::ZERO.bytes(&vec![0xff; 65536]).folded(), 0xffff);
}

proptest! {
    #[test]
    fn sums_are_smoltcps(data in proptest::collection::vec(any::<u8>(), 0..2000), split in 0usize..1000) {
        let want = smoltcp::wire::checksum::data(&data);
        prop_assert_eq!(Sum::ZERO.bytes(&data).folded(), want);
        let (a, b) = data.split_at((split * 2).min(data.len()));
        prop_assert_eq!(Sum::ZERO.bytes(a).bytes(b).folded(), want);
        prop_assert_eq!(Sum::ZERO.bytes(a).add(Sum::ZERO.bytes(b)).folded(), want);
    }

    /// Equal as one's complement numbers: 0 and 0xffff are the same.
    #[test]
    fn updates_equal_recomputing(data in proptest::collection::vec(any::<u8>(), 2..200), at: usize, new: u16) {
        let mut data = data;
        let at = at % (data.len() / 2) * 2;
        let before = Sum::ZERO.bytes(&data).checksum();
        let old = u16::from_be_bytes([data[at], data[at + 1]]);
        data[at..at + 2].copy_from_slice(&new.to_be_bytes());
        let after = Sum::ZERO.bytes(&data).checksum();
        let updated = update(before, old, new);
        prop_assert!(updated == after || (updated ^ after == 0xffff && (updated == 0 || after == 0)));
    }
}
