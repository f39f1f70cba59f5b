//! From one slice to the next: only what differs.
//!
//! Groups are numbered by their place within a slice, so a group that comes or goes moves the numbers of others. A delta
//! therefore has numbers of its own, places in its list of names, and what stays is numbered anew on both sides.

mod numbering;

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::fmt::Display;
use std::hash::Hash;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use self::numbering::Numbering;
use super::{
    FirewallSettings, Slice, SliceDigest, SliceGroup, SliceHost, SliceIdentity, SliceNetwork, SlicePolicy,
    SlicePort, SliceRouter,
};

/// A slice in the order that deltas speak of, with its digest. As JSON it is a [`SliceState`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SealedSlice {
    digest: SliceDigest,
    slice: Arc<Slice>,
}

/// A whole slice as it is sent to a host that takes deltas.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SliceState {
    /// What the sender has for the slice's digest. A receiver that finds another one is of a version that deltas of
    /// this sender cannot be applied in.
    pub digest: SliceDigest,
    /// The slice.
    pub slice: Slice,
}

/// Names one slice of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SliceVersion {
    /// Its revision.
    pub revision: u64,
    /// Its digest.
    pub digest: SliceDigest,
}

/// How a host's slice becomes the next one. All of it or nothing is applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SliceDelta {
    /// The revision of the slice it changes.
    pub from: u64,
    /// The revision of the slice it leads to.
    pub revision: u64,
    /// The digest of the slice it leads to.
    pub digest: SliceDigest,
    /// Groups that `identities` and `policies` speak of, by name: their numbers in this delta are places here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// Networks, by name.
    #[serde(default, skip_serializing_if = "Changes::is_empty")]
    pub networks: Changes<String, SliceNetwork>,
    /// Ports, by number.
    #[serde(default, skip_serializing_if = "Changes::is_empty")]
    pub ports: Changes<u32, SlicePort>,
    /// Routers, by name.
    #[serde(default, skip_serializing_if = "Changes::is_empty")]
    pub routers: Changes<String, SliceRouter>,
    /// Hosts, by name.
    #[serde(default, skip_serializing_if = "Changes::is_empty")]
    pub hosts: Changes<String, SliceHost>,
    /// Groups, by name.
    #[serde(default, skip_serializing_if = "Changes::is_empty")]
    pub groups: Changes<String, SliceGroup>,
    /// Identities, by number.
    #[serde(default, skip_serializing_if = "Changes::is_empty")]
    pub identities: Changes<u32, SliceIdentity>,
    /// Policies, by name.
    #[serde(default, skip_serializing_if = "Changes::is_empty")]
    pub policies: Changes<String, SlicePolicy>,
    /// How the host tracks flows from now on; as before when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<FirewallSettings>,
}

/// What differs in one section of a slice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Changes<K, T> {
    /// Items that are new or take the place of the one with the same key.
    #[serde(default = "Vec::new", skip_serializing_if = "Vec::is_empty")]
    pub put: Vec<T>,
    /// Keys of items that are gone.
    #[serde(default = "Vec::new", skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<K>,
}

impl<K, T> Changes<K, T> {
    /// True when nothing differs.
    pub fn is_empty(&self) -> bool {
        self.put.is_empty() && self.remove.is_empty()
    }
}

impl<K, T> Default for Changes<K, T> {
    fn default() -> Self {
        Self { put: Vec::new(), remove: Vec::new() }
    }
}

/// Why a delta was not applied. Nothing of it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeltaError {
    /// It is for another slice.
    #[error("it begins at revision {from}, but the slice is of revision {have}")]
    WrongBase {
        /// The revision it is for.
        from: u64,
        /// The revision there is.
        have: u64,
    },
    /// It removes what is not there.
    #[error("it removes {key:?} from {section}, where there is no such item")]
    NotThere {
        /// The section.
        section: &'static str,
        /// The item's key.
        key: String,
    },
    /// It says two things about one item.
    #[error("it names {key:?} in {section} twice")]
    Twice {
        /// The section.
        section: &'static str,
        /// The item's key.
        key: String,
    },
    /// An item speaks of a group that the slice would not have.
    #[error("{key:?} in {section} would name a group that is not there")]
    NoSuchGroup {
        /// The section.
        section: &'static str,
        /// The item's key.
        key: String,
    },
    /// It leads to another slice than it says.
    #[error("it leads to a slice with digest {got}, but should to {expected}")]
    Digest {
        /// The digest it names.
        expected: SliceDigest,
        /// The digest of what it leads to.
        got: SliceDigest,
    },
}

