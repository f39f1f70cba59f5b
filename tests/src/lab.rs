//! The usual topology: one network, two virtual machines `a` and `b`, two containers `c` and `d`.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::guest::{Guest, GuestSpec, Nic, configure_script};
use crate::netns::Netns;
use crate::palisade::{HOST, Palisade};
use crate::process::eventually;
use crate::scratch::Scratch;
use crate::shell::Shell;

/// How long a link may take to come up after an ordinary start.
pub const LINK: Duration = Duration::from_secs(15);
/// The network's addresses: gateway first.
pub const GATEWAY: [&str; 2] = ["10.0.1.1", "fd00:1::1"];

/// What a test changes about a card.
pub type Change = fn(Nic) -> Nic;

/// What a lab is made of.
pub struct LabSpec {
    /// Virtual machines by name, and what to change about their card.
    pub guests: Vec<(&'static str, Change)>,
    /// Containers by name.
    pub containers: Vec<&'static str>,
    /// Further words for `palisade up`.
    pub arguments: Vec<&'static str>,
    /// The network's `mtu`.
    pub mtu: &'static str,
    /// Queue pairs of every virtual machine's port, and processors of the machine.
    pub queues: u16,
    /// Groups and firewall policies that are declared before any workload.
    pub policy: &'static str,
    /// Labels of a workload, as YAML's inner words: `tier: web`.
    pub labels: fn(&str) -> &'static str,
}

/// A policy that lets everything pass, for tests that are about something else.
pub const OPEN: &str = "---\nkind: FirewallPolicy\nname: open\nspec:\n  tier: application\n  priority: 100\n  \
                        appliesTo: [any]\n  rules: [{ name: all, action: allow }]\n";

impl Default for LabSpec {
    /// Two machines with QEMU's defaults and one container.
    fn default() -> Self {
        Self {
            guests: vec![("a", |nic| nic), ("b", |nic| nic)],
            containers: vec!["c"],
            arguments: Vec::new(),
            mtu: "auto",
            queues: 1,
            policy: OPEN,
            labels: |_| "",
        }
    }
}

/// A container: a namespace with the port's TAP device.
#[derive(Debug)]
pub struct Container {
    /// Name of the workload.
    pub name: &'static str,
    /// Where its device is.
    pub netns: Netns,
}

/// A running topology.
#[derive(Debug)]
pub struct Lab {
    // In the order in which they have to go: guests before what they are attached to.
    guests: Vec<Guest>,
    containers: Vec<Container>,
    /// The process under test.
    pub palisade: Palisade,
    /// Where everything's files are.
    pub scratch: Scratch,
}

impl Lab {
    /// Starts palisade, declares the network and its workloads, boots the guests and waits for their links.
    ///
    /// # Errors
    /// When any of it fails; the message says what and holds the reports.
    pub fn start(spec: &LabSpec) -> Result<Self> {
        let scratch = Scratch::new("lab")?;
        let palisade = Palisade::start(scratch.path(), &spec.arguments)?;
        let mut containers = Vec::new();
        let mut yaml = network(spec.mtu) + spec.policy;
        for (name, change) in &spec.guests {
            let nic = change(Nic::new("", "")).with_queues(spec.queues);
            yaml.push_str(&labelled(&machine(name, &nic), (spec.labels)(name)));
        }
        for &name in &spec.containers {
            let netns = Netns::new(&format!("pal-{name}"))?;
            yaml.push_str(&labelled(&container(name, &netns), (spec.labels)(name)));
            containers.push(Container { name, netns });
        }
        palisade.apply(&yaml)?;
        let mut lab = Self { guests: Vec::new(), containers, palisade, scratch };
        lab.populate(spec).map_err(|error| error.context(lab.report()))?;
        Ok(lab)
    }

