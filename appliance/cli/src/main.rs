//! The `palisade` command: manager, agent and client of both in one binary.
//!
//! `args` says what can be typed, each module of `commands` does one of them, `output` is the only way out.

mod args;
mod commands;
mod connection;
mod directories;
mod documents;
mod failure;
mod host;
mod logging;
mod output;
mod port;
mod progress;
mod stop;
mod vmm;
mod yaml;

use std::process::ExitCode;

use clap::Parser;

use crate::args::Cli;
use crate::failure::Failure;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = logging::start(cli.log_level.as_deref()).and_then(|()| commands::run(cli.command));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => end(&failure),
    }
}

fn end(failure: &Failure) -> ExitCode {
    output::error(failure.text());
    ExitCode::from(failure.code())
}
