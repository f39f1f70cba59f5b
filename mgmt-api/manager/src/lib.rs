//! Desired state: store, HTTP API, audit.
