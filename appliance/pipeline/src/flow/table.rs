//! Every tracked flow of a host, shared by its workers.
//!
//! Finding a flow takes no lock. Making, ending and moving one takes the lock of its shard, one of 64. A shard keeps
//! its flows in lists: those that give way to others (of which only one side was heard so far, or that were revoked) by
//! their class, oldest first, and the others on a timer wheel by when they will have been silent for too long. Nothing is
//! moved when a packet passes: a flow that turns out to have been heard of since is put where it belongs then.
//!
//! A TCP connection that the policy forbids while it lasts has ended, but its entry stays, revoked: else its next segment
//! would be picked up as one of an unknown connection, perhaps begun by its other end, and judged as that.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use super::entry::{ENTRY_WORDS, Entry, Flags, New};
use super::index::{Index, MOST_ENTRIES, Place, SHARDS};
use super::key::Key;
use super::slab::Slab;
use super::state::State;
use super::{Ending, FlowRecord};
use crate::conntrack::tcp;
use crate::conntrack::timeouts::{Class, Timeouts};
use crate::{HashKey, Instant, RuleId};

/// Entries that a shard takes from the common stock at a time.
const CHUNK: u32 = 64;
/// Slots of a shard's timer wheel.
const WHEEL: u32 = 512;
/// A slot of the wheel is 1.024 s.
const TICK_SHIFT: u32 = 10;
/// A tick's bits: what is left of 32 bits of milliseconds.
const TICKS: u32 = u32::MAX >> TICK_SHIFT;
/// The first of the lists, one for each class, of flows that give way. Before them come the wheel's slots.
const GIVING_WAY: u32 = WHEEL;
/// The list of unused entries.
const FREE: u32 = WHEEL + Class::ALL.len() as u32;
const LISTS: usize = FREE as usize + 1;

/// How long a handshake may take before its place can be given to another of the same port: 1 s, the first
/// retransmission time of TCP (RFC 6298, section 2).
const HALF_OPEN_GRACE: i32 = 1000;
/// How many of a shard's oldest half-open flows of each class are looked at for one of the same port.
const LOOKED_AT: usize = 8;

/// How often a shard's lock is tried, with so many pauses in between, before it is slept for: some ten microseconds. Who holds
/// it needs it for a fraction of one, unless it is the first to touch new memory. To be woken takes longer than that.
const TRIES: usize = 64;
const PAUSES: usize = 8;

/// In how many shards besides a new flow's own one of the same port is looked for.
const OTHER_SHARDS: u32 = 4;

/// How many milliseconds `earlier` lies before `now`; negative when it does not, as clocks of two workers differ.
#[inline(always)]
fn since(now: u32, earlier: u32) -> i32 {
    now.wrapping_sub(earlier) as i32
}

/// How large a [`FlowTable`] is and how long it remembers.
#[derive(Clone, Copy, Debug)]
pub struct FlowTableConfig {
    /// Flows in all; at most 2^24 - 2.
    pub capacity: u32,
    /// Flows that one port may have begun.
    pub per_port: u32,
    /// Port slots: one more than the largest [`crate::PortConfig::slot`].
    pub slots: u32,
    /// 128 random bits: who does not know them cannot make flows collide.
    pub key: HashKey,
    /// How long a silent flow is remembered.
    pub timeouts: Timeouts,
    /// What may be set about TCP.
    pub tcp: tcp::Settings,
}

/// See the module.
#[derive(Debug)]
pub struct FlowTable {
    index: Index,
    entries: Slab<ENTRY_WORDS>,
    /// By entry: what only list keeping needs.
    cold: Slab<2>,
    shards: Box<[Apart<Mutex<Shard>>]>,
    /// Entries taken from the stock.
    taken: Apart<AtomicU32>,
    capacity: u32,
    /// By port slot: flows that it has begun.
    counts: Box<[Apart<AtomicU32>]>,
    per_port: u32,
    key: HashKey,
    /// By class: milliseconds.
    timeouts: [AtomicU32; Class::ALL.len()],
    pick_up: AtomicBool,
    /// Which shard is looked at next for silent flows.
    cursor: AtomicU32,
    /// Which shards are looked at next for a flow that gives way to another of its port.
    searched: AtomicU32,
}

