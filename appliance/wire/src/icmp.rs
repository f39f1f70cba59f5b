//! ICMP (RFC 792) and ICMPv6 (RFC 4443) message types.

/// Bytes that every message has: type, code, checksum, and four more whose meaning depends on the type.
pub const HEADER_LEN: usize = 8;
/// Where the checksum lies in a message.
pub const CHECKSUM_OFFSET: usize = 2;

/// Bytes 4 and 5 of a query: its identifier.
pub const IDENTIFIER_OFFSET: usize = 4;

/// Which part of a query a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Query {
    /// It asks.
    Request,
    /// It answers.
    Reply,
}

/// ICMP types.
pub mod v4 {
    use super::Query;

    /// Echo reply.
    pub const ECHO_REPLY: u8 = 0;
    /// Destination unreachable.
    pub const DESTINATION_UNREACHABLE: u8 = 3;
    /// Code of [`DESTINATION_UNREACHABLE`]: network unreachable.
    pub const NETWORK_UNREACHABLE: u8 = 0;
    /// Code of [`DESTINATION_UNREACHABLE`]: larger than the next link takes, and not to be fragmented (RFC 1191).
    pub const FRAGMENTATION_NEEDED: u8 = 4;
    /// Code of [`DESTINATION_UNREACHABLE`]: communication administratively prohibited (RFC 1812, section 5.2.7.1).
    pub const PROHIBITED: u8 = 13;
    /// Source quench, which nobody should send or heed any more (RFC 6633).
    pub const SOURCE_QUENCH: u8 = 4;
    /// Redirect.
    pub const REDIRECT: u8 = 5;
    /// Echo request.
    pub const ECHO_REQUEST: u8 = 8;
    /// Router advertisement (RFC 1256).
    pub const ROUTER_ADVERTISEMENT: u8 = 9;
    /// Time exceeded.
    pub const TIME_EXCEEDED: u8 = 11;
    /// Parameter problem.
    pub const PARAMETER_PROBLEM: u8 = 12;
    /// Timestamp request.
    pub const TIMESTAMP: u8 = 13;
    /// Timestamp reply.
    pub const TIMESTAMP_REPLY: u8 = 14;

    /// Whether messages of the type quote the packet that caused them. Redirects do too, and are no errors.
    #[inline]
    pub const fn is_error(kind: u8) -> bool {
        matches!(kind, DESTINATION_UNREACHABLE | SOURCE_QUENCH | TIME_EXCEEDED | PARAMETER_PROBLEM)
    }

    /// Whether messages of the type have an identifier that question and answer share, and which of both they are.
    #[inline]
    pub const fn query(kind: u8) -> Option<Query> {
        match kind {
            ECHO_REQUEST | TIMESTAMP => Some(Query::Request),
            ECHO_REPLY | TIMESTAMP_REPLY => Some(Query::Reply),
            _ => None,
        }
    }
}

/// ICMPv6 types.
pub mod v6 {
    use super::Query;

    /// Destination unreachable.
    pub const DESTINATION_UNREACHABLE: u8 = 1;
    /// Code of [`DESTINATION_UNREACHABLE`]: no route to destination.
    pub const NO_ROUTE: u8 = 0;
    /// Code of [`DESTINATION_UNREACHABLE`]: communication administratively prohibited.
    pub const PROHIBITED: u8 = 1;
    /// Packet too big.
    pub const PACKET_TOO_BIG: u8 = 2;
    /// Time exceeded.
    pub const TIME_EXCEEDED: u8 = 3;
    /// Parameter problem.
    pub const PARAMETER_PROBLEM: u8 = 4;
    /// Echo request.
    pub const ECHO_REQUEST: u8 = 128;
    /// Echo reply.
    pub const ECHO_REPLY: u8 = 129;
    /// MLD query (RFC 2710).
    pub const LISTENER_QUERY: u8 = 130;
    /// MLDv1 report.
    pub const LISTENER_REPORT: u8 = 131;
    /// MLDv1 done.
    pub const LISTENER_DONE: u8 = 132;
    /// Router solicitation (RFC 4861).
    pub const ROUTER_SOLICITATION: u8 = 133;
    /// Router advertisement.
    pub const ROUTER_ADVERTISEMENT: u8 = 134;
    /// Neighbour solicitation.
    pub const NEIGHBOUR_SOLICITATION: u8 = 135;
    /// Neighbour advertisement.
    pub const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
    /// Redirect.
    pub const REDIRECT: u8 = 137;
    /// Router renumbering (RFC 2894).
    pub const ROUTER_RENUMBERING: u8 = 138;
    /// Inverse neighbour solicitation (RFC 3122).
    pub const INVERSE_SOLICITATION: u8 = 141;
    /// Inverse neighbour advertisement.
    pub const INVERSE_ADVERTISEMENT: u8 = 142;
    /// MLDv2 report (RFC 3810).
    pub const LISTENER_REPORT_V2: u8 = 143;

    /// Whether messages of the type quote the packet that caused them: all whose highest bit is clear, known or not
    /// (RFC 4443, section 2.1).
    #[inline]
    pub const fn is_error(kind: u8) -> bool {
        kind < ECHO_REQUEST
    }

    /// Whether messages of the type have an identifier that question and answer share, and which of both they are.
    #[inline]
    pub const fn query(kind: u8) -> Option<Query> {
        match kind {
            ECHO_REQUEST => Some(Query::Request),
            ECHO_REPLY => Some(Query::Reply),
            _ => None,
        }
    }
}
