//! Sets of rules: being made, packed, and searched for what they have in common.
//!
//! Rules are numbered in order of judgement, 64 to a word. With few rules a packed set has all words, what matches
//! everybody included. With many rules it begins with a summary, one bit for each word that is not zero, and has only
//! those words:
//!
//! ```text
//! up to 512 rules    word 0 | word 1 | … | word n
//! more               summary 0 | … | summary m | words that are not zero
//! ```
//!
//! What matches everybody is then one set with all words, beside which each endpoint and each service has a packed one
//! of its own: ten thousand endpoints repeat nothing, and a search reads few cache lines that are cold.

use super::PolicyError;

/// Rules of all policies.
pub(super) const MOST_RULES: usize = 1 << 16;

/// Up to this many words, a cache line, sets are packed whole.
const WHOLE: usize = 8;

/// How many words sets have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    words: usize,
    /// None when sets are packed whole.
    summary: usize,
}

impl Shape {
    /// Of sets of so many rules.
    pub(super) fn of(rules: usize) -> Self {
        let words = rules.div_ceil(64);
        Self { words, summary: if words <= WHOLE { 0 } else { words.div_ceil(64) } }
    }

    fn is_whole(self) -> bool {
        self.summary == 0
    }
}

/// A set with all its words.
#[derive(Clone, Debug)]
pub(super) struct RuleSet {
    words: Vec<u64>,
    /// A bit for each word that is not zero.
    summary: Vec<u64>,
}

impl RuleSet {
    pub(super) fn new(shape: Shape) -> Self {
        Self { words: vec![0; shape.words], summary: vec![0; shape.words.div_ceil(64)] }
    }

    pub(super) fn insert(&mut self, rule: u32) {
        self.unite(rule / 64, 1 << (rule % 64));
    }

    pub(super) fn remove(&mut self, rule: u32) {
        let place = rule as usize / 64;
        self.words[place] &= !(1 << (rule % 64));
        if self.words[place] == 0 {
            self.summary[place / 64] &= !(1 << (place % 64));
        }
    }

    /// Adds the rules of one word; `bits` is not zero.
    #[inline]
    pub(super) fn unite(&mut self, place: u32, bits: u64) {
        self.words[place as usize] |= bits;
        self.summary[place as usize / 64] |= 1 << (place % 64);
    }

    /// Adds what is in both `a` and `b`.
    pub(super) fn unite_common(&mut self, a: &Self, b: &Self) {
        for (block, (a_used, b_used)) in a.summary.iter().zip(&b.summary).enumerate() {
            for bit in Bits(a_used & b_used) {
                let place = block as u32 * 64 + bit;
                let common = a.word(place as usize) & b.word(place as usize);
                if common != 0 {
                    self.unite(place, common);
                }
            }
        }
    }

    /// The 64 rules from `64 * place` on.
    #[inline]
    pub(super) fn word(&self, place: usize) -> u64 {
        self.words.get(place).copied().unwrap_or(0)
    }

    /// Empties it at the cost of what is in it.
    pub(super) fn clear(&mut self) {
        for (block, used) in self.summary.iter_mut().enumerate() {
            for bit in Bits(core::mem::take(used)) {
                self.words[block * 64 + bit as usize] = 0;
            }
        }
    }

    /// Bytes.
    pub(super) fn size(&self) -> usize {
        (self.words.len() + self.summary.len()) * 8
    }

    fn used_words(&self) -> impl Iterator<Item = u64> {
        let blocks = self.summary.iter().enumerate();
        blocks.flat_map(move |(block, used)| Bits(*used).map(move |bit| self.word(block * 64 + bit as usize)))
    }
}

/// Where a packed set is; by default, an empty one that is nowhere.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packed {
    at: u32,
    /// Which of several packers it was packed by.
    pub(super) part: u32,
}

impl Default for Packed {
    fn default() -> Self {
        Self { at: u32::MAX, part: 0 }
    }
}

impl Packed {
    /// The set and what lies behind it, of what it was packed into.
    #[inline]
    pub(super) fn of(self, words: &[u64]) -> &[u64] {
        words.get(self.at as usize..).unwrap_or_default()
    }

