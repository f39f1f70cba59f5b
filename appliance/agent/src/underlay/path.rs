//! The way to one other host: whether it answers, how long that takes, and how large packets may be.
//!
//! A small probe goes out each second; three without an answer and the way is down. Larger ones find out what size passes,
//! as RFC 8899 describes: first what both ends' interfaces take, and only if that does not pass a search below it. What
//! routers say of the way is not believed. Pure: time and chance are arguments.

/// How often a small probe goes out, in nanoseconds.
const EVERY: u64 = 1_000_000_000;
/// How long an answer may take.
const PATIENCE: u64 = 1_000_000_000;
/// How long the answer to a probe of the search may take: each lost one costs it three times.
const SEARCH_PATIENCE: u64 = 300_000_000;
/// Probes without an answer until something is believed (`MAX_PROBES`, RFC 8899, section 5.1.2).
const MOST_LOST: u8 = 3;
/// How often it is looked whether the size still passes.
const CONFIRM_EVERY: u64 = 15_000_000_000;
/// How long a smaller size is lived with before a larger one is tried (`PMTU_RAISE_TIMER`, RFC 8899, section 5.1.1).
const RAISE_AFTER: u64 = 600_000_000_000;
/// What every way passes: the smallest MTU of IPv6 (RFC 8200, section 5).
pub(crate) const LEAST: u16 = 1280;
/// The search ends when it knows the size to within so many bytes.
const PRECISION: u16 = 8;

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct Path {
    /// The largest packet that the interfaces of both ends take.
    limit: u16,
    /// The largest packet that passes, as far as is known.
    mtu: u16,
    up: Option<bool>,
    since: u64,
    rtt: Option<u64>,
    /// The small probe that is on its way.
    small: Option<Sent>,
    small_due: u64,
    small_lost: u8,
    large: Option<Sent>,
    large_due: u64,
    large_lost: u8,
    /// Above `mtu`, nothing larger than this passes; equal when there is nothing to search.
    ceiling: u16,
    /// When a larger size is tried again, once the search is over.
    raise: Option<u64>,
    /// What was told last.
    told: (Option<bool>, u16),
}

#[derive(Debug, Clone, Copy)]
struct Sent {
    nonce: u64,
    at: u64,
    size: u16,
}

/// A probe that is to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Probe {
    /// What its answer gives back.
    pub(crate) nonce: u64,
    /// Bytes of its IP packet; `None`: as few as possible.
    pub(crate) size: Option<u16>,
}

/// What is known of a way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Report {
    /// Whether the host answers; `None` before that is known.
    pub(crate) up: Option<bool>,
    /// Since when, in the clock of the caller.
    pub(crate) since: u64,
    /// How long answers take, smoothed, in nanoseconds.
    pub(crate) rtt: Option<u64>,
    /// The largest IP packet that passes.
    pub(crate) mtu: u16,
}

impl Path {
    /// A way of which nothing is known but what the interfaces at its ends take. It is used at once.
    pub(crate) fn new(limit: u16, now: u64) -> Self {
        let limit = limit.max(LEAST);
        Self {
            limit,
            mtu: limit,
            up: None,
            since: now,
            rtt: None,
            small: None,
            small_due: now,
            small_lost: 0,
            large: None,
            large_due: now,
            large_lost: 0,
            ceiling: limit,
            raise: None,
            told: (None, limit),
        }
    }

    /// An interface at one of the ends takes larger or smaller packets than before.
    pub(crate) fn set_limit(&mut self, limit: u16, now: u64) {
        let limit = limit.max(LEAST);
        if limit != self.limit {
            let Self { up, since, rtt, told, .. } = *self;
            *self = Self { up, since, rtt, told, ..Self::new(limit, now) };
        }
    }

    /// The next probe that is due; to be asked again until there is none.
    pub(crate) fn tick(&mut self, now: u64, nonce: u64) -> Option<Probe> {
        if self.small.is_some_and(|sent| now.saturating_sub(sent.at) >= PATIENCE) {
            self.small = None;
            self.small_lost = self.small_lost.saturating_add(1);
            if self.small_lost >= MOST_LOST && self.up != Some(false) {
                (self.up, self.since, self.rtt) = (Some(false), now, None);
            }
        }
        if self.small.is_none() && now >= self.small_due {
            self.small_due = now + EVERY;
            self.small = Some(Sent { nonce, at: now, size: 0 });
            return Some(Probe { nonce, size: None });
        }
        // A host that does not answer at all says nothing about sizes.
        if self.up != Some(true) {
            self.large = None;
            return None;
        }
        let patience = if self.is_searching() { SEARCH_PATIENCE } else { PATIENCE };
        if let Some(sent) = self.large.filter(|sent| now.saturating_sub(sent.at) >= patience) {
            self.large = None;
            self.large_due = now;
            // Only while small ones come through is a large one lost for its size.
            if self.small_lost == 0 {
                self.large_lost += 1;
                if self.large_lost >= MOST_LOST {
                    self.too_large(sent.size, now);
                }
            }
        }
        if self.large.is_none() && now >= self.large_due {
            let size = self.next_size(now);
            self.large_due = now + CONFIRM_EVERY;
            self.large = Some(Sent { nonce, at: now, size });
            return Some(Probe { nonce, size: Some(size) });
        }
        None
    }

