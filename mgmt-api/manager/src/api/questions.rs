//! What people ask of hosts, and what hosts answer.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::extract::{Path, Query, Request, State};
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use mgmt_types::question::{
    Answer, FlowEvent, FlowList, FlowQuery, FlowUpdate, Question, Reply, Silent, Trace, TraceAnswer,
    TraceOutcome, TraceRequest, VerdictList, VerdictQuery,
};
use mgmt_types::{FlowImpact, Mistake, Problem, ProblemKind};
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, timeout, timeout_at};

use super::Context;
use super::caller::{Agent, Reader};
use super::reply::{self, Refused};
use super::resources::wrong_query;
use crate::compile;
use crate::desk::{Asking, Deaf};
use crate::document::{self, Format};

/// How long a host may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Replies that wait for whoever asked.
const WAITING: usize = 16;
/// How long a reply waits for whoever asked to take it.
const SLOW: Duration = Duration::from_secs(10);

/// Says what would become of a packet, stage by stage, by the tables in force on the hosts concerned.
#[utoipa::path(
    post, path = "/v1/trace", tag = "questions", operation_id = "trace",
    request_body(content((TraceRequest = "application/json"))),
    responses(
        (status = 200, description = "What the hosts say; one that is silent is named", body = TraceAnswer),
        (status = "4XX", description = "What is wrong", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn trace(
    _reader: Reader,
    State(context): State<Context>,
    request: Request,
) -> Result<Response, Refused> {
    let turn = turn(&context)?;
    reply::format(request.headers(), &[Format::Json])?;
    let body = reply::body(request).await?;
    let asked: TraceRequest = document::read_value(&body)?;
    let workload = asked.source.split('.').next().unwrap_or_default();
    let mut next = Some(host_of(&context, workload, "source")?);
    let mut answer = TraceAnswer::default();
    while let Some(host) = next.take() {
        let (answers, silent) =
            ask_all(&context, std::slice::from_ref(&host), &Question::Trace(asked.clone())).await;
        answer.silent.extend(silent);
        for (_, said) in answers {
            match said {
                Answer::Trace(trace) => {
                    // The other end may live on another host, which has its own say.
                    let other = trace.destination.host.clone().filter(|other| *other != host);
                    next = other.filter(|_| answer.traces.is_empty());
                    answer.traces.push(*trace);
                }
                Answer::Refused(reason) if answer.traces.is_empty() => {
                    let mistake =
                        Mistake::new("destination", &asked.destination, "what the source can send to");
                    return Err(Problem::of(ProblemKind::Invalid, vec![mistake.detail(reason)]).into());
                }
                Answer::Refused(reason) => answer.silent.push(Silent { host: host.clone(), reason }),
                _ => answer.silent.push(nonsense(&host)),
            }
        }
    }
    let arrives = |trace: &Trace| matches!(trace.outcome, TraceOutcome::Delivered | TraceOutcome::Answered);
    answer.delivered =
        answer.silent.is_empty() && !answer.traces.is_empty() && answer.traces.iter().all(arrives);
    drop(turn);
    Ok(reply::json(StatusCode::OK, &answer))
}

/// Which verdicts.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VerdictsQuery {
    port: Option<String>,
    #[serde(default)]
    drops: bool,
    limit: Option<u32>,
}

/// Says what became of recent packets of a workload.
#[utoipa::path(
    get, path = "/v1/workloads/{name}/verdicts", tag = "questions", operation_id = "verdicts",
    params(
        ("name" = String, Path, description = "Name of the workload"),
        ("port" = Option<String>, Query, description = "One of its ports; all when not given"),
        ("drops" = Option<bool>, Query, description = "Only what was dropped"),
        ("limit" = Option<u32>, Query, description = "At most so many, the newest; 50 when not given"),
    ),
    responses(
        (status = 200, description = "Oldest first; a host that is silent is named", body = VerdictList),
        (status = "4XX", description = "What is wrong", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn verdicts(
    _reader: Reader,
    State(context): State<Context>,
    Path(workload): Path<String>,
    query: Result<Query<VerdictsQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Refused> {
    let Query(VerdictsQuery { port, drops, limit }) = query.map_err(|error| wrong_query(&error))?;
    let _turn = turn(&context)?;
    let host = host_of(&context, &workload, "name")?;
    let question = Question::Verdicts(VerdictQuery { workload, port, drops_only: drops, limit });
    let (answers, silent) = ask_all(&context, &[host], &question).await;
    let mut list = VerdictList { silent, ..VerdictList::default() };
    for (host, said) in answers {
        match said {
            Answer::Verdicts(verdicts) => list.verdicts.extend(verdicts),
            Answer::Refused(reason) => list.silent.push(Silent { host, reason }),
            _ => list.silent.push(nonsense(&host)),
        }
    }
    Ok(reply::json(StatusCode::OK, &list))
}

/// Which flows.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FlowsQuery {
    workload: Option<String>,
    limit: Option<u32>,
    #[serde(default)]
    follow: bool,
}

/// Says which flows are tracked; with `follow`, tells of those that begin, end or are refused from now on, as
/// server-sent events named `flow`.
#[utoipa::path(
    get, path = "/v1/flows", tag = "questions", operation_id = "flows",
    params(
        ("workload" = Option<String>, Query, description = "Only those of this workload"),
        ("limit" = Option<u32>, Query, description = "At most so many from each host; 1000 when not given"),
        ("follow" = Option<bool>, Query, description = "Tell of what happens from now on"),
    ),
    responses(
        (status = 200, description = "The flows; or events, the data of each a `FlowEvent`", content((FlowList = "application/json"), (FlowEvent = "text/event-stream"))),
        (status = "4XX", description = "What is wrong", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn flows(
    _reader: Reader,
    State(context): State<Context>,
    query: Result<Query<FlowsQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Refused> {
    let Query(FlowsQuery { workload, limit, follow }) = query.map_err(|error| wrong_query(&error))?;
    let turn = turn(&context)?;
    let hosts = match &workload {
        Some(workload) => vec![host_of(&context, workload, "workload")?],
        None => context.manager.state().hosts.keys().cloned().collect(),
    };
    let question = Question::Flows(FlowQuery { workload, limit, follow });
    if follow {
        let listener = Listener::new(context, &hosts, &question, turn);
        let events = stream::unfold(listener, Listener::next);
        return Ok(Sse::new(events).keep_alive(KeepAlive::default()).into_response());
    }
    let (answers, silent) = ask_all(&context, &hosts, &question).await;
    let mut list = FlowList { silent, ..FlowList::default() };
    for (host, said) in answers {
        match said {
            Answer::Flows(tidings) => {
                list.flows.extend(tidings.flows);
                list.more += tidings.more;
            }
            Answer::Refused(reason) => list.silent.push(Silent { host, reason }),
            _ => list.silent.push(nonsense(&host)),
        }
    }
    Ok(reply::json(StatusCode::OK, &list))
}

/// Takes a host's answer, or part of it. Status 410 says that nobody waits for it any more.
#[utoipa::path(
    post, path = "/v1/agent/answers/{id}", tag = "agents", operation_id = "agentAnswer",
    params(("id" = u64, Path, description = "The question's number")),
    request_body(content((Reply = "application/json"))),
    responses(
        (status = 204, description = "Taken"),
        (status = 410, description = "Nobody waits for it any more", body = Problem, content_type = "application/problem+json"),
        (status = "4XX", description = "What is wrong", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn answer(
    Agent(asked): Agent,
    State(context): State<Context>,
    Path(id): Path<u64>,
    request: Request,
) -> Result<Response, Refused> {
    let closed = || Refused::from(Problem::new(ProblemKind::Gone, "nobody waits for this answer any more"));
    let (host, replies) = context.desk.asker(id).map_err(|_| closed())?;
    context.manager.check_speaker(&asked, &host)?;
    reply::format(request.headers(), &[Format::Json])?;
    let body = reply::body(request).await?;
    let unreadable = |error: serde_json::Error| Problem::new(ProblemKind::Syntax, error.to_string());
    let said: Reply =
        reply::work(&context, move || serde_json::from_slice(&body).map_err(unreadable)).await?;
    match timeout(SLOW, replies.send((host, said))).await {
        Ok(Ok(())) => Ok(StatusCode::NO_CONTENT.into_response()),
        Ok(Err(_)) | Err(_) => Err(closed()),
    }
}

/// Says what a state that is not in force would do to the flows of these hosts.
pub(super) async fn impact(
    context: &Context,
    state: Arc<crate::state::State>,
    hosts: Vec<String>,
) -> Vec<FlowImpact> {
    let silent = |Silent { host, reason }| FlowImpact { host, error: Some(reason), ..FlowImpact::default() };
    let Ok(_turn) = turn(context) else {
        let busy =
            |host| silent(Silent { host, reason: "the manager is busy with other questions".to_owned() });
        return hosts.into_iter().map(busy).collect();
    };
    let compiled = reply::in_turn(&context.compiling, move || {
        let slice = |host: String| {
            let slice = compile::slice(&state, &host);
            (host, Question::Impact(Box::new(slice)))
        };
        Ok(hosts.into_iter().map(slice).collect::<Vec<_>>())
    });
    let Ok(questions) = compiled.await else { return Vec::new() };
    let (answers, missing) = ask_each(context, questions).await;
    let said = answers.into_iter().map(|(host, answer)| match answer {
        Answer::Impact(impact) => FlowImpact { host, ..impact },
        Answer::Refused(reason) => silent(Silent { host, reason }),
        _ => silent(nonsense(&host)),
    });
    let mut impacts: Vec<FlowImpact> = said.chain(missing.into_iter().map(silent)).collect();
    impacts.sort_by(|one, other| one.host.cmp(&other.host));
    impacts
}

/// Asks hosts the same at once and waits for their answers; who does not answer in time is silent.
async fn ask_all(
    context: &Context,
    hosts: &[String],
    question: &Question,
) -> (Vec<(String, Answer)>, Vec<Silent>) {
    ask_each(context, hosts.iter().map(|host| (host.clone(), question.clone()))).await
}

/// The same with a question for each.
async fn ask_each(
    context: &Context,
    questions: impl IntoIterator<Item = (String, Question)>,
) -> (Vec<(String, Answer)>, Vec<Silent>) {
    let (sender, mut replies) = mpsc::channel(WAITING);
    let (open, mut silent) = put(context, questions, &sender);
    drop(sender);
    let mut waiting: Vec<String> = open.iter().map(|(host, _)| host.clone()).collect();
    let mut answers = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    while !waiting.is_empty() {
        let Ok(Some((host, Reply { answer, last }))) = timeout_at(deadline, replies.recv()).await else {
            break;
        };
        if last {
            waiting.retain(|other| *other != host);
        }
        answers.push((host, answer));
    }
    let late = format!("it did not answer within {} s", PATIENCE.as_secs());
    silent.extend(waiting.into_iter().map(|host| Silent { host, reason: late.clone() }));
    (answers, silent)
}

/// Puts each question to its host.
fn put(
    context: &Context,
    questions: impl IntoIterator<Item = (String, Question)>,
    replies: &mpsc::Sender<(String, Reply)>,
) -> (Vec<(String, Asking)>, Vec<Silent>) {
    let (mut open, mut silent) = (Vec::new(), Vec::new());
    for (host, question) in questions {
        match context.desk.ask(&host, question, replies) {
            Ok(asking) => open.push((host, asking)),
            Err(error) => silent.push(Silent { reason: unheard(context, &host, error), host }),
        }
    }
    (open, silent)
}

/// Why a host cannot be asked here, and where it can.
fn unheard(context: &Context, host: &str, error: Deaf) -> String {
    let manager = context.manager.board.heard_by(host).filter(|_| error == Deaf::Gone);
    match manager.and_then(|name| context.manager.colleagues.url(&name).map(|url| (name, url))) {
        Some((name, url)) => format!("it is connected to manager {name}: ask at {url}"),
        None => error.to_string(),
    }
}

/// Somebody who follows flows.
struct Listener {
    stopping: tokio::sync::watch::Receiver<bool>,
    replies: mpsc::Receiver<(String, Reply)>,
    waiting: VecDeque<FlowEvent>,
    count: u64,
    _open: Vec<(String, Asking)>,
    _turn: OwnedSemaphorePermit,
}

impl Listener {
    fn new(context: Context, hosts: &[String], question: &Question, turn: OwnedSemaphorePermit) -> Self {
        let (sender, replies) = mpsc::channel(WAITING);
        let questions = hosts.iter().map(|host| (host.clone(), question.clone()));
        let (open, silent) = put(&context, questions, &sender);
        let waiting = silent.into_iter().map(|Silent { host, reason }| missed(host, reason)).collect();
        Self { stopping: context.stopping, replies, waiting, count: 0, _open: open, _turn: turn }
    }

    async fn next(mut self) -> Option<(Result<Event, Infallible>, Self)> {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                self.count += 1;
                let event = reply::event("flow", self.count, &event)?;
                return Some((Ok(event), self));
            }
            let (host, reply) = tokio::select! {
                reply = self.replies.recv() => reply?,
                stopped = self.stopping.wait_for(|stopping| *stopping) => { drop(stopped); return None; }
            };
            match reply.answer {
                Answer::FlowEvents(tidings) => {
                    self.waiting.extend(tidings.events);
                    if tidings.more > 0 {
                        self.waiting.push_back(missed(host, format!("{} events were lost", tidings.more)));
                    }
                }
                Answer::Refused(reason) => self.waiting.push_back(missed(host, reason)),
                _ => self.waiting.push_back(missed(host.clone(), nonsense(&host).reason)),
            }
        }
    }
}

fn missed(host: String, reason: String) -> FlowEvent {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let time = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    FlowEvent { time, update: FlowUpdate::Missed { host, reason } }
}

fn nonsense(host: &str) -> Silent {
    Silent { host: host.to_owned(), reason: "it answered something else".to_owned() }
}

/// A turn at asking: each may ask every host, so there are few.
fn turn(context: &Context) -> Result<OwnedSemaphorePermit, Refused> {
    Arc::clone(&context.asking).try_acquire_owned().map_err(|_| {
        let detail = format!("{} questions are being answered; try again later", super::ASKING);
        Problem::new(ProblemKind::Busy, detail).into()
    })
}

/// The host a workload is on.
fn host_of(context: &Context, workload: &str, field: &str) -> Result<String, Refused> {
    let state = context.manager.state();
    match state.workloads.get(workload) {
        Some(entry) => Ok(entry.resource.spec.host.clone()),
        None => {
            let mistake = Mistake::new(field, workload, "the name of a workload")
                .detail(format!("there is no Workload/{workload}"));
            Err(Problem::of(ProblemKind::NotFound, vec![mistake]).into())
        }
    }
}
