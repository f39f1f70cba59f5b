//! `palisade why`

use mgmt_types::question::{Silent, Verdict, VerdictKind, VerdictList, VerdictQuery};

use crate::connection::ConnectionArgs;
use crate::failure::Failure;
use crate::output::{self, OutputArgs, Row, or_dash};

/// Show what became of a workload's recent packets, and why
///
/// What it sent and what was meant for it; newest last. Of many packets alike only some are kept: TIMES says how
/// many each stands for.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A workload or one of its ports, such as web-1 or web-1.eth0
    name: String,
    /// Only what was dropped, or would be by a policy in audit mode
    #[arg(long)]
    drops: bool,
    /// At most this many, the newest
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: u32,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    connection: ConnectionArgs,
}

pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let (workload, port) = match args.name.split_once('.') {
        Some((workload, port)) => (workload.to_owned(), Some(port.to_owned())),
        None => (args.name.clone(), None),
    };
    let query = VerdictQuery { workload, port, drops_only: args.drops, limit: Some(args.limit) };
    let list = args.connection.client()?.verdicts(&query).await?;
    output::result(args.output.format, &list, || text(&args.name, &list))?;
    silent(&list.silent)
}

/// Fails when a host did not answer: then what is shown is not all there is.
pub(crate) fn silent(hosts: &[Silent]) -> Result<(), Failure> {
    if hosts.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> =
        hosts.iter().map(|Silent { host, reason }| format!("host {host} did not answer: {reason}")).collect();
    Err(Failure::new(lines.join("\n")))
}

fn text(name: &str, list: &VerdictList) -> String {
    if list.verdicts.is_empty() {
        return if list.silent.is_empty() {
            format!("nothing is known of {name} yet\n")
        } else {
            String::new()
        };
    }
    let header = ["TIME (UTC)", "VERDICT", "TIMES", "FLOW", "CAUSE"];
    output::table(&header, list.verdicts.iter().map(row).collect())
}

fn row(verdict: &Verdict) -> Row {
    let flow = verdict.flow.as_ref().map_or_else(|| format!("from {}", verdict.port), ToString::to_string);
    let cells = vec![
        time(verdict.time),
        verdict.verdict.to_string(),
        verdict.times.to_string(),
        flow,
        or_dash(cause(verdict)),
    ];
    Row { cells, alarm: verdict.verdict == VerdictKind::Dropped }
}

/// The cause in words.
pub(crate) fn cause(verdict: &Verdict) -> String {
    let rules: Vec<String> =
        verdict.rules.iter().map(|rule| format!("{rule} of revision {}", rule.revision)).collect();
    let reason = verdict.reason.as_deref().unwrap_or_default();
    let meaning = verdict.meaning.as_deref().unwrap_or_default();
    match (verdict.verdict, rules.is_empty()) {
        (VerdictKind::Admitted, _) => format!("by {}", or_dash(rules.join(" and "))),
        (_, false) => format!("{reason}: {}", rules.join(" and ")),
        // Nothing matched: what can be mended is who belongs to which group.
        (_, true) if verdict.direction.is_some() => {
            let (flow, way) =
                (verdict.flow.as_ref(), verdict.direction.map(|way| way.to_string()).unwrap_or_default());
            let end = |of: Option<&String>, groups: &Option<Vec<String>>| {
                let name = of.map_or("nobody's address", String::as_str);
                match groups.as_deref() {
                    Some([]) | None => format!("{name} is in no group"),
                    Some(groups) => format!("{name} is in {}", groups.join(", ")),
                }
            };
            let source = end(flow.and_then(|flow| flow.source.of.as_ref()), &verdict.source_groups);
            let destination =
                end(flow.and_then(|flow| flow.destination.of.as_ref()), &verdict.destination_groups);
            format!("{reason}: no rule lets it {way}; {source}, {destination}")
        }
        (_, true) => format!("{reason}: {meaning}"),
    }
}

/// Time of day in UTC, with milliseconds.
pub(crate) fn time(milliseconds: u64) -> String {
    let (seconds, rest) = (milliseconds / 1000, milliseconds % 1000);
    let (hours, minutes) = (seconds / 3600 % 24, seconds / 60 % 60);
    format!("{hours:02}:{minutes:02}:{:02}.{rest:03}", seconds % 60)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn denied() -> Verdict {
        serde_json::from_str(
            r#"{"time": 45296789, "host": "host-a", "port": "web-1.eth0", "verdict": "dropped", "reason": "default-deny",
            "meaning": "No rule of any policy matches.", "direction": "in", "revision": 7, "bytes": 74, "times": 12,
            "sourceGroups": ["prod", "web"], "destinationGroups": [],
            "flow": {"network": "blue", "protocol": 6, "source": {"address": "10.0.1.11", "port": 40000, "of": "web-1.eth0"},
            "destination": {"address": "10.0.1.21", "port": 5432, "of": "db-1.eth0"}}}"#,
        )
        .expect("a verdict")
    }

    #[test]
    fn a_default_deny_names_the_groups_that_both_ends_had() {
        let row = row(&denied());
        assert_eq!(row.cells[..3], ["12:34:56.789", "dropped", "12"]);
        assert_eq!(row.cells[3], "tcp web-1.eth0 10.0.1.11:40000 > db-1.eth0 10.0.1.21:5432");
        assert_eq!(
            row.cells[4],
            "default-deny: no rule lets it in; web-1.eth0 is in prod, web, db-1.eth0 is in no group"
        );
        assert!(row.alarm);
    }

    #[test]
    fn what_never_came_to_the_firewall_is_told_by_its_reason() {
        let verdict = Verdict {
            reason: Some("spoofed-mac".into()),
            meaning: Some("The source MAC is not the port's.".into()),
            direction: None,
            flow: None,
            ..denied()
        };
        let row = row(&verdict);
        assert_eq!(row.cells[3..], ["from web-1.eth0", "spoofed-mac: The source MAC is not the port's."]);
    }

    #[test]
    fn a_host_that_is_silent_is_no_success() {
        assert!(silent(&[]).is_ok());
        let failure = silent(&[Silent { host: "host-b".into(), reason: "it is not connected".into() }]);
        assert!(failure.expect_err("silent").text().contains("host-b did not answer: it is not connected"));
    }
}
