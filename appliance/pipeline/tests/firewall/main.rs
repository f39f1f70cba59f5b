//! Flow tracking and firewall as the caller of the pipeline sees them: frames in, verdicts and events out.

mod audits;
mod changes;
mod datagrams;
mod errors;
mod floods;
mod fragments;
mod frames;
mod limits;
mod model;
mod reasons;
mod refusals;
mod rules;
mod tcp;
mod traces;
mod workers;
mod world;
