//! One split virtqueue, read and written in place.
//!
//! ```text
//! descriptor table   16 bytes each: address u64, length u32, flags u16, next u16       (driver writes)
//! available ring     flags u16, idx u16, head u16 x size, used_event u16               (driver writes)
//! used ring          flags u16, idx u16, {head u32, length u32} x size, avail_event u16  (we write)
//! ```
//!
//! The driver may change any of it at any time. Every word is read once per use, as a volatile or atomic access, and
//! checked after it was read.

#![expect(unsafe_code, reason = "rings are only reachable through raw pointers")]

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering, fence};

use super::RingFault;
use super::rx::Ahead;
use crate::frame::MAX_PIECES;
use crate::memory::{Mapping, PoisonWatch};

/// Descriptor flags (virtio 1.2, 2.7.5).
pub(super) const NEXT: u16 = 1;
pub(super) const WRITE: u16 = 2;
pub(super) const INDIRECT: u16 = 4;
/// `flags` of the available ring: the driver wants no interrupt.
const NO_INTERRUPT: u16 = 1;
/// `flags` of the used ring: we want no kick.
const NO_NOTIFY: u16 = 1;
const DESCRIPTOR: u32 = 16;

/// Where a ring lies and how it was negotiated.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    /// Entries, a power of two up to 32768.
    pub(crate) size: u16,
    /// Guest addresses.
    pub(crate) descriptors: u64,
    pub(crate) available: u64,
    pub(crate) used: u64,
    pub(crate) next_avail: u16,
    pub(crate) next_used: u16,
    /// VIRTIO_F_EVENT_IDX
    pub(crate) event_idx: bool,
    /// VIRTIO_F_INDIRECT_DESC
    pub(crate) indirect: bool,
    /// VIRTIO_NET_F_MRG_RXBUF
    pub(crate) mergeable: bool,
    /// Bytes of virtio-net header before each frame: 12, or 10 for a legacy driver without mergeable buffers.
    pub(crate) header: usize,
    /// VHOST_F_LOG_ALL: a live migration runs, every page written is to be marked.
    pub(crate) log: bool,
    /// Some `VIRTIO_NET_F_CSUM` or `_HOST_*`: what the driver sends may ask for something in its header.
    pub(crate) offloads: bool,
}

/// A descriptor, copied.
#[derive(Clone, Copy, Default)]
pub(super) struct Descriptor {
    pub(super) gpa: u64,
    pub(super) len: u32,
    pub(super) flags: u16,
    pub(super) next: u16,
}

/// Part of a buffer that is contiguous in our address space.
#[derive(Clone, Copy)]
pub(super) struct Span {
    pub(super) ptr: *mut u8,
    pub(super) len: u32,
    pub(super) gpa: u64,
}

/// A running ring, owned by whoever holds its slot's lock.
pub(crate) struct Split {
    descriptors: *const u8,
    available: *const u8,
    used: *mut u8,
    used_gpa: u64,
    pub(super) size: u16,
    mask: u16,
    pub(super) next_avail: u16,
    pub(super) next_used: u16,
    /// `used.idx` as the driver sees it.
    published: u16,
    event_idx: bool,
    indirect: bool,
    pub(super) mergeable: bool,
    pub(super) log: bool,
    pub(super) offloads: bool,
    armed: bool,
    pub(super) header: usize,
    /// The region that translated last.
    pub(super) hint: usize,
    pub(super) mapping: Arc<Mapping>,
    watch: PoisonWatch,
    call: Option<Arc<OwnedFd>>,
    pub(super) fault: Option<RingFault>,
    pub(super) ahead: Ahead,
}

// SAFETY: the pointers lead into `mapping`, which is Send and kept alive by the Arc; only the holder of the slot's lock
// follows them.
unsafe impl Send for Split {}

