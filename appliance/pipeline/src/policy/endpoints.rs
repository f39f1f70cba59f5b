//! One set of rules per side and direction for each distinct set of groups.
//!
//! An endpoint is an identity at an address of some class (see [`Addresses`](super::addresses::Addresses)): in the
//! groups of both. Identity 0 comes first and has all classes, so that an unknown address's class is its endpoint.
//!
//! Sets are packed twice over: what was there when everything was last packed, shared by all policies since then, and
//! beside it what came later.

use core::net::IpAddr;
use std::sync::Arc;

use super::members::Members;
use super::rule_set::{Packed, Packer, RuleSet, Shape, Side};
use super::rules::{LocalSide, Rules};
use super::{Direction, Endpoint, IdentityConfig, PolicyError};

/// Of the sets of all endpoints: 512 MiB.
const MOST_WORDS: usize = 1 << 26;
/// The part of the sets that all policies share since everything was last packed.
const SHARED: u32 = 0;
/// The part that came later.
const LATER: u32 = 1;
/// Everything is packed anew when more than one in so many came later or is of no use any more.
const MOST_LATER: usize = 8;

/// The sets of all endpoints.
#[derive(Debug)]
pub(super) struct Endpoints {
    /// Sorted.
    identities: Box<[u32]>,
    /// Where the endpoints of each identity begin, and where those of the last end.
    first: Box<[u32]>,
    /// The class of each endpoint, sorted within an identity.
    classes: Box<[u32]>,
    sets: Box<[Sets]>,
    /// What [`SHARED`] sets were packed into, and what those that came later.
    words: [Arc<Vec<u64>>; 2],
    /// How many endpoints there were when everything was last packed.
    packed: usize,
    /// Sorted members of each endpoint: groups, and networks named without one.
    members: Box<[u32]>,
    /// Where those of each endpoint begin, and where those of the last end.
    members_first: Box<[u32]>,
}

/// An endpoint's sets by direction.
#[derive(Clone, Copy, Debug, Default)]
struct Sets {
    local: [Packed; 2],
    remote: [Packed; 2],
}

impl Endpoints {
    /// Compiles the endpoints that are possible: identity 0 anywhere, each identity without an address, and each at
    /// the addresses it is known to have. `previous` has the same rules.
    pub(super) fn new(
        rules: &Rules,
        identities: &[IdentityConfig],
        known: &[(u32, IpAddr)],
        previous: Option<&Self>,
    ) -> Result<Self, PolicyError> {
        let identities = Identities::new(rules, identities)?;
        let places = identities.places(rules, known)?;
        let mut builder = Builder::new(rules, previous, places.len());
        let (mut first, mut classes) = (vec![0], Vec::with_capacity(places.len()));
        for here in places.chunk_by(|a, b| a.0 == b.0) {
            for (place, class) in here {
                let (identity, groups) = identities.at(*place);
                builder.endpoint(identity, *class, groups)?;
                classes.push(*class);
            }
            first.push(classes.len() as u32);
        }
        builder.build(identities.numbers(), first.into(), classes.into())
    }

    /// The endpoint of an identity in a class of addresses, if that was said to exist.
    pub(super) fn find(&self, identity: u32, class: u32) -> Option<Endpoint> {
        let place = self.identities.binary_search(&identity).ok()?;
        let (from, to) = (*self.first.get(place)? as usize, *self.first.get(place + 1)? as usize);
        let at = from + self.classes.get(from..to)?.binary_search(&class).ok()?;
        Some(Endpoint(at as u32))
    }

