//! One frame on its way, and what becomes of it.

use crate::{DropReason, PortIndex};

/// Bytes of a frame that are copied to private memory before anything looks at them.
pub const HEAD: usize = 192;

/// A frame, as the pipeline sees it: private copies of its first bytes and of its `virtio_net_hdr`. What lies beyond
/// the head may still be in the sender's memory, where nobody looks at it.
#[derive(Debug)]
pub struct Frame<'a> {
    /// Room for the first bytes, from the Ethernet header on; valid up to `head_len`.
    pub head: &'a mut [u8; HEAD],
    /// Valid bytes in `head`: `min(len, HEAD)`. A reply may make it larger or smaller, together with `len`.
    pub head_len: &'a mut u16,
    /// Bytes of the whole frame.
    pub len: &'a mut u32,
    /// The sender's `virtio_net_hdr`. After a verdict other than `Drop` it is proven to fit the frame: only
    /// `NEEDS_CSUM` may be set, `hdr_len` is right, and a field that means nothing is zero.
    pub net: &'a mut [u8; wire::vnet::LEN],
}

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// To one port: of this host, or of another ([`crate::Port::host`]), to which it goes in
    /// [`crate::Snapshot::encapsulation`].
    Deliver(PortIndex),
    /// To every other local port of the network: [`crate::Snapshot::flood_ports`] without the sender; and, from a local
    /// port, to each of [`crate::Snapshot::flood_hosts`].
    Flood,
    /// The frame was turned into the answer: back to its sender.
    Reply,
    /// It was turned into the refusal that its sender gets: it ends here for this reason.
    Refuse(DropReason),
    /// A fragment that waits for the first of its packet: the caller keeps a copy of it in its port's slot of this number
    /// until [`crate::Workspace::released`] says what becomes of it, perhaps after the same burst.
    Hold(u8),
    /// It ends here.
    Drop(DropReason),
}
