//! Configurations in, decisions out: the compiled policy as its caller sees it.

mod changes;
mod config;
mod limits;
mod model;
mod properties;
mod semantics;
