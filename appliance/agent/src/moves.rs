//! What changed lately of where ports live and of who they are, so that packets that were on their way are still understood.

use std::collections::{BTreeMap, BTreeSet};

use mgmt_types::agent::Slice;
use pipeline::Instant;

/// How long the host that a port has left may still speak for it, and an identity that a host's ports had is still taken
/// from it: 10 s, in which every host has heard of the change, or has not been heard from.
const GRACE: u64 = 10_000_000_000;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Moves {
    /// By port id: its host.
    homes: BTreeMap<u32, String>,
    /// By port id: the host that it has left, and until when that counts.
    left: BTreeMap<u32, (String, Instant)>,
    /// By port id: the host that the manager says it has left.
    told: BTreeMap<u32, String>,
    /// Hosts, and the identities of their ports.
    current: BTreeSet<(String, u32)>,
    /// Those that were so until just now, and until when that counts.
    identities: BTreeMap<(String, u32), Instant>,
}

impl Moves {
    /// Takes note of a slice that comes into force.
    pub(crate) fn note(&mut self, slice: &Slice, now: Instant) {
        let until = Instant::from_nanos(now.as_nanos().saturating_add(GRACE));
        self.left.retain(|_, (_, until)| *until > now);
        self.identities.retain(|_, until| *until > now);
        let (mut homes, mut told) = (BTreeMap::new(), BTreeMap::new());
        for port in &slice.ports {
            let seen = self.homes.remove(&port.id).filter(|home| *home != port.host);
            // Who was not there when it moved has it from the manager, and counts from when that was first said.
            let said = port.moved_from.clone().filter(|home| self.told.get(&port.id) != Some(home));
            if let Some(home) = seen.or(said) {
                self.left.insert(port.id, (home, until));
            }
            told.extend(port.moved_from.clone().map(|home| (port.id, home)));
            homes.insert(port.id, port.host.clone());
        }
        self.told = told;
        let remote = slice.ports.iter().filter(|port| port.host != slice.host);
        let current = remote.map(|port| (port.host.clone(), port.identity)).collect();
        let before = std::mem::replace(&mut self.current, current);
        self.identities.extend(before.difference(&self.current).map(|pair| (pair.clone(), until)));
        self.homes = homes;
    }

    /// The host that a port has left, and until when that counts.
    pub(crate) fn left(&self, port: u32) -> Option<(&str, Instant)> {
        self.left.get(&port).map(|(home, until)| (home.as_str(), *until))
    }

    /// Identities that a host's ports had until just now.
    pub(crate) fn identities(&self, host: &str) -> Vec<u32> {
        let from = (host.to_owned(), 0)..=(host.to_owned(), u32::MAX);
        self.identities.range(from).map(|((_, identity), _)| *identity).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::tests::{slice, vm_port};

    fn at(seconds: u64) -> Instant {
        Instant::from_nanos(seconds * 1_000_000_000)
    }

    fn on(host: &str, identity: u32) -> Slice {
        let mut port = vm_port(1, "web");
        (port.host, port.identity) = (host.into(), identity);
        slice(vec![port])
    }

    #[test]
    fn the_host_that_a_port_has_left_counts_for_a_while() {
        let mut moves = Moves::default();
        moves.note(&on("a", 0), at(1));
        assert_eq!(moves.left(1), None);
        moves.note(&on("here", 0), at(2));
        assert_eq!(moves.left(1), Some(("a", at(12))));
        moves.note(&on("here", 0), at(11));
        assert_eq!(moves.left(1), Some(("a", at(12))), "another change takes nothing from it");
        moves.note(&on("here", 0), at(12));
        assert_eq!(moves.left(1), None);
        moves.note(&on("b", 0), at(13));
        assert_eq!(moves.left(1), Some(("here", at(23))));
    }

    #[test]
    fn the_managers_word_on_a_move_counts_once() {
        let mut slice = on("here", 0);
        slice.ports[0].moved_from = Some("a".into());
        let mut moves = Moves::default();
        moves.note(&slice, at(1));
        assert_eq!(moves.left(1), Some(("a", at(11))));
        moves.note(&slice, at(12));
        assert_eq!(moves.left(1), None, "said again, it is no news");
    }

    #[test]
    fn an_identity_that_a_host_had_counts_for_a_while() {
        let mut moves = Moves::default();
        moves.note(&on("a", 5), at(1));
        moves.note(&on("a", 6), at(2));
        assert_eq!(moves.identities("a"), [5]);
        assert_eq!(moves.identities("b"), [0u32; 0]);
        moves.note(&on("a", 6), at(11));
        assert_eq!(moves.identities("a"), [5]);
        moves.note(&on("a", 6), at(12));
        assert_eq!(moves.identities("a"), [0u32; 0]);
    }
}
