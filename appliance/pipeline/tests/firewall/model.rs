//! The table against one that looks at every flow whenever it is asked.

use std::collections::BTreeMap;

use pipeline::{Domain, Ending, Event, FlowRecord};
use proptest::prelude::*;

use crate::frames::{Path, v4, v6};
use crate::world::{Host, Sent, open, table};

/// A flow's ends: who of the pairs, which family, which port of the first and of the second guest.
type Name = (usize, bool, u16, u16);

const PAIRS: [(&str, &str); 3] = [("web", "app"), ("app", "db"), ("red", "rose")];
/// Milliseconds: unreplied, replied, stream.
const TIMEOUTS: [u64; 3] = [30_000, 120_000, 300_000];
const STATES: [&str; 3] = ["udp-unreplied", "udp-replied", "udp-stream"];
/// A flow on the wheel may stay for a tick, 1.024 s, after its time.
const TICK: u64 = 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Flow {
    /// Whether the second of the pair began it.
    backwards: bool,
    state: usize,
    packets: [u64; 2],
    last_seen: u64,
}

#[derive(Clone, Debug)]
enum Step {
    /// So many datagrams of neighbouring ports, and whether the second of the pair sends them.
    Send {
        pair: usize,
        v6: bool,
        port: u16,
        count: u16,
        back: bool,
    },
    Wait(u64),
    /// Every shard is looked at with this budget.
    Expire(usize),
}

fn steps() -> impl Strategy<Value = Step> {
    let send = (0..PAIRS.len(), any::<bool>(), 1000..1040_u16, 1..40_u16, any::<bool>())
        .prop_map(|(pair, v6, port, count, back)| Step::Send { pair, v6, port, count, back });
    let many = (0..PAIRS.len(), 1000..5000_u16, 300..600_u16, any::<bool>())
        .prop_map(|(pair, port, count, back)| Step::Send { pair, v6: false, port, count, back });
    prop_oneof![
        8 => send,
        2 => many,
        4 => (0..40_000_u64).prop_map(Step::Wait),
        1 => (0..1_000_000_u64).prop_map(Step::Wait),
        3 => Just(Step::Expire(usize::MAX)),
        1 => (0..20_usize).prop_map(Step::Expire),
    ]
}

struct Model {
    flows: BTreeMap<Name, Flow>,
    now: u64,
}

impl Model {
    /// Takes a packet; whether it begins a flow, after the end of another.
    fn send(&mut self, name: Name, back: bool) -> bool {
        let now = self.now;
        let live = |flow: &&mut Flow| now - flow.last_seen <= TIMEOUTS[flow.state];
        let Some(flow) = self.flows.get_mut(&name).filter(live) else {
            let flow = Flow { backwards: back, state: 0, packets: [1, 0], last_seen: now };
            self.flows.insert(name, flow);
            return true;
        };
        flow.last_seen = now;
        let answer = back != flow.backwards;
        flow.packets[usize::from(answer)] += 1;
        flow.state = match (flow.state, answer) {
            (0, true) => 1,
            (1, false) => 2,
            (state, _) => state,
        };
        false
    }
}

fn path(pair: usize, v6_: bool) -> Path {
    let (one, other) = PAIRS[pair];
    if v6_ { v6(one, other) } else { v4(one, other) }
}

/// The name of a record's flow, and the flow.
fn named(host: &Host, record: &FlowRecord) -> (Name, Flow) {
    let v6 = record.key.source.0.is_ipv6();
    let is = |pair: usize, back: bool| {
        let way = if back { path(pair, v6).back() } else { path(pair, v6) };
        let network = host.snapshot.port(host.index(PAIRS[pair].0)).network();
        (way.from, way.to, Domain::Network(network))
            == (record.key.source.0, record.key.destination.0, record.key.domain)
    };
    let places = (0..PAIRS.len()).flat_map(|pair| [(pair, false), (pair, true)]);
    let (pair, backwards) = places.into_iter().find(|(pair, back)| is(*pair, *back)).expect("a pair");
    let (source, destination) = (record.key.source.1, record.key.destination.1);
    let ports = if backwards { (destination, source) } else { (source, destination) };
    let state = STATES.iter().position(|state| *state == record.state).expect("a state");
    let last_seen = record.last_seen.as_nanos() / 1_000_000;
    ((pair, v6, ports.0, ports.1), Flow { backwards, state, packets: record.packets, last_seen })
}

