//! Starting and stopping an agent.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use mgmt_types::agent::HostStatus;
use pipeline::conntrack::{tcp, timeouts::Timeouts};
use pipeline::{FlowTable, FlowTableConfig, HashKey, Snapshot};
use tokio::sync::watch;

use crate::answers::Answers;
use crate::board::Board;
use crate::config::{Config, Source};
use crate::control::{Control, Message, Parts};
use crate::housekeeper;
use crate::identity;
use crate::large_pages;
use crate::plane::Plane;
use crate::recorder::Recorder;
use crate::slots;
use crate::state::{StateDir, StateError};
use crate::sync::{Sync, Talk};
use crate::underlay::home::{self, Home};
use crate::underlay::{Underlay, prober};
use crate::worker::Worker;
use crate::world::World;

/// An agent could not start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The state directory cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// A directory or socket could not be made.
    #[error("{}: {source}", .path.display())]
    Path {
        /// What was to be made.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A worker could not be set up or pinned.
    #[error("{0}")]
    Worker(String),
    /// The kernel has no more threads or descriptors.
    #[error("{what}: {source}")]
    Resources {
        /// What was to be made.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

/// A running agent. Dropping it stops it.
#[derive(Debug)]
pub struct Handle {
    control: Sender<Message>,
    board: Arc<Board>,
    recorder: Arc<Recorder>,
    threads: Vec<JoinHandle<()>>,
    housekeeper: Option<JoinHandle<()>>,
    prober: Option<JoinHandle<()>>,
    plane: Arc<Plane>,
    sync: Option<Sync>,
}

/// Starts an agent.
///
/// When this returns, the ports of the slice kept on disk are open and workers forward by it. No manager was contacted
/// yet: that goes on in the background, for ever.
///
/// # Errors
/// When directories, sockets, threads or the pinning of workers are impossible, or another agent runs on the same state
/// directory. A port that cannot be opened is no error: it is tried again each second, and its status says why.
pub fn run(config: Config) -> Result<Handle, RunError> {
    let Config {
        host,
        state_dir,
        run_dir,
        workers,
        cpus,
        poll,
        max_flows,
        max_flows_per_port,
        underlay,
        source,
    } = config;
    let workers = workers.max(1);
    let state = StateDir::open(&state_dir)?;
    make_directory(&run_dir.join("ports"))?;

    let random = RandomState::new();
    let key = HashKey([random.hash_one(0u64), random.hash_one(1u64)]);
    let empty = Snapshot::builder(0, key, Arc::default())
        .build()
        .map_err(|error| RunError::Worker(error.to_string()))?;
    let flows = FlowTableConfig {
        capacity: max_flows,
        per_port: max_flows_per_port,
        slots: slots::MOST,
        key: HashKey([random.hash_one(2u64), random.hash_one(3u64)]),
        timeouts: Timeouts::default(),
        tcp: tcp::Settings::default(),
    };
    let flows = FlowTable::with_index(flows, large_pages::prefer);
    let lasting = Underlay::none(workers);
    let (empty, flows) = (Arc::new(empty), Arc::new(flows));
    let world = World::new(empty, flows, Arc::default(), lasting.clone(), &[], &Default::default());
    let plane = Plane::new(workers, world)
        .map_err(|source| RunError::Resources { what: "a worker's eventfd", source })
        .map(Arc::new)?;
    let recorder = Recorder::new(workers);

    let mut threads = Vec::with_capacity(workers + 1);
    let stop_plane = StopOnDrop(Some(plane.clone()));
    for index in 0..workers {
        let worker = Worker::new(index, poll, plane.clone(), recorder.teller(index))
            .map_err(|error| RunError::Worker(error.to_string()))?;
        let cpu = (!cpus.is_empty()).then(|| cpus[index % cpus.len()]);
        threads.push(start_worker(worker, index, cpu)?);
    }

    let manager = match &source {
        Source::Managers(urls) => {
            let kept = || identity::load(&state_dir).ok().flatten()?.managers.first().cloned();
            urls.first().cloned().or_else(kept).and_then(|url| home::authority(&url))
        }
        Source::Channel { .. } | Source::Kept => None,
    };
    let (control, inbox) = channel();
    let board = Arc::new(Board::new(host.clone(), plane.clone()));
    let (report, reports) = watch::channel(board.status());
    let at_work = Control::start(Parts {
        host: host.clone(),
        run_dir: run_dir.clone(),
        key,
        state,
        plane: plane.clone(),
        board: board.clone(),
        recorder: recorder.clone(),
        home: Home::new(underlay, manager, lasting),
        report,
        inbox,
        outbox: control.clone(),
    });
    let in_force = at_work.in_force();
    let thread = named("pal-control".into(), move || {
        let _abort = AbortOnPanic;
        at_work.run();
    })?;
    threads.push(thread);
    stop_plane.disarm();

    let mut handle = Handle {
        control: control.clone(),
        board: board.clone(),
        recorder: recorder.clone(),
        threads,
        housekeeper: None,
        prober: None,
        plane: plane.clone(),
        sync: None,
    };
    handle.housekeeper = Some(start_housekeeper(recorder.clone(), plane.clone())?);
    handle.prober = Some(start_prober(plane.clone(), control.clone())?);
    let answers = Answers { host: host.clone(), run_dir: run_dir.clone(), key, plane, recorder };
    let talk = Talk { host, state_dir, in_force, board, answers: Arc::new(answers), reports, control };
    let sync = Sync::start(talk, &run_dir.join("agent.sock"), source)?;
    handle.sync = Some(sync);
    Ok(handle)
}

impl Handle {
    /// The status at this moment, counters included.
    pub fn status(&self) -> HostStatus {
        self.board.status()
    }

    /// Stops the agent and waits for its threads. Guests keep their sockets' paths to reconnect to, and TAP devices
    /// with their addresses stay, for the next agent.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        // Nobody listens only when it ended already.
        let _ = self.control.send(Message::Stop);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                log::error!("a thread of the agent panicked");
            }
        }
        if let Some(housekeeper) = self.housekeeper.take() {
            self.recorder.rouse();
            if housekeeper.join().is_err() {
                log::error!("the housekeeper panicked");
            }
        }
        if let Some(prober) = self.prober.take() {
            // It may have looked whether to stop just before it was told.
            self.plane.shake();
            if prober.join().is_err() {
                log::error!("the prober panicked");
            }
        }
        if let Some(sync) = self.sync.take() {
            sync.stop();
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.end();
    }
}

