//! Several hosts, each a namespace with an agent of its own, joined by an underlay; a manager beside them.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::daemon::Daemon;
use crate::fabric::Fabric;
use crate::guest::{Guest, GuestSpec, Nic, configure_script};
use crate::lab::{LINK, labelled};
use crate::netns::Netns;
use crate::palisade::Palisade;
use crate::process::{eventually, run, tail};
use crate::scratch::Scratch;
use crate::shell::Shell;

/// The device of each host on the underlay, and on the network that leads to the manager.
pub const UNDERLAY: &str = "u0";
const MANAGEMENT: &str = "m0";

/// The networks there are: name, the byte that tells their addresses apart, and router. The networks of router `rival` have
/// the addresses of those of router `shop`.
const NETWORKS: [(&str, u8, &str); 3] = [("blue", 1, "shop"), ("green", 2, "shop"), ("red", 1, "rival")];

/// How a workload is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A QEMU guest that connects to its host.
    Machine,
    /// A QEMU guest that its host connects to: it stays where it is when the workload moves.
    Movable,
    /// A namespace with a TAP device.
    Container,
}

/// A workload: a letter, its network, and the host it is on at first.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    /// One lower case letter.
    pub name: &'static str,
    /// One of the networks.
    pub network: &'static str,
    /// One of the hosts.
    pub host: &'static str,
    /// How it is attached.
    pub kind: Kind,
}

/// What a mesh is made of.
pub struct MeshSpec {
    /// Hosts by name.
    pub hosts: Vec<&'static str>,
    /// Workloads.
    pub members: Vec<Member>,
    /// Whether its machines are started; else they are only declared.
    pub boot: bool,
    /// Largest IP packet of the underlay, in bytes.
    pub mtu: u16,
    /// Whether hosts reach each other over IPv6, and not over IPv4.
    pub ipv6: bool,
    /// Groups and firewall policies.
    pub policy: &'static str,
    /// Labels of a workload, as YAML's inner words: `tier: web`.
    pub labels: fn(&str) -> &'static str,
}

impl Default for MeshSpec {
    /// Two hosts, each with a machine and a container: network `blue` has three of them, on both, `green` one.
    fn default() -> Self {
        let member = |name, network, host, kind| Member { name, network, host, kind };
        Self {
            hosts: vec!["host-a", "host-b"],
            members: vec![
                member("a", "blue", "host-a", Kind::Machine),
                member("b", "blue", "host-b", Kind::Machine),
                member("c", "blue", "host-a", Kind::Container),
                member("d", "green", "host-b", Kind::Container),
            ],
            boot: true,
            mtu: 1500,
            ipv6: false,
            policy: crate::lab::OPEN,
            labels: |_| "",
        }
    }
}

/// A running mesh.
#[derive(Debug)]
pub struct Mesh {
    // In the order in which they have to go: guests before what they are attached to.
    guests: Vec<Guest>,
    containers: Vec<(Member, Netns)>,
    /// The hosts.
    pub hosts: Vec<Host>,
    /// The manager, and the command line as the administrator has it.
    pub palisade: Palisade,
    /// The network between the hosts.
    pub underlay: Fabric,
    /// The network to the manager, and where that is.
    management: (Fabric, Netns),
    members: Vec<Member>,
    /// Where everything's files are.
    pub scratch: Scratch,
}

/// A host: a namespace with an agent in it.
#[derive(Debug)]
pub struct Host {
    /// Its name.
    pub name: &'static str,
    /// Its agent.
    pub agent: Daemon,
    /// Where it is.
    pub netns: Netns,
    /// Its address on the underlay.
    pub address: IpAddr,
    run_dir: PathBuf,
}

impl Host {
    /// What its agent says of its way to each other host, and of strangers.
    ///
    /// # Errors
    /// When the agent does not answer.
    pub fn peers(&self) -> Result<Vec<Value>> {
        let socket = self.run_dir.join("agent.sock");
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--max-time", "5", "--unix-socket"]).arg(socket);
        let output = run(command.arg("http://agent/v1/status"), Duration::from_secs(10))?;
        ensure!(output.success(), "the agent of {} does not answer: {}", self.name, output.errors);
        let status: Value = serde_json::from_str(&output.text).with_context(|| output.text.clone())?;
        Ok(status["peers"].as_array().cloned().unwrap_or_default())
    }

    fn socket(&self, workload: &str) -> PathBuf {
        self.run_dir.join("ports").join(format!("{workload}.eth0.sock"))
    }
}

