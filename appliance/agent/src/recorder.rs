//! Where what workers tell comes together: verdicts to ask for, flows to follow, rules that are logged.
//!
//! Each worker has a line of its own to the recorder, bounded, that it never waits for. The lines are emptied by the
//! housekeeper, and by whoever asks, so that an answer knows what happened just before.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::Thread;

use mgmt_types::question::{FlowEvent, FlowTidings, FlowUpdate, Verdict, VerdictKind, VerdictQuery};
use pipeline::{DropRecord, Ending, Event, FlowRecord, Origin, RuleId};
use tokio::sync::mpsc;

use crate::directory::{Clock, Directory, direction};
use crate::flow_log::FlowLog;
use crate::teller::{Note, Teller};
use crate::verdicts::Verdicts;

/// Notes that wait on one worker's line.
const WAITING: usize = 2048;
/// The id under which verdicts are kept on what came from other hosts and is for nobody known: no port's.
const UNDERLAY: u32 = u32::MAX;
/// Who sent what came from no host of the mesh.
const STRANGER: &str = "host:?";
/// Configurations whose names are remembered: what is told may come from just before a change.
const REMEMBERED: usize = 4;

/// See the module.
#[derive(Debug)]
pub(crate) struct Recorder {
    outboxes: Box<[SyncSender<Note>]>,
    inboxes: Box<[Mutex<Receiver<Note>>]>,
    /// Notes that found no room.
    lost: AtomicU64,
    followed: AtomicBool,
    asleep: AtomicBool,
    housekeeper: OnceLock<Thread>,
    books: Mutex<Books>,
}

#[derive(Debug, Default)]
struct Books {
    /// The newest last.
    directories: VecDeque<Arc<Directory>>,
    verdicts: Verdicts,
    flow_log: FlowLog,
}

impl Recorder {
    pub(crate) fn new(workers: usize) -> Arc<Self> {
        let (outboxes, inboxes): (Vec<_>, Vec<_>) = (0..workers).map(|_| sync_channel(WAITING)).unzip();
        Arc::new(Self {
            outboxes: outboxes.into(),
            inboxes: inboxes.into_iter().map(Mutex::new).collect(),
            lost: AtomicU64::new(0),
            followed: AtomicBool::new(false),
            asleep: AtomicBool::new(false),
            housekeeper: OnceLock::new(),
            books: Mutex::default(),
        })
    }

    /// A worker's voice. Each worker has one.
    pub(crate) fn teller(self: &Arc<Self>, worker: usize) -> Teller {
        Teller::new(worker, self.outboxes[worker].clone(), Arc::clone(self))
    }

    /// Whether somebody follows flows, and so wants to hear of each.
    #[inline]
    pub(crate) fn is_followed(&self) -> bool {
        self.followed.load(Ordering::Relaxed)
    }

    /// Notes were lost.
    #[cold]
    pub(crate) fn lose(&self, notes: u64) {
        self.lost.fetch_add(notes, Ordering::Relaxed);
    }

