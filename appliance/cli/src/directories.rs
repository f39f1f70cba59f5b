//! Where things are on this machine.

use std::path::{Path, PathBuf};

use crate::failure::Failure;

/// The directory of state that outlives the process.
pub(crate) const STATE_DIR: &str = "/var/lib/palisade";
/// The directory of sockets.
pub(crate) const RUN_DIR: &str = "/run/palisade";

/// `--state-dir`
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct StateDir {
    /// Where state that outlives the process is kept
    #[arg(long, env = "PALISADE_STATE_DIR", default_value = STATE_DIR, value_name = "DIR")]
    state_dir: PathBuf,
}

/// `--run-dir`
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct RunDir {
    /// Where sockets are made: ports/WORKLOAD.PORT.sock and agent.sock
    #[arg(long, env = "PALISADE_RUN_DIR", default_value = RUN_DIR, value_name = "DIR")]
    run_dir: PathBuf,
}

impl StateDir {
    /// The directory from the root, whatever the current directory becomes.
    pub(crate) fn absolute(&self) -> Result<PathBuf, Failure> {
        absolute(&self.state_dir)
    }
}

impl RunDir {
    /// The directory from the root: guests and VMMs find its sockets from wherever they run.
    pub(crate) fn absolute(&self) -> Result<PathBuf, Failure> {
        absolute(&self.run_dir)
    }
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|error| Failure::usage(format!("{:?} is no directory: {error}", path)))
}

/// PEM of the authority that signed the manager's certificate; the manager writes it.
pub(crate) fn ca(state_dir: &Path) -> PathBuf {
    state_dir.join("ca.pem")
}

/// The administrator's token; the manager writes it at its first start.
pub(crate) fn admin_token(state_dir: &Path) -> PathBuf {
    state_dir.join("admin.token")
}

/// Where the manager that uses this directory listens, for client commands on the same machine.
pub(crate) fn url(state_dir: &Path) -> PathBuf {
    state_dir.join("manager.url")
}

#[cfg(test)]
impl StateDir {
    /// As if it had been typed.
    pub(crate) fn at(path: &Path) -> Self {
        Self { state_dir: path.to_owned() }
    }
}
