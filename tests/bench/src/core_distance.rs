//! How far apart the two CPUs are at this moment.
//!
//! A virtual machine's CPUs are threads of its host, which may place them on one core, on two cores with a common
//! cache, or further apart, and may move them at any time. A frame that one CPU writes and the other reads costs two
//! to ten times as much from one placement to the next, so figures from different placements must not be compared.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use anyhow::{Context, Result};
use rustix::thread::{CpuSet, sched_setaffinity};

/// Round trips of one batch; the fastest of [`BATCHES`] counts, as anything that interrupts only slows a batch down.
const ROUND_TRIPS: u32 = 500;
const BATCHES: u32 = 40;

/// Distances that differ by more than this factor are different placements.
const SAME: f64 = 1.35;

/// Nanoseconds for a cache line to go from CPU 0 to CPU 1 and back.
pub(crate) fn measure() -> Result<f64> {
    let line = AtomicU32::new(0);
    std::thread::scope(|scope| {
        let echo = scope.spawn(|| -> Result<()> {
            let pinned = pin(1);
            for trip in 0..ROUND_TRIPS * BATCHES {
                wait(&line, 2 * trip + 1);
                line.store(2 * trip + 2, Ordering::Release);
            }
            pinned
        });
        let ask = scope.spawn(|| -> Result<f64> {
            let pinned = pin(0);
            let mut best = f64::INFINITY;
            for batch in 0..BATCHES {
                let start = Instant::now();
                for trip in batch * ROUND_TRIPS..(batch + 1) * ROUND_TRIPS {
                    line.store(2 * trip + 1, Ordering::Release);
                    wait(&line, 2 * trip + 2);
                }
                best = best.min(start.elapsed().as_nanos() as f64 / f64::from(ROUND_TRIPS));
            }
            pinned.map(|()| best)
        });
        let joined = |_| anyhow::anyhow!("a measuring thread panicked");
        echo.join().map_err(joined)??;
        ask.join().map_err(joined)?
    })
    .context("measure the distance of CPU 0 and CPU 1")
}

/// Whether all of `distances` were measured in one placement.
pub(crate) fn same_placement(distances: impl Iterator<Item = f64> + Clone) -> bool {
    let least = distances.clone().fold(f64::INFINITY, f64::min);
    let most = distances.fold(0.0, f64::max);
    most <= SAME * least
}

fn pin(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    Ok(sched_setaffinity(None, &set)?)
}

/// Spins until `line` has `value`; the other side gets the CPU should both be on one.
fn wait(line: &AtomicU32, value: u32) {
    let mut spins = 0_u32;
    while line.load(Ordering::Acquire) != value {
        spins += 1;
        if spins.is_multiple_of(100_000) {
            std::thread::yield_now();
        }
        std::hint::spin_loop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_of_one_core_and_of_two_are_not_one_placement() {
        assert!(same_placement([100.0, 120.0, 130.0].into_iter()));
        assert!(!same_placement([60.0, 180.0].into_iter()));
        assert!(same_placement(std::iter::empty()));
    }
}
