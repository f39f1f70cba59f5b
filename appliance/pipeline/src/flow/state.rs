//! How far a flow is, whichever protocol it speaks, in the words that its entry keeps.

use wire::{ipv4, ipv6};

use crate::conntrack::datagram::{Datagram, Protocol};
use crate::conntrack::tcp::{self, Tcp};
use crate::conntrack::timeouts::Class;

/// The state of one flow.
#[derive(Clone, Copy, Debug)]
pub(crate) enum State {
    Tcp(Tcp),
    Datagram(Datagram, Protocol),
}

/// What an entry keeps of a state.
pub(crate) type Words = ([u64; 3], u32);

impl State {
    /// The state of a new flow that is not TCP.
    pub(crate) fn datagram(protocol: u8) -> Self {
        Self::Datagram(Datagram::default(), kind(protocol))
    }

    pub(crate) fn from_words(protocol: u8, (words, rest): Words) -> Self {
        match protocol {
            ipv4::TCP => Self::Tcp(Tcp::from_words(words, rest)),
            _ => Self::Datagram(Datagram::from_number(rest as u8), kind(protocol)),
        }
    }

    pub(crate) fn to_words(self) -> Words {
        match self {
            Self::Tcp(tcp) => tcp.to_words(),
            Self::Datagram(datagram, _) => ([0; 3], datagram as u32),
        }
    }

    pub(crate) fn class(self) -> Class {
        match self {
            Self::Tcp(tcp) => tcp.class(),
            Self::Datagram(datagram, protocol) => datagram.class(protocol),
        }
    }

    /// Whether only one side was heard yet: the first to go when there is no room.
    pub(crate) fn is_half_open(self) -> bool {
        match self {
            Self::Tcp(tcp) => tcp.class() == Class::TcpOpening,
            Self::Datagram(datagram, _) => datagram == Datagram::Unreplied,
        }
    }

    /// The name in API, CLI and logs: kebab-case.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tcp(tcp) => tcp.state().name(),
            Self::Datagram(datagram, protocol) => datagram.name(protocol),
        }
    }

    /// Whether the flow came to its own end.
    pub(crate) fn is_over(self) -> bool {
        use tcp::State::{Closing, ResetInitiator, ResetResponder, TimeWait};
        match self {
            Self::Tcp(tcp) => matches!(tcp.state(), Closing | TimeWait | ResetInitiator | ResetResponder),
            Self::Datagram(..) => false,
        }
    }
}

fn kind(protocol: u8) -> Protocol {
    match protocol {
        ipv4::UDP => Protocol::Udp,
        ipv4::ICMP | ipv6::ICMPV6 => Protocol::IcmpQuery,
        _ => Protocol::Other,
    }
}
