//! Questions: asking hosts, and being asked.

use http::{Method, StatusCode};
use mgmt_types::agent::{Slice, SliceDelta, SliceState, SliceVersion};
use mgmt_types::question::{
    Asked, FlowEvent, FlowList, FlowQuery, Reply, TraceAnswer, TraceRequest, VerdictList, VerdictQuery,
};
use mgmt_types::{Problem, ProblemKind};

use crate::client::{Body, Client, encoded};
use crate::{Error, Events};

/// What a manager tells a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AgentEvent {
    /// All it has to do, to who does not take deltas.
    Slice(Box<Slice>),
    /// All it has to do, to who takes deltas.
    State(Box<SliceState>),
    /// What is different from now on.
    Delta(Box<SliceDelta>),
    /// It has the newest slice.
    Unchanged(SliceVersion),
    /// A question, to be answered with [`Client::answer`].
    Asked(Box<Asked>),
}

/// In which form a host gets what it has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Follow {
    /// Each time the whole slice.
    Whole,
    /// What is different, from the slice it `has` or else from a whole one on.
    Deltas {
        /// The slice it has.
        has: Option<SliceVersion>,
    },
}

/// A stream of [`AgentEvent`]s. Events that this version does not know are left out.
#[derive(Debug)]
pub struct AgentEvents(Events<Slice>);

impl AgentEvents {
    /// The next event; `None` when the manager ended the stream. Nothing is lost when the future is dropped.
    ///
    /// # Errors
    /// As [`Events::next`].
    pub async fn next(&mut self) -> Option<Result<AgentEvent, Error>> {
        loop {
            let event = match self.0.event().await? {
                Ok(event) => event,
                Err(error) => return Some(Err(error)),
            };
            return Some(match event.name.as_str() {
                "slice" | "problem" => self.0.read(&event).map(|slice| AgentEvent::Slice(Box::new(slice))),
                "state" => self.0.read(&event).map(|state| AgentEvent::State(Box::new(state))),
                "delta" => self.0.read(&event).map(|delta| AgentEvent::Delta(Box::new(delta))),
                "unchanged" => self.0.read(&event).map(AgentEvent::Unchanged),
                // A question of a kind that this version does not know is left to time out; the stream goes on.
                "question" => match serde_json::from_str(&event.data) {
                    Ok(asked) => Ok(AgentEvent::Asked(Box::new(asked))),
                    Err(_) => continue,
                },
                _ => continue,
            });
        }
    }
}

impl Client {
    /// What `host` has to do, and what it is asked. A manager that knows no deltas sends whole slices.
    ///
    /// # Errors
    /// When the manager cannot be reached or refuses.
    pub async fn agent_events(&self, host: &str, follow: Follow) -> Result<AgentEvents, Error> {
        let form = match follow {
            Follow::Whole => String::new(),
            Follow::Deltas { has: None } => "&deltas=true".to_owned(),
            Follow::Deltas { has: Some(SliceVersion { revision, digest }) } => {
                format!("&deltas=true&from={revision}&digest={digest}")
            }
        };
        self.events(&format!("/v1/agent/state?host={}&questions=true{form}", encoded(host)))
            .await
            .map(AgentEvents)
    }

    /// Answers a question, or part of it. False when nobody waits for the answer any more.
    ///
    /// # Errors
    /// When the manager cannot be reached or refuses.
    pub async fn answer(&self, id: u64, reply: &Reply) -> Result<bool, Error> {
        let request =
            self.request(Method::POST, &format!("/v1/agent/answers/{id}"), Some(Body::json(reply)?))?;
        match self.bytes(request).await {
            Ok(_) => Ok(true),
            Err(Error::Problem(problem)) if is_gone(&problem) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// What would become of a packet.
    ///
    /// # Errors
    /// When the manager cannot be reached or refuses. A host that is silent is no error: the answer names it.
    pub async fn trace(&self, request: &TraceRequest) -> Result<TraceAnswer, Error> {
        self.write(Method::POST, "/v1/trace", request).await
    }

    /// What became of recent packets of a workload.
    ///
    /// # Errors
    /// When the manager cannot be reached or refuses. A host that is silent is no error: the answer names it.
    pub async fn verdicts(&self, query: &VerdictQuery) -> Result<VerdictList, Error> {
        let port = query.port.as_deref().map(|port| format!("&port={}", encoded(port))).unwrap_or_default();
        let limit = query.limit.map(|limit| format!("&limit={limit}")).unwrap_or_default();
        let (name, drops) = (encoded(&query.workload), query.drops_only);
        self.read(&format!("/v1/workloads/{name}/verdicts?drops={drops}{port}{limit}")).await
    }

    /// Which flows are tracked. `query.follow` is not looked at.
    ///
    /// # Errors
    /// When the manager cannot be reached or refuses. A host that is silent is no error: the answer names it.
    pub async fn flows(&self, query: &FlowQuery) -> Result<FlowList, Error> {
        self.read(&flows_path(query, false)).await
    }

    /// Flows as they begin, end and are refused, from now on. `query.follow` is not looked at.
    ///
    /// # Errors
    /// When the manager cannot be reached or refuses.
    pub async fn follow_flows(&self, query: &FlowQuery) -> Result<Events<FlowEvent>, Error> {
        self.events(&flows_path(query, true)).await
    }
}

fn flows_path(query: &FlowQuery, follow: bool) -> String {
    let workload = query.workload.as_deref().map(|name| format!("&workload={}", encoded(name)));
    let limit = query.limit.map(|limit| format!("&limit={limit}"));
    format!("/v1/flows?follow={follow}{}{}", workload.unwrap_or_default(), limit.unwrap_or_default())
}

fn is_gone(problem: &Problem) -> bool {
    problem.is(ProblemKind::Gone) && problem.status == StatusCode::GONE.as_u16()
}
