//! Another host, as workers see it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::counters::Counters;
use crate::underlay::path::Path;
use crate::underlay::sender::Destination;

/// One other host: where it takes datagrams, what is known of the way there, and what is counted.
#[derive(Debug)]
pub(crate) struct Peer {
    /// Its name.
    pub(crate) name: String,
    /// Where it takes datagrams; `None` while it has told no address.
    pub(crate) destination: Option<Destination>,
    /// Whether it runs an agent, which answers probes.
    pub(crate) probed: bool,
    /// Outlives changes of the configuration.
    pub(crate) memory: Arc<PeerMemory>,
}

/// What is remembered of a host from one configuration to the next.
#[derive(Debug)]
pub(crate) struct PeerMemory {
    /// One block for each worker: accepted is what came from it, delivered is what left for it.
    pub(crate) counters: Arc<[Counters]>,
    path: Mutex<Path>,
}

impl PeerMemory {
    pub(crate) fn new(workers: usize, path: Path) -> Self {
        Self { counters: Counters::per_worker(workers), path: Mutex::new(path) }
    }

    /// What is known of the way. Held for some instructions, by the prober and by whoever hears an answer.
    pub(crate) fn path(&self) -> MutexGuard<'_, Path> {
        // A panic in a worker ends the process, so a poisoned lock is only met while it goes down.
        self.path.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Peer {
    /// Bytes in front of what a datagram to it carries: outer IP header and UDP header.
    pub(crate) fn outer_headers(&self) -> u16 {
        match self.destination.map(|to| to.address) {
            Some(SocketAddr::V6(_)) => 48,
            Some(SocketAddr::V4(_)) | None => 28,
        }
    }

    /// Our interface refused a datagram with so many bytes behind its UDP header.
    #[cold]
    pub(crate) fn refused(&self, len: u32, now: u64) {
        let size = u16::try_from(len + u32::from(self.outer_headers())).unwrap_or(u16::MAX);
        self.memory.path().refused(size, now);
    }
}
