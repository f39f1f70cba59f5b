//! `palisade agent`, and the agent's part of `palisade up`.

use agent::{Handle, Source};

use crate::connection::ConnectionArgs;
use crate::failure::Failure;
use crate::host::HostArgs;
use crate::output;
use crate::stop::Stop;

/// Run this machine's data plane, until SIGTERM or SIGINT
///
/// It forwards by what it was told last, from the first moment, whether the manager can be reached or not. The token
/// needs the role agent: palisade token create NAME --role agent.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    host: HostArgs,
    #[command(flatten)]
    connection: ConnectionArgs,
}

pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let mut stop = Stop::new()?;
    let host = args.host.name()?;
    let endpoint = args.connection.endpoint()?;
    // The agent tries for ever; what can never work is told at once.
    mgmt_client::Client::connect(&endpoint)?;
    let greeting = format!("palisade {}, host {host}, manager {}\n", env!("CARGO_PKG_VERSION"), endpoint.url);
    let state_dir = args.connection.state_dir().absolute()?;
    let config = args.host.config(host, &state_dir, Source::Manager(endpoint))?;
    let handle = start(config).await?;
    output::print(&(greeting + "ready\n"))?;
    log::info!("{}: stopping", stop.asked().await);
    self::stop(handle).await;
    Ok(())
}

/// Starts an agent: when this returns, it forwards by what it was told last.
pub(crate) async fn start(config: agent::Config) -> Result<Handle, Failure> {
    let started = tokio::task::spawn_blocking(move || agent::run(config)).await;
    let started = started.map_err(|error| Failure::new(format!("the agent cannot start: {error}")))?;
    started.map_err(|error| Failure::new(format!("the agent cannot start: {error}")))
}

/// Stops an agent and waits for its threads.
pub(crate) async fn stop(handle: Handle) {
    if tokio::task::spawn_blocking(move || handle.stop()).await.is_err() {
        log::error!("the agent did not stop well");
    }
}