/// Lets workers end when the start fails half way.
struct StopOnDrop(Option<Arc<Plane>>);

impl StopOnDrop {
    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        if let Some(plane) = &self.0 {
            plane.stop();
        }
    }
}

fn start_worker(mut worker: Worker, index: usize, cpu: Option<usize>) -> Result<JoinHandle<()>, RunError> {
    let (pinned, was_pinned) = channel();
    let thread = named(format!("pal-worker-{index}"), move || {
        let _abort = AbortOnPanic;
        let _ = pinned.send(cpu.map_or(Ok(()), pin));
        worker.run();
    })?;
    match was_pinned.recv() {
        Ok(Ok(())) => Ok(thread),
        Ok(Err(source)) => Err(RunError::Worker(format!(
            "worker {index} cannot be pinned to CPU {}: {source}",
            cpu.unwrap_or_default()
        ))),
        Err(_) => Err(RunError::Worker(format!("worker {index} ended at once"))),
    }
}

fn start_housekeeper(recorder: Arc<Recorder>, plane: Arc<Plane>) -> Result<JoinHandle<()>, RunError> {
    named("pal-house".into(), move || {
        let _abort = AbortOnPanic;
        recorder.kept_by(std::thread::current());
        housekeeper::keep(&recorder, &plane, plane.workers());
    })
}

fn start_prober(plane: Arc<Plane>, control: Sender<Message>) -> Result<JoinHandle<()>, RunError> {
    named("pal-prober".into(), move || {
        let _abort = AbortOnPanic;
        plane.probed_by(std::thread::current());
        prober::keep(&plane, &control);
    })
}

fn pin(cpu: usize) -> io::Result<()> {
    if cpu >= rustix::thread::CpuSet::MAX_CPU {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut set = rustix::thread::CpuSet::new();
    set.set(cpu);
    Ok(rustix::thread::sched_setaffinity(None, &set)?)
}

/// A worker that panics would leave its ports silent while all else looks healthy, and without the control thread
/// nothing would change any more: the process ends instead, and whoever supervises it starts another.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let thread = std::thread::current();
            log::error!("{} panicked: the process ends", thread.name().unwrap_or("a thread"));
            std::process::abort();
        }
    }
}

fn named(name: String, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, RunError> {
    std::thread::Builder::new()
        .name(name)
        .spawn(work)
        .map_err(|source| RunError::Resources { what: "a thread", source })
}

/// Makes a directory for owner and group: sockets in it are the guests' network cards, others have no business with
/// them. One that is there keeps the mode and group it was given.
fn make_directory(path: &Path) -> Result<(), RunError> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o750).create(path);
    made.map_err(|source| RunError::Path { path: path.to_path_buf(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PANIC: &str = "PALISADE_TEST_PANIC_IN_A_WORKER";

    /// Runs itself again as a process of its own, whose worker thread panics.
    #[test]
    fn a_panic_in_a_worker_ends_the_process_with_a_message() {
        if std::env::var_os(PANIC).is_some() {
            let thread = named("pal-worker-7".into(), || {
                let _abort = AbortOnPanic;
                panic!("a bug in a worker");
            });
            let _ = thread.expect("a thread").join();
            return;
        }
        let name = std::thread::current().name().expect("a test has a name").to_string();
        let output = std::process::Command::new(std::env::current_exe().expect("a path"))
            .args(["--exact", "--nocapture", &name])
            .env(PANIC, "1")
            .output()
            .expect("runs");
        let signal = std::os::unix::process::ExitStatusExt::signal(&output.status);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(signal, Some(libc::SIGABRT), "{said}");
        assert!(said.contains("pal-worker-7") && said.contains("a bug in a worker"), "{said}");
    }
}