impl Mesh {
    /// Starts the manager and the hosts, declares networks and workloads, boots the guests and waits for their links.
    ///
    /// # Errors
    /// When any of it fails; the message says what and holds the reports.
    pub fn start(spec: &MeshSpec) -> Result<Self> {
        let scratch = Scratch::new("mesh")?;
        let (management, place) = (Fabric::new("mgmt", 1500)?, Netns::new("manager")?);
        management.attach(&place, MANAGEMENT, &[(managed(0), 24)])?;
        let dir = scratch.join("manager");
        std::fs::create_dir(&dir)?;
        let palisade = Palisade::manager(&dir, &place, managed(0))?;
        let underlay = Fabric::new("under", spec.mtu)?;
        let mut hosts = Vec::new();
        for (n, name) in (1..).zip(&spec.hosts) {
            hosts.push(join(name, n, spec.ipv6, &scratch, &palisade, &management, &underlay)?);
        }
        let mut mesh = Self {
            guests: Vec::new(),
            containers: Vec::new(),
            hosts,
            palisade,
            underlay,
            management: (management, place),
            members: spec.members.clone(),
            scratch,
        };
        mesh.populate(spec).map_err(|error| error.context(mesh.report()))?;
        Ok(mesh)
    }

    fn populate(&mut self, spec: &MeshSpec) -> Result<()> {
        let mut yaml = networks(&spec.members) + spec.policy;
        for member in &spec.members {
            if member.kind == Kind::Container {
                self.containers.push((*member, Netns::new(&format!("pal-{}", member.name))?));
            }
            yaml.push_str(&labelled(&self.document(member.name, member.host)?, (spec.labels)(member.name)));
        }
        self.palisade.apply(&yaml)?;
        for member in spec.members.iter().filter(|_| spec.boot) {
            if member.kind != Kind::Container {
                self.guests.push(Guest::start(self.machine(member)?, self.scratch.path())?);
            }
        }
        for (member, netns) in &self.containers {
            settle_container(member, netns)?;
        }
        self.settle_machines()
    }

    fn machine(&self, member: &Member) -> Result<GuestSpec> {
        let port = self.palisade.port(member.name, "eth0")?;
        let nic = match member.kind {
            Kind::Movable => Nic::new(self.movable_socket(member.name), &port.mac()?).listening(),
            _ => Nic::new(self.host(member.host).socket(member.name), &port.mac()?),
        };
        Ok(GuestSpec::new(member.name).with_nic(nic.with("host_mtu", &port.mtu().to_string())))
    }

    fn movable_socket(&self, name: &str) -> PathBuf {
        self.scratch.join(format!("{name}.sock"))
    }

    fn member(&self, name: &str) -> Result<&Member> {
        self.members.iter().find(|member| member.name == name).with_context(|| format!("no member {name}"))
    }

    /// The document of a workload on a host.
    ///
    /// # Errors
    /// When the mesh has no such workload.
    pub fn document(&self, name: &str, host: &str) -> Result<String> {
        let member = self.member(name)?;
        let (kind, attach) = match member.kind {
            Kind::Machine => ("vm", "vhostUser: { role: server }".to_owned()),
            Kind::Movable => {
                let socket = self.movable_socket(name);
                ("vm", format!("vhostUser: {{ role: client, socket: {} }}", socket.display()))
            }
            Kind::Container => {
                let container = self.containers.iter().find(|(member, _)| member.name == name);
                let netns = &container.context("no namespace")?.1;
                ("container", format!("tap: {{ device: pal-{name}, netns: {} }}", netns.id()))
            }
        };
        let [(v4, _), (v6, _)] = addresses(member);
        let network = member.network;
        Ok(format!(
            "---\nkind: Workload\nname: {name}\nspec:\n  host: {host}\n  kind: {kind}\n  ports: [{{ name: eth0, \
             network: {network}, addresses: [{v4}, \"{v6}\"], attach: {{ {attach} }} }}]\n"
        ))
    }

    /// The namespace of the manager.
    pub fn manager(&self) -> &Netns {
        &self.management.1
    }

    /// Host by name.
    ///
    /// # Panics
    /// When the mesh has no such host: a mistake in the test.
    pub fn host(&self, name: &str) -> &Host {
        self.hosts.iter().find(|host| host.name == name).unwrap_or_else(|| panic!("no host {name}"))
    }

    /// Guest by name.
    ///
    /// # Panics
    /// When the mesh has no such guest: a mistake in the test.
    pub fn guest(&self, name: &str) -> &Guest {
        self.guests.iter().find(|guest| guest.name() == name).unwrap_or_else(|| panic!("no guest {name}"))
    }

