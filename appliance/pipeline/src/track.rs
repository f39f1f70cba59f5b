//! The flow stage: to which connection does a packet belong?
//!
//! A burst goes through it in steps, so that cache misses of different packets overlap: every packet's key is hashed and
//! its bucket drawn near, then every bucket searched and the entry drawn near, then each packet is judged in order. What
//! belongs to a flow that was judged under this snapshot goes where the flow goes. All else is asked of the firewall.

use wire::icmp::Query;
use wire::quote::Quote;
use wire::{icmp, ipv4, ipv6, tcp};

use crate::conntrack::datagram::Datagram;
use crate::conntrack::tcp::{Segment, Tcp};
use crate::conntrack::{self, Change};
use crate::deliver::{self, resolve};
use crate::firewall::{self, Asked, End, Judgement, Kept, Refusal};
use crate::flow::{Entry, Flags, FlowKey, Key, New, Place, Refused, Seen, Side, State};
use crate::from_port::Context;
use crate::offload::Cut;
use crate::parse::{Fragment, Ip, Packet};
use crate::policy::{Action, Direction, Service};
use crate::{
    DropReason, Ending, Event, Frame, Port, PortIndex, Report, Verdict, Workspace, fragmented, header, rate,
    refuse,
};

/// What a frame's verdict is until its lane is judged.
const PENDING: Verdict = Verdict::Drop(DropReason::StateLimit);
/// How often a flow may be made or ended by others while a packet of it is looked at.
const ATTEMPTS: usize = 4;

/// One packet in the flow stage.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Lane {
    /// The frame's place in the burst.
    frame: usize,
    pub(crate) ip: Ip,
    cut: Cut,
    pub(crate) key: Key,
    /// Which end of the key sent it.
    pub(crate) side: Side,
    kind: Kind,
    place: Place,
    /// What was read only to draw it near.
    drawn: u64,
    entry: Option<u32>,
}

/// How a packet is tracked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Kind {
    Tcp,
    /// UDP, SCTP and all protocols of which only the directions are told apart.
    #[default]
    Datagram,
    /// A question by ICMP, or its answer, told from others by its identifier.
    Query(Query),
    /// Another ICMP message that is no error: the key's ports are type and code.
    Icmp,
    /// An ICMP error: the key is that of the packet it quotes, the side that packet's sender, for whom the error is; with
    /// the quoted sequence number, of TCP.
    Error(Option<u32>),
}

/// Gives a packet a lane in the flow stage; its verdict comes with [`track`]. A frame for many is judged by itself.
#[inline(always)]
pub(crate) fn enter(
    context: &Context<'_>,
    place: usize,
    frame: &mut Frame<'_>,
    packet: &Packet,
    cut: Cut,
    work: &mut Workspace,
) -> Verdict {
    let ip = match packet {
        Packet::Ip(ip) if !header::to_group(frame.head) => *ip,
        _ => return for_many(context, frame, packet, &cut, &mut work.report),
    };
    if ip.fragment != Fragment::Whole {
        match fragmented::admit(context, place, frame, &ip, work) {
            Ok(None) => {}
            Ok(Some(verdict)) => return verdict,
            Err(reason) => return context.dropped(reason, frame, &mut work.report),
        }
    }
    let Some(lane) = work.next() else { return PENDING };
    lane.frame = place;
    match lane.fill(context, frame, ip, cut) {
        Ok(()) => PENDING,
        Err(reason) => {
            work.leave();
            context.dropped(reason, frame, &mut work.report)
        }
    }
}

impl Lane {
    /// Finds out what the packet is tracked by.
    #[inline(always)]
    pub(crate) fn fill(
        &mut self,
        context: &Context<'_>,
        frame: &Frame<'_>,
        ip: Ip,
        cut: Cut,
    ) -> Result<(), DropReason> {
        (self.ip, self.cut) = (ip, cut);
        let ports = match (ip.protocol, ip.fragment) {
            (ipv4::TCP, Fragment::Whole) => {
                self.kind = Kind::Tcp;
                header::double_word(frame.head, ip.transport())
            }
            (ipv4::UDP, Fragment::Whole) => {
                self.kind = Kind::Datagram;
                header::double_word(frame.head, ip.transport())
            }
            _ => unusual(context, frame, self)?,
        };
        if !matches!(self.kind, Kind::Error(_)) {
            (self.key, self.side) = Key::of(frame.head, context.sender.network(), ip.v6, ip.protocol, ports);
        }
        self.place = context.flows.place(&self.key);
        Ok(())
    }

