//! Connection tracking and virtual reassembly: against real stacks, slow models, and every combination.

mod captures;
mod endpoints;
mod fragments;
mod model;
mod transitions;
mod windows;
