//! Lets a worker use something at full speed and the control side take it away at any time.
//!
//! A worker holds the lock for one burst. The control side first raises `want`, so that workers stop coming, then takes
//! the lock: when [`Handover::change`] runs its closure, no worker is inside, and when it returned, none can still
//! reach what the closure took out. `tests/loom.rs` checks this in every interleaving.

use crate::sync::{AtomicU32, Mutex, MutexGuard, Ordering, yield_now};

/// A value that workers enter for one burst at a time.
#[derive(Debug)]
pub struct Handover<T> {
    /// How many changes wait or run.
    want: AtomicU32,
    value: Mutex<T>,
}

/// How often a worker lets a change go first before it queues behind it: far longer than a change takes.
const PATIENCE: u32 = 64;

impl<T> Handover<T> {
    /// A value nobody is in.
    pub fn new(value: T) -> Self {
        Handover { want: AtomicU32::new(0), value: Mutex::new(value) }
    }

    /// Enters unless a change is wanted or another worker is inside.
    #[inline]
    pub fn try_enter(&self) -> Option<MutexGuard<'_, T>> {
        if self.want.load(Ordering::Relaxed) != 0 {
            return None;
        }
        self.value.try_lock().ok()
    }

    /// Enters, waiting for another worker's burst or a change to end.
    #[inline]
    pub fn enter(&self) -> MutexGuard<'_, T> {
        if let Some(guard) = self.try_enter() {
            return guard;
        }
        self.enter_contended()
    }

    #[cold]
    fn enter_contended(&self) -> MutexGuard<'_, T> {
        for _ in 0..PATIENCE {
            if self.want.load(Ordering::Relaxed) == 0 {
                break;
            }
            yield_now();
        }
        self.lock()
    }

    /// Runs `change` while no worker is inside.
    pub fn change<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        self.want.fetch_add(1, Ordering::Relaxed);
        let mut guard = self.lock();
        let result = change(&mut guard);
        drop(guard);
        self.want.fetch_sub(1, Ordering::Relaxed);
        result
    }

    /// A panic inside aborts the process, so a poisoned lock is only met while it goes down.
    fn lock(&self) -> MutexGuard<'_, T> {
        match self.value.lock() {
            Ok(guard) => guard,
            Err(poisoned) => poisoned.into_inner(),
        }
    }
}
