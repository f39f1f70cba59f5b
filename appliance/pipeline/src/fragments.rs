//! Virtual reassembly: what is decided for a packet's first fragment holds for the others, in whatever order they come.
//!
//! Only the first fragment has ports, so the others wait for it. Nothing is put together: fragments go on one by one,
//! as they are, and what is remembered of a packet are the ranges that have come. The frames of fragments that wait are
//! the caller's to keep, in slots that are numbered here.
//!
//! A fragment that overlaps what came before ends its packet: of that, the receiver gets nothing any more. Hosts differ
//! in which copy of a byte they believe (RFC 5722), so that a header that was judged could be replaced behind our back.
//! Exact duplicates are no exception, though RFC 8200 (section 4.5) would allow one: the earlier copy has gone on or
//! lies in the sender's memory, so nobody can tell whether the bytes are the same. Networks that duplicate lie behind
//! the senders that are judged here, not before them.

mod packet;

use self::packet::{Packet, Progress};
use crate::{DropReason, Instant};

/// The most slots that fragments may wait in.
pub const MAX_HELD: usize = 64;

/// No slot.
const NONE: u8 = u8::MAX;

/// What a port may have under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentLimits {
    /// Packets of which fragments have come and others are missing.
    pub packets: u16,
    /// Fragments of one packet. Its default is what Ethernet needs for the largest packet (65535 bytes in pieces of
    /// 1480), and some.
    pub pieces: u8,
    /// Fragments that wait for the first of their packet: at most [`MAX_HELD`].
    pub held: u8,
    /// Nanoseconds from a packet's first arrived fragment to its last. RFC 8200 (section 4.5) gives receivers
    /// 60 seconds; Linux, and this by default, 30.
    pub timeout_nanos: u64,
}

impl FragmentLimits {
    /// What is meant for a port.
    pub const DEFAULT: Self =
        Self { packets: 64, pieces: 64, held: MAX_HELD as u8, timeout_nanos: 30_000_000_000 };
}

impl Default for FragmentLimits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// What the fragments of one packet share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FragmentKey {
    source: u128,
    destination: u128,
    id: u32,
    protocol: u8,
    v6: bool,
}

impl FragmentKey {
    /// Of IPv4 (RFC 791).
    #[inline]
    pub const fn v4(source: u32, destination: u32, protocol: u8, id: u16) -> Self {
        Self { source: source as u128, destination: destination as u128, id: id as u32, protocol, v6: false }
    }

    /// Of IPv6. The protocol is not part of it: only the first fragment's counts (RFC 8200, section 4.5), so that two
    /// first fragments that differ in it are one packet's.
    #[inline]
    pub const fn v6(source: u128, destination: u128, id: u32) -> Self {
        Self { source, destination, id, protocol: 0, v6: true }
    }
}

/// A fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentInfo {
    /// Which packet it belongs to.
    pub key: FragmentKey,
    /// Where its data lies in the packet's, in bytes: a multiple of 8. The fragment at 0 is the first.
    pub offset: u16,
    /// Bytes of its data.
    pub len: u16,
    /// Whether others lie behind it.
    pub more: bool,
}

/// What becomes of a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FragmentVerdict {
    /// It is the whole packet, though it has a fragment's header: to be judged alone. There is nothing to settle.
    Whole,
    /// The first of its packet: to be judged by its headers, and then told with [`Fragments::settle`]. Until that is
    /// done, the packet's other fragments wait.
    First,
    /// As the first, of which [`Fragments::settle`] told this.
    Follow(u32),
    /// It waits for the first. The caller keeps its frame in the slot of this number.
    Hold(u8),
    /// Nowhere, and with it, for the same reason, the frames that waited in these slots.
    Drop(DropReason, Held),
}

/// Slots, in the order in which their fragments came. Each is the caller's until it is given back with
/// [`Fragments::free`], so that what lies in it can be taken out at leisure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    slots: [u8; MAX_HELD],
    next: u8,
    end: u8,
}

impl Held {
    const EMPTY: Self = Self { slots: [NONE; MAX_HELD], next: 0, end: 0 };

    fn push(&mut self, slot: u8) {
        if let Some(place) = self.slots.get_mut(usize::from(self.end)) {
            *place = slot;
            self.end += 1;
        }
    }
}

impl Iterator for Held {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        let slot = *self.slots.get(usize::from(self.next)).filter(|_| self.next < self.end)?;
        self.next += 1;
        Some(slot)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = usize::from(self.end - self.next);
        (left, Some(left))
    }
}

