//! A tree of values that knows where each was written.

use std::cell::Cell;

use mgmt_types::Mistake;

use super::{MAX_DEPTH, MAX_KEYS, MAX_NODES};

/// Line and column, both counted from 1, columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) line: u32,
    pub(crate) column: u32,
}

/// A value and its place; none when the text is not at hand.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) at: Option<Place>,
    pub(crate) value: Value,
}

/// The values both JSON and YAML have.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    String(String),
    List(Vec<Node>),
    Map(Vec<Member>),
}

/// One key of a mapping and what it has.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Member {
    pub(crate) key: String,
    pub(crate) at: Option<Place>,
    pub(crate) node: Node,
}

impl Node {
    /// The value of a key, when this is a mapping that has it.
    pub(crate) fn member(&self, key: &str) -> Option<&Node> {
        match &self.value {
            Value::Map(members) => members.iter().find(|member| member.key == key).map(|member| &member.node),
            _ => None,
        }
    }

    /// The same mapping without one key.
    pub(crate) fn without(&self, key: &str) -> Node {
        let value = match &self.value {
            Value::Map(members) => {
                Value::Map(members.iter().filter(|member| member.key != key).cloned().collect())
            }
            other => other.clone(),
        };
        Node { at: self.at, value }
    }

    /// Adds a key to a mapping that does not have it.
    pub(crate) fn default_member(&mut self, key: &str, value: &str) {
        let at = self.at;
        if let Value::Map(members) = &mut self.value
            && members.iter().all(|member| member.key != key)
        {
            let node = Node { at, value: Value::String(value.to_owned()) };
            members.push(Member { key: key.to_owned(), at, node });
        }
    }

    /// The place of a field written `spec.ports[0].name`, or of the innermost part of it that is there.
    pub(crate) fn place_of(&self, path: &str) -> Option<Place> {
        if path.is_empty() {
            return self.at;
        }
        match &self.value {
            Value::Map(members) => {
                // Keys may have dots themselves (labels do), so the longest key that fits is the one meant.
                let hit = members
                    .iter()
                    .filter_map(|member| Some((member, rest_after(path, &member.key)?)))
                    .max_by_key(|(member, _)| member.key.len());
                match hit {
                    Some((member, "")) => member.at.or(member.node.at),
                    Some((member, rest)) => member.node.place_of(rest).or(member.at),
                    None => self.at,
                }
            }
            Value::List(items) => {
                let item = path
                    .strip_prefix('[')
                    .and_then(|path| path.split_once(']'))
                    .and_then(|(index, rest)| Some((items.get(index.parse::<usize>().ok()?)?, rest)));
                match item {
                    Some((item, rest)) => item.place_of(rest.strip_prefix('.').unwrap_or(rest)).or(self.at),
                    None => self.at,
                }
            }
            _ => self.at,
        }
    }

    /// The value in words, for messages.
    pub(crate) fn describe(&self) -> String {
        match &self.value {
            Value::Null => "nothing".to_owned(),
            Value::Bool(value) => value.to_string(),
            Value::Unsigned(value) => value.to_string(),
            Value::Signed(value) => value.to_string(),
            Value::Float(value) => value.to_string(),
            Value::String(value) => value.clone(),
            Value::List(items) => format!("a list of {}", items.len()),
            Value::Map(members) => format!("a mapping of {}", members.len()),
        }
    }

    /// The same values without their places.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null => serde_json::Value::Null,
            Value::Bool(value) => (*value).into(),
            Value::Unsigned(value) => (*value).into(),
            Value::Signed(value) => (*value).into(),
            Value::Float(value) => (*value).into(),
            Value::String(value) => value.clone().into(),
            Value::List(items) => items.iter().map(Node::to_json).collect(),
            Value::Map(members) => {
                serde_json::Value::Object(members.iter().map(|m| (m.key.clone(), m.node.to_json())).collect())
            }
        }
    }

    /// A tree without places.
    pub(crate) fn from_json(value: &serde_json::Value) -> Self {
        use serde_json::Value as Json;
        let value = match value {
            Json::Null => Value::Null,
            Json::Bool(value) => Value::Bool(*value),
            Json::Number(number) => match (number.as_u64(), number.as_i64()) {
                (Some(value), _) => Value::Unsigned(value),
                (None, Some(value)) => Value::Signed(value),
                (None, None) => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
            },
            Json::String(value) => Value::String(value.clone()),
            Json::Array(items) => Value::List(items.iter().map(Self::from_json).collect()),
            Json::Object(members) => Value::Map(
                members
                    .iter()
                    .map(|(key, value)| Member { key: key.clone(), at: None, node: Self::from_json(value) })
                    .collect(),
            ),
        };
        Self { at: None, value }
    }

    /// Number of values in the tree.
    pub(crate) fn size(&self) -> usize {
        1 + match &self.value {
            Value::List(items) => items.iter().map(Node::size).sum(),
            Value::Map(members) => members.iter().map(|member| member.node.size()).sum(),
            _ => 0,
        }
    }
}

fn rest_after<'a>(path: &'a str, key: &str) -> Option<&'a str> {
    let rest = path.strip_prefix(key)?;
    match rest.chars().next() {
        None | Some('[') => Some(rest),
        Some('.') => rest.strip_prefix('.'),
        Some(_) => None,
    }
}

/// What may still be built while reading one request.
#[derive(Debug)]
pub(crate) struct Budget {
    nodes: Cell<usize>,
}

impl Budget {
    pub(crate) fn new() -> Self {
        Self { nodes: Cell::new(MAX_NODES) }
    }

    /// Takes room for `nodes` more values.
    pub(crate) fn take(&self, nodes: usize) -> Result<(), Mistake> {
        match self.nodes.get().checked_sub(nodes) {
            Some(left) => {
                self.nodes.set(left);
                Ok(())
            }
            None => Err(Mistake {
                reason: Some(
                    "the request has too many values, aliases counted as often as they are used".into(),
                ),
                expected: Some(format!("at most {MAX_NODES}")),
                ..Mistake::default()
            }),
        }
    }

    /// Checks that a mapping with these members may have one more with this key.
    pub(crate) fn check_key(members: &[Member], key: &str) -> Result<(), Mistake> {
        let (reason, expected) = if members.len() >= MAX_KEYS {
            ("a mapping has too many keys", format!("at most {MAX_KEYS}"))
        } else if members.iter().any(|member| member.key == key) {
            ("a key occurs twice in one mapping", "each key once".to_owned())
        } else {
            return Ok(());
        };
        Err(Mistake {
            got: Some(key.chars().take(80).collect()),
            expected: Some(expected),
            ..Mistake::default().detail(reason)
        })
    }

    /// Checks the depth of a value; the root is at depth 1.
    pub(crate) fn check_depth(depth: usize) -> Result<(), Mistake> {
        if depth <= MAX_DEPTH { Ok(()) } else { Err(Self::too_deep()) }
    }

    /// What is said of a document that is nested too deeply.
    pub(crate) fn too_deep() -> Mistake {
        Mistake {
            reason: Some("the document is nested too deeply".into()),
            expected: Some(format!("at most {MAX_DEPTH} levels")),
            ..Mistake::default()
        }
    }
}
