//! Interleaved rounds and what is made of them: rows, a table, JSON.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::core_distance::same_placement;
use crate::cpu_time::CpuTime;
use crate::noise::Noise;

/// One figure of one party.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Figure {
    pub(crate) value: f64,
    /// Share of what was sent that did not arrive, for traffic that is not repeated when lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) loss: Option<f64>,
    /// Share of the sender's turns in which it had to wait for the path; near 0, the sender is the limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) held: Option<f64>,
    /// Connections tracked at the end, where that is asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tracked: Option<u64>,
    /// Bytes that the forwarding process grew by, for each of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bytes_per_flow: Option<f64>,
    /// Cycles of one worker for each frame, where they could be counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cycles: Option<f64>,
    /// Percent of one CPU by whom, where it was taken.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) cpu: BTreeMap<&'static str, CpuTime>,
    /// Nanoseconds for a cache line from CPU to CPU and back, before and after.
    pub(crate) hop_ns: [f64; 2],
    #[serde(flatten)]
    pub(crate) noise: Noise,
}

impl Figure {
    /// A value and what disturbed it; nothing else is known about it.
    pub(crate) fn new(value: f64, noise: Noise) -> Figure {
        Figure {
            value,
            loss: None,
            held: None,
            tracked: None,
            bytes_per_flow: None,
            cycles: None,
            cpu: BTreeMap::new(),
            hop_ns: [0.0; 2],
            noise,
        }
    }
}

/// One figure of every party, taken one after the other.
pub(crate) type Round = Vec<Figure>;

/// Runs rounds of `parties`, each beginning with another one, until `samples` quiet ones have been seen in one
/// placement of the CPUs; at most three times as many. A round in which anybody was disturbed, or in which the CPUs
/// were moved, is repeated for all, so that no party is judged by its own luck. Should too few be quiet, the least
/// disturbed ones are used.
pub(crate) fn interleave(
    parties: &[&str],
    samples: usize,
    mut measure: impl FnMut(usize) -> Result<Figure>,
    mut told: impl FnMut(usize, &str, &Figure),
) -> Result<Vec<Round>> {
    let mut rounds: Vec<Round> = Vec::new();
    for number in 0..3 * samples {
        let mut figures: Vec<Option<Figure>> = vec![None; parties.len()];
        for turn in 0..parties.len() {
            let party = (turn + number) % parties.len();
            let figure = measure(party)?;
            told(number, parties[party], &figure);
            figures[party] = Some(figure);
        }
        rounds.push(figures.into_iter().flatten().collect());
        if let Some(enough) = quiet_in_one_placement(&rounds, samples) {
            return Ok(enough);
        }
    }
    rounds.sort_by(|a, b| disturbance(a).total_cmp(&disturbance(b)));
    rounds.truncate(samples);
    Ok(rounds)
}

/// The quiet rounds that share a placement with one of them, once they are `samples`.
fn quiet_in_one_placement(rounds: &[Round], samples: usize) -> Option<Vec<Round>> {
    let quiet: Vec<&Round> = rounds.iter().filter(|round| !is_noisy(round)).collect();
    let alike = |first: &Round| -> Vec<Round> {
        quiet
            .iter()
            .filter(|other| same_placement(hops(first).chain(hops(other))))
            .map(|r| (*r).clone())
            .collect()
    };
    quiet.iter().map(|first| alike(first)).find(|rounds| rounds.len() >= samples)
}

fn hops(round: &Round) -> impl Iterator<Item = f64> + Clone {
    round.iter().flat_map(|figure| figure.hop_ns)
}

/// Below 1 when nobody was disturbed.
fn disturbance(round: &Round) -> f64 {
    let noise = round.iter().map(|figure| figure.noise.level()).fold(0.0, f64::max);
    if same_placement(hops(round)) { noise } else { 1.0 + noise }
}

fn is_noisy(round: &Round) -> bool {
    disturbance(round) >= 1.0
}

/// Palisade and one peer in one case.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    case: String,
    ours: Option<f64>,
    peer: Option<String>,
    peer_value: Option<f64>,
    unit: &'static str,
    ratio: Option<f64>,
    samples: Vec<Sample>,
}

#[derive(Debug, Serialize)]
struct Sample {
    ours: Option<Figure>,
    peer: Option<Figure>,
    ratio: Option<f64>,
    noisy: bool,
}

/// Which of two figures is the better one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Better {
    Higher,
    Lower,
}

