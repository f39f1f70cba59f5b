//! Flows without connections: UDP, ICMP queries, SCTP and all other protocols. All that can be known of them is whether
//! both ends talk.

use super::timeouts::Class;
use super::{Change, Side};

/// What the packets of a flow are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// UDP.
    Udp,
    /// Queries of ICMP or ICMPv6, by their identifier.
    IcmpQuery,
    /// SCTP and all others.
    Other,
}

/// How far a flow is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Datagram {
    /// Only the initiator has sent.
    #[default]
    Unreplied,
    /// The responder has answered.
    Replied,
    /// The initiator has gone on after an answer.
    Stream,
}

impl Datagram {
    /// Takes a packet of the flow, sent by `side`. The first of a flow makes it [`Datagram::Unreplied`], the default.
    #[inline]
    pub fn track(&mut self, side: Side) -> Change {
        let (next, change) = match (*self, side) {
            // Nobody has answered yet.
            (Self::Unreplied, Side::Initiator) => return Change::None,
            // The first answer.
            (Self::Unreplied, Side::Responder) => (Self::Replied, Change::Established),
            // Answers may be of many packets.
            (Self::Replied, Side::Responder) => return Change::None,
            // More than a question and its answer.
            (Self::Replied, Side::Initiator) => (Self::Stream, Change::State),
            (Self::Stream, Side::Initiator | Side::Responder) => return Change::None,
        };
        *self = next;
        change
    }

    /// Which timeout counts.
    #[inline]
    pub const fn class(self, protocol: Protocol) -> Class {
        match (protocol, self) {
            (Protocol::Udp, Self::Unreplied) => Class::UdpUnreplied,
            (Protocol::Udp, Self::Replied) => Class::UdpReplied,
            (Protocol::Udp, Self::Stream) => Class::UdpStream,
            (Protocol::IcmpQuery, Self::Unreplied | Self::Replied | Self::Stream) => Class::IcmpQuery,
            (Protocol::Other, Self::Unreplied) => Class::OtherUnreplied,
            (Protocol::Other, Self::Replied | Self::Stream) => Class::OtherReplied,
        }
    }

    /// The name in API, CLI and logs: kebab-case.
    pub const fn name(self, protocol: Protocol) -> &'static str {
        match (protocol, self) {
            (Protocol::Udp, Self::Unreplied) => "udp-unreplied",
            (Protocol::Udp, Self::Replied) => "udp-replied",
            (Protocol::Udp, Self::Stream) => "udp-stream",
            (Protocol::IcmpQuery, Self::Unreplied) => "icmp-unreplied",
            (Protocol::IcmpQuery, Self::Replied | Self::Stream) => "icmp-replied",
            (Protocol::Other, Self::Unreplied) => "unreplied",
            (Protocol::Other, Self::Replied | Self::Stream) => "replied",
        }
    }

    /// The state of a number that `self as u8` gave; of any other number, the last.
    #[inline]
    pub const fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Unreplied,
            1 => Self::Replied,
            _ => Self::Stream,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_its_answer_and_more_are_told_apart() {
        let mut flow = Datagram::default();
        assert_eq!(flow.track(Side::Initiator), Change::None);
        assert_eq!((flow, flow.class(Protocol::Udp)), (Datagram::Unreplied, Class::UdpUnreplied));
        assert_eq!(flow.track(Side::Responder), Change::Established);
        assert_eq!(flow.track(Side::Responder), Change::None);
        assert_eq!((flow, flow.class(Protocol::Udp)), (Datagram::Replied, Class::UdpReplied));
        assert_eq!(flow.track(Side::Initiator), Change::State);
        for side in [Side::Initiator, Side::Responder] {
            assert_eq!(flow.track(side), Change::None);
        }
        assert_eq!((flow, flow.class(Protocol::Udp)), (Datagram::Stream, Class::UdpStream));
    }

    #[test]
    fn only_udp_has_streams() {
        for protocol in [Protocol::IcmpQuery, Protocol::Other] {
            let [replied, stream] = [Datagram::Replied, Datagram::Stream];
            assert_eq!(replied.class(protocol), stream.class(protocol));
            assert_eq!(replied.name(protocol), stream.name(protocol));
        }
    }

    #[test]
    fn a_state_is_its_number() {
        for state in [Datagram::Unreplied, Datagram::Replied, Datagram::Stream] {
            assert_eq!(Datagram::from_number(state as u8), state);
        }
        assert_eq!(Datagram::from_number(200), Datagram::Stream);
    }
}
