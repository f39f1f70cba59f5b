//! Typed client of the management API.
//!
//! ```no_run
//! # async fn example() -> Result<(), mgmt_client::Error> {
//! use mgmt_client::{Client, Endpoint};
//! use mgmt_types::Kind;
//!
//! let client = Client::connect(&Endpoint {
//!     url: "https://127.0.0.1:7470".into(),
//!     token: "secret".into(),
//!     ca_pem: "-----BEGIN CERTIFICATE-----…".into(),
//! })?;
//! for network in client.list(Kind::Network, None).await? {
//!     println!("{}", network.name());
//! }
//! # Ok(())
//! # }
//! ```
//! Nobody is trusted but the authorities whose certificates the endpoint names. Nothing is retried, and everything has an
//! end: a request after [`Timeouts::request`], a silent stream after [`Timeouts::silence`].

mod access;
mod apply;
mod backup;
mod client;
mod error;
mod events;
mod member;
mod questions;
mod resources;
mod sse;
mod streams;
mod tls;

pub use apply::Document;
pub use client::{Client, Endpoint, Timeouts};
pub use error::Error;
pub use events::Events;
pub use member::{Membership, join};
pub use questions::{AgentEvent, AgentEvents, Follow};
pub use resources::AuditQuery;
