//! `palisade join`

use std::path::{Path, PathBuf};

use ::agent::identity;

use crate::commands::agent;
use crate::directories::StateDir;
use crate::failure::Failure;
use crate::host::HostArgs;
use crate::output;

/// Make this machine a host of a mesh
///
/// The token names the authority that the manager has to prove itself by: no other file is needed. Key and certificate are
/// kept in the state directory, for `palisade agent`, which renews them by itself.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// URL of a manager, https://host:port; with several, the first that can be reached is asked
    #[arg(required = true, value_name = "URL")]
    managers: Vec<String>,
    #[command(flatten)]
    joining: JoinArgs,
    /// Go on as this machine's data plane, until SIGTERM or SIGINT
    #[arg(long)]
    run: bool,
    #[command(flatten)]
    host: HostArgs,
    #[command(flatten)]
    state_dir: StateDir,
}

/// What a machine joins with.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Joining")]
pub(crate) struct JoinArgs {
    /// Join token; others on this machine can read it from a command line, so prefer the environment or a file
    #[arg(long, env = "PALISADE_JOIN_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    token: Option<String>,
    /// File with the join token
    #[arg(long, value_name = "FILE", conflicts_with = "token")]
    token_file: Option<PathBuf>,
}

impl JoinArgs {
    /// Joins as `host` and keeps what that gave. A machine that joined as this host before proves that it is the same.
    pub(crate) async fn join(
        &self,
        managers: &[String],
        host: &str,
        state_dir: &Path,
    ) -> Result<(), Failure> {
        let token = match (&self.token, &self.token_file) {
            (Some(token), _) => token.clone(),
            (None, Some(file)) => std::fs::read_to_string(file).map_err(|error| {
                Failure::new(format!("the join token cannot be read: {}: {error}", file.display()))
            })?,
            (None, None) => {
                return Err(Failure::usage(
                    "a join token is needed: --token, --token-file or PALISADE_JOIN_TOKEN\n  an administrator makes \
                     one with `palisade join-token create`",
                ));
            }
        };
        // What cannot be read proves nothing; joining replaces it.
        let before = identity::load(state_dir).ok().flatten().filter(|kept| kept.host() == host);
        let joined = mgmt_client::join(managers, &token, host, before.as_ref()).await;
        let joined = joined.map_err(|error| match error.problem() {
            // What other commands are hinted at are other tokens.
            Some(problem) => Failure::new(problem.detail.clone()),
            None => error.into(),
        })?;
        identity::keep(state_dir, &joined).map_err(|error| Failure::new(error.to_string()))
    }
}

pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let (host, state_dir) = (args.host.name()?, args.state_dir.absolute()?);
    args.joining.join(&args.managers, &host, &state_dir).await?;
    if args.run {
        return agent::serve(&args.host, Vec::new(), &state_dir).await;
    }
    output::print(&format!("host {host} has joined; start it with: palisade agent\n"))
}
