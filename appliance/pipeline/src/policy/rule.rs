//! Rules as they are told to people, and what is decided by them.

use std::sync::Arc;

/// A rule's number: given by the manager, stable over revisions, never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleId(pub u32);

/// A rule's place in the order of judgement of one [`Policy`](super::Policy).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleIndex(pub(super) u32);

impl RuleIndex {
    /// The place, counted from 0 for the rule that is judged first.
    pub fn place(self) -> usize {
        self.0 as usize
    }
}

/// A direction, seen from a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// Towards the workload: ingress.
    In,
    /// From the workload: egress.
    Out,
}

/// What becomes of traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Action {
    /// It goes on.
    Allow,
    /// It ends here, silently.
    Drop,
    /// It ends here, and the sender is told.
    Reject,
}

/// Which policies are judged before which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tier {
    /// Before all others.
    Emergency,
    /// Second.
    Security,
    /// Third.
    Network,
    /// Fourth.
    Platform,
    /// Fifth: where policies usually are.
    Application,
    /// After all others.
    Baseline,
}

/// A rule, as it is told to people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its number.
    pub id: RuleId,
    /// Its name within the policy.
    pub name: Arc<str>,
    /// Its policy's name.
    pub policy: Arc<str>,
    /// Its policy's tier.
    pub tier: Tier,
    /// The revision at which its policy was last changed.
    pub revision: u64,
    /// What becomes of traffic that it matches.
    pub action: Action,
    /// Whether what it decides is told to the log.
    pub log: bool,
    /// Whether flows that it has admitted stay when a later revision forbids them.
    pub keep_established: bool,
    /// Whether its policy only reports what it would do.
    pub audit: bool,
}

/// What was decided, and by which rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The rule that decided; `None` when none matched: default deny.
    pub rule: Option<RuleIndex>,
    /// What becomes of the traffic.
    pub action: Action,
    /// What the first audit policy would have done that disagrees: its first rule that matched, and its action. Only
    /// policies judged before the deciding rule are asked, each by itself. To drop and to reject is no disagreement.
    pub would: Option<(RuleIndex, Action)>,
}

/// What a packet is for, as far as rules can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Service {
    /// IP protocol number.
    pub protocol: u8,
    /// The destination port of TCP, UDP and SCTP; the type (high byte) and code (low byte) of ICMP and ICMPv6. `None`
    /// where the packet does not say: other protocols and later fragments. Such a packet matches only rules that ask
    /// for no port and no type.
    pub port: Option<u16>,
}

impl Service {
    /// A service with a destination port.
    pub const fn port(protocol: u8, port: u16) -> Self {
        Self { protocol, port: Some(port) }
    }

    /// An ICMP (`protocol` 1) or ICMPv6 (58) message.
    pub const fn icmp(protocol: u8, kind: u8, code: u8) -> Self {
        Self { protocol, port: Some(u16::from_be_bytes([kind, code])) }
    }

    /// A packet without ports: a later fragment, or one of another protocol.
    pub const fn without_port(protocol: u8) -> Self {
        Self { protocol, port: None }
    }
}
