//! What the agent of this machine is told: `up` and `agent` share it.

use std::net::IpAddr;
use std::path::Path;

use agent::{Config, Poll, Source, UnderlayConfig};
use clap::builder::{PossibleValuesParser, TypedValueParser};

use crate::directories::RunDir;
use crate::failure::Failure;

/// Most workers that are started when nobody says how many.
const MOST_WORKERS: usize = 4;
/// Largest CPU number: what the kernel's affinity masks hold.
const MAX_CPU: usize = 1023;

/// Most connections that can be tracked: what 24 bits number.
const MOST_FLOWS: i64 = (1 << 24) - 2;

/// The data plane of this machine.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Data plane")]
pub(crate) struct HostArgs {
    /// Name of this host, as workloads name it [default: the name it joined with, or this machine's host name]
    #[arg(long, value_name = "NAME", env = "PALISADE_HOST")]
    host: Option<String>,
    /// Worker threads [default: one for each of --cpus, else one for each CPU of this process, at most 4]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: Option<u16>,
    /// CPUs to pin workers to, such as 2,4-7 [default: not pinned]
    #[arg(long, value_name = "LIST", value_parser = cpus)]
    cpus: Option<Cpus>,
    /// How workers wait for frames: spin a while and then sleep, never sleep, or sleep at once
    #[arg(long, value_name = "MODE", default_value = "adaptive", value_parser = poll())]
    poll: Poll,
    /// Connections that are tracked in all; each takes about 160 bytes once it exists
    #[arg(long, value_name = "N", default_value_t = Config::MAX_FLOWS,
          value_parser = clap::value_parser!(u32).range(4096..=MOST_FLOWS))]
    max_flows: u32,
    /// Connections that one port may have begun [default: an eighth of --max-flows]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=MOST_FLOWS))]
    max_flows_per_port: Option<u32>,
    #[command(flatten)]
    underlay: UnderlayArgs,
    #[command(flatten)]
    run_dir: RunDir,
}

/// The network between hosts. It must be one that only trusted hosts send on: tunnels are not encrypted.
#[derive(Debug, Clone, clap::Args)]
struct UnderlayArgs {
    /// Addresses of this host that tunnels to other hosts begin and end at, the preferred one first [default: the address
    /// that packets to the manager leave from, if that is another host]
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',', env = "PALISADE_UNDERLAY")]
    underlay: Vec<IpAddr>,
    /// UDP port of GENEVE
    #[arg(long, value_name = "PORT", default_value_t = UnderlayConfig::default().port,
          value_parser = clap::value_parser!(u16).range(1..))]
    geneve_port: u16,
    /// Bytes of the largest IP packet between hosts [default: what the interface with the address takes]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u16).range(1280..))]
    underlay_mtu: Option<u16>,
}

impl UnderlayArgs {
    fn config(&self) -> UnderlayConfig {
        let Self { underlay, geneve_port, underlay_mtu } = self.clone();
        UnderlayConfig { addresses: underlay, port: geneve_port, mtu: underlay_mtu }
    }
}

/// A list of CPUs.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Cpus(Vec<usize>);

impl HostArgs {
    /// The host's name.
    pub(crate) fn name(&self) -> Result<String, Failure> {
        let (name, whence) = match &self.host {
            Some(name) => (name.clone(), "--host"),
            None => {
                let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
                let short = name.trim().split('.').next().unwrap_or_default().to_ascii_lowercase();
                (short, "this machine's host name")
            }
        };
        match mgmt_types::name::check(&name) {
            Ok(()) => Ok(name),
            Err(error) => Err(Failure::usage(format!(
                "{whence} {name:?} {error}\n  give a name with --host, such as --host host-a"
            ))),
        }
    }

    /// The host's name when it was given, else `known`.
    pub(crate) fn name_or(&self, known: &str) -> Result<String, Failure> {
        if self.host.is_none() { Ok(known.to_owned()) } else { self.name() }
    }

    /// All an agent needs.
    pub(crate) fn config(&self, host: String, state_dir: &Path, source: Source) -> Result<Config, Failure> {
        let cpus = self.cpus.as_ref().map(|cpus| cpus.0.clone()).unwrap_or_default();
        let workers = match self.workers {
            Some(workers) => usize::from(workers),
            None if !cpus.is_empty() => cpus.len(),
            None => std::thread::available_parallelism().map_or(1, |given| given.get().min(MOST_WORKERS)),
        };
        let (state_dir, run_dir) = (state_dir.to_owned(), self.run_dir.absolute()?);
        let max_flows = self.max_flows;
        let max_flows_per_port = self.max_flows_per_port.unwrap_or(max_flows / Config::PORTS_SHARE);
        let poll = self.poll;
        let underlay = self.underlay.config();
        Ok(Config {
            host,
            state_dir,
            run_dir,
            workers,
            cpus,
            poll,
            max_flows,
            max_flows_per_port,
            underlay,
            source,
        })
    }
}

fn poll() -> impl TypedValueParser<Value = Poll> {
    PossibleValuesParser::new(["adaptive", "always", "sleep"]).try_map(|word| word.parse::<Poll>())
}

/// Reads `2,4-7`.
fn cpus(text: &str) -> Result<Cpus, String> {
    let mut cpus = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| match text.trim().parse::<usize>() {
            Ok(number) if number <= MAX_CPU => Ok(number),
            _ => Err(format!("{part:?} is no CPU or range of CPUs from 0 to {MAX_CPU}, such as 2 or 4-7")),
        };
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return Err(format!("{part:?} runs backwards: expected {last}-{first}"));
        }
        cpus.extend(first..=last);
    }
    if let Some((index, cpu)) = cpus.iter().enumerate().find(|(index, cpu)| cpus[..*index].contains(cpu)) {
        return Err(format!("CPU {cpu} is named twice, the second time at place {}", index + 1));
    }
    Ok(Cpus(cpus))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_lists_are_numbers_and_ranges() {
        for (text, list) in [("1", vec![1]), ("1,2", vec![1, 2]), ("0,4-7, 9", vec![0, 4, 5, 6, 7, 9])] {
            assert_eq!(cpus(text), Ok(Cpus(list)));
        }
        for text in ["", ",", "a", "1-", "-1", "7-4", "1,1", "0-3,2", "99999", "0-99999999999"] {
            assert!(cpus(text).is_err(), "{text}");
        }
    }
}
