//! Resources and the agent protocol.
//!
//! What an operator declares ([`Network`], [`Workload`], [`Host`]), what the manager answers when a declaration is
//! wrong ([`Problem`]), and what a host gets and says ([`agent`]). Plain data: nothing here reads a clock, a file or a
//! socket. Every type has one JSON shape, camelCase, that refuses unknown fields where a person writes it and ignores
//! them where a program of another version does.

pub mod agent;
mod attach;
mod audit;
pub mod derive;
mod host;
mod labels;
mod mac;
pub mod name;
mod network;
mod problem;
mod rate_limit;
mod resource;
mod revision;
mod text;
mod tier;
mod token;
mod workload;

pub use attach::{Attach, Tap, VhostRole, VhostUser};
pub use audit::{AuditEntry, AuditList};
pub use host::{Host, HostReport, HostSpec};
pub use labels::{Labels, Selector, SelectorError};
pub use mac::{MacAddr, MacParseError};
pub use network::{Mtu, Network, NetworkReport, NetworkSpec};
pub use problem::{Mistake, Problem, ProblemKind};
pub use rate_limit::{Bucket, RateLimit};
pub use resource::{Kind, Resource, ResourceList, UnknownKind};
pub use revision::{Applied, Change, Diff, Outcome, Realised, RealisedHost, RealisedState, Revision};
pub use tier::{PolicyMode, RuleAction, RuleDirection, Tier};
pub use token::{NewToken, Role, TokenInfo, TokenList, TokenSecret};
pub use workload::{PortReport, PortSpec, Workload, WorkloadKind, WorkloadReport, WorkloadSpec};
