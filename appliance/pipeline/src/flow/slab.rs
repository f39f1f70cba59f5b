//! A large array of atomic words in groups of whole cache lines, zero until used.

use core::sync::atomic::{AtomicU64, Ordering};

/// Words of two cache lines: what adjacent-line prefetching draws near together.
const ALIGNMENT: usize = 16;

/// `N` words each. The system gives its memory page by page as it is written to.
#[derive(Debug)]
pub(crate) struct Slab<const N: usize> {
    words: Box<[AtomicU64]>,
    /// Words before the first group, so that groups begin at cache lines.
    skip: usize,
}

impl<const N: usize> Slab<N> {
    pub(crate) fn new(groups: usize) -> Self {
        Self::prepared(groups, |_| ())
    }

    /// So many groups. `prepare` is shown the memory before it is used.
    pub(crate) fn prepared(groups: usize, prepare: impl Fn(&[AtomicU64])) -> Self {
        let words: Box<[AtomicU64]> = bytemuck::allocation::zeroed_slice_box(groups * N + ALIGNMENT);
        prepare(&words);
        let skip = words.as_ptr().align_offset(ALIGNMENT * size_of::<u64>()).min(ALIGNMENT);
        Self { words, skip }
    }

    /// Has the system give all the memory now. Memory that is read before it is written to is given twice, first as a page
    /// of zeros that all share; taking that back interrupts every core that runs a worker.
    pub(crate) fn fill(&self) {
        self.words.iter().for_each(|word| word.store(0, Ordering::Relaxed));
    }

    #[inline(always)]
    pub(crate) fn get(&self, group: u32) -> Option<&[AtomicU64; N]> {
        let (groups, _) = self.words.get(self.skip..)?.as_chunks::<N>();
        groups.get(group as usize)
    }
}
