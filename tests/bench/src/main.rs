//! Side-by-side measurements of Palisade and its peers. docs/benchmarks.md tells the method.
#![expect(clippy::print_stdout, reason = "a command for people")]

mod compile;
mod contest;
mod core_distance;
mod cpu_time;
mod firewall;
mod generator;
mod guests;
mod hugepages;
mod interrupt;
mod iperf;
mod kernel_bridge;
mod machine;
mod manager;
mod namespace;
mod noise;
mod open_vswitch;
mod options;
mod overlay;
mod palisade;
mod process;
mod report;
mod rounds;
mod scaling;
mod switch;
mod tap;
mod urgency;
mod vgen;
mod vhost_l2;
mod vswitchd;

use std::fs::{File, TryLockError};

use anyhow::{Context, Result, bail};
use clap::{CommandFactory, Parser};

use crate::options::{Options, TapOptions};
use crate::rounds::Figure;
use crate::urgency::Urgency;

/// Compares Palisade with its peers on this machine.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Name every bench and its cases
    #[arg(long)]
    list: bool,
    #[command(subcommand)]
    bench: Option<Bench>,
}

#[derive(Debug, clap::Subcommand)]
enum Bench {
    /// Two guests on one vhost-user switch, against DPDK and Open vSwitch
    VhostL2(Options),
    /// Two guests on one vhost-user switch with a stateful firewall, against Open vSwitch
    Firewall(Options),
    /// The pipeline with its firewall on one worker, two and more, without rings
    Scaling(Options),
    /// Two namespaces through TAP ports, against a Linux bridge with a firewall
    Tap(TapOptions),
    /// Workloads of two hosts joined by a veth pair, against the kernel's VXLAN and Open vSwitch's GENEVE
    Overlay(Options),
    /// The firewall's rules: compiling them against a budget, asking them against a walk over them
    Compile(Options),
    /// A manager with 1,000 hosts that follow it: how soon changes arrive, how much memory it takes
    Manager(Options),
    /// Only the load generator, against two vhost-user sockets that something else serves
    Vgen(vgen::Arguments),
    /// Results written by --json as Markdown
    Report(report::Arguments),
}

fn main() -> Result<()> {
    interrupt::listen()?;
    let arguments = Arguments::parse();
    if arguments.list {
        println!("vhost-l2: {}", vhost_l2::cases().join(" "));
        println!("firewall: {}", firewall::cases().join(" "));
        println!("scaling: {}", scaling::cases().join(" "));
        println!("tap: {}", tap::cases().join(" "));
        println!("overlay: {}", overlay::cases().join(" "));
        println!("compile: {}", compile::cases().join(" "));
        println!("manager: {}", manager::cases().join(" "));
        return Ok(());
    }
    let Some(bench) = arguments.bench else {
        Arguments::command().print_help()?;
        bail!("no bench was named");
    };
    let work = tempfile::Builder::new().prefix("palisade-bench-").tempdir()?;
    let mut machine = machine::describe();
    let (name, options, rows) = match &bench {
        Bench::Report(arguments) => return report::run(arguments),
        Bench::Vgen(arguments) => return vgen::run(arguments, work.path()),
        Bench::VhostL2(options) => {
            let _alone = lock()?;
            let _urgency = options.urgent.then(Urgency::take).transpose()?;
            ("vhost-l2", options, vhost_l2::run(options, work.path())?)
        }
        Bench::Firewall(options) => {
            let _alone = lock()?;
            let _urgency = options.urgent.then(Urgency::take).transpose()?;
            ("firewall", options, firewall::run(options, work.path())?)
        }
        Bench::Overlay(options) => {
            let _alone = lock()?;
            let _urgency = options.urgent.then(Urgency::take).transpose()?;
            ("overlay", options, overlay::run(options, work.path(), &mut machine)?)
        }
        Bench::Compile(options) => {
            let _alone = lock()?;
            let _urgency = options.urgent.then(Urgency::take).transpose()?;
            ("compile", options, compile::run(options, &mut machine)?)
        }
        Bench::Manager(options) => {
            let _alone = lock()?;
            let _urgency = options.urgent.then(Urgency::take).transpose()?;
            ("manager", options, manager::run(options, work.path(), &mut machine)?)
        }
        Bench::Scaling(options) => {
            let _alone = lock()?;
            let _urgency = options.urgent.then(Urgency::take).transpose()?;
            ("scaling", options, scaling::run(options)?)
        }
        Bench::Tap(options) => {
            let _alone = lock()?;
            let _urgency = options.common.urgent.then(Urgency::take).transpose()?;
            ("tap", &options.common, tap::run(options, work.path(), &mut machine)?)
        }
    };
    println!("\n{}", rounds::table(&rows));
    let cpu = rounds::cpu_table(&rows);
    if !cpu.is_empty() {
        println!("CPU time of one round, percent of one CPU, user+system:\n{cpu}");
    }
    for (key, value) in &machine {
        println!("{key}: {}", value.as_str().map_or_else(|| value.to_string(), str::to_owned));
    }
    if let Some(file) = &options.json {
        rounds::write_json(file, name, &machine, &rows).with_context(|| file.display().to_string())?;
    }
    Ok(())
}

/// Two benches at once would measure each other.
fn lock() -> Result<File> {
    let path = std::env::temp_dir().join("palisade-bench.lock");
    let file = File::create(&path)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => bail!("another bench is running ({} is locked)", path.display()),
        Err(TryLockError::Error(error)) => Err(error.into()),
    }
}

/// Prints one sample as it is taken.
fn told(case: &str, round: usize, party: &str, unit: &str, figure: &Figure) {
    let Figure { value, loss, held, cycles, noise, hop_ns: [before, after], .. } = figure;
    let cycles = cycles.map_or_else(String::new, |cycles| format!("  {cycles:.0} cycles a frame"));
    let loss = loss.map_or_else(String::new, |loss| format!("  loss {:.3} %", 100.0 * loss));
    let held = held.map_or_else(String::new, |held| format!("  held {:.0} %", 100.0 * held));
    let wait = noise.wait.map_or_else(String::new, |wait| format!("  wait {wait:.1} %"));
    let quiet = if noise.is_low() { "" } else { "  NOISY" };
    println!(
        "{case} #{} {party:<10} {value:>8.3} {unit}{loss}{held}{cycles}  steal {:.1} %{wait}  others {:.1} %  hop {before:.0} {after:.0} ns{quiet}",
        round + 1,
        noise.steal,
        noise.others
    );
}
