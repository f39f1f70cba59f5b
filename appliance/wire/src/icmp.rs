//! ICMP (RFC 792) and ICMPv6 (RFC 4443) message types.

/// Bytes that every message has: type, code, checksum, and four more whose meaning depends on the type.
pub const HEADER_LEN: usize = 8;
/// Where the checksum lies in a message.
pub const CHECKSUM_OFFSET: usize = 2;

/// ICMP types.
pub mod v4 {
    /// Echo reply.
    pub const ECHO_REPLY: u8 = 0;
    /// Redirect.
    pub const REDIRECT: u8 = 5;
    /// Echo request.
    pub const ECHO_REQUEST: u8 = 8;
    /// Router advertisement (RFC 1256).
    pub const ROUTER_ADVERTISEMENT: u8 = 9;
}

/// ICMPv6 types.
pub mod v6 {
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
}
