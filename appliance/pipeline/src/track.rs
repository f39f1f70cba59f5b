//! The flow stage: to which connection does a packet belong?
//!
//! A burst goes through it in steps, so that cache misses of different packets overlap: every packet's key is hashed and
//! its bucket drawn near, then every bucket searched and the entry drawn near, then each packet is judged in order. What
//! belongs to a flow that was judged under this snapshot goes where the flow goes. All else is asked of the firewall.

mod icmp;
mod lately;
mod set_up;

use wire::icmp::Query;
use wire::{ipv4, ipv6, tcp};

use crate::conntrack::datagram::Datagram;
use crate::conntrack::tcp::{Segment, Tcp};
use crate::conntrack::{self, Change};
use crate::deliver::{self, Way};
use crate::firewall;
use crate::flow::{Entry, Flags, FlowKey, Key, Place, Seen, Side};
use crate::from_port::Context;
use crate::from_underlay::{self, Arrival, Common};
use crate::offload::Cut;
use crate::parse::{Fragment, Ip, Packet};
use crate::policy::{Direction, Endpoint};
use crate::report::{Event, Origin};
use crate::router;
use crate::workspace::BURST;
use crate::{
    DropReason, FlowTable, Frame, NetworkIndex, Port, PortIndex, Report, Verdict, Workspace, fragmented,
    header, route,
};
use core::net::IpAddr;

pub(crate) use icmp::related;
pub(crate) use lately::Lately;
pub(crate) use set_up::{begins_anew, judge_known, propose, track_copy};

/// What a frame's verdict is until its lane is judged.
const PENDING: Verdict = Verdict::Drop(DropReason::StateLimit);

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

/// Who sent an arrived packet that has a lane: what differs between the packets of a burst from other hosts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Remote {
    port: PortIndex,
    network: NetworkIndex,
    claimed: Option<Endpoint>,
    origin: Origin,
    /// Its host has routed it here from another network.
    routed: bool,
}

impl Default for Remote {
    fn default() -> Self {
        let (port, network) = (PortIndex(0), NetworkIndex(0));
        Self { port, network, claimed: None, origin: Origin::Stranger, routed: false }
    }
}

impl Remote {
    pub(crate) fn new(context: &Context<'_>, routed: bool) -> Self {
        let Context { port, network, claimed, origin, .. } = *context;
        Self { port, network, claimed, origin, routed }
    }

