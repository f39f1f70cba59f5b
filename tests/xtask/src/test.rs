//! `cargo xtask test`: every check and test there is, in the order in which they fail fastest.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Result, bail, ensure};

use crate::packages;
use crate::step::{Steps, check, tee, tests};
use crate::tally::Tally;
use crate::{layering, workspace};

/// What to run.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Leave out fuzzing, loom, cargo-deny, and do 2 rounds where the whole test does 20
    #[arg(long)]
    quick: bool,
    /// Only tests (unit, property and end-to-end) whose names contain this
    #[arg(long)]
    filter: Option<String>,
}

/// Seconds that each fuzz target runs.
const FUZZ_SECONDS: u32 = 60;
/// Expected skips: one `name: reason` a line.
const SKIPS: &str = "tests/skips.txt";
/// The host's target triple, which sanitizer run-times and fuzz builds are named after.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Runs everything asked for and prints the table; whether all of it passed.
///
/// # Errors
/// When packages cannot be installed or the workspace cannot be read.
pub(crate) fn run(options: &Options) -> Result<bool> {
    std::env::set_current_dir(workspace::root()?)?;
    let begin = Instant::now();
    packages::install(&packages::GUESTS)?;
    packages::install(&packages::BUILD)?;
    let mut steps = Steps::default();
    let filter = options.filter.as_deref();
    if filter.is_none() {
        sources(&mut steps);
    }
    steps.run("unit and property tests", || unit(filter));
    if filter.is_none() {
        steps.run("documentation tests", || tests(&mut cargo(&["test", "--workspace", "--doc", "--quiet"])));
    }
    if filter.is_none() && !options.quick {
        deny(&mut steps);
        loom(&mut steps);
        fuzz(&mut steps);
    }
    steps.run("release build", || check(&mut cargo(&["build", "--release", "--package", "palisade"])));
    steps.run("end-to-end tests", || end_to_end(filter, options.quick));
    report(&steps, begin)
}

/// What is said about the sources without running them.
fn sources(steps: &mut Steps) {
    steps.run("format", || check(&mut cargo(&["fmt", "--all", "--check"])));
    steps.run("clippy", || {
        check(&mut cargo(&["clippy", "--workspace", "--all-targets", "--quiet", "--", "--deny", "warnings"]))
    });
    steps.run("dependency rule", || {
        let breaches = layering::breaches(&workspace::metadata()?)?;
        for breach in &breaches {
            println!("{breach}");
        }
        Ok(Tally::one(breaches.is_empty()))
    });
    steps.run("documentation builds", || {
        let mut doc = cargo(&["doc", "--workspace", "--no-deps", "--document-private-items", "--quiet"]);
        check(doc.env("RUSTDOCFLAGS", "--deny warnings"))
    });
}

fn unit(filter: Option<&str>) -> Result<Tally> {
    let mut command = if has("cargo-nextest") {
        let mut command = cargo(&["nextest", "run", "--no-fail-fast", "--no-tests", "pass"]);
        command.args(["--cargo-quiet", "--status-level", "fail", "--final-status-level", "slow"]);
        command
    } else {
        cargo(&["test", "--no-fail-fast", "--quiet"])
    };
    // The end-to-end tests need the release binary and run by themselves, one at a time.
    command.args(["--workspace", "--exclude", "e2e", "--lib", "--bins", "--tests"]);
    tests(command.args(filter))
}

fn end_to_end(filter: Option<&str>, quick: bool) -> Result<Tally> {
    let notes = workspace::target_dir()?.join("e2e-skipped.txt");
    let _ = fs::remove_file(&notes);
    let mut command = as_root(&["test", "--package", "e2e", "--no-fail-fast", "--lib", "--tests"])?;
    command.args(["--", "--test-threads=1"]).args(filter).env("PALISADE_SKIPPED", &notes);
    if quick {
        command.env("PALISADE_ROUNDS", "2");
    }
    let mut tally = tests(&mut command)?;
    tally.move_skipped(&fs::read_to_string(&notes).unwrap_or_default());
    Ok(tally)
}

/// Licences, duplicate versions, sources, and known vulnerabilities if their list can be had.
fn deny(steps: &mut Steps) {
    steps.run("cargo-deny: licences, bans, sources", || {
        install_tool("cargo-deny")?;
        check(&mut cargo(&["deny", "--offline", "check", "licenses", "bans", "sources"]))
    });
    steps.run("cargo-deny: advisories", || {
        let (output, success) = tee(&mut cargo(&["deny", "check", "advisories"]))?;
        // Only this failure is no finding: the list of advisories itself could not be fetched.
        if !success && output.contains("failed to fetch advisory database") {
            let reason = "the advisory database cannot be reached from here".to_owned();
            return Ok(Tally { skipped: vec![("advisories".to_owned(), reason)], ..Tally::default() });
        }
        Ok(Tally::one(success))
    });
}

