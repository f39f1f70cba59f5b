//! Every state, sender and kind of segment, one by one.

use pipeline::DropReason;
use pipeline::conntrack::tcp::{Kind, Segment, Settings, State, Tcp};
use pipeline::conntrack::{Change, Side};

use Side::{Initiator, Responder};

/// What the ends' SYNs count as.
const FIRST: [u32; 2] = [1000, u32::MAX - 50];
/// How far from the truth a forged number is.
const FAR: u32 = 0x4000_0001;

fn opened() -> Tcp {
    let syn =
        Segment { kind: Kind::Syn, seq: FIRST[0], ack: 0, window: 8000, len: 0, scale: None, partial: false };
    Tcp::open(&syn, &Settings::default()).unwrap()
}

/// A segment of this kind that `side` may send now, if it may at all; `off` moves its numbers.
fn segment(tcp: &Tcp, side: Side, kind: Kind, off: u32) -> Segment {
    let mine = tcp.windows()[side.index()].end;
    let theirs = tcp.windows()[side.other().index()].end;
    let fresh = tcp.state() == State::SynSent && side == Responder;
    let repeats_fin = matches!(
        (tcp.state(), side),
        (State::HalfClosedInitiator, Initiator)
            | (State::HalfClosedResponder, Responder)
            | (State::Closing | State::TimeWait, _)
    );
    let (seq, ack) = match kind {
        Kind::Syn => (FIRST[side.index()], 0),
        Kind::SynAck => (FIRST[side.index()], FIRST[side.other().index()].wrapping_add(1)),
        Kind::Fin if repeats_fin => (mine.wrapping_sub(1), theirs),
        Kind::RstAck if fresh => (0, theirs),
        Kind::Ack | Kind::Fin | Kind::Rst | Kind::RstAck => (mine, theirs),
    };
    Segment {
        kind,
        seq: seq.wrapping_add(off),
        ack: ack.wrapping_add(off),
        window: 8000,
        len: 0,
        scale: None,
        partial: false,
    }
}

fn send(tcp: &mut Tcp, side: Side, kind: Kind, len: u32) -> Change {
    let segment = Segment { len, ..segment(tcp, side, kind, 0) };
    tcp.track(side, &segment).unwrap()
}

/// A connection in a state, on the way that most take there.
fn reached(state: State) -> Tcp {
    let mut tcp = opened();
    let steps: &[(Side, Kind)] = match state {
        State::SynSent => &[],
        State::SynCrossed => &[(Responder, Kind::Syn)],
        State::SynReceived => &[(Responder, Kind::SynAck)],
        State::SynReceivedBack => &[(Responder, Kind::Syn), (Initiator, Kind::SynAck)],
        _ => &[(Responder, Kind::SynAck), (Initiator, Kind::Ack)],
    };
    for (side, kind) in steps {
        let _ = send(&mut tcp, *side, *kind, 0);
    }
    if tcp.state() == State::Established {
        let _ = send(&mut tcp, Initiator, Kind::Ack, 100);
        let _ = send(&mut tcp, Responder, Kind::Ack, 200);
    }
    let end: &[(Side, Kind)] = match state {
        State::HalfClosedInitiator => &[(Initiator, Kind::Fin)],
        State::HalfClosedResponder => &[(Responder, Kind::Fin)],
        State::Closing => &[(Initiator, Kind::Fin), (Responder, Kind::Fin)],
        State::TimeWait => &[(Initiator, Kind::Fin), (Responder, Kind::Fin), (Initiator, Kind::Ack)],
        State::ResetInitiator => &[(Initiator, Kind::Rst)],
        State::ResetResponder => &[(Responder, Kind::Rst)],
        _ => &[],
    };
    for (side, kind) in end {
        let _ = send(&mut tcp, *side, *kind, 0);
    }
    assert_eq!(tcp.state(), state);
    tcp
}

/// Two letters for each state, in their order.
const SHORT: [&str; 11] = ["sn", "cr", "re", "rb", "es", "hi", "hr", "cl", "tw", "ri", "rr"];

