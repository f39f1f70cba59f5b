//! A QEMU guest with vhost-user network cards.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::console::Console;
use crate::image::image;
use crate::netns::inside;
use crate::process::{Process, eventually, read_lossy, tail};
use crate::qmp::Qmp;
use crate::shell::{Output, Shell};

/// How long a guest may take to boot; alone it takes 3 s, on a busy machine several times that.
pub const BOOT: Duration = Duration::from_secs(60);

/// A guest's memory in MiB when nothing else is said: a file of 100 MB fits in.
pub const MEMORY: u32 = 384;

/// Which side of a vhost-user socket the VMM takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VmmRole {
    /// Palisade listens; QEMU connects, and again every second after a loss.
    Connects,
    /// QEMU listens; Palisade connects.
    Listens,
}

/// One network card.
#[derive(Clone, Debug)]
pub struct Nic {
    /// The vhost-user socket.
    pub socket: PathBuf,
    /// Who listens on it.
    pub role: VmmRole,
    /// Hardware address, as the port declares it.
    pub mac: String,
    /// Queue pairs; more than one also asks for the control queue's steering (`mq=on`).
    pub queues: u16,
    /// Further properties of `virtio-net-pci`: `("guest_tso4", "off")`, `("host_mtu", "9000")`, ...
    pub properties: Vec<(String, String)>,
}

impl Nic {
    /// A card with one queue pair and QEMU's own defaults, connecting to `socket`.
    pub fn new(socket: impl Into<PathBuf>, mac: &str) -> Self {
        Self {
            socket: socket.into(),
            role: VmmRole::Connects,
            mac: mac.to_owned(),
            queues: 1,
            properties: Vec::new(),
        }
    }

    /// Sets one property of the device.
    pub fn with(mut self, property: &str, value: &str) -> Self {
        self.properties.push((property.to_owned(), value.to_owned()));
        self
    }

    /// Asks for `queues` pairs.
    pub fn with_queues(mut self, queues: u16) -> Self {
        self.queues = queues;
        self
    }

    /// Lets QEMU listen.
    pub fn listening(mut self) -> Self {
        self.role = VmmRole::Listens;
        self
    }

    /// Turns every checksum and segmentation offload on or off, both directions.
    pub fn with_offloads(mut self, on: bool) -> Self {
        let value = if on { "on" } else { "off" };
        for property in OFFLOADS {
            self = self.with(property, value);
        }
        self
    }

    fn arguments(&self, n: usize) -> Vec<String> {
        let socket = self.socket.display();
        let role = match self.role {
            VmmRole::Connects => "reconnect=1",
            VmmRole::Listens => "server=on,wait=off",
        };
        let mut device = format!(
            "virtio-net-pci,id=nic{n},netdev=net{n},mac={},disable-legacy=on,romfile=,{VECTORS}",
            self.mac
        );
        if self.queues > 1 {
            device.push_str(",mq=on");
        }
        for (property, value) in &self.properties {
            device.push_str(&format!(",{property}={value}"));
        }
        vec![
            "-chardev".into(),
            format!("socket,id=vhost{n},path={socket},{role}"),
            "-netdev".into(),
            format!("vhost-user,id=net{n},chardev=vhost{n},queues={},vhostforce=on", self.queues),
            "-device".into(),
            device,
        ]
    }
}

/// QEMU 7.2 ends with a segmentation fault when a vhost-user card uses MSI-X under TCG.
const VECTORS: &str = "vectors=0";
const OFFLOADS: [&str; 10] = [
    "csum",
    "guest_csum",
    "host_tso4",
    "host_tso6",
    "host_ecn",
    "guest_tso4",
    "guest_tso6",
    "guest_ecn",
    "host_ufo",
    "guest_ufo",
];

/// What a guest is made of.
#[derive(Clone, Debug)]
pub struct GuestSpec {
    /// Name, also of its files in the scratch directory.
    pub name: String,
    /// Network cards in order; the guest calls them eth0, eth1, ...
    pub nics: Vec<Nic>,
    /// QEMU arguments for the network instead of `nics`: what `palisade port attach --qemu` printed.
    pub nic_arguments: Vec<String>,
    /// Memory in MiB.
    pub memory: u32,
    /// Processors.
    pub cpus: u16,
    /// The network namespace in which QEMU runs, by name; for cards that are TAP devices there.
    pub netns: Option<String>,
    /// Wait for the state of another guest (`-incoming`) instead of booting.
    pub incoming: Option<PathBuf>,
}

