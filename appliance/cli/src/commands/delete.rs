//! `palisade delete`

use std::path::PathBuf;

use mgmt_types::Kind;

use crate::commands::apply::{self, WaitArgs};
use crate::connection::ConnectionArgs;
use crate::documents;
use crate::failure::Failure;
use crate::output::OutputArgs;

/// Delete one resource, or all that files name, all of them or none
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// network, workload, host, group or firewallpolicy (also: policy)
    #[arg(required_unless_present = "files", requires = "name")]
    kind: Option<Kind>,
    /// Name of the resource
    name: Option<String>,
    /// File that names resources in YAML or JSON, a directory of them, or - for stdin; may be given several times
    #[arg(short, long = "file", value_name = "FILE", conflicts_with_all = ["kind", "name"])]
    files: Vec<PathBuf>,
    #[command(flatten)]
    wait: WaitArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    connection: ConnectionArgs,
}

pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let documents = documents::read(&args.files)?;
    let client = args.connection.client()?;
    let applied = match (args.kind, &args.name) {
        (Some(kind), Some(name)) => client.delete(kind, name, None).await?,
        _ => client.delete_documents(&documents, false).await?,
    };
    apply::report(&client, &applied, args.wait, args.output.format).await
}