/// What becomes of it: `.` it passes, two letters: it passes to that state, `+` another connection, `x` invalid in this
/// state, `w` out of window.
fn outcome(mut tcp: Tcp, side: Side, segment: &Segment) -> &'static str {
    let was = tcp;
    let result = tcp.track(side, segment);
    let stays = tcp.state() == was.state();
    match result {
        Ok(Change::Reopens) => {
            assert_eq!(tcp, was);
            "+"
        }
        Ok(change) => {
            assert_eq!(change == Change::None, stays);
            assert_eq!(
                change == Change::Ended,
                !stays && ["tw", "ri", "rr"].contains(&SHORT[tcp.state() as usize])
            );
            if stays { "." } else { SHORT[tcp.state() as usize] }
        }
        Err(reason) => {
            assert_eq!(tcp, was, "what is refused changes nothing");
            match reason {
                DropReason::TcpInvalidState => "x",
                DropReason::TcpOutOfWindow => "w",
                _ => panic!("{reason}"),
            }
        }
    }
}

/// A table of outcomes: of both senders, each kind in the order of [`Kind::ALL`].
fn walk(off: u32) -> String {
    let row = |state: State| {
        let tcp = reached(state);
        let half = |side: Side| {
            Kind::ALL
                .map(|kind| format!("{:2}", outcome(tcp, side, &segment(&tcp, side, kind, off))))
                .join(" ")
        };
        let row = format!("{} | {} | {}", SHORT[state as usize], half(Initiator), half(Responder));
        row.trim_end().to_string()
    };
    State::ALL.map(row).join("\n")
}

/// RFC 9293, section 3.10, seen from between the ends.
#[test]
fn every_segment_in_every_state_does_what_the_rfc_says() {
    let wanted = "\
sn | .  x  x  x  ri ri | cr re .  x  x  rr
cr | .  rb rb rb ri ri | .  re re re rr rr
re | .  es es hi ri ri | .  .  .  .  rr rr
rb | .  .  .  .  ri ri | .  es es hr rr rr
es | .  .  .  hi ri ri | +  .  .  hr rr rr
hi | .  .  .  .  ri ri | +  .  .  cl rr rr
hr | .  .  .  cl ri ri | +  .  .  .  rr rr
cl | .  .  tw tw ri ri | +  .  .  .  rr rr
tw | +  .  .  .  .  .  | +  .  .  .  .  .
ri | +  .  es hi .  .  | +  .  .  .  .  .
rr | +  .  .  .  .  .  | +  .  es hr .  .";
    assert_eq!(walk(0), wanted, "\n{}", walk(0));
}

/// Only SYNs, what answers them in the dark, and RSTs that a challenge calls for may have numbers from elsewhere.
#[test]
fn segments_from_elsewhere_pass_in_no_state_but_where_their_receiver_needs_them() {
    let wanted = "\
sn | .  x  x  x  .  .  | cr w  .  x  x  w
cr | w  w  w  w  w  w  | w  w  w  w  w  w
re | .  w  w  w  w  w  | w  w  w  w  w  w
rb | w  w  w  w  w  w  | w  w  w  w  w  w
es | .  w  w  w  w  w  | +  w  w  w  w  w
hi | .  w  w  w  w  w  | +  w  w  w  w  w
hr | .  w  w  w  w  w  | +  w  w  w  w  w
cl | .  w  w  w  w  w  | +  w  w  w  w  w
tw | +  w  w  w  w  w  | +  w  w  w  w  w
ri | +  w  w  w  w  w  | +  w  w  w  w  w
rr | +  w  w  w  w  w  | +  w  w  w  w  w";
    assert_eq!(walk(FAR), wanted, "\n{}", walk(FAR));
}

#[test]
fn a_connection_opens_with_a_syn_or_where_that_is_allowed_in_the_middle() {
    for kind in Kind::ALL {
        let segment = Segment { kind, seq: 7, ack: 9, window: 100, len: 0, scale: None, partial: false };
        let state = |pick_up| Tcp::open(&segment, &Settings { pick_up }).map(|tcp| tcp.state());
        let invalid = Err(DropReason::TcpInvalidState);
        match kind {
            Kind::Syn => assert_eq!([state(false), state(true)], [Ok(State::SynSent); 2]),
            Kind::Ack => assert_eq!([state(false), state(true)], [invalid, Ok(State::Established)]),
            _ => assert_eq!([state(false), state(true)], [invalid; 2]),
        }
    }
}

