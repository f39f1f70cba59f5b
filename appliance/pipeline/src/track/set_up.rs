//! What is not plain in the flow stage: flows that begin, change, are over, or have to be judged again.

use wire::ipv4;

use super::lately::{Lately, Question, Said};
use super::{Kind, Lane, icmp, segment, sender_of};
use crate::conntrack::tcp::{self, Tcp};
use crate::conntrack::{Change, tcp::Segment};
use crate::deliver::{self, Target, resolve};
use crate::firewall::{self, Asked, End, Ends, Judgement, Kept, Refusal};
use crate::flow::{Entry, Flags, New, Refused, Seen, Side, State};
use crate::from_port::Context;
use crate::parse::Message;
use crate::policy::{Action, Service};
use crate::{
    DropReason, Ending, Event, FlowStart, Frame, Port, PortIndex, Report, Verdict, header, rate, refuse,
};

/// How often a flow may be made or ended by others while a packet of it is looked at.
const ATTEMPTS: usize = 4;

/// Everything that is not plain.
#[cold]
#[inline(never)]
pub(super) fn look_closer(
    context: &Context<'_>,
    frame: &mut Frame<'_>,
    lane: &Lane,
    lately: &mut Lately,
    report: &mut Report,
) -> Verdict {
    let found = resolve(context, frame, &lane.ip);
    let judged = found.and_then(|target| {
        target.fits(context.sender, &lane.cut)?;
        let verdict = closer(context, frame, lane, &target, lately, report)?;
        if let Verdict::Deliver(_) = verdict {
            target.finish(context, frame, &lane.ip);
        }
        Ok(verdict)
    });
    judged.unwrap_or_else(|reason| context.dropped_of(reason, frame, lane, report))
}

fn closer(
    context: &Context<'_>,
    frame: &mut Frame<'_>,
    lane: &Lane,
    target: &Target<'_>,
    lately: &mut Lately,
    report: &mut Report,
) -> Result<Verdict, DropReason> {
    let flows = context.flows;
    let (to, destination) = (target.index, target.port);
    if lane.is_error() {
        return icmp::related(context, lane, destination).map(|()| Verdict::Deliver(to));
    }
    // Like ARP: the guard has seen to it, and rules say nothing about it.
    if lane.ip.message == Message::NeighbourAdvertisement {
        return Ok(Verdict::Deliver(to));
    }
    for _ in 0..ATTEMPTS {
        // Looked for again: an earlier packet of the burst, or another worker, may have made it.
        let found = flows.find(lane.place).and_then(|number| Some((number, flows.entry(number)?)));
        let Some((number, entry, seen)) =
            found.and_then(|(number, entry)| Some((number, entry, entry.read(&lane.key)?)))
        else {
            match set_up(context, frame, lane, (to, destination), lately, report)? {
                Some(verdict) => return Ok(verdict),
                None => continue,
            }
        };
        let end = |why, report: &mut Report| {
            let ended = |record: &_, why| report.add(Event::FlowEnded(*record, why));
            flows.remove(lane.place, number, seen.version, context.now, why, ended);
        };
        if flows.is_silent(entry, seen.flags, context.millis) {
            end(Ending::TimedOut, report);
            continue;
        }
        let revoked = seen.flags.is_revoked();
        if revoked && begins_anew(frame, lane) {
            end(Ending::Revoked, report);
            continue;
        }
        let judged = seen.epoch == context.snapshot.epoch() && lane.destination(&seen) == to && !revoked;
        if !judged {
            let (judgement, _) = judge_known(context, frame, lane, entry, &seen, destination);
            audit(context, frame, lane, &judgement, report);
            if let Some(refusal) = &judgement.refused {
                match lane.kind {
                    Kind::Tcp if revoked => entry.heard(context.millis),
                    Kind::Tcp => {
                        let ended = |record: &_, why| report.add(Event::FlowEnded(*record, why));
                        flows.revoke(lane.place, number, seen.version, context.now, ended);
                    }
                    _ => end(Ending::Revoked, report),
                }
                return Ok(refuse(context, frame, lane, refusal, report));
            }
            note_judgement(context, lane, entry, &seen, to, &judgement);
            if revoked {
                if !flows.restore(lane.place, number, seen.version, context.millis) {
                    continue;
                }
                report.add(Event::FlowStarted(FlowStart::of(entry, &lane.key, context.now)));
            }
        }
        match advance(context, frame, lane, number, entry, &seen)? {
            Advance::On => {
                entry.count(lane.side, lane.cut.packets, lane.cut.bytes, context.millis);
                return Ok(Verdict::Deliver(to));
            }
            Advance::Over => end(Ending::Closed, report),
            Advance::Again => {}
        }
    }
    Err(DropReason::StateLimit)
}

