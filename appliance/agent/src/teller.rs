//! What a worker tells of its bursts: every rule's counters, and the events worth a record.

use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError};

use pipeline::{Event, Instant, Report, RuleId};

use crate::recorder::Recorder;
use crate::sampler::{Cause, Sampler};
use crate::world::World;

/// One worker's voice. Telling takes no lock, waits for nobody and allocates nothing: what finds no room is counted
/// as lost.
#[derive(Debug)]
pub(crate) struct Teller {
    writer: usize,
    outbox: SyncSender<Note>,
    sampler: Sampler,
    recorder: Arc<Recorder>,
}

/// An event worth a record.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Note {
    /// When it happened.
    pub(crate) at: Instant,
    /// What.
    pub(crate) event: Event,
    /// How many of its cause it stands for, itself included.
    pub(crate) times: u32,
    /// Whether it is one of the few of its cause, to be kept for later questions. Otherwise it is for who follows, or for
    /// the log.
    pub(crate) keep: bool,
}

impl Teller {
    pub(crate) fn new(writer: usize, outbox: SyncSender<Note>, recorder: Arc<Recorder>) -> Self {
        Self { writer, outbox, sampler: Sampler::new(), recorder }
    }

    /// Takes what happened in a burst.
    #[inline]
    pub(crate) fn tell(&mut self, world: &World, report: &mut Report, now: Instant) {
        if !report.is_empty() {
            self.tell_all(world, report, now);
        }
    }

    #[inline(never)]
    fn tell_all(&mut self, world: &World, report: &mut Report, now: Instant) {
        let following = self.recorder.is_followed();
        for alike in report.events().chunk_by(are_alike) {
            match alike {
                [Event::FlowStarted(flow), ..] => {
                    self.tell_started(world, flow.rules(), alike, following, now)
                }
                events => events.iter().for_each(|event| self.tell_one(world, event, following, now)),
            }
        }
        report.clear();
        let lost = report.take_lost();
        if lost > 0 {
            self.recorder.lose(lost);
        }
        self.recorder.wake();
    }

    /// Takes flows that began one after the other by the same rules.
    fn tell_started(
        &mut self,
        world: &World,
        rules: [Option<RuleId>; 2],
        flows: &[Event],
        following: bool,
        now: Instant,
    ) {
        world.rules.admitted(self.writer, rules, flows.len() as u64, now);
        let cause = Cause::Started(rules);
        let mut rest = flows;
        while let [event, others @ ..] = rest
            && let Some(times) = self.sampler.admit(cause, now)
        {
            self.send(Note { at: now, event: *event, times, keep: true });
            rest = others;
        }
        // The first of the rest was held back already.
        let Some(more) = rest.len().checked_sub(1) else { return };
        self.sampler.hold_back(cause, more, now);
        let wanted = |event: &&Event| following || matches!(event, Event::FlowStarted(flow) if flow.log());
        for event in rest.iter().filter(wanted) {
            self.send(Note { at: now, event: *event, times: 1, keep: false });
        }
    }

    /// Takes anything but the beginning of a flow.
    fn tell_one(&mut self, world: &World, event: &Event, following: bool, now: Instant) {
        world.rules.count(self.writer, event, now);
        let cause = match event {
            Event::Dropped(drop) => Cause::Dropped(drop.origin, drop.reason, drop.rule),
            Event::Audited(drop) => Cause::Audited(drop.origin, drop.rule),
            Event::FlowStarted(_) | Event::FlowEnded(..) => {
                if following {
                    self.send(Note { at: now, event: *event, times: 1, keep: false });
                }
                return;
            }
        };
        if let Some(times) = self.sampler.admit(cause, now) {
            self.send(Note { at: now, event: *event, times, keep: true });
        }
    }

    fn send(&self, note: Note) {
        match self.outbox.try_send(note) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => self.recorder.lose(1),
        }
    }
}

/// Whether both are flows that the same rules admitted.
#[inline]
fn are_alike(one: &Event, other: &Event) -> bool {
    matches!((one, other), (Event::FlowStarted(one), Event::FlowStarted(other)) if one.rules() == other.rules())
}