/// Every interleaving of the hand-over between a worker and whoever changes its ring or memory.
fn loom(steps: &mut Steps) {
    if !Path::new("vhost-backend/tests/loom.rs").exists() {
        return;
    }
    steps.run("loom: ring hand-over", || {
        let mut command = cargo(&["test", "--package", "vhost-backend", "--release", "--test", "loom"]);
        // Its own directory: the flag would otherwise throw away every other build.
        command.env("RUSTFLAGS", "--cfg loom").env("CARGO_TARGET_DIR", workspace::target_dir()?.join("loom"));
        tests(&mut command)
    });
}

fn fuzz(steps: &mut Steps) {
    let targets = fuzz_targets();
    if targets.is_empty() {
        return;
    }
    steps.run("cargo-fuzz is there", || {
        install_tool("cargo-fuzz")?;
        Ok(Tally::default())
    });
    let sanitizer = if has_address_sanitizer() {
        "address"
    } else {
        println!("this toolchain has no address sanitizer: fuzzing without one");
        "none"
    };
    for target in targets {
        steps.run(&format!("fuzz {target}, {FUZZ_SECONDS} s"), || {
            let mut command = cargo(&["fuzz", "run", "--fuzz-dir", "tests/fuzz", "--sanitizer", sanitizer]);
            command.args(["--target", TARGET, &target, "--"]);
            command.args([
                &format!("-max_total_time={FUZZ_SECONDS}"),
                "-print_final_stats=1",
                "-verbosity=0",
            ]);
            // Coverage instrumentation is an unstable flag of the stable compiler.
            check(command.env("RUSTC_BOOTSTRAP", "1"))
        });
    }
}

/// The names of the fuzz targets, one file each.
fn fuzz_targets() -> Vec<String> {
    let files = fs::read_dir("tests/fuzz/fuzz_targets").into_iter().flatten().flatten();
    let names: BTreeSet<String> = files
        .map(|file| file.path())
        .filter(|path| path.extension().is_some_and(|end| end == "rs"))
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .collect();
    names.into_iter().collect()
}

fn has_address_sanitizer() -> bool {
    let sysroot = Command::new("rustc").args(["--print", "sysroot"]).output();
    let Ok(sysroot) = sysroot else { return false };
    let lib = format!("{}/lib/rustlib/{TARGET}/lib", String::from_utf8_lossy(&sysroot.stdout).trim());
    let files = fs::read_dir(lib).into_iter().flatten().flatten();
    files.map(|file| file.file_name()).any(|name| name.to_string_lossy().ends_with("_rt.asan.a"))
}

/// The table, the skips that nobody expected, and the closing line.
fn report(steps: &Steps, begin: Instant) -> Result<bool> {
    steps.table();
    let total = steps.total();
    let expected = expected_skips(&fs::read_to_string(SKIPS).unwrap_or_default())?;
    let mut unexpected = 0;
    for (name, reason) in &total.skipped {
        let listed = expected.contains(name);
        unexpected += usize::from(!listed);
        println!(
            "skipped: {name}: {reason}{}",
            if listed { "" } else { " (not expected: this is a failure)" }
        );
    }
    println!("{:.0} minutes in all", begin.elapsed().as_secs_f64() / 60.0);
    println!("{} passed, {} failed, {} skipped", total.passed, total.failed, total.skipped.len());
    Ok(total.failed == 0 && unexpected == 0)
}

/// Names from [`SKIPS`]; a line without a reason is refused.
fn expected_skips(text: &str) -> Result<BTreeSet<String>> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| match line.split_once(": ") {
            Some((name, reason)) if !reason.trim().is_empty() => Ok(name.to_owned()),
            _ => bail!("{SKIPS}: `{line}` is not `name: reason`"),
        })
        .collect()
}

/// Installs a cargo subcommand that is missing.
fn install_tool(name: &str) -> Result<()> {
    if has(name) {
        return Ok(());
    }
    println!("installing {name} with cargo: it is not there yet");
    ensure!(tee(&mut cargo(&["install", name, "--locked", "--quiet"]))?.1, "cargo install {name} failed");
    Ok(())
}

/// Whether a program is in the path, or where cargo installs to.
fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let installed = std::env::var_os("CARGO_HOME").map(|home| Path::new(&home).join("bin"));
    let home = std::env::home_dir().map(|home| home.join(".cargo/bin"));
    std::env::split_paths(&path).chain(installed).chain(home).any(|dir| dir.join(program).exists())
}

fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(workspace::cargo());
    command.args(arguments);
    command
}

/// Namespaces and TAP devices need root: the programs are built as we are and run by sudo.
fn as_root(arguments: &[&str]) -> Result<Command> {
    let mut command = cargo(arguments);
    if !packages::is_root()? {
        let runner = format!("CARGO_TARGET_{}_RUNNER", TARGET.replace('-', "_").to_uppercase());
        command.env(runner, "sudo --preserve-env");
    }
    Ok(command)
}

#[cfg(test)]
mod unit_tests {
    use super::expected_skips;

    #[test]
    fn a_skip_without_a_reason_is_refused() {
        assert!(expected_skips("# why\nadvisories: no network\n").unwrap().contains("advisories"));
        assert!(expected_skips("advisories").is_err());
    }
}
