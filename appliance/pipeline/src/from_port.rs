//! The way of a frame from a workload's port, as a table of contents.

use crate::deliver::deliver;
use crate::guard::guard;
use crate::offload::offload;
use crate::parse::parse;
use crate::rate::{self, admit};
use crate::respond::respond;
use crate::{DropReason, Frame, Instant, Port, PortIndex, Snapshot, Verdict};

/// What a port remembers between bursts. One per port: queues that are served by several workers share it behind a
/// lock that is taken once per burst. It does not depend on the snapshot and outlives it.
#[derive(Clone, Copy, Debug, Default)]
pub struct PortState {
    pub(crate) rate: rate::Bucket,
}

/// Judges a burst of frames that `port` sent: `verdicts[i]` becomes the fate of `frames[i]`.
///
/// `port` and the fields of `frames` are the caller's and trusted; what the frames contain is not. Frames beyond the
/// length of `verdicts` are left alone.
///
/// # Panics
/// When `port` is not from this snapshot.
pub fn from_port(
    snapshot: &Snapshot,
    port: PortIndex,
    state: &mut PortState,
    now: Instant,
    frames: &mut [Frame<'_>],
    verdicts: &mut [Verdict],
) {
    let port = snapshot.port(port);
    rate::refill(port, state, now);
    for (frame, verdict) in frames.iter_mut().zip(verdicts) {
        *verdict = judge(snapshot, port, state, frame).unwrap_or_else(Verdict::Drop);
    }
}

#[inline(always)]
fn judge(
    snapshot: &Snapshot,
    port: &Port,
    state: &mut PortState,
    frame: &mut Frame<'_>,
) -> Result<Verdict, DropReason> {
    let packet = parse(frame)?;
    guard(port, frame, &packet)?;
    let cut = offload(frame, &packet)?;
    admit(port, state, &cut)?;
    if respond(snapshot, port, frame, &packet)? {
        return Ok(Verdict::Reply);
    }
    deliver(snapshot, port, frame, &packet, &cut)
}
