//! Nanoseconds per frame with the firewall on, on one core, by the number of flows, and what a new flow costs:
//! `cargo run --release -p pipeline --example flows [FLOWS]` (under `perf stat -e cycles,instructions` for cycles).
//!
//! Two ports, 100 rules of which the last admits, frames of 64 bytes. Both directions of each flow pass in turn.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Instant as Clock;

use pipeline::conntrack::{tcp, timeouts::Timeouts};
use pipeline::policy::{
    Action, FirewallPolicyConfig, Peer, PolicyConfig, RuleConfig, RulesConfig, ServiceMatch, Tier,
};
use pipeline::{
    FlowTable, FlowTableConfig, Frame, HEAD, HashKey, Instant, NetworkConfig, Policy, PortConfig, PortIndex,
    PortState, Snapshot, Verdict, Workspace, from_port,
};

const BURST: usize = 64;
const KEY: HashKey = HashKey([0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210]);
const MACS: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]];
const ADDRESSES: [[u8; 4]; 2] = [[10, 1, 0, 1], [10, 1, 0, 2]];

fn rule(id: u32, port: u16, action: Action) -> RuleConfig {
    RuleConfig {
        id,
        name: format!("r{id}").into(),
        direction: None,
        action,
        from: vec![Peer::Any],
        to: vec![Peer::Any],
        services: vec![ServiceMatch { protocol: Some(6), ports: Some((port, port)), icmp: None }],
        log: false,
        keep_established: false,
    }
}

fn snapshot(firewall: bool, rules: u16) -> Snapshot {
    let mut all: Vec<RuleConfig> = (1..rules).map(|n| rule(u32::from(n), 1000 + n, Action::Drop)).collect();
    let udp = ServiceMatch { protocol: Some(17), ports: None, icmp: None };
    all.push(RuleConfig { services: vec![udp], ..rule(0, 0, Action::Allow) });
    let policy = FirewallPolicyConfig {
        name: "bench".into(),
        revision: 1,
        tier: Tier::Application,
        priority: 100,
        audit: false,
        applies_to: vec![Peer::Any],
        rules: all,
    };
    let rules = Arc::new(RulesConfig { groups: vec![], policies: vec![policy] });
    let config = PolicyConfig { rules, identities: vec![], endpoints: vec![] };
    let policy = Arc::new(Policy::compile(&config, None).expect("a policy"));
    let mut builder = Snapshot::builder(1, KEY, policy);
    let network = builder
        .network(NetworkConfig {
            gateway_mac: [2, 0xff, 0, 0, 0, 1],
            gateways: vec![],
            subnets: vec![(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 0)), 8)],
            mtu: 1500,
            ..NetworkConfig::default()
        })
        .expect("a network");
    for (mac, address) in MACS.into_iter().zip(ADDRESSES) {
        let addresses = vec![IpAddr::from(address)];
        let port =
            PortConfig { network, mac, addresses, identity: 0, firewall, slot: 0, ..PortConfig::default() };
        builder.port(port).expect("a port");
    }
    builder.build().expect("a snapshot")
}

/// The frame of flow `number`, from one port to the other or back.
fn frame(number: u32, back: bool) -> [u8; 60] {
    let mut frame = [0; 60];
    let (from, to) = (usize::from(back), usize::from(!back));
    frame[..6].copy_from_slice(&MACS[to]);
    frame[6..12].copy_from_slice(&MACS[from]);
    frame[12..24].copy_from_slice(&[8, 0, 0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17]);
    frame[26..30].copy_from_slice(&ADDRESSES[from]);
    frame[30..34].copy_from_slice(&ADDRESSES[to]);
    let ports = [1024 + (number % 50_000) as u16, 5000 + (number / 50_000) as u16];
    frame[34..36].copy_from_slice(&ports[from].to_be_bytes());
    frame[36..38].copy_from_slice(&ports[to].to_be_bytes());
    frame[39] = 26;
    frame
}

