//! The way of a frame from a workload's port, as a table of contents.

use crate::deliver::{self, Way, deliver};
use crate::firewall::Refusal;
use crate::flow::FlowKey;
use crate::guard::guard;
use crate::header;
use crate::offload::{Cut, offload};
use crate::parse::{Packet, parse};
use crate::policy::{Action, Endpoint};
use crate::port_state::PortState;
use crate::rate::{self, Bucket, admit};
use crate::refuse::{self, Obstacle};
use crate::report::{DropRecord, Event, Origin, note};
use crate::respond::respond;
use crate::route;
use crate::track::{self, Lane, track};
use crate::workspace::BURST;
use crate::{
    DropReason, FlowTable, Frame, Instant, NetworkIndex, Port, PortIndex, Report, Snapshot, Verdict,
    Workspace,
};
use wire::ethernet;

/// Who sent a burst, and by what it is judged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context<'a> {
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) flows: &'a FlowTable,
    /// Where it came from: the port, or another host.
    pub(crate) origin: Origin,
    /// The port that sent it, here or on that host.
    pub(crate) port: PortIndex,
    pub(crate) sender: &'a Port,
    /// The network that the frames are on: the sender's, or the one that its host has routed them to.
    pub(crate) network: NetworkIndex,
    /// Who the sender's host says that it is, where that is not who it is declared to be.
    pub(crate) claimed: Option<Endpoint>,
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
    let context = Context::of_port(snapshot, flows, port, state, now);
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
    let target = match deliver(context, frame, &packet, &cut)? {
        Way::Many => return Ok(Alone::Decided(Verdict::Flood)),
        Way::One(target) if target.port.is_judged() => return Ok(Alone::Tracked(packet, cut)),
        Way::One(target) => target,
    };
    if let Packet::Ip(ip) = packet {
        target.finish(context, frame, &ip);
    }
    Ok(Alone::Decided(Verdict::Deliver(target.index)))
}

impl<'a> Context<'a> {
    /// Of what a port of this host sends.
    pub(crate) fn of_port(
        snapshot: &'a Snapshot,
        flows: &'a FlowTable,
        port: PortIndex,
        state: &'a PortState,
        now: Instant,
    ) -> Self {
        let sender = snapshot.port(port);
        let (origin, network, millis) = (Origin::Port(port), sender.network(), now.as_millis());
        Self { snapshot, flows, origin, port, sender, network, claimed: None, state, now, millis }
    }

    /// Notes a frame that ends here, and why; and turns it into the gateway's answer, where there is one.
    #[cold]
    pub(crate) fn dropped(&self, reason: DropReason, frame: &mut Frame<'_>, report: &mut Report) -> Verdict {
        report.add(Event::Dropped(self.note(reason, None, frame)));
        self.ended(reason, frame)
    }

    /// The same for a packet whose ends are known.
    #[cold]
    pub(crate) fn dropped_of(
        &self,
        reason: DropReason,
        frame: &mut Frame<'_>,
        lane: &Lane,
        report: &mut Report,
    ) -> Verdict {
        report.add(Event::Dropped(self.note(reason, Some(lane.key.unpack(lane.side)), frame)));
        self.ended(reason, frame)
    }

    /// The end of a frame: its sender is told what stood in its way, if it was not its own network's rules.
    fn ended(&self, reason: DropReason, frame: &mut Frame<'_>) -> Verdict {
        if self.tell(reason, frame).is_some() { Verdict::Refuse(reason) } else { Verdict::Drop(reason) }
    }

    fn tell(&self, reason: DropReason, frame: &mut Frame<'_>) -> Option<()> {
        if !matches!(reason, DropReason::NoRoute | DropReason::TtlExceeded | DropReason::PathMtu) {
            return None;
        }
        let Packet::Ip(ip) = parse(frame).ok()? else { return None };
        // RFC 1122, section 3.2.2: what was for many is never answered.
        if deliver::is_for_many(self.snapshot, self.network, frame, ip.v6) {
            return None;
        }
        let obstacle = match reason {
            DropReason::NoRoute if route::is_unreachable(self, frame, &ip) => Obstacle::NoRoute,
            DropReason::TtlExceeded => Obstacle::TtlExceeded,
            DropReason::PathMtu => {
                let reach = deliver::resolve(self, frame, &ip).ok()?.port.reach();
                Obstacle::TooBig(reach.saturating_sub(ethernet::HEADER_LEN as u32))
            }
            _ => return None,
        };
        // A network without a gateway has nobody else to speak for it than who was asked.
        let (_, asked) = header::addresses(frame.head, ip.v6);
        let from = self.snapshot.network(self.network).gateway(ip.v6).unwrap_or(asked);
        let told = rate::may_refuse(self.state, self.now) && refuse::tell(frame, &ip, from, obstacle);
        told.then_some(())
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
        note(self.snapshot.revision(), self.origin, reason, key, *frame.len)
    }
}
