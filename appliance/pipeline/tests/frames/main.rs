//! Frames in, verdicts out: the pipeline as its caller sees it.

mod allocations;
mod documentation;
mod fragments;
mod properties;
mod purity;
mod replay;
mod snapshots;
mod verdicts;
mod world;