    /// The rules that may count at a port of this endpoint; none at one of another policy.
    #[inline]
    pub(super) fn local<'a>(
        &'a self,
        rules: &'a Rules,
        endpoint: Endpoint,
        direction: Direction,
    ) -> Side<'a> {
        let set = self.sets.get(endpoint.0 as usize).map(|sets| sets.local[direction as usize]);
        self.side(&rules.sides[direction as usize].local.everybody, set)
    }

    /// The rules whose remote side it is.
    #[inline]
    pub(super) fn remote<'a>(
        &'a self,
        rules: &'a Rules,
        endpoint: Endpoint,
        direction: Direction,
    ) -> Side<'a> {
        let set = self.sets.get(endpoint.0 as usize).map(|sets| sets.remote[direction as usize]);
        self.side(&rules.sides[direction as usize].remote, set)
    }

    /// What an endpoint is a member of, sorted.
    pub(super) fn members(&self, endpoint: Endpoint) -> &[u32] {
        let place = endpoint.0 as usize;
        let range = self.members_first.get(place).zip(self.members_first.get(place + 1));
        range.and_then(|(from, to)| self.members.get(*from as usize..*to as usize)).unwrap_or_default()
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.sets.len()
    }

    /// Bytes.
    pub(super) fn size(&self) -> usize {
        let numbers = self.identities.len() + self.first.len() + self.classes.len() + self.members.len();
        (numbers + self.members_first.len()) * 4
            + size_of_val(&*self.sets)
            + self.words.iter().map(|words| size_of_val(&words[..])).sum::<usize>()
    }

    #[inline]
    fn side<'a>(&'a self, common: &'a RuleSet, own: Option<Packed>) -> Side<'a> {
        let own = own.unwrap_or_default();
        Side { common, own: own.of(self.part(own)) }
    }

    #[inline]
    fn part(&self, set: Packed) -> &[u64] {
        self.words.get(set.part as usize).map(|words| &words[..]).unwrap_or_default()
    }
}

/// Identities by number, 0 first.
struct Identities<'a>(Vec<(u32, &'a [u32])>);

impl<'a> Identities<'a> {
    fn new(rules: &Rules, given: &'a [IdentityConfig]) -> Result<Self, PolicyError> {
        let have = rules.config.groups.len();
        let mut all: Vec<(u32, &[u32])> = Vec::with_capacity(given.len() + 1);
        all.push((0, &[]));
        for IdentityConfig { id, groups } in given {
            if let Some(group) = groups.iter().find(|group| **group as usize >= have) {
                return Err(PolicyError::UnknownGroupOfIdentity { identity: *id, group: *group, have });
            }
            if *id != 0 {
                all.push((*id, groups));
            } else if !groups.is_empty() {
                return Err(PolicyError::IdentityZero { groups: groups.len() });
            }
        }
        all.sort_unstable_by_key(|(id, _)| *id);
        match all.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            Some(pair) => Err(PolicyError::DuplicateIdentity { identity: pair[0].0 }),
            None => Ok(Self(all)),
        }
    }

    /// The number and the groups of an identity.
    fn at(&self, place: u32) -> (u32, &'a [u32]) {
        self.0.get(place as usize).copied().unwrap_or_default()
    }

    fn numbers(&self) -> Box<[u32]> {
        self.0.iter().map(|(id, _)| *id).collect()
    }

    /// Places of identities and their classes, sorted, each once.
    fn places(&self, rules: &Rules, known: &[(u32, IpAddr)]) -> Result<Vec<(u32, u32)>, PolicyError> {
        let everywhere = (0..rules.addresses.classes()).map(|class| (0, class));
        let nowhere = (0..self.0.len() as u32).map(|place| (place, 0));
        let mut all: Vec<(u32, u32)> = everywhere.chain(nowhere).collect();
        for (identity, address) in known {
            let (identity, address) = (*identity, *address);
            let place = self.0.binary_search_by_key(&identity, |(id, _)| *id);
            let place = place.map_err(|_| PolicyError::UnknownIdentity { address, identity })?;
            match rules.addresses.class(address) {
                0 => {}
                class => all.push((place as u32, class)),
            }
        }
        all.sort_unstable();
        all.dedup();
        Ok(all)
    }
}

/// Collects endpoints, sorted by identity and class.
struct Builder<'a> {
    rules: &'a Rules,
    previous: Option<&'a Endpoints>,
    /// The first endpoint of `previous` that may be equal to what comes: its place, and that of its identity.
    next: (usize, usize),
    sets: Vec<Sets>,
    packer: Packer,
    /// Endpoints whose sets are shared with `previous`.
    shared: usize,
    members: Vec<u32>,
    members_first: Vec<u32>,
    /// Empty between two sets.
    set: RuleSet,
    applies: RuleSet,
    own: RuleSet,
}

