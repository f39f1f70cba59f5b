//! Nanoseconds per frame of the whole pipeline, on one core, as the median burst of many:
//! `cargo run --release -p pipeline --example cycles` (under `perf stat -e cycles,instructions` for cycles); an argument
//! chooses cases by a part of their name.
//!
//! The clock is read here and nowhere else in this package. Frames are 64 to 1518 bytes of which the pipeline sees only
//! the head, so that the size makes no difference but the kind does.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant as Clock;

use pipeline::conntrack::{tcp, timeouts::Timeouts};
use pipeline::{
    FlowTable, FlowTableConfig, Frame, HEAD, HashKey, Instant, NetworkConfig, PortConfig, PortIndex,
    PortState, RateLimit, Snapshot, Verdict, Workspace, from_port,
};

const BURST: usize = 64;
const KEY: HashKey = HashKey([0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210]);
const ROUNDS: usize = 20_000;
const SENDER: [u8; 6] = [2, 0, 0, 0, 0, 1];

fn mac(number: u32) -> [u8; 6] {
    let [a, b, c, d] = number.to_be_bytes();
    [2, 0, a, b, c, d]
}

/// One sender with a limit if asked for, and `ports` receivers.
fn snapshot(ports: u32, rate_limit: Option<RateLimit>) -> Snapshot {
    let mut builder = Snapshot::builder(1, KEY, Arc::default());
    let network = builder
        .network(NetworkConfig {
            gateway_mac: [2, 0xff, 0, 0, 0, 1],
            gateways: vec!["10.0.0.1".parse().expect("an address")],
            subnets: vec![("10.0.0.0".parse().expect("an address"), 8)],
            mtu: 1500,
            ..NetworkConfig::default()
        })
        .expect("a network");
    for number in 1..=ports + 1 {
        let v4 = std::net::Ipv4Addr::from_bits(0x0a01_0000 + number).into();
        let v6 = std::net::Ipv6Addr::from_bits((0xfd00 << 112) + u128::from(number)).into();
        let rate_limit = rate_limit.filter(|_| number == 1);
        let port = PortConfig {
            network,
            mac: mac(number),
            addresses: vec![v4, v6],
            rate_limit,
            identity: 0,
            firewall: false,
            slot: 0,
            ..PortConfig::default()
        };
        builder.port(port).expect("a port");
    }
    builder.build().expect("a snapshot")
}

fn ethernet(to: u32, ethertype: u16) -> Vec<u8> {
    let mut frame = mac(to).to_vec();
    frame.extend(SENDER);
    frame.extend(ethertype.to_be_bytes());
    frame
}

fn udp4(to: u32) -> Vec<u8> {
    let mut frame = ethernet(to, 0x0800);
    frame.extend([0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17, 0, 0, 10, 1, 0, 1]);
    frame.extend((0x0a01_0000 + to).to_be_bytes());
    frame.extend([0x13, 0x88, 0x13, 0x89, 0, 26, 0, 0]);
    frame.resize(60, 0);
    frame
}

fn tcp6(to: u32) -> Vec<u8> {
    let mut frame = ethernet(to, 0x86dd);
    frame.extend([0x60, 0, 0, 0, 0, 32, 6, 64]);
    frame.extend(((0xfd00 << 112) + 1u128).to_be_bytes());
    frame.extend(((0xfd00 << 112) + u128::from(to)).to_be_bytes());
    frame.extend([0x13, 0x88, 0x13, 0x89, 0, 0, 0, 0, 0, 0, 0, 0, 0x80, 0x10, 0, 0, 0, 0, 0, 0]);
    frame.resize(14 + 40 + 32, 0);
    frame
}

