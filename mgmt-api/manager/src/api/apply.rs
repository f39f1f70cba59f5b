//! Many resources in one transaction.

use axum::extract::{Query, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use mgmt_types::{Applied, Problem, Resource};
use serde::Deserialize;

use super::Context;
use super::caller::Writer;
use super::questions;
use super::reply::{self, Refused};
use super::resources::wrong_query;
use crate::document::{self, Format};
use crate::transaction::Wish;

/// How to apply.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ApplyQuery {
    /// Check only.
    #[serde(default, rename = "dryRun")]
    dry_run: bool,
}

type Asked = Result<Query<ApplyQuery>, axum::extract::rejection::QueryRejection>;

const FORMATS: [Format; 3] = [Format::Yaml, Format::Json, Format::Files];

/// Makes all resources of the body exactly so, in one transaction: all of it or none.
#[utoipa::path(
    post, path = "/v1/apply", tag = "resources", operation_id = "apply",
    params(("dryRun" = Option<bool>, Query, description = "Check only, change nothing")),
    request_body(
        description = "A resource, a list of resources, YAML documents, or named files: `[{\"file\": NAME, \"text\": TEXT}]`",
        content((Vec<Resource> = "application/json"), (String = "application/yaml"), (serde_json::Value = "application/vnd.palisade.files+json")),
    ),
    responses((status = 200, description = "All of it is done", body = Applied), (status = "4XX", description = "What is wrong; nothing is done", body = Problem, content_type = "application/problem+json")),
)]
pub(super) async fn apply(
    Writer(asked): Writer,
    State(context): State<Context>,
    query: Asked,
    request: Request,
) -> Result<Response, Refused> {
    let Query(query) = query.map_err(|error| wrong_query(&error))?;
    let format = reply::format(request.headers(), &FORMATS)?;
    let body = reply::body(request).await?;
    let read = move || Ok(document::read(format, &body)?.into_iter().map(Wish::Put).collect());
    transact(&context, asked, query.dry_run, read).await
}

/// Deletes all resources the body names, in one transaction; of each document only kind and name are read, and what is
/// not there is left so.
#[utoipa::path(
    post, path = "/v1/delete", tag = "resources", operation_id = "delete",
    params(("dryRun" = Option<bool>, Query, description = "Check only, change nothing")),
    request_body(description = "As for apply", content((Vec<Resource> = "application/json"), (String = "application/yaml"), (serde_json::Value = "application/vnd.palisade.files+json"))),
    responses((status = 200, description = "All of it is done", body = Applied), (status = "4XX", description = "What is wrong; nothing is done", body = Problem, content_type = "application/problem+json")),
)]
pub(super) async fn delete(
    Writer(asked): Writer,
    State(context): State<Context>,
    query: Asked,
    request: Request,
) -> Result<Response, Refused> {
    let Query(query) = query.map_err(|error| wrong_query(&error))?;
    let format = reply::format(request.headers(), &FORMATS)?;
    let body = reply::body(request).await?;
    let read = move || Ok(document::read_names(format, &body)?.into_iter().map(Wish::Delete).collect());
    transact(&context, asked, query.dry_run, read).await
}

/// Does it, or says what it would come to, live connections included.
async fn transact(
    context: &Context,
    asked: crate::manager::Request,
    dry_run: bool,
    read: impl FnOnce() -> Result<Vec<Wish>, Problem> + Send + 'static,
) -> Result<Response, Refused> {
    let manager = context.manager.clone();
    if !dry_run {
        let applied = reply::work(context, move || {
            read().and_then(|wishes| manager.transact(&asked, |_| Ok(wishes.clone())))
        })
        .await?;
        return Ok(reply::json(StatusCode::OK, &applied));
    }
    let foreseen = reply::work(context, move || read().and_then(|wishes| manager.foresee(|_| Ok(wishes))));
    let (mut applied, state, hosts) = foreseen.await?;
    applied.flows = questions::impact(context, state, hosts).await;
    Ok(reply::json(StatusCode::OK, &applied))
}
