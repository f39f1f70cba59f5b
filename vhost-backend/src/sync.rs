//! The primitives of the hand-over, from `loom` when its model checker runs.

#[cfg(loom)]
pub(crate) use loom::{
    sync::atomic::{AtomicU32, Ordering},
    sync::{Mutex, MutexGuard},
    thread::yield_now,
};
#[cfg(not(loom))]
pub(crate) use std::{
    sync::atomic::{AtomicU32, Ordering},
    sync::{Mutex, MutexGuard},
    thread::yield_now,
};