impl Split {
    /// Checks that the three parts are aligned and lie in guest memory; what they contain is checked at each use.
    pub(crate) fn new(
        layout: &Layout,
        mapping: Arc<Mapping>,
        call: Option<Arc<OwnedFd>>,
    ) -> Result<Self, RingFault> {
        let size = layout.size;
        if !size.is_power_of_two() || size > 32_768 {
            return Err(RingFault::BadRing);
        }
        if !layout.descriptors.is_multiple_of(16)
            || !layout.available.is_multiple_of(2)
            || !layout.used.is_multiple_of(4)
        {
            return Err(RingFault::BadRing);
        }
        let entries = u32::from(size);
        let mut hint = 0;
        let mut place = |gpa, len| mapping.translate(gpa, len, &mut hint).ok_or(RingFault::BadRing);
        let descriptors = place(layout.descriptors, DESCRIPTOR * entries)?;
        let available = place(layout.available, 6 + 2 * entries)?;
        let used = place(layout.used, 6 + 8 * entries)?;
        // A mapping offset that is not a multiple of the word would make the atomics below unaligned.
        if !descriptors.addr().is_multiple_of(8)
            || !available.addr().is_multiple_of(2)
            || !used.addr().is_multiple_of(4)
        {
            return Err(RingFault::BadRing);
        }
        Ok(Split {
            descriptors,
            available,
            used,
            used_gpa: layout.used,
            size,
            mask: size - 1,
            next_avail: layout.next_avail,
            next_used: layout.next_used,
            published: layout.next_used,
            event_idx: layout.event_idx,
            indirect: layout.indirect,
            mergeable: layout.mergeable,
            log: layout.log,
            offloads: layout.offloads,
            armed: true,
            header: layout.header,
            hint,
            mapping,
            watch: PoisonWatch::new(),
            call,
            fault: None,
            ahead: Ahead::default(),
        })
    }

    /// Where the ring stands: next available, next used.
    pub(crate) fn indexes(&self) -> (u16, u16) {
        (self.next_avail, self.next_used)
    }

    /// The fault that this ring ran into, if any.
    pub(crate) fn fault(&self) -> Option<RingFault> {
        self.fault
    }

    /// Stops this ring for good; the first fault is kept.
    #[cold]
    pub(super) fn fail(&mut self, fault: RingFault) {
        self.fault.get_or_insert(fault);
    }

    /// Looks once per burst whether the guest cut its memory short meanwhile.
    #[inline]
    pub(super) fn check_memory(&mut self) {
        if self.watch.poisoned(&self.mapping) {
            self.fail(RingFault::MemoryGone);
        }
    }

    /// A 16-bit word of the available ring, `at` bytes from its start.
    #[inline(always)]
    fn available_word(&self, at: usize) -> &AtomicU16 {
        // SAFETY: `new` proved that the available ring is mapped, 2-aligned and 6 + 2 * size bytes long; callers pass even
        // offsets below that. The mapping outlives `self`.
        unsafe { AtomicU16::from_ptr(self.available.wrapping_add(at).cast_mut().cast::<u16>()) }
    }

    /// A 16-bit word of the used ring, `at` bytes from its start.
    #[inline(always)]
    fn used_word(&self, at: usize) -> &AtomicU16 {
        // SAFETY: as for the available ring, with 6 + 8 * size bytes.
        unsafe { AtomicU16::from_ptr(self.used.wrapping_add(at).cast::<u16>()) }
    }

    /// How many entries the driver has made available that were not taken.
    #[inline(always)]
    pub(super) fn ready(&mut self) -> Result<u16, RingFault> {
        let ready = self.available_word(2).load(Ordering::Acquire).wrapping_sub(self.next_avail);
        if ready > self.size {
            return Err(RingFault::AvailableJump);
        }
        Ok(ready)
    }

    /// The head `ahead` entries from the next one.
    #[inline(always)]
    pub(super) fn head(&self, ahead: u16) -> Result<u16, RingFault> {
        let slot = self.next_avail.wrapping_add(ahead) & self.mask;
        let head = self.available_word(4 + 2 * usize::from(slot)).load(Ordering::Relaxed);
        if head >= self.size { Err(RingFault::IndexOutOfRange) } else { Ok(head) }
    }

