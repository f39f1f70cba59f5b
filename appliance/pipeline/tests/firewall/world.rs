//! A network of guests, the rules between them, and a host that sends their frames through the pipeline.

use std::net::IpAddr;
use std::sync::Arc;

use pipeline::conntrack::tcp;
use pipeline::conntrack::timeouts::Timeouts;
use pipeline::policy::{
    Action, Direction, FirewallPolicyConfig, GroupConfig, IdentityConfig, Peer, PolicyConfig, RuleConfig,
    RulesConfig, ServiceMatch, Tier,
};
use pipeline::{
    DropReason, DropRecord, Ending, Event, FlowRecord, FlowTable, FlowTableConfig, Frame, HEAD, HashKey,
    Instant, Location, NetworkConfig, NetworkIndex, Policy, PortConfig, PortIndex, PortState, Released,
    Snapshot, Trace, Verdict, Workspace, from_port, trace,
};

/// Fixed, so that tests repeat.
pub(crate) const KEY: HashKey = HashKey([0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210]);

/// Groups by number: who is in them by identity (0 and up is identity 1 and up), and one of addresses outside.
pub(crate) const WEB: Peer = Peer::Group(0);
pub(crate) const APP: Peer = Peer::Group(1);
pub(crate) const DB: Peer = Peer::Group(2);
pub(crate) const OUTSIDE: Peer = Peer::Group(3);

/// One port. Its MAC is 02:00:00:00:00:LAST, its addresses 10.0.1.LAST and fd00:1::LAST, its slot LAST.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Guest {
    pub(crate) name: &'static str,
    pub(crate) last: u8,
    /// 1 is in group web, 2 in app, 3 in db, 0 in none.
    pub(crate) identity: u32,
    pub(crate) firewall: bool,
    pub(crate) local: bool,
    pub(crate) network: u16,
}

const fn guest(name: &'static str, last: u8, identity: u32) -> Guest {
    Guest { name, last, identity, firewall: true, local: true, network: 0 }
}

/// `free` and `idle` are excluded from the firewall, `far` is on another host. In the other network `red` has MAC and
/// addresses of `web`, and `rose` those of `db`.
pub(crate) const GUESTS: [Guest; 9] = [
    guest("web", 11, 1),
    guest("app", 12, 2),
    guest("db", 13, 3),
    guest("nobody", 14, 0),
    Guest { firewall: false, ..guest("free", 15, 0) },
    Guest { firewall: false, ..guest("idle", 16, 0) },
    Guest { local: false, ..guest("far", 17, 0) },
    Guest { network: 1, ..guest("red", 11, 0) },
    Guest { network: 1, ..guest("rose", 13, 0) },
];

pub(crate) fn called(name: &str) -> Guest {
    *GUESTS.iter().find(|guest| guest.name == name).expect("a guest")
}

impl Guest {
    pub(crate) fn mac(&self) -> [u8; 6] {
        [2, 0, 0, 0, 0, self.last]
    }

    pub(crate) fn address(&self, v6: bool) -> IpAddr {
        let text = if v6 { format!("fd00:1::{}", self.last) } else { format!("10.0.1.{}", self.last) };
        text.parse().expect("an address")
    }
}

/// A rule that matches everything.
pub(crate) fn rule(id: u32, action: Action) -> RuleConfig {
    RuleConfig {
        id,
        name: format!("rule-{id}").into(),
        direction: None,
        action,
        from: vec![],
        to: vec![],
        services: vec![],
        log: false,
        keep_established: false,
    }
}

/// Allows whom to whom, to one service.
pub(crate) fn allow(id: u32, from: Peer, to: Peer, service: ServiceMatch) -> RuleConfig {
    RuleConfig { from: vec![from], to: vec![to], services: vec![service], ..rule(id, Action::Allow) }
}

pub(crate) fn port(protocol: u8, port: u16) -> ServiceMatch {
    ServiceMatch { protocol: Some(protocol), ports: Some((port, port)), icmp: None }
}

pub(crate) fn all_of(protocol: u8) -> ServiceMatch {
    ServiceMatch { protocol: Some(protocol), ports: None, icmp: None }
}

