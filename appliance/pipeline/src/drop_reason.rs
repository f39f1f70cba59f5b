//! Why a frame did not go on.

macro_rules! drop_reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal @ $stage:ident,)+) => {
        /// Why a frame did not go on. One name for counters, API, CLI and documentation.
        ///
        /// The order is that of the stages and of the counters' arrays; new reasons may come anywhere, the names stay.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum DropReason { $($(#[doc = $doc])+ $variant,)+ }

        impl DropReason {
            /// Every reason, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The name in counters, API, CLI and documentation: kebab-case.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// What it means, as one line for people.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),+),)+ }
            }

            /// The stage that drops for this reason.
            pub const fn stage(self) -> Stage {
                match self { $(Self::$variant => Stage::$stage,)+ }
            }
        }
    };
}

/// A station on a frame's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// The tunnel header of what comes from another host is taken off.
    Decap,
    /// Headers are found and measured.
    Parse,
    /// The port may speak only for itself.
    Guard,
    /// What the sender asks of checksum and segmentation fits the frame.
    Offload,
    /// The port's rate limit.
    Rate,
    /// The appliance answers by itself.
    Respond,
    /// The frame's flow is found, and the frame fits it.
    Flow,
    /// Which way a packet goes that was sent to the gateway.
    Route,
    /// The rules of the ports it concerns allow the flow.
    Firewall,
    /// The destination is looked up.
    Deliver,
    /// A tunnel header is put before what goes to another host.
    Encap,
    /// The agent hands the frame to its destination: outside this package.
    Put,
}

impl Stage {
    /// The name in documentation and traces.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Decap => "decap",
            Self::Parse => "parse",
            Self::Guard => "guard",
            Self::Offload => "offload",
            Self::Rate => "rate",
            Self::Respond => "respond",
            Self::Flow => "flow",
            Self::Route => "route",
            Self::Firewall => "firewall",
            Self::Deliver => "deliver",
            Self::Encap => "encap",
            Self::Put => "put",
        }
    }
}

