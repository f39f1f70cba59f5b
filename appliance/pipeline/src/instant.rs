//! Time as an argument.

/// Nanoseconds since a point the caller chose, the same for all its calls (a monotonic clock's zero).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(u64);

impl Instant {
    /// An instant, from nanoseconds.
    #[inline]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// The instant in nanoseconds.
    #[inline]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The instant in milliseconds, counted modulo 2^32: what a flow remembers. Differences are right for 24 days.
    #[inline]
    pub(crate) const fn as_millis(self) -> u32 {
        (self.0 / 1_000_000) as u32
    }

    /// The instant so many milliseconds ago.
    pub(crate) const fn millis_ago(self, millis: u32) -> Self {
        Self(self.0.saturating_sub(millis as u64 * 1_000_000))
    }

    /// Nanoseconds since `earlier`; 0 when that lies ahead.
    #[inline]
    pub const fn nanos_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}
