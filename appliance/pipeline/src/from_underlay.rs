//! The way of a frame from another host, as a table of contents.

use core::net::IpAddr;

use crate::decap::{self, Sender, Tunnelled, decap};
use crate::deliver::{self, Target, Way};
use crate::ecn;
use crate::from_port::Context;
use crate::host::{Ends, Location};
use crate::offload::{Cut, offload};
use crate::parse::{Packet, parse};
use crate::port_state::PortState;
use crate::report::{Event, Origin, note};
use crate::respond::respond;
use crate::route;
use crate::track::{self, track_arrivals};
use crate::workspace::BURST;
use crate::{DropReason, FlowTable, Frame, Instant, Snapshot, Verdict, Workspace};

/// A frame from another host.
#[derive(Debug)]
pub struct Arrival<'a> {
    /// The underlay address that it came from.
    pub source: IpAddr,
    /// Whether nobody else can have sent it from there: the underlay is declared trusted.
    pub trusted: bool,
    /// The two bits of congestion notification of the packet that it came in (RFC 3168).
    pub ecn: u8,
    /// The tunnel header, options included and nothing behind it: a private copy ([`wire::geneve::split`]).
    pub tunnel: &'a [u8],
    /// The frame inside, on which no offload is open.
    pub frame: Frame<'a>,
    /// Which ports it goes between, as far as that was found out. Set by [`from_underlay()`].
    pub ends: Ends,
}

/// Judges a burst of frames from other hosts: `verdicts[i]` becomes the fate of `arrivals[i]`. What is worth telling is added
/// to `work.report`, which the caller drains.
///
/// * `Deliver` names a port of this host, or, of a frame for a port that has just moved away, one of another: the frame
///   goes there in [`Snapshot::encapsulation`] from `ends.sender`.
/// * `Flood` means this host's ports alone.
/// * `Reply` and `Refuse` go back: to `ends.sender`, in [`Snapshot::encapsulation`] from `ends.receiver`.
/// * `Hold` keeps the frame inside. `state` is the underlay's own, made by [`PortState::of_underlay`], and its slots are.
///
/// All but the contents of `tunnel` and `frame` is the caller's and trusted. Arrivals beyond the length of `verdicts` are
/// left alone.
pub fn from_underlay(
    snapshot: &Snapshot,
    flows: &FlowTable,
    state: &PortState,
    now: Instant,
    arrivals: &mut [Arrival<'_>],
    verdicts: &mut [Verdict],
    work: &mut Workspace,
) {
    let all = Common { snapshot, flows, state, now, millis: now.as_millis() };
    for (arrivals, verdicts) in arrivals.chunks_mut(BURST).zip(verdicts.chunks_mut(BURST)) {
        work.count = 0;
        for (place, (arrival, verdict)) in arrivals.iter_mut().zip(verdicts.iter_mut()).enumerate() {
            arrival.ends = Ends::default();
            *verdict = match take(&all, arrival) {
                Ok((context, arrived)) => one(&context, place, arrival, &arrived, work),
                Err((origin, reason)) => {
                    let record = note(snapshot.revision(), origin, reason, None, *arrival.frame.len);
                    work.report.add(Event::Dropped(record));
                    Verdict::Drop(reason)
                }
            };
        }
        track_arrivals(&all, arrivals, verdicts, work);
    }
}

/// What all arrivals of a call have in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Common<'a> {
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) flows: &'a FlowTable,
    pub(crate) state: &'a PortState,
    pub(crate) now: Instant,
    pub(crate) millis: u32,
}

/// A frame that was taken out of its tunnel.
struct Arrived {
    tunnelled: Tunnelled,
    packet: Packet,
    sender: Sender,
}

