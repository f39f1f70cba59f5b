//! Decides what happens to a packet.
//!
//! Pure: every function depends on its arguments alone. No clock, thread, file, socket, log or allocation is on a
//! packet's way; time is an [`Instant`] that the caller passes in. Read [`from_port`] first: it is the table of
//! contents.

mod counters;
mod deliver;
mod drop_reason;
mod frame;
mod from_port;
mod instant;
mod rate;
mod snapshot;

pub use counters::{CounterValues, Counters};
pub use drop_reason::{DropReason, Stage};
pub use frame::{Frame, HEAD, Verdict};
pub use from_port::{PortState, from_port};
pub use instant::Instant;
pub use rate::RateLimit;
pub use snapshot::{
    BuildError, HashKey, Neighbour, Network, NetworkConfig, NetworkIndex, Port, PortConfig, PortIndex,
    Snapshot, SnapshotBuilder, link_local,
};
