//! The guests' kernel and initial file system, made once per build directory from Debian packages.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::process::{run, run_with_input};
use crate::scratch::cache_dir;

/// The meta package that depends on Debian's current kernel for virtual machines.
const KERNEL: &str = "linux-image-cloud-amd64";
/// Drivers the guest loads, what they depend on comes with them: its cards, and the kernel's own GENEVE.
const MODULES: [&str; 3] = ["virtio_pci", "virtio_net", "geneve"];
/// Programs the guest gets besides busybox, with the libraries they link.
/// busybox's own `ip` comes first in the path; `/usr/bin/ip` is the one that knows tunnels.
const TOOLS: [&str; 5] =
    ["/usr/bin/iperf3", "/usr/sbin/ethtool", "/usr/bin/tcpdump", "/usr/bin/tcpreplay", "/usr/bin/ip"];
const INIT: &str = include_str!("init.sh");

/// What QEMU needs to boot a guest.
#[derive(Clone, Debug)]
pub struct Image {
    /// Linux, bzImage.
    pub kernel: PathBuf,
    /// cpio archive, not compressed: unpacking is what an emulated processor is slow at.
    pub initrd: PathBuf,
}

/// The image, made now if there is none yet.
///
/// # Errors
/// When the kernel package cannot be downloaded or a tool that goes into the image is not installed.
pub fn image() -> Result<Image> {
    let cache = cache_dir()?;
    let lock = File::create(cache.join("guest.lock"))?;
    lock.lock()?;
    let dir = cache.join(format!("guest-{:016x}", recipe()));
    let image = Image { kernel: dir.join("vmlinuz"), initrd: dir.join("initrd.cpio") };
    if !image.initrd.exists() {
        build(&dir, &image).context("make the guest image (cargo xtask installs what this needs)")?;
    }
    Ok(image)
}

/// Changes whenever the image would.
fn recipe() -> u64 {
    let mut hasher = DefaultHasher::new();
    (KERNEL, MODULES, TOOLS, INIT).hash(&mut hasher);
    hasher.finish()
}

fn build(dir: &Path, image: &Image) -> Result<()> {
    let work = dir.join("work");
    if work.exists() {
        fs::remove_dir_all(&work)?;
    }
    let root = work.join("root");
    fs::create_dir_all(&root)?;
    let unpacked = unpack_kernel(&work)?;
    let modules = unpacked.join("lib/modules");
    let version = only_entry(&modules)?;
    let version = version.file_name().and_then(|name| name.to_str()).context("kernel version")?.to_owned();

    put(Path::new("/bin/busybox"), &root.join("bin/busybox"))?;
    for tool in TOOLS {
        put_with_libraries(Path::new(tool), &root)?;
    }
    put_modules(&unpacked, &version, &root)?;
    // tcpdump looks up whom to become.
    fs::create_dir_all(root.join("etc"))?;
    fs::write(root.join("etc/passwd"), "root:x:0:0::/:/bin/sh\n")?;
    fs::write(root.join("init"), INIT)?;
    fs::set_permissions(root.join("init"), fs::Permissions::from_mode(0o755))?;

    let list = checked(Command::new("find").arg(".").current_dir(&root))?;
    let initrd = work.join("initrd.cpio");
    let packed = run_with_input(
        Command::new("cpio").args(["-o", "-H", "newc", "--quiet", "-F"]).arg(&initrd).current_dir(&root),
        list.as_bytes(),
        Duration::from_secs(60),
    )?;
    ensure!(packed.success(), "cpio: {}", packed.errors);
    fs::copy(unpacked.join("boot").join(format!("vmlinuz-{version}")), &image.kernel)?;
    // Last, because its presence says that the image is whole.
    fs::rename(&initrd, &image.initrd)?;
    fs::remove_dir_all(&work)?;
    Ok(())
}

/// Downloads and unpacks the kernel package; nothing is installed.
fn unpack_kernel(work: &Path) -> Result<PathBuf> {
    let depends = checked(Command::new("apt-cache").args(["depends", KERNEL]))?;
    let package = depends
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .find(|package| package.starts_with("linux-image-"))
        .with_context(|| format!("{KERNEL} names no kernel: apt-get update?"))?;
    checked(Command::new("apt-get").args(["download", package]).current_dir(work))?;
    let deb = fs::read_dir(work)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|end| end == "deb"))
        .context("no package downloaded")?;
    let unpacked = work.join("kernel");
    checked(Command::new("dpkg-deb").arg("-x").args([&deb, &unpacked]))?;
    Ok(unpacked)
}

/// Copies the drivers in the order they have to be loaded and writes that order down.
fn put_modules(unpacked: &Path, version: &str, root: &Path) -> Result<()> {
    checked(Command::new("depmod").arg("-b").arg(unpacked).arg(version))?;
    let (mut seen, mut order) = (BTreeSet::new(), String::new());
    for module in MODULES {
        let depends = checked(Command::new("modprobe").arg("-d").arg(unpacked).args([
            "-S",
            version,
            "--show-depends",
            module,
        ]))?;
        for path in depends.lines().filter_map(|line| line.strip_prefix("insmod ")) {
            let path = Path::new(path.trim());
            let name = path.file_name().and_then(|name| name.to_str()).context("module name")?;
            if seen.insert(name.to_owned()) {
                put(path, &root.join("modules").join(name))?;
                order.push_str(&format!("/modules/{name}\n"));
            }
        }
    }
    fs::write(root.join("modules/order"), order)?;
    Ok(())
}

fn put_with_libraries(program: &Path, root: &Path) -> Result<()> {
    put(program, &inside(root, program))?;
    let libraries = checked(Command::new("ldd").arg(program))?;
    for word in libraries.split_whitespace().filter(|word| word.starts_with('/')) {
        put(Path::new(word), &inside(root, Path::new(word)))?;
    }
    Ok(())
}

fn inside(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

fn put(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to.parent().context("no parent")?)?;
    fs::copy(from, to).with_context(|| format!("copy {from:?}"))?;
    Ok(())
}

fn only_entry(dir: &Path) -> Result<PathBuf> {
    let mut entries = fs::read_dir(dir).with_context(|| format!("{dir:?}"))?;
    Ok(entries.next().with_context(|| format!("{dir:?} is empty"))??.path())
}

fn checked(command: &mut Command) -> Result<String> {
    let output = run(command, Duration::from_secs(120))?;
    ensure!(output.success(), "{command:?}: {}", output.errors);
    Ok(output.text)
}
