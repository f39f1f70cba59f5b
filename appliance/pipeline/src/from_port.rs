//! The way of a frame from a workload's port, as a table of contents.

use crate::{Frame, Instant, PortIndex, Snapshot, Verdict, deliver, rate};

/// What a port remembers between bursts. One per port: queues that are served by several workers share it behind a
/// lock that is taken once per burst. It does not depend on the snapshot and outlives it.
#[derive(Clone, Copy, Debug, Default)]
pub struct PortState {
    pub(crate) rate: rate::Bucket,
}

/// Judges a burst of frames that `port` sent: `verdicts[i]` becomes the fate of `frames[i]`.
///
/// `port` and `frames` are the caller's and trusted, what the frames contain is not. Frames beyond the length of
/// `verdicts` are left alone.
pub fn from_port(
    snapshot: &Snapshot,
    port: PortIndex,
    state: &mut PortState,
    now: Instant,
    frames: &mut [Frame<'_>],
    verdicts: &mut [Verdict],
) {
    let sender = snapshot.port(port);
    state.rate.refill(sender.rate_limit(), now);
    for (frame, verdict) in frames.iter_mut().zip(verdicts) {
        *verdict = deliver::deliver(snapshot, sender, frame).unwrap_or_else(Verdict::Drop);
    }
}
