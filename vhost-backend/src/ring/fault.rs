//! What a guest can do wrong with a ring.

use std::fmt;

/// Why a ring was stopped. It stays stopped until the guest or its VMM resets it; other rings and ports go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RingFault {
    /// The driver claims more available entries than the ring has.
    AvailableJump,
    /// A head or `next` index is not below the ring's size.
    IndexOutOfRange,
    /// A descriptor chain is longer than the ring, or than 256 pieces: a loop.
    ChainTooLong,
    /// A buffer or table lies outside guest memory.
    AddressOutOfRange,
    /// A buffer of a transmit ring is device-writable, or one of a receive ring is not.
    WrongDirection,
    /// A descriptor with no bytes.
    EmptyDescriptor,
    /// A chain too short for the virtio-net header.
    ShortHeader,
    /// A transmitted frame longer than 64 KiB of IP packet.
    FrameTooLong,
    /// An indirect table that is empty, misaligned in length, nested, or was not negotiated.
    BadIndirect,
    /// The ring itself is misaligned, of a size that is no power of two, or outside guest memory.
    BadRing,
    /// The file behind guest memory was cut short.
    MemoryGone,
    /// The kick or call descriptor is not an eventfd.
    NotAnEventFd,
}

impl RingFault {
    /// Every fault, in a stable order.
    pub const ALL: [RingFault; 12] = [
        RingFault::AvailableJump,
        RingFault::IndexOutOfRange,
        RingFault::ChainTooLong,
        RingFault::AddressOutOfRange,
        RingFault::WrongDirection,
        RingFault::EmptyDescriptor,
        RingFault::ShortHeader,
        RingFault::FrameTooLong,
        RingFault::BadIndirect,
        RingFault::BadRing,
        RingFault::MemoryGone,
        RingFault::NotAnEventFd,
    ];

    /// The word used in status, metrics and logs.
    pub const fn name(self) -> &'static str {
        match self {
            RingFault::AvailableJump => "available-jump",
            RingFault::IndexOutOfRange => "index-out-of-range",
            RingFault::ChainTooLong => "chain-too-long",
            RingFault::AddressOutOfRange => "address-out-of-range",
            RingFault::WrongDirection => "wrong-direction",
            RingFault::EmptyDescriptor => "empty-descriptor",
            RingFault::ShortHeader => "short-header",
            RingFault::FrameTooLong => "frame-too-long",
            RingFault::BadIndirect => "bad-indirect",
            RingFault::BadRing => "bad-ring",
            RingFault::MemoryGone => "memory-gone",
            RingFault::NotAnEventFd => "not-an-eventfd",
        }
    }
}

impl fmt::Display for RingFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