/// Finds out who sent it, and whether its host may say so.
#[inline(always)]
fn take<'a>(
    all: &Common<'a>,
    arrival: &mut Arrival<'_>,
) -> Result<(Context<'a>, Arrived), (Origin, DropReason)> {
    let Common { snapshot, now, .. } = *all;
    let tunnelled = decap(snapshot, arrival)?;
    let refused = |reason| (Origin::Host(tunnelled.host), reason);
    let packet = parse(&arrival.frame).map_err(refused)?;
    let sender = decap::sender(snapshot, &tunnelled, now, &arrival.frame, &packet).map_err(refused)?;
    let port = snapshot.port(sender.port);
    let claimed = decap::identity(snapshot, &tunnelled, port, &arrival.frame, &packet).map_err(refused)?;
    ecn::combine(arrival.ecn, &mut arrival.frame, &packet).map_err(refused)?;
    arrival.ends.sender = Some(sender.port);
    let context = Context {
        snapshot,
        flows: all.flows,
        origin: Origin::Host(tunnelled.host),
        port: sender.port,
        sender: port,
        network: tunnelled.network,
        claimed,
        state: all.state,
        now,
        millis: all.millis,
    };
    Ok((context, Arrived { tunnelled, packet, sender }))
}

/// How far a frame gets without regard to others.
enum Alone {
    Decided(Verdict),
    Tracked(Cut),
}

#[inline(always)]
fn one(
    context: &Context<'_>,
    place: usize,
    arrival: &mut Arrival<'_>,
    arrived: &Arrived,
    work: &mut Workspace,
) -> Verdict {
    match judge_alone(context, arrival, arrived) {
        Ok(Alone::Decided(verdict)) => verdict,
        Ok(Alone::Tracked(cut)) => {
            work.note_remote(place, context, arrived.sender.routed);
            track::enter(context, place, &mut arrival.frame, &arrived.packet, cut, work)
        }
        Err(reason) => context.dropped(reason, &mut arrival.frame, &mut work.report),
    }
}

#[inline(always)]
fn judge_alone(
    context: &Context<'_>,
    arrival: &mut Arrival<'_>,
    arrived: &Arrived,
) -> Result<Alone, DropReason> {
    let Arrived { tunnelled, packet, sender } = arrived;
    let frame = &mut arrival.frame;
    let cut = offload(frame, packet)?;
    if !sender.routed && respond(context.snapshot, context.sender, frame, packet)? {
        return Ok(Alone::Decided(Verdict::Reply));
    }
    let target = match deliver::deliver(context, frame, packet, &cut)? {
        Way::Many => return Ok(Alone::Decided(Verdict::Flood)),
        Way::One(target) => target,
    };
    arrival.ends.receiver = Some(target.index);
    // What is routed here was sent to the gateway, whose port has no number.
    if !target.routed && tunnelled.header.port.is_some_and(|id| id != target.port.id()) {
        return Err(DropReason::StaleDestination);
    }
    if !target.port.is_local() {
        return pass_on(context, &target, tunnelled).map(Alone::Decided);
    }
    if target.port.is_judged() {
        return Ok(Alone::Tracked(cut));
    }
    if let Packet::Ip(ip) = packet {
        target.finish(context, frame, ip);
    }
    Ok(Alone::Decided(Verdict::Deliver(target.index)))
}

/// What is for a port that has just moved away follows it, once: there it counts as passed on from here, and goes no
/// further. It never goes back.
#[cold]
fn pass_on(context: &Context<'_>, target: &Target<'_>, tunnelled: &Tunnelled) -> Result<Verdict, DropReason> {
    let follows = target.port.moved_from(context.now) == Some(Location::Here)
        && target.port.host() != Some(tunnelled.host)
        && !target.routed;
    if follows { Ok(Verdict::Deliver(target.index)) } else { Err(DropReason::RemoteDestination) }
}

/// An answer to a frame that its host had routed goes back the same way: as one that the gateway of its sender sends.
#[cold]
pub(crate) fn send_back(context: &Context<'_>, frame: &mut Frame<'_>) {
    route::address(frame, context.sender);
}
