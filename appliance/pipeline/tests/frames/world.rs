//! The networks that test frames are sent into, and golden frames to send.

use std::sync::{Arc, LazyLock};

use pipeline::conntrack::tcp;
use pipeline::conntrack::timeouts::Timeouts;
use pipeline::policy::{
    Action, FirewallPolicyConfig, Peer, PolicyConfig, RuleConfig, RulesConfig, ServiceMatch, Tier,
};
use pipeline::{
    FlowTable, FlowTableConfig, Frame, HEAD, HashKey, Instant, Location, NetworkConfig, Policy, PortConfig,
    PortIndex, PortState, RateLimit, Snapshot, Verdict, Workspace, from_port,
};

/// Fixed, so that tests repeat.
pub(crate) const KEY: HashKey = HashKey([0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210]);

/// Ports by the names that `golden.py` gives them.
pub(crate) const PORTS: [&str; 8] = ["a", "b", "c", "d", "e", "f", "r", "s"];

/// Two networks whose addresses overlap.
///
/// Blue (10.0.1.0/24, fd00:1::/64, MTU 1500): `a` 10.0.1.11, `b` .12, `c` .13 on another host, `d` .14 limited to 1000
/// packets a second, `e` without addresses, `f` with six of each family and a link-local address of its choice.
/// Red: `r` has the MAC and addresses of `b`, `s` has 10.0.1.17.
pub(crate) fn world() -> &'static Snapshot {
    static WORLD: LazyLock<Snapshot> = LazyLock::new(|| build_world(false));
    &WORLD
}

/// The same world with the firewall on: UDP and ping may pass, TCP is rejected, all else denied.
pub(crate) fn guarded() -> &'static Snapshot {
    static WORLD: LazyLock<Snapshot> = LazyLock::new(|| build_world(true));
    &WORLD
}

fn rules() -> Policy {
    let service = |protocol| ServiceMatch { protocol: Some(protocol), ports: None, icmp: None };
    let rule = |id, action, protocols: &[u8]| RuleConfig {
        id,
        name: "".into(),
        direction: None,
        action,
        from: vec![],
        to: vec![],
        services: protocols.iter().copied().map(service).collect(),
        log: false,
        keep_established: false,
    };
    let policy = FirewallPolicyConfig {
        name: "".into(),
        revision: 1,
        tier: Tier::Application,
        priority: 1,
        audit: false,
        applies_to: vec![Peer::Any],
        rules: vec![rule(1, Action::Allow, &[17, 1, 58]), rule(2, Action::Reject, &[6])],
    };
    let rules = Arc::new(RulesConfig { groups: vec![], policies: vec![policy] });
    Policy::compile(&PolicyConfig { rules, ..PolicyConfig::default() }, None).unwrap()
}

fn build_world(firewall: bool) -> Snapshot {
    let mut builder = Snapshot::builder(1, KEY, Arc::new(rules()));
    let mut network = || {
        builder
            .network(NetworkConfig {
                gateway_mac: [2, 0, 0, 0, 0xff, 1],
                gateways: vec!["10.0.1.1".parse().unwrap(), "fd00:1::1".parse().unwrap()],
                subnets: vec![("10.0.1.0".parse().unwrap(), 24), ("fd00:1::".parse().unwrap(), 64)],
                mtu: 1500,
                ..NetworkConfig::default()
            })
            .unwrap()
    };
    let (blue, red) = (network(), network());
    let many = "10.0.1.21 10.0.1.22 10.0.1.23 10.0.1.24 10.0.1.25 10.0.1.26 \
                fd00:1::21 fd00:1::22 fd00:1::23 fd00:1::24 fd00:1::25 fd00:1::26 fe80::5:1";
    let limit = RateLimit { packets_per_second: 1000, burst_packets: 2, ..RateLimit::default() };
    for (network, last, addresses, local, rate_limit) in [
        (blue, 1, "10.0.1.11 fd00:1::11", true, None),
        (blue, 2, "10.0.1.12 fd00:1::12", true, None),
        (blue, 3, "10.0.1.13 fd00:1::13", false, None),
        (blue, 4, "10.0.1.14 fd00:1::14", true, Some(limit)),
        (blue, 5, "", true, None),
        (blue, 6, many, true, None),
        (red, 2, "10.0.1.12 fd00:1::12", true, None),
        (red, 7, "10.0.1.17", true, None),
    ] {
        let addresses = addresses.split_whitespace().map(|address| address.parse().unwrap()).collect();
        let mac = [2, 0, 0, 0, 0, last];
        builder
            .port(PortConfig {
                network,
                mac,
                addresses,
                location: if local { Location::Here } else { Location::Unknown },
                rate_limit,
                firewall,
                ..PortConfig::default()
            })
            .unwrap();
    }
    builder.build().unwrap()
}

