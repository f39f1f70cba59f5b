//! The API over TLS on loopback, as clients meet it.

mod access;
mod agents;
mod backup;
mod document;
mod firewall;
mod hostile;
mod join;
mod mesh;
mod problems;
mod questions;
mod resources;
mod restart;
mod server;
mod watch;
