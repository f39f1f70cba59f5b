//! Other hosts: where they are, what they understand, and where a port lives.

use core::net::IpAddr;

use wire::geneve::{self, Builder};
use wire::{ethernet, ipv4, ipv6, udp};

use crate::Instant;
use crate::snapshot::{NetworkIndex, PortIndex};

/// A host's place in a [`crate::Snapshot`]: the order in which hosts were given to its builder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostIndex(pub u16);

/// A host that frames are exchanged with, as its builder is told.
#[derive(Clone, Debug, Default)]
pub struct HostConfig {
    /// Its addresses on the underlay; frames are sent to the first, and taken from all.
    pub addresses: Vec<IpAddr>,
    /// Whether it is sent our GENEVE options, and must send them: what comes without an identity is refused.
    pub options: bool,
    /// Somebody else's tunnel endpoint. It does not route: what it sends to a gateway is routed here.
    pub external: bool,
    /// Bytes of the largest IP packet that the underlay carries to it.
    pub path_mtu: u16,
    /// Identities that it may speak for besides those of its ports: the ones that its ports had until just now.
    pub identities: Vec<u32>,
}

/// A host that frames are exchanged with, compiled.
#[derive(Clone, Debug)]
pub struct Host {
    addresses: Box<[IpAddr]>,
    options: bool,
    external: bool,
    largest: u32,
}

/// Where a port lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Location {
    /// On this host.
    #[default]
    Here,
    /// On another.
    Host(HostIndex),
    /// On a host of which no address is known.
    Unknown,
}

/// Where a port lived until just now. For a while that host may still send what the port had sent, and pass on what was
/// for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    /// Where it lived.
    pub from: Location,
    /// When the while is over.
    pub until: Instant,
}

/// How a frame travels to another host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encapsulation {
    /// To which host.
    pub host: HostIndex,
    /// In which header.
    pub header: Builder,
}

impl Host {
    pub(crate) fn new(config: &HostConfig) -> Self {
        let network = match config.addresses.first() {
            Some(IpAddr::V6(_)) => ipv6::HEADER_LEN,
            Some(IpAddr::V4(_)) | None => ipv4::HEADER_LEN,
        };
        let options = if config.options { geneve::IDENTITY_LEN + geneve::PORT_LEN } else { 0 };
        let overhead = (network + udp::HEADER_LEN + geneve::HEADER_LEN + options) as u32;
        Self {
            addresses: config.addresses.clone().into(),
            options: config.options,
            external: config.external,
            largest: u32::from(config.path_mtu).saturating_sub(overhead),
        }
    }

    /// Its addresses on the underlay: frames are sent to the first, and taken from all.
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// Whether it is sent our options, and must send them.
    #[inline]
    pub fn has_options(&self) -> bool {
        self.options
    }

    /// Whether it is somebody else's tunnel endpoint.
    #[inline]
    pub fn is_external(&self) -> bool {
        self.external
    }

    /// Bytes of the largest Ethernet frame that fits on the way to it, all headers around it counted.
    #[inline]
    pub fn largest_frame(&self) -> u32 {
        self.largest
    }

    /// Bytes of the largest IP packet of a workload that fits on the way to it.
    pub fn inner_mtu(&self) -> u32 {
        self.largest.saturating_sub(ethernet::HEADER_LEN as u32)
    }
}

/// What a host may speak for, as a key of the table of such claims.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Claim {
    /// A network: it has a port there, or on a network of the same router.
    Network(NetworkIndex),
    /// An identity: one of its ports has it, or had it until just now.
    Identity(u32),
}

impl Claim {
    #[inline]
    pub(crate) fn key(self, host: HostIndex) -> u64 {
        let (kind, number) = match self {
            Self::Network(NetworkIndex(network)) => (0, u32::from(network)),
            Self::Identity(identity) => (1, identity),
        };
        kind << 48 | u64::from(host.0) << 32 | u64::from(number)
    }
}

/// A [`Location`] in two bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Packed(u16);

impl Packed {
    const HERE: u16 = u16::MAX;
    const UNKNOWN: u16 = u16::MAX - 1;
    /// The most hosts there can be.
    pub(crate) const MOST: usize = Self::UNKNOWN as usize;

    pub(crate) fn new(location: Location) -> Self {
        match location {
            Location::Here => Self(Self::HERE),
            Location::Host(host) => Self(host.0),
            Location::Unknown => Self(Self::UNKNOWN),
        }
    }

    #[inline(always)]
    pub(crate) fn is_here(self) -> bool {
        self.0 == Self::HERE
    }

    #[inline(always)]
    pub(crate) fn is_unknown(self) -> bool {
        self.0 == Self::UNKNOWN
    }

    #[inline(always)]
    pub(crate) fn host(self) -> Option<HostIndex> {
        (self.0 < Self::UNKNOWN).then_some(HostIndex(self.0))
    }
}

/// Which ports an arrived frame goes between.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ends {
    /// The port that sent it.
    pub sender: Option<PortIndex>,
    /// The port that it is for; none for many, and for the gateway.
    pub receiver: Option<PortIndex>,
}
