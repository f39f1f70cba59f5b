//! Following a manager over HTTP, for ever.

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use mgmt_client::{AgentEvent, Client, Error};
use mgmt_types::agent::{HostStatus, Link, Underlay};
use mgmt_types::question::{Answer, Asked, FlowTidings, Question, Reply};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::answers::Answers;
use crate::board::Board;
use crate::control::Message;
use crate::following::{Following, Taken};
use crate::mesh::Mesh;

/// The pause after the first failure; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest pause: how late a host may learn that its manager is back.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Questions that are answered at a time, and flows that are followed.
const QUESTIONS: usize = 32;

/// The longest time between two words to who follows flows.
const WORD: Duration = Duration::from_secs(2);

/// The longest time between two reports, and the shortest between two that differ in counters only.
const ROUTINE: Duration = Duration::from_secs(2);

/// Puts the manager's slices to the control thread and posts what that reports. Ends with the control thread.
pub(crate) async fn follow(
    mesh: &Mesh,
    following: Following,
    reports: watch::Receiver<HostStatus>,
    control: Sender<Message>,
    board: &Board,
    answers: &Arc<Answers>,
) {
    let (client, membership) = mesh.client(board).await;
    let connected = Notify::new();
    let (host, control) = (mesh.host.as_str(), &control);
    let line = Line { client: &client, host, control, board, answers, connected: &connected };
    tokio::select! {
        () = line.receive(following) => {}
        () = post(&client, reports, &connected) => {}
        () = mesh.renew(&client, membership) => {}
    }
}

/// One manager, and who is told what it sends.
struct Line<'a> {
    client: &'a Client,
    host: &'a str,
    control: &'a Sender<Message>,
    board: &'a Board,
    answers: &'a Arc<Answers>,
    /// Told at the beginning of each stream.
    connected: &'a Notify,
}

/// How a stream ended in good order.
enum End {
    /// The manager ended it.
    Manager,
    /// The control thread did.
    Control,
    /// It is to go on in another form.
    Form,
}

