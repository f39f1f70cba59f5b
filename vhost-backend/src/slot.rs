//! One ring of a port, for as long as the port lives: connections and memory come and go underneath.

mod queue;

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CSUM, VIRTIO_NET_F_HOST_ECN, VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6,
    VIRTIO_NET_F_HOST_UFO, VIRTIO_NET_F_HOST_USO, VIRTIO_NET_F_MRG_RXBUF,
};
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

use crate::frame::NET_HEADER;
use crate::handover::Handover;
use crate::memory::Mapping;
use crate::ring::RingFault;
use crate::ring::split::{Layout, Split};
use crate::sync::MutexGuard;

pub use queue::{RxFeatures, RxQueue, RxRing, TxQueue, TxRing};

/// Told when a ring started, stopped, got another kick descriptor or latched a fault.
pub(crate) type OnChange = Arc<dyn Fn() + Send + Sync>;

/// What is known of a ring from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RingState {
    /// Whether frames can pass.
    pub running: bool,
    /// Why not, when the guest broke it.
    pub fault: Option<RingFault>,
    /// Faults since the port was made.
    pub faults: u64,
    /// Entries, 0 while stopped.
    pub size: u16,
}

/// What the VMM said about a ring; enough to start it once all of it is there.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Setup {
    pub(crate) size: u16,
    pub(crate) descriptors: u64,
    pub(crate) available: u64,
    pub(crate) used: u64,
    pub(crate) next_avail: u16,
    pub(crate) next_used: u16,
    /// Ready and enabled.
    pub(crate) run: bool,
}

struct Inner {
    split: Option<Split>,
    setup: Setup,
    features: u64,
    mapping: Option<Arc<Mapping>>,
    call: Option<Arc<OwnedFd>>,
    fault: Option<RingFault>,
    faults: u64,
}

impl Inner {
    /// Takes the ring off the fast path; whether it was on it. Its indexes are the true ones: they go to the setup.
    fn stop(&mut self) -> bool {
        let Some(split) = self.split.take() else { return false };
        (self.setup.next_avail, self.setup.next_used) = split.indexes();
        if let Some(fault) = split.fault() {
            self.latch(fault);
        }
        true
    }

    /// Puts the ring on the fast path if everything is there.
    fn start(&mut self) {
        let Setup { size, descriptors, available, used, next_avail, next_used, run } = self.setup;
        if !run || self.fault.is_some() {
            return;
        }
        let Some(mapping) = &self.mapping else { return };
        let has = |bit: u32| self.features >> bit & 1 == 1;
        let mergeable = has(VIRTIO_NET_F_MRG_RXBUF);
        let layout = Layout {
            size,
            descriptors,
            available,
            used,
            next_avail,
            next_used,
            event_idx: has(VIRTIO_RING_F_EVENT_IDX),
            indirect: has(VIRTIO_RING_F_INDIRECT_DESC),
            mergeable,
            header: if has(VIRTIO_F_VERSION_1) || mergeable { NET_HEADER } else { LEGACY_HEADER },
            log: has(VHOST_F_LOG_ALL),
            offloads: self.features & SENDER_OFFLOADS != 0,
        };
        match Split::new(&layout, mapping.clone(), self.call.clone()) {
            Ok(split) => self.split = Some(split),
            Err(fault) => self.latch(fault),
        }
    }

    #[cold]
    fn latch(&mut self, fault: RingFault) {
        if self.fault.is_none() {
            self.fault = Some(fault);
            self.faults += 1;
        }
    }
}

/// `struct virtio_net_hdr` without `num_buffers` (virtio 1.2, 5.1.6.1).
const LEGACY_HEADER: usize = 10;
/// What lets a driver ask for a checksum or for segmentation in the header of a frame it sends.
const SENDER_OFFLOADS: u64 = 1 << VIRTIO_NET_F_CSUM
    | 1 << VIRTIO_NET_F_HOST_TSO4
    | 1 << VIRTIO_NET_F_HOST_TSO6
    | 1 << VIRTIO_NET_F_HOST_ECN
    | 1 << VIRTIO_NET_F_HOST_UFO
    | 1 << VIRTIO_NET_F_HOST_USO;
/// linux/vhost.h: write accesses are logged for live migration.
const VHOST_F_LOG_ALL: u32 = 26;

/// See the module.
pub(crate) struct Slot {
    index: u16,
    /// Whether the ring is on the fast path: lets a worker pass stopped rings by without a lock.
    running: AtomicBool,
    /// Accepted features, readable without the lock.
    features: AtomicU64,
    inner: Handover<Inner>,
    kick: Mutex<Option<Arc<OwnedFd>>>,
    on_change: OnChange,
}

impl std::fmt::Debug for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ring {} {}", self.index, if self.running() { "running" } else { "stopped" })
    }
}

impl Slot {
    /// A stopped ring. `index` is virtio's queue number: even = to the guest, odd = from it.
    pub(crate) fn new(index: u16, on_change: OnChange) -> Self {
        let inner = Inner {
            split: None,
            setup: Setup::default(),
            features: 0,
            mapping: None,
            call: None,
            fault: None,
            faults: 0,
        };
        Slot {
            index,
            running: AtomicBool::new(false),
            features: AtomicU64::new(0),
            inner: Handover::new(inner),
            kick: Mutex::new(None),
            on_change,
        }
    }

