//! An agent in this process, with guests that have drivers of their own and namespaces with TAP devices.

mod allocations;
mod alone;
mod bed;
mod guests;
mod idle;
mod manager;
mod mesh;
mod questions;
mod tap;
