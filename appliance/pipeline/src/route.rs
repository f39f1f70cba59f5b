//! The route stage: what was sent to the gateway goes on to where its address lives.
//!
//! The sending host routes, whatever host the destination is on: the frame leaves as one that the destination's gateway
//! sent. What it takes is found when a flow begins; each packet's MACs and time to live are then rewritten as it passes.

use wire::{checksum, ipv4, ipv6};

use crate::deliver::{Target, is_for_many};
use crate::from_port::Context;
use crate::header::{self, L3};
use crate::parse::Ip;
use crate::snapshot::Next;
use crate::{DropReason, Frame, Port};

/// Whether a frame is for the gateway of a network that has a router.
#[inline(always)]
pub(crate) fn is_asked(context: &Context<'_>, frame: &Frame<'_>) -> bool {
    let sender = context.sender;
    sender.is_routed()
        && sender.network() == context.network
        && header::destination_mac(frame.head) == sender.gateway_mac_number()
}

/// Where the router sends a packet.
///
/// # Errors
/// Nowhere, and why. Of [`DropReason::NoRoute`] and [`DropReason::TtlExceeded`] the sender is told.
#[cold]
pub(crate) fn route<'a>(context: &Context<'a>, frame: &Frame<'_>, ip: &Ip) -> Result<Target<'a>, DropReason> {
    let snapshot = context.snapshot;
    let router = snapshot.network(context.network).router().ok_or(DropReason::NoRoute)?;
    // Multicast is not routed.
    if is_for_many(snapshot, context.network, frame, ip.v6) {
        return Err(DropReason::NoRoute);
    }
    let (_, destination) = header::addresses(frame.head, ip.v6);
    let Next::Port(index) = snapshot.next(router, destination) else { return Err(DropReason::NoRoute) };
    if index == context.port {
        return Err(DropReason::ToItself);
    }
    let port = snapshot.port(index);
    if port.is_nowhere() {
        return Err(DropReason::RemoteDestination);
    }
    if header::time_to_live(frame.head, ip.v6) <= 1 {
        return Err(DropReason::TtlExceeded);
    }
    Ok(Target { index, port, routed: true })
}

/// Whether nobody has the address that a packet was sent to the gateway for: of that its sender is told. What is for the
/// gateway itself ends in silence.
pub(crate) fn is_unreachable(context: &Context<'_>, frame: &Frame<'_>, ip: &Ip) -> bool {
    let (_, destination) = header::addresses(frame.head, ip.v6);
    let router = context.snapshot.network(context.network).router();
    router.is_some_and(|router| context.snapshot.next(router, destination) == Next::Nobody)
}

/// Makes a packet one that the gateway of `to` sends: MACs and time to live (RFC 1812, section 5.3.1; RFC 8200, section 3).
#[inline(always)]
pub(crate) fn rewrite(frame: &mut Frame<'_>, v6: bool, to: &Port) {
    address(frame, to);
    let head = &mut *frame.head;
    if v6 {
        let at = L3 + ipv6::field::HOP_LIMIT;
        head[at] = head[at].saturating_sub(1);
        return;
    }
    let (at, sum) = (L3 + ipv4::field::TTL, L3 + ipv4::field::CHECKSUM.start);
    let old = header::word(head, at);
    head[at] = head[at].saturating_sub(1);
    let updated = checksum::update(header::word(head, sum), old, header::word(head, at));
    header::put(head, sum, &updated.to_be_bytes());
}

/// From the gateway of `to`, to it.
#[inline(always)]
pub(crate) fn address(frame: &mut Frame<'_>, to: &Port) {
    let [_, _, mac @ ..] = to.mac_number().to_be_bytes();
    let [_, _, gateway @ ..] = to.gateway_mac_number().to_be_bytes();
    header::put(frame.head, 0, &mac);
    header::put(frame.head, 6, &gateway);
}