/// One row per peer, or one without a peer when there is none. `ours` and `peers` are positions in each round.
/// The ratio is the median of the rounds' ratios: above 1, Palisade is better.
pub(crate) fn rows(
    case: &str,
    unit: &'static str,
    better: Better,
    rounds: &[Round],
    ours: Option<usize>,
    peers: &[(usize, &str)],
) -> Vec<Row> {
    let row = |peer: Option<(usize, &str)>| {
        let figure = |round: &Round, party: Option<usize>| party.map(|party| round[party].clone());
        let samples: Vec<Sample> = rounds
            .iter()
            .map(|round| {
                let (ours, peer) = (figure(round, ours), figure(round, peer.map(|(party, _)| party)));
                let ratio = ours.as_ref().zip(peer.as_ref()).map(|(ours, peer)| match better {
                    Better::Higher => ours.value / peer.value,
                    Better::Lower => peer.value / ours.value,
                });
                Sample { ours, peer, ratio, noisy: is_noisy(round) }
            })
            .collect();
        let of = |take: fn(&Sample) -> Option<f64>| median(samples.iter().filter_map(take).collect());
        Row {
            case: case.to_owned(),
            ours: of(|sample| Some(sample.ours.as_ref()?.value)),
            peer: peer.map(|(_, name)| name.to_owned()),
            peer_value: of(|sample| Some(sample.peer.as_ref()?.value)),
            unit,
            ratio: of(|sample| sample.ratio),
            samples,
        }
    };
    if peers.is_empty() { vec![row(None)] } else { peers.iter().map(|peer| row(Some(*peer))).collect() }
}

/// The rows for people: medians, the range of the ratios, the greatest loss, and how many rounds were disturbed.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut lines = vec![
        ["case", "palisade", "peer", "value", "unit", "ratio", "ratios", "loss", "noisy", "hop ns"]
            .map(String::from),
    ];
    for row in rows {
        let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.3}"));
        let ratios: Vec<f64> = row.samples.iter().filter_map(|sample| sample.ratio).collect();
        let range = match (ratios.iter().copied().reduce(f64::min), ratios.iter().copied().reduce(f64::max)) {
            (Some(least), Some(most)) => format!("{least:.2}–{most:.2}"),
            _ => "-".to_owned(),
        };
        let worst = |figure: fn(&Sample) -> &Option<Figure>| {
            let losses = row.samples.iter().filter_map(|sample| figure(sample).as_ref()?.loss);
            losses.reduce(f64::max).map_or_else(|| "-".to_owned(), |loss| format!("{:.2}%", 100.0 * loss))
        };
        lines.push([
            row.case.clone(),
            number(row.ours),
            row.peer.clone().unwrap_or_else(|| "-".to_owned()),
            number(row.peer_value),
            row.unit.to_owned(),
            row.ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}")),
            range,
            format!("{}/{}", worst(|sample| &sample.ours), worst(|sample| &sample.peer)),
            format!("{}/{}", row.samples.iter().filter(|sample| sample.noisy).count(), row.samples.len()),
            hop_range(row),
        ]);
    }
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..lines[0].len()).map(width).collect();
    let print = |line: &[String; 10]| {
        let cells = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    lines.iter().map(print).collect()
}

/// The range of distances of the CPUs in all samples of a row.
fn hop_range(row: &Row) -> String {
    let figures = row.samples.iter().flat_map(|sample| [&sample.ours, &sample.peer]).flatten();
    let hops: Vec<f64> = figures.flat_map(|figure| figure.hop_ns).collect();
    let (least, most) = hops.iter().fold((f64::INFINITY, 0.0_f64), |(l, m), hop| (l.min(*hop), m.max(*hop)));
    format!("{least:.0}–{most:.0}")
}

/// Where the CPU time of the last round went, in percent of one CPU, user and system; empty when it was not taken.
pub(crate) fn cpu_table(rows: &[Row]) -> String {
    let mut text = String::new();
    for row in rows {
        let Some(sample) = row.samples.last() else { continue };
        let peer = row.peer.as_deref().unwrap_or_default();
        for (party, figure) in [("palisade", &sample.ours), (peer, &sample.peer)] {
            let Some(figure) = figure.as_ref().filter(|figure| !figure.cpu.is_empty()) else { continue };
            let used =
                figure.cpu.iter().map(|(who, time)| format!("{who} {:.0}+{:.0}", time.user, time.system));
            let used = used.collect::<Vec<_>>().join("  ");
            text.push_str(&format!("{}  {party}  {used}\n", row.case));
        }
    }
    text
}

/// Writes `{"bench", "machine", "rows"}`.
pub(crate) fn write_json(file: &Path, bench: &str, machine: &Map<String, Value>, rows: &[Row]) -> Result<()> {
    let report = json!({ "bench": bench, "machine": machine, "rows": rows });
    std::fs::write(file, format!("{}\n", serde_json::to_string_pretty(&report)?))?;
    Ok(())
}

