//! Connection tracking and virtual reassembly: against real stacks, slow models, and every combination.

mod captures;
mod transitions;
mod windows;