impl Line<'_> {
    async fn receive(&self, mut following: Following) {
        let mut pause = FIRST_PAUSE;
        loop {
            let why = match self.stream(&mut following, &mut pause).await {
                Ok(End::Control) => return,
                Ok(End::Form) => {
                    log::warn!(
                        "manager {}: it is of a version whose deltas cannot be applied; whole slices are asked for",
                        self.client.url()
                    );
                    continue;
                }
                Ok(End::Manager) => "the manager ended the stream".to_string(),
                Err(why) => why,
            };
            following.ended();
            log::warn!("manager {}: {why}; trying again in {pause:?}", self.client.url());
            self.board.set_silence(Some(format!("no word from the manager: {why}")));
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// One stream, until it ends. What fits makes the next pause a short one. Questions that are open when it ends are
    /// dropped: nobody waits for their answers any more.
    async fn stream(&self, following: &mut Following, pause: &mut Duration) -> Result<End, String> {
        let events = self.client.agent_events(self.host, following.ask()).await;
        let mut events = events.map_err(|error| error.to_string())?;
        self.board.set_silence(None);
        self.connected.notify_one();
        let mut open = JoinSet::new();
        while let Some(event) = events.next().await {
            while open.try_join_next().is_some() {}
            let taken = match event {
                Ok(AgentEvent::Asked(asked)) => {
                    let room = open.len() < QUESTIONS;
                    open.spawn(reply(self.client.clone(), self.answers.clone(), *asked, room));
                    continue;
                }
                Ok(event) => following.take(event).map_err(|refusal| refusal.to_string()),
                Err(error) => {
                    let why = error.to_string();
                    // Not a line that broke, but words that mean nothing.
                    if matches!(error, Error::Answer { .. }) {
                        following.refuse(why.clone());
                    }
                    Err(why)
                }
            };
            self.board.set_sync(following.status());
            if following.fits() {
                *pause = FIRST_PAUSE;
            }
            let (slice, last) = match taken? {
                Taken::Slice(slice) => (slice, false),
                Taken::Last(slice) => (slice, true),
                Taken::Nothing => continue,
            };
            if self.control.send(Message::Slice(slice)).is_err() {
                return Ok(End::Control);
            }
            if last {
                return Ok(End::Form);
            }
        }
        Ok(End::Manager)
    }
}

/// Answers one question; with `room` false by saying that there are too many.
async fn reply(client: Client, answers: Arc<Answers>, asked: Asked, room: bool) {
    let id = asked.id;
    let said = match asked.question {
        _ if !room => Ok(Answer::Refused(format!("it answers {QUESTIONS} questions already"))),
        Question::Flows(query) if query.follow => match answers.follow(&query) {
            Ok(inbox) => return follow_flows(&client, id, inbox).await,
            Err(error) => Ok(Answer::Refused(error.to_string())),
        },
        question => tokio::task::spawn_blocking(move || answers.answer(&question)).await,
    };
    let answer = said.unwrap_or_else(|error| Answer::Refused(error.to_string()));
    if let Err(error) = client.answer(id, &Reply { answer, last: true }).await {
        log::warn!("manager {}: an answer was not accepted: {error}", client.url());
    }
}

/// Passes tidings of flows on until nobody wants them any more. A word from time to time, even with nothing to tell,
/// finds out whether somebody does.
async fn follow_flows(client: &Client, id: u64, mut inbox: mpsc::Receiver<FlowTidings>) {
    loop {
        let tidings = match tokio::time::timeout(WORD, inbox.recv()).await {
            Ok(Some(tidings)) => tidings,
            Ok(None) => return,
            Err(_) => FlowTidings::default(),
        };
        let reply = Reply { answer: Answer::FlowEvents(tidings), last: false };
        match client.answer(id, &reply).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                log::warn!("manager {}: tidings of flows were not accepted: {error}", client.url());
                return;
            }
        }
    }
}

/// Posts reports: one that has news at once, one that differs in counters only when the last is old enough, and one at the
/// beginning of each stream, since a manager that was started anew knows of none. Each is whole, so one that is lost or
/// comes twice does no harm.
async fn post(client: &Client, mut reports: watch::Receiver<HostStatus>, connected: &Notify) {
    let mut failing = false;
    let mut told = None;
    let mut next = Instant::now();
    loop {
        let status = reports.borrow_and_update().clone();
        let news = News::of(&status);
        if told.as_ref() != Some(&news) || Instant::now() >= next {
            match client.post_status(&status).await {
                Ok(()) => (failing, told) = (false, Some(news)),
                Err(error) => {
                    if !failing {
                        log::warn!("manager {}: status not accepted: {error}", client.url());
                    }
                    (failing, told) = (true, None);
                }
            }
            next = Instant::now() + ROUTINE;
        }
        tokio::select! {
            changed = reports.changed() => if changed.is_err() {
                return;
            },
            () = connected.notified() => told = None,
        }
    }
}

/// What of a report cannot wait.
#[derive(Debug, Clone, PartialEq)]
struct News {
    revision: u64,
    error: Option<String>,
    refused: u64,
    ports: Vec<(u32, Link, bool, Vec<String>)>,
    underlay: Option<Underlay>,
    /// Which other hosts can be reached.
    peers: Vec<(String, Option<bool>)>,
}

impl News {
    fn of(status: &HostStatus) -> Self {
        let ports = status.ports.iter().map(|port| (port.id, port.link, port.enforced, port.faults.clone()));
        Self {
            revision: status.revision,
            error: status.error.clone(),
            refused: status.sync.refused,
            ports: ports.collect(),
            underlay: status.underlay.clone(),
            peers: status.peers.iter().map(|peer| (peer.host.clone(), peer.up)).collect(),
        }
    }
}
