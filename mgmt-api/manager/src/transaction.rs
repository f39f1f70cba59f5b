//! One transaction: from a state and some wishes to the next state, or to all that is wrong with them.
//!
//! A function of its arguments. Either every wish is in the next state or there is no next state.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use mgmt_types::agent::Underlay;
use mgmt_types::{Change, Diff, Kind, Mistake, Outcome, Problem, ProblemKind, Resource, Workload};

use crate::check;
use crate::compile;
use crate::document::{Declared, Named};
use crate::membership::{self, Moved};
use crate::mtu::Mtus;
use crate::reach::Reach;
use crate::state::{
    Counters, Entry, GroupEntry, GroupSet, HostEntry, NetworkEntry, PolicyEntry, RouterEntry, State,
    WorkloadEntry,
};

/// What a client wants of one resource.
#[derive(Debug, Clone)]
pub(crate) enum Wish {
    /// It shall be so.
    Put(Declared),
    /// It shall not be; one that is not is no mistake.
    Delete(Named),
    /// Something is known that nobody declares.
    Note(Note),
}

/// What is known without being declared: it changes what hosts are told, and no resource.
#[derive(Debug, Clone)]
pub(crate) enum Note {
    /// What a host's agent says about where others reach it.
    Underlay { host: String, told: Underlay },
    /// Nobody sends to where the workload was any more.
    Settled { workload: String },
}

impl std::fmt::Display for Note {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Underlay { host, told: Underlay { addresses, port, mtu } } => {
                let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
                let addresses = addresses.join(", ");
                write!(f, "host {host} is reached at {addresses}, UDP port {port}, with an MTU of {mtu}")
            }
            Self::Settled { workload } => write!(f, "the move of workload {workload} is over"),
        }
    }
}

impl Wish {
    pub(crate) fn key(&self) -> (Kind, &str) {
        match self {
            Self::Put(declared) => (declared.resource.kind(), declared.resource.name()),
            Self::Delete(named) => (named.kind, &named.name),
            Self::Note(Note::Underlay { host, .. }) => (Kind::Host, host),
            Self::Note(Note::Settled { workload }) => (Kind::Workload, workload),
        }
    }

    /// Fills in the place of a mistake in this wish.
    pub(crate) fn locate(&self, mut mistake: Mistake) -> Mistake {
        let (kind, name) = self.key();
        mistake.resource = Some(format!("{kind}/{name}"));
        match self {
            Self::Put(declared) => declared.source.locate(&mut mistake),
            Self::Delete(named) => named.source.locate(&mut mistake),
            Self::Note(_) => {}
        }
        mistake
    }

    fn describe(&self) -> String {
        match self {
            Self::Put(declared) => declared.source.describe(),
            Self::Delete(named) => named.source.describe(),
            Self::Note(note) => note.to_string(),
        }
    }
}

/// The next state and how it differs.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) state: State,
    /// One per wish, in the order of the wishes.
    pub(crate) outcomes: Vec<Outcome>,
    /// One per resource that differs.
    pub(crate) diffs: Vec<Diff>,
    /// Hosts that have something to do; external ones never do.
    pub(crate) hosts: Vec<String>,
    /// Entries to write and to remove.
    pub(crate) puts: Vec<Entry>,
    pub(crate) removals: Vec<(Kind, String)>,
    /// Sets of groups to write, by number, and those to remove.
    pub(crate) identities: Vec<(u32, Option<GroupSet>)>,
}

/// Most resources of one kind: bounds what a leaked token can fill.
pub(crate) const MAX_OF_KIND: usize = 20_000;
/// Most rules of all policies together: what agents compile is bounded by it.
const MAX_RULES: usize = 65_536;
/// Most mistakes that are reported at once.
const MAX_MISTAKES: usize = 50;

/// Works out the next state; the state itself when nothing differs.
pub(crate) fn plan(state: &State, wishes: &[Wish]) -> Result<Plan, Problem> {
    refuse(ProblemKind::Invalid, check_each(wishes))?;
    let mut next = state.clone();
    next.revision += 1;
    let mut outcomes = Vec::with_capacity(wishes.len());
    for wish in wishes {
        let change = fulfil(&mut next, state, wish);
        let (kind, name) = wish.key();
        outcomes.push(Outcome { kind, name: name.to_owned(), change });
    }
    allot(&mut next, state);
    let kind = check::Findings::of(&next, state, wishes);
    refuse(ProblemKind::InUse, kind.in_use)?;
    refuse(ProblemKind::Invalid, kind.invalid)?;
    for kind in Kind::ALL {
        if next.count(kind) > MAX_OF_KIND {
            let mistake = Mistake {
                got: Some(next.count(kind).to_string()),
                expected: Some(format!("at most {MAX_OF_KIND}")),
                ..Mistake::default().detail(format!("there are too many {}", kind.plural()))
            };
            return Err(Problem::of(ProblemKind::Invalid, vec![mistake]));
        }
    }
    let rules: usize = next.policies.values().map(|entry| entry.rules.len()).sum();
    if rules > MAX_RULES {
        let mistake = Mistake {
            got: Some(rules.to_string()),
            expected: Some(format!("at most {MAX_RULES}")),
            ..Mistake::default().detail("there are too many rules in all firewall policies together")
        };
        return Err(Problem::of(ProblemKind::Invalid, vec![mistake]));
    }
    Ok(finish(next, state, outcomes))
}