/// In cache lines of its own: workers in different shards, or for different ports, do not write to the same line.
#[derive(Debug)]
#[repr(align(128))]
struct Apart<T>(T);

#[derive(Debug)]
struct Shard {
    lists: Box<[List]>,
    /// The tick up to which the wheel was turned, once it was.
    turned: Option<u32>,
}

/// A doubly linked list through the cold words; numbers are entry + 1, 0 is nothing.
#[derive(Clone, Copy, Debug, Default)]
struct List {
    first: u32,
    last: u32,
}

/// A flow cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// It was made meanwhile by somebody else.
    Exists,
    /// There is no room.
    NoRoom,
}

/// Half of what milliseconds can tell apart is the longest timeout: 24 days.
fn milliseconds(timeouts: &Timeouts, class: usize) -> u32 {
    let seconds = Class::ALL.get(class).map_or(0, |class| timeouts.of(*class));
    seconds.saturating_mul(1000).min(u32::MAX / 2)
}

impl FlowTable {
    /// An empty table. Its memory is reserved now and used as flows come.
    pub fn new(config: FlowTableConfig) -> Self {
        Self::with_index(config, |_| ())
    }

    /// The same, with `prepare` called for the index before it is used: whoever knows the system can tell it there how the
    /// memory is to be given. The index is written to as a whole here, before any worker needs it.
    pub fn with_index(config: FlowTableConfig, prepare: impl Fn(&[AtomicU64])) -> Self {
        let capacity = config.capacity.clamp(CHUNK * SHARDS as u32, MOST_ENTRIES as u32);
        let entries = capacity as usize;
        let shard = || Shard { lists: vec![List::default(); LISTS].into_boxed_slice(), turned: None };
        let this = Self {
            index: Index::new(entries, prepare),
            entries: Slab::new(entries),
            cold: Slab::new(entries),
            shards: (0..SHARDS).map(|_| Apart(Mutex::new(shard()))).collect(),
            taken: Apart(AtomicU32::new(0)),
            capacity,
            counts: (0..config.slots.max(1)).map(|_| Apart(AtomicU32::new(0))).collect(),
            per_port: config.per_port,
            key: config.key,
            timeouts: [const { AtomicU32::new(0) }; Class::ALL.len()],
            pick_up: AtomicBool::new(false),
            cursor: AtomicU32::new(0),
            searched: AtomicU32::new(0),
        };
        this.configure(&config.timeouts, &config.tcp);
        this
    }

    /// Other timeouts and settings, from now on.
    pub fn configure(&self, timeouts: &Timeouts, tcp: &tcp::Settings) {
        for (class, timeout) in self.timeouts.iter().enumerate() {
            timeout.store(milliseconds(timeouts, class), Ordering::Relaxed);
        }
        self.pick_up.store(tcp.pick_up, Ordering::Relaxed);
    }

    /// Flows tracked now, those that workers are just making or ending counted or not. Takes no lock.
    pub fn len(&self) -> usize {
        // Each is counted for the port that began it.
        self.counts.iter().map(|Apart(count)| count.load(Ordering::Relaxed) as usize).sum()
    }

    /// Whether nothing is tracked.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The most flows there can be.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// The most flows that one port may have begun.
    pub fn per_port(&self) -> u32 {
        self.per_port
    }

    /// Flows that the port with this slot has begun.
    pub fn of_port(&self, slot: u32) -> u32 {
        self.counts.get(slot as usize).map_or(0, |Apart(count)| count.load(Ordering::Relaxed))
    }

