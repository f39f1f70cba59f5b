//! One connection: a daemon of the crate with its threads, guest memory and vrings, made new each time and gone without
//! trace afterwards. The rings ([`Slot`]) stay.

#![expect(unsafe_code, reason = "closes a descriptor that the crate leaks")]

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vhost::vhost_user::Listener;
use vhost::vhost_user::message::VhostUserProtocolFeatures;
use vhost_user_backend::bitmap::BitmapMmapRegion;
use vhost_user_backend::{VhostUserBackend, VhostUserDaemon};
use vm_memory::GuestAddressSpace;
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::event::{EventConsumer, EventFlag, EventNotifier, new_event_consumer_and_notifier};

use crate::config_space::ConfigSpace;
use crate::memory::{AtomicMemory, Mapping, Memory};
use crate::port::PortEvents;
use crate::relay::MAX_QUEUE_SIZE;
use crate::slot::Slot;
use crate::socket::{Reads, Socket, private_pair};
use crate::vring::{Vring, with_slots};

/// See the module.
pub(crate) struct Session {
    daemon: Option<VhostUserDaemon<Arc<Device>>>,
    device: Arc<Device>,
    socket: Socket,
}

impl Session {
    /// A daemon for `device`, with its private socket connected.
    pub(crate) fn start(device: Device) -> io::Result<Self> {
        let (listener, stream) = private_pair(&socket_name())?;
        let mut session =
            Session { daemon: None, device: Arc::new(device), socket: Socket::new(stream, Reads::Replies)? };
        let memory = AtomicMemory::new(Memory::new());
        let device = session.device.clone();
        let daemon = with_slots(&session.device.slots, || {
            VhostUserDaemon::new(format!("vhost {}", device.name), device.clone(), memory)
        });
        let daemon = session.daemon.insert(daemon.map_err(|error| io::Error::other(error.to_string()))?);
        let mut listener = Listener::from(UnixListener::from(listener));
        daemon.start(&mut listener).map_err(|error| io::Error::other(error.to_string()))?;
        Ok(session)
    }

    /// The relay's end of the private socket.
    pub(crate) fn socket(&self) -> &Socket {
        &self.socket
    }

    pub(crate) fn device(&self) -> &Device {
        &self.device
    }
}

impl Drop for Session {
    /// In this order: no more requests, rings off the memory, threads joined, their descriptors closed.
    fn drop(&mut self) {
        if let Some(daemon) = &mut self.daemon {
            daemon.request_shutdown();
            match daemon.wait() {
                Ok(()) => {}
                Err(vhost_user_backend::Error::HandleRequest(error)) => {
                    log::debug!("{}: the device ended with: {error}", self.device.name);
                }
                Err(error) => log::error!("{}: {error}", self.device.name),
            }
        }
        self.device.slots.iter().for_each(|slot| slot.detach());
        *lock(&self.device.held) = Held::default();
        self.daemon = None;
        if let Some(fd) = lock(&self.device.exit).leaked.take() {
            // SAFETY: the crate took this descriptor out of its owner for good (`into_raw_fd` when it made its epoll
            // instance) and never closes it; the thread that polled it was joined just now.
            drop(unsafe { OwnedFd::from_raw_fd(fd) });
        }
    }
}

/// A name that nobody can guess and take first.
fn socket_name() -> String {
    let chance = || RandomState::new().build_hasher().finish();
    format!("palisade-vhost-{:016x}{:016x}", chance(), chance())
}

/// The device as the crate sees it.
pub(crate) struct Device {
    name: String,
    features: u64,
    config: ConfigSpace,
    slots: Vec<Arc<Slot>>,
    events: Arc<dyn PortEvents>,
    exit: Mutex<Exit>,
    held: Mutex<Held>,
}

/// What ends the crate's epoll thread. Made beforehand: without it the thread could never be joined.
#[derive(Default)]
struct Exit {
    event: Option<(EventConsumer, EventNotifier)>,
    /// The crate's copy, which it leaks.
    leaked: Option<RawFd>,
}

/// Whether rings wait for the dirty log, and the memory they go on with.
#[derive(Default)]
struct Held {
    hold: bool,
    mapping: Option<Arc<Mapping>>,
}

impl Device {
    pub(crate) fn new(
        name: String,
        features: u64,
        config: ConfigSpace,
        slots: Vec<Arc<Slot>>,
        events: Arc<dyn PortEvents>,
    ) -> io::Result<Self> {
        let event = Some(new_event_consumer_and_notifier(EventFlag::NONBLOCK | EventFlag::CLOEXEC)?);
        let exit = Mutex::new(Exit { event, leaked: None });
        Ok(Device { name, features, config, slots, events, exit, held: Mutex::default() })
    }

    /// See [`Desk::hold_rings`](crate::relay::Desk::hold_rings).
    pub(crate) fn hold_rings(&self) {
        lock(&self.held).hold = true;
    }

    /// See [`Desk::release_rings`](crate::relay::Desk::release_rings).
    pub(crate) fn release_rings(&self) {
        let mut held = lock(&self.held);
        held.hold = false;
        self.give(held.mapping.take());
    }

    /// `None` takes nothing away: rings that were not held keep theirs.
    fn give(&self, mapping: Option<Arc<Mapping>>) {
        if let Some(mapping) = mapping {
            self.slots.iter().for_each(|slot| slot.set_memory(Some(mapping.clone())));
        }
    }
}

impl VhostUserBackend for Device {
    type Bitmap = BitmapMmapRegion;
    type Vring = Vring;

    fn num_queues(&self) -> usize {
        self.slots.len()
    }

    fn max_queue_size(&self) -> usize {
        usize::from(MAX_QUEUE_SIZE)
    }

    fn features(&self) -> u64 {
        self.features
    }

    fn acked_features(&self, features: u64) {
        self.slots.iter().for_each(|slot| slot.set_features(features));
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        VhostUserProtocolFeatures::from_bits_truncate(crate::features::PROTOCOL_OFFERED)
    }

    /// Comes with the other features.
    fn set_event_idx(&self, _enabled: bool) {}

    fn get_config(&self, offset: u32, size: u32) -> Vec<u8> {
        // Less than was asked for tells the VMM that there is no more.
        self.config.read(offset, size).unwrap_or_default().to_vec()
    }

    fn update_memory(&self, memory: AtomicMemory) -> io::Result<()> {
        let mapping = Mapping::new(memory.memory().into_inner())?;
        let mut held = lock(&self.held);
        if held.hold {
            held.mapping = Some(mapping);
            self.slots.iter().for_each(|slot| slot.set_memory(None));
        } else {
            self.give(Some(mapping));
        }
        Ok(())
    }

    fn exit_event(&self, _thread: usize) -> Option<(EventConsumer, EventNotifier)> {
        let mut exit = lock(&self.exit);
        let event = exit.event.take();
        exit.leaked = event.as_ref().map(|(consumer, _)| consumer.as_raw_fd());
        event
    }

    /// The crate's thread has dummy kicks: it comes here only when a ring starts or is enabled, which may already hold
    /// frames that nobody kicks for again.
    fn handle_event(&self, ring: u16, _: EventSet, _: &[Vring], _: usize) -> io::Result<()> {
        self.events.wake(ring / 2);
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
