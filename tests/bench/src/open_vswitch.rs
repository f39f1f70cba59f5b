//! Open vSwitch with its user-space data path on DPDK, private to one sample.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::hugepages::{Hugepages, path};
use crate::process::{Process, run};
use crate::switch::{GUEST_CPU, SWITCH_CPU, dpdk_runtime, wait_for};

/// The data path daemon with DPDK, as Debian builds it.
const VSWITCHD: &str = "/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk";

/// A learning switch.
pub(crate) const NORMAL: Tables = Tables { flows: "priority=1,actions=NORMAL\n", ..Tables::PLAIN };

/// One rule per port: everything to the other.
pub(crate) const P2P: Tables =
    Tables { flows: "in_port=1,actions=output:2\nin_port=2,actions=output:1\n", ..Tables::PLAIN };

/// A stateful firewall: what belongs to a connection passes, and whoever begins one is admitted.
const FIREWALL: Tables = Tables {
    flows: "table=0,priority=10,ip,actions=ct(table=1)\n\
            table=0,priority=1,actions=NORMAL\n\
            table=1,priority=10,in_port=1,ct_state=+trk+new,ip,actions=ct(commit),output:2\n\
            table=1,priority=10,in_port=1,ct_state=+trk+est,ip,actions=output:2\n\
            table=1,priority=10,in_port=2,ct_state=+trk+new,ip,actions=ct(commit),output:1\n\
            table=1,priority=10,in_port=2,ct_state=+trk+est,ip,actions=output:1\n",
    ..Tables::PLAIN
};

/// What it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tables {
    flows: &'static str,
    /// `other_config` of the daemon.
    settings: &'static [&'static str],
    /// Connections that it may track.
    connections: Option<u32>,
}

impl Tables {
    const PLAIN: Tables = Tables { flows: "", settings: &[], connections: None };

    /// [`FIREWALL`] with room for `connections`.
    pub(crate) fn firewall(caches: Caches, connections: u32) -> Tables {
        let settings: &[&str] = match caches {
            Caches::Exact => &[],
            Caches::None => &["emc-insert-inv-prob=0"],
            Caches::Signature => &["emc-insert-inv-prob=0", "smc-enable=true"],
        };
        Tables { settings, connections: Some(connections), ..FIREWALL }
    }
}

/// What it looks into before its table of masks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Caches {
    /// The exact match cache of 8192 places, as it is set out of the box.
    Exact,
    /// Nothing: with many more flows than places, looking is time lost.
    None,
    /// The signature match cache of a million places, which Open vSwitch calls experimental.
    Signature,
}

/// A running one.
#[derive(Debug)]
pub(crate) struct OpenVswitch {
    /// The data path daemon, then its database.
    processes: Vec<Process>,
    sockets: [PathBuf; 2],
    tracks: bool,
    work: PathBuf,
    runtime: Vec<(&'static str, OsString)>,
}

impl OpenVswitch {
    /// Starts it in `work` with two vhost-user ports that connect to `a.sock` and `b.sock` there.
    pub(crate) fn start(work: &Path, pages: &Hugepages, tables: Tables) -> Result<OpenVswitch> {
        let directories = ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR"];
        let mut switch = OpenVswitch {
            processes: Vec::new(),
            sockets: ["a.sock", "b.sock"].map(|name| work.join(name)),
            tracks: tables.connections.is_some(),
            work: work.to_owned(),
            runtime: directories.map(|name| (name, work.into())).into(),
        };
        switch.start_database()?;
        switch.start_daemon(pages, tables.settings)?;
        let bridge = ["set", "bridge", "br0", "datapath_type=netdev", "fail-mode=secure"];
        switch.vsctl(&[&["add-br", "br0", "--"], &bridge[..]].concat())?;
        for (i, socket) in switch.sockets.iter().enumerate() {
            let name = format!("vhost{i}");
            let server = format!("options:vhost-server-path={}", path(socket)?);
            let number = format!("ofport_request={}", i + 1);
            let interface = ["set", "Interface", &name, "type=dpdkvhostuserclient", &server, &number];
            switch.vsctl(&[&["add-port", "br0", &name, "--"], &interface[..]].concat())?;
        }
        fs::write(switch.file("flows"), tables.flows)?;
        switch.tool(&["ovs-ofctl", "-O", "OpenFlow15", "add-flows", "br0", path(&switch.file("flows"))?])?;
        if let Some(connections) = tables.connections {
            switch.appctl(&["dpctl/ct-set-maxconns", &connections.to_string()])?;
        }
        let initialised = switch.vsctl(&["get", "Open_vSwitch", ".", "dpdk_initialized"])?;
        ensure!(
            initialised.trim() == "true",
            "Open vSwitch runs without DPDK (dpdk_initialized = {initialised})"
        );
        Ok(switch)
    }

