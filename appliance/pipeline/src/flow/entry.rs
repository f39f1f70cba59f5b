//! One tracked flow: 128 bytes, two adjacent cache lines, of atomic words.
//!
//! ```text
//! word 0..5   key                                      written when the flow is made
//! word 5      version u32 | epoch u32                  version: bit 0 = locked; counted up by 2 at each reuse
//! word 6      port behind the high end u32 | low end u32
//! word 7      state u32 | flags u32
//! word 8      ingress rule u32 | egress rule u32       rule id + 1; 0: none was asked
//! word 9      begun u32 | last seen u32                milliseconds, wrapping
//! word 10     packets from the high end u32 | low end u32
//! word 11,12  bytes from the low end, from the high end
//! word 13..16 state: TCP's windows
//! ```
//!
//! A reader finds an entry by an index that may be stale, so it compares the key and then looks whether the version is
//! the one it began with (a sequence lock). The key's first word is zero in a free entry, and the last that is written of
//! a new one. Counters are plain loads and stores: two workers that carry the two queues of one flow at once may lose a
//! count, or count for the entry's next flow a packet of the last. What TCP needs whole is changed with the version's lock
//! bit held.

use core::sync::atomic::{AtomicU64, Ordering, fence};

use super::key::{Key, Side, WORDS};
use super::state::{State, Words};
use crate::policy::RuleId;

/// Words of an entry.
pub(crate) const ENTRY_WORDS: usize = 16;

const VERSION: usize = 5;
const PORTS: usize = 6;
const STATE: usize = 7;
const RULES: usize = 8;
const TIME: usize = 9;
const PACKETS: usize = 10;
const BYTES: usize = 11;
const WINDOWS: usize = 13;

/// Bit 32 of the version word: somebody changes the entry.
const LOCKED: u64 = 1 << 32;
/// One reuse.
const REUSE: u64 = 2 << 32;

/// What word 7 says beside the TCP state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flags(pub(crate) u32);

impl Flags {
    const INITIATOR_HIGH: u32 = 1;
    const HALF_OPEN: u32 = 1 << 1;
    const KEEP: [u32; 2] = [1 << 2, 1 << 3];
    const LOG: u32 = 1 << 4;
    const REVOKED: u32 = 1 << 5;
    const CLASS_SHIFT: u32 = 8;

    /// Of a new flow.
    pub(crate) fn new(initiator: Side, state: State) -> Self {
        Self(if initiator == Side::High { Self::INITIATOR_HIGH } else { 0 }).with_state(state)
    }

    /// The end that began.
    #[inline]
    pub(crate) fn initiator(self) -> Side {
        Side::high_if(self.0 & Self::INITIATOR_HIGH != 0)
    }

    /// Whether it ended because the policy forbids it, and is remembered so that nothing of it is taken for another.
    #[inline]
    pub(crate) fn is_revoked(self) -> bool {
        self.0 & Self::REVOKED != 0
    }

    /// Whether it is among the first to go when there is no room.
    pub(crate) fn gives_way(self) -> bool {
        self.0 & (Self::HALF_OPEN | Self::REVOKED) != 0
    }

    pub(crate) fn with_revoked(self, revoked: bool) -> Self {
        Self(self.0 & !Self::REVOKED | if revoked { Self::REVOKED } else { 0 })
    }

    /// By direction, egress first: admitted by a rule that says `keepEstablished`.
    pub(crate) fn keep(self) -> [bool; 2] {
        Self::KEEP.map(|bit| self.0 & bit != 0)
    }

    /// Admitted by a rule that says `log`.
    pub(crate) fn log(self) -> bool {
        self.0 & Self::LOG != 0
    }

    /// The number of the [`crate::conntrack::timeouts::Class`] whose timeout holds.
    #[inline]
    pub(crate) fn class(self) -> usize {
        usize::from((self.0 >> Self::CLASS_SHIFT) as u8)
    }

    pub(crate) fn with_state(self, state: State) -> Self {
        let half_open = if state.is_half_open() { Self::HALF_OPEN } else { 0 };
        let class = (state.class() as u32) << Self::CLASS_SHIFT;
        Self(self.0 & !(0xff << Self::CLASS_SHIFT | Self::HALF_OPEN) | class | half_open)
    }

    pub(crate) fn with_judgement(self, keep: [bool; 2], log: bool) -> Self {
        let [out, into] = Self::KEEP;
        let bit = |on, bit| if on { bit } else { 0 };
        let cleared = self.0 & !(out | into | Self::LOG);
        Self(cleared | bit(keep[0], out) | bit(keep[1], into) | bit(log, Self::LOG))
    }
}

/// An entry in the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry<'a>(pub(crate) &'a [AtomicU64; ENTRY_WORDS]);

/// The rules that words read by [`Entry::words`] name: egress and ingress.
#[inline]
pub(crate) fn rules_of(words: &[u64; ENTRY_WORDS]) -> [Option<RuleId>; 2] {
    unpack_rules(words[RULES])
}

/// The flags among words read by [`Entry::words`].
#[inline]
pub(crate) fn flags_of(words: &[u64; ENTRY_WORDS]) -> Flags {
    Flags(words[STATE] as u32)
}

