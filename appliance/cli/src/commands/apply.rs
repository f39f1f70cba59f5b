//! `palisade apply`

use std::path::PathBuf;
use std::time::Duration;

use mgmt_client::Client;
use mgmt_types::{Applied, Change, FlowImpact, Realised, RealisedState};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::connection::ConnectionArgs;
use crate::documents;
use crate::failure::Failure;
use crate::output::{self, Format, OutputArgs};
use crate::progress::Progress;

/// The pauses between two looks at how far the hosts are.
const FIRST_LOOK: Duration = Duration::from_millis(20);
const LATER_LOOKS: Duration = Duration::from_millis(500);

/// Most hosts that are listed when all is well with them.
const LISTED: usize = 20;

/// Make what files declare so, all of it or nothing
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// File with resources in YAML or JSON, a directory of them, or - for stdin; may be given several times
    #[arg(short, long = "file", required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Only check, change nothing
    #[arg(long, conflicts_with = "wait")]
    dry_run: bool,
    #[command(flatten)]
    wait: WaitArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// `--wait`, for commands that change resources.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct WaitArgs {
    /// Wait until every host concerned forwards by it
    #[arg(long)]
    wait: bool,
    /// How long --wait waits, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    timeout: u64,
}

/// What programs get.
#[derive(Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    applied: &'a Applied,
    /// How far the hosts are; only with --wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    realised: Option<&'a Realised>,
}

pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let documents = documents::read(&args.files)?;
    let client = args.connection.client()?;
    let applied = client.apply(&documents, args.dry_run).await?;
    report(&client, &applied, args.wait, args.output.format).await
}

/// Tells what a transaction did, after waiting for the hosts when that is asked for.
pub(crate) async fn report(
    client: &Client,
    applied: &Applied,
    WaitArgs { wait, timeout }: WaitArgs,
    format: Format,
) -> Result<(), Failure> {
    if !wait {
        return output::result(format, &Report { applied, realised: None }, || text(applied));
    }
    let mut progress = Progress::new(format == Format::Table);
    let realised = realised(client, applied.revision, Duration::from_secs(timeout), &mut progress).await;
    progress.end();
    let realised = realised?;
    let report = Report { applied, realised: realised.as_ref() };
    output::result(format, &report, || match &realised {
        Some(realised) => text(applied) + &realised_text(realised),
        None => text(applied),
    })?;
    match realised {
        Some(realised) if !realised.done => Err(not_realised(&realised, timeout)),
        _ => Ok(()),
    }
}

/// What became of each resource, for people.
fn text(applied: &Applied) -> String {
    let mut text = String::new();
    for result in &applied.results {
        let note = if applied.dry_run { " (dry run)" } else { "" };
        text.push_str(&format!("{}/{} {}{note}\n", result.kind, result.name, result.change));
    }
    for impact in &applied.flows {
        text.push_str(&impact_text(impact));
    }
    let changed = applied.results.iter().any(|result| result.change != Change::Unchanged);
    text + &match (applied.dry_run, changed) {
        (true, _) => format!("revision {}: nothing was changed, this was a dry run\n", applied.revision),
        (false, true) => format!("revision {}\n", applied.revision),
        (false, false) => format!("revision {}: nothing to change\n", applied.revision),
    }
}

/// What would become of the live connections of one host.
fn impact_text(impact: &FlowImpact) -> String {
    if let Some(error) = &impact.error {
        return format!("Host/{} cannot say what would be cut: {}\n", impact.host, output::visible(error));
    }
    let mut text = format!(
        "Host/{}: {} live connections would be cut, {} that were refused would be allowed\n",
        impact.host, impact.count_cut, impact.flows_allowed
    );
    for flow in &impact.flows_cut {
        let rule = flow.rule.as_deref().unwrap_or("no rule");
        let line = format!(
            "{}: protocol {} {} -> {}, by {rule}",
            flow.network, flow.protocol, flow.source, flow.destination
        );
        text.push_str(&format!("  {}\n", output::visible(&line)));
    }
    text
}

/// Waits until every host has realised a revision, one of them failed, or time is up. None when there is no revision.
async fn realised(
    client: &Client,
    revision: u64,
    timeout: Duration,
    progress: &mut Progress,
) -> Result<Option<Realised>, Failure> {
    if revision == 0 {
        return Ok(None);
    }
    let end = Instant::now() + timeout;
    let mut pause = FIRST_LOOK;
    loop {
        let realised = client.realised(revision).await?;
        progress.show(&realised);
        let failed = realised.hosts.iter().any(|host| host.state == RealisedState::Failed);
        if realised.done || failed || Instant::now() >= end {
            return Ok(Some(realised));
        }
        sleep(pause).await;
        pause = (pause * 2).min(LATER_LOOKS);
    }
}