impl ExactSizeIterator for Held {}

/// The fragmented packets that a port has under way.
///
/// Most ports never fragment: the table is allocated, once and as large as it may become, with the first fragment. It is
/// searched from end to end, so that nobody can make two packets share a place.
#[derive(Debug, Default)]
pub struct Fragments {
    limits: FragmentLimits,
    table: Option<Box<Table>>,
}

#[derive(Debug)]
struct Table {
    /// Of each packet its id, so that a search reads little.
    ids: Box<[u32]>,
    packets: Box<[Packet]>,
    /// Of each slot the next, of the fragments that wait for the same first.
    next: [u8; MAX_HELD],
    /// Slots in use, one bit each.
    taken: u64,
    /// Slots there are.
    slots: u8,
    /// No packet's time is over before this.
    earliest: Instant,
}

impl Fragments {
    /// Room for what `limits` allow, and nothing in it.
    pub const fn new(limits: FragmentLimits) -> Self {
        Self { limits, table: None }
    }

    /// Takes note of a fragment and says what becomes of it.
    ///
    /// Its own drop reasons are [`DropReason::FragmentOverlap`] and [`DropReason::FragmentLimit`]. After either, the rest
    /// of the packet is dropped for the same reason until the packet's time is over.
    pub fn admit(&mut self, now: Instant, info: &FragmentInfo) -> FragmentVerdict {
        let end = u32::from(info.offset) + u32::from(info.len);
        let Some(end) = u16::try_from(end).ok().filter(|end| *end > info.offset) else {
            let malformed = if info.key.v6 { DropReason::MalformedIpv6 } else { DropReason::MalformedIpv4 };
            return FragmentVerdict::Drop(malformed, Held::EMPTY);
        };
        if info.offset == 0 && !info.more {
            // RFC 6946: whatever others of the same id there are.
            return FragmentVerdict::Whole;
        }
        let limits = self.limits;
        let table = self.table.get_or_insert_with(|| Box::new(Table::new(&limits)));
        let Some(number) = table.find_or_begin(now, &info.key, &limits) else {
            return FragmentVerdict::Drop(DropReason::FragmentLimit, Held::EMPTY);
        };
        table.admit(number, info, end, &limits)
    }

    /// Tells what was decided for a packet's first fragment, in a number of the caller's choice: the packet's later
    /// fragments are told to follow it. Those that wait are released; they follow it too.
    ///
    /// Of a packet that is not known, or whose verdict was told before, nothing waits.
    pub fn settle(&mut self, key: &FragmentKey, verdict: u32) -> Held {
        let Some(table) = &mut self.table else { return Held::EMPTY };
        let Some(number) = table.find(key) else { return Held::EMPTY };
        let Some(packet) = table.packets.get_mut(number) else { return Held::EMPTY };
        if packet.progress != Progress::Judging {
            return Held::EMPTY;
        }
        packet.progress = Progress::Settled(verdict);
        let held = table.release(number);
        table.forget_if_complete(number);
        held
    }

    /// Gives a slot back that [`FragmentVerdict::Hold`] named and that is no packet's any more.
    pub fn free(&mut self, slot: u8) {
        if let Some(table) = &mut self.table {
            table.taken &= !1_u64.checked_shl(u32::from(slot)).unwrap_or(0);
        }
    }

    /// Forgets the packets whose time is over. Returns the slots in which fragments waited for a first that did not
    /// come: their drop reason is [`DropReason::FragmentTimeout`]. Costs next to nothing when there are none.
    pub fn expire(&mut self, now: Instant) -> Held {
        let mut held = Held::EMPTY;
        let Some(table) = self.table.as_mut().filter(|table| table.earliest <= now) else { return held };
        let mut earliest = Instant::from_nanos(u64::MAX);
        for number in 0..table.packets.len() {
            match table.packets.get(number) {
                Some(packet) if packet.is_free() => {}
                Some(packet) if packet.deadline > now => earliest = earliest.min(packet.deadline),
                _ => {
                    table.release(number).for_each(|slot| held.push(slot));
                    table.forget(number);
                }
            }
        }
        table.earliest = earliest;
        held
    }

    /// How many packets are under way: refused ones whose time is not over included.
    pub fn len(&self) -> usize {
        self.table.as_ref().map_or(0, |table| table.packets.iter().filter(|packet| !packet.is_free()).count())
    }

