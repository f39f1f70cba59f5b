//! Connection tracking and virtual reassembly: against real stacks, slow models, and every combination.

mod captures;
mod fragments;
mod transitions;
mod windows;