fn realised_text(realised: &Realised) -> String {
    let mut text = String::new();
    let mut shown = realised.hosts.len();
    if shown > LISTED {
        // Of many, those that are not there yet.
        shown = realised.hosts.iter().filter(|host| host.state != RealisedState::Applied).count();
        text.push_str(&format!(
            "{} of {} hosts applied\n",
            realised.hosts.len() - shown,
            realised.hosts.len()
        ));
    }
    let all = shown == realised.hosts.len();
    for host in realised.hosts.iter().filter(|host| all || host.state != RealisedState::Applied) {
        let reason =
            host.reason.as_ref().map(|reason| format!(": {}", output::visible(reason))).unwrap_or_default();
        text.push_str(&format!("Host/{} {}{reason}\n", host.host, host.state));
    }
    text
}

fn not_realised(realised: &Realised, seconds: u64) -> Failure {
    let count = |state| realised.hosts.iter().filter(|host| host.state == state).count();
    let failed = count(RealisedState::Failed);
    let what = if failed > 0 {
        format!("{failed} of {} hosts failed", realised.hosts.len())
    } else {
        let pending = count(RealisedState::Pending);
        format!("{pending} of {} hosts have not followed after {seconds} s", realised.hosts.len())
    };
    Failure::not_realised(format!(
        "revision {} is accepted and stays, but {what}\n  `palisade describe host NAME` shows what a host says",
        realised.revision
    ))
}

#[cfg(test)]
mod tests {
    use mgmt_types::{CutFlow, Kind, Outcome, RealisedHost};

    use super::*;

    fn applied(change: Change, dry_run: bool) -> Applied {
        let name = "web-1".to_owned();
        let results = vec![Outcome { kind: Kind::Workload, name, change }];
        Applied { revision: 7, dry_run, results, flows: Vec::new() }
    }

    #[test]
    fn people_read_what_became_of_each_resource() {
        assert_eq!(text(&applied(Change::Created, false)), "Workload/web-1 created\nrevision 7\n");
        assert_eq!(
            text(&applied(Change::Unchanged, false)),
            "Workload/web-1 unchanged\nrevision 7: nothing to change\n"
        );
        assert!(text(&applied(Change::Created, true)).contains("created (dry run)"));
    }

    #[test]
    fn a_dry_run_tells_which_connections_would_be_cut() {
        let cut = CutFlow {
            network: "blue".into(),
            protocol: 6,
            source: "10.0.1.11:40000".into(),
            destination: "10.0.1.21:5432".into(),
            rule: Some("shop/rest".into()),
        };
        let impact =
            FlowImpact { host: "host-a".into(), count_cut: 3, flows_cut: vec![cut], ..FlowImpact::default() };
        let silent =
            FlowImpact { host: "host-b".into(), error: Some("it is silent".into()), ..FlowImpact::default() };
        let said = text(&Applied { flows: vec![impact, silent], ..applied(Change::Configured, true) });
        assert!(said.contains("Host/host-a: 3 live connections would be cut"), "{said}");
        assert!(
            said.contains("  blue: protocol 6 10.0.1.11:40000 -> 10.0.1.21:5432, by shop/rest\n"),
            "{said}"
        );
        assert!(said.contains("Host/host-b cannot say what would be cut: it is silent\n"), "{said}");
    }

    #[test]
    fn programs_read_the_same_in_one_value() {
        let applied = applied(Change::Created, false);
        let realised = Realised {
            revision: 7,
            done: false,
            hosts: vec![RealisedHost {
                host: "host-a".into(),
                state: RealisedState::Failed,
                reason: Some("no such namespace".into()),
            }],
        };
        let value = serde_json::to_value(Report { applied: &applied, realised: Some(&realised) });
        let value = value.expect("serialises");
        assert_eq!(value["results"][0]["change"], "created");
        assert_eq!(value["realised"]["hosts"][0]["reason"], "no such namespace");

        let failure = not_realised(&realised, 60);
        assert_eq!(failure.code(), 4);
        assert!(failure.text().contains("1 of 1 hosts failed"), "{}", failure.text());
        assert_eq!(realised_text(&realised), "Host/host-a failed: no such namespace\n");
    }
}
