//! What a port remembers between bursts besides its flows.

use std::sync::{Mutex, PoisonError};

use crate::fragments::{FragmentLimits, Fragments};
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

/// Fragmented packets that all other hosts together may have under way here. Each of them has limited its own ports.
const OF_UNDERLAY: FragmentLimits = FragmentLimits { packets: 1024, ..FragmentLimits::DEFAULT };

impl PortState {
    /// What is remembered of what comes from other hosts; one for all of them.
    pub fn of_underlay() -> Self {
        Self { fragments: Mutex::new(Fragments::new(OF_UNDERLAY)), ..Self::default() }
    }

    /// Gives the slot of a released fragment back ([`crate::Workspace::released`]), when its frame was taken out.
    pub fn free(&self, slot: u8) {
        self.fragments.lock().unwrap_or_else(PoisonError::into_inner).free(slot);
    }
}
