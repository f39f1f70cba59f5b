//! The binary as its users meet it: what it prints, how it exits, and a mesh of one host from start to stop.

mod alone;
mod client;
mod questions;
mod running;
mod up;