/// A port by its name.
pub(crate) fn port(name: &str) -> PortIndex {
    PortIndex(PORTS.iter().position(|port| *port == name).expect("a port of the world") as u32)
}

/// A frame as a ring hands it over: its first bytes copied, the others where they were.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) net: [u8; 12],
    pub(crate) head: [u8; HEAD],
    pub(crate) head_len: u16,
    pub(crate) len: u32,
    rest: Vec<u8>,
}

impl Sent {
    pub(crate) fn new(net: [u8; 12], bytes: &[u8]) -> Self {
        let (first, rest) = bytes.split_at(bytes.len().min(HEAD));
        // What the last frame left behind lies beyond the head's end.
        let mut head = [0xa5; HEAD];
        head[..first.len()].copy_from_slice(first);
        Self { net, head, head_len: first.len() as u16, len: bytes.len() as u32, rest: rest.to_vec() }
    }

    pub(crate) fn frame(&mut self) -> Frame<'_> {
        Frame { head: &mut self.head, head_len: &mut self.head_len, len: &mut self.len, net: &mut self.net }
    }

    /// The bytes that a receiver would get.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let rest = self.len as usize - usize::from(self.head_len);
        [&self.head[..usize::from(self.head_len)], &self.rest[..rest]].concat()
    }
}

/// Sends one frame and leaves in it what became of it.
pub(crate) fn send(snapshot: &Snapshot, from: PortIndex, sent: &mut Sent) -> Verdict {
    let mut verdicts = [Verdict::Flood];
    let now = Instant::from_nanos(1);
    Host::new().judge(snapshot, from, now, &mut [sent.frame()], &mut verdicts);
    verdicts[0]
}

/// All that outlives a burst on a host.
pub(crate) struct Host {
    pub(crate) flows: FlowTable,
    pub(crate) work: Workspace,
    states: [PortState; PORTS.len()],
}

impl Host {
    pub(crate) fn new() -> Self {
        Self::with(4096, 4096)
    }

    /// With room for so many flows in all, and of one port.
    pub(crate) fn with(capacity: u32, per_port: u32) -> Self {
        let (timeouts, tcp) = (Timeouts::default(), tcp::Settings::default());
        let config = FlowTableConfig { capacity, per_port, slots: 16, key: KEY, timeouts, tcp };
        Self { flows: FlowTable::new(config), work: Workspace::new(), states: Default::default() }
    }

    /// [`from_port()`] with what this host keeps.
    pub(crate) fn judge(
        &mut self,
        snapshot: &Snapshot,
        from: PortIndex,
        now: Instant,
        frames: &mut [Frame<'_>],
        verdicts: &mut [Verdict],
    ) {
        let state = &self.states[from.0 as usize];
        from_port(snapshot, &self.flows, from, state, now, frames, verdicts, &mut self.work);
    }

    /// Gives a slot of a port's held fragments back.
    pub(crate) fn free(&self, port: PortIndex, slot: u8) {
        self.states[port.0 as usize].free(slot);
    }
}

/// A line of `golden.tsv`.
#[derive(Debug)]
pub(crate) struct Golden {
    pub(crate) group: &'static str,
    pub(crate) name: &'static str,
    pub(crate) sender: PortIndex,
    pub(crate) net: [u8; 12],
    /// `deliver PORT`, `flood`, `reply` or `drop REASON`.
    pub(crate) verdict: &'static str,
    pub(crate) frame: Vec<u8>,
    pub(crate) answer: Vec<u8>,
}

/// The lines of `golden/golden.tsv`, which `golden/golden.py` prints.
pub(crate) fn golden() -> &'static [Golden] {
    static ALL: LazyLock<Vec<Golden>> = LazyLock::new(read_golden);
    &ALL
}

fn read_golden() -> Vec<Golden> {
    include_str!("golden/golden.tsv")
        .lines()
        .map(|line| {
            let columns: Vec<&'static str> = line.split('\t').collect();
            let [group, name, sender, net, verdict, frame, answer] = columns[..] else { panic!("{line}") };
            let net = bytes(net).try_into().unwrap_or([0; 12]);
            Golden {
                group,
                name,
                sender: port(sender),
                net,
                verdict,
                frame: bytes(frame),
                answer: bytes(answer),
            }
        })
        .collect()
}

/// Hexadecimal, with `(byte*count)` for runs and `-` for nothing.
fn bytes(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.trim_matches('-');
    while let Some((first, after)) = rest.split_at_checked(2) {
        if let Some(run) = rest.strip_prefix('(') {
            let (run, after) = run.split_once(')').unwrap();
            let (byte, count) = run.split_once('*').unwrap();
            let byte = u8::from_str_radix(byte, 16).unwrap();
            bytes.extend(std::iter::repeat_n(byte, count.parse().unwrap()));
            rest = after;
        } else {
            bytes.push(u8::from_str_radix(first, 16).unwrap());
            rest = after;
        }
    }
    bytes
}
