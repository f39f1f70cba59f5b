//! What a configuration that is not in force would do to the flows that are.

use std::collections::HashSet;
use std::net::IpAddr;

use mgmt_types::question::{FlowId, Verdict};
use mgmt_types::{CutFlow, FlowImpact};
use pipeline::policy::{Action, Direction, Service};
use pipeline::{FlowKey, FlowRecord, FlowTable, Instant, NetworkIndex, Snapshot};

use crate::directory::Directory;

/// The most flows that are named.
const NAMED: usize = 100;
/// ICMP and ICMPv6: protocol numbers and the type of an echo request, the only one that begins a flow.
const ECHO: [(u8, u8); 2] = [(1, 8), (58, 128)];
/// TCP, UDP and SCTP have ports.
const WITH_PORTS: [u8; 3] = [6, 17, 132];

/// Judges every live flow by a candidate, and what was refused lately.
pub(crate) fn of(
    in_force: &Directory,
    candidate: &Directory,
    flows: &FlowTable,
    refused: &[Verdict],
    now: Instant,
) -> FlowImpact {
    let mut impact = FlowImpact { host: in_force.slice.host.clone(), ..FlowImpact::default() };
    let names = &candidate.slice.networks;
    let index_of = |name: &str| {
        names.iter().position(|network| network.name == name).map(|place| NetworkIndex(place as u16))
    };
    // Networks may have other numbers in the candidate.
    let same: Vec<Option<NetworkIndex>> =
        in_force.slice.networks.iter().map(|network| index_of(&network.name)).collect();
    flows.for_each(now, |flow| {
        let network = same.get(usize::from(flow.key.network.0)).copied().flatten();
        let judged = network.map_or(Judged::Refused(None), |network| {
            judge(&candidate.snapshot, &FlowKey { network, ..flow.key })
        });
        let Judged::Refused(rule) = judged else { return };
        if is_kept(in_force, flow) {
            return;
        }
        impact.count_cut += 1;
        if impact.flows_cut.len() < NAMED {
            impact
                .flows_cut
                .push(cut(&in_force.flow(&flow.key), rule.map(|rule| rule_name(candidate, rule))));
        }
    });
    let mut seen = HashSet::new();
    for flow in refused.iter().filter_map(|verdict| verdict.flow.as_ref()) {
        let Some(network) = index_of(&flow.network) else { continue };
        let key = FlowKey {
            network,
            protocol: flow.protocol,
            source: (flow.source.address, flow.source.port),
            destination: (flow.destination.address, flow.destination.port),
        };
        let same = (flow.network.as_str(), flow.protocol, flow.source.address, key.destination);
        if seen.insert(same) && matches!(judge(&candidate.snapshot, &key), Judged::Admitted) {
            impact.flows_allowed += 1;
        }
    }
    impact
}

enum Judged {
    Admitted,
    /// By this rule, by its place; none for default deny, or when there is nobody any more.
    Refused(Option<pipeline::policy::RuleIndex>),
}

/// Asks the rules at both ends, as the firewall does for a new flow.
fn judge(snapshot: &Snapshot, key: &FlowKey) -> Judged {
    let FlowKey { network, protocol, source, destination } = *key;
    let [from, to] = [source.0, destination.0].map(|address| snapshot.endpoint_at(network, address));
    let service = match ECHO.iter().find(|(icmp, _)| *icmp == protocol) {
        Some((_, kind)) => Service::icmp(protocol, *kind, 0),
        None if WITH_PORTS.contains(&protocol) => Service::port(protocol, destination.1),
        None => Service::without_port(protocol),
    };
    let port_of = |address: IpAddr| {
        let port = snapshot.neighbour(network, address).and_then(|neighbour| neighbour.port);
        port.map(|port| snapshot.port(port))
    };
    let ends = [(Direction::Out, source.0, from, to), (Direction::In, destination.0, to, from)];
    let mut known = false;
    for (direction, address, local, remote) in ends {
        let Some(port) = port_of(address) else { continue };
        known |= port.is_local();
        if !port.is_judged() {
            continue;
        }
        let decision = snapshot.policy().judge(direction, local, remote, service);
        if decision.action != Action::Allow {
            return Judged::Refused(decision.rule);
        }
    }
    if known { Judged::Admitted } else { Judged::Refused(None) }
}

/// Whether a rule that admitted it keeps what it admitted.
fn is_kept(in_force: &Directory, flow: &FlowRecord) -> bool {
    flow.rules.into_iter().flatten().any(|rule| in_force.keeps_established(rule))
}

fn rule_name(directory: &Directory, rule: pipeline::policy::RuleIndex) -> String {
    let rule = directory.snapshot.policy().rule(rule);
    format!("{}/{}", rule.policy, rule.name)
}

fn cut(flow: &FlowId, rule: Option<String>) -> CutFlow {
    let end = |address: IpAddr, port: u16| std::net::SocketAddr::new(address, port).to_string();
    CutFlow {
        network: flow.network.clone(),
        protocol: flow.protocol,
        source: end(flow.source.address, flow.source.port),
        destination: end(flow.destination.address, flow.destination.port),
        rule,
    }
}
