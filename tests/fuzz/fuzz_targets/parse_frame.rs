//! The whole way from a port, over arbitrary frames with arbitrary requests.
//!
//! The head may be shorter than a copied head would be, and the rest may be absent, as in a chain that a guest cut in
//! pieces of its choice.
#![no_main]

use std::sync::{Arc, LazyLock};

use arbitrary::{Arbitrary, Unstructured};
use libfuzzer_sys::fuzz_target;
use pipeline::conntrack::{tcp, timeouts::Timeouts};
use pipeline::policy::{
    Action, FirewallPolicyConfig, Peer, PolicyConfig, RuleConfig, RulesConfig, ServiceMatch, Tier,
};
use pipeline::{
    FlowTable, FlowTableConfig, Frame, HEAD, HashKey, Instant, NetworkConfig, Policy, PortConfig, PortIndex,
    PortState, RateLimit, Snapshot, Verdict, Workspace, from_port,
};
use wire::gso::{Segmenter, finish_checksum};
use wire::vnet::VnetHeader;

/// Rejects UDP to ports from 1000 on and admits all else.
fn policy() -> Policy {
    let rule = |id, action, services| RuleConfig {
        id,
        name: "rule".into(),
        direction: None,
        action,
        from: vec![],
        to: vec![],
        services,
        log: true,
        keep_established: false,
    };
    let high = ServiceMatch { protocol: Some(17), ports: Some((1000, u16::MAX)), icmp: None };
    let policy = FirewallPolicyConfig {
        name: "policy".into(),
        revision: 1,
        tier: Tier::Application,
        priority: 1,
        audit: false,
        applies_to: vec![Peer::Any],
        rules: vec![rule(1, Action::Reject, vec![high]), rule(2, Action::Allow, vec![])],
    };
    let rules = Arc::new(RulesConfig { groups: vec![], policies: vec![policy] });
    Policy::compile(&PolicyConfig { rules, ..PolicyConfig::default() }, None).expect("a policy")
}

/// New for every input, so that each can be repeated.
fn flows() -> FlowTable {
    let (timeouts, tcp) = (Timeouts::default(), tcp::Settings::default());
    FlowTable::new(FlowTableConfig {
        capacity: 4096,
        per_port: 64,
        slots: 4,
        key: HashKey([3, 4]),
        timeouts,
        tcp,
    })
}

static SNAPSHOT: LazyLock<Snapshot> = LazyLock::new(|| {
    let mut builder = Snapshot::builder(1, HashKey([1, 2]), Arc::new(policy()));
    let address = |text: &str| text.parse().expect("an address");
    let network = builder
        .network(NetworkConfig {
            gateway_mac: [2, 0, 0, 0, 0xff, 1],
            gateways: vec![address("10.0.1.1"), address("fd00:1::1")],
            subnets: vec![(address("10.0.1.0"), 24)],
            mtu: 1500,
            ..NetworkConfig::default()
        })
        .expect("a network");
    for last in 1..=3 {
        let limit = RateLimit { packets_per_second: 1000, burst_packets: 64, ..RateLimit::default() };
        let addresses = vec![address(&format!("10.0.1.1{last}")), address(&format!("fd00:1::1{last}"))];
        let mac = [2, 0, 0, 0, 0, last];
        let rate_limit = (last == 3).then_some(limit);
        let (firewall, slot) = (last != 3, u32::from(last));
        let port = PortConfig { network, mac, addresses, rate_limit, firewall, slot, ..PortConfig::default() };
        builder.port(port).expect("a port");
    }
    builder.build().expect("a snapshot")
});

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Shape {
    Noise,
    Arp,
    Ipv4 { protocol: u8 },
    Ipv6 { next_header: u8 },
}

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    /// Whether the sender tells the truth about itself, so that the later stages are reached.
    honest: bool,
    destination: u8,
    shape: Shape,
    net: [u8; 12],
    /// Fewer bytes of head than there could be.
    missing: u8,
    bytes: &'a [u8],
}