    /// Address of descriptor `index`, which is below `size`.
    #[inline(always)]
    pub(super) fn descriptor_at(&self, index: u16) -> *const u8 {
        self.descriptors.wrapping_add(usize::from(index) * DESCRIPTOR as usize)
    }

    /// Copies descriptor `index`, which is below `size`.
    #[inline(always)]
    pub(super) fn descriptor(&self, index: u16) -> Descriptor {
        debug_assert!(index < self.size);
        // SAFETY: `new` proved that the table is mapped and 8-aligned; `index` is below `size`.
        unsafe { read_descriptor(self.descriptor_at(index)) }
    }

    /// Calls `each` with every span of the chain at `head`, in order, until it answers `false`. `writable` is the
    /// direction that all of them must have.
    #[inline]
    pub(super) fn walk(
        &self,
        head: u16,
        writable: bool,
        mut each: impl FnMut(Span) -> Result<bool, RingFault>,
    ) -> Result<(), RingFault> {
        let mut table = self.descriptors;
        let mut entries = self.size;
        let mut indirect = false;
        let mut index = head;
        let limit = usize::from(self.size).min(MAX_PIECES);
        let mut hops = 0;
        loop {
            if index >= entries {
                return Err(RingFault::IndexOutOfRange);
            }
            hops += 1;
            if hops > limit {
                return Err(RingFault::ChainTooLong);
            }
            // SAFETY: `table` has `entries` descriptors in mapped memory (proved by `new`, or by translate below) and is
            // 8-aligned (likewise); `index` is below `entries`.
            let descriptor =
                unsafe { read_descriptor(table.wrapping_add(usize::from(index) * DESCRIPTOR as usize)) };
            if descriptor.flags & INDIRECT != 0 {
                let len = descriptor.len;
                if indirect
                    || !self.indirect
                    || descriptor.flags & NEXT != 0
                    || len == 0
                    || !len.is_multiple_of(DESCRIPTOR)
                {
                    return Err(RingFault::BadIndirect);
                }
                let Ok(count) = u16::try_from(len / DESCRIPTOR) else { return Err(RingFault::BadIndirect) };
                let mut hint = self.hint;
                let Some(ptr) = self.mapping.translate(descriptor.gpa, len, &mut hint) else {
                    return Err(RingFault::AddressOutOfRange);
                };
                if !ptr.addr().is_multiple_of(8) {
                    return Err(RingFault::BadIndirect);
                }
                (table, entries, indirect, index, hops) = (ptr, count, true, 0, 0);
                continue;
            }
            if (descriptor.flags & WRITE != 0) != writable {
                return Err(RingFault::WrongDirection);
            }
            if descriptor.len == 0 {
                return Err(RingFault::EmptyDescriptor);
            }
            if !self.spans(descriptor, &mut each)? || descriptor.flags & NEXT == 0 {
                return Ok(());
            }
            index = descriptor.next;
        }
    }

    /// The buffer of one descriptor as spans: one, unless it crosses into a neighbouring memory region.
    #[inline]
    fn spans(
        &self,
        descriptor: Descriptor,
        each: &mut impl FnMut(Span) -> Result<bool, RingFault>,
    ) -> Result<bool, RingFault> {
        let Descriptor { mut gpa, len: mut left, .. } = descriptor;
        loop {
            let Some((ptr, len)) = self.mapping.translate_part(gpa, left) else {
                return Err(RingFault::AddressOutOfRange);
            };
            if !each(Span { ptr, len, gpa })? {
                return Ok(false);
            }
            left -= len;
            if left == 0 {
                return Ok(true);
            }
            gpa = gpa.checked_add(u64::from(len)).ok_or(RingFault::AddressOutOfRange)?;
        }
    }

