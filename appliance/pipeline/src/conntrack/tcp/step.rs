//! What each act of the table does to a connection.

use super::segment::{Kind, MAX_SCALE, Segment};
use super::table::{Act, act};
use super::window::{MAX_WINDOW, Window, later, meant, wanted, within};
use super::{Change, NO_SCALE, Side, State, Tcp, UNSCALED, flag};
use crate::DropReason;

/// What is kept of a SYN's number.
const fn tag(seq: u32) -> u16 {
    (seq & 0xfff) as u16
}

type Outcome = Result<Change, DropReason>;

const OUT_OF_WINDOW: Outcome = Err(DropReason::TcpOutOfWindow);
const INVALID_STATE: Outcome = Err(DropReason::TcpInvalidState);

impl Tcp {
    /// The connection that a SYN asks for.
    ///
    /// Until the SYN of an end is acknowledged, [`Tcp::first`] of it holds.
    pub(super) fn asked(segment: &Segment) -> Self {
        let initiator = Window {
            end: segment.end(),
            max_end: segment.seq.wrapping_add(1),
            max_win: u32::from(segment.window),
            scale: segment.scale.unwrap_or(NO_SCALE),
        };
        let windows = [initiator, Window::default()];
        Self { state: State::SynSent, flags: 0, syn: tag(segment.seq), windows }
    }

    /// A connection of which this is the first segment seen: whatever could be, is.
    pub(super) fn picked_up(segment: &Segment) -> Self {
        let open = |end: u32| Window {
            end,
            max_end: end.wrapping_add(MAX_WINDOW),
            max_win: MAX_WINDOW,
            scale: MAX_SCALE,
        };
        let windows = [open(segment.end()), open(segment.ack)];
        Self { state: State::Established, flags: flag::PARTLY_SEEN | flag::OPENED, syn: 0, windows }
    }

    /// Everything but data and acknowledgements of an established connection.
    pub(super) fn step(&mut self, side: Side, segment: &Segment) -> Outcome {
        match act(self.state, side, segment.kind) {
            Act::Ask => {
                *self = Self::asked(segment);
                Ok(Change::None)
            }
            Act::Cross => Ok(self.cross(segment)),
            Act::Answer => self.answer(segment),
            Act::Agree => self.agree(side, segment),
            Act::Check => self.go_on(side, segment),
            Act::AskAgain => {
                if tag(segment.seq) != self.syn || self.flags & flag::PARTLY_SEEN != 0 {
                    self.flags |= flag::ASKED_AGAIN;
                }
                Ok(Change::None)
            }
            // As long as it repeats its SYN, it has sent nothing else.
            Act::AskBack if self.flags & flag::CROSSED != 0 && segment.end() == self.windows[1].end => {
                Ok(Change::None)
            }
            Act::AskBack | Act::Reopen => Ok(Change::Reopens),
            Act::AnswerAgain => self.answer_again(segment),
            Act::Challenge if segment.len == 0 => Ok(Change::None),
            Act::Challenge | Act::Refute => INVALID_STATE,
            Act::Withdraw => Ok(self.withdraw(segment)),
            Act::Refuse => self.refuse(segment),
            Act::Reset => self.reset(side, segment),
            Act::Revive => self.revive(side, segment),
        }
    }

    /// Whether a segment lies in the windows, and not behind its sender's FIN.
    #[inline]
    pub(super) fn check(&self, side: Side, segment: &Segment) -> Result<(), DropReason> {
        let (sender, receiver) = (self.window(side), self.window(side.other()));
        let end = segment.end();
        let sent = if self.flags & flag::PARTLY_SEEN == 0 { receiver.end } else { receiver.max_end };
        let has_ack = matches!(segment.kind, Kind::SynAck | Kind::Ack | Kind::Fin);
        if !wanted(sender, receiver, end) || (has_ack && !meant(sender, receiver, sent, segment.ack)) {
            return Err(DropReason::TcpOutOfWindow);
        }
        Ok(())
    }

