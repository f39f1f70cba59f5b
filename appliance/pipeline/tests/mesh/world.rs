//! Three hosts and somebody else's tunnel endpoint, two routers with overlapping addresses, and the frames between them.

use std::net::IpAddr;
use std::sync::Arc;

use pipeline::conntrack::tcp;
use pipeline::conntrack::timeouts::Timeouts;
use pipeline::policy::{
    Action, FirewallPolicyConfig, GroupConfig, IdentityConfig, Peer, PolicyConfig, RuleConfig, RulesConfig,
    ServiceMatch, Tier,
};
use pipeline::{
    Arrival, DropRecord, Ends, Event, FlowTable, FlowTableConfig, Frame, HEAD, HashKey, HostConfig,
    HostIndex, Instant, Location, Moved, NetworkConfig, NetworkIndex, Policy, PortConfig, PortIndex,
    PortState, RouteConfig, RouterConfig, RouterIndex, Snapshot, Trace, Verdict, Workspace, from_port,
    from_underlay, trace,
};
use wire::geneve::{BUILT_LEN, Builder};

/// Fixed, so that tests repeat.
pub(crate) const KEY: HashKey = HashKey([0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210]);

/// Hosts by their numbers, and their addresses on the underlay. `x` is somebody else's.
pub(crate) const HOSTS: [(&str, &str); 4] =
    [("a", "192.0.2.1"), ("b", "192.0.2.2"), ("c", "192.0.2.3"), ("x", "2001:db8::4")];

/// Networks by their numbers: VNI, router, and the third number of their addresses. Router 0 joins blue and green, router 1
/// red and rouge, which have the same addresses; plain has no router.
pub(crate) const NETWORKS: [(u32, Option<u16>, u8); 5] =
    [(100, Some(0), 1), (200, Some(0), 2), (300, Some(1), 1), (400, Some(1), 2), (500, None, 1)];

/// One port. Its MAC is 02:00:00:00:00:LAST, its addresses 10.0.N.LAST and fd00:N::LAST, its id 1000 + its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Guest {
    pub(crate) name: &'static str,
    pub(crate) host: Option<&'static str>,
    pub(crate) network: usize,
    pub(crate) last: u8,
    /// In the group of the same number, less one.
    pub(crate) identity: u32,
    pub(crate) firewall: bool,
    /// Where it lived, and until when that counts.
    pub(crate) moved: Option<(&'static str, Instant)>,
}

const fn guest(name: &'static str, host: &'static str, network: usize, last: u8, identity: u32) -> Guest {
    Guest { name, host: Some(host), network, last, identity, firewall: true, moved: None }
}

/// `lost` is on a host that has told no address.
pub(crate) const GUESTS: [Guest; 15] = [
    guest("web", "a", 0, 11, 1),
    guest("app", "b", 0, 12, 2),
    guest("db", "b", 1, 13, 3),
    guest("far", "c", 0, 14, 4),
    guest("ext", "x", 0, 15, 0),
    guest("near", "a", 1, 16, 5),
    guest("ext2", "x", 1, 17, 0),
    guest("red", "a", 2, 11, 6),
    guest("rose", "b", 2, 12, 6),
    guest("rouge", "b", 3, 13, 6),
    Guest { host: None, ..guest("lost", "", 0, 19, 0) },
    guest("plain", "a", 4, 11, 1),
    guest("flat", "b", 4, 12, 2),
    Guest { firewall: false, ..guest("free", "a", 0, 20, 0) },
    Guest { firewall: false, ..guest("idle", "b", 1, 21, 0) },
];

pub(crate) fn called(name: &str) -> Guest {
    *GUESTS.iter().find(|guest| guest.name == name).expect("a guest")
}

fn number(name: &str) -> usize {
    GUESTS.iter().position(|guest| guest.name == name).expect("a guest")
}

pub(crate) fn index(name: &str) -> PortIndex {
    PortIndex(number(name) as u32)
}

pub(crate) fn id(name: &str) -> u32 {
    1000 + number(name) as u32
}

pub(crate) fn host(name: &str) -> HostIndex {
    HostIndex(HOSTS.iter().position(|(host, _)| *host == name).expect("a host") as u16)
}

pub(crate) fn underlay(name: &str) -> IpAddr {
    HOSTS[usize::from(host(name).0)].1.parse().expect("an address")
}

/// The MAC of a network's gateway.
pub(crate) fn gateway(network: usize) -> [u8; 6] {
    [2, 0, 0, 0xff, 0, network as u8]
}

pub(crate) fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

impl Guest {
    pub(crate) fn mac(&self) -> [u8; 6] {
        [2, 0, 0, 0, 0, self.last]
    }

