//! A test bed: an agent in this process, network namespaces with TAP ports, guests with vhost-user ports.

pub(crate) mod guest;
pub(crate) mod packet;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use agent::{Config, Handle, Poll, Source, UnderlayConfig};
use mgmt_types::agent::{
    HostStatus, Link, Peer, PortStatus, Slice, SliceNetwork, SlicePolicy, SlicePort, SliceRule,
};
use mgmt_types::{Attach, MacAddr, PolicyMode, RuleAction, Tap, Tier, VhostUser};
use tokio::sync::mpsc;

use self::guest::Guest;

/// See the module. Namespaces and devices carry the process id, so that runs do not meet.
pub(crate) struct Bed {
    name: String,
    dir: tempfile::TempDir,
    namespaces: Vec<u32>,
    agent: Option<(Handle, mpsc::Sender<Slice>, mpsc::Receiver<HostStatus>)>,
    /// Number of workers of the next agent.
    pub(crate) workers: usize,
    /// Queues of each port.
    pub(crate) queues: u16,
    /// How workers of the next agent wait.
    pub(crate) poll: Poll,
    /// Connections that one port may have begun.
    pub(crate) max_flows_per_port: u32,
    /// Name of the next agent's host.
    pub(crate) host: String,
    /// The next agent's place in the network between hosts.
    pub(crate) underlay: UnderlayConfig,
}