impl<'a> Builder<'a> {
    fn new(rules: &'a Rules, previous: Option<&'a Endpoints>, count: usize) -> Self {
        let empty = || RuleSet::new(rules.shape);
        Self {
            rules,
            previous,
            next: (0, 0),
            sets: Vec::with_capacity(count),
            packer: Packer::new(rules.shape, MOST_WORDS, if previous.is_some() { LATER } else { SHARED }),
            shared: 0,
            members: Vec::with_capacity(count * 4),
            members_first: vec![0],
            set: empty(),
            applies: empty(),
            own: empty(),
        }
    }

    /// Adds an endpoint that is in these groups and in the networks of a class.
    fn endpoint(&mut self, identity: u32, class: u32, groups: &[u32]) -> Result<(), PolicyError> {
        let from = self.members.len();
        self.members.extend(groups);
        self.members.extend(self.rules.addresses.members(class));
        let here = &mut self.members[from..];
        here.sort_unstable();
        let kept = dedup(here);
        self.members.truncate(from + kept);
        self.members_first.push(self.members.len() as u32);
        let sets = match self.unchanged(identity, class, from) {
            Some((previous, sets)) => self.keep(previous, sets)?,
            None => self.make(from)?,
        };
        self.sets.push(sets);
        Ok(())
    }

    /// The sets that the endpoint had before, if its members, from `from` on, are the same.
    fn unchanged(&mut self, identity: u32, class: u32, from: usize) -> Option<(&'a Endpoints, Sets)> {
        let previous = self.previous?;
        let (at, owner) = &mut self.next;
        loop {
            let known = *previous.identities.get(*owner)?;
            if *previous.first.get(*owner + 1)? as usize <= *at {
                *owner += 1;
            } else if (known, *previous.classes.get(*at)?) < (identity, class) {
                *at += 1;
            } else {
                break;
            }
        }
        let same =
            previous.identities.get(*owner) == Some(&identity) && previous.classes.get(*at) == Some(&class);
        let members = previous.members(Endpoint(*at as u32));
        let sets = *previous.sets.get(*at)?;
        (same && self.members.get(from..) == Some(members)).then_some((previous, sets))
    }

    /// What all share stays where it is, what came later is copied.
    fn keep(&mut self, previous: &Endpoints, sets: Sets) -> Result<Sets, PolicyError> {
        let Sets { local: [a, b], remote: [c, d] } = sets;
        if [a, b, c, d].iter().all(|set| set.part == SHARED) {
            self.shared += 1;
            return Ok(sets);
        }
        let mut copy = |set: Packed| self.packer.copy(set, previous.part(set));
        Ok(Sets { local: [copy(a)?, copy(b)?], remote: [copy(c)?, copy(d)?] })
    }

    fn make(&mut self, from: usize) -> Result<Sets, PolicyError> {
        let mut sets = Sets::default();
        for (direction, sides) in self.rules.sides.iter().enumerate() {
            self.gather_local(&sides.local, from);
            sets.local[direction] = self.pack(&sides.local.everybody)?;
            gather(&mut self.set, &sides.remote_members, &self.members[from..]);
            sets.remote[direction] = self.pack(&sides.remote)?;
        }
        Ok(sets)
    }

    fn gather_local(&mut self, side: &LocalSide, from: usize) {
        let members = &self.members[from..];
        gather(&mut self.set, &side.members, members);
        gather(&mut self.applies, &side.applies, members);
        gather(&mut self.own, &side.own, members);
        self.set.unite_common(&self.applies, &self.own);
        self.applies.clear();
        self.own.clear();
    }

    fn pack(&mut self, everybody: &RuleSet) -> Result<Packed, PolicyError> {
        let packed = self.packer.push(&self.set, everybody);
        self.set.clear();
        packed
    }

    fn build(
        self,
        identities: Box<[u32]>,
        first: Box<[u32]>,
        classes: Box<[u32]>,
    ) -> Result<Endpoints, PolicyError> {
        let words = Arc::new(self.packer.finish());
        let count = self.sets.len();
        let (words, packed) = match self.previous {
            None => ([words, Arc::default()], count),
            Some(previous) => {
                let [shared, _] = &previous.words;
                ([Arc::clone(shared), words], previous.packed)
            }
        };
        let all = Endpoints {
            identities,
            first,
            classes,
            sets: self.sets.into(),
            words,
            packed,
            members: self.members.into(),
            members_first: self.members_first.into(),
        };
        let waste = packed.saturating_sub(self.shared) + count.saturating_sub(self.shared);
        let repack = self.previous.is_some() && waste * MOST_LATER > packed;
        if repack { all.repacked(self.rules.shape) } else { Ok(all) }
    }
}

