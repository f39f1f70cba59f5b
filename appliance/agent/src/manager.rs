//! Following a manager over HTTP, for ever.

use std::sync::mpsc::Sender;
use std::time::Duration;

use mgmt_client::{Client, Endpoint, Error};
use mgmt_types::agent::HostStatus;
use tokio::sync::watch;

use crate::board::Board;
use crate::control::Message;

/// The pause after the first failure; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest pause: how late a host may learn that its manager is back.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Puts the manager's slices to the control thread and posts what that reports. Ends with the control thread.
pub(crate) async fn follow(
    host: String,
    endpoint: Endpoint,
    reports: watch::Receiver<HostStatus>,
    control: Sender<Message>,
    board: &Board,
) {
    let client = match Client::connect(&endpoint) {
        Ok(client) => client,
        Err(error) => {
            log::error!("no manager is followed: {error}");
            return board.set_silence(Some(format!("no manager is followed: {error}")));
        }
    };
    tokio::select! {
        () = receive(&client, &host, &control, board) => {}
        () = post(&client, reports) => {}
    }
}

async fn receive(client: &Client, host: &str, control: &Sender<Message>, board: &Board) {
    let mut pause = FIRST_PAUSE;
    loop {
        let why = match stream(client, host, control, board, &mut pause).await {
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

/// One stream, until it ends. Each slice makes the next pause a short one.
async fn stream(
    client: &Client,
    host: &str,
    control: &Sender<Message>,
    board: &Board,
    pause: &mut Duration,
) -> Result<End, Error> {
    // Always from the beginning: a manager that was restored from a backup may be behind the revision we have.
    let mut slices = client.agent_state_stream(host, 0).await?;
    board.set_silence(None);
    while let Some(slice) = slices.next().await {
        *pause = FIRST_PAUSE;
        if control.send(Message::Slice(Box::new(slice?))).is_err() {
            return Ok(End::Control);
        }
    }
    Ok(End::Manager)
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