    fn populate(&mut self, spec: &LabSpec) -> Result<()> {
        for container in &self.containers {
            container.configure()?;
        }
        for (name, change) in &spec.guests {
            let guest = self.machine(name, *change, spec.queues)?;
            self.guests.push(Guest::start(guest, self.scratch.path())?);
        }
        for guest in &self.guests {
            guest.wait_ready()?;
            settle(guest)?;
        }
        Ok(())
    }

    /// What guest `name` is made of: its card has the socket and MAC that its port declares.
    ///
    /// # Errors
    /// When the API does not know its port.
    pub fn machine(&self, name: &str, change: Change, queues: u16) -> Result<GuestSpec> {
        let socket = self.palisade.socket(name, "eth0");
        let port = self.palisade.port(name, "eth0")?;
        let mac = port.mac()?;
        let nic =
            change(Nic::new(socket, &mac).with("host_mtu", &port.mtu().to_string())).with_queues(queues);
        Ok(GuestSpec::new(name).with_cpus(queues).with_nic(nic))
    }

    /// Guest by name.
    ///
    /// # Panics
    /// When the lab has no such guest: a mistake in the test.
    pub fn guest(&self, name: &str) -> &Guest {
        self.guests.iter().find(|guest| guest.name() == name).unwrap_or_else(|| panic!("no guest {name}"))
    }

    /// Container by name.
    ///
    /// # Panics
    /// When the lab has no such container: a mistake in the test.
    pub fn container(&self, name: &str) -> &Container {
        self.containers.iter().find(|it| it.name == name).unwrap_or_else(|| panic!("no container {name}"))
    }

    /// The end of a workload, of whatever kind.
    pub fn end(&self, name: &str) -> &dyn Shell {
        match self.containers.iter().find(|it| it.name == name) {
            Some(container) => &container.netns,
            None => self.guest(name),
        }
    }

    /// Replaces a guest's machine by a new one of the same making, as an operator would after a crash of the VMM.
    ///
    /// # Errors
    /// When the new one does not come up.
    pub fn replace(&mut self, name: &str) -> Result<()> {
        let at = self.guests.iter().position(|guest| guest.name() == name).context("no such guest")?;
        let spec = self.guests[at].spec().clone();
        drop(self.guests.remove(at));
        let guest = Guest::boot(spec, self.scratch.path())?;
        settle(&guest)?;
        self.guests.insert(at, guest);
        Ok(())
    }

    /// Puts a guest in the place of the one with the same name, which is ended.
    pub fn put(&mut self, guest: Guest) {
        self.guests.retain(|old| old.name() != guest.name());
        self.guests.push(guest);
    }

    /// Waits until the agent has told everybody of their neighbours, for checks that look at every frame that arrives. A
    /// port is told when its link comes up and again within a third of a second.
    ///
    /// # Errors
    /// When that does not end within some seconds.
    pub fn wait_announced(&self) -> Result<()> {
        let (mut before, mut since) = (Vec::new(), Instant::now());
        eventually("neighbours are announced no more", Duration::from_secs(15), || {
            let names = self.guests.iter().map(Guest::name).chain(self.containers.iter().map(|it| it.name));
            let told: Vec<u64> =
                names.map(|name| Ok(self.palisade.port(name, "eth0")?.announced())).collect::<Result<_>>()?;
            if told != before || told.contains(&0) {
                (before, since) = (told, Instant::now());
            }
            // Status comes once a second.
            Ok(since.elapsed() > Duration::from_millis(2500))
        })
    }