impl Endpoints {
    /// The same, with nothing later and nothing of no use.
    fn repacked(mut self, shape: Shape) -> Result<Self, PolicyError> {
        let mut packer = Packer::new(shape, MOST_WORDS, SHARED);
        let mut sets = core::mem::take(&mut self.sets);
        let count = sets.len();
        for set in sets.iter_mut().flat_map(|sets| sets.local.iter_mut().chain(&mut sets.remote)) {
            *set = packer.copy(*set, self.part(*set))?;
        }
        Ok(Self { sets, words: [Arc::new(packer.finish()), Arc::default()], packed: count, ..self })
    }
}

fn gather(set: &mut RuleSet, of: &Members, members: &[u32]) {
    for (word, bits) in members.iter().flat_map(|member| of.of(*member)) {
        set.unite(*word, *bits);
    }
}

/// Moves the first of each run of equal numbers to the front, and says how many there are.
fn dedup(sorted: &mut [u32]) -> usize {
    let mut kept = 0;
    for place in 0..sorted.len() {
        if place == 0 || sorted[place] != sorted[kept - 1] {
            sorted[kept] = sorted[place];
            kept += 1;
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::super::{Action, FirewallPolicyConfig, GroupConfig, Peer, RuleConfig, RulesConfig, Tier};
    use super::*;

    /// Forty identities, each in a group of its own, and as many rules, each about one of them.
    fn world() -> (Rules, Vec<IdentityConfig>) {
        let name = |number: u32| Arc::from(format!("{number}"));
        let rule = |number| RuleConfig {
            id: number,
            name: name(number),
            direction: None,
            action: Action::Allow,
            from: vec![Peer::Group(number)],
            to: vec![],
            services: vec![],
            log: false,
            keep_established: false,
        };
        let policy = FirewallPolicyConfig {
            name: "p".into(),
            revision: 1,
            tier: Tier::Application,
            priority: 0,
            audit: false,
            applies_to: vec![Peer::Any],
            rules: (0..40).map(rule).collect(),
        };
        let groups = (0..40).map(|number| GroupConfig { name: name(number), cidrs: vec![] }).collect();
        let rules = Rules::new(&Arc::new(RulesConfig { groups, policies: vec![policy] })).unwrap();
        (rules, (1..=40).map(|id| IdentityConfig { id, groups: vec![id - 1] }).collect())
    }

    #[test]
    fn what_did_not_change_is_shared_and_what_changed_stands_beside_it() {
        let (rules, mut identities) = world();
        let first = Endpoints::new(&rules, &identities, &[], None).unwrap();
        identities[7].groups = vec![3, 5];
        identities.remove(20);
        let second = Endpoints::new(&rules, &identities, &[], Some(&first)).unwrap();
        assert!(Arc::ptr_eq(&first.words[0], &second.words[0]));
        assert_eq!(second.words[1].len(), 4, "two sides in two directions, a word each");
        identities[9].groups = vec![4];
        let third = Endpoints::new(&rules, &identities, &[], Some(&second)).unwrap();
        assert!(Arc::ptr_eq(&first.words[0], &third.words[0]));
        assert_eq!(third.words[1].len(), 8);
    }

    #[test]
    fn after_many_changes_everything_is_packed_anew() {
        let (rules, mut identities) = world();
        let first = Endpoints::new(&rules, &identities, &[], None).unwrap();
        identities[..10].iter_mut().for_each(|identity| identity.groups = vec![39]);
        let second = Endpoints::new(&rules, &identities, &[], Some(&first)).unwrap();
        assert!(!Arc::ptr_eq(&first.words[0], &second.words[0]));
        assert_eq!((second.words[0].len(), second.words[1].len()), (41 * 4, 0));
    }

    #[test]
    fn equal_neighbours_are_kept_once() {
        for (sorted, want) in
            [(vec![], vec![]), (vec![1, 1], vec![1]), (vec![1, 2, 2, 3, 3, 3], vec![1, 2, 3])]
        {
            let mut sorted = sorted;
            let kept = dedup(&mut sorted);
            assert_eq!(sorted[..kept], want);
        }
    }
}
