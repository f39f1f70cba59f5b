//! A virtio-net device over vhost-user: frames in, frames out. No IP, no policy.
//!
//! A [`Port`] is one virtual NIC. A thread of its own holds its socket, takes one VMM after the other and keeps the rings
//! in step with what the VMM says. Workers take bursts of frames from its [`TxQueue`]s and put them into the [`RxQueue`]s
//! of other ports; nothing they do there waits for a VMM, and a VMM gets its answer when none of them uses what it takes away.
//!
//! The control side, top down: `port` (sockets, who is connected), `session` (one connection with the crate's daemon),
//! `relay` (every message between VMM and daemon, checked), `message`, `socket`, `end` (why a connection ended), [`features`],
//! `config_space`. The data side: [`slot`] (a ring for the life of its port), `vring` (the crate's view of it), [`ring`]
//! (split rings in place), [`frame`] (bursts), `memory` and `sigbus` (guest memory that may vanish), [`handover`] (the lock
//! between the two sides).
//!
//! `docs/vhost-user.md` says what VMMs can expect.

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
