//! The agent's conversation with the outside: slices in, status out, and the local API.
//!
//! A thread of its own with a tokio runtime. Nothing here is on the way of a frame, and nothing of it is needed to
//! forward.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;

use mgmt_types::agent::{HostStatus, Slice};
use tokio::sync::{mpsc, oneshot, watch};

use crate::answers::Answers;
use crate::board::Board;
use crate::config::Source;
use crate::control::Message;
use crate::following::Following;
use crate::local_api;
use crate::manager;
use crate::mesh::Mesh;
use crate::run::RunError;

/// Whom the conversation is between.
pub(crate) struct Talk {
    pub(crate) host: String,
    /// The slice that is in force before the first word of a manager.
    pub(crate) in_force: Option<Arc<Slice>>,
    pub(crate) state_dir: PathBuf,
    pub(crate) board: Arc<Board>,
    pub(crate) answers: Arc<Answers>,
    pub(crate) reports: watch::Receiver<HostStatus>,
    pub(crate) control: Sender<Message>,
}

/// The conversation's thread.
#[derive(Debug)]
pub(crate) struct Sync {
    end: oneshot::Sender<()>,
    thread: JoinHandle<()>,
    socket: PathBuf,
}

impl Sync {
    pub(crate) fn start(talk: Talk, socket: &Path, source: Source) -> Result<Self, RunError> {
        let Talk { host, state_dir, in_force, board, answers, reports, control } = talk;
        let at_socket = |source| RunError::Path { path: socket.to_path_buf(), source };
        let listener = local_api::listen(socket).map_err(at_socket)?;
        let resources = |source| RunError::Resources { what: "the runtime for HTTP", source };
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(resources)?;
        let talking = board.clone();
        let (end, ended) = oneshot::channel::<()>();
        let work = async move {
            let listener = match tokio::net::UnixListener::from_std(listener) {
                Ok(listener) => listener,
                Err(error) => return log::error!("the local API does not answer: {error}"),
            };
            let api = async {
                let served = axum::serve(listener, local_api::router(board, answers.clone())).await;
                served.unwrap_or_else(|error| log::error!("the local API ended: {error}"));
            };
            let talk = async {
                match source {
                    Source::Managers(managers) => {
                        let following = Following::new(host.clone(), in_force.as_deref());
                        drop(in_force);
                        let mesh = Mesh { host, state_dir, managers };
                        manager::follow(&mesh, following, reports, control, &talking, &answers).await
                    }
                    Source::Channel { slices, status } => {
                        with_channel(slices, status, reports, control).await
                    }
                    Source::Kept => {}
                }
            };
            tokio::select! {
                ((), ()) = async { tokio::join!(api, talk) } => {}
                _ = ended => {}
            }
        };
        let thread = std::thread::Builder::new()
            .name("pal-sync".into())
            .spawn(move || runtime.block_on(work))
            .map_err(resources)?;
        Ok(Self { end, thread, socket: socket.to_path_buf() })
    }

    /// Ends the conversation, wherever it is.
    pub(crate) fn stop(self) {
        drop(self.end);
        if self.thread.join().is_err() {
            log::error!("the thread for HTTP panicked");
        }
        let _ = std::fs::remove_file(&self.socket);
    }
}

async fn with_channel(
    mut slices: mpsc::Receiver<Slice>,
    status: mpsc::Sender<HostStatus>,
    mut reports: watch::Receiver<HostStatus>,
    control: Sender<Message>,
) {
    let receive = async {
        while let Some(slice) = slices.recv().await {
            if control.send(Message::Slice(Arc::new(slice))).is_err() {
                break;
            }
        }
    };
    let report = async {
        while reports.changed().await.is_ok() {
            let latest = reports.borrow_and_update().clone();
            // No room: whoever listens gets the next one.
            if let Err(mpsc::error::TrySendError::Closed(_)) = status.try_send(latest) {
                break;
            }
        }
    };
    tokio::join!(receive, report);
}
