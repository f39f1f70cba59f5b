//! `palisade agent`, and the agent's part of `palisade up`.

use std::path::Path;

use agent::{Handle, Source, identity};

use crate::commands::join::JoinArgs;
use crate::directories::StateDir;
use crate::failure::Failure;
use crate::host::HostArgs;
use crate::output;
use crate::stop::Stop;

/// Run this machine's data plane, until SIGTERM or SIGINT
///
/// It forwards by what it was told last, from the first moment, whether a manager can be reached or not. The machine has to
/// have joined a mesh: `palisade join` does that once; with --join it is done at the first start.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    host: HostArgs,
    /// URL of a manager to use instead of those known from joining, https://host:port; may be given several times
    #[arg(long = "manager", value_name = "URL")]
    managers: Vec<String>,
    /// Join the mesh of the manager at this URL, unless the machine joined before; may be given several times
    #[arg(long = "join", value_name = "URL")]
    join: Vec<String>,
    #[command(flatten)]
    joining: JoinArgs,
    #[command(flatten)]
    state_dir: StateDir,
}

pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let state_dir = args.state_dir.absolute()?;
    let kept = kept(&state_dir)?;
    let host = match &kept {
        Some(kept) => args.host.name_or(kept.host())?,
        None => args.host.name()?,
    };
    if !args.join.is_empty() && kept.as_ref().is_none_or(|kept| kept.host() != host) {
        args.joining.join(&args.join, &host, &state_dir).await?;
    }
    serve(&args.host, args.managers, &state_dir).await
}

/// Runs the agent of a machine that joined.
pub(crate) async fn serve(args: &HostArgs, managers: Vec<String>, state_dir: &Path) -> Result<(), Failure> {
    let mut stop = Stop::new()?;
    let Some(mut kept) = kept(state_dir)? else {
        return Err(Failure::new(format!(
            "this machine has not joined a mesh: nothing is in {}\n  an administrator makes a token with `palisade \
             join-token create`; then run `palisade join URL --token TOKEN`",
            state_dir.display()
        )));
    };
    let host = args.name_or(kept.host())?;
    if host != kept.host() {
        return Err(Failure::usage(format!(
            "this machine joined as host {}, not {host}\n  join again with --host {host}, or leave --host away",
            kept.host()
        )));
    }
    if !managers.is_empty() {
        kept.managers.clone_from(&managers);
    }
    // The agent tries for ever; what can never work is told at once.
    mgmt_client::Client::member(&kept)?;
    let at = kept.managers.join(", ");
    let greeting = format!("palisade {}, host {host}, manager {at}\n", env!("CARGO_PKG_VERSION"));
    let handle = start(args.config(host, state_dir, Source::Managers(managers))?).await?;
    output::print(&(greeting + "ready\n"))?;
    log::info!("{}: stopping", stop.asked().await);
    self::stop(handle).await;
    Ok(())
}

fn kept(state_dir: &Path) -> Result<Option<mgmt_client::Membership>, Failure> {
    identity::load(state_dir).map_err(|error| Failure::new(error.to_string()))
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
