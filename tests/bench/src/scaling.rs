//! `scaling`: the pipeline with its firewall on one worker, on two and on more, each with two ports of its own.
//!
//! Everything is in this process: each worker's thread plays its guests, too. No generator needs a CPU, so that as many
//! workers can be measured as there are CPUs. Rings and sockets are not part of it.

mod driver;
mod world;

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};

use crate::contest::OURS;
use crate::core_distance;
use crate::interrupt;
use crate::noise::Watch;
use crate::options::Options;
use crate::process::output;
use crate::rounds::{self, Better, Figure, Row};
use driver::{Progress, Task};
use world::World;

/// What the workers of every case are compared with.
const ONE_WORKER: &str = "1-worker";

/// Flows of a worker in the case of new ones.
const NEW_FLOWS: u64 = 3_000_000;

/// What each worker does.
const TASKS: [(&str, Task); 3] = [
    ("flows-1000", Task::Established(1_000)),
    ("flows-100000", Task::Established(100_000)),
    ("setup", Task::New(NEW_FLOWS)),
];

/// All cases: what each worker does, and how many there are.
pub(crate) fn cases() -> Vec<String> {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let mut counts: Vec<usize> =
        std::iter::successors(Some(2), |count| Some(2 * count)).take_while(|count| *count < cpus).collect();
    counts.push(cpus.max(2));
    let of = |task: &str| counts.iter().map(|count| format!("{task}/{count}-workers")).collect::<Vec<_>>();
    TASKS.iter().flat_map(|(task, _)| of(task)).collect()
}

/// Measures the chosen cases and prints every sample as it is taken.
pub(crate) fn run(options: &Options) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for case in options.chosen(cases())? {
        let (name, workers) = case.split_once('/').context("a case is TASK/WORKERS")?;
        let workers: u32 = workers.trim_end_matches("-workers").parse()?;
        let (_, task) = TASKS.iter().find(|(known, _)| *known == name).context("a known task")?;
        let parties = [(OURS, workers), (ONE_WORKER, 1)];
        let names = parties.map(|(name, _)| name);
        let measure = |party: usize| sample(*task, parties[party].1, options);
        let rounds = rounds::interleave(&names, options.samples(), measure, |round, party, figure| {
            crate::told(&case, round, party, "Mpps", figure);
        })?;
        rows.extend(rounds::rows(&case, "Mpps", Better::Higher, &rounds, Some(0), &[(1, ONE_WORKER)]));
    }
    Ok(rows)
}

/// One run with a fresh flow table: million frames a second, all workers together.
fn sample(task: Task, workers: u32, options: &Options) -> Result<Figure> {
    let (Task::Established(flows) | Task::New(flows)) = task;
    let world = World::new(workers, u32::try_from(flows)?)?;
    let progress: Vec<Progress> = (0..workers).map(|_| Progress::default()).collect();
    let (start, stop) = (Barrier::new(workers as usize + 1), AtomicBool::new(false));
    let before = core_distance::measure()?;
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workers)
            .zip(&progress)
            .map(|(worker, progress)| {
                let (world, start, stop) = (&world, &start, &stop);
                let ends = world::ends(worker);
                scope.spawn(move || driver::run(world, ends, task, worker as usize, progress, start, stop))
            })
            .collect();
        start.wait();
        let watched = watch(task, &progress, options);
        stop.store(true, Ordering::Relaxed);
        for thread in threads {
            thread.join().map_err(|_| anyhow!("a worker panicked"))??;
        }
        let (mut figure, hertz) = watched?;
        if matches!(task, Task::New(_)) {
            let longest = progress.iter().map(|progress| progress.nanos.load(Ordering::Acquire)).max();
            figure.value = frames(&progress) as f64 * 1e3 / longest.context("no worker")? as f64;
            ensure!(world.flows.len() as u64 == frames(&progress), "{} flows are tracked", world.flows.len());
        }
        figure.cycles = hertz.map(|hertz| hertz * f64::from(workers) / (1e6 * figure.value));
        figure.hop_ns = [before, core_distance::measure()?];
        Ok(figure)
    })
}

/// Rate and noise of a window in the middle of the run, and how fast the workers' clocks were meanwhile.
fn watch(task: Task, progress: &[Progress], options: &Options) -> Result<(Figure, Option<f64>)> {
    let seconds = match task {
        Task::Established(_) => options.seconds(2.0, 0.5),
        Task::New(_) => 0.4,
    };
    interrupt::pause(Duration::from_millis(50))?;
    let watch = Watch::start(&[std::process::id()])?;
    let before = frames(progress);
    let threads: Vec<String> =
        progress.iter().map(|progress| progress.thread.load(Ordering::Relaxed).to_string()).collect();
    let hertz = cycles_a_second(&threads.join(","), seconds);
    let left = seconds - watch.seconds();
    interrupt::pause(Duration::from_secs_f64(left.max(0.0)))?;
    let frames = frames(progress) - before;
    let passed = watch.seconds();
    Ok((Figure::new(frames as f64 / passed / 1e6, watch.stop()?), hertz))
}

fn frames(progress: &[Progress]) -> u64 {
    progress.iter().map(|progress| progress.frames.load(Ordering::Relaxed)).sum()
}

/// Cycles a second of running, by `perf stat`; `None` where there is no perf or no counter.
fn cycles_a_second(threads: &str, seconds: f64) -> Option<f64> {
    let seconds = seconds.to_string();
    let argv =
        ["--field-separator", ",", "--event", "cycles,task-clock", "--tid", threads, "--", "sleep", &seconds];
    let said = output(&[&["sh", "-c", "exec perf stat \"$@\" 2>&1", "sh"], &argv[..]].concat()).ok()?;
    let count = |event: &str| -> Option<f64> {
        let line = said.lines().find(|line| line.contains(event))?;
        line.split(',').next()?.parse().ok()
    };
    // The clock is in milliseconds.
    Some(count("cycles")? / (count("task-clock")? / 1e3))
}
