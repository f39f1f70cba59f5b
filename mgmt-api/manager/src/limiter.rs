//! How much of what is refused gets written down: enough to see who and what, never enough to fill a disk.
//!
//! Each source address has a small allowance and all together have one, so that a flood from one address neither
//! hides the others nor costs more than a few writes a second.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Instant;

/// Entries one source may make at once, and how many more each second.
const SOURCE: Allowance = Allowance { burst: 10.0, per_second: 1.0 };
/// The same for all sources together; each entry is a write to disk.
const ALL: Allowance = Allowance { burst: 50.0, per_second: 5.0 };
/// Most sources that are told apart; beyond them, those longest quiet are forgotten.
const SOURCES: usize = 1024;

/// What counts as one source: an IPv4 address, or the /64 an IPv6 address is in, for whoever has one of those addresses
/// has them all.
pub(crate) fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let prefix = u128::from(address) & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from(prefix))
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Allowance {
    burst: f64,
    per_second: f64,
}

#[derive(Debug)]
struct Bucket {
    allowance: Allowance,
    tokens: f64,
    since: Instant,
}

impl Bucket {
    fn new(allowance: Allowance, now: Instant) -> Self {
        Self { allowance, tokens: allowance.burst, since: now }
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.since).as_secs_f64();
        self.tokens = self.allowance.burst.min(self.tokens + passed * self.allowance.per_second);
        self.since = now;
    }
}

/// What is known of one source.
#[derive(Debug)]
struct Source {
    bucket: Bucket,
    suppressed: u64,
}

/// Decides which refusals are written.
#[derive(Debug)]
pub(crate) struct Limiter {
    all: Bucket,
    sources: HashMap<IpAddr, Source>,
    /// Suppressed refusals of sources that were forgotten.
    forgotten: u64,
}

impl Limiter {
    pub(crate) fn new(now: Instant) -> Self {
        Self { all: Bucket::new(ALL, now), sources: HashMap::new(), forgotten: 0 }
    }

    /// True, as the number of refusals left out since the last one written, when this one is to be written.
    pub(crate) fn admit(&mut self, from: IpAddr, now: Instant) -> Option<u64> {
        let from = source(from);
        if !self.sources.contains_key(&from) && self.sources.len() >= SOURCES {
            self.forget();
        }
        let source = self
            .sources
            .entry(from)
            .or_insert_with(|| Source { bucket: Bucket::new(SOURCE, now), suppressed: 0 });
        source.bucket.fill(now);
        self.all.fill(now);
        if source.bucket.tokens < 1.0 || self.all.tokens < 1.0 {
            source.suppressed = source.suppressed.saturating_add(1);
            return None;
        }
        source.bucket.tokens -= 1.0;
        self.all.tokens -= 1.0;
        let suppressed = std::mem::take(&mut source.suppressed);
        Some(suppressed.saturating_add(std::mem::take(&mut self.forgotten)))
    }

    /// Makes room: half of the sources, those longest quiet.
    fn forget(&mut self) {
        let mut times: Vec<Instant> = self.sources.values().map(|source| source.bucket.since).collect();
        let (_, middle, _) = times.select_nth_unstable(SOURCES / 2);
        let middle = *middle;
        let mut forgotten = self.forgotten;
        self.sources.retain(|_, source| {
            let stays = source.bucket.since > middle;
            if !stays {
                forgotten = forgotten.saturating_add(source.suppressed);
            }
            stays
        });
        self.forgotten = forgotten;
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use super::*;

    #[test]
    fn addresses_of_one_ipv6_subnet_are_one_source() {
        let parse = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(source(parse("2001:db8::1")), source(parse("2001:db8::ffff:1")));
        assert_ne!(source(parse("2001:db8::1")), source(parse("2001:db8:0:1::1")));
        assert_eq!(source(parse("::ffff:192.0.2.1")), parse("192.0.2.1"));
    }

    fn host(n: u32) -> IpAddr {
        Ipv4Addr::from_bits(n).into()
    }

    #[test]
    fn a_flood_from_one_source_is_counted_not_written() {
        let start = Instant::now();
        let mut limiter = Limiter::new(start);
        let written = (0..10_000).filter(|_| limiter.admit(host(1), start).is_some()).count();
        assert_eq!(written, 10);
        assert_eq!(limiter.admit(host(2), start), Some(0));
        assert_eq!(limiter.admit(host(1), start + Duration::from_secs(1)), Some(9990));
    }

    #[test]
    fn a_flood_from_many_sources_is_bounded_in_writes_and_memory() {
        let start = Instant::now();
        let mut limiter = Limiter::new(start);
        let mut written = 0;
        for n in 0..100_000u32 {
            let now = start + Duration::from_micros(u64::from(n) * 100);
            written += u32::from(limiter.admit(host(n), now).is_some());
            assert!(limiter.sources.len() <= SOURCES);
        }
        // 50 at once and 5 a second for 10 seconds.
        assert!((95..=101).contains(&written), "{written}");
    }
}
