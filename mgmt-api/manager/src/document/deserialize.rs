//! From a tree to a type, by `serde`, with errors that say where and what would be right.

use std::fmt;

use mgmt_types::Mistake;
use serde::de::value::StrDeserializer;
use serde::de::{
    self, Deserialize, DeserializeSeed, Deserializer, EnumAccess, Expected, IntoDeserializer, MapAccess,
    SeqAccess, Unexpected, VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;

use super::node::{Member, Node, Place, Value};

/// Reads a value of type `T` from a tree.
pub(crate) fn from_node<'de, T: Deserialize<'de>>(node: &'de Node) -> Result<T, Mistake> {
    T::deserialize(Reader(node)).map_err(|fault| {
        let place = fault.at.or(node.at);
        Mistake {
            field: Some(fault.path),
            got: fault.got,
            expected: fault.expected,
            line: place.map(|place| place.line),
            column: place.map(|place| place.column),
            ..Mistake::default().detail(fault.reason)
        }
    })
}

/// What went wrong; the path grows from the inside out while the error travels up.
#[derive(Debug)]
struct Fault {
    reason: String,
    path: String,
    at: Option<Place>,
    got: Option<String>,
    expected: Option<String>,
}

impl Fault {
    fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), path: String::new(), at: None, got: None, expected: None }
    }

    /// The value the error is about is this one, unless an inner one was named.
    fn at(mut self, node: &Node) -> Self {
        self.at = self.at.or(node.at);
        self
    }

    fn within(mut self, key: &str) -> Self {
        self.path = match self.path.chars().next() {
            None => key.to_owned(),
            Some('[') => format!("{key}{}", self.path),
            Some(_) => format!("{key}.{}", self.path),
        };
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(message.to_string())
    }

    fn invalid_type(got: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self { got: Some(words(got)), expected: Some(in_words(expected)), ..Self::new("wrong type") }
    }

    fn invalid_value(got: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self { got: Some(words(got)), expected: Some(in_words(expected)), ..Self::new("wrong value") }
    }

    fn invalid_length(got: usize, expected: &dyn Expected) -> Self {
        Self { got: Some(got.to_string()), expected: Some(in_words(expected)), ..Self::new("wrong length") }
    }

    fn unknown_variant(got: &str, expected: &'static [&'static str]) -> Self {
        Self { got: Some(got.to_owned()), expected: Some(one_of(expected)), ..Self::new("wrong value") }
    }

    fn unknown_field(got: &str, expected: &'static [&'static str]) -> Self {
        let expected = if expected.is_empty() { "no fields at all".to_owned() } else { one_of(expected) };
        Self {
            path: got.to_owned(),
            got: Some(got.to_owned()),
            expected: Some(expected),
            ..Self::new("unknown field")
        }
    }

    fn missing_field(field: &'static str) -> Self {
        Self { path: field.to_owned(), ..Self::new("the field is missing") }
    }

    fn duplicate_field(field: &'static str) -> Self {
        Self { path: field.to_owned(), ..Self::new("the field occurs twice") }
    }
}

fn one_of(choices: &[&str]) -> String {
    match choices {
        [one] => (*one).to_owned(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
        [] => "nothing".to_owned(),
    }
}

fn words(got: Unexpected<'_>) -> String {
    match got {
        Unexpected::Str(text) => text.to_owned(),
        Unexpected::Unsigned(number) => number.to_string(),
        Unexpected::Signed(number) => number.to_string(),
        Unexpected::Float(number) => number.to_string(),
        Unexpected::Bool(value) => value.to_string(),
        Unexpected::Unit | Unexpected::Option => "nothing".to_owned(),
        Unexpected::Seq => "a list".to_owned(),
        Unexpected::Map => "a mapping".to_owned(),
        other => other.to_string(),
    }
}

/// What visitors written by `derive` say, for people.
fn in_words(expected: &dyn Expected) -> String {
    let text = expected.to_string();
    match text.as_str() {
        "a string" => "a string (numbers and true/false need quotes)".to_owned(),
        "u16" => "a whole number from 0 to 65535".to_owned(),
        "u32" => "a whole number from 0 to 4294967295".to_owned(),
        "u64" => "a whole number from 0 to 18446744073709551615".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a sequence" => "a list".to_owned(),
        "a map" => "a mapping".to_owned(),
        other if other.starts_with("struct ") => "a mapping".to_owned(),
        other => other.to_owned(),
    }
}

#[derive(Clone, Copy)]
struct Reader<'de>(&'de Node);

