//! Direct access to a guest's split virtqueues (virtio 1.2, 2.7).
//!
//! `split` knows the layout, `tx` takes frames that the guest sends, `rx` gives frames to the guest.

pub(crate) mod copy;
mod fault;
mod rx;
pub(crate) mod split;
mod tx;

pub use fault::RingFault;
pub use rx::PutError;