/// What a packet does to its flow.
enum Advance {
    /// It goes on.
    On,
    /// It is over, and the packet begins another of the same key.
    Over,
    /// Somebody else changed it: look again.
    Again,
}

/// Follows the flow's state, and moves it to where its class belongs when that changes.
fn advance(
    context: &Context<'_>,
    frame: &Frame<'_>,
    lane: &Lane,
    number: u32,
    entry: Entry<'_>,
    seen: &Seen,
) -> Result<Advance, DropReason> {
    let Some(locked) = entry.lock(seen.version) else { return Ok(Advance::Again) };
    let flags = entry.flags();
    let (state, change) = step(frame, lane, flags, State::from_words(lane.ip.protocol, locked.state()))?;
    if change == Change::Reopens {
        return Ok(Advance::Over);
    }
    locked.set_state(state.to_words());
    let moved = flags.with_state(state);
    if moved != flags {
        locked.set_flags(moved);
        drop(locked);
        context.flows.reclass(lane.place, number, seen.version, context.millis);
    }
    Ok(Advance::On)
}

/// What [`advance`] would do, without doing it.
pub(crate) fn track_copy(
    frame: &Frame<'_>,
    lane: &Lane,
    entry: Entry<'_>,
    seen: &Seen,
) -> Result<Change, DropReason> {
    let state = State::from_words(lane.ip.protocol, entry.state());
    step(frame, lane, seen.flags, state).map(|(_, change)| change)
}

fn step(
    frame: &Frame<'_>,
    lane: &Lane,
    flags: Flags,
    mut state: State,
) -> Result<(State, Change), DropReason> {
    let sender = sender_of(lane, flags);
    let change = match &mut state {
        State::Tcp(tcp) => tcp.track(sender, &segment(frame, &lane.ip)?)?,
        State::Datagram(datagram, _) => datagram.track(sender),
    };
    Ok((state, change))
}

/// Whether a packet asks for another connection, whatever became of the last between these ends.
pub(crate) fn begins_anew(frame: &Frame<'_>, lane: &Lane) -> bool {
    let asks = |segment: Segment| segment.kind == tcp::Kind::Syn;
    lane.kind != Kind::Tcp || segment(frame, &lane.ip).is_ok_and(asks)
}

/// A flow as it would begin.
pub(crate) struct Proposal {
    pub(crate) judgement: Judgement,
    /// Who source and destination were taken for, by direction.
    pub(crate) ends: [Ends; 2],
    state: State,
    initiator: Side,
}

