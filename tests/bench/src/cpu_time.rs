//! CPU time of every process, from /proc.

use std::collections::BTreeMap;
use std::fs;

use serde::Serialize;

/// Ticks a second in /proc: USER_HZ, 100 on every Linux that has an ABI.
const TICKS: f64 = 100.0;

/// PF_KTHREAD, in the flags of /proc/PID/stat (include/linux/sched.h).
const KERNEL_THREAD: u64 = 0x0020_0000;

/// CPU seconds of one process, all its threads together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(crate) struct CpuTime {
    /// In its own code.
    pub(crate) user: f64,
    /// In the kernel on its behalf. Packets that a softirq carries while it happens to run are counted here too.
    pub(crate) system: f64,
}

impl CpuTime {
    /// User and system time.
    pub(crate) fn sum(self) -> f64 {
        self.user + self.system
    }

    /// What was used since `before`.
    pub(crate) fn since(self, before: CpuTime) -> CpuTime {
        CpuTime { user: (self.user - before.user).max(0.0), system: (self.system - before.system).max(0.0) }
    }

    /// Percent of one CPU over `seconds`.
    pub(crate) fn percent_of(self, seconds: f64) -> CpuTime {
        let percent = |used: f64| (1000.0 * used / seconds).round() / 10.0;
        CpuTime { user: percent(self.user), system: percent(self.system) }
    }
}

/// One process at one moment.
#[derive(Debug, Clone, PartialEq)]
struct Process {
    parent: u32,
    kernel: bool,
    time: CpuTime,
}

/// All processes at one moment.
#[derive(Debug)]
pub(crate) struct Snapshot {
    processes: BTreeMap<u32, Process>,
    softirq: CpuTime,
}

impl Snapshot {
    /// Reads all of /proc; processes that end meanwhile are left out.
    pub(crate) fn take() -> Snapshot {
        let mut all = BTreeMap::new();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
                continue;
            };
            if let Some(process) =
                fs::read_to_string(entry.path().join("stat")).ok().as_deref().and_then(parse)
            {
                all.insert(id, process);
            }
        }
        Snapshot { processes: all, softirq: softirq().unwrap_or_default() }
    }

    /// CPU time of one process so far.
    pub(crate) fn of(&self, id: u32) -> Option<CpuTime> {
        Some(self.processes.get(&id)?.time)
    }

    /// CPU seconds in softirqs of all CPUs. A part of them is in the system time of the interrupted processes too.
    pub(crate) fn softirq(&self) -> CpuTime {
        self.softirq
    }

    /// CPU seconds since `before` of processes that are neither `root` nor descend from it, nor are kernel threads.
    pub(crate) fn foreign(&self, before: &Snapshot, root: u32) -> f64 {
        self.processes
            .iter()
            .filter(|(id, process)| !process.kernel && !self.descends(**id, root))
            .filter_map(|(id, process)| Some(process.time.since(before.of(*id)?).sum()))
            .sum()
    }

    fn descends(&self, mut id: u32, root: u32) -> bool {
        // A chain of parents is short; the bound is for ids that were used again while /proc was read.
        for _ in 0..64 {
            if id == root {
                return true;
            }
            match self.processes.get(&id) {
                Some(process) => id = process.parent,
                None => return false,
            }
        }
        false
    }
}

/// The first line of /proc/stat: `cpu user nice system idle iowait irq softirq ...`.
fn softirq() -> Option<CpuTime> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    let ticks: f64 = text.lines().next()?.split_whitespace().nth(7)?.parse().ok()?;
    Some(CpuTime { user: 0.0, system: ticks / TICKS })
}

/// The line of proc_pid_stat(5): `pid (comm) state ppid ...`, flags in field 9, utime and stime in fields 14 and 15.
fn parse(line: &str) -> Option<Process> {
    let (_, after_name) = line.rsplit_once(") ")?;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let number = |position: usize| fields.get(position - 3)?.parse::<u64>().ok();
    Some(Process {
        parent: u32::try_from(number(4)?).ok()?,
        kernel: number(9)? & KERNEL_THREAD != 0,
        time: CpuTime { user: number(14)? as f64 / TICKS, system: number(15)? as f64 / TICKS },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_spaces_does_not_shift_the_fields() {
        let line = "42 (a) b (c) R 7 42 42 0 -1 4194304 85 0 0 0 150 25 0 0 20 0 1 0 100 1 1";
        let process = parse(line).expect("a valid line");
        assert_eq!(process, Process { parent: 7, kernel: false, time: CpuTime { user: 1.5, system: 0.25 } });
    }

    #[test]
    fn the_time_of_this_process_and_its_children_is_not_foreign() {
        let before = Snapshot::take();
        let own = std::process::id();
        assert!(before.of(own).is_some());
        let after = Snapshot::take();
        // Everybody descends from 0, nobody from a number that no process has.
        let all = after.foreign(&before, u32::MAX);
        assert!(after.foreign(&before, own) <= all);
    }
}
