//! The agent's own HTTP API, on a unix socket of this host.
//!
//! `GET /v1/status` is the whole status, `GET /v1/ports` its ports, `GET /metrics` the same for Prometheus. Whoever may
//! open the socket (mode 0660) may read.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};

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
pub(crate) fn router(board: Arc<Board>) -> Router {
    Router::new()
        .route("/v1/status", get(async |State(board): State<Arc<Board>>| Json(board.status())))
        .route("/v1/ports", get(async |State(board): State<Arc<Board>>| Json(board.status().ports)))
        .route("/metrics", get(scrape))
        .with_state(board)
}

async fn scrape(State(board): State<Arc<Board>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], metrics::render(&board.status()))
}
