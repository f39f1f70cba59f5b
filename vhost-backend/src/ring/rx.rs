//! Gives frames to a guest's receive ring.

#![expect(unsafe_code, reason = "copies to guest memory")]

use super::RingFault;
use super::copy::{copy_from, prefetch_read, prefetch_write};
use super::split::{Descriptor, INDIRECT, NEXT, Span, Split, WRITE};
use crate::frame::{BURST, NET_HEADER, Piece};

/// Why a frame was not given to the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutError {
    /// The guest has no free buffers: it does not keep up.
    Full,
    /// The guest's buffers are too small for this frame (and it cannot merge them).
    TooLong,
    /// The ring has a fault, just found or earlier.
    Fault(RingFault),
}

/// Receive buffers looked up and prefetched before they are needed.
pub(crate) struct Ahead {
    slots: [Slot; BURST],
    /// Next to use, end.
    at: usize,
    end: usize,
    /// Whether the last header was already in its buffer as it had to be.
    header_stays: bool,
}

#[derive(Clone, Copy)]
struct Slot {
    /// Null: not a single buffer, take the long way.
    ptr: *mut u8,
    len: u32,
    head: u16,
    gpa: u64,
}

impl Default for Ahead {
    fn default() -> Self {
        Ahead {
            slots: [Slot { ptr: std::ptr::null_mut(), len: 0, head: 0, gpa: 0 }; BURST],
            at: 0,
            end: 0,
            header_stays: false,
        }
    }
}

impl Split {
    /// Looks `count` buffers up at once and fetches the lines that will be written: with the misses overlapped, a burst
    /// costs little more than its copies.
    pub(crate) fn expect(&mut self, count: usize) {
        (self.ahead.at, self.ahead.end) = (0, 0);
        if self.fault.is_some() {
            return;
        }
        let ready = match self.ready() {
            Ok(ready) => usize::from(ready).min(count).min(BURST),
            Err(fault) => return self.fail(fault),
        };
        let mut heads = [0u16; BURST];
        for (ahead, head) in heads[..ready].iter_mut().enumerate() {
            match self.head(ahead as u16) {
                Ok(index) => *head = index,
                Err(fault) => return self.fail(fault),
            }
            prefetch_read(self.descriptor_at(*head));
        }
        for (at, &head) in heads[..ready].iter().enumerate() {
            let Descriptor { gpa, len, flags, .. } = self.descriptor(head);
            let mut ptr = std::ptr::null_mut();
            if flags & (NEXT | WRITE | INDIRECT) == WRITE
                && let Some(host) = self.mapping.translate(gpa, len, &mut self.hint)
            {
                if self.ahead.header_stays {
                    prefetch_read(host)
                } else {
                    prefetch_write(host)
                }
                prefetch_write(host.wrapping_add(self.header));
                prefetch_write(host.wrapping_add(self.header + 63));
                ptr = host;
            }
            self.ahead.slots[at] = Slot { ptr, len, head, gpa };
        }
        self.ahead.end = ready;
    }

    /// Copies a frame into the guest's next buffer or buffers. The guest sees it after [`publish`](Self::publish).
    #[inline]
    pub(crate) fn put(
        &mut self,
        net: &[u8; NET_HEADER],
        head: &[u8],
        pieces: &[Piece],
        len: u32,
    ) -> Result<(), PutError> {
        if let Some(fault) = self.fault {
            return Err(PutError::Fault(fault));
        }
        if self.ahead.at < self.ahead.end {
            let slot = self.ahead.slots[self.ahead.at];
            let need = self.header as u32 + len;
            if !slot.ptr.is_null() && slot.len >= need && pieces.len() <= 1 {
                self.ahead.at += 1;
                // SAFETY: `expect` proved `slot.len` bytes mapped at `slot.ptr`; head and piece together are `len` bytes, which
                // fit behind the header. The piece stays mapped while its burst lives.
                unsafe { self.put_whole(slot.ptr, net, head, pieces.first()) };
                if self.log {
                    self.mapping.mark_dirty(slot.gpa, need);
                }
                self.set_used(0, slot.head, need);
                self.next_avail = self.next_avail.wrapping_add(1);
                self.next_used = self.next_used.wrapping_add(1);
                return Ok(());
            }
        }
        self.put_chain(net, head, pieces, len)
    }

