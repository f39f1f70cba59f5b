//! Bytes to headers and back.
//!
//! Views prove their length once, in `parse`, and are then infallible. Nothing here allocates, and nothing here
//! trusts a length it has not compared with the bytes it was given.

pub mod checksum;
pub mod gso;
pub mod vnet;
