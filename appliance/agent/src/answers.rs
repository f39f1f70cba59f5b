//! Answers to what people ask of this host.

use std::path::PathBuf;
use std::sync::Arc;

use mgmt_types::FlowImpact;
use mgmt_types::agent::Slice;
use mgmt_types::question::{
    Answer, FlowQuery, FlowTidings, Question, Trace, TraceRequest, Verdict, VerdictQuery,
};
use pipeline::HashKey;
use tokio::sync::mpsc;

use crate::compile::{Known, compile};
use crate::directory::{Clock, Directory};
use crate::flow_log::touches;
use crate::plane::Plane;
use crate::probe::ProbeFrame;
use crate::recorder::Recorder;
use crate::{explain, impact};

/// Flows in an answer, when nobody says how many, and at most.
const FLOWS: u32 = 1000;
const MOST_FLOWS: u32 = 5000;
/// Verdicts in an answer at most.
const MOST_VERDICTS: u32 = 1000;

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoAnswer {
    #[error("no configuration is in force yet")]
    Unconfigured,
    #[error("{0}")]
    Question(String),
    #[error("too many follow flows already")]
    TooManyFollowers,
}

/// See the module. What it does may take a while: it is not for threads that must not wait.
#[derive(Debug)]
pub(crate) struct Answers {
    pub(crate) host: String,
    pub(crate) run_dir: PathBuf,
    pub(crate) key: HashKey,
    pub(crate) plane: Arc<Plane>,
    pub(crate) recorder: Arc<Recorder>,
}

impl Answers {
    /// Answers a question that has one answer.
    pub(crate) fn answer(&self, question: &Question) -> Answer {
        let answer = match question {
            Question::Trace(request) => self.trace(request).map(|trace| Answer::Trace(Box::new(trace))),
            Question::Verdicts(query) => Ok(Answer::Verdicts(self.verdicts(query))),
            Question::Flows(query) => self.flows(query).map(Answer::Flows),
            Question::Impact(slice) => self.impact(slice).map(Answer::Impact),
        };
        answer.unwrap_or_else(|error| Answer::Refused(error.to_string()))
    }

    /// What would become of a packet.
    pub(crate) fn trace(&self, request: &TraceRequest) -> Result<Trace, NoAnswer> {
        let directory = self.directory()?;
        let probe =
            ProbeFrame::new(&directory, request).map_err(|error| NoAnswer::Question(error.to_string()))?;
        let flows = &self.plane.world().flows;
        Ok(explain::trace(&directory, flows, request, &probe, Clock::read().now()))
    }

    /// What became of recent packets.
    pub(crate) fn verdicts(&self, query: &VerdictQuery) -> Vec<Verdict> {
        let limit = query.limit.map(|limit| limit.min(MOST_VERDICTS));
        self.recorder.verdicts(&VerdictQuery { limit, ..query.clone() })
    }

    /// Which flows are tracked.
    pub(crate) fn flows(&self, query: &FlowQuery) -> Result<FlowTidings, NoAnswer> {
        let directory = self.directory()?;
        let limit = query.limit.unwrap_or(FLOWS).min(MOST_FLOWS) as usize;
        let clock = Clock::read();
        let mut tidings = FlowTidings::default();
        self.plane.world().flows.for_each(clock.now(), |flow| {
            if tidings.flows.len() >= limit && query.workload.is_none() {
                tidings.more += 1;
                return;
            }
            let fits = query.workload.as_ref().is_none_or(|workload| {
                let is_meant = |name: &str| name.split('.').next() == Some(workload);
                touches(&directory.flow(&flow.key), is_meant)
            });
            match fits {
                true if tidings.flows.len() < limit => tidings.flows.push(directory.flow_info(flow, &clock)),
                true => tidings.more += 1,
                false => {}
            }
        });
        Ok(tidings)
    }

    /// Follows flows until the receiver is dropped.
    pub(crate) fn follow(&self, query: &FlowQuery) -> Result<mpsc::Receiver<FlowTidings>, NoAnswer> {
        self.recorder.follow(query.workload.clone()).ok_or(NoAnswer::TooManyFollowers)
    }

    /// What a slice that is not in force would do to live flows.
    fn impact(&self, slice: &Slice) -> Result<FlowImpact, NoAnswer> {
        let directory = self.directory()?;
        let policy = directory.snapshot.policy();
        let known = Known { policy: Some(policy), ..Known::default() };
        let compiled = compile(slice, &self.host, &self.run_dir, self.key, known)
            .map_err(|error| NoAnswer::Question(error.to_string()))?;
        let candidate = Directory::new(Arc::new(slice.clone()), Arc::new(compiled.snapshot));
        let refused = self.recorder.refused();
        let flows = &self.plane.world().flows;
        Ok(impact::of(&directory, &candidate, flows, &refused, Clock::read().now()))
    }

    fn directory(&self) -> Result<Arc<Directory>, NoAnswer> {
        self.recorder.directory().ok_or(NoAnswer::Unconfigured)
    }
}
