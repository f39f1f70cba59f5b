//! `firewall`: two guests on one vhost-user switch that tracks their connections, one polling core.

use std::path::Path;

use anyhow::Result;

use crate::contest::{self, Contest, OURS, Party, WINDOW};
use crate::generator::Load;
use crate::guests::{Firewall, Guests};
use crate::open_vswitch::{Caches, Tables};
use crate::options::Options;
use crate::rounds::{Better, Figure, Round, Row};
use crate::switch::Kind;

/// Flows that are used in turn, by case.
const FLOWS: [u64; 5] = [1, 1_000, 10_000, 100_000, 1_000_000];

/// The case of new connections.
const SETUP: &str = "setup";

/// The cases of many rules: what is established, and what is new.
const MANY_RULES: &str = "rules-10000";
const MANY_RULES_SETUP: &str = "rules-10000-setup";

/// The case that follows from the one with most flows: what each costs in memory.
const MEMORY: &str = "memory";

/// Rules in all other cases.
const RULES: u32 = 100;

/// Flows in the cases of many rules.
const FLOWS_OF_MANY_RULES: u64 = 1_000;

/// Connections that everybody is given room for, and the most that a sample of new ones begins.
const CAPACITY: u32 = 4_000_000;
const BUDGET: u64 = 3_500_000;

/// Addresses of guest A that the flows are spread over.
const ADDRESSES: u32 = 4;

/// Open vSwitch with connection tracking: with its usual caches, and with the one that is off out of the box.
const OVS: &str = "ovs-ct";
const OVS_SIGNATURE: &str = "ovs-ct-smc";

/// Palisade otherwise: without its firewall, with one flow, with 100 rules.
const WITHOUT: &str = "palisade-l2";
const ONE_FLOW: &str = "palisade-1-flow";
const FEW_RULES: &str = "palisade-100-rules";

/// All cases.
pub(crate) fn cases() -> Vec<String> {
    let flows = FLOWS.iter().map(|flows| format!("flows-{flows}"));
    flows.chain([SETUP, MANY_RULES, MANY_RULES_SETUP].map(String::from)).collect()
}

/// Measures the chosen cases and prints every sample as it is taken.
pub(crate) fn run(options: &Options, work: &Path) -> Result<Vec<Row>> {
    let contest = Contest::new(options, work, &[OVS, OVS_SIGNATURE, WITHOUT, ONE_FLOW, FEW_RULES])?;
    let mut rows = Vec::new();
    for case in options.chosen(cases())? {
        let parties = contest.chosen(parties(&case, options)?);
        if parties.is_empty() {
            continue;
        }
        let unit = if parties[0].load.budget.is_some() { "M/s" } else { "Mpps" };
        let rounds = contest.rounds(&case, unit, &parties)?;
        rows.extend(contest::rows(&case, unit, Better::Higher, &parties, &rounds));
        if case == format!("flows-{}", FLOWS[FLOWS.len() - 1]) {
            let (parties, rounds) = tracking_all(&parties, &rounds);
            if !parties.is_empty() {
                rows.extend(contest::rows(MEMORY, "B/flow", Better::Lower, &parties, &rounds));
            }
        }
    }
    Ok(rows)
}

fn parties(case: &str, options: &Options) -> Result<Vec<Party>> {
    let palisade = |name, rules, load: Load| {
        let firewall = Firewall::Rules { count: rules, flows: CAPACITY };
        Party { name, kind: Kind::Palisade(Guests::of(&load, firewall)), load }
    };
    let ovs = |name, caches, load| Party {
        name,
        kind: Kind::OpenVswitch(Tables::firewall(caches, CAPACITY)),
        load,
    };
    let (established, new) = (|flows| established(options, flows), || new(options));
    Ok(match case {
        SETUP => vec![palisade(OURS, RULES, new()), ovs(OVS, Caches::None, new())],
        MANY_RULES => [(OURS, 10_000), (FEW_RULES, RULES)]
            .map(|(name, rules)| palisade(name, rules, established(FLOWS_OF_MANY_RULES)))
            .into(),
        MANY_RULES_SETUP => {
            [(OURS, 10_000), (FEW_RULES, RULES)].map(|(name, rules)| palisade(name, rules, new())).into()
        }
        _ => {
            let flows: u64 = case.trim_start_matches("flows-").parse()?;
            let caches = if flows < 100_000 { Caches::Exact } else { Caches::None };
            let mut parties =
                vec![palisade(OURS, RULES, established(flows)), ovs(OVS, caches, established(flows))];
            match flows {
                1 => parties.push(Party {
                    name: WITHOUT,
                    kind: Kind::Palisade(Guests::of(&established(1), Firewall::Off)),
                    load: established(1),
                }),
                10_000 | 100_000 => parties.push(ovs(OVS_SIGNATURE, Caches::Signature, established(flows))),
                1_000_000 => parties.push(palisade(ONE_FLOW, RULES, established(1))),
                _ => {}
            }
            parties
        }
    })
}

/// `flows` in turn, in both directions.
fn established(options: &Options, flows: u64) -> Load {
    Load {
        size: 64,
        mode: "bidir".to_owned(),
        // It lasts at least until all flows are established.
        warm: options.seconds(0.7, 0.3),
        seconds: options.seconds(2.0, 1.0),
        samples: 1,
        window: WINDOW,
        flows,
        addresses: ADDRESSES,
        budget: None,
        server: false,
        packed: false,
    }
}

/// A new flow with each frame, from an empty table on.
fn new(options: &Options) -> Load {
    Load { mode: "newflow".to_owned(), warm: 0.1, budget: Some(BUDGET), ..established(options, 1) }
}

/// The parties that tracked as many flows as most did, with what each flow cost in memory for a value. Nobody, when one of
/// them did not say how many it tracks.
fn tracking_all(parties: &[Party], rounds: &[Round]) -> (Vec<Party>, Vec<Round>) {
    let most = parties.iter().map(|party| party.load.flows).max();
    let counts = |party: &Party| Some(party.load.flows) == most;
    let of_round = |round: &Round| -> Option<Round> {
        let figures = parties.iter().zip(round).filter(|(party, _)| counts(party));
        figures.map(|(_, figure)| Some(Figure { value: figure.bytes_per_flow?, ..figure.clone() })).collect()
    };
    match rounds.iter().map(of_round).collect() {
        Some(rounds) => (parties.iter().filter(|party| counts(party)).cloned().collect(), rounds),
        None => (Vec::new(), Vec::new()),
    }
}
