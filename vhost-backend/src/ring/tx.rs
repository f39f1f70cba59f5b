//! Takes the frames that a guest transmits.

#![expect(unsafe_code, reason = "copies from guest memory")]

use super::RingFault;
use super::copy::{copy_from, prefetch_read};
use super::split::{Descriptor, INDIRECT, NEXT, Split, WRITE};
use crate::frame::{BURST, Frame, HEAD, MAX_FRAME, MAX_PIECES, NET_HEADER, Piece, Store};

impl Split {
    /// Fills `store` with up to [`BURST`] frames. The guest's buffers stay ours until [`retire`](Self::retire).
    ///
    /// Each step is done for the whole burst before the next begins, so that the cache misses on the guest's lines (another
    /// core wrote them just now) overlap.
    pub(crate) fn take(&mut self, store: &mut Store) {
        store.clear();
        self.disarm();
        if self.fault.is_some() {
            return;
        }
        let ready = match self.ready() {
            Ok(0) => return,
            Ok(ready) => usize::from(ready).min(BURST),
            Err(fault) => return self.fail(fault),
        };
        let mut heads = [0u16; BURST];
        let mut count = ready;
        for (ahead, head) in heads[..ready].iter_mut().enumerate() {
            match self.head(ahead as u16) {
                Ok(index) => {
                    *head = index;
                    prefetch_read(self.descriptor_at(index));
                }
                Err(fault) => {
                    // What came before is good and is delivered; the ring stops there.
                    self.fail(fault);
                    count = ahead;
                    break;
                }
            }
        }
        let mut first = [(std::ptr::null::<u8>(), Descriptor::default()); BURST];
        for (slot, head) in first[..count].iter_mut().zip(&heads[..count]) {
            let descriptor = self.descriptor(*head);
            if descriptor.flags & (NEXT | WRITE | INDIRECT) == 0
                && let Some(ptr) = self.mapping.translate(descriptor.gpa, descriptor.len, &mut self.hint)
            {
                // A driver without offloads has nothing to say in its header: that line is left where it is.
                prefetch_read(ptr.wrapping_add(if self.offloads { 0 } else { self.header }));
                prefetch_read(ptr.wrapping_add(self.header + 63));
                slot.0 = ptr;
            }
            slot.1 = descriptor;
        }
        for (&(ptr, descriptor), &head) in first[..count].iter().zip(&heads[..count]) {
            if !store.has_room() {
                break;
            }
            let whole = !ptr.is_null() && descriptor.len as usize >= self.header + 16;
            let taken = if whole && descriptor.len - self.header as u32 <= MAX_FRAME {
                // SAFETY: translate proved that `len` bytes are mapped at `ptr`; the condition above that they hold a header
                // and at least 16 bytes.
                unsafe { self.take_whole(store, ptr, descriptor.len) };
                Ok(())
            } else {
                self.take_chain(store, head)
            };
            if let Err(fault) = taken {
                self.fail(fault);
                break;
            }
            store.frames[store.count].token = head;
            store.count += 1;
        }
        self.next_avail = self.next_avail.wrapping_add(store.count as u16);
        self.check_memory();
    }

    /// Header and frame in one descriptor: what DPDK and Linux send for every small packet.
    ///
    /// # Safety
    /// `len` bytes are mapped at `ptr`, and `len >= self.header + 16`.
    #[inline(always)]
    unsafe fn take_whole(&self, store: &mut Store, ptr: *const u8, len: u32) {
        let len = len - self.header as u32;
        let frame = &mut store.frames[store.count];
        frame.net = [0; NET_HEADER];
        if self.offloads {
            // SAFETY: the caller promises at least the header, which is 12 or 10 bytes.
            unsafe { copy_from(ptr, frame.net.as_mut_ptr(), self.header) };
        }
        frame.len = len;
        let head = (len as usize).min(HEAD);
        frame.head_len = head as u16;
        let data = ptr.wrapping_add(self.header);
        // SAFETY: header + head <= len bytes are mapped; `frame.head` has HEAD bytes.
        unsafe { copy_from(data, frame.head.as_mut_ptr(), head) };
        frame.first_piece = store.used_pieces as u16;
        frame.pieces = 0;
        if len as usize > HEAD {
            frame.pieces = 1;
            store.pieces[store.used_pieces] = Piece { ptr: data.wrapping_add(HEAD), len: len - HEAD as u32 };
            store.used_pieces += 1;
        }
    }

    /// Any chain: direct, indirect, with the header anywhere.
    #[inline(never)]
    fn take_chain(&self, store: &mut Store, head: u16) -> Result<(), RingFault> {
        let header = self.header;
        let frame: &mut Frame = &mut store.frames[store.count];
        let first_piece = store.used_pieces;
        let (pieces, mut piece) = (&mut store.pieces, first_piece);
        frame.net = [0; NET_HEADER];
        let (mut in_net, mut in_head, mut total) = (0usize, 0usize, 0u64);
        self.walk(head, false, |span| {
            let (mut ptr, mut len) = (span.ptr.cast_const(), span.len as usize);
            if in_net < header {
                let here = len.min(header - in_net);
                // SAFETY: the span is mapped; in_net + here <= header <= NET_HEADER.
                unsafe { copy_from(ptr, frame.net.as_mut_ptr().wrapping_add(in_net), here) };
                in_net += here;
                ptr = ptr.wrapping_add(here);
                len -= here;
            }
            total += len as u64;
            if total > u64::from(MAX_FRAME) {
                return Err(RingFault::FrameTooLong);
            }
            let here = len.min(HEAD - in_head);
            if here > 0 {
                // SAFETY: the span is mapped; in_head + here <= HEAD.
                unsafe { copy_from(ptr, frame.head.as_mut_ptr().wrapping_add(in_head), here) };
                in_head += here;
                ptr = ptr.wrapping_add(here);
                len -= here;
            }
            if len > 0 {
                if piece - first_piece == MAX_PIECES {
                    return Err(RingFault::ChainTooLong);
                }
                pieces[piece] = Piece { ptr, len: len as u32 };
                piece += 1;
            }
            Ok(true)
        })?;
        if in_net < header {
            return Err(RingFault::ShortHeader);
        }
        if !self.offloads {
            frame.net = [0; NET_HEADER];
        }
        frame.len = total as u32;
        frame.head_len = in_head as u16;
        frame.first_piece = first_piece as u16;
        frame.pieces = (piece - first_piece) as u16;
        store.used_pieces = piece;
        Ok(())
    }

    /// Gives the descriptors of a burst back, in the order in which they came, and interrupts the guest if it asks for it.
    #[inline]
    pub(crate) fn retire(&mut self, store: &mut Store) {
        let count = store.count;
        if count == 0 {
            return;
        }
        for (ahead, frame) in store.frames[..count].iter().enumerate() {
            self.set_used(ahead as u16, frame.token, 0);
        }
        store.clear();
        self.next_used = self.next_used.wrapping_add(count as u16);
        self.publish_used();
    }

    /// Whether the guest has frames for us.
    #[inline]
    pub(crate) fn pending(&mut self) -> bool {
        self.ready().is_ok_and(|ready| ready > 0)
    }
}
