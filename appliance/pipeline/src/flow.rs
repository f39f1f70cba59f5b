//! Tracked connections: what they are known by, where they are kept, what is told of them.

mod entry;
mod index;
mod key;
mod slab;
mod state;
mod table;

use core::sync::atomic::AtomicU64;

use crate::Instant;
use crate::policy::RuleId;

use entry::ENTRY_WORDS;
pub(crate) use entry::{Entry, Flags, New, Seen};
pub(crate) use index::Place;
pub(crate) use key::{Key, Side};
pub(crate) use state::State;
pub(crate) use table::Refused;

pub use key::FlowKey;
pub use table::{FlowTable, FlowTableConfig};

/// What is known of one flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowRecord {
    /// Who talks to whom.
    pub key: FlowKey,
    /// How far it has come, as a name.
    pub state: &'static str,
    /// When its first packet passed.
    pub started: Instant,
    /// When its last packet passed; milliseconds exact.
    pub last_seen: Instant,
    /// Packets on the wire from the initiator, and back.
    pub packets: [u64; 2],
    /// Bytes of these packets, Ethernet header included.
    pub bytes: [u64; 2],
    /// The rules that admitted it: egress, ingress. `None` where nobody was asked.
    pub rules: [Option<RuleId>; 2],
    /// Whether one of them says `log`.
    pub log: bool,
    /// The revision under which it was judged last.
    pub revision: u64,
}

/// A flow that was just admitted, as the table had it then. It takes some work to make a [`FlowRecord`] of it, and of many
/// flows that begin few are asked for theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowStart {
    words: [u64; ENTRY_WORDS],
    now: Instant,
}

/// Why a flow is tracked no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ending {
    /// Both sides said good-bye, or one reset it.
    Closed,
    /// Silent for too long.
    TimedOut,
    /// Another flow took its place before it was established.
    Evicted,
    /// The policy does not allow it any more, or the port that began it is no more.
    Revoked,
}

impl Ending {
    /// The name in API, CLI and logs: kebab-case.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::TimedOut => "timed-out",
            Self::Evicted => "evicted",
            Self::Revoked => "revoked",
        }
    }
}

impl FlowStart {
    /// What the entry of the flow of `key` says.
    #[inline]
    pub(crate) fn of(entry: Entry<'_>, key: &Key, now: Instant) -> Self {
        Self { words: entry.words(key), now }
    }

    /// The rules that admitted it: egress, ingress. `None` where nobody was asked.
    #[inline]
    pub fn rules(&self) -> [Option<RuleId>; 2] {
        entry::rules_of(&self.words)
    }

    /// Whether one of them says `log`.
    #[inline]
    pub fn log(&self) -> bool {
        entry::flags_of(&self.words).log()
    }

    /// What is known of the flow.
    pub fn record(&self) -> FlowRecord {
        let words = self.words.map(AtomicU64::new);
        let entry = Entry(&words);
        FlowRecord::of(entry, &entry.key(), self.now)
    }
}

impl FlowRecord {
    pub(crate) fn of(entry: Entry<'_>, key: &Key, now: Instant) -> Self {
        let flags = entry.flags();
        let side = flags.initiator();
        let ago = |at: u32| now.millis_ago(now.as_millis().wrapping_sub(at));
        let (packets, bytes) = (entry.packets().map(u64::from), entry.bytes());
        let order = [side.index(), side.other().index()];
        Self {
            key: key.unpack(side),
            // Read without the lock: at worst the state of a moment ago.
            state: State::from_words(key.protocol(), entry.state()).name(),
            started: ago(entry.begun()),
            last_seen: ago(entry.last_seen()),
            packets: order.map(|side| packets[side]),
            bytes: order.map(|side| bytes[side]),
            rules: entry.rules(),
            log: flags.log(),
            revision: u64::from(entry.epoch()),
        }
    }
}
