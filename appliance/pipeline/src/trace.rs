//! The pipeline, explained: one frame through the same stages, each of which says what it found.

use crate::conntrack::Change;
use crate::deliver::{Target, Way, deliver, resolve};
use crate::firewall::{self, Ends, Judgement, Refusal};
use crate::from_port::Context;
use crate::guard::guard;
use crate::offload::{Cut, offload};
use crate::parse::{Message, Packet, parse};
use crate::policy::{Action, Direction, Endpoint, RuleIndex};
use crate::respond::respond;
use crate::track::{self, Lane, Lately};
use crate::{
    DropReason, Encapsulation, FlowKey, FlowRecord, FlowTable, Frame, Instant, Port, PortIndex, PortState,
    Snapshot, Stage, header,
};

/// What became of a frame, stage by stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// What each stage that was reached found, in order. The last decides.
    pub steps: Vec<Step>,
    /// Who wants to talk to whom, if it came to that.
    pub key: Option<FlowKey>,
}

/// One stage's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The stage.
    pub stage: Stage,
    /// What it found.
    pub finding: Finding,
}

/// What a stage found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Nothing to object to.
    Passed,
    /// The frame ends here.
    Dropped(DropReason),
    /// The appliance answers it.
    Answered,
    /// It belongs to a flow that is known and was judged under this snapshot: nobody is asked.
    Known(FlowRecord),
    /// It belongs to a flow that is known but was judged under another snapshot: the firewall is asked again.
    Stale(FlowRecord),
    /// It begins a flow, or ends before it can.
    New,
    /// The firewall at one port was asked.
    Asked(Answer),
    /// Nobody is asked at this port: it is excluded from the firewall, or on another host.
    Excluded {
        /// The port.
        port: PortIndex,
        /// Whether its rules out or in would have been asked.
        direction: Direction,
    },
    /// The router sends it to this port.
    Routed(PortIndex),
    /// It goes to another host in this header; what the receiver's rules say of it is asked there.
    Encapsulated(Encapsulation),
    /// It goes to this port.
    Delivered(PortIndex),
    /// It goes to every other port of the network that admits it, here and on other hosts.
    Flooded,
}

/// The firewall's answer at one port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The port whose rules were asked.
    pub port: PortIndex,
    /// Which of its rules.
    pub direction: Direction,
    /// Who source and destination were taken for.
    pub endpoints: [Endpoint; 2],
    /// The rule that decides; none for a default deny.
    pub rule: Option<RuleIndex>,
    /// What it says.
    pub action: Action,
    /// The rule of an audit policy that would have decided otherwise, and how.
    pub would: Option<(RuleIndex, Action)>,
}

impl Trace {
    /// Whether the frame, or an answer to it, gets anywhere.
    pub fn passes(&self) -> bool {
        self.steps.last().is_some_and(|step| {
            matches!(step.finding, Finding::Delivered(_) | Finding::Flooded | Finding::Answered)
        })
    }

    fn route(&mut self, target: &Target<'_>) {
        if target.routed {
            self.add(Stage::Route, Finding::Routed(target.index));
        }
    }

    fn arrive(&mut self, context: &Context<'_>, target: &Target<'_>) {
        if let Some(encapsulation) = context.snapshot.encapsulation(Some(context.port), target.index) {
            self.add(Stage::Encap, Finding::Encapsulated(encapsulation));
        }
        self.add(Stage::Deliver, Finding::Delivered(target.index));
    }

    fn add(&mut self, stage: Stage, finding: Finding) {
        self.steps.push(Step { stage, finding });
    }
}

/// Sends a frame through the pipeline as [`crate::from_port()`] does, changing neither flows nor limits. The frame may be
/// changed into its answer. It is taken to be alone: rate limits, limits of flows and other fragments are not looked at.
///
/// # Panics
/// When `port` is not from this snapshot.
pub fn trace(
    snapshot: &Snapshot,
    flows: &FlowTable,
    port: PortIndex,
    now: Instant,
    frame: &mut Frame<'_>,
) -> Trace {
    let state = PortState::default();
    let context = Context::of_port(snapshot, flows, port, &state, now);
    let mut trace = Trace { steps: Vec::new(), key: None };
    if let Err((stage, reason)) = follow(&context, frame, &mut trace) {
        trace.add(stage, Finding::Dropped(reason));
    }
    trace
}

