//! One virtual NIC: its socket, its rings, and whoever is connected.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFlags, eventfd};
use rustix::io::Errno;
use rustix::net::SocketFlags;

use crate::config_space::ConfigSpace;
use crate::end::End;
use crate::features::virtio_offered;
use crate::relay::{Desk, Fact, Offer, Relay};
use crate::session::{Device, Session};
use crate::slot::{RingState, RxQueue, Slot, TxQueue};
use crate::socket::{Alarm, connect_to, listen_at, wait};

/// Most queue pairs of one port.
pub const MAX_QUEUE_PAIRS: u16 = 16;

/// Who listens on the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// We do; the VMM connects (QEMU `-chardev socket,path=…,reconnect=1`).
    Server,
    /// The VMM does (`server=on`); we connect, and retry for ever.
    Client,
}

/// What a port is to be.
#[derive(Clone, Debug)]
pub struct PortConfig {
    /// For messages and thread names.
    pub name: String,
    /// Path of the Unix socket, at most 107 bytes.
    pub socket: PathBuf,
    /// Who listens there.
    pub role: Role,
    /// The guest's address.
    pub mac: [u8; 6],
    /// Bytes of the largest network-layer packet, 68 to 65535.
    pub mtu: u16,
    /// 1 to [`MAX_QUEUE_PAIRS`].
    pub queue_pairs: u16,
    /// Virtio feature bits not to offer (see [`features::VIRTIO`](crate::features::VIRTIO)).
    pub features_off: u64,
}

/// Is told what happens on a port, on any thread, also a worker's while it is inside a ring: only take a note, never call
/// back into the port from here.
pub trait PortEvents: Send + Sync {
    /// Look at this pair's rings now: one was started, and may hold frames that nobody kicks for again.
    fn wake(&self, queue_pair: u16);
    /// [`Port::state`] or a kick descriptor is another: rings started or stopped, link up or down, a fault.
    fn changed(&self);
    /// The VMM asks that the network learns where this guest is: it has just been migrated here.
    fn announced(&self, mac: [u8; 6]) {
        let _ = mac;
    }
}

/// What is known of a port.
#[derive(Clone, Debug)]
pub struct PortState {
    /// A VMM is connected.
    pub connected: bool,
    /// Frames can pass both ways on at least one queue pair.
    pub link_up: bool,
    /// Virtio features that are offered.
    pub offered: u64,
    /// Virtio features that the driver (or, before it, the VMM) accepted; 0 before.
    pub features: u64,
    /// Protocol features that the VMM accepted.
    pub protocol_features: u64,
    /// Every ring; even ones lead to the guest, odd ones from it.
    pub rings: Vec<RingState>,
    /// Connections so far.
    pub connects: u64,
    /// Connections refused because there was one already.
    pub turned_away: u64,
    /// How connections ended so far, by name.
    pub ends: BTreeMap<&'static str, u64>,
    /// How the last one ended, in words.
    pub last_end: Option<String>,
    /// Times that a VMM was slowed down because it sent too many requests.
    pub throttled: u64,
    /// The MTU that the VMM told its guest, in bytes of network-layer packet.
    pub vmm_mtu: Option<u16>,
    /// Guest memory regions mapped.
    pub memory_regions: usize,
    /// Bytes in them.
    pub memory_bytes: u64,
    /// Times that the VMM announced its guest after a migration.
    pub announcements: u64,
}

/// One virtual NIC. Frames pass through its queues; everything else happens on a thread of its own.
pub struct Port {
    shared: Arc<Shared>,
    tx: Vec<TxQueue>,
    rx: Vec<RxQueue>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl std::fmt::Debug for Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "port {} at {}", self.shared.config.name, self.shared.config.socket.display())
    }
}

