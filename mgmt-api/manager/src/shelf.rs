//! What each host was told last, so that one that connects again is told only what is different.
//!
//! In memory only. A host of which nothing is known here is told whole, unless it has the newest slice already.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use mgmt_types::agent::{SealedSlice, SliceVersion};

use crate::state::State;

/// See the module. One slice for each declared host at most.
#[derive(Debug, Default)]
pub(crate) struct Shelf(Mutex<HashMap<String, SealedSlice>>);

impl Shelf {
    /// Notes what a host was told.
    pub(crate) fn put(&self, state: &State, host: &str, slice: SealedSlice) {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.insert(host.to_owned(), slice);
        if told.len() > state.hosts.len() {
            told.retain(|host, _| state.hosts.contains_key(host));
        }
    }

    /// The slice that a host says it has, if that is what it was told last.
    pub(crate) fn find(&self, host: &str, version: SliceVersion) -> Option<SealedSlice> {
        let told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.get(host).filter(|slice| slice.version() == version).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile;
    use crate::testing::state_of;

    #[test]
    fn what_a_host_was_told_is_found_by_its_version_while_the_host_is_declared() {
        let state = state_of("kind: Host\nname: a\n---\nkind: Host\nname: b\n");
        let told = |host| SealedSlice::new(compile::slice(&state, host));
        let shelf = Shelf::default();
        shelf.put(&state, "a", told("a"));
        shelf.put(&state, "b", told("b"));
        assert_eq!(shelf.find("a", told("a").version()), Some(told("a")));
        assert_eq!(shelf.find("a", told("b").version()), None);
        let fewer = state_of("kind: Host\nname: b\n");
        shelf.put(&fewer, "b", told("b"));
        assert_eq!(shelf.find("a", told("a").version()), None);
        assert_eq!(shelf.find("b", told("b").version()), Some(told("b")));
    }
}
