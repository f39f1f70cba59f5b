//! What a port remembers between bursts besides its flows.

use std::sync::{Mutex, PoisonError};

use crate::fragments::Fragments;
use crate::rate::Bucket;

/// One per port; it does not depend on the snapshot and outlives it. Workers that serve queues of one port share it:
/// each part has its own lock, which only frames that need that part take.
#[derive(Debug, Default)]
pub struct PortState {
    /// What is left of the rate limit; entered once per burst, by ports that have one.
    pub(crate) rate: Mutex<Bucket>,
    /// What is left of the refusals that may be answered.
    pub(crate) refusals: Mutex<Bucket>,
    /// Fragmented packets under way.
    pub(crate) fragments: Mutex<Fragments>,
}

impl PortState {
    /// Gives the slot of a released fragment back ([`crate::Workspace::released`]), when its frame was taken out.
    pub fn free(&self, slot: u8) {
        self.fragments.lock().unwrap_or_else(PoisonError::into_inner).free(slot);
    }
}
