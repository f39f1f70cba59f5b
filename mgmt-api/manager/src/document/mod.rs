//! What clients send: YAML or JSON, one document or many, read into resources.
//!
//! Text becomes a tree that knows the place of each value ([`Node`]); the tree becomes typed resources by a
//! deserialiser whose errors carry place, field, what was got and what is expected. Later checks find the place of a
//! field again by its path. Size, depth and number of values are bounded before anything is built from them.

mod deserialize;
mod json;
mod node;
mod yaml;

use std::sync::Arc;

use mgmt_types::{
    FirewallPolicy, Group, Host, Kind, Mistake, Network, Problem, ProblemKind, Resource, Router, Workload,
};
use serde::Deserialize;

pub(crate) use node::{Node, Value};

/// Deepest nesting that is read. The deepest field of any resource is at depth 7.
pub(crate) const MAX_DEPTH: usize = 32;
/// Most values in one request, keys included and aliases expanded: some 25 for each of 20 000 workloads of one port.
pub(crate) const MAX_NODES: usize = 500_000;
/// Most keys of one mapping; each is compared with those before it.
pub(crate) const MAX_KEYS: usize = 1024;
/// Most mistakes that are reported at once.
const MAX_MISTAKES: usize = 50;

/// How a text is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// One value, or a list of documents.
    Json,
    /// A stream of documents; a document may be a list of documents.
    Yaml,
    /// A JSON list of `{file, text}`; each text YAML, or JSON when the file's name says so.
    Files,
}

impl Format {
    /// The format a `Content-Type` names.
    pub(crate) fn of(content_type: &str) -> Option<Self> {
        let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match essence.as_str() {
            "application/json" | "application/merge-patch+json" => Some(Self::Json),
            "application/yaml" | "application/x-yaml" | "text/yaml" | "text/x-yaml" => Some(Self::Yaml),
            "application/vnd.palisade.files+json" => Some(Self::Files),
            _ => None,
        }
    }
}

impl Format {
    /// As in a `Content-Type`.
    pub(crate) const fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Yaml => "application/yaml",
            Self::Files => "application/vnd.palisade.files+json",
        }
    }
}

/// Where a document came from, kept to say where a mistake is.
#[derive(Debug)]
pub(crate) struct Source {
    file: Option<String>,
    /// Counted from 1 within the file.
    document: Option<u32>,
    root: Node,
}

impl Source {
    /// Fills in file, document, line and column of a mistake whose field is known.
    pub(crate) fn locate(&self, mistake: &mut Mistake) {
        mistake.file.clone_from(&self.file);
        mistake.document = self.document;
        let place = match &mistake.field {
            Some(field) => self.root.place_of(field),
            None => self.root.at,
        };
        if let Some(place) = place {
            mistake.line = Some(place.line);
            mistake.column = Some(place.column);
        }
    }

    /// The place of the document in words, for messages about another one.
    pub(crate) fn describe(&self) -> String {
        let document = self.document.map_or("the request".to_owned(), |number| format!("document {number}"));
        match &self.file {
            Some(file) => format!("{document} of {file}"),
            None => document,
        }
    }
}

/// A resource as declared, and where.
#[derive(Debug, Clone)]
pub(crate) struct Declared {
    pub(crate) resource: Box<Resource>,
    pub(crate) source: Arc<Source>,
}

/// A resource as named, and where.
#[derive(Debug, Clone)]
pub(crate) struct Named {
    pub(crate) kind: Kind,
    pub(crate) name: String,
    pub(crate) source: Arc<Source>,
}

impl Named {
    /// A resource named by a URL.
    pub(crate) fn unplaced(kind: Kind, name: &str) -> Self {
        let root = Node { at: None, value: Value::Null };
        Self { kind, name: name.to_owned(), source: Arc::new(Source { file: None, document: None, root }) }
    }
}

/// Reads every document of a request as a resource.
pub(crate) fn read(format: Format, body: &[u8]) -> Result<Vec<Declared>, Problem> {
    each(sources(format, body)?, |source| {
        let resource = Box::new(resource(&source.root)?);
        Ok(Declared { resource, source })
    })
}

