//! `palisade hosts`

use mgmt_types::Kind;

use crate::commands::get;
use crate::connection::ConnectionArgs;
use crate::failure::Failure;
use crate::output::OutputArgs;

/// Show the hosts of the mesh: the same as `get hosts`
///
/// PEERS says how many of the hosts that one exchanges packets with answer its probes; `describe host NAME` has each
/// of them, with the MTU and the time there and back.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    connection: ConnectionArgs,
}

pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    get::all(Kind::Host, None, args.output, args.connection).await
}
