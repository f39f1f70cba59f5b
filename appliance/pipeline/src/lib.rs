//! Decides what happens to a packet.
//!
//! Pure: every function depends on its arguments alone. No clock, thread, file, socket, log or allocation is on a
//! packet's way; time is an [`Instant`] that the caller passes in. Read [`from_port()`] first: it is the table of
//! contents.

#![forbid(unsafe_code)]

mod builder;
pub mod conntrack;
mod deliver;
mod drop_reason;
pub mod fragments;
mod frame;
mod from_port;
mod guard;
mod header;
mod instant;
mod offload;
mod parse;
pub mod policy;
mod rate;
mod respond;
mod snapshot;
mod table;

pub use builder::{BuildError, NetworkConfig, PortConfig, SnapshotBuilder};
pub use drop_reason::{DropReason, Stage};
pub use frame::{Frame, HEAD, Verdict};
pub use from_port::{PortState, from_port};
pub use instant::Instant;
pub use rate::RateLimit;
pub use snapshot::{Neighbour, Network, NetworkIndex, Port, PortIndex, Snapshot, link_local};
pub use table::HashKey;
