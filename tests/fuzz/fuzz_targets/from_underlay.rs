//! The whole way from another host, over arbitrary tunnels and frames.
//!
//! With an honest header and honest claims the later stages are reached; what is delivered must be for the port it goes to.
#![no_main]

use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use arbitrary::{Arbitrary, Unstructured};
use libfuzzer_sys::fuzz_target;
use pipeline::conntrack::{tcp, timeouts::Timeouts};
use pipeline::policy::{
    Action, FirewallPolicyConfig, Peer, PolicyConfig, RuleConfig, RulesConfig, ServiceMatch, Tier,
};
use pipeline::{
    Arrival, Ends, FlowTable, FlowTableConfig, Frame, HEAD, HashKey, HostConfig, HostIndex, Instant, Location,
    NetworkConfig, NetworkIndex, Policy, PortConfig, PortState, RouterConfig, RouterIndex, Snapshot, Verdict,
    Workspace, from_underlay,
};
use wire::geneve::{BUILT_LEN, Builder};

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

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

/// Two networks of one router; ports 1 and 3 are here, 2 and 4 on the other host.
static SNAPSHOT: LazyLock<Snapshot> = LazyLock::new(|| {
    let mut builder = Snapshot::builder(1, HashKey([1, 2]), Arc::new(policy()));
    let addresses = vec![address("192.0.2.2")];
    let host = HostConfig { addresses, options: true, path_mtu: 1600, ..HostConfig::default() };
    builder.host(host).expect("a host");
    builder.router(RouterConfig::default()).expect("a router");
    for network in 1..=2 {
        let config = NetworkConfig {
            gateway_mac: [2, 0, 0, 0, 0xff, network],
            gateways: vec![address(&format!("10.0.{network}.1"))],
            subnets: vec![(address(&format!("10.0.{network}.0")), 24)],
            mtu: 1500,
            vni: Some(network.into()),
            router: Some(RouterIndex(0)),
            clamp_mss: true,
        };
        builder.network(config).expect("a network");
    }
    for last in 1..=4u8 {
        let network = NetworkIndex(u16::from(last > 2));
        let port = PortConfig {
            network,
            mac: [2, 0, 0, 0, 0, last],
            addresses: vec![address(&format!("10.0.{}.1{last}", network.0 + 1))],
            id: last.into(),
            location: if last % 2 == 0 { Location::Host(HostIndex(0)) } else { Location::Here },
            firewall: last != 3,
            slot: last.into(),
            ..PortConfig::default()
        };
        builder.port(port).expect("a port");
    }
    builder.build().expect("a snapshot")
});

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    /// Whether the tunnel header is one that the host may send.
    header: bool,
    /// Whether the sender tells the truth about itself, and from which of its networks.
    honest: bool,
    routed: bool,
    destination: u8,
    protocol: u8,
    ecn: u8,
    missing: u8,
    tunnel: [u8; 32],
    bytes: &'a [u8],
}

fuzz_target!(|data: &[u8]| {
    let Ok(input) = Input::arbitrary_take_rest(Unstructured::new(data)) else { return };
    let mut tunnel = [0; BUILT_LEN];
    let header = Builder { vni: 1, identity: Some(0), ..Builder::default() };
    let len = header.write(&mut tunnel);
    let tunnel = if input.header { &tunnel[..len] } else { &input.tunnel[..] };
    let mut all = input.bytes.to_vec();
    let mut put = |at: usize, bytes: &[u8]| {
        if let Some(place) = all.get_mut(at..).and_then(|rest| rest.get_mut(..bytes.len())) {
            place.copy_from_slice(bytes);
        }
    };
    if input.honest {
        let (mac, source) = if input.routed { ([2, 0, 0, 0, 0xff, 1], [10, 0, 2, 14]) } else { ([2, 0, 0, 0, 0, 2], [10, 0, 1, 12]) };
        put(0, &[2, 0, 0, 0, if input.destination > 200 { 0xff } else { 0 }, 1]);
        put(6, &mac);
        put(12, &[8, 0]);
        put(23, &[input.protocol]);
        put(26, &source);
    }
    let head_len = all.len().min(HEAD).saturating_sub(usize::from(input.missing) % HEAD);
    let mut head = [0xa5; HEAD];
    head[..head_len].copy_from_slice(&all[..head_len]);
    let (mut len, mut net, mut head_len) = (all.len() as u32, [0; 12], head_len as u16);
    let frame = Frame { head: &mut head, head_len: &mut head_len, len: &mut len, net: &mut net };
    let arrival = Arrival {
        source: address("192.0.2.2"),
        trusted: true,
        ecn: input.ecn & 3,
        tunnel,
        frame,
        ends: Ends::default(),
    };
    let (timeouts, tcp) = (Timeouts::default(), tcp::Settings::default());
    let config = FlowTableConfig { capacity: 4096, per_port: 64, slots: 8, key: HashKey([3, 4]), timeouts, tcp };
    let (flows, state, mut work) = (FlowTable::new(config), PortState::of_underlay(), Workspace::new());
    let (mut verdicts, mut arrivals) = ([Verdict::Flood], [arrival]);
    from_underlay(&SNAPSHOT, &flows, &state, Instant::from_nanos(1), &mut arrivals, &mut verdicts, &mut work);
    let ends = arrivals[0].ends;
    assert!(usize::from(head_len) <= HEAD && u32::from(head_len) <= len, "{head_len} of {len}");
    match verdicts[0] {
        Verdict::Drop(_) | Verdict::Hold(_) => {}
        Verdict::Reply | Verdict::Refuse(_) | Verdict::Flood => assert!(ends.sender.is_some()),
        Verdict::Deliver(to) => {
            assert_eq!(ends.receiver, Some(to));
            let port = SNAPSHOT.port(to);
            assert!(port.is_local());
            assert_eq!(head[..6], port.mac());
            assert_eq!(SNAPSHOT.port(ends.sender.expect("a sender")).host(), Some(HostIndex(0)));
        }
    }
});
