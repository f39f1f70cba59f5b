//! From a flow's hash to its entry: cache lines of eight slots.
//!
//! A slot holds 40 bits of the hash, the tag, and the entry's number. A flow's slot lies in the bucket that its hash
//! names, or, when that was full, in one other; a byte per bucket counts those, so that a miss rarely looks twice.
//! Reading takes no lock and may find what is being changed: who reads compares the entry's key. Writing takes the lock
//! of the shard that the bucket is part of; both buckets of a flow are of one shard.

use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use super::slab::Slab;

/// Slots of a bucket: a cache line.
const SLOTS: usize = 8;
/// Bits of a slot that hold the entry's number plus one.
const NUMBER_BITS: u32 = 24;
const NUMBER: u64 = (1 << NUMBER_BITS) - 1;

/// The most entries that a slot can number.
pub(crate) const MOST_ENTRIES: usize = NUMBER as usize - 1;

/// Shards, each with its lock.
pub(crate) const SHARDS: usize = 64;
/// The fewest buckets a shard has.
const LEAST_BUCKETS: usize = 4;

/// See the module.
#[derive(Debug)]
pub(crate) struct Index {
    slots: Slab<SLOTS>,
    overflow: Box<[AtomicU8]>,
    /// By how much a hash is shifted to give the bucket.
    shift: u32,
    /// Buckets of a shard, less one.
    within: u64,
}

/// Where a flow's slot may be.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Place {
    bucket: u32,
    tag: u64,
}

impl Index {
    /// An index for so many entries, half full when all are used. `prepare` is shown its memory before it is used.
    pub(crate) fn new(entries: usize, prepare: impl Fn(&[AtomicU64])) -> Self {
        let buckets = entries.div_ceil(SLOTS / 2).next_power_of_two().max(SHARDS * LEAST_BUCKETS);
        // Every look-up of a new flow reads here before anything is written.
        let slots = Slab::prepared(buckets, prepare);
        slots.fill();
        Self {
            slots,
            overflow: (0..buckets).map(|_| AtomicU8::new(0)).collect(),
            shift: 64 - buckets.trailing_zeros(),
            within: (buckets / SHARDS) as u64 - 1,
        }
    }

    #[inline(always)]
    pub(crate) fn place(&self, hash: u64) -> Place {
        Place { bucket: (hash >> self.shift) as u32, tag: hash << NUMBER_BITS }
    }

    /// The shard whose lock guards a place.
    #[inline]
    pub(crate) fn shard(&self, place: Place) -> usize {
        (u64::from(place.bucket) / (self.within + 1)) as usize
    }

    /// Draws a bucket's cache line near.
    #[inline(always)]
    pub(crate) fn touch(&self, place: Place) -> u64 {
        self.slots.get(place.bucket).map_or(0, |bucket| bucket[0].load(Ordering::Relaxed))
    }

    /// The entry that has the place's tag, if one has. Two flows with one bucket and one tag (40 bits) hide each other:
    /// the caller then finds another key in the entry and has a miss.
    #[inline(always)]
    pub(crate) fn find(&self, place: Place) -> Option<u32> {
        let found = self.find_in(place.bucket, place.tag);
        if found.is_none() && self.overflowed(place.bucket) {
            return self.find_in(self.other(place), place.tag);
        }
        found
    }

    #[inline(always)]
    fn find_in(&self, bucket: u32, tag: u64) -> Option<u32> {
        let slots = self.slots.get(bucket)?;
        for slot in slots {
            let slot = slot.load(Ordering::Relaxed);
            if (slot ^ tag) >> NUMBER_BITS == 0 && slot != tag {
                return Some((slot & NUMBER) as u32 - 1);
            }
        }
        None
    }

    /// Adds an entry. False when both buckets are full. The shard's lock is held.
    pub(crate) fn add(&self, place: Place, entry: u32) -> bool {
        let slot = place.tag | u64::from(entry + 1);
        if self.put(place.bucket, slot) {
            return true;
        }
        if !self.put(self.other(place), slot) {
            return false;
        }
        self.count_overflow(place.bucket, 1);
        true
    }

    /// Takes an entry out. The shard's lock is held.
    pub(crate) fn remove(&self, place: Place, entry: u32) {
        let slot = place.tag | u64::from(entry + 1);
        if !self.take(place.bucket, slot) && self.take(self.other(place), slot) {
            self.count_overflow(place.bucket, -1);
        }
    }

    /// The entries of both buckets: whom a new flow could take the place of.
    pub(crate) fn neighbours(&self, place: Place) -> impl Iterator<Item = u32> {
        [place.bucket, self.other(place)]
            .into_iter()
            .filter_map(|bucket| self.slots.get(bucket))
            .flatten()
            .filter_map(|slot| ((slot.load(Ordering::Relaxed) & NUMBER) as u32).checked_sub(1))
    }

    fn put(&self, bucket: u32, slot: u64) -> bool {
        let free = self
            .slots
            .get(bucket)
            .and_then(|slots| slots.iter().find(|slot| slot.load(Ordering::Relaxed) == 0));
        // Released: who finds the number finds the entry filled.
        free.is_some_and(|free| {
            free.store(slot, Ordering::Release);
            true
        })
    }

    fn take(&self, bucket: u32, slot: u64) -> bool {
        let found = self
            .slots
            .get(bucket)
            .and_then(|slots| slots.iter().find(|own| own.load(Ordering::Relaxed) == slot));
        found.is_some_and(|found| {
            found.store(0, Ordering::Relaxed);
            true
        })
    }

    #[inline]
    fn overflowed(&self, bucket: u32) -> bool {
        self.overflow.get(bucket as usize).is_some_and(|count| count.load(Ordering::Relaxed) > 0)
    }

    fn count_overflow(&self, bucket: u32, change: i8) {
        if let Some(count) = self.overflow.get(bucket as usize) {
            let before = count.load(Ordering::Relaxed);
            // A count that reached the top stays there: it only costs a second look.
            if before != u8::MAX {
                count.store(before.saturating_add_signed(change), Ordering::Relaxed);
            }
        }
    }

    /// The other bucket of a place: never the same, always of the same shard, and the other's other is the first.
    #[inline]
    fn other(&self, place: Place) -> u32 {
        let distance = (place.tag >> NUMBER_BITS | 1) & self.within;
        (u64::from(place.bucket) ^ distance) as u32
    }
}
