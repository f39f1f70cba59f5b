//! A copy of all that is kept, out and in.

use std::convert::Infallible;
use std::time::SystemTime;

use axum::body::{Body, Bytes};
use axum::extract::{Query, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use http_body_util::BodyExt;
use mgmt_types::{Problem, ProblemKind, Restored};
use serde::Deserialize;
use tokio::sync::mpsc;

use super::Context;
use super::caller::Admin;
use super::reply::{self, Refused};
use super::resources::wrong_query;
use crate::backup::{self, Backup};
use crate::restore::Options;

/// Lines of a backup that wait for the client to take them.
const WAITING: usize = 256;
/// Largest backup that is taken in one request, in bytes.
const MAX_BACKUP: usize = 512 << 20;
/// The lines' content type.
const LINES: &str = "application/x-ndjson";

/// Copies state, history and records (hashes of tokens among them) as lines of JSON, one after the other. The last line
/// proves that none is missing; without it the copy is worth nothing.
#[utoipa::path(
    get, path = "/v1/backup", tag = "meta", operation_id = "backup",
    responses((status = 200, description = "The backup", body = String, content_type = "application/x-ndjson"), (status = "4XX", description = "What is wrong", body = Problem, content_type = "application/problem+json")),
)]
pub(super) async fn backup(Admin(asked): Admin, State(context): State<Context>) -> Response {
    let (sender, receiver) = mpsc::channel(WAITING);
    let manager = context.manager.clone();
    log::info!("{}: a backup begins", asked.action);
    tokio::task::spawn_blocking(move || {
        let time = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        // Who does not take the lines any more gets no end, and knows that it is not whole.
        let sink = |line: Vec<u8>| sender.blocking_send(Bytes::from(line)).is_ok();
        if let Err(problem) = backup::write(&manager.state(), manager.store(), time, sink) {
            log::error!("a backup breaks off: {}", problem.detail);
        }
    });
    let lines = stream::unfold(receiver, |mut receiver: mpsc::Receiver<Bytes>| async move {
        let line = receiver.recv().await?;
        Some((Ok::<_, Infallible>(line), receiver))
    });
    ([(header::CONTENT_TYPE, HeaderValue::from_static(LINES))], Body::from_stream(lines)).into_response()
}

/// How to restore.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct RestoreQuery {
    /// Also in the place of a newer state.
    #[serde(default)]
    force: bool,
    /// Leave tokens as they are.
    #[serde(default)]
    keep_tokens: bool,
}

/// Puts a backup in the place of everything: state, history and records. Revisions go on far above all that were given
/// before.
#[utoipa::path(
    post, path = "/v1/restore", tag = "meta", operation_id = "restore",
    params(
        ("force" = Option<bool>, Query, description = "Also in the place of a newer state"),
        ("keepTokens" = Option<bool>, Query, description = "Leave tokens as they are"),
    ),
    request_body(description = "What `/v1/backup` gave", content((String = "application/x-ndjson"))),
    responses((status = 200, description = "It is in force", body = Restored), (status = "4XX", description = "What is wrong; nothing is changed", body = Problem, content_type = "application/problem+json")),
)]
pub(super) async fn restore(
    Admin(asked): Admin,
    State(context): State<Context>,
    query: Result<Query<RestoreQuery>, axum::extract::rejection::QueryRejection>,
    request: Request,
) -> Result<Response, Refused> {
    let Query(RestoreQuery { force, keep_tokens }) = query.map_err(|error| wrong_query(&error))?;
    let text = body(request).await?;
    let manager = context.manager.clone();
    let restored = reply::work(&context, move || {
        let backup = Backup::read(text.as_slice())
            .map_err(|error| Problem::new(ProblemKind::Invalid, error.to_string()))?;
        manager.restore(&asked, backup, Options { force, keep_tokens })
    })
    .await?;
    Ok(reply::json(StatusCode::OK, &restored))
}

/// Reads a backup's text.
async fn body(request: Request) -> Result<Vec<u8>, Refused> {
    let mut body = request.into_body();
    let mut text = Vec::new();
    while let Some(frame) = body.frame().await {
        let broken = |error| Problem::new(ProblemKind::Syntax, format!("the body cannot be read: {error}"));
        let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
        if text.len() + data.len() > MAX_BACKUP {
            let detail =
                format!("a backup of more than {MAX_BACKUP} bytes is restored without a manager running");
            return Err(Problem::new(ProblemKind::TooLarge, detail).into());
        }
        text.extend_from_slice(&data);
    }
    Ok(text)
}
