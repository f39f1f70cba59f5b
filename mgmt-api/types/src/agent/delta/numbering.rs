//! Numbers of groups in one list, and in another.

use std::collections::HashMap;

use crate::agent::{Peer, SliceGroup, SliceIdentity, SlicePolicy};

/// By number in the one list, the number in the other; none when the group is not there.
pub(super) struct Numbering(Vec<Option<u32>>);

impl Numbering {
    /// From places of `names` to places of `groups`.
    pub(super) fn of<'a>(names: impl Iterator<Item = &'a str>, groups: &[SliceGroup]) -> Self {
        let places: HashMap<&str, u32> = groups.iter().map(|group| group.name.as_str()).zip(0..).collect();
        Self(names.map(|name| places.get(name).copied()).collect())
    }

    /// From each of the `numbers`, all less than `count`, to its place among them.
    pub(super) fn to_places(count: usize, numbers: &[u32]) -> Self {
        let mut places = vec![None; count];
        for (place, number) in (0..).zip(numbers) {
            if let Some(slot) = usize::try_from(*number).ok().and_then(|number| places.get_mut(number)) {
                *slot = Some(place);
            }
        }
        Self(places)
    }

    /// True when every number stays as it is.
    pub(super) fn is_identity(&self) -> bool {
        self.0.iter().zip(0..).all(|(to, from)| *to == Some(from))
    }

    /// Gives an identity's groups their other numbers. False when one has none.
    pub(super) fn identity(&self, identity: &mut SliceIdentity) -> bool {
        let all = identity.groups.iter_mut().all(|number| self.renumber(number));
        // Ascending, as they are in every slice.
        identity.groups.sort_unstable();
        all
    }

    /// Gives a policy's groups their other numbers. False when one has none.
    pub(super) fn policy(&self, policy: &mut SlicePolicy) -> bool {
        let rules = policy.rules.iter_mut().flat_map(|rule| rule.from.iter_mut().chain(&mut rule.to));
        policy.applies_to.iter_mut().chain(rules).all(|peer| match peer {
            Peer::Group(number) => self.renumber(number),
            Peer::Any | Peer::Cidr(_) => true,
        })
    }

    /// The identity with its groups' other numbers; none when one has none.
    pub(super) fn moved_identity(&self, identity: &SliceIdentity) -> Option<SliceIdentity> {
        let mut moved = identity.clone();
        self.identity(&mut moved).then_some(moved)
    }

    /// The policy with its groups' other numbers; none when one has none.
    pub(super) fn moved_policy(&self, policy: &SlicePolicy) -> Option<SlicePolicy> {
        let mut moved = policy.clone();
        self.policy(&mut moved).then_some(moved)
    }

    fn renumber(&self, number: &mut u32) -> bool {
        let to = usize::try_from(*number).ok().and_then(|number| self.0.get(number).copied().flatten());
        to.is_some_and(|to| {
            *number = to;
            true
        })
    }
}

/// Every group that a policy speaks of.
pub(super) fn of_policy(policy: &SlicePolicy) -> impl Iterator<Item = u32> {
    let rules = policy.rules.iter().flat_map(|rule| rule.from.iter().chain(&rule.to));
    policy.applies_to.iter().chain(rules).filter_map(|peer| match peer {
        Peer::Group(number) => Some(*number),
        Peer::Any | Peer::Cidr(_) => None,
    })
}
