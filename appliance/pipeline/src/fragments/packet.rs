//! What is known of one fragmented packet.

use super::{FragmentKey, NONE};
use crate::{DropReason, Instant};

/// How far a packet's judgement is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// The place is free.
    Free,
    /// The first fragment has not come.
    Waiting,
    /// The first fragment is being judged.
    Judging,
    /// Later fragments follow this.
    Settled(u32),
    /// Nothing of it goes on any more.
    Refused(DropReason),
}

/// One packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packet {
    pub(super) key: FragmentKey,
    pub(super) deadline: Instant,
    pub(super) progress: Progress,
    /// The slots of the fragments that wait longest and shortest.
    pub(super) oldest: u8,
    pub(super) newest: u8,
    /// Fragments that have come.
    pieces: u8,
    /// Bytes in all, once the last fragment has told; 0 before.
    total: u16,
    ranges: Ranges,
}

impl Packet {
    /// A place without a packet.
    pub(super) const FREE: Self = Self {
        key: FragmentKey { source: 0, destination: 0, id: 0, protocol: 0, v6: false },
        deadline: Instant::from_nanos(0),
        progress: Progress::Free,
        oldest: NONE,
        newest: NONE,
        pieces: 0,
        total: 0,
        ranges: Ranges { ranges: [(0, 0); Ranges::MOST], count: 0 },
    };

    /// A packet of which nothing has come.
    pub(super) const fn new(key: FragmentKey, deadline: Instant) -> Self {
        Self { key, deadline, progress: Progress::Waiting, ..Self::FREE }
    }

    pub(super) fn is_free(&self) -> bool {
        self.progress == Progress::Free
    }

    /// Takes note of the bytes from `start` to `end`, which is not before it.
    pub(super) fn cover(&mut self, start: u16, end: u16, more: bool, most: u8) -> Result<(), DropReason> {
        if self.pieces >= most {
            return Err(DropReason::FragmentLimit);
        }
        self.pieces += 1;
        // The packet's end is told once, and nothing lies behind it: neither now nor from before.
        let ends_again = !more && self.total != 0;
        let behind = self.total != 0 && end > self.total;
        if ends_again || behind || (!more && self.ranges.end() > end) {
            return Err(DropReason::FragmentOverlap);
        }
        if !more {
            self.total = end;
        }
        self.ranges.insert(start, end)
    }

    /// Whether every byte has come.
    pub(super) fn is_complete(&self) -> bool {
        self.total != 0 && self.ranges.as_slice() == [(0, self.total)]
    }
}

/// Ranges of bytes, from and to (excluded), in order; no two touch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ranges {
    ranges: [(u16, u16); Ranges::MOST],
    count: u8,
}

impl Ranges {
    /// Between two ranges a fragment is missing: with more of them, a packet of 64 fragments is never complete.
    const MOST: usize = 32;

    fn as_slice(&self) -> &[(u16, u16)] {
        self.ranges.get(..usize::from(self.count)).unwrap_or_default()
    }

    fn end(&self) -> u16 {
        self.as_slice().last().map_or(0, |range| range.1)
    }

    /// Adds a range that overlaps none, and unites it with those it touches.
    fn insert(&mut self, start: u16, end: u16) -> Result<(), DropReason> {
        let count = usize::from(self.count);
        // How many lie before it.
        let at = self.as_slice().partition_point(|range| range.1 <= start);
        if self.as_slice().get(at).is_some_and(|range| range.0 < end) {
            return Err(DropReason::FragmentOverlap);
        }
        let touches_next = self.as_slice().get(at).is_some_and(|range| range.0 == end);
        let before = at
            .checked_sub(1)
            .filter(|before| self.as_slice().get(*before).is_some_and(|range| range.1 == start));
        match (before, touches_next) {
            (Some(before), true) => {
                if let Some(range) = self.ranges.get(at).copied() {
                    self.put(before, |old| (old.0, range.1));
                }
                self.ranges.copy_within(at + 1..count, at);
                self.count -= 1;
            }
            (Some(before), false) => self.put(before, |old| (old.0, end)),
            (None, true) => self.put(at, |old| (start, old.1)),
            (None, false) if count == Self::MOST => return Err(DropReason::FragmentLimit),
            (None, false) => {
                self.ranges.copy_within(at..count, at + 1);
                self.put(at, |_| (start, end));
                self.count += 1;
            }
        }
        Ok(())
    }

    fn put(&mut self, at: usize, new: impl FnOnce((u16, u16)) -> (u16, u16)) {
        if let Some(range) = self.ranges.get_mut(at) {
            *range = new(*range);
        }
    }
}