    fn context<'a>(&self, all: &Common<'a>) -> Context<'a> {
        let Common { snapshot, flows, state, now, millis } = *all;
        let Self { port, network, claimed, origin, .. } = *self;
        let sender = snapshot.port(port);
        Context { snapshot, flows, origin, port, sender, network, claimed, state, now, millis }
    }
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
    /// Another ICMP message that is no error and has no answer: the key's destination port is type and code, the source
    /// port 0, so that it is no query's and not that of a message back.
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
        // Looked at where it lies: a copy that was just made in pieces would be waited for.
        Packet::Ip(ip) if !header::to_group(frame.head) => ip,
        _ => return for_many(context, frame, packet, &cut, &mut work.report),
    };
    if ip.fragment != Fragment::Whole {
        match fragmented::admit(context, place, frame, ip, work) {
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
        ip: &Ip,
        cut: Cut,
    ) -> Result<(), DropReason> {
        (self.ip, self.cut) = (*ip, cut);
        let ports = match (ip.protocol, ip.fragment) {
            (ipv4::TCP, Fragment::Whole) => {
                self.kind = Kind::Tcp;
                Some(header::double_word(frame.head, ip.transport()))
            }
            (ipv4::UDP, Fragment::Whole) => {
                self.kind = Kind::Datagram;
                Some(header::double_word(frame.head, ip.transport()))
            }
            _ => unusual(context, frame, self)?,
        };
        if let Some(ports) = ports {
            let domain = domain(context, frame, ip.v6);
            (self.key, self.side) = Key::of(frame.head, domain, ip.v6, ip.protocol, ports);
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

    /// The port that the flow went to when it was judged, in that snapshot.
    #[inline(always)]
    pub(crate) fn destination(&self, seen: &Seen) -> PortIndex {
        PortIndex(seen.ports[self.side.other().index()])
    }

    /// Whether it is an ICMP error.
    #[inline(always)]
    pub(crate) fn is_error(&self) -> bool {
        matches!(self.kind, Kind::Error(_))
    }

    /// Who wants to talk to whom, as this packet says.
    pub(crate) fn flow_key(&self) -> FlowKey {
        self.key.unpack(self.side)
    }
}

/// The number of the domain that a packet's flow is told apart in.
#[inline(always)]
fn domain(context: &Context<'_>, frame: &Frame<'_>, v6: bool) -> u16 {
    let sender = context.sender;
    if sender.is_routed() && header::has_link_local(frame.head, v6) {
        return sender.network().0;
    }
    sender.domain()
}

/// The same of a packet between these addresses.
fn domain_between(port: &Port, source: IpAddr, destination: IpAddr) -> u16 {
    let of_one_link = router::is_link_local(source) || router::is_link_local(destination);
    if of_one_link { port.network().0 } else { port.domain() }
}

/// How ICMP, fragments and other protocols are tracked, and what stands for their ports; `None` when that is not all, and
/// the lane has its key.
#[cold]
fn unusual(context: &Context<'_>, frame: &Frame<'_>, lane: &mut Lane) -> Result<Option<u32>, DropReason> {
    let ip = lane.ip;
    lane.kind = Kind::Datagram;
    let at = ip.transport();
    match (ip.protocol, ip.fragment) {
        // Follows its first and has no lane; only a trace comes here.
        (_, Fragment::Later(_)) => Err(DropReason::FragmentTimeout),
        (ipv4::TCP, _) => {
            lane.kind = Kind::Tcp;
            Ok(Some(header::double_word(frame.head, at)))
        }
        (ipv4::UDP | ipv4::SCTP, _) => Ok(Some(header::double_word(frame.head, at))),
        (ipv4::ICMP, _) if !ip.v6 => icmp::fill(context, frame, lane),
        (ipv6::ICMPV6, _) if ip.v6 => icmp::fill(context, frame, lane),
        _ => Ok(Some(0)),
    }
}

/// Judges every packet that has a lane.
#[inline]
pub(crate) fn track(
    context: &Context<'_>,
    frames: &mut [Frame<'_>],
    verdicts: &mut [Verdict],
    work: &mut Workspace,
) {
    let (lanes, lately, report) = work.lanes();
    search(context.flows, lanes);
    for lane in lanes {
        if let (Some(frame), Some(verdict)) = (frames.get_mut(lane.frame), verdicts.get_mut(lane.frame)) {
            *verdict = match established(context, frame, lane) {
                Some(to) => Verdict::Deliver(to),
                None => set_up::look_closer(context, frame, lane, lately, report),
            };
        }
    }
    if !work.firsts.is_empty() || !work.refused.is_empty() {
        let from = |place: usize| frames.get(place).map(|frame| (context.origin, *frame.len));
        fragmented::settle(context.snapshot, context.state, from, verdicts, work);
    }
    // What is left waits beyond this burst.
    work.waiting.clear();
}

/// The same for a burst from other hosts, whose packets have each their own sender.
#[inline]
pub(crate) fn track_arrivals(
    all: &Common<'_>,
    arrivals: &mut [Arrival<'_>],
    verdicts: &mut [Verdict],
    work: &mut Workspace,
) {
    work.lately.forget();
    let lanes = work.lanes.get_mut(..work.count).unwrap_or_default();
    search(all.flows, lanes);
    for lane in lanes {
        let place = lane.frame;
        let (Some(arrival), Some(verdict), Some(remote)) =
            (arrivals.get_mut(place), verdicts.get_mut(place), work.remotes.get(place))
        else {
            continue;
        };
        let (context, frame) = (remote.context(all), &mut arrival.frame);
        *verdict = match established(&context, frame, lane) {
            Some(to) => Verdict::Deliver(to),
            None => set_up::look_closer(&context, frame, lane, &mut work.lately, &mut work.report),
        };
        if remote.routed && matches!(verdict, Verdict::Refuse(_)) {
            from_underlay::send_back(&context, frame);
        }
    }
    if !work.firsts.is_empty() || !work.refused.is_empty() {
        let origins = core::array::from_fn::<Origin, BURST, _>(|place| work.remotes[place].origin);
        let from = |place: usize| Some((*origins.get(place)?, *arrivals.get(place)?.frame.len));
        fragmented::settle(all.snapshot, all.state, from, verdicts, work);
    }
    work.waiting.clear();
}

/// Finds the entries of all lanes, in steps.
#[inline(always)]
fn search(flows: &FlowTable, lanes: &mut [Lane]) {
    for lane in &mut *lanes {
        lane.drawn = flows.touch(lane.place);
    }
    for lane in &mut *lanes {
        lane.entry = flows.find(lane.place);
    }
    for lane in &mut *lanes {
        lane.drawn = lane.entry.and_then(|number| flows.entry(number)).map_or(0, Entry::touch);
    }
}

/// Where a packet goes that changes nothing: its flow was judged under this snapshot, was heard from both sides and is
/// not over. What goes through the gateway is rewritten.
#[inline(always)]
fn established(context: &Context<'_>, frame: &mut Frame<'_>, lane: &Lane) -> Option<PortIndex> {
    if lane.is_error() {
        return None;
    }
    let entry = context.flows.entry(lane.entry?)?;
    let seen = entry.read(&lane.key)?;
    let to = lane.destination(&seen);
    let destination = context.snapshot.port_if_any(to)?;
    let same = seen.epoch == context.snapshot.epoch()
        && lane.cut.largest <= context.sender.largest_frame().min(destination.reach())
        && !seen.flags.is_revoked()
        && !context.flows.is_silent(entry, seen.flags, context.millis);
    if !same {
        return None;
    }
    // MACs of one network are nothing in another: a frame goes to a port of its own, or through the gateway to one of
    // another. What the router sends back into the network is found anew each time.
    let near = destination.network() == context.network;
    let through_gateway = if near && destination.mac_number() == header::destination_mac(frame.head) {
        false
    } else if !near && route::is_asked(context, frame) && header::time_to_live(frame.head, lane.ip.v6) > 1 {
        true
    } else {
        return None;
    };
    if lane.kind == Kind::Tcp {
        track_tcp(frame, lane, entry, &seen)?;
    } else if Datagram::from_number(seen.state as u8).track(sender_of(lane, seen.flags)) != Change::None {
        return None;
    }
    entry.count(lane.side, lane.cut.packets, lane.cut.bytes, context.millis);
    if through_gateway {
        route::rewrite(frame, lane.ip.v6, destination);
    }
    Some(to)
}

/// Follows a connection's windows, if that is all that the segment changes; otherwise changes nothing.
#[inline(always)]
fn track_tcp(frame: &Frame<'_>, lane: &Lane, entry: Entry<'_>, seen: &Seen) -> Option<()> {
    let segment = segment(frame, &lane.ip).ok()?;
    // What it says of the largest segment may have to be lowered, again if it is sent again.
    if segment.kind.opens() {
        return None;
    }
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
    let verdict = match deliver::deliver(context, frame, packet, cut) {
        Ok(Way::Many) => Verdict::Flood,
        Ok(Way::One(target)) => Verdict::Deliver(target.index),
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
