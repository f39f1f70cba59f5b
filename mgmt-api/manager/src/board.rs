//! What hosts last said about themselves. In memory only: it is told again within seconds of a restart.

mod condition;
mod firewall;
mod router;
mod underlay;

use std::cell::OnceCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use mgmt_types::agent::{Counters, HostStatus, Link, PortStatus, RuleStatus};
use mgmt_types::{
    Enforced, HostKind, HostReport, HostState, NetworkReport, PortReport, Realised, RealisedHost,
    RealisedState, Resource, Revision, WorkloadReport,
};

use self::firewall::{Counted, Standing};
use crate::compile;
use crate::mtu::Mtus;
use crate::reach::Reach;
use crate::state::{Entry, HostEntry, State, WorkloadEntry};

/// A host that said nothing for this long counts as gone: three of the five-second turns agents report in.
const PATIENCE: Duration = Duration::from_secs(15);

/// How often others are told what hosts counted.
const RETELL: Duration = Duration::from_secs(10);

/// The last word of each host.
#[derive(Debug, Default)]
pub(crate) struct Board(RwLock<HashMap<String, Report>>);

#[derive(Debug, Clone)]
struct Report {
    status: HostStatus,
    ports: HashMap<u32, PortStatus>,
    rules: Counted,
    seen: SystemTime,
    /// The manager it was said to, when not to this one.
    to: Option<String>,
    /// When it was last passed on to the other managers.
    told: Option<SystemTime>,
}

impl Board {
    /// Takes what a host says, in bounded size and only about ports that are its own.
    pub(crate) fn post(&self, state: &State, status: HostStatus, now: SystemTime) {
        self.take(state, status, None, now);
    }

    /// Takes what a host said to another manager.
    pub(crate) fn hear(&self, state: &State, status: HostStatus, manager: String, now: SystemTime) {
        self.take(state, status, Some(manager), now);
    }

