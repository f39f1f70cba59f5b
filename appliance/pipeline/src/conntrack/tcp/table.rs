//! Which segment does what in which state.

use super::{Kind, Side, State};

/// What is to be done with a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// It asks for the connection, the first time or anew.
    Ask,
    /// It asks from the other end.
    Cross,
    /// It answers the initiator's SYN: its numbers begin the responder's.
    Answer,
    /// It must acknowledge the peer's SYN, which agrees to the connection.
    Agree,
    /// It goes on if it lies in the window.
    Check,
    /// An initiator that lost the connection asks: its SYN goes on, and the responder's answer tells what is true.
    AskAgain,
    /// It repeats a SYN that crossed the initiator's, or begins another connection.
    AskBack,
    /// It answers a SYN that came into a connection under way, or repeats an answer.
    AnswerAgain,
    /// It tells an initiator that asks of an older connection: goes on without data.
    Challenge,
    /// The initiator takes its question back, or tells the responder that there is no older connection.
    Withdraw,
    /// The responder refuses.
    Refuse,
    /// It ends the connection if it lies in the window.
    Reset,
    /// It goes on if it lies in the window. Its sender reset the connection before: if that was not its RST, the
    /// connection lives.
    Revive,
    /// It begins another connection.
    Reopen,
    /// Nobody sends this now.
    Refute,
}

/// RFC 9293, section 3.10, seen from between the ends.
pub(super) const fn act(state: State, side: Side, kind: Kind) -> Act {
    use Kind::{Ack, Fin, Rst, RstAck, Syn, SynAck};
    use Side::{Initiator, Responder};
    use State::{
        Closing, Established, HalfClosedInitiator, HalfClosedResponder, ResetInitiator, ResetResponder,
        SynCrossed, SynReceived, SynReceivedBack, SynSent, TimeWait,
    };
    match (state, side, kind) {
        // A retransmission, or another attempt with another number.
        (SynSent, Initiator, Syn) => Act::Ask,
        // It knows nothing yet that it could acknowledge or close.
        (SynSent, Initiator, SynAck | Ack | Fin) => Act::Refute,
        // 3.5.1: what it answers to a challenge. Some also abort so.
        (SynSent, Initiator, Rst | RstAck) => Act::Withdraw,
        // 3.5, figure 7: simultaneous open.
        (SynSent, Responder, Syn) => Act::Cross,
        (SynSent, Responder, SynAck) => Act::Answer,
        // 3.5.1, figure 9: it still has the connection that the initiator lost.
        (SynSent, Responder, Ack) => Act::Challenge,
        (SynSent, Responder, Fin) => Act::Refute,
        // 3.10.7.3: without ACK it could answer anything.
        (SynSent, Responder, Rst) => Act::Refute,
        (SynSent, Responder, RstAck) => Act::Refuse,

        // Retransmissions of what crossed.
        (SynCrossed, Initiator | Responder, Syn) => Act::Check,
        // Each end answers the other's SYN, and may at once send or close.
        (SynCrossed, Initiator | Responder, SynAck | Ack | Fin) => Act::Agree,
        (SynCrossed, Initiator | Responder, Rst | RstAck) => Act::Reset,

        // A retransmission, or another attempt of an initiator that gave up the first.
        (SynReceived, Initiator, Syn) => Act::AskAgain,
        // SYN again where SYNs crossed.
        (SynReceived, Initiator, SynAck | Ack | Fin) => Act::Agree,
        // Delayed since the SYNs crossed.
        (SynReceived, Responder, Syn) => Act::Check,
        // A retransmission, or another number: SYN cookies change with time.
        (SynReceived, Responder, SynAck) => Act::Answer,
        // TCP Fast Open (RFC 7413): it sends before its SYN is acknowledged, and may even be done.
        (SynReceived, Responder, Ack | Fin) => Act::Check,
        (SynReceived, Initiator | Responder, Rst | RstAck) => Act::Reset,

        (SynReceivedBack, Initiator | Responder, Syn) => Act::Check,
        (SynReceivedBack, Responder, SynAck | Ack | Fin) => Act::Agree,
        // It has agreed: data, a repeated answer, or FIN.
        (SynReceivedBack, Initiator, SynAck | Ack | Fin) => Act::Check,
        (SynReceivedBack, Initiator | Responder, Rst | RstAck) => Act::Reset,

        // RFC 5961, section 4: the responder challenges it, wherever its number lies, if it knows the connection.
        (Established | HalfClosedInitiator | HalfClosedResponder | Closing, Initiator, Syn) => Act::AskAgain,
        // After a simultaneous open a retransmission. Whatever else it means, it asks in a direction that nobody judged.
        (Established | HalfClosedInitiator | HalfClosedResponder | Closing, Responder, Syn) => Act::AskBack,
        // Delayed since the beginning.
        (Established | HalfClosedInitiator | HalfClosedResponder | Closing, Initiator, SynAck) => Act::Check,
        // The same, or the responder has lost the connection too, and a new one begins.
        (Established | HalfClosedInitiator | HalfClosedResponder | Closing, Responder, SynAck) => {
            Act::AnswerAgain
        }
        (
            Established | HalfClosedInitiator | HalfClosedResponder | Closing,
            Initiator | Responder,
            Ack | Fin,
        ) => Act::Check,
        // RFC 5961, section 3.
        (
            Established | HalfClosedInitiator | HalfClosedResponder | Closing,
            Initiator | Responder,
            Rst | RstAck,
        ) => Act::Reset,

        // RFC 9293, 3.6.1 lets a SYN reopen what waits; the number it needs for that is the host's to check.
        (TimeWait | ResetInitiator | ResetResponder, Initiator | Responder, Syn) => Act::Reopen,
        // Retransmissions, and RSTs for them: nothing is left that they could end.
        (TimeWait, Initiator | Responder, SynAck | Ack | Fin | Rst | RstAck) => Act::Check,

        // A RST in the window need not be the one that its receiver acts on (RFC 5961), nor its sender's own.
        (ResetInitiator, Initiator, Ack | Fin) | (ResetResponder, Responder, Ack | Fin) => Act::Revive,
        // What was under way, and the answers to it.
        (ResetInitiator, Responder, Ack | Fin) | (ResetResponder, Initiator, Ack | Fin) => Act::Check,
        (ResetInitiator | ResetResponder, Initiator, SynAck) => Act::Check,
        // The RST was the responder's to the old connection, this its answer to the SYN that came into it.
        (ResetInitiator | ResetResponder, Responder, SynAck) => Act::AnswerAgain,
        (ResetInitiator | ResetResponder, Initiator | Responder, Rst | RstAck) => Act::Check,
    }
}
