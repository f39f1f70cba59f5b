//! Who listens to flows as they come and go: followers, and the log for rules that ask for it.

use std::collections::HashMap;

use mgmt_types::question::{FlowEvent, FlowId, FlowTidings, FlowUpdate};
use pipeline::{Instant, RuleId};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

/// The most followers at a time.
const FOLLOWERS: usize = 16;
/// Tidings that wait for a follower.
const WAITING: usize = 16;
/// Events in one piece of tidings; more are counted as lost.
const EVENTS: usize = 2000;
/// The time between two lines of one rule.
const LINE_EVERY: u64 = 1_000_000_000;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct FlowLog {
    followers: Vec<Follower>,
    lines: HashMap<RuleId, Line>,
}

#[derive(Debug)]
struct Follower {
    workload: Option<String>,
    outbox: mpsc::Sender<FlowTidings>,
    next: FlowTidings,
}

/// What a rule wrote last.
#[derive(Debug)]
struct Line {
    at: Instant,
    kept_back: u64,
}

impl FlowLog {
    /// Somebody follows flows, all or those of a workload. `None` when too many do.
    pub(crate) fn follow(&mut self, workload: Option<String>) -> Option<mpsc::Receiver<FlowTidings>> {
        self.followers.retain(|follower| !follower.outbox.is_closed());
        if self.followers.len() == FOLLOWERS {
            return None;
        }
        let (outbox, inbox) = mpsc::channel(WAITING);
        self.followers.push(Follower { workload, outbox, next: FlowTidings::default() });
        Some(inbox)
    }

    /// Whether anybody does.
    pub(crate) fn is_followed(&self) -> bool {
        !self.followers.is_empty()
    }

    /// Something happened.
    pub(crate) fn note(&mut self, event: &FlowEvent) {
        for follower in self.followers.iter_mut().filter(|follower| follower.wants(event)) {
            if follower.next.events.len() < EVENTS {
                follower.next.events.push(event.clone());
            } else {
                follower.next.more += 1;
            }
        }
    }

    /// Something happened that nobody knows any more.
    pub(crate) fn lose(&mut self, events: u64) {
        self.followers.iter_mut().for_each(|follower| follower.next.more += events);
    }

    /// Gives followers what came together; those who left are forgotten.
    pub(crate) fn flush(&mut self) {
        self.followers.retain_mut(Follower::flush);
    }

    /// Writes a line for a rule, or counts it when there was one just before. `text` is what happened; it stands for
    /// `times` of its kind.
    pub(crate) fn line(&mut self, rule: RuleId, now: Instant, times: u64, text: impl FnOnce() -> String) {
        let kept_back = match self.lines.get_mut(&rule) {
            Some(line) if now.nanos_since(line.at) < LINE_EVERY => {
                line.kept_back += times;
                return;
            }
            Some(line) => std::mem::take(&mut line.kept_back),
            None => 0,
        };
        self.lines.insert(rule, Line { at: now, kept_back: 0 });
        let more = kept_back + times.saturating_sub(1);
        let text = text();
        if more > 0 {
            log::info!(target: "palisade::firewall", "{text} ({more} more not shown)");
        } else {
            log::info!(target: "palisade::firewall", "{text}");
        }
    }

    /// Forgets rules that are not logged any more.
    pub(crate) fn retain(&mut self, is_logged: impl Fn(RuleId) -> bool) {
        self.lines.retain(|rule, _| is_logged(*rule));
    }
}

impl Follower {
    fn wants(&self, event: &FlowEvent) -> bool {
        let Some(workload) = &self.workload else { return true };
        let is_meant = |name: &str| name.split('.').next() == Some(workload);
        match &event.update {
            FlowUpdate::Started { flow } | FlowUpdate::Ended { flow, .. } => touches(&flow.flow, is_meant),
            FlowUpdate::Refused { verdict } => {
                is_meant(&verdict.port) || verdict.flow.as_ref().is_some_and(|flow| touches(flow, is_meant))
            }
            FlowUpdate::Missed { .. } => true,
        }
    }

    /// Whether it is still there.
    fn flush(&mut self) -> bool {
        if self.next == FlowTidings::default() {
            return !self.outbox.is_closed();
        }
        match self.outbox.try_send(std::mem::take(&mut self.next)) {
            Ok(()) => true,
            Err(TrySendError::Full(tidings)) => {
                self.next.more = tidings.more + tidings.events.len() as u64;
                true
            }
            Err(TrySendError::Closed(_)) => false,
        }
    }
}

/// Whether an end of the flow is meant.
pub(crate) fn touches(flow: &FlowId, is_meant: impl Fn(&str) -> bool) -> bool {
    [&flow.source, &flow.destination].into_iter().any(|end| end.of.as_deref().is_some_and(&is_meant))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    fn missed(time: u64) -> FlowEvent {
        FlowEvent { time, update: FlowUpdate::Missed { host: "here".into(), reason: "a test".into() } }
    }

    #[test]
    fn a_follower_who_does_not_listen_loses_events_and_learns_how_many() {
        let mut log = FlowLog::default();
        let mut inbox = log.follow(None).expect("room");
        for time in 0..WAITING as u64 + 3 {
            log.note(&missed(time));
            log.flush();
        }
        log.note(&missed(99));
        let tidings: Vec<FlowTidings> = std::iter::from_fn(|| inbox.try_recv().ok()).collect();
        assert_eq!(tidings.len(), WAITING);
        log.flush();
        let last = inbox.try_recv().expect("tidings");
        assert_eq!((last.events.len(), last.more), (1, 3));
    }

    #[test]
    fn who_leaves_is_forgotten_and_followers_are_few() {
        let mut log = FlowLog::default();
        let inboxes: Vec<_> = (0..FOLLOWERS).map(|_| log.follow(None).expect("room")).collect();
        assert!(log.follow(None).is_none());
        drop(inboxes);
        log.flush();
        assert!(!log.is_followed());
    }

    #[test]
    fn a_rule_writes_one_line_a_second() {
        let mut log = FlowLog::default();
        let lines = Cell::new(0);
        for milliseconds in 0..2500 {
            log.line(RuleId(1), Instant::from_nanos(milliseconds * 1_000_000), 1, || {
                lines.set(lines.get() + 1);
                "a line".to_owned()
            });
        }
        assert_eq!(lines.get(), 3);
        assert_eq!(log.lines[&RuleId(1)].kept_back, 499);
        log.line(RuleId(2), Instant::from_nanos(0), 1, || {
            lines.set(lines.get() + 1);
            "another's line".to_owned()
        });
        assert_eq!(lines.get(), 4);
        log.retain(|rule| rule == RuleId(2));
        assert_eq!(log.lines.len(), 1);
    }
}