    /// The manager that a host spoke to last, when it is another one.
    pub(crate) fn heard_by(&self, host: &str) -> Option<String> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(host)?.to.clone()
    }

    /// What hosts said to this manager and the others should know: at once what differs in more than counters, the rest
    /// from time to time.
    pub(crate) fn untold(&self, now: SystemTime) -> Vec<HostStatus> {
        let reports = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let due = |report: &&Report| {
            report.to.is_none()
                && report.told.is_none_or(|told| {
                    report.seen > told && now.duration_since(told).map_or(true, |age| age >= RETELL)
                })
        };
        reports.values().filter(due).map(Report::whole).collect()
    }

    /// These hosts' words were passed on.
    pub(crate) fn told(&self, hosts: &[String], now: SystemTime) {
        let mut reports = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for host in hosts {
            if let Some(report) = reports.get_mut(host) {
                report.told = Some(now);
            }
        }
    }

    /// What was passed on is not known any more: all of it is to be told again.
    pub(crate) fn forget_told(&self) {
        let mut reports = self.0.write().unwrap_or_else(PoisonError::into_inner);
        reports.values_mut().for_each(|report| report.told = None);
    }

    fn take(&self, state: &State, mut status: HostStatus, to: Option<String>, now: SystemTime) {
        if !state.hosts.contains_key(&status.host) {
            return;
        }
        let workloads = state.places.on_host(&status.host).filter_map(|name| state.workloads.get(name));
        let own: HashSet<u32> = workloads.flat_map(|entry| entry.ports.values().copied()).collect();
        let mut ports = HashMap::new();
        for mut port in std::mem::take(&mut status.ports) {
            if own.contains(&port.id) {
                bound(&mut port);
                ports.insert(port.id, port);
            }
        }
        let rules = rules(state, std::mem::take(&mut status.rules));
        bound_peers(state, &mut status);
        cut(&mut status.version);
        status.error.iter_mut().chain(&mut status.sync.refusal).for_each(cut);
        let host = status.host.clone();
        let mut reports = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let mut report = Report { status, ports, rules, seen: now, to, told: None };
        if let Some(before) = reports.get(&host).filter(|before| before.agrees(&report)) {
            report.told = before.told;
        }
        reports.insert(host, report);
    }

    /// Forgets hosts that are no longer declared.
    pub(crate) fn retain(&self, state: &State) {
        let mut reports = self.0.write().unwrap_or_else(PoisonError::into_inner);
        reports.retain(|host, _| state.hosts.contains_key(host));
    }

    /// The resources with their status filled in.
    pub(crate) fn resources<'a>(
        &self,
        state: &'a State,
        entries: &'a [Entry],
        now: SystemTime,
    ) -> Vec<Resource> {
        let index = Index::of(state);
        entries.iter().map(|entry| self.resource_by(&index, state, entry, MEMBERS_IN_LIST, now)).collect()
    }

    /// The resource with its status filled in.
    pub(crate) fn resource<'a>(&self, state: &'a State, entry: &'a Entry, now: SystemTime) -> Resource {
        self.resource_by(&Index::of(state), state, entry, MEMBERS, now)
    }

    fn resource_by<'a>(
        &self,
        index: &Index<'a>,
        state: &'a State,
        entry: &'a Entry,
        members: usize,
        now: SystemTime,
    ) -> Resource {
        let mut resource = entry.resource();
        match (&mut resource, entry) {
            (Resource::Network(resource), Entry::Network(entry)) => {
                let compiled = compile::network(&index.mtus, entry);
                resource.status = Some(NetworkReport {
                    vni: compiled.vni,
                    mtu: compiled.mtu,
                    gateways: compiled.gateways,
                    ports: index.plugged.get(resource.name.as_str()).copied().unwrap_or(0),
                    warnings: index.mtus.warning(entry).into_iter().collect(),
                });
            }
            (Resource::Router(resource), Entry::Router(entry)) => {
                resource.status = Some(router::report(state, &entry.resource));
            }
            (Resource::Workload(resource), Entry::Workload(entry)) => {
                resource.status = Some(self.workload(index, state, entry, now));
            }
            (Resource::Host(resource), Entry::Host(entry)) => {
                resource.status = Some(self.host(index, state, entry, members == MEMBERS, now));
            }
            (Resource::Group(resource), Entry::Group(_)) => {
                resource.status = Some(index.standing(state).group(&resource.name, members));
            }
            (Resource::FirewallPolicy(resource), Entry::FirewallPolicy(entry)) => {
                let counted = index.counted.get_or_init(|| self.counted());
                resource.status = Some(index.standing(state).policy(entry, counted, now));
            }
            _ => {}
        }
        resource
    }

    /// What all hosts counted for each rule.
    fn counted(&self) -> Counted {
        let mut sums = Counted::new();
        let reports = self.0.read().unwrap_or_else(PoisonError::into_inner);
        for said in reports.values().flat_map(|report| report.rules.values()) {
            firewall::add(&mut sums, said);
        }
        sums
    }

    fn workload<'a>(
        &self,
        index: &Index<'a>,
        state: &'a State,
        entry: &WorkloadEntry,
        now: SystemTime,
    ) -> WorkloadReport {
        let host = &entry.resource.spec.host;
        let reports = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let report = reports.get(host);
        let mtu = |network: &str| state.networks.get(network).map_or(0, |entry| index.mtus.in_use(entry));
        let is_ours = state.runs_agent(host);
        let wanted = state.hosts.get(host).map_or(0, |host| host.wanted);
        let is_behind = report.is_none_or(|report| report.status.revision < wanted);
        let ports: Vec<PortReport> = compile::ports(state, entry)
            .map(|port| {
                let said = report.and_then(|report| report.ports.get(&port.id));
                PortReport {
                    name: port.name,
                    id: port.id,
                    mac: port.mac,
                    addresses: port.addresses,
                    attach: port.attach,
                    queues: port.queues,
                    mtu: mtu(&port.network),
                    enforced: match said {
                        _ if !port.firewall || !is_ours => Enforced::No,
                        Some(said) if !is_behind && said.enforced => Enforced::Yes,
                        Some(_) if !is_behind => Enforced::No,
                        Some(_) | None => Enforced::Pending,
                    },
                    flows: said.map_or(0, |said| said.flows),
                    flow_limit: said.map_or(0, |said| said.flow_limit),
                    link: said.map(|said| said.link),
                    faults: said.map(|said| said.faults.clone()).unwrap_or_default(),
                    from_guest: said.map_or_else(Counters::default, |said| said.from_guest),
                    to_guest: said.map_or_else(Counters::default, |said| said.to_guest),
                    drops: said.map_or_else(BTreeMap::new, |said| said.drops.clone()),
                    details: said.map_or_else(BTreeMap::new, |said| said.details.clone()),
                }
            })
            .collect();
        let reach = index.reach(state);
        let groups = reach.groups(entry);
        let policies = reach.policies(entry, &groups).into_iter();
        let policies = policies.filter_map(|place| reach.policies.get(place));
        WorkloadReport {
            host: host.clone(),
            connected: report.is_some_and(|report| report.is_fresh(now)),
            policies: policies.map(|policy| policy.resource.name.clone()).collect(),
            groups: groups.into_iter().map(str::to_owned).collect(),
            enforced: Enforced::of_all(ports.iter().map(|port| port.enforced)),
            ports,
        }
    }

    fn host(
        &self,
        index: &Index<'_>,
        state: &State,
        entry: &HostEntry,
        with_paths: bool,
        now: SystemTime,
    ) -> HostReport {
        let name = entry.resource.name.as_str();
        let reports = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let report = reports.get(name);
        let ids = index.ids_of(name);
        let is_up = |id: &&u32| {
            report
                .and_then(|report| report.ports.get(*id))
                .is_some_and(|port| port.link == Link::Up && port.faults.is_empty())
        };
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let peer = compile::peer(entry);
        let paths = report.map(|report| report.status.peers.as_slice()).unwrap_or_default();
        let told = report.and_then(|report| report.status.underlay.as_ref());
        let (condition, reasons) = match entry.resource.spec.kind {
            HostKind::Agent => condition::of(report, now),
            HostKind::External => (HostState::Ready, Vec::new()),
        };
        HostReport {
            kind: entry.resource.spec.kind,
            state: condition,
            reasons,
            connected: report.is_some_and(|report| report.is_fresh(now)),
            last_seen: report.map(|report| humantime::format_rfc3339_seconds(report.seen).to_string()),
            version: report.map(|report| report.status.version.clone()),
            revision: report.map_or(0, |report| report.status.revision),
            wanted: entry.wanted,
            error: report.and_then(|report| report.status.error.clone()),
            ports: count(ids.len()),
            ports_up: count(ids.iter().filter(is_up).count()),
            warnings: underlay::warnings(state, &peer, told),
            underlay: peer.underlay,
            geneve_port: peer.port,
            underlay_mtu: peer.mtu,
            peers: count(paths.iter().filter(|path| path.up.is_some()).count()),
            peers_up: count(paths.iter().filter(|path| path.up == Some(true)).count()),
            paths: if with_paths { paths.to_vec() } else { Vec::new() },
        }
    }

    /// How many hosts spoke lately.
    pub(crate) fn connected(&self, now: SystemTime) -> usize {
        let reports = self.0.read().unwrap_or_else(PoisonError::into_inner);
        reports.values().filter(|report| report.is_fresh(now)).count()
    }

    /// How far a revision has come on each host that has something to do for it.
    pub(crate) fn realised(&self, state: &State, revision: &Revision, now: SystemTime) -> Realised {
        let reports = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let hosts: Vec<RealisedHost> = revision
            .hosts
            .iter()
            // A host that is gone has nothing to do any more.
            .filter(|host| state.hosts.contains_key(*host))
            .map(|host| {
                let (state, reason) = match reports.get(host) {
                    Some(report) if report.status.revision >= revision.revision => {
                        (RealisedState::Applied, None)
                    }
                    Some(Report { status: HostStatus { error: Some(error), .. }, .. }) => {
                        (RealisedState::Failed, Some(error.clone()))
                    }
                    Some(report) if report.is_fresh(now) => (
                        RealisedState::Pending,
                        Some(format!("it is at revision {}", report.status.revision)),
                    ),
                    Some(_) | None => {
                        (RealisedState::Pending, Some("it is not connected to the manager".to_owned()))
                    }
                };
                RealisedHost { host: host.clone(), state, reason }
            })
            .collect();
        let done = hosts.iter().all(|host| host.state == RealisedState::Applied);
        Realised { revision: revision.revision, done, hosts }
    }
}

