//! TCP connections (RFC 9293), as one sees them who stands between the ends.

mod segment;
mod step;
mod table;
mod window;

pub use segment::{Kind, Segment};
pub use window::Window;

use self::window::within;
use super::timeouts::Class;
use super::{Change, Side};
use crate::DropReason;

/// What may be set about TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Whether a segment from the middle of a connection opens an entry for it. So connections outlive a loss of all
    /// entries; such an entry's windows are believed to be the largest possible.
    pub pick_up: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { pick_up: true }
    }
}

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum State {
    /// The initiator has asked.
    SynSent,
    /// Both ends have asked, and neither has answered: a simultaneous open.
    SynCrossed,
    /// The responder has answered; the initiator's ACK is missing.
    SynReceived,
    /// After a simultaneous open the initiator has answered; the responder's ACK is missing.
    SynReceivedBack,
    /// Both ends have agreed.
    Established,
    /// The initiator sends no more data.
    HalfClosedInitiator,
    /// The responder sends no more data.
    HalfClosedResponder,
    /// Neither sends more data, and not all is acknowledged.
    Closing,
    /// All is said and acknowledged. Retransmissions may come.
    TimeWait,
    /// The initiator has reset the connection.
    ResetInitiator,
    /// The responder has reset or refused the connection.
    ResetResponder,
}

impl State {
    /// Every state, in the order of their numbers.
    pub const ALL: [Self; 11] = [
        Self::SynSent,
        Self::SynCrossed,
        Self::SynReceived,
        Self::SynReceivedBack,
        Self::Established,
        Self::HalfClosedInitiator,
        Self::HalfClosedResponder,
        Self::Closing,
        Self::TimeWait,
        Self::ResetInitiator,
        Self::ResetResponder,
    ];

    /// The name in API, CLI and logs: kebab-case.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SynSent => "syn-sent",
            Self::SynCrossed => "syn-crossed",
            Self::SynReceived | Self::SynReceivedBack => "syn-received",
            Self::Established => "established",
            Self::HalfClosedInitiator | Self::HalfClosedResponder => "half-closed",
            Self::Closing => "closing",
            Self::TimeWait => "time-wait",
            Self::ResetInitiator | Self::ResetResponder => "reset",
        }
    }

    /// Which timeout counts.
    #[inline]
    pub const fn class(self) -> Class {
        match self {
            Self::SynSent | Self::SynCrossed | Self::SynReceived | Self::SynReceivedBack => Class::TcpOpening,
            Self::Established => Class::TcpEstablished,
            Self::HalfClosedInitiator | Self::HalfClosedResponder => Class::TcpHalfClosed,
            Self::Closing => Class::TcpClosing,
            Self::TimeWait => Class::TcpTimeWait,
            Self::ResetInitiator | Self::ResetResponder => Class::TcpReset,
        }
    }

    /// The state of a number; of one that is none's, the last.
    const fn from_number(number: u8) -> Self {
        let last = Self::ALL.len() - 1;
        let number = number as usize;
        Self::ALL[if number < last { number } else { last }]
    }

    const fn reset_by(side: Side) -> Self {
        match side {
            Side::Initiator => Self::ResetInitiator,
            Side::Responder => Self::ResetResponder,
        }
    }
}

/// Bits of what has happened. Those of the responder stand one to the left of the initiator's.
mod flag {
    /// The end has sent FIN.
    pub(super) const FIN: u8 = 0x01;
    /// The end's FIN is acknowledged.
    pub(super) const FIN_ACKED: u8 = 0x04;
    /// Both ends have agreed, once.
    pub(super) const OPENED: u8 = 0x10;
    /// The initiator has sent another SYN into a connection that was under way: it may have lost it.
    pub(super) const ASKED_AGAIN: u8 = 0x20;
    /// Not everything was seen: the beginning was not, or segments came in fragments. How far an end has come is known
    /// from what it is allowed, and what its peer acknowledges.
    pub(super) const PARTLY_SEEN: u8 = 0x40;
    /// Both ends asked at once.
    pub(super) const CROSSED: u8 = 0x80;
}

/// In a window's scale: its end has not offered to scale windows.
const NO_SCALE: u8 = 15;
/// The most that a SYN can carry (TCP Fast Open, RFC 7413) or announce: windows in it are not scaled.
const UNSCALED: u32 = 0xffff;

/// A connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tcp {
    state: State,
    flags: u8,
    /// 12 bits of the number of the initiator's SYN: enough to tell a late copy of it from another.
    syn: u16,
    windows: [Window; 2],
}