    /// # Safety
    /// Header, `head` and `piece` fit in what is mapped at `ptr`; `piece` is mapped.
    #[inline(always)]
    unsafe fn put_whole(&mut self, ptr: *mut u8, net: &[u8; NET_HEADER], head: &[u8], piece: Option<&Piece>) {
        let mut net = *net;
        [net[10], net[11]] = [1, 0];
        if self.header == NET_HEADER {
            let at = ptr.cast::<[u8; NET_HEADER]>();
            // A driver that leaves recycled buffers alone finds the same header in them again: then the line stays in both
            // cores' caches.
            // SAFETY: the header fits, says the caller.
            self.ahead.header_stays = unsafe { at.read() } == net;
            if !self.ahead.header_stays {
                // SAFETY: as above.
                unsafe { at.write(net) };
            }
        } else {
            // SAFETY: as above, with the 10 bytes of a legacy header.
            unsafe { copy_from(net.as_ptr(), ptr, self.header) };
        }
        let mut to = ptr.wrapping_add(self.header);
        // SAFETY: the head fits behind the header, says the caller.
        unsafe { copy_from(head.as_ptr(), to, head.len()) };
        if let Some(piece) = piece {
            to = to.wrapping_add(head.len());
            // SAFETY: and the piece behind it.
            unsafe { copy_from(piece.ptr, to, piece.len as usize) };
        }
    }

    /// The long way: chains, several merged buffers, buffers across memory regions.
    #[inline(never)]
    fn put_chain(
        &mut self,
        net: &[u8; NET_HEADER],
        head: &[u8],
        pieces: &[Piece],
        len: u32,
    ) -> Result<(), PutError> {
        (self.ahead.at, self.ahead.end) = (0, 0);
        let ready = self.ready().map_err(|fault| self.latch(fault))?;
        let mut source = Source { net: &net[..self.header], head, pieces, moved: 0 };
        let mut left = self.header as u32 + len;
        let mut buffers: u16 = 0;
        let mut count_at: Option<Span> = None;
        while left > 0 {
            if buffers > 0 && !self.mergeable {
                return Err(PutError::TooLong);
            }
            if buffers == ready {
                // A guest that offers all its buffers and still has too little room will never have enough.
                return Err(if ready == self.size { PutError::TooLong } else { PutError::Full });
            }
            let head = self.head(buffers).map_err(|fault| self.latch(fault))?;
            let mut written = 0;
            let walked = self.walk(head, true, |span| {
                let here = span.len.min(left);
                if buffers == 0 && written == 0 {
                    if (here as usize) < self.header {
                        return Err(RingFault::ShortHeader);
                    }
                    count_at = Some(span);
                }
                // SAFETY: `here` bytes of the span are mapped, and the source has `left` bytes, at least as many.
                unsafe { source.copy_to(span.ptr, here as usize) };
                if self.log {
                    self.mapping.mark_dirty(span.gpa, here);
                }
                written += here;
                left -= here;
                Ok(left > 0)
            });
            walked.map_err(|fault| self.latch(fault))?;
            self.set_used(buffers, head, written);
            buffers += 1;
        }
        if let (Some(span), NET_HEADER) = (count_at, self.header) {
            let count = if self.mergeable { buffers } else { 1 };
            // SAFETY: the first span holds the whole header, checked above; bytes 10 and 11 are num_buffers.
            unsafe { span.ptr.wrapping_add(10).cast::<[u8; 2]>().write(count.to_le_bytes()) };
        }
        self.next_avail = self.next_avail.wrapping_add(buffers);
        self.next_used = self.next_used.wrapping_add(buffers);
        Ok(())
    }

    #[cold]
    fn latch(&mut self, fault: RingFault) -> PutError {
        self.fail(fault);
        PutError::Fault(fault)
    }

    /// Shows the guest everything that was put and interrupts it if it asks for that.
    #[inline]
    pub(crate) fn publish(&mut self) {
        (self.ahead.at, self.ahead.end) = (0, 0);
        self.publish_used();
        self.check_memory();
    }
}

/// A frame as a sequence of bytes: header, private head, payload pieces.
struct Source<'a> {
    net: &'a [u8],
    head: &'a [u8],
    pieces: &'a [Piece],
    /// Bytes of `pieces[0]` already moved.
    moved: usize,
}

impl Source<'_> {
    /// Moves the next `len` bytes to `to`.
    ///
    /// # Safety
    /// `to` is writable for `len` bytes; this has at least as many left; its pieces are mapped.
    unsafe fn copy_to(&mut self, mut to: *mut u8, mut len: usize) {
        for part in [&mut self.net, &mut self.head] {
            let here = len.min(part.len());
            // SAFETY: `here` bytes are left in the part, and fit.
            unsafe { copy_from(part.as_ptr(), to, here) };
            *part = &part[here..];
            to = to.wrapping_add(here);
            len -= here;
        }
        while len > 0 {
            let Some((piece, rest)) = self.pieces.split_first() else { return };
            let here = len.min(piece.len as usize - self.moved);
            // SAFETY: the piece is mapped, says the caller; `here` bytes of it are left, and fit.
            unsafe { copy_from(piece.ptr.wrapping_add(self.moved), to, here) };
            to = to.wrapping_add(here);
            len -= here;
            self.moved += here;
            if self.moved == piece.len as usize {
                (self.pieces, self.moved) = (rest, 0);
            }
        }
    }
}
