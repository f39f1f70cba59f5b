//! What happened, in numbers.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::{DropReason, Frame, Verdict};

/// Counters of one port on one worker: written by that worker alone, read by anybody at any time.
#[derive(Debug)]
pub struct Counters {
    packets: AtomicU64,
    bytes: AtomicU64,
    drops: [AtomicU64; DropReason::COUNT],
}

/// A reading of [`Counters`], or the sum of several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CounterValues {
    /// Frames that were taken from the port.
    pub packets: u64,
    /// Their bytes, from the Ethernet header on.
    pub bytes: u64,
    /// Frames that did not go on, by [`DropReason::index`].
    pub drops: [u64; DropReason::COUNT],
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            packets: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            drops: [const { AtomicU64::new(0) }; DropReason::COUNT],
        }
    }
}

impl Counters {
    /// Counts a judged burst. Call it before [`Self::count_drop`] adds what delivery could not do.
    pub fn record(&self, frames: &[Frame<'_>], verdicts: &[Verdict]) {
        let mut bytes = 0;
        for (frame, verdict) in frames.iter().zip(verdicts) {
            bytes += u64::from(*frame.len);
            if let Verdict::Drop(reason) = verdict {
                self.count_drop(*reason, 1);
            }
        }
        add(&self.packets, frames.len() as u64);
        add(&self.bytes, bytes);
    }

    /// Counts frames that were dropped after their verdict.
    pub fn count_drop(&self, reason: DropReason, frames: u64) {
        add(&self.drops[reason.index()], frames);
    }

    /// The values now. Each is right; together they may be from slightly different moments.
    pub fn read(&self) -> CounterValues {
        CounterValues {
            packets: self.packets.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            drops: core::array::from_fn(|i| self.drops[i].load(Relaxed)),
        }
    }
}

impl Default for CounterValues {
    fn default() -> Self {
        Self { packets: 0, bytes: 0, drops: [0; DropReason::COUNT] }
    }
}

impl core::ops::AddAssign for CounterValues {
    fn add_assign(&mut self, other: Self) {
        self.packets += other.packets;
        self.bytes += other.bytes;
        for (sum, more) in self.drops.iter_mut().zip(other.drops) {
            *sum += more;
        }
    }
}

/// One writer per counter: a load and a store do, no locked instruction is needed.
#[inline]
fn add(counter: &AtomicU64, more: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(more), Relaxed);
}