pub(crate) fn icmp(protocol: u8, kind: u8) -> ServiceMatch {
    ServiceMatch { protocol: Some(protocol), ports: None, icmp: Some((kind, None)) }
}

/// An enforced policy of everybody's.
pub(crate) fn policy(name: &str, rules: Vec<RuleConfig>) -> FirewallPolicyConfig {
    FirewallPolicyConfig {
        name: name.into(),
        revision: 1,
        tier: Tier::Application,
        priority: 100,
        audit: false,
        applies_to: vec![Peer::Any],
        rules,
    }
}

/// Web may ask app for tcp/80 and udp/53, app db for tcp/5432, everybody everybody for ping. All else is nobody's: default
/// deny.
pub(crate) fn three_tiers() -> Vec<FirewallPolicyConfig> {
    vec![policy(
        "tiers",
        vec![
            allow(1, WEB, APP, port(6, 80)),
            allow(2, WEB, APP, port(17, 53)),
            allow(3, APP, DB, port(6, 5432)),
            RuleConfig { services: vec![icmp(1, 8), icmp(58, 128)], ..rule(4, Action::Allow) },
        ],
    )]
}

/// Everybody may everything.
pub(crate) fn open() -> Vec<FirewallPolicyConfig> {
    vec![policy("open", vec![rule(9, Action::Allow)])]
}

/// What is compiled into a snapshot.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) revision: u64,
    pub(crate) guests: Vec<Guest>,
    pub(crate) policies: Vec<FirewallPolicyConfig>,
}

impl Config {
    pub(crate) fn new(policies: Vec<FirewallPolicyConfig>) -> Self {
        Self { revision: 1, guests: GUESTS.to_vec(), policies }
    }

    /// The next revision, with other policies.
    pub(crate) fn then(&self, policies: Vec<FirewallPolicyConfig>) -> Self {
        Self { revision: self.revision + 1, policies, ..self.clone() }
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let group = |name: &str, cidrs| GroupConfig { name: name.into(), cidrs };
        let outside = vec![("198.51.100.0".parse().expect("an address"), 24)];
        let groups =
            vec![group("web", vec![]), group("app", vec![]), group("db", vec![]), group("out", outside)];
        let addresses = |guest: &Guest| {
            let link_local = IpAddr::V6(pipeline::link_local(guest.mac()));
            [guest.address(false), guest.address(true), link_local].map(|address| (guest.identity, address))
        };
        let config = PolicyConfig {
            rules: Arc::new(RulesConfig { groups, policies: self.policies.clone() }),
            identities: (1..=3).map(|id| IdentityConfig { id, groups: vec![id - 1] }).collect(),
            endpoints: self.guests.iter().flat_map(addresses).collect(),
        };
        let policy = Policy::compile(&config, None).expect("a policy");
        let mut builder = Snapshot::builder(self.revision, KEY, Arc::new(policy));
        for _ in 0..2 {
            let network = NetworkConfig {
                gateway_mac: [2, 0, 0, 0, 0xff, 1],
                gateways: vec!["10.0.1.1".parse().expect("an address")],
                subnets: vec![("10.0.1.0".parse().expect("an address"), 24)],
                mtu: 1500,
                ..NetworkConfig::default()
            };
            builder.network(network).expect("a network");
        }
        for guest in &self.guests {
            let port = PortConfig {
                network: NetworkIndex(guest.network),
                mac: guest.mac(),
                addresses: vec![guest.address(false), guest.address(true)],
                location: if guest.local { Location::Here } else { Location::Unknown },
                identity: guest.identity,
                firewall: guest.firewall,
                slot: u32::from(guest.last) + 20 * u32::from(guest.network),
                ..PortConfig::default()
            };
            builder.port(port).expect("a port");
        }
        builder.build().expect("a snapshot")
    }
}

/// A frame as a ring hands it over: its first bytes copied, the others where they were.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) net: [u8; 12],
    pub(crate) head: [u8; HEAD],
    pub(crate) head_len: u16,
    pub(crate) len: u32,
}

