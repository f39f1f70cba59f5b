//! Frames of one burst: headers copied to private memory, payload left where the guest put it.

#![expect(unsafe_code, reason = "payload is read from guest memory through raw pointers")]

use std::marker::PhantomData;

use crate::ring::copy::copy_from;
use crate::ring::split::Split;

/// How many bytes of each frame are copied to private memory before anything looks at them: Ethernet, two tags, IPv6
/// with extension headers, TCP with options.
pub const HEAD: usize = 192;
/// The most frames in one burst.
pub const BURST: usize = 64;
/// Length of `struct virtio_net_hdr_v1` (virtio 1.2, 5.1.6).
pub const NET_HEADER: usize = 12;
/// The longest frame a guest may send: 64 KiB of IP packet, an Ethernet header and two tags.
pub const MAX_FRAME: u32 = 65_535 + 14 + 8;
/// The most payload pieces of one frame. Linux uses up to 19; DPDK's vhost library refuses more than 256.
pub(crate) const MAX_PIECES: usize = 256;
const PIECES: usize = 1024;

/// One frame. The first cache line is what the switch needs to know of it, `head` begins the second.
#[repr(C, align(64))]
#[derive(Clone)]
pub struct Frame {
    /// `virtio_net_hdr_v1` as the sender wrote it; `num_buffers` (the last two bytes) means nothing here.
    pub net: [u8; NET_HEADER],
    /// Bytes in the whole frame, from the Ethernet header on.
    pub len: u32,
    /// Bytes of it that are in `head`: `min(len, HEAD)` when taken; whoever rewrites headers may change both.
    pub head_len: u16,
    pub(crate) first_piece: u16,
    pub(crate) pieces: u16,
    /// Which descriptor to give back.
    pub(crate) token: u16,
    _line: [u8; 40],
    /// The private copy of the frame's beginning.
    pub head: [u8; HEAD],
}

impl Frame {
    const EMPTY: Frame = Frame {
        net: [0; NET_HEADER],
        len: 0,
        head_len: 0,
        first_piece: 0,
        pieces: 0,
        token: 0,
        _line: [0; 40],
        head: [0; HEAD],
    };

    /// The part of the frame that is in private memory.
    #[inline]
    pub fn head(&self) -> &[u8] {
        &self.head[..usize::from(self.head_len).min(HEAD)]
    }
}

impl std::fmt::Debug for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "frame of {} bytes, net {:02x?}, {:02x?}", self.len, self.net, self.head())
    }
}

/// A piece of payload that lies outside the private copy.
#[derive(Clone, Copy)]
pub(crate) struct Piece {
    pub(crate) ptr: *const u8,
    pub(crate) len: u32,
}

/// Room for one burst, allocated once per worker.
pub struct Store {
    pub(crate) frames: Box<[Frame; BURST]>,
    pub(crate) pieces: Box<[Piece; PIECES]>,
    pub(crate) count: usize,
    pub(crate) used_pieces: usize,
}

// SAFETY: the pointers in `pieces` are only followed through a `Burst`, which borrows both the store and what they point
// to; between bursts they are dead bytes.
unsafe impl Send for Store {}

impl Default for Store {
    fn default() -> Self {
        Self::new()
    }
}

impl Store {
    /// An empty store (about 32 KiB).
    pub fn new() -> Self {
        Store {
            frames: Box::new([Frame::EMPTY; BURST]),
            pieces: Box::new([Piece { ptr: std::ptr::null(), len: 0 }; PIECES]),
            count: 0,
            used_pieces: 0,
        }
    }

    pub(crate) fn clear(&mut self) {
        self.count = 0;
        self.used_pieces = 0;
    }

    /// Whether one more frame with the most pieces would still fit.
    #[inline]
    pub(crate) fn has_room(&self) -> bool {
        self.count < BURST && self.used_pieces + MAX_PIECES <= PIECES
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "store with {} frames", self.count)
    }
}

