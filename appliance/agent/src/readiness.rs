//! What a worker's epoll set reported.

use event_manager::{EventOps, Events, MutEventSubscriber};

/// Token of the worker's own wake-up.
pub(crate) const WAKE: u32 = u32::MAX;

/// Token of the sockets that other hosts send to.
pub(crate) const UNDERLAY: u32 = u32::MAX - 1;

/// The most events taken from the kernel in one call.
pub(crate) const EVENTS_MAX: usize = 256;

/// Collects the tokens of sources that became ready. One subscriber stands for all sources of a worker:
/// their files come and go with the configuration, their storage does not.
#[derive(Debug)]
pub(crate) struct Readiness {
    tokens: Vec<u32>,
}

impl Readiness {
    pub(crate) fn new() -> Self {
        Self { tokens: Vec::with_capacity(EVENTS_MAX) }
    }

    /// The next source that became ready.
    pub(crate) fn pop(&mut self) -> Option<u32> {
        self.tokens.pop()
    }
}

impl MutEventSubscriber for Readiness {
    fn process(&mut self, events: Events, _ops: &mut EventOps<'_>) {
        // Bounded by EVENTS_MAX, as the worker empties it after each wait: no allocation.
        if events.data() != WAKE && self.tokens.len() < EVENTS_MAX {
            self.tokens.push(events.data());
        }
    }

    fn init(&mut self, _ops: &mut EventOps<'_>) {}
}