impl Port {
    /// Opens a port: as server its socket listens when this returns, as client it keeps trying to connect.
    ///
    /// # Errors
    /// `InvalidInput` for a configuration that makes no sense, `AddrInUse` when somebody else listens at the path, and
    /// whatever the system says.
    pub fn open(config: PortConfig, events: Arc<dyn PortEvents>) -> io::Result<Arc<Port>> {
        check(&config)?;
        let alarm = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let on_change: crate::slot::OnChange = {
            let events = events.clone();
            Arc::new(move || events.changed())
        };
        let slots: Vec<_> =
            (0..config.queue_pairs * 2).map(|index| Arc::new(Slot::new(index, on_change.clone()))).collect();
        let listener = match config.role {
            Role::Server => Some(BoundListener::new(&config.socket)?),
            Role::Client => None,
        };
        let shared = Arc::new(Shared {
            offered: virtio_offered(config.queue_pairs, config.features_off),
            config,
            slots,
            events,
            alarm,
            status: Mutex::new(Status::default()),
        });
        let odd = |odd: usize| shared.slots.iter().skip(odd).step_by(2).cloned();
        let (rx, tx) = (odd(0).map(RxQueue).collect(), odd(1).map(TxQueue).collect());
        let thread = {
            let shared = shared.clone();
            let name = format!("port {}", shared.config.name);
            std::thread::Builder::new().name(name).spawn(move || match listener {
                Some(listener) => serve(&shared, &listener),
                None => connect(&shared),
            })?
        };
        Ok(Arc::new(Port { shared, tx, rx, thread: Mutex::new(Some(thread)) }))
    }

    /// Ends the connection and gives the socket up. Afterwards no worker is in any of its rings, and none comes in.
    pub fn close(&self) {
        // Fails only when the counter is full, and then it is readable too.
        let _ = rustix::io::write(&self.shared.alarm, &1u64.to_ne_bytes());
        let thread = lock(&self.thread).take();
        let own = |thread: &JoinHandle<()>| thread.thread().id() == std::thread::current().id();
        if thread.filter(|thread| !own(thread)).is_some_and(|thread| thread.join().is_err()) {
            log::error!("{}: the port's thread panicked", self.shared.config.name);
        }
    }

    /// Number of queue pairs.
    pub fn pairs(&self) -> u16 {
        self.shared.config.queue_pairs
    }

    /// What the guest sends on pair `pair`, which is below [`pairs`](Self::pairs).
    pub fn tx(&self, pair: u16) -> &TxQueue {
        &self.tx[usize::from(pair)]
    }

    /// What the guest receives on pair `pair`, which is below [`pairs`](Self::pairs).
    pub fn rx(&self, pair: u16) -> &RxQueue {
        &self.rx[usize::from(pair)]
    }

    /// Connections so far: tells one start of the rings from that of the next connection.
    pub fn connects(&self) -> u64 {
        lock(&self.shared.status).connects
    }

    /// What it was opened with.
    pub fn config(&self) -> &PortConfig {
        &self.shared.config
    }

    /// How it stands. Waits for the bursts that are under way on its rings.
    pub fn state(&self) -> PortState {
        let rings: Vec<_> = self.shared.slots.iter().map(|slot| slot.state()).collect();
        let status = lock(&self.shared.status).clone();
        PortState {
            connected: status.connected,
            link_up: rings.chunks(2).any(|pair| pair.iter().all(|ring| ring.running)),
            offered: self.shared.offered,
            features: status.features,
            protocol_features: status.protocol_features,
            rings,
            connects: status.connects,
            turned_away: status.turned_away,
            ends: status.ends,
            last_end: status.last_end,
            throttled: status.throttled,
            vmm_mtu: status.vmm_mtu,
            memory_regions: status.memory.0,
            memory_bytes: status.memory.1,
            announcements: status.announcements,
        }
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.close();
    }
}

fn check(config: &PortConfig) -> io::Result<()> {
    let wrong = |text: String| Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    if config.queue_pairs == 0 || config.queue_pairs > MAX_QUEUE_PAIRS {
        return wrong(format!("{} queue pairs, 1 to {MAX_QUEUE_PAIRS} are possible", config.queue_pairs));
    }
    if config.mtu < 68 {
        return wrong(format!("MTU {}, at least 68 is needed", config.mtu));
    }
    if config.mac[0] & 1 == 1 {
        return wrong(format!("MAC {:02x?} is a group address", config.mac));
    }
    Ok(())
}

struct Shared {
    config: PortConfig,
    offered: u64,
    slots: Vec<Arc<Slot>>,
    events: Arc<dyn PortEvents>,
    /// Readable once the port is to close.
    alarm: OwnedFd,
    status: Mutex<Status>,
}