/// Up to [`BURST`] frames whose payload may still lie in the sender's memory, which cannot go away while this lives.
/// Dropping a burst that came from a ring gives its descriptors back, in order.
pub struct Burst<'a> {
    store: &'a mut Store,
    source: Option<&'a mut Split>,
    _payload: PhantomData<&'a [u8]>,
}

impl std::fmt::Debug for Burst<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.frames()).finish()
    }
}

impl<'a> Burst<'a> {
    pub(crate) fn from_ring(store: &'a mut Store, source: &'a mut Split) -> Self {
        Burst { store, source: Some(source), _payload: PhantomData }
    }

    /// An empty burst for frames that come from elsewhere, filled by [`push`](Self::push).
    pub fn private(store: &'a mut Store) -> Self {
        store.clear();
        Burst { store, source: None, _payload: PhantomData }
    }

    /// Adds a frame whose bytes stay where they are until the burst ends. `false` when the burst is full.
    #[inline]
    pub fn push(&mut self, net: &[u8; NET_HEADER], bytes: &'a [u8]) -> bool {
        let store = &mut *self.store;
        let Ok(len) = u32::try_from(bytes.len()) else { return false };
        if !store.has_room() {
            return false;
        }
        let frame = &mut store.frames[store.count];
        let head = bytes.len().min(HEAD);
        frame.net = *net;
        frame.len = len;
        frame.head_len = head as u16;
        frame.head[..head].copy_from_slice(&bytes[..head]);
        frame.first_piece = store.used_pieces as u16;
        frame.pieces = 0;
        if bytes.len() > head {
            let rest = &bytes[head..];
            store.pieces[store.used_pieces] = Piece { ptr: rest.as_ptr(), len: len - head as u32 };
            store.used_pieces += 1;
            frame.pieces = 1;
        }
        store.count += 1;
        true
    }

    /// Adds a frame made of a beginning that is copied, at most [`HEAD`] bytes, and parts behind it that stay where they
    /// are until the burst ends. `false`, and nothing is added, when it has no room or the beginning is too long.
    pub fn push_parts(&mut self, net: &[u8; NET_HEADER], beginning: &[u8], parts: &[&'a [u8]]) -> bool {
        let store = &mut *self.store;
        let total = beginning.len() + parts.iter().map(|part| part.len()).sum::<usize>();
        let Ok(len) = u32::try_from(total) else { return false };
        // One piece for each part: the first may be split, and is then partly in the head.
        if !store.has_room() || parts.len() > MAX_PIECES || beginning.len() > HEAD {
            return false;
        }
        let frame = &mut store.frames[store.count];
        frame.net = *net;
        frame.len = len;
        frame.head[..beginning.len()].copy_from_slice(beginning);
        let mut head = beginning.len();
        frame.first_piece = store.used_pieces as u16;
        for part in parts {
            let (inside, rest) = part.split_at(part.len().min(HEAD - head));
            frame.head[head..head + inside.len()].copy_from_slice(inside);
            head += inside.len();
            if !rest.is_empty() {
                store.pieces[store.used_pieces] = Piece { ptr: rest.as_ptr(), len: rest.len() as u32 };
                store.used_pieces += 1;
            }
        }
        frame.head_len = head as u16;
        frame.pieces = store.used_pieces as u16 - frame.first_piece;
        store.count += 1;
        true
    }

    /// Whether one more frame can be added, however many parts it has.
    #[inline]
    pub fn has_room(&self) -> bool {
        self.store.has_room()
    }

    /// How many frames there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.store.count
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.store.count == 0
    }

    /// The frames, oldest first.
    #[inline]
    pub fn frames(&self) -> &[Frame] {
        &self.store.frames[..self.store.count]
    }

    /// The frames, to rewrite headers.
    #[inline]
    pub fn frames_mut(&mut self) -> &mut [Frame] {
        &mut self.store.frames[..self.store.count]
    }

