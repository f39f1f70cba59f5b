//! One resource, or all of a kind.

use std::str::FromStr;
use std::time::SystemTime;

use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use mgmt_types::{Applied, Change, Kind, Mistake, Problem, ProblemKind, Resource, ResourceList, Selector};
use serde::Deserialize;
use serde_json::Value;

use super::Context;
use super::caller::{Reader, Writer};
use super::reply::{self, Refused};
use crate::document::{self, Format, Named};
use crate::manager::Request as Asked;
use crate::state::{Entry, State as Desired};
use crate::transaction::Wish;

/// Which resources to list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    /// Demands on labels, such as `app=shop,tier!=db`.
    #[serde(default)]
    labels: String,
}

/// Lists the resources of a kind, by name.
#[utoipa::path(
    get, path = "/v1/{kind}", tag = "resources", operation_id = "listResources",
    params(
        ("kind" = String, Path, description = "networks, routers, workloads, hosts, groups or firewallpolicies"),
        ("labels" = Option<String>, Query, description = "Only those with these labels: key=value, key!=value, key or !key, separated by commas"),
    ),
    responses((status = 200, description = "The resources", body = ResourceList), (status = "4XX", description = "What is wrong", body = Problem, content_type = "application/problem+json")),
)]
pub(super) async fn list(
    _reader: Reader,
    State(context): State<Context>,
    Path(kind): Path<String>,
    query: Result<Query<ListQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Refused> {
    let kind = self::kind(&kind)?;
    let Query(query) = query.map_err(|error| wrong_query(&error))?;
    let selector = Selector::from_str(&query.labels).map_err(|error| {
        let mistake = Mistake::new("labels", &error.term, "key=value, key!=value, key or !key, by commas")
            .detail(error.to_string());
        Problem::of(ProblemKind::Invalid, vec![mistake])
    })?;
    let manager = context.manager.clone();
    reply::work(&context, move || {
        let state = manager.state();
        let mut entries = state.list(kind);
        if !selector.is_empty() {
            entries.retain(|entry| selector.matches(entry.resource().labels()));
        }
        let items = manager.board.resources(&state, &entries, SystemTime::now());
        Ok(reply::json(StatusCode::OK, &ResourceList { revision: state.revision, items }))
    })
    .await
}

/// Reads one resource, with its status.
#[utoipa::path(
    get, path = "/v1/{kind}/{name}", tag = "resources", operation_id = "readResource",
    params(("kind" = String, Path, description = "networks, routers, workloads, hosts, groups or firewallpolicies"), ("name" = String, Path, description = "Name of the resource")),
    responses(
        (status = 200, description = "The resource", body = Resource, headers(("ETag" = String, description = "Its revision, for If-Match"))),
        (status = "4XX", description = "What is wrong", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn read(
    _reader: Reader,
    State(context): State<Context>,
    Path((kind, name)): Path<(String, String)>,
) -> Result<Response, Refused> {
    let kind = self::kind(&kind)?;
    let state = context.manager.state();
    let entry = state.get(kind, &name).ok_or_else(|| missing(&state, kind, &name))?;
    Ok(answer(&context, &state, &entry, StatusCode::OK))
}

/// Makes a resource exactly so; the same again changes nothing and makes no revision.
#[utoipa::path(
    put, path = "/v1/{kind}/{name}", tag = "resources", operation_id = "replaceResource",
    params(
        ("kind" = String, Path, description = "networks, routers, workloads, hosts, groups or firewallpolicies"), ("name" = String, Path, description = "Name of the resource"),
        ("If-Match" = Option<String>, Header, description = "Only if it is at this revision, as ETag said"),
        ("If-None-Match" = Option<String>, Header, description = "`*`: only if it does not exist"),
    ),
    request_body(description = "The resource; kind and name may be left out", content((Resource = "application/json"), (Resource = "application/yaml"))),
    responses(
        (status = 200, description = "It was there", body = Resource), (status = 201, description = "It is new", body = Resource),
        (status = "4XX", description = "What is wrong", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn replace(
    Writer(asked): Writer,
    State(context): State<Context>,
    Path((kind, name)): Path<(String, String)>,
    request: Request,
) -> Result<Response, Refused> {
    let kind = self::kind(&kind)?;
    let condition = Condition::of(request.headers())?;
    let format = reply::format(request.headers(), &[Format::Json, Format::Yaml])?;
    let body = reply::body(request).await?;
    change(context, asked, kind, name, move |state, kind, name| {
        condition.check(state.get(kind, name).as_ref())?;
        Ok(vec![Wish::Put(document::read_one(format, &body, kind, name)?)])
    })
    .await
}

/// Changes members of a resource by JSON merge patch (RFC 7396).
#[utoipa::path(
    patch, path = "/v1/{kind}/{name}", tag = "resources", operation_id = "patchResource",
    params(
        ("kind" = String, Path, description = "networks, routers, workloads, hosts, groups or firewallpolicies"), ("name" = String, Path, description = "Name of the resource"),
        ("If-Match" = Option<String>, Header, description = "Only if it is at this revision, as ETag said"),
    ),
    request_body(description = "Members to change; null removes one", content((serde_json::Value = "application/merge-patch+json"))),
    responses((status = 200, description = "As it is now", body = Resource), (status = "4XX", description = "What is wrong", body = Problem, content_type = "application/problem+json")),
)]
pub(super) async fn patch(
    Writer(asked): Writer,
    State(context): State<Context>,
    Path((kind, name)): Path<(String, String)>,
    request: Request,
) -> Result<Response, Refused> {
    let kind = self::kind(&kind)?;
    let condition = Condition::of(request.headers())?;
    reply::format(request.headers(), &[Format::Json])?;
    let body = reply::body(request).await?;
    change(context, asked, kind, name, move |state, kind, name| {
        let patch = document::read_json(&body)?;
        let entry = state.get(kind, name).ok_or_else(|| missing(state, kind, name))?;
        condition.check(Some(&entry))?;
        let mut value = serde_json::to_value(entry.resource().desired())
            .map_err(|error| crate::manager::internal(&error))?;
        merge(&mut value, &patch);
        Ok(vec![Wish::Put(document::from_json(&value, kind, name)?)])
    })
    .await
}

/// Deletes a resource that nothing uses.
#[utoipa::path(
    delete, path = "/v1/{kind}/{name}", tag = "resources", operation_id = "deleteResource",
    params(
        ("kind" = String, Path, description = "networks, routers, workloads, hosts, groups or firewallpolicies"), ("name" = String, Path, description = "Name of the resource"),
        ("If-Match" = Option<String>, Header, description = "Only if it is at this revision, as ETag said"),
    ),
    responses((status = 200, description = "It is gone", body = Applied), (status = "4XX", description = "What is wrong", body = Problem, content_type = "application/problem+json")),
)]
pub(super) async fn remove(
    Writer(asked): Writer,
    State(context): State<Context>,
    Path((kind, name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let kind = self::kind(&kind)?;
    let condition = Condition::of(&headers)?;
    let manager = context.manager.clone();
    let applied = reply::work(&context, move || {
        manager.transact(&asked, |state| {
            let entry = state.get(kind, &name).ok_or_else(|| missing(state, kind, &name))?;
            condition.check(Some(&entry))?;
            Ok(vec![Wish::Delete(Named::unplaced(kind, &name))])
        })
    })
    .await?;
    Ok(reply::json(StatusCode::OK, &applied))
}

async fn change(
    context: Context,
    asked: Asked,
    kind: Kind,
    name: String,
    wishes: impl Fn(&Desired, Kind, &str) -> Result<Vec<Wish>, Problem> + Send + 'static,
) -> Result<Response, Refused> {
    let manager = context.manager.clone();
    let key = name.clone();
    let applied: Applied =
        reply::work(&context, move || manager.transact(&asked, |state| wishes(state, kind, &key))).await?;
    let created = applied.results.iter().any(|outcome| outcome.change == Change::Created);
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    let state = context.manager.state();
    match state.get(kind, &name) {
        Some(entry) => Ok(answer(&context, &state, &entry, status)),
        // Somebody else deleted it right after.
        None => Ok(reply::json(status, &applied)),
    }
}

fn answer(context: &Context, state: &Desired, entry: &Entry, status: StatusCode) -> Response {
    let resource = context.manager.board.resource(state, entry, SystemTime::now());
    let mut response = reply::json(status, &resource);
    if let Ok(tag) = HeaderValue::from_str(&tag(entry)) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

/// The strong validator of an entry (RFC 9110 section 8.8.3). It is about what is wanted, not about the status.
fn tag(entry: &Entry) -> String {
    format!("\"{}\"", entry.revision())
}

fn kind(text: &str) -> Result<Kind, Refused> {
    Kind::ALL.into_iter().find(|kind| kind.plural() == text).ok_or_else(|| {
        let mistake =
            Mistake::new("kind", text, "networks, routers, workloads, hosts, groups or firewallpolicies")
                .detail("there is no such kind of resource, nor another address of this name");
        Problem::of(ProblemKind::NotFound, vec![mistake]).into()
    })
}

fn missing(state: &Desired, kind: Kind, name: &str) -> Problem {
    let count = state.count(kind);
    let detail = format!("there is no {kind} {:?}; there are {count} {}", cut(name), kind.plural());
    Problem::new(ProblemKind::NotFound, detail)
}

fn cut(text: &str) -> String {
    text.chars().take(80).collect()
}

pub(super) fn wrong_query(error: &dyn std::fmt::Display) -> Problem {
    Problem::new(ProblemKind::Invalid, format!("the query cannot be read: {error}"))
}

/// What the client demands of the present state (RFC 9110 section 13.1).
#[derive(Debug)]
struct Condition {
    /// One of these validators, or any when it holds `*`.
    matches: Option<Vec<String>>,
    /// It must not exist.
    absent: bool,
}

impl Condition {
    fn of(headers: &HeaderMap) -> Result<Self, Refused> {
        let text = |name| headers.get(name).map(|value: &HeaderValue| value.to_str().unwrap_or_default());
        let matches = text(header::IF_MATCH)
            .map(|list| list.split(',').map(|tag| tag.trim().to_owned()).collect::<Vec<_>>());
        let absent = match text(header::IF_NONE_MATCH).map(str::trim) {
            None => false,
            Some("*") => true,
            Some(other) => {
                let mistake =
                    Mistake::new("If-None-Match", other, "*").detail("only * makes sense for a write");
                return Err(Problem::of(ProblemKind::Invalid, vec![mistake]).into());
            }
        };
        Ok(Self { matches, absent })
    }

    fn check(&self, entry: Option<&Entry>) -> Result<(), Problem> {
        let have = entry.map(tag);
        let stale = |got: String, expected: String| {
            let mistake = Mistake {
                field: Some("If-Match".to_owned()),
                got: Some(got),
                expected: Some(expected),
                ..Mistake::default().detail("the resource is not as the client expects")
            };
            Problem::of(ProblemKind::Stale, vec![mistake])
        };
        if let Some(tags) = &self.matches {
            let fits = have.as_ref().is_some_and(|have| tags.iter().any(|tag| tag == "*" || tag == have));
            if !fits {
                let have = have.clone().unwrap_or_else(|| "no such resource".to_owned());
                return Err(stale(tags.join(", "), have));
            }
        }
        match have {
            Some(have) if self.absent => {
                Err(stale("If-None-Match: *".to_owned(), format!("it exists at {have}")))
            }
            _ => Ok(()),
        }
    }
}

/// RFC 7396 section 2.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(members) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    let Value::Object(into) = target else { return };
    for (key, value) in members {
        if value.is_null() {
            into.remove(key);
        } else {
            merge(into.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn merge_patch_follows_the_table_of_rfc_7396_appendix_a() {
        let cases = [
            (json!({"a":"b"}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"b"}), json!({"b":"c"}), json!({"a":"b","b":"c"})),
            (json!({"a":"b"}), json!({"a":null}), json!({})),
            (json!({"a":"b","b":"c"}), json!({"a":null}), json!({"b":"c"})),
            (json!({"a":["b"]}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"c"}), json!({"a":["b"]}), json!({"a":["b"]})),
            (json!({"a":{"b":"c"}}), json!({"a":{"b":"d","c":null}}), json!({"a":{"b":"d"}})),
            (json!({"a":[{"b":"c"}]}), json!({"a":[1]}), json!({"a":[1]})),
            (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
            (json!({"a":"b"}), json!(["c"]), json!(["c"])),
            (json!({"a":"foo"}), json!(null), json!(null)),
            (json!({"a":"foo"}), json!("bar"), json!("bar")),
            (json!({"e":null}), json!({"a":1}), json!({"e":null,"a":1})),
            (json!([1, 2]), json!({"a":"b","c":null}), json!({"a":"b"})),
            (json!({}), json!({"a":{"bb":{"ccc":null}}}), json!({"a":{"bb":{}}})),
        ];
        for (mut target, patch, result) in cases {
            let before = target.clone();
            merge(&mut target, &patch);
            assert_eq!(target, result, "{before} + {patch}");
        }
    }
}