#[derive(Clone, Debug, Default)]
struct Status {
    connected: bool,
    features: u64,
    protocol_features: u64,
    connects: u64,
    turned_away: u64,
    ends: BTreeMap<&'static str, u64>,
    last_end: Option<String>,
    throttled: u64,
    vmm_mtu: Option<u16>,
    memory: (usize, u64),
    announcements: u64,
    quiet: Quiet,
}

impl Shared {
    fn alarm(&self) -> Alarm<'_> {
        Alarm(self.alarm.as_fd())
    }

    /// Takes one connection from its first message to its last. What is left of it when this returns is in the status.
    fn attend(&self, vmm: OwnedFd, listener: Option<BorrowedFd<'_>>) -> End {
        {
            let mut status = lock(&self.status);
            status.connected = true;
            status.connects += 1;
        }
        self.events.changed();
        let end = self.converse(vmm, listener).unwrap_or_else(|end| end);
        let line = {
            let mut status = lock(&self.status);
            status.connected = false;
            (status.features, status.protocol_features, status.memory, status.vmm_mtu) = (0, 0, (0, 0), None);
            *status.ends.entry(end.name()).or_default() += 1;
            status.last_end = Some(end.to_string());
            if end.is_clean() { None } else { status.quiet.say(Instant::now()) }
        };
        match line {
            Some(0) => log::warn!("{}: connection ended: {end}", self.config.name),
            Some(more) => {
                log::warn!("{}: connection ended: {end} ({more} others not shown)", self.config.name)
            }
            None => log::debug!("{}: connection ended: {end}", self.config.name),
        }
        self.events.changed();
        end
    }

    fn converse(&self, vmm: OwnedFd, listener: Option<BorrowedFd<'_>>) -> Result<End, End> {
        let PortConfig { name, mac, mtu, queue_pairs: pairs, .. } = &self.config;
        let config = ConfigSpace::new(*mac, *pairs, *mtu);
        let device =
            Device::new(name.clone(), self.offered, config, self.slots.clone(), self.events.clone())?;
        let session = Session::start(device)?;
        let offer = Offer { name, pairs: *pairs, features: self.offered, mtu: *mtu };
        let desk = Attended { shared: self, session: &session, listener };
        Ok(Relay::new(vmm, session.socket(), self.alarm(), offer, &desk)?.run(listener))
    }
}

/// A connection under way, as the relay sees the port.
struct Attended<'a> {
    shared: &'a Shared,
    session: &'a Session,
    listener: Option<BorrowedFd<'a>>,
}

impl Desk for Attended<'_> {
    fn note(&self, fact: Fact) {
        let name = &self.shared.config.name;
        {
            let mut status = lock(&self.shared.status);
            match fact {
                Fact::Features(bits) => status.features = bits,
                Fact::ProtocolFeatures(bits) => status.protocol_features = bits,
                Fact::Mtu(mtu, fits) => {
                    status.vmm_mtu = Some(mtu);
                    if !fits && status.quiet.say(Instant::now()).is_some() {
                        let ours = self.shared.config.mtu;
                        log::warn!("{name}: the VMM's host_mtu {mtu} is refused, the network's is {ours}");
                    }
                }
                Fact::Announced(_) => status.announcements += 1,
                Fact::Memory { regions, bytes } => status.memory = (regions, bytes),
                Fact::Throttled => status.throttled += 1,
            }
        }
        match fact {
            Fact::Announced(mac) => self.shared.events.announced(mac),
            _ => self.shared.events.changed(),
        }
    }

    fn hold_rings(&self) {
        self.session.device().hold_rings();
    }

    fn release_rings(&self) {
        self.session.device().release_rings();
    }

    fn turn_away(&self) -> bool {
        let Some(listener) = self.listener else { return true };
        match rustix::net::accept_with(listener, SocketFlags::CLOEXEC) {
            Ok(_closed_here) => {
                lock(&self.shared.status).turned_away += 1;
                self.shared.events.changed();
                true
            }
            Err(error) => is_passing(error),
        }
    }
}

