//! What is too large for one value, cut in pieces.
//!
//! etcd takes at most 1.5 MiB in one request. Most changes are one small piece, which goes into the transaction that
//! makes it current; of larger ones the pieces go before.

use std::collections::BTreeMap;

use mgmt_types::{Kind, Revision};
use serde::{Deserialize, Serialize};

use super::keys::attempt_of;
use crate::state::{Counters, Entry, GroupSet, State};
use crate::store::Commit;

/// Longest piece, in bytes: two of them and some more fit into a request.
pub(super) const PIECE: usize = 512 << 10;

/// Which attempt became a revision or a base.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Winner {
    pub(super) revision: u64,
    pub(super) attempt: String,
    pub(super) pieces: u32,
    /// Length of all pieces together.
    pub(super) bytes: u64,
}

impl Winner {
    pub(super) fn of(revision: u64, attempt: &str, text: &[u8]) -> Self {
        let pieces = u32::try_from(cut(text).len()).unwrap_or(u32::MAX);
        Self { revision, attempt: attempt.to_owned(), pieces, bytes: text.len() as u64 }
    }
}

/// What one revision changes, as it is written.
#[derive(Debug, Serialize)]
struct Outgoing<'a> {
    revision: &'a Revision,
    puts: &'a [Entry],
    removals: &'a [(Kind, String)],
    identities: &'a [(u32, Option<GroupSet>)],
    counters: Counters,
}

/// What one revision changes, as it is read.
#[derive(Debug, Deserialize)]
pub(super) struct Step {
    pub(super) revision: Revision,
    puts: Vec<Entry>,
    removals: Vec<(Kind, String)>,
    identities: Vec<(u32, Option<GroupSet>)>,
    counters: Counters,
}

impl Step {
    pub(super) fn encode(commit: &Commit<'_>) -> Result<Vec<u8>, serde_json::Error> {
        let Commit { revision, puts, removals, identities, counters, .. } = *commit;
        serde_json::to_vec(&Outgoing { revision, puts, removals, identities, counters })
    }

    /// A revision that says what changed and changes nothing: its outcome is in the base after it.
    pub(super) fn empty(revision: &Revision, counters: Counters) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(&Outgoing { revision, puts: &[], removals: &[], identities: &[], counters })
    }

    /// Makes it in `state`.
    pub(super) fn apply(self, state: &mut State) {
        state.revision = self.revision.revision;
        state.counters = self.counters;
        for entry in self.puts {
            state.put(entry);
        }
        for (kind, name) in self.removals {
            state.remove(kind, &name);
        }
        for (id, set) in self.identities {
            match set {
                Some(set) => drop(state.identities.insert(id, set)),
                None => drop(state.identities.remove(&id)),
            }
        }
    }
}

/// A whole state, as it is written and read.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Whole {
    revision: u64,
    counters: Counters,
    entries: Vec<Entry>,
    identities: BTreeMap<u32, GroupSet>,
}

impl Whole {
    pub(super) fn of(state: &State) -> Self {
        let entries = Kind::ALL.into_iter().flat_map(|kind| state.list(kind)).collect();
        let identities = state.identities.clone();
        Self { revision: state.revision, counters: state.counters, entries, identities }
    }

    pub(super) fn into_state(self) -> State {
        let Self { revision, counters, entries, identities } = self;
        let mut state = State { revision, counters, identities, ..State::default() };
        for entry in entries {
            state.put(entry);
        }
        state
    }
}

/// The pieces of a text; at least one.
pub(super) fn cut(text: &[u8]) -> Vec<&[u8]> {
    if text.is_empty() { vec![text] } else { text.chunks(PIECE).collect() }
}

/// Puts the pieces of a winner together; none when some are missing. `pieces` are keys and values in the order of keys,
/// those of other attempts among them.
pub(super) fn join(winner: &Winner, pieces: &[(String, Vec<u8>)]) -> Option<Vec<u8>> {
    let own = |key: &str| attempt_of(key) == Some((winner.revision, winner.attempt.as_str()));
    let mut text = Vec::new();
    let mut count = 0u32;
    let from = pieces
        .partition_point(|(key, _)| attempt_of(key).is_some_and(|(revision, _)| revision < winner.revision));
    for (key, piece) in pieces.iter().skip(from) {
        if attempt_of(key).is_some_and(|(revision, _)| revision > winner.revision) {
            break;
        }
        if own(key) {
            text.extend_from_slice(piece);
            count += 1;
        }
    }
    (count == winner.pieces && text.len() as u64 == winner.bytes).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::etcd::keys::Keys;
    use crate::testing::state_of;

    #[test]
    fn a_text_is_put_together_from_its_own_pieces_or_not_at_all() {
        let keys = Keys::new("/p".to_owned());
        let text: Vec<u8> = (0..PIECE * 2 + 5).map(|n| n as u8).collect();
        let winner = Winner::of(7, "b-1", &text);
        assert_eq!(winner.pieces, 3);
        let mut all = Vec::new();
        for (revision, attempt) in [(6, "b-1"), (7, "a-1"), (7, "b-1"), (7, "c-9"), (8, "b-1")] {
            for (number, piece) in cut(&text).into_iter().enumerate() {
                all.push((keys.piece(revision, attempt, number as u32), piece.to_vec()));
            }
        }
        assert_eq!(join(&winner, &all), Some(text));
        all.retain(|(key, _)| *key != keys.piece(7, "b-1", 1));
        assert_eq!(join(&winner, &all), None);
    }

    #[test]
    fn a_whole_state_is_read_as_it_was_written() {
        let state = state_of(
            "kind: Host\nname: a\n---\nkind: Network\nname: blue\nspec: { subnets: [10.0.1.0/24] }\n---\nkind: Group\nname: g\nspec: { match: \"tier = web\" }\n---\nkind: Workload\nname: w\nlabels: { tier: web }\nspec: { host: a, kind: vm, ports: [{ name: e, network: blue }] }\n",
        );
        let text = serde_json::to_vec(&Whole::of(&state)).unwrap();
        assert_eq!(serde_json::from_slice::<Whole>(&text).unwrap().into_state(), state);
    }
}
