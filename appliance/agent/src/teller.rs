//! What a worker tells of its bursts: every rule's counters, and the events worth a record.

use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError};

use pipeline::{Event, Instant, Report};

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
        for event in report.drain() {
            world.rules.count(self.writer, &event, now);
            let (cause, wanted) = match &event {
                Event::FlowStarted(flow) => (Cause::Started(flow.rules), following || flow.log),
                Event::FlowEnded(..) if !following => continue,
                Event::FlowEnded(..) => {
                    self.send(Note { at: now, event, times: 1, keep: false });
                    continue;
                }
                Event::Dropped(drop) => (Cause::Dropped(drop.origin, drop.reason, drop.rule), false),
                Event::Audited(drop) => (Cause::Audited(drop.origin, drop.rule), false),
            };
            match self.sampler.admit(cause, now) {
                Some(times) => self.send(Note { at: now, event, times, keep: true }),
                None if wanted => self.send(Note { at: now, event, times: 1, keep: false }),
                None => {}
            }
        }
        let lost = report.take_lost();
        if lost > 0 {
            self.recorder.lose(lost);
        }
        self.recorder.wake();
    }

    fn send(&self, note: Note) {
        match self.outbox.try_send(note) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => self.recorder.lose(1),
        }
    }
}
