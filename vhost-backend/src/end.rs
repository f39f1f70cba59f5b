//! Why a connection ended.

use std::io;

use thiserror::Error;
use vhost::vhost_user::message::FrontendReq;

/// Why a connection with a VMM ended. Everything but the first three is the VMM's fault, or looks like it.
#[derive(Debug, Error)]
pub(crate) enum End {
    #[error("the VMM hung up")]
    HungUp,
    #[error("the port was closed")]
    PortClosed,
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the connection broke off after {got} of {expected} bytes of a message")]
    Truncated { got: usize, expected: usize },
    #[error("a message was not complete, or a reply not taken, within {seconds} s")]
    Stalled { seconds: u64 },
    #[error("request {number} does not exist in vhost-user")]
    UnknownRequest { number: u32 },
    #[error("{request:?} has flags {flags:#x}: version 1 was expected, and no reply")]
    Flags { request: FrontendReq, flags: u32 },
    #[error("{request:?} has {got} bytes of payload, at most {most} are possible")]
    Oversized { request: FrontendReq, got: usize, most: usize },
    #[error("a message came with {got} or more file descriptors, at most {most} are possible")]
    TooManyFds { got: usize, most: usize },
    #[error("{request:?} has {got} bytes of payload instead of {expected}")]
    Size { request: FrontendReq, got: usize, expected: usize },
    #[error("{request:?} came with {got} file descriptors instead of {expected}")]
    Fds { request: FrontendReq, got: usize, expected: usize },
    #[error("{request:?} is not supported and was not offered")]
    NotOffered { request: FrontendReq },
    #[error("{request:?} needs protocol feature {needs}, which was not negotiated")]
    NotNegotiated { request: FrontendReq, needs: &'static str },
    #[error("{request:?} accepts feature bits {bits:#x}, which were not offered")]
    FeatureBits { request: FrontendReq, bits: u64 },
    #[error("{request:?} is for ring {ring}, but the port has {pairs} queue pairs (rings 0 to {})", pairs * 2 - 1)]
    Ring { request: FrontendReq, ring: u32, pairs: u16 },
    #[error("{request:?} has value {value}: {expected} was expected")]
    Value { request: FrontendReq, value: u64, expected: &'static str },
    #[error("{request:?}: {problem}")]
    Memory { request: FrontendReq, problem: &'static str },
    #[error("{request:?} was refused by the device (see above)")]
    Refused { request: FrontendReq },
    #[error("the device answered {request:?} out of turn")]
    OutOfTurn { request: FrontendReq },
    #[error("the device stopped serving the connection")]
    DeviceGone,
}

impl End {
    /// A short stable name, for counters.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            End::HungUp => "hung-up",
            End::PortClosed => "port-closed",
            End::Io(_) => "io",
            End::Truncated { .. } => "truncated",
            End::Stalled { .. } => "stalled",
            End::UnknownRequest { .. } => "unknown-request",
            End::Flags { .. } => "flags",
            End::Oversized { .. } => "oversized",
            End::TooManyFds { .. } => "too-many-fds",
            End::Size { .. } => "size",
            End::Fds { .. } => "fds",
            End::NotOffered { .. } => "not-offered",
            End::NotNegotiated { .. } => "not-negotiated",
            End::FeatureBits { .. } => "feature-bits",
            End::Ring { .. } => "ring",
            End::Value { .. } => "value",
            End::Memory { .. } => "memory",
            End::Refused { .. } => "refused",
            End::OutOfTurn { .. } => "out-of-turn",
            End::DeviceGone => "device-gone",
        }
    }

    /// Whether this is how a connection should end.
    pub(crate) fn is_clean(&self) -> bool {
        matches!(self, End::HungUp | End::PortClosed)
    }
}
