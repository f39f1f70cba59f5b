//! Several workers at one table.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use pipeline::{
    Ending, Event, FlowKey, FlowTable, Frame, Instant, PortState, Snapshot, Verdict, Workspace, from_port,
};

use crate::frames::{v4, v6};
use crate::world::{Config, Host, Sent, open, table};

const WORKERS: u64 = 4;
const ROUNDS: u64 = 150;

/// A worker of its own: what it keeps between bursts, and what it was told.
struct Worker<'a> {
    flows: &'a FlowTable,
    states: &'a [PortState],
    work: Workspace,
    started: Vec<FlowKey>,
    ended: Vec<(FlowKey, Ending)>,
    random: u64,
}

impl Worker<'_> {
    /// Some number below `below`: a linear congruential generator (Knuth, MMIX).
    fn pick(&mut self, below: u64) -> u64 {
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % below
    }

    /// A burst between two of the guests, of flows that others use at the same time.
    fn burst(&mut self, snapshot: &Snapshot, config: &Config, now: Instant) {
        let names = ["web", "app", "db"];
        let from = self.pick(3) as usize;
        let (from, to) = (names[from], names[(from + 1 + self.pick(2) as usize) % 3]);
        let mut sent: Vec<Sent> = (0..32).map(|_| Sent::new(&self.frame(from, to))).collect();
        let place = |name| config.guests.iter().position(|guest| guest.name == name).expect("a guest");
        let port = pipeline::PortIndex(place(from) as u32);
        let mut verdicts = vec![Verdict::Flood; sent.len()];
        let mut frames: Vec<Frame<'_>> = sent.iter_mut().map(Sent::frame).collect();
        let (flows, state) = (self.flows, &self.states[place(from)]);
        from_port(snapshot, flows, port, state, now, &mut frames, &mut verdicts, &mut self.work);
        for verdict in verdicts {
            match verdict {
                Verdict::Deliver(there) => assert_eq!(there.0 as usize, place(to)),
                Verdict::Drop(reason) => {
                    assert!(
                        ["tcp-invalid-state", "tcp-out-of-window", "state-limit"].contains(&reason.name())
                    );
                }
                other => panic!("{other:?}"),
            }
        }
        self.drain();
    }

    fn frame(&mut self, from: &str, to: &str) -> Vec<u8> {
        let path = if self.pick(4) == 0 { v6(from, to) } else { v4(from, to) };
        // The same ports for both directions: answers are as frequent as questions.
        let number = 1000 + self.pick(40) as u16;
        let flags = ["S", "SA", "A", "FA", "R"][self.pick(5) as usize];
        match self.pick(3) {
            0 => path.tcp((number, number), flags, (1000, 1001), b""),
            _ => path.udp(number, number, b"data"),
        }
    }

    fn drain(&mut self) {
        for event in self.work.report.drain() {
            match event {
                Event::FlowStarted(flow) => self.started.push(flow.record().key),
                Event::FlowEnded(record, why) => self.ended.push((record.key, why)),
                _ => {}
            }
        }
        assert_eq!(self.work.report.take_lost(), 0);
    }
}

/// A key without a direction.
fn ends(key: &FlowKey) -> FlowKey {
    let (source, destination) = (key.source.min(key.destination), key.source.max(key.destination));
    FlowKey { source, destination, ..*key }
}

#[test]
fn what_workers_do_at_once_leaves_the_table_whole() {
    let host = Host::with(open(), table(4096, 4096));
    let (one, other) = (host.snapshot, host.config.then(open()).snapshot());
    let (config, flows) = (host.config, host.flows);
    let states: Vec<PortState> = (0..config.guests.len()).map(|_| PortState::default()).collect();
    let clock = AtomicU64::new(1);
    let (started, ended) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for number in 0..WORKERS {
            let (flows, states, clock, config) = (&flows, &states[..], &clock, &config);
            let (one, other, started, ended) = (&one, &other, &started, &ended);
            scope.spawn(move || {
                let (work, random) = (Workspace::new(), number + 1);
                let mut worker = Worker { flows, states, work, started: vec![], ended: vec![], random };
                for round in 0..ROUNDS {
                    // Time jumps, so that flows end in between; snapshots alternate, so that flows are judged again.
                    let now = clock.fetch_add(1 + 7_000 * u64::from(round % 10 == 0), Ordering::Relaxed);
                    let now = Instant::from_nanos(now * 1_000_000);
                    worker.burst(if round / 20 % 2 == 0 { one } else { other }, config, now);
                    flows.expire(now, 50, |record, why| worker.ended.push((record.key, why)));
                    if round % 50 == 0 {
                        flows.for_each(now, |record| assert!(record.key.source.1 >= 1000));
                    }
                }
                started.lock().expect("no panic").extend(worker.started);
                ended.lock().expect("no panic").extend(worker.ended);
            });
        }
    });
    let now = Instant::from_nanos(clock.load(Ordering::Relaxed) * 1_000_000);
    let (started, mut ended) =
        (started.into_inner().expect("no panic"), ended.into_inner().expect("no panic"));
    let mut live = Vec::new();
    flows.for_each(now, |record| live.push(*record));
    assert_eq!(live.len(), flows.len(), "what is counted is shown");
    assert_eq!(started.len(), ended.len() + live.len(), "each that started has ended or lives");
    let keys: BTreeSet<FlowKey> = live.iter().map(|record| ends(&record.key)).collect();
    assert_eq!(keys.len(), live.len(), "one entry for both directions");
    let counted: u32 = (0..64).map(|slot| flows.of_port(slot)).sum();
    assert_eq!(counted as usize, live.len());

    // Each is found by its key: its next packet starts no other.
    let work = Workspace::new();
    let mut worker =
        Worker { flows: &flows, states: &states, work, started: vec![], ended: vec![], random: 9 };
    for record in live.iter().filter(|record| record.key.protocol == 17) {
        let guest = |address| {
            config.guests.iter().find(|guest| [false, true].map(|v6| guest.address(v6)).contains(&address))
        };
        let (from, to) =
            (guest(record.key.source.0).expect("one"), guest(record.key.destination.0).expect("one"));
        let path = crate::frames::between(*from, *to, record.key.source.0.is_ipv6());
        let mut sent = Sent::new(&path.udp(record.key.source.1, record.key.destination.1, b""));
        let place = config.guests.iter().position(|guest| guest == from).expect("a guest");
        let mut verdicts = [Verdict::Flood];
        let port = pipeline::PortIndex(place as u32);
        let frames = &mut [sent.frame()];
        from_port(&one, &flows, port, &states[place], now, frames, &mut verdicts, &mut worker.work);
        worker.drain();
        let timed_out = worker.ended.drain(..).filter(|(_, why)| *why == Ending::TimedOut).count();
        assert_eq!(worker.started.drain(..).count(), timed_out, "found, unless it was silent for too long");
    }

    // And nothing is left in the end.
    let late = Instant::from_nanos(now.as_nanos() + 8_000_000_000_000);
    let before = flows.len();
    for _ in 0..64 {
        flows.expire(late, usize::MAX, |record, why| ended.push((record.key, why)));
    }
    assert!(before > 0 && flows.is_empty());
    assert_eq!((0..64).map(|slot| flows.of_port(slot)).sum::<u32>(), 0);
}
