//! Labels and the selectors that choose by them.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::Mistake;

/// Free key-value pairs of a resource, ordered by key.
pub type Labels = BTreeMap<String, String>;

/// Most labels one resource may have.
pub(crate) const MAX_LABELS: usize = 64;
/// Longest key or value, in characters.
pub(crate) const MAX_TEXT: usize = 63;

/// Adds a mistake for each label that is not well formed.
pub(crate) fn check(labels: &Labels, mistakes: &mut Vec<Mistake>) {
    if labels.len() > MAX_LABELS {
        mistakes.push(
            Mistake::new("labels", format!("{} labels", labels.len()), format!("at most {MAX_LABELS}"))
                .detail("a resource has too many labels"),
        );
    }
    for (key, value) in labels {
        if !is_key(key) {
            mistakes.push(
                Mistake::new(
                    "labels",
                    key,
                    format!("a key of 1 to {MAX_TEXT} characters from A-Z a-z 0-9 - _ . /"),
                )
                .detail("a label's key is not well formed"),
            );
        }
        if !is_value(value) {
            mistakes.push(
                Mistake::new(
                    format!("labels.{key}"),
                    value,
                    format!("a value of 0 to {MAX_TEXT} characters from A-Z a-z 0-9 - _ . /"),
                )
                .detail("a label's value is not well formed"),
            );
        }
    }
}

pub(crate) fn is_key(text: &str) -> bool {
    !text.is_empty() && is_value(text)
}

pub(crate) fn is_value(text: &str) -> bool {
    text.len() <= MAX_TEXT && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./".contains(&b))
}

/// A conjunction of demands on labels, written `app=shop,tier!=db,canary,!old`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selector(Vec<Demand>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Demand {
    Equal(String, String),
    Unequal(String, String),
    Present(String),
    Absent(String),
}

impl Selector {
    /// True when every demand holds; an empty selector chooses everything.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|demand| match demand {
            Demand::Equal(key, value) => labels.get(key) == Some(value),
            Demand::Unequal(key, value) => labels.get(key) != Some(value),
            Demand::Present(key) => labels.contains_key(key),
            Demand::Absent(key) => !labels.contains_key(key),
        })
    }

    /// True when it demands nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Why a text is not a selector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{term:?} is not a label demand; write key=value, key!=value, key or !key, separated by commas")]
pub struct SelectorError {
    /// The demand that was not understood, cut to 80 characters.
    pub term: String,
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut demands = Vec::new();
        for term in text.split(',').map(str::trim).filter(|term| !term.is_empty()) {
            let refuse = || SelectorError { term: term.chars().take(80).collect() };
            let (key, demand): (&str, fn(String, String) -> Demand) =
                if let Some((key, _)) = term.split_once("!=") {
                    (key, Demand::Unequal)
                } else if let Some((key, _)) = term.split_once('=') {
                    (key, Demand::Equal)
                } else if let Some(key) = term.strip_prefix('!') {
                    (key, |key, _| Demand::Absent(key))
                } else {
                    (term, |key, _| Demand::Present(key))
                };
            // `==` is what users of other selectors type.
            let value = term.split_once('=').map_or("", |(_, value)| value.trim_start_matches('=')).trim();
            let key = key.trim();
            if !is_key(key) || !is_value(value) {
                return Err(refuse());
            }
            demands.push(demand(key.to_owned(), value.to_owned()));
        }
        Ok(Self(demands))
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, demand) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            match demand {
                Demand::Equal(key, value) => write!(f, "{key}={value}")?,
                Demand::Unequal(key, value) => write!(f, "{key}!={value}")?,
                Demand::Present(key) => write!(f, "{key}")?,
                Demand::Absent(key) => write!(f, "!{key}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_is_a_conjunction() {
        let labels: Labels =
            [("app", "shop"), ("tier", "web")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        for (text, chosen) in [
            ("", true),
            ("app=shop", true),
            ("app==shop", true),
            ("app=shop,tier!=db", true),
            ("app=shop,tier=db", false),
            ("app", true),
            ("!app", false),
            ("!old , app", true),
            ("old!=x", true),
        ] {
            let selector: Selector = text.parse().unwrap();
            assert_eq!(selector.matches(&labels), chosen, "{text}");
            assert_eq!(selector.to_string().parse::<Selector>().unwrap(), selector);
        }
    }

    #[test]
    fn what_is_not_a_demand_is_named() {
        for text in ["=x", "a b", "a=b c", "!", "!=x", "app in (x)"] {
            assert!(text.parse::<Selector>().is_err(), "{text}");
        }
    }
}
