//! Sets of rules: being made, and packed to be looked up.
//!
//! Rules are numbered in order of judgement, 64 to a word. A packed set is one of three forms in one flat array:
//!
//! ```text
//! few rules (up to 256)   full    word 0 … word n          every word, what matches everybody included
//! many rules              full    summary | word 0 … word n       one bit of summary for each word that is not zero
//!                         sparse  summary | the words that are not zero
//! ```
//!
//! With many rules, what matches everybody stands in one full set beside which each endpoint and service has only a
//! sparse set of its own: 10,000 endpoints repeat nothing, and a search reads few cold cache lines.

use super::PolicyError;

/// Up to this many words every set is full: reading four words costs less than finding out which are needed.
const FULL: usize = 4;

/// Words of all packed sets of a kind: 256 MiB.
const MOST_WORDS: usize = 1 << 25;

/// How many words the sets of a policy have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// 64 rules each.
    pub(super) words: usize,
    /// 64 words each; none when all sets are full.
    pub(super) summary: usize,
}

impl Shape {
    /// For that many rules.
    pub(super) fn of(rules: usize) -> Self {
        let words = rules.div_ceil(64);
        Self { words, summary: if words <= FULL { 0 } else { words.div_ceil(64) } }
    }

    /// Whether all sets are full and hold what matches everybody too.
    #[inline]
    pub(super) fn is_full(self) -> bool {
        self.summary == 0
    }
}