#[inline]
fn unpack_rules(word: u64) -> [Option<RuleId>; 2] {
    [word as u32, (word >> 32) as u32].map(|number| number.checked_sub(1).map(RuleId))
}

/// What was read of an entry in one piece.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    pub(crate) version: u32,
    pub(crate) epoch: u32,
    /// By [`Side`]: the port behind it.
    pub(crate) ports: [u32; 2],
    pub(crate) flags: Flags,
    /// What fits beside the flags of how far the flow is.
    pub(crate) state: u32,
}

/// What a new flow is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct New {
    pub(crate) key: Key,
    pub(crate) epoch: u32,
    pub(crate) ports: [u32; 2],
    pub(crate) flags: Flags,
    pub(crate) rules: [Option<RuleId>; 2],
    pub(crate) now: u32,
    pub(crate) state: Words,
    /// Who sent the first packet (which may be several on the wire), how many, and their bytes.
    pub(crate) sent: (Side, u32, u32),
}

impl<'a> Entry<'a> {
    #[inline(always)]
    fn load(self, word: usize) -> u64 {
        self.0[word].load(Ordering::Relaxed)
    }

    #[inline(always)]
    fn store(self, word: usize, value: u64) {
        self.0[word].store(value, Ordering::Relaxed);
    }

    /// Draws the entry's two cache lines near.
    #[inline(always)]
    pub(crate) fn touch(self) -> u64 {
        self.load(0) ^ self.load(TIME)
    }

    /// Reads the entry if it is the flow of `key`.
    #[inline(always)]
    pub(crate) fn read(self, key: &Key) -> Option<Seen> {
        let before = self.0[VERSION].load(Ordering::Acquire);
        // Who sees the first word of a key sees all that was written before it.
        let first = self.0[0].load(Ordering::Acquire);
        let mut differs = (first ^ key.0[0]) | (self.load(1) ^ key.0[1]);
        if key.is_v6() {
            differs |= (self.load(2) ^ key.0[2]) | (self.load(3) ^ key.0[3]) | (self.load(4) ^ key.0[4]);
        }
        if differs != 0 {
            return None;
        }
        let (ports, state) = (self.load(PORTS), self.load(STATE));
        fence(Ordering::Acquire);
        let after = self.load(VERSION);
        // Whether it is locked says nothing about what was read; another use of the entry does.
        if (before ^ after) >> 33 != 0 {
            return None;
        }
        Some(Seen {
            version: (after >> 32) as u32 & !1,
            // Not what it became meanwhile: the ports may be those of before.
            epoch: before as u32,
            ports: [ports as u32, (ports >> 32) as u32],
            flags: Flags(state as u32),
            state: (state >> 32) as u32,
        })
    }

    /// The key, for who holds the shard's lock.
    pub(crate) fn key(self) -> Key {
        let mut words = [0; WORDS];
        for (place, word) in words.iter_mut().enumerate() {
            *word = self.load(place);
        }
        Key(words)
    }

    /// Which use of the entry this is.
    pub(crate) fn version(self) -> u32 {
        (self.load(VERSION) >> 32) as u32 & !1
    }

    pub(crate) fn epoch(self) -> u32 {
        self.load(VERSION) as u32
    }

    pub(crate) fn is_free(self) -> bool {
        self.load(0) == 0
    }

    /// Fills a free entry. The shard's lock is held; readers with a stale index see the version change.
    pub(crate) fn fill(self, new: &New) {
        let version = (self.load(VERSION) >> 32 << 32).wrapping_add(REUSE) | LOCKED;
        self.0[VERSION].store(version, Ordering::Release);
        fence(Ordering::Release);
        for (place, word) in new.key.0.iter().enumerate().skip(1) {
            self.store(place, *word);
        }
        self.store(PORTS, u64::from(new.ports[1]) << 32 | u64::from(new.ports[0]));
        self.store(STATE, u64::from(new.state.1) << 32 | u64::from(new.flags.0));
        self.set_rules(new.rules);
        self.store(TIME, u64::from(new.now) << 32 | u64::from(new.now));
        let (side, packets, bytes) = new.sent;
        self.store(PACKETS, u64::from(packets) << (32 * side.index() as u32));
        self.store(BYTES + side.index(), u64::from(bytes));
        self.store(BYTES + side.other().index(), 0);
        for (place, word) in new.state.0.iter().enumerate() {
            self.store(WINDOWS + place, *word);
        }
        self.0[0].store(new.key.0[0], Ordering::Release);
        self.0[VERSION].store(version & !LOCKED | u64::from(new.epoch), Ordering::Release);
    }

    /// Writes to an entry that was never used, before anybody reads it: see [`super::slab::Slab::fill`].
    /// Both of its cache lines are near then, too, for the flow that comes next.
    pub(crate) fn claim(self) {
        self.store(0, 0);
        self.store(RULES, 0);
    }

    /// Empties an entry, once nobody is in the middle of changing it. The shard's lock is held.
    pub(crate) fn clear(self) {
        let version = (self.0[VERSION].load(Ordering::Relaxed) >> 32) as u32 & !1;
        let Some(_locked) = self.lock(version) else { return };
        self.store(0, 0);
        self.store(VERSION, (self.load(VERSION) >> 32 << 32).wrapping_add(REUSE));
    }

