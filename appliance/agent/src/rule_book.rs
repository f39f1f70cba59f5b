//! What each rule has counted. Traffic of established flows touches none of it: a rule's packets are those of flows
//! that ended, counted here, and those of flows that live, which a reader adds.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use pipeline::{DropRecord, Event, Instant, RuleId};

/// The rules in force and their counters.
#[derive(Debug, Default)]
pub(crate) struct RuleBook(HashMap<RuleId, Arc<RuleCounters>, BuildHasherDefault<RuleHasher>>);

/// Spreads rule numbers, which the manager gives in a row: nobody else has a say in them, and a worker looks two up for
/// each new flow.
#[derive(Debug, Default)]
struct RuleHasher(u64);

impl Hasher for RuleHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u32(u32::from(*byte)));
    }

    fn write_u32(&mut self, number: u32) {
        // Fibonacci hashing; the table takes its bits from both ends.
        let mixed = (self.0 ^ u64::from(number)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ mixed >> 32;
    }
}

/// Counters of one rule, a block for each writer.
#[derive(Debug)]
pub(crate) struct RuleCounters(Box<[Block]>);

/// Written by one thread alone. Aligned so that two writers never write to the same cache line.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Block {
    packets: AtomicU64,
    bytes: AtomicU64,
    hits: AtomicU64,
    would: AtomicU64,
    /// Nanoseconds of the monotonic clock; 0 is never.
    last_hit: AtomicU64,
}

/// A sum over writers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct RuleSums {
    /// Packets of flows that it admitted and that ended, both directions, and packets it refused.
    pub(crate) packets: u64,
    /// Bytes of their frames.
    pub(crate) bytes: u64,
    /// Flows it admitted and packets it refused.
    pub(crate) hits: u64,
    /// How often it would have decided otherwise, were its policy enforced.
    pub(crate) would: u64,
    /// When it last matched.
    pub(crate) last_hit: Option<Instant>,
}

impl RuleBook {
    /// The book for these rules; those that were in force before keep their counters.
    pub(crate) fn after(previous: &Self, rules: impl Iterator<Item = RuleId>, writers: usize) -> Self {
        let counters = |rule: RuleId| {
            let kept = previous.0.get(&rule).cloned();
            (rule, kept.unwrap_or_else(|| Arc::new(RuleCounters::new(writers))))
        };
        Self(rules.map(counters).collect())
    }

    /// Counts flows that began by these rules. Each `writer` is one thread.
    pub(crate) fn admitted(&self, writer: usize, rules: [Option<RuleId>; 2], flows: u64, now: Instant) {
        self.each(rules, |rule| rule.hit(writer, flows, (0, 0), now));
    }

    /// Counts what an event means for its rules.
    pub(crate) fn count(&self, writer: usize, event: &Event, now: Instant) {
        match event {
            Event::FlowStarted(flow) => self.admitted(writer, flow.rules(), 1, now),
            Event::FlowEnded(flow, _) => {
                let sums = (flow.packets.iter().sum(), flow.bytes.iter().sum());
                self.each(flow.rules, |rule| rule.add(writer, sums));
            }
            Event::Dropped(DropRecord { rule, len, .. }) => {
                self.each([*rule, None], |rule| rule.hit(writer, 1, (1, u64::from(*len)), now));
            }
            Event::Audited(DropRecord { rule, .. }) => {
                self.each([*rule, None], |rule| rule.would(writer, now))
            }
        }
    }

    /// Every rule that counted something, in no order.
    pub(crate) fn sums(&self) -> impl Iterator<Item = (RuleId, RuleSums)> {
        self.0.iter().map(|(rule, counters)| (*rule, counters.sums()))
    }

    /// A rule that admitted a flow at both ends counts it once.
    fn each(&self, rules: [Option<RuleId>; 2], mut count: impl FnMut(&RuleCounters)) {
        let [first, second] = rules;
        for rule in [first, second.filter(|_| first != second)].into_iter().flatten() {
            if let Some(counters) = self.0.get(&rule) {
                count(counters);
            }
        }
    }
}

impl RuleCounters {
    fn new(writers: usize) -> Self {
        Self((0..writers).map(|_| Block::default()).collect())
    }

    fn hit(&self, writer: usize, times: u64, sums: (u64, u64), now: Instant) {
        let Some(block) = self.0.get(writer) else { return };
        add(&block.hits, times);
        block.last_hit.store(now.as_nanos(), Relaxed);
        self.add(writer, sums);
    }

