//! Why a configuration does not compile.

use core::net::IpAddr;
use std::sync::Arc;

use thiserror::Error;

/// Why a configuration does not compile.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PolicyError {
    /// A policy names a group that was not given.
    #[error("policy {policy} names group number {group}; {have} groups were given, numbered from 0")]
    UnknownGroup {
        /// The policy.
        policy: Arc<str>,
        /// The number.
        group: u32,
        /// Groups given.
        have: usize,
    },
    /// An identity is in a group that was not given.
    #[error("identity {identity} is in group number {group}; {have} groups were given, numbered from 0")]
    UnknownGroupOfIdentity {
        /// The identity.
        identity: u32,
        /// The number.
        group: u32,
        /// Groups given.
        have: usize,
    },
    /// An address belongs to an identity that was not given.
    #[error("address {address} has identity {identity}, which was not given")]
    UnknownIdentity {
        /// The address.
        address: IpAddr,
        /// The identity.
        identity: u32,
    },
    /// Identity 0 stands for addresses that nobody has declared.
    #[error("identity 0 is in {groups} groups; it is kept for those who are in none")]
    IdentityZero {
        /// How many groups it was given.
        groups: usize,
    },
    /// One identity was given twice.
    #[error("identity {identity} was given twice")]
    DuplicateIdentity {
        /// The identity.
        identity: u32,
    },
    /// Two rules have one number.
    #[error("rule number {id} was given twice")]
    DuplicateRule {
        /// The number.
        id: u32,
    },
    /// A prefix longer than the address.
    #[error("network {address}/{prefix}: a prefix is at most {most} bits")]
    Prefix {
        /// The network's address.
        address: IpAddr,
        /// The prefix length.
        prefix: u8,
        /// The longest possible.
        most: u8,
    },
    /// Ports of a protocol that has none.
    #[error("rule {rule} of policy {policy} matches ports of {}: only TCP (6), UDP (17) and SCTP (132) have ports", Protocol(*.protocol))]
    PortsWithoutProtocol {
        /// The policy.
        policy: Arc<str>,
        /// The rule.
        rule: Arc<str>,
        /// The protocol.
        protocol: Option<u8>,
    },
    /// A range of ports that ends before it begins.
    #[error(
        "rule {rule} of policy {policy} matches ports {low}-{high}: the first must not be above the last"
    )]
    PortRange {
        /// The policy.
        policy: Arc<str>,
        /// The rule.
        rule: Arc<str>,
        /// The first port.
        low: u16,
        /// The last port.
        high: u16,
    },
    /// An ICMP type of a protocol that has none, or a type and ports together.
    #[error("rule {rule} of policy {policy} matches an ICMP type of {}: only ICMP (1) and ICMPv6 (58) have types", Protocol(*.protocol))]
    TypeWithoutIcmp {
        /// The policy.
        policy: Arc<str>,
        /// The rule.
        rule: Arc<str>,
        /// The protocol.
        protocol: Option<u8>,
    },
    /// More of something than is provided for.
    #[error("{have} {what}; at most {most} are provided for")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many were given.
        have: usize,
        /// The limit.
        most: usize,
    },
    /// Groups, networks, rules and services that overlap so much that the compiled form would be too large.
    #[error(
        "the compiled policy needs more than {most} {what}: use fewer overlapping networks, port ranges or groups"
    )]
    TooLarge {
        /// Of what.
        what: &'static str,
        /// The limit.
        most: usize,
    },
}

struct Protocol(Option<u8>);

impl core::fmt::Display for Protocol {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.0 {
            Some(protocol) => write!(f, "protocol {protocol}"),
            None => f.write_str("every protocol"),
        }
    }
}
