//! Fragments in bursts, through a firewall that lets DNS pass and nothing else.

use std::sync::Arc;

use pipeline::policy::{
    Action, FirewallPolicyConfig, Peer, PolicyConfig, RuleConfig, RulesConfig, ServiceMatch, Tier,
};
use pipeline::{
    DropReason, Instant, NetworkConfig, Policy, PortConfig, PortIndex, Released, Snapshot, Verdict,
};

use crate::world::{Host, KEY, Sent};

const A: PortIndex = PortIndex(0);
const B: PortIndex = PortIndex(1);
/// Where the first fragment ends.
const CUT: u16 = 64;

fn snapshot() -> Snapshot {
    let rule = RuleConfig {
        id: 1,
        name: "dns".into(),
        direction: None,
        action: Action::Allow,
        from: Vec::new(),
        to: Vec::new(),
        services: vec![ServiceMatch { protocol: Some(17), ports: Some((53, 53)), icmp: None }],
        log: false,
        keep_established: false,
    };
    let policy = FirewallPolicyConfig {
        name: "names".into(),
        revision: 1,
        tier: Tier::Application,
        priority: 1,
        audit: false,
        applies_to: vec![Peer::Any],
        rules: vec![rule],
    };
    let addresses = ["10.0.1.11", "10.0.1.12"].map(|address| address.parse().unwrap());
    let rules = Arc::new(RulesConfig { groups: Vec::new(), policies: vec![policy] });
    let endpoints = addresses.map(|address| (0, address)).to_vec();
    let policy = Policy::compile(&PolicyConfig { rules, identities: Vec::new(), endpoints }, None).unwrap();
    let mut builder = Snapshot::builder(1, KEY, Arc::new(policy));
    let network = NetworkConfig {
        gateway_mac: [2, 0, 0, 0, 0xff, 1],
        gateways: Vec::new(),
        subnets: vec![("10.0.1.0".parse().unwrap(), 24)],
        mtu: 1500,
        ..NetworkConfig::default()
    };
    let network = builder.network(network).unwrap();
    for (last, address) in [(1, addresses[0]), (2, addresses[1])] {
        let (mac, addresses) = ([2, 0, 0, 0, 0, last], vec![address]);
        let (firewall, slot) = (true, u32::from(last));
        let port = PortConfig { network, mac, addresses, firewall, slot, ..PortConfig::default() };
        builder.port(port).unwrap();
    }
    builder.build().unwrap()
}

/// A fragment from `A` to `B`, of a UDP datagram to this port. The first has the ports.
fn fragment(id: u8, to_port: u8, offset: u16, len: u16, more: bool) -> Sent {
    let ethernet = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
    let [total, word] = [20 + len, (offset / 8) | (u16::from(more) << 13)].map(u16::to_be_bytes);
    let ip = [0x45, 0, total[0], total[1], 0, id, word[0], word[1], 64, 17, 0, 0, 10, 0, 1, 11, 10, 0, 1, 12];
    let mut data = vec![0; usize::from(len)];
    if offset == 0 {
        data[..8].copy_from_slice(&[0x80, 0, 0, to_port, 4, 0, 0, 0]);
    }
    Sent::new([0; 12], &[&ethernet[..], &ip, &data].concat())
}

fn first(id: u8, to_port: u8) -> Sent {
    fragment(id, to_port, 0, CUT, true)
}

fn last(id: u8) -> Sent {
    fragment(id, 0, CUT, 100, false)
}

/// Sends a burst in this second; what was released is taken out and its slots given back.
fn burst<const N: usize>(
    host: &mut Host,
    snapshot: &Snapshot,
    second: u64,
    mut sent: [Sent; N],
) -> ([Verdict; N], Vec<Released>) {
    let mut verdicts = [Verdict::Flood; N];
    let mut frames: Vec<_> = sent.iter_mut().map(Sent::frame).collect();
    let now = Instant::from_nanos(second * 1_000_000_000);
    host.judge(snapshot, A, now, &mut frames, &mut verdicts);
    let released: Vec<Released> = host.work.released.drain(..).collect();
    for Released { slot, .. } in &released {
        host.free(A, *slot);
    }
    (verdicts, released)
}