impl SealedSlice {
    /// Puts a slice in order. Groups keep their places, since these are their numbers.
    pub fn new(mut slice: Slice) -> Self {
        slice.networks.sort_by(Item::order);
        slice.ports.sort_by(Item::order);
        slice.routers.sort_by(Item::order);
        slice.hosts.sort_by(Item::order);
        slice.identities.sort_by(Item::order);
        slice.policies.sort_by(Item::order);
        Self { digest: slice.digest(), slice: Arc::new(slice) }
    }

    /// The slice.
    pub fn slice(&self) -> &Arc<Slice> {
        &self.slice
    }

    /// Its digest.
    pub const fn digest(&self) -> SliceDigest {
        self.digest
    }

    /// Its name among the slices of the host.
    pub fn version(&self) -> SliceVersion {
        SliceVersion { revision: self.slice.revision, digest: self.digest }
    }

    /// The slice that a delta leads to.
    ///
    /// # Errors
    /// When the delta does not fit this slice, or does not lead where it says.
    pub fn apply(&self, delta: &SliceDelta) -> Result<Self, DeltaError> {
        let base = &*self.slice;
        if delta.from != base.revision {
            return Err(DeltaError::WrongBase { from: delta.from, have: base.revision });
        }
        let groups = applied(&base.groups, &delta.groups, |_| true, |_| true)?;
        let stay = Numbering::of(base.groups.iter().map(|group| group.name.as_str()), &groups);
        let come = Numbering::of(delta.names.iter().map(String::as_str), &groups);
        let slice = Slice {
            revision: delta.revision,
            host: base.host.clone(),
            networks: applied(&base.networks, &delta.networks, |_| true, |_| true)?,
            ports: applied(&base.ports, &delta.ports, |_| true, |_| true)?,
            routers: applied(&base.routers, &delta.routers, |_| true, |_| true)?,
            hosts: applied(&base.hosts, &delta.hosts, |_| true, |_| true)?,
            identities: applied(
                &base.identities,
                &delta.identities,
                |identity| stay.identity(identity),
                |identity| come.identity(identity),
            )?,
            policies: applied(
                &base.policies,
                &delta.policies,
                |policy| stay.policy(policy),
                |policy| come.policy(policy),
            )?,
            groups,
            settings: delta.settings.unwrap_or(base.settings),
        };
        let got = slice.digest();
        if got != delta.digest {
            return Err(DeltaError::Digest { expected: delta.digest, got });
        }
        Ok(Self { digest: got, slice: Arc::new(slice) })
    }
}

impl SliceState {
    /// The slice in order, and whether its digest is the one that the sender has: when not, deltas of this sender
    /// cannot be applied here.
    pub fn seal(self) -> (SealedSlice, bool) {
        let sealed = SealedSlice::new(self.slice);
        let agreed = sealed.digest == self.digest;
        (sealed, agreed)
    }
}

impl SliceDelta {
    /// What leads from one slice to another of the same host; none when that cannot be said, because groups are not in
    /// order or something speaks of a group that is not there.
    pub fn between(from: &SealedSlice, to: &SealedSlice) -> Option<Self> {
        let digest = to.digest;
        let (from, to) = (&*from.slice, &*to.slice);
        let Slice { revision, host, networks, ports, routers, hosts, groups, identities, policies, settings } =
            to;
        let in_order = |groups: &[SliceGroup]| groups.is_sorted_by(|one, next| one.name < next.name);
        if from.host != *host || !in_order(&from.groups) || !in_order(groups) {
            return None;
        }
        let stay = Numbering::of(from.groups.iter().map(|group| group.name.as_str()), groups);
        let mut identities = changes(&from.identities, identities, |old, new| {
            if stay.is_identity() { old == new } else { stay.moved_identity(old).as_ref() == Some(new) }
        });
        let mut policies = changes(&from.policies, policies, |old, new| {
            if stay.is_identity() { old == new } else { stay.moved_policy(old).as_ref() == Some(new) }
        });
        let named = identities.put.iter().flat_map(|identity| identity.groups.iter().copied());
        let named: HashSet<u32> = named.chain(policies.put.iter().flat_map(numbering::of_policy)).collect();
        let place = |number: &u32| usize::try_from(*number).ok();
        let mut numbers: Vec<u32> = named.into_iter().collect();
        numbers.sort_unstable();
        let names = numbers.iter().map(|number| groups.get(place(number)?).map(|group| group.name.clone()));
        let names: Vec<String> = names.collect::<Option<_>>()?;
        let go = Numbering::to_places(groups.len(), &numbers);
        let moved = identities.put.iter_mut().all(|identity| go.identity(identity))
            && policies.put.iter_mut().all(|policy| go.policy(policy));
        moved.then(|| Self {
            from: from.revision,
            revision: *revision,
            digest,
            names,
            networks: changes(&from.networks, networks, PartialEq::eq),
            ports: changes(&from.ports, ports, PartialEq::eq),
            routers: changes(&from.routers, routers, PartialEq::eq),
            hosts: changes(&from.hosts, hosts, PartialEq::eq),
            groups: changes(&from.groups, groups, PartialEq::eq),
            identities,
            policies,
            settings: (from.settings != *settings).then_some(*settings),
        })
    }
}

