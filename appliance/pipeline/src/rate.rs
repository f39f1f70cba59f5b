//! How much a port may send.

use crate::Instant;

/// A port's limit. Zero means unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RateLimit {
    /// Packets a second; a frame that is to be segmented counts as its segments.
    pub packets_per_second: u64,
    /// Packets that may be sent at once after a pause.
    pub burst_packets: u64,
    /// Bits of Ethernet frames a second.
    pub bits_per_second: u64,
    /// Bits that may be sent at once after a pause.
    pub burst_bits: u64,
}

/// What a port has used up of its bursts.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bucket {
    last: Instant,
}

impl Bucket {
    /// Gives back what time has earned.
    pub(crate) fn refill(&mut self, _limit: Option<&RateLimit>, now: Instant) {
        self.last = now;
    }
}
