//! Where a frame goes.

use wire::ipv4;

use crate::offload::Cut;
use crate::parse::Packet;
use crate::snapshot::mac_number;
use crate::{DropReason, Frame, Port, PortIndex, Snapshot, Verdict, header};

const BROADCAST_V4: u32 = u32::MAX;

/// Looks the destination MAC up in the sender's network. What nobody has is not flooded.
#[inline(always)]
pub(crate) fn deliver(
    snapshot: &Snapshot,
    sender: &Port,
    frame: &Frame<'_>,
    packet: &Packet,
    cut: &Cut,
) -> Result<Verdict, DropReason> {
    if header::to_group(frame.head) {
        return flood(snapshot, sender, frame, packet, cut);
    }
    if cut.largest > sender.largest_frame() {
        return Err(DropReason::OverMtu);
    }
    port_of(snapshot, sender, frame).map(Verdict::Deliver)
}

/// The port that has the destination MAC.
#[inline(always)]
pub(crate) fn port_of(
    snapshot: &Snapshot,
    sender: &Port,
    frame: &Frame<'_>,
) -> Result<PortIndex, DropReason> {
    let mac = header::destination_mac(frame.head);
    let destination = snapshot.destination(sender.network(), mac).ok_or(DropReason::UnknownDestination)?;
    if mac == sender.mac_number() {
        return Err(DropReason::ToItself);
    }
    if !destination.local {
        return Err(DropReason::RemoteDestination);
    }
    Ok(destination.port)
}

/// The port that a packet goes to, and nobody else's: rules are found by the address and the frame is delivered by the
/// MAC, so a port may only get what is for its own addresses, or for an address that nobody on the network has.
pub(crate) fn resolve<'a>(
    snapshot: &'a Snapshot,
    sender: &Port,
    frame: &Frame<'_>,
    v6: bool,
) -> Result<(PortIndex, &'a Port), DropReason> {
    let to = port_of(snapshot, sender, frame)?;
    let (_, address) = header::addresses(frame.head, v6);
    let owner = snapshot.neighbour(sender.network(), address);
    if owner.is_some_and(|owner| mac_number(owner.mac) != header::destination_mac(frame.head)) {
        return Err(DropReason::DestinationMismatch);
    }
    Ok((to, snapshot.port(to)))
}

/// Everybody gets what is for everybody: a packet for one address in a frame for all would pass by whatever is decided
/// for that address.
#[cold]
pub(crate) fn flood(
    snapshot: &Snapshot,
    sender: &Port,
    frame: &Frame<'_>,
    packet: &Packet,
    cut: &Cut,
) -> Result<Verdict, DropReason> {
    if cut.largest > sender.largest_frame() {
        return Err(DropReason::OverMtu);
    }
    let for_many = match packet {
        Packet::Arp => true,
        Packet::Ip(ip) => is_for_many(snapshot, sender, frame, ip.v6),
    };
    if for_many { Ok(Verdict::Flood) } else { Err(DropReason::UnicastInMulticast) }
}

/// Whether an IP packet's destination is a group or a broadcast address.
pub(crate) fn is_for_many(snapshot: &Snapshot, sender: &Port, frame: &Frame<'_>, v6: bool) -> bool {
    if v6 {
        return header::ipv6_destination(frame.head) >> 120 == 0xff;
    }
    let destination = header::ipv4_destination(frame.head);
    destination >> 28 == ipv4::MULTICAST_PREFIX
        || destination == BROADCAST_V4
        || snapshot.network(sender.network()).is_broadcast(destination)
}
