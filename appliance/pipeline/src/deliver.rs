//! Where a frame goes.

use wire::ipv4;

use crate::offload::Cut;
use crate::parse::Packet;
use crate::{DropReason, Frame, Port, Snapshot, Verdict, header};

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
    if cut.largest > sender.largest_frame() {
        return Err(DropReason::OverMtu);
    }
    if header::to_group(frame.head) {
        return flood(snapshot, sender, frame, packet);
    }
    let mac = header::destination_mac(frame.head);
    let destination = snapshot.destination(sender.network(), mac).ok_or(DropReason::UnknownDestination)?;
    if mac == sender.mac_number() {
        return Err(DropReason::ToItself);
    }
    if !destination.local {
        return Err(DropReason::RemoteDestination);
    }
    Ok(Verdict::Deliver(destination.port))
}

/// Everybody gets what is for everybody: a packet for one address in a frame for all would pass by whatever is decided
/// for that address.
#[cold]
fn flood(
    snapshot: &Snapshot,
    sender: &Port,
    frame: &Frame<'_>,
    packet: &Packet,
) -> Result<Verdict, DropReason> {
    let for_many = match packet {
        Packet::Arp => true,
        Packet::Ip(ip) if ip.v6 => header::ipv6_destination(frame.head) >> 120 == 0xff,
        Packet::Ip(_) => {
            let destination = header::ipv4_destination(frame.head);
            destination >> 28 == ipv4::MULTICAST_PREFIX
                || destination == BROADCAST_V4
                || snapshot.network(sender.network()).is_broadcast(destination)
        }
    };
    if for_many { Ok(Verdict::Flood) } else { Err(DropReason::UnicastInMulticast) }
}
