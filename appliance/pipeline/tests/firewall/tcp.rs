//! TCP connections through the whole pipeline.

use pipeline::policy::Action;
use pipeline::{Ending, Event};

use crate::frames::{Path, v4, v6};
use crate::world::{APP, Host, Sent, WEB, allow, open, policy, port, rule, table, three_tiers};

const PORTS: (u16, u16) = (4000, 80);
const BACK: (u16, u16) = (80, 4000);

/// A connection between `web` (whose first number is 1000) and `app` (5000).
fn connect(host: &mut Host, path: Path) {
    assert_eq!(host.send("web", &path.tcp(PORTS, "S", (1000, 0), b"")), "app");
    assert_eq!(host.send("app", &path.back().tcp(BACK, "SA", (5000, 1001), b"")), "web");
    assert_eq!(host.send("web", &path.tcp(PORTS, "A", (1001, 5001), b"")), "app");
    assert_eq!(host.record().state, "established");
}

#[test]
fn a_connection_is_followed_from_its_handshake_to_its_end() {
    for path in [v4("web", "app"), v6("web", "app")] {
        let mut host = Host::new(three_tiers());
        let back = path.back();
        for (from, frame, state) in [
            ("web", path.tcp(PORTS, "S", (1000, 0), b""), "syn-sent"),
            ("app", back.tcp(BACK, "SA", (5000, 1001), b""), "syn-received"),
            ("web", path.tcp(PORTS, "A", (1001, 5001), b""), "established"),
            ("web", path.tcp(PORTS, "PA", (1001, 5001), b"GET /"), "established"),
            ("app", back.tcp(BACK, "PA", (5001, 1006), b"200 OK"), "established"),
            ("web", path.tcp(PORTS, "FA", (1006, 5007), b""), "half-closed"),
            ("app", back.tcp(BACK, "A", (5007, 1007), b"more"), "half-closed"),
            ("app", back.tcp(BACK, "FA", (5011, 1007), b""), "closing"),
            ("web", path.tcp(PORTS, "A", (1007, 5012), b""), "time-wait"),
        ] {
            assert_eq!(host.send(from, &frame), if from == "web" { "app" } else { "web" }, "{state}");
            assert_eq!(host.record().state, state);
            host.wait(10);
        }
        assert_eq!(host.happened(), ["started syn-sent"]);
        host.wait(60_000);
        let ended = host.expire();
        assert_eq!(ended.len(), 1);
        let (record, why) = ended[0];
        assert_eq!((record.state, why), ("time-wait", Ending::Closed));
        assert_eq!(record.packets, [5, 4]);
        assert_eq!(record.last_seen.nanos_since(record.started), 80_000_000);
    }
}

#[test]
fn a_reset_ends_a_connection_and_an_attempt() {
    let path = v4("web", "app");
    let mut host = Host::new(three_tiers());
    connect(&mut host, path);
    assert_eq!(host.send("app", &path.back().tcp(BACK, "R", (5001, 0), b"")), "web");
    assert_eq!(host.record().state, "reset");
    let mut host = Host::new(three_tiers());
    assert_eq!(host.send("web", &path.tcp(PORTS, "S", (1000, 0), b"")), "app");
    assert_eq!(host.send("app", &path.back().tcp(BACK, "RA", (0, 1001), b"")), "web");
    assert_eq!(host.record().state, "reset");
    host.wait(11_000);
    assert_eq!(host.expire().len(), 1);
    assert!(host.flows.is_empty());
}

