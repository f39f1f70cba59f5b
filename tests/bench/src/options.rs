//! What every bench is asked.

use std::path::PathBuf;

use anyhow::{Result, ensure};

/// Options of every bench.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Write the results here
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Interleaved rounds that count [default: 5, with --quick 2]
    #[arg(long, value_name = "N")]
    samples: Option<usize>,
    /// Short windows: to see that it runs, not to make claims
    #[arg(long)]
    pub(crate) quick: bool,
    /// Take precedence over whatever else this machine does meanwhile
    #[arg(long)]
    pub(crate) urgent: bool,
    /// Only the cases with these names, or that contain one of these texts
    #[arg(long, value_delimiter = ',', value_name = "TEXT")]
    cases: Vec<String>,
    /// Only these peers
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    pub(crate) peers: Vec<String>,
    /// Measure the peers without Palisade
    #[arg(long, conflicts_with = "ours_only")]
    pub(crate) peers_only: bool,
    /// Measure Palisade without the peers
    #[arg(long)]
    pub(crate) ours_only: bool,
}

impl Options {
    /// Rounds that count.
    pub(crate) fn samples(&self) -> usize {
        self.samples.unwrap_or(if self.quick { 2 } else { 5 }).max(1)
    }

    /// Seconds of something, by thoroughness.
    pub(crate) fn seconds(&self, full: f64, quick: f64) -> f64 {
        if self.quick { quick } else { full }
    }

    /// Those of `all` that were asked for; an error when that is none.
    pub(crate) fn chosen(&self, all: Vec<String>) -> Result<Vec<String>> {
        let known = all.join(", ");
        let asked = |case: &String| {
            let meant = |text: &String| case == text || !all.contains(text) && case.contains(text.as_str());
            self.cases.is_empty() || self.cases.iter().any(meant)
        };
        let chosen: Vec<String> = all.iter().filter(|case| asked(case)).cloned().collect();
        ensure!(!chosen.is_empty(), "--cases {}: none of {known}", self.cases.join(","));
        Ok(chosen)
    }
}

/// Options of `tap`.
#[derive(Debug, clap::Args)]
pub(crate) struct TapOptions {
    #[command(flatten)]
    pub(crate) common: Options,
    /// Palisade's workers
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(crate) workers: u32,
    /// CPUs of Palisade's workers; the sender is on CPU 0, the receiver on CPU 1
    #[arg(long, default_value = "1", value_name = "LIST")]
    pub(crate) cpus: String,
}
