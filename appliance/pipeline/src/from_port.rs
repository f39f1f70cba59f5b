//! The way of a frame from a workload's port, as a table of contents.

use crate::deliver::deliver;
use crate::firewall::Refusal;
use crate::flow::FlowKey;
use crate::guard::guard;
use crate::offload::{Cut, offload};
use crate::parse::{Packet, parse};
use crate::policy::Action;
use crate::port_state::PortState;
use crate::rate::{self, Bucket, admit};
use crate::report::{DropRecord, Event};
use crate::respond::respond;
use crate::track::{self, Lane, track};
use crate::workspace::BURST;
use crate::{DropReason, FlowTable, Frame, Instant, Port, PortIndex, Report, Snapshot, Verdict, Workspace};

/// Who sent a burst, and by what it is judged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context<'a> {
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) flows: &'a FlowTable,
    pub(crate) port: PortIndex,
    pub(crate) sender: &'a Port,
    pub(crate) state: &'a PortState,
    pub(crate) now: Instant,
    /// `now` in milliseconds, as flows remember it.
    pub(crate) millis: u32,
}

/// Judges a burst of frames that `port` sent: `verdicts[i]` becomes the fate of `frames[i]`. What is worth telling is
/// added to `work.report`, which the caller drains.
///
/// `port` and the fields of `frames` are the caller's and trusted; what the frames contain is not. Frames beyond the
/// length of `verdicts` are left alone.
///
/// # Panics
/// When `port` is not from this snapshot.
#[expect(clippy::too_many_arguments, reason = "a pure function names all that it depends on")]
pub fn from_port(
    snapshot: &Snapshot,
    flows: &FlowTable,
    port: PortIndex,
    state: &PortState,
    now: Instant,
    frames: &mut [Frame<'_>],
    verdicts: &mut [Verdict],
    work: &mut Workspace,
) {
    let sender = snapshot.port(port);
    let context = Context { snapshot, flows, port, sender, state, now, millis: now.as_millis() };
    let mut bucket = rate::open(sender, state, now);
    for (frames, verdicts) in frames.chunks_mut(BURST).zip(verdicts.chunks_mut(BURST)) {
        work.count = 0;
        for (place, (frame, verdict)) in frames.iter_mut().zip(verdicts.iter_mut()).enumerate() {
            *verdict = match judge_alone(&context, bucket.as_deref_mut(), frame) {
                Ok(Alone::Decided(verdict)) => verdict,
                Ok(Alone::Tracked(packet, cut)) => track::enter(&context, place, frame, &packet, cut, work),
                Err(reason) => context.dropped(reason, frame, &mut work.report),
            };
        }
        track(&context, frames, verdicts, work);
    }
}

/// How far a frame gets without regard to others.
enum Alone {
    Decided(Verdict),
    Tracked(Packet, Cut),
}

#[inline(always)]
fn judge_alone(
    context: &Context<'_>,
    bucket: Option<&mut Bucket>,
    frame: &mut Frame<'_>,
) -> Result<Alone, DropReason> {
    let Context { snapshot, sender, .. } = *context;
    let packet = parse(frame)?;
    guard(sender, frame, &packet)?;
    let cut = offload(frame, &packet)?;
    admit(sender, bucket, &cut)?;
    if respond(snapshot, sender, frame, &packet)? {
        return Ok(Alone::Decided(Verdict::Reply));
    }
    if sender.is_judged() {
        return Ok(Alone::Tracked(packet, cut));
    }
    let verdict = deliver(snapshot, sender, frame, &packet, &cut)?;
    match verdict {
        Verdict::Deliver(port) if snapshot.port(port).is_judged() => Ok(Alone::Tracked(packet, cut)),
        _ => Ok(Alone::Decided(verdict)),
    }
}

impl Context<'_> {
    /// Notes a frame that ends here, and why.
    #[cold]
    pub(crate) fn dropped(&self, reason: DropReason, frame: &Frame<'_>, report: &mut Report) -> Verdict {
        report.add(Event::Dropped(self.note(reason, None, frame)));
        Verdict::Drop(reason)
    }

    /// The same for a packet whose ends are known.
    #[cold]
    pub(crate) fn dropped_of(
        &self,
        reason: DropReason,
        frame: &Frame<'_>,
        lane: &Lane,
        report: &mut Report,
    ) -> Verdict {
        report.add(Event::Dropped(self.note(reason, Some(lane.key.unpack(lane.side)), frame)));
        Verdict::Drop(reason)
    }

    /// The record of what the firewall refuses, or would refuse.
    pub(crate) fn record(&self, frame: &Frame<'_>, key: Option<FlowKey>, refusal: &Refusal) -> DropRecord {
        let rule = refusal.rule.map(|rule| self.snapshot.policy().rule(rule));
        DropRecord {
            rule: rule.map(|rule| rule.id),
            direction: Some(refusal.direction),
            endpoints: Some(refusal.ends),
            would_allow: refusal.action == Action::Allow,
            ..self.note(refusal.reason(), key, frame)
        }
    }

    fn note(&self, reason: DropReason, key: Option<FlowKey>, frame: &Frame<'_>) -> DropRecord {
        DropRecord {
            port: self.port,
            reason,
            key,
            rule: None,
            direction: None,
            endpoints: None,
            would_allow: false,
            revision: self.snapshot.revision(),
            len: *frame.len,
        }
    }
}
