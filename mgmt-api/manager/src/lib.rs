//! Desired state: store, HTTP API, audit.
//!
//! [`serve()`] runs a manager: it keeps what operators declare, compiles for each host what that host needs, and says
//! how hosts fare. A request goes this way: `serve` (TLS, limits) → `api` (who, what) → `document` (text to resources,
//! with places) → `transaction` (state and wishes to the next state, pure) → `store` (on disk) → watchers and hosts.

mod admission;
mod api;
mod authority;
mod backup;
mod board;
mod certificate;
mod check;
mod colleagues;
mod compile;
mod desk;
mod document;
mod enrolment;
mod files;
mod join_token;
mod limiter;
mod manager;
mod membership;
mod moves;
mod mtu;
mod offline;
mod places;
mod reach;
mod records;
mod restore;
mod seal;
mod serve;
mod shelf;
mod state;
mod store;
#[cfg(test)]
mod testing;
mod time;
mod token;
mod transaction;

pub use admission::Admission;
pub use authority::AuthorityError;
pub use backup::BackupError;
pub use files::FileError;
pub use offline::{OfflineError, backup, restore};
pub use seal::SealError;
pub use serve::{ADMIN_FILE, CA_FILE, Config, Running, ServeError, serve};
pub use store::{EtcdAddress, StoreAddress, StoreAddressError, StoreError, StoreTls};

/// The description of the API, OpenAPI 3.1, as `/v1/openapi.json` serves it.
pub fn openapi() -> serde_json::Value {
    api::openapi()
}