/// The middle value, or the mean of the two in the middle.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    Some(if values.len() % 2 == 1 { upper } else { (values[middle - 1] + upper) / 2.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(value: f64, steal: f64) -> Figure {
        let noise = Noise { steal, wait: None, others: 0.0 };
        Figure { loss: Some(0.0), hop_ns: [50.0; 2], ..Figure::new(value, noise) }
    }

    #[test]
    fn a_disturbed_round_is_repeated_for_every_party() {
        let mut taken = Vec::new();
        let rounds = interleave(
            &["palisade", "peer"],
            2,
            |party| {
                taken.push(party);
                // The second figure taken is disturbed.
                Ok(figure(taken.len() as f64, if taken.len() == 2 { 9.0 } else { 0.0 }))
            },
            |_, _, _| (),
        )
        .expect("measuring cannot fail");
        assert_eq!(taken, [0, 1, 1, 0, 0, 1]);
        assert_eq!(rounds.len(), 2);
        assert!(rounds.iter().all(|round| !is_noisy(round)));
        assert_eq!(rounds.iter().map(|round| round[0].value).collect::<Vec<_>>(), [4.0, 5.0]);
    }

    #[test]
    fn rounds_of_another_placement_of_the_cpus_do_not_count() {
        let mut taken = 0;
        let rounds = interleave(
            &["palisade", "peer"],
            2,
            |_| {
                taken += 1;
                // Near, near | far, far | the CPUs move between the parties | near, near
                let hop = [50.0, 52.0, 400.0, 390.0, 400.0, 50.0, 50.0, 49.0][taken - 1];
                Ok(Figure { hop_ns: [hop; 2], ..figure(taken as f64, 0.0) })
            },
            |_, _, _| (),
        )
        .expect("measuring cannot fail");
        assert_eq!(taken, 8);
        assert_eq!(rounds.iter().map(|round| round[0].hop_ns[0]).collect::<Vec<_>>(), [50.0, 49.0]);
    }

    #[test]
    fn without_quiet_rounds_the_quietest_are_kept_and_marked() {
        let mut count = 0.0;
        let rounds = interleave(
            &["peer"],
            1,
            |_| {
                count += 1.0;
                Ok(figure(count, 20.0 - count))
            },
            |_, _, _| (),
        )
        .expect("measuring cannot fail");
        assert_eq!(rounds.len(), 1);
        assert_eq!(rounds[0][0].value, 3.0, "the last and least disturbed of three");
        let rows = rows("64/bidir", "Mpps", Better::Higher, &rounds, None, &[(0, "peer")]);
        assert!(rows[0].samples[0].noisy);
        assert_eq!((rows[0].ours, rows[0].peer_value, rows[0].ratio), (None, Some(3.0), None));
    }

    #[test]
    fn the_ratio_is_the_median_of_the_rounds_and_above_one_when_palisade_is_better() {
        let rounds: Vec<Round> = [(2.0, 1.0), (6.0, 2.0), (1.0, 4.0)]
            .map(|(ours, peer)| vec![figure(ours, 0.0), figure(peer, 0.0)])
            .into();
        let rows = rows("case", "Mpps", Better::Higher, &rounds, Some(0), &[(1, "peer")]);
        assert_eq!((rows[0].ours, rows[0].peer_value, rows[0].ratio), (Some(2.0), Some(2.0), Some(2.0)));
    }

    #[test]
    fn where_less_is_better_the_ratio_is_turned_over() {
        let rounds = [vec![figure(200.0, 0.0), figure(500.0, 0.0)]];
        let rows = rows("memory", "B/flow", Better::Lower, &rounds, Some(0), &[(1, "peer")]);
        assert_eq!(rows[0].ratio, Some(2.5));
    }

    #[test]
    fn an_even_number_of_values_has_the_mean_of_the_middle_two() {
        assert_eq!(median(vec![4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(median(Vec::new()), None);
    }

    #[test]
    fn the_json_row_has_the_fields_that_readers_rely_on() {
        let rounds = [vec![figure(3.0, 0.0), figure(2.0, 0.0)]];
        let rows = rows("64/bidir", "Mpps", Better::Higher, &rounds, Some(0), &[(1, "dpdk-io")]);
        let value = serde_json::to_value(&rows[0]).expect("a row is plain data");
        let keys: Vec<&str> = value.as_object().expect("an object").keys().map(String::as_str).collect();
        let mut expected = ["case", "ours", "peer", "peer_value", "unit", "ratio", "samples"];
        expected.sort_unstable();
        let mut keys = keys;
        keys.sort_unstable();
        assert_eq!(keys, expected);
    }
}