    /// Namespace of a container by name.
    ///
    /// # Panics
    /// When the mesh has no such container: a mistake in the test.
    pub fn container(&self, name: &str) -> &Netns {
        let found = self.containers.iter().find(|(member, _)| member.name == name);
        &found.unwrap_or_else(|| panic!("no container {name}")).1
    }

    /// The end of a workload, of whatever kind, and its device there.
    pub fn end(&self, name: &str) -> (&dyn Shell, String) {
        match self.containers.iter().find(|(member, _)| member.name == name) {
            Some((_, netns)) => (netns, format!("pal-{name}")),
            None => (self.guest(name), "eth0".to_owned()),
        }
    }

    /// The shell of a workload.
    pub fn shell(&self, name: &str) -> &dyn Shell {
        self.end(name).0
    }

    /// The IPv4 and the IPv6 address of a workload.
    ///
    /// # Panics
    /// When the mesh has no such workload: a mistake in the test.
    pub fn addresses(&self, name: &str) -> [IpAddr; 2] {
        addresses(self.member(name).unwrap_or_else(|_| panic!("no workload {name}")))
            .map(|(address, _)| address)
    }

    /// The IPv4 address of a workload.
    pub fn v4(&self, name: &str) -> IpAddr {
        self.addresses(name)[0]
    }

    /// The IPv6 address of a workload.
    pub fn v6(&self, name: &str) -> IpAddr {
        self.addresses(name)[1]
    }

    /// The VNI of a network.
    ///
    /// # Errors
    /// When there is no such network.
    pub fn vni(&self, network: &str) -> Result<u64> {
        let answer = self.palisade.json(&["get", "networks", network])?;
        let one = answer.get("items").and_then(|items| items.get(0)).or_else(|| answer.get(0));
        let vni = one.unwrap_or(&answer)["status"]["vni"].as_u64();
        vni.with_context(|| format!("no vni in {answer:#}"))
    }

    /// The number of a workload's port, which its packets may carry.
    ///
    /// # Errors
    /// When there is no such workload.
    pub fn port_id(&self, name: &str) -> Result<u64> {
        let port = self.palisade.port(name, "eth0")?;
        port.0["id"].as_u64().with_context(|| format!("no id in {}", port.0))
    }

    /// Packets of the underlay that a host refused for a reason, from all its peers and from strangers.
    ///
    /// # Errors
    /// When its agent does not answer.
    pub fn underlay_drops(&self, host: &str, reason: &str) -> Result<u64> {
        let peers = self.host(host).peers()?;
        Ok(peers.iter().filter_map(|peer| peer["drops"][reason].as_u64()).sum())
    }

    /// QEMU's arguments for a workload's port, one word each, as its host prints them for scripts.
    ///
    /// # Errors
    /// When there is no such workload.
    pub fn qemu_arguments(&self, name: &str) -> Result<Vec<String>> {
        let memory = format!("{}M", crate::guest::MEMORY);
        let mut command = self.palisade.client();
        command.env("PALISADE_RUN_DIR", &self.host(self.member(name)?.host).run_dir);
        command.args(["port", "attach", name, "--qemu", "--memory", &memory]);
        let output = run(&mut command, Duration::from_secs(20))?;
        ensure!(output.success(), "palisade port attach {name}: {}", output.errors);
        Ok(output.text.split_whitespace().map(str::to_owned).collect())
    }

    /// Starts machines that were declared, with the arguments that their hosts print, and waits for their links.
    ///
    /// # Errors
    /// When one does not come up.
    pub fn boot(&mut self, machines: &[(&str, Vec<String>)]) -> Result<()> {
        for (name, arguments) in machines {
            let spec = GuestSpec::new(name).with_nic_arguments(arguments);
            self.guests.push(Guest::start(spec, self.scratch.path())?);
        }
        self.settle_machines()
    }

    fn settle_machines(&self) -> Result<()> {
        for guest in &self.guests {
            guest.wait_ready()?;
            guest.run(&configuration("eth0", self.member(guest.name())?))?;
            guest.wait_link("eth0", LINK)?;
        }
        Ok(())
    }

    /// Everything that helps to understand a failure.
    pub fn report(&self) -> String {
        let mut text = String::new();
        for guest in &self.guests {
            text += &guest.report();
            text.push('\n');
        }
        let shown =
            |netns: &Netns| netns.ip(&["-s", "address", "show"]).unwrap_or_else(|error| format!("{error:#}"));
        for (member, netns) in &self.containers {
            text += &format!("--- container {} ---\n{}\n", member.name, shown(netns));
        }
        for host in &self.hosts {
            let log = host.agent.log();
            text += &format!("--- {} ---\n{}\n{}\n", host.name, tail(&log, 40), shown(&host.netns));
            text += &format!("{:#?}\n", host.peers().unwrap_or_default());
        }
        text + &self.palisade.report()
    }
}