    /// Everything that helps to understand a failure.
    pub fn report(&self) -> String {
        let mut text = String::new();
        for guest in &self.guests {
            text += &guest.report();
            text.push('\n');
        }
        for container in &self.containers {
            let device =
                container.netns.ip(&["-s", "address", "show"]).unwrap_or_else(|error| format!("{error:#}"));
            text += &format!("--- container {} ---\n{device}\n", container.name);
        }
        text + &self.palisade.report()
    }
}

/// Runs a check over a topology of its own; its failure holds the topology's report.
///
/// # Errors
/// When the topology does not come up or the check fails.
pub fn with_lab(spec: &LabSpec, check: impl FnOnce(&mut Lab) -> Result<()>) -> Result<()> {
    let mut lab = Lab::start(spec)?;
    check(&mut lab).map_err(|error| error.context(lab.report()))
}

/// How many times a test repeats what has to hold again and again: 20, or `PALISADE_ROUNDS`.
pub fn rounds() -> usize {
    std::env::var("PALISADE_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(20)
}

impl Container {
    /// The device's name inside the namespace.
    pub fn device(&self) -> String {
        device(self.name)
    }

    /// Gives the device its addresses.
    ///
    /// # Errors
    /// When the device does not appear within a few seconds.
    pub fn configure(&self) -> Result<()> {
        let device = self.device();
        eventually(&format!("{device} appears in {}", self.netns.id()), Duration::from_secs(5), || {
            self.netns.succeeds(&format!("[ -d /sys/class/net/{device} ]"))
        })?;
        self.netns.run(&configure_script(&device, &addresses(self.name))).map(drop)
    }
}

/// The addresses of a workload, with their prefix lengths: `a` has 10.0.1.11 and fd00:1::11, `b` the next, and so on.
///
/// # Panics
/// When the name is not one lower case letter: a mistake in the test.
pub fn addresses(name: &str) -> [(IpAddr, u8); 2] {
    let letter =
        name.bytes().next().filter(u8::is_ascii_lowercase).unwrap_or_else(|| panic!("name {name:?}"));
    let n = 11 + (letter - b'a');
    [(v4(n), 24), (format!("fd00:1::{n}").parse().unwrap_or_else(|_| panic!("address {n}")), 64)]
}

/// 10.0.1.n.
pub fn v4(n: u8) -> IpAddr {
    IpAddr::from([10, 0, 1, n])
}

/// The IPv4 address of a workload.
pub fn v4_of(name: &str) -> IpAddr {
    addresses(name)[0].0
}

/// The IPv6 address of a workload.
pub fn v6_of(name: &str) -> IpAddr {
    addresses(name)[1].0
}

/// The TAP device of a container.
pub fn device(name: &str) -> String {
    format!("pal-{name}")
}

/// Gives a guest's first card its addresses and waits for the link.
///
/// # Errors
/// When there is none in time.
pub fn settle(guest: &Guest) -> Result<()> {
    guest.configure("eth0", &addresses(guest.name()))?;
    guest.wait_link("eth0", LINK)
}

fn network(mtu: &str) -> String {
    format!("kind: Network\nname: blue\nspec: {{ subnets: [10.0.1.0/24, \"fd00:1::/64\"], mtu: {mtu} }}\n")
}

/// A virtual machine's document.
pub fn machine(name: &str, nic: &Nic) -> String {
    let role = match nic.role {
        crate::guest::VmmRole::Connects => "server",
        crate::guest::VmmRole::Listens => "client",
    };
    workload(name, "vm", &format!("queues: {}, attach: {{ vhostUser: {{ role: {role} }} }}", nic.queues))
}

/// A container's document.
pub fn container(name: &str, netns: &Netns) -> String {
    let (device, netns) = (device(name), netns.id());
    workload(name, "container", &format!("attach: {{ tap: {{ device: {device}, netns: {netns} }} }}"))
}

/// A workload's document with labels.
pub fn labelled(document: &str, labels: &str) -> String {
    document.replacen("\nspec:\n", &format!("\nlabels: {{ {labels} }}\nspec:\n"), 1)
}

/// A workload's document with one port and further words about it.
pub fn workload(name: &str, kind: &str, port: &str) -> String {
    let [(v4, _), (v6, _)] = addresses(name);
    format!(
        "---\nkind: Workload\nname: {name}\nspec:\n  host: {HOST}\n  kind: {kind}\n  \
         ports: [{{ name: eth0, network: blue, addresses: [{v4}, \"{v6}\"], {port} }}]\n"
    )
}
