//! TCP by iperf3 between two namespaces, and what everybody who takes part spends on it.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::cpu_time::Snapshot;
use crate::interrupt;
use crate::namespace::Namespace;
use crate::noise::Watch;
use crate::rounds::Figure;

/// Seconds of traffic before and after the window in which CPU time and noise are taken.
pub(crate) const MARGIN: f64 = 0.5;

/// One run.
#[derive(Debug)]
pub(crate) struct Iperf<'a> {
    /// Where the programs' output goes.
    pub(crate) work: &'a Path,
    /// CPU of the sender and of the receiver.
    pub(crate) cpus: [&'a str; 2],
    /// TCP port of the receiver.
    pub(crate) port: u16,
    /// Connections at once.
    pub(crate) streams: u32,
    /// Seconds of the window.
    pub(crate) seconds: f64,
}

impl Iperf<'_> {
    /// From `a` to `b` at its address: 10^9 bits of payload a second at the receiver, and the CPU time of both programs
    /// and of `others`.
    pub(crate) fn between(
        &self,
        a: &Namespace,
        (b, address): (&Namespace, &str),
        others: &[(&'static str, u32)],
    ) -> Result<Figure> {
        #[derive(Deserialize)]
        struct Said {
            end: Option<End>,
            error: Option<String>,
        }
        #[derive(Deserialize)]
        struct End {
            sum_received: Sum,
        }
        #[derive(Deserialize)]
        struct Sum {
            bits_per_second: f64,
        }
        let (port, streams) = (self.port.to_string(), self.streams.to_string());
        let listen = ["iperf3", "--server", "--one-off", "--forceflush", "--port", &port];
        let mut receiver = b.start("receiver", self.work, self.cpus[1], &listen)?;
        receiver.line_with("listening", Duration::from_secs(5))?;
        // The first second, in which TCP finds its speed, does not count.
        let time = (self.seconds + 2.0 * MARGIN).ceil().to_string();
        let argv = [
            &["iperf3", "--client", address, "--port", &port, "--parallel", &streams, "--json"][..],
            &["--omit", "1", "--time", &time],
        ]
        .concat();
        let mut sender = a.start("sender", self.work, self.cpus[0], &argv)?;
        interrupt::pause(Duration::from_secs(1))?;
        let programs = [("sender", sender.id()), ("receiver", receiver.id())];
        let mut figure = window(self.seconds, &[&programs[..], others].concat())?;
        let said = sender.rest(Duration::from_secs(15))?;
        let result: Said = serde_json::from_str(&said).with_context(|| format!("iperf3 said {said:?}"))?;
        if let Some(error) = result.error {
            bail!("iperf3: {error}");
        }
        figure.value = result.end.context("iperf3 gave no result")?.sum_received.bits_per_second / 1e9;
        ensure!(figure.value > 0.0, "nothing arrived");
        Ok(figure)
    }
}

/// Noise and CPU time while the processes `named` run, in the middle of their traffic. There are more busy threads than
/// CPUs, so waiting for a CPU is part of what is measured, and not noise.
pub(crate) fn window(seconds: f64, named: &[(&'static str, u32)]) -> Result<Figure> {
    interrupt::pause(Duration::from_secs_f64(MARGIN))?;
    let watch = Watch::start(&[])?;
    let before = Snapshot::take();
    interrupt::pause(Duration::from_secs_f64(seconds))?;
    let after = Snapshot::take();
    let noise = watch.stop()?;
    let mut cpu = BTreeMap::new();
    for (name, id) in named {
        let (before, after) =
            before.of(*id).zip(after.of(*id)).with_context(|| format!("{name} ended too soon"))?;
        cpu.insert(*name, after.since(before).percent_of(seconds));
    }
    cpu.insert("softirq", after.softirq().since(before.softirq()).percent_of(seconds));
    Ok(Figure { cpu, ..Figure::new(0.0, noise) })
}
