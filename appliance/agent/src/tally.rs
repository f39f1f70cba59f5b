//! Every rule's numbers, live flows included.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use mgmt_types::agent::RuleStatus;
use pipeline::{FlowTable, Instant, RuleId};

use crate::directory::Clock;
use crate::world::World;

/// The least time between two looks at all flows.
const EVERY: u64 = 1_000_000_000;
/// A look that took long is followed by a pause this many times as long: a million flows cost no more than a twentieth of
/// a CPU.
const REST: u64 = 19;

/// Packets and bytes of live flows by the rules that admitted them, as of a moment ago.
#[derive(Debug, Default)]
pub(crate) struct Tally(Mutex<Live>);

#[derive(Debug, Default)]
struct Live {
    /// When it may be looked again.
    due: Instant,
    sums: HashMap<RuleId, (u64, u64)>,
}

impl Tally {
    /// What each rule counted since the agent started; rules that counted nothing are left out.
    pub(crate) fn rules(&self, world: &World, clock: &Clock) -> Vec<RuleStatus> {
        let mut live = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if clock.now() >= live.due {
            live.look(&world.flows, clock.now());
        }
        let mut rules: Vec<RuleStatus> = world
            .rules
            .sums()
            .filter_map(|(rule, sums)| {
                let (packets, bytes) = live.sums.get(&rule).copied().unwrap_or_default();
                let status = RuleStatus {
                    id: rule.0,
                    packets: sums.packets + packets,
                    bytes: sums.bytes + bytes,
                    hits: sums.hits,
                    last_hit: sums.last_hit.map(|at| clock.time(at)),
                    would: sums.would,
                };
                (status.hits + status.would + status.packets > 0).then_some(status)
            })
            .collect();
        rules.sort_by_key(|rule| rule.id);
        rules
    }
}

impl Live {
    fn look(&mut self, flows: &FlowTable, now: Instant) {
        self.sums.clear();
        if !flows.is_empty() {
            // Flows that began one after the other, by the same rules more often than not, are seen so.
            let mut same = ([None; 2], (0, 0));
            flows.for_each_sum(|rules, packets, bytes| {
                if rules != same.0 {
                    self.add(same);
                    same = (rules, (0, 0));
                }
                same.1.0 += packets;
                same.1.1 += bytes;
            });
            self.add(same);
        }
        let after = crate::clock::now();
        let took = after.saturating_sub(now.as_nanos());
        self.due = Instant::from_nanos(after + EVERY.max(took * REST));
    }

    /// A rule that admitted a flow at both ends counts it once.
    fn add(&mut self, ([first, second], sums): ([Option<RuleId>; 2], (u64, u64))) {
        for rule in [first, second.filter(|_| first != second)].into_iter().flatten() {
            let (packets, bytes) = self.sums.entry(rule).or_default();
            *packets += sums.0;
            *bytes += sums.1;
        }
    }
}
