//! Names for what workers and tables tell in numbers.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use mgmt_types::agent::{Slice, SlicePort};
use mgmt_types::question::{FlowEnd, FlowId, FlowInfo, RuleName};
use mgmt_types::{RuleAction, RuleDirection, Tier};
use pipeline::policy::{self, Action, Direction, Endpoint, RuleIndex};
use pipeline::{
    Domain, FlowKey, FlowRecord, HostIndex, Instant, NetworkIndex, PortIndex, RouterIndex, RuleId, Snapshot,
};

/// The names of one configuration.
#[derive(Debug)]
pub(crate) struct Directory {
    /// What was asked for; its networks and ports lie in the order of the snapshot's indexes.
    pub(crate) slice: Arc<Slice>,
    /// What it was compiled to.
    pub(crate) snapshot: Arc<Snapshot>,
    /// Places in the policy's order of judgement.
    rules: HashMap<RuleId, usize>,
    /// Of networks with ports, the name.
    networks: HashMap<NetworkIndex, String>,
    /// Of routers of these networks, the name.
    routers: HashMap<RouterIndex, String>,
}

/// A moment on both clocks: turns instants of the monotonic clock into time of day.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    now: Instant,
    /// Milliseconds since 1970-01-01 UTC.
    time: u64,
}

impl Clock {
    /// The clocks as they stand.
    pub(crate) fn read() -> Self {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let time = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        Self { now: Instant::from_nanos(crate::clock::now()), time }
    }

    /// The monotonic clock.
    pub(crate) fn now(&self) -> Instant {
        self.now
    }

    /// An instant, in milliseconds since 1970-01-01 UTC.
    pub(crate) fn time(&self, at: Instant) -> u64 {
        self.time.saturating_sub(self.now.nanos_since(at) / 1_000_000)
    }
}

impl Directory {
    pub(crate) fn new(slice: Arc<Slice>, snapshot: Arc<Snapshot>) -> Self {
        let rules = snapshot.policy().rules().iter().enumerate().map(|(place, rule)| (rule.id, place));
        let rules = rules.collect();
        let ports = slice.ports.iter().zip(snapshot.ports());
        let networks: HashMap<NetworkIndex, String> =
            ports.map(|(port, compiled)| (compiled.network(), port.network.clone())).collect();
        let router = |(index, name): (&NetworkIndex, &String)| {
            let declared = slice.networks.iter().find(|network| network.name == *name)?;
            Some((snapshot.network(*index).router()?, declared.router.clone()?))
        };
        let routers = networks.iter().filter_map(router).collect();
        Self { rules, networks, routers, slice, snapshot }
    }

    /// A port's entry in the slice.
    pub(crate) fn port(&self, port: PortIndex) -> Option<&SlicePort> {
        self.slice.ports.get(port.0 as usize)
    }

    /// A host's name.
    pub(crate) fn host(&self, host: HostIndex) -> Option<&str> {
        self.slice.hosts.get(usize::from(host.0)).map(|host| host.name.as_str())
    }

    /// The port that has an address: on a network, or on another of its router.
    pub(crate) fn holder(&self, network: NetworkIndex, address: IpAddr) -> Option<(PortIndex, &SlicePort)> {
        let there = || self.snapshot.network_of(self.snapshot.network(network).domain(), address);
        let near = self.snapshot.neighbour(network, address);
        let index = near.or_else(|| self.snapshot.neighbour(there()?, address))?.port?;
        Some((index, self.port(index)?))
    }

    /// The network that a flow began on.
    pub(crate) fn network_of(&self, key: &FlowKey) -> Option<NetworkIndex> {
        self.snapshot.network_of(key.domain, key.source.0)
    }

    /// The port that began a flow.
    pub(crate) fn initiator(&self, key: &FlowKey) -> Option<(PortIndex, &SlicePort)> {
        self.holder(self.network_of(key)?, key.source.0)
    }

    /// What has the name here that a domain has in another directory.
    pub(crate) fn same_domain(&self, other: &Self, domain: Domain) -> Option<Domain> {
        match domain {
            Domain::Network(network) => {
                self.network_called(other.networks.get(&network)?).map(Domain::Network)
            }
            Domain::Router(router) => {
                let name = other.routers.get(&router)?;
                self.routers.iter().find(|(_, own)| *own == name).map(|(router, _)| Domain::Router(*router))
            }
        }
    }

    /// A router's name, by one of its networks.
    pub(crate) fn router_of(&self, network: NetworkIndex) -> Option<&str> {
        self.routers.get(&self.snapshot.network(network).router()?).map(String::as_str)
    }

