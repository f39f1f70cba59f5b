//! Debian packages: which are missing, why they are needed, and their installation.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// A package, a file that is there when it is installed, and what it is for.
pub(crate) type Need = (&'static str, &'static str, &'static str);

/// For guests, namespaces and what the tests do in them.
pub(crate) const GUESTS: [Need; 20] = [
    ("qemu-system-x86", "/usr/bin/qemu-system-x86_64", "runs the guests"),
    ("seabios", "/usr/share/seabios/bios-256k.bin", "the guests' firmware"),
    ("busybox-static", "/usr/share/doc/busybox-static", "the guests' and namespaces' commands"),
    ("cpio", "/usr/bin/cpio", "packs the guests' file system"),
    ("kmod", "/usr/sbin/modprobe", "finds the guests' drivers"),
    ("iproute2", "/usr/bin/ip", "makes namespaces"),
    ("iperf3", "/usr/bin/iperf3", "loads the network"),
    ("ethtool", "/usr/sbin/ethtool", "shows and changes offloads"),
    ("tcpdump", "/usr/bin/tcpdump", "captures what arrives"),
    ("tcpreplay", "/usr/bin/tcpreplay", "sends raw frames from a guest"),
    ("tshark", "/usr/bin/tshark", "decodes what hosts send each other"),
    ("openvswitch-switch", "/usr/sbin/ovs-vswitchd", "a tunnel endpoint of somebody else's making"),
    ("etcd-server", "/usr/bin/etcd", "the store of several managers"),
    ("python3", "/usr/bin/python3", "runs scapy"),
    ("python3-scapy", "/usr/share/doc/python3-scapy", "makes frames no honest stack would send"),
    ("python3-venv", "/usr/share/doc/python3-venv", "holds the OpenAPI validator"),
    ("curl", "/usr/bin/curl", "asks the API without our own client"),
    ("etcd-client", "/usr/bin/etcdctl", "says which of its members leads"),
    ("socat", "/usr/bin/socat", "a shell in a guest, for people"),
    ("procps", "/usr/bin/ps", "shows what is left running"),
];

/// For building.
pub(crate) const BUILD: [Need; 3] = [
    ("g++", "/usr/bin/g++", "builds the fuzzing engine"),
    ("protobuf-compiler", "/usr/bin/protoc", "generates etcd's messages"),
    ("libprotobuf-dev", "/usr/include/google/protobuf/any.proto", "what these messages are made of"),
];

/// For measurements beside their peers.
pub(crate) const BENCH: [Need; 11] = [
    ("dpdk-dev", "/usr/bin/dpdk-testpmd", "a peer: testpmd"),
    ("libdpdk-dev", "/usr/include/dpdk/rte_eal.h", "builds the load generator"),
    ("openvswitch-switch-dpdk", "/usr/share/doc/openvswitch-switch-dpdk", "a peer: Open vSwitch"),
    ("ethtool", "/usr/sbin/ethtool", "has the underlay of Open vSwitch compute checksums"),
    ("nftables", "/usr/sbin/nft", "a peer: the kernel's firewall"),
    ("pkg-config", "/usr/bin/pkg-config", "builds the load generator"),
    ("gcc", "/usr/bin/gcc", "builds the load generator"),
    ("iperf3", "/usr/bin/iperf3", "loads the network"),
    ("iproute2", "/usr/bin/ip", "makes namespaces"),
    ("busybox-static", "/usr/share/doc/busybox-static", "the namespaces' ping"),
    ("procps", "/usr/bin/ps", "sets the namespaces' parameters"),
];

/// Installs the packages that are missing and says which; asks for no input.
///
/// # Errors
/// When this is not a Debian machine, there is neither root nor sudo, or apt-get fails.
pub(crate) fn install(needs: &[Need]) -> Result<()> {
    let missing: Vec<&Need> = needs.iter().filter(|(_, file, _)| !Path::new(file).exists()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    println!("installing Debian packages that are missing:");
    for (package, _, purpose) in &missing {
        println!("  {package}: {purpose}");
    }
    let names: Vec<&str> = missing.iter().map(|(package, ..)| *package).collect();
    apt_get(&["update"])?;
    apt_get(&[["install", "--yes", "--no-install-recommends"].as_slice(), &names].concat())
}

fn apt_get(arguments: &[&str]) -> Result<()> {
    ensure!(Path::new("/usr/bin/apt-get").exists(), "no apt-get: install the packages above by hand");
    let mut command = if is_root()? {
        Command::new("apt-get")
    } else if Path::new("/usr/bin/sudo").exists() {
        let mut sudo = Command::new("sudo");
        sudo.args(["--preserve-env=DEBIAN_FRONTEND", "apt-get"]);
        sudo
    } else {
        bail!("neither root nor sudo: install the packages above by hand");
    };
    let output = command
        .args(["-q", "-o", "Dpkg::Use-Pty=0"])
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .output()
        .context("start apt-get")?;
    ensure!(
        output.status.success(),
        "apt-get {}:\n{}{}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// A command that runs as root: by sudo, with our environment, unless we are root.
///
/// # Errors
/// When nobody can say who we are.
pub(crate) fn root_command(program: &Path) -> Result<Command> {
    if is_root()? {
        return Ok(Command::new(program));
    }
    let mut sudo = Command::new("sudo");
    sudo.arg("--preserve-env").arg(program);
    Ok(sudo)
}

/// Whether we may do what root may.
pub(crate) fn is_root() -> Result<bool> {
    let id = Command::new("id").arg("-u").output().context("start id")?;
    Ok(id.stdout.trim_ascii() == b"0")
}
