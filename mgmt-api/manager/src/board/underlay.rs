//! What speaks against what a host says of its underlay.

use mgmt_types::agent::{SliceHost, Underlay};

use crate::compile;
use crate::state::State;

/// Why others may not reach `host`, which its agent says is at `told`, in words.
pub(super) fn warnings(state: &State, host: &SliceHost, told: Option<&Underlay>) -> Vec<String> {
    let mut warnings = Vec::new();
    let told = told.map(|told| told.addresses.as_slice()).unwrap_or_default();
    // What it says is taken whole or, when another host has one of the addresses, not at all.
    if host.underlay.is_empty() && !told.is_empty() {
        for (name, entry) in state.hosts.iter().filter(|(name, _)| **name != host.name) {
            let theirs = compile::peer(entry).underlay;
            for address in told.iter().filter(|address| theirs.contains(address)) {
                warnings.push(format!("it says that it is at {address}, which belongs to Host/{name}"));
            }
        }
    }
    if host.underlay.is_empty() && warnings.is_empty() {
        let peers = compile::viewers(state, compile::homes(state, &host.name));
        if peers.iter().any(|peer| *peer != host.name) {
            let text = "no underlay address is known: it exchanges no packets with other hosts";
            warnings.push(text.to_owned());
        }
    }
    warnings
}
