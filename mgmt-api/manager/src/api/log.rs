//! What changed when, by whom, how far it has come, and who was refused.

use std::time::SystemTime;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use mgmt_types::{AuditList, Problem, Realised, Revision};
use serde::Deserialize;

use super::Context;
use super::caller::{Auditor, Reader};
use super::reply::{self, Refused};
use super::resources::wrong_query;

/// Which entries.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AuditQuery {
    /// Only entries with a smaller number.
    before: Option<u64>,
    /// At most so many.
    limit: Option<usize>,
}

/// Entries in one answer when the client names no number, and most when it does.
const LIMIT: (usize, usize) = (100, 1000);

/// The audit log, newest first: every change, and requests refused for want of a token or a right.
#[utoipa::path(
    get, path = "/v1/audit", tag = "history", operation_id = "audit",
    params(
        ("before" = Option<u64>, Query, description = "Only entries with a smaller id: the last id of the page before"),
        ("limit" = Option<usize>, Query, description = "At most so many, 100 when not given, 1000 at most"),
    ),
    responses((status = 200, description = "Entries", body = AuditList), (status = "4XX", description = "What is wrong", body = Problem, content_type = "application/problem+json")),
)]
pub(super) async fn audit(
    _auditor: Auditor,
    State(context): State<Context>,
    query: Result<Query<AuditQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Refused> {
    let Query(query) = query.map_err(|error| wrong_query(&error))?;
    let most = query.limit.unwrap_or(LIMIT.0).clamp(1, LIMIT.1);
    let manager = context.manager.clone();
    let items = reply::work(&context, move || manager.audit(query.before, most)).await?;
    Ok(reply::json(StatusCode::OK, &AuditList { items }))
}

/// One revision: author, time and what it changed, before and after.
#[utoipa::path(
    get, path = "/v1/revisions/{number}", tag = "history", operation_id = "readRevision",
    params(("number" = u64, Path, description = "The revision")),
    responses((status = 200, description = "The revision", body = Revision), (status = "4XX", description = "What is wrong", body = Problem, content_type = "application/problem+json")),
)]
pub(super) async fn revision(
    _reader: Reader,
    State(context): State<Context>,
    number: Result<Path<u64>, axum::extract::rejection::PathRejection>,
) -> Result<Response, Refused> {
    let Path(number) = number.map_err(|error| wrong_query(&error))?;
    let manager = context.manager.clone();
    let revision = reply::work(&context, move || manager.revision(number)).await?;
    Ok(reply::json(StatusCode::OK, &revision))
}

/// How far a revision has come on each host that has something to do for it.
#[utoipa::path(
    get, path = "/v1/revisions/{number}/realized", tag = "history", operation_id = "revisionRealized",
    params(("number" = u64, Path, description = "The revision")),
    responses((status = 200, description = "Per host", body = Realised), (status = "4XX", description = "What is wrong", body = Problem, content_type = "application/problem+json")),
)]
pub(super) async fn realised(
    _reader: Reader,
    State(context): State<Context>,
    number: Result<Path<u64>, axum::extract::rejection::PathRejection>,
) -> Result<Response, Refused> {
    let Path(number) = number.map_err(|error| wrong_query(&error))?;
    let manager = context.manager.clone();
    let realised = reply::work(&context, move || manager.realised(number, SystemTime::now())).await?;
    Ok(reply::json(StatusCode::OK, &realised))
}
