//! The firewall stage: the sender's rules out and the receiver's rules in both have to admit a flow.

use core::net::IpAddr;

use crate::parse::{Fragment, Ip, Message, Packet, parse};
use crate::policy::{Action, Decision, Direction, Endpoint, RuleIndex, Service};
use crate::{DropReason, Frame, Policy, Port, PortIndex, RuleId, Snapshot, header};
use wire::{ipv4, ipv6};

/// One end of a flow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End<'a> {
    /// The port behind it.
    port: &'a Port,
    /// Who its address belongs to: what the other end's rules ask.
    remote: Endpoint,
    /// Who the port is: what its own rules ask. Another than `remote` where it gets what is for an address that nobody on
    /// the network has, to send it on: its rules are not escaped by naming such an address.
    local: Endpoint,
}

/// Source and destination, as the rules of one of them see both.
pub(crate) type Ends = [Endpoint; 2];

/// A flow that wants to be, from who began it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) source: End<'a>,
    pub(crate) destination: End<'a>,
    pub(crate) service: Service,
}

/// A firewall's no, and whose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) direction: Direction,
    pub(crate) action: Action,
    pub(crate) rule: Option<RuleIndex>,
    /// Source and destination.
    pub(crate) ends: Ends,
}

/// The rules that once admitted a flow, by direction, and whether they keep what they admitted.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Kept {
    pub(crate) rules: [Option<RuleId>; 2],
    pub(crate) keep: [bool; 2],
}

/// What became of it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Judgement {
    /// The rules that admitted it.
    pub(crate) by: Kept,
    /// Whether one of these rules is logged.
    pub(crate) log: bool,
    /// Who refuses it; the sender's rules are asked first.
    pub(crate) refused: Option<Refusal>,
    /// By direction: what an audit policy would have done instead.
    pub(crate) audited: [Option<Refusal>; 2],
    /// By direction: what was decided, where somebody was asked.
    pub(crate) decisions: [Option<Decision>; 2],
}

/// Where a direction's share lies in arrays of two: egress, ingress.
#[inline]
pub(crate) fn place(direction: Direction) -> usize {
    match direction {
        Direction::Out => 0,
        Direction::In => 1,
    }
}

impl<'a> End<'a> {
    /// The end that has this address and is reached through this port.
    pub(crate) fn of(snapshot: &Snapshot, port: &'a Port, address: IpAddr) -> Self {
        match snapshot.neighbour(port.network(), address) {
            Some(neighbour) => Self { port, remote: neighbour.endpoint, local: neighbour.endpoint },
            None => Self { port, remote: snapshot.policy().external(address), local: port.endpoint() },
        }
    }

    /// The same, when its host says who it is.
    pub(crate) fn claiming(self, endpoint: Option<Endpoint>) -> Self {
        Self { remote: endpoint.unwrap_or(self.remote), ..self }
    }
}

impl Asked<'_> {
    /// Who source and destination are taken for, by direction.
    pub(crate) fn ends(&self) -> [Ends; 2] {
        let (source, destination) = (&self.source, &self.destination);
        [[source.local, destination.remote], [source.remote, destination.local]]
    }
}

impl Refusal {
    /// The reason that is counted.
    pub(crate) fn reason(&self) -> DropReason {
        match (self.rule, self.action) {
            (None, _) => DropReason::DefaultDeny,
            (Some(_), Action::Reject) => DropReason::PolicyReject,
            (Some(_), Action::Allow | Action::Drop) => DropReason::PolicyDrop,
        }
    }
}

/// Asks the rules of both ports; one that is excluded, or on another host, has no say here. What a rule of `kept` keeps
/// is not taken from it.
pub(crate) fn judge(policy: &Policy, asked: &Asked<'_>, kept: &Kept) -> Judgement {
    let mut judgement = Judgement::default();
    for (direction, port) in [(Direction::Out, asked.source.port), (Direction::In, asked.destination.port)] {
        if port.is_judged() && judgement.refused.is_none() {
            judgement.ask(policy, direction, asked, kept);
        }
    }
    judgement
}

