//! Connection tracking: what a flow's packets say about it, as plain values.
//!
//! [`tcp`] and [`datagram`] are the state machines, [`timeouts`] says how long each of their states may last without a
//! packet. They know nothing of where flows are stored: a state packs into a few words that a table keeps.

pub mod datagram;
pub mod tcp;
pub mod timeouts;

/// Who of a flow's two ends sent a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Side {
    /// The end whose packet started the flow.
    Initiator = 0,
    /// The other end.
    Responder = 1,
}

impl Side {
    /// The peer.
    #[inline]
    pub const fn other(self) -> Self {
        match self {
            Self::Initiator => Self::Responder,
            Self::Responder => Self::Initiator,
        }
    }

    /// The place in an array of two.
    #[inline]
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// What a packet that fits its flow does to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Change {
    /// The state is what it was: only its timeout starts again.
    None,
    /// Another state, and perhaps another [`timeouts::Class`].
    State,
    /// Now both ends have agreed to talk. It may come again in a flow's life: when a RST was not its end, or both ends
    /// lost the connection and made another of it.
    Established,
    /// The connection is over: both ends have closed it, or one has reset it. Its entry stays for stragglers.
    Ended,
    /// A SYN of either end on a connection that is over, or of its responder on one that is not. Nothing has changed:
    /// whoever tracks the flow judges this segment as the first of another, whose initiator sent it, and if it is
    /// allowed, replaces the flow.
    Reopens,
}
