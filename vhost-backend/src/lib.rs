//! A virtio-net device over vhost-user: frames in, frames out.

pub mod frame;
pub mod handover;
mod memory;
#[cfg(any(test, feature = "rig"))]
pub mod rig;
pub mod ring;
mod sigbus;
pub mod slot;
mod sync;
mod vring;

pub use frame::{BURST, Burst, Frame, HEAD, MAX_FRAME, NET_HEADER, Store};
pub use ring::{PutError, RingFault};
pub use slot::{RingState, RxFeatures, RxQueue, RxRing, TxQueue, TxRing};