/// Something that has a key within its section, and a place.
trait Item: Clone + PartialEq {
    type Key: Clone + Ord + Hash + Display;
    const SECTION: &'static str;
    fn key(&self) -> &Self::Key;

    fn order(&self, other: &Self) -> Ordering {
        self.key().cmp(other.key())
    }
}

impl Item for SliceNetwork {
    type Key = String;
    const SECTION: &'static str = "networks";

    fn key(&self) -> &String {
        &self.name
    }
}

impl Item for SlicePort {
    type Key = u32;
    const SECTION: &'static str = "ports";

    fn key(&self) -> &u32 {
        &self.id
    }

    fn order(&self, other: &Self) -> Ordering {
        (&self.workload, &self.name, self.id).cmp(&(&other.workload, &other.name, other.id))
    }
}

impl Item for SliceRouter {
    type Key = String;
    const SECTION: &'static str = "routers";

    fn key(&self) -> &String {
        &self.name
    }
}

impl Item for SliceHost {
    type Key = String;
    const SECTION: &'static str = "hosts";

    fn key(&self) -> &String {
        &self.name
    }
}

impl Item for SliceGroup {
    type Key = String;
    const SECTION: &'static str = "groups";

    fn key(&self) -> &String {
        &self.name
    }
}

impl Item for SliceIdentity {
    type Key = u32;
    const SECTION: &'static str = "identities";

    fn key(&self) -> &u32 {
        &self.id
    }
}

impl Item for SlicePolicy {
    type Key = String;
    const SECTION: &'static str = "policies";

    fn key(&self) -> &String {
        &self.name
    }

    /// The order of judgement.
    fn order(&self, other: &Self) -> Ordering {
        (self.tier, self.priority, &self.name).cmp(&(other.tier, other.priority, &other.name))
    }
}

/// What differs between two sections, `same` being the judge.
fn changes<T: Item>(from: &[T], to: &[T], same: impl Fn(&T, &T) -> bool) -> Changes<T::Key, T> {
    let before: HashMap<&T::Key, &T> = from.iter().map(|item| (item.key(), item)).collect();
    let differs = |item: &&T| !before.get(item.key()).is_some_and(|before| same(before, item));
    let after: HashSet<&T::Key> = to.iter().map(Item::key).collect();
    Changes {
        put: to.iter().filter(differs).cloned().collect(),
        remove: from.iter().map(Item::key).filter(|key| !after.contains(key)).cloned().collect(),
    }
}

/// A section with changes made. What stays goes through `stay`, what is put through `come`; either says whether the item
/// can be.
fn applied<T: Item>(
    base: &[T],
    changes: &Changes<T::Key, T>,
    stay: impl Fn(&mut T) -> bool,
    come: impl Fn(&mut T) -> bool,
) -> Result<Vec<T>, DeltaError> {
    let section = T::SECTION;
    let there: HashSet<&T::Key> = base.iter().map(Item::key).collect();
    let mut named = HashSet::new();
    for key in &changes.remove {
        if !there.contains(key) {
            return Err(DeltaError::NotThere { section, key: key.to_string() });
        }
    }
    for key in changes.remove.iter().chain(changes.put.iter().map(Item::key)) {
        if !named.insert(key) {
            return Err(DeltaError::Twice { section, key: key.to_string() });
        }
    }
    let mut items = Vec::with_capacity(base.len() + changes.put.len());
    let mut take = |item: &T, fits: &dyn Fn(&mut T) -> bool| {
        let mut item = item.clone();
        if !fits(&mut item) {
            return Err(DeltaError::NoSuchGroup { section, key: item.key().to_string() });
        }
        items.push(item);
        Ok(())
    };
    for item in base.iter().filter(|item| !named.contains(item.key())) {
        take(item, &stay)?;
    }
    for item in &changes.put {
        take(item, &come)?;
    }
    items.sort_by(Item::order);
    Ok(items)
}
