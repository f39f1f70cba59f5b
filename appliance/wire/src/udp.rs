//! UDP (RFC 768).

/// Bytes of the header.
pub const HEADER_LEN: usize = 8;
/// Where the checksum lies in the header.
pub const CHECKSUM_OFFSET: usize = 6;
/// Where the length lies in the header.
pub const LENGTH_OFFSET: usize = 4;

/// DHCPv4 server (RFC 2131).
pub const DHCP_SERVER: u16 = 67;
/// DHCPv4 client.
pub const DHCP_CLIENT: u16 = 68;
/// DHCPv6 client (RFC 8415).
pub const DHCPV6_CLIENT: u16 = 546;
/// DHCPv6 server and relay.
pub const DHCPV6_SERVER: u16 = 547;
