//! Flow tracking and firewall as the caller of the pipeline sees them: frames in, verdicts and events out.

mod changes;
mod datagrams;
mod errors;
mod fragments;
mod frames;
mod limits;
mod refusals;
mod rules;
mod tcp;
mod world;