impl Report {
    /// As the host said it, within bounds.
    fn whole(&self) -> HostStatus {
        let mut ports: Vec<PortStatus> = self.ports.values().cloned().collect();
        ports.sort_by_key(|port| port.id);
        HostStatus { ports, rules: self.rules.values().copied().collect(), ..self.status.clone() }
    }

    /// Whether another report says the same in all that somebody may be waiting for.
    fn agrees(&self, other: &Self) -> bool {
        let agree = |(id, port): (&u32, &PortStatus)| {
            other.ports.get(id).is_some_and(|other| {
                let counts = port.faults.len() == other.faults.len();
                counts && port.link == other.link && port.enforced == other.enforced
            })
        };
        self.to == other.to
            && self.status.revision == other.status.revision
            && self.status.error == other.status.error
            && self.ports.len() == other.ports.len()
            && self.ports.iter().all(agree)
    }

    /// True when the host spoke lately.
    fn is_fresh(&self, now: SystemTime) -> bool {
        // What another manager was told comes here later.
        let patience = if self.to.is_some() { PATIENCE + RETELL } else { PATIENCE };
        now.duration_since(self.seen).map_or(true, |age| age <= patience)
    }
}

/// Who has which ports: made in one pass, so that a list of hosts or networks costs no more than that.
struct Index<'a> {
    ids: HashMap<&'a str, Vec<u32>>,
    plugged: HashMap<&'a str, u32>,
    mtus: Mtus<'a>,
    /// Made when first asked for, as are the next two.
    reach: OnceCell<Reach<'a>>,
    standing: OnceCell<Standing<'a>>,
    counted: OnceCell<Counted>,
}

