//! Patterns of names.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::name;
use crate::text::{self, Expects};

/// A pattern of names, written `web-*`: `*` stands for any characters or none, `?` for exactly one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Glob(String);

impl Glob {
    /// True when the whole name fits.
    ///
    /// Time is at most the product of both lengths, whatever the pattern: each `*` is tried again only from the last
    /// place it was tried.
    pub fn matches(&self, name: &str) -> bool {
        let (pattern, name) = (self.0.as_bytes(), name.as_bytes());
        let (mut p, mut n) = (0, 0);
        // Where the last `*` stands and how far the name was when it was met.
        let mut star: Option<(usize, usize)> = None;
        while let Some(byte) = name.get(n) {
            match (pattern.get(p), star) {
                (Some(b'*'), _) => {
                    star = Some((p, n));
                    p += 1;
                }
                (Some(wanted), _) if *wanted == b'?' || wanted == byte => {
                    p += 1;
                    n += 1;
                }
                (_, Some((at, taken))) => {
                    star = Some((at, taken + 1));
                    p = at + 1;
                    n = taken + 1;
                }
                (_, None) => return false,
            }
        }
        pattern.iter().skip(p).all(|left| *left == b'*')
    }

    /// True when it is a name without `*` and `?`.
    pub fn is_literal(&self) -> bool {
        !self.0.contains(['*', '?'])
    }
}

/// Why a text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a pattern has 1 to {max} characters from a-z 0-9 - * ?", max = name::MAX)]
pub struct GlobError;

impl Expects for GlobError {
    fn expected(&self) -> String {
        format!("a name or a pattern such as web-*: 1 to {} characters from a-z 0-9 - * ?", name::MAX)
    }
}

impl FromStr for Glob {
    type Err = GlobError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-*?".contains(&b);
        let well_formed = (1..=name::MAX).contains(&text.len()) && text.bytes().all(fits);
        if well_formed { Ok(Self(text.to_owned())) } else { Err(GlobError) }
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Serialize for Glob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Glob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text::parsed(deserializer, "a name or a pattern such as web-*")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_star_is_any_run_and_a_question_mark_is_one() {
        for (pattern, name, fits) in [
            ("web-*", "web-1", true),
            ("web-*", "web-", true),
            ("web-*", "web", false),
            ("web-?", "web-1", true),
            ("web-?", "web-12", false),
            ("*", "a", true),
            ("*-db-*", "eu-db-1", true),
            ("*-db-*", "eu-dc-1", false),
            ("a*b*c", "aXXbYYbZZc".to_lowercase().as_str(), true),
            ("web", "web", true),
            ("web", "web1", false),
        ] {
            assert_eq!(pattern.parse::<Glob>().unwrap().matches(name), fits, "{pattern} {name}");
        }
        for text in ["", "Web-*", "a b", "[ab]", "a_b"] {
            assert!(text.parse::<Glob>().is_err(), "{text}");
        }
    }

    /// The definition, as slow as it is obvious.
    fn fits(pattern: &[u8], name: &[u8]) -> bool {
        match (pattern, name) {
            ([], []) => true,
            ([b'*', rest @ ..], _) => {
                fits(rest, name) || matches!(name, [_, more @ ..] if fits(pattern, more))
            }
            ([b'?', rest @ ..], [_, more @ ..]) => fits(rest, more),
            ([a, rest @ ..], [b, more @ ..]) => a == b && fits(rest, more),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn it_agrees_with_the_definition(pattern in "[ab*?]{1,8}", name in "[ab]{0,10}") {
            let glob: Glob = pattern.parse().unwrap();
            prop_assert_eq!(glob.matches(&name), fits(pattern.as_bytes(), name.as_bytes()));
        }
    }
}