    /// Takes the entry's lock if it still is the use of it that was read, waiting for another worker's few
    /// instructions under the same lock.
    #[inline]
    pub(crate) fn lock(self, version: u32) -> Option<Locked<'a>> {
        loop {
            let current = self.0[VERSION].load(Ordering::Relaxed);
            if (current >> 32) as u32 & !1 != version {
                return None;
            }
            if current & LOCKED == 0
                && self.0[VERSION]
                    .compare_exchange_weak(current, current | LOCKED, Ordering::Acquire, Ordering::Relaxed)
                    .is_ok()
            {
                return Some(Locked(self));
            }
            core::hint::spin_loop();
        }
    }

    /// Notes that the flow was heard of.
    pub(crate) fn heard(self, now: u32) {
        self.store(TIME, self.load(TIME) >> 32 << 32 | u64::from(now));
    }

    /// Counts a packet of `side` (which may be several on the wire).
    #[inline(always)]
    pub(crate) fn count(self, side: Side, packets: u32, bytes: u32, now: u32) {
        let time = self.load(TIME);
        if time as u32 != now {
            self.store(TIME, time >> 32 << 32 | u64::from(now));
        }
        let shift = 32 * side.index() as u32;
        let counts = self.load(PACKETS);
        let own = ((counts >> shift) as u32).wrapping_add(packets);
        self.store(PACKETS, counts & !(0xffff_ffff << shift) | u64::from(own) << shift);
        let place = BYTES + side.index();
        self.store(place, self.load(place).wrapping_add(u64::from(bytes)));
    }

    #[inline(always)]
    pub(crate) fn last_seen(self) -> u32 {
        self.load(TIME) as u32
    }

    pub(crate) fn begun(self) -> u32 {
        (self.load(TIME) >> 32) as u32
    }

    /// By [`Side`].
    pub(crate) fn packets(self) -> [u32; 2] {
        let word = self.load(PACKETS);
        [word as u32, (word >> 32) as u32]
    }

    /// By [`Side`].
    pub(crate) fn bytes(self) -> [u64; 2] {
        [self.load(BYTES), self.load(BYTES + 1)]
    }

    /// Egress and ingress.
    pub(crate) fn rules(self) -> [Option<RuleId>; 2] {
        unpack_rules(self.load(RULES))
    }

    /// All words, with those of `key`, which the entry is the flow of.
    #[inline]
    pub(crate) fn words(self, key: &Key) -> [u64; ENTRY_WORDS] {
        let mut words = [0; ENTRY_WORDS];
        for (word, own) in words.iter_mut().zip(self.0) {
            *word = own.load(Ordering::Relaxed);
        }
        for (word, own) in words.iter_mut().zip(key.0) {
            *word = own;
        }
        words
    }

    fn set_rules(self, rules: [Option<RuleId>; 2]) {
        let [out, into] = rules.map(|rule| rule.map_or(0, |RuleId(id)| id.wrapping_add(1)));
        self.store(RULES, u64::from(into) << 32 | u64::from(out));
    }

    pub(crate) fn flags(self) -> Flags {
        Flags(self.load(STATE) as u32)
    }

    /// How far the flow is: right only with the lock held.
    #[inline]
    pub(crate) fn state(self) -> Words {
        let windows = [self.load(WINDOWS), self.load(WINDOWS + 1), self.load(WINDOWS + 2)];
        (windows, (self.load(STATE) >> 32) as u32)
    }
}

/// An entry whose lock is held.
#[derive(Debug)]
pub(crate) struct Locked<'a>(Entry<'a>);

impl Drop for Locked<'_> {
    #[inline]
    fn drop(&mut self) {
        let current = self.0.load(VERSION);
        self.0.0[VERSION].store(current & !LOCKED, Ordering::Release);
    }
}

impl Locked<'_> {
    /// How far the flow is.
    #[inline]
    pub(crate) fn state(&self) -> Words {
        self.0.state()
    }

    #[inline]
    pub(crate) fn set_state(&self, (words, state): Words) {
        for (place, word) in words.into_iter().enumerate() {
            self.0.store(WINDOWS + place, word);
        }
        self.0.store(STATE, u64::from(state) << 32 | u64::from(self.0.flags().0));
    }

    pub(crate) fn set_flags(&self, flags: Flags) {
        self.0.store(STATE, self.0.load(STATE) >> 32 << 32 | u64::from(flags.0));
    }

    /// Judged again: by which rules, under which epoch, towards which ports.
    pub(crate) fn rejudged(&self, epoch: u32, ports: [u32; 2], rules: [Option<RuleId>; 2], flags: Flags) {
        let entry = self.0;
        entry.store(PORTS, u64::from(ports[1]) << 32 | u64::from(ports[0]));
        entry.set_rules(rules);
        self.set_flags(flags);
        entry.0[VERSION].store(entry.load(VERSION) >> 32 << 32 | u64::from(epoch), Ordering::Release);
    }
}