impl GuestSpec {
    /// A guest with [`MEMORY`] and one processor.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            nics: Vec::new(),
            nic_arguments: Vec::new(),
            memory: MEMORY,
            cpus: 1,
            netns: None,
            incoming: None,
        }
    }

    /// Adds a card.
    pub fn with_nic(mut self, nic: Nic) -> Self {
        self.nics.push(nic);
        self
    }

    /// Takes the network arguments as they are, but for `VECTORS` and without a boot ROM.
    pub fn with_nic_arguments(mut self, arguments: &[String]) -> Self {
        for argument in arguments {
            let ours = argument.starts_with("virtio-net-pci");
            self.nic_arguments.push(argument.clone() + if ours { ",romfile=,vectors=0" } else { "" });
        }
        self
    }

    /// Sets the number of processors.
    pub fn with_cpus(mut self, cpus: u16) -> Self {
        self.cpus = cpus;
        self
    }
}

/// A running guest; its machine ends when dropped.
#[derive(Debug)]
pub struct Guest {
    spec: GuestSpec,
    console: Mutex<Console>,
    qmp: Mutex<Qmp>,
    // After the connections, so that it is dropped last.
    qemu: Mutex<Process>,
    kernel_log: PathBuf,
    qemu_log: PathBuf,
}

impl Guest {
    /// Starts QEMU; [`Guest::wait_ready`] waits for the guest inside. Files go to `dir`.
    ///
    /// # Errors
    /// When there is no guest image or QEMU does not start.
    pub fn start(spec: GuestSpec, dir: &Path) -> Result<Self> {
        let image = image()?;
        let file = |end: &str| dir.join(format!("{}.{end}", spec.name));
        let (con, qmp_path, kernel_log, qemu_log) =
            (file("con"), file("qmp"), file("kernel.log"), file("qemu.log"));
        // The memory backend comes with `palisade port attach`'s arguments; two of the same name would be refused.
        let own_memory = !spec.nic_arguments.iter().any(|argument| argument.starts_with("memory-backend"));
        let memory = format!("{}M", spec.memory);
        let program = "qemu-system-x86_64";
        let mut command = match &spec.netns {
            Some(netns) => inside(netns, program),
            None => Command::new(program),
        };
        command
            .args(["-accel", "tcg", "-cpu", "qemu64", "-nodefaults", "-display", "none"])
            .args(["-smp", &spec.cpus.to_string(), "-m", &format!("{memory},slots=4,maxmem=2G")])
            .arg("-chardev")
            .arg(format!("file,id=log,path={},append=on", kernel_log.display()))
            .args(["-serial", "chardev:log"])
            .arg("-chardev")
            .arg(format!("socket,id=con,path={},server=on,wait=off", con.display()))
            .args(["-serial", "chardev:con"])
            .arg("-chardev")
            .arg(format!("socket,id=tty,path={},server=on,wait=off", file("tty").display()))
            .args(["-serial", "chardev:tty"])
            .arg("-qmp")
            .arg(format!("unix:{},server=on,wait=off", qmp_path.display()))
            .arg("-kernel")
            .arg(&image.kernel)
            .arg("-initrd")
            .arg(&image.initrd)
            .args(["-append", "console=ttyS0 quiet panic=-1 tsc=unstable memhp_default_state=online"]);
        if own_memory {
            command
                .arg("-object")
                .arg(format!("memory-backend-memfd,id=mem0,size={memory},share=on"))
                .args(["-numa", "node,memdev=mem0"]);
        }
        for (n, nic) in spec.nics.iter().enumerate() {
            command.args(nic.arguments(n));
        }
        command.args(&spec.nic_arguments);
        if let Some(path) = &spec.incoming {
            command.arg("-incoming").arg(format!("unix:{}", path.display()));
        }
        // A killed predecessor leaves its sockets behind, and one would connect to nobody.
        for stale in [&con, &qmp_path] {
            let _ = std::fs::remove_file(stale);
        }
        let qemu = Process::spawn(&format!("QEMU {}", spec.name), &mut command, &qemu_log)?;
        let connect = || Ok::<_, anyhow::Error>((Console::connect(&con)?, Qmp::connect(&qmp_path)?));
        let (console, qmp) =
            connect().with_context(|| format!("QEMU says: {}", tail(&read_lossy(&qemu_log), 20)))?;
        Ok(Self {
            spec,
            console: Mutex::new(console),
            qmp: Mutex::new(qmp),
            qemu: Mutex::new(qemu),
            kernel_log,
            qemu_log,
        })
    }