/// What is wrong within each wish, and wishes for the same resource.
fn check_each(wishes: &[Wish]) -> Vec<Mistake> {
    let mut mistakes = Vec::new();
    let mut first: HashMap<(Kind, &str), &Wish> = HashMap::new();
    for wish in wishes {
        if let Wish::Put(declared) = wish {
            mistakes.extend(declared.resource.mistakes().into_iter().map(|mistake| wish.locate(mistake)));
        }
        if let Some(other) = first.insert(wish.key(), wish) {
            let (kind, name) = wish.key();
            let mistake = Mistake::new("name", name, format!("each {kind} once"))
                .detail(format!("{} is about the same resource", other.describe()));
            mistakes.push(wish.locate(mistake));
        }
    }
    mistakes
}

fn refuse(kind: ProblemKind, mut mistakes: Vec<Mistake>) -> Result<(), Problem> {
    if mistakes.is_empty() {
        return Ok(());
    }
    mistakes.truncate(MAX_MISTAKES);
    Err(Problem::of(kind, mistakes))
}

/// Puts one wish into the next state. Numbers are allotted later, when all wishes are known.
fn fulfil(next: &mut State, state: &State, wish: &Wish) -> Change {
    let revision = next.revision;
    let (kind, name) = wish.key();
    let before = state.get(kind, name);
    let declared = match wish {
        Wish::Delete(_) => {
            next.remove(kind, name);
            return if before.is_some() { Change::Deleted } else { Change::Unchanged };
        }
        Wish::Note(note) => return take(next, note),
        Wish::Put(declared) => &*declared.resource,
    };
    if before.as_ref().is_some_and(|entry| entry.resource().desired() == *declared) {
        return Change::Unchanged;
    }
    next.put(match declared.clone() {
        Resource::Network(resource) => {
            let kept = state.networks.get(name).map_or(0, |entry| entry.vni);
            Entry::Network(Arc::new(NetworkEntry { resource, revision, vni: kept }))
        }
        Resource::Workload(resource) => {
            let mut ports = state.workloads.get(name).map(|entry| entry.ports.clone()).unwrap_or_default();
            ports.retain(|name, _| resource.spec.ports.iter().any(|port| port.name == *name));
            let before = state.workloads.get(name);
            let identity = before.map_or(0, |entry| entry.identity);
            let moved_from = before.and_then(|entry| moved_from(state, entry, &resource));
            Entry::Workload(Arc::new(WorkloadEntry { resource, revision, ports, identity, moved_from }))
        }
        Resource::Host(resource) => {
            let before = state.hosts.get(name);
            let wanted = before.map_or(revision, |entry| entry.wanted);
            let announced = before.and_then(|entry| entry.announced.clone());
            let announced = announced.filter(|_| resource.spec.kind.is_agent());
            Entry::Host(Arc::new(HostEntry { resource, revision, wanted, announced }))
        }
        Resource::Router(resource) => Entry::Router(Arc::new(RouterEntry { resource, revision })),
        Resource::Group(resource) => Entry::Group(Arc::new(GroupEntry { resource, revision })),
        Resource::FirewallPolicy(resource) => {
            let mut rules = state.policies.get(name).map(|entry| entry.rules.clone()).unwrap_or_default();
            rules.retain(|name, _| resource.spec.rules.iter().any(|rule| rule.name == *name));
            Entry::FirewallPolicy(Arc::new(PolicyEntry { resource, revision, rules }))
        }
    });
    if before.is_some() { Change::Configured } else { Change::Created }
}

