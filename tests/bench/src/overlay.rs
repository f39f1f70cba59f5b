//! `overlay`: workloads of two hosts that a veth pair joins, through GENEVE or VXLAN.

mod peers;
mod underlay;
mod uplink;

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value};

use crate::core_distance;
use crate::interrupt;
use crate::iperf::Iperf;
use crate::namespace::Namespace;
use crate::options::Options;
use crate::overlay::peers::{OpenVswitch, Vxlan};
use crate::overlay::underlay::Underlay;
use crate::rounds::{self, Better, Figure, Row};
use crate::tap::{ENDS, TCP_PORT};

/// The kernel's own overlay, and Open vSwitch with its user-space data path.
const VXLAN: &str = "vxlan";
const OVS: &str = "ovs-geneve";

/// Host a, with its workload, has CPU 0 to itself, and host b CPU 1.
const CPUS: [&str; 2] = ["0", "1"];

/// All cases.
pub(crate) fn cases() -> Vec<String> {
    ["tcp-1500", "tcp-9000", "pps-64", "pps-64-single"].map(String::from).into()
}

/// Measures the chosen cases, prints every sample as it is taken, and notes the set-up in `machine`.
pub(crate) fn run(options: &Options, work: &Path, machine: &mut Map<String, Value>) -> Result<Vec<Row>> {
    for name in &options.peers {
        ensure!([VXLAN, OVS].contains(&name.as_str()), "--peers {name}: one of {VXLAN}, {OVS}");
    }
    for (host, cpu) in ["a", "b"].iter().zip(CPUS) {
        machine.insert(format!("cpu_of_host_{host}"), cpu.into());
    }
    let mut rows = Vec::new();
    for case in options.chosen(cases())? {
        match case.strip_prefix("tcp-") {
            Some(mtu) => rows.extend(tcp(options, work, &case, mtu.parse()?)?),
            None => rows.extend(uplink::run(options, work, &case)?),
        }
    }
    Ok(rows)
}

/// Those of `parties` that were asked for, Palisade first.
fn chosen(options: &Options, parties: &[&'static str]) -> Vec<&'static str> {
    let asked = |name: &&&str| {
        let named = options.peers.is_empty() || options.peers.iter().any(|peer| peer == **name);
        !options.ours_only && named
    };
    parties.iter().filter(asked).copied().collect()
}

/// One stream between two workloads.
fn tcp(options: &Options, work: &Path, case: &str, mtu: u16) -> Result<Vec<Row>> {
    let names = chosen(options, &[VXLAN, OVS]);
    let measure = |party: usize| {
        let directory = work.join(names[party]);
        fs::create_dir(&directory)?;
        let before = core_distance::measure()?;
        let figure = stream(options, names[party], &directory, mtu);
        let mut figure = figure.with_context(|| format!("{case} with {}", names[party]))?;
        figure.hop_ns = [before, core_distance::measure()?];
        fs::remove_dir_all(&directory)?;
        Ok(figure)
    };
    let rounds = rounds::interleave(&names, options.samples(), measure, |round, party, figure| {
        crate::told(case, round, party, "Gbit/s", figure);
    })?;
    let peers: Vec<(usize, &str)> = names.iter().copied().enumerate().collect();
    Ok(rounds::rows(case, "Gbit/s", Better::Higher, &rounds, None, &peers))
}

/// What carries the workloads' frames, and ends before the namespaces do.
enum Overlay {
    Kernel,
    OpenVswitch([OpenVswitch; 2]),
}

fn stream(options: &Options, party: &str, work: &Path, mtu: u16) -> Result<Figure> {
    let workloads = [Namespace::create("wa")?, Namespace::create("wb")?];
    let underlay = Underlay::start(mtu)?;
    let mut overlay = match party {
        OVS => Overlay::OpenVswitch(OpenVswitch::pair(&underlay, &workloads, work)?),
        _ => {
            Vxlan::start(&underlay, &workloads)?;
            Overlay::Kernel
        }
    };
    for (end, namespace) in ENDS.iter().zip(&workloads) {
        let device = ["dev", end.device];
        namespace.run(&[&["ip", "link", "set", "address", end.mac, "up"], &device[..]].concat())?;
        let address = format!("{}/24", end.address);
        namespace.run(&[&["ip", "address", "add", &address], &device[..]].concat())?;
    }
    let [a, b] = &workloads;
    interrupt::until("ping from workload to workload", Duration::from_secs(20), || {
        Ok(a.run(&["busybox", "ping", "-c", "1", "-W", "1", ENDS[1].address]).ok())
    })?;
    let named = match &overlay {
        Overlay::Kernel => Vec::new(),
        Overlay::OpenVswitch([a, b]) => vec![("ovs-a", a.id()?), ("ovs-b", b.id()?)],
    };
    let seconds = options.seconds(4.0, 1.5);
    let run = Iperf { work, cpus: CPUS, port: TCP_PORT, streams: 1, seconds };
    let figure = run.between(a, (b, ENDS[1].address), &named)?;
    match &mut overlay {
        Overlay::Kernel => {}
        Overlay::OpenVswitch(both) => both.iter_mut().try_for_each(OpenVswitch::check)?,
    }
    Ok(figure)
}
