//! Numbers that stay the same from one slice to the next: which a port has in the flow table's count of flows per port,
//! and which a network or router has in the keys of flows.

use std::collections::BTreeMap;

/// The most ports that are told apart; all others share the last number.
pub(crate) const MOST: u32 = 16384;

/// The numbers of ports, by their ids, of networks, by their VNIs, and of routers, by their names.
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    pub(crate) ports: Slots,
    pub(crate) networks: Slots,
    pub(crate) routers: Slots<String>,
}

/// Numbers of whatever has an id. It keeps its number as long as it is configured; a number that is free is given again,
/// the lowest first.
#[derive(Debug)]
pub(crate) struct Slots<K = u32>(BTreeMap<K, u32>);

impl<K> Default for Slots<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord + Clone> Slots<K> {
    /// The numbers of these, of which the ones that are not named lose theirs. Numbers that are free now; they are not given
    /// to any of these, but by the next call.
    pub(crate) fn keep(&mut self, ports: impl Iterator<Item = K> + Clone) -> Vec<u32> {
        let wanted: std::collections::BTreeSet<K> = ports.clone().collect();
        let mut taken: std::collections::BTreeSet<u32> = self.0.values().copied().collect();
        let mut next = 0;
        for port in ports {
            self.0.entry(port).or_insert_with(|| {
                while taken.contains(&next) && next < MOST - 1 {
                    next += 1;
                }
                taken.insert(next);
                next
            });
        }
        let mut free = Vec::new();
        self.0.retain(|port, number| {
            let stays = wanted.contains(port);
            if !stays && *number < MOST - 1 {
                free.push(*number);
            }
            stays
        });
        free
    }

    /// The number of what was kept, if it was.
    pub(crate) fn get(&self, id: &K) -> Option<u32> {
        self.0.get(id).copied()
    }

    /// The number of a port.
    pub(crate) fn of(&self, port: &K) -> u32 {
        self.0.get(port).copied().unwrap_or(MOST - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_keeps_its_number_and_a_free_one_is_given_again() {
        let mut slots: Slots = Slots::default();
        assert_eq!(slots.keep([9, 5, 7].into_iter()), [0u32; 0]);
        assert_eq!([9, 5, 7].map(|port| slots.of(&port)), [0, 1, 2]);
        assert_eq!(slots.keep([7, 9, 8].into_iter()), [1]);
        assert_eq!(
            [9, 8, 7].map(|port| slots.of(&port)),
            [0, 3, 2],
            "what becomes free is not given at once"
        );
        assert_eq!(slots.keep([6, 7, 9, 8].into_iter()), [0u32; 0]);
        assert_eq!(slots.of(&6), 1);
    }

    #[test]
    fn the_last_number_is_shared_by_all_who_find_none() {
        let mut slots: Slots = Slots::default();
        slots.keep(0..MOST + 2);
        assert_eq!(
            [MOST - 2, MOST - 1, MOST, MOST + 1].map(|port| slots.of(&port)),
            [MOST - 2, MOST - 1, MOST - 1, MOST - 1]
        );
    }
}
