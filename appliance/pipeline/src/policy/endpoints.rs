//! One set of rules per side and direction for each distinct set of groups.
//!
//! An endpoint is an identity at an address of some class (see [`Addresses`](super::addresses::Addresses)): in the
//! groups of both. Identity 0 comes first and has all classes, so that an unknown address's class is its endpoint.

use core::net::IpAddr;

use super::rule_set::{Packer, RuleSet};
use super::rules::{Everybody, LocalSide, Members, Rules};
use super::{Direction, Endpoint, IdentityConfig, PolicyError};

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
    words: Box<[u64]>,
    /// Sorted members of each endpoint: groups, and networks named without one.
    members: Box<[u32]>,
    /// Where those of each endpoint begin, and where those of the last end.
    members_first: Box<[u32]>,
}

/// Where an endpoint's sets are, by direction.
#[derive(Clone, Copy, Debug, Default)]
struct Sets {
    local: [u32; 2],
    remote: [u32; 2],
}

impl Endpoints {
    /// Compiles the endpoints that are possible: identity 0 anywhere, each identity without an address, and each at
    /// the addresses it is known to have.
    pub(super) fn new(
        rules: &Rules,
        identities: &[IdentityConfig],
        known: &[(u32, IpAddr)],
    ) -> Result<Self, PolicyError> {
        let identities = Identities::new(rules, identities)?;
        let mut builder = Builder::new(rules)?;
        let (mut first, mut classes) = (vec![0], Vec::new());
        let places = identities.places(rules, known)?;
        for here in places.chunk_by(|a, b| a.0 == b.0) {
            for (identity, class) in here {
                builder.endpoint(identities.groups(*identity), rules.addresses.members(*class))?;
                classes.push(*class);
            }
            first.push(classes.len() as u32);
        }
        Ok(Self {
            identities: identities.0.iter().map(|(id, _)| *id).collect(),
            first: first.into(),
            classes: classes.into(),
            sets: builder.sets.into(),
            words: builder.packer.finish(),
            members: builder.members.into(),
            members_first: builder.members_first.into(),
        })
    }

    /// The endpoint of an identity in a class of addresses, if that was said to exist.
    pub(super) fn find(&self, identity: u32, class: u32) -> Option<Endpoint> {
        let place = self.identities.binary_search(&identity).ok()?;
        let (from, to) = (*self.first.get(place)? as usize, *self.first.get(place + 1)? as usize);
        let at = from + self.classes.get(from..to)?.binary_search(&class).ok()?;
        Some(Endpoint(at as u32))
    }

    /// The packed set of an endpoint as the local side.
    #[inline]
    pub(super) fn local(&self, endpoint: Endpoint, direction: Direction) -> &[u64] {
        self.packed(self.sets.get(endpoint.0 as usize).map(|sets| sets.local[direction as usize]))
    }

    /// The packed set of an endpoint as the remote side.
    #[inline]
    pub(super) fn remote(&self, endpoint: Endpoint, direction: Direction) -> &[u64] {
        self.packed(self.sets.get(endpoint.0 as usize).map(|sets| sets.remote[direction as usize]))
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
        (numbers + self.members_first.len()) * 4 + self.sets.len() * size_of::<Sets>() + self.words.len() * 8
    }

    /// Nothing for an endpoint of another policy.
    #[inline]
    fn packed(&self, at: Option<u32>) -> &[u64] {
        at.and_then(|at| self.words.get(at as usize..)).unwrap_or_default()
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

    fn groups(&self, place: u32) -> &'a [u32] {
        self.0.get(place as usize).map_or(&[], |(_, groups)| groups)
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

struct Builder<'a> {
    rules: &'a Rules,
    packer: Packer,
    /// The sets of who is in no group.
    nobody: Sets,
    sets: Vec<Sets>,
    members: Vec<u32>,
    members_first: Vec<u32>,
    /// Empty between two sets.
    set: RuleSet,
    applies: RuleSet,
    own: RuleSet,
}

impl<'a> Builder<'a> {
    fn new(rules: &'a Rules) -> Result<Self, PolicyError> {
        let mut packer = Packer::new(rules.shape);
        let mut nobody = Sets::default();
        // Where sets are full, everybody is not looked at beside them; so it is here as the set of who is in no group.
        if rules.shape.is_full() {
            for (direction, sides) in rules.sides.iter().enumerate() {
                nobody.local[direction] = packer.push_full(&sides.local.everybody.set)?;
                nobody.remote[direction] = packer.push_full(&sides.remote.set)?;
            }
        }
        Ok(Self {
            rules,
            packer,
            nobody,
            sets: Vec::new(),
            members: Vec::new(),
            members_first: vec![0],
            set: RuleSet::new(rules.shape),
            applies: RuleSet::new(rules.shape),
            own: RuleSet::new(rules.shape),
        })
    }

    /// Adds an endpoint that is in these groups and networks.
    fn endpoint(&mut self, groups: &[u32], networks: &[u32]) -> Result<(), PolicyError> {
        let mut members: Vec<u32> = groups.iter().chain(networks).copied().collect();
        members.sort_unstable();
        members.dedup();
        self.members.extend(&members);
        self.members_first.push(self.members.len() as u32);
        let mut sets = Sets::default();
        for (direction, sides) in self.rules.sides.iter().enumerate() {
            self.gather_local(&sides.local, &members);
            sets.local[direction] = self.pack(&sides.local.everybody, self.nobody.local[direction])?;
            gather(&mut self.set, &sides.remote_members, &members);
            sets.remote[direction] = self.pack(&sides.remote, self.nobody.remote[direction])?;
        }
        self.sets.push(sets);
        Ok(())
    }

    fn gather_local(&mut self, side: &LocalSide, members: &[u32]) {
        gather(&mut self.set, &side.members, members);
        gather(&mut self.applies, &side.applies, members);
        gather(&mut self.own, &side.own, members);
        self.set.unite_common(&self.applies, &self.own);
        self.applies.clear();
        self.own.clear();
    }

    fn pack(&mut self, everybody: &Everybody, everybody_at: u32) -> Result<u32, PolicyError> {
        let at = self.packer.push(&self.set, &everybody.set, everybody_at);
        self.set.clear();
        at
    }
}

fn gather(set: &mut RuleSet, of: &Members, members: &[u32]) {
    for (word, bits) in members.iter().flat_map(|member| of.of(*member)) {
        set.unite(*word, *bits);
    }
}