    /// Takes from a segment that was checked what it says of the windows.
    #[inline]
    pub(super) fn learn(&mut self, side: Side, segment: &Segment) {
        let shift = match segment.kind {
            // RFC 7323, section 2.2: windows in a SYN are never scaled.
            Kind::Syn | Kind::SynAck => 0,
            Kind::Ack | Kind::Fin | Kind::Rst | Kind::RstAck => self.window(side).scale.min(MAX_SCALE),
        };
        let window = u32::from(segment.window) << shift;
        if segment.partial {
            self.flags |= flag::PARTLY_SEEN;
        }
        let sender = self.window_mut(side);
        sender.end = later(sender.end, segment.end());
        sender.max_win = sender.max_win.max(window);
        if segment.kind != Kind::Syn {
            let partly_seen = self.flags & flag::PARTLY_SEEN != 0;
            let receiver = self.window_mut(side.other());
            receiver.max_end = later(receiver.max_end, segment.ack.wrapping_add(window));
            if partly_seen {
                receiver.end = later(receiver.end, segment.ack);
            }
        }
    }

    /// The number behind the SYN of `side`: as long as it is not acknowledged, the peer's window begins there.
    fn first(&self, side: Side) -> u32 {
        self.window(side).max_end.wrapping_sub(self.window(side.other()).max_win)
    }

    /// A segment that must lie in the window: FIN and acknowledgements of FIN lead on.
    fn go_on(&mut self, side: Side, segment: &Segment) -> Outcome {
        self.check(side, segment)?;
        let end_was = self.window(side).end;
        let (closed, end) = (self.has(flag::FIN, side), segment.end());
        // Nothing lies behind a FIN, neither when it comes nor later.
        let behind = later(end_was, end) != end_was;
        if (closed && behind) || (segment.kind == Kind::Fin && later(end, end_was) != end) {
            return OUT_OF_WINDOW;
        }
        if segment.kind == Kind::Syn {
            // Both ends have asked, in whatever order that was seen.
            self.flags |= flag::CROSSED;
        }
        if matches!(segment.kind, Kind::Syn | Kind::Rst | Kind::RstAck) {
            return Ok(Change::None);
        }
        self.learn(side, segment);
        if segment.kind == Kind::Fin {
            self.set(flag::FIN, side);
        }
        if self.has(flag::FIN, side.other()) && segment.ack == self.window(side.other()).end {
            self.set(flag::FIN_ACKED, side.other());
        }
        Ok(self.settle())
    }

    /// The state that follows from who has sent FIN. Not before both have agreed, nor after a RST.
    fn settle(&mut self) -> Change {
        let was = self.state;
        if !matches!(
            was,
            State::Established
                | State::HalfClosedInitiator
                | State::HalfClosedResponder
                | State::Closing
                | State::TimeWait
        ) {
            return Change::None;
        }
        let both = |bit: u8| self.flags & (bit | bit << 1) == bit | bit << 1;
        self.state = match (self.has(flag::FIN, Side::Initiator), self.has(flag::FIN, Side::Responder)) {
            (false, false) => State::Established,
            (true, false) => State::HalfClosedInitiator,
            (false, true) => State::HalfClosedResponder,
            (true, true) if both(flag::FIN_ACKED) => State::TimeWait,
            (true, true) => State::Closing,
        };
        match self.state {
            state if state == was => Change::None,
            State::TimeWait => Change::Ended,
            _ => Change::State,
        }
    }

    fn has(&self, bit: u8, side: Side) -> bool {
        self.flags & bit << side.index() != 0
    }

    fn set(&mut self, bit: u8, side: Side) {
        self.flags |= bit << side.index();
    }

    /// The responder's SYN met the initiator's.
    fn cross(&mut self, segment: &Segment) -> Change {
        let first = self.first(Side::Initiator);
        let [initiator, responder] = &mut self.windows;
        *responder = Self::asked(segment).windows[0];
        responder.max_end = responder.max_end.wrapping_add(initiator.max_win);
        initiator.max_end = first.wrapping_add(responder.max_win);
        self.agree_on_scales();
        self.flags |= flag::CROSSED;
        self.state = State::SynCrossed;
        Change::State
    }

    /// RFC 7323, section 2.2: windows are scaled when both SYNs offer it.
    fn agree_on_scales(&mut self) {
        if self.windows.iter().any(|window| window.scale == NO_SCALE) {
            self.windows.iter_mut().for_each(|window| window.scale = 0);
        }
    }

    /// SYN and ACK of the responder: retransmitted, or with numbers that begin its windows.
    fn answer(&mut self, segment: &Segment) -> Outcome {
        let initiator = self.window(Side::Initiator).end;
        let oldest = match self.state {
            State::SynSent => self.first(Side::Initiator),
            _ if segment.seq.wrapping_add(1) == self.first(Side::Responder) => {
                return self.go_on(Side::Responder, segment);
            }
            _ => initiator.wrapping_sub(UNSCALED),
        };
        if !within(segment.ack, oldest, initiator) {
            return self.begin_again(segment);
        }
        self.begin(segment);
        let was = core::mem::replace(&mut self.state, State::SynReceived);
        Ok(if was == State::SynReceived { Change::None } else { Change::State })
    }