    /// How many words it has of those that it was packed into.
    pub(super) fn len(self, shape: Shape, words: &[u64]) -> usize {
        let set = self.of(words);
        if shape.is_whole() {
            return shape.words.min(set.len());
        }
        let used: u32 = set.iter().take(shape.summary).map(|used| used.count_ones()).sum();
        (shape.summary + used as usize).min(set.len())
    }
}

/// Packed sets, one after the other.
#[derive(Debug)]
pub(super) struct Packer {
    shape: Shape,
    words: Vec<u64>,
    most: usize,
    part: u32,
}

impl Packer {
    /// One of several, for at most so many words.
    pub(super) fn new(shape: Shape, most: usize, part: u32) -> Self {
        Self { shape, words: Vec::new(), most, part }
    }

    /// Packs what is in `set` but for all in `common`, and says where it is.
    pub(super) fn push(&mut self, set: &RuleSet, common: &RuleSet) -> Result<Packed, PolicyError> {
        let at = self.words.len() as u32;
        if self.shape.is_whole() {
            self.words.extend(set.words.iter().zip(&common.words).map(|(own, common)| own | common));
        } else if set.summary.iter().all(|used| *used == 0) {
            return Ok(Packed::default());
        } else {
            self.words.extend(&set.summary);
            self.words.extend(set.used_words());
        }
        self.bounded(at)
    }

    /// Copies a set that was packed into `words`.
    pub(super) fn copy(&mut self, set: Packed, words: &[u64]) -> Result<Packed, PolicyError> {
        let at = self.words.len() as u32;
        let copied = set.of(words).get(..set.len(self.shape, words)).unwrap_or_default();
        if copied.is_empty() {
            return Ok(Packed::default());
        }
        self.words.extend(copied);
        self.bounded(at)
    }

    /// All of them.
    pub(super) fn finish(self) -> Vec<u64> {
        self.words
    }

    fn bounded(&self, at: u32) -> Result<Packed, PolicyError> {
        if self.words.len() > self.most {
            return Err(PolicyError::TooLarge { what: "words of rule sets", most: self.most });
        }
        Ok(Packed { at, part: self.part })
    }
}

/// One of the sets that a search is about: what everybody has, and beside it a packed one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Side<'a> {
    pub(super) common: &'a RuleSet,
    pub(super) own: &'a [u64],
}

