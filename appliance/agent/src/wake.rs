//! How other threads reach a worker that may be asleep.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering, fence};

use rustix::event::{EventfdFlags, eventfd};

/// A worker's wake-up: one eventfd, written only while the worker sleeps or is about to.
#[derive(Debug)]
pub(crate) struct Waker {
    fd: OwnedFd,
    asleep: AtomicBool,
}

impl Waker {
    pub(crate) fn new() -> std::io::Result<Self> {
        let fd = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        Ok(Self { fd, asleep: AtomicBool::new(false) })
    }

    /// Wakes the worker. Whatever it should see must be stored before the call.
    pub(crate) fn wake(&self) {
        // Pairs with the fence in `about_to_sleep`: either the worker sees what was stored before this
        // call, or this sees that it goes to sleep.
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) {
            // Can only fail when 2^64-2 wake-ups are pending, and then the worker wakes anyway.
            let _ = rustix::io::write(&self.fd, &1u64.to_ne_bytes());
        }
    }

    /// The worker says that it will sleep; it must look for work once more after this.
    pub(crate) fn about_to_sleep(&self) {
        self.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The worker is back.
    pub(crate) fn awake(&self) {
        self.asleep.store(false, Ordering::Relaxed);
    }

    /// For the worker's epoll set. Registered edge-triggered, so that nobody needs to read it empty.
    pub(crate) fn fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}
