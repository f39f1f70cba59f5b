//! The switches under test: each a set of processes, polling on CPU 1, with its control threads on CPU 0.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::hugepages::{Hugepages, path};
use crate::interrupt;
use crate::palisade::{Palisade, Poll};
use crate::process::{Process, output, run};

/// CPU of the generator and of every control thread.
const GUEST_CPU: &str = "0";

/// CPU of the one thread that forwards.
const SWITCH_CPU: &str = "1";

/// How long a switch may take to start.
const START: Duration = Duration::from_secs(30);

/// Huge pages for the hungriest peer and the generator, in MiB.
pub(crate) const HUGE_MIB: u64 = 1536;

/// Who is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Party {
    /// Anti-spoofing on, delivery by declared addresses.
    Palisade,
    /// DPDK's testpmd, which moves frames between two ports without looking at them.
    DpdkIo,
    /// Open vSwitch on DPDK as a learning switch.
    OvsNormal,
    /// Open vSwitch on DPDK with one rule per port: everything to the other.
    OvsP2p,
}

impl Party {
    /// All of them, Palisade first.
    pub(crate) const ALL: [Party; 4] = [Party::Palisade, Party::DpdkIo, Party::OvsNormal, Party::OvsP2p];

    /// The name in tables and JSON.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Party::Palisade => "palisade",
            Party::DpdkIo => "dpdk-io",
            Party::OvsNormal => "ovs-normal",
            Party::OvsP2p => "ovs-p2p",
        }
    }
}

/// A running switch with two vhost-user ports. Its processes end when it is dropped.
#[derive(Debug)]
pub(crate) struct Switch {
    /// In the order in which they are ended.
    processes: Vec<Process>,
    sockets: [PathBuf; 2],
    guests_listen: bool,
}

impl Switch {
    /// Starts `party` in the empty directory `work`.
    pub(crate) fn start(party: Party, work: &Path, pages: &Hugepages) -> Result<Switch> {
        match party {
            Party::Palisade => palisade(work),
            Party::DpdkIo => testpmd(work, pages),
            Party::OvsNormal => open_vswitch(work, pages, "priority=1,actions=NORMAL\n"),
            Party::OvsP2p => {
                open_vswitch(work, pages, "in_port=1,actions=output:2\nin_port=2,actions=output:1\n")
            }
        }
        .with_context(|| format!("start {}", party.name()))
    }

    /// The sockets of guests A and B.
    pub(crate) fn sockets(&self) -> &[PathBuf; 2] {
        &self.sockets
    }

    /// Whether the guests listen on the sockets and the switch connects.
    pub(crate) fn guests_listen(&self) -> bool {
        self.guests_listen
    }

    /// The process ids.
    pub(crate) fn ids(&self) -> Vec<u32> {
        self.processes.iter().map(Process::id).collect()
    }

    /// The last words of all processes, for an error message.
    pub(crate) fn said(&self) -> String {
        self.processes.iter().map(|process| format!("{}:{}\n", process.name(), process.tail())).collect()
    }

    /// An error when one of the processes has ended.
    pub(crate) fn check(&mut self) -> Result<()> {
        self.processes.iter_mut().try_for_each(Process::check)
    }
}

fn palisade(work: &Path) -> Result<Switch> {
    let palisade = Palisade::start(work, Some(GUEST_CPU), 1, SWITCH_CPU, Poll::Always)?;
    // The frames of 1518 bytes hold IP packets of 1504: the network is told so.
    let mut resources =
        "kind: Network\nname: bench\nspec: { subnets: [10.64.0.0/24], mtu: 2000 }\n".to_owned();
    for (name, (mac, address)) in ["a", "b"].iter().zip(crate::generator::GUESTS) {
        resources.push_str(&format!(
            "---\nkind: Workload\nname: {name}\nspec:\n  host: bench\n  kind: vm\n  ports:\n    \
             - {{ name: eth0, network: bench, addresses: [{address}], mac: \"{mac}\" }}\n"
        ));
    }
    palisade.apply(&resources)?;
    let sockets = ["a", "b"].map(|name| palisade.run_directory().join(format!("ports/{name}.eth0.sock")));
    wait_for(&sockets)?;
    Ok(Switch { processes: vec![palisade.into_process()], sockets, guests_listen: false })
}

fn testpmd(work: &Path, pages: &Hugepages) -> Result<Switch> {
    let sockets = ["a.sock", "b.sock"].map(|name| work.join(name));
    let lcores = format!("0@{GUEST_CPU},1@{SWITCH_CPU}");
    let mut argv: Vec<String> = ["dpdk-testpmd", "--lcores", &lcores, "--main-lcore", "0", "--no-pci"]
        .iter()
        .chain(&["--file-prefix", "bench-testpmd", "--single-file-segments", "--no-telemetry", "-m", "512"])
        .chain(&["--huge-dir", path(pages.directory())?])
        .map(|argument| (*argument).to_owned())
        .collect();
    for (i, socket) in sockets.iter().enumerate() {
        argv.extend(["--vdev".to_owned(), format!("net_vhost{i},iface={},queues=1", path(socket)?)]);
    }
    argv.extend(
        ["--", "--nb-cores=1", "--rxq=1", "--txq=1", "--forward-mode=io", "--disable-link-check"]
            .map(String::from),
    );
    let cpus = format!("{GUEST_CPU},{SWITCH_CPU}");
    let process = Process::start("testpmd", work, Some(&cpus), &dpdk_runtime(work), &argv)
        .context("testpmd comes with the package dpdk-dev")?;
    let mut switch = Switch { processes: vec![process], sockets, guests_listen: false };
    interrupt::until("testpmd's sockets", START, || {
        switch.check()?;
        Ok(switch.sockets.iter().all(|socket| socket.exists()).then_some(()))
    })?;
    Ok(switch)
}

