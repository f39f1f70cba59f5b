//! `palisade managers`

use mgmt_types::ManagerReport;

use crate::connection::ConnectionArgs;
use crate::failure::Failure;
use crate::output::{self, OutputArgs};

/// Show the managers that share one state, and what the one that answers is among them
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    connection: ConnectionArgs,
}

pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let managers = args.connection.client()?.managers().await?;
    if let Some(since) = &managers.disconnected_since {
        output::remark(&format!(
            "the store has not answered since {since}: changes are refused, all this is from before"
        ));
    }
    output::result(args.output.format, &managers, || {
        let row = |report: &ManagerReport| {
            let role = match (report.name == managers.answering, report.leader) {
                (true, _) => managers.role.as_str(),
                (false, true) => "leader",
                (false, false) => "follower",
            };
            let cells = [&report.name, &report.url, role, &report.version, &report.since];
            cells.map(str::to_owned).to_vec().into()
        };
        let rows = managers.items.iter().map(row).collect();
        output::table(&["NAME", "URL", "ROLE", "VERSION", "SINCE"], rows)
    })
}
