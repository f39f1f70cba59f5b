//! `tap`: two namespaces of one host, through Palisade's TAP ports or through a Linux bridge with a firewall.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::core_distance;
use crate::generator::compile;
use crate::hugepages::path;
use crate::interrupt;
use crate::iperf::{self, Iperf};
use crate::kernel_bridge::KernelBridge;
use crate::namespace::Namespace;
use crate::options::TapOptions;
use crate::palisade::{Palisade, Poll};
use crate::process::Process;
use crate::rounds::{self, Better, Figure, Row};

/// One end of the measured path: a workload, its device, MAC and address.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) workload: &'static str,
    pub(crate) device: &'static str,
    pub(crate) mac: &'static str,
    pub(crate) address: &'static str,
}

/// The sender and the receiver.
pub(crate) const ENDS: [End; 2] = [
    End { workload: "a", device: "eth0", mac: "02:00:00:00:00:0a", address: "10.64.0.10" },
    End { workload: "b", device: "eth0", mac: "02:00:00:00:00:0b", address: "10.64.0.11" },
];

/// Ports that the bridge's firewall lets through.
pub(crate) const TCP_PORT: u16 = 5201;
pub(crate) const UDP_PORT: u16 = 5202;

/// CPU of the sending and of the receiving program, the same for all parties.
const CPUS: [&str; 2] = ["0", "1"];

/// Payload of a datagram in a frame of 64 bytes: without Ethernet (14), IPv4 (20) and UDP (8) headers.
const UDP_PAYLOAD: &str = "22";

const OURS: &str = "palisade";
const PEER: &str = "bridge-nft";

/// All cases.
pub(crate) fn cases() -> Vec<String> {
    ["tcp-1", "tcp-4", "udp-64"].map(String::from).into()
}

/// Measures the chosen cases, prints every sample as it is taken, and notes the set-up in `machine`.
pub(crate) fn run(options: &TapOptions, work: &Path, machine: &mut Map<String, Value>) -> Result<Vec<Row>> {
    let common = &options.common;
    if let Some(other) = common.peers.iter().find(|peer| *peer != PEER) {
        bail!("--peers {other}: this bench has {PEER} alone");
    }
    let blast = compile("blast", "")?;
    let names: Vec<&str> = [(OURS, common.peers_only), (PEER, common.ours_only)]
        .into_iter()
        .filter_map(|(name, left_out)| (!left_out).then_some(name))
        .collect();
    let mut note = |name: &str, value: Value| machine.insert(name.to_owned(), value);
    note("sender_cpu", CPUS[0].into());
    note("receiver_cpu", CPUS[1].into());
    note("palisade_workers", options.workers.into());
    note("palisade_cpus", options.cpus.clone().into());
    let mut rows = Vec::new();
    for case in common.chosen(cases())? {
        let unit = if case.starts_with("tcp") { "Gbit/s" } else { "Mpps" };
        let measure = |party: usize| {
            let directory = work.join(names[party]);
            fs::create_dir(&directory)?;
            let link = Link::start(names[party], &directory, options)?;
            if let Middle::Kernel(bridge) = &link.middle {
                note("bridge_nft", bridge.firewall().into());
            }
            let before = core_distance::measure()?;
            let traffic = Traffic { link: &link, work: &directory, seconds: common.seconds(4.0, 1.5) };
            let figure = match case.as_str() {
                "tcp-1" => traffic.tcp(1),
                "tcp-4" => traffic.tcp(4),
                _ => traffic.udp(path(&blast)?),
            };
            let mut figure = figure.with_context(|| format!("{case} with {}", names[party]))?;
            figure.hop_ns = [before, core_distance::measure()?];
            link.finish()?;
            fs::remove_dir_all(&directory)?;
            Ok(figure)
        };
        let rounds = rounds::interleave(&names, common.samples(), measure, |round, party, figure| {
            crate::told(&case, round, party, unit, figure);
        })?;
        let position = |name: &str| names.iter().position(|other| *other == name);
        let peers: Vec<(usize, &str)> = position(PEER).map(|peer| (peer, PEER)).into_iter().collect();
        rows.extend(rounds::rows(&case, unit, Better::Higher, &rounds, position(OURS), &peers));
    }
    Ok(rows)
}

/// Two namespaces and what joins them, which ends first.
#[derive(Debug)]
struct Link {
    middle: Middle,
    ends: [Namespace; 2],
}

#[derive(Debug)]
enum Middle {
    Palisade(Process),
    Kernel(KernelBridge),
}

