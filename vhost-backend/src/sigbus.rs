//! Survives a guest that truncates its own memory file.
//!
//! A vhost-user front end shares guest memory as a file. If it shortens that file, our next access beyond the new end
//! raises SIGBUS, which would kill the whole appliance. The handler installed here looks the address up in a table of
//! registered guest mappings; when it belongs to one, the *whole mapping* is replaced by private zero pages, the mapping
//! is flagged, and the access resumes. The rings that use the mapping see the flag after their burst and latch a fault.
//! Any other SIGBUS goes to the handler that was there before.
//!
//! Nothing on the hot path pays for this: accesses stay plain loads, stores and `memcpy`.

#![expect(unsafe_code, reason = "signal handler and mmap over a dying mapping")]

use std::io;
use std::sync::Once;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// How many guest mappings one process may hold: 64 ports with 509 regions each, twice over during a change.
const ENTRIES: usize = 65_536;

struct Entry {
    /// Host address; 0 = free.
    start: AtomicUsize,
    /// Length in bytes, a multiple of the mapping's page size. Written before `start`.
    len: AtomicUsize,
    hit: AtomicBool,
}

static TABLE: OnceLock<Box<[Entry]>> = OnceLock::new();
/// Entries ever used, so that the handler does not scan the whole table.
static HIGH_WATER: AtomicUsize = AtomicUsize::new(0);
/// Counts every replaced mapping. A ring compares it with the value it saw last: one load per burst.
static HITS: AtomicU64 = AtomicU64::new(0);
static INSTALL: Once = Once::new();
static PREVIOUS: OnceLock<libc::sigaction> = OnceLock::new();

/// One guest mapping known to the handler; forgotten on drop.
#[derive(Debug)]
pub(crate) struct Registration(usize);

impl Registration {
    /// Registers `len` bytes mapped at `start`, both multiples of the mapping's page size.
    pub(crate) fn new(start: usize, len: usize) -> io::Result<Self> {
        let table = TABLE.get_or_init(|| {
            let free = || Entry {
                start: AtomicUsize::new(0),
                len: AtomicUsize::new(0),
                hit: AtomicBool::new(false),
            };
            (0..ENTRIES).map(|_| free()).collect()
        });
        INSTALL.call_once(install);
        for (index, entry) in table.iter().enumerate() {
            // Claimed with an address that no access can have, then filled, then published.
            if entry.start.compare_exchange(0, usize::MAX, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                entry.hit.store(false, Ordering::Relaxed);
                entry.len.store(len, Ordering::Relaxed);
                entry.start.store(start, Ordering::Release);
                HIGH_WATER.fetch_max(index + 1, Ordering::AcqRel);
                return Ok(Registration(index));
            }
        }
        Err(io::Error::other(format!("more than {ENTRIES} guest memory regions in one process")))
    }

    /// Whether the mapping was replaced by zero pages.
    pub(crate) fn hit(&self) -> bool {
        TABLE.get().is_some_and(|table| table[self.0].hit.load(Ordering::Acquire))
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if let Some(table) = TABLE.get() {
            table[self.0].start.store(0, Ordering::Release);
        }
    }
}

/// How many mappings were ever replaced in this process.
#[inline]
pub(crate) fn hits() -> u64 {
    HITS.load(Ordering::Acquire)
}

fn install() {
    // SAFETY: an all-zero sigaction is a valid value to fill in.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: as above, for the value that sigaction() overwrites.
    let mut previous: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_sigbus as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
    // SAFETY: both pointers are to live locals; on_sigbus only does what a signal handler may do.
    if unsafe { libc::sigaction(libc::SIGBUS, &action, &mut previous) } == 0 {
        let _ = PREVIOUS.set(previous);
    } else {
        log::error!("cannot install a SIGBUS handler: {}", io::Error::last_os_error());
    }
}

/// Async-signal-safe: atomics and mmap only.
extern "C" fn on_sigbus(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid siginfo_t for SA_SIGINFO handlers.
    let info_ref = unsafe { &*info };
    // SAFETY: SIGBUS is a signal whose siginfo_t carries an address.
    let address = unsafe { info_ref.si_addr() } as usize;
    if replace(address) {
        return;
    }
    let previous = PREVIOUS.get().map_or(libc::SIG_DFL, |previous| previous.sa_sigaction);
    if previous == libc::SIG_DFL || previous == libc::SIG_IGN {
        // SAFETY: restoring the default action is async-signal-safe; the access faults again and ends the process.
        unsafe { libc::signal(libc::SIGBUS, libc::SIG_DFL) };
    } else {
        // SAFETY: Rust's own handler (guard pages) and any other that was installed have this signature with SA_SIGINFO.
        let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) =
            unsafe { std::mem::transmute(previous) };
        handler(signal, info, context);
    }
}

fn replace(address: usize) -> bool {
    let Some(table) = TABLE.get() else { return false };
    let mut found = false;
    for entry in table.iter().take(HIGH_WATER.load(Ordering::Acquire)) {
        let start = entry.start.load(Ordering::Acquire);
        let len = entry.len.load(Ordering::Relaxed);
        if start == 0 || start == usize::MAX || address < start || address - start >= len {
            continue;
        }
        if !found {
            // SAFETY: [start, start + len) is a mapping that `Registration::new`'s caller owns and keeps mapped while
            // registered; the access that faulted lies in it, so its owner is alive. MAP_FIXED only replaces its pages.
            let mapped = unsafe {
                libc::mmap(
                    start as *mut libc::c_void,
                    len,
                    libc::PROT_READ | libc::PROT_WRITE,
                    libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE,
                    -1,
                    0,
                )
            };
            if mapped == libc::MAP_FAILED {
                return false;
            }
            found = true;
        }
        entry.hit.store(true, Ordering::Release);
    }
    if found {
        HITS.fetch_add(1, Ordering::AcqRel);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::FromRawFd;

    #[test]
    fn a_truncated_memory_file_reads_zero_and_is_flagged_instead_of_killing_the_process() {
        // SAFETY: a constant name; the result is checked.
        let fd = unsafe { libc::memfd_create(c"truncated".as_ptr(), libc::MFD_CLOEXEC) };
        assert!(fd >= 0);
        // SAFETY: memfd_create returned it and nobody else owns it.
        let file = unsafe { File::from_raw_fd(fd) };
        file.set_len(8192).unwrap();
        // SAFETY: a new shared mapping of our own file.
        let map = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                8192,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                fd,
                0,
            )
        };
        assert_ne!(map, libc::MAP_FAILED);
        let byte = map.cast::<u8>();
        let registration = Registration::new(map as usize, 8192).unwrap();
        // SAFETY: inside the mapping.
        unsafe { byte.wrapping_add(5000).write_volatile(7) };
        assert!(!registration.hit());
        let before = hits();
        file.set_len(0).unwrap();
        // SAFETY: inside the mapping; the fault is what is being tested.
        assert_eq!(unsafe { byte.wrapping_add(5000).read_volatile() }, 0);
        assert!(registration.hit());
        assert!(hits() > before);
        drop(registration);
        // SAFETY: mapped above, not used any more.
        unsafe { libc::munmap(map, 8192) };
    }
}
