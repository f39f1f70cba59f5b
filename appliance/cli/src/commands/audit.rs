//! `palisade audit`

use mgmt_client::AuditQuery;
use mgmt_types::AuditEntry;

use crate::connection::ConnectionArgs;
use crate::failure::Failure;
use crate::output::{self, OutputArgs, Row};

/// Show who did what, and who was not let; newest last
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only entries with a smaller number, to page back
    #[arg(long, value_name = "ID")]
    before: Option<u64>,
    /// At most this many entries, the newest
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: u32,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    connection: ConnectionArgs,
}

pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let query = AuditQuery { before: args.before, limit: Some(args.limit) };
    let mut entries = args.connection.client()?.audit(query).await?;
    entries.sort_by_key(|entry| entry.id);
    output::list(args.output.format, &entries, || {
        let header = ["ID", "TIME", "AUTHOR", "ROLE", "FROM", "STATUS", "REVISION", "ACTION", "CHANGES"];
        output::table(&header, entries.iter().map(row).collect())
    })
}

fn row(entry: &AuditEntry) -> Row {
    let dash = || "-".to_owned();
    let mut what: Vec<String> = entry
        .changes
        .iter()
        .map(|change| format!("{}/{} {}", change.kind, change.name, change.change))
        .collect();
    what.extend(entry.detail.clone());
    if entry.suppressed > 0 {
        what.push(format!("{} refusals before this one are not shown", entry.suppressed));
    }
    let cells = vec![
        entry.id.to_string(),
        entry.time.clone(),
        entry.author.clone().unwrap_or_else(dash),
        entry.role.map_or_else(dash, |role| role.to_string()),
        entry.peer.clone().unwrap_or_else(dash),
        entry.status.to_string(),
        entry.revision.map_or_else(dash, |revision| revision.to_string()),
        entry.action.clone(),
        output::or_dash(what.join("; ")),
    ];
    Row { cells, alarm: entry.status >= 400 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_without_a_token_shows_where_it_came_from() {
        let entry = serde_json::from_str(
            r#"{"id": 4, "time": "2026-01-01T00:00:00Z", "peer": "192.0.2.7:5000", "action": "GET /v1/networks",
                "status": 401, "detail": "no token", "suppressed": 3}"#,
        );
        let Row { cells: row, alarm } = row(&entry.expect("an entry"));
        assert!(alarm);
        assert_eq!(row[2..7], ["-", "-", "192.0.2.7:5000", "401", "-"]);
        assert_eq!(row[8], "no token; 3 refusals before this one are not shown");
    }
}