impl<'a> Index<'a> {
    fn of(state: &'a State) -> Self {
        let mut index = Self {
            ids: HashMap::new(),
            plugged: HashMap::new(),
            mtus: Mtus::of(state),
            reach: OnceCell::new(),
            standing: OnceCell::new(),
            counted: OnceCell::new(),
        };
        for entry in state.workloads.values() {
            let spec = &entry.resource.spec;
            index.ids.entry(&spec.host).or_default().extend(entry.ports.values());
            for port in &spec.ports {
                *index.plugged.entry(&port.network).or_default() += 1;
            }
        }
        index
    }

    fn ids_of(&self, host: &str) -> &[u32] {
        self.ids.get(host).map_or(&[], Vec::as_slice)
    }

    fn reach(&self, state: &'a State) -> &Reach<'a> {
        self.reach.get_or_init(|| Reach::of(state))
    }

    fn standing(&self, state: &'a State) -> &Standing<'a> {
        self.standing.get_or_init(|| Standing::of(state, self.reach(state)))
    }
}

/// Most names of a group's members when one group is read, and in a list of groups.
const MEMBERS: usize = 1000;
const MEMBERS_IN_LIST: usize = 20;
/// Most faults, drop reasons or details a port may report.
const MAX_FACTS: usize = 128;
/// Longest text a host may report, in bytes.
const MAX_TEXT: usize = 1000;

/// What a host says about rules that there are; the last word where it says something twice.
fn rules(state: &State, said: Vec<RuleStatus>) -> Counted {
    if said.is_empty() {
        return Counted::new();
    }
    let known: HashSet<u32> =
        state.policies.values().flat_map(|entry| entry.rules.values()).copied().collect();
    said.into_iter().filter(|rule| known.contains(&rule.id)).map(|rule| (rule.id, rule)).collect()
}

fn bound(port: &mut PortStatus) {
    port.faults.truncate(MAX_FACTS);
    port.faults.iter_mut().for_each(cut);
    let mut left = MAX_FACTS;
    port.drops.retain(|reason, _| keep(&mut left, reason.len()));
    let mut left = MAX_FACTS;
    port.details.retain(|name, _| keep(&mut left, name.len()));
    port.details.values_mut().for_each(cut);
}

/// Under this name, which no host can have, a host tells of what came from addresses of no host.
const STRANGERS: &str = "?";

/// Of what a host says about its peers and itself on the underlay, what can be true, in bounded size.
fn bound_peers(state: &State, status: &mut HostStatus) {
    let mut told = HashSet::new();
    let is_known = |host: &str| host == STRANGERS || state.hosts.contains_key(host);
    status.peers.retain(|peer| is_known(&peer.host) && told.insert(peer.host.clone()));
    for peer in &mut status.peers {
        let mut left = MAX_FACTS;
        peer.drops.retain(|reason, _| keep(&mut left, reason.len()));
    }
    if let Some(underlay) = &mut status.underlay {
        underlay.addresses.truncate(MAX_FACTS);
    }
}

fn keep(left: &mut usize, length: usize) -> bool {
    let stays = *left > 0 && length <= MAX_TEXT;
    *left -= usize::from(stays);
    stays
}

fn cut(text: &mut String) {
    let end = (0..=MAX_TEXT.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text.truncate(end);
}

#[cfg(test)]
mod tests {
    use mgmt_types::Kind;
    use mgmt_types::agent::PeerStatus;

    use super::*;
    use crate::testing::state_of;

    const ONE: &str = "kind: Host\nname: a\n---\nkind: Network\nname: blue\nspec: { subnets: [10.0.1.0/24] }\n---\nkind: Workload\nname: w\nspec: { host: a, kind: vm, ports: [{ name: e, network: blue }] }\n";

    fn status(state: &State, revision: u64, error: Option<&str>) -> HostStatus {
        HostStatus {
            host: "a".into(),
            version: "1".into(),
            revision,
            error: error.map(str::to_owned),
            ports: vec![PortStatus {
                id: state.workloads["w"].ports["e"],
                workload: "w".into(),
                port: "e".into(),
                link: Link::Up,
                from_guest: Counters { packets: 3, bytes: 180 },
                to_guest: Counters::default(),
                drops: [("spoofed-mac".to_owned(), 2)].into(),
                ..PortStatus::default()
            }],
            ..HostStatus::default()
        }
    }

    #[test]
    fn what_a_host_says_is_part_of_its_resources() {
        let state = state_of(ONE);
        let board = Board::default();
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let workload = |now| match board.resource(&state, &state.get(Kind::Workload, "w").unwrap(), now) {
            Resource::Workload(workload) => workload.status.unwrap(),
            other => panic!("{other:?}"),
        };
        assert_eq!((workload(now).connected, workload(now).ports[0].link), (false, None));
        board.post(&state, status(&state, 1, None), now);
        let said = workload(now);
        assert_eq!((said.connected, said.ports[0].link), (true, Some(Link::Up)));
        assert_eq!(said.ports[0].drops["spoofed-mac"], 2);
        assert!(!workload(now + Duration::from_secs(16)).connected);
        let Resource::Host(host) = board.resource(&state, &state.get(Kind::Host, "a").unwrap(), now) else {
            panic!("no host");
        };
        let report = host.status.unwrap();
        assert_eq!((report.revision, report.wanted, report.ports, report.ports_up), (1, 1, 1, 1));
        assert_eq!(report.last_seen.as_deref(), Some("1970-01-12T13:46:40Z"));
    }

    #[test]
    fn a_host_speaks_for_its_own_ports_only_and_in_bounded_words() {
        let state = state_of(ONE);
        let board = Board::default();
        let now = SystemTime::UNIX_EPOCH;
        let mut said = status(&state, 1, Some(&"ü".repeat(5000)));
        let foreign = PortStatus { id: 77, ..said.ports[0].clone() };
        said.ports[0].drops = (0..1000).map(|n| (format!("reason-{n}"), 1)).collect();
        said.ports[0].faults = vec!["x".repeat(5000); 1000];
        said.ports.push(foreign);
        let stranger = PeerStatus { host: "nobody".into(), ..PeerStatus::default() };
        let peer =
            PeerStatus { host: "a".into(), drops: said.ports[0].drops.clone(), ..PeerStatus::default() };
        let strangers = PeerStatus { host: STRANGERS.into(), ..PeerStatus::default() };
        said.peers = vec![peer.clone(), stranger, peer, strangers];
        board.post(&state, said.clone(), now);
        board.post(&state, HostStatus { host: "nobody".into(), ..said }, now);
        let reports = board.0.read().unwrap();
        assert_eq!((reports.len(), reports["a"].ports.len()), (1, 1));
        let port = &reports["a"].ports[&state.workloads["w"].ports["e"]];
        let peers = &reports["a"].status.peers;
        assert_eq!((peers.len(), peers[0].drops.len(), peers[1].host.as_str()), (2, 128, STRANGERS));
        assert_eq!((port.drops.len(), port.faults.len(), port.faults[0].len()), (128, 128, 1000));
        assert_eq!(reports["a"].status.error.as_ref().unwrap().len(), 1000);
    }

    #[test]
    fn other_managers_are_told_at_once_what_matters_and_the_rest_later() {
        let state = state_of(ONE);
        let (board, other) = (Board::default(), Board::default());
        let at = |seconds: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds);
        let untold = |now| board.untold(now).into_iter().map(|status| status.revision).collect::<Vec<_>>();
        board.post(&state, status(&state, 3, None), at(0));
        assert_eq!(untold(at(0)), [3]);
        for told in board.untold(at(0)) {
            other.hear(&state, told, "m1".into(), at(0));
        }
        board.told(&["a".into()], at(0));
        board.post(&state, status(&state, 3, None), at(1));
        assert_eq!(untold(at(1)), [0; 0]);
        assert_eq!(untold(at(10)), [3], "counters are told from time to time");
        board.post(&state, status(&state, 4, None), at(2));
        assert_eq!(untold(at(2)), [4], "a revision is told at once");
        board.told(&["a".into()], at(2));
        board.forget_told();
        assert_eq!(untold(at(2)), [4]);

        let workload = |board: &Board, now| match board.resource(
            &state,
            &state.get(Kind::Workload, "w").unwrap(),
            now,
        ) {
            Resource::Workload(workload) => workload.status.unwrap(),
            other => panic!("{other:?}"),
        };
        let (first, second) = (workload(&board, at(2)), workload(&other, at(2)));
        assert_eq!((second.connected, &second.ports), (true, &first.ports));
        assert!(other.untold(at(99)).is_empty(), "what was heard is not told again");
        assert_eq!((board.heard_by("a"), other.heard_by("a")), (None, Some("m1".to_owned())));
    }

    #[test]
    fn a_revision_is_realised_when_every_host_of_it_says_so() {
        let state = state_of(ONE);
        let board = Board::default();
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let revision = Revision {
            revision: 4,
            time: String::new(),
            author: String::new(),
            changes: Vec::new(),
            hosts: vec!["a".into(), "gone".into()],
        };
        let stage = || {
            let realised = board.realised(&state, &revision, now);
            (realised.done, realised.hosts[0].state)
        };
        assert_eq!(stage(), (false, RealisedState::Pending));
        board.post(&state, status(&state, 3, None), now);
        assert_eq!(stage(), (false, RealisedState::Pending));
        board.post(&state, status(&state, 3, Some("no such device")), now);
        assert_eq!(stage(), (false, RealisedState::Failed));
        board.post(&state, status(&state, 5, None), now);
        assert_eq!(stage(), (true, RealisedState::Applied));
    }
}
