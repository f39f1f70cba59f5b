//! `compile`: how long the firewall's rules take to compile, and to be asked.

mod linear_walk;
mod world;

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use pipeline::policy::{Direction, Endpoint, Policy, PolicyConfig, RulesConfig, Service};
use serde_json::{Map, Value, json};

use crate::noise::{Noise, Watch};
use crate::options::Options;
use crate::rounds::{self, Better, Figure, Row};
use linear_walk::{LinearWalk, Somebody};
use world::{Chance, Size};

const LARGE: Size = Size { rules: 10_000, groups: 2_000, workloads: 10_000 };

/// What compiling is held against.
const BUDGET: &str = "budget";
/// Milliseconds for 10,000 rules and 10,000 workloads, and also for one rule changed among them.
const WHOLE_BUDGET: f64 = 1000.0;
/// Milliseconds for one workload that changes its groups.
const CHANGE_BUDGET: f64 = 20.0;

/// What looking up is held against.
const WALK: &str = "linear-walk";
/// Workloads on this host; each question is about one of their ports.
const HERE: u64 = 200;
/// Questions asked over and over; many more than the caches hold endpoints.
const QUESTIONS: usize = 1 << 15;
/// Every so many of them, in 100, is about an address that nobody declared.
const OUTSIDERS: u64 = 20;

/// All cases.
pub(crate) fn cases() -> Vec<String> {
    ["compile-10k", "label-change", "rule-change", "lookup-100", "lookup-1000", "lookup-10000"]
        .map(String::from)
        .into()
}

/// Measures the chosen cases and prints every sample as it is taken.
pub(crate) fn run(options: &Options, machine: &mut Map<String, Value>) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for case in options.chosen(cases())? {
        rows.extend(match case.strip_prefix("lookup-") {
            Some(rules) => lookups(options, &case, rules.parse()?)?,
            None => compilations(options, &case, machine)?,
        });
    }
    Ok(rows)
}

/// Milliseconds of a compilation. Its budget takes the peer's turn.
fn compilations(options: &Options, case: &str, machine: &mut Map<String, Value>) -> Result<Vec<Row>> {
    let config = world::config(LARGE);
    let policy = Policy::compile(&config, None)?;
    let (rules, endpoints) = policy.size();
    machine.insert(
        "compiled".to_owned(),
        json!(format!(
            "{} rules {} KiB, {} endpoints {} KiB",
            policy.rules().len(),
            rules >> 10,
            policy.endpoint_count(),
            endpoints >> 10
        )),
    );
    let budget = if case == "label-change" { CHANGE_BUDGET } else { WHOLE_BUDGET };
    let mut chance = Chance(1);
    let (names, ours, peers) = parties(options, BUDGET);
    let measure = |party: usize| match names[party] {
        BUDGET => Ok(Figure::new(budget, Noise { steal: 0.0, wait: None, others: 0.0 })),
        _ => compiling(options, case, &config, &policy, &mut chance),
    };
    let told = |round, party: &str, figure: &Figure| crate::told(case, round, party, "ms", figure);
    let rounds = rounds::interleave(&names, options.samples(), measure, told)?;
    Ok(rounds::rows(case, "ms", Better::Lower, &rounds, ours, &peers))
}

fn compiling(
    options: &Options,
    case: &str,
    config: &PolicyConfig,
    policy: &Policy,
    chance: &mut Chance,
) -> Result<Figure> {
    let watch = Watch::start(&[])?;
    let (mut seconds, mut times) = (0.0, 0.0);
    while watch.seconds() < options.seconds(2.0, 0.5) {
        let mut next = config.clone();
        let mut previous = Some(policy);
        match case {
            "compile-10k" => previous = None,
            "label-change" => {
                // Rules that came anew must be compared; the workload leaves its identity for a new one.
                next.rules = Arc::new(RulesConfig::clone(&next.rules));
                let place = chance.below(u64::from(LARGE.workloads)) as usize;
                let id = LARGE.workloads + 1;
                let left =
                    std::mem::replace(&mut next.identities[place], world::identity(id, LARGE, chance)).id;
                let moved = next.endpoints.iter_mut().filter(|(identity, _)| *identity == left);
                moved.for_each(|(identity, _)| *identity = id);
            }
            _ => {
                let mut rules = RulesConfig::clone(&next.rules);
                let place = chance.below(rules.policies.len() as u64) as usize;
                rules.policies[place].rules.swap(0, 1);
                next.rules = Arc::new(rules);
            }
        }
        let start = Instant::now();
        let compiled = Policy::compile(&next, previous)?;
        seconds += start.elapsed().as_secs_f64();
        times += 1.0;
        ensure!(compiled.rules().len() == policy.rules().len(), "rules got lost");
    }
    Ok(Figure::new(1e3 * seconds / times, watch.stop()?))
}

/// One question to the firewall, as each party is asked it.
struct Question {
    direction: Direction,
    service: Service,
    endpoints: [Endpoint; 2],
    people: [usize; 2],
}

