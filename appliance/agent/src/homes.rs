//! Which worker serves which queue.
//!
//! A queue goes to the worker that has the fewest queues when its port is first seen, the lowest number among equals, and stays
//! there as long as the port is configured: other ports coming and going never move it. The queues of one port therefore
//! lie on different workers as far as there are enough.

use std::collections::BTreeMap;

/// The assignment, by port id.
#[derive(Debug)]
pub(crate) struct Homes {
    load: Vec<usize>,
    ports: BTreeMap<u32, Vec<usize>>,
}

impl Homes {
    pub(crate) fn new(workers: usize) -> Self {
        Self { load: vec![0; workers.max(1)], ports: BTreeMap::new() }
    }

    /// The workers of a port's queues. What was given before is kept, more or fewer queues change only the end.
    pub(crate) fn of(&mut self, port: u32, queues: usize) -> Box<[usize]> {
        let homes = self.ports.entry(port).or_default();
        for surplus in homes.drain(queues.min(homes.len())..) {
            self.load[surplus] -= 1;
        }
        while homes.len() < queues {
            let idlest = (0..self.load.len()).min_by_key(|&worker| self.load[worker]).unwrap_or(0);
            self.load[idlest] += 1;
            homes.push(idlest);
        }
        homes.clone().into_boxed_slice()
    }

    /// The port is not configured any more.
    pub(crate) fn forget(&mut self, port: u32) {
        for worker in self.ports.remove(&port).unwrap_or_default() {
            self.load[worker] -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn queues_of_one_port_lie_on_different_workers() {
        let mut homes = Homes::new(2);
        assert_eq!(*homes.of(7, 1), [0]);
        assert_eq!(*homes.of(9, 4), [1, 0, 1, 0]);
        assert_eq!(*homes.of(8, 1), [1]);
    }

    proptest! {
        #[test]
        fn a_queue_stays_where_it_is_and_no_worker_has_two_more_than_another_without_removals(
            steps in prop::collection::vec((0u32..6, 0usize..5), 1..40),
            workers in 1usize..5,
        ) {
            let mut homes = Homes::new(workers);
            let mut model: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
            let mut shrunk = false;
            for (port, queues) in steps {
                if queues == 0 {
                    homes.forget(port);
                    shrunk |= model.remove(&port).is_some();
                    continue;
                }
                let now = homes.of(port, queues).to_vec();
                prop_assert_eq!(now.len(), queues);
                let before = model.insert(port, now.clone()).unwrap_or_default();
                shrunk |= queues < before.len();
                let kept = before.len().min(queues);
                prop_assert_eq!(&now[..kept], &before[..kept]);
                let mut load = vec![0; workers];
                model.values().flatten().for_each(|&worker| load[worker] += 1);
                prop_assert_eq!(&load, &homes.load);
                if !shrunk {
                    prop_assert!(load.iter().max().unwrap() - load.iter().min().unwrap() <= 1);
                }
            }
        }
    }
}
