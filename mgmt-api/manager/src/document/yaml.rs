//! YAML 1.2 by its core schema, less what declarations do not need: tags other than `!!str`, and merge keys.
//!
//! Events come from `saphyr-parser`, one at a time, so that a hostile text is refused when it passes a bound and not
//! after it was built.

use std::collections::HashMap;

use mgmt_types::Mistake;
use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, Tag};

use super::node::{Budget, Member, Node, Place, Value};

/// The documents of a text.
pub(crate) fn parse(text: &str) -> Result<Vec<Node>, Mistake> {
    let mut builder =
        Builder { budget: Budget::new(), open: Vec::new(), anchors: HashMap::new(), documents: Vec::new() };
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| scan_error(&error))?;
        builder.event(event, span).map_err(|mut mistake| {
            let place = place(span);
            mistake.line = Some(place.line);
            mistake.column = Some(place.column);
            mistake
        })?;
    }
    Ok(builder.documents)
}

struct Builder {
    budget: Budget,
    /// Collections that have begun and not ended, outermost first.
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    documents: Vec<Node>,
}

struct Open {
    at: Place,
    anchor: usize,
    items: Items,
}

enum Items {
    List(Vec<Node>),
    Map { members: Vec<Member>, key: Option<(String, Place)> },
}

impl Builder {
    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), Mistake> {
        let at = place(span);
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) => {
                self.anchors.clear();
                Ok(())
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.budget.take(1)?;
                let value = scalar(&text, style, tag.as_deref())?;
                self.close(Node { at: Some(at), value }, anchor)
            }
            Event::Alias(anchor) => {
                let node = self.anchors.get(&anchor).cloned().ok_or_else(|| {
                    Mistake::default().detail("an alias refers to a value that is not complete or not there")
                })?;
                self.budget.take(node.size())?;
                Budget::check_depth(self.open.len() + depth(&node))?;
                self.close(node, 0)
            }
            Event::SequenceStart(anchor, tag) => {
                self.begin(at, anchor, tag.as_deref(), Items::List(Vec::new()))
            }
            Event::MappingStart(anchor, tag) => {
                self.begin(at, anchor, tag.as_deref(), Items::Map { members: Vec::new(), key: None })
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(open) = self.open.pop() else { return Ok(()) };
                let value = match open.items {
                    Items::List(items) => Value::List(items),
                    Items::Map { members, .. } => Value::Map(members),
                };
                self.close(Node { at: Some(open.at), value }, open.anchor)
            }
        }
    }

    fn begin(&mut self, at: Place, anchor: usize, tag: Option<&Tag>, items: Items) -> Result<(), Mistake> {
        if let Some(tag) = tag {
            return Err(refused_tag(tag));
        }
        self.budget.take(1)?;
        Budget::check_depth(self.open.len() + 1)?;
        self.open.push(Open { at, anchor, items });
        Ok(())
    }

    /// A value is complete: it goes into the collection that is open, or is a document.
    fn close(&mut self, node: Node, anchor: usize) -> Result<(), Mistake> {
        if anchor != 0 {
            // An anchored value is kept twice.
            self.budget.take(node.size())?;
            self.anchors.insert(anchor, node.clone());
        }
        match self.open.last_mut() {
            None => self.documents.push(node),
            Some(Open { items: Items::List(items), .. }) => items.push(node),
            Some(Open { items: Items::Map { members, key }, .. }) => match key.take() {
                Some((name, at)) => members.push(Member { key: name, at: Some(at), node }),
                None => *key = Some(self::key(&node, members)?),
            },
        }
        Ok(())
    }
}

fn key(node: &Node, members: &[Member]) -> Result<(String, Place), Mistake> {
    let name = match &node.value {
        Value::List(_) | Value::Map(_) | Value::Null => {
            return Err(Mistake {
                got: Some(node.describe()),
                expected: Some("a string".into()),
                ..Mistake::default().detail("a key of a mapping has the wrong type")
            });
        }
        _ => node.describe(),
    };
    Budget::check_key(members, &name)?;
    Ok((name, node.at.unwrap_or(Place { line: 1, column: 1 })))
}

/// YAML 1.2.2 section 10.3.2: what a plain scalar means.
fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<Value, Mistake> {
    if let Some(tag) = tag {
        if tag.is_yaml_core_schema() && tag.suffix == "str" {
            return Ok(Value::String(text.to_owned()));
        }
        return Err(refused_tag(tag));
    }
    if style != ScalarStyle::Plain {
        return Ok(Value::String(text.to_owned()));
    }
    Ok(match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ => number(text).unwrap_or_else(|| Value::String(text.to_owned())),
    })
}

fn number(text: &str) -> Option<Value> {
    let unsigned = match text.strip_prefix("0x") {
        Some(digits) if digits.bytes().all(|b| b.is_ascii_hexdigit()) => u64::from_str_radix(digits, 16).ok(),
        Some(_) => None,
        None => match text.strip_prefix("0o") {
            Some(digits) if digits.bytes().all(|b| matches!(b, b'0'..=b'7')) => {
                u64::from_str_radix(digits, 8).ok()
            }
            Some(_) => None,
            None => text.parse().ok(),
        },
    };
    if let Some(value) = unsigned {
        return Some(Value::Unsigned(value));
    }
    if let Ok(value) = text.parse() {
        return Some(Value::Signed(value));
    }
    // Rust reads `inf`, `nan` and `infinity` as floats; YAML writes `.inf` and `.nan`, which no field takes.
    let looks_like_number = text.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b))
        && text.bytes().any(|b| b.is_ascii_digit());
    if looks_like_number { text.parse().ok().map(Value::Float) } else { None }
}

fn refused_tag(tag: &Tag) -> Mistake {
    Mistake {
        got: Some(tag.to_string()),
        expected: Some("no tag, or !!str".into()),
        ..Mistake::default().detail("a tag is not supported")
    }
}

fn depth(node: &Node) -> usize {
    1 + match &node.value {
        Value::List(items) => items.iter().map(depth).max().unwrap_or(0),
        Value::Map(members) => members.iter().map(|member| depth(&member.node)).max().unwrap_or(0),
        _ => 0,
    }
}

fn place(span: Span) -> Place {
    let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
    Place { line: number(span.start.line()), column: number(span.start.col().saturating_add(1)) }
}

fn scan_error(error: &ScanError) -> Mistake {
    let place = place(Span::empty(*error.marker()));
    // The scanner looks ahead of the events and has a limit of its own.
    let mistake = if error.info() == "recursion limit exceeded" {
        Budget::too_deep()
    } else {
        Mistake::default().detail(format!("this is not YAML: {}", error.info()))
    };
    Mistake { line: Some(place.line), column: Some(place.column), ..mistake }
}
