//! The tunnel header of what comes from another host, and whether that host may say what it says.

use core::net::IpAddr;

use wire::geneve::{GeneveError, Header};

use crate::from_underlay::Arrival;
use crate::guard::{guard, guard_ip};
use crate::host::{Claim, HostIndex, Location};
use crate::parse::{Message, Packet};
use crate::policy::Endpoint;
use crate::snapshot::PortIndex;
use crate::{DropReason, Frame, Instant, NetworkIndex, Origin, Port, Snapshot, header};

/// What a host sent, and who sent it there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tunnelled {
    pub(crate) host: HostIndex,
    pub(crate) network: NetworkIndex,
    pub(crate) header: Header,
}

/// The port that a frame comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sender {
    pub(crate) port: PortIndex,
    /// Whether its host has routed it here from another network.
    pub(crate) routed: bool,
}

/// Takes the header off.
///
/// # Errors
/// Why not, and who it is from.
#[inline(always)]
pub(crate) fn decap(snapshot: &Snapshot, arrival: &Arrival<'_>) -> Result<Tunnelled, (Origin, DropReason)> {
    let host = snapshot.host_at(arrival.source).ok_or((Origin::Stranger, DropReason::UnknownPeer))?;
    let refused = |reason| (Origin::Host(host), reason);
    if !arrival.trusted {
        return Err(refused(DropReason::UntrustedUnderlay));
    }
    let header = Header::parse(arrival.tunnel).map_err(|error| refused(reason(&error)))?;
    if header.control {
        return Err(refused(DropReason::GeneveControl));
    }
    // The frame begins where the caller said only if the header ends there.
    if header.len != arrival.tunnel.len() {
        return Err(refused(DropReason::GeneveLength));
    }
    let network = snapshot.network_of_vni(header.vni).ok_or(refused(DropReason::UnknownVni))?;
    if !snapshot.claims(host, Claim::Network(network)) {
        return Err(refused(DropReason::VniNotOwned));
    }
    Ok(Tunnelled { host, network, header })
}

#[cold]
fn reason(error: &GeneveError) -> DropReason {
    match error {
        GeneveError::Version(_) => DropReason::GeneveVersion,
        GeneveError::Protocol(_) => DropReason::GeneveProtocol,
        GeneveError::CriticalOption { .. } => DropReason::GeneveCriticalOption,
        GeneveError::Short { .. } | GeneveError::OptionLength { .. } => DropReason::GeneveLength,
    }
}

/// Finds the port that a frame comes from, which must be the host's: by its MAC on this network, or, when its host has
/// routed it and the MAC is the gateway's, by its address. A host that a port has just left may still send what the port
/// had sent, and pass on to it what was sent there.
///
/// # Errors
/// It speaks for somebody else, or plays a part that belongs to the network.
#[inline(always)]
pub(crate) fn sender(
    snapshot: &Snapshot,
    tunnelled: &Tunnelled,
    now: Instant,
    frame: &Frame<'_>,
    packet: &Packet,
) -> Result<Sender, DropReason> {
    let mac = header::source_mac(frame.head);
    let sender = match snapshot.destination(tunnelled.network, mac) {
        Some(destination) => {
            guard(snapshot.port(destination.port), frame, packet).map_err(spoofed)?;
            Sender { port: destination.port, routed: false }
        }
        None => routed_sender(snapshot, tunnelled, mac, frame, packet)?,
    };
    if snapshot.port(sender.port).host() != Some(tunnelled.host) {
        moved(snapshot, tunnelled, now, snapshot.port(sender.port), frame)?;
    }
    Ok(sender)
}

/// Of what the gateway sends: who has the source address, on whichever network of the router.
fn routed_sender(
    snapshot: &Snapshot,
    tunnelled: &Tunnelled,
    mac: u64,
    frame: &Frame<'_>,
    packet: &Packet,
) -> Result<Sender, DropReason> {
    let network = snapshot.network(tunnelled.network);
    let Packet::Ip(ip) = packet else { return Err(DropReason::RemoteSpoofed) };
    let to_one = !header::to_group(frame.head) && matches!(ip.message, Message::Other | Message::Echo);
    if mac != network.gateway_mac_number() || network.router().is_none() || !to_one {
        return Err(DropReason::RemoteSpoofed);
    }
    let (source, _) = header::addresses(frame.head, ip.v6);
    let port = snapshot.holder(network.domain(), source).ok_or(DropReason::RemoteSpoofed)?;
    guard_ip(snapshot.port(port), frame, ip).map_err(spoofed)?;
    Ok(Sender { port, routed: true })
}

/// Whether the host may send this although the port is not on it.
#[cold]
fn moved(
    snapshot: &Snapshot,
    tunnelled: &Tunnelled,
    now: Instant,
    sender: &Port,
    frame: &Frame<'_>,
) -> Result<(), DropReason> {
    let there = Some(Location::Host(tunnelled.host));
    let left = |port: &Port| port.moved_from(now) == there;
    // What was for a port that has come here from there, passed on.
    let receiver = snapshot.destination(tunnelled.network, header::destination_mac(frame.head));
    let passed_on = receiver.is_some_and(|receiver| {
        let port = snapshot.port(receiver.port);
        port.is_local() && left(port)
    });
    if left(sender) || passed_on { Ok(()) } else { Err(DropReason::RemoteSpoofed) }
}

/// Whoever it was that the sender spoke for.
#[cold]
fn spoofed(reason: DropReason) -> DropReason {
    match reason {
        DropReason::SpoofedMac
        | DropReason::SpoofedIpv4
        | DropReason::SpoofedIpv6
        | DropReason::SpoofedArp
        | DropReason::SpoofedNd => DropReason::RemoteSpoofed,
        other => other,
    }
}

/// Who the rules take a sender for that its host vouches for by a number; `None` for who its address is declared to be.
///
/// A label that changes is known at one host before the other. The number may then be one that this snapshot has not heard
/// of: whose address it is, is known, and decides. Or it is one that the host's ports had until just now: it counts as what
/// it says.
///
/// # Errors
/// The host must name one and did not, or the number is of nobody there.
#[inline(always)]
pub(crate) fn identity(
    snapshot: &Snapshot,
    tunnelled: &Tunnelled,
    sender: &Port,
    frame: &Frame<'_>,
    packet: &Packet,
) -> Result<Option<Endpoint>, DropReason> {
    match tunnelled.header.identity {
        Some(identity) if identity == sender.identity() => Ok(None),
        None if !snapshot.host(tunnelled.host).has_options() => Ok(None),
        None => Err(DropReason::IdentityMissing),
        Some(identity) => other_identity(snapshot, tunnelled, sender, frame, packet, identity),
    }
}

#[cold]
fn other_identity(
    snapshot: &Snapshot,
    tunnelled: &Tunnelled,
    sender: &Port,
    frame: &Frame<'_>,
    packet: &Packet,
    identity: u32,
) -> Result<Option<Endpoint>, DropReason> {
    // Of what was passed on, the host that the port is on vouches.
    let host = sender.host().unwrap_or(tunnelled.host);
    if snapshot.is_newer(identity) {
        return Ok(None);
    }
    if !snapshot.claims(host, Claim::Identity(identity)) {
        return Err(DropReason::IdentityNotOwned);
    }
    let address: Option<IpAddr> = match packet {
        Packet::Ip(ip) => Some(header::addresses(frame.head, ip.v6).0),
        Packet::Arp => None,
    };
    Ok(snapshot.policy().endpoint(identity, address))
}
