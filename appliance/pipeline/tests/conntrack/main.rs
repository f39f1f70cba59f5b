//! Connection tracking and virtual reassembly: against real stacks, slow models, and every combination.

mod captures;
mod documentation;
mod endpoints;
mod fragments;
mod model;
mod transitions;
mod windows;
