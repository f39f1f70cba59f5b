//! What the pipeline tells besides verdicts.

use crate::policy::{Direction, Endpoint, RuleId};
use crate::{DropReason, Ending, FlowKey, FlowRecord, FlowStart, HostIndex, PortIndex};

/// Events that one burst can cause: a frame drops, starts or ends a flow, and may be noted by an audit policy; ending one
/// to make room for another adds some.
const MOST: usize = 256;

/// One thing that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A flow was admitted.
    FlowStarted(FlowStart),
    /// A flow is tracked no more.
    FlowEnded(FlowRecord, Ending),
    /// A frame ended here.
    Dropped(DropRecord),
    /// An audit policy would have decided otherwise: it would have dropped (`reason` is a firewall's) what passed, or,
    /// with `would_allow`, admitted what was dropped.
    Audited(DropRecord),
}

/// Where a frame came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// A port of this host.
    Port(PortIndex),
    /// Another host.
    Host(HostIndex),
    /// Somebody on the underlay who is no host of the mesh.
    Stranger,
}

/// A frame that ended here, or would have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DropRecord {
    /// Where it came from.
    pub origin: Origin,
    /// Why.
    pub reason: DropReason,
    /// Who wanted to talk to whom, if it came to that.
    pub key: Option<FlowKey>,
    /// The rule that says so; none for a default deny.
    pub rule: Option<RuleId>,
    /// Whether the sender's rules out or the receiver's rules in say so; `None` when it is not the firewall.
    pub direction: Option<Direction>,
    /// The groups that source and destination were known to be in.
    pub endpoints: Option<[Endpoint; 2]>,
    /// For what was audited: it was dropped and the audit policy would have admitted it.
    pub would_allow: bool,
    /// The revision under which it was judged.
    pub revision: u64,
    /// Bytes of the frame.
    pub len: u32,
}

/// The record of a frame that ends for a reason that is no rule's.
pub(crate) fn note(
    revision: u64,
    origin: Origin,
    reason: DropReason,
    key: Option<FlowKey>,
    len: u32,
) -> DropRecord {
    DropRecord {
        origin,
        reason,
        key,
        rule: None,
        direction: None,
        endpoints: None,
        would_allow: false,
        revision,
        len,
    }
}

/// Events since it was drained last, in order. Bounded: more are counted as lost.
#[derive(Debug)]
pub struct Report {
    events: Vec<Event>,
    lost: u64,
}

impl Default for Report {
    fn default() -> Self {
        Self::new()
    }
}

impl Report {
    /// An empty report; nothing is allocated later.
    pub fn new() -> Self {
        Self { events: Vec::with_capacity(MOST), lost: 0 }
    }

    /// Whether nothing happened.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// All events, which stay.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// Forgets all events.
    pub fn clear(&mut self) {
        self.events.clear();
    }

    /// Takes all events.
    pub fn drain(&mut self) -> impl Iterator<Item = Event> {
        self.events.drain(..)
    }

    /// Takes the number of events that found no room.
    pub fn take_lost(&mut self) -> u64 {
        core::mem::take(&mut self.lost)
    }

    #[inline]
    pub(crate) fn add(&mut self, event: Event) {
        if self.events.len() < self.events.capacity() {
            self.events.push(event);
        } else {
            self.lost += 1;
        }
    }
}