/// A set that is being made.
#[derive(Clone, Debug)]
pub(super) struct RuleSet {
    pub(super) words: Vec<u64>,
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
        let word = rule as usize / 64;
        self.words[word] &= !(1 << (rule % 64));
        if self.words[word] == 0 {
            self.summary[word / 64] &= !(1 << (word % 64));
        }
    }

    /// Adds the rules of one word; `bits` is not zero.
    pub(super) fn unite(&mut self, word: u32, bits: u64) {
        self.words[word as usize] |= bits;
        self.summary[word as usize / 64] |= 1 << (word % 64);
    }

    /// Adds what is in both `a` and `b`.
    pub(super) fn unite_common(&mut self, a: &Self, b: &Self) {
        for (place, (a_words, b_words)) in a.summary.iter().zip(&b.summary).enumerate() {
            for bit in Bits(a_words & b_words) {
                let word = place as u32 * 64 + bit;
                let common = a.words[word as usize] & b.words[word as usize];
                if common != 0 {
                    self.unite(word, common);
                }
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.summary.iter().all(|word| *word == 0)
    }

    /// Empties it at the cost of what is in it.
    pub(super) fn clear(&mut self) {
        for (place, summary) in self.summary.iter_mut().enumerate() {
            for bit in Bits(core::mem::take(summary)) {
                self.words[place * 64 + bit as usize] = 0;
            }
        }
    }

    fn words_in_use(&self) -> impl Iterator<Item = u64> {
        let places = self.summary.iter().enumerate();
        places.flat_map(move |(place, summary)| {
            Bits(*summary).map(move |bit| self.words[place * 64 + bit as usize])
        })
    }
}

/// Packed sets, one after the other.
#[derive(Debug)]
pub(super) struct Packer {
    shape: Shape,
    words: Vec<u64>,
}

impl Packer {
    pub(super) fn new(shape: Shape) -> Self {
        // A search reads whole sets: the empty sparse set is at 0.
        Self { shape, words: vec![0; shape.summary] }
    }

    /// Packs a full set, and says where it is.
    pub(super) fn push_full(&mut self, set: &RuleSet) -> Result<u32, PolicyError> {
        let at = self.next(self.shape.words)?;
        self.words.extend(&set.summary[..self.shape.summary]);
        self.words.extend(&set.words);
        Ok(at)
    }

    /// Packs the rules of `set` beside those of `common`, which is a full set at `common_at`, and says where it is.
    pub(super) fn push(
        &mut self,
        set: &RuleSet,
        common: &RuleSet,
        common_at: u32,
    ) -> Result<u32, PolicyError> {
        if self.shape.is_full() {
            if set.is_empty() {
                return Ok(common_at);
            }
            let at = self.next(self.shape.words)?;
            self.words.extend(set.words.iter().zip(&common.words).map(|(own, common)| own | common));
            return Ok(at);
        }
        if set.is_empty() {
            return Ok(0);
        }
        let at = self.next(set.summary.iter().map(|word| word.count_ones() as usize).sum())?;
        self.words.extend(&set.summary);
        self.words.extend(set.words_in_use());
        Ok(at)
    }

    pub(super) fn finish(self) -> Box<[u64]> {
        self.words.into_boxed_slice()
    }

    /// Where a set of `words` words will be.
    fn next(&self, words: usize) -> Result<u32, PolicyError> {
        let at = self.words.len();
        if at + self.shape.summary + words > MOST_WORDS {
            return Err(PolicyError::TooLarge { what: "words of rule sets", most: MOST_WORDS });
        }
        Ok(at as u32)
    }
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

/// Three sets that are searched for what is in all of them: each what matches everybody and, beside it, its own.
pub(super) struct Search<'a> {
    /// Full sets; unused when all sets are full.
    pub(super) common: [&'a [u64]; 3],
    /// Sparse sets, or full ones.
    pub(super) own: [&'a [u64]; 3],
}

impl Search<'_> {
    /// Calls `found` with each word that is not zero, and its place, in order, until that returns something.
    #[inline]
    pub(super) fn run<T>(&self, shape: Shape, mut found: impl FnMut(usize, u64) -> Option<T>) -> Option<T> {
        if shape.is_full() {
            return self.run_full(shape, found);
        }
        // Where the sparse words begin that belong to the summary word at hand.
        let mut first = [shape.summary; 3];
        for place in 0..shape.summary {
            let own: [u64; 3] = core::array::from_fn(|i| word(self.own[i], place));
            let either: [u64; 3] = core::array::from_fn(|i| word(self.common[i], place) | own[i]);
            for bit in Bits(either[0] & either[1] & either[2]) {
                let below = (1 << bit) - 1;
                let at = place * 64 + bit as usize;
                let side = |i: usize| {
                    let common = word(self.common[i], shape.summary + at);
                    if own[i] >> bit & 1 == 0 {
                        return common;
                    }
                    common | word(self.own[i], first[i] + (own[i] & below).count_ones() as usize)
                };
                let all = side(0) & side(1) & side(2);
                if all != 0
                    && let Some(done) = found(at, all)
                {
                    return Some(done);
                }
            }
            first = core::array::from_fn(|i| first[i] + own[i].count_ones() as usize);
        }
        None
    }

    #[inline]
    fn run_full<T>(&self, shape: Shape, mut found: impl FnMut(usize, u64) -> Option<T>) -> Option<T> {
        let [a, b, c] = self.own.map(|set| set.get(..shape.words).unwrap_or_default());
        for (place, ((a, b), c)) in a.iter().zip(b).zip(c).enumerate() {
            let all = a & b & c;
            if all != 0
                && let Some(done) = found(place, all)
            {
                return Some(done);
            }
        }
        None
    }
}

/// Sets are built whole, so the word is always there; were it not, no rule would match by it.
#[inline]
fn word(set: &[u64], place: usize) -> u64 {
    set.get(place).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(shape: Shape, rules: &[u32]) -> RuleSet {
        let mut set = RuleSet::new(shape);
        rules.iter().for_each(|rule| set.insert(*rule));
        set
    }

    fn common(rules: usize, sides: [(&[u32], &[u32]); 3]) -> Vec<u32> {
        let shape = Shape::of(rules);
        let mut packer = Packer::new(shape);
        let places = sides.map(|(everybody, own)| {
            let everybody = set(shape, everybody);
            let at = packer.push_full(&everybody).unwrap();
            (at as usize, packer.push(&set(shape, own), &everybody, at).unwrap() as usize)
        });
        let words = packer.finish();
        let search =
            Search { common: places.map(|(at, _)| &words[at..]), own: places.map(|(_, at)| &words[at..]) };
        let mut all = Vec::new();
        search.run(shape, |place, word| -> Option<()> {
            all.extend(Bits(word).map(|bit| place as u32 * 64 + bit));
            None
        });
        all
    }

    #[test]
    fn what_is_in_all_three_is_found_in_order_whatever_the_size() {
        for rules in [1usize, 64, 65, 256, 257, 5000, 65536] {
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
    fn a_cleared_set_is_empty_and_so_is_one_whose_rules_were_removed() {
        let shape = Shape::of(10_000);
        let mut one = set(shape, &[0, 63, 64, 9_999]);
        for rule in [0, 63, 64, 9_999] {
            assert!(!one.is_empty());
            one.remove(rule);
        }
        assert!(one.is_empty());
        let mut other = set(shape, &[5_000, 7]);
        other.clear();
        assert!(other.is_empty() && other.words.iter().all(|word| *word == 0));
    }
}
