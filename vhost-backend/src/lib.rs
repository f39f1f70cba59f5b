//! A virtio-net device over vhost-user: frames in, frames out.

mod config_space;
mod end;
pub mod features;
pub mod frame;
pub mod handover;
mod memory;
mod message;
mod port;
mod relay;
#[cfg(any(test, feature = "rig"))]
pub mod rig;
pub mod ring;
mod session;
mod sigbus;
pub mod slot;
mod socket;
mod sync;
mod vring;

pub use frame::{BURST, Burst, Frame, HEAD, MAX_FRAME, NET_HEADER, Store};
pub use port::{MAX_QUEUE_PAIRS, Port, PortConfig, PortEvents, PortState, Role};
pub use ring::{PutError, RingFault};
pub use slot::{RingState, RxFeatures, RxQueue, RxRing, TxQueue, TxRing};