/// Takes what is known into the next state.
fn take(next: &mut State, note: &Note) -> Change {
    let entry = match note {
        Note::Underlay { host, told } => match next.hosts.get(host) {
            Some(entry) if entry.resource.spec.kind.is_agent() && entry.announced.as_ref() != Some(told) => {
                Entry::Host(Arc::new(HostEntry { announced: Some(told.clone()), ..(**entry).clone() }))
            }
            Some(_) | None => return Change::Unchanged,
        },
        Note::Settled { workload } => match next.workloads.get(workload) {
            Some(entry) if entry.moved_from.is_some() => {
                Entry::Workload(Arc::new(WorkloadEntry { moved_from: None, ..(**entry).clone() }))
            }
            Some(_) | None => return Change::Unchanged,
        },
    };
    next.put(entry);
    Change::Configured
}

/// Where the workload ran until now, when an agent there can pass on what still comes for it.
fn moved_from(state: &State, before: &WorkloadEntry, now: &Workload) -> Option<String> {
    let host = &before.resource.spec.host;
    if *host == now.spec.host {
        return before.moved_from.clone();
    }
    state.runs_agent(host).then(|| host.clone())
}

/// Gives VNIs, port numbers and rule numbers to what has none.
fn allot(next: &mut State, state: &State) {
    let mut counters = next.counters;
    let mut taken: HashSet<u32> = HashSet::new();
    let mut wanting = Vec::new();
    for (name, entry) in &next.networks {
        // A VNI that was given once and is not any more stays, as one that was allotted does.
        match entry.resource.spec.vni.unwrap_or(entry.vni) {
            0 => wanting.push(name.clone()),
            vni => drop(taken.insert(vni)),
        }
    }
    for (name, entry) in &mut next.networks {
        let vni = entry.resource.spec.vni.unwrap_or(entry.vni);
        let vni = if wanting.binary_search(name).is_ok() { free_vni(&mut counters, &taken) } else { vni };
        if vni != entry.vni {
            taken.insert(vni);
            Arc::make_mut(entry).vni = vni;
        }
    }
    for (name, entry) in &mut next.workloads {
        // An entry that is still shared with the state has all its numbers.
        if state.workloads.get(name).is_some_and(|before| Arc::ptr_eq(before, entry)) {
            continue;
        }
        let entry = Arc::make_mut(entry);
        for port in &entry.resource.spec.ports {
            entry.ports.entry(port.name.clone()).or_insert_with(|| {
                let id = counters.next_port;
                counters.next_port = id.saturating_add(1);
                id
            });
        }
    }
    for (name, entry) in &mut next.policies {
        if state.policies.get(name).is_some_and(|before| Arc::ptr_eq(before, entry)) {
            continue;
        }
        let entry = Arc::make_mut(entry);
        for rule in &entry.resource.spec.rules {
            entry.rules.entry(rule.name.clone()).or_insert_with(|| {
                let id = counters.next_rule;
                counters.next_rule = id.saturating_add(1);
                id
            });
        }
    }
    next.counters = counters;
}

/// The next VNI nobody has; there are far more of them than there may be networks.
fn free_vni(counters: &mut Counters, taken: &HashSet<u32>) -> u32 {
    loop {
        let vni = counters.next_vni;
        counters.next_vni = if vni >= 0xff_ffff { crate::state::FIRST_VNI } else { vni + 1 };
        if !taken.contains(&vni) {
            return vni;
        }
    }
}

/// Compares the next state with the one before.
fn finish(mut next: State, state: &State, outcomes: Vec<Outcome>) -> Plan {
    let changed: Vec<&Outcome> =
        outcomes.iter().filter(|outcome| outcome.change != Change::Unchanged).collect();
    if changed.is_empty() {
        return Plan {
            state: state.clone(),
            outcomes,
            diffs: Vec::new(),
            hosts: Vec::new(),
            puts: Vec::new(),
            removals: Vec::new(),
            identities: Vec::new(),
        };
    }
    let keys: Vec<(Kind, &str)> =
        changed.iter().map(|outcome| (outcome.kind, outcome.name.as_str())).collect();
    let Moved { workloads: moved, identities } = membership::settle(&mut next, state, &keys);
    let hosts = touched(&next, state, &changed, &moved);
    let revision = next.revision;
    for host in &hosts {
        if let Some(entry) = next.hosts.get_mut(host) {
            Arc::make_mut(entry).wanted = revision;
        }
    }
    let diffs: Vec<Diff> = changed
        .iter()
        .map(|outcome| Diff {
            kind: outcome.kind,
            name: outcome.name.clone(),
            change: outcome.change,
            before: state.get(outcome.kind, &outcome.name).map(|entry| entry.resource()),
            after: next.get(outcome.kind, &outcome.name).map(|entry| entry.resource()),
        })
        .collect();
    let mut written: BTreeSet<(Kind, &str)> =
        changed.iter().map(|outcome| (outcome.kind, outcome.name.as_str())).collect();
    written.extend(hosts.iter().map(|host| (Kind::Host, host.as_str())));
    written.extend(moved.iter().map(|workload| (Kind::Workload, workload.as_str())));
    let mut puts = Vec::new();
    let mut removals = Vec::new();
    for (kind, name) in written {
        match next.get(kind, name) {
            Some(entry) => puts.push(entry),
            None => removals.push((kind, name.to_owned())),
        }
    }
    Plan { state: next, outcomes, diffs, hosts, puts, removals, identities }
}