/// Nanoseconds of a lookup, by the compiled rules and by a walk over them.
fn lookups(options: &Options, case: &str, rules: usize) -> Result<Vec<Row>> {
    let config = world::config(Size { rules, ..LARGE });
    let policy = Policy::compile(&config, None)?;
    let walk = LinearWalk::new(&config);
    let (people, questions) = questions(&config, &policy)?;
    // Each party is asked what the other is, so they must agree.
    for Question { direction, service, endpoints: [local, remote], people: [here, there] } in
        questions.iter().take(QUESTIONS / 8)
    {
        let decision = policy.judge(*direction, *local, *remote, *service);
        let ours = (decision.rule.map(|rule| policy.rule(rule).id), decision.action);
        let theirs = walk.judge(*direction, &people[*here], &people[*there], *service);
        ensure!(ours == theirs, "{case}: {ours:?} is decided, the walk finds {theirs:?}");
    }
    let (names, ours, peers) = parties(options, WALK);
    let measure = |party: usize| match names[party] {
        WALK => asking(options, &questions, |question| {
            let [local, remote] = question.people;
            black_box(walk.judge(question.direction, &people[local], &people[remote], question.service));
        }),
        _ => asking(options, &questions, |question| {
            let [local, remote] = question.endpoints;
            black_box(policy.judge(question.direction, local, remote, question.service));
        }),
    };
    let told = |round, party: &str, figure: &Figure| crate::told(case, round, party, "ns", figure);
    let rounds = rounds::interleave(&names, options.samples(), measure, told)?;
    Ok(rounds::rows(case, "ns", Better::Lower, &rounds, ours, &peers))
}

fn asking(options: &Options, questions: &[Question], ask: impl Fn(&Question)) -> Result<Figure> {
    let watch = Watch::start(&[])?;
    let start = Instant::now();
    let mut asked = 0;
    while watch.seconds() < options.seconds(1.0, 0.3) {
        // A walk may take long: the clock is read often enough for it, and seldom enough for us.
        for question in questions.iter().cycle().skip(asked % QUESTIONS).take(QUESTIONS / 64) {
            ask(question);
        }
        asked += QUESTIONS / 64;
    }
    let value = start.elapsed().as_nanos() as f64 / asked as f64;
    Ok(Figure::new(value, watch.stop()?))
}

/// Random pairs of workloads and addresses outside.
fn questions(config: &PolicyConfig, policy: &Policy) -> Result<(Vec<Somebody>, Vec<Question>)> {
    let mut chance = Chance(3);
    let (mut people, mut endpoints) = (Vec::new(), Vec::new());
    for identity in &config.identities {
        let [address, _] = world::addresses(identity.id);
        people.push(Somebody::new(config, &identity.groups, address));
        endpoints.push(policy.endpoint(identity.id, Some(address)).context("a workload without endpoint")?);
    }
    let workloads = people.len() as u64;
    for _ in 0..workloads {
        let address = IpAddr::V4(Ipv4Addr::from_bits(chance.below(1 << 32) as u32));
        people.push(Somebody::new(config, &[], address));
        endpoints.push(policy.external(address));
    }
    let questions = (0..QUESTIONS).map(|_| {
        let outside = chance.below(100) < OUTSIDERS;
        let there = chance.below(workloads) + if outside { workloads } else { 0 };
        let pair = [chance.below(workloads.min(HERE)) as usize, there as usize];
        Question {
            direction: [Direction::In, Direction::Out][chance.below(2) as usize],
            service: world::service(&mut chance),
            endpoints: pair.map(|somebody| endpoints[somebody]),
            people: pair,
        }
    });
    let questions = questions.collect();
    Ok((people, questions))
}

/// Who takes part, and the places of Palisade and of the peer.
fn parties<'a>(options: &Options, peer: &'a str) -> (Vec<&'a str>, Option<usize>, Vec<(usize, &'a str)>) {
    let mut names = Vec::new();
    let ours = (!options.peers_only).then(|| {
        names.push("palisade");
        0
    });
    let asked = options.peers.is_empty() || options.peers.iter().any(|name| name == peer);
    let mut peers = Vec::new();
    if asked && !options.ours_only {
        peers.push((names.len(), peer));
        names.push(peer);
    }
    (names, ours, peers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_walk_and_the_compiled_rules_decide_alike() {
        let config = world::config(Size { rules: 1000, groups: 100, workloads: 50 });
        let policy = Policy::compile(&config, None).expect("a world without contradictions");
        let walk = LinearWalk::new(&config);
        let (people, questions) = questions(&config, &policy).expect("all workloads are endpoints");
        let mut rules = std::collections::BTreeSet::new();
        for Question { direction, service, endpoints: [local, remote], people: [here, there] } in questions {
            let decision = policy.judge(direction, local, remote, service);
            let ours = (decision.rule.map(|rule| policy.rule(rule).id), decision.action);
            assert_eq!(ours, walk.judge(direction, &people[here], &people[there], service));
            rules.insert(ours.0);
        }
        assert!(rules.len() > 100, "only {} rules were ever found", rules.len());
    }
}