/// Reads kind and name of every document of a request; the rest is ignored.
pub(crate) fn read_names(format: Format, body: &[u8]) -> Result<Vec<Named>, Problem> {
    each(sources(format, body)?, |source| {
        let (kind, name) = identity(&source.root)?;
        Ok(Named { kind, name, source })
    })
}

/// Reads the one document of a request that replaces the resource `kind`/`name`; both may be left out in it.
pub(crate) fn read_one(format: Format, body: &[u8], kind: Kind, name: &str) -> Result<Declared, Problem> {
    one(sources(format, body)?, kind, name)
}

fn one(mut sources: Vec<Source>, kind: Kind, name: &str) -> Result<Declared, Problem> {
    if sources.len() != 1 {
        return Err(Problem::of(
            ProblemKind::Invalid,
            vec![
                Mistake::new("", format!("{} documents", sources.len()), "one document")
                    .detail("a single resource is written by a single document"),
            ],
        ));
    }
    for source in &mut sources {
        source.root.default_member("name", name);
        source.root.default_member("kind", kind.as_str());
    }
    let declared = each(sources, |source| {
        let resource = Box::new(resource(&source.root)?);
        Ok(Declared { resource, source })
    })?;
    let Some(one) = declared.into_iter().next() else {
        return Err(Problem::new(ProblemKind::Invalid, "the document is empty"));
    };
    let mut mistakes = Vec::new();
    if one.resource.kind() != kind {
        mistakes.push(
            Mistake::new("kind", one.resource.kind(), kind)
                .detail("the kind differs from the one in the URL"),
        );
    }
    if one.resource.name() != name {
        mistakes.push(
            Mistake::new("name", one.resource.name(), name)
                .detail("the name differs from the one in the URL"),
        );
    }
    if mistakes.is_empty() {
        return Ok(one);
    }
    mistakes.iter_mut().for_each(|mistake| one.source.locate(mistake));
    Err(Problem::of(ProblemKind::Invalid, mistakes))
}

/// Reads a value that is no resource, such as the wish for a token.
pub(crate) fn read_value<T: for<'de> Deserialize<'de>>(body: &[u8]) -> Result<T, Problem> {
    let root = json::parse(text(body, None)?).map_err(syntax)?;
    deserialize::from_node(&root).map_err(|mistake| Problem::of(ProblemKind::Invalid, vec![mistake]))
}

/// Reads a JSON body as it is.
pub(crate) fn read_json(body: &[u8]) -> Result<serde_json::Value, Problem> {
    let root = json::parse(text(body, None)?).map_err(syntax)?;
    Ok(root.to_json())
}

/// A resource from a tree that no text is known for.
pub(crate) fn from_json(value: &serde_json::Value, kind: Kind, name: &str) -> Result<Declared, Problem> {
    one(vec![Source { file: None, document: None, root: Node::from_json(value) }], kind, name)
}

fn each<T>(
    sources: Vec<Source>,
    read: impl Fn(Arc<Source>) -> Result<T, Mistake>,
) -> Result<Vec<T>, Problem> {
    let mut values = Vec::new();
    let mut mistakes = Vec::new();
    for source in sources {
        let source = Arc::new(source);
        match read(Arc::clone(&source)) {
            Ok(value) => values.push(value),
            Err(mut mistake) => {
                let at = (mistake.line, mistake.column);
                source.locate(&mut mistake);
                if at.0.is_some() {
                    (mistake.line, mistake.column) = at;
                }
                mistakes.push(mistake);
                if mistakes.len() == MAX_MISTAKES {
                    break;
                }
            }
        }
    }
    if mistakes.is_empty() { Ok(values) } else { Err(Problem::of(ProblemKind::Invalid, mistakes)) }
}

