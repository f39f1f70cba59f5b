//! The pipeline reads no clock, starts no thread, opens no file or socket and writes no log.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What only somebody impure names. `core` has none of it; of `std` the source may use what is listed below.
const ALLOWED_STD: [&str; 9] = [
    "std::collections::btree_map",
    "std::collections::BTreeMap",
    "std::sync::{Mutex, MutexGuard, PoisonError, TryLockError}",
    "std::sync::{Mutex, MutexGuard, PoisonError}",
    "std::sync::{Mutex, PoisonError}",
    "std::sync::{MutexGuard, PoisonError}",
    "std::sync::Mutex",
    "std::sync::Arc",
    "std::sync::PoisonError",
];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The source of a package without comments and without its test modules, which stand last.
fn code_of(package: &Path) -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    sources(&package.join("src"), &mut files);
    assert!(!files.is_empty());
    let code = |path: &PathBuf| {
        let text = fs::read_to_string(path).unwrap();
        let text = text.split("#[cfg(test)]").next().unwrap_or_default();
        let lines = text.lines().map(|line| line.split("//").next().unwrap_or_default());
        lines.collect::<Vec<_>>().join("\n")
    };
    files.iter().map(|path| (path.clone(), code(path))).collect()
}

fn packages() -> [PathBuf; 2] {
    let pipeline = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let wire = pipeline.parent().unwrap().join("wire");
    [pipeline, wire]
}

#[test]
fn the_source_names_no_clock_thread_file_or_socket() {
    for (path, code) in packages().iter().flat_map(|package| code_of(package)) {
        let mut rest = code.clone();
        for allowed in ALLOWED_STD {
            rest = rest.replace(allowed, "");
        }
        for word in
            ["std::", "println!", "print!", "dbg!", "log::", "extern ", "static mut", "thread_local!", "asm!"]
        {
            assert!(!rest.contains(word), "{} names {word}", path.display());
        }
    }
}

/// Without unsafe code there is no system call, and without other packages nobody else makes one.
#[test]
fn there_is_no_unsafe_code_and_no_other_dependency() {
    for package in packages() {
        let root = fs::read_to_string(package.join("src/lib.rs")).unwrap();
        assert!(root.contains("#![forbid(unsafe_code)]"), "{}", package.display());
        let manifest = fs::read_to_string(package.join("Cargo.toml")).unwrap();
        let dependencies = manifest.split("[dependencies]").nth(1).unwrap();
        let dependencies = dependencies.split("\n[").next().unwrap().lines();
        for line in dependencies.map(str::trim).filter(|line| !line.is_empty()) {
            let allowed =
                ["bytemuck.workspace = true", "thiserror.workspace = true", "wire.workspace = true"];
            assert!(allowed.contains(&line), "{}: {line}", package.display());
        }
    }
}

/// What a compiled package asks of the standard library: mutexes, which ask whether their holder panics.
const LINKED_STD: [&str; 2] = ["std::sys::sync::mutex::", "std::panicking::"];
/// What it could ask of the system without it: each with what may follow the name in another version of it.
const SYSTEM: [&str; 22] = [
    "clock_gettime",
    "gettimeofday",
    "time",
    "nanosleep",
    "pthread_create",
    "clone",
    "open",
    "openat",
    "fopen",
    "read",
    "write",
    "readv",
    "writev",
    "socket",
    "connect",
    "bind",
    "sendto",
    "recvfrom",
    "sendmsg",
    "recvmsg",
    "ioctl",
    "syscall",
];

/// The compiled packages lie beside this test.
#[test]
fn the_compiled_packages_link_no_clock_thread_file_or_socket() {
    let here = std::env::current_exe().unwrap();
    let beside = |entry: fs::DirEntry| {
        let name = entry.file_name().into_string().unwrap_or_default();
        let ours = name.starts_with("libpipeline-") || name.starts_with("libwire-");
        (ours && name.ends_with(".rlib")).then(|| entry.path())
    };
    let compiled: Vec<PathBuf> =
        fs::read_dir(here.parent().unwrap()).unwrap().filter_map(|entry| beside(entry.unwrap())).collect();
    assert!(compiled.len() >= 2, "{compiled:?}");
    let mut asked = 0;
    for package in compiled {
        // Whoever can link has the rest of binutils.
        let nm = Command::new("nm").args(["--demangle", "--undefined-only"]).arg(&package).output();
        let shown = nm.expect("nm, of binutils");
        assert!(shown.status.success(), "{}", String::from_utf8_lossy(&shown.stderr));
        let symbols = String::from_utf8_lossy(&shown.stdout).into_owned();
        for symbol in
            symbols.lines().filter_map(|line| line.split_once(" U ").map(|(_, symbol)| symbol.trim()))
        {
            asked += 1;
            let base = symbol.trim_end_matches("64").trim_start_matches('_');
            assert!(!SYSTEM.contains(&base), "{} links {symbol}", package.display());
            let std = symbol.starts_with("std::") || symbol.starts_with("<std::");
            let allowed =
                LINKED_STD.iter().any(|allowed| symbol.trim_start_matches('<').starts_with(allowed));
            assert!(!std || allowed, "{} links {symbol}", package.display());
        }
    }
    assert!(asked > 0, "no symbol was listed");
}
