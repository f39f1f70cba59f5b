//! What is known about groups and policies: who belongs, where they apply, what hosts counted.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mgmt_types::agent::RuleStatus;
use mgmt_types::{GroupReport, PolicyReport, RuleReport};

use crate::reach::Reach;
use crate::state::{PolicyEntry, State};

/// Everybody's groups and policies, made in one pass over the workloads.
pub(super) struct Standing<'a> {
    members: HashMap<&'a str, Vec<&'a str>>,
    /// How many workloads a policy applies to.
    applied: HashMap<&'a str, u32>,
    used_by: HashMap<&'a str, Vec<&'a str>>,
}

impl<'a> Standing<'a> {
    pub(super) fn of(state: &'a State, reach: &Reach<'a>) -> Self {
        let mut standing = Self { members: HashMap::new(), applied: HashMap::new(), used_by: HashMap::new() };
        for (name, entry) in &state.workloads {
            let groups = reach.groups(entry);
            for place in reach.policies(entry, &groups) {
                if let Some(policy) = reach.policies.get(place) {
                    *standing.applied.entry(&policy.resource.name).or_default() += 1;
                }
            }
            for group in groups {
                standing.members.entry(group).or_default().push(name);
            }
        }
        for (name, entry) in &state.policies {
            for group in entry.resource.peers().filter_map(|(_, peer)| peer.group()) {
                let users = standing.used_by.entry(group).or_default();
                if users.last() != Some(&name.as_str()) {
                    users.push(name);
                }
            }
        }
        standing
    }

    /// A group with at most `most` names of members.
    pub(super) fn group(&self, name: &str, most: usize) -> GroupReport {
        let members = self.members.get(name).map(Vec::as_slice).unwrap_or_default();
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        GroupReport {
            count: u32::try_from(members.len()).unwrap_or(u32::MAX),
            members: owned(members.get(..most).unwrap_or(members)),
            used_by: self.used_by.get(name).map(|users| owned(users)).unwrap_or_default(),
        }
    }

    /// A policy with what all hosts `counted` for its rules, by number.
    pub(super) fn policy(&self, entry: &PolicyEntry, counted: &Counted, now: SystemTime) -> PolicyReport {
        let policy = &entry.resource;
        let rules = policy.spec.rules.iter().filter_map(|rule| {
            let id = *entry.rules.get(&rule.name)?;
            let sum = counted.get(&id).copied().unwrap_or_default();
            Some(RuleReport {
                name: rule.name.clone(),
                id,
                hits: sum.hits,
                packets: sum.packets,
                bytes: sum.bytes,
                would: sum.would,
                last_hit: sum.last_hit.map(|millis| time(millis, now)),
            })
        });
        PolicyReport {
            workloads: self.applied.get(policy.name.as_str()).copied().unwrap_or(0),
            rules: rules.collect(),
        }
    }
}

/// What hosts counted, by the number of the rule.
pub(super) type Counted = HashMap<u32, RuleStatus>;

/// Adds what one host counted.
pub(super) fn add(sums: &mut Counted, said: &RuleStatus) {
    let sum = sums.entry(said.id).or_insert(RuleStatus { id: said.id, ..RuleStatus::default() });
    sum.packets = sum.packets.saturating_add(said.packets);
    sum.bytes = sum.bytes.saturating_add(said.bytes);
    sum.hits = sum.hits.saturating_add(said.hits);
    sum.would = sum.would.saturating_add(said.would);
    sum.last_hit = sum.last_hit.max(said.last_hit);
}

/// A moment in RFC 3339; one that a host says is still to come is cut to `now`.
fn time(millis: u64, now: SystemTime) -> String {
    let at = UNIX_EPOCH.checked_add(Duration::from_millis(millis)).map_or(now, |at| at.min(now));
    humantime::format_rfc3339_millis(at).to_string()
}
