//! Typed client of the management API.
//!
//! [`Client::connect`] takes an [`Endpoint`]: where the manager is, which authority to trust, which token to show.
//! Methods return what the API returns; what it refuses comes back as [`Error::Refused`] with the whole
//! [`Problem`](mgmt_types::Problem).

mod client;
mod endpoint;
mod events;

pub use client::{Client, Error, File, Written};
pub use endpoint::{Endpoint, EndpointError};
pub use events::{Events, SliceStream, WatchStream};