/// The hosts whose slice differs: those that need a network that differs or that has a port that differs, those that
/// know a host that differs, and those with a port that a policy that differs applies to.
fn touched(next: &State, state: &State, changed: &[&Outcome], moved: &BTreeSet<String>) -> Vec<String> {
    let mut networks: BTreeSet<String> = BTreeSet::new();
    let mut hosts: BTreeSet<String> = BTreeSet::new();
    let mut policies: HashSet<&str> = HashSet::new();
    let mut groups: HashSet<&str> = HashSet::new();
    let mut workloads: BTreeSet<&str> = moved.iter().map(String::as_str).collect();
    for outcome in changed {
        let name = outcome.name.as_str();
        match outcome.kind {
            Kind::Host => {
                let compiled = |state: &State| state.hosts.get(name).map(|entry| compile::peer(entry));
                if compiled(next) != compiled(state) {
                    hosts.insert(name.to_owned());
                    for state in [state, next] {
                        networks.extend(compile::homes(state, name).map(str::to_owned));
                    }
                }
            }
            Kind::Network => {
                let compiled = |state: &State| {
                    state.networks.get(name).map(|entry| compile::network(&Mtus::of(state), entry))
                };
                if compiled(next) != compiled(state) {
                    networks.insert(name.to_owned());
                }
            }
            Kind::Router => {
                if compile::router(next, name) != compile::router(state, name) {
                    for state in [state, next] {
                        networks.extend(state.places.of_router(name).map(str::to_owned));
                    }
                }
            }
            Kind::Workload => drop(workloads.insert(name)),
            Kind::Group => {
                // Who is chosen shows in the workloads' identities; addresses are in the slice itself.
                let cidrs = |state: &State| {
                    state.groups.get(name).and_then(|entry| entry.resource.spec.cidrs.clone())
                };
                if cidrs(next).unwrap_or_default() != cidrs(state).unwrap_or_default() {
                    groups.insert(name);
                }
            }
            Kind::FirewallPolicy => drop(policies.insert(name)),
        }
    }
    for name in workloads {
        let compiled = |state: &State| -> BTreeMap<String, _> {
            state.workloads.get(name).map_or_else(BTreeMap::new, |entry| {
                compile::ports(state, entry).map(|port| (port.name.clone(), port)).collect()
            })
        };
        let (after, before) = (compiled(next), compiled(state));
        let gone = before.values().filter(|port| after.get(&port.name) != Some(*port));
        for port in gone.chain(after.values().filter(|port| before.get(&port.name) != Some(*port))) {
            networks.insert(port.network.clone());
            hosts.insert(port.host.clone());
        }
    }
    for state in [state, next] {
        judged(state, &policies, &groups, &mut networks, &mut hosts);
    }
    for state in [state, next] {
        let viewers = compile::viewers(state, networks.iter().map(String::as_str));
        hosts.extend(viewers.into_iter().map(str::to_owned));
    }
    hosts.retain(|host| next.runs_agent(host));
    hosts.into_iter().collect()
}

/// Adds the hosts of `state` that judge by one of the `policies` or by one that names one of the `groups`, and the
/// networks on which a port is in one of the `groups`.
fn judged(
    state: &State,
    policies: &HashSet<&str>,
    groups: &HashSet<&str>,
    networks: &mut BTreeSet<String>,
    hosts: &mut BTreeSet<String>,
) {
    if policies.is_empty() && groups.is_empty() {
        return;
    }
    let reach = Reach::of_some(state, |entry| {
        let names = |peer: &mgmt_types::Peer| peer.group().is_some_and(|name| groups.contains(name));
        policies.contains(entry.resource.name.as_str())
            || (!groups.is_empty() && entry.resource.peers().any(|(_, peer)| names(peer)))
    });
    for entry in state.workloads.values() {
        let spec = &entry.resource.spec;
        if !groups.is_empty() && state.groups_of(entry).any(|name| groups.contains(name)) {
            networks.extend(spec.ports.iter().map(|port| port.network.clone()));
        }
        if !hosts.contains(&spec.host) && !reach.policies(entry, &reach.groups(entry)).is_empty() {
            hosts.insert(spec.host.clone());
        }
    }
}

#[cfg(test)]
mod tests;