    /// Shows every flow to `see`. Takes no lock: a flow that changes meanwhile is seen before or after, one that ends
    /// may be left out.
    pub fn for_each(&self, now: Instant, mut see: impl FnMut(&FlowRecord)) {
        for number in 0..self.taken.0.load(Ordering::Relaxed).min(self.capacity) {
            let Some(entry) = self.entry(number).filter(|entry| !entry.is_free()) else { continue };
            let key = entry.key();
            let Some(seen) = entry.read(&key).filter(|seen| !seen.flags.is_revoked()) else { continue };
            let record = self.record(entry, &key, now);
            // Not a part of the entry's next flow.
            if entry.version() == seen.version {
                see(&record);
            }
        }
    }

    /// Shows to `see` of every flow the rules that admitted it, its packets and its bytes, both directions together: what
    /// rules are billed for, without the rest of a [`FlowRecord`]. As with [`Self::for_each`].
    pub fn for_each_sum(&self, mut see: impl FnMut([Option<RuleId>; 2], u64, u64)) {
        for number in 0..self.taken.0.load(Ordering::Relaxed).min(self.capacity) {
            let Some(entry) = self.entry(number) else { return };
            let before = entry.version();
            if entry.is_free() || entry.flags().is_revoked() {
                continue;
            }
            let (rules, packets, bytes) = (entry.rules(), entry.packets(), entry.bytes());
            // Not a part of the entry's next flow.
            if entry.version() == before {
                see(rules, packets.into_iter().map(u64::from).sum(), bytes.into_iter().sum());
            }
        }
    }

    /// Ends flows that were silent for too long, looking at no more than `budget`; `ended` is told of each. To be called
    /// often: each call turns one shard's wheel.
    pub fn expire(&self, now: Instant, budget: usize, mut ended: impl FnMut(&FlowRecord, Ending)) {
        let shard = self.cursor.fetch_add(1, Ordering::Relaxed) as usize % SHARDS;
        let mut guard = self.lock(shard);
        let mut left = budget;
        for list in GIVING_WAY..FREE {
            self.expire_list(&mut guard, list, now, &mut left, &mut ended);
        }
        self.turn(&mut guard, now, &mut left, &mut ended);
    }

    /// Ends every flow that the port with this slot has begun, because the port is no more; `ended` is told of each. Looks at
    /// every flow there is.
    pub fn forget(&self, slot: u32, now: Instant, mut ended: impl FnMut(&FlowRecord, Ending)) {
        for number in 0..self.taken.0.load(Ordering::Relaxed).min(self.capacity) {
            let Some(entry) = self.entry(number) else { return };
            if entry.is_free() || self.owner(number) != slot {
                continue;
            }
            let shard_of = |entry: Entry<'_>| self.index.shard(self.place(&entry.key()));
            let number_of_shard = shard_of(entry);
            let mut shard = self.lock(number_of_shard);
            // What was read without the lock may have been half of a flow: an entry serves one shard for ever.
            let same = !entry.is_free() && shard_of(entry) == number_of_shard;
            if same && self.owner(number) == slot {
                self.end(&mut shard, number, now, Ending::Revoked, &mut ended);
            }
        }
    }

    #[inline(always)]
    pub(crate) fn place(&self, key: &Key) -> Place {
        self.index.place(key.hash(self.key))
    }

    #[inline(always)]
    pub(crate) fn touch(&self, place: Place) -> u64 {
        self.index.touch(place)
    }

    #[inline(always)]
    pub(crate) fn find(&self, place: Place) -> Option<u32> {
        self.index.find(place)
    }