impl Sent {
    pub(crate) fn new(bytes: &[u8]) -> Self {
        let first = bytes.get(..HEAD).unwrap_or(bytes);
        // What the last frame left behind lies beyond the head's end.
        let mut head = [0xa5; HEAD];
        head[..first.len()].copy_from_slice(first);
        Self { net: [0; 12], head, head_len: first.len() as u16, len: bytes.len() as u32 }
    }

    pub(crate) fn frame(&mut self) -> Frame<'_> {
        Frame { head: &mut self.head, head_len: &mut self.head_len, len: &mut self.len, net: &mut self.net }
    }

    /// The first bytes, which of an answer are all.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.head[..usize::from(self.head_len)]
    }
}

/// All that outlives a burst, and what is in force.
pub(crate) struct Host {
    pub(crate) flows: FlowTable,
    pub(crate) work: Workspace,
    states: Vec<PortState>,
    pub(crate) snapshot: Snapshot,
    pub(crate) config: Config,
    pub(crate) now: Instant,
    pub(crate) events: Vec<Event>,
}

pub(crate) fn table(capacity: u32, per_port: u32) -> FlowTableConfig {
    let (timeouts, tcp) = (Timeouts::default(), tcp::Settings::default());
    FlowTableConfig { capacity, per_port, slots: 64, key: KEY, timeouts, tcp }
}

impl Host {
    pub(crate) fn new(policies: Vec<FirewallPolicyConfig>) -> Self {
        Self::with(policies, table(4096, 4096))
    }

    pub(crate) fn with(policies: Vec<FirewallPolicyConfig>, flows: FlowTableConfig) -> Self {
        let config = Config::new(policies);
        Self {
            flows: FlowTable::new(flows),
            work: Workspace::new(),
            states: (0..64).map(|_| PortState::default()).collect(),
            snapshot: config.snapshot(),
            config,
            // Neither 0 nor a whole second.
            now: Instant::from_nanos(1_234_567_891_011),
            events: Vec::new(),
        }
    }

    /// Other policies from now on.
    pub(crate) fn change(&mut self, policies: Vec<FirewallPolicyConfig>) {
        self.go_over_to(self.config.then(policies));
    }

    pub(crate) fn go_over_to(&mut self, config: Config) {
        self.snapshot = config.snapshot();
        self.config = config;
    }

    pub(crate) fn wait(&mut self, milliseconds: u64) {
        self.now = Instant::from_nanos(self.now.as_nanos() + milliseconds * 1_000_000);
    }

    pub(crate) fn index(&self, name: &str) -> PortIndex {
        let place = self.config.guests.iter().position(|guest| guest.name == name);
        PortIndex(place.expect("a port of the snapshot") as u32)
    }

