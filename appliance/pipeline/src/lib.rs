//! Decides what happens to a packet.
//!
//! Pure: every function depends on its arguments alone. No clock, thread, file, socket, log or allocation is on a
//! packet's way; time is an [`Instant`] that the caller passes in. Read [`from_port()`] first, then [`from_underlay()`]: they
//! are the tables of contents.

#![forbid(unsafe_code)]

mod builder;
pub mod conntrack;
mod decap;
mod deliver;
mod drop_reason;
mod ecn;
mod firewall;
mod flow;
mod fragmented;
pub mod fragments;
mod frame;
mod from_port;
mod from_underlay;
mod guard;
mod header;
mod host;
mod instant;
mod mss;
mod offload;
mod parse;
pub mod policy;
mod port_state;
mod rate;
mod refuse;
mod report;
mod respond;
mod route;
mod router;
mod snapshot;
mod table;
mod trace;
mod track;
mod workspace;

pub use builder::{BuildError, NetworkConfig, PortConfig, SnapshotBuilder};
pub use drop_reason::{DropReason, Stage};
pub use firewall::admits;
pub use flow::{Ending, FlowKey, FlowRecord, FlowStart, FlowTable, FlowTableConfig};
pub use frame::{Frame, HEAD, Verdict};
pub use from_port::from_port;
pub use from_underlay::{Arrival, from_underlay};
pub use host::{Encapsulation, Ends, Host, HostConfig, HostIndex, Location, Moved};
pub use instant::Instant;
pub use policy::{Policy, RuleId};
pub use port_state::PortState;
pub use rate::RateLimit;
pub use report::{DropRecord, Event, Origin, Report};
pub use router::{Domain, RouteConfig, RouterConfig, RouterIndex};
pub use snapshot::{Neighbour, Network, NetworkIndex, Port, PortIndex, Snapshot, link_local};
pub use table::HashKey;
pub use trace::{Answer, Finding, Step, Trace, trace};
pub use workspace::{Released, Workspace};
