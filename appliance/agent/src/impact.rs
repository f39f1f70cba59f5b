//! What a configuration that is not in force would do to the flows that are.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use mgmt_types::question::{FlowId, Verdict};
use mgmt_types::{CutFlow, FlowImpact};
use pipeline::policy::{Action, Direction, Service};
use pipeline::{Domain, FlowKey, FlowRecord, FlowTable, Instant, Snapshot};

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
    // Networks and routers may have other numbers in the candidate.
    let mut same: HashMap<Domain, Option<Domain>> = HashMap::new();
    flows.for_each(now, |flow| {
        let known = same.entry(flow.key.domain);
        let domain = *known.or_insert_with(|| candidate.same_domain(in_force, flow.key.domain));
        let judged = domain.map_or(Judged::Refused(None), |domain| {
            judge(&candidate.snapshot, &FlowKey { domain, ..flow.key })
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
        let Some(network) = candidate.network_called(&flow.network) else { continue };
        let key = FlowKey {
            domain: candidate.snapshot.network(network).domain(),
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
    let FlowKey { domain, protocol, source, destination } = *key;
    let endpoint = |address| match snapshot.network_of(domain, address) {
        Some(network) => snapshot.endpoint_at(network, address),
        None => snapshot.policy().external(address),
    };
    let [from, to] = [source.0, destination.0].map(endpoint);
    let service = match ECHO.iter().find(|(icmp, _)| *icmp == protocol) {
        Some((_, kind)) => Service::icmp(protocol, *kind, 0),
        None if WITH_PORTS.contains(&protocol) => Service::port(protocol, destination.1),
        None => Service::without_port(protocol),
    };
    let port_of = |address: IpAddr| {
        let network = snapshot.network_of(domain, address)?;
        let port = snapshot.neighbour(network, address).and_then(|neighbour| neighbour.port);
        port.map(|port| snapshot.port(port))
    };
    let ends = [(Direction::Out, source.0, from, to), (Direction::In, destination.0, to, from)];
    for (direction, address, local, remote) in ends {
        // Nobody sends for an address that no port has, and nothing is delivered to one.
        let Some(port) = port_of(address) else { return Judged::Refused(None) };
        if !port.is_judged() {
            continue;
        }
        let decision = snapshot.policy().judge(direction, local, remote, service);
        if decision.action != Action::Allow {
            return Judged::Refused(decision.rule);
        }
    }
    Judged::Admitted
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

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use mgmt_types::agent::{Peer, Slice, SlicePolicy, SliceRule};
    use mgmt_types::question::TraceRequest;
    use mgmt_types::{PolicyMode, RuleAction, Tier};
    use pipeline::conntrack::{tcp, timeouts::Timeouts};
    use pipeline::{FlowTableConfig, Frame, HEAD, HashKey, PortState, Verdict, Workspace};

    use super::*;
    use crate::compile::tests::{slice, vm_port};
    use crate::compile::{Known, compile};
    use crate::probe::ProbeFrame;

    const KEY: HashKey = HashKey([1, 2]);
    const NOW: Instant = Instant::from_nanos(5_000_000_000);

    fn rule(id: u32, action: RuleAction, from: &str, port: u16) -> SliceRule {
        SliceRule {
            id,
            name: format!("r{id}"),
            direction: None,
            action,
            from: vec![Peer::Cidr(format!("{from}/32").parse().expect("a net"))],
            to: Vec::new(),
            services: vec![mgmt_types::agent::ServiceMatch {
                protocol: Some(6),
                ports: Some((port, port)),
                icmp: None,
            }],
            log: false,
            keep_established: false,
        }
    }

    /// Three ports a, b, c with 10.0.1.11 to 13, under one policy of these rules.
    fn world(rules: Vec<SliceRule>) -> Slice {
        let mut slice = slice(vec![vm_port(1, "a"), vm_port(2, "b"), vm_port(3, "c")]);
        slice.policies = vec![SlicePolicy {
            name: "shop".into(),
            revision: 1,
            tier: Tier::Application,
            priority: 1,
            mode: PolicyMode::Enforce,
            applies_to: vec![Peer::Any],
            rules,
        }];
        slice
    }

    fn directory(slice: Slice) -> Directory {
        let compiled = compile(&slice, "here", Path::new("/run"), KEY, Known::default());
        Directory::new(Arc::new(slice), Arc::new(compiled.expect("compiles").snapshot))
    }

    /// A table with one flow, of the first packet of `source` to `destination`.
    fn flows(directory: &Directory, conversations: &[(&str, &str, &str)]) -> FlowTable {
        let config = FlowTableConfig {
            capacity: 1 << 12,
            per_port: 100,
            slots: crate::slots::MOST,
            key: KEY,
            timeouts: Timeouts::default(),
            tcp: tcp::Settings::default(),
        };
        let table = FlowTable::new(config);
        let mut work = Workspace::new();
        for (source, destination, service) in conversations {
            let request = TraceRequest {
                source: (*source).into(),
                destination: (*destination).into(),
                service: service.parse().expect("a probe"),
                source_port: None,
            };
            let mut probe = ProbeFrame::new(directory, &request).expect("a probe");
            let mut head = [0; HEAD];
            head[..probe.bytes.len()].copy_from_slice(&probe.bytes);
            let (mut head_len, mut len) = (probe.bytes.len() as u16, probe.bytes.len() as u32);
            let mut frames =
                [Frame { head: &mut head, head_len: &mut head_len, len: &mut len, net: &mut probe.net }];
            let mut verdicts = [Verdict::Flood];
            let (snapshot, state) = (&directory.snapshot, PortState::default());
            pipeline::from_port(
                snapshot,
                &table,
                probe.port,
                &state,
                NOW,
                &mut frames,
                &mut verdicts,
                &mut work,
            );
            assert!(matches!(verdicts[0], Verdict::Deliver(_)), "{verdicts:?}");
        }
        table
    }

    const CONVERSATIONS: [(&str, &str, &str); 3] =
        [("a", "c", "tcp/80"), ("a", "b", "tcp/443"), ("b", "c", "tcp/443")];

    fn open() -> Vec<SliceRule> {
        vec![
            rule(1, RuleAction::Allow, "10.0.1.11", 80),
            rule(2, RuleAction::Allow, "10.0.1.11", 443),
            rule(3, RuleAction::Allow, "10.0.1.12", 443),
        ]
    }

    fn impact(in_force: Slice, candidate: Slice, refused: &[Told]) -> FlowImpact {
        let (in_force, candidate) = (directory(in_force), directory(candidate));
        let table = flows(&in_force, &CONVERSATIONS);
        super::of(&in_force, &candidate, &table, refused, NOW)
    }

    type Told = mgmt_types::question::Verdict;

    #[test]
    fn a_flow_that_a_candidate_refuses_is_named_with_the_rule() {
        let mut rules = open();
        rules[0].action = RuleAction::Reject;
        rules.remove(2);
        let impact = impact(world(open()), world(rules), &[]);
        assert_eq!((impact.count_cut, impact.flows_allowed), (2, 0));
        let mut cut: Vec<_> = impact
            .flows_cut
            .iter()
            .map(|cut| (cut.source.as_str(), cut.destination.as_str(), cut.rule.as_deref()))
            .collect();
        cut.sort();
        assert_eq!(
            cut,
            [
                ("10.0.1.11:49152", "10.0.1.13:80", Some("shop/r1")),
                ("10.0.1.12:49152", "10.0.1.13:443", None)
            ]
        );
    }

    #[test]
    fn what_a_rule_keeps_is_not_cut_and_another_order_of_networks_means_nothing() {
        let mut kept = open();
        kept[0].keep_established = true;
        let mut candidate = world(vec![rule(2, RuleAction::Allow, "10.0.1.11", 443)]);
        let mut green = candidate.networks[0].clone();
        green.name = "green".into();
        green.vni = 200;
        candidate.networks.insert(0, green);
        let impact = impact(world(kept), candidate, &[]);
        let cut: Vec<&str> = impact.flows_cut.iter().map(|cut| cut.source.as_str()).collect();
        assert_eq!(cut, ["10.0.1.12:49152"]);
    }

    #[test]
    fn a_port_that_goes_takes_its_flows_along() {
        let mut candidate = world(open());
        candidate.ports.remove(2);
        // The sender's own rules still allow it; nobody is there to receive it.
        let impact = impact(world(open()), candidate, &[]);
        assert_eq!(impact.count_cut, 2, "{impact:#?}");
    }

    #[test]
    fn what_was_refused_lately_and_would_pass_is_counted_once() {
        let refused: Vec<Told> = [40000, 40001]
            .map(|port| {
                let end = |last: u8, port| mgmt_types::question::FlowEnd {
                    address: [10, 0, 1, last].into(),
                    port,
                    of: None,
                };
                let flow = FlowId {
                    network: "blue".into(),
                    protocol: 6,
                    source: end(13, port),
                    destination: end(11, 22),
                };
                Told {
                    time: 1,
                    host: "here".into(),
                    port: "c.eth0".into(),
                    verdict: mgmt_types::question::VerdictKind::Dropped,
                    reason: None,
                    meaning: None,
                    flow: Some(flow),
                    direction: None,
                    rules: Vec::new(),
                    source_groups: None,
                    destination_groups: None,
                    revision: 1,
                    bytes: 60,
                    times: 1,
                }
            })
            .into();
        let mut rules = open();
        rules.push(rule(4, RuleAction::Allow, "10.0.1.13", 22));
        let more = impact(world(open()), world(rules), &refused);
        assert_eq!((more.count_cut, more.flows_allowed), (0, 1));
        assert_eq!(impact(world(open()), world(open()), &refused).flows_allowed, 0);
    }
}