    fn add(&self, writer: usize, (packets, bytes): (u64, u64)) {
        let Some(block) = self.0.get(writer) else { return };
        add(&block.packets, packets);
        add(&block.bytes, bytes);
    }

    fn would(&self, writer: usize, now: Instant) {
        let Some(block) = self.0.get(writer) else { return };
        add(&block.would, 1);
        block.last_hit.store(now.as_nanos(), Relaxed);
    }

    fn sums(&self) -> RuleSums {
        let mut sums = RuleSums::default();
        let mut last = 0;
        for block in &self.0 {
            sums.packets += block.packets.load(Relaxed);
            sums.bytes += block.bytes.load(Relaxed);
            sums.hits += block.hits.load(Relaxed);
            sums.would += block.would.load(Relaxed);
            last = last.max(block.last_hit.load(Relaxed));
        }
        sums.last_hit = (last > 0).then(|| Instant::from_nanos(last));
        sums
    }
}

/// One writer: a load and a store do, no locked instruction is needed.
fn add(counter: &AtomicU64, more: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(more), Relaxed);
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use pipeline::policy::Direction;
    use pipeline::{Domain, DropReason, Ending, FlowKey, FlowRecord, NetworkIndex, Origin, PortIndex};

    /// 10.0.1.11:40000 to 10.0.1.12:443, admitted by these rules, 3 packets of 300 bytes there and 2 of 200 back.
    pub(crate) fn flow(rules: [Option<u32>; 2]) -> FlowRecord {
        FlowRecord {
            key: FlowKey {
                domain: Domain::Network(NetworkIndex(0)),
                protocol: 6,
                source: ([10, 0, 1, 11].into(), 40000),
                destination: ([10, 0, 1, 12].into(), 443),
            },
            state: "established",
            started: Instant::from_nanos(1),
            last_seen: Instant::from_nanos(2),
            packets: [3, 2],
            bytes: [300, 200],
            rules: rules.map(|rule| rule.map(RuleId)),
            log: false,
            revision: 7,
        }
    }

    /// The first packet of [`flow`], refused by this rule of its receiver.
    pub(crate) fn refused(rule: Option<u32>) -> DropRecord {
        DropRecord {
            origin: Origin::Port(PortIndex(0)),
            reason: if rule.is_some() { DropReason::PolicyDrop } else { DropReason::DefaultDeny },
            key: Some(flow([None; 2]).key),
            rule: rule.map(RuleId),
            direction: Some(Direction::In),
            endpoints: None,
            would_allow: false,
            revision: 7,
            len: 60,
        }
    }

    fn sums(book: &RuleBook, rule: u32) -> RuleSums {
        book.sums().find(|(id, _)| *id == RuleId(rule)).expect("a rule").1
    }

    #[test]
    fn rules_count_flows_once_refusals_each_and_what_audit_would_do_apart() {
        let book = RuleBook::after(&RuleBook::default(), [1, 2].map(RuleId).into_iter(), 2);
        let at = |nanos| Instant::from_nanos(nanos);
        for rules in [[Some(1), Some(1)], [Some(1), Some(2)], [None, Some(9)]] {
            book.admitted(0, rules.map(|rule| rule.map(RuleId)), 1, at(5));
            book.count(1, &Event::FlowEnded(flow(rules), Ending::Closed), at(50));
        }
        book.count(1, &Event::Dropped(refused(Some(2))), at(7));
        book.count(0, &Event::Audited(refused(Some(2))), at(6));
        book.count(0, &Event::Dropped(refused(None)), at(60));
        let one = RuleSums { packets: 10, bytes: 1000, hits: 2, would: 0, last_hit: Some(at(5)) };
        let two = RuleSums { packets: 6, bytes: 560, hits: 2, would: 1, last_hit: Some(at(7)) };
        assert_eq!((sums(&book, 1), sums(&book, 2)), (one, two));
    }

    #[test]
    fn a_rule_keeps_its_numbers_as_long_as_it_is_in_force() {
        let first = RuleBook::after(&RuleBook::default(), [1, 2].map(RuleId).into_iter(), 1);
        first.count(0, &Event::Dropped(refused(Some(1))), Instant::from_nanos(1));
        let second = RuleBook::after(&first, [3, 1].map(RuleId).into_iter(), 1);
        assert_eq!((sums(&second, 1).hits, sums(&second, 3).hits), (1, 0));
        let third = RuleBook::after(&second, [RuleId(3)].into_iter(), 1);
        let fourth = RuleBook::after(&third, [RuleId(1)].into_iter(), 1);
        assert_eq!(sums(&fourth, 1).hits, 0);
    }
}