drop_reasons! {
    /// From an underlay address that no host of the mesh has.
    UnknownPeer = "unknown-peer" @ Decap,
    /// In clear, over an underlay that is not declared trusted.
    UntrustedUnderlay = "untrusted-underlay" @ Decap,
    /// A GENEVE header of another version than 0.
    GeneveVersion = "geneve-version" @ Decap,
    /// A GENEVE header or option that ends before it should, or options that do not add up.
    GeneveLength = "geneve-length" @ Decap,
    /// A critical GENEVE option that is not known, is there twice, or has the wrong length.
    GeneveCriticalOption = "geneve-critical-option" @ Decap,
    /// Something else than Ethernet inside GENEVE.
    GeneveProtocol = "geneve-protocol" @ Decap,
    /// A GENEVE control packet: never for a workload.
    GeneveControl = "geneve-control" @ Decap,
    /// A VNI that no network here has.
    UnknownVni = "unknown-vni" @ Decap,
    /// The VNI of a network on which the sending host has no port, nor on another of its router.
    VniNotOwned = "vni-not-owned" @ Decap,
    /// The sending host must name the identity of its workload, and did not.
    IdentityMissing = "identity-missing" @ Decap,
    /// The identity of no workload of the sending host.
    IdentityNotOwned = "identity-not-owned" @ Decap,
    /// Congestion was marked on the way, on a packet whose ends do not understand that: it counts as lost (RFC 6040).
    CongestionMarked = "congestion-marked" @ Decap,
    /// The frame ends before a header it announces.
    Truncated = "truncated" @ Parse,
    /// The headers do not fit into the 192 bytes that are copied before anything is looked at.
    HeadersTooLong = "headers-too-long" @ Parse,
    /// A VLAN tag: networks are separated by VNI, a tag could only hide the rest of the frame.
    VlanTagged = "vlan-tagged" @ Parse,
    /// Neither ARP, IPv4 nor IPv6 (LLC and STP frames, LLDP, RARP, MPLS, PPPoE and the like).
    UnknownEthertype = "unknown-ethertype" @ Parse,
    /// ARP that is not IPv4 over Ethernet, or not a request or reply.
    MalformedArp = "malformed-arp" @ Parse,
    /// An IPv4 header whose version, lengths or fragment fields contradict each other or the frame.
    MalformedIpv4 = "malformed-ipv4" @ Parse,
    /// An IPv6 header whose version or lengths contradict each other or the frame.
    MalformedIpv6 = "malformed-ipv6" @ Parse,
    /// An IPv6 extension header chain that is too long, out of order, unknown, or continues inside a fragment.
    ExtensionHeader = "ipv6-extension-header" @ Parse,
    /// IPv4 source route options, options that cannot be read, or an IPv6 routing header with segments left.
    SourceRoute = "source-route" @ Parse,
    /// A TCP, UDP or ICMP header whose lengths contradict the packet, or a fragment made to hide one.
    MalformedTransport = "malformed-transport" @ Parse,
    /// The source MAC is not the port's.
    SpoofedMac = "spoofed-mac" @ Guard,
    /// The IPv4 source is not one of the port's addresses.
    SpoofedIpv4 = "spoofed-ipv4" @ Guard,
    /// The IPv6 source is neither one of the port's addresses nor the link-local address of its MAC (EUI-64).
    SpoofedIpv6 = "spoofed-ipv6" @ Guard,
    /// From another host, and the sender is not one of that host's ports, or the gateway with a packet of one of them.
    RemoteSpoofed = "remote-spoofed" @ Guard,
    /// ARP that speaks for a MAC or an IPv4 address that is not the port's.
    SpoofedArp = "spoofed-arp" @ Guard,
    /// Neighbour discovery that speaks for a MAC or an IPv6 address that is not the port's.
    SpoofedNd = "spoofed-nd" @ Guard,
    /// Neighbour discovery that RFC 4861 tells every receiver to discard.
    MalformedNd = "malformed-nd" @ Guard,
    /// A workload plays DHCPv4 or DHCPv6 server or relay.
    RogueDhcpServer = "rogue-dhcp-server" @ Guard,
    /// A workload advertises itself as a router.
    RogueRouter = "rogue-router" @ Guard,
    /// A workload sends ICMP redirects.
    RogueRedirect = "rogue-redirect" @ Guard,
    /// Sent to a loopback address, which some hosts take from the network when told to route it.
    LoopbackDestination = "loopback-destination" @ Guard,
    /// The checksum or segmentation asked for does not fit the frame.
    BadOffload = "bad-offload" @ Offload,
    /// The port's rate limit is used up.
    RateLimit = "rate-limit" @ Rate,
    /// ARP or neighbour solicitation for an address that nobody on the network has. Never flooded.
    UnknownNeighbour = "unknown-neighbour" @ Respond,
    /// A port probes whether its own address is taken: silence is the answer. Normal at boot.
    AddressProbe = "address-probe" @ Respond,
    /// A DHCP request, and the network has no DHCP server. Other workloads never see requests.
    NoDhcpServer = "no-dhcp-server" @ Respond,
    /// A router solicitation: the network sends no router advertisements. Normal at boot.
    RouterSolicitation = "router-solicitation" @ Respond,
    /// An IGMP or MLD message: multicast goes to every port, so nobody needs to know. Normal at boot.
    GroupMembership = "group-membership" @ Respond,
    /// A fragment that repeats or overlaps what another fragment of its packet carried, or what follows one (RFC 5722).
    FragmentOverlap = "fragment-overlap" @ Flow,
    /// The port has more fragmented packets under way, more fragments of one, or more waiting for the first, than it may.
    FragmentLimit = "fragment-limit" @ Flow,
    /// A fragment waited for the first of its packet, which did not come in time.
    FragmentTimeout = "fragment-timeout" @ Flow,
    /// TCP flags that no honest sender combines: SYN with FIN or RST, FIN without ACK, or none at all.
    TcpBadFlags = "tcp-bad-flags" @ Flow,
    /// A TCP segment that does not open a connection and belongs to none, or that its connection cannot bring forth now.
    TcpInvalidState = "tcp-invalid-state" @ Flow,
    /// A TCP segment outside the window of its connection: data, acknowledgement or RST that no peer of it can mean.
    TcpOutOfWindow = "tcp-out-of-window" @ Flow,
    /// An ICMP error that quotes a packet of no flow of its receiver.
    IcmpUnrelated = "icmp-unrelated" @ Flow,
    /// The port, or the host, tracks as many connections as it may.
    StateLimit = "state-limit" @ Flow,
    /// Sent to the gateway, and it has no router behind it, or that knows no way. A router tells the sender.
    NoRoute = "no-route" @ Route,
    /// Sent to the gateway, and its time to live is over. The sender is told.
    TtlExceeded = "ttl-exceeded" @ Route,
    /// A rule says drop.
    PolicyDrop = "policy-drop" @ Firewall,
    /// A rule says reject: the sender is told.
    PolicyReject = "policy-reject" @ Firewall,
    /// No rule of any policy matches.
    DefaultDeny = "default-deny" @ Firewall,
    /// The destination MAC is the sender's own.
    ToItself = "to-itself" @ Deliver,
    /// No port of the network has the destination MAC. Never flooded.
    UnknownDestination = "unknown-destination" @ Deliver,
    /// The destination lives on another host, of which no address is known, or which the frame did not come to by a move.
    RemoteDestination = "remote-destination" @ Deliver,
    /// Another host sent it to a port that has not the destination MAC: its routes are stale.
    StaleDestination = "stale-destination" @ Deliver,
    /// The destination MAC is not that of the port that has the destination address.
    DestinationMismatch = "destination-mismatch" @ Deliver,
    /// A broadcast or multicast MAC around a unicast IP destination: it would reach workloads it does not name.
    UnicastInMulticast = "unicast-in-multicast" @ Deliver,
    /// A packet, or one segment of it, is larger than the network's MTU.
    OverMtu = "over-mtu" @ Deliver,
    /// A packet, or one segment of it, is larger than what fits on the way to the destination: to its host, or on its
    /// network behind the router. The sender is told.
    PathMtu = "path-mtu" @ Deliver,
    /// The destination port has no working link at the moment.
    DestinationDown = "destination-down" @ Put,
    /// The destination has no free receive buffers.
    DestinationFull = "destination-full" @ Put,
    /// The frame is larger than what the destination can receive.
    DestinationTooSmall = "destination-too-small" @ Put,
    /// The destination's host has no address on the underlay that leads there from here.
    UnderlayDown = "underlay-down" @ Put,
    /// The underlay has no room: the queue of a socket or of its interface is full.
    UnderlayFull = "underlay-full" @ Put,
    /// The underlay does not take the packet: it is too large for the interface, or there is no route.
    UnderlayRefused = "underlay-refused" @ Put,
}

impl DropReason {
    /// How many reasons there are.
    pub const COUNT: usize = Self::ALL.len();

    /// The place in a counter array.
    #[inline]
    pub const fn index(self) -> usize {
        self as usize
    }
}

impl core::fmt::Display for DropReason {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_follow_the_order_and_names_are_unique_kebab_case() {
        let mut names = std::collections::BTreeSet::new();
        for (number, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(reason.index(), number);
            let name = reason.name();
            assert!(names.insert(name), "{name} twice");
            assert!(
                name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'),
                "{name}"
            );
        }
    }
}