#[test]
fn fragments_share_the_fate_of_their_first_in_any_order() {
    let (mut host, snapshot) = (Host::new(), snapshot());
    let to_b = Verdict::Deliver(B);
    let denied = Verdict::Drop(DropReason::DefaultDeny);
    let sent = [first(1, 53), last(1), last(2), first(2, 53), first(3, 80), last(3), last(4), first(4, 80)];
    let (verdicts, released) = burst(&mut host, &snapshot, 1, sent);
    assert_eq!(verdicts, [to_b, to_b, to_b, to_b, denied, denied, denied, denied]);
    assert_eq!(released, []);
}

#[test]
fn fragments_wait_for_a_first_of_a_later_burst() {
    let (mut host, snapshot) = (Host::new(), snapshot());
    let (verdicts, released) = burst(&mut host, &snapshot, 1, [last(1), last(2)]);
    assert_eq!((verdicts, released), ([Verdict::Hold(0), Verdict::Hold(1)], Vec::new()));
    let (verdicts, released) = burst(&mut host, &snapshot, 2, [first(2, 80), first(1, 53)]);
    assert_eq!(verdicts, [Verdict::Drop(DropReason::DefaultDeny), Verdict::Deliver(B)]);
    let refused = Released { slot: 1, verdict: Verdict::Drop(DropReason::DefaultDeny) };
    assert_eq!(released, [refused, Released { slot: 0, verdict: Verdict::Deliver(B) }]);
    // The first's verdict outlives the burst.
    let third = fragment(3, 53, 0, CUT, true);
    assert_eq!(burst(&mut host, &snapshot, 3, [third]).0, [Verdict::Deliver(B)]);
    assert_eq!(burst(&mut host, &snapshot, 4, [last(3)]).0, [Verdict::Deliver(B)]);
}

/// One packet's fragment waits in a slot, its packet is refused, and another's waits: all in one burst.
#[test]
fn what_overlaps_within_a_burst_takes_nothing_of_another_packet_with_it() {
    let (mut host, snapshot) = (Host::new(), snapshot());
    let (overlap, to_b) = (Verdict::Drop(DropReason::FragmentOverlap), Verdict::Deliver(B));
    let sent = [last(1), last(1), last(2), first(2, 53), first(1, 53)];
    let (verdicts, released) = burst(&mut host, &snapshot, 1, sent);
    assert_eq!(verdicts, [overlap, overlap, to_b, to_b, overlap]);
    assert_eq!(released, []);
    // No first came at all.
    let (verdicts, released) = burst(&mut host, &snapshot, 1, [last(3), last(3), last(4)]);
    assert_eq!((verdicts, released), ([overlap, overlap, Verdict::Hold(0)], Vec::new()));
}

#[test]
fn what_waits_is_dropped_when_its_packet_is_refused_or_its_time_is_over() {
    let (mut host, snapshot) = (Host::new(), snapshot());
    let overlap = Verdict::Drop(DropReason::FragmentOverlap);
    assert_eq!(burst(&mut host, &snapshot, 1, [last(1), last(2)]).0, [Verdict::Hold(0), Verdict::Hold(1)]);
    // The slot is not given away before it was emptied.
    let (verdicts, released) = burst(&mut host, &snapshot, 2, [last(1), last(3)]);
    assert_eq!(verdicts, [overlap, Verdict::Hold(2)]);
    assert_eq!(released, [Released { slot: 0, verdict: overlap }]);
    let (verdicts, released) = burst(&mut host, &snapshot, 31, [last(4)]);
    assert_eq!(verdicts, [Verdict::Hold(0)]);
    assert_eq!(released, [Released { slot: 1, verdict: Verdict::Drop(DropReason::FragmentTimeout) }]);
}

#[test]
fn fragments_that_have_no_room_to_wait_are_dropped() {
    let (mut host, snapshot) = (Host::new(), snapshot());
    for id in 0..64 {
        assert_eq!(burst(&mut host, &snapshot, 1, [last(id)]).0, [Verdict::Hold(id)]);
    }
    let (verdicts, _) = burst(&mut host, &snapshot, 1, [last(64), first(64, 53)]);
    assert_eq!(verdicts, [Verdict::Drop(DropReason::FragmentLimit); 2]);
}
