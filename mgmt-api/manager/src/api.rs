//! The HTTP API: routes, who may use them, and what goes wrong.

mod agents;
mod apply;
mod backup;
mod caller;
mod follower;
mod join;
mod log;
mod managers;
mod meta;
mod questions;
mod reply;
mod resources;
mod tokens;
mod users;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use mgmt_types::{Problem, ProblemKind};
use tokio::sync::{Semaphore, watch as signal};

use crate::desk::Desk;
use crate::manager::Manager;
use crate::shelf::Shelf;
use reply::Refused;

pub(crate) use caller::{Peer, Shown};
pub(crate) use meta::openapi;

/// Largest body that is read, in bytes.
pub(crate) const MAX_BODY: usize = 4 << 20;
/// Longest time from the last header to the beginning of the answer.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Bodies that are read and worked on at once: each may take some hundred megabytes for a moment.
const WORKING: usize = 4;

/// Slices that are compiled at once.
const COMPILING: usize = 2;

/// Reports of hosts that are taken at once.
const REPORTING: usize = 2;
/// Machines that are made hosts at once. They do not wait behind people, nor people behind strangers who try.
const JOINING: usize = 2;

/// Questions to hosts that are being answered at once, followers included.
const ASKING: usize = 32;

/// What every handler has at hand.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) manager: Arc<Manager>,
    pub(crate) working: Arc<Semaphore>,
    /// Turns for compiling slices, so that hosts do not wait behind people.
    pub(crate) compiling: Arc<Semaphore>,
    /// Turns for taking hosts' reports, so that people do not wait behind hosts.
    pub(crate) reporting: Arc<Semaphore>,
    /// Turns for joining and for renewing certificates.
    pub(crate) joining: Arc<Semaphore>,
    /// Turns for asking hosts.
    pub(crate) asking: Arc<Semaphore>,
    /// Questions to hosts.
    pub(crate) desk: Arc<Desk>,
    /// What hosts were told.
    pub(crate) shelf: Arc<Shelf>,
    /// Becomes true when the server stops; streams end then.
    pub(crate) stopping: signal::Receiver<bool>,
}

impl Context {
    pub(crate) fn new(manager: Arc<Manager>, stopping: signal::Receiver<bool>) -> Self {
        Self {
            manager,
            working: Arc::new(Semaphore::new(WORKING)),
            compiling: Arc::new(Semaphore::new(COMPILING)),
            reporting: Arc::new(Semaphore::new(REPORTING)),
            joining: Arc::new(Semaphore::new(JOINING)),
            asking: Arc::new(Semaphore::new(ASKING)),
            desk: Arc::default(),
            shelf: Arc::default(),
            stopping,
        }
    }
}

/// All routes.
pub(crate) fn router(context: Context) -> Router {
    let routes = Router::new()
        .route("/v1/apply", post(apply::apply))
        .route("/v1/delete", post(apply::delete))
        .route("/v1/watch", get(watch::watch))
        .route("/v1/audit", get(log::audit))
        .route("/v1/revisions/{number}", get(log::revision))
        .route("/v1/revisions/{number}/realized", get(log::realised))
        .route("/v1/backup", get(backup::backup))
        .route("/v1/restore", post(backup::restore))
        .route("/v1/managers", get(managers::list))
        .route("/v1/tokens", get(tokens::list).post(tokens::create))
        .route("/v1/tokens/{name}", delete(tokens::remove))
        .route("/v1/users", get(users::list).post(users::create))
        .route("/v1/users/{name}", put(users::change).delete(users::remove))
        .route("/v1/join-tokens", get(join::tokens).post(join::create))
        .route("/v1/join-tokens/{name}", delete(join::revoke))
        .route("/v1/authorities", get(join::authorities).post(join::rotate))
        .route("/v1/authorities/{fingerprint}", delete(join::retire))
        .route("/v1/agent/certificate", post(join::renew))
        .route("/v1/agent/state", get(agents::state))
        .route("/v1/agent/status", post(agents::status))
        .route("/v1/agent/answers/{id}", post(questions::answer))
        .route("/v1/trace", post(questions::trace))
        .route("/v1/flows", get(questions::flows))
        .route("/v1/workloads/{name}/verdicts", get(questions::verdicts))
        .route("/v1/openapi.json", get(meta::openapi_json))
        .route("/metrics", get(meta::metrics))
        .route("/v1/{kind}", get(resources::list))
        .route(
            "/v1/{kind}/{name}",
            get(resources::read).put(resources::replace).patch(resources::patch).delete(resources::remove),
        )
        .fallback(no_such_address)
        .method_not_allowed_fallback(no_such_method)
        .layer(middleware::from_fn_with_state(context.clone(), caller::authenticate));
    let joining = Router::new()
        .route("/v1/join", post(join::join))
        .method_not_allowed_fallback(no_such_method)
        .layer(middleware::from_fn_with_state(context.clone(), caller::welcome));
    Router::new()
        .route("/healthz", get(meta::health))
        .merge(joining)
        .merge(routes)
        .layer(middleware::from_fn_with_state(context.clone(), within_time))
        .with_state(context)
}

/// Gives up on a request that takes too long and counts the answers.
async fn within_time(State(context): State<Context>, request: Request, next: Next) -> Response {
    let response = match tokio::time::timeout(TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let detail = format!("no answer within {} seconds", TIMEOUT.as_secs());
            Refused::from(Problem::new(ProblemKind::Timeout, detail)).into_response()
        }
    };
    let hundred = usize::from(response.status().as_u16() / 100).saturating_sub(2);
    if let Some(counter) = context.manager.numbers.answers.get(hundred) {
        counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
    response
}

async fn no_such_address(request: Request) -> Refused {
    let detail = format!("{} is no address of this API; /v1/openapi.json lists them", request.uri().path());
    Problem::new(ProblemKind::NotFound, detail).into()
}

async fn no_such_method(request: Request) -> Refused {
    let detail = format!("{} does not know {}", request.uri().path(), request.method());
    Problem::new(ProblemKind::Method, detail).into()
}
