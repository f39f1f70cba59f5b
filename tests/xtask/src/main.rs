//! Development tasks: `cargo xtask test|demo|bench`. Each installs what it needs and builds what it runs.

#![expect(clippy::print_stdout, reason = "a command for people")]

mod layering;
mod packages;
mod step;
mod tally;
mod test;
mod workspace;

use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

use crate::packages::Need;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Development tasks of Palisade")]
struct Options {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Runs every check and test there is, and prints what passed
    Test(test::Options),
    /// Two guests and a namespace talk through Palisade
    Demo {
        /// Stay up until Ctrl-C, to look around
        #[arg(long)]
        keep: bool,
    },
    /// Measures Palisade and its peers side by side: `bench --list` says what, `bench NAME --help` how
    Bench {
        /// Handed to the measurement as they are: NAME, --list, --json FILE, ...
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

fn main() -> ExitCode {
    let done = match Options::parse().task {
        Task::Test(options) => test::run(&options),
        Task::Demo { keep } => demo(keep),
        Task::Bench { arguments } => bench(&arguments),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("\ncargo xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn demo(keep: bool) -> Result<bool> {
    packages::install(&packages::BUILD)?;
    packages::install(&packages::GUESTS)?;
    build(&["palisade"])?;
    // What shows the product needs no optimised build itself.
    let built = succeeds(Command::new(workspace::cargo()).args([
        "build",
        "--quiet",
        "--package",
        "e2e",
        "--bin",
        "demo",
    ]));
    anyhow::ensure!(built?, "the build failed");
    let mut command = packages::root_command(&workspace::target_dir()?.join("debug/demo"))?;
    if keep {
        command.arg("--keep");
    }
    succeeds(&mut command)
}

fn bench(arguments: &[String]) -> Result<bool> {
    let asks = arguments.iter().any(|word| ["--list", "--help", "-h"].contains(&word.as_str()));
    if !asks {
        let needs: Vec<Need> = [&packages::BENCH[..], &packages::GUESTS, &packages::BUILD].concat();
        packages::install(&needs)?;
    }
    build(if asks { &["bench"] } else { &["palisade", "bench"] })?;
    let program = workspace::target_dir()?.join("release/bench");
    let mut command = if asks { Command::new(&program) } else { packages::root_command(&program)? };
    succeeds(command.args(arguments))
}

fn build(packages: &[&str]) -> Result<()> {
    println!("building {} (release)", packages.join(", "));
    let mut command = Command::new(workspace::cargo());
    command.args(["build", "--release", "--quiet"]);
    for package in packages {
        command.args(["--package", package]);
    }
    anyhow::ensure!(succeeds(&mut command)?, "the build failed");
    Ok(())
}

fn succeeds(command: &mut Command) -> Result<bool> {
    let status = command.status().with_context(|| format!("start {:?}", command.get_program()))?;
    Ok(status.success())
}
