//! What happened at a port, in numbers. One writer per block, any number of readers.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use pipeline::DropReason;

/// Counters of one port on one worker: written by that worker alone. Aligned so that two workers never write to the
/// same pair of cache lines.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Counters {
    from_packets: AtomicU64,
    from_bytes: AtomicU64,
    to_packets: AtomicU64,
    to_bytes: AtomicU64,
    drops: [AtomicU64; DropReason::COUNT],
}

/// A sum of [`Counters`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sums {
    /// Frames the workload sent and the pipeline accepted, and their bytes.
    pub(crate) from: (u64, u64),
    /// Frames given to the workload, and their bytes.
    pub(crate) to: (u64, u64),
    /// Frames that ended here, by [`DropReason::index`].
    pub(crate) drops: [u64; DropReason::COUNT],
}

impl Counters {
    /// One block for each worker.
    pub(crate) fn per_worker(workers: usize) -> std::sync::Arc<[Self]> {
        (0..workers).map(|_| Self::new()).collect()
    }

    fn new() -> Self {
        Self {
            from_packets: AtomicU64::new(0),
            from_bytes: AtomicU64::new(0),
            to_packets: AtomicU64::new(0),
            to_bytes: AtomicU64::new(0),
            drops: [const { AtomicU64::new(0) }; DropReason::COUNT],
        }
    }

    #[inline]
    pub(crate) fn accepted(&self, packets: u64, bytes: u64) {
        add(&self.from_packets, packets);
        add(&self.from_bytes, bytes);
    }

    #[inline]
    pub(crate) fn delivered(&self, packets: u64, bytes: u64) {
        add(&self.to_packets, packets);
        add(&self.to_bytes, bytes);
    }

    #[inline]
    pub(crate) fn dropped(&self, reason: DropReason, packets: u64) {
        add(&self.drops[reason.index()], packets);
    }
}

impl Sums {
    /// Adds the workers' blocks up. Each number is right; together they may be from slightly different moments.
    pub(crate) fn of(blocks: &[Counters]) -> Self {
        let mut sums = Self { from: (0, 0), to: (0, 0), drops: [0; DropReason::COUNT] };
        for block in blocks {
            sums.from.0 += block.from_packets.load(Relaxed);
            sums.from.1 += block.from_bytes.load(Relaxed);
            sums.to.0 += block.to_packets.load(Relaxed);
            sums.to.1 += block.to_bytes.load(Relaxed);
            for (sum, drops) in sums.drops.iter_mut().zip(&block.drops) {
                *sum += drops.load(Relaxed);
            }
        }
        sums
    }
}

/// One writer: a load and a store do, no locked instruction is needed.
#[inline]
fn add(counter: &AtomicU64, more: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(more), Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_run_over_all_workers() {
        let blocks = Counters::per_worker(3);
        for (n, block) in (1u64..).zip(blocks.iter()) {
            block.accepted(n, 100 * n);
            block.delivered(10 * n, 1000 * n);
            block.dropped(DropReason::SpoofedMac, n);
            block.dropped(DropReason::DestinationFull, 2);
        }
        let sums = Sums::of(&blocks);
        assert_eq!((sums.from, sums.to), ((6, 600), (60, 6000)));
        assert_eq!(sums.drops[DropReason::SpoofedMac.index()], 6);
        assert_eq!(sums.drops[DropReason::DestinationFull.index()], 6);
        assert_eq!(sums.drops.iter().sum::<u64>(), 12);
    }
}
