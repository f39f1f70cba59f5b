//! How long a workload's old host passes on what still comes for it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::state::State;

/// Time in which every host that is connected has learnt of a move many times over.
const STRAGGLERS: Duration = Duration::from_secs(60);

/// Moves that are not over, and when each was first seen. In memory only: a manager that starts gives them the full
/// time again.
#[derive(Debug, Default)]
pub(crate) struct Moves(HashMap<Move, Instant>);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Move {
    workload: String,
    from: String,
    /// The revision that last changed the workload: one that moves to and fro begins anew.
    revision: u64,
}

impl Moves {
    /// The workloads whose move is over.
    pub(crate) fn look(&mut self, state: &State, now: Instant) -> Vec<String> {
        let mut seen = HashMap::new();
        let mut over = Vec::new();
        for name in state.places.moved() {
            let Some(entry) = state.workloads.get(name) else { continue };
            let Some(from) = entry.moved_from.clone() else { continue };
            let key = Move { workload: name.to_owned(), from, revision: entry.revision };
            let since = self.0.get(&key).copied().unwrap_or(now);
            if now.saturating_duration_since(since) >= STRAGGLERS {
                over.push(name.to_owned());
            }
            seen.insert(key, since);
        }
        self.0 = seen;
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{state_of, wishes};
    use crate::transaction;

    #[test]
    fn a_move_is_over_after_a_minute_and_one_back_begins_anew() {
        let on = |host: &str| {
            format!(
                "kind: Workload\nname: w\nspec: {{ host: {host}, kind: vm, ports: [{{ name: e, network: n }}] }}\n"
            )
        };
        let base = "kind: Host\nname: a\n---\nkind: Host\nname: b\n---\nkind: Network\nname: n\nspec: { subnets: [] }\n---\n";
        let next = |state: &State, host: &str| transaction::plan(state, &wishes(&on(host))).unwrap().state;
        let state = state_of(&format!("{base}{}", on("a")));
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut moves = Moves::default();
        assert!(moves.look(&state, at(0)).is_empty());
        let state = next(&state, "b");
        assert!(moves.look(&state, at(10)).is_empty());
        assert!(moves.look(&state, at(69)).is_empty());
        assert_eq!(moves.look(&state, at(70)), ["w"]);
        let state = next(&next(&state, "a"), "b");
        assert!(moves.look(&state, at(71)).is_empty());
        assert_eq!(moves.look(&state, at(131)), ["w"]);
    }
}
