//! What the control thread and the workers share.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::Thread;
use std::time::Duration;

use crate::wake::Waker;
use crate::world::World;

/// The meeting point. Workers look at one number a turn; everything else happens when it changed.
#[derive(Debug)]
pub(crate) struct Plane {
    /// Grows with every change that workers have to look at: another world, other kick descriptors, the end.
    generation: AtomicU64,
    world: Mutex<Arc<World>>,
    stopping: AtomicBool,
    wakers: Box<[Waker]>,
    /// The generation each worker lives in.
    adopted: Mutex<Box<[u64]>>,
    moved: Condvar,
    /// The thread that probes other hosts, woken with the workers.
    prober: OnceLock<Thread>,
}

impl Plane {
    pub(crate) fn new(workers: usize, world: World) -> std::io::Result<Self> {
        Ok(Self {
            generation: AtomicU64::new(1),
            world: Mutex::new(Arc::new(world)),
            stopping: AtomicBool::new(false),
            wakers: (0..workers).map(|_| Waker::new()).collect::<Result<_, _>>()?,
            adopted: Mutex::new(vec![0; workers].into_boxed_slice()),
            moved: Condvar::new(),
            prober: OnceLock::new(),
        })
    }

    /// Number of workers.
    pub(crate) fn workers(&self) -> usize {
        self.wakers.len()
    }

    /// The wake-up of a worker.
    pub(crate) fn waker(&self, worker: usize) -> &Waker {
        &self.wakers[worker]
    }

    /// The number to compare once a turn.
    #[inline]
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The world in force.
    pub(crate) fn world(&self) -> Arc<World> {
        lock(&self.world).clone()
    }

    /// Puts another world in force. Workers take it between two bursts; [`Self::settle`] waits for them.
    pub(crate) fn publish(&self, world: World) {
        let _old = std::mem::replace(&mut *lock(&self.world), Arc::new(world));
        self.shake();
    }

    /// Makes workers look at their sources anew.
    pub(crate) fn shake(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.wakers.iter().for_each(Waker::wake);
        if let Some(prober) = self.prober.get() {
            prober.unpark();
        }
    }

    /// Says which thread probes other hosts. It looks at the world at least once after this.
    pub(crate) fn probed_by(&self, thread: Thread) {
        // There is one.
        let _ = self.prober.set(thread);
    }

    /// Tells workers to end.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.shake();
    }

    /// Whether workers are to end.
    pub(crate) fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// A worker says in which generation it lives now: it holds nothing of an older one.
    pub(crate) fn adopt(&self, worker: usize, generation: u64) {
        lock(&self.adopted)[worker] = generation;
        self.moved.notify_all();
    }

    /// Waits until no worker holds anything older than what is in force now. A worker takes microseconds for that
    /// unless the machine starves it; after `patience` this gives up and says so.
    pub(crate) fn settle(&self, patience: Duration) -> bool {
        let now = self.generation();
        let waited = self
            .moved
            .wait_timeout_while(lock(&self.adopted), patience, |adopted| adopted.iter().any(|&at| at < now));
        match waited {
            Ok((_, result)) => !result.timed_out(),
            Err(_) => false,
        }
    }
}

/// A panic in a worker ends the process, so a poisoned lock is only met while it goes down.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