fn follow(
    context: &Context<'_>,
    frame: &mut Frame<'_>,
    trace: &mut Trace,
) -> Result<(), (Stage, DropReason)> {
    let Context { snapshot, sender, .. } = *context;
    let packet = parse(frame).map_err(at)?;
    trace.add(Stage::Parse, Finding::Passed);
    guard(sender, frame, &packet).map_err(at)?;
    trace.add(Stage::Guard, Finding::Passed);
    let cut = offload(frame, &packet).map_err(at)?;
    trace.add(Stage::Offload, Finding::Passed);
    if respond(snapshot, sender, frame, &packet).map_err(at)? {
        trace.add(Stage::Respond, Finding::Answered);
        return Ok(());
    }
    trace.add(Stage::Respond, Finding::Passed);
    let ip = match packet {
        Packet::Ip(ip) if !header::to_group(frame.head) => ip,
        _ => return follow_for_many(context, frame, &packet, &cut, trace),
    };
    if !sender.is_judged()
        && let Way::One(target) = deliver(context, frame, &packet, &cut).map_err(at)?
        && !target.port.is_judged()
    {
        trace.route(&target);
        trace.arrive(context, &target);
        return Ok(());
    }
    let mut lane = Lane::default();
    lane.fill(context, frame, &ip, cut).map_err(at)?;
    trace.key = Some(lane.flow_key());
    let target = resolve(context, frame, &ip).map_err(at)?;
    trace.route(&target);
    target.fits(sender, &cut).map_err(at)?;
    if ip.message != Message::NeighbourAdvertisement {
        follow_flow(context, frame, &lane, (target.index, target.port), trace)?;
    }
    trace.arrive(context, &target);
    Ok(())
}

fn at(reason: DropReason) -> (Stage, DropReason) {
    (reason.stage(), reason)
}

/// The sender's say about a frame for many; the receivers' is theirs.
fn follow_for_many(
    context: &Context<'_>,
    frame: &Frame<'_>,
    packet: &Packet,
    cut: &Cut,
    trace: &mut Trace,
) -> Result<(), (Stage, DropReason)> {
    let Context { snapshot, sender, port, .. } = *context;
    let way = deliver(context, frame, packet, cut).map_err(at)?;
    if let Some(refusal) = firewall::flooded(snapshot, Direction::Out, sender, None, frame, packet) {
        let Refusal { direction, action, rule, ends } = refusal;
        let answer = Answer { port, direction, endpoints: ends, rule, action, would: None };
        trace.add(Stage::Firewall, Finding::Asked(answer));
        return Err((Stage::Firewall, refusal.reason()));
    }
    match way {
        Way::One(target) => trace.arrive(context, &target),
        Way::Many => trace.add(Stage::Deliver, Finding::Flooded),
    }
    Ok(())
}

/// Flow and firewall, in the order in which [`crate::from_port()`] asks them.
fn follow_flow(
    context: &Context<'_>,
    frame: &Frame<'_>,
    lane: &Lane,
    (to, destination): (PortIndex, &Port),
    trace: &mut Trace,
) -> Result<(), (Stage, DropReason)> {
    if lane.is_error() {
        track::related(context, lane, destination).map_err(at)?;
        trace.add(Stage::Flow, Finding::Passed);
        return Ok(());
    }
    if let Some((entry, seen)) = lane.known(context) {
        let record = context.flows.record(entry, &lane.key, context.now);
        let revoked = seen.flags.is_revoked();
        let fresh = seen.epoch == context.snapshot.epoch() && lane.destination(&seen) == to && !revoked;
        if fresh {
            trace.add(Stage::Flow, Finding::Known(record));
        } else {
            trace.add(Stage::Flow, Finding::Stale(record));
        }
        if !(revoked && track::begins_anew(frame, lane)) {
            if !fresh {
                let (judgement, ends) = track::judge_known(context, frame, lane, entry, &seen, destination);
                explain(context, trace, &ends, (context.port, to), &judgement)?;
            }
            if track::track_copy(frame, lane, entry, &seen).map_err(at)? != Change::Reopens {
                return Ok(());
            }
        }
    }
    let proposal =
        track::propose(context, frame, lane, (to, destination), &mut Lately::default()).map_err(at)?;
    trace.add(Stage::Flow, Finding::New);
    explain(context, trace, &proposal.ends, (context.port, to), &proposal.judgement)
}

/// One step for each port that was asked, and for each that was not.
///
/// # Errors
/// One of them refuses.
fn explain(
    context: &Context<'_>,
    trace: &mut Trace,
    ends: &[Ends; 2],
    (from, to): (PortIndex, PortIndex),
    judgement: &Judgement,
) -> Result<(), (Stage, DropReason)> {
    for (direction, port) in [(Direction::Out, from), (Direction::In, to)] {
        let place = firewall::place(direction);
        let finding = match judgement.decisions[place] {
            Some(decision) => Finding::Asked(Answer {
                port,
                direction,
                endpoints: ends[place],
                rule: decision.rule,
                action: decision.action,
                would: decision.would,
            }),
            None if !context.snapshot.port(port).is_judged() => Finding::Excluded { port, direction },
            // The sender's rules refuse it already.
            None => continue,
        };
        trace.add(Stage::Firewall, finding);
    }
    judgement.refused.map_or(Ok(()), |refusal| Err((Stage::Firewall, refusal.reason())))
}