#[test]
fn what_no_peer_can_mean_is_dropped_and_changes_nothing() {
    let path = v4("web", "app");
    let mut host = Host::new(three_tiers());
    connect(&mut host, path);
    let before = host.record();
    for (what, flags, numbers, shown) in [
        ("data far ahead", "A", (1_000_000, 5001), "drop tcp-out-of-window"),
        ("data far behind", "A", (u32::MAX - 100_000, 5001), "drop tcp-out-of-window"),
        ("an acknowledgement of what was not sent", "A", (1001, 9999), "drop tcp-out-of-window"),
        ("a reset that is guessed", "R", (1_000_000, 0), "drop tcp-out-of-window"),
        ("an end that is guessed", "FA", (1_000_000, 5001), "drop tcp-out-of-window"),
        ("SYN and FIN", "SF", (1001, 5001), "drop tcp-bad-flags"),
        ("SYN and RST", "SR", (1001, 5001), "drop tcp-bad-flags"),
        ("FIN alone", "F", (1001, 5001), "drop tcp-bad-flags"),
        ("nothing", "", (1001, 5001), "drop tcp-bad-flags"),
        ("all", "SFRAPU", (1001, 5001), "drop tcp-bad-flags"),
    ] {
        assert_eq!(host.send("web", &path.tcp(PORTS, flags, numbers, b"x")), shown, "{what}");
        assert_eq!(host.record(), before, "{what}");
    }
    assert_eq!(host.send("web", &path.tcp(PORTS, "A", (1001, 5001), b"x")), "app");
    let mut other = Host::new(three_tiers());
    for (flags, shown) in [
        ("SA", "drop tcp-invalid-state"),
        ("FA", "drop tcp-invalid-state"),
        ("R", "drop tcp-invalid-state"),
        ("SF", "drop tcp-bad-flags"),
    ] {
        assert_eq!(other.send("web", &path.tcp(PORTS, flags, (1, 1), b"")), shown, "{flags} out of nothing");
    }
    assert!(other.flows.is_empty());
}

#[test]
fn a_connection_from_before_is_picked_up_whoever_speaks_first() {
    for path in [v4("web", "app"), v6("web", "app")] {
        for first in ["web", "app"] {
            let mut host = Host::new(three_tiers());
            let there = path.tcp(PORTS, "A", (70_001, 90_001), b"request");
            let back = path.back().tcp(BACK, "A", (90_001, 70_008), b"answer");
            let (one, other) = if first == "web" { (&there, &back) } else { (&back, &there) };
            let second = if first == "web" { "app" } else { "web" };
            assert_eq!(host.send(first, one), second);
            assert_eq!(host.send(second, other), first);
            let record = host.record();
            assert_eq!(record.key.destination.1, 80, "the one that may ask is the one that asked");
            assert_eq!((record.state, record.packets), ("established", [1, 1]));
            // From here on it is as good as any.
            let guess = path.tcp(PORTS, "R", (2_000_000_000, 0), b"");
            assert_eq!(host.send("web", &guess), "drop tcp-out-of-window");
            assert_eq!(host.send("web", &path.tcp(PORTS, "FA", (70_008, 90_007), b"")), "app");
            assert_eq!(host.record().state, "half-closed");
        }
    }
}

#[test]
fn who_may_not_ask_in_either_direction_is_not_picked_up() {
    let mut host = Host::new(three_tiers());
    let path = v4("web", "db");
    assert_eq!(host.send("web", &path.tcp((4000, 5432), "A", (1, 1), b"x")), "drop default-deny");
    assert_eq!(host.send("db", &path.back().tcp((5432, 4000), "A", (1, 1), b"x")), "drop default-deny");
    let mut strict = table(4096, 4096);
    strict.tcp.pick_up = false;
    let mut host = Host::with(open(), strict);
    let frame = v4("web", "app").tcp(PORTS, "A", (1, 1), b"x");
    assert_eq!(host.send("web", &frame), "drop tcp-invalid-state");
}

#[test]
fn a_syn_opens_anew_what_is_over() {
    let path = v4("web", "app");
    let mut host = Host::new(three_tiers());
    connect(&mut host, path);
    assert_eq!(host.send("web", &path.tcp(PORTS, "R", (1001, 0), b"")), "app");
    host.take_events();
    host.wait(1);
    assert_eq!(host.send("web", &path.tcp(PORTS, "S", (77_000, 0), b"")), "app");
    assert_eq!(host.happened(), ["ended closed reset", "started syn-sent"]);
    assert_eq!(host.record().packets, [1, 0], "another flow with its own counts");
    assert_eq!(host.begun_by("web"), 1);
}