    /// Starts a guest and waits until it obeys.
    ///
    /// # Errors
    /// As [`Guest::start`], and when the guest does not come up.
    pub fn boot(spec: GuestSpec, dir: &Path) -> Result<Self> {
        let guest = Self::start(spec, dir)?;
        guest.wait_ready()?;
        Ok(guest)
    }

    /// Waits until the guest obeys: after [`Guest::start`] and after a reset.
    ///
    /// # Errors
    /// When it does not come up within [`BOOT`]; the message holds its console.
    pub fn wait_ready(&self) -> Result<()> {
        let ready = lock(&self.console).wait_ready(BOOT);
        ready.with_context(|| self.report())
    }

    /// What the guest is made of.
    pub fn spec(&self) -> &GuestSpec {
        &self.spec
    }

    /// Runs a QMP command.
    ///
    /// # Errors
    /// When QEMU refuses it.
    pub fn qmp(&self, command: &str, arguments: Value) -> Result<Value> {
        lock(&self.qmp).execute(command, arguments)
    }

    /// Presses the machine's reset button and waits until the guest is up again.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn reset(&self) -> Result<()> {
        self.qmp("system_reset", json!({}))?;
        self.wait_ready()
    }

    /// Ends the machine at once, as a crash of the VMM would.
    pub fn kill(&self) {
        lock(&self.qemu).kill();
    }

    /// Adds `mib` of memory while the guest runs: the VMM then sends a new memory table.
    ///
    /// # Errors
    /// When QEMU refuses it.
    pub fn add_memory(&self, id: &str, mib: u32) -> Result<()> {
        let bytes = u64::from(mib) << 20;
        let backend = json!({ "qom-type": "memory-backend-memfd", "id": id, "size": bytes, "share": true });
        self.qmp("object-add", backend)?;
        self.qmp("device_add", json!({ "driver": "pc-dimm", "id": format!("{id}-dimm"), "memdev": id }))?;
        Ok(())
    }

    /// Brings a card up with addresses. Duplicate address detection is off in every guest and namespace of ours.
    ///
    /// # Errors
    /// When the guest has no such card.
    pub fn configure(&self, device: &str, addresses: &[(IpAddr, u8)]) -> Result<()> {
        self.run(&configure_script(device, addresses)).map(drop)
    }

    /// Waits until the guest sees the card's link up.
    ///
    /// # Errors
    /// When it does not within `bound`.
    pub fn wait_link(&self, device: &str, bound: Duration) -> Result<()> {
        eventually(&format!("{device} of {} has a link", self.spec.name), bound, || {
            Ok(self.run(&format!("cat /sys/class/net/{device}/carrier 2>/dev/null || true"))?.trim() == "1")
        })
    }

    /// A file of the guest, through the command channel.
    ///
    /// # Errors
    /// When the guest cannot write it.
    pub fn put_file(&self, path: &str, bytes: &[u8]) -> Result<()> {
        let coded = crate::console::base64(bytes);
        self.run(&format!("echo {coded} | base64 -d > {path}")).map(drop)
    }

    /// What helps to understand a failure: the guest's console and QEMU's own words.
    pub fn report(&self) -> String {
        format!(
            "--- guest {}: kernel ---\n{}\n--- guest {}: QEMU ---\n{}",
            self.spec.name,
            tail(&read_lossy(&self.kernel_log), 30),
            self.spec.name,
            tail(&read_lossy(&self.qemu_log), 20),
        )
    }
}

/// Commands that bring a device up with addresses, in a guest or in a namespace.
pub fn configure_script(device: &str, addresses: &[(IpAddr, u8)]) -> String {
    let mut script = format!("ip link set {device} up");
    for (address, prefix) in addresses {
        let family = if address.is_ipv6() { "-6" } else { "-4" };
        script.push_str(&format!(" && ip {family} addr add {address}/{prefix} dev {device}"));
    }
    script
}

impl Shell for Guest {
    fn name(&self) -> &str {
        &self.spec.name
    }

    fn files(&self) -> &str {
        "/tmp"
    }

    fn try_run(&self, script: &str, bound: Duration) -> Result<Output> {
        lock(&self.console).run(script, bound)
    }
}

/// A check that panicked must not hide what the next one finds.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