    /// An answer came. False when it answers nothing that was asked lately.
    pub(crate) fn answered(&mut self, nonce: u64, now: u64) -> bool {
        if let Some(sent) = self.small.take_if(|sent| sent.nonce == nonce) {
            self.small_lost = 0;
            let took = now.saturating_sub(sent.at);
            // RFC 6298, section 2.3.
            self.rtt = Some(self.rtt.map_or(took, |rtt| rtt - rtt / 8 + took / 8));
            if self.up != Some(true) {
                (self.up, self.since) = (Some(true), now);
                self.large_due = now;
            }
            return true;
        }
        if let Some(sent) = self.large.take_if(|sent| sent.nonce == nonce) {
            self.large_lost = 0;
            if sent.size > self.mtu {
                self.mtu = sent.size;
                self.ceiling = self.ceiling.max(sent.size);
            }
            self.settle(now);
            return true;
        }
        false
    }

    /// Our own interface refused a packet of this size.
    pub(crate) fn refused(&mut self, size: u16, now: u64) {
        if self.large.is_some_and(|sent| sent.size >= size) {
            self.large = None;
        }
        if size <= self.mtu || size <= self.ceiling {
            self.too_large(size, now);
        }
    }

    /// When [`Self::tick`] has something to do.
    pub(crate) fn due(&self) -> u64 {
        let patience = if self.is_searching() { SEARCH_PATIENCE } else { PATIENCE };
        let small = self.small.map_or(self.small_due, |sent| sent.at + PATIENCE);
        let large = self.large.map_or(self.large_due, |sent| sent.at + patience);
        if self.up == Some(true) { small.min(large) } else { small }
    }

    /// Whether the host went up or down, or the size changed, since this was asked last.
    pub(crate) fn take_change(&mut self) -> bool {
        let now = (self.up, self.mtu);
        std::mem::replace(&mut self.told, now) != now
    }

    /// What is known.
    pub(crate) fn report(&self) -> Report {
        Report { up: self.up, since: self.since, rtt: self.rtt, mtu: self.mtu }
    }

    fn is_searching(&self) -> bool {
        self.mtu < self.limit && self.ceiling - self.mtu >= PRECISION
    }

    /// A packet of this size does not pass.
    fn too_large(&mut self, size: u16, now: u64) {
        self.large_lost = 0;
        self.ceiling = size.saturating_sub(1).max(LEAST);
        if size <= self.mtu {
            // What passed before does not any more, or never did: nothing is certain but the least.
            self.mtu = LEAST;
        }
        self.settle(now);
    }

    /// Says when the next large probe goes out.
    fn settle(&mut self, now: u64) {
        if self.is_searching() {
            self.large_due = now;
            return;
        }
        self.large_due = now + CONFIRM_EVERY;
        if self.mtu < self.limit {
            self.raise.get_or_insert(now + RAISE_AFTER);
        }
    }

