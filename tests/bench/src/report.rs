//! `report`: what `--json` wrote, as Markdown.
#![expect(clippy::print_stdout, reason = "a command for people")]

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::{Map, Value};

/// Options of `report`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Files written by --json
    #[arg(required = true)]
    files: Vec<PathBuf>,
}

#[derive(Deserialize)]
struct Report {
    bench: String,
    machine: Map<String, Value>,
    rows: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    case: String,
    ours: Option<f64>,
    peer: Option<String>,
    peer_value: Option<f64>,
    unit: String,
    ratio: Option<f64>,
    samples: Vec<Sample>,
}

#[derive(Deserialize)]
struct Sample {
    ratio: Option<f64>,
    noisy: bool,
}

/// Prints a table per file.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    for file in &arguments.files {
        println!("{}", read(file).with_context(|| file.display().to_string())?);
    }
    Ok(())
}

fn read(file: &Path) -> Result<String> {
    Ok(markdown(&serde_json::from_str(&std::fs::read_to_string(file)?)?))
}

fn markdown(report: &Report) -> String {
    let plain = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let machine = report.machine.iter().map(|(name, value)| format!("{name} {}", plain(value)));
    let machine = machine.collect::<Vec<_>>().join(", ");
    let mut text = format!(
        "`{}` on {machine}\n\n| case | Palisade | peer | its value | unit | ratio | of single rounds | disturbed rounds |\n\
         |---|---|---|---|---|---|---|---|\n",
        report.bench
    );
    for row in &report.rows {
        let number =
            |value: Option<f64>, digits: usize| value.map_or("-".to_owned(), |v| format!("{v:.digits$}"));
        let ratios = || row.samples.iter().filter_map(|sample| sample.ratio);
        let range =
            [ratios().reduce(f64::min), ratios().reduce(f64::max)].map(|ratio| number(ratio, 2)).join(" to ");
        let noisy = row.samples.iter().filter(|sample| sample.noisy).count();
        text.push_str(&format!(
            "| {} | {} | {} | {} | {} | {} | {range} | {noisy} of {} |\n",
            row.case,
            number(row.ours, 3),
            row.peer.as_deref().unwrap_or("-"),
            number(row.peer_value, 3),
            row.unit,
            number(row.ratio, 2),
            row.samples.len()
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_becomes_a_row_with_the_range_of_its_ratios() {
        let json = r#"{"bench": "tap", "machine": {"cores": 2}, "rows": [{"case": "tcp-1", "ours": 9.0,
            "peer": "bridge-nft", "peer_value": 10.0, "unit": "Gbit/s", "ratio": 0.9,
            "samples": [{"ratio": 0.8, "noisy": false}, {"ratio": 1.0, "noisy": true}]}]}"#;
        let text = markdown(&serde_json::from_str(json).expect("a valid report"));
        assert!(text.starts_with("`tap` on cores 2\n"), "{text}");
        let row = "| tcp-1 | 9.000 | bridge-nft | 10.000 | Gbit/s | 0.90 | 0.80 to 1.00 | 1 of 2 |\n";
        assert!(text.ends_with(row), "{text}");
    }
}
