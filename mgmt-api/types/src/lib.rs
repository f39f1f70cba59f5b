//! Resources and the agent protocol.
//!
//! What an operator declares ([`Network`], [`Router`], [`Workload`], [`Host`], [`Group`], [`FirewallPolicy`]), what the manager
//! answers when a declaration is wrong ([`Problem`]), and what a host gets and says ([`agent`]). Plain data: nothing here reads a clock, a file or a
//! socket. Every type has one JSON shape, camelCase, that refuses unknown fields where a person writes it and ignores
//! them where a program of another version does.

pub mod agent;
mod attach;
mod audit;
pub mod derive;
mod enforcement;
mod expression;
mod firewall_policy;
mod glob;
mod group;
mod host;
mod join;
mod labels;
mod mac;
mod managers;
pub mod name;
mod network;
mod peer;
mod problem;
pub mod question;
mod range;
mod rate_limit;
mod resource;
mod revision;
mod router;
mod service;
mod text;
mod tier;
mod token;
mod workload;

pub use attach::{Attach, Tap, VhostRole, VhostUser};
pub use audit::{AuditEntry, AuditList};
pub use enforcement::{Enforced, Firewall};
pub use expression::{MAX_MATCH, Match, MatchError, Subject};
pub use firewall_policy::{BASELINE, FirewallPolicy, FirewallPolicySpec, PolicyReport, Rule, RuleReport};
pub use glob::{Glob, GlobError};
pub use group::{Group, GroupReport, GroupSpec};
pub use host::{Host, HostKind, HostReport, HostSpec, HostState, MAX_UNDERLAY, is_underlay_address};
pub use join::{
    AUTHORITY_HEADER, Authority, AuthorityList, Credentials, ExpiryAlarm, JoinRequest, JoinToken,
    JoinTokenList, JoinTokenSecret, JoinTokenState, NewJoinToken, RenewalRequest,
};
pub use labels::{Labels, Selector, SelectorError};
pub use mac::{MacAddr, MacParseError};
pub use managers::{ManagerList, ManagerReport, ManagerRole, StoreKind};
pub use network::{Mtu, Network, NetworkReport, NetworkSpec};
pub use peer::{ANY, Peer, PeerError};
pub use problem::{Mistake, Problem, ProblemKind};
pub use range::{AddressRange, RangeError};
pub use rate_limit::{Bucket, RateLimit};
pub use resource::{Kind, Resource, ResourceList, UnknownKind};
pub use revision::{
    Applied, Change, CutFlow, Diff, FlowImpact, Outcome, Realised, RealisedHost, RealisedState, Restored,
    Revision,
};
pub use router::{Route, Router, RouterReport, RouterSpec};
pub use service::{Icmp, NAMED as NAMED_SERVICES, NamedService, Service, ServiceError, Transport};
pub use tier::{PolicyMode, RuleAction, RuleDirection, Tier};
pub use token::{NewToken, NewUser, Role, TokenInfo, TokenList, TokenSecret, User, UserChange, UserList};
pub use workload::{PortReport, PortSpec, Workload, WorkloadKind, WorkloadReport, WorkloadSpec};
