//! ICMP in the flow stage: questions and answers, messages without answers, and errors, which belong to the flow of the
//! packet that they quote.

use wire::icmp::{self, Query};
use wire::ipv6;
use wire::quote::Quote;

use super::{Kind, Lane, domain, domain_between, sender_of};
use crate::firewall::{self, Asked, End, Kept};
use crate::flow::{Key, State};
use crate::from_port::Context;
use crate::parse::Ip;
use crate::policy::Service;
use crate::{DropReason, Frame, Port, header};

/// What stands for a message's ports; `None` when the lane got its key.
pub(super) fn fill(
    context: &Context<'_>,
    frame: &Frame<'_>,
    lane: &mut Lane,
) -> Result<Option<u32>, DropReason> {
    let (ip, at) = (lane.ip, lane.ip.transport());
    let kind = kind(frame, &ip);
    let (query, error) = if ip.v6 {
        (icmp::v6::query(kind), icmp::v6::is_error(kind))
    } else {
        (icmp::v4::query(kind), icmp::v4::is_error(kind))
    };
    if let Some(query) = query {
        lane.kind = Kind::Query(query);
        let id = header::word(frame.head, at + icmp::IDENTIFIER_OFFSET);
        let ports = u32::from(id) << 16 | u32::from(id);
        if !is_timestamp(kind, ip.v6) {
            return Ok(Some(ports));
        }
        // Not the echo of the same identifier: who may ping may not ask for the time.
        let (key, side) = Key::of(frame.head, domain(context, frame, ip.v6), ip.v6, ip.protocol, ports);
        (lane.key, lane.side) = (key.apart(), side);
        return Ok(None);
    }
    if !error {
        lane.kind = Kind::Icmp;
        return Ok(Some(u32::from(header::word(frame.head, at))));
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
    let domain = domain_between(context.sender, quote.source, quote.destination);
    (lane.key, lane.side) = Key::between(domain, quote.protocol, quote.source, quote.destination, ports)
        .ok_or(DropReason::IcmpUnrelated)?;
    Ok(None)
}

/// An ICMP error passes when the packet that it quotes belongs to a flow that is allowed, and comes from who that packet
/// was for.
pub(crate) fn related(context: &Context<'_>, lane: &Lane, to: &Port) -> Result<(), DropReason> {
    let snapshot = context.snapshot;
    let (entry, seen) = lane.known(context).ok_or(DropReason::IcmpUnrelated)?;
    let fresh = seen.epoch == snapshot.epoch();
    let quoted = lane.key.unpack(lane.side);
    let from_its_end = match snapshot.neighbour(context.sender.network(), quoted.destination.0) {
        Some(owner) => owner.port == Some(context.port),
        // What nobody on the network has was sent through one of its ports, which may say so.
        None => fresh && lane.destination(&seen) == context.port,
    };
    if !from_its_end || seen.flags.is_revoked() {
        return Err(DropReason::IcmpUnrelated);
    }
    // RFC 5927, section 4.1: who guesses a connection's ports should not be able to end it.
    if let Kind::Error(Some(sequence)) = lane.kind {
        let locked = entry.lock(seen.version).ok_or(DropReason::IcmpUnrelated)?;
        match State::from_words(lane.key.protocol(), locked.state()) {
            State::Tcp(tcp) if tcp.has_sent(sender_of(lane, seen.flags), sequence) => {}
            _ => return Err(DropReason::IcmpUnrelated),
        }
    }
    if fresh {
        return Ok(());
    }
    // The flow's next packet judges it again and ends it, if need be. Until then no error says more than it could.
    let initiator = seen.flags.initiator();
    let key = lane.key.unpack(initiator);
    let end = |port, address| End::of(snapshot, port, address);
    let ports = if initiator == lane.side { (to, context.sender) } else { (context.sender, to) };
    let asked = Asked {
        source: end(ports.0, key.source.0),
        destination: end(ports.1, key.destination.0),
        service: service(key.protocol, key.destination.1, lane.ip.v6),
    };
    let kept = Kept { rules: entry.rules(), keep: seen.flags.keep() };
    match firewall::judge(snapshot.policy(), &asked, &kept).refused {
        None => Ok(()),
        Some(_) => Err(DropReason::IcmpUnrelated),
    }
}

/// What a quoted packet was for; of queries, only echo is told of here.
fn service(protocol: u8, port: u16, v6: bool) -> Service {
    use wire::ipv4;
    match (protocol, v6) {
        (ipv4::TCP | ipv4::UDP | ipv4::SCTP, _) => Service::port(protocol, port),
        (ipv4::ICMP, false) => Service::icmp(protocol, icmp::v4::ECHO_REQUEST, 0),
        (ipv6::ICMPV6, true) => Service::icmp(protocol, icmp::v6::ECHO_REQUEST, 0),
        _ => Service::without_port(protocol),
    }
}

/// The ICMP type of the question that a message asks or answers.
pub(super) fn question(kind: u8, v6: bool) -> u8 {
    match (v6, kind) {
        (true, icmp::v6::ECHO_REPLY) => icmp::v6::ECHO_REQUEST,
        (false, icmp::v4::ECHO_REPLY) => icmp::v4::ECHO_REQUEST,
        (false, icmp::v4::TIMESTAMP_REPLY) => icmp::v4::TIMESTAMP,
        _ => kind,
    }
}

/// Whether a message is an answer that needs a question before.
pub(super) fn is_answer(kind: Kind) -> bool {
    kind == Kind::Query(Query::Reply)
}

pub(super) fn kind(frame: &Frame<'_>, ip: &Ip) -> u8 {
    (header::word(frame.head, ip.transport()) >> 8) as u8
}

fn is_timestamp(kind: u8, v6: bool) -> bool {
    !v6 && matches!(kind, icmp::v4::TIMESTAMP | icmp::v4::TIMESTAMP_REPLY)
}