    /// Virtio features that the driver accepted; bit 26 (`VHOST_F_LOG_ALL`) switches the dirty log.
    pub(crate) fn set_features(&self, acked: u64) {
        self.features.store(acked, Ordering::Release);
        self.change(|inner, _| inner.features = acked);
    }

    /// Other guest memory. When this returns, no worker can still touch the old one through this ring.
    pub(crate) fn set_memory(&self, mapping: Option<Arc<Mapping>>) {
        // The old mapping may be the last user of its pages: unmapped here, not under the lock.
        let _old = self.change(|inner, _| std::mem::replace(&mut inner.mapping, mapping));
    }

    /// The connection is over: stop, and forget memory, descriptors and fault.
    pub(crate) fn detach(&self) {
        let _old = self.change(|inner, _| {
            inner.setup = Setup::default();
            inner.fault = None;
            inner.features = 0;
            (inner.call.take(), inner.mapping.take())
        });
        self.features.store(0, Ordering::Release);
        self.set_kick(None);
    }

    /// The eventfd by which the driver wakes us.
    pub(crate) fn set_kick(&self, file: Option<File>) {
        let kick = self.checked(file);
        *lock(&self.kick) = kick;
        (self.on_change)();
    }

    /// The eventfd by which we wake the driver.
    pub(crate) fn set_call(&self, file: Option<File>) {
        let call = self.checked(file);
        self.change(|inner, _| inner.call = call);
        // Whatever was published while nobody listened is announced now; a superfluous interrupt is harmless.
        self.inner.change(|inner| {
            if let Some(split) = &inner.split {
                split.call();
            }
        });
    }

    fn checked(&self, file: Option<File>) -> Option<Arc<OwnedFd>> {
        match file.map(event_fd).transpose() {
            Ok(fd) => fd,
            Err(error) => {
                log::warn!("ring {}: {error}", self.index);
                self.change(|inner, _| inner.latch(RingFault::NotAnEventFd));
                None
            }
        }
    }

    /// Stops the ring for a moment, lets `change` alter its setup (with the true indexes in it; told whether the ring ran)
    /// and starts it again if all is there. With `run` false it stays stopped, and a fault is forgiven.
    pub(crate) fn set_up(&self, change: impl FnOnce(&mut Setup, bool)) {
        self.change(|inner, ran| {
            change(&mut inner.setup, ran);
            if !inner.setup.run {
                inner.fault = None;
            }
        });
    }

    /// The next available index, as the VMM asks for it.
    pub(crate) fn next_avail(&self) -> u16 {
        self.inner.change(|inner| match &inner.split {
            Some(split) => split.indexes().0,
            None => inner.setup.next_avail,
        })
    }

    /// What the ring does now.
    pub(crate) fn state(&self) -> RingState {
        self.inner.change(|inner| RingState {
            running: inner.split.is_some(),
            fault: inner.fault,
            faults: inner.faults,
            size: if inner.split.is_some() { inner.setup.size } else { 0 },
        })
    }

    /// Whether frames can pass, as far as one can tell without the lock.
    #[inline]
    pub(crate) fn running(&self) -> bool {
        self.running.load(Ordering::Acquire)
    }

    /// Virtio features that the driver accepted.
    #[inline]
    pub(crate) fn features(&self) -> u64 {
        self.features.load(Ordering::Relaxed)
    }

    /// The eventfd by which the driver wakes us.
    pub(crate) fn kick(&self) -> Option<Arc<OwnedFd>> {
        lock(&self.kick).clone()
    }

    /// Stop, alter, start; tells the port when the ring ran before or runs now.
    fn change<R>(&self, change: impl FnOnce(&mut Inner, bool) -> R) -> R {
        let (result, ran, runs) = self.inner.change(|inner| {
            let ran = inner.stop();
            let result = change(inner, ran);
            inner.start();
            let runs = inner.split.is_some();
            self.running.store(runs, Ordering::Release);
            (result, ran, runs)
        });
        // Also when it only paused: the place where the driver looks whether to kick may be another one now, so whoever
        // sleeps on the old one has to ask again.
        if ran || runs {
            (self.on_change)();
        }
        result
    }

    /// Takes a ring that broke off the fast path, for its worker, when its burst is over.
    #[cold]
    fn retire_broken(&self, inner: &mut Inner) {
        inner.stop();
        self.running.store(false, Ordering::Release);
        (self.on_change)();
    }

    #[inline]
    fn try_enter(&self) -> Option<MutexGuard<'_, Inner>> {
        if !self.running() {
            return None;
        }
        self.inner.try_enter().filter(|inner| inner.split.is_some())
    }

    #[inline]
    fn enter(&self) -> Option<MutexGuard<'_, Inner>> {
        if !self.running() {
            return None;
        }
        Some(self.inner.enter()).filter(|inner| inner.split.is_some())
    }
}

/// Accepts only a real eventfd, made non-blocking: anything else could stop a worker in a read or write.
fn event_fd(file: File) -> io::Result<Arc<OwnedFd>> {
    let link = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    if link.as_os_str() != "anon_inode:[eventfd]" {
        return Err(io::Error::other(format!("the VMM sent {} where an eventfd belongs", link.display())));
    }
    let flags = rustix::fs::fcntl_getfl(&file)?;
    rustix::fs::fcntl_setfl(&file, flags | rustix::fs::OFlags::NONBLOCK)?;
    Ok(Arc::new(OwnedFd::from(file)))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    match mutex.lock() {
        Ok(guard) => guard,
        Err(poisoned) => poisoned.into_inner(),
    }
}
