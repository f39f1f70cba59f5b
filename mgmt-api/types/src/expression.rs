//! The language that chooses workloads: `tier = web and env in (prod, stage)`.
//!
//! ```text
//! choice := both ("or" both)*
//! both   := one ("and" one)*
//! one    := "not" one | "(" choice ")" | "exists" key | key
//!         | key ("=" | "!=") value | key "in" list | key "not" "in" list
//! list   := "(" value ("," value)* ")"
//! ```
//!
//! A key is that of a label, or `name` or `kind` for the workload's own. A bare key asks whether the label is there.
//! What is not there is unequal to everything: `tier != db` chooses a workload without `tier`. Keys and values with
//! other characters, and those that are words of the language, stand in quotes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::text::{self, Expects};
use crate::{Glob, Labels, WorkloadKind, labels};

/// What a [`Match`] looks at.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// Name of the workload.
    pub name: &'a str,
    /// What it is.
    pub kind: WorkloadKind,
    /// Its labels.
    pub labels: &'a Labels,
}

/// An expression over name, kind and labels of a workload, as it was written and as it is understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Match {
    text: String,
    term: Term,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Term {
    All(Vec<Term>),
    Any(Vec<Term>),
    Not(Box<Term>),
    Present(String),
    /// The label has one of these values.
    Label(String, Vec<String>),
    /// The name fits one of these patterns.
    Name(Vec<Glob>),
    Kind(Vec<WorkloadKind>),
}

/// Longest expression, in characters.
pub const MAX_MATCH: usize = 1000;
/// Deepest nesting of `not` and parentheses.
const MAX_DEPTH: usize = 32;

impl Match {
    /// True when it chooses the workload.
    pub fn matches(&self, subject: Subject<'_>) -> bool {
        self.term.matches(subject)
    }

    /// A label that every workload it chooses has with one of some values, when there is such a label: key and values.
    /// Lets a reader with many expressions look only at those that can choose a workload.
    pub fn anchor(&self) -> Option<(&str, &[String])> {
        match &self.term {
            Term::Label(key, values) => Some((key, values)),
            Term::All(terms) => terms.iter().find_map(|term| match term {
                Term::Label(key, values) => Some((key.as_str(), values.as_slice())),
                _ => None,
            }),
            Term::Any(_) | Term::Not(_) | Term::Present(_) | Term::Name(_) | Term::Kind(_) => None,
        }
    }
}

impl Term {
    fn matches(&self, subject: Subject<'_>) -> bool {
        match self {
            Self::All(terms) => terms.iter().all(|term| term.matches(subject)),
            Self::Any(terms) => terms.iter().any(|term| term.matches(subject)),
            Self::Not(term) => !term.matches(subject),
            Self::Present(key) => subject.labels.contains_key(key),
            Self::Label(key, values) => subject.labels.get(key).is_some_and(|value| values.contains(value)),
            Self::Name(patterns) => patterns.iter().any(|pattern| pattern.matches(subject.name)),
            Self::Kind(kinds) => kinds.contains(&subject.kind),
        }
    }
}

/// Why a text is no expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("at column {column}: found {found}, expected {expected}")]
pub struct MatchError {
    /// Where in the text, in characters counted from 1.
    pub column: usize,
    /// What stands there.
    pub found: String,
    /// What would be right there.
    pub expected: String,
}

impl Expects for MatchError {
    fn expected(&self) -> String {
        format!("at column {} instead of {}: {}", self.column, self.found, self.expected)
    }
}

impl FromStr for Match {
    type Err = MatchError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let length = text.chars().count();
        if length > MAX_MATCH {
            return Err(MatchError {
                column: MAX_MATCH + 1,
                found: format!("{length} characters"),
                expected: format!("at most {MAX_MATCH} characters"),
            });
        }
        let mut parser = Parser { tokens: tokens(text)?, next: 0, depth: 0 };
        let term = parser.choice()?;
        match parser.take() {
            Token { what: What::End, .. } => Ok(Self { text: text.to_owned(), term }),
            // Only a bare key may be followed by a comparison.
            token if term.is_bare() => {
                Err(token.instead_of("'=', '!=', 'in', 'not in', 'and', 'or' or the end"))
            }
            token => Err(token.instead_of("'and', 'or' or the end")),
        }
    }
}

