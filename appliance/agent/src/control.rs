//! The thread that puts slices in force: opens and closes ports, hands workers their world, reports.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mgmt_types::VhostRole;
use mgmt_types::agent::{self, FirewallSettings, HostStatus, Slice, SliceHost};
use pipeline::conntrack::tcp;
use pipeline::{FlowTable, HashKey, Policy, Snapshot};
use tokio::sync::watch;

use crate::announce::Announcer;
use crate::board::{Board, Entry, Notes};
use crate::compile::firewall::timeouts;
use crate::compile::{AttachmentPlan, CompileError, Compiled, Difference, Known, PortPlan, compile};
use crate::counters::Counters;
use crate::directory::Directory;
use crate::homes::Homes;
use crate::moves::Moves;
use crate::plane::Plane;
use crate::port::{Attachment, LocalPort};
use crate::recorder::Recorder;
use crate::rule_book::RuleBook;
use crate::slots::Numbers;
use crate::state::{Found, MadeDevice, StateDir};
use crate::tap::Tap;
use crate::underlay::home::Home;
use crate::world::World;

/// How often status goes out and what could not be opened is tried again.
const TICK: Duration = Duration::from_secs(1);

/// The shortest time between two reports: changes that come together go out together.
const COALESCE: Duration = Duration::from_millis(20);

/// How long a starved worker may take to let go of an old world.
const PATIENCE: Duration = Duration::from_secs(2);

/// What the control thread is told.
#[derive(Debug)]
pub(crate) enum Message {
    /// Put this in force.
    Slice(Arc<Slice>),
    /// A port's link or rings changed.
    Changed,
    /// More is known of the ways to other hosts.
    Paths,
    /// End.
    Stop,
}

/// See the module.
pub(crate) struct Control {
    host: String,
    run_dir: PathBuf,
    key: HashKey,
    state: StateDir,
    plane: Arc<Plane>,
    board: Arc<Board>,
    report: watch::Sender<HostStatus>,
    inbox: Receiver<Message>,
    outbox: Sender<Message>,
    changed: Arc<AtomicBool>,
    homes: Homes,
    numbers: Numbers,
    moves: Moves,
    /// By host: bytes of the largest IP packet that was seen to reach it.
    paths: HashMap<String, u16>,
    flows: Arc<FlowTable>,
    made: BTreeSet<MadeDevice>,
    snapshot: Arc<Snapshot>,
    ids: Vec<u32>,
    /// The snapshot's hosts, by their indexes.
    hosts: Vec<SliceHost>,
    home: Home,
    running: BTreeMap<u32, Entry>,
    in_force: Option<Arc<Slice>>,
    rules: Arc<RuleBook>,
    recorder: Arc<Recorder>,
    announcer: Announcer,
    /// What is wrong with the newest slice.
    refused: Option<String>,
    /// What is wrong with the disk.
    disk: Option<String>,
}

/// What a control thread is made of.
pub(crate) struct Parts {
    pub(crate) host: String,
    pub(crate) run_dir: PathBuf,
    pub(crate) key: HashKey,
    pub(crate) state: StateDir,
    pub(crate) plane: Arc<Plane>,
    pub(crate) board: Arc<Board>,
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) home: Home,
    pub(crate) report: watch::Sender<HostStatus>,
    pub(crate) inbox: Receiver<Message>,
    pub(crate) outbox: Sender<Message>,
}

impl Control {
    /// Puts in force what is kept on disk. Workers run already.
    pub(crate) fn start(parts: Parts) -> Self {
        let Parts { host, run_dir, key, state, plane, board, recorder, home, report, inbox, outbox } = parts;
        let mut control = Self {
            homes: Homes::new(plane.workers()),
            numbers: Numbers::default(),
            moves: Moves::default(),
            paths: HashMap::new(),
            flows: plane.world().flows.clone(),
            snapshot: plane.world().snapshot.clone(),
            host,
            run_dir,
            key,
            state,
            plane,
            board,
            report,
            inbox,
            outbox,
            changed: Arc::new(AtomicBool::new(false)),
            made: BTreeSet::new(),
            ids: Vec::new(),
            hosts: Vec::new(),
            home,
            running: BTreeMap::new(),
            in_force: None,
            rules: Arc::default(),
            recorder,
            announcer: Announcer::default(),
            refused: None,
            disk: None,
        };
        match control.state.devices() {
            Found::Content(devices) => control.made = devices.into_iter().collect(),
            Found::Nothing => {}
            Found::Corrupt(problem) => control.note_disk(problem),
        }
        match control.state.slice() {
            Found::Content(slice) => control.put_in_force(Arc::new(slice), true),
            Found::Nothing => {}
            Found::Corrupt(problem) => control.note_disk(problem),
        }
        control.publish_status();
        control
    }