    /// The sockets of guests A and B, on which the guests listen.
    pub(crate) fn sockets(&self) -> &[PathBuf; 2] {
        &self.sockets
    }

    /// The data path daemon, then its database.
    pub(crate) fn processes(&self) -> &[Process] {
        &self.processes
    }

    /// The same, to look after them.
    pub(crate) fn processes_mut(&mut self) -> &mut [Process] {
        &mut self.processes
    }

    /// Connections that it tracks; `None` when it was not told to.
    pub(crate) fn tracked(&self) -> Result<Option<u64>> {
        if !self.tracks {
            return Ok(None);
        }
        let said = self.appctl(&["dpctl/ct-get-nconns"])?;
        said.trim().parse().map(Some).with_context(|| format!("dpctl/ct-get-nconns said {said:?}"))
    }

    fn start_database(&mut self) -> Result<()> {
        let (data, socket) = (self.file("conf.db"), self.file("db.sock"));
        self.tool(&["ovsdb-tool", "create", path(&data)?, "/usr/share/openvswitch/vswitch.ovsschema"])?;
        let remote = format!("--remote=punix:{}", path(&socket)?);
        let control = format!("--unixctl={}", path(&self.file("ovsdb.ctl"))?);
        let argv = ["ovsdb-server", path(&data)?, &remote, &control, "-vconsole:warn"];
        let database =
            Process::start("ovsdb-server", &self.work, Some(GUEST_CPU), &self.environment(), &argv)?;
        self.processes.push(database);
        wait_for(&[socket])?;
        self.vsctl(&["--no-wait", "init"])?;
        Ok(())
    }

    fn start_daemon(&mut self, pages: &Hugepages, further: &[&str]) -> Result<()> {
        let mut settings = vec![
            "dpdk-init=true".to_owned(),
            format!("dpdk-lcore-mask=0x{:x}", 1 << GUEST_CPU.parse::<u32>()?),
            format!("pmd-cpu-mask=0x{:x}", 1 << SWITCH_CPU.parse::<u32>()?),
            "dpdk-socket-mem=\"1024\"".to_owned(),
            format!("dpdk-hugepage-dir=\"{}\"", path(pages.directory())?),
            "dpdk-extra=\"--no-pci --no-telemetry --file-prefix=bench-ovs\"".to_owned(),
        ];
        settings.extend(further.iter().map(|setting| (*setting).to_owned()));
        let settings: Vec<String> =
            settings.into_iter().map(|setting| format!("other_config:{setting}")).collect();
        let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
        self.vsctl(&[&["--no-wait", "set", "Open_vSwitch", "."], &settings[..]].concat())?;

        // In a network namespace of its own: the bridge's TAP device vanishes with the process.
        let database = format!("unix:{}", path(&self.file("db.sock"))?);
        let control = format!("--unixctl={}", path(&self.control())?);
        let log = format!("--log-file={}", path(&self.file("vswitchd-full.log"))?);
        let argv = ["unshare", "--net", "--", VSWITCHD, &database, &control, &log, "-vconsole:off"];
        let runtime = [&self.environment()[..], &dpdk_runtime(&self.work)].concat();
        let daemon = Process::start("ovs-vswitchd", &self.work, Some(GUEST_CPU), &runtime, &argv)?;
        // It ends before its database does.
        self.processes.insert(0, daemon);
        wait_for(&[self.control()])
    }

    fn file(&self, name: &str) -> PathBuf {
        self.work.join(name)
    }

    fn control(&self) -> PathBuf {
        self.file("vswitchd.ctl")
    }

    fn environment(&self) -> Vec<(&'static str, &OsStr)> {
        self.runtime.iter().map(|(name, value)| (*name, value.as_os_str())).collect()
    }

    fn tool(&self, argv: &[&str]) -> Result<String> {
        run(Command::new(argv[0]).args(&argv[1..]).envs(self.environment()))
    }

    fn vsctl(&self, arguments: &[&str]) -> Result<String> {
        let database = format!("--db=unix:{}", path(&self.file("db.sock"))?);
        self.tool(&[&["ovs-vsctl", &database, "--timeout=30"], arguments].concat())
    }

    fn appctl(&self, arguments: &[&str]) -> Result<String> {
        self.tool(&[&["ovs-appctl", "-t", path(&self.control())?], arguments].concat())
    }
}