/// The data path daemon with DPDK, as Debian builds it.
const VSWITCHD: &str = "/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk";

fn open_vswitch(work: &Path, pages: &Hugepages, flows: &str) -> Result<Switch> {
    let file = |name: &str| work.join(name);
    let database = format!("unix:{}", path(&file("db.sock"))?);
    let environment = ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR"].map(|name| (name, work.as_os_str()));
    let tool =
        |argv: &[&str]| -> Result<String> { run(Command::new(argv[0]).args(&argv[1..]).envs(environment)) };
    let vsctl = |arguments: &[&str]| -> Result<String> {
        tool(&[&["ovs-vsctl", &format!("--db={database}"), "--timeout=30"], arguments].concat())
    };

    tool(&["ovsdb-tool", "create", path(&file("conf.db"))?, "/usr/share/openvswitch/vswitch.ovsschema"])?;
    let remote = format!("--remote=punix:{}", path(&file("db.sock"))?);
    let control = format!("--unixctl={}", path(&file("ovsdb.ctl"))?);
    let data = file("conf.db");
    let argv = ["ovsdb-server", path(&data)?, &remote, &control, "-vconsole:warn"];
    let ovsdb = Process::start("ovsdb-server", work, Some(GUEST_CPU), &environment, &argv)?;
    wait_for(&[file("db.sock")])?;
    vsctl(&["--no-wait", "init"])?;
    let settings = [
        "dpdk-init=true".to_owned(),
        format!("dpdk-lcore-mask=0x{:x}", 1 << GUEST_CPU.parse::<u32>()?),
        format!("pmd-cpu-mask=0x{:x}", 1 << SWITCH_CPU.parse::<u32>()?),
        "dpdk-socket-mem=\"1024\"".to_owned(),
        format!("dpdk-hugepage-dir=\"{}\"", path(pages.directory())?),
        "dpdk-extra=\"--no-pci --no-telemetry --file-prefix=bench-ovs\"".to_owned(),
    ]
    .map(|setting| format!("other_config:{setting}"));
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    vsctl(&[&["--no-wait", "set", "Open_vSwitch", "."], &settings[..]].concat())?;

    // In a network namespace of its own: the bridge's TAP device vanishes with the process.
    let control = format!("--unixctl={}", path(&file("vswitchd.ctl"))?);
    let log = format!("--log-file={}", path(&file("vswitchd-full.log"))?);
    let argv = ["unshare", "--net", "--", VSWITCHD, &database, &control, &log, "-vconsole:off"];
    let runtime = [&environment[..], &dpdk_runtime(work)].concat();
    let vswitchd = Process::start("ovs-vswitchd", work, Some(GUEST_CPU), &runtime, &argv)?;
    let sockets = ["a.sock", "b.sock"].map(|name| work.join(name));
    let switch = Switch { processes: vec![vswitchd, ovsdb], sockets, guests_listen: true };
    wait_for(&[file("vswitchd.ctl")])?;
    let bridge = ["set", "bridge", "br0", "datapath_type=netdev", "fail-mode=secure"];
    vsctl(&[&["add-br", "br0", "--"], &bridge[..]].concat())?;
    for (i, socket) in switch.sockets.iter().enumerate() {
        let name = format!("vhost{i}");
        let server = format!("options:vhost-server-path={}", path(socket)?);
        let number = format!("ofport_request={}", i + 1);
        let interface = ["set", "Interface", &name, "type=dpdkvhostuserclient", &server, &number];
        vsctl(&[&["add-port", "br0", &name, "--"], &interface[..]].concat())?;
    }
    fs::write(file("flows"), flows)?;
    tool(&["ovs-ofctl", "-O", "OpenFlow15", "add-flows", "br0", path(&file("flows"))?])?;
    let initialised = vsctl(&["get", "Open_vSwitch", ".", "dpdk_initialized"])?;
    ensure!(
        initialised.trim() == "true",
        "Open vSwitch runs without DPDK (dpdk_initialized = {initialised})"
    );
    Ok(switch)
}

/// Keeps DPDK's run-time files inside the bench's directory.
fn dpdk_runtime(work: &Path) -> [(&'static str, &OsStr); 1] {
    [("RUNTIME_DIRECTORY", work.as_os_str())]
}

fn wait_for(files: &[PathBuf]) -> Result<()> {
    interrupt::until("the sockets of the switch", START, || {
        Ok(files.iter().all(|file| file.exists()).then_some(()))
    })
}

/// Versions of the peers, for the record.
pub(crate) fn versions() -> Vec<(&'static str, String)> {
    let first_line =
        |text: Result<String>| text.map(|text| text.lines().next().unwrap_or_default().to_owned());
    let dpdk = output(&["pkg-config", "--modversion", "libdpdk"]);
    let ovs = first_line(output(&["ovs-vsctl", "--version"]));
    [("dpdk", dpdk), ("openvswitch", ovs)]
        .into_iter()
        .filter_map(|(name, version)| Some((name, version.ok()?.trim().to_owned())))
        .collect()
}

/// The parties among `names`; an error naming those that exist otherwise.
pub(crate) fn peers(names: &[String]) -> Result<Vec<Party>> {
    let all = &Party::ALL[1..];
    if names.is_empty() {
        return Ok(all.to_vec());
    }
    names
        .iter()
        .map(|name| match all.iter().find(|party| party.name() == name) {
            Some(party) => Ok(*party),
            None => bail!(
                "--peers {name}: one of {}",
                all.iter().map(|p| p.name()).collect::<Vec<_>>().join(", ")
            ),
        })
        .collect()
}