impl Tcp {
    /// The connection that a segment of no known one opens, sent by its initiator. A segment from the middle may well
    /// come from the responder, which nobody can tell.
    ///
    /// # Errors
    /// [`DropReason::TcpInvalidState`] when the segment neither asks for a connection nor may be picked up: only data
    /// and acknowledgements may, not what answers a SYN or ends a connection.
    pub fn open(segment: &Segment, settings: &Settings) -> Result<Self, DropReason> {
        match segment.kind {
            Kind::Syn => Ok(Self::asked(segment)),
            Kind::Ack if settings.pick_up => Ok(Self::picked_up(segment)),
            Kind::Ack | Kind::SynAck | Kind::Fin | Kind::Rst | Kind::RstAck => {
                Err(DropReason::TcpInvalidState)
            }
        }
    }

    /// Takes a segment of the connection, sent by `side`. Whatever it changes is in `self`: on `Ok`, `self` is to be
    /// kept, even when the change is [`Change::None`].
    ///
    /// # Errors
    /// [`DropReason::TcpInvalidState`], [`DropReason::TcpOutOfWindow`]; nothing has changed then.
    #[inline]
    pub fn track(&mut self, side: Side, segment: &Segment) -> Result<Change, DropReason> {
        if self.state == State::Established && segment.kind == Kind::Ack {
            self.check(side, segment)?;
            self.learn(side, segment);
            return Ok(Change::None);
        }
        self.step(side, segment)
    }

    /// The same connection with its ends named the other way round: for one that was picked up at its responder.
    pub const fn reversed(self) -> Self {
        let [one, other] = self.windows;
        Self { windows: [other, one], ..self }
    }

    /// How far the connection is.
    #[inline]
    pub const fn state(&self) -> State {
        self.state
    }

    /// Which timeout counts.
    #[inline]
    pub const fn class(&self) -> Class {
        self.state.class()
    }

    /// Whether, of a connection just opened, the beginning was not seen: either end may have been the one that began it.
    #[inline]
    pub const fn was_picked_up(&self) -> bool {
        self.flags & flag::PARTLY_SEEN != 0
    }

    /// What the ends have sent and may send: the initiator's, the responder's.
    pub const fn windows(&self) -> &[Window; 2] {
        &self.windows
    }

    /// Whether a segment with this sequence number, from `side`, may still be under way: for packets that ICMP errors
    /// quote (RFC 5927, section 4.1).
    #[inline]
    pub fn has_sent(&self, side: Side, seq: u32) -> bool {
        let (sender, receiver) = (self.window(side), self.window(side.other()));
        within(seq, sender.end.wrapping_sub(receiver.max_win.max(UNSCALED)), sender.end)
    }

    /// The connection in a few words, for [`Tcp::from_words`].
    #[inline]
    pub const fn to_words(&self) -> ([u64; 3], u32) {
        let [one, other] = &self.windows;
        let words =
            [pair(one.end, one.max_end), pair(other.end, other.max_end), pair(one.max_win, other.max_win)];
        let rest = [
            nibbles(self.state as u8, self.syn),
            self.flags,
            nibbles(one.scale, self.syn >> 4),
            nibbles(other.scale, self.syn >> 8),
        ];
        (words, u32::from_le_bytes(rest))
    }

    /// The connection that became these words. Any words make one, if not one that ever was.
    #[inline]
    pub const fn from_words(words: [u64; 3], rest: u32) -> Self {
        let [state, flags, one, other] = rest.to_le_bytes();
        let [[end, max_end], [other_end, other_max_end], [max_win, other_max_win]] =
            [halves(words[0]), halves(words[1]), halves(words[2])];
        Self {
            state: State::from_number(state & 0xf),
            flags,
            syn: (state >> 4) as u16 | ((one >> 4) as u16) << 4 | ((other >> 4) as u16) << 8,
            windows: [
                Window { end, max_end, max_win, scale: one & 0xf },
                Window { end: other_end, max_end: other_max_end, max_win: other_max_win, scale: other & 0xf },
            ],
        }
    }

    #[inline]
    const fn window(&self, side: Side) -> &Window {
        &self.windows[side.index()]
    }

    #[inline]
    const fn window_mut(&mut self, side: Side) -> &mut Window {
        &mut self.windows[side.index()]
    }
}

#[inline]
const fn pair(low: u32, high: u32) -> u64 {
    low as u64 | (high as u64) << 32
}

/// Four bits of each.
#[inline]
const fn nibbles(low: u8, high: u16) -> u8 {
    low & 0xf | ((high & 0xf) as u8) << 4
}

#[inline]
const fn halves(word: u64) -> [u32; 2] {
    [word as u32, (word >> 32) as u32]
}
