//! How much a port may send: two token buckets, of packets and of bits.
//!
//! A bucket counts what was used up of the burst, in billionths of a packet or bit: a nanosecond gives back exactly
//! `rate` of them, so that no division and no rounding occurs. A frame passes while anything is left, even if it then
//! takes more than that: a frame larger than the burst passes after a pause, and the long-term rate is exact.

use std::sync::{MutexGuard, PoisonError};

use crate::offload::Cut;
use crate::port_state::PortState;
use crate::{DropReason, Instant, Port};

/// Billionths of a packet, or of a bit, in one.
const UNIT: u64 = 1_000_000_000;
/// The largest burst that fits the bucket with room for a frame on top: 2^33 packets or bits.
const MOST_BURST: u64 = 1 << 33;

/// A port's limit. A rate of zero means unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RateLimit {
    /// Packets a second; a frame that is to be segmented counts as its segments.
    pub packets_per_second: u64,
    /// Packets that may be sent at once after a pause; at least one.
    pub burst_packets: u64,
    /// Bits of Ethernet frames a second, headers of segments included.
    pub bits_per_second: u64,
    /// Bits that may be sent at once after a pause; at least one, at most 2^33.
    pub burst_bits: u64,
}

/// How many refusals a port is answered: enough for people and programs that try again, too few to be worth provoking.
/// Linux answers 1000 a second with ICMP errors in all (net.ipv4.icmp_msgs_per_sec), in bursts of 50.
const REFUSALS: RateLimit =
    RateLimit { packets_per_second: 200, burst_packets: 50, bits_per_second: 0, burst_bits: 0 };

/// What a port has used up of its bursts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bucket {
    last: Instant,
    packets: u64,
    bits: u64,
}

/// The port's bucket for one burst, if it has a limit, with what time has earned since the last burst.
#[inline]
pub(crate) fn open<'a>(port: &Port, state: &'a PortState, now: Instant) -> Option<MutexGuard<'a, Bucket>> {
    let limit = port.rate_limit()?;
    let mut bucket = state.rate.lock().unwrap_or_else(PoisonError::into_inner);
    bucket.refill(limit, now);
    Some(bucket)
}

/// Takes a frame's packets and bits from the port's buckets.
#[inline]
pub(crate) fn admit(port: &Port, bucket: Option<&mut Bucket>, cut: &Cut) -> Result<(), DropReason> {
    let (Some(limit), Some(bucket)) = (port.rate_limit(), bucket) else { return Ok(()) };
    let left = bucket.take(limit, cut.packets, u64::from(cut.bytes) * 8);
    if left { Ok(()) } else { Err(DropReason::RateLimit) }
}

/// Whether one more refusal may be answered; the others are silent.
pub(crate) fn may_refuse(state: &PortState, now: Instant) -> bool {
    let mut bucket = state.refusals.lock().unwrap_or_else(PoisonError::into_inner);
    bucket.refill(&REFUSALS, now);
    bucket.take(&REFUSALS, 1, 0)
}

impl Bucket {
    /// Gives back what time has earned since the last burst.
    pub(crate) fn refill(&mut self, limit: &RateLimit, now: Instant) {
        let nanos = now.nanos_since(self.last);
        self.last = self.last.max(now);
        self.packets = self.packets.saturating_sub(nanos.saturating_mul(limit.packets_per_second));
        self.bits = self.bits.saturating_sub(nanos.saturating_mul(limit.bits_per_second));
    }

    /// Takes a frame of this many packets and bits, if something of both bursts is left.
    #[inline]
    fn take(&mut self, limit: &RateLimit, packets: u32, bits: u64) -> bool {
        let left = |used, rate, burst: u64| rate == 0 || used < burst.clamp(1, MOST_BURST) * UNIT;
        if !left(self.packets, limit.packets_per_second, limit.burst_packets)
            || !left(self.bits, limit.bits_per_second, limit.burst_bits)
        {
            return false;
        }
        if limit.packets_per_second > 0 {
            self.packets = self.packets.saturating_add(u64::from(packets) * UNIT);
        }
        if limit.bits_per_second > 0 {
            self.bits = self.bits.saturating_add(bits.saturating_mul(UNIT));
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(nanos: u64) -> Instant {
        Instant::from_nanos(nanos)
    }

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let limit = RateLimit { packets_per_second: 1000, burst_packets: 10, ..RateLimit::default() };
        let mut bucket = Bucket::default();
        bucket.refill(&limit, at(5));
        assert_eq!((0..20).filter(|_| bucket.take(&limit, 1, 512)).count(), 10);
        bucket.refill(&limit, at(5 + 999_999));
        assert!(bucket.take(&limit, 1, 512), "a part of a packet is left: it passes, and is paid for later");
        assert!(!bucket.take(&limit, 1, 512));
        bucket.refill(&limit, at(5 + 10_000_000_000));
        assert_eq!(
            (0..20).filter(|_| bucket.take(&limit, 1, 512)).count(),
            10,
            "a pause earns one burst, not more"
        );
    }

    #[test]
    fn segments_count_as_packets_and_a_large_frame_is_paid_off() {
        let limit = RateLimit { packets_per_second: 1000, burst_packets: 10, ..RateLimit::default() };
        let mut bucket = Bucket::default();
        bucket.refill(&limit, at(1));
        assert!(bucket.take(&limit, 45, 0));
        bucket.refill(&limit, at(1 + 35_000_000));
        assert!(!bucket.take(&limit, 1, 0), "35 of 45 are paid: the burst of 10 is still used up");
        bucket.refill(&limit, at(2 + 35_000_000));
        assert!(bucket.take(&limit, 1, 0));
    }

    #[test]
    fn a_clock_that_steps_back_earns_nothing_twice() {
        let limit = RateLimit { packets_per_second: 1, burst_packets: 1, ..RateLimit::default() };
        let mut bucket = Bucket::default();
        bucket.refill(&limit, at(1_000_000_000));
        assert!(bucket.take(&limit, 1, 0));
        for nanos in [0, 1_000_000_000, 0, 1_000_000_000] {
            bucket.refill(&limit, at(nanos));
            assert!(!bucket.take(&limit, 1, 0));
        }
    }

    #[test]
    fn the_largest_numbers_do_not_overflow() {
        let most = u64::MAX;
        let limit = RateLimit {
            packets_per_second: most,
            burst_packets: most,
            bits_per_second: most,
            burst_bits: most,
        };
        let mut bucket = Bucket::default();
        for nanos in [0, 1, most, 0, most] {
            bucket.refill(&limit, at(nanos));
            bucket.take(&limit, u32::MAX, most);
        }
    }

    proptest! {
        /// Over any pattern of bursts no more passes than burst + rate × time + one frame, and a greedy sender gets
        /// at least rate × time.
        #[test]
        fn the_rate_is_kept(pps in 1u64..5_000_000, burst in 1u64..1000, gaps in proptest::collection::vec(1u64..3_000_000, 1..200)) {
            let limit = RateLimit { packets_per_second: pps, burst_packets: burst, ..RateLimit::default() };
            let (mut bucket, mut now, mut passed) = (Bucket::default(), 0u64, 0u64);
            for gap in gaps {
                now += gap;
                bucket.refill(&limit, at(now));
                // Greedy: as long as anything passes, but no longer than 2 × what a gap can earn.
                passed += (0..20_000).take_while(|_| bucket.take(&limit, 1, 64)).count() as u64;
            }
            let earned = u128::from(pps) * u128::from(now);
            prop_assert!(u128::from(passed) * u128::from(UNIT) <= earned + u128::from(burst + 1) * u128::from(UNIT));
        }
    }
}
