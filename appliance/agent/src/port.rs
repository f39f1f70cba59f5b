//! A local port, as workers see it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, AtomicUsize, Ordering};

use pipeline::PortState;

use crate::counters::Counters;
use crate::held::Held;
use crate::tap::Tap;

/// One local port: what it is plugged into, who serves its queues, and what it counts.
#[derive(Debug)]
pub(crate) struct LocalPort {
    /// The id the manager gave it.
    pub(crate) id: u32,
    /// `workload.port`, for logs and errors.
    pub(crate) full_name: String,
    /// What it is plugged into.
    pub(crate) attachment: Attachment,
    /// The worker that serves each queue.
    pub(crate) homes: Box<[usize]>,
    /// One block for each worker. Outlives re-opening.
    pub(crate) counters: Arc<[Counters]>,
    /// What is remembered of what it sent. Outlives re-opening.
    pub(crate) memory: Arc<Memory>,
    receiving_pairs: AtomicU16,
    /// Set by the worker that finds its device removed behind our back.
    pub(crate) gone: AtomicBool,
    /// The control thread's: the start of the link that was last looked at, and announcements given so far.
    start_seen: AtomicU64,
    announced: AtomicUsize,
}

/// What is remembered of what a port sent.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// What the pipeline remembers.
    pub(crate) state: PortState,
    /// Fragments that wait for the first of their packet.
    pub(crate) held: Held,
}

/// What a port is plugged into.
#[derive(Debug)]
pub(crate) enum Attachment {
    /// A guest, by vhost-user.
    Vhost(Arc<vhost_backend::Port>),
    /// A TAP device.
    Tap(Tap),
    /// Nothing: it could not be opened yet.
    Missing,
}

impl LocalPort {
    pub(crate) fn new(
        id: u32,
        full_name: String,
        attachment: Attachment,
        homes: Box<[usize]>,
        counters: Arc<[Counters]>,
        memory: Arc<Memory>,
    ) -> Self {
        let port = Self {
            id,
            full_name,
            attachment,
            homes,
            counters,
            memory,
            receiving_pairs: AtomicU16::new(1),
            gone: AtomicBool::new(false),
            start_seen: AtomicU64::new(0),
            announced: AtomicUsize::new(0),
        };
        port.refresh();
        port
    }

    /// Looks again how many queue pairs the guest has switched on.
    pub(crate) fn refresh(&self) {
        if let Attachment::Vhost(port) = &self.attachment {
            let on = (0..port.pairs()).take_while(|&pair| port.rx(pair).running()).count();
            self.receiving_pairs.store(on.max(1) as u16, Ordering::Relaxed);
        }
    }

    /// Whether the link came up since the last call. For the control thread alone.
    pub(crate) fn came_up(&self) -> bool {
        let start = match &self.attachment {
            // Nobody may have looked while it was down between two connections.
            Attachment::Vhost(port) if port.rx(0).running() => port.connects(),
            Attachment::Tap(_) => 1,
            Attachment::Vhost(_) | Attachment::Missing => 0,
        };
        self.start_seen.swap(start, Ordering::Relaxed) != start && start != 0
    }

    /// Counts announcements. For the control thread alone.
    pub(crate) fn announce(&self, frames: usize) {
        self.announced.fetch_add(frames, Ordering::Relaxed);
    }

    /// Announcements of neighbours that were given to the workload.
    pub(crate) fn announced(&self) -> usize {
        self.announced.load(Ordering::Relaxed)
    }

    /// How many receive queues frames may be spread over, at least 1.
    #[inline]
    pub(crate) fn receiving_pairs(&self) -> u16 {
        self.receiving_pairs.load(Ordering::Relaxed)
    }
}
