//! A stream of what changes.

use std::collections::VecDeque;
use std::convert::Infallible;

use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use mgmt_types::{Mistake, Problem, ProblemKind, Revision};
use serde::Deserialize;

use super::Context;
use super::caller::Reader;
use super::reply::{self, Refused};
use super::resources::wrong_query;

/// From where to watch.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WatchQuery {
    /// The newest revision the client knows; from now on when not given.
    from: Option<u64>,
}

/// Revisions read from the store at once.
const AT_ONCE: usize = 64;

/// Streams every revision after the one given, as server-sent events named `revision` whose id is the revision's
/// number; a client that reconnects with `Last-Event-ID` misses nothing. An event named `problem` ends the stream.
#[utoipa::path(
    get, path = "/v1/watch", tag = "resources", operation_id = "watch",
    params(("from" = Option<u64>, Query, description = "The newest revision the client knows; from now on when not given")),
    responses(
        (status = 200, description = "Events; the data of each is a revision", body = Revision, content_type = "text/event-stream"),
        (status = 410, description = "What came after that revision is no longer kept: list, then watch from there", body = Problem, content_type = "application/problem+json"),
        (status = "4XX", description = "What is wrong", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn watch(
    _reader: Reader,
    State(context): State<Context>,
    headers: HeaderMap,
    query: Result<Query<WatchQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Refused> {
    let Query(query) = query.map_err(|error| wrong_query(&error))?;
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()).and_then(|id| id.parse().ok());
    let from = last.or(query.from).unwrap_or_else(|| context.manager.state().revision);
    let newest = context.manager.state().revision;
    if from > newest {
        let mistake = Mistake::new("from", from, format!("at most {newest}, the newest revision"))
            .detail("there is no such revision yet; was the manager restored from a backup?");
        return Err(Problem::of(ProblemKind::Invalid, vec![mistake]).into());
    }
    let manager = context.manager.clone();
    // Whoever asks for what is no longer there is told so before the stream begins.
    let waiting = reply::work(&context, move || manager.revisions_after(from, AT_ONCE)).await?;
    let watcher = Watcher { context, known: from, waiting: waiting.into(), ended: false };
    Ok(Sse::new(stream::unfold(watcher, Watcher::next)).keep_alive(KeepAlive::default()).into_response())
}

struct Watcher {
    context: Context,
    known: u64,
    waiting: VecDeque<Revision>,
    ended: bool,
}

impl Watcher {
    async fn next(mut self) -> Option<(Result<Event, Infallible>, Self)> {
        let mut states = self.context.manager.watch();
        loop {
            if self.ended {
                return None;
            }
            if let Some(revision) = self.waiting.pop_front() {
                self.known = revision.revision;
                let event = reply::event("revision", self.known, &revision)?;
                return Some((Ok(event), self));
            }
            let known = self.known;
            tokio::select! {
                changed = states.wait_for(|state| state.revision > known) => drop(changed.ok()?),
                stopped = self.context.stopping.wait_for(|stopping| *stopping) => { drop(stopped); return None; }
            }
            let manager = self.context.manager.clone();
            match reply::work(&self.context, move || manager.revisions_after(known, AT_ONCE)).await {
                Ok(revisions) => self.waiting = revisions.into(),
                Err(Refused(problem)) => {
                    self.ended = true;
                    return Some((Ok(reply::event("problem", known, &*problem)?), self));
                }
            }
        }
    }
}
