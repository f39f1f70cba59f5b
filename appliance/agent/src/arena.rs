//! Private memory that frames from TAP devices are read into.

use vhost_backend::NET_HEADER;

use crate::tap::{ReadEnd, Tap};

/// The most frames of one filling.
pub(crate) const FRAMES: usize = 64;

/// Room a read needs: net header, Ethernet header, two tags, 64 KiB of IP packet; rounded up to cache lines.
const READ: usize = (NET_HEADER + 14 + 8 + 65_536).next_multiple_of(64);

/// Small frames lie packed one after the other: 64 of 64 bytes fill 8 KiB, and about 40 of 1500 bytes what there is.
/// Of 64 KiB frames there is one at a time, written from the core's second-level cache into which it was just read.
const SIZE: usize = 2 * READ;

/// One filling of frames, each with its net header in front.
pub(crate) struct Arena {
    bytes: Box<[u8]>,
    frames: [(u32, u32); FRAMES],
    count: usize,
}

impl std::fmt::Debug for Arena {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "arena with {} frames", self.count)
    }
}

impl Arena {
    pub(crate) fn new() -> Self {
        Self { bytes: vec![0; SIZE].into_boxed_slice(), frames: [(0, 0); FRAMES], count: 0 }
    }

    /// Reads frames until there are `most`, none is left, or the memory is used up.
    /// `Some` says why the device gave no more; `None` that it may have more.
    pub(crate) fn fill(&mut self, tap: &Tap, queue: usize, most: usize) -> Option<ReadEnd> {
        self.count = 0;
        let mut at = 0;
        while self.count < most.min(FRAMES) && at + READ <= self.bytes.len() {
            match tap.read(queue, &mut self.bytes[at..at + READ]) {
                Ok(read) if read > NET_HEADER => {
                    self.frames[self.count] = (at as u32, read as u32);
                    self.count += 1;
                    at += read.next_multiple_of(64);
                }
                // The kernel hands out no empty frame; one that it did would hold nothing to forward.
                Ok(_) => {}
                Err(end) => return Some(end),
            }
        }
        None
    }

    /// Net header and bytes of each frame, oldest first.
    pub(crate) fn frames(&self) -> impl Iterator<Item = (&[u8; NET_HEADER], &[u8])> {
        self.frames[..self.count].iter().filter_map(|&(at, len)| {
            let (at, len) = (at as usize, len as usize);
            self.bytes[at..at + len].split_first_chunk()
        })
    }
}