impl Judgement {
    fn ask(&mut self, policy: &Policy, direction: Direction, asked: &Asked<'_>, kept: &Kept) {
        let place = place(direction);
        let ends = asked.ends()[place];
        let [source, destination] = ends;
        let (local, remote) = match direction {
            Direction::Out => (source, destination),
            Direction::In => (destination, source),
        };
        let decision = policy.judge(direction, local, remote, asked.service);
        self.decisions[place] = Some(decision);
        self.audited[place] =
            decision.would.map(|(rule, action)| Refusal { direction, action, rule: Some(rule), ends });
        if decision.action == Action::Allow {
            let rule = decision.rule.map(|rule| policy.rule(rule));
            self.by.rules[place] = rule.map(|rule| rule.id);
            self.by.keep[place] = rule.is_some_and(|rule| rule.keep_established);
            self.log |= rule.is_some_and(|rule| rule.log);
        } else if kept.keep[place] {
            (self.by.rules[place], self.by.keep[place]) = (kept.rules[place], true);
        } else {
            self.refused = Some(Refusal { direction, action: decision.action, rule: decision.rule, ends });
        }
    }
}

/// What a frame for many asks of one port's rules; no flow is made of it. Neighbour discovery is asked nothing, the guard
/// has seen to it.
pub(crate) fn flooded(
    snapshot: &Snapshot,
    direction: Direction,
    sender: &Port,
    receiver: Option<&Port>,
    frame: &Frame<'_>,
    packet: &Packet,
) -> Option<Refusal> {
    let ip = match packet {
        Packet::Ip(ip) if ip.message != Message::NeighbourAdvertisement => ip,
        _ => return None,
    };
    let port = receiver.unwrap_or(sender);
    if !port.is_judged() {
        return None;
    }
    let (source, destination) = header::addresses(frame.head, ip.v6);
    let (policy, network) = (snapshot.policy(), sender.network());
    let from = snapshot.endpoint_at(network, source);
    let to = snapshot.endpoint_at(network, destination);
    let (local, remote) = match receiver {
        None => (from, to),
        Some(receiver) => (receiver.endpoint(), from),
    };
    let decision = policy.judge(direction, local, remote, service(frame, ip));
    let ends = [from, if receiver.is_some() { local } else { to }];
    (decision.action != Action::Allow).then_some(Refusal {
        direction,
        action: decision.action,
        rule: decision.rule,
        ends,
    })
}

/// Whether a port's rules admit a frame that another port sent to many. The frame was judged by [`crate::from_port()`] with
/// the verdict `Flood`.
///
/// # Errors
/// The reason why not.
///
/// # Panics
/// When a port is not from this snapshot.
pub fn admits(
    snapshot: &Snapshot,
    from: PortIndex,
    to: PortIndex,
    frame: &Frame<'_>,
) -> Result<(), DropReason> {
    let (sender, receiver) = (snapshot.port(from), snapshot.port(to));
    if !receiver.is_judged() {
        return Ok(());
    }
    let packet = parse(frame)?;
    match flooded(snapshot, Direction::In, sender, Some(receiver), frame, &packet) {
        None => Ok(()),
        Some(refusal) => Err(refusal.reason()),
    }
}

/// What a packet is for, as it says itself.
pub(crate) fn service(frame: &Frame<'_>, ip: &Ip) -> Service {
    let at = ip.transport();
    match (ip.protocol, ip.fragment) {
        (_, Fragment::Later(_)) => Service::without_port(ip.protocol),
        (ipv4::TCP | ipv4::UDP | ipv4::SCTP, _) => {
            Service::port(ip.protocol, header::word(frame.head, at + 2))
        }
        (ipv4::ICMP, _) if !ip.v6 => icmp_service(frame, ip),
        (ipv6::ICMPV6, _) if ip.v6 => icmp_service(frame, ip),
        _ => Service::without_port(ip.protocol),
    }
}

fn icmp_service(frame: &Frame<'_>, ip: &Ip) -> Service {
    let [kind, code] = header::word(frame.head, ip.transport()).to_be_bytes();
    Service::icmp(ip.protocol, kind, code)
}
