//! Memory in large pages, for what is read all over all the time.
//!
//! Every packet reads the flow table's index, 16 to 32 MB for a million connections, in a place that nobody can foresee. In pages of 4 KiB
//! each of these reads misses the processor's list of pages.
//!
//! What workers are the first to write to is not for large pages: who touches one waits until the kernel has cleared 2 MiB.

#![expect(unsafe_code, reason = "madvise takes an address")]

use std::sync::atomic::AtomicU64;

use rustix::mm::{Advice, madvise};

/// A large page: what x86-64 and ARM with pages of 4 KiB have. Elsewhere a multiple of a page all the same.
const LARGE: usize = 2 << 20;

/// Asks the system to give this memory in large pages, where it can. Nothing else about the memory changes; the kernel does
/// as it is set up: `/sys/kernel/mm/transparent_hugepage/enabled` is `madvise` or `always`, or has the last word with `never`.
pub(crate) fn prefer(words: &[AtomicU64]) {
    let range = words.as_ptr_range();
    let (start, end) = (range.start.addr().next_multiple_of(LARGE), range.end.addr() / LARGE * LARGE);
    let Some(len) = end.checked_sub(start).filter(|len| *len > 0) else { return };
    let first = words.as_ptr().map_addr(|_| start).cast_mut().cast();
    // SAFETY: pages that lie inside of a slice that is borrowed, so they are mapped. The advice changes neither what is
    // in them nor who may use them.
    if let Err(error) = unsafe { madvise(first, len, Advice::LinuxHugepage) } {
        // A kernel built without them.
        log::debug!("no large pages for {len} bytes: {error}");
    }
}
