//! Which workload belongs to which groups, and the number of each distinct set of groups.
//!
//! Only what a transaction changed is looked at again: a changed workload with all groups that can choose it, a changed
//! group with all workloads. A set of groups gets its number when the first workload has it and loses it with the last;
//! a number is never given twice.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use mgmt_types::{Glob, GroupSpec, Kind, Match};

use crate::state::{GroupSet, State, WorkloadEntry};

/// What became different.
#[derive(Debug, Default)]
pub(crate) struct Moved {
    /// Workloads whose set of groups is another one.
    pub(crate) workloads: BTreeSet<String>,
    /// Sets that are new, and numbers that are no longer in use.
    pub(crate) identities: Vec<(u32, Option<GroupSet>)>,
}

/// Brings the sets of groups of `next` up to date, given what `changed` since `before`.
pub(crate) fn settle(next: &mut State, before: &State, changed: &[(Kind, &str)]) -> Moved {
    let sets = changed_sets(next, before, changed);
    let removed =
        changed.iter().any(|(kind, name)| *kind == Kind::Workload && !next.workloads.contains_key(*name));
    let mut moved = Moved::default();
    let mut numbers: HashMap<GroupSet, u32> = HashMap::new();
    if !sets.is_empty() {
        numbers.extend(next.identities.iter().map(|(id, set)| (Arc::clone(set), *id)));
    }
    for (name, set) in sets {
        let identity = match set.is_empty() {
            true => 0,
            false => *numbers.entry(Arc::new(set)).or_insert_with_key(|set| {
                let id = next.counters.next_identity;
                next.counters.next_identity = id.saturating_add(1);
                next.identities.insert(id, Arc::clone(set));
                moved.identities.push((id, Some(Arc::clone(set))));
                id
            }),
        };
        let Some(entry) = next.workloads.get_mut(&name) else { continue };
        if entry.identity != identity {
            Arc::make_mut(entry).identity = identity;
            moved.workloads.insert(name);
        }
    }
    if removed || !moved.workloads.is_empty() {
        let used: HashSet<u32> = next.workloads.values().map(|entry| entry.identity).collect();
        next.identities.retain(|id, _| {
            let stays = used.contains(id);
            if !stays {
                moved.identities.push((*id, None));
            }
            stays
        });
    }
    moved
}

/// The sets of workloads that may have another one than before.
fn changed_sets(
    next: &State,
    before: &State,
    changed: &[(Kind, &str)],
) -> BTreeMap<String, BTreeSet<String>> {
    let mut sets = BTreeMap::new();
    let mut chooser = None;
    let mut asked = HashSet::new();
    for (_, name) in changed.iter().filter(|(kind, _)| *kind == Kind::Workload) {
        asked.insert(*name);
        if let Some(entry) = next.workloads.get(*name) {
            let chooser = chooser.get_or_insert_with(|| Chooser::of(next));
            sets.insert((*name).to_owned(), chooser.groups_of(entry));
        }
    }
    for (_, name) in changed.iter().filter(|(kind, _)| *kind == Kind::Group) {
        let spec = |state: &'_ State| state.groups.get(*name).map(|entry| entry.resource.spec.clone());
        let (now, then) = (spec(next), spec(before));
        let chosen_by = |spec: Option<GroupSpec>| spec.map(|spec| GroupSpec { cidrs: None, ..spec });
        if chosen_by(now.clone()) == chosen_by(then) {
            continue;
        }
        let now = now.unwrap_or_default();
        let listed: HashSet<&str> = now.workloads.iter().flatten().map(String::as_str).collect();
        for (workload, entry) in &next.workloads {
            // One that changed itself has been asked about all groups.
            if asked.contains(workload.as_str()) {
                continue;
            }
            let subject = entry.subject();
            let belongs = listed.contains(subject.name)
                || now.selector.as_ref().is_some_and(|selector| selector.matches(subject))
                || now.name.as_ref().is_some_and(|pattern| pattern.matches(subject.name));
            let belonged = next.identities.get(&entry.identity).is_some_and(|set| set.contains(*name));
            if belongs == belonged {
                continue;
            }
            let set = sets.entry(workload.clone()).or_insert_with(|| {
                next.identities.get(&entry.identity).map_or_else(BTreeSet::new, |set| (**set).clone())
            });
            if belongs {
                set.insert((*name).to_owned());
            } else {
                set.remove(*name);
            }
        }
    }
    sets
}

/// All groups, laid out so that those that cannot choose a workload are not asked.
struct Chooser<'a> {
    /// Groups that list a workload, by the workload.
    listed: HashMap<&'a str, Vec<&'a str>>,
    /// Expressions that ask for a label with a value, by both.
    anchored: HashMap<(&'a str, &'a str), Vec<(&'a str, &'a Match)>>,
    /// Every other expression.
    loose: Vec<(&'a str, &'a Match)>,
    patterns: Vec<(&'a str, &'a Glob)>,
}

impl<'a> Chooser<'a> {
    fn of(state: &'a State) -> Self {
        let mut chooser = Self {
            listed: HashMap::new(),
            anchored: HashMap::new(),
            loose: Vec::new(),
            patterns: Vec::new(),
        };
        for (name, entry) in &state.groups {
            let GroupSpec { selector, name: pattern, workloads, .. } = &entry.resource.spec;
            for workload in workloads.iter().flatten() {
                chooser.listed.entry(workload).or_default().push(name);
            }
            chooser.patterns.extend(pattern.iter().map(|pattern| (name.as_str(), pattern)));
            match selector.as_ref().map(|selector| (selector, selector.anchor())) {
                Some((selector, Some((key, values)))) => {
                    for value in values {
                        chooser.anchored.entry((key, value)).or_default().push((name, selector));
                    }
                }
                Some((selector, None)) => chooser.loose.push((name, selector)),
                None => {}
            }
        }
        chooser
    }

    fn groups_of(&self, entry: &WorkloadEntry) -> BTreeSet<String> {
        let subject = entry.subject();
        let listed = self.listed.get(subject.name).into_iter().flatten().copied();
        let labels = subject.labels.iter();
        let anchored = labels
            .filter_map(|(key, value)| self.anchored.get(&(key.as_str(), value.as_str())))
            .flatten()
            .chain(&self.loose)
            .filter(|(_, selector)| selector.matches(subject))
            .map(|(name, _)| *name);
        let patterns =
            self.patterns.iter().filter(|(_, glob)| glob.matches(subject.name)).map(|(name, _)| *name);
        listed.chain(anchored).chain(patterns).map(str::to_owned).collect()
    }
}