impl Link {
    fn start(party: &str, work: &Path, options: &TapOptions) -> Result<Link> {
        let ends = [Namespace::create("a")?, Namespace::create("b")?];
        let middle = if party == OURS {
            Middle::Palisade(palisade(&ends, work, options)?)
        } else {
            Middle::Kernel(KernelBridge::start(&ends, work)?)
        };
        let link = Link { middle, ends };
        for (end, namespace) in ENDS.iter().zip(&link.ends) {
            let device = ["dev", end.device];
            interrupt::until("the device in the namespace", Duration::from_secs(10), || {
                Ok(namespace.run(&[&["ip", "link", "show"], &device[..]].concat()).ok())
            })?;
            namespace.run(&["ip", "link", "set", "dev", end.device, "address", end.mac, "up"])?;
            namespace
                .run(&[&["ip", "address", "add", &format!("{}/24", end.address)], &device[..]].concat())?;
        }
        interrupt::until("ping from end to end", Duration::from_secs(10), || {
            Ok(link.ends[0].run(&["busybox", "ping", "-c", "1", "-W", "1", ENDS[1].address]).ok())
        })?;
        Ok(link)
    }

    /// Ends it; an error when the middle has not done what it is there for.
    fn finish(mut self) -> Result<()> {
        match &mut self.middle {
            Middle::Palisade(process) => process.check(),
            Middle::Kernel(bridge) => bridge.verify(),
        }
    }
}

fn palisade(ends: &[Namespace; 2], work: &Path, options: &TapOptions) -> Result<Process> {
    let palisade = Palisade::start(work, None, options.workers, &options.cpus, Poll::Adaptive, &[])?;
    let mut resources =
        "kind: Network\nname: bench\nspec: { subnets: [10.64.0.0/24], mtu: 1500 }\n".to_owned();
    for (end, namespace) in ENDS.iter().zip(ends) {
        let End { workload, device, mac, address } = end;
        resources.push_str(&format!(
            "---\nkind: Workload\nname: {workload}\nspec:\n  host: bench\n  kind: container\n  ports:\n    \
             - {{ name: eth0, network: bench, addresses: [{address}], mac: \"{mac}\", \
             attach: {{ tap: {{ device: {device}, netns: {} }} }} }}\n",
            namespace.name()
        ));
    }
    // What the bridge's firewall lets through.
    resources.push_str(&format!(
        "---\nkind: FirewallPolicy\nname: bench\nspec:\n  appliesTo: [any]\n  rules:\n    \
         - {{ name: test, action: allow, services: [ping, tcp/{TCP_PORT}, udp/{UDP_PORT}] }}\n"
    ));
    palisade.apply(&resources)?;
    Ok(palisade.into_process())
}

/// What runs over a link.
struct Traffic<'a> {
    link: &'a Link,
    work: &'a Path,
    seconds: f64,
}

impl Traffic<'_> {
    /// iperf3 from A to B, 10^9 bits of payload a second at the receiver.
    fn tcp(&self, streams: u32) -> Result<Figure> {
        let [a, b] = &self.link.ends;
        let run = Iperf { work: self.work, cpus: CPUS, port: TCP_PORT, streams, seconds: self.seconds };
        run.between(a, (b, ENDS[1].address), &self.middle())
    }

    /// Datagrams from A to B, million a second that the receiver took from its socket.
    fn udp(&self, blast: &str) -> Result<Figure> {
        #[derive(Deserialize)]
        struct Count {
            count: u64,
            seconds: f64,
        }
        let count = |process: &mut Process| -> Result<Count> {
            let said = process.rest(Duration::from_secs(15))?;
            serde_json::from_str(&said).with_context(|| format!("blast said {said:?}"))
        };
        let port = UDP_PORT.to_string();
        let sending = self.seconds + 2.0 * iperf::MARGIN;
        let listening = (sending + 1.0).to_string();
        let listen = [blast, "receive", &port, &listening];
        let mut receiver = self.link.ends[1].start("receiver", self.work, CPUS[1], &listen)?;
        receiver.line_with("ready", Duration::from_secs(5))?;
        let argv = [blast, "send", ENDS[1].address, &port, UDP_PAYLOAD, &sending.to_string()];
        let mut sender = self.link.ends[0].start("sender", self.work, CPUS[0], &argv)?;
        let programs = [("sender", sender.id()), ("receiver", receiver.id())];
        let mut figure = iperf::window(self.seconds, &[&programs[..], &self.middle()].concat())?;
        let (sent, received) = (count(&mut sender)?, count(&mut receiver)?);
        ensure!(
            received.count > 0 && received.count <= sent.count,
            "{} of {} arrived",
            received.count,
            sent.count
        );
        figure.value = received.count as f64 / received.seconds / 1e6;
        figure.loss = Some((sent.count - received.count) as f64 / sent.count as f64);
        Ok(figure)
    }

    /// Who else takes part.
    fn middle(&self) -> Vec<(&'static str, u32)> {
        match &self.link.middle {
            Middle::Palisade(process) => vec![(OURS, process.id())],
            Middle::Kernel(_) => Vec::new(),
        }
    }
}
