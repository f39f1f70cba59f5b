//! Which rules a service matches.
//!
//! Per protocol, the ports that rules name cut 0 to 65535 into intervals, each matched by the same rules everywhere.
//! An interval is found by the high byte of the port first, then among the few that begin under it.

use std::collections::BTreeMap;

use super::rule_set::{Packed, Packer, RuleSet, Shape, Side};
use super::{PolicyError, Service};

/// RFC 792: ICMP; RFC 9293: TCP; RFC 768: UDP; RFC 4443: ICMPv6; RFC 9260: SCTP.
const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP_V6: u8 = 58;
const SCTP: u8 = 132;

/// Of the sets of all ports: 64 MiB.
const MOST_WORDS: usize = 1 << 23;

/// Whether ports of a protocol can be matched.
pub(super) fn has_ports(protocol: Option<u8>) -> bool {
    matches!(protocol, Some(TCP | UDP | SCTP))
}

/// Whether types of a protocol can be matched.
pub(super) fn has_types(protocol: Option<u8>) -> bool {
    matches!(protocol, Some(ICMP | ICMP_V6))
}

/// Finds the rules of a service.
#[derive(Debug)]
pub(super) struct Services {
    /// The place of each protocol in `entries`. Those that no rule names share the first.
    protocols: Box<[u8; 256]>,
    entries: Box<[Entry]>,
    words: Vec<u64>,
}

#[derive(Debug)]
struct Entry {
    /// Rules for the protocol, whatever the port.
    whole: RuleSet,
    without_port: Packed,
    ports: Option<Ports>,
}

/// The ports of a protocol.
#[derive(Debug)]
struct Ports {
    /// Where in `starts` each high byte begins, and where the last ends.
    pages: Box<[u32]>,
    /// Sorted; the first is 0.
    starts: Box<[u16]>,
    sets: Box<[Packed]>,
}

impl Services {
    /// The rules of a service.
    #[inline]
    pub(super) fn find(&self, service: Service) -> Option<Side<'_>> {
        let place = self.protocols[usize::from(service.protocol)];
        let entry = self.entries.get(usize::from(place))?;
        let ports = entry.ports.as_ref().zip(service.port);
        let own = ports.and_then(|(ports, port)| ports.find(port)).unwrap_or(entry.without_port);
        Some(Side { common: &entry.whole, own: own.of(&self.words) })
    }

    /// Bytes.
    pub(super) fn size(&self) -> usize {
        let ports = |ports: &Ports| ports.pages.len() * 4 + ports.starts.len() * (2 + size_of::<Packed>());
        let entry = |entry: &Entry| entry.whole.size() + entry.ports.as_ref().map_or(0, ports);
        256 + self.entries.iter().map(entry).sum::<usize>() + size_of_val(&self.words[..])
    }
}

impl Ports {
    #[inline]
    fn find(&self, port: u16) -> Option<Packed> {
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
    pub(super) fn build(self, rules: usize, shape: Shape) -> Result<Services, PolicyError> {
        let nothing = RuleSet::new(shape);
        let mut everything = RuleSet::new(shape);
        self.everything.iter().for_each(|rule| everything.insert(*rule));
        let mut protocols = Box::new([0; 256]);
        let mut packer = Packer::new(shape, MOST_WORDS, 0);
        let without_port = packer.push(&nothing, &everything)?;
        let mut entries = vec![Entry { whole: everything.clone(), without_port, ports: None }];
        let mut sweep = Sweep { set: nothing.clone(), hits: vec![0; rules] };
        for (protocol, of) in self.protocols {
            let mut whole = everything.clone();
            of.whole.iter().for_each(|rule| whole.insert(*rule));
            let without_port = packer.push(&nothing, &whole)?;
            let ports = if of.ranges.is_empty() {
                None
            } else {
                Some(Ports::new(&of.ranges, &whole, &mut sweep, &mut packer)?)
            };
            if let Some(place) = protocols.get_mut(usize::from(protocol)) {
                // Should all 256 protocols be named, the first entry is nobody's and the last has its place.
                *place = u8::try_from(entries.len()).unwrap_or(0);
            }
            let entry = Entry { whole, without_port, ports };
            match u8::try_from(entries.len()) {
                Ok(_) => entries.push(entry),
                Err(_) => entries[0] = entry,
            }
        }
        Ok(Services { protocols, entries: entries.into(), words: packer.finish() })
    }
}

/// The rules that match the port at hand; empty before and after a protocol.
struct Sweep {
    set: RuleSet,
    /// How many ranges of each rule hold it: a rule may name one port several times.
    hits: Vec<u32>,
}

impl Sweep {
    fn enter(&mut self, rule: u32) {
        if let Some(hits) = self.hits.get_mut(rule as usize) {
            *hits += 1;
            self.set.insert(rule);
        }
    }

    fn leave(&mut self, rule: u32) {
        if let Some(hits) = self.hits.get_mut(rule as usize) {
            *hits -= 1;
            if *hits == 0 {
                self.set.remove(rule);
            }
        }
    }
}

impl Ports {
    fn new(
        ranges: &[(u16, u16, u32)],
        whole: &RuleSet,
        sweep: &mut Sweep,
        packer: &mut Packer,
    ) -> Result<Self, PolicyError> {
        // Where a range begins, and behind where it ends. Beginnings first: what goes on is never left in between.
        let mut events: Vec<(u32, bool, u32)> = Vec::with_capacity(2 * ranges.len());
        for (low, high, rule) in ranges {
            events.push((u32::from(*low), false, *rule));
            events.push((u32::from(*high) + 1, true, *rule));
        }
        events.sort_unstable();
        let (mut starts, mut sets) = (vec![0], vec![packer.push(&sweep.set, whole)?]);
        for together in events.chunk_by(|a, b| a.0 == b.0) {
            for (_, ends, rule) in together {
                if *ends { sweep.leave(*rule) } else { sweep.enter(*rule) }
            }
            match together.first().map(|(at, ..)| u16::try_from(*at)) {
                Some(Ok(0)) => sets = vec![packer.push(&sweep.set, whole)?],
                Some(Ok(start)) => {
                    starts.push(start);
                    sets.push(packer.push(&sweep.set, whole)?);
                }
                // Behind the last port.
                Some(Err(_)) | None => {}
            }
        }
        let below = |page: u32| starts.partition_point(|start| u32::from(*start) < page << 8) as u32;
        Ok(Self { pages: (0..=256).map(below).collect(), starts: starts.into(), sets: sets.into() })
    }
}