impl Term {
    fn is_bare(&self) -> bool {
        match self {
            Self::Present(_) => true,
            Self::All(terms) | Self::Any(terms) => terms.last().is_some_and(Self::is_bare),
            Self::Not(term) => term.is_bare(),
            Self::Label(..) | Self::Name(_) | Self::Kind(_) => false,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    /// A key, a value or a word of the language.
    Word(String),
    /// A key or a value in quotes.
    Quoted(String),
    Equal,
    Unequal,
    Open,
    Close,
    Comma,
    End,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Token {
    what: What,
    column: usize,
}

impl Token {
    fn is(&self, word: &str) -> bool {
        matches!(&self.what, What::Word(text) if text == word)
    }

    fn instead_of(&self, expected: impl Into<String>) -> MatchError {
        let found = match &self.what {
            What::Word(text) => format!("'{text}'"),
            What::Quoted(text) => format!("\"{text}\""),
            What::Equal => "'='".to_owned(),
            What::Unequal => "'!='".to_owned(),
            What::Open => "'('".to_owned(),
            What::Close => "')'".to_owned(),
            What::Comma => "','".to_owned(),
            What::End => "the end".to_owned(),
        };
        MatchError { column: self.column, found, expected: expected.into() }
    }
}

/// Words that mean something by themselves.
const RESERVED: [&str; 5] = ["and", "or", "not", "in", "exists"];

fn is_word(character: char) -> bool {
    character.is_ascii_alphanumeric() || "-_./*?".contains(character)
}

fn tokens(text: &str) -> Result<Vec<Token>, MatchError> {
    let mut tokens = Vec::new();
    let mut rest = text.chars().zip(1..).peekable();
    while let Some((character, column)) = rest.next() {
        let what = match character {
            ' ' | '\t' | '\n' | '\r' => continue,
            '(' => What::Open,
            ')' => What::Close,
            ',' => What::Comma,
            '=' => {
                // `==` is what users of other languages type.
                rest.next_if(|(next, _)| *next == '=');
                What::Equal
            }
            '!' => match rest.next_if(|(next, _)| *next == '=') {
                Some(_) => What::Unequal,
                None => {
                    return Err(MatchError { column, found: "'!'".into(), expected: "'!=' or 'not'".into() });
                }
            },
            '\'' | '"' => {
                let mut word = String::new();
                loop {
                    match rest.next() {
                        Some((next, _)) if next == character => break,
                        Some((next, _)) => word.push(next),
                        None => {
                            let found = "an open quote".to_owned();
                            let expected = format!("another {character} before the end");
                            return Err(MatchError { column, found, expected });
                        }
                    }
                }
                What::Quoted(word)
            }
            _ if is_word(character) => {
                let mut word = String::from(character);
                while let Some((next, _)) = rest.next_if(|(next, _)| is_word(*next)) {
                    word.push(next);
                }
                What::Word(word)
            }
            _ => {
                return Err(MatchError {
                    column,
                    found: format!("'{}'", character.escape_default()),
                    expected:
                        "a key, '=', '!=', 'in', 'not', 'and', 'or', a parenthesis, or a value in quotes"
                            .into(),
                });
            }
        };
        tokens.push(Token { what, column });
    }
    tokens.push(Token { what: What::End, column: text.chars().count() + 1 });
    Ok(tokens)
}

struct Parser {
    tokens: Vec<Token>,
    next: usize,
    depth: usize,
}

impl Parser {
    fn peek(&self) -> Token {
        self.tokens
            .get(self.next)
            .or(self.tokens.last())
            .cloned()
            .unwrap_or(Token { what: What::End, column: 1 })
    }

    fn take(&mut self) -> Token {
        let token = self.peek();
        self.next += 1;
        token
    }

    fn take_word(&mut self, word: &str) -> bool {
        let found = self.peek().is(word);
        self.next += usize::from(found);
        found
    }

    fn choice(&mut self) -> Result<Term, MatchError> {
        let mut terms = vec![self.both()?];
        while self.take_word("or") {
            terms.push(self.both()?);
        }
        Ok(only(terms, Term::Any))
    }

    fn both(&mut self) -> Result<Term, MatchError> {
        let mut terms = vec![self.one()?];
        while self.take_word("and") {
            terms.push(self.one()?);
        }
        Ok(only(terms, Term::All))
    }

    fn one(&mut self) -> Result<Term, MatchError> {
        let token = self.peek();
        if self.depth == MAX_DEPTH {
            return Err(token.instead_of(format!("at most {MAX_DEPTH} levels of 'not' and parentheses")));
        }
        self.depth += 1;
        let term = match &token.what {
            What::Open => {
                self.next += 1;
                let term = self.choice()?;
                match self.take() {
                    Token { what: What::Close, .. } => term,
                    other => return Err(other.instead_of("')', 'and' or 'or'")),
                }
            }
            _ if self.take_word("not") => Term::Not(Box::new(self.one()?)),
            _ if self.take_word("exists") => {
                let at = self.peek();
                match self.key()? {
                    Key::Label(key) => Term::Present(key),
                    Key::Name | Key::Kind => {
                        return Err(at.instead_of("the key of a label: every workload has a name and a kind"));
                    }
                }
            }
            _ => self.comparison()?,
        };
        self.depth -= 1;
        Ok(term)
    }

    fn comparison(&mut self) -> Result<Term, MatchError> {
        let key = self.key()?;
        let token = self.peek();
        let (negated, values) = match &token.what {
            What::Equal | What::Unequal => {
                self.next += 1;
                (token.what == What::Unequal, vec![self.value()?])
            }
            _ if self.take_word("in") => (false, self.list()?),
            // `not` cannot begin anything else here: terms are joined by `and` and `or`.
            _ if self.take_word("not") => match self.take() {
                inner if inner.is("in") => (true, self.list()?),
                other => return Err(other.instead_of("'in'")),
            },
            _ => {
                return match key {
                    Key::Label(key) => Ok(Term::Present(key)),
                    Key::Name | Key::Kind => Err(token.instead_of("'=', '!=', 'in' or 'not in'")),
                };
            }
        };
        let term = key.compared(values)?;
        Ok(if negated { Term::Not(Box::new(term)) } else { term })
    }

    fn key(&mut self) -> Result<Key, MatchError> {
        let token = self.take();
        let label = match &token.what {
            What::Word(word) if RESERVED.contains(&word.as_str()) => None,
            What::Word(word) if word == "name" => return Ok(Key::Name),
            What::Word(word) if word == "kind" => return Ok(Key::Kind),
            What::Word(word) | What::Quoted(word) => Some(word.clone()),
            What::Equal | What::Unequal | What::Open | What::Close | What::Comma | What::End => None,
        };
        let label = label
            .ok_or_else(|| token.instead_of("the key of a label, 'name', 'kind', 'not', 'exists' or '('"))?;
        if labels::is_key(&label) {
            return Ok(Key::Label(label));
        }
        Err(token
            .instead_of(format!("a key of 1 to {} characters from A-Z a-z 0-9 - _ . /", labels::MAX_TEXT)))
    }

    fn value(&mut self) -> Result<Value, MatchError> {
        let token = self.take();
        match &token.what {
            What::Word(word) if RESERVED.contains(&word.as_str()) => {
                Err(token.instead_of(format!("a value; write '{word}' in quotes if it is one")))
            }
            What::Word(text) | What::Quoted(text) => Ok(Value { text: text.clone(), token }),
            What::Equal | What::Unequal | What::Open | What::Close | What::Comma | What::End => {
                Err(token.instead_of("a value, in quotes if it is empty"))
            }
        }
    }

    fn list(&mut self) -> Result<Vec<Value>, MatchError> {
        match self.take() {
            Token { what: What::Open, .. } => {}
            other => return Err(other.instead_of("'(' and values")),
        }
        let mut values = vec![self.value()?];
        loop {
            match self.take() {
                Token { what: What::Comma, .. } => values.push(self.value()?),
                Token { what: What::Close, .. } => return Ok(values),
                other => return Err(other.instead_of("',' or ')'")),
            }
        }
    }
}

fn only(mut terms: Vec<Term>, many: fn(Vec<Term>) -> Term) -> Term {
    match terms.len() {
        1 => terms.swap_remove(0),
        _ => many(terms),
    }
}

enum Key {
    Label(String),
    Name,
    Kind,
}

/// A value that may still be wrong for its key.
struct Value {
    text: String,
    token: Token,
}

impl Key {
    fn compared(self, values: Vec<Value>) -> Result<Term, MatchError> {
        match self {
            Self::Label(key) => {
                let checked = values.into_iter().map(|value| match labels::is_value(&value.text) {
                    true => Ok(value.text),
                    false => Err(value.token.instead_of(format!(
                        "a value of 0 to {} characters from A-Z a-z 0-9 - _ . / (patterns are for 'name')",
                        labels::MAX_TEXT
                    ))),
                });
                Ok(Term::Label(key, checked.collect::<Result<_, _>>()?))
            }
            Self::Name => {
                let globs = values.into_iter().map(|value| {
                    value
                        .text
                        .parse()
                        .map_err(|error: crate::glob::GlobError| value.token.instead_of(error.expected()))
                });
                Ok(Term::Name(globs.collect::<Result<_, _>>()?))
            }
            Self::Kind => {
                let kinds = values.into_iter().map(|value| match value.text.as_str() {
                    "vm" => Ok(WorkloadKind::Vm),
                    "container" => Ok(WorkloadKind::Container),
                    "host" => Ok(WorkloadKind::Host),
                    _ => Err(value.token.instead_of("vm, container or host")),
                });
                Ok(Term::Kind(kinds.collect::<Result<_, _>>()?))
            }
        }
    }
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl Serialize for Match {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Match {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text::parsed(deserializer, "an expression, such as \"tier = web and env in (prod, stage)\"")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn chooses(text: &str) -> bool {
        let labels: Labels = [("app", "shop"), ("tier", "web"), ("env", "prod"), ("empty", ""), ("and", "1")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into();
        let expression: Match = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        expression.matches(Subject { name: "web-1", kind: WorkloadKind::Vm, labels: &labels })
    }

    #[test]
    fn it_chooses_by_labels_name_and_kind() {
        for (text, chosen) in [
            ("tier = web and env in (prod, stage)", true),
            ("tier=web and env=stage", false),
            ("tier == web", true),
            ("tier != web", false),
            ("colour != red", true),
            ("colour = red", false),
            ("env not in (stage, test)", true),
            ("colour not in (red)", true),
            ("not env in (prod)", false),
            ("not (tier = db or tier = app)", true),
            ("exists app", true),
            ("app", true),
            ("colour", false),
            ("not exists colour", true),
            ("not not app", true),
            ("empty = \"\"", true),
            ("empty = ''", true),
            ("app = \"shop\"", true),
            ("'and' = 1", true),
            ("name = web-1", true),
            ("name = web-*", true),
            ("name = 'web-?'", true),
            ("name != web-*", false),
            ("name in (db-*, web-*)", true),
            ("kind = vm", true),
            ("kind != vm", false),
            ("kind in (container, host)", false),
            // `and` binds tighter than `or`.
            ("tier = web or tier = db and env = test", true),
            ("(tier = web or tier = db) and env = test", false),
        ] {
            assert_eq!(chooses(text), chosen, "{text}");
        }
    }

    #[test]
    fn a_mistake_is_told_by_its_column_and_what_would_be_right() {
        for (text, column, found, right) in [
            ("", 1, "the end", "the key of a label"),
            ("tier web", 6, "'web'", "'='"),
            ("tier = ", 8, "the end", "a value"),
            ("tier = web env = prod", 12, "'env'", "'and', 'or' or the end"),
            ("tier = web and", 15, "the end", "the key of a label"),
            ("(tier = web", 12, "the end", "')'"),
            ("tier = web)", 11, "')'", "the end"),
            ("env in prod", 8, "'prod'", "'('"),
            ("env in ()", 9, "')'", "a value"),
            ("env in (prod stage)", 14, "'stage'", "',' or ')'"),
            ("env not prod", 9, "'prod'", "'in'"),
            ("tier = and", 8, "'and'", "in quotes"),
            ("!tier", 1, "'!'", "'not'"),
            ("tier = 'web", 8, "an open quote", "another '"),
            ("tier = web-*", 8, "'web-*'", "patterns are for 'name'"),
            ("kind = ship", 8, "'ship'", "vm, container or host"),
            ("name", 5, "the end", "'='"),
            ("exists name", 8, "'name'", "every workload has a name"),
            ("name = Web", 8, "'Web'", "a-z"),
            ("tier & app", 6, "'&'", "'and'"),
            ("tiér = web", 3, "'\\u{e9}'", "a key"),
        ] {
            let error = text.parse::<Match>().unwrap_err();
            assert_eq!((error.column, error.found.as_str()), (column, found), "{text}: {error}");
            assert!(error.expected.contains(right), "{text}: {error}");
        }
        let deep = format!("{}a{}", "(".repeat(33), ")".repeat(33));
        assert!(deep.parse::<Match>().unwrap_err().expected.contains("32 levels"));
        let long = format!("a = {}", "b".repeat(1000));
        assert!(long.parse::<Match>().unwrap_err().expected.contains("1000 characters"));
        assert_eq!("tier  ".parse::<Match>().unwrap().to_string(), "tier  ");
    }

    #[test]
    fn an_anchor_is_on_every_workload_chosen() {
        for (text, anchor) in [
            ("tier = web", Some("tier")),
            ("exists app and tier in (web, db)", Some("tier")),
            ("tier = web or app = shop", None),
            ("tier != web", None),
            ("name = web-*", None),
        ] {
            let expression: Match = text.parse().unwrap();
            assert_eq!(expression.anchor().map(|(key, _)| key), anchor, "{text}");
        }
    }

    fn expression() -> impl Strategy<Value = String> {
        let value = || prop::sample::select(vec!["x", "y", "''", "\"z\""]);
        let key = || prop::sample::select(vec!["a", "b", "c/d"]);
        let leaf = prop_oneof![
            (key(), value()).prop_map(|(k, v)| format!("{k} = {v}")),
            (key(), value()).prop_map(|(k, v)| format!("{k}!={v}")),
            (key(), value(), value()).prop_map(|(k, v, w)| format!("{k} in ({v},{w})")),
            (key(), value()).prop_map(|(k, v)| format!("{k} not in ({v})")),
            key().prop_map(|k| format!("exists {k}")),
            key().prop_map(str::to_owned),
        ];
        leaf.prop_recursive(4, 24, 3, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 1..3)
                    .prop_map(|parts| format!("({})", parts.join(" and "))),
                prop::collection::vec(inner.clone(), 1..3)
                    .prop_map(|parts| format!("({})", parts.join(" or "))),
                inner.prop_map(|inner| format!("not ({inner})")),
            ]
        })
    }

    /// The words' meaning by rewriting them into the host language's: an evaluation over the text, not over the tree.
    fn evaluated(text: &str, labels: &Labels) -> bool {
        let text = text.trim();
        if let Some(rest) = text.strip_prefix("not (") {
            return !evaluated(rest.strip_suffix(')').unwrap_or(rest), labels);
        }
        if let Some(inside) = text.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')) {
            let split = |word: &str| {
                let (mut parts, mut depth, mut last) = (Vec::new(), 0_i32, 0);
                for (at, character) in inside.char_indices() {
                    depth += i32::from(character == '(') - i32::from(character == ')');
                    if depth == 0 && inside[at..].starts_with(word) {
                        parts.push(&inside[last..at]);
                        last = at + word.len();
                    }
                }
                parts.push(&inside[last..]);
                parts
            };
            let (all, any) = (split(" and "), split(" or "));
            return if any.len() > 1 {
                any.iter().any(|part| evaluated(part, labels))
            } else {
                all.iter().all(|part| evaluated(part, labels))
            };
        }
        let clean = |value: &str| value.trim().trim_matches(['\'', '"', '(', ')']).to_owned();
        let has = |key: &str| labels.get(key.trim());
        if let Some((key, values)) = text.split_once(" not in ") {
            return !values.split(',').any(|value| has(key) == Some(&clean(value)));
        }
        if let Some((key, values)) = text.split_once(" in ") {
            return values.split(',').any(|value| has(key) == Some(&clean(value)));
        }
        if let Some((key, value)) = text.split_once("!=") {
            return has(key) != Some(&clean(value));
        }
        if let Some((key, value)) = text.split_once('=') {
            return has(key) == Some(&clean(value));
        }
        has(text.trim_start_matches("exists ")).is_some()
    }

    proptest! {
        #[test]
        fn it_means_what_its_words_mean(
            text in expression(), labels in prop::collection::btree_map("[ab]|c/d", "[xyz]|", 0..3),
        ) {
            let parsed: Match = text.parse().unwrap();
            let subject = Subject { name: "w", kind: WorkloadKind::Host, labels: &labels };
            prop_assert_eq!(parsed.matches(subject), evaluated(&text, &labels), "{} of {:?}", text, labels);
            if let Some((key, values)) = parsed.anchor() && parsed.matches(subject) {
                prop_assert!(labels.get(key).is_some_and(|value| values.contains(value)));
            }
        }

        #[test]
        fn no_text_makes_it_panic_and_a_column_is_within_the_text(text in "\\PC{0,60}") {
            if let Err(error) = text.parse::<Match>() {
                prop_assert!((1..=text.chars().count() + 1).contains(&error.column), "{error}");
            }
        }
    }
}