/// Accepts one VMM after the other.
fn serve(shared: &Shared, listener: &BoundListener) {
    let mut backoff = Backoff::default();
    loop {
        let ready = wait(&[], Some((listener.fd.as_fd(), PollFlags::IN)), shared.alarm(), None);
        if ready.is_err() {
            return;
        }
        match rustix::net::accept_with(&listener.fd, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
            Ok(vmm) => match shared.attend(vmm, Some(listener.fd.as_fd())) {
                End::PortClosed => return,
                End::HungUp => backoff = Backoff::default(),
                // Who makes mistakes may not make them as fast as it can.
                _ => {
                    if !backoff.pause(shared) {
                        return;
                    }
                }
            },
            Err(error) if is_passing(error) => {}
            Err(error) => {
                log_limited(shared, &format!("cannot accept: {error}"));
                if !backoff.pause(shared) {
                    return;
                }
            }
        }
    }
}

/// Connects, over and over.
fn connect(shared: &Shared) {
    let mut backoff = Backoff::default();
    loop {
        match connect_to(&shared.config.socket) {
            Ok(vmm) => match shared.attend(vmm, None) {
                End::PortClosed => return,
                End::HungUp => backoff = Backoff::default(),
                _ => {}
            },
            Err(Errno::NOENT | Errno::CONNREFUSED | Errno::AGAIN | Errno::INTR) => {}
            Err(error) => log_limited(shared, &format!("cannot connect: {error}")),
        }
        if !backoff.pause(shared) {
            return;
        }
    }
}

/// What accept says when the connection is gone again, or a signal came.
fn is_passing(error: Errno) -> bool {
    matches!(error, Errno::AGAIN | Errno::INTR | Errno::CONNABORTED)
}

fn log_limited(shared: &Shared, text: &str) {
    let line = lock(&shared.status).quiet.say(Instant::now());
    if line.is_some() {
        log::warn!("{}: {text}", shared.config.name);
    }
}

/// A listening socket whose file is removed with it, unless somebody put another there.
struct BoundListener {
    fd: OwnedFd,
    path: PathBuf,
    inode: Option<(u64, u64)>,
}

impl BoundListener {
    fn new(path: &Path) -> io::Result<Self> {
        let fd = listen_at(path)?;
        Ok(BoundListener { fd, path: path.to_owned(), inode: inode(path) })
    }
}

impl Drop for BoundListener {
    fn drop(&mut self) {
        if self.inode.is_none() || inode(&self.path) != self.inode {
            return;
        }
        if let Err(error) = std::fs::remove_file(&self.path) {
            log::warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}

fn inode(path: &Path) -> Option<(u64, u64)> {
    std::fs::symlink_metadata(path).ok().map(|meta| (meta.dev(), meta.ino()))
}

/// 100 ms, doubling to 1 s: the outage that a restarted VMM sees is at most that.
struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Backoff(Duration::from_millis(100))
    }
}

impl Backoff {
    const MOST: Duration = Duration::from_secs(1);

    fn next(&mut self) -> Duration {
        let now = self.0;
        self.0 = (now * 2).min(Self::MOST);
        now
    }

    /// Waits; `false` when the port closes meanwhile.
    fn pause(&mut self, shared: &Shared) -> bool {
        wait(&[], None, shared.alarm(), Some(self.next())).is_ok()
    }
}

/// One line a second per port, whatever a VMM does.
#[derive(Clone, Debug, Default)]
struct Quiet {
    last: Option<Instant>,
    suppressed: u64,
}

impl Quiet {
    /// Whether to write a line now, and how many were not written before it.
    fn say(&mut self, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now < last + Duration::from_secs(1)) {
            self.suppressed += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.suppressed))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_come_ever_slower_up_to_a_second() {
        let mut backoff = Backoff::default();
        let millis: Vec<_> = (0..6).map(|_| backoff.next().as_millis()).collect();
        assert_eq!(millis, [100, 200, 400, 800, 1000, 1000]);
    }

    #[test]
    fn a_port_writes_one_line_a_second() {
        let start = Instant::now();
        let mut quiet = Quiet::default();
        assert_eq!(quiet.say(start), Some(0));
        assert_eq!(quiet.say(start), None);
        assert_eq!(quiet.say(start + Duration::from_millis(999)), None);
        assert_eq!(quiet.say(start + Duration::from_secs(1)), Some(2));
    }
}
