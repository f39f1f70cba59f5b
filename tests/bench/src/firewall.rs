//! `firewall`: two guests on one vhost-user switch that tracks their connections, one polling core.

use std::path::Path;

use anyhow::Result;

use crate::contest::{self, Contest, Party, WINDOW};
use crate::generator::Load;
use crate::open_vswitch::Tables;
use crate::options::Options;
use crate::rounds::{Better, Figure, Round, Row};
use crate::switch::Kind;

/// Flows that are used in turn, by case.
const FLOWS: [u64; 5] = [1, 1_000, 10_000, 100_000, 1_000_000];

/// The case of new connections.
const SETUP: &str = "setup";

/// The case whose growth in memory is put in a row of its own.
const MEMORY_FLOWS: u64 = 1_000_000;

/// Connections that everybody is given room for, and the most that a sample of `setup` begins.
const CAPACITY: u32 = 4_000_000;
const BUDGET: u64 = 3_500_000;

/// Addresses of guest A that the flows are spread over.
const ADDRESSES: u32 = 4;

/// Open vSwitch with connection tracking.
const OVS: &str = "ovs-ct";

/// All cases.
pub(crate) fn cases() -> Vec<String> {
    FLOWS.iter().map(|flows| format!("flows-{flows}")).chain([SETUP.to_owned()]).collect()
}

/// Measures the chosen cases and prints every sample as it is taken.
pub(crate) fn run(options: &Options, work: &Path) -> Result<Vec<Row>> {
    let contest = Contest::new(options, work, &[OVS])?;
    let mut rows = Vec::new();
    for case in options.chosen(cases())? {
        let flows = case.strip_prefix("flows-").map(str::parse).transpose()?;
        let load = load(options, flows);
        let (unit, parties) = (if flows.is_some() { "Mpps" } else { "M/s" }, contest.chosen(parties(&load)));
        if parties.is_empty() {
            continue;
        }
        let rounds = contest.rounds(&case, unit, &parties)?;
        rows.extend(contest::rows(&case, unit, Better::Higher, &parties, &rounds));
        if flows == Some(MEMORY_FLOWS) {
            rows.extend(contest::rows("memory", "B/flow", Better::Lower, &parties, &memory(&rounds)));
        }
    }
    Ok(rows)
}

/// `flows` in turn in both directions, or with `None` a new one with each frame.
fn load(options: &Options, flows: Option<u64>) -> Load {
    Load {
        size: 64,
        mode: if flows.is_some() { "bidir" } else { "newflow" }.to_owned(),
        // With many flows it lasts until all of them are established. New ones are counted from an empty table on.
        warm: if flows.is_some() { options.seconds(0.7, 0.3) } else { 0.1 },
        seconds: options.seconds(2.0, 1.0),
        samples: 1,
        window: WINDOW,
        flows: flows.unwrap_or(1),
        addresses: ADDRESSES,
        budget: flows.is_none().then_some(BUDGET),
        server: false,
        packed: false,
    }
}

fn parties(load: &Load) -> Vec<Party> {
    let flows = if load.budget.is_some() { u64::from(CAPACITY) } else { load.flows };
    let ovs = Kind::OpenVswitch(Tables::firewall(flows, CAPACITY));
    vec![Party { name: OVS, kind: ovs, load: load.clone() }]
}

/// The same rounds with what each connection cost in memory for a value.
fn memory(rounds: &[Round]) -> Vec<Round> {
    let cost =
        |figure: &Figure| Figure { value: figure.bytes_per_flow.unwrap_or(f64::NAN), ..figure.clone() };
    rounds.iter().map(|round| round.iter().map(cost).collect()).collect()
}
