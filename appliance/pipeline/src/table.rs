//! A flat hash table that is built once and then only read.
//!
//! Open addressing with linear probing at a load of at most one half: a hit costs one cache line nearly always, and
//! there is nothing to follow. The hash is one 64×64→128 bit multiplication by a random odd number, folded
//! (multiply-shift hashing is universal: Dietzfelbinger et al., 1997). It is not a cryptographic hash and need not be:
//! keys come from declared state, a tenant who picks MACs neither sees the random key nor any timing finer than a
//! network round trip, and the worst it could buy is a longer probe in its own networks.

/// 128 random bits for the tables, drawn once by whoever builds snapshots.
#[derive(Clone, Copy, Debug)]
pub struct HashKey(pub [u64; 2]);

/// What a [`Table`] can be asked for.
pub(crate) trait Key: Copy + Eq {
    /// A well-spread number.
    fn hash(self, key: HashKey) -> u64;
}

impl Key for u64 {
    #[inline]
    fn hash(self, HashKey([a, b]): HashKey) -> u64 {
        let product = u128::from(self ^ a) * u128::from(b | 1);
        product as u64 ^ (product >> 64) as u64
    }
}

impl Key for (u16, u128) {
    #[inline]
    fn hash(self, key: HashKey) -> u64 {
        let low = (self.1 as u64).hash(key);
        ((self.1 >> 64) as u64 ^ low.rotate_left(32)).hash(key) ^ u64::from(self.0).hash(key).rotate_left(17)
    }
}

/// The table.
#[derive(Debug)]
pub(crate) struct Table<K, V> {
    slots: Box<[Option<(K, V)>]>,
    key: HashKey,
}

impl<K: Key, V: Copy> Table<K, V> {
    /// A table of these entries; of two with the same key the first is found.
    pub(crate) fn new(key: HashKey, entries: &[(K, V)]) -> Self {
        let capacity = (entries.len() * 2).next_power_of_two().max(8);
        let mut this = Self { slots: vec![None; capacity].into_boxed_slice(), key };
        for (key, value) in entries {
            let mut at = this.start(*key);
            while this.slots[at].is_some() {
                at = (at + 1) & (capacity - 1);
            }
            this.slots[at] = Some((*key, *value));
        }
        this
    }

    /// What is known under a key.
    #[inline]
    pub(crate) fn get(&self, key: K) -> Option<V> {
        let mut at = self.start(key);
        // At least half of the slots are empty: the probe ends.
        while let Some((found, value)) = self.slots.get(at)? {
            if *found == key {
                return Some(*value);
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
        None
    }

    #[inline]
    fn start(&self, key: K) -> usize {
        key.hash(self.key) as usize & (self.slots.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: HashKey = HashKey([0x9e37_79b9_7f4a_7c15, 0xd1b5_4a32_d192_ed03]);

    proptest! {
        #[test]
        fn it_finds_what_an_ordered_map_finds(keys in proptest::collection::btree_set(0u64..300, 0..200)) {
            let entries: Vec<(u64, u64)> = keys.iter().map(|key| (*key, key * 3)).collect();
            let table = Table::new(KEY, &entries);
            for key in 0..300 {
                prop_assert_eq!(table.get(key), keys.contains(&key).then_some(key * 3));
            }
        }
    }

    #[test]
    fn neighbouring_keys_spread_over_the_table() {
        // MACs that count up, as derived and as VMMs draw them: the longest probe stays short.
        for stride in [1, 256, 65536, 1 << 40] {
            let entries: Vec<(u64, ())> = (0..5000).map(|i| (0x0200_0000_0000 + i * stride, ())).collect();
            let table = Table::new(KEY, &entries);
            let runs = table.slots.split(Option::is_none).map(<[_]>::len);
            let longest = runs.max().unwrap_or(0);
            assert!(longest < 64, "stride {stride}: a run of {longest}");
        }
    }
}