    pub(crate) fn address(&self, v6: bool) -> IpAddr {
        let third = NETWORKS[self.network].2;
        address(&if v6 {
            format!("fd00:{third}::{}", self.last)
        } else {
            format!("10.0.{third}.{}", self.last)
        })
    }
}

/// A rule that matches everything, or what it is narrowed to.
pub(crate) fn rule(id: u32, action: Action, services: &[ServiceMatch]) -> RuleConfig {
    RuleConfig {
        id,
        name: format!("rule-{id}").into(),
        direction: None,
        action,
        from: vec![],
        to: vec![],
        services: services.to_vec(),
        log: false,
        keep_established: false,
    }
}

pub(crate) fn to_port(protocol: u8, port: u16) -> ServiceMatch {
    ServiceMatch { protocol: Some(protocol), ports: Some((port, port)), icmp: None }
}

/// What is compiled, for every host alike.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) revision: u64,
    pub(crate) guests: Vec<Guest>,
    pub(crate) rules: Vec<RuleConfig>,
    pub(crate) path_mtu: u16,
    pub(crate) clamp_mss: bool,
    /// The first router's.
    pub(crate) routes: Vec<RouteConfig>,
    /// Identities that hosts may name besides those of their ports.
    pub(crate) identities: Vec<u32>,
}

impl Config {
    /// Everybody may everything.
    pub(crate) fn open() -> Self {
        Self::of(vec![rule(1, Action::Allow, &[])])
    }

    pub(crate) fn of(rules: Vec<RuleConfig>) -> Self {
        Self {
            revision: 1,
            guests: GUESTS.to_vec(),
            rules,
            path_mtu: 1600,
            clamp_mss: false,
            routes: vec![],
            identities: vec![],
        }
    }

    /// The same with one guest changed.
    pub(crate) fn with(mut self, name: &str, change: impl FnOnce(&mut Guest)) -> Self {
        change(&mut self.guests[number(name)]);
        self.revision += 1;
        self
    }

    fn policy(&self) -> Policy {
        let group = |number: u32| GroupConfig { name: format!("group-{number}").into(), cidrs: vec![] };
        let policy = FirewallPolicyConfig {
            name: "policy".into(),
            revision: 1,
            tier: Tier::Application,
            priority: 1,
            audit: false,
            applies_to: vec![Peer::Any],
            rules: self.rules.clone(),
        };
        let addresses = |guest: &Guest| {
            let link_local = IpAddr::V6(pipeline::link_local(guest.mac()));
            [guest.address(false), guest.address(true), link_local].map(|address| (guest.identity, address))
        };
        let config = PolicyConfig {
            rules: Arc::new(RulesConfig { groups: (0..8).map(group).collect(), policies: vec![policy] }),
            identities: (1..=8).map(|id| IdentityConfig { id, groups: vec![id - 1] }).collect(),
            endpoints: self.guests.iter().flat_map(addresses).collect(),
        };
        Policy::compile(&config, None).expect("a policy")
    }

    /// As one host sees it.
    pub(crate) fn snapshot(&self, here: &str) -> Snapshot {
        let mut builder = Snapshot::builder(self.revision, KEY, Arc::new(self.policy()));
        for (name, address) in HOSTS {
            let config = HostConfig {
                addresses: vec![address.parse().expect("an address")],
                options: name != "x",
                external: name == "x",
                path_mtu: self.path_mtu,
                identities: if name == here { vec![] } else { self.identities.clone() },
            };
            builder.host(config).expect("a host");
        }
        builder.router(RouterConfig { routes: self.routes.clone() }).expect("a router");
        builder.router(RouterConfig::default()).expect("a router");
        for (network, (vni, router, third)) in NETWORKS.iter().enumerate() {
            let config = NetworkConfig {
                gateway_mac: gateway(network),
                gateways: vec![address(&format!("10.0.{third}.1")), address(&format!("fd00:{third}::1"))],
                subnets: vec![
                    (address(&format!("10.0.{third}.0")), 24),
                    (address(&format!("fd00:{third}::")), 64),
                ],
                mtu: 1500,
                vni: Some(*vni),
                router: router.map(RouterIndex),
                clamp_mss: self.clamp_mss,
            };
            builder.network(config).expect("a network");
        }
        let location = |name: &str| if name == here { Location::Here } else { Location::Host(host(name)) };
        for (id, guest) in (1000..).zip(&self.guests) {
            let port = PortConfig {
                network: NetworkIndex(guest.network as u16),
                mac: guest.mac(),
                addresses: vec![guest.address(false), guest.address(true)],
                id,
                location: guest.host.map_or(Location::Unknown, location),
                moved: guest.moved.map(|(from, until)| Moved { from: location(from), until }),
                rate_limit: None,
                identity: guest.identity,
                firewall: guest.firewall,
                slot: id - 1000,
            };
            builder.port(port).expect("a port");
        }
        builder.build().expect("a snapshot")
    }
}