/// Waits for something to become true, for at most ten seconds.
#[track_caller]
pub(crate) fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !check() {
        assert!(Instant::now() < end, "not within ten seconds: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A policy that lets everything through: these tests are about carrying frames.
fn everything_passes() -> SlicePolicy {
    SlicePolicy {
        name: "baseline".into(),
        revision: 1,
        tier: Tier::Baseline,
        priority: 1000,
        mode: PolicyMode::Enforce,
        applies_to: vec![Peer::Any],
        rules: vec![SliceRule {
            id: 1,
            name: "all".into(),
            direction: None,
            action: RuleAction::Allow,
            from: Vec::new(),
            to: Vec::new(),
            services: Vec::new(),
            log: false,
            keep_established: false,
        }],
    }
}

impl Bed {
    /// A bed without namespaces: for guests alone, needs no rights.
    pub(crate) fn without_namespaces(name: &str) -> Self {
        Self {
            name: format!("pal{}{name}", std::process::id()),
            dir: tempfile::tempdir().expect("a directory"),
            namespaces: Vec::new(),
            agent: None,
            workers: 1,
            queues: 1,
            poll: Poll::Adaptive,
            max_flows_per_port: Config::MAX_FLOWS / Config::PORTS_SHARE,
            host: "here".into(),
            underlay: UnderlayConfig::default(),
        }
    }

    /// A bed with namespaces 1 to `namespaces`. `None`, said on standard error, without the right to make them.
    pub(crate) fn new(name: &str, namespaces: u32) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            let mut out = std::io::stderr();
            let _ = writeln!(out, "skipped: network namespaces and TAP devices need root");
            return None;
        }
        let mut bed = Self::without_namespaces(name);
        (1..=namespaces).for_each(|n| bed.add_namespace(n));
        Some(bed)
    }

    pub(crate) fn has_namespaces(&self) -> bool {
        !self.namespaces.is_empty()
    }

    pub(crate) fn add_namespace(&mut self, n: u32) {
        run(&["ip", "netns", "add", &self.namespace(n)]);
        self.namespaces.push(n);
    }

    pub(crate) fn namespace(&self, n: u32) -> String {
        format!("{}-{n}", self.name)
    }

    pub(crate) fn device(&self, n: u32) -> String {
        format!("tap{n}")
    }

    pub(crate) fn start(&mut self) {
        let (slices, slice_inbox) = mpsc::channel(8);
        let (status_outbox, status) = mpsc::channel(1);
        let config = Config {
            host: self.host.clone(),
            state_dir: self.dir.path().join("state"),
            run_dir: self.dir.path().join("run"),
            workers: self.workers,
            cpus: Vec::new(),
            poll: self.poll,
            max_flows: Config::MAX_FLOWS,
            max_flows_per_port: self.max_flows_per_port,
            underlay: self.underlay.clone(),
            source: Source::Channel { slices: slice_inbox, status: status_outbox },
        };
        self.agent = Some((agent::run(config).expect("the agent starts"), slices, status));
    }

    pub(crate) fn stop(&mut self) {
        self.agent.take().expect("a running agent").0.stop();
    }

    /// A slice with these ports: port N has 10.77.0.N and fd77::N in namespace N.
    pub(crate) fn slice(&self, revision: u64, ports: &[u32]) -> Slice {
        let port = |&n: &u32| SlicePort {
            id: n,
            workload: format!("box-{n}"),
            name: "eth0".into(),
            network: "blue".into(),
            host: "here".into(),
            moved_from: None,
            mac: MacAddr([2, 0, 0, 0, 0, n as u8]),
            addresses: vec![
                format!("10.77.0.{n}").parse().expect("an address"),
                format!("fd77::{n}").parse().expect("an address"),
            ],
            attach: Attach::Tap(Tap { device: self.device(n), netns: Some(self.namespace(n)) }),
            queues: self.queues,
            rate_limit: None,
            identity: 0,
            firewall: true,
        };
        Slice {
            revision,
            host: "here".into(),
            networks: vec![SliceNetwork {
                name: "blue".into(),
                vni: 7,
                subnets: vec!["10.77.0.0/24".parse().expect("a net"), "fd77::/64".parse().expect("a net")],
                gateways: vec!["10.77.0.254".parse().expect("an address")],
                gateway_mac: MacAddr([2, 0, 0, 0, 9, 9]),
                mtu: 1500,
                router: None,
                mss_clamp: true,
            }],
            ports: ports.iter().map(port).collect(),
            policies: vec![everything_passes()],
            ..Slice::default()
        }
    }

    /// The same with vhost-user ports, of which workload `box-N` is a guest.
    pub(crate) fn guests(&self, revision: u64, ports: &[u32]) -> Slice {
        let mut slice = self.slice(revision, ports);
        for port in &mut slice.ports {
            port.attach = Attach::VhostUser(VhostUser::default());
        }
        slice
    }

    /// The socket of a guest's port.
    pub(crate) fn socket(&self, n: u32) -> PathBuf {
        agent::socket_path(&self.dir.path().join("run"), &format!("box-{n}"), "eth0")
    }

    pub(crate) fn send(&self, slice: Slice) {
        let (_, slices, _) = self.agent.as_ref().expect("a running agent");
        slices.blocking_send(slice).expect("the agent listens");
    }

    /// Sends a slice and waits until it is in force.
    pub(crate) fn put(&mut self, slice: Slice) {
        let revision = slice.revision;
        self.send(slice);
        eventually("the slice is in force", || self.status().revision == revision);
    }

    pub(crate) fn status(&self) -> HostStatus {
        self.agent.as_ref().expect("a running agent").0.status()
    }

    pub(crate) fn port(&self, n: u32) -> PortStatus {
        self.status().ports.into_iter().find(|port| port.id == n).expect("the port")
    }

    /// Waits until a guest was told of all its neighbours, three times; the frames that told it.
    pub(crate) fn announcements(&self, guest: &mut Guest) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        let mut told = Vec::new();
        eventually("the neighbours are announced", || {
            frames.extend(guest.receive(0).into_iter().map(|(_, frame)| frame));
            told.clone_from(&frames);
            told.sort();
            told.dedup();
            !told.is_empty() && frames.len() == 3 * told.len()
        });
        told
    }

    pub(crate) fn link(&self, n: u32) -> Link {
        self.port(n).link
    }

    /// Gives every device its addresses, as a container runtime would. Waits until IPv6 addresses may be used.
    pub(crate) fn address_all(&self) {
        for &n in &self.namespaces {
            let device = self.device(n);
            self.try_in_namespace(n, &["ip", "addr", "add", &format!("10.77.0.{n}/24"), "dev", &device]);
            self.try_in_namespace(
                n,
                &["ip", "addr", "add", &format!("fd77::{n}/64"), "dev", &device, "nodad"],
            );
        }
    }

    pub(crate) fn addresses(&self, n: u32) -> String {
        self.in_namespace(n, &["ip", "-o", "addr", "show", "dev", &self.device(n)])
    }

    pub(crate) fn interface_index(&self, n: u32) -> String {
        let line = self.in_namespace(n, &["ip", "-o", "link", "show", "dev", &self.device(n)]);
        line.split(':').next().unwrap_or_default().to_string()
    }

    /// The TAP devices of a namespace.
    pub(crate) fn devices(&self, n: u32) -> Vec<String> {
        let lines = self.in_namespace(n, &["ip", "-o", "link", "show"]);
        lines.lines().filter(|line| line.contains("tap")).map(str::to_string).collect()
    }

    pub(crate) fn delete_device(&self, n: u32) {
        self.in_namespace(n, &["ip", "link", "del", &self.device(n)]);
    }

    pub(crate) fn make_device(&self, n: u32) {
        let device = self.device(n);
        let add = ["ip", "tuntap", "add", "dev", &device, "mode", "tap", "multi_queue", "vnet_hdr"];
        self.in_namespace(n, &add);
    }

    pub(crate) fn ping(&self, from: u32, to: &str) {
        self.in_namespace(from, &["busybox", "ping", "-A", "-c", "4", "-W", "2", to]);
    }

    /// Sends `bytes` by TCP; how many arrived.
    pub(crate) fn transfer(&self, from: u32, to: u32, address: &str, bytes: u64) -> u64 {
        let listen = format!("TCP{}-LISTEN:5001,reuseaddr", if address.contains(':') { "6" } else { "4" });
        let mut receiver = self
            .command(to, &["socat", "-u", &listen, "SYSTEM:wc -c >&2"])
            .stderr(Stdio::piped())
            .spawn()
            .expect("socat");
        let target = if address.contains(':') {
            format!("TCP6:[{address}]:5001")
        } else {
            format!("TCP4:{address}:5001")
        };
        let send = format!("head -c {bytes} /dev/zero | socat -u - {target},retry=20,interval=0.1");
        self.in_namespace(from, &["sh", "-c", &send]);
        let mut counted = String::new();
        receiver.stderr.take().expect("a pipe").read_to_string(&mut counted).expect("text");
        receiver.wait().expect("ends");
        counted.trim().parse().unwrap_or_else(|_| panic!("not a number: {counted}"))
    }

    /// Asks the local API.
    pub(crate) fn get(&self, path: &str) -> String {
        let mut answer = String::new();
        self.open(path).read_to_string(&mut answer).expect("answers");
        let (head, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer");
        assert!(head.starts_with("HTTP/1.0 200"), "{head}");
        body.to_string()
    }

    /// Asks the local API, and leaves the answer to be read.
    pub(crate) fn open(&self, path: &str) -> UnixStream {
        let mut stream = self.local_api();
        write!(stream, "GET {path} HTTP/1.0\r\nhost: agent\r\n\r\n").expect("asks");
        stream
    }

    /// Sends JSON to the local API: the status line and the body of its answer.
    pub(crate) fn post(&self, path: &str, body: &str) -> (String, String) {
        let mut stream = self.local_api();
        let length = body.len();
        let head = format!(
            "POST {path} HTTP/1.0\r\nhost: agent\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
        );
        write!(stream, "{head}{body}").expect("asks");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("answers");
        let (head, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer");
        (head.lines().next().unwrap_or_default().to_string(), body.to_string())
    }

    fn local_api(&self) -> UnixStream {
        let stream = UnixStream::connect(self.dir.path().join("run/agent.sock")).expect("connects");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a bound");
        stream
    }

    /// How often the housekeeper of this process went to sleep so far (proc(5)).
    pub(crate) fn housekeeper_naps(&self) -> u64 {
        let mut naps = 0;
        for task in std::fs::read_dir("/proc/self/task").expect("procfs").flatten() {
            let Ok(status) = std::fs::read_to_string(task.path().join("status")) else { continue };
            let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            if status.starts_with("Name:\tpal-house") {
                naps += line.and_then(|count| count.trim().parse::<u64>().ok()).expect("a number");
            }
        }
        naps
    }

    /// CPU time that the worker threads of this process used so far (proc(5): utime and stime, in ticks of 10 ms).
    pub(crate) fn worker_cpu_time(&self) -> Duration {
        let mut ticks = 0;
        for task in std::fs::read_dir("/proc/self/task").expect("procfs").flatten() {
            let Ok(stat) = std::fs::read_to_string(task.path().join("stat")) else { continue };
            let Some((name, rest)) = stat.rsplit_once(')') else { continue };
            if name.contains("pal-worker") {
                let fields: Vec<u64> =
                    rest.split_whitespace().map(|field| field.parse().unwrap_or(0)).collect();
                ticks += fields[11] + fields[12];
            }
        }
        Duration::from_millis(ticks * 10)
    }

    #[track_caller]
    pub(crate) fn in_namespace(&self, n: u32, command: &[&str]) -> String {
        let output = self.command(n, command).output().expect("runs");
        assert!(
            output.status.success(),
            "{command:?}: {output:?}\nstatus: {:#?}",
            self.agent.as_ref().map(|a| a.0.status())
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    pub(crate) fn try_in_namespace(&self, n: u32, command: &[&str]) -> bool {
        self.command(n, command).output().expect("runs").status.success()
    }

    fn command(&self, n: u32, command: &[&str]) -> Command {
        let mut ip = Command::new("ip");
        ip.args(["netns", "exec", &self.namespace(n)]).args(command);
        ip
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.agent.take();
        for n in &self.namespaces {
            let _ = Command::new("ip").args(["netns", "del", &self.namespace(*n)]).status();
        }
    }
}

#[track_caller]
fn run(command: &[&str]) {
    let output = Command::new(command[0]).args(&command[1..]).output().expect("runs");
    assert!(output.status.success(), "{command:?}: {output:?}");
}