    /// The flow that the packet belongs to, if there is one that is not over.
    pub(crate) fn known<'a>(&self, context: &Context<'a>) -> Option<(Entry<'a>, Seen)> {
        let entry = context.flows.find(self.place).and_then(|number| context.flows.entry(number))?;
        let seen = entry.read(&self.key)?;
        (!context.flows.is_silent(entry, seen.flags, context.millis)).then_some((entry, seen))
    }

    /// Who wants to talk to whom, as this packet says.
    pub(crate) fn flow_key(&self) -> FlowKey {
        self.key.unpack(self.side)
    }
}

/// How ICMP, fragments and other protocols are tracked, and what stands for their ports.
#[cold]
fn unusual(context: &Context<'_>, frame: &Frame<'_>, lane: &mut Lane) -> Result<u32, DropReason> {
    let ip = lane.ip;
    lane.kind = Kind::Datagram;
    let at = ip.transport();
    match (ip.protocol, ip.fragment) {
        // Follows its first and has no lane; only a trace comes here.
        (_, Fragment::Later(_)) => Err(DropReason::FragmentTimeout),
        (ipv4::TCP, _) => {
            lane.kind = Kind::Tcp;
            Ok(header::double_word(frame.head, at))
        }
        (ipv4::UDP | ipv4::SCTP, _) => Ok(header::double_word(frame.head, at)),
        (ipv4::ICMP, _) if !ip.v6 => icmp_ports(context, frame, lane),
        (ipv6::ICMPV6, _) if ip.v6 => icmp_ports(context, frame, lane),
        _ => Ok(0),
    }
}

fn icmp_ports(context: &Context<'_>, frame: &Frame<'_>, lane: &mut Lane) -> Result<u32, DropReason> {
    let (ip, at) = (lane.ip, lane.ip.transport());
    let kind = icmp_kind(frame, &ip);
    let twice = |word: u16| u32::from(word) << 16 | u32::from(word);
    let (query, error) = if ip.v6 {
        (icmp::v6::query(kind), icmp::v6::is_error(kind))
    } else {
        (icmp::v4::query(kind), icmp::v4::is_error(kind))
    };
    if let Some(query) = query {
        lane.kind = Kind::Query(query);
        return Ok(twice(header::word(frame.head, at + icmp::IDENTIFIER_OFFSET)));
    }
    if !error {
        lane.kind = Kind::Icmp;
        return Ok(twice(header::word(frame.head, at)));
    }
    let end = (ip.end as usize).min(usize::from(*frame.head_len));
    let quoted = frame.head.get(at + icmp::HEADER_LEN..end).unwrap_or_default();
    let quote = Quote::parse(ip.v6, quoted).map_err(|_| DropReason::IcmpUnrelated)?;
    lane.kind = Kind::Error(quote.sequence);
    // The error goes to the one whose packet it quotes, or it is about nobody's packet.
    let (_, destination) = header::addresses(frame.head, ip.v6);
    if quote.source != destination {
        return Err(DropReason::IcmpUnrelated);
    }
    let ports = u32::from(quote.source_port) << 16 | u32::from(quote.destination_port);
    let network = context.sender.network();
    (lane.key, lane.side) = Key::between(network, quote.protocol, quote.source, quote.destination, ports)
        .ok_or(DropReason::IcmpUnrelated)?;
    Ok(ports)
}