    /// Wakes the housekeeper if it sleeps until something happens.
    #[inline]
    pub(crate) fn wake(&self) {
        // Pairs with the fence in `about_to_sleep`: either the housekeeper sees what was told before this call, or this
        // sees that it goes to sleep.
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) {
            self.rouse();
        }
    }

    /// Wakes the housekeeper wherever it waits.
    #[cold]
    pub(crate) fn rouse(&self) {
        self.asleep.store(false, Ordering::Relaxed);
        if let Some(thread) = self.housekeeper.get() {
            thread.unpark();
        }
    }

    /// The housekeeper says who it is.
    pub(crate) fn kept_by(&self, thread: Thread) {
        // There is one housekeeper.
        let _ = self.housekeeper.set(thread);
    }

    /// The housekeeper says that it will sleep; it must look for work once more after this.
    pub(crate) fn about_to_sleep(&self) {
        self.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// A configuration comes in force: to be called before workers live by it.
    pub(crate) fn learn(&self, directory: Arc<Directory>) {
        let mut books = self.books();
        let ports: HashSet<u32> = directory.slice.ports.iter().map(|port| port.id).collect();
        books.verdicts.retain(|id| id == UNDERLAY || ports.contains(&id));
        books.flow_log.retain(|rule| directory.is_logged(rule));
        books.directories.push_back(directory);
        if books.directories.len() > REMEMBERED {
            books.directories.pop_front();
        }
    }

    /// The names of the configuration in force; none before the first.
    pub(crate) fn directory(&self) -> Option<Arc<Directory>> {
        self.books().directories.back().cloned()
    }

    /// Takes in all that workers told so far; how many notes.
    pub(crate) fn catch_up(&self) -> usize {
        let clock = Clock::read();
        let mut books = self.books();
        let mut taken = 0;
        for inbox in &self.inboxes {
            // Nobody holds it but who has the books.
            let inbox = inbox.lock().unwrap_or_else(PoisonError::into_inner);
            // No more than can have waited: whoever tells all the time does not keep us for ever.
            for note in inbox.try_iter().take(WAITING) {
                books.take(&note, &clock);
                taken += 1;
            }
        }
        let lost = self.lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            books.flow_log.lose(lost);
        }
        taken
    }

    /// Takes in flows that ended without a worker.
    pub(crate) fn ended(&self, flows: &[(FlowRecord, Ending)]) {
        if !self.is_followed() || flows.is_empty() {
            return;
        }
        let clock = Clock::read();
        let mut books = self.books();
        for (flow, why) in flows {
            let event = Event::FlowEnded(*flow, *why);
            books.take(&Note { at: clock.now(), event, times: 1, keep: false }, &clock);
        }
    }

    /// Gives followers what came together.
    pub(crate) fn flush(&self) {
        let mut books = self.books();
        books.flow_log.flush();
        self.followed.store(books.flow_log.is_followed(), Ordering::Relaxed);
    }

    /// Follows flows, all or those of a workload, from now on. `None` when too many do.
    pub(crate) fn follow(&self, workload: Option<String>) -> Option<mpsc::Receiver<FlowTidings>> {
        let inbox = self.books().flow_log.follow(workload)?;
        self.followed.store(true, Ordering::Relaxed);
        self.rouse();
        Some(inbox)
    }

    /// Recent verdicts.
    pub(crate) fn verdicts(&self, query: &VerdictQuery) -> Vec<Verdict> {
        self.catch_up();
        self.books().verdicts.find(query)
    }

    /// What the firewall refused lately.
    pub(crate) fn refused(&self) -> Vec<Verdict> {
        self.catch_up();
        let books = self.books();
        books
            .verdicts
            .of_kind(VerdictKind::Dropped)
            .filter(|verdict| verdict.direction.is_some())
            .cloned()
            .collect()
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Books {
    /// The configuration of a revision, the newest when that is forgotten.
    fn directory(&self, revision: u64) -> Option<Arc<Directory>> {
        // Flows remember the low half.
        let fits = |directory: &&Arc<Directory>| directory.snapshot.revision() as u32 == revision as u32;
        self.directories.iter().rev().find(fits).or(self.directories.back()).cloned()
    }

    fn take(&mut self, note: &Note, clock: &Clock) {
        match &note.event {
            Event::FlowStarted(flow) => self.started(note, &flow.record(), clock),
            Event::FlowEnded(flow, why) => {
                let Some(directory) = self.directory(flow.revision).filter(|_| self.flow_log.is_followed())
                else {
                    return;
                };
                let flow = directory.flow_info(flow, clock);
                let update = FlowUpdate::Ended { flow, why: why.name().to_owned() };
                self.flow_log.note(&FlowEvent { time: clock.time(note.at), update });
            }
            Event::Dropped(record) => self.refused(note, record, VerdictKind::Dropped, clock),
            Event::Audited(record) => {
                let kind = if record.would_allow { VerdictKind::WouldAllow } else { VerdictKind::WouldDrop };
                self.refused(note, record, kind, clock);
            }
        }
    }

    fn started(&mut self, note: &Note, flow: &FlowRecord, clock: &Clock) {
        let Some(directory) = self.directory(flow.revision) else { return };
        let time = clock.time(note.at);
        for rule in logged(&directory, flow.rules) {
            self.flow_log.line(rule, note.at, note.times.into(), || {
                format!("{}: {}", directory.rule(rule, None), directory.flow(&flow.key))
            });
        }
        let sender = directory.initiator(&flow.key);
        if note.keep
            && let Some((_, port)) = sender
        {
            let verdict = Verdict {
                time,
                host: directory.slice.host.clone(),
                port: crate::directory::full_name(port),
                verdict: VerdictKind::Admitted,
                reason: None,
                meaning: None,
                flow: Some(directory.flow(&flow.key)),
                direction: None,
                rules: directory.rules_of(flow),
                source_groups: None,
                destination_groups: None,
                revision: directory.snapshot.revision(),
                bytes: 0,
                times: note.times.into(),
            };
            self.verdicts.keep(port.id, verdict);
        }
        if self.flow_log.is_followed() {
            let update = FlowUpdate::Started { flow: directory.flow_info(flow, clock) };
            self.flow_log.note(&FlowEvent { time, update });
        }
    }

    fn refused(&mut self, note: &Note, record: &DropRecord, kind: VerdictKind, clock: &Clock) {
        let Some(directory) = self.directory(record.revision) else { return };
        let Some((id, port)) = origin(&directory, record) else { return };
        let groups = |end: usize| record.endpoints.map(|ends| directory.groups(ends[end]));
        let rule = record.rule.map(|rule| directory.rule(rule, record.direction));
        let verdict = Verdict {
            time: clock.time(note.at),
            host: directory.slice.host.clone(),
            port,
            verdict: kind,
            reason: Some(record.reason.name().to_owned()),
            meaning: Some(record.reason.meaning().trim().to_owned()),
            flow: record.key.map(|key| directory.flow(&key)),
            direction: record.direction.map(direction),
            rules: rule.into_iter().collect(),
            source_groups: groups(0),
            destination_groups: groups(1),
            revision: record.revision,
            bytes: record.len,
            times: note.times.into(),
        };
        for rule in logged(&directory, [record.rule, None]) {
            self.flow_log.line(rule, note.at, note.times.into(), || {
                let flow = verdict.flow.as_ref().map(ToString::to_string).unwrap_or_default();
                let would = if kind == VerdictKind::Dropped { "" } else { "would " };
                format!("{would}{}: {flow}", directory.rule(rule, record.direction))
            });
        }
        if self.flow_log.is_followed() && kind == VerdictKind::Dropped {
            let update = FlowUpdate::Refused { verdict: Box::new(verdict.clone()) };
            self.flow_log.note(&FlowEvent { time: verdict.time, update });
        }
        if note.keep {
            self.verdicts.keep(id, verdict);
        }
    }
}

/// The id under which a verdict is kept, and the name of who sent the frame. Of what another host sent, the port that is
/// known as its sender, and it is kept with the receiver's; else the host, and with those of the underlay.
fn origin(directory: &Directory, record: &DropRecord) -> Option<(u32, String)> {
    let host = match record.origin {
        Origin::Port(port) => {
            let port = directory.port(port)?;
            return Some((port.id, crate::directory::full_name(port)));
        }
        Origin::Host(host) => directory.host(host),
        Origin::Stranger => None,
    };
    let ends = record.key.and_then(|key| {
        let network = directory.network_of(&key)?;
        let (_, sender) = directory.holder(network, key.source.0)?;
        let (_, receiver) = directory.holder(network, key.destination.0)?;
        Some((receiver.id, crate::directory::full_name(sender)))
    });
    Some(ends.unwrap_or_else(|| {
        (UNDERLAY, host.map_or_else(|| STRANGER.to_owned(), |host| format!("host:{host}")))
    }))
}

/// Those of these rules that are to be logged, each once.
fn logged(directory: &Directory, rules: [Option<RuleId>; 2]) -> impl Iterator<Item = RuleId> {
    let [first, second] = rules;
    let both = [first, second.filter(|_| first != second)];
    both.into_iter().flatten().filter(|rule| directory.is_logged(*rule))
}
