//! Errors as clients see them (RFC 9457).

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::name::NameError;

/// An error in the form of RFC 9457 (`application/problem+json`) with what a person needs to mend it.
///
/// The members of the first mistake stand at the top level; when a request has several, all of them are in `errors`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// Which kind of problem, as a URI that never changes: `urn:palisade:problem:<kind>`.
    #[serde(rename = "type")]
    #[schema(example = "urn:palisade:problem:invalid")]
    pub kind: String,
    /// The kind in words, the same for every occurrence.
    pub title: String,
    /// The HTTP status code.
    pub status: u16,
    /// What is wrong and where, for this occurrence.
    pub detail: String,
    /// The first mistake.
    #[serde(flatten)]
    pub first: Mistake,
    /// All mistakes, when there are several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<Mistake>,
}

/// One thing that is wrong in what a client sent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Mistake {
    /// What is wrong, in words.
    #[serde(rename = "reason", default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The resource, written `Workload/web-1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// The field, written `spec.ports[0].addresses[1]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// What was found there, cut to 200 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub got: Option<String>,
    /// What would be right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
    /// The file, when the client named its files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Which document of the file, counted from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document: Option<u32>,
    /// Line of the file, counted from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// Column of the line, counted from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
}

/// The kinds of problem this API has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProblemKind {
    /// The request cannot be read: not JSON, not YAML, not UTF-8.
    Syntax,
    /// The request can be read, and what it says is wrong.
    Invalid,
    /// No token or certificate, or one that is not valid.
    Unauthenticated,
    /// Whoever asks may not do this.
    Forbidden,
    /// There is no such resource, revision or address.
    NotFound,
    /// The method is not one this address knows.
    Method,
    /// The resource is still used by others, or its name is.
    InUse,
    /// The resource is no longer at the revision the client expects.
    Stale,
    /// It was there and is no longer kept.
    Gone,
    /// The body's format is not one the manager reads.
    MediaType,
    /// The body is larger than the manager reads.
    TooLarge,
    /// The client was too slow.
    Timeout,
    /// The manager is doing all it can; try again later.
    Busy,
    /// The manager cannot reach its store: nothing can be changed, and what is kept there alone cannot be read.
    Store,
    /// Something broke in the manager; its log says what.
    Internal,
}

impl ProblemKind {
    /// Every kind, for documentation and tests.
    pub const ALL: [Self; 15] = [
        Self::Syntax,
        Self::Invalid,
        Self::Unauthenticated,
        Self::Forbidden,
        Self::NotFound,
        Self::Method,
        Self::InUse,
        Self::Stale,
        Self::Gone,
        Self::MediaType,
        Self::TooLarge,
        Self::Timeout,
        Self::Busy,
        Self::Store,
        Self::Internal,
    ];

    /// HTTP status code, last part of the URI, and title.
    pub const fn parts(self) -> (u16, &'static str, &'static str) {
        match self {
            Self::Syntax => (400, "syntax", "the request cannot be read"),
            Self::Invalid => (422, "invalid", "the request asks for something that cannot be"),
            Self::Unauthenticated => (401, "unauthenticated", "a valid token or certificate is needed"),
            Self::Forbidden => (403, "forbidden", "whoever asks may not do this"),
            Self::NotFound => (404, "not-found", "there is no such thing"),
            Self::Method => (405, "method", "the method is not known here"),
            Self::InUse => (409, "in-use", "the resource is still in use"),
            Self::Stale => (412, "stale", "the resource has changed in the meantime"),
            Self::Gone => (410, "gone", "it is no longer kept"),
            Self::MediaType => (415, "media-type", "the body's format is not known"),
            Self::TooLarge => (413, "too-large", "the request is too large"),
            Self::Timeout => (408, "timeout", "the request took too long"),
            Self::Busy => (503, "busy", "the manager is busy"),
            Self::Store => (503, "store", "the manager cannot use its store"),
            Self::Internal => (500, "internal", "the manager failed"),
        }
    }
}

impl Problem {
    /// A problem of `kind`; `detail` says what is wrong this time.
    pub fn new(kind: ProblemKind, detail: impl Into<String>) -> Self {
        let (status, code, title) = kind.parts();
        Self {
            kind: format!("urn:palisade:problem:{code}"),
            title: title.to_owned(),
            status,
            detail: detail.into(),
            first: Mistake::default(),
            errors: Vec::new(),
        }
    }

    /// A problem of `kind` made of mistakes; the first one speaks for all.
    pub fn of(kind: ProblemKind, mistakes: Vec<Mistake>) -> Self {
        let mut problem = Self::new(kind, "");
        let count = mistakes.len();
        if let Some(first) = mistakes.first() {
            problem.first = first.clone();
            problem.detail = first.to_string();
        }
        if count > 1 {
            problem.detail.push_str(&format!(" (and {} more)", count - 1));
            problem.errors = mistakes;
        }
        problem
    }

    /// All mistakes, be they one or several.
    pub fn mistakes(&self) -> &[Mistake] {
        if self.errors.is_empty() { std::slice::from_ref(&self.first) } else { &self.errors }
    }

    /// True when it is of this kind.
    pub fn is(&self, kind: ProblemKind) -> bool {
        self.kind.strip_prefix("urn:palisade:problem:") == Some(kind.parts().1)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.title, self.detail)
    }
}

impl std::error::Error for Problem {}

/// Longest `got` that is sent back, in characters.
const MAX_GOT: usize = 200;

impl Mistake {
    /// A mistake in `field`: what was found and what would be right.
    pub fn new(field: impl Into<String>, got: impl fmt::Display, expected: impl fmt::Display) -> Self {
        let got = got.to_string();
        let cut = match got.char_indices().nth(MAX_GOT) {
            Some((end, _)) => format!("{}…", &got[..end]),
            None => got,
        };
        Self {
            field: Some(field.into()),
            got: Some(cut),
            expected: Some(expected.to_string()),
            ..Self::default()
        }
    }

    /// Says what is wrong in words.
    #[must_use]
    pub fn detail(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }

    /// Adds a mistake when a name was refused.
    pub(crate) fn check_name(found: &mut Vec<Self>, field: &str, verdict: Result<(), NameError>, got: &str) {
        if let Err(error) = verdict {
            found.push(
                Self::new(
                    field,
                    got,
                    "letters a-z, digits and '-', beginning and ending with a letter or digit",
                )
                .detail(format!("the name {error}")),
            );
        }
    }
}

impl fmt::Display for Mistake {
    /// `shop.yaml:7:12: Workload/web-1: spec.ports[0].network: no such network: got "blu", expected blue`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut place = String::new();
        match (&self.file, self.line, self.document) {
            (Some(file), Some(line), _) => place = format!("{file}:{line}"),
            (Some(file), None, _) => place.clone_from(file),
            (None, Some(line), _) => place = format!("line {line}"),
            (None, None, Some(document)) => place = format!("document {document}"),
            (None, None, None) => {}
        }
        if let (Some(column), Some(_)) = (self.column, self.line) {
            place.push_str(&format!(":{column}"));
        }
        let parts = [
            (!place.is_empty()).then_some(place),
            self.resource.clone(),
            self.field.clone(),
            self.reason.clone(),
            match (&self.got, &self.expected) {
                (Some(got), Some(expected)) => Some(format!("got {got:?}, expected {expected}")),
                (Some(got), None) => Some(format!("got {got:?}")),
                (None, Some(expected)) => Some(format!("expected {expected}")),
                (None, None) => None,
            },
        ];
        f.write_str(&parts.into_iter().flatten().collect::<Vec<_>>().join(": "))
    }
}