fn arp(to: u32) -> Vec<u8> {
    let mut frame = ethernet(to, 0x0806);
    frame.extend([0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(SENDER);
    frame.extend([10, 1, 0, 1, 0, 0, 0, 0, 0, 0]);
    frame.extend((0x0a01_0000 + to).to_be_bytes());
    frame
}

struct Case {
    name: &'static str,
    ports: u32,
    limit: Option<RateLimit>,
    frame: fn(u32) -> Vec<u8>,
    net: [u8; 12],
    want: fn(Verdict) -> bool,
}

fn run(case: &Case, rounds: usize) -> f64 {
    let snapshot = snapshot(case.ports, case.limit);
    // As many heads as a burst: they stay in the first-level cache, as they do after being copied from a ring.
    let mut heads = vec![[0u8; HEAD]; BURST];
    let mut next = 0;
    let mut spent = Vec::with_capacity(rounds);
    let mut verdicts = [Verdict::Flood; BURST];
    let state = PortState::default();
    let config = FlowTableConfig {
        capacity: 4096,
        per_port: 4096,
        slots: 1,
        key: KEY,
        timeouts: Timeouts::default(),
        tcp: tcp::Settings::default(),
    };
    let (flows, mut work) = (FlowTable::new(config), Workspace::new());
    for round in 0..rounds {
        let mut lens = [0u32; BURST];
        let mut head_lens = [0u16; BURST];
        let mut nets = [case.net; BURST];
        for (i, head) in heads.iter_mut().enumerate() {
            next = (next + 7919) % case.ports;
            let frame = (case.frame)(2 + next);
            head[..frame.len()].copy_from_slice(&frame);
            lens[i] = frame.len() as u32;
            head_lens[i] = frame.len() as u16;
        }
        let mut items = nets.iter_mut().zip(&mut lens).zip(&mut head_lens).zip(&mut heads);
        let start = Clock::now();
        let mut frames: [Frame<'_>; BURST] = std::array::from_fn(|_| {
            let (((net, len), head_len), head) = items.next().expect("a burst of each");
            Frame { head, head_len, len, net }
        });
        from_port(
            black_box(&snapshot),
            &flows,
            PortIndex(0),
            &state,
            Instant::from_nanos(round as u64 * 1_000_000),
            &mut frames,
            &mut verdicts,
            &mut work,
        );
        spent.push(start.elapsed().as_nanos());
        assert!(verdicts.iter().all(|verdict| (case.want)(*verdict)), "{}: {:?}", case.name, verdicts[0]);
    }
    spent.sort_unstable();
    spent[rounds / 2] as f64 / BURST as f64
}

#[expect(clippy::print_stdout, reason = "an example's result")]
fn main() {
    let delivered = |verdict| matches!(verdict, Verdict::Deliver(_));
    let limit = RateLimit {
        packets_per_second: 1_000_000_000,
        burst_packets: 1_000_000,
        bits_per_second: 1_000_000_000_000,
        burst_bits: 1 << 33,
    };
    let csum = [1, 0, 0, 0, 0, 0, 34, 0, 6, 0, 0, 0];
    let cases = [
        Case { name: "udp4, 2 ports", ports: 2, limit: None, frame: udp4, net: [0; 12], want: delivered },
        Case { name: "udp4, 1k ports", ports: 1000, limit: None, frame: udp4, net: [0; 12], want: delivered },
        Case {
            name: "udp4, 50k ports",
            ports: 50_000,
            limit: None,
            frame: udp4,
            net: [0; 12],
            want: delivered,
        },
        Case {
            name: "udp4, limited",
            ports: 2,
            limit: Some(limit),
            frame: udp4,
            net: [0; 12],
            want: delivered,
        },
        Case { name: "udp4, partial sum", ports: 2, limit: None, frame: udp4, net: csum, want: delivered },
        Case { name: "tcp6, 2 ports", ports: 2, limit: None, frame: tcp6, net: [0; 12], want: delivered },
        Case {
            name: "arp, answered",
            ports: 2,
            limit: None,
            frame: arp,
            net: [0; 12],
            want: |verdict| verdict == Verdict::Reply,
        },
    ];
    let only = std::env::args().nth(1).unwrap_or_default();
    for case in cases.iter().filter(|case| case.name.contains(&only)) {
        run(case, ROUNDS / 10);
        println!("{:<20} {:6.1} ns/frame", case.name, run(case, ROUNDS));
    }
}
