//! How much a workload may send.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Mistake;

/// Limit on what a workload sends: a token bucket of packets, one of bits, or both.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RateLimit {
    /// Packets per second, sustained; at least 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub packets_per_second: Option<u64>,
    /// Bits per second, sustained, counted over Ethernet frames without preamble and FCS; at least 8000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 8000)]
    pub bits_per_second: Option<u64>,
    /// Packets that may be sent at once after a pause; what 100 ms allow, at least 64, when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub burst_packets: Option<u64>,
    /// Bytes that may be sent at once after a pause; what 100 ms allow, at least 65536, when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub burst_bytes: Option<u64>,
}

/// One token bucket with its defaults filled in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bucket {
    /// Tokens that come each second: packets, or bytes.
    pub per_second: u64,
    /// Most tokens it holds: packets, or bytes.
    pub burst: u64,
}

impl RateLimit {
    /// The bucket of packets, when packets are limited.
    pub fn packets(&self) -> Option<Bucket> {
        let per_second = self.packets_per_second?;
        Some(Bucket { per_second, burst: self.burst_packets.unwrap_or((per_second / 10).max(64)) })
    }

    /// The bucket of bytes, when bits are limited.
    pub fn bytes(&self) -> Option<Bucket> {
        let per_second = self.bits_per_second? / 8;
        Some(Bucket { per_second, burst: self.burst_bytes.unwrap_or((per_second / 10).max(65536)) })
    }

    /// Adds what is wrong with it; `at` is the field it stands in.
    pub(crate) fn check(&self, found: &mut Vec<Mistake>, at: &str) {
        for (field, value, least) in [
            ("packetsPerSecond", self.packets_per_second, 1),
            ("bitsPerSecond", self.bits_per_second, 8000),
            ("burstPackets", self.burst_packets, 1),
            // One full-size frame must fit, or nothing of that size ever passes.
            ("burstBytes", self.burst_bytes, 1514),
        ] {
            if let Some(value) = value
                && value < least
            {
                found.push(
                    Mistake::new(format!("{at}.{field}"), value, format!("at least {least}"))
                        .detail("the rate limit would stop all traffic"),
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_limit_has_a_burst_of_a_tenth_of_a_second() {
        let limit = RateLimit {
            packets_per_second: Some(10_000),
            bits_per_second: Some(80_000_000),
            ..RateLimit::default()
        };
        assert_eq!(limit.packets(), Some(Bucket { per_second: 10_000, burst: 1000 }));
        assert_eq!(limit.bytes(), Some(Bucket { per_second: 10_000_000, burst: 1_000_000 }));
        assert_eq!(RateLimit::default().packets(), None);
    }
}
