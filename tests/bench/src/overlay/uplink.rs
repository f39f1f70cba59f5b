//! Small packets out of a vhost-user port: encapsulated on one host, counted where they arrive on the other.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::core_distance;
use crate::generator::{Generator, Load, Report};
use crate::hugepages::Hugepages;
use crate::interrupt;
use crate::iperf::MARGIN;
use crate::open_vswitch::{add_guest, with_dpdk};
use crate::options::Options;
use crate::overlay::underlay::{Received, Underlay};
use crate::overlay::{OVS, chosen, peers};
use crate::process::Process;
use crate::rounds::{self, Better, Figure, Row};
use crate::switch::HUGE_MIB;
use crate::vswitchd::Vswitchd;

/// RFC 8926 section 3.3.
const GENEVE_PORT: u16 = 6081;

/// Bytes of the guest's frames.
const SIZE: u32 = 64;

/// Outer Ethernet, IPv4 and UDP headers: of a large packet that is cut on its way there is one of each.
const OUTER: u64 = 14 + 20 + 8;

/// Case `pps-64`, and `pps-64-single`, in which every datagram crosses the veth by itself.
pub(crate) fn run(options: &Options, work: &Path, case: &str) -> Result<Vec<Row>> {
    let names = chosen(options, &[OVS]);
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let generator = Generator::build()?;
    let pages = Hugepages::reserve(work, HUGE_MIB)?;
    let measure = |party: usize| {
        let directory = work.join(names[party]);
        fs::create_dir(&directory)?;
        let underlay = Underlay::start(1500)?;
        if case.ends_with("single") {
            underlay.without_segmentation()?;
        }
        underlay.drop_arrivals(GENEVE_PORT)?;
        let mut source = Source::start(names[party], &underlay, &directory, &pages)?;
        let run = Uplink { generator: &generator, pages: &pages, underlay: &underlay, work: &directory };
        let figure = run.sample(&source, options.seconds(2.0, 1.0));
        let figure = figure.with_context(|| format!("{case} with {}", names[party]))?;
        source.check()?;
        drop(source);
        fs::remove_dir_all(&directory)?;
        pages.clear()?;
        Ok(figure)
    };
    let rounds = rounds::interleave(&names, options.samples(), measure, |round, party, figure| {
        crate::told(case, round, party, "Mpps", figure);
    })?;
    let peers: Vec<(usize, &str)> = names.iter().copied().enumerate().collect();
    Ok(rounds::rows(case, "Mpps", Better::Higher, &rounds, None, &peers))
}

/// What takes frames from the guest and encapsulates them.
enum Source {
    OpenVswitch { daemon: Vswitchd, sockets: [PathBuf; 1] },
}

impl Source {
    fn start(party: &str, underlay: &Underlay, work: &Path, pages: &Hugepages) -> Result<Source> {
        ensure!(party == OVS, "{party} has no guests");
        let host = &underlay.hosts[0];
        let daemon = with_dpdk(work, pages, &["ip", "netns", "exec", host.name()], &[])?;
        peers::tunnel(&daemon, host, 0)?;
        let sockets = [work.join("a.sock")];
        add_guest(&daemon, "int", "vhost0", &sockets[0], 1)?;
        daemon.add_flows("int", "in_port=1,actions=output:10\n")?;
        Ok(Source::OpenVswitch { daemon, sockets })
    }

    fn socket(&self) -> &[PathBuf] {
        let Source::OpenVswitch { sockets, .. } = self;
        sockets
    }

    fn guest_listens(&self) -> bool {
        matches!(self, Source::OpenVswitch { .. })
    }

    /// Bytes of GENEVE header and options before each frame.
    fn header(&self) -> u64 {
        let Source::OpenVswitch { .. } = self;
        8
    }

    fn processes(&mut self) -> &mut [Process] {
        let Source::OpenVswitch { daemon, .. } = self;
        daemon.processes_mut()
    }

    fn ids(&self) -> Vec<u32> {
        let Source::OpenVswitch { daemon, .. } = self;
        daemon.processes().iter().map(Process::id).collect()
    }

    fn check(&mut self) -> Result<()> {
        self.processes().iter_mut().try_for_each(Process::check)
    }
}

struct Uplink<'a> {
    generator: &'a Generator,
    pages: &'a Hugepages,
    underlay: &'a Underlay,
    work: &'a Path,
}

impl Uplink<'_> {
    /// One run: million datagrams a second that arrived at host b.
    fn sample(&self, source: &Source, seconds: f64) -> Result<Figure> {
        let load = Load {
            size: SIZE,
            mode: "uplink".to_owned(),
            warm: 1.0,
            seconds: seconds + 2.0 * MARGIN,
            samples: 1,
            window: 256,
            flows: 1,
            addresses: 1,
            budget: None,
            server: source.guest_listens(),
            packed: false,
        };
        let mut run = self.generator.start(self.work, self.pages, source.socket(), &load)?;
        run.links_up()?;
        let hop_before = core_distance::measure()?;
        run.warm_up()?;
        let length = u64::from(SIZE) + source.header();
        let (counted, window) = std::thread::scope(|scope| {
            let counting = scope.spawn(|| self.count(seconds, length));
            let window = run.next(&source.ids());
            let counted = counting.join().map_err(|_| anyhow::anyhow!("the counting thread panicked"))?;
            Ok::<_, anyhow::Error>((counted?, window?))
        })?;
        let Report::Window(window, noise) = window else { bail!("no window was measured") };
        let hop_ns = [hop_before, core_distance::measure()?];
        let Report::Total(_) = run.next(&[])? else { bail!("a window too many was measured") };
        Ok(Figure {
            loss: Some((1.0 - counted / window.tx_mpps).max(0.0)),
            held: Some(window.held),
            hop_ns,
            ..Figure::new(counted, noise)
        })
    }

    /// Million datagrams a second at host b, in the middle of the generator's window.
    fn count(&self, seconds: f64, length: u64) -> Result<f64> {
        interrupt::pause(Duration::from_secs_f64(MARGIN))?;
        let (begin, before) = (Instant::now(), self.underlay.received()?);
        interrupt::pause(Duration::from_secs_f64(seconds))?;
        let (took, after) = (begin.elapsed(), self.underlay.received()?);
        Ok(datagrams(before, after, length)? as f64 / took.as_secs_f64() / 1e6)
    }
}

/// Datagrams of `length` bytes of payload that arrived in between. Nothing else may have: a few packets of the hosts' own
/// aside.
fn datagrams(before: Received, after: Received, length: u64) -> Result<u64> {
    let (packets, bytes) = (after.packets - before.packets, after.bytes - before.bytes);
    let payload = bytes.saturating_sub(OUTER * packets);
    let whole = payload / length;
    ensure!(whole >= packets, "{packets} packets of {bytes} bytes are no datagrams of {length}");
    // A packet that is not cut holds one; any other length would leave a rest for each.
    ensure!(
        whole > packets || payload % length <= payload / 1000,
        "{packets} packets hold {payload} bytes, not datagrams of {length}"
    );
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(packets: u64, bytes: u64) -> Received {
        Received { packets, bytes }
    }

    #[test]
    fn a_packet_that_is_cut_on_its_way_counts_for_all_its_datagrams() {
        // Two packets of 10 and of 1 datagrams of 72 bytes.
        let after = received(2, 2 * OUTER + 11 * 72);
        assert_eq!(datagrams(received(0, 0), after, 72).expect("whole datagrams"), 11);
    }

    #[test]
    fn packets_of_another_length_are_no_figure() {
        assert!(datagrams(received(0, 0), received(100, 100 * (OUTER + 60)), 72).is_err());
    }
}