/// Judges every packet that has a lane.
#[inline]
pub(crate) fn track(
    context: &Context<'_>,
    frames: &mut [Frame<'_>],
    verdicts: &mut [Verdict],
    work: &mut Workspace,
) {
    let (lanes, report) = work.lanes();
    for lane in &mut *lanes {
        lane.drawn = context.flows.touch(lane.place);
    }
    for lane in &mut *lanes {
        lane.entry = context.flows.find(lane.place);
    }
    for lane in &mut *lanes {
        lane.drawn = lane.entry.and_then(|number| context.flows.entry(number)).map_or(0, Entry::touch);
    }
    for lane in lanes {
        if let (Some(frame), Some(verdict)) = (frames.get_mut(lane.frame), verdicts.get_mut(lane.frame)) {
            *verdict = match established(context, frame, lane) {
                Some(to) => Verdict::Deliver(to),
                None => look_closer(context, frame, lane, report),
            };
        }
    }
    if !work.firsts.is_empty() || !work.refused.is_empty() {
        fragmented::settle(context, frames, verdicts, work);
    }
    // What is left waits beyond this burst.
    work.waiting.clear();
}

/// Where a packet goes that changes nothing: its flow was judged under this snapshot, was heard from both sides and is
/// not over.
#[inline(always)]
fn established(context: &Context<'_>, frame: &Frame<'_>, lane: &Lane) -> Option<PortIndex> {
    if matches!(lane.kind, Kind::Error(_)) {
        return None;
    }
    let entry = context.flows.entry(lane.entry?)?;
    let seen = entry.read(&lane.key)?;
    let to = PortIndex(seen.ports[lane.side.other().index()]);
    let destination = context.snapshot.port_if_any(to)?;
    let same = seen.epoch == context.snapshot.epoch()
        && destination.mac_number() == header::destination_mac(frame.head)
        && lane.cut.largest <= context.sender.largest_frame()
        && !context.flows.is_silent(entry, seen.flags, context.millis);
    if !same {
        return None;
    }
    if lane.kind == Kind::Tcp {
        track_tcp(frame, lane, entry, &seen)?;
    } else if Datagram::from_number(seen.state as u8).track(sender_of(lane, seen.flags)) != Change::None {
        return None;
    }
    entry.count(lane.side, lane.cut.packets, lane.cut.bytes, context.millis);
    Some(to)
}

/// Follows a connection's windows, if that is all that the segment changes; otherwise changes nothing.
#[inline(always)]
fn track_tcp(frame: &Frame<'_>, lane: &Lane, entry: Entry<'_>, seen: &Seen) -> Option<()> {
    let segment = segment(frame, &lane.ip).ok()?;
    let locked = entry.lock(seen.version)?;
    let (words, rest) = locked.state();
    let mut tcp = Tcp::from_words(words, rest);
    if tcp.track(sender_of(lane, seen.flags), &segment).ok()? != Change::None {
        return None;
    }
    locked.set_state(tcp.to_words());
    Some(())
}

/// Which end of its flow sent a packet.
#[inline(always)]
fn sender_of(lane: &Lane, flags: Flags) -> conntrack::Side {
    if lane.side == flags.initiator() { conntrack::Side::Initiator } else { conntrack::Side::Responder }
}

#[inline(always)]
fn segment(frame: &Frame<'_>, ip: &Ip) -> Result<Segment, DropReason> {
    let end = usize::from(*frame.head_len).min(ip.end as usize);
    let header = frame.head.get(ip.transport()..end).ok_or(DropReason::MalformedTransport)?;
    let header_len = header.get(tcp::DATA_OFFSET).map_or(0, |byte| u32::from(byte >> 4) * 4);
    let segment = Segment::parse(header, ip.end.saturating_sub(u32::from(ip.transport) + header_len))?;
    Ok(Segment { partial: ip.fragment != Fragment::Whole, ..segment })
}

/// Everything that is not plain.
#[cold]
#[inline(never)]
fn look_closer(context: &Context<'_>, frame: &mut Frame<'_>, lane: &Lane, report: &mut Report) -> Verdict {
    match closer(context, frame, lane, report) {
        Ok(verdict) => verdict,
        Err(reason) => context.dropped_of(reason, frame, lane, report),
    }
}

fn closer(
    context: &Context<'_>,
    frame: &mut Frame<'_>,
    lane: &Lane,
    report: &mut Report,
) -> Result<Verdict, DropReason> {
    let flows = context.flows;
    if lane.cut.largest > context.sender.largest_frame() {
        return Err(DropReason::OverMtu);
    }
    let (to, destination) = resolve(context.snapshot, context.sender, frame, lane.ip.v6)?;
    if matches!(lane.kind, Kind::Error(_)) {
        return related(context, lane, to);
    }
    for _ in 0..ATTEMPTS {
        // Looked for again: an earlier packet of the burst, or another worker, may have made it.
        let found = flows.find(lane.place).and_then(|number| Some((number, flows.entry(number)?)));
        let Some((number, entry, seen)) =
            found.and_then(|(number, entry)| Some((number, entry, entry.read(&lane.key)?)))
        else {
            match set_up(context, frame, lane, (to, destination), report)? {
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
        let there = PortIndex(seen.ports[lane.side.other().index()]);
        let judged = seen.epoch == context.snapshot.epoch() && there == to;
        if !judged
            && let Err(refusal) = judge_again(context, frame, lane, entry, &seen, (to, destination), report)
        {
            end(Ending::Revoked, report);
            return Ok(refuse(context, frame, lane, &refusal, report));
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
    let mut state = State::from_words(lane.ip.protocol, locked.state());
    let change = match &mut state {
        State::Tcp(tcp) => tcp.track(sender_of(lane, flags), &segment(frame, &lane.ip)?)?,
        State::Datagram(datagram, _) => datagram.track(sender_of(lane, flags)),
    };
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

/// An ICMP error passes when the packet that it quotes belongs to a flow, and comes from who that packet was for.
fn related(context: &Context<'_>, lane: &Lane, to: PortIndex) -> Result<Verdict, DropReason> {
    let unrelated = DropReason::IcmpUnrelated;
    let (entry, seen) = lane.known(context).ok_or(unrelated)?;
    // RFC 5927, section 4.1: who guesses a connection's ports should not be able to end it.
    if let Kind::Error(Some(sequence)) = lane.kind {
        let locked = entry.lock(seen.version).ok_or(unrelated)?;
        let State::Tcp(tcp) = State::from_words(lane.key.protocol(), locked.state()) else {
            return Err(unrelated);
        };
        if !tcp.has_sent(sender_of(lane, seen.flags), sequence) {
            return Err(unrelated);
        }
    }
    let (asked, _) = lane.key.unpack(lane.side).destination;
    let owner = context.snapshot.neighbour(context.sender.network(), asked);
    // What nobody on the network has was sent through one of its ports, which may say so.
    if owner.is_some_and(|owner| owner.port != Some(context.port)) {
        return Err(unrelated);
    }
    Ok(Verdict::Deliver(to))
}

/// Asks the firewall about a packet that belongs to no flow, and makes one. `None` when somebody else just did.
fn set_up(
    context: &Context<'_>,
    frame: &mut Frame<'_>,
    lane: &Lane,
    (to, destination): (PortIndex, &Port),
    report: &mut Report,
) -> Result<Option<Verdict>, DropReason> {
    let mut state = first_state(context, frame, lane)?;
    let picked_up = matches!(state, State::Tcp(tcp) if tcp.was_picked_up());
    let asked = ask(context, frame, lane, destination, lane.side);
    let policy = context.snapshot.policy();
    let mut judgement = firewall::judge(policy, &asked, &Kept::default());
    let mut initiator = lane.side;
    if judgement.refused.is_some() && picked_up {
        // In the middle of a connection nobody can tell who began it: either may have.
        let reversed = ask(context, frame, lane, destination, lane.side.other());
        let other = firewall::judge(policy, &reversed, &Kept::default());
        if other.refused.is_none() {
            (judgement, initiator) = (other, lane.side.other());
            if let State::Tcp(tcp) = &mut state {
                *tcp = tcp.reversed();
            }
        }
    }
    audit(context, frame, lane, &judgement, report);
    if let Some(refusal) = &judgement.refused {
        return Ok(Some(refuse(context, frame, lane, refusal, report)));
    }
    let mut ports = [0; 2];
    ports[lane.side.index()] = context.port.0;
    ports[lane.side.other().index()] = to.0;
    let new = New {
        key: lane.key,
        epoch: context.snapshot.epoch(),
        ports,
        flags: Flags::new(initiator, state).with_judgement(judgement.by.keep, judgement.log),
        rules: judgement.by.rules,
        now: context.millis,
        state: state.to_words(),
    };
    let ended = |record: &_, why| report.add(Event::FlowEnded(*record, why));
    let number = match context.flows.insert(lane.place, &new, context.sender.slot(), context.now, ended) {
        Ok(number) => number,
        Err(Refused::Exists) => return Ok(None),
        Err(Refused::NoRoom) => return Err(DropReason::StateLimit),
    };
    if let Some(entry) = context.flows.entry(number) {
        entry.count(lane.side, lane.cut.packets, lane.cut.bytes, context.millis);
        report.add(Event::FlowStarted(context.flows.record(entry, &lane.key, context.now)));
    }
    Ok(Some(Verdict::Deliver(to)))
}

/// The state of a flow that begins with this packet.
pub(crate) fn first_state(
    context: &Context<'_>,
    frame: &Frame<'_>,
    lane: &Lane,
) -> Result<State, DropReason> {
    match lane.kind {
        Kind::Tcp => Tcp::open(&segment(frame, &lane.ip)?, &context.flows.tcp()).map(State::Tcp),
        // A reply to a question that nobody asked, an error about a packet that nobody sent.
        Kind::Query(Query::Reply) | Kind::Error(_) => Err(DropReason::IcmpUnrelated),
        Kind::Query(Query::Request) | Kind::Datagram | Kind::Icmp => Ok(State::datagram(lane.ip.protocol)),
    }
}

/// Judges a flow again, under another snapshot or towards another port. What a rule keeps is kept.
fn judge_again(
    context: &Context<'_>,
    frame: &Frame<'_>,
    lane: &Lane,
    entry: Entry<'_>,
    seen: &Seen,
    (to, destination): (PortIndex, &Port),
    report: &mut Report,
) -> Result<(), Refusal> {
    let initiator = seen.flags.initiator();
    let asked = ask(context, frame, lane, destination, initiator);
    let kept = Kept { rules: entry.rules(), keep: seen.flags.keep() };
    let judgement = firewall::judge(context.snapshot.policy(), &asked, &kept);
    audit(context, frame, lane, &judgement, report);
    if let Some(refusal) = judgement.refused {
        return Err(refusal);
    }
    let mut ports = [0; 2];
    ports[lane.side.index()] = context.port.0;
    ports[lane.side.other().index()] = to.0;
    if let Some(locked) = entry.lock(seen.version) {
        let flags = entry.flags().with_judgement(judgement.by.keep, judgement.log);
        locked.rejudged(context.snapshot.epoch(), ports, judgement.by.rules, flags);
    }
    Ok(())
}

/// What the firewall is asked about a packet's flow that `initiator` began.
pub(crate) fn ask<'a>(
    context: &Context<'a>,
    frame: &Frame<'_>,
    lane: &Lane,
    destination: &'a Port,
    initiator: Side,
) -> Asked<'a> {
    let (source, target) = header::addresses(frame.head, lane.ip.v6);
    let end = |port: &'a Port, address, own| {
        let endpoint = match context.snapshot.neighbour(port.network(), address) {
            Some(neighbour) => neighbour.endpoint,
            // A port that gets what is for nobody here, to send it on, is judged as its workload.
            None if own => port.endpoint(),
            None => context.snapshot.policy().external(address),
        };
        End { port, endpoint }
    };
    let (here, there) = (end(context.sender, source, true), end(destination, target, false));
    let key = lane.key.unpack(initiator);
    let service = match lane.kind {
        Kind::Query(_) => Service::icmp(key.protocol, question(icmp_kind(frame, &lane.ip), lane.ip.v6), 0),
        Kind::Icmp => {
            let [kind, code] = key.destination.1.to_be_bytes();
            Service::icmp(key.protocol, kind, code)
        }
        Kind::Tcp | Kind::Datagram | Kind::Error(_) => match key.protocol {
            ipv4::TCP | ipv4::UDP | ipv4::SCTP => Service::port(key.protocol, key.destination.1),
            protocol => Service::without_port(protocol),
        },
    };
    if initiator == lane.side {
        Asked { source: here, destination: there, service }
    } else {
        Asked { source: there, destination: here, service }
    }
}

/// The ICMP type of the question that a message asks or answers.
fn question(kind: u8, v6: bool) -> u8 {
    match (v6, kind) {
        (true, icmp::v6::ECHO_REPLY) => icmp::v6::ECHO_REQUEST,
        (false, icmp::v4::ECHO_REPLY) => icmp::v4::ECHO_REQUEST,
        (false, icmp::v4::TIMESTAMP_REPLY) => icmp::v4::TIMESTAMP,
        _ => kind,
    }
}

fn icmp_kind(frame: &Frame<'_>, ip: &Ip) -> u8 {
    (header::word(frame.head, ip.transport()) >> 8) as u8
}

/// Tells what audit policies would have done.
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
    let answered = refusal.action == Action::Reject
        && rate::may_refuse(context.state, context.now)
        && refuse::refuse(frame, &lane.ip);
    if answered { Verdict::Refuse(refusal.reason()) } else { Verdict::Drop(refusal.reason()) }
}

/// A frame for many: the sender's rules decide about each, nothing is remembered. The receivers' rules are asked by
/// [`crate::admits`].
#[cold]
fn for_many(
    context: &Context<'_>,
    frame: &mut Frame<'_>,
    packet: &Packet,
    cut: &Cut,
    report: &mut Report,
) -> Verdict {
    let Context { snapshot, sender, .. } = *context;
    let verdict = match deliver::deliver(snapshot, sender, frame, packet, cut) {
        Ok(verdict) => verdict,
        Err(reason) => return context.dropped(reason, frame, report),
    };
    match firewall::flooded(snapshot, Direction::Out, sender, None, frame, packet) {
        None => verdict,
        Some(refusal) => {
            // RFC 1122, section 3.2.2: what was for many is never answered.
            report.add(Event::Dropped(context.record(frame, None, &refusal)));
            Verdict::Drop(refusal.reason())
        }
    }
}
