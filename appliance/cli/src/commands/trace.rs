//! `palisade trace`

use mgmt_types::question::{
    Probe, Silent, Trace, TraceAnswer, TraceEnd, TraceOutcome, TraceRequest, TraceStep,
};

use crate::connection::ConnectionArgs;
use crate::failure::Failure;
use crate::output::{self, OutputArgs, Row, or_dash};

/// Show what would become of a packet, stage by stage
///
/// The packet goes through the very code and tables that real ones go through, on the hosts concerned; it
/// changes nothing and nobody gets it. Exit code 0 when it would arrive, 1 when not.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Who sends: a workload or a port, such as web-1 or web-1.eth0
    source: String,
    /// Who is meant: a workload, a port or an address
    destination: String,
    /// What for: tcp/5432, udp/53, sctp/2905, ping, icmp/TYPE/CODE, icmpv6/TYPE/CODE, proto/NUMBER
    service: Probe,
    /// Source port, to ask about a connection there is [default: 49152]
    #[arg(long, value_name = "PORT")]
    source_port: Option<u16>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    connection: ConnectionArgs,
}

pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let Args { source, destination, service, source_port, output, connection } = args;
    let request = TraceRequest { source, destination, service, source_port };
    let answer = connection.client()?.trace(&request).await?;
    output::result(output.format, &answer, || text(&answer))?;
    if answer.delivered { Ok(()) } else { Err(Failure::not_delivered()) }
}

fn text(answer: &TraceAnswer) -> String {
    let mut text = String::new();
    if let Some(Trace { source, destination, service, network, .. }) = answer.traces.first() {
        text.push_str(&format!(
            "{service} on network {network}\n  from  {}\n  to    {}\n",
            end(source),
            end(destination)
        ));
    }
    for trace in &answer.traces {
        text.push_str(&format!("\nhost {}, revision {}\n", trace.host, trace.revision));
        let header = ["STAGE", "OUTCOME", "RULE", "DETAIL"];
        text.push_str(&output::table(&header, trace.steps.iter().map(row).collect()));
    }
    for Silent { host, reason } in &answer.silent {
        text.push_str(&format!("\nhost {host} did not answer: {reason}\n"));
    }
    let last = answer.traces.iter().find(|trace| !trace.outcome.is_good()).or(answer.traces.last());
    let verdict = match last {
        Some(trace) if answer.delivered || !trace.outcome.is_good() => trace.outcome,
        _ => return text + "\nunknown: not every host that has a say in it answered\n",
    };
    let why = last.and_then(|trace| trace.steps.last()?.reason.clone());
    text.push_str(&match why {
        Some(reason) => format!("\n{verdict}: {reason}\n"),
        None => format!("\n{verdict}\n"),
    });
    text
}

/// `web-1.eth0 10.0.1.11, in web, prod`
fn end(end: &TraceEnd) -> String {
    let name = end.port.as_deref().unwrap_or("nobody's");
    let groups = if end.groups.is_empty() {
        "in no group".to_owned()
    } else {
        format!("in {}", end.groups.join(", "))
    };
    format!("{name} {}, {groups}", end.address)
}

fn row(step: &TraceStep) -> Row {
    let rules: Vec<String> =
        step.rules.iter().map(|rule| format!("{rule} of revision {}", rule.revision)).collect();
    let detail = match (&step.reason, &step.detail) {
        (Some(reason), Some(detail)) => format!("{reason}: {detail}"),
        (one, other) => one.as_ref().or(other.as_ref()).cloned().unwrap_or_default(),
    };
    let cells =
        vec![step.stage.clone(), step.outcome.to_string(), or_dash(rules.join("; ")), or_dash(detail)];
    let alarm = matches!(step.outcome, TraceOutcome::Dropped | TraceOutcome::Rejected);
    Row { cells, alarm }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(last: &str) -> TraceAnswer {
        let answer = format!(
            r#"{{"delivered": false, "traces": [{{"host": "host-a", "revision": 7, "network": "blue", "service": "tcp/5432",
            "source": {{"port": "web-1.eth0", "host": "host-a", "address": "10.0.1.11", "groups": ["prod", "web"]}},
            "destination": {{"address": "10.0.1.99", "groups": []}},
            "steps": [{{"stage": "guard", "outcome": "passed"}}, {last}], "outcome": "dropped"}}]}}"#
        );
        serde_json::from_str(&answer).expect("an answer")
    }

    #[test]
    fn a_refusal_shows_rule_policy_tier_and_revision() {
        let text = text(&answer(
            r#"{"stage": "firewall", "outcome": "dropped", "reason": "policy-drop", "detail": "what web-1.eth0 sends",
            "rules": [{"id": 4, "policy": "shop", "rule": "rest", "tier": "application", "action": "drop", "revision": 5, "direction": "out"}]}"#,
        ));
        assert!(
            text.starts_with("tcp/5432 on network blue\n  from  web-1.eth0 10.0.1.11, in prod, web\n"),
            "{text}"
        );
        assert!(text.contains("nobody's 10.0.1.99, in no group"), "{text}");
        assert!(text.contains("shop/rest (application, drop out) of revision 5"), "{text}");
        assert!(text.ends_with("\ndropped: policy-drop\n"), "{text}");
    }

    #[test]
    fn without_a_host_that_has_a_say_there_is_no_verdict() {
        let mut answer = answer(r#"{"stage": "deliver", "outcome": "delivered"}"#);
        answer.traces[0].outcome = TraceOutcome::Delivered;
        answer.silent.push(Silent { host: "host-b".into(), reason: "it is not connected".into() });
        let text = text(&answer);
        assert!(text.contains("host host-b did not answer: it is not connected"), "{text}");
        assert!(text.contains("unknown"), "{text}");
    }
}
