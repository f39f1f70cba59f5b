//! Which rules a service matches.
//!
//! Per protocol, the ports that rules name cut 0 to 65535 into intervals, each matched by the same rules everywhere.
//! An interval is found by the high byte of the port first, then among the few that begin under it.

use std::collections::BTreeMap;

use super::rule_set::{Packer, RuleSet, Shape};
use super::{PolicyError, Service};

/// RFC 792: ICMP; RFC 9293: TCP; RFC 768: UDP; RFC 4443: ICMPv6; RFC 9260: SCTP.
const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP_V6: u8 = 58;
const SCTP: u8 = 132;

/// Whether ports of a protocol can be matched.
pub(super) fn has_ports(protocol: Option<u8>) -> bool {
    matches!(protocol, Some(TCP | UDP | SCTP))
}

/// Whether types of a protocol can be matched.
pub(super) fn has_types(protocol: Option<u8>) -> bool {
    matches!(protocol, Some(ICMP | ICMP_V6))
}

/// Where the rules of a service are.
#[derive(Clone, Copy, Debug)]
pub(super) struct ServiceSets {
    /// A full set: rules for the protocol, whatever the port.
    pub(super) common: u32,
    /// Those for the port.
    pub(super) own: u32,
}

/// Finds the rules of a service.
#[derive(Debug)]
pub(super) struct Services {
    /// The place of each protocol in `entries`. Those that no rule names share the first.
    protocols: Box<[u8; 256]>,
    entries: Box<[Entry]>,
}

#[derive(Debug)]
struct Entry {
    without_port: ServiceSets,
    ports: Option<Ports>,
}

/// The ports of a protocol.
#[derive(Debug)]
struct Ports {
    /// Where in `starts` each high byte begins, and where the last ends.
    pages: Box<[u32]>,
    /// Sorted; the first is 0.
    starts: Box<[u16]>,
    sets: Box<[u32]>,
}

impl Services {
    /// Where the rules of a service are.
    #[inline]
    pub(super) fn find(&self, service: Service) -> ServiceSets {
        let place = self.protocols[usize::from(service.protocol)];
        let Some(entry) = self.entries.get(usize::from(place)) else {
            return ServiceSets { common: 0, own: 0 };
        };
        match (&entry.ports, service.port) {
            (Some(ports), Some(port)) => {
                ServiceSets { own: ports.find(port).unwrap_or(entry.without_port.own), ..entry.without_port }
            }
            _ => entry.without_port,
        }
    }

    /// Bytes.
    pub(super) fn size(&self) -> usize {
        let ports = self.entries.iter().filter_map(|entry| entry.ports.as_ref());
        256 + ports.map(|ports| ports.pages.len() * 4 + ports.starts.len() * 6).sum::<usize>()
    }
}

impl Ports {
    #[inline]
    fn find(&self, port: u16) -> Option<u32> {
        let page = usize::from(port >> 8);
        let (from, to) = (*self.pages.get(page)? as usize, *self.pages.get(page + 1)? as usize);
        let after = from + self.starts.get(from..to)?.partition_point(|start| *start <= port);
        self.sets.get(after.wrapping_sub(1)).copied()
    }
}

/// What rules match, while it is collected.
#[derive(Debug, Default)]
pub(super) struct ServicesBuilder {
    everything: Vec<u32>,
    protocols: BTreeMap<u8, OfProtocol>,
}

#[derive(Debug, Default)]
struct OfProtocol {
    whole: Vec<u32>,
    /// Lowest and highest port, and the rule.
    ranges: Vec<(u16, u16, u32)>,
}

impl ServicesBuilder {
    /// A rule matches all services.
    pub(super) fn everything(&mut self, rule: u32) {
        self.everything.push(rule);
    }

    /// A rule matches a protocol whole.
    pub(super) fn protocol(&mut self, protocol: u8, rule: u32) {
        self.protocols.entry(protocol).or_default().whole.push(rule);
    }

    /// A rule matches ports, or types and codes, of a protocol.
    pub(super) fn range(&mut self, protocol: u8, (low, high): (u16, u16), rule: u32) {
        self.protocols.entry(protocol).or_default().ranges.push((low, high, rule));
    }

    /// Packs everything.
    pub(super) fn build(
        self,
        rules: usize,
        shape: Shape,
        packer: &mut Packer,
    ) -> Result<Services, PolicyError> {
        let mut everything = RuleSet::new(shape);
        self.everything.iter().for_each(|rule| everything.insert(*rule));
        let mut protocols = Box::new([0; 256]);
        let mut entries =
            vec![Entry { without_port: without_port(&everything, shape, packer)?, ports: None }];
        let mut hits = vec![0; rules];
        for (protocol, of) in self.protocols {
            let mut whole = everything.clone();
            of.whole.iter().for_each(|rule| whole.insert(*rule));
            let without_port = without_port(&whole, shape, packer)?;
            let ports = if of.ranges.is_empty() {
                None
            } else {
                Some(Ports::new(&of.ranges, &whole, without_port.common, &mut hits, shape, packer)?)
            };
            if let Some(place) = protocols.get_mut(usize::from(protocol)) {
                // All 256 protocols may be named beside the entry for those that are not; then nobody uses that one.
                *place = u8::try_from(entries.len()).unwrap_or(0);
            }
            entries.push(Entry { without_port, ports });
        }
        Ok(Services { protocols, entries: entries.into() })
    }
}

fn without_port(whole: &RuleSet, shape: Shape, packer: &mut Packer) -> Result<ServiceSets, PolicyError> {
    let common = packer.push_full(whole)?;
    Ok(ServiceSets { common, own: packer.push(&RuleSet::new(shape), whole, common)? })
}

impl Ports {
    /// `hits` is all zero, before and after.
    fn new(
        ranges: &[(u16, u16, u32)],
        whole: &RuleSet,
        whole_at: u32,
        hits: &mut [u32],
        shape: Shape,
        packer: &mut Packer,
    ) -> Result<Self, PolicyError> {
        // One for each range that begins, and one behind each that ends.
        let mut events: Vec<(u32, u32, bool)> = Vec::with_capacity(2 * ranges.len());
        for (low, high, rule) in ranges {
            events.push((u32::from(*low), *rule, true));
            events.push((u32::from(*high) + 1, *rule, false));
        }
        events.sort_unstable();
        let mut now = RuleSet::new(shape);
        let (mut starts, mut sets) = (Vec::new(), Vec::new());
        if events.first().is_none_or(|(at, ..)| *at > 0) {
            starts.push(0);
            sets.push(packer.push(&now, whole, whole_at)?);
        }
        for together in events.chunk_by(|a, b| a.0 == b.0) {
            for (_, rule, begins) in together {
                // A rule may name one port several times.
                let Some(hits) = hits.get_mut(*rule as usize) else { continue };
                if *begins {
                    *hits += 1;
                    now.insert(*rule);
                }
            }
            for (_, rule, begins) in together {
                let Some(hits) = hits.get_mut(*rule as usize) else { continue };
                if !*begins {
                    *hits -= 1;
                    if *hits == 0 {
                        now.remove(*rule);
                    }
                }
            }
            if let Some(Ok(start)) = together.first().map(|(at, ..)| u16::try_from(*at)) {
                starts.push(start);
                sets.push(packer.push(&now, whole, whole_at)?);
            }
        }
        let below = |page: u32| starts.partition_point(|start| u32::from(*start) < page << 8) as u32;
        Ok(Self { pages: (0..=256).map(below).collect(), starts: starts.into(), sets: sets.into() })
    }
}
