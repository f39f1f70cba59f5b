//! `palisade version`

use serde::Serialize;

use crate::failure::Failure;
use crate::output::{self, OutputArgs};

/// Print the version of this binary
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Serialize)]
struct Version {
    version: &'static str,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let version = env!("CARGO_PKG_VERSION");
    output::result(args.output.format, &Version { version }, || format!("palisade {version}\n"))
}
