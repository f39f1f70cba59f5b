//! JSON (RFC 8259), with each key at most once in an object.
//!
//! `serde_json` decides what is JSON; it tells no places, so they are taken from the YAML reader, to which almost
//! every JSON text is YAML with the same values (YAML 1.2.2 section 1.2). Where the two differ the tree has no places.

use std::fmt;

use mgmt_types::Mistake;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::node::{Budget, Member, Node, Value};
use super::yaml;

/// The one value of a text.
pub(crate) fn parse(text: &str) -> Result<Node, Mistake> {
    let budget = Budget::new();
    let mut reader = serde_json::Deserializer::from_str(text);
    let mut root = Seed { budget: &budget, depth: 1 }
        .deserialize(&mut reader)
        .and_then(|root| reader.end().map(|()| root))
        .map_err(|error| syntax(&error))?;
    if let Ok(documents) = yaml::parse(text)
        && let [located] = documents.as_slice()
    {
        copy_places(&mut root, located);
    }
    Ok(root)
}

fn copy_places(node: &mut Node, located: &Node) {
    node.at = located.at;
    match (&mut node.value, &located.value) {
        (Value::List(items), Value::List(others)) => {
            items.iter_mut().zip(others).for_each(|(item, other)| copy_places(item, other));
        }
        (Value::Map(members), Value::Map(others)) => {
            for (member, other) in members.iter_mut().zip(others) {
                member.at = other.at;
                copy_places(&mut member.node, &other.node);
            }
        }
        _ => {}
    }
}

fn syntax(error: &serde_json::Error) -> Mistake {
    let text = error.to_string();
    // The message ends with the place, which is said by itself.
    let reason = text.rsplit_once(" at line ").map_or(text.as_str(), |(reason, _)| reason);
    let number = |value: usize| u32::try_from(value).ok().filter(|value| *value > 0);
    Mistake {
        reason: Some(format!("this is not JSON: {reason}")),
        line: number(error.line()),
        column: number(error.column()),
        ..Mistake::default()
    }
}

#[derive(Clone, Copy)]
struct Seed<'a> {
    budget: &'a Budget,
    depth: usize,
}

impl Seed<'_> {
    fn below(self) -> Self {
        Self { depth: self.depth + 1, ..self }
    }

    fn node<E: Error>(self, value: Value) -> Result<Node, E> {
        self.budget.take(1).map_err(E::custom)?;
        Ok(Node { at: None, value })
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        Budget::check_depth(self.depth).map_err(D::Error::custom)?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Node, E> {
        self.node(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Node, E> {
        self.node(Value::Bool(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Node, E> {
        self.node(Value::Unsigned(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Node, E> {
        self.node(Value::Signed(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Node, E> {
        self.node(Value::Float(value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Node, E> {
        self.node(Value::String(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element_seed(self.below())? {
            items.push(item);
        }
        self.node(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut members: Vec<Member> = Vec::new();
        while let Some(key) = access.next_key::<String>()? {
            Budget::check_key(&members, &key).map_err(A::Error::custom)?;
            let node = access.next_value_seed(self.below())?;
            members.push(Member { key, at: None, node });
        }
        self.node(Value::Map(members))
    }
}