/// The end that was asked may not ask by the same numbers, if it may not ask at all.
#[test]
fn a_syn_of_the_responder_is_judged_as_its_own_question() {
    let path = v4("web", "app");
    for over in [false, true] {
        let mut host = Host::new(three_tiers());
        connect(&mut host, path);
        if over {
            assert_eq!(host.send("web", &path.tcp(PORTS, "R", (1001, 0), b"")), "app");
        }
        let asks = path.back().tcp(BACK, "S", (9000, 0), b"");
        assert_eq!(host.send("app", &asks), "drop default-deny", "{over}");
    }
}

/// Segments that the receiver's side will see: a frame to be cut counts as these.
#[test]
fn a_frame_to_be_cut_counts_as_its_segments() {
    let path = v4("web", "app");
    let mut host = Host::new(three_tiers());
    connect(&mut host, path);
    let frame = path.tcp(PORTS, "A", (1001, 5001), &[b'x'; 3000]);
    let mut sent = [Sent::new(&frame)];
    // virtio_net_hdr: NEEDS_CSUM, TCPv4, header length, segment size, checksum's start and offset.
    sent[0].net = [1, 1, 54, 0, 0xb4, 0x05, 34, 0, 16, 0, 0, 0];
    let verdict = host.burst("web", &mut sent)[0];
    assert_eq!(host.shown(verdict), "app");
    let record = host.record();
    let before = 2 * 54;
    assert_eq!(record.packets, [2 + 3, 1]);
    assert_eq!(record.bytes, [before + 3 * 54 + 3000, 54]);
    // It was tracked to its end.
    assert_eq!(host.send("app", &path.back().tcp(BACK, "A", (5001, 4001), b"")), "web");
    assert_eq!(host.send("app", &path.back().tcp(BACK, "A", (5001, 4002), b"")), "drop tcp-out-of-window");
}

#[test]
fn a_whole_connection_in_one_burst_is_followed_in_order() {
    let path = v4("web", "app");
    let mut host = Host::new(three_tiers());
    let frames: Vec<Vec<u8>> = [
        path.tcp(PORTS, "A", (9, 9), b"picked up"),
        path.tcp((4001, 80), "S", (1000, 0), b""),
        path.tcp((4001, 80), "S", (1000, 0), b""),
        path.tcp((4001, 80), "A", (1001, 5001), b"too early"),
        path.tcp((4002, 80), "S", (1000, 0), b""),
        path.tcp((4002, 80), "R", (1001, 0), b""),
        path.tcp((4002, 80), "S", (3000, 0), b""),
        path.tcp((4003, 81), "S", (3000, 0), b""),
    ]
    .to_vec();
    assert_eq!(
        host.send_all("web", &frames),
        ["app", "app", "app", "drop tcp-invalid-state", "app", "app", "app", "drop default-deny"]
    );
    assert_eq!(
        host.happened(),
        [
            "started established",
            "started syn-sent",
            "started syn-sent",
            "ended closed reset",
            "started syn-sent"
        ]
    );
}

#[test]
fn a_connection_that_is_silent_for_too_long_is_another_afterwards() {
    let path = v4("web", "app");
    let mut host = Host::new(three_tiers());
    connect(&mut host, path);
    host.take_events();
    host.wait(7_439_000);
    let ack = path.tcp(PORTS, "A", (1001, 5001), b"");
    assert_eq!(host.send("web", &ack), "app");
    host.wait(7_441_000);
    assert_eq!(host.send("web", &ack), "app");
    assert_eq!(host.happened(), ["ended timed-out established", "started established"]);
}

#[test]
fn events_tell_each_flow_once() {
    let mut host = Host::new(vec![policy("p", vec![allow(1, WEB, APP, port(6, 80)), rule(2, Action::Drop)])]);
    let path = v4("web", "app");
    for source in 1..=100 {
        for _ in 0..3 {
            assert_eq!(host.send("web", &path.tcp((source, 80), "S", (1, 0), b"")), "app");
        }
    }
    let started = host.take_events();
    assert_eq!(started.len(), 100);
    assert!(started.iter().all(|event| matches!(event, Event::FlowStarted(_))));
    host.wait(241_000);
    assert_eq!(host.expire().len(), 100);
    assert_eq!(host.expire().len(), 0);
    assert_eq!((host.flows.len(), host.begun_by("web")), (0, 0));
}
