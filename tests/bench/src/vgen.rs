//! `vgen`: the load generator alone.
#![expect(clippy::print_stdout, reason = "a command for people")]

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

use crate::core_distance;
use crate::generator::{Generator, Load, Report};
use crate::hugepages::Hugepages;
use crate::urgency::Urgency;

/// Huge pages of the generator, in MiB.
const HUGE_MIB: u64 = 512;

/// Options of `vgen`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Socket of guest A (02:00:00:00:00:0a, 10.64.0.16 and following)
    #[arg(long)]
    sock0: PathBuf,
    /// Socket of guest B (02:00:00:00:00:0b, 10.64.0.11)
    #[arg(long)]
    sock1: PathBuf,
    /// Bytes of a frame, without frame check sequence
    #[arg(long, default_value_t = 64)]
    size: u32,
    #[arg(long, default_value = "bidir", value_parser = ["bidir", "oneway", "newflow"])]
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
    /// 5-tuples, used in turn; `newflow` never uses one twice
    #[arg(long, default_value_t = 1)]
    flows: u64,
    /// Addresses of guest A that the flows are spread over, at most 64
    #[arg(long, default_value_t = 1)]
    addresses: u32,
    /// Frames to send in all
    #[arg(long, value_name = "N")]
    budget: Option<u64>,
    /// Listen on the sockets; the switch connects
    #[arg(long)]
    server: bool,
    /// Packed rings
    #[arg(long)]
    packed: bool,
    /// Take precedence over whatever else this machine does meanwhile (the switch has to see to itself)
    #[arg(long)]
    urgent: bool,
}

/// Prints each window as it ends, and the totals.
pub(crate) fn run(arguments: &Arguments, work: &Path) -> Result<()> {
    let generator = Generator::build()?;
    let _urgency = arguments.urgent.then(Urgency::take).transpose()?;
    let pages = Hugepages::reserve(work, HUGE_MIB)?;
    let load = Load {
        size: arguments.size,
        mode: arguments.mode.clone(),
        warm: arguments.warm,
        seconds: arguments.secs,
        samples: arguments.windows,
        window: arguments.in_flight,
        flows: arguments.flows,
        addresses: arguments.addresses,
        budget: arguments.budget,
        server: arguments.server,
        packed: arguments.packed,
    };
    let sockets = [arguments.sock0.clone(), arguments.sock1.clone()];
    let mut run = generator.start(work, &pages, &sockets, &load)?;
    run.links_up()?;
    println!("CPU 0 to CPU 1 and back: {:.0} ns", core_distance::measure()?);
    run.warm_up()?;
    loop {
        match run.next(&[])? {
            Report::Window(w, noise) => println!(
                "{:.3} Mpps  {:.2} Gbit/s  (a to b {:.3}, b to a {:.3}, sent {:.3}, held {:.0} %)  steal {:.1} %  wait {:.1} %  others {:.1} %",
                w.mpps,
                w.gbps,
                w.mpps_a_to_b,
                w.mpps_b_to_a,
                w.tx_mpps,
                100.0 * w.held,
                noise.steal,
                noise.wait.unwrap_or_default(),
                noise.others
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
                ensure!(t.bad == 0, "{} frames arrived changed or at the wrong guest", t.bad);
                return Ok(());
            }
        }
    }
}
