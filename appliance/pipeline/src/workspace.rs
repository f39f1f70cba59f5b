//! What a worker keeps between bursts for the pipeline's use: room to work in, and the report.

use crate::fragmented::{First, Waiting};
use crate::fragments::MAX_HELD;
use crate::from_port::Context;
use crate::track::{Lane, Lately, Remote};
use crate::{DropReason, Report, Verdict};

/// Frames that travel through the flow stage together.
pub(crate) const BURST: usize = 64;

/// Room for one burst. One per worker; nothing in it outlives a call but what was not drained of the report.
#[derive(Debug)]
pub struct Workspace {
    /// What happened, for the caller to drain after each burst.
    pub report: Report,
    /// Fragments that the sender's port held in slots and that wait no more, in order: they are to be delivered, or
    /// dropped, after the burst, and taken out of here. Then each slot is given back ([`crate::PortState::free`]).
    pub released: Vec<Released>,
    pub(crate) lanes: Box<[Lane; BURST]>,
    /// By place in a burst from other hosts: who sent it.
    pub(crate) remotes: Box<[Remote; BURST]>,
    pub(crate) lately: Lately,
    pub(crate) count: usize,
    pub(crate) firsts: Vec<First>,
    pub(crate) waiting: Vec<Waiting>,
    pub(crate) refused: Vec<(usize, DropReason)>,
}

/// A fragment that waits no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Released {
    /// The slot that it was held in.
    pub slot: u8,
    /// `Deliver` or `Drop`.
    pub verdict: Verdict,
}

impl Default for Workspace {
    fn default() -> Self {
        Self::new()
    }
}

impl Workspace {
    /// Room; nothing is allocated later.
    pub fn new() -> Self {
        Self {
            report: Report::new(),
            released: Vec::with_capacity(2 * MAX_HELD),
            lanes: Box::new([Lane::default(); BURST]),
            remotes: Box::new([Remote::default(); BURST]),
            lately: Lately::default(),
            count: 0,
            firsts: Vec::with_capacity(BURST),
            waiting: Vec::with_capacity(BURST),
            refused: Vec::with_capacity(BURST),
        }
    }

    /// The lanes in use, what the firewall said about them so far (nothing), and the report.
    pub(crate) fn lanes(&mut self) -> (&mut [Lane], &mut Lately, &mut Report) {
        self.lately.forget();
        let used = self.lanes.get_mut(..self.count).unwrap_or_default();
        (used, &mut self.lately, &mut self.report)
    }

    /// Remembers who sent the frame in this place, for when its lane is judged.
    pub(crate) fn note_remote(&mut self, place: usize, context: &Context<'_>, routed: bool) {
        if let Some(remote) = self.remotes.get_mut(place) {
            *remote = Remote::new(context, routed);
        }
    }

    /// This becomes of what lies in a slot.
    pub(crate) fn release(&mut self, slot: u8, verdict: Verdict) {
        self.released.push(Released { slot, verdict });
    }

    /// Gives the last lane back.
    pub(crate) fn leave(&mut self) {
        self.count = self.count.saturating_sub(1);
    }

    /// Room for one more frame of the burst.
    #[inline(always)]
    pub(crate) fn next(&mut self) -> Option<&mut Lane> {
        let lane = self.lanes.get_mut(self.count)?;
        self.count += 1;
        Some(lane)
    }
}
