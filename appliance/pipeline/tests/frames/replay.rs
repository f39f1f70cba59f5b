//! The pipeline is a function of its arguments.

use std::collections::BTreeMap;

use pipeline::{Event, Instant, Snapshot, Verdict};

use crate::world::{Host, Sent, golden, guarded, port, world};

type Outcome = (Vec<(Verdict, Sent)>, BTreeMap<String, u64>, Vec<Event>);

/// The golden frames as a capture: bursts in file order, a millisecond apart.
fn replay(snapshot: &Snapshot, burst: usize) -> Outcome {
    let mut events = Vec::new();
    let mut host = Host::new();
    let mut all = Vec::new();
    let mut counters = BTreeMap::new();
    let cases = golden();
    for (number, cases) in cases.chunk_by(|one, other| one.sender == other.sender).enumerate() {
        for cases in cases.chunks(burst) {
            let sender = cases[0].sender;
            let now = Instant::from_nanos(number as u64 * 1_000_000);
            let mut sent: Vec<Sent> = cases.iter().map(|case| Sent::new(case.net, &case.frame)).collect();
            let mut verdicts = vec![Verdict::Flood; sent.len()];
            let mut frames: Vec<_> = sent.iter_mut().map(Sent::frame).collect();
            host.judge(snapshot, sender, now, &mut frames, &mut verdicts);
            events.extend(host.work.report.drain());
            for verdict in &verdicts {
                *counters.entry(format!("{sender:?} {verdict:?}")).or_default() += 1;
            }
            all.extend(verdicts.into_iter().zip(sent));
        }
    }
    (all, counters, events)
}

#[test]
fn a_capture_replayed_twice_gives_equal_bytes_counters_and_events() {
    assert_eq!(replay(world(), 64), replay(world(), 64));
    let (_, _, events) = replay(guarded(), 64);
    assert!(events.iter().filter(|event| matches!(event, Event::FlowStarted(_))).count() > 8);
    assert_eq!(replay(guarded(), 64), replay(guarded(), 64));
}

#[test]
fn frames_of_a_burst_do_not_touch_each_other() {
    let alone = replay(world(), 1);
    assert_eq!(replay(world(), 64), alone);
    assert_eq!(replay(world(), 7), alone);
}

#[test]
fn frames_without_room_for_a_verdict_are_left_alone() {
    let case = golden().iter().find(|case| case.verdict == "reply").unwrap();
    let mut sent = [Sent::new(case.net, &case.frame), Sent::new(case.net, &case.frame)];
    let untouched = sent[1].clone();
    let mut verdicts = [Verdict::Flood];
    let mut frames: Vec<_> = sent.iter_mut().map(Sent::frame).collect();
    Host::new().judge(world(), port("a"), Instant::default(), &mut frames, &mut verdicts);
    assert_eq!(verdicts, [Verdict::Reply]);
    assert_eq!(sent[1], untouched);
}
