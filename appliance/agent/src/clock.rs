//! The worker's clock.

/// Nanoseconds of the monotonic clock. Only workers and the control thread read it; all else is told the time.
pub(crate) fn now() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
