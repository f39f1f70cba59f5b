//! `vhost-user-backend`'s view of a ring, kept in step with the [`Slot`] that the workers use.
//!
//! The crate's own `VringMutex` holds the queue's configuration; every call that changes it stops the slot for the
//! moment of the change. The real kick eventfd goes to the worker's epoll, the crate gets a dummy: its thread then only
//! wakes when a ring starts.

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::sync::{Arc, MutexGuard};

use rustix::event::{EventfdFlags, eventfd};
use vhost_user_backend::{VringMutex, VringState, VringStateGuard, VringStateMutGuard, VringT};
use virtio_queue::{Error, QueueT};

use crate::memory::AtomicMemory;
use crate::slot::Slot;

thread_local! {
    /// Slots for the vrings that are being made on this thread, next one last.
    static SLOTS: RefCell<Vec<Arc<Slot>>> = const { RefCell::new(Vec::new()) };
}

/// Runs `make`, which makes vrings (in queue order, on this thread); each takes the next of `slots`. The crate offers no
/// way to hand something to a vring, and a slot outlives the vrings of many connections.
pub(crate) fn with_slots<R>(slots: &[Arc<Slot>], make: impl FnOnce() -> R) -> R {
    SLOTS.with_borrow_mut(|next| {
        next.clear();
        next.extend(slots.iter().rev().cloned());
    });
    let result = make();
    SLOTS.with_borrow_mut(Vec::clear);
    result
}

/// See the module.
#[derive(Clone)]
pub(crate) struct Vring {
    crate_side: VringMutex<AtomicMemory>,
    slot: Arc<Slot>,
}

impl Vring {
    /// Changes the crate's side, then tells the slot what came of it.
    fn sync(&self, also: impl FnOnce(&mut crate::slot::Setup, bool)) {
        let state = self.crate_side.get_ref();
        let queue = state.get_queue();
        let (size, descriptors, available, used) =
            (queue.size(), queue.desc_table(), queue.avail_ring(), queue.used_ring());
        let run = queue.ready() && state.is_enabled();
        drop(state);
        self.slot.set_up(|setup, ran| {
            (setup.size, setup.descriptors, setup.available, setup.used) =
                (size, descriptors, available, used);
            setup.run = run;
            also(setup, ran);
        });
    }
}

impl<'a> VringStateGuard<'a, AtomicMemory> for Vring {
    type G = MutexGuard<'a, VringState<AtomicMemory>>;
}

impl<'a> VringStateMutGuard<'a, AtomicMemory> for Vring {
    type G = MutexGuard<'a, VringState<AtomicMemory>>;
}

impl VringT<AtomicMemory> for Vring {
    fn new(mem: AtomicMemory, max_queue_size: u16) -> Result<Self, Error> {
        let slot = SLOTS.with_borrow_mut(Vec::pop).ok_or(Error::InvalidMaxSize)?;
        Ok(Vring { crate_side: VringMutex::new(mem, max_queue_size)?, slot })
    }

    fn get_ref(&self) -> <Self as VringStateGuard<'_, AtomicMemory>>::G {
        self.crate_side.get_ref()
    }

    fn get_mut(&self) -> <Self as VringStateMutGuard<'_, AtomicMemory>>::G {
        self.crate_side.get_mut()
    }

    fn add_used(&self, desc_index: u16, len: u32) -> Result<(), Error> {
        self.crate_side.add_used(desc_index, len)
    }

    fn signal_used_queue(&self) -> io::Result<()> {
        self.crate_side.signal_used_queue()
    }

    fn enable_notification(&self) -> Result<bool, Error> {
        self.crate_side.enable_notification()
    }

    fn disable_notification(&self) -> Result<(), Error> {
        self.crate_side.disable_notification()
    }

    fn needs_notification(&self) -> Result<bool, Error> {
        self.crate_side.needs_notification()
    }

    fn set_enabled(&self, enabled: bool) {
        self.crate_side.set_enabled(enabled);
        self.sync(|_, _| {});
    }

    fn set_queue_info(&self, desc_table: u64, avail_ring: u64, used_ring: u64) -> Result<(), Error> {
        self.crate_side.set_queue_info(desc_table, avail_ring, used_ring)?;
        self.sync(|_, _| {});
        Ok(())
    }

    fn queue_next_avail(&self) -> u16 {
        self.slot.next_avail()
    }

    fn set_queue_next_avail(&self, base: u16) {
        self.slot.set_up(|setup, _| setup.next_avail = base);
    }

    /// The crate reads the used index from guest memory whenever addresses are set, also on a running ring during a
    /// migration: there the worker may have moved on since, and only its own index is right.
    fn set_queue_next_used(&self, idx: u16) {
        self.slot.set_up(|setup, ran| {
            if !ran {
                setup.next_used = idx;
            }
        });
    }

    fn queue_used_idx(&self) -> Result<u16, Error> {
        self.crate_side.queue_used_idx()
    }

    fn set_queue_size(&self, num: u16) {
        self.crate_side.set_queue_size(num);
        self.sync(|_, _| {});
    }

    /// The slot learns it with the other features.
    fn set_queue_event_idx(&self, enabled: bool) {
        self.crate_side.set_queue_event_idx(enabled);
    }

    fn set_queue_ready(&self, ready: bool) {
        self.crate_side.set_queue_ready(ready);
        self.sync(|_, _| {});
    }

    fn set_kick(&self, file: Option<File>) {
        let dummy = file.as_ref().and_then(|_| dummy_event());
        self.slot.set_kick(file);
        self.crate_side.set_kick(dummy);
    }

    fn read_kick(&self) -> io::Result<bool> {
        self.crate_side.read_kick()
    }

    fn set_call(&self, file: Option<File>) {
        self.slot.set_call(file);
    }

    /// Nobody signals it: a fault is shown on the port, and VMMs ignore this descriptor.
    fn set_err(&self, file: Option<File>) {
        self.crate_side.set_err(file);
    }
}

/// An eventfd that never fires.
fn dummy_event() -> Option<File> {
    match eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC) {
        Ok(fd) => Some(File::from(fd)),
        Err(error) => {
            log::error!("cannot make an eventfd: {error}");
            None
        }
    }
}