#[test]
fn a_refused_connection_never_counts_as_established() {
    for (side, kind) in [(Responder, Kind::RstAck), (Initiator, Kind::Rst)] {
        let mut tcp = opened();
        assert_eq!(send(&mut tcp, side, kind, 0), Change::Ended);
        let reset = tcp.state();
        for kind in [Kind::Ack, Kind::Fin, Kind::SynAck] {
            for side in [Initiator, Responder] {
                let segment = segment(&tcp, side, kind, 0);
                let _ = tcp.track(side, &segment);
                assert_eq!(tcp.state(), reset);
            }
        }
    }
}

#[test]
fn data_behind_a_fin_is_refused() {
    for side in [Initiator, Responder] {
        let mut tcp = reached(State::Established);
        let _ = send(&mut tcp, side, Kind::Fin, 0);
        let behind = Segment { len: 1, ..segment(&tcp, side, Kind::Ack, 0) };
        assert_eq!(tcp.track(side, &behind), Err(DropReason::TcpOutOfWindow));
        let before = Segment { seq: behind.seq.wrapping_sub(2), ..behind };
        assert_eq!(tcp.track(side, &before), Ok(Change::None), "a retransmission");
        assert_eq!(send(&mut tcp, side.other(), Kind::Ack, 50), Change::None, "the other end goes on");
    }
}

#[test]
fn a_fin_before_what_was_sent_is_refused() {
    let mut tcp = reached(State::Established);
    let fin = segment(&tcp, Initiator, Kind::Fin, 0);
    let early = Segment { seq: fin.seq.wrapping_sub(10), ..fin };
    assert_eq!(tcp.track(Initiator, &early), Err(DropReason::TcpOutOfWindow));
}

#[test]
fn a_syn_cookie_that_changed_is_followed() {
    let mut tcp = reached(State::SynReceived);
    let other = Segment { seq: 0x1234_5678, ..segment(&tcp, Responder, Kind::SynAck, 0) };
    assert_eq!(tcp.track(Responder, &other), Ok(Change::None));
    assert_eq!(send(&mut tcp, Initiator, Kind::Ack, 0), Change::Established);
    assert_eq!(tcp.windows()[1].end, 0x1234_5679);
}

#[test]
fn the_acknowledgement_of_another_syn_does_not_establish() {
    let mut tcp = reached(State::SynReceived);
    let ack = segment(&tcp, Initiator, Kind::Ack, 0);
    for ack in
        [Segment { ack: ack.ack.wrapping_sub(1), ..ack }, Segment { ack: ack.ack.wrapping_add(1), ..ack }]
    {
        assert_eq!(tcp.track(Initiator, &ack), Err(DropReason::TcpOutOfWindow));
    }
    assert_eq!(tcp.track(Initiator, &ack), Ok(Change::Established));
}

#[test]
fn a_challenge_carries_no_data() {
    let mut tcp = opened();
    let challenge = Segment { len: 1, ..segment(&tcp, Responder, Kind::Ack, 77) };
    assert_eq!(tcp.track(Responder, &challenge), Err(DropReason::TcpInvalidState));
}

/// The first attempt was given up, and the responder keeps nothing until it has an ACK: SYN cookies.
#[test]
fn another_attempt_is_answered_before_the_first_is_forgotten() {
    let mut tcp = reached(State::SynReceived);
    let answer = Segment { seq: 0x1234_5678, ..segment(&tcp, Responder, Kind::SynAck, FAR) };
    assert_eq!(tcp.track(Responder, &answer), Err(DropReason::TcpOutOfWindow));
    let again = segment(&tcp, Initiator, Kind::Syn, FAR);
    assert_eq!(tcp.track(Initiator, &again), Ok(Change::None));
    assert_eq!(tcp.track(Responder, &answer), Ok(Change::None));
    assert_eq!(send(&mut tcp, Initiator, Kind::Ack, 0), Change::Established);
}

#[test]
fn a_late_copy_of_the_syn_asks_for_nothing() {
    let mut tcp = reached(State::Established);
    assert_eq!(send(&mut tcp, Initiator, Kind::Syn, 0), Change::None);
    let answer = segment(&tcp, Responder, Kind::SynAck, FAR);
    assert_eq!(tcp.track(Responder, &answer), Err(DropReason::TcpOutOfWindow));
}

