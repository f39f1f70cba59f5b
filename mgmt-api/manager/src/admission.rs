//! How many connections there may be, in all and of one source.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::limiter;

/// Most connections at once. One that comes when there are so many is closed at once: that tells the client, while a
/// queue would only make it wait for what it does not get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admission {
    /// In all. An agent keeps one, and a second one while it reports; so does whoever watches.
    pub connections: usize,
    /// Of one source (an IPv4 address, or an IPv6 network of 64 bits), so that one stranger cannot keep all others out.
    pub per_source: usize,
}

impl Default for Admission {
    /// Enough for 2,000 agents, none of which shares its address with more than 100 others.
    fn default() -> Self {
        Self { connections: 4096, per_source: 256 }
    }
}

/// Descriptors that are not connections: the store, the log, the runtime's own.
const OTHERS: u64 = 128;

/// Lets this process have as many descriptors as connections may need, as far as the system allows.
pub(crate) fn allow_descriptors(admission: Admission) {
    let wanted = u64::try_from(admission.connections).unwrap_or(u64::MAX).saturating_add(OTHERS);
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // None is no limit.
    if current.is_none_or(|current| current >= wanted) {
        return;
    }
    let allowed = maximum.map_or(wanted, |maximum| maximum.min(wanted));
    let raised = setrlimit(Resource::Nofile, Rlimit { current: Some(allowed), maximum });
    if raised.is_err() || allowed < wanted {
        log::warn!(
            "{} connections need {wanted} descriptors, of which the system gives {}: raise LimitNOFILE",
            admission.connections,
            if raised.is_ok() { Some(allowed) } else { current }.unwrap_or(wanted)
        );
    }
}

/// Open connections by source.
#[derive(Debug, Clone)]
pub(crate) struct Sources {
    admission: Admission,
    open: Arc<Mutex<Open>>,
}

#[derive(Debug, Default)]
struct Open {
    all: usize,
    by_source: HashMap<IpAddr, usize>,
}

/// One connection of a source; it counts until dropped.
#[derive(Debug)]
pub(crate) struct Held {
    open: Arc<Mutex<Open>>,
    source: IpAddr,
}

impl Sources {
    pub(crate) fn new(admission: Admission) -> Self {
        Self { admission, open: Arc::default() }
    }

    /// Room for one more connection of `peer`, if there is any.
    pub(crate) fn enter(&self, peer: IpAddr) -> Option<Held> {
        let source = limiter::source(peer);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.by_source.get(&source).copied().unwrap_or(0);
        if open.all >= self.admission.connections || count >= self.admission.per_source {
            return None;
        }
        open.all += 1;
        open.by_source.insert(source, count + 1);
        Some(Held { open: Arc::clone(&self.open), source })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.all -= 1;
        if let Some(count) = open.by_source.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                open.by_source.remove(&self.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_has_its_share_and_no_more_and_gives_back_what_it_leaves() {
        let sources = Sources::new(Admission { connections: 3, per_source: 2 });
        let [one, other] = ["10.0.0.1", "10.0.0.2"].map(|text| text.parse::<IpAddr>().unwrap());
        let held: Vec<Held> = [sources.enter(one), sources.enter(one)].into_iter().flatten().collect();
        assert_eq!(held.len(), 2);
        assert!(sources.enter(one).is_none(), "its share is used up");
        let third = sources.enter(other).expect("room for another");
        assert!(sources.enter(other).is_none(), "all is used up");
        drop(held);
        assert!(sources.enter(other).is_some());
        drop(third);
        assert!(sources.open.lock().unwrap().by_source.is_empty());
    }
}
