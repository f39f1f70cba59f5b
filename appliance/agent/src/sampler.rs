//! Which of many events alike are told one by one.
//!
//! A flood has one cause and many packets. Of one cause at one port a few in each short while are let through, with the
//! number of those that were held back before; a flood therefore costs whoever looks at events next to nothing.

use pipeline::{DropReason, Instant, Origin, RuleId};

/// Sets of places, of which a cause has one.
const SETS: usize = 256;
/// Causes that a set tells apart at a time. When one more comes than have a place it is held back with them, so that the
/// limit holds whatever happens.
const WAYS: usize = 2;
/// How long a while is.
const WHILE: u64 = 10_000_000;
/// How many of one cause are let through in a while.
const MOST: u32 = 4;

/// See the module. One per worker.
#[derive(Debug)]
pub(crate) struct Sampler(Box<[[Place; WAYS]; SETS]>);

/// What makes events alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Flows admitted by these rules.
    Started([Option<RuleId>; 2]),
    /// Frames from there that ended for this reason, by this rule.
    Dropped(Origin, DropReason, Option<RuleId>),
    /// Frames from there that a rule in audit would have treated otherwise.
    Audited(Origin, Option<RuleId>),
}

#[derive(Debug, Clone, Copy, Default)]
struct Place {
    cause: Option<Cause>,
    begun: Instant,
    let_through: u32,
    held_back: u32,
}

impl Sampler {
    pub(crate) fn new() -> Self {
        Self(Box::new([[Place::default(); WAYS]; SETS]))
    }

    /// Whether to tell of this one, and how many it stands for.
    pub(crate) fn admit(&mut self, cause: Cause, now: Instant) -> Option<u32> {
        let place = self.place(cause, now);
        if place.let_through == MOST {
            place.held_back = place.held_back.saturating_add(1);
            return None;
        }
        place.let_through += 1;
        Some(std::mem::take(&mut place.held_back).saturating_add(1))
    }

    /// Holds back so many more of a cause of which one was held back just now.
    pub(crate) fn hold_back(&mut self, cause: Cause, more: usize, now: Instant) {
        let place = self.place(cause, now);
        place.held_back = place.held_back.saturating_add(u32::try_from(more).unwrap_or(u32::MAX));
    }

    fn place(&mut self, cause: Cause, now: Instant) -> &mut Place {
        let set = &mut self.0[cause.set()];
        let is_over = |place: &Place| now.nanos_since(place.begun) >= WHILE;
        let known = set.iter().position(|place| place.cause == Some(cause));
        let free = || set.iter().position(|place| place.cause.is_none() || is_over(place));
        let way = known.or_else(free).unwrap_or(0);
        let place = &mut set[way];
        if is_over(place) || place.cause.is_none() {
            let held_back = if known.is_some() { place.held_back } else { 0 };
            *place = Place { cause: Some(cause), begun: now, let_through: 0, held_back };
        }
        place
    }
}

impl Cause {
    fn set(&self) -> usize {
        let number = |rule: Option<RuleId>| rule.map_or(0, |rule| u64::from(rule.0) + 1);
        let place = |origin| match origin {
            Origin::Port(port) => u64::from(port.0),
            Origin::Host(host) => 1 << 32 | u64::from(host.0),
            Origin::Stranger => 2 << 32,
        };
        let (kind, one, two) = match *self {
            Self::Started([out, into]) => (1, number(out), number(into)),
            Self::Dropped(origin, reason, rule) => (2 + reason.index() as u64, place(origin), number(rule)),
            Self::Audited(origin, rule) => (0, place(origin), number(rule)),
        };
        // Fibonacci hashing: ports and rules are small numbers in a row.
        let mixed = (one ^ two << 20 ^ kind << 40).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 56) as usize % SETS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pipeline::PortIndex;

    const FLOOD: Cause = Cause::Dropped(Origin::Port(PortIndex(3)), DropReason::DefaultDeny, None);

    #[test]
    fn of_a_flood_a_few_are_told_and_none_is_forgotten() {
        let mut sampler = Sampler::new();
        let (mut told, mut stands_for) = (0u64, 0u64);
        // A million in a second.
        for n in 0..1_000_000u64 {
            if let Some(times) = sampler.admit(FLOOD, Instant::from_nanos(n * 1000)) {
                told += 1;
                stands_for += u64::from(times);
            }
        }
        assert_eq!(told, 400);
        assert!((990_000..=1_000_000).contains(&stands_for), "{stands_for}");
    }

    #[test]
    fn many_at_once_count_like_one_by_one() {
        let (mut one, mut many) = (Sampler::new(), Sampler::new());
        let (mut told, mut told_too) = (Vec::new(), Vec::new());
        for n in 0..1000u64 {
            let now = Instant::from_nanos(n * 1_000_000);
            told.extend((0..10).filter_map(|_| one.admit(FLOOD, now)));
            let admitted: Vec<u32> = (0..10).map_while(|_| many.admit(FLOOD, now)).collect();
            if let Some(more) = (10 - admitted.len()).checked_sub(1) {
                many.hold_back(FLOOD, more, now);
            }
            told_too.extend(admitted);
        }
        assert_eq!(told, told_too);
    }

    #[test]
    fn a_flood_holds_nothing_else_back() {
        let mut sampler = Sampler::new();
        let others = [
            Cause::Dropped(Origin::Port(PortIndex(4)), DropReason::DefaultDeny, None),
            Cause::Dropped(Origin::Port(PortIndex(3)), DropReason::SpoofedMac, None),
            Cause::Dropped(Origin::Port(PortIndex(3)), DropReason::PolicyDrop, Some(RuleId(1))),
            Cause::Audited(Origin::Port(PortIndex(3)), Some(RuleId(1))),
            Cause::Started([Some(RuleId(1)), None]),
        ];
        for n in 0..1000 {
            sampler.admit(FLOOD, Instant::from_nanos(n));
        }
        for cause in others {
            assert_eq!(sampler.admit(cause, Instant::from_nanos(1000)), Some(1), "{cause:?}");
        }
    }

    #[test]
    fn causes_that_differ_a_little_have_sets_of_their_own() {
        let mut sets = std::collections::BTreeSet::new();
        for port in 0..8 {
            for rule in 0..8 {
                let rule = Some(RuleId(rule));
                sets.insert(
                    Cause::Dropped(Origin::Port(PortIndex(port)), DropReason::PolicyDrop, rule).set(),
                );
            }
        }
        assert!(sets.len() > 48, "{} sets for 64 causes", sets.len());
    }

    #[test]
    fn floods_of_many_causes_are_held_back_too() {
        let mut sampler = Sampler::new();
        let mut told = 0;
        for n in 0..1_000_000u32 {
            let cause = Cause::Dropped(Origin::Port(PortIndex(n % 5000)), DropReason::DefaultDeny, None);
            told += u32::from(sampler.admit(cause, Instant::from_nanos(u64::from(n) * 10)).is_some());
        }
        // One while and what each set lets through in it.
        let most = (SETS * WAYS) as u32 * MOST;
        assert!(told <= 2 * most, "{told}");
    }
}