    /// A network's name.
    pub(crate) fn network(&self, network: NetworkIndex) -> String {
        self.networks.get(&network).cloned().unwrap_or_default()
    }

    /// A network with ports, by its name.
    pub(crate) fn network_called(&self, name: &str) -> Option<NetworkIndex> {
        self.networks.iter().find(|(_, own)| *own == name).map(|(index, _)| *index)
    }

    /// Who talks to whom.
    pub(crate) fn flow(&self, key: &FlowKey) -> FlowId {
        let network = self.network_of(key);
        let end = |(address, port)| FlowEnd {
            address,
            port,
            of: network.and_then(|network| self.holder(network, address)).map(|(_, port)| full_name(port)),
        };
        FlowId {
            network: network.map(|network| self.network(network)).unwrap_or_default(),
            protocol: key.protocol,
            source: end(key.source),
            destination: end(key.destination),
        }
    }

    /// A flow with everything that is known of it.
    pub(crate) fn flow_info(&self, flow: &FlowRecord, clock: &Clock) -> FlowInfo {
        FlowInfo {
            host: self.slice.host.clone(),
            flow: self.flow(&flow.key),
            state: flow.state.to_owned(),
            started: clock.time(flow.started),
            last_seen: clock.time(flow.last_seen),
            packets: flow.packets,
            bytes: flow.bytes,
            rules: self.rules_of(flow),
            revision: flow.revision,
        }
    }

    /// The rules that admitted a flow, the sender's first.
    pub(crate) fn rules_of(&self, flow: &FlowRecord) -> Vec<RuleName> {
        let [out, into] = flow.rules;
        let out = out.map(|rule| self.rule(rule, Some(Direction::Out)));
        let into = into.map(|rule| self.rule(rule, Some(Direction::In)));
        out.into_iter().chain(into).collect()
    }

    /// A rule's name; one that is not in force any more has only a number.
    pub(crate) fn rule(&self, rule: RuleId, side: Option<Direction>) -> RuleName {
        match self.compiled(rule) {
            Some(rule) => rule_name(rule, side),
            None => RuleName {
                id: rule.0,
                policy: String::new(),
                rule: String::new(),
                tier: Tier::default(),
                action: RuleAction::Drop,
                revision: 0,
                direction: side.map(direction),
            },
        }
    }

    /// A rule's name by its place in this snapshot's policy.
    pub(crate) fn rule_at(&self, rule: RuleIndex, side: Direction) -> RuleName {
        rule_name(self.snapshot.policy().rule(rule), Some(side))
    }

    /// Whether what a rule decides is to be told to the log.
    pub(crate) fn is_logged(&self, rule: RuleId) -> bool {
        self.compiled(rule).is_some_and(|rule| rule.log)
    }

    /// Whether flows that a rule admitted live on when a later revision forbids them.
    pub(crate) fn keeps_established(&self, rule: RuleId) -> bool {
        self.compiled(rule).is_some_and(|rule| rule.keep_established)
    }

    /// Names of the groups of an endpoint.
    pub(crate) fn groups(&self, endpoint: Endpoint) -> Vec<String> {
        self.snapshot.policy().groups_of(endpoint).map(str::to_owned).collect()
    }

    fn compiled(&self, rule: RuleId) -> Option<&policy::Rule> {
        self.rules.get(&rule).and_then(|place| self.snapshot.policy().rules().get(*place))
    }
}

/// `web-1.eth0`
pub(crate) fn full_name(port: &SlicePort) -> String {
    format!("{}.{}", port.workload, port.name)
}

/// A direction in the words of the API.
pub(crate) fn direction(direction: Direction) -> RuleDirection {
    match direction {
        Direction::In => RuleDirection::In,
        Direction::Out => RuleDirection::Out,
    }
}

fn rule_name(rule: &policy::Rule, side: Option<Direction>) -> RuleName {
    RuleName {
        id: rule.id.0,
        policy: rule.policy.to_string(),
        rule: rule.name.to_string(),
        tier: match rule.tier {
            policy::Tier::Emergency => Tier::Emergency,
            policy::Tier::Security => Tier::Security,
            policy::Tier::Network => Tier::Network,
            policy::Tier::Platform => Tier::Platform,
            policy::Tier::Application => Tier::Application,
            policy::Tier::Baseline => Tier::Baseline,
        },
        action: match rule.action {
            Action::Allow => RuleAction::Allow,
            Action::Drop => RuleAction::Drop,
            Action::Reject => RuleAction::Reject,
        },
        revision: rule.revision,
        direction: side.map(direction),
    }
}
