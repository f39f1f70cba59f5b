//! What hosts get and say.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::{Query, Request};
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use mgmt_types::agent::{HostStatus, Slice};
use mgmt_types::question::Asked;
use mgmt_types::{Mistake, Problem, ProblemKind, name};
use serde::Deserialize;

use super::Context;
use super::caller::Agent;
use super::reply::{self, Refused};
use super::resources::wrong_query;
use crate::compile;
use crate::desk::Ear;
use crate::document::{self, Format};
use crate::state::State;

/// Whose state, and from where.
#[derive(Debug, Deserialize)]
pub(super) struct StateQuery {
    /// The host that asks.
    host: String,
    /// The revision it has; told for the log only, since the first event is always the full state.
    from: Option<u64>,
    /// Whether it understands events other than `slice`.
    #[serde(default)]
    questions: bool,
}

/// Streams a host's slice as server-sent events named `slice`: the full state at once, then again whenever it changes.
/// With `questions`, there are also events named `question`, to be answered at `/v1/agent/answers/{id}`. The host is
/// declared if it is new.
#[utoipa::path(
    get, path = "/v1/agent/state", tag = "agents", operation_id = "agentState",
    params(("host" = String, Query, description = "Name of the host"), ("from" = Option<u64>, Query, description = "The revision it has"), ("questions" = Option<bool>, Query, description = "It can be asked questions")),
    responses(
        (status = 200, description = "Events; the data of each is the full slice", body = Slice, content_type = "text/event-stream"),
        (status = "4XX", description = "What is wrong", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn state(
    Agent(asked): Agent,
    axum::extract::State(context): axum::extract::State<Context>,
    query: Result<Query<StateQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Refused> {
    let Query(query) = query.map_err(|error| wrong_query(&error))?;
    check_host(&query.host)?;
    let manager = context.manager.clone();
    let host = query.host.clone();
    reply::work(&context, move || manager.ensure_host(&asked, &host)).await?;
    log::info!("host {} follows from revision {}", query.host, query.from.unwrap_or(0));
    let ear = query.questions.then(|| context.desk.listen(&query.host));
    let follower = Follower { context, host: query.host, sent: None, ear };
    Ok(Sse::new(stream::unfold(follower, Follower::next)).keep_alive(KeepAlive::default()).into_response())
}

/// What a host is told next.
enum Next {
    State(Arc<State>),
    Asked(Asked),
}

struct Follower {
    context: Context,
    host: String,
    /// The revision of the slice sent last.
    sent: Option<u64>,
    /// For those that can be asked.
    ear: Option<Ear>,
}

impl Follower {
    async fn next(mut self) -> Option<(Result<Event, Infallible>, Self)> {
        let mut states = self.context.manager.watch();
        let next = {
            let differs = |state: &Arc<State>| {
                let wanted = state.hosts.get(&self.host).map(|entry| entry.wanted);
                self.sent.is_none() || (wanted.is_some() && wanted != self.sent)
            };
            let asked = async {
                let heard = match &mut self.ear {
                    Some(ear) => ear.next().await,
                    None => None,
                };
                match heard {
                    Some(asked) => asked,
                    // It cannot be asked, or is asked on a newer line: it follows all the same.
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // The state first: what is asked is asked of a host that knows it.
                biased;
                _ = self.context.stopping.wait_for(|stopping| *stopping) => None,
                state = states.wait_for(differs) => Some(Next::State(Arc::clone(&*state.ok()?))),
                asked = asked => Some(Next::Asked(asked)),
            }
        };
        let state = match next? {
            Next::State(state) => state,
            Next::Asked(asked) => {
                let event = reply::event("question", asked.id, &asked)?;
                return Some((Ok(event), self));
            }
        };
        let host = self.host.clone();
        let compiled = reply::in_turn(&self.context.compiling, move || {
            let slice = compile::slice(&state, &host);
            Ok((slice.revision, reply::event("slice", slice.revision, &slice)))
        });
        let (revision, event) = compiled.await.ok()?;
        self.sent = Some(revision);
        let event = event?;
        Some((Ok(event), self))
    }
}

/// Takes what a host says about itself. The host is declared if it is new.
#[utoipa::path(
    post, path = "/v1/agent/status", tag = "agents", operation_id = "agentStatus",
    request_body(content((HostStatus = "application/json"))),
    responses((status = 204, description = "Taken"), (status = "4XX", description = "What is wrong", body = Problem, content_type = "application/problem+json")),
)]
pub(super) async fn status(
    Agent(asked): Agent,
    axum::extract::State(context): axum::extract::State<Context>,
    request: Request,
) -> Result<Response, Refused> {
    reply::format(request.headers(), &[Format::Json])?;
    let body = reply::body(request).await?;
    let manager = context.manager.clone();
    reply::work(&context, move || {
        let status: HostStatus = document::read_value(&body)?;
        check_host(&status.host)?;
        manager.ensure_host(&asked, &status.host)?;
        manager.hear(&asked, &status)?;
        manager.board.post(&manager.state(), status, SystemTime::now());
        Ok(())
    })
    .await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

fn check_host(host: &str) -> Result<(), Problem> {
    name::check(host).map_err(|error| {
        let mistake =
            Mistake::new("host", host, "letters a-z, digits and '-', beginning and ending with either")
                .detail(format!("the name {error}"));
        Problem::of(ProblemKind::Invalid, vec![mistake])
    })
}