    /// Sets a used element `ahead` entries from the next one; the driver sees it after `publish_used`.
    ///
    /// A driver that recycles its descriptors in order finds the same element in the same place each time round: then
    /// nothing is written, and the line stays in both cores' caches. Reading it is free: nobody else writes there.
    #[inline(always)]
    pub(super) fn set_used(&mut self, ahead: u16, head: u16, len: u32) {
        let slot = usize::from(self.next_used.wrapping_add(ahead) & self.mask);
        let element = u64::from(head) | u64::from(len) << 32;
        let at = self.used.wrapping_add(4 + 8 * slot).cast::<u64>();
        // SAFETY: slot < size, so the element lies in the used ring that `new` proved; it is only 4-aligned.
        if unsafe { at.read_unaligned() } != element {
            // SAFETY: as above.
            unsafe { at.write_unaligned(element) };
        }
    }

    /// Shows the driver all used elements written so far, and interrupts it if it wants to know.
    #[inline(always)]
    pub(super) fn publish_used(&mut self) {
        let (old, new) = (self.published, self.next_used);
        if old == new {
            return;
        }
        if self.log {
            self.log_used(old, new);
        }
        self.published = new;
        self.used_word(2).store(new, Ordering::Release);
        // The driver writes its wish and then reads used.idx; we wrote used.idx and now read its wish.
        fence(Ordering::SeqCst);
        let wanted = if self.event_idx {
            let event = self.available_word(4 + 2 * usize::from(self.size)).load(Ordering::Relaxed);
            new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
        } else {
            self.available_word(0).load(Ordering::Relaxed) & NO_INTERRUPT == 0
        };
        if wanted {
            self.call();
        }
    }

    #[cold]
    fn log_used(&self, old: u16, new: u16) {
        for index in 0..new.wrapping_sub(old) {
            let slot = u64::from(old.wrapping_add(index) & self.mask);
            self.mapping.mark_dirty(self.used_gpa + 4 + 8 * slot, 8);
        }
        self.mapping.mark_dirty(self.used_gpa, 4);
    }

    /// Interrupts the driver unconditionally.
    #[cold]
    #[inline(never)]
    pub(crate) fn call(&self) {
        if let Some(call) = &self.call {
            // A non-blocking eventfd, checked when it came. When its counter is full the driver has been told already.
            let _ = rustix::io::write(call, &1u64.to_ne_bytes());
        }
    }

    /// Asks the driver to kick us. `true`: there is work already, do not sleep.
    pub(crate) fn arm(&mut self) -> bool {
        self.armed = true;
        if self.event_idx {
            self.used_word(4 + 8 * usize::from(self.size)).store(self.next_avail, Ordering::Relaxed);
        } else {
            self.used_word(0).store(0, Ordering::Relaxed);
        }
        if self.log {
            self.log_flags();
        }
        // We write our wish and then read avail.idx; the driver writes avail.idx and then reads our wish.
        fence(Ordering::SeqCst);
        match self.ready() {
            Ok(ready) => ready > 0,
            // The next take latches the fault.
            Err(_) => true,
        }
    }

    /// Tells the driver that kicks are a waste: we look by ourselves. With EVENT_IDX the stale `avail_event` does that.
    #[inline(always)]
    pub(super) fn disarm(&mut self) {
        if self.armed {
            self.disarm_now();
        }
    }

    #[cold]
    fn disarm_now(&mut self) {
        self.armed = false;
        if !self.event_idx {
            self.used_word(0).store(NO_NOTIFY, Ordering::Relaxed);
            if self.log {
                self.log_flags();
            }
        }
    }

    #[cold]
    fn log_flags(&self) {
        self.mapping.mark_dirty(self.used_gpa, 2);
        self.mapping.mark_dirty(self.used_gpa + 4 + 8 * u64::from(self.size), 2);
    }
}

/// Reads a descriptor as two words.
///
/// # Safety
/// 16 bytes are mapped at `at`, which is 8-aligned.
#[inline(always)]
unsafe fn read_descriptor(at: *const u8) -> Descriptor {
    // SAFETY: the caller's promise.
    let gpa = unsafe { at.cast::<u64>().read_volatile() };
    // SAFETY: the caller's promise.
    let rest = unsafe { at.wrapping_add(8).cast::<u64>().read_volatile() };
    Descriptor { gpa, len: rest as u32, flags: (rest >> 32) as u16, next: (rest >> 48) as u16 }
}
