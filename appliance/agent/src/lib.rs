//! Ports, workers, threads and clocks of one host.
//!
//! [`run()`] starts an agent: it opens the ports that the slice kept on disk names and forwards between them, before it
//! looks for a manager. New slices go through `compile` and are put in force by the control thread; workers carry
//! frames and share nothing with it but a generation number and an `Arc` behind it. Read `worker`, then `deliver`:
//! they are the way of a frame; then `control`, the way of a configuration.

mod announce;
mod answers;
mod arena;
mod board;
mod clock;
mod compile;
mod config;
mod control;
mod counters;
mod deliver;
mod directory;
mod explain;
mod flow_log;
mod following;
mod held;
mod homes;
mod housekeeper;
pub mod identity;
mod impact;
mod large_pages;
mod local_api;
mod manager;
mod mesh;
mod metrics;
mod moves;
mod netns;
mod plane;
mod port;
mod probe;
mod readiness;
mod recorder;
mod rule_book;
mod run;
mod sampler;
mod slots;
mod spread;
mod state;
mod sync;
mod tally;
mod tap;
mod teller;
mod underlay;
mod verdicts;
mod wake;
mod worker;
mod world;

pub use compile::{CompileError, socket_path};
pub use config::{Config, Poll, PollParseError, Source, UnderlayConfig};
pub use run::{Handle, RunError, run};
pub use state::StateError;