    /// Sets the windows as SYN and ACK of the responder give them.
    fn begin(&mut self, segment: &Segment) {
        let [initiator, responder] = &mut self.windows;
        *responder = Self::asked(segment).windows[0];
        responder.max_end = responder.max_end.wrapping_add(initiator.max_win);
        initiator.max_end = segment.ack.wrapping_add(responder.max_win);
        self.agree_on_scales();
    }

    /// The peer's SYN is acknowledged.
    fn agree(&mut self, side: Side, segment: &Segment) -> Outcome {
        let peer = side.other();
        if !within(segment.ack, self.first(peer), self.window(peer).end) {
            return OUT_OF_WINDOW;
        }
        let was = self.state;
        let next = match (was, side) {
            (State::SynCrossed, Side::Responder) => State::SynReceived,
            (State::SynCrossed, Side::Initiator) => State::SynReceivedBack,
            _ => State::Established,
        };
        self.state = next;
        if let Err(reason) = self.go_on(side, segment) {
            self.state = was;
            return Err(reason);
        }
        if next != State::Established {
            return Ok(Change::State);
        }
        self.flags |= flag::OPENED;
        Ok(Change::Established)
    }

    /// SYN and ACK of the responder into a connection under way.
    fn answer_again(&mut self, segment: &Segment) -> Outcome {
        let outcome = self.go_on(Side::Responder, segment);
        if outcome.is_ok() { outcome } else { self.begin_again(segment) }
    }

    /// SYN and ACK of the responder that do not fit: they begin another connection, if one was asked for.
    fn begin_again(&mut self, segment: &Segment) -> Outcome {
        if self.flags & flag::ASKED_AGAIN == 0 {
            return OUT_OF_WINDOW;
        }
        // The SYN that it answers was not kept: what it offered is taken to be the most.
        let asked = Window { end: segment.ack, max_end: 0, max_win: UNSCALED, scale: MAX_SCALE };
        let (was, syn) = (self.state, tag(segment.ack.wrapping_sub(1)));
        *self = Self { state: State::SynReceived, flags: 0, syn, windows: [asked, Window::default()] };
        self.begin(segment);
        Ok(if was == State::SynReceived { Change::None } else { Change::State })
    }

    /// RST of an initiator that has only asked.
    fn withdraw(&mut self, segment: &Segment) -> Change {
        if !within(segment.seq, self.first(Side::Initiator), self.window(Side::Initiator).end) {
            return Change::None;
        }
        self.state = State::ResetInitiator;
        Change::Ended
    }

    /// RST for a SYN.
    fn refuse(&mut self, segment: &Segment) -> Outcome {
        if !within(segment.ack, self.first(Side::Initiator), self.window(Side::Initiator).end) {
            return OUT_OF_WINDOW;
        }
        self.state = State::ResetResponder;
        Ok(Change::Ended)
    }

    fn reset(&mut self, side: Side, segment: &Segment) -> Outcome {
        let peer = side.other();
        let (sender, receiver) = (self.window(side), self.window(peer));
        // 3.10.7.1: who knows of no connection has no number to use, but acknowledges the SYN.
        let refuses = self.flags & flag::OPENED == 0
            && (segment.kind, segment.seq) == (Kind::RstAck, 0)
            && within(segment.ack, self.first(peer), receiver.end);
        // A RST may carry text for people, which lies in no window.
        if !refuses && !wanted(sender, receiver, segment.seq) {
            return OUT_OF_WINDOW;
        }
        self.state = State::reset_by(side);
        Ok(Change::Ended)
    }

    /// Data or acknowledgement from an end in whose name a RST came.
    fn revive(&mut self, side: Side, segment: &Segment) -> Outcome {
        let goes_on = segment.end() == later(self.window(side).end, segment.end());
        let _ = self.go_on(side, segment)?;
        if !goes_on || self.flags & flag::OPENED == 0 {
            return Ok(Change::None);
        }
        self.state = State::Established;
        // Over it may be all the same: both ends had closed it.
        Ok(if self.settle() == Change::Ended { Change::State } else { Change::Established })
    }
}
