//! What hosts get and say.

use std::time::SystemTime;

use axum::extract::{Query, Request};
use axum::http::StatusCode;
use axum::response::sse::{KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use mgmt_types::agent::{HostStatus, Slice, SliceDigest, SliceVersion};
use mgmt_types::{Mistake, Problem, ProblemKind, name};
use serde::Deserialize;

use super::Context;
use super::caller::Agent;
use super::follower::{Follower, Has};
use super::reply::{self, Refused};
use super::resources::wrong_query;
use crate::document::{self, Format};

/// Whose state, and from where.
#[derive(Debug, Deserialize)]
pub(super) struct StateQuery {
    /// The host that asks.
    host: String,
    /// The revision it has.
    from: Option<u64>,
    /// The digest of the slice it has.
    digest: Option<SliceDigest>,
    /// Whether it takes deltas.
    #[serde(default)]
    deltas: bool,
    /// Whether it understands events other than `slice`.
    #[serde(default)]
    questions: bool,
}

/// Streams a host's slice as server-sent events. Without `deltas` they are named `slice`: the whole slice at once, then
/// again whenever it changes. With `deltas` the first is named `state` (a whole slice with its digest), `delta` (what is
/// different from the slice that `from` and `digest` name) or `unchanged` (that slice is the newest), and each further
/// one `delta`; whoever cannot apply one connects again without `from`. With `questions`, there are also events named
/// `question`, to be answered at `/v1/agent/answers/{id}`. The host is the one that the client's
/// certificate names, and no other.
#[utoipa::path(
    get, path = "/v1/agent/state", tag = "agents", operation_id = "agentState",
    params(("host" = String, Query, description = "Name of the host"), ("from" = Option<u64>, Query, description = "The revision it has"), ("digest" = Option<String>, Query, description = "The digest of the slice it has"), ("deltas" = Option<bool>, Query, description = "It takes deltas"), ("questions" = Option<bool>, Query, description = "It can be asked questions")),
    responses(
        (status = 200, description = "Events; the data of each is a Slice, SliceState, SliceDelta or SliceVersion", body = Slice, content_type = "text/event-stream"),
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
    context.manager.check_speaker(&asked, &query.host)?;
    let manager = context.manager.clone();
    let (host, caller) = (query.host.clone(), asked.caller.clone());
    if !manager.state().hosts.contains_key(&host) {
        reply::work(&context, move || manager.ensure_host(&asked, &host)).await?;
    }
    log::info!("host {} follows from revision {}", query.host, query.from.unwrap_or(0));
    let ear = query.questions.then(|| context.desk.listen(&query.host));
    let has = match (query.from, query.digest) {
        (Some(revision), Some(digest)) => Has::Claimed(SliceVersion { revision, digest }),
        _ => Has::Nothing,
    };
    let has = query.deltas.then_some(has);
    let withdrawn = context.manager.clone().withdrawn(caller);
    let follower = Follower { context, host: query.host, sent: None, has, ear };
    let events = stream::unfold(follower, Follower::next).take_until(withdrawn);
    Ok(Sse::new(events).keep_alive(KeepAlive::default()).into_response())
}

/// Takes what a host says about itself.
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
    reply::in_turn(&context.reporting, move || {
        let status: HostStatus = document::read_value(&body)?;
        check_host(&status.host)?;
        manager.check_speaker(&asked, &status.host)?;
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