    /// The slice that is in force.
    pub(crate) fn in_force(&self) -> Option<Arc<Slice>> {
        self.in_force.clone()
    }

    /// Works until told to stop. Guests can reconnect to the next agent, and TAP devices stay.
    pub(crate) fn run(mut self) {
        let mut tick = Instant::now() + TICK;
        let mut reported = Instant::now();
        let mut dirty = false;
        loop {
            let mut due = if dirty { tick.min(reported + COALESCE) } else { tick };
            due = self.announcer.due().map_or(due, |announcement| due.min(announcement));
            match self.inbox.recv_timeout(due.saturating_duration_since(Instant::now())) {
                Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => break,
                Ok(Message::Slice(slice)) => {
                    let (slice, stop) = self.newest(slice);
                    if stop {
                        break;
                    }
                    self.put_in_force(slice, false);
                    dirty = true;
                }
                Ok(Message::Changed) => {
                    self.changed.store(false, Ordering::Release);
                    dirty = true;
                }
                Ok(Message::Paths) => {
                    self.follow_paths();
                    dirty = true;
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            let now = Instant::now();
            self.announce_neighbours(now);
            if now >= tick {
                self.repair();
                self.look_home();
                tick = now + TICK;
                dirty = true;
            }
            if dirty && now >= reported + COALESCE {
                self.publish_status();
                (reported, dirty) = (now, false);
            }
        }
        // Nothing is to arrive at sockets that nobody reads any more.
        self.home.leave();
        self.publish_world();
        self.plane.stop();
        self.plane.settle(PATIENCE);
        for entry in self.running.values() {
            if let Attachment::Vhost(port) = &entry.port.attachment {
                port.close();
            }
        }
    }

    /// Of several waiting slices only the last counts. True when told to stop meanwhile.
    fn newest(&self, mut slice: Arc<Slice>) -> (Arc<Slice>, bool) {
        for message in self.inbox.try_iter() {
            match message {
                Message::Slice(newer) => slice = newer,
                Message::Changed => self.changed.store(false, Ordering::Release),
                // A newer slice is compiled with what is known then.
                Message::Paths => {}
                Message::Stop => return (slice, true),
            }
        }
        (slice, false)
    }

    /// Compiles a slice and goes over to it; a wrong one changes nothing but the error shown.
    fn put_in_force(&mut self, slice: Arc<Slice>, kept: bool) {
        if self.in_force.as_ref() == Some(&slice) {
            self.refused = None;
            return;
        }
        // Its own ports come first, so that each of them has a number of its own.
        let here = slice.ports.iter().filter(|port| port.host == self.host);
        let there = slice.ports.iter().filter(|port| port.host != self.host);
        let free = self.numbers.ports.keep(here.chain(there).map(|port| port.id));
        let _ = self.numbers.networks.keep(slice.networks.iter().map(|network| network.vni));
        let _ = self.numbers.routers.keep(slice.routers.iter().map(|router| router.name.clone()));
        self.moves.note(&slice, pipeline::Instant::from_nanos(crate::clock::now()));
        let in_force = self.snapshot.policy().clone();
        self.paths = self.home.paths(&slice.hosts);
        match self.compile(&slice, &in_force) {
            Err(error) => {
                let text = format!("revision {} is refused: {error}", slice.revision);
                log::error!("{text}");
                self.refused = Some(text);
                self.note();
                return;
            }
            Ok(compiled) => {
                self.configure_flows(&slice.settings);
                self.go_over_to(compiled, &slice);
                self.forget_flows(&free);
            }
        }
        self.refused = None;
        if !kept {
            match self.state.keep_slice(&slice) {
                Ok(()) => self.disk = None,
                Err(error) => {
                    self.note_disk(format!("revision {} is in force but not kept: {error}", slice.revision))
                }
            }
        }
        log::info!("revision {} is in force, {} local ports", slice.revision, self.running.len());
        self.in_force = Some(slice);
        self.note();
    }

    /// Compiles the slice in force again when packets of another size pass to some host than before.
    fn follow_paths(&mut self) {
        let Some(slice) = self.in_force.clone() else { return };
        let paths = self.home.paths(&slice.hosts);
        if paths == self.paths {
            return;
        }
        self.paths = paths;
        let in_force = self.snapshot.policy().clone();
        match self.compile(&slice, &in_force) {
            Ok(compiled) => self.go_over_to(compiled, &slice),
            Err(error) => log::error!("revision {} compiles no more: {error}", slice.revision),
        }
    }

    /// Looks whether our addresses on the underlay, or their interface, changed.
    fn look_home(&mut self) {
        if self.home.look() {
            self.publish_world();
            self.follow_paths();
        }
    }

    /// Compiles a slice with all that is known besides.
    fn compile(&self, slice: &Slice, in_force: &Policy) -> Result<Compiled, CompileError> {
        let known = Known {
            policy: Some(in_force),
            numbers: Some(&self.numbers),
            moves: Some(&self.moves),
            paths: Some(&self.paths),
        };
        compile(slice, &self.host, &self.run_dir, self.key, known)
    }

    /// How flows are tracked from now on.
    fn configure_flows(&self, settings: &FirewallSettings) {
        let tcp = tcp::Settings { pick_up: settings.tcp_pick_up };
        self.flows.configure(&timeouts(&settings.timeouts), &tcp);
    }

    /// Ends what ports began that are no more: whoever gets their numbers next begins with none.
    fn forget_flows(&self, slots: &[u32]) {
        let now = pipeline::Instant::from_nanos(crate::clock::now());
        let mut gone = Vec::new();
        for slot in slots {
            self.flows.forget(*slot, now, |flow, why| {
                self.rules.count(self.plane.workers() + 1, &pipeline::Event::FlowEnded(*flow, why), now);
                gone.push((*flow, why));
            });
        }
        self.recorder.ended(&gone);
    }

    fn go_over_to(&mut self, compiled: Compiled, slice: &Arc<Slice>) {
        let plans = self.running.iter().map(|(id, entry)| (*id, entry.plan.clone())).collect();
        let Difference { remove, reopen, create } = Difference::between(&plans, &compiled.plans);
        self.snapshot = Arc::new(compiled.snapshot);
        self.ids = compiled.ids;
        self.hosts.clone_from(&slice.hosts);
        let rules = self.snapshot.policy().rules().iter().map(|rule| rule.id);
        // Two writers more: the housekeeper, and this thread.
        self.rules = Arc::new(RuleBook::after(&self.rules, rules, self.plane.workers() + 2));
        self.recorder.learn(Arc::new(Directory::new(slice.clone(), self.snapshot.clone())));

        // First everybody lives by the new snapshot, without the ports that go or change.
        let mut closed = Vec::new();
        for id in &remove {
            closed.extend(self.running.remove(id).map(|entry| (entry, true)));
            self.homes.forget(*id);
        }
        for plan in &reopen {
            closed.extend(self.take_out(plan.id).map(|entry| (entry, false)));
        }
        if !closed.is_empty() {
            for plan in &create {
                self.announce(plan);
            }
            self.publish_world();
            for (entry, for_good) in closed {
                self.close(entry, for_good);
            }
        }
        // Names and labels may change without a reopening.
        for (id, plan) in &compiled.plans {
            if let Some(entry) = self.running.get_mut(id) {
                entry.plan.clone_from(plan);
            }
        }
        for plan in reopen.into_iter().chain(create) {
            self.open(plan);
        }
        self.remove_left_over_devices();
        self.publish_world();
    }

    /// Puts `Missing` in the place of a port, so that its counters go on. The port as it was.
    fn take_out(&mut self, id: u32) -> Option<Entry> {
        let entry = self.running.get_mut(&id)?;
        let before = entry.clone();
        entry.port = Arc::new(with_attachment(&before.port, Attachment::Missing, Box::default()));
        Some(before)
    }

    /// Puts `Missing` in the place of a port to come, so that what is sent to it is counted.
    fn announce(&mut self, plan: &PortPlan) {
        let counters = Counters::per_worker(self.plane.workers());
        let full_name = format!("{}.{}", plan.workload, plan.name);
        let port =
            LocalPort::new(plan.id, full_name, Attachment::Missing, Box::default(), counters, Arc::default());
        self.running.insert(plan.id, Entry { plan: plan.clone(), port: Arc::new(port), trouble: None });
    }

    /// Closes a port that no worker holds any more.
    fn close(&mut self, entry: Entry, for_good: bool) {
        match &entry.port.attachment {
            Attachment::Vhost(port) => port.close(),
            Attachment::Tap(tap) => {
                let AttachmentPlan::Tap(config) = &entry.plan.attachment else { return };
                let stays = self.running.values().any(|other| same_device(&other.plan, config));
                if (for_good || !stays) && tap.created() {
                    tap.release();
                    self.made.remove(&made_device(config));
                    self.keep_devices();
                }
            }
            Attachment::Missing => {}
        }
    }

    /// Opens a port; what fails is tried again each tick.
    fn open(&mut self, plan: PortPlan) {
        if !self.running.contains_key(&plan.id) {
            self.announce(&plan);
        }
        let (attachment, trouble) = match self.attach(&plan) {
            Ok(attachment) => (attachment, None),
            Err(trouble) => (Attachment::Missing, Some(trouble)),
        };
        let homes = self.homes.of(plan.id, plan.attachment.queues());
        let Some(entry) = self.running.get_mut(&plan.id) else { return };
        match (&trouble, &entry.trouble) {
            (Some(now), earlier) if earlier.as_ref() != Some(now) => {
                log::warn!("port {}: {now}", entry.port.full_name);
            }
            (None, Some(_)) => log::info!("port {}: open", entry.port.full_name),
            _ => {}
        }
        entry.port = Arc::new(with_attachment(&entry.port, attachment, homes));
        (entry.plan, entry.trouble) = (plan, trouble);
    }

    fn attach(&mut self, plan: &PortPlan) -> Result<Attachment, String> {
        match &plan.attachment {
            AttachmentPlan::Vhost { socket, role, mac, mtu, pairs } => {
                let config = vhost_backend::PortConfig {
                    name: format!("{}.{}", plan.workload, plan.name),
                    socket: socket.clone(),
                    role: match role {
                        VhostRole::Server => vhost_backend::Role::Server,
                        VhostRole::Client => vhost_backend::Role::Client,
                    },
                    mac: *mac,
                    mtu: *mtu,
                    queue_pairs: *pairs,
                    features_off: 0,
                };
                let events = PortWatch {
                    plane: self.plane.clone(),
                    changed: self.changed.clone(),
                    control: Mutex::new(self.outbox.clone()),
                };
                let port = vhost_backend::Port::open(config, Arc::new(events))
                    .map_err(|error| format!("socket {}: {error}", socket.display()))?;
                Ok(Attachment::Vhost(port))
            }
            AttachmentPlan::Tap(config) => {
                let device = made_device(config);
                let tap =
                    Tap::attach(config, self.made.contains(&device)).map_err(|error| error.to_string())?;
                if tap.created() && self.made.insert(device) {
                    self.keep_devices();
                }
                Ok(Attachment::Tap(tap))
            }
        }
    }

    /// Opens what could not be opened, and what vanished.
    fn repair(&mut self) {
        let gone: Vec<u32> = self
            .running
            .iter()
            .filter(|(_, entry)| entry.port.gone.load(Ordering::Acquire))
            .map(|(id, _)| *id)
            .collect();
        let broken: Vec<PortPlan> = self
            .running
            .values()
            .filter(|entry| entry.trouble.is_some() || entry.port.gone.load(Ordering::Acquire))
            .map(|entry| entry.plan.clone())
            .collect();
        if broken.is_empty() {
            return;
        }
        if !gone.is_empty() {
            for id in gone {
                if let Some(entry) = self.take_out(id) {
                    log::warn!("port {}: its device was removed; making it again", entry.port.full_name);
                }
            }
            self.publish_world();
        }
        let before = self.open_ports();
        for plan in broken {
            self.open(plan);
        }
        if self.open_ports() != before {
            self.publish_world();
        }
        self.note();
    }

    /// Tells workloads whose link came up who their neighbours are, a few at a time.
    fn announce_neighbours(&mut self, now: Instant) {
        if let Some(slice) = &self.in_force {
            self.announcer.look(self.running.values().map(|entry| &entry.port), slice, now);
        }
        self.announcer.give(now);
    }

    fn open_ports(&self) -> usize {
        let open = |entry: &&Entry| !matches!(entry.port.attachment, Attachment::Missing);
        self.running.values().filter(open).count()
    }

    /// Removes devices that earlier runs made and no port uses.
    fn remove_left_over_devices(&mut self) {
        let wanted: BTreeSet<MadeDevice> = self
            .running
            .values()
            .filter_map(|entry| match &entry.plan.attachment {
                AttachmentPlan::Tap(config) => Some(made_device(config)),
                AttachmentPlan::Vhost { .. } => None,
            })
            .collect();
        let left_over: Vec<MadeDevice> = self.made.difference(&wanted).cloned().collect();
        for device in &left_over {
            match Tap::remove_left_over(&device.device, device.netns.as_deref()) {
                Ok(()) => {
                    self.made.remove(device);
                }
                Err(error) => log::warn!("left-over device {}: {error}", device.device),
            }
        }
        if !left_over.is_empty() {
            self.keep_devices();
        }
    }

    fn keep_devices(&mut self) {
        let devices: Vec<MadeDevice> = self.made.iter().cloned().collect();
        if let Err(error) = self.state.keep_devices(&devices) {
            self.note_disk(format!("the list of TAP devices is not kept: {error}"));
        }
    }

    /// Gives workers the world as it is now, and waits until they live in it.
    fn publish_world(&mut self) {
        let local = self.running.iter().map(|(id, entry)| (*id, entry.port.clone())).collect();
        let underlay = self.home.underlay(&self.host, &self.hosts);
        self.plane.publish(World::new(
            self.snapshot.clone(),
            self.flows.clone(),
            self.rules.clone(),
            underlay,
            &self.ids,
            &local,
        ));
        if !self.plane.settle(PATIENCE) {
            log::error!("a worker did not take over a new configuration within {PATIENCE:?}");
        }
    }

    fn note_disk(&mut self, problem: String) {
        log::error!("{problem}");
        self.disk = Some(problem);
    }

    /// Writes the board.
    fn note(&self) {
        let wrong = [self.refused.clone(), self.disk.clone(), self.home.trouble()];
        let wrong: Vec<String> = wrong.into_iter().flatten().collect();
        let error = (!wrong.is_empty()).then(|| wrong.join("; "));
        self.board.write(Notes {
            revision: self.snapshot.revision(),
            error,
            ports: self.running.values().cloned().collect(),
            underlay: (!self.home.addresses().is_empty()).then(|| agent::Underlay {
                addresses: self.home.addresses().to_vec(),
                port: self.home.port(),
                mtu: self.home.mtu(),
            }),
        });
    }

    fn publish_status(&self) {
        self.note();
        self.report.send_replace(self.board.status());
    }
}

/// Passes a vhost port's events on. May be called by a worker that holds a ring: only flags and a wake-up here.
struct PortWatch {
    plane: Arc<Plane>,
    changed: Arc<AtomicBool>,
    control: Mutex<Sender<Message>>,
}

impl vhost_backend::PortEvents for PortWatch {
    fn wake(&self, _queue_pair: u16) {
        self.plane.shake();
    }

    fn changed(&self) {
        self.plane.shake();
        // One message stands for all changes until the control thread has read it.
        if !self.changed.swap(true, Ordering::AcqRel)
            && let Ok(control) = self.control.lock()
        {
            let _ = control.send(Message::Changed);
        }
    }
}

/// The same port, plugged in differently.
fn with_attachment(port: &LocalPort, attachment: Attachment, homes: Box<[usize]>) -> LocalPort {
    let (counters, memory) = (port.counters.clone(), port.memory.clone());
    LocalPort::new(port.id, port.full_name.clone(), attachment, homes, counters, memory)
}

fn made_device(config: &crate::tap::TapConfig) -> MadeDevice {
    MadeDevice { device: config.device.clone(), netns: config.netns.clone() }
}

fn same_device(plan: &PortPlan, config: &crate::tap::TapConfig) -> bool {
    matches!(&plan.attachment, AttachmentPlan::Tap(other) if made_device(other) == made_device(config))
}
