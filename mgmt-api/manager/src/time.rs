//! Points in time as certificates and records have them: in seconds since 1970.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// An hour, in seconds.
pub(crate) const HOUR: u64 = 60 * 60;
/// A day, in seconds.
pub(crate) const DAY: u64 = 24 * HOUR;

/// Seconds since 1970; 0 for what was before.
pub(crate) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// RFC 3339 in UTC. What is beyond the year 9999 is shown as its end.
pub(crate) fn rfc3339(seconds: u64) -> String {
    const END: u64 = 253_402_300_799;
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds.min(END))).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_number_of_seconds_can_be_shown() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(u64::MAX), "9999-12-31T23:59:59Z");
    }
}