/// Writes the honest parts over the bytes.
fn dress(input: &Input<'_>, frame: &mut [u8]) {
    let mut put = |at: usize, bytes: &[u8]| {
        if let Some(place) = frame.get_mut(at..).and_then(|rest| rest.get_mut(..bytes.len())) {
            place.copy_from_slice(bytes);
        }
    };
    if !input.honest {
        return;
    }
    match input.destination {
        0 => put(0, &[0xff; 6]),
        1 => put(0, &[2, 0, 0, 0, 0xff, 1]),
        2 => put(0, &[0x33, 0x33, 0, 0, 0, 1]),
        3 => {}
        _ => put(0, &[2, 0, 0, 0, 0, 2]),
    }
    put(6, &[2, 0, 0, 0, 0, 1]);
    match input.shape {
        Shape::Noise => {}
        Shape::Arp => {
            put(12, &[8, 6, 0, 1, 8, 0, 6, 4, 0]);
            put(22, &[2, 0, 0, 0, 0, 1]);
        }
        Shape::Ipv4 { protocol } => {
            put(12, &[8, 0]);
            put(23, &[protocol]);
            put(26, &[10, 0, 1, 11]);
        }
        Shape::Ipv6 { next_header } => {
            put(12, &[0x86, 0xdd, 0x60]);
            put(20, &[next_header, 255, 0xfd, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x11]);
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let Ok(input) = Input::arbitrary_take_rest(Unstructured::new(data)) else { return };
    let mut all = input.bytes.to_vec();
    dress(&input, &mut all);
    let head_len = all.len().min(HEAD).saturating_sub(usize::from(input.missing) % HEAD);
    let mut head = [0xa5; HEAD];
    head[..head_len].copy_from_slice(&all[..head_len]);
    let (mut len, mut net, mut head_len) = (all.len() as u32, input.net, head_len as u16);
    let before = head;
    let mut verdicts = [Verdict::Flood];
    let frame = Frame { head: &mut head, head_len: &mut head_len, len: &mut len, net: &mut net };
    let (flows, state, mut work) = (flows(), PortState::default(), Workspace::new());
    let now = Instant::from_nanos(1);
    from_port(&SNAPSHOT, &flows, PortIndex(0), &state, now, &mut [frame], &mut verdicts, &mut work);
    assert!(usize::from(head_len) <= HEAD && u32::from(head_len) <= len, "{head_len} of {len}");
    let own = SNAPSHOT.port(PortIndex(0)).mac();
    match verdicts[0] {
        Verdict::Drop(_) => return,
        Verdict::Reply | Verdict::Refuse(_) => assert_ne!(head[6..12], own),
        Verdict::Hold(_) => assert_eq!(head, before),
        Verdict::Deliver(port) => {
            assert_ne!(port, PortIndex(0));
            assert_eq!(head, before);
            assert_eq!(head[6..12], own);
        }
        Verdict::Flood => {
            assert_eq!(head, before);
            assert_eq!(head[6..12], own);
        }
    }
    // The offload header that is left is one that nobody downstream refuses.
    let rest = all.get(usize::from(head_len)..len as usize).unwrap_or_default();
    let mut linear = [&head[..usize::from(head_len)], rest].concat();
    let header = VnetHeader::from_bytes(&net);
    assert_eq!(finish_checksum(&mut linear.clone(), &header), Ok(()));
    if header.is_gso() {
        let segmenter = Segmenter::new(&linear, &header).expect("proven by the pipeline");
        assert!(segmenter.largest() <= 1514);
    }
    // Finishing the checksum changes nothing that was judged.
    if matches!(verdicts[0], Verdict::Deliver(_)) && !header.is_gso() && header.needs_csum() {
        let _ = finish_checksum(&mut linear, &header);
        head[..usize::from(head_len)].copy_from_slice(&linear[..usize::from(head_len)]);
        net = [0; 12];
        let frame = Frame { head: &mut head, head_len: &mut head_len, len: &mut len, net: &mut net };
        let mut again = [Verdict::Flood];
        from_port(&SNAPSHOT, &flows, PortIndex(0), &state, now, &mut [frame], &mut again, &mut work);
        assert_eq!(again, verdicts);
    }
});