fn sources(format: Format, body: &[u8]) -> Result<Vec<Source>, Problem> {
    match format {
        Format::Json => split(None, vec![json::parse(text(body, None)?).map_err(syntax)?]),
        Format::Yaml => split(None, yaml::parse(text(body, None)?).map_err(syntax)?),
        Format::Files => {
            let mut sources = Vec::new();
            for file in read_value::<Vec<File>>(body)? {
                let in_file = |mut mistake: Mistake| {
                    mistake.file = Some(file.file.clone());
                    syntax(mistake)
                };
                let is_json = file.file.ends_with(".json");
                let roots = if is_json {
                    vec![json::parse(&file.text).map_err(in_file)?]
                } else {
                    yaml::parse(&file.text).map_err(in_file)?
                };
                sources.extend(split(Some(&file.file), roots)?);
            }
            Ok(sources)
        }
    }
}

/// One file of [`Format::Files`].
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    file: String,
    text: String,
}

/// Takes lists of documents apart and leaves out empty documents.
fn split(file: Option<&str>, roots: Vec<Node>) -> Result<Vec<Source>, Problem> {
    let mut sources = Vec::new();
    for root in roots {
        let parts = match root.value {
            Value::List(items) => items,
            Value::Null => Vec::new(),
            value => vec![Node { at: root.at, value }],
        };
        for root in parts {
            let document = u32::try_from(sources.len()).ok().and_then(|count| count.checked_add(1));
            sources.push(Source { file: file.map(str::to_owned), document, root });
        }
    }
    Ok(sources)
}

fn text<'a>(body: &'a [u8], file: Option<&str>) -> Result<&'a str, Problem> {
    std::str::from_utf8(body).map_err(|error| {
        let before = body.get(..error.valid_up_to()).unwrap_or_default();
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        syntax(Mistake {
            reason: Some("the text is not UTF-8".to_owned()),
            got: body.get(error.valid_up_to()).map(|byte| format!("byte 0x{byte:02x}")),
            expected: Some("UTF-8".to_owned()),
            line: u32::try_from(line).ok(),
            file: file.map(str::to_owned),
            ..Mistake::default()
        })
    })
}

fn syntax(mistake: Mistake) -> Problem {
    Problem::of(ProblemKind::Syntax, vec![mistake])
}

fn resource(root: &Node) -> Result<Resource, Mistake> {
    let (kind, name) = identity(root)?;
    let body = root.without("kind");
    let resource = match kind {
        Kind::Network => deserialize::from_node::<Network>(&body).map(Resource::Network),
        Kind::Router => deserialize::from_node::<Router>(&body).map(Resource::Router),
        Kind::Workload => deserialize::from_node::<Workload>(&body).map(Resource::Workload),
        Kind::Host => deserialize::from_node::<Host>(&body).map(Resource::Host),
        Kind::Group => deserialize::from_node::<Group>(&body).map(Resource::Group),
        Kind::FirewallPolicy => deserialize::from_node::<FirewallPolicy>(&body).map(Resource::FirewallPolicy),
    };
    resource.map(Resource::desired).map_err(|mut mistake| {
        mistake.resource = Some(format!("{kind}/{name}"));
        mistake
    })
}

/// Kind and name of a document.
fn identity(root: &Node) -> Result<(Kind, String), Mistake> {
    let Value::Map(_) = root.value else {
        return Err(Mistake::new("", root.describe(), "a mapping with kind, name and spec")
            .detail("a document is not a resource"));
    };
    let kinds = "Network, Router, Workload, Host, Group or FirewallPolicy";
    let kind = match root.member("kind") {
        None => return Err(missing("kind", kinds)),
        Some(Node { value: Value::String(text), .. }) => Kind::ALL
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| Mistake::new("kind", text, kinds).detail("there is no such kind"))?,
        Some(other) => return Err(Mistake::new("kind", other.describe(), kinds).detail("wrong type")),
    };
    let name = match root.member("name") {
        None => return Err(missing("name", "a name, such as web-1")),
        Some(Node { value: Value::String(text), .. }) => text.clone(),
        Some(other) => {
            return Err(
                Mistake::new("name", other.describe(), "a string (put it in quotes)").detail("wrong type")
            );
        }
    };
    Ok((kind, name))
}

fn missing(field: &str, expected: &str) -> Mistake {
    Mistake {
        field: Some(field.to_owned()),
        expected: Some(expected.to_owned()),
        ..Mistake::default().detail("the field is missing")
    }
}

#[cfg(test)]
mod tests;
