//! How much of a measured window the machine took away from it.

use std::collections::BTreeMap;
use std::fs;
use std::time::Instant;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::cpu_time::Snapshot;

/// Steal time at and above which a window is noisy, in percent of one CPU's time.
const STEAL_LIMIT: f64 = 4.0;

/// Time a busy thread stood runnable without running, from which on a window is noisy, in percent.
const WAIT_LIMIT: f64 = 2.0;

/// CPU time of processes that have no part in the measurement, from which on a window is noisy, in percent of one CPU.
const OTHERS_LIMIT: f64 = 4.0;

/// A thread that ran, or wanted to, for this part of the window is one of those whose waiting is measured.
const BUSY: f64 = 0.3;

/// What disturbed one window.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Noise {
    /// Time the hypervisor gave to others, percent, of the CPU that suffered most.
    pub(crate) steal: f64,
    /// Time the worst-off busy thread waited for its CPU, percent. Not taken where more threads than CPUs are busy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) wait: Option<f64>,
    /// CPU time of uninvolved processes, percent of one CPU.
    pub(crate) others: f64,
}

impl Noise {
    /// Whether the figure of this window may be used.
    pub(crate) fn is_low(&self) -> bool {
        self.level() < 1.0
    }

    /// 0 is silence, 1 is the limit.
    pub(crate) fn level(&self) -> f64 {
        let wait = self.wait.unwrap_or(0.0);
        (self.steal / STEAL_LIMIT).max(wait / WAIT_LIMIT).max(self.others / OTHERS_LIMIT)
    }
}

/// The counters at the beginning of a window.
#[derive(Debug)]
pub(crate) struct Watch {
    began: Instant,
    polling: Vec<u32>,
    threads: BTreeMap<u32, ThreadTime>,
    cpus: Vec<Ticks>,
    processes: Snapshot,
}

impl Watch {
    /// Begins a window. The busy threads of the processes `polling` are expected never to wait for a CPU.
    pub(crate) fn start(polling: &[u32]) -> Result<Watch> {
        let processes = Snapshot::take();
        Ok(Watch {
            polling: polling.to_vec(),
            threads: threads(polling),
            cpus: cpus()?,
            processes,
            began: Instant::now(),
        })
    }

    /// Seconds since the window began.
    pub(crate) fn seconds(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    /// Ends the window.
    pub(crate) fn stop(self) -> Result<Noise> {
        let seconds = self.seconds();
        let nanoseconds = seconds * 1e9;
        let steal = self.cpus.iter().zip(cpus()?).map(|(before, after)| {
            let all = after.all.saturating_sub(before.all).max(1) as f64;
            100.0 * after.steal.saturating_sub(before.steal) as f64 / all
        });
        let steal = steal.fold(0.0, f64::max);
        let after = threads(&self.polling);
        let waits = after.iter().filter_map(|(id, after)| {
            let before = self.threads.get(id)?;
            let ran = after.ran.saturating_sub(before.ran) as f64;
            let waited = after.waited.saturating_sub(before.waited) as f64;
            (ran + waited > BUSY * nanoseconds).then_some(100.0 * waited / nanoseconds)
        });
        let wait = (!self.polling.is_empty()).then(|| waits.fold(0.0, f64::max));
        let others = 100.0 * Snapshot::take().foreign(&self.processes, std::process::id()) / seconds;
        Ok(Noise { steal, wait, others })
    }
}

/// Ticks of one CPU since boot.
#[derive(Debug)]
struct Ticks {
    all: u64,
    steal: u64,
}

/// The `cpuN` lines of /proc/stat: user nice system idle iowait irq softirq steal.
fn cpus() -> Result<Vec<Ticks>> {
    let text = fs::read_to_string("/proc/stat")?;
    let lines = text.lines().filter(|line| line.starts_with("cpu") && !line.starts_with("cpu "));
    lines
        .map(|line| {
            let ticks: Vec<u64> =
                line.split_whitespace().skip(1).take(8).map(str::parse).collect::<Result<_, _>>()?;
            Ok(Ticks {
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
    fn a_window_of_this_process_reads_as_percentages() {
        let noise = Watch::start(&[std::process::id()]).and_then(Watch::stop).expect("/proc is readable");
        assert!((0.0..=100.0).contains(&noise.steal), "{noise:?}");
        assert!(noise.wait.is_some_and(|wait| wait >= 0.0), "{noise:?}");
        assert!(noise.others >= 0.0, "{noise:?}");
    }

    #[test]
    fn a_window_at_any_limit_is_noisy() {
        let quiet = Noise { steal: 3.9, wait: Some(1.9), others: 3.9 };
        assert!(quiet.is_low());
        assert!(!Noise { steal: 4.0, ..quiet }.is_low());
        assert!(!Noise { wait: Some(2.0), ..quiet }.is_low());
        assert!(!Noise { others: 4.0, ..quiet }.is_low());
    }
}