    fn next_size(&mut self, now: u64) -> u16 {
        if self.mtu < self.limit
            && !self.is_searching()
            && self.raise.take_if(|raise| now >= *raise).is_some()
        {
            self.ceiling = self.limit;
            return self.limit;
        }
        if self.is_searching() { self.mtu + (self.ceiling - self.mtu).div_ceil(2) } else { self.mtu }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000_000;
    const MILLI: u64 = 1_000_000;

    /// A way through a network, with a clock.
    struct Walk {
        path: Path,
        now: u64,
        nonce: u64,
        sent: Vec<Option<u16>>,
    }

    impl Walk {
        fn new(limit: u16) -> Self {
            Self { path: Path::new(limit, 5), now: 5, nonce: 0, sent: Vec::new() }
        }

        /// Goes on for some time over a way that passes packets up to `passes` (0: none) and takes 2 ms.
        fn go(&mut self, time: u64, passes: u16) {
            let end = self.now + time;
            while self.now < end {
                self.nonce += 1;
                if let Some(probe) = self.path.tick(self.now, self.nonce) {
                    self.sent.push(probe.size);
                    if probe.size.unwrap_or(100) <= passes {
                        assert!(self.path.answered(probe.nonce, self.now + 2 * MILLI));
                        assert!(!self.path.answered(probe.nonce, self.now + 2 * MILLI), "answered twice");
                    }
                    continue;
                }
                let due = self.path.due();
                assert!(due > self.now, "due now, and nothing to do");
                self.now = due.min(end);
            }
        }

        fn known(&self) -> (Option<bool>, u16) {
            let report = self.path.report();
            (report.up, report.mtu)
        }
    }

    #[test]
    fn a_host_that_answers_is_up_at_once_and_three_silent_seconds_later_it_is_down() {
        let mut walk = Walk::new(1500);
        assert_eq!(walk.known(), (None, 1500));
        walk.go(SECOND / 10, 1500);
        assert_eq!(walk.known(), (Some(true), 1500));
        assert!(walk.path.take_change() && !walk.path.take_change());
        assert_eq!(walk.path.report().rtt, Some(2 * MILLI));
        let up_since = walk.path.report().since;
        walk.go(60 * SECOND, 1500);
        assert_eq!(walk.path.report().since, up_since);
        walk.go(2 * SECOND, 0);
        assert_eq!(walk.known().0, Some(true));
        walk.go(3 * SECOND, 0);
        assert_eq!(walk.known(), (Some(false), 1500), "and its size is not forgotten");
        walk.go(2 * SECOND, 1500);
        assert_eq!(walk.known().0, Some(true));
    }

    #[test]
    fn probes_are_few_when_all_is_well() {
        let mut walk = Walk::new(9000);
        walk.go(60 * SECOND, 9000);
        let large = walk.sent.iter().flatten().count();
        assert!((58..=62).contains(&(walk.sent.len() - large)), "{}", walk.sent.len());
        assert!((4..=5).contains(&large), "{large}");
        assert!(walk.sent.iter().flatten().all(|&size| size == 9000));
    }

    #[test]
    fn a_host_that_never_answered_gets_small_probes_alone() {
        let mut walk = Walk::new(9000);
        walk.go(20 * SECOND, 0);
        assert_eq!(walk.known(), (Some(false), 9000));
        assert!(walk.sent.iter().all(Option::is_none));
    }

    #[test]
    fn a_way_that_becomes_narrow_is_noticed_and_later_tried_again() {
        let mut walk = Walk::new(9000);
        walk.go(2 * SECOND, 9000);
        walk.go(40 * SECOND, 1500);
        let (up, mtu) = walk.known();
        assert!(up == Some(true) && (1493..=1500).contains(&mtu), "{mtu}");
        walk.go(300 * SECOND, 9000);
        assert_eq!(walk.known().1, mtu, "not yet");
        walk.go(400 * SECOND, 9000);
        assert_eq!(walk.known().1, 9000);
    }

    #[test]
    fn what_our_interface_refuses_is_believed_at_once() {
        let mut walk = Walk::new(1500);
        walk.go(SECOND, 1500);
        walk.path.refused(1450, walk.now);
        assert_eq!(walk.known().1, LEAST);
        walk.go(5 * SECOND, 1449);
        assert!((1442..=1449).contains(&walk.known().1), "{:?}", walk.known());
        walk.path.refused(1500, walk.now);
        assert!(walk.known().1 >= 1442, "that was known");
    }

    #[test]
    fn another_interface_begins_anew_without_a_word_about_up_and_down() {
        let mut walk = Walk::new(1500);
        walk.go(SECOND, 1500);
        walk.path.set_limit(9000, walk.now);
        assert_eq!(walk.known(), (Some(true), 9000));
        walk.go(10 * SECOND, 1500);
        assert!((1493..=1500).contains(&walk.known().1));
    }

    #[test]
    fn a_foreign_answer_changes_nothing() {
        let mut path = Path::new(1500, 0);
        let probe = path.tick(0, 42).expect("a probe");
        assert!(!path.answered(43, 10));
        assert_eq!(path.report().up, None);
        assert!(path.answered(probe.nonce, 10));
    }

    proptest! {
        #[test]
        fn the_search_finds_what_passes_and_never_says_more(limit in LEAST..=9216, passes in LEAST..=9216) {
            let mut walk = Walk::new(limit);
            walk.go(120 * SECOND, passes);
            let (up, mtu) = walk.known();
            prop_assert_eq!(up, Some(true));
            let best = passes.min(limit);
            prop_assert!(mtu <= best && best - mtu < PRECISION, "{} of {}", mtu, best);
        }
    }
}