    /// The payload pieces of a frame, in order. None for one that was rewritten to end within its head.
    #[inline]
    pub(crate) fn pieces(&self, frame: &Frame) -> &[Piece] {
        if frame.len <= u32::from(frame.head_len) {
            return &[];
        }
        let first = usize::from(frame.first_piece);
        &self.store.pieces[first..first + usize::from(frame.pieces)]
    }

    /// Address and length of each part of frame `i`, head first, for a gathering system call: `each` is told every part
    /// until it answers `false`. The kernel's copy from guest memory cannot kill us: it fails with `EFAULT`.
    pub fn for_each_part(&self, i: usize, mut each: impl FnMut(*const u8, usize) -> bool) {
        let frame = &self.frames()[i];
        let head = frame.head();
        if !each(head.as_ptr(), head.len()) {
            return;
        }
        for piece in self.pieces(frame) {
            if !each(piece.ptr, piece.len as usize) {
                return;
            }
        }
    }

    /// Copies the whole of frame `i` to `to`; its length, or `None` when it does not fit.
    pub fn copy_to(&self, i: usize, to: &mut [u8]) -> Option<usize> {
        let frame = &self.frames()[i];
        let head = frame.head();
        let payload: usize = self.pieces(frame).iter().map(|piece| piece.len as usize).sum();
        let total = head.len() + payload;
        let to = to.get_mut(..total)?;
        to[..head.len()].copy_from_slice(head);
        let mut at = head.len();
        for piece in self.pieces(frame) {
            let len = piece.len as usize;
            // SAFETY: the piece stays mapped while the burst lives (it borrows the ring or the bytes); `to` has room for
            // `total` bytes, of which `at + len` is at most all.
            unsafe { copy_from(piece.ptr, to[at..at + len].as_mut_ptr(), len) };
            at += len;
        }
        Some(total)
    }
}

impl Drop for Burst<'_> {
    #[inline]
    fn drop(&mut self) {
        if let Some(source) = self.source.take() {
            source.retire(self.store);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_in_parts_is_the_frame_in_one() {
        let bytes: Vec<u8> = (0..3000u32).map(|i| (i % 251) as u8).collect();
        for cuts in [
            vec![],
            vec![54],
            vec![54, 54],
            vec![192, 192, 1000],
            vec![54, 60, 191, 193, 2999],
            vec![0, 3000],
        ] {
            let (mut at, mut parts) = (0, Vec::new());
            for cut in cuts.iter().copied().chain([bytes.len()]) {
                parts.push(&bytes[at..cut]);
                at = cut;
            }
            let beginning = if parts[0].len() <= HEAD { parts.remove(0) } else { &[] };
            let (mut one, mut other) = (Store::new(), Store::new());
            let (mut whole, mut pieced) = (Burst::private(&mut one), Burst::private(&mut other));
            assert!(whole.push(&[3; NET_HEADER], &bytes));
            assert!(pieced.push_parts(&[3; NET_HEADER], beginning, &parts), "{cuts:?}");
            let (a, b) = (&whole.frames()[0], &pieced.frames()[0]);
            assert_eq!((a.net, a.len, a.head()), (b.net, b.len, b.head()), "{cuts:?}");
            let mut copy = [0; 3000];
            assert_eq!(pieced.copy_to(0, &mut copy), Some(3000));
            assert_eq!(copy[..], bytes, "{cuts:?}");
        }
    }

    #[test]
    fn what_has_no_room_is_not_added() {
        let part = [7u8; 100];
        let mut store = Store::new();
        let mut burst = Burst::private(&mut store);
        assert!(!burst.push_parts(&[0; NET_HEADER], &[0; HEAD + 1], &[]));
        assert!(!burst.push_parts(&[0; NET_HEADER], &[], &[&part[..]; MAX_PIECES + 1]));
        assert!(burst.is_empty());
        while burst.push_parts(&[0; NET_HEADER], &[], &[&part[..]; MAX_PIECES]) {}
        assert!((1..BURST).contains(&burst.len()), "pieces run out before frames");
    }
}