/// What would become of a packet that belongs to no flow.
///
/// # Errors
/// No flow begins with it.
pub(crate) fn propose(
    context: &Context<'_>,
    frame: &Frame<'_>,
    lane: &Lane,
    (to, destination): (PortIndex, &Port),
    lately: &mut Lately,
) -> Result<Proposal, DropReason> {
    let state = first_state(context, frame, lane)?;
    let addresses = header::addresses(frame.head, lane.ip.v6);
    let from = (context.port, context.claimed);
    let question = Question { from, to, addresses, service: service(frame, lane, lane.side) };
    let Said { judgement, ends } =
        lately.answer(&question, || say(context, frame, lane, destination, lane.side));
    let proposal = Proposal { judgement, ends, state, initiator: lane.side };
    if proposal.judgement.refused.is_none() || !proposal.was_picked_up() {
        return Ok(proposal);
    }
    // In the middle of a connection nobody can tell who began it: either may have.
    let other = say(context, frame, lane, destination, lane.side.other());
    if other.judgement.refused.is_some() {
        return Ok(proposal);
    }
    Ok(Proposal { judgement: other.judgement, ends: other.ends, ..proposal.reversed() })
}

impl Proposal {
    fn was_picked_up(&self) -> bool {
        matches!(self.state, State::Tcp(tcp) if tcp.was_picked_up())
    }

    /// The same flow, begun by its other end.
    fn reversed(mut self) -> Self {
        if let State::Tcp(tcp) = &mut self.state {
            *tcp = tcp.reversed();
        }
        Self { initiator: self.initiator.other(), ..self }
    }
}

/// What the firewall says of a flow that `initiator` begins.
fn say(context: &Context<'_>, frame: &Frame<'_>, lane: &Lane, destination: &Port, initiator: Side) -> Said {
    let asked = ask(context, frame, lane, destination, initiator);
    let judgement = firewall::judge(context.snapshot.policy(), &asked, &Kept::default());
    Said { judgement, ends: asked.ends() }
}

/// Asks the firewall about a packet that belongs to no flow, and makes one. `None` when somebody else just did.
fn set_up(
    context: &Context<'_>,
    frame: &mut Frame<'_>,
    lane: &Lane,
    (to, destination): (PortIndex, &Port),
    lately: &mut Lately,
    report: &mut Report,
) -> Result<Option<Verdict>, DropReason> {
    let Proposal { judgement, state, initiator, .. } =
        propose(context, frame, lane, (to, destination), lately)?;
    audit(context, frame, lane, &judgement, report);
    if let Some(refusal) = &judgement.refused {
        return Ok(Some(refuse(context, frame, lane, refusal, report)));
    }
    let new = New {
        key: lane.key,
        epoch: context.snapshot.epoch(),
        ports: ports(context, lane, to),
        flags: Flags::new(initiator, state).with_judgement(judgement.by.keep, judgement.log),
        rules: judgement.by.rules,
        now: context.millis,
        state: state.to_words(),
        sent: (lane.side, lane.cut.packets, lane.cut.bytes),
    };
    let ended = |record: &_, why| report.add(Event::FlowEnded(*record, why));
    let number = match context.flows.insert(lane.place, &new, context.sender.slot(), context.now, ended) {
        Ok(number) => number,
        Err(Refused::Exists) => return Ok(None),
        Err(Refused::NoRoom) => return Err(DropReason::StateLimit),
    };
    if let Some(entry) = context.flows.entry(number) {
        report.add(Event::FlowStarted(FlowStart::of(entry, &lane.key, context.now)));
    }
    Ok(Some(Verdict::Deliver(to)))
}

/// The state of a flow that begins with this packet.
fn first_state(context: &Context<'_>, frame: &Frame<'_>, lane: &Lane) -> Result<State, DropReason> {
    match lane.kind {
        Kind::Tcp => Tcp::open(&segment(frame, &lane.ip)?, &context.flows.tcp()).map(State::Tcp),
        // A reply to a question that nobody asked, an error about a packet that nobody sent.
        kind if icmp::is_answer(kind) || lane.is_error() => Err(DropReason::IcmpUnrelated),
        Kind::Query(_) | Kind::Datagram | Kind::Icmp | Kind::Error(_) => {
            Ok(State::datagram(lane.ip.protocol))
        }
    }
}