    #[inline(always)]
    pub(crate) fn entry(&self, number: u32) -> Option<Entry<'_>> {
        self.entries.get(number).map(Entry)
    }

    /// Whether a flow was silent for longer than its class may be.
    #[inline(always)]
    pub(crate) fn is_silent(&self, entry: Entry<'_>, flags: Flags, now: u32) -> bool {
        since(now, entry.last_seen()) > self.timeout(flags) as i32
    }

    /// What may be set about TCP.
    pub(crate) fn tcp(&self) -> tcp::Settings {
        tcp::Settings { pick_up: self.pick_up.load(Ordering::Relaxed) }
    }

    #[inline(always)]
    fn timeout(&self, flags: Flags) -> u32 {
        self.timeouts.get(flags.class()).map_or(0, |timeout| timeout.load(Ordering::Relaxed))
    }

    /// Makes a flow. Its entry's number; `ended` is told of a flow whose place it takes.
    pub(crate) fn insert(
        &self,
        place: Place,
        new: &New,
        slot: u32,
        now: Instant,
        mut ended: impl FnMut(&FlowRecord, Ending),
    ) -> Result<u32, Refused> {
        let Apart(count) = self.counts.get(slot as usize).ok_or(Refused::NoRoom)?;
        // Several workers at once may go beyond the limit by one each.
        if count.load(Ordering::Relaxed) >= self.per_port && !self.evict_of(place, slot, now, &mut ended) {
            return Err(Refused::NoRoom);
        }
        let mut guard = self.lock(self.index.shard(place));
        let shard = &mut *guard;
        if self
            .find(place)
            .and_then(|number| self.entry(number))
            .is_some_and(|entry| entry.read(&new.key).is_some())
        {
            return Err(Refused::Exists);
        }
        let number = match self.unused(shard) {
            Some(number) => number,
            None => {
                let oldest = self.oldest_giving_way(shard, new.now).ok_or(Refused::NoRoom)?;
                self.end(shard, oldest, now, Ending::Evicted, &mut ended);
                self.unused(shard).ok_or(Refused::NoRoom)?
            }
        };
        let entry = self.entry(number).ok_or(Refused::NoRoom)?;
        // Counted before the entry is written to: a locked instruction waits until what was written has reached the cache.
        count.fetch_add(1, Ordering::Relaxed);
        entry.fill(new);
        while !self.index.add(place, number) {
            let gives_way = |other: &u32| (GIVING_WAY..FREE).contains(&self.list_of(*other));
            let neighbour = self.index.neighbours(place).find(gives_way);
            let Some(neighbour) = neighbour else {
                count.fetch_sub(1, Ordering::Relaxed);
                entry.clear();
                self.push(shard, FREE, number);
                return Err(Refused::NoRoom);
            };
            self.end(shard, neighbour, now, Ending::Evicted, &mut ended);
        }
        let list = self.list_for(new.flags, 0, new.now);
        self.push_of(shard, list, number, slot);
        Ok(number)
    }

    /// Moves a flow to where its class belongs now. Nothing happens when it is not the same use of the entry any more.
    pub(crate) fn reclass(&self, place: Place, number: u32, version: u32, now: u32) {
        let mut shard = self.lock(self.index.shard(place));
        let Some(entry) = self.entry(number).filter(|entry| entry.version() == version) else { return };
        if !entry.is_free() {
            self.move_to_list(&mut shard, number, now);
        }
    }

    /// Ends a flow, if it is the same use of the entry still.
    pub(crate) fn remove(
        &self,
        place: Place,
        number: u32,
        version: u32,
        now: Instant,
        why: Ending,
        mut ended: impl FnMut(&FlowRecord, Ending),
    ) {
        let mut shard = self.lock(self.index.shard(place));
        if self.entry(number).is_some_and(|entry| entry.version() == version && !entry.is_free()) {
            self.end(&mut shard, number, now, why, &mut ended);
        }
    }

    /// Ends a flow that the policy forbids, and remembers it.
    pub(crate) fn revoke(
        &self,
        place: Place,
        number: u32,
        version: u32,
        now: Instant,
        mut ended: impl FnMut(&FlowRecord, Ending),
    ) {
        let mut shard = self.lock(self.index.shard(place));
        let Some(entry) = self.mark(number, version, true) else { return };
        entry.heard(now.as_millis());
        ended(&self.record(entry, &entry.key(), now), Ending::Revoked);
        self.move_to_list(&mut shard, number, now.as_millis());
        self.count_for(number, false);
    }

    /// Lets a flow that was revoked live again. False when it is not the same use of the entry any more.
    pub(crate) fn restore(&self, place: Place, number: u32, version: u32, now: u32) -> bool {
        let mut shard = self.lock(self.index.shard(place));
        if self.mark(number, version, false).is_none() {
            return false;
        }
        self.move_to_list(&mut shard, number, now);
        self.count_for(number, true);
        true
    }

    /// What a flow's entry says.
    pub(crate) fn record(&self, entry: Entry<'_>, key: &Key, now: Instant) -> FlowRecord {
        FlowRecord::of(entry, key, now)
    }

    /// Marks an entry as revoked, or not any more. `None` when it is so already, or another use of the entry.
    fn mark(&self, number: u32, version: u32, revoked: bool) -> Option<Entry<'_>> {
        let entry = self.entry(number).filter(|entry| !entry.is_free())?;
        let locked = entry.lock(version)?;
        let flags = entry.flags();
        if flags.is_revoked() == revoked {
            return None;
        }
        locked.set_flags(flags.with_revoked(revoked));
        Some(entry)
    }

    fn move_to_list(&self, shard: &mut Shard, number: u32, now: u32) {
        let Some(entry) = self.entry(number) else { return };
        self.unlink(shard, number);
        self.push(shard, self.list_for(entry.flags(), 0, now), number);
    }

    /// One flow more, or less, of the port that began it.
    fn count_for(&self, number: u32, more: bool) {
        match self.counts.get(self.owner(number) as usize) {
            Some(Apart(count)) if more => count.fetch_add(1, Ordering::Relaxed),
            Some(Apart(count)) => count.fetch_sub(1, Ordering::Relaxed),
            None => 0,
        };
    }

    /// Ends the flows of one class that give way and were silent for too long.
    fn expire_list(
        &self,
        shard: &mut Shard,
        list: u32,
        now: Instant,
        left: &mut usize,
        ended: &mut impl FnMut(&FlowRecord, Ending),
    ) {
        let at = now.as_millis();
        let last = shard.lists[list as usize].last;
        while *left > 0 {
            let Some(number) = shard.lists[list as usize].first.checked_sub(1) else { return };
            let Some(entry) = self.entry(number) else { return };
            let flags = entry.flags();
            if self.is_silent(entry, flags, at) {
                self.end(shard, number, now, Ending::TimedOut, ended);
            } else if since(at, entry.begun()) > self.timeout(flags) as i32 {
                // Its one side goes on talking: it queues again, so that those behind it are looked at.
                self.unlink(shard, number);
                self.push(shard, self.list_for(flags, 0, at), number);
            } else {
                return;
            }
            *left -= 1;
            if number + 1 == last {
                return;
            }
        }
    }

    /// Turns the wheel up to now, or as far as the budget goes.
    fn turn(
        &self,
        shard: &mut Shard,
        now: Instant,
        left: &mut usize,
        ended: &mut impl FnMut(&FlowRecord, Ending),
    ) {
        let at = now.as_millis();
        let tick = at >> TICK_SHIFT;
        let mut turned = shard.turned.unwrap_or_else(|| tick.wrapping_sub(WHEEL) & TICKS);
        match tick.wrapping_sub(turned) & TICKS {
            // Another worker's clock was ahead.
            ahead if ahead > TICKS / 2 => return,
            // After a pause longer than the wheel, each slot once is enough.
            ahead if ahead > WHEEL => turned = tick.wrapping_sub(WHEEL) & TICKS,
            _ => {}
        }
        shard.turned = Some(turned);
        while turned != tick {
            let slot = turned.wrapping_add(1) % WHEEL;
            // What belongs in this very slot again, a turn later, ends the round too: the first that comes round twice.
            let last = shard.lists[slot as usize].last;
            while *left > 0 {
                let Some(number) = shard.lists[slot as usize].first.checked_sub(1) else { break };
                let Some(entry) = self.entry(number) else { break };
                *left -= 1;
                if self.is_silent(entry, entry.flags(), at) {
                    self.end(shard, number, now, Ending::TimedOut, ended);
                } else {
                    self.unlink(shard, number);
                    let silent = since(at, entry.last_seen()).max(0) as u32;
                    self.push(shard, self.list_for(entry.flags(), silent, at), number);
                }
                if number + 1 == last {
                    break;
                }
            }
            if *left == 0 {
                return;
            }
            turned = turned.wrapping_add(1) & TICKS;
            shard.turned = Some(turned);
        }
    }

    /// The list of a flow of this class that has been silent for so many milliseconds.
    fn list_for(&self, flags: Flags, silent: u32, now: u32) -> u32 {
        if flags.gives_way() {
            return (GIVING_WAY + flags.class() as u32).min(FREE - 1);
        }
        // One tick late rather than one early; what lies beyond the wheel comes round again.
        let ahead = (self.timeout(flags).saturating_sub(silent) >> TICK_SHIFT) + 1;
        ((now >> TICK_SHIFT) + ahead.min(WHEEL - 1)) % WHEEL
    }

    /// Ends a half-open flow of the port that had its time. Looked for in the place's shard and in a few others in turn.
    fn evict_of(
        &self,
        place: Place,
        slot: u32,
        now: Instant,
        ended: &mut impl FnMut(&FlowRecord, Ending),
    ) -> bool {
        let turn = self.searched.fetch_add(OTHER_SHARDS, Ordering::Relaxed);
        let others = (0..OTHER_SHARDS).map(|number| turn.wrapping_add(number) as usize % SHARDS);
        for shard in core::iter::once(self.index.shard(place)).chain(others) {
            let mut shard = self.lock(shard);
            if let Some(own) = self.half_open_of(&shard, slot, now.as_millis()) {
                self.end(&mut shard, own, now, Ending::Evicted, ended);
                return true;
            }
        }
        false
    }

    /// A half-open flow of the port that had its time.
    fn half_open_of(&self, shard: &Shard, slot: u32, now: u32) -> Option<u32> {
        for list in GIVING_WAY..FREE {
            let mut next = shard.lists[list as usize].first;
            for _ in 0..LOOKED_AT {
                let Some(number) = next.checked_sub(1) else { break };
                let entry = self.entry(number)?;
                if since(now, entry.begun()) <= HALF_OPEN_GRACE {
                    // Those behind it began later.
                    break;
                }
                if self.owner(number) == slot && !entry.flags().is_revoked() {
                    return Some(number);
                }
                next = self.links(number).1;
            }
        }
        None
    }

    /// Of those that give way, the one that began first.
    fn oldest_giving_way(&self, shard: &Shard, now: u32) -> Option<u32> {
        (GIVING_WAY..FREE)
            .filter_map(|list| shard.lists[list as usize].first.checked_sub(1))
            .max_by_key(|number| self.entry(*number).map(|entry| since(now, entry.begun())))
    }

    /// An entry that nobody uses, from the shard's own or from the stock.
    fn unused(&self, shard: &mut Shard) -> Option<u32> {
        if shard.lists[FREE as usize].first == 0 {
            let first = self.taken.0.fetch_add(CHUNK, Ordering::Relaxed);
            if first >= self.capacity {
                // Given back, so that the count cannot run over.
                self.taken.0.fetch_sub(CHUNK, Ordering::Relaxed);
                return None;
            }
            for number in first..(first + CHUNK).min(self.capacity) {
                if let Some(entry) = self.entry(number) {
                    entry.claim();
                }
                self.push(shard, FREE, number);
            }
        }
        // What was freed last is near.
        let number = shard.lists[FREE as usize].last.checked_sub(1)?;
        self.unlink(shard, number);
        Some(number)
    }

    fn end(
        &self,
        shard: &mut Shard,
        number: u32,
        now: Instant,
        why: Ending,
        ended: &mut impl FnMut(&FlowRecord, Ending),
    ) {
        let Some(entry) = self.entry(number) else { return };
        let key = entry.key();
        let revoked = entry.flags().is_revoked();
        let over = State::from_words(key.protocol(), entry.state()).is_over();
        let why = if over && why == Ending::TimedOut { Ending::Closed } else { why };
        // Of what was revoked the end was told.
        if !revoked {
            ended(&self.record(entry, &key, now), why);
        }
        self.index.remove(self.place(&key), number);
        entry.clear();
        self.unlink(shard, number);
        self.push(shard, FREE, number);
        if !revoked {
            self.count_for(number, false);
        }
    }

    fn lock(&self, shard: usize) -> MutexGuard<'_, Shard> {
        let Apart(shard) = &self.shards[shard % SHARDS];
        for _ in 0..TRIES {
            match shard.try_lock() {
                Ok(guard) => return guard,
                // A panic in a worker ends the process, so a poisoned lock is only met while it goes down.
                Err(TryLockError::Poisoned(error)) => return error.into_inner(),
                Err(TryLockError::WouldBlock) => (0..PAUSES).for_each(|_| core::hint::spin_loop()),
            }
        }
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // Cold word 0: previous u32 | next u32. Word 1: list u32 | owner u32. Only touched with the shard's lock held.

    fn links(&self, number: u32) -> (u32, u32) {
        let word = self.cold.get(number).map_or(0, |cold| cold[0].load(Ordering::Relaxed));
        ((word >> 32) as u32, word as u32)
    }

    #[inline]
    fn set_next(&self, number: u32, next: u32) {
        if let Some([links, _]) = self.cold.get(number) {
            let word = links.load(Ordering::Relaxed);
            links.store(word >> 32 << 32 | u64::from(next), Ordering::Relaxed);
        }
    }

    #[inline]
    fn set_previous(&self, number: u32, previous: u32) {
        if let Some([links, _]) = self.cold.get(number) {
            let word = links.load(Ordering::Relaxed);
            links.store(u64::from(previous) << 32 | word & 0xffff_ffff, Ordering::Relaxed);
        }
    }

    fn list_of(&self, number: u32) -> u32 {
        self.cold.get(number).map_or(FREE, |cold| (cold[1].load(Ordering::Relaxed) >> 32) as u32)
    }

    fn owner(&self, number: u32) -> u32 {
        self.cold.get(number).map_or(0, |cold| cold[1].load(Ordering::Relaxed) as u32)
    }

    /// Adds an entry that is in no list to the end of one.
    fn push(&self, shard: &mut Shard, list: u32, number: u32) {
        self.push_of(shard, list, number, self.owner(number));
    }

    /// The same for a flow that the port with the slot `owner` has begun.
    #[inline]
    fn push_of(&self, shard: &mut Shard, list: u32, number: u32, owner: u32) {
        let (Some(cold), Some(list_of)) = (self.cold.get(number), shard.lists.get_mut(list as usize)) else {
            return;
        };
        let last = core::mem::replace(&mut list_of.last, number + 1);
        cold[0].store(u64::from(last) << 32, Ordering::Relaxed);
        cold[1].store(u64::from(list) << 32 | u64::from(owner), Ordering::Relaxed);
        match last.checked_sub(1) {
            Some(before) => self.set_next(before, number + 1),
            None => list_of.first = number + 1,
        }
    }

    /// Takes an entry out of the list that it is in.
    #[inline]
    fn unlink(&self, shard: &mut Shard, number: u32) {
        let Some(list) = shard.lists.get_mut(self.list_of(number) as usize) else { return };
        let (previous, next) = self.links(number);
        match previous.checked_sub(1) {
            Some(before) => self.set_next(before, next),
            None => list.first = next,
        }
        match next.checked_sub(1) {
            Some(after) => self.set_previous(after, previous),
            None => list.last = previous,
        }
    }
}