impl<'de> Deserializer<'de> for Reader<'de> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.0.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Unsigned(value) => visitor.visit_u64(*value),
            Value::Signed(value) => visitor.visit_i64(*value),
            Value::Float(value) => visitor.visit_f64(*value),
            Value::String(value) => visitor.visit_borrowed_str(value),
            Value::List(items) => visitor.visit_seq(List { items, next: 0 }),
            Value::Map(members) => visitor.visit_map(Map { members, next: 0 }),
        }
        .map_err(|fault| fault.at(self.0))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.0.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match &self.0.value {
            Value::String(_) => visitor.visit_enum(Choice { variant: self.0, content: None }),
            Value::Map(members) if members.len() == 1 => match members.first() {
                Some(member) => visitor.visit_enum(Tagged(member)),
                None => Err(Fault::new("wrong type")),
            },
            Value::Map(members) => Err(Fault {
                got: Some(members.iter().map(|member| member.key.as_str()).collect::<Vec<_>>().join(", ")),
                expected: Some(format!("exactly one of {}", one_of(variants))),
                ..Fault::new("wrong number of choices")
            }),
            _ => Err(Fault {
                got: Some(self.0.describe()),
                expected: Some(one_of(variants)),
                ..Fault::new("wrong type")
            }),
        }
        .map_err(|fault| fault.at(self.0))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq
        tuple tuple_struct map struct identifier ignored_any
    }
}

struct List<'de> {
    items: &'de [Node],
    next: usize,
}

impl<'de> SeqAccess<'de> for List<'de> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        let Some(item) = self.items.get(self.next) else { return Ok(None) };
        let index = self.next;
        self.next += 1;
        seed.deserialize(Reader(item)).map(Some).map_err(|fault| fault.within(&format!("[{index}]")))
    }
}

struct Map<'de> {
    members: &'de [Member],
    next: usize,
}

impl<'de> MapAccess<'de> for Map<'de> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        let Some(member) = self.members.get(self.next) else { return Ok(None) };
        let key: StrDeserializer<'de, Fault> = member.key.as_str().into_deserializer();
        seed.deserialize(key).map(Some).map_err(|mut fault| {
            fault.at = fault.at.or(member.at);
            fault
        })
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Fault> {
        let Some(member) = self.members.get(self.next) else { return Err(Fault::new("a value is missing")) };
        self.next += 1;
        seed.deserialize(Reader(&member.node)).map_err(|fault| fault.within(&member.key))
    }
}

/// An enum written as a word.
struct Choice<'de> {
    variant: &'de Node,
    content: Option<&'de Node>,
}

impl<'de> EnumAccess<'de> for Choice<'de> {
    type Error = Fault;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Fault> {
        Ok((seed.deserialize(Reader(self.variant))?, self))
    }
}

impl<'de> VariantAccess<'de> for Choice<'de> {
    type Error = Fault;

    fn unit_variant(self) -> Result<(), Fault> {
        match self.content {
            None => Ok(()),
            Some(node) => {
                Err(Fault { got: Some(node.describe()), ..Fault::new("this choice has no content") })
            }
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Fault> {
        match self.content {
            Some(node) => seed.deserialize(Reader(node)),
            None => Err(Fault {
                got: Some(self.variant.describe()),
                expected: Some(format!("a mapping, such as {{ {}: {{}} }}", self.variant.describe())),
                ..Fault::new("wrong type")
            }),
        }
    }

    fn tuple_variant<V: Visitor<'de>>(self, _len: usize, visitor: V) -> Result<V::Value, Fault> {
        self.struct_variant(&[], visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match self.content {
            Some(node) => Reader(node).deserialize_any(visitor),
            None => Err(Fault::new("this choice needs content")),
        }
    }
}

/// An enum written as a mapping of one key.
struct Tagged<'de>(&'de Member);

impl<'de> EnumAccess<'de> for Tagged<'de> {
    type Error = Fault;
    type Variant = TaggedContent<'de>;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, TaggedContent<'de>), Fault> {
        let key: StrDeserializer<'de, Fault> = self.0.key.as_str().into_deserializer();
        let variant = seed.deserialize(key).map_err(|mut fault| {
            fault.at = fault.at.or(self.0.at);
            fault.within(&self.0.key)
        })?;
        Ok((variant, TaggedContent(self.0)))
    }
}

struct TaggedContent<'de>(&'de Member);

impl<'de> TaggedContent<'de> {
    fn choice(&self) -> Choice<'de> {
        Choice { variant: &self.0.node, content: Some(&self.0.node) }
    }
}

impl<'de> VariantAccess<'de> for TaggedContent<'de> {
    type Error = Fault;

    fn unit_variant(self) -> Result<(), Fault> {
        self.choice().unit_variant().map_err(|fault| fault.within(&self.0.key))
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Fault> {
        self.choice().newtype_variant_seed(seed).map_err(|fault| fault.within(&self.0.key))
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Fault> {
        self.choice().tuple_variant(len, visitor).map_err(|fault| fault.within(&self.0.key))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.choice().struct_variant(fields, visitor).map_err(|fault| fault.within(&self.0.key))
    }
}