/// Calls `found` with the place of each word that is not zero in the common set of three, and with the word, in order,
/// until that returns something. Best when the smaller ones come first.
#[inline]
pub(super) fn search<T>(
    shape: Shape,
    sides: [Side<'_>; 3],
    mut found: impl FnMut(usize, u64) -> Option<T>,
) -> Option<T> {
    let mut call = |place, word| if word == 0 { None } else { found(place, word) };
    if shape.is_whole() {
        let [a, b, c] = sides.map(|side| side.own.get(..shape.words).unwrap_or_default());
        let words = a.iter().zip(b).zip(c).map(|((a, b), c)| a & b & c);
        return words.enumerate().find_map(|(place, word)| call(place, word));
    }
    // Where the packed words begin that belong to the summary at hand.
    let mut first = [shape.summary; 3];
    for block in 0..shape.summary {
        let own: [u64; 3] = core::array::from_fn(|i| word(sides[i].own, block));
        let used: [u64; 3] = core::array::from_fn(|i| word(&sides[i].common.summary, block) | own[i]);
        for bit in Bits(used[0] & used[1] & used[2]) {
            let place = block * 64 + bit as usize;
            let side = |i: usize| {
                let common = word(&sides[i].common.words, place);
                if own[i] >> bit & 1 == 0 {
                    return common;
                }
                let before = own[i] & ((1 << bit) - 1);
                common | word(sides[i].own, first[i] + before.count_ones() as usize)
            };
            let two = side(0) & side(1);
            if two == 0 {
                continue;
            }
            if let Some(done) = call(place, two & side(2)) {
                return Some(done);
            }
        }
        first = core::array::from_fn(|i| first[i] + own[i].count_ones() as usize);
    }
    None
}

/// A set is packed with all its words. Were one not there, no rule would match by it.
#[inline]
fn word(set: &[u64], place: usize) -> u64 {
    set.get(place).copied().unwrap_or(0)
}

/// The bits of a word, from the lowest on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bits(pub(super) u64);

impl Iterator for Bits {
    type Item = u32;

    #[inline]
    fn next(&mut self) -> Option<u32> {
        if self.0 == 0 {
            return None;
        }
        let bit = self.0.trailing_zeros();
        self.0 &= self.0 - 1;
        Some(bit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(rules: usize, members: &[u32]) -> RuleSet {
        let mut set = RuleSet::new(Shape::of(rules));
        members.iter().for_each(|rule| set.insert(*rule));
        set
    }

    fn common(rules: usize, sides: [(&[u32], &[u32]); 3]) -> Vec<u32> {
        let shape = Shape::of(rules);
        let mut packer = Packer::new(shape, 10_000, 0);
        let sides = sides.map(|(common, own)| {
            let common = set(rules, common);
            (packer.push(&set(rules, own), &common).unwrap(), common)
        });
        let words = packer.finish();
        let sides: Vec<Side<'_>> =
            sides.iter().map(|(own, common)| Side { common, own: own.of(&words) }).collect();
        let mut all = Vec::new();
        search(shape, sides.try_into().unwrap(), |place, word| -> Option<()> {
            all.extend(Bits(word).map(|bit| place as u32 * 64 + bit));
            None
        });
        all
    }

    #[test]
    fn what_is_in_all_three_is_found_in_order_whatever_the_size() {
        for rules in [1usize, 64, 65, 512, 513, 5000, MOST_RULES] {
            let last = rules as u32 - 1;
            let middle = last / 2;
            let mut want = vec![0, middle, last];
            want.dedup();
            let found =
                common(rules, [(&[0], &[middle, last]), (&[middle], &[0, last]), (&[last, 0], &[middle])]);
            assert_eq!(found, want, "{rules} rules");
            assert_eq!(common(rules, [(&[], &[0]), (&[0], &[]), (&[], &[])]), [0u32; 0], "{rules} rules");
        }
    }

    #[test]
    fn a_search_ends_where_something_is_found() {
        let everything = set(2000, &[3, 700, 1999]);
        let side = Side { common: &everything, own: &[] };
        let found = search(Shape::of(2000), [side; 3], |place, _| (place >= 5).then_some(place));
        assert_eq!(found, Some(700 / 64));
    }

    #[test]
    fn a_cleared_set_is_empty_and_so_is_one_whose_rules_were_removed() {
        let mut one = set(10_000, &[0, 63, 64, 9_999]);
        for rule in [0, 63, 64, 9_999] {
            assert_ne!(one.used_words().count(), 0);
            one.remove(rule);
        }
        assert_eq!(one.used_words().count(), 0);
        let mut other = set(10_000, &[5_000, 7]);
        other.clear();
        assert!(other.used_words().count() == 0 && other.words.iter().all(|word| *word == 0));
    }

    #[test]
    fn a_packer_that_is_full_says_so() {
        // One word is not zero, and there are two of summary.
        let mut packer = Packer::new(Shape::of(5000), 6, 0);
        let nothing = set(5000, &[]);
        assert!(packer.push(&set(5000, &[1, 2]), &nothing).is_ok());
        assert!(packer.push(&nothing, &nothing).is_ok());
        assert!(packer.push(&set(5000, &[4999]), &nothing).is_ok());
        let full = PolicyError::TooLarge { what: "words of rule sets", most: 6 };
        assert_eq!(packer.push(&set(5000, &[1]), &nothing).unwrap_err(), full);
    }

    #[test]
    fn a_copied_set_is_the_same_in_its_new_place() {
        for rules in [100, 5000] {
            let shape = Shape::of(rules);
            let (mut first, mut second) = (Packer::new(shape, 100, 0), Packer::new(shape, 100, 1));
            let nothing = set(rules, &[]);
            first.push(&set(rules, &[1, 70]), &nothing).unwrap();
            let packed = first.push(&set(rules, &[64, 99]), &nothing).unwrap();
            first.push(&set(rules, &[2, 71]), &nothing).unwrap();
            let words = first.finish();
            let copied = second.copy(packed, &words).unwrap();
            let copies = second.finish();
            assert_eq!((copied.at, copied.part), (0, 1));
            assert_eq!(copied.of(&copies), &packed.of(&words)[..packed.len(shape, &words)]);
        }
    }
}
