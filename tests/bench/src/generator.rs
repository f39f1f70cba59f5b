//! The load generator `vgen`: built from C on first use, run as the two guests of the switch under test.

use std::ffi::OsStr;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::hugepages::{Hugepages, path};
use crate::noise::{Noise, Watch};
use crate::process::{Process, output, run};

/// MAC addresses of guests A and B. Whoever polices sources must be told these, and [`Load::addresses()`].
pub(crate) const MACS: [&str; 2] = ["02:00:00:00:00:0a", "02:00:00:00:00:0b"];

/// The first address of guest A, which may have more, and the address of guest B.
const ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 64, 0, 16), Ipv4Addr::new(10, 64, 0, 11)];

/// Entries of each virtqueue of the guests.
const RING: u32 = 256;

/// How long the generator may take until every flow has been seen in both directions.
const FIRST_ROUND: Duration = Duration::from_secs(100);

/// Part of a window that its noise must have been watched for.
const ALIGNED: f64 = 0.9;

/// What to send, and for how long.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    /// Bytes of a frame in the virtqueue, without frame check sequence.
    pub(crate) size: u32,
    /// `bidir`, `oneway`, `newflow` or `uplink`.
    pub(crate) mode: String,
    /// Seconds before the first window, and of each window.
    pub(crate) warm: f64,
    pub(crate) seconds: f64,
    /// Number of windows.
    pub(crate) samples: u32,
    /// Frames in flight in each direction.
    pub(crate) window: u32,
    /// 5-tuples, used in turn; `newflow` never uses one twice.
    pub(crate) flows: u64,
    /// Addresses of guest A that the flows are spread over.
    pub(crate) addresses: u32,
    /// Frames to send in all, where that is limited.
    pub(crate) budget: Option<u64>,
    /// Whether the guests listen and the switch connects.
    pub(crate) server: bool,
    /// Packed rings instead of split ones.
    pub(crate) packed: bool,
}

impl Load {
    /// The addresses of guest A and of guest B.
    pub(crate) fn addresses(&self) -> [Vec<Ipv4Addr>; 2] {
        let [a, b] = ADDRESSES;
        [(0..self.addresses).map(|i| Ipv4Addr::from_bits(a.to_bits() + i)).collect(), vec![b]]
    }
}

/// One window of traffic.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Window {
    /// Million frames a second that arrived, both directions together.
    pub(crate) mpps: f64,
    /// How long it was.
    pub(crate) seconds: f64,
    /// The frames' bits, 10^9 a second.
    pub(crate) gbps: f64,
    pub(crate) mpps_a_to_b: f64,
    pub(crate) mpps_b_to_a: f64,
    /// Million frames a second that were put into the guests' rings.
    pub(crate) tx_mpps: f64,
    /// Share of the generator's turns to send in which the window or the ring was full. Near 0, the generator and not
    /// the switch is what limits the rate.
    pub(crate) held: f64,
}

/// Counts over a whole run, warm-up included, once nothing was in flight any more.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Total {
    pub(crate) tx: u64,
    pub(crate) rx: u64,
    /// Frames that arrived changed, or at the wrong guest.
    pub(crate) bad: u64,
    /// Frames that arrived after a later one.
    pub(crate) reordered: u64,
    /// ARP and IPv6 frames, which the generator does not count as its own.
    pub(crate) chatter: u64,
}

impl Total {
    /// Share of the sent frames that did not arrive.
    pub(crate) fn loss(&self) -> f64 {
        self.tx.saturating_sub(self.rx) as f64 / self.tx.max(1) as f64
    }
}

#[derive(Debug, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Event {
    Ready,
    Warm,
    Sample(Window),
    Total(Total),
}

/// The compiled generator.
#[derive(Debug)]
pub(crate) struct Generator {
    binary: PathBuf,
}

impl Generator {
    /// Compiles vgen beside the bench's own executable, unless that has been done since its source changed.
    pub(crate) fn build() -> Result<Generator> {
        let flags = output(&["pkg-config", "--cflags", "--libs", "libdpdk"])
            .context("vgen needs DPDK: install libdpdk-dev and pkg-config")?;
        Ok(Generator { binary: compile("vgen", &flags)? })
    }

