//! A ring as workers see it: entered for one burst, left when that is over.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_ECN, VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6,
    VIRTIO_NET_F_MRG_RXBUF,
};

use super::{Inner, Slot};
use crate::frame::{Burst, NET_HEADER, Piece, Store};
use crate::ring::split::Split;
use crate::ring::{PutError, RingFault};
use crate::sync::MutexGuard;

/// The frames a guest transmits on one queue.
#[derive(Clone, Debug)]
pub struct TxQueue(pub(crate) Arc<Slot>);

impl TxQueue {
    /// Enters the ring for one burst. `None`: stopped, broken, or being changed just now; `changed` follows then.
    #[inline]
    pub fn enter(&self) -> Option<TxRing<'_>> {
        Some(TxRing { inner: self.0.try_enter()?, slot: &self.0 })
    }

    /// Whether frames can pass. While this is so, an [`enter`](Self::enter) that gives nothing met a change that is over
    /// in a moment.
    #[inline]
    pub fn running(&self) -> bool {
        self.0.running()
    }

    /// The eventfd that the guest kicks: for edge-triggered polling, never to be read (its counter belongs to nobody).
    /// `PortEvents::changed` tells when it is another one.
    pub fn kick_fd(&self) -> Option<Arc<OwnedFd>> {
        self.0.kick()
    }
}

/// A transmit ring in the hands of a worker.
pub struct TxRing<'a> {
    inner: MutexGuard<'a, Inner>,
    slot: &'a Slot,
}

impl TxRing<'_> {
    /// Takes up to [`BURST`](crate::BURST) frames and tells the guest not to kick meanwhile. Dropping the burst gives the
    /// buffers back.
    #[inline]
    pub fn take<'b>(&'b mut self, store: &'b mut Store) -> Burst<'b> {
        match &mut self.inner.split {
            Some(split) => {
                split.take(store);
                Burst::from_ring(store, split)
            }
            None => Burst::private(store),
        }
    }

    /// Whether the guest has frames for us.
    pub fn pending(&mut self) -> bool {
        self.inner.split.as_mut().is_some_and(Split::pending)
    }

    /// Asks the guest to kick us. `true`: there is work already, do not sleep.
    pub fn arm(&mut self) -> bool {
        self.inner.split.as_mut().is_some_and(Split::arm)
    }
}

impl Drop for TxRing<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.inner.split.as_ref().is_some_and(|split| split.fault().is_some()) {
            self.slot.retire_broken(&mut self.inner);
        }
    }
}

/// The frames a guest receives on one queue.
#[derive(Clone, Debug)]
pub struct RxQueue(pub(crate) Arc<Slot>);

impl RxQueue {
    /// Enters the ring for one burst, waiting for another worker's burst or a change to end. `None`: stopped or broken.
    #[inline]
    pub fn enter(&self) -> Option<RxRing<'_>> {
        Some(RxRing { inner: self.0.enter()?, slot: &self.0 })
    }

    /// Whether frames can pass.
    #[inline]
    pub fn running(&self) -> bool {
        self.0.running()
    }

    /// What the receiving driver accepts in frames' headers.
    #[inline]
    pub fn features(&self) -> RxFeatures {
        RxFeatures(self.0.features())
    }
}

/// A receive ring in the hands of a worker; what was put is shown to the guest when this is dropped.
pub struct RxRing<'a> {
    inner: MutexGuard<'a, Inner>,
    slot: &'a Slot,
}

impl RxRing<'_> {
    /// Says how many frames will be put next, so that their buffers can be fetched together.
    #[inline]
    pub fn expect(&mut self, count: usize) {
        if let Some(split) = &mut self.inner.split {
            split.expect(count);
        }
    }

    /// Copies frame `i` of a burst to the guest, with `net` as its header.
    #[inline]
    pub fn put(&mut self, burst: &Burst<'_>, i: usize, net: &[u8; NET_HEADER]) -> Result<(), PutError> {
        let Some(split) = &mut self.inner.split else { return Err(PutError::Fault(RingFault::BadRing)) };
        let frame = &burst.frames()[i];
        let pieces = burst.pieces(frame);
        let head = frame.head();
        let len = head.len() as u32 + pieces.iter().map(|piece| piece.len).sum::<u32>();
        split.put(net, head, pieces, len)
    }

    /// Copies a frame made of a header and a payload to the guest.
    pub fn put_bytes(&mut self, net: &[u8; NET_HEADER], head: &[u8], payload: &[u8]) -> Result<(), PutError> {
        let Some(split) = &mut self.inner.split else { return Err(PutError::Fault(RingFault::BadRing)) };
        let (Ok(head_len), Ok(len)) = (u32::try_from(head.len()), u32::try_from(payload.len())) else {
            return Err(PutError::TooLong);
        };
        let total =
            head_len.checked_add(len).filter(|total| *total <= crate::MAX_FRAME).ok_or(PutError::TooLong)?;
        let piece = Piece { ptr: payload.as_ptr(), len };
        let pieces = if len == 0 { &[][..] } else { std::slice::from_ref(&piece) };
        split.put(net, head, pieces, total)
    }
}

impl Drop for RxRing<'_> {
    #[inline]
    fn drop(&mut self) {
        let Some(split) = &mut self.inner.split else { return };
        split.publish();
        if split.fault().is_some() {
            self.slot.retire_broken(&mut self.inner);
        }
    }
}

impl std::fmt::Debug for TxRing<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "entered {:?}", self.slot)
    }
}

impl std::fmt::Debug for RxRing<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "entered {:?}", self.slot)
    }
}

/// Which offloads a receiving driver takes (virtio 1.2, 5.1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RxFeatures(u64);

impl RxFeatures {
    #[inline]
    fn has(self, bit: u32) -> bool {
        self.0 >> bit & 1 == 1
    }
    /// Frames whose checksum is to be finished (`NEEDS_CSUM`), or was checked.
    #[inline]
    pub fn csum(self) -> bool {
        self.has(VIRTIO_NET_F_GUEST_CSUM)
    }
    /// TCP over IPv4, uncut.
    #[inline]
    pub fn tso4(self) -> bool {
        self.has(VIRTIO_NET_F_GUEST_TSO4)
    }
    /// TCP over IPv6, uncut.
    #[inline]
    pub fn tso6(self) -> bool {
        self.has(VIRTIO_NET_F_GUEST_TSO6)
    }
    /// Uncut TCP with the ECN bits in use.
    #[inline]
    pub fn ecn(self) -> bool {
        self.has(VIRTIO_NET_F_GUEST_ECN)
    }
    /// UDP over IPv4, uncut.
    #[inline]
    pub fn uso4(self) -> bool {
        self.has(VIRTIO_NET_F_GUEST_USO4)
    }
    /// UDP over IPv6, uncut.
    #[inline]
    pub fn uso6(self) -> bool {
        self.has(VIRTIO_NET_F_GUEST_USO6)
    }
    /// Frames in several merged buffers.
    #[inline]
    pub fn mergeable(self) -> bool {
        self.has(VIRTIO_NET_F_MRG_RXBUF)
    }
}

/// virtio 1.3, 5.1.3; not in `virtio-bindings` yet.
const VIRTIO_NET_F_GUEST_USO4: u32 = 54;
const VIRTIO_NET_F_GUEST_USO6: u32 = 55;
