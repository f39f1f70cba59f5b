//! Desired state: store, HTTP API, audit.
mod check;
mod compile;
mod document;
mod state;
mod store;
#[cfg(test)]
mod testing;
mod transaction;
