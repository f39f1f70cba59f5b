//! Side-by-side measurements of Palisade and its peers. docs/benchmarks.md tells the method.
#![expect(clippy::print_stdout, reason = "a command for people")]

mod generator;
mod hugepages;
mod interrupt;
mod noise;
mod process;

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Parser;

use crate::generator::{Generator, Load, Report};
use crate::hugepages::Hugepages;

/// Compares Palisade with its peers on this machine.
#[derive(Debug, Parser)]
#[command(version)]
enum Arguments {
    /// Only the load generator, against two vhost-user sockets that something else serves
    Vgen(Vgen),
}

#[derive(Debug, clap::Args)]
struct Vgen {
    /// Socket of guest A (02:00:00:00:00:0a, 10.64.0.10)
    #[arg(long)]
    sock0: PathBuf,
    /// Socket of guest B (02:00:00:00:00:0b, 10.64.0.11)
    #[arg(long)]
    sock1: PathBuf,
    /// Bytes of a frame, without frame check sequence
    #[arg(long, default_value_t = 64)]
    size: u32,
    #[arg(long, default_value = "bidir", value_parser = ["bidir", "oneway"])]
    mode: String,
    /// Seconds of each window
    #[arg(long, default_value_t = 3.0)]
    secs: f64,
    /// Seconds before the first window
    #[arg(long, default_value_t = 1.0)]
    warm: f64,
    /// Windows, one after the other
    #[arg(long, default_value_t = 1)]
    windows: u32,
    /// Frames in flight in each direction
    #[arg(long, default_value_t = 256)]
    in_flight: u32,
    /// UDP port pairs
    #[arg(long, default_value_t = 1)]
    flows: u32,
    /// Listen on the sockets; the switch connects
    #[arg(long)]
    server: bool,
    /// Packed rings
    #[arg(long)]
    packed: bool,
}

fn main() -> Result<()> {
    interrupt::listen()?;
    match Arguments::parse() {
        Arguments::Vgen(arguments) => vgen(arguments),
    }
}

fn vgen(arguments: Vgen) -> Result<()> {
    let work = tempfile::Builder::new().prefix("palisade-bench-").tempdir()?;
    let generator = Generator::build()?;
    let pages = Hugepages::reserve(work.path(), 512)?;
    let load = Load {
        size: arguments.size,
        mode: arguments.mode,
        warm: arguments.warm,
        seconds: arguments.secs,
        samples: arguments.windows,
        window: arguments.in_flight,
        flows: arguments.flows,
        server: arguments.server,
        packed: arguments.packed,
    };
    let mut run = generator.start(work.path(), &pages, &[arguments.sock0, arguments.sock1], &load)?;
    run.warm_up()?;
    loop {
        match run.next(&[])? {
            Report::Window(w, noise) => println!(
                "{:.3} Mpps  {:.2} Gbit/s  (a→b {:.3}, b→a {:.3}, offered {:.3})  steal {:.1} %  wait {:.1} %",
                w.mpps, w.gbps, w.mpps_a_to_b, w.mpps_b_to_a, w.tx_mpps, noise.steal, noise.wait
            ),
            Report::Total(t) => {
                println!(
                    "sent {} received {} lost {:.4} %  bad {}  reordered {}  chatter {}",
                    t.tx,
                    t.rx,
                    100.0 * t.loss(),
                    t.bad,
                    t.reordered,
                    t.chatter
                );
                if t.bad > 0 {
                    bail!("{} frames arrived changed or at the wrong guest", t.bad);
                }
                return Ok(());
            }
        }
    }
}
