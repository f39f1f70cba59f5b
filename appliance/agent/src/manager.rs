//! Following a manager over HTTP, for ever.

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use mgmt_client::{AgentEvent, Client, Endpoint, Error};
use mgmt_types::agent::HostStatus;
use mgmt_types::question::{Answer, Asked, FlowTidings, Question, Reply};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::answers::Answers;
use crate::board::Board;
use crate::control::Message;

/// The pause after the first failure; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest pause: how late a host may learn that its manager is back.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Questions that are answered at a time, and flows that are followed.
const QUESTIONS: usize = 32;

/// The longest time between two words to who follows flows.
const WORD: Duration = Duration::from_secs(2);

/// Puts the manager's slices to the control thread and posts what that reports. Ends with the control thread.
pub(crate) async fn follow(
    host: String,
    endpoint: Endpoint,
    reports: watch::Receiver<HostStatus>,
    control: Sender<Message>,
    board: &Board,
    answers: &Arc<Answers>,
) {
    let client = match Client::connect(&endpoint) {
        Ok(client) => client,
        Err(error) => {
            log::error!("no manager is followed: {error}");
            return board.set_silence(Some(format!("no manager is followed: {error}")));
        }
    };
    tokio::select! {
        () = receive(&client, &host, &control, board, answers) => {}
        () = post(&client, reports) => {}
    }
}

async fn receive(
    client: &Client,
    host: &str,
    control: &Sender<Message>,
    board: &Board,
    answers: &Arc<Answers>,
) {
    let mut pause = FIRST_PAUSE;
    loop {
        let why = match stream(client, host, control, board, answers, &mut pause).await {
            Ok(End::Control) => return,
            Ok(End::Manager) => "the manager ended the stream".to_string(),
            Err(error) => error.to_string(),
        };
        log::warn!("manager {}: {why}; trying again in {pause:?}", client.url());
        board.set_silence(Some(format!("no word from the manager: {why}")));
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Who ended a stream in good order.
enum End {
    Manager,
    Control,
}

/// One stream, until it ends. Each slice makes the next pause a short one. Questions that are open when it ends are
/// dropped: nobody waits for their answers any more.
async fn stream(
    client: &Client,
    host: &str,
    control: &Sender<Message>,
    board: &Board,
    answers: &Arc<Answers>,
    pause: &mut Duration,
) -> Result<End, Error> {
    // Always from the beginning: a manager that was restored from a backup may be behind the revision we have.
    let mut events = client.agent_events(host, 0).await?;
    board.set_silence(None);
    let mut open = JoinSet::new();
    while let Some(event) = events.next().await {
        while open.try_join_next().is_some() {}
        match event? {
            AgentEvent::Slice(slice) => {
                *pause = FIRST_PAUSE;
                if control.send(Message::Slice(slice)).is_err() {
                    return Ok(End::Control);
                }
            }
            AgentEvent::Asked(asked) => {
                let room = open.len() < QUESTIONS;
                open.spawn(reply(client.clone(), answers.clone(), *asked, room));
            }
        }
    }
    Ok(End::Manager)
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

async fn post(client: &Client, mut reports: watch::Receiver<HostStatus>) {
    let mut failing = false;
    loop {
        let status = reports.borrow_and_update().clone();
        match client.post_status(&status).await {
            Ok(()) => failing = false,
            Err(error) => {
                if !failing {
                    log::warn!("manager {}: status not accepted: {error}", client.url());
                }
                failing = true;
            }
        }
        if reports.changed().await.is_err() {
            return;
        }
    }
}
