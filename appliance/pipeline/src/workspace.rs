//! What a worker keeps between bursts for the pipeline's use: room to work in, and the report.

use crate::Report;
use crate::track::Lane;

/// Frames that travel through the flow stage together.
pub(crate) const BURST: usize = 64;

/// Room for one burst. One per worker; nothing in it outlives a call but what was not drained of the report.
#[derive(Debug)]
pub struct Workspace {
    /// What happened, for the caller to drain after each burst.
    pub report: Report,
    pub(crate) lanes: Box<[Lane; BURST]>,
    pub(crate) count: usize,
}

impl Default for Workspace {
    fn default() -> Self {
        Self::new()
    }
}

impl Workspace {
    /// Room; nothing is allocated later.
    pub fn new() -> Self {
        Self { report: Report::new(), lanes: Box::new([Lane::default(); BURST]), count: 0 }
    }

    /// The lanes in use, and the report.
    pub(crate) fn lanes(&mut self) -> (&mut [Lane], &mut Report) {
        let used = self.lanes.get_mut(..self.count).unwrap_or_default();
        (used, &mut self.report)
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
