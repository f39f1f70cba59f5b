//! A private Open vSwitch: its database, its data path daemon, and the tools that tell it what to do.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::hugepages::path;
use crate::process::{Process, run};
use crate::switch::{dpdk_runtime, wait_for};

/// The data path daemon with DPDK, as Debian builds it.
pub(crate) const WITH_DPDK: &str = "/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk";

/// The same without: packets of a device are read and written by AF_PACKET sockets.
pub(crate) const PLAIN: &str = "/usr/lib/openvswitch-switch/ovs-vswitchd";

/// The tools speak the newest protocol that the daemon does.
const OFCTL: [&str; 3] = ["ovs-ofctl", "-O", "OpenFlow15"];

/// A running one, with all its files in one directory.
#[derive(Debug)]
pub(crate) struct Vswitchd {
    /// The data path daemon, then its database.
    processes: Vec<Process>,
    work: PathBuf,
    runtime: Vec<(&'static str, OsString)>,
}

impl Vswitchd {
    /// Starts the database and then `daemon`, a program with the words before it that say where, both on `cpu` but
    /// for threads that pin themselves. `settings` are its `other_config`.
    pub(crate) fn start(work: &Path, cpu: &str, daemon: &[&str], settings: &[String]) -> Result<Vswitchd> {
        let directories = ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR"];
        let runtime = directories.map(|name| (name, work.into())).into();
        let mut switch = Vswitchd { processes: Vec::new(), work: work.to_owned(), runtime };
        switch.start_database(cpu)?;
        if !settings.is_empty() {
            let settings: Vec<String> =
                settings.iter().map(|setting| format!("other_config:{setting}")).collect();
            let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
            switch.vsctl(&[&["--no-wait", "set", "Open_vSwitch", "."], &settings[..]].concat())?;
        }
        switch.start_daemon(cpu, daemon)?;
        Ok(switch)
    }

    /// The data path daemon, then its database.
    pub(crate) fn processes(&self) -> &[Process] {
        &self.processes
    }

    /// The same, to look after them.
    pub(crate) fn processes_mut(&mut self) -> &mut [Process] {
        &mut self.processes
    }

    /// `ovs-vsctl`.
    pub(crate) fn vsctl(&self, arguments: &[&str]) -> Result<String> {
        let database = format!("--db=unix:{}", path(&self.file("db.sock"))?);
        self.tool(&[&["ovs-vsctl", &database, "--timeout=30"], arguments].concat())
    }

    /// `ovs-appctl`, to the data path daemon.
    pub(crate) fn appctl(&self, arguments: &[&str]) -> Result<String> {
        self.tool(&[&["ovs-appctl", "-t", path(&self.control())?], arguments].concat())
    }

    /// Adds flows, one a line, to a bridge.
    pub(crate) fn add_flows(&self, bridge: &str, flows: &str) -> Result<()> {
        let file = self.file("flows");
        fs::write(&file, flows)?;
        self.tool(&[&OFCTL[..], &["add-flows", bridge, path(&file)?]].concat()).map(drop)
    }

    fn start_database(&mut self, cpu: &str) -> Result<()> {
        let (data, socket) = (self.file("conf.db"), self.file("db.sock"));
        self.tool(&["ovsdb-tool", "create", path(&data)?, "/usr/share/openvswitch/vswitch.ovsschema"])?;
        let remote = format!("--remote=punix:{}", path(&socket)?);
        let control = format!("--unixctl={}", path(&self.file("ovsdb.ctl"))?);
        let argv = ["ovsdb-server", path(&data)?, &remote, &control, "-vconsole:warn"];
        let database = Process::start("ovsdb-server", &self.work, Some(cpu), &self.environment(), &argv)?;
        self.processes.push(database);
        wait_for(&[socket])?;
        self.vsctl(&["--no-wait", "init"])?;
        Ok(())
    }

    fn start_daemon(&mut self, cpu: &str, daemon: &[&str]) -> Result<()> {
        let database = format!("unix:{}", path(&self.file("db.sock"))?);
        let control = format!("--unixctl={}", path(&self.control())?);
        let log = format!("--log-file={}", path(&self.file("vswitchd-full.log"))?);
        let argv = [daemon, &[&database, &control, &log, "--disable-system", "-vconsole:off"]].concat();
        let runtime = [&self.environment()[..], &dpdk_runtime(&self.work)].concat();
        let daemon = Process::start("ovs-vswitchd", &self.work, Some(cpu), &runtime, &argv)?;
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
}