    pub(crate) fn name(&self, port: PortIndex) -> &'static str {
        self.config.guests[port.0 as usize].name
    }

    /// Sends a burst of one port.
    pub(crate) fn burst(&mut self, from: &str, sent: &mut [Sent]) -> Vec<Verdict> {
        let port = self.index(from);
        let state = &self.states[self.snapshot.port(port).slot() as usize];
        let mut verdicts = vec![Verdict::Flood; sent.len()];
        let mut frames: Vec<Frame<'_>> = sent.iter_mut().map(Sent::frame).collect();
        let (flows, work) = (&self.flows, &mut self.work);
        from_port(&self.snapshot, flows, port, state, self.now, &mut frames, &mut verdicts, work);
        self.events.extend(self.work.report.drain());
        verdicts
    }

    /// What became of one frame, as text: `db` for delivered to it, or `drop REASON`, `refuse REASON`, `hold SLOT`…
    pub(crate) fn send(&mut self, from: &str, frame: &[u8]) -> String {
        self.send_all(from, &[frame.to_vec()]).remove(0)
    }

    pub(crate) fn send_all(&mut self, from: &str, frames: &[Vec<u8>]) -> Vec<String> {
        let mut sent: Vec<Sent> = frames.iter().map(|frame| Sent::new(frame)).collect();
        let verdicts = self.burst(from, &mut sent);
        verdicts.into_iter().map(|verdict| self.shown(verdict)).collect()
    }

    /// What became of fragments that waited, and their slots; they are free then.
    pub(crate) fn released(&mut self, from: &str) -> Vec<(u8, String)> {
        let slot = self.snapshot.port(self.index(from)).slot() as usize;
        let released: Vec<Released> = self.work.released.drain(..).collect();
        released.iter().for_each(|released| self.states[slot].free(released.slot));
        released.into_iter().map(|Released { slot, verdict }| (slot, self.shown(verdict))).collect()
    }

    pub(crate) fn shown(&self, verdict: Verdict) -> String {
        match verdict {
            Verdict::Deliver(port) => self.name(port).to_string(),
            Verdict::Flood => "flood".to_string(),
            Verdict::Reply => "reply".to_string(),
            Verdict::Refuse(reason) => format!("refuse {reason}"),
            Verdict::Hold(slot) => format!("hold {slot}"),
            Verdict::Drop(reason) => format!("drop {reason}"),
        }
    }

    pub(crate) fn trace(&self, from: &str, frame: &[u8]) -> Trace {
        trace(&self.snapshot, &self.flows, self.index(from), self.now, &mut Sent::new(frame).frame())
    }

    /// What happened since it was asked last.
    pub(crate) fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// The same without drops, as text: `started STATE`, `ended WHY STATE`, `audited REASON`, `would allow REASON`.
    pub(crate) fn happened(&mut self) -> Vec<String> {
        let shown = |event| match event {
            Event::FlowStarted(flow) => Some(format!("started {}", flow.record().state)),
            Event::FlowEnded(FlowRecord { state, .. }, why) => Some(format!("ended {} {state}", why.name())),
            Event::Audited(DropRecord { reason, would_allow: false, .. }) => {
                Some(format!("audited {reason}"))
            }
            Event::Audited(DropRecord { reason, .. }) => Some(format!("would allow {reason}")),
            Event::Dropped(_) => None,
        };
        self.take_events().into_iter().filter_map(shown).collect()
    }

    /// The last drop that was told of.
    pub(crate) fn last_drop(&mut self) -> DropRecord {
        let mut drops = self.take_events().into_iter().rev().filter_map(|event| match event {
            Event::Dropped(record) => Some(record),
            _ => None,
        });
        drops.next().expect("a drop")
    }

    /// Looks through the whole table for flows that were silent for too long.
    pub(crate) fn expire(&mut self) -> Vec<(FlowRecord, Ending)> {
        let mut ended = Vec::new();
        for _ in 0..64 {
            self.flows.expire(self.now, usize::MAX, |record, why| ended.push((*record, why)));
        }
        ended
    }

    pub(crate) fn records(&self) -> Vec<FlowRecord> {
        let mut records = Vec::new();
        self.flows.for_each(self.now, |record| records.push(*record));
        records
    }

    /// The only flow there is.
    pub(crate) fn record(&self) -> FlowRecord {
        let records = self.records();
        assert_eq!(records.len(), 1, "{records:?}");
        records[0]
    }

    /// Flows that a guest has begun.
    pub(crate) fn begun_by(&self, name: &str) -> u32 {
        self.flows.of_port(self.snapshot.port(self.index(name)).slot())
    }
}

/// Names of a record's groups: of source and destination.
pub(crate) fn groups(snapshot: &Snapshot, record: &DropRecord) -> [Vec<String>; 2] {
    let names = |endpoint| snapshot.policy().groups_of(endpoint).map(str::to_string).collect();
    record.endpoints.expect("ends").map(names)
}

pub(crate) fn dropped(reason: DropReason) -> String {
    format!("drop {reason}")
}

/// The direction of a drop, for asserts that read.
pub(crate) const OUT: Option<Direction> = Some(Direction::Out);
pub(crate) const IN: Option<Direction> = Some(Direction::In);

impl Host {
    /// The rule that drops a frame.
    pub(crate) fn last_drop_of(&mut self, from: &str, frame: &[u8]) -> Option<pipeline::RuleId> {
        self.take_events();
        self.send(from, frame);
        self.last_drop().rule
    }
}