    /// Starts the guests on CPU 0 against their sockets: one in mode `uplink`, else two.
    pub(crate) fn start(
        &self,
        work: &Path,
        pages: &Hugepages,
        sockets: &[PathBuf],
        load: &Load,
    ) -> Result<Run> {
        let mut argv: Vec<String> =
            [path(&self.binary)?, "--lcores", "0@0", "--no-pci", "--file-prefix", "bench-vgen"]
                .map(String::from)
                .into();
        argv.extend(
            ["--single-file-segments", "--no-telemetry", "-m", "256", "--log-level", "error"]
                .map(String::from),
        );
        argv.extend(["--huge-dir".to_owned(), path(pages.directory())?.to_owned()]);
        for (i, socket) in sockets.iter().enumerate() {
            let packed = u8::from(load.packed);
            let server = if load.server { ",server=1" } else { "" };
            if load.server && socket.exists() {
                fs::remove_file(socket)?; // virtio-user does not listen on a path that exists
            }
            argv.push("--vdev".to_owned());
            argv.push(format!(
                "net_virtio_user{i},path={},queues=1,queue_size={RING},packed_vq={packed}{server}",
                path(socket)?
            ));
        }
        argv.push("--".to_owned());
        let mut option = |name: &str, value: String| argv.extend([format!("--{name}"), value]);
        option("size", load.size.to_string());
        option("mode", load.mode.clone());
        option("warm", load.warm.to_string());
        option("seconds", load.seconds.to_string());
        option("samples", load.samples.to_string());
        option("window", load.window.to_string());
        option("flows", load.flows.to_string());
        option("ring", RING.to_string());
        option("addresses", load.addresses.to_string());
        if let Some(budget) = load.budget {
            option("budget", budget.to_string());
        }
        for (letter, (mac, ip)) in ["a", "b"].iter().zip(MACS.iter().zip(ADDRESSES)) {
            option(&format!("mac-{letter}"), (*mac).to_owned());
            option(&format!("ip-{letter}"), ip.to_string());
        }
        let environment: [(&str, &OsStr); 1] = [("RUNTIME_DIRECTORY", work.as_os_str())];
        let process = Process::start("vgen", work, Some("0"), &environment, &argv)?;
        Ok(Run { process, seconds: load.seconds, warm: load.warm })
    }
}

/// A running generator.
#[derive(Debug)]
pub(crate) struct Run {
    process: Process,
    seconds: f64,
    warm: f64,
}

/// What a running generator says next.
#[derive(Debug)]
pub(crate) enum Report {
    Window(Window, Noise),
    Total(Total),
}

impl Run {
    /// Waits until both links are up, when the warm-up begins.
    pub(crate) fn links_up(&mut self) -> Result<()> {
        match event(&self.process.line(Duration::from_secs(30))?)? {
            Event::Ready => Ok(()),
            other => bail!("vgen began with {other:?}"),
        }
    }

    /// Waits until the warm-up is over.
    pub(crate) fn warm_up(&mut self) -> Result<()> {
        match event(&self.process.line(FIRST_ROUND + Duration::from_secs_f64(self.warm))?)? {
            Event::Warm => Ok(()),
            other => bail!("vgen's warm-up ended with {other:?}"),
        }
    }

    /// The next window with the noise during it (of the generator and of the processes `others`), or the totals.
    pub(crate) fn next(&mut self, others: &[u32]) -> Result<Report> {
        let mut watched = others.to_vec();
        watched.push(self.process.id());
        let watch = Watch::start(&watched)?;
        match event(&self.process.line(Duration::from_secs_f64(10.0 + self.seconds))?)? {
            Event::Sample(window) => {
                // The bench itself stood waiting and saw only the end of the window.
                let missed = watch.seconds() < ALIGNED * window.seconds;
                let noise = watch.stop()?;
                Ok(Report::Window(window, if missed { Noise { wait: Some(100.0), ..noise } } else { noise }))
            }
            Event::Total(total) => Ok(Report::Total(total)),
            Event::Ready | Event::Warm => bail!("vgen warmed up twice"),
        }
    }
}

fn event(line: &str) -> Result<Event> {
    serde_json::from_str(line).with_context(|| format!("vgen said {line:?}"))
}

/// Compiles the C program `name` of this package next to the running executable, when it is missing or outdated.
pub(crate) fn compile(name: &str, flags: &str) -> Result<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("vgen").join(format!("{name}.c"));
    ensure!(source.exists(), "{} is missing: the bench builds it when it runs", source.display());
    let directory =
        std::env::current_exe()?.parent().context("the executable has no directory")?.join("vgen");
    fs::create_dir_all(&directory)?;
    let binary = directory.join(name);
    let modified =
        |file: &Path| fs::metadata(file).and_then(|data| data.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
    if modified(&binary) <= modified(&source) {
        let fresh = directory.join(format!("{name}.new"));
        run(Command::new("cc")
            .args(["-O3", "-march=native", "-Wall", "-o"])
            .arg(&fresh)
            .arg(&source)
            .args(flags.split_whitespace()))?;
        fs::rename(&fresh, &binary)?;
    }
    Ok(binary)
}