fn check_all(host: &Host, model: &Model) -> Result<(), TestCaseError> {
    let mut shown = BTreeMap::new();
    for record in host.records() {
        let (name, flow) = named(host, &record);
        prop_assert!(shown.insert(name, flow).is_none(), "shown once");
    }
    prop_assert_eq!(&shown, &model.flows);
    prop_assert_eq!(host.flows.len(), model.flows.len());
    let begun = |name: &str| {
        let by = |(key, flow): &(&Name, &Flow)| {
            let (one, other) = PAIRS[key.0];
            name == if flow.backwards { other } else { one }
        };
        model.flows.iter().filter(by).count() as u32
    };
    for name in ["web", "app", "db", "red", "rose"] {
        prop_assert_eq!(host.begun_by(name), begun(name), "{}", name);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn every_flow_lives_as_long_as_it_should_and_ends_once(all in proptest::collection::vec(steps(), 1..60)) {
        // The smallest there is: buckets run over long before it is full.
        let mut host = Host::with(open(), table(4096, 100_000));
        let mut model = Model { flows: BTreeMap::new(), now: host.now.as_nanos() / 1_000_000 };
        for step in all {
            match step {
                Step::Wait(milliseconds) => {
                    host.wait(milliseconds);
                    model.now += milliseconds;
                }
                Step::Expire(budget) => {
                    let mut ended = Vec::new();
                    for _ in 0..64 {
                        host.flows.expire(host.now, budget, |record, why| ended.push((*record, why)));
                    }
                    for (record, why) in ended {
                        let (name, flow) = named(&host, &record);
                        prop_assert_eq!(why, Ending::TimedOut);
                        prop_assert!(model.now - flow.last_seen > TIMEOUTS[flow.state], "too early");
                        prop_assert_eq!(model.flows.remove(&name), Some(flow));
                    }
                    if budget == usize::MAX {
                        for flow in model.flows.values() {
                            let silent = model.now - flow.last_seen;
                            // One side that talks on queues again behind others that may have begun after its last word.
                            let slack = match (flow.state, flow.packets[0]) {
                                (0, 1) => 0,
                                (0, _) => TIMEOUTS[0],
                                _ => 2 * TICK,
                            };
                            prop_assert!(silent <= TIMEOUTS[flow.state] + slack, "too late: {:?}", flow);
                        }
                    }
                }
                Step::Send { pair, v6, port, count, back } => {
                    let (from, to) = if back { (PAIRS[pair].1, PAIRS[pair].0) } else { PAIRS[pair] };
                    for port in port..port + count {
                        let frame = if back { path(pair, v6).back().udp(9, port, b"") } else { path(pair, v6).udp(port, 9, b"") };
                        let verdict = host.burst(from, &mut [Sent::new(&frame)])[0];
                        let name = (pair, v6, port, 9);
                        let before = model.flows.get(&name).copied();
                        let mut begins = None;
                        for event in host.take_events() {
                            match event {
                                Event::FlowStarted(flow) => begins = Some(named(&host, &flow.record()).0),
                                Event::FlowEnded(record, Ending::TimedOut) => {
                                    prop_assert_eq!(before, Some(named(&host, &record).1), "its own");
                                }
                                // What shares a full bucket, or is the oldest in a full table.
                                Event::FlowEnded(record, Ending::Evicted) => {
                                    let (other, flow) = named(&host, &record);
                                    prop_assert_eq!(flow.state, 0, "nobody has answered");
                                    prop_assert_eq!(model.flows.remove(&other), Some(flow));
                                }
                                Event::Dropped(record) => prop_assert_eq!(record.reason.name(), "state-limit"),
                                other => prop_assert!(false, "{:?}", other),
                            }
                        }
                        if host.shown(verdict) == to {
                            prop_assert_eq!(model.send(name, back), begins.is_some());
                            prop_assert!(begins.is_none_or(|begun| begun == name));
                        } else {
                            prop_assert_eq!(host.shown(verdict), "drop state-limit");
                            prop_assert!(begins.is_none());
                            // Nothing but a table, or two buckets, full of what was answered.
                            prop_assert!(model.flows.len() > 500, "{}", model.flows.len());
                            model.flows.remove(&name);
                        }
                    }
                }
            }
            check_all(&host, &model)?;
        }
        // In the end all is as it was in the beginning.
        host.wait(TIMEOUTS[2] + 2 * TICK);
        let ended = host.expire();
        prop_assert_eq!(ended.len(), model.flows.len());
        model.flows.clear();
        check_all(&host, &model)?;
    }
}
