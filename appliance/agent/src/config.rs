//! What an agent is told at its start.

use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use mgmt_types::agent::{HostStatus, Slice};
use tokio::sync::mpsc;

/// Everything [`crate::run()`] needs.
#[derive(Debug)]
pub struct Config {
    /// Name of this host, as workloads name it.
    pub host: String,
    /// Where state that outlives the process is kept, in a directory `agent` below.
    pub state_dir: PathBuf,
    /// Where sockets are made: `ports/<workload>.<port>.sock` and `agent.sock`.
    pub run_dir: PathBuf,
    /// Number of worker threads; 0 counts as 1.
    pub workers: usize,
    /// CPUs to pin workers to, one after the other, starting over when there are more workers. Empty: not pinned.
    pub cpus: Vec<usize>,
    /// How workers wait for frames.
    pub poll: Poll,
    /// Connections that are tracked in all, up to 2^24 - 2; each takes about 160 bytes once it exists.
    pub max_flows: u32,
    /// Connections that one port may have begun.
    pub max_flows_per_port: u32,
    /// The network between hosts.
    pub underlay: UnderlayConfig,
    /// Where slices come from.
    pub source: Source,
}

/// The network between hosts, as this one sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnderlayConfig {
    /// Addresses that tunnels begin and end at, the preferred one first. Empty: the one that packets to the manager leave
    /// from, if it is on another host.
    pub addresses: Vec<IpAddr>,
    /// UDP port of GENEVE.
    pub port: u16,
    /// Bytes of the largest IP packet. `None`: what the interface with the first address takes.
    pub mtu: Option<u16>,
}

impl Default for UnderlayConfig {
    fn default() -> Self {
        Self { addresses: Vec::new(), port: wire::geneve::UDP_PORT, mtu: None }
    }
}

impl Config {
    /// [`Config::max_flows`] for who has no opinion: 2^20.
    pub const MAX_FLOWS: u32 = 1 << 20;
    /// The part of all flows that one port may have begun, for who has no opinion: an eighth, so that no few ports can use
    /// up the table.
    pub const PORTS_SHARE: u32 = 8;
}

/// How workers wait for frames: the trade between latency and an idle CPU.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Poll {
    /// Poll while there is work and some microseconds longer, then sleep.
    #[default]
    Adaptive,
    /// Never sleep: each worker takes a whole CPU.
    Always,
    /// Sleep as soon as there is nothing to do.
    Sleep,
}

/// A word that is no [`Poll`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{got:?} is no way to poll: adaptive, always or sleep")]
pub struct PollParseError {
    /// The word.
    pub got: String,
}

impl FromStr for Poll {
    type Err = PollParseError;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        match word {
            "adaptive" => Ok(Self::Adaptive),
            "always" => Ok(Self::Always),
            "sleep" => Ok(Self::Sleep),
            _ => Err(PollParseError { got: word.to_string() }),
        }
    }
}

/// Where slices come from and status goes to.
#[derive(Debug)]
pub enum Source {
    /// The managers of the mesh that this machine joined, one after the other, for ever: those at these URLs, or when there
    /// are none those that it knows from joining. It waits when it has not joined yet.
    Managers(Vec<String>),
    /// The caller. When the sending side ends, the last slice stays in force.
    Channel {
        /// Slices to put in force; of several waiting only the last counts.
        slices: mpsc::Receiver<Slice>,
        /// Gets the host's status; what finds no room is left out.
        status: mpsc::Sender<HostStatus>,
    },
    /// Nowhere: forward by what is kept on disk.
    Kept,
}
