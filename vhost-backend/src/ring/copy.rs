//! Copies between guest memory and ours.
//!
//! The other side may write while we read: each byte is read exactly once, and nobody assumes that two reads agree.

#![expect(unsafe_code, reason = "guest memory is only reachable through raw pointers")]

/// Copies `len` bytes. Short copies are done in line: a call costs as much as the copy itself.
///
/// They may overlap: a hostile guest can offer the same bytes to send and to receive into. What it gets then is its
/// own affair; that it is defined at all is why this is no `memcpy`.
///
/// # Safety
/// `from` is readable and `to` writable for `len` bytes.
#[inline(always)]
pub(crate) unsafe fn copy_from(from: *const u8, to: *mut u8, len: usize) {
    #[cfg(target_arch = "x86_64")]
    if (16..=SHORT).contains(&len) {
        // SAFETY: the caller's promise, passed on.
        return unsafe { copy_short(from, to, len) };
    }
    // SAFETY: the caller's promise, passed on.
    unsafe { std::ptr::copy(from, to, len) };
}

/// Up to here a loop of 16-byte moves beats the call.
const SHORT: usize = 192;

/// # Safety
/// As [`copy_from`], and `len` is at least 16.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn copy_short(from: *const u8, to: *mut u8, len: usize) {
    let last = len - 16;
    let mut at = 0;
    while at < last {
        // SAFETY: at + 16 <= len.
        unsafe { move_16(from.wrapping_add(at), to.wrapping_add(at)) };
        at += 16;
    }
    // The last move may overlap the one before; it is the only one for exactly 16 bytes.
    // SAFETY: last + 16 == len.
    unsafe { move_16(from.wrapping_add(last), to.wrapping_add(last)) };
}

/// # Safety
/// 16 bytes are readable at `from` and writable at `to`.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn move_16(from: *const u8, to: *mut u8) {
    use std::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_storeu_si128};
    // SAFETY: unaligned load of 16 readable bytes.
    let value = unsafe { _mm_loadu_si128(from.cast::<__m128i>()) };
    // SAFETY: unaligned store to 16 writable bytes.
    unsafe { _mm_storeu_si128(to.cast::<__m128i>(), value) };
}

/// Asks for a cache line that will be read soon; any address is allowed.
#[inline(always)]
pub(crate) fn prefetch_read(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch never faults.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(at.cast::<i8>());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// Asks for a cache line that will be written soon, taking it away from the core that has it; any address is allowed.
#[inline(always)]
pub(crate) fn prefetch_write(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch never faults; `prefetchw` is a no-op where the CPU lacks it.
    unsafe {
        std::arch::asm!("prefetchw [{0}]", in(reg) at, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_around_the_thresholds_is_copied_exactly() {
        let from: Vec<u8> = (0..600u32).map(|i| (i % 251) as u8 + 1).collect();
        for len in 0..500 {
            let mut to = vec![0u8; 600];
            // SAFETY: both vectors hold 600 bytes.
            unsafe { copy_from(from.as_ptr(), to.as_mut_ptr(), len) };
            assert_eq!(&to[..len], &from[..len]);
            assert!(to[len..].iter().all(|byte| *byte == 0), "wrote past {len}");
        }
    }
}
