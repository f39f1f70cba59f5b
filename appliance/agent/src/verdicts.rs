//! Recent verdicts, port by port, for whoever asks why.
//!
//! Bounded, and fair between causes: what makes room is the oldest of the cause that has the most, so that a flood
//! of one kind does not wash the others out.

use std::collections::{HashMap, VecDeque};

use mgmt_types::question::{Verdict, VerdictKind, VerdictQuery};

/// The most verdicts of one port, when there are few ports.
const PER_PORT: usize = 128;
/// The least each port may have.
const LEAST: usize = 16;
/// About how many verdicts there are in all.
const TOTAL: usize = 16_384;
/// Verdicts in an answer, when nobody says how many.
const SHOWN: usize = 50;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Verdicts {
    /// By the id of the port that sent.
    ports: HashMap<u32, VecDeque<Verdict>>,
}

impl Verdicts {
    /// Keeps a verdict on what a port sent.
    pub(crate) fn keep(&mut self, port: u32, verdict: Verdict) {
        let room = (TOTAL / self.ports.len().max(1)).clamp(LEAST, PER_PORT);
        let kept = self.ports.entry(port).or_default();
        while kept.len() >= room {
            let surplus = most_frequent(kept);
            kept.remove(surplus);
        }
        kept.push_back(verdict);
    }

    /// Forgets ports that are not configured any more.
    pub(crate) fn retain(&mut self, is_port: impl Fn(u32) -> bool) {
        self.ports.retain(|port, _| is_port(*port));
    }

    /// What was asked for, oldest first: what the workload sent, and what was meant for it.
    pub(crate) fn find(&self, query: &VerdictQuery) -> Vec<Verdict> {
        let mut found: Vec<&Verdict> =
            self.ports.values().flatten().filter(|verdict| concerns(verdict, query)).collect();
        found.sort_by_key(|verdict| verdict.time);
        let limit = query.limit.map_or(SHOWN, |limit| limit as usize);
        let surplus = found.len().saturating_sub(limit);
        found.drain(..surplus);
        found.into_iter().cloned().collect()
    }

    /// All of a kind, in no order.
    pub(crate) fn of_kind(&self, kind: VerdictKind) -> impl Iterator<Item = &Verdict> {
        self.ports.values().flatten().filter(move |verdict| verdict.verdict == kind)
    }
}

/// The oldest verdict of the cause that has the most.
fn most_frequent(kept: &VecDeque<Verdict>) -> usize {
    fn cause(verdict: &Verdict) -> (VerdictKind, Option<&str>, Option<u32>) {
        (verdict.verdict, verdict.reason.as_deref(), verdict.rules.last().map(|rule| rule.id))
    }
    let mut counts: Vec<(usize, usize)> = Vec::new();
    for (place, verdict) in kept.iter().enumerate() {
        match counts.iter_mut().find(|(first, _)| cause(&kept[*first]) == cause(verdict)) {
            Some((_, count)) => *count += 1,
            None => counts.push((place, 1)),
        }
    }
    // Of equals the one whose oldest is oldest.
    counts.iter().rev().max_by_key(|(_, count)| *count).map_or(0, |(first, _)| *first)
}

fn concerns(verdict: &Verdict, query: &VerdictQuery) -> bool {
    if query.drops_only && verdict.verdict == VerdictKind::Admitted {
        return false;
    }
    let is_meant = |name: &str| {
        // A host, as `host:h1`, whose name may have dots.
        if name == query.workload {
            return true;
        }
        let (workload, port) = name.split_once('.').unwrap_or((name, ""));
        workload == query.workload && query.port.as_deref().is_none_or(|wanted| wanted == port)
    };
    let receiver = verdict.flow.as_ref().and_then(|flow| flow.destination.of.as_deref());
    is_meant(&verdict.port) || receiver.is_some_and(is_meant)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mgmt_types::question::{FlowEnd, FlowId};

    fn verdict(time: u64, reason: &str, to: &str) -> Verdict {
        let end = |of: &str| FlowEnd { address: [10, 0, 1, 1].into(), port: 1, of: Some(of.into()) };
        Verdict {
            time,
            host: "here".into(),
            port: "web-1.eth0".into(),
            verdict: if reason.is_empty() { VerdictKind::Admitted } else { VerdictKind::Dropped },
            reason: (!reason.is_empty()).then(|| reason.to_owned()),
            meaning: None,
            flow: Some(FlowId {
                network: "blue".into(),
                protocol: 6,
                source: end("web-1.eth0"),
                destination: end(to),
            }),
            direction: None,
            rules: Vec::new(),
            source_groups: None,
            destination_groups: None,
            revision: 1,
            bytes: 60,
            times: 1,
        }
    }

    fn query(workload: &str) -> VerdictQuery {
        VerdictQuery { workload: workload.into(), limit: Some(1000), ..VerdictQuery::default() }
    }

    #[test]
    fn a_flood_does_not_wash_out_what_else_happened() {
        let mut verdicts = Verdicts::default();
        verdicts.keep(1, verdict(0, "spoofed-mac", "db-1.eth0"));
        verdicts.keep(1, verdict(1, "", "db-1.eth0"));
        for time in 2..10_000 {
            verdicts.keep(1, verdict(time, "default-deny", "db-1.eth0"));
        }
        let found = verdicts.find(&query("web-1"));
        assert_eq!(found.len(), PER_PORT);
        assert_eq!((found[0].time, found[1].time), (0, 1));
        assert_eq!(found[2].time, 10_000 - (PER_PORT as u64 - 2));
    }

    #[test]
    fn many_ports_share_the_room() {
        let mut verdicts = Verdicts::default();
        for time in 0..200 {
            (0..1000).for_each(|port| verdicts.keep(port, verdict(time, "default-deny", "db-1.eth0")));
        }
        assert_eq!(verdicts.find(&VerdictQuery { limit: Some(u32::MAX), ..query("web-1") }).len(), 16_000);
        verdicts.retain(|port| port == 7);
        assert_eq!(verdicts.find(&query("web-1")).len(), 16);
    }

    #[test]
    fn who_was_meant_finds_it_too_and_the_newest_are_shown() {
        let mut verdicts = Verdicts::default();
        for time in 0..10 {
            verdicts.keep(1, verdict(time, if time % 2 == 0 { "" } else { "policy-drop" }, "db-1.eth1"));
        }
        let times = |query: VerdictQuery| -> Vec<u64> {
            verdicts.find(&query).iter().map(|verdict| verdict.time).collect()
        };
        assert_eq!(times(VerdictQuery { limit: Some(3), ..query("db-1") }), [7, 8, 9]);
        assert_eq!(times(VerdictQuery { drops_only: true, ..query("web-1") }), [1, 3, 5, 7, 9]);
        let port = |name: &str| VerdictQuery { port: Some(name.into()), ..query("db-1") };
        assert_eq!((times(port("eth1")).len(), times(port("eth0")).len()), (10, 0));
        assert!(times(query("db")).is_empty());
    }
}