/// A frame as a ring hands it over, or a tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) net: [u8; 12],
    pub(crate) head: [u8; HEAD],
    pub(crate) head_len: u16,
    pub(crate) len: u32,
    rest: Vec<u8>,
}

impl Sent {
    pub(crate) fn new(bytes: &[u8]) -> Self {
        let (first, rest) = bytes.split_at(bytes.len().min(HEAD));
        let mut head = [0xa5; HEAD];
        head[..first.len()].copy_from_slice(first);
        Self {
            net: [0; 12],
            head,
            head_len: first.len() as u16,
            len: bytes.len() as u32,
            rest: rest.to_vec(),
        }
    }

    pub(crate) fn frame(&mut self) -> Frame<'_> {
        Frame { head: &mut self.head, head_len: &mut self.head_len, len: &mut self.len, net: &mut self.net }
    }

    /// The bytes that a receiver gets.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let rest = self.len as usize - usize::from(self.head_len);
        [&self.head[..usize::from(self.head_len)], &self.rest[..rest]].concat()
    }
}

/// A datagram between hosts.
#[derive(Clone, Debug)]
pub(crate) struct Datagram {
    pub(crate) from: IpAddr,
    pub(crate) trusted: bool,
    pub(crate) ecn: u8,
    pub(crate) tunnel: Vec<u8>,
    pub(crate) frame: Vec<u8>,
}

impl Datagram {
    pub(crate) fn new(from: &str, header: Builder, frame: &[u8]) -> Self {
        let mut tunnel = [0; BUILT_LEN];
        let len = header.write(&mut tunnel);
        let tunnel = tunnel[..len].to_vec();
        Self { from: underlay(from), trusted: true, ecn: 0, tunnel, frame: frame.to_vec() }
    }
}

/// One host: what outlives a burst, and what is in force.
pub(crate) struct Node {
    pub(crate) name: &'static str,
    pub(crate) snapshot: Snapshot,
    pub(crate) flows: FlowTable,
    pub(crate) work: Workspace,
    states: Vec<PortState>,
    pub(crate) underlay: PortState,
    pub(crate) now: Instant,
    pub(crate) events: Vec<Event>,
}

/// What became of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fate {
    pub(crate) verdict: Verdict,
    pub(crate) bytes: Vec<u8>,
    pub(crate) ends: Ends,
}

impl Node {
    pub(crate) fn new(name: &'static str, config: &Config) -> Self {
        let (timeouts, tcp) = (Timeouts::default(), tcp::Settings::default());
        let table = FlowTableConfig { capacity: 4096, per_port: 4096, slots: 64, key: KEY, timeouts, tcp };
        Self {
            name,
            snapshot: config.snapshot(name),
            flows: FlowTable::new(table),
            work: Workspace::new(),
            states: (0..GUESTS.len()).map(|_| PortState::default()).collect(),
            underlay: PortState::of_underlay(),
            now: Instant::from_nanos(1_234_567_891_011),
            events: Vec::new(),
        }
    }

    pub(crate) fn go_over_to(&mut self, config: &Config) {
        self.snapshot = config.snapshot(self.name);
    }

    pub(crate) fn send(&mut self, from: &str, frame: &[u8]) -> Fate {
        self.send_all(from, &mut [Sent::new(frame)]).remove(0)
    }

    pub(crate) fn send_all(&mut self, from: &str, sent: &mut [Sent]) -> Vec<Fate> {
        let port = index(from);
        let mut verdicts = vec![Verdict::Flood; sent.len()];
        let mut frames: Vec<Frame<'_>> = sent.iter_mut().map(Sent::frame).collect();
        let state = &self.states[port.0 as usize];
        let (flows, work) = (&self.flows, &mut self.work);
        from_port(&self.snapshot, flows, port, state, self.now, &mut frames, &mut verdicts, work);
        self.events.extend(self.work.report.drain());
        let ends = Ends::default();
        verdicts
            .into_iter()
            .zip(sent)
            .map(|(verdict, sent)| Fate { verdict, bytes: sent.bytes(), ends })
            .collect()
    }

    pub(crate) fn receive(&mut self, datagram: &Datagram) -> Fate {
        self.receive_all(std::slice::from_ref(datagram)).remove(0)
    }