    /// Whether nothing is under way.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Table {
    fn new(limits: &FragmentLimits) -> Self {
        let packets = usize::from(limits.packets);
        Self {
            ids: (0..packets).map(|_| 0).collect(),
            packets: (0..packets).map(|_| Packet::FREE).collect(),
            next: [NONE; MAX_HELD],
            taken: 0,
            slots: limits.held.min(MAX_HELD as u8),
            earliest: Instant::from_nanos(u64::MAX),
        }
    }

    fn find(&self, key: &FragmentKey) -> Option<usize> {
        let mut both = self.ids.iter().zip(&*self.packets);
        both.position(|(id, packet)| *id == key.id && !packet.is_free() && packet.key == *key)
    }

    /// The place of a packet, a new one if need be. What waits for a packet whose time is over keeps its place until
    /// [`Fragments::expire`] reports it.
    fn find_or_begin(&mut self, now: Instant, key: &FragmentKey, limits: &FragmentLimits) -> Option<usize> {
        let found = self.find(key);
        let over = |packet: &Packet| packet.is_free() || (packet.deadline <= now && packet.oldest == NONE);
        match found {
            Some(number) if !self.packets.get(number).is_some_and(over) => return found,
            _ => {}
        }
        let number = found.or_else(|| self.packets.iter().position(over))?;
        let deadline = Instant::from_nanos(now.as_nanos().saturating_add(limits.timeout_nanos));
        *self.packets.get_mut(number)? = Packet::new(*key, deadline);
        *self.ids.get_mut(number)? = key.id;
        self.earliest = self.earliest.min(deadline);
        Some(number)
    }

    fn admit(
        &mut self,
        number: usize,
        info: &FragmentInfo,
        end: u16,
        limits: &FragmentLimits,
    ) -> FragmentVerdict {
        let Some(packet) = self.packets.get_mut(number) else {
            return FragmentVerdict::Drop(DropReason::FragmentLimit, Held::EMPTY);
        };
        if let Progress::Refused(reason) = packet.progress {
            return FragmentVerdict::Drop(reason, Held::EMPTY);
        }
        if let Err(reason) = packet.cover(info.offset, end, info.more, limits.pieces) {
            return self.refuse(number, reason);
        }
        match packet.progress {
            // `cover` has refused a second one.
            _ if info.offset == 0 => {
                packet.progress = Progress::Judging;
                FragmentVerdict::First
            }
            Progress::Settled(verdict) => {
                self.forget_if_complete(number);
                FragmentVerdict::Follow(verdict)
            }
            Progress::Free | Progress::Waiting | Progress::Judging | Progress::Refused(_) => {
                match self.hold(number) {
                    Some(slot) => FragmentVerdict::Hold(slot),
                    // Without this fragment the others are of no use.
                    None => self.refuse(number, DropReason::FragmentLimit),
                }
            }
        }
    }

    /// Drops a packet: what waits now, and what will come.
    fn refuse(&mut self, number: usize, reason: DropReason) -> FragmentVerdict {
        let held = self.release(number);
        if let Some(packet) = self.packets.get_mut(number) {
            packet.progress = Progress::Refused(reason);
        }
        FragmentVerdict::Drop(reason, held)
    }

    /// Takes a free slot for a fragment of a packet.
    fn hold(&mut self, number: usize) -> Option<u8> {
        let slot = self.taken.trailing_ones() as u8;
        if slot >= self.slots {
            return None;
        }
        let packet = self.packets.get_mut(number)?;
        self.taken |= 1 << slot;
        match self.next.get_mut(usize::from(packet.newest)) {
            Some(next) => *next = slot,
            None => packet.oldest = slot,
        }
        packet.newest = slot;
        Some(slot)
    }

    /// The slots of a packet are its no more.
    fn release(&mut self, number: usize) -> Held {
        let mut held = Held::EMPTY;
        let Some(packet) = self.packets.get_mut(number) else { return held };
        packet.newest = NONE;
        let mut slot = core::mem::replace(&mut packet.oldest, NONE);
        while let Some(next) = self.next.get_mut(usize::from(slot)) {
            held.push(slot);
            slot = core::mem::replace(next, NONE);
        }
        held
    }

    fn forget_if_complete(&mut self, number: usize) {
        if self.packets.get(number).is_some_and(Packet::is_complete) {
            self.forget(number);
        }
    }

    fn forget(&mut self, number: usize) {
        if let Some(packet) = self.packets.get_mut(number) {
            *packet = Packet::FREE;
        }
    }
}

const _: () = assert!(size_of::<Fragments>() < 64, "a port that never fragments pays next to nothing");
