//! The agent's own HTTP API, on a unix socket of this host.
//!
//! `GET /v1/status` is the whole status, `GET /v1/ports` its ports, `GET /metrics` the same for Prometheus. The
//! questions that a manager passes on can be asked here too, of this host alone: `POST /v1/trace`,
//! `GET /v1/workloads/{name}/verdicts`, `GET /v1/flows`. Whoever may open the socket (mode 0660) may read.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;

use axum::extract::{Path as UrlPath, Query, State};
use axum::http::{StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::stream;
use mgmt_types::question::{FlowQuery, FlowTidings, TraceRequest, VerdictQuery};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::answers::{Answers, NoAnswer};
use crate::board::Board;
use crate::metrics;

/// Makes the socket, in place of one that a dead agent left. The lock on the state directory proves that it is dead.
pub(crate) fn listen(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// The routes.
pub(crate) fn router(board: Arc<Board>, answers: Arc<Answers>) -> Router {
    let asking = Router::new()
        .route("/v1/trace", post(trace))
        .route("/v1/workloads/{name}/verdicts", get(verdicts))
        .route("/v1/flows", get(flows))
        .with_state(answers);
    Router::new()
        .route("/v1/status", get(async |State(board): State<Arc<Board>>| Json(board.status())))
        .route("/v1/ports", get(async |State(board): State<Arc<Board>>| Json(board.status().ports)))
        .route("/metrics", get(scrape))
        .with_state(board)
        .merge(asking)
}

async fn scrape(State(board): State<Arc<Board>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], metrics::render(&board.status()))
}

async fn trace(State(answers): State<Arc<Answers>>, Json(request): Json<TraceRequest>) -> Response {
    said(ask(move || answers.trace(&request)).await)
}

#[derive(Debug, Deserialize)]
struct VerdictsQuery {
    port: Option<String>,
    #[serde(default)]
    drops: bool,
    limit: Option<u32>,
}

async fn verdicts(
    State(answers): State<Arc<Answers>>,
    UrlPath(workload): UrlPath<String>,
    Query(VerdictsQuery { port, drops, limit }): Query<VerdictsQuery>,
) -> Response {
    let query = VerdictQuery { workload, port, drops_only: drops, limit };
    said(ask(move || Ok(answers.verdicts(&query))).await)
}

async fn flows(State(answers): State<Arc<Answers>>, Query(query): Query<FlowQuery>) -> Response {
    if !query.follow {
        return said(ask(move || answers.flows(&query)).await);
    }
    match answers.follow(&query) {
        Ok(inbox) => {
            let next = async |mut inbox: mpsc::Receiver<FlowTidings>| {
                let tidings = inbox.recv().await?;
                Some((Event::default().event("flows").json_data(tidings), inbox))
            };
            Sse::new(stream::unfold(inbox, next)).keep_alive(KeepAlive::default()).into_response()
        }
        Err(error) => refused(&error),
    }
}

/// Answers on a thread that may take its time.
async fn ask<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, NoAnswer> + Send + 'static,
) -> Result<T, NoAnswer> {
    let answered = tokio::task::spawn_blocking(work).await;
    answered.unwrap_or_else(|error| Err(NoAnswer::Question(error.to_string())))
}

fn said<T: Serialize>(answer: Result<T, NoAnswer>) -> Response {
    match answer {
        Ok(answer) => Json(answer).into_response(),
        Err(error) => refused(&error),
    }
}

fn refused(error: &NoAnswer) -> Response {
    let status = match error {
        NoAnswer::Unconfigured | NoAnswer::TooManyFollowers => StatusCode::SERVICE_UNAVAILABLE,
        NoAnswer::Question(_) => StatusCode::UNPROCESSABLE_ENTITY,
    };
    (status, format!("{error}\n")).into_response()
}