/// What the firewall says of a flow, under another snapshot or towards another port. What a rule keeps is kept.
pub(crate) fn judge_known(
    context: &Context<'_>,
    frame: &Frame<'_>,
    lane: &Lane,
    entry: Entry<'_>,
    seen: &Seen,
    destination: &Port,
) -> (Judgement, [Ends; 2]) {
    let asked = ask(context, frame, lane, destination, seen.flags.initiator());
    let kept = Kept { rules: entry.rules(), keep: seen.flags.keep() };
    (firewall::judge(context.snapshot.policy(), &asked, &kept), asked.ends())
}

/// Writes down under which snapshot, by which rules and towards which port a flow is admitted.
fn note_judgement(
    context: &Context<'_>,
    lane: &Lane,
    entry: Entry<'_>,
    seen: &Seen,
    to: PortIndex,
    judgement: &Judgement,
) {
    if let Some(locked) = entry.lock(seen.version) {
        let flags = entry.flags().with_judgement(judgement.by.keep, judgement.log);
        locked.rejudged(context.snapshot.epoch(), ports(context, lane, to), judgement.by.rules, flags);
    }
}

/// The ports behind the key's ends.
fn ports(context: &Context<'_>, lane: &Lane, to: PortIndex) -> [u32; 2] {
    let mut ports = [0; 2];
    ports[lane.side.index()] = context.port.0;
    ports[lane.side.other().index()] = to.0;
    ports
}

/// What the firewall is asked about a packet's flow that `initiator` began.
fn ask<'a>(
    context: &Context<'a>,
    frame: &Frame<'_>,
    lane: &Lane,
    destination: &'a Port,
    initiator: Side,
) -> Asked<'a> {
    let (source, target) = header::addresses(frame.head, lane.ip.v6);
    let here = End::of(context.snapshot, context.sender, source).claiming(context.claimed);
    let there = End::of(context.snapshot, destination, target);
    let service = service(frame, lane, initiator);
    if initiator == lane.side {
        Asked { source: here, destination: there, service }
    } else {
        Asked { source: there, destination: here, service }
    }
}

/// What a packet's flow is for, if `initiator` began it.
#[inline]
fn service(frame: &Frame<'_>, lane: &Lane, initiator: Side) -> Service {
    let (protocol, port) = (lane.key.protocol(), lane.key.port(initiator.other()));
    match lane.kind {
        Kind::Query(_) => Service::icmp(protocol, icmp::question(icmp::kind(frame, &lane.ip), lane.ip.v6), 0),
        Kind::Icmp => {
            let [kind, code] = port.to_be_bytes();
            Service::icmp(protocol, kind, code)
        }
        Kind::Tcp | Kind::Datagram | Kind::Error(_) => match protocol {
            ipv4::TCP | ipv4::UDP | ipv4::SCTP => Service::port(protocol, port),
            protocol => Service::without_port(protocol),
        },
    }
}

/// Tells what audit policies would have done.
#[inline]
fn audit(context: &Context<'_>, frame: &Frame<'_>, lane: &Lane, judgement: &Judgement, report: &mut Report) {
    for would in judgement.audited.iter().flatten() {
        let key = lane.key.unpack(lane.side);
        report.add(Event::Audited(context.record(frame, Some(key), would)));
    }
}

/// Drops a packet that the firewall refuses, and answers where the rule says so.
fn refuse(
    context: &Context<'_>,
    frame: &mut Frame<'_>,
    lane: &Lane,
    refusal: &Refusal,
    report: &mut Report,
) -> Verdict {
    let key = lane.key.unpack(lane.side);
    report.add(Event::Dropped(context.record(frame, Some(key), refusal)));
    // RFC 1122, section 3.2.2: what was for many is never answered.
    let answered = refusal.action == Action::Reject
        && !deliver::is_for_many(context.snapshot, context.network, frame, lane.ip.v6)
        && rate::may_refuse(context.state, context.now)
        && refuse::refuse(frame, &lane.ip);
    if answered { Verdict::Refuse(refusal.reason()) } else { Verdict::Drop(refusal.reason()) }
}