    pub(crate) fn receive_all(&mut self, datagrams: &[Datagram]) -> Vec<Fate> {
        let mut sent: Vec<Sent> = datagrams.iter().map(|datagram| Sent::new(&datagram.frame)).collect();
        let both = datagrams.iter().zip(sent.iter_mut());
        let arrival = |(datagram, sent): (_, _)| {
            let (datagram, sent): (&Datagram, &mut Sent) = (datagram, sent);
            (datagram, sent)
        };
        let mut arrivals: Vec<Arrival<'_>> = both
            .map(arrival)
            .map(|(datagram, sent)| Arrival {
                source: datagram.from,
                trusted: datagram.trusted,
                ecn: datagram.ecn,
                tunnel: &datagram.tunnel,
                frame: sent.frame(),
                ends: Ends::default(),
            })
            .collect();
        let mut verdicts = vec![Verdict::Flood; datagrams.len()];
        let (flows, work) = (&self.flows, &mut self.work);
        from_underlay(&self.snapshot, flows, &self.underlay, self.now, &mut arrivals, &mut verdicts, work);
        self.events.extend(self.work.report.drain());
        let ends: Vec<Ends> = arrivals.iter().map(|arrival| arrival.ends).collect();
        let all = verdicts.into_iter().zip(sent).zip(ends);
        all.map(|((verdict, sent), ends)| Fate { verdict, bytes: sent.bytes(), ends }).collect()
    }

    /// The datagram in which a frame that was to be delivered, or sent back, leaves for another host.
    pub(crate) fn datagram(&self, from: Option<PortIndex>, fate: &Fate) -> Datagram {
        let (from, to) = match fate.verdict {
            Verdict::Deliver(to) => (from.or(fate.ends.sender), to),
            Verdict::Reply | Verdict::Refuse(_) => {
                (fate.ends.receiver, fate.ends.sender.expect("somebody to answer"))
            }
            other => panic!("{other:?} goes nowhere"),
        };
        let encapsulation = self.snapshot.encapsulation(from, to).expect("a port of another host");
        Datagram::new(self.name, encapsulation.header, &fate.bytes)
    }

    pub(crate) fn trace(&self, from: &str, frame: &[u8]) -> Trace {
        trace(&self.snapshot, &self.flows, index(from), self.now, &mut Sent::new(frame).frame())
    }

    /// The last drop that was told of.
    pub(crate) fn last_drop(&mut self) -> DropRecord {
        let mut drops = std::mem::take(&mut self.events).into_iter().rev().filter_map(|event| match event {
            Event::Dropped(record) => Some(record),
            _ => None,
        });
        drops.next().expect("a drop")
    }
}

impl Fate {
    /// As text: `app` for delivered to it, `drop REASON`, `refuse REASON`, `flood`, `reply`.
    pub(crate) fn shown(&self) -> String {
        match self.verdict {
            Verdict::Deliver(port) => GUESTS[port.0 as usize].name.to_string(),
            Verdict::Flood => "flood".to_string(),
            Verdict::Reply => "reply".to_string(),
            Verdict::Refuse(reason) => format!("refuse {reason}"),
            Verdict::Hold(slot) => format!("hold {slot}"),
            Verdict::Drop(reason) => format!("drop {reason}"),
        }
    }
}

/// All hosts of ours under one configuration.
pub(crate) struct Mesh {
    pub(crate) nodes: Vec<Node>,
}

impl Mesh {
    pub(crate) fn new(config: &Config) -> Self {
        Self { nodes: ["a", "b", "c"].map(|name| Node::new(name, config)).into() }
    }

    pub(crate) fn node(&mut self, name: &str) -> &mut Node {
        self.nodes.iter_mut().find(|node| node.name == name).expect("a host of ours")
    }

    /// Sends a frame from a guest, over the underlay if need be: what became of it in the end, and where.
    pub(crate) fn send(&mut self, from: &str, frame: &[u8]) -> (&'static str, Fate) {
        let home = called(from).host.expect("on a host");
        let node = self.node(home);
        let fate = node.send(from, frame);
        let Verdict::Deliver(to) = fate.verdict else { return (node.name, fate) };
        let Some(there) = node.snapshot.port(to).host() else { return (node.name, fate) };
        let datagram = node.datagram(Some(index(from)), &fate);
        let node = self.node(HOSTS[usize::from(there.0)].0);
        let fate = node.receive(&datagram);
        (node.name, fate)
    }

    /// The same, as text.
    pub(crate) fn sent(&mut self, from: &str, frame: &[u8]) -> String {
        let (at, fate) = self.send(from, frame);
        format!("{} at {at}", fate.shown())
    }
}
