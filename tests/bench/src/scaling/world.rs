//! What all workers share: a snapshot with two ports for each of them, and one flow table.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use anyhow::Result;
use pipeline::conntrack::tcp;
use pipeline::conntrack::timeouts::Timeouts;
use pipeline::policy::{
    Action, FirewallPolicyConfig, GroupConfig, IdentityConfig, Peer, PolicyConfig, RuleConfig, RulesConfig,
    ServiceMatch, Tier,
};
use pipeline::{FlowTable, FlowTableConfig, HashKey, NetworkConfig, Policy, PortConfig, PortIndex, Snapshot};

/// Rules, of which the last one admits the traffic and no other does.
const RULES: u32 = 100;

/// Of no secrecy here, and the same in every run.
const KEY: HashKey = HashKey([0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210]);

const UDP: u8 = 17;

/// See the module.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) snapshot: Snapshot,
    pub(crate) flows: FlowTable,
}

/// One of the two ports of a worker.
#[derive(Debug, Clone, Copy)]
pub(crate) struct End {
    pub(crate) port: PortIndex,
    pub(crate) mac: [u8; 6],
    pub(crate) address: Ipv4Addr,
}

impl World {
    /// Room for `flows` flows of each of the workers.
    pub(crate) fn new(workers: u32, flows: u32) -> Result<World> {
        let ports = 2 * workers;
        let policy = Arc::new(Policy::compile(&policy(ports), None)?);
        let mut builder = Snapshot::builder(1, KEY, policy);
        let network = builder.network(NetworkConfig {
            gateway_mac: [2, 0, 0, 0, 0, 1],
            gateways: vec![Ipv4Addr::new(10, 64, 0, 1).into()],
            subnets: vec![(Ipv4Addr::new(10, 64, 0, 0).into(), 16)],
            mtu: 1500,
            ..NetworkConfig::default()
        })?;
        for number in 0..ports {
            let End { mac, address, .. } = end(number);
            builder.port(PortConfig {
                network,
                mac,
                addresses: vec![address.into()],
                identity: 1 + number % 2,
                firewall: true,
                slot: number,
                ..PortConfig::default()
            })?;
        }
        let flows = FlowTable::new(FlowTableConfig {
            // Half as much again: shards fill unevenly.
            capacity: (flows + flows / 2).saturating_mul(workers),
            per_port: flows + flows / 2,
            slots: ports,
            key: KEY,
            timeouts: Timeouts::default(),
            tcp: tcp::Settings::default(),
        });
        Ok(World { snapshot: builder.build()?, flows })
    }
}

/// The ports of a worker: the client's, then the server's.
pub(crate) fn ends(worker: u32) -> [End; 2] {
    [end(2 * worker), end(2 * worker + 1)]
}

fn end(number: u32) -> End {
    let [_, _, high, low] = (number + 16).to_be_bytes();
    End { port: PortIndex(number), mac: [2, 0, 0, 1, high, low], address: Ipv4Addr::new(10, 64, high, low) }
}

/// Identity 1 is in group 0, the clients; identity 2 in group 1, the servers.
fn policy(ports: u32) -> PolicyConfig {
    let group = |name: &str, cidrs| GroupConfig { name: name.into(), cidrs };
    let elsewhere: Vec<(IpAddr, u8)> = vec![(Ipv4Addr::new(172, 16, 0, 0).into(), 12)];
    let rule = |i: u32| {
        let (action, from, port) = match i {
            _ if i + 1 == RULES => (Action::Allow, 0, (5202, u16::MAX)),
            _ if i.is_multiple_of(2) => (Action::Allow, 2, (5000, u16::MAX)),
            _ => (Action::Drop, 0, (1, 1000 + i as u16)),
        };
        RuleConfig {
            id: i + 1,
            name: format!("rule-{i}").into(),
            direction: None,
            action,
            from: vec![Peer::Group(from)],
            to: vec![Peer::Group(1)],
            services: vec![ServiceMatch { protocol: Some(UDP), ports: Some(port), icmp: None }],
            log: false,
            keep_established: false,
        }
    };
    PolicyConfig {
        rules: Arc::new(RulesConfig {
            groups: vec![group("clients", vec![]), group("servers", vec![]), group("strangers", elsewhere)],
            policies: vec![FirewallPolicyConfig {
                name: "bench".into(),
                revision: 1,
                tier: Tier::Application,
                priority: 1,
                audit: false,
                applies_to: vec![Peer::Group(0), Peer::Group(1)],
                rules: (0..RULES).map(rule).collect(),
            }],
        }),
        identities: vec![
            IdentityConfig { id: 1, groups: vec![0] },
            IdentityConfig { id: 2, groups: vec![1] },
        ],
        endpoints: (0..ports).map(|number| (1 + number % 2, end(number).address.into())).collect(),
    }
}