struct Host {
    snapshot: Snapshot,
    flows: FlowTable,
    state: PortState,
    work: Workspace,
}

impl Host {
    /// Sends a burst; nanoseconds that it took.
    fn send(&mut self, now: u64, back: bool, numbers: impl Iterator<Item = u32>) -> u64 {
        let mut heads = [[0u8; HEAD]; BURST];
        let mut lens = [60u32; BURST];
        let mut head_lens = [60u16; BURST];
        let mut nets = [[0u8; 12]; BURST];
        let mut count = 0;
        for (head, number) in heads.iter_mut().zip(numbers) {
            head[..60].copy_from_slice(&frame(number, back));
            count += 1;
        }
        let mut verdicts = [Verdict::Flood; BURST];
        let mut items = nets.iter_mut().zip(&mut lens).zip(&mut head_lens).zip(&mut heads);
        let start = Clock::now();
        let mut frames: [Frame<'_>; BURST] = std::array::from_fn(|_| {
            let (((net, len), head_len), head) = items.next().expect("a burst of each");
            Frame { head, head_len, len, net }
        });
        from_port(
            black_box(&self.snapshot),
            &self.flows,
            PortIndex(u32::from(back)),
            &self.state,
            Instant::from_nanos(now),
            &mut frames[..count],
            &mut verdicts,
            &mut self.work,
        );
        let spent = start.elapsed().as_nanos() as u64;
        assert!(
            verdicts[..count].iter().all(|verdict| *verdict == Verdict::Deliver(PortIndex(u32::from(!back)))),
            "{:?}",
            verdicts[..count].iter().find(|verdict| !matches!(verdict, Verdict::Deliver(_)))
        );
        black_box(self.work.report.events());
        self.work.report.clear();
        spent
    }
}

fn host(firewall: bool, rules: u16) -> Host {
    let capacity = 4 << 20;
    let config = FlowTableConfig {
        capacity,
        per_port: capacity,
        slots: 1,
        key: KEY,
        timeouts: Timeouts::default(),
        tcp: tcp::Settings::default(),
    };
    let (state, work) = (PortState::default(), Workspace::new());
    Host { snapshot: snapshot(firewall, rules), flows: FlowTable::new(config), state, work }
}

#[expect(clippy::print_stdout, reason = "an example's result")]
fn main() {
    let only: Option<u32> = std::env::args().nth(1).and_then(|text| text.parse().ok());
    let mut off = host(false, 100);
    let mut spent: Vec<u64> = (0..20_000).map(|_| off.send(1, false, [1; BURST].into_iter())).collect();
    spent.sort_unstable();
    println!("firewall off       {:6.1} ns/frame", spent[spent.len() / 2] as f64 / BURST as f64);
    for flows in [1, 1000, 10_000, 100_000, 1_000_000] {
        if only.is_some_and(|only| only != flows) {
            continue;
        }
        let mut host = host(true, 100);
        let numbers: Vec<u32> = (0..flows).collect();
        let mut setup: Vec<f64> = numbers
            .chunks(BURST)
            .map(|numbers| host.send(1, false, numbers.iter().copied()) as f64 / numbers.len() as f64)
            .collect();
        setup.sort_unstable_by(f64::total_cmp);
        let bursts = (3 * flows as usize / BURST).max(20_000);
        let mut next = 0;
        let mut spent = Vec::with_capacity(2 * bursts);
        for _ in 0..bursts {
            let burst = (next..).take(BURST).map(|n| n % flows);
            for back in [false, true] {
                spent.push(host.send(1_000_000, back, burst.clone()));
            }
            next = (next + BURST as u32) % flows;
        }
        let half = spent.len() / 2;
        spent[..].rotate_left(half);
        spent.truncate(half);
        spent.sort_unstable();
        println!(
            "{flows:>9} flows    {:6.1} ns/frame   new: {:6.1} ns each   {} tracked",
            spent[spent.len() / 2] as f64 / BURST as f64,
            setup[setup.len() / 2],
            host.flows.len(),
        );
    }
}
