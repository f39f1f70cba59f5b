//! The pipeline, explained: one frame through the same stages, each of which says what it found.

use crate::deliver::{deliver, resolve};
use crate::firewall::{self, Judgement, Kept};
use crate::from_port::Context;
use crate::guard::guard;
use crate::offload::offload;
use crate::parse::{Packet, parse};
use crate::policy::{Action, Direction, Endpoint, RuleIndex};
use crate::respond::respond;
use crate::track::{Lane, ask, first_state};
use crate::{
    DropReason, FlowKey, FlowRecord, FlowTable, Frame, Instant, PortIndex, PortState, Snapshot, Stage, header,
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
    /// It goes to this port.
    Delivered(PortIndex),
    /// It goes to every other local port of the network that admits it.
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

    fn add(&mut self, stage: Stage, finding: Finding) {
        self.steps.push(Step { stage, finding });
    }
}

/// Sends a frame through the pipeline as [`crate::from_port`] does, changing neither flows nor limits. The frame may be
/// changed into its answer.
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
    let sender = snapshot.port(port);
    let context = Context { snapshot, flows, port, sender, state: &state, now, millis: now.as_millis() };
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
    let at = |reason: DropReason| (reason.stage(), reason);
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
        _ => {
            let verdict = deliver(snapshot, sender, frame, &packet, &cut).map_err(at)?;
            let refusal = firewall::flooded(snapshot, Direction::Out, sender, None, frame, &packet);
            if let Some(refusal) = refusal {
                trace.add(
                    Stage::Firewall,
                    Finding::Asked(Answer {
                        port: context.port,
                        direction: Direction::Out,
                        endpoints: refusal.ends,
                        rule: refusal.rule,
                        action: refusal.action,
                        would: None,
                    }),
                );
                return Err((Stage::Firewall, refusal.reason()));
            }
            trace.add(
                Stage::Deliver,
                match verdict {
                    crate::Verdict::Deliver(to) => Finding::Delivered(to),
                    _ => Finding::Flooded,
                },
            );
            return Ok(());
        }
    };
    let (to, destination) = resolve(snapshot, sender, frame, ip.v6).map_err(at)?;
    if cut.largest > sender.largest_frame() {
        return Err(at(DropReason::OverMtu));
    }
    if sender.is_judged() || destination.is_judged() {
        let mut lane = Lane::default();
        lane.fill(context, frame, ip, cut).map_err(at)?;
        trace.key = Some(lane.flow_key());
        let known = lane.known(context);
        let record = known.map(|(entry, _)| context.flows.record(entry, &lane.key, context.now));
        match known.zip(record) {
            Some(((_, seen), record)) if seen.epoch == snapshot.epoch() => {
                trace.add(Stage::Flow, Finding::Known(record));
            }
            other => {
                match other {
                    Some((_, record)) => trace.add(Stage::Flow, Finding::Stale(record)),
                    None => {
                        first_state(context, frame, &lane).map_err(at)?;
                        trace.add(Stage::Flow, Finding::New);
                    }
                }
                let asked = ask(context, frame, &lane, destination, lane.side);
                let judgement = firewall::judge(snapshot.policy(), &asked, &Kept::default());
                explain(context, trace, &asked.ends(), (context.port, to), &judgement);
                if let Some(refusal) = judgement.refused {
                    return Err((Stage::Firewall, refusal.reason()));
                }
            }
        }
    }
    trace.add(Stage::Deliver, Finding::Delivered(to));
    Ok(())
}

/// One step for each port that was asked, and for each that was not.
fn explain(
    context: &Context<'_>,
    trace: &mut Trace,
    endpoints: &[Endpoint; 2],
    (from, to): (PortIndex, PortIndex),
    judgement: &Judgement,
) {
    for (direction, port) in [(Direction::Out, from), (Direction::In, to)] {
        let finding = match judgement.decisions[firewall::place(direction)] {
            Some(decision) => Finding::Asked(Answer {
                port,
                direction,
                endpoints: *endpoints,
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
}