#[test]
fn a_syn_that_crossed_may_be_repeated_until_something_follows_it() {
    let mut tcp = opened();
    for (side, kind) in
        [(Responder, Kind::Syn), (Initiator, Kind::SynAck), (Responder, Kind::Ack), (Responder, Kind::Syn)]
    {
        assert_ne!(send(&mut tcp, side, kind, 0), Change::Reopens);
    }
    assert_eq!(send(&mut tcp, Responder, Kind::Ack, 1), Change::None);
    assert_eq!(send(&mut tcp, Responder, Kind::Syn, 0), Change::Reopens);
}

#[test]
fn an_answer_to_nobodys_question_does_not_replace_a_connection() {
    let mut tcp = reached(State::Established);
    let answer = segment(&tcp, Responder, Kind::SynAck, FAR);
    assert_eq!(tcp.track(Responder, &answer), Err(DropReason::TcpOutOfWindow));
    let again = segment(&tcp, Initiator, Kind::Syn, FAR);
    assert_eq!(tcp.track(Initiator, &again), Ok(Change::None));
    assert_eq!(tcp.track(Responder, &answer), Ok(Change::State), "now somebody has asked");
    assert_eq!(tcp.state(), State::SynReceived);
}

/// The responder's segment is the first that is seen, and its windows are the responder's ever after.
#[test]
fn a_connection_picked_up_at_its_responder_goes_on_when_its_ends_are_named_right() {
    let answer = Segment {
        kind: Kind::Ack,
        seq: 9_000,
        ack: 3_000_000_000,
        window: 100,
        len: 10,
        scale: None,
        partial: false,
    };
    let mut tcp = Tcp::open(&answer, &Settings::default()).unwrap().reversed();
    assert!(tcp.was_picked_up());
    let ack = Segment { seq: 3_000_000_000, ack: 9_010, len: 0, ..answer };
    assert_eq!(tcp.track(Initiator, &ack), Ok(Change::None));
    let more = Segment { seq: 9_010, ..answer };
    assert_eq!(tcp.track(Responder, &more), Ok(Change::None));
    assert_eq!(tcp.windows().map(|window| window.end), [3_000_000_000, 9_020]);
    assert_eq!(tcp.track(Initiator, &more), Err(DropReason::TcpOutOfWindow));
}

/// Only the first fragment of the segment is looked at: what lies in the others has been sent too.
#[test]
fn a_segment_in_fragments_is_acknowledged_as_a_whole() {
    let mut tcp = reached(State::Established);
    let beginning = Segment { len: 500, partial: true, ..segment(&tcp, Initiator, Kind::Ack, 0) };
    let whole = Segment { seq: FIRST[1].wrapping_add(201), ack: beginning.seq + 1460, len: 0, ..beginning };
    let mut without = tcp;
    assert_eq!(without.track(Initiator, &Segment { partial: false, ..beginning }), Ok(Change::None));
    assert_eq!(without.track(Responder, &whole), Err(DropReason::TcpOutOfWindow));
    assert_eq!(tcp.track(Initiator, &beginning), Ok(Change::None));
    assert_eq!(tcp.track(Responder, &Segment { partial: false, ..whole }), Ok(Change::None));
    assert_eq!(tcp.windows()[0].end, beginning.seq + 1460);
    let beyond = Segment { ack: beginning.seq + 9461, partial: false, ..whole };
    assert_eq!(tcp.track(Responder, &beyond), Err(DropReason::TcpOutOfWindow), "it was not allowed so much");
}

#[test]
fn a_quoted_packet_is_one_that_may_be_under_way() {
    let tcp = reached(State::Established);
    let [initiator, responder] = tcp.windows();
    assert!(tcp.has_sent(Initiator, initiator.end) && tcp.has_sent(Initiator, initiator.end - 100));
    assert!(tcp.has_sent(Responder, responder.end.wrapping_sub(200)));
    assert!(
        !tcp.has_sent(Initiator, initiator.end + 1)
            && !tcp.has_sent(Initiator, initiator.end.wrapping_sub(70_000))
    );
    assert!(opened().has_sent(Initiator, FIRST[0]), "a SYN may meet an error");
    assert!(!opened().has_sent(Initiator, FIRST[0] + FAR));
}