/// Runs a check over a mesh of its own; its failure holds the mesh's report.
///
/// # Errors
/// When the mesh does not come up or the check fails.
pub fn with_mesh(spec: &MeshSpec, check: impl FnOnce(&mut Mesh) -> Result<()>) -> Result<()> {
    let mut mesh = Mesh::start(spec)?;
    check(&mut mesh).map_err(|error| error.context(mesh.report()))
}

/// Makes a host and has it join.
fn join(
    name: &'static str,
    n: u8,
    ipv6: bool,
    scratch: &Scratch,
    palisade: &Palisade,
    management: &Fabric,
    underlay: &Fabric,
) -> Result<Host> {
    let netns = Netns::new(name)?;
    management.attach(&netns, MANAGEMENT, &[(managed(n), 24)])?;
    let (address, prefix) =
        if ipv6 { (format!("2001:db8::{n}").parse()?, 64) } else { (IpAddr::from([192, 0, 2, n]), 24) };
    underlay.attach(&netns, UNDERLAY, &[(address, prefix)])?;
    let dir = scratch.join(name);
    std::fs::create_dir(&dir)?;
    let agent = start_agent(name, &dir, &netns, palisade, address)?;
    Ok(Host { name, agent, netns, address, run_dir: dir.join("run") })
}

fn start_agent(
    name: &str,
    dir: &Path,
    netns: &Netns,
    palisade: &Palisade,
    address: IpAddr,
) -> Result<Daemon> {
    let [state, run] = ["state", "run"].map(|name| dir.join(name).display().to_string());
    let (url, address) = (palisade.url(), address.to_string());
    let token = palisade.cli(&["join-token", "create", "--host", name])?;
    let words = [
        &["agent", "--host", name, "--state-dir", &state, "--run-dir", &run][..],
        &["--join", &url, "--token", token.trim(), "--underlay", &address],
    ];
    let words = words.concat().into_iter().map(str::to_owned).collect();
    Daemon::start(dir, Some(netns), words)
}

fn settle_container(member: &Member, netns: &Netns) -> Result<()> {
    let device = format!("pal-{}", member.name);
    eventually(&format!("{device} appears in {}", netns.id()), Duration::from_secs(5), || {
        netns.succeeds(&format!("[ -d /sys/class/net/{device} ]"))
    })?;
    netns.run(&configuration(&device, member)).map(drop)
}

/// Addresses, and default routes by the network's gateways.
fn configuration(device: &str, member: &Member) -> String {
    let byte = byte(member);
    let script = configure_script(device, &addresses(member));
    let routes = format!(
        "ip route add default via 10.0.{byte}.1 dev {device} && ip -6 route add default via fd00:{byte}::1 dev {device}"
    );
    format!("{script} && {routes}")
}

/// Addresses with their prefix lengths: `a` has .11 and ::11, `b` the next, and so on.
fn addresses(member: &Member) -> [(IpAddr, u8); 2] {
    let letter = member.name.bytes().next().filter(u8::is_ascii_lowercase);
    let n = 11 + letter.map_or(0, |letter| letter - b'a');
    let byte = u16::from(byte(member));
    let v6 = [0xfd00, byte, 0, 0, 0, 0, 0, u16::from(n / 10 * 16 + n % 10)];
    [(IpAddr::from([10, 0, byte.to_be_bytes()[1], n]), 24), (IpAddr::from(v6), 64)]
}

fn byte(member: &Member) -> u8 {
    NETWORKS.iter().find(|(name, ..)| *name == member.network).map_or(0, |(_, byte, _)| *byte)
}

fn networks(members: &[Member]) -> String {
    let used = NETWORKS.iter().filter(|(name, ..)| members.iter().any(|member| member.network == *name));
    let document = |(name, byte, router): &(&str, u8, &str)| {
        format!(
            "---\nkind: Network\nname: {name}\nspec: {{ subnets: [10.0.{byte}.0/24, \"fd00:{byte}::/64\"], router: {router} }}\n"
        )
    };
    used.map(document).collect()
}

/// An address on the network that leads to the manager, who has the first.
fn managed(n: u8) -> IpAddr {
    IpAddr::from([198, 51, 100, 1 + n])
}
