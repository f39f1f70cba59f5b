//! Where a frame goes.

use wire::ipv4;

use crate::from_port::Context;
use crate::mss;
use crate::offload::Cut;
use crate::parse::{Ip, Packet};
use crate::route::{self, route};
use crate::snapshot::mac_number;
use crate::{DropReason, Frame, NetworkIndex, Port, PortIndex, Snapshot, header};

const BROADCAST_V4: u32 = u32::MAX;

/// The port that a frame goes to, here or on another host.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target<'a> {
    pub(crate) index: PortIndex,
    pub(crate) port: &'a Port,
    /// Whether it goes there through the gateway.
    pub(crate) routed: bool,
}

/// Where a frame goes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Way<'a> {
    /// To everybody on the network.
    Many,
    /// To one.
    One(Target<'a>),
}

impl Target<'_> {
    /// What is done to a packet on its way there, once it is admitted and seldom enough to look closer.
    pub(crate) fn finish(&self, context: &Context<'_>, frame: &mut Frame<'_>, ip: &Ip) {
        if self.routed {
            route::rewrite(frame, ip.v6, self.port);
        }
        mss::clamp(context, frame, ip, self);
    }

    /// Whether a frame's largest packet fits on the way. The sender's own network is its own fault; what lies behind is
    /// not, and it is told.
    #[inline(always)]
    pub(crate) fn fits(&self, sender: &Port, cut: &Cut) -> Result<(), DropReason> {
        if cut.largest > sender.largest_frame() {
            return Err(DropReason::OverMtu);
        }
        if cut.largest > self.port.reach() { Err(DropReason::PathMtu) } else { Ok(()) }
    }
}

/// Looks the destination up. What nobody has is not flooded.
#[inline(always)]
pub(crate) fn deliver<'a>(
    context: &Context<'a>,
    frame: &Frame<'_>,
    packet: &Packet,
    cut: &Cut,
) -> Result<Way<'a>, DropReason> {
    if header::to_group(frame.head) {
        return flood(context, frame, packet, cut).map(|()| Way::Many);
    }
    let target = match packet {
        Packet::Ip(ip) if route::is_asked(context, frame) => route(context, frame, ip)?,
        _ => port_of(context, frame)?,
    };
    target.fits(context.sender, cut)?;
    Ok(Way::One(target))
}

/// The port that has the destination MAC.
#[inline(always)]
pub(crate) fn port_of<'a>(context: &Context<'a>, frame: &Frame<'_>) -> Result<Target<'a>, DropReason> {
    let mac = header::destination_mac(frame.head);
    let destination =
        context.snapshot.destination(context.network, mac).ok_or(DropReason::UnknownDestination)?;
    if destination.port == context.port {
        return Err(DropReason::ToItself);
    }
    if !destination.reachable {
        return Err(DropReason::RemoteDestination);
    }
    let port = context.snapshot.port(destination.port);
    Ok(Target { index: destination.port, port, routed: false })
}

/// The port that a packet goes to, and nobody else's: rules are found by the address and the frame is delivered by the
/// MAC, so a port may only get what is for its own addresses, or for an address that nobody on the network has. What is
/// sent to the gateway goes by its address.
pub(crate) fn resolve<'a>(
    context: &Context<'a>,
    frame: &Frame<'_>,
    ip: &Ip,
) -> Result<Target<'a>, DropReason> {
    if route::is_asked(context, frame) {
        return route(context, frame, ip);
    }
    let target = port_of(context, frame)?;
    let (_, address) = header::addresses(frame.head, ip.v6);
    let owner = context.snapshot.neighbour(context.network, address);
    if owner.is_some_and(|owner| mac_number(owner.mac) != header::destination_mac(frame.head)) {
        return Err(DropReason::DestinationMismatch);
    }
    Ok(target)
}

/// Everybody gets what is for everybody: a packet for one address in a frame for all would pass by whatever is decided
/// for that address.
#[cold]
pub(crate) fn flood(
    context: &Context<'_>,
    frame: &Frame<'_>,
    packet: &Packet,
    cut: &Cut,
) -> Result<(), DropReason> {
    if cut.largest > context.sender.largest_frame() {
        return Err(DropReason::OverMtu);
    }
    let for_many = match packet {
        Packet::Arp => true,
        Packet::Ip(ip) => is_for_many(context.snapshot, context.network, frame, ip.v6),
    };
    if for_many { Ok(()) } else { Err(DropReason::UnicastInMulticast) }
}

/// Whether an IP packet's destination is a group or a broadcast address.
pub(crate) fn is_for_many(snapshot: &Snapshot, network: NetworkIndex, frame: &Frame<'_>, v6: bool) -> bool {
    if v6 {
        return header::ipv6_destination(frame.head) >> 120 == 0xff;
    }
    let destination = header::ipv4_destination(frame.head);
    destination >> 28 == ipv4::MULTICAST_PREFIX
        || destination == BROADCAST_V4
        || snapshot.network(network).is_broadcast(destination)
}
