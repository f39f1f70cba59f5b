//! For every group, the rules that being in it fulfils.

use super::PolicyError;

/// Words of all groups' rules: 256 MiB.
const MOST_WORDS: usize = 1 << 24;

/// For every group, the rules that being in it fulfils: place and bits of each word that is not zero.
#[derive(Debug, Default)]
pub(super) struct Members {
    words: Box<[(u32, u64)]>,
    first: Box<[u32]>,
}

impl Members {
    /// The words of a group, in order.
    pub(super) fn of(&self, group: u32) -> &[(u32, u64)] {
        let group = group as usize;
        let range = self.first.get(group).zip(self.first.get(group + 1));
        range.and_then(|(from, to)| self.words.get(*from as usize..*to as usize)).unwrap_or_default()
    }

    /// Bytes.
    pub(super) fn size(&self) -> usize {
        self.words.len() * 16 + self.first.len() * 4
    }
}

/// Words that are not zero and their places, in order.
#[derive(Clone, Debug, Default)]
pub(super) struct WordList(Vec<(u32, u64)>);

impl WordList {
    /// Rules come in order of judgement.
    pub(super) fn insert(&mut self, rule: u32) {
        self.unite(rule / 64, 1 << (rule % 64));
    }

    /// `word` is never below that of an earlier call: rules come in order of judgement.
    fn unite(&mut self, word: u32, bits: u64) {
        match self.0.last_mut() {
            Some(last) if last.0 == word => last.1 |= bits,
            _ => self.0.push((word, bits)),
        }
    }
}

/// Collects members, rules in order of judgement.
pub(super) struct MembersBuilder {
    groups: Vec<WordList>,
    words: usize,
}

impl MembersBuilder {
    /// Of so many groups.
    pub(super) fn new(groups: usize) -> Self {
        Self { groups: vec![WordList::default(); groups], words: 0 }
    }

    /// Being in one of `members` fulfils a rule.
    pub(super) fn rule(&mut self, members: &[u32], rule: u32) {
        for member in members {
            if let Some(list) = self.groups.get_mut(*member as usize) {
                list.insert(rule);
            }
        }
    }

    /// Being in one of `members` fulfils many rules.
    pub(super) fn words(&mut self, members: &[u32], words: &WordList) -> Result<(), PolicyError> {
        self.words += members.len() * words.0.len();
        if self.words > MOST_WORDS {
            return Err(PolicyError::TooLarge { what: "words of groups' rules", most: MOST_WORDS });
        }
        for member in members {
            if let Some(list) = self.groups.get_mut(*member as usize) {
                words.0.iter().for_each(|(word, bits)| list.unite(*word, *bits));
            }
        }
        Ok(())
    }

    /// All of it, packed.
    pub(super) fn build(self) -> Members {
        let mut first = vec![0];
        let mut words = Vec::with_capacity(self.groups.iter().map(|list| list.0.len()).sum());
        for list in self.groups {
            words.extend(list.0);
            first.push(words.len() as u32);
        }
        Members { words: words.into(), first: first.into() }
    }
}
