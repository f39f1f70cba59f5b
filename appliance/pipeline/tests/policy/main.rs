//! Configurations in, decisions out: the compiled policy as its caller sees it.

mod config;
mod limits;
mod model;
mod properties;
mod semantics;
