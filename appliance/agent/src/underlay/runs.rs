//! Which datagrams leave together: of one burst, those with one way out, one destination and one mark, in order, as long as
//! they have one size.

/// The most datagrams of one message: Linux's `UDP_MAX_SEGMENTS` before 6.9.
pub(crate) const MOST_DATAGRAMS: u16 = 64;
/// The most bytes of one message: what one UDP datagram over IPv4 can hold.
const MOST_BYTES: u32 = 65_507;

/// A datagram that is about to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Datagram {
    /// The way out: a number of the caller's.
    pub(crate) lane: u8,
    /// The congestion mark of its outer header.
    pub(crate) ecn: u8,
    /// The destination: a number of the caller's.
    pub(crate) peer: u16,
    /// Bytes behind the UDP header.
    pub(crate) len: u32,
    /// Its parts: the number of the first, and how many.
    pub(crate) first: u32,
    /// See `first`.
    pub(crate) parts: u16,
    /// The frame of the burst that it came from.
    pub(crate) frame: u8,
}

/// Datagrams that leave as one message: neighbours in an order of the caller's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    /// Of all its datagrams.
    pub(crate) lane: u8,
    /// Of all its datagrams.
    pub(crate) ecn: u8,
    /// Of all its datagrams.
    pub(crate) peer: u16,
    /// Bytes of each but the last, which may have fewer.
    pub(crate) size: u32,
    /// Place of the first in the order, and how many there are.
    pub(crate) first: u32,
    /// See `first`.
    pub(crate) count: u16,
    parts: u32,
    bytes: u32,
    /// Nothing may follow a shorter one.
    closed: bool,
}

impl Run {
    fn begin(datagram: &Datagram, first: u32) -> Self {
        Self {
            lane: datagram.lane,
            ecn: datagram.ecn,
            peer: datagram.peer,
            size: datagram.len,
            first,
            count: 1,
            parts: datagram.parts.into(),
            bytes: datagram.len,
            closed: false,
        }
    }

    /// Adds a datagram, if it may leave in the same message.
    fn join(&mut self, next: &Datagram, most: u16, most_parts: u32) -> bool {
        let joins = !self.closed
            && (self.peer, self.ecn) == (next.peer, next.ecn)
            && self.count < most
            && next.len <= self.size
            && self.bytes + next.len <= MOST_BYTES
            && self.parts + u32::from(next.parts) <= most_parts;
        if joins {
            self.count += 1;
            self.bytes += next.len;
            self.parts += u32::from(next.parts);
            self.closed = next.len < self.size;
        }
        joins
    }
}

/// Puts the datagrams of one lane into runs, in order: `order` gets their places, `runs` what leaves together.
/// `most` datagrams, and `most_parts` parts, make a run at most.
pub(crate) fn plan(
    datagrams: &[Datagram],
    lane: u8,
    most: u16,
    most_parts: u32,
    order: &mut Vec<u16>,
    runs: &mut Vec<Run>,
) {
    order.clear();
    runs.clear();
    for (place, datagram) in datagrams.iter().enumerate().filter(|(_, datagram)| datagram.lane == lane) {
        let at = order.len() as u32;
        order.push(place as u16);
        if !runs.last_mut().is_some_and(|run| run.join(datagram, most, most_parts)) {
            runs.push(Run::begin(datagram, at));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn datagram(lane: u8, peer: u16, ecn: u8, len: u32) -> Datagram {
        Datagram { lane, ecn, peer, len, first: 0, parts: 2, frame: 0 }
    }

    fn planned(datagrams: &[Datagram], lane: u8) -> (Vec<u16>, Vec<Run>) {
        let (mut order, mut runs) = (Vec::new(), Vec::new());
        plan(datagrams, lane, MOST_DATAGRAMS, 1024, &mut order, &mut runs);
        (order, runs)
    }

    #[test]
    fn a_shorter_one_ends_a_run_and_a_longer_one_begins_another() {
        let sizes = [100, 100, 60, 60, 200, 200];
        let (_, runs) = planned(&sizes.map(|len| datagram(0, 1, 0, len)), 0);
        assert_eq!(
            runs.iter().map(|run| (run.size, run.count)).collect::<Vec<_>>(),
            [(100, 3), (60, 1), (200, 2)]
        );
    }

    proptest! {
        /// Each datagram of the lane is in one run, in order; a run is what the kernel cuts back into the same datagrams.
        #[test]
        fn runs_hold_every_datagram_of_their_lane_in_order(
            datagrams in prop::collection::vec((0u8..3, 0u16..3, 0u8..2, 1u32..4), 0..300),
            lane in 0u8..3,
            scale in prop::sample::select(vec![1u32, 1400, 20_000]),
        ) {
            let datagrams: Vec<Datagram> =
                datagrams.into_iter().map(|(l, p, e, len)| datagram(l, p, e, len * scale)).collect();
            let (order, runs) = planned(&datagrams, lane);
            let model: Vec<u16> = (0..datagrams.len() as u16).filter(|&i| datagrams[i as usize].lane == lane).collect();
            prop_assert_eq!(&order, &model);
            let mut at = 0;
            for run in &runs {
                prop_assert_eq!(run.first, at);
                at += u32::from(run.count);
                let own: Vec<&Datagram> =
                    order[run.first as usize..at as usize].iter().map(|&i| &datagrams[i as usize]).collect();
                prop_assert!(own.iter().all(|one| (one.peer, one.ecn) == (run.peer, run.ecn)));
                let (last, full) = own.split_last().expect("no run is empty");
                prop_assert!(full.iter().all(|one| one.len == run.size) && last.len <= run.size);
                prop_assert!(run.count <= MOST_DATAGRAMS);
                prop_assert!(run.count == 1 || own.iter().map(|one| one.len).sum::<u32>() <= 65_507);
            }
            prop_assert_eq!(at as usize, order.len());
        }
    }
}
