//! Several hosts, whose frames go from one pipeline to the other.

mod allocations;
mod fragments;
#[expect(dead_code, reason = "shared with the firewall's tests, which use all of it")]
#[path = "../firewall/frames.rs"]
mod frames;
mod guards;
mod moves;
mod passing;
mod properties;
mod routing;
mod world;
