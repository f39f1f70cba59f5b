//! How much of a measured window the machine took away from it.

use std::collections::BTreeMap;
use std::fs;
use std::time::Instant;

use anyhow::{Context, Result};
use serde::Serialize;

/// Steal time at and above which a window is noisy, in percent of one CPU's time.
const STEAL_LIMIT: f64 = 4.0;

/// Time a busy thread stood runnable without running, from which on a window is noisy, in percent.
const WAIT_LIMIT: f64 = 2.0;

/// A thread that ran for this part of the window is one of those that are measured.
const BUSY: f64 = 0.3;

/// What disturbed one window.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Noise {
    /// Time the hypervisor gave to others, percent, of the CPU that suffered most.
    pub(crate) steal: f64,
    /// Time the worst-off busy thread waited for its CPU, percent.
    pub(crate) wait: f64,
}

impl Noise {
    /// Whether the figure of this window may be used.
    pub(crate) fn is_low(&self) -> bool {
        self.steal < STEAL_LIMIT && self.wait < WAIT_LIMIT
    }

    /// Distance to the limits; 1 is at a limit.
    pub(crate) fn level(&self) -> f64 {
        (self.steal / STEAL_LIMIT).max(self.wait / WAIT_LIMIT)
    }
}

/// The counters at the beginning of a window.
#[derive(Debug)]
pub(crate) struct Watch {
    began: Instant,
    processes: Vec<u32>,
    cpus: Vec<CpuTime>,
    threads: BTreeMap<u32, ThreadTime>,
}

impl Watch {
    /// Begins a window in which the busy threads are those of `processes`.
    pub(crate) fn start(processes: &[u32]) -> Result<Watch> {
        let processes = processes.to_vec();
        let threads = threads(&processes);
        Ok(Watch { began: Instant::now(), cpus: cpus()?, threads, processes })
    }

    /// Ends the window.
    pub(crate) fn stop(self) -> Result<Noise> {
        let nanoseconds = self.began.elapsed().as_nanos() as f64;
        let steal = self
            .cpus
            .iter()
            .zip(cpus()?)
            .map(|(before, after)| {
                let all = (after.all - before.all).max(1) as f64;
                100.0 * (after.steal - before.steal) as f64 / all
            })
            .fold(0.0, f64::max);
        let wait = threads(&self.processes)
            .iter()
            .filter_map(|(id, after)| {
                let before = self.threads.get(id)?;
                let ran = after.ran.saturating_sub(before.ran) as f64;
                let waited = after.waited.saturating_sub(before.waited) as f64;
                (ran > BUSY * nanoseconds).then_some(100.0 * waited / nanoseconds)
            })
            .fold(0.0, f64::max);
        Ok(Noise { steal, wait })
    }
}

/// Ticks of one CPU since boot.
#[derive(Debug)]
struct CpuTime {
    all: u64,
    steal: u64,
}

/// The `cpuN` lines of /proc/stat: user nice system idle iowait irq softirq steal.
fn cpus() -> Result<Vec<CpuTime>> {
    let text = fs::read_to_string("/proc/stat")?;
    let lines = text.lines().filter(|line| line.starts_with("cpu") && !line.starts_with("cpu "));
    lines
        .map(|line| {
            let ticks: Vec<u64> =
                line.split_whitespace().skip(1).take(8).map(str::parse).collect::<Result<_, _>>()?;
            Ok(CpuTime {
                all: ticks.iter().sum(),
                steal: *ticks.get(7).context("no steal time in /proc/stat")?,
            })
        })
        .collect()
}

/// Nanoseconds of one thread since its start.
#[derive(Debug)]
struct ThreadTime {
    ran: u64,
    waited: u64,
}

/// From schedstat: time on a CPU, time waiting for one. Threads that have just ended are left out.
fn threads(processes: &[u32]) -> BTreeMap<u32, ThreadTime> {
    let mut all = BTreeMap::new();
    for process in processes {
        let Ok(entries) = fs::read_dir(format!("/proc/{process}/task")) else { continue };
        for entry in entries.flatten() {
            let Ok(text) = fs::read_to_string(entry.path().join("schedstat")) else { continue };
            let mut fields = text.split_whitespace().map_while(|field| field.parse().ok());
            if let (Some(ran), Some(waited), Some(id)) =
                (fields.next(), fields.next(), entry.file_name().to_str().and_then(|name| name.parse().ok()))
            {
                all.insert(id, ThreadTime { ran, waited });
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_own_idle_window_reads_as_numbers_within_percent() {
        let noise = Watch::start(&[std::process::id()]).and_then(Watch::stop).expect("proc is readable");
        assert!((0.0..=100.0).contains(&noise.steal), "{noise:?}");
        assert!(noise.wait >= 0.0, "{noise:?}");
    }

    #[test]
    fn a_window_at_a_limit_is_noisy() {
        assert!(Noise { steal: 3.9, wait: 1.9 }.is_low());
        assert!(!Noise { steal: 4.0, wait: 0.0 }.is_low());
        assert!(!Noise { steal: 0.0, wait: 2.0 }.is_low());
    }
}
