//! `palisade flows`

use mgmt_types::question::{FlowEvent, FlowInfo, FlowList, FlowQuery, FlowUpdate};

use crate::commands::why::{cause, silent, time};
use crate::connection::ConnectionArgs;
use crate::failure::Failure;
use crate::output::{self, Format, Row, or_dash};

/// Show connections, or follow them as they begin, end and are refused
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only those of this workload, at either end
    #[arg(long, value_name = "NAME")]
    workload: Option<String>,
    /// Tell of connections as they begin, end and are refused, until interrupted
    #[arg(short, long)]
    follow: bool,
    /// At most this many of each host; with --follow: end after this many
    #[arg(long, value_name = "N")]
    limit: Option<u32>,
    /// How to write results; JSON with --follow is one line for each event
    #[arg(short = 'o', long = "output", value_enum, default_value_t, value_name = "FORMAT")]
    format: Format,
    #[command(flatten)]
    connection: ConnectionArgs,
}

pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let query = FlowQuery { workload: args.workload, limit: args.limit, follow: args.follow };
    let client = args.connection.client()?;
    if !query.follow {
        let list = client.flows(&query).await?;
        output::result(args.format, &list, || text(&list))?;
        return silent(&list.silent);
    }
    let mut left = query.limit;
    let mut events = client.follow_flows(&FlowQuery { limit: None, ..query }).await?;
    while left != Some(0) {
        let Some(event) = events.next().await else {
            return Err(Failure::new("the manager ended the stream"));
        };
        let event = event?;
        match args.format {
            Format::Table => output::print(&line(&event))?,
            Format::Json => output::json_line(&event)?,
            Format::Yaml => {
                output::list(Format::Yaml, &[&event], String::new).and_then(|()| output::print("---\n"))?
            }
        }
        left = left.map(|left| left - 1);
    }
    Ok(())
}

fn text(list: &FlowList) -> String {
    if list.flows.is_empty() {
        return if list.silent.is_empty() { "there are no connections\n".to_owned() } else { String::new() };
    }
    let mut flows: Vec<&FlowInfo> = list.flows.iter().collect();
    flows.sort_by_key(|flow| std::cmp::Reverse(flow.bytes.iter().sum::<u64>()));
    let header = ["HOST", "FLOW", "STATE", "PACKETS", "BYTES", "SECONDS", "RULES"];
    let mut text = output::table(&header, flows.into_iter().map(row).collect());
    if list.more > 0 {
        text.push_str(&format!(
            "and {} more; --limit shows more of them, --workload those of one workload\n",
            list.more
        ));
    }
    text
}

fn row(flow: &FlowInfo) -> Row {
    let pair = |[there, back]: [u64; 2]| format!("{there}/{back}");
    Row::from(vec![
        flow.host.clone(),
        flow.flow.to_string(),
        flow.state.clone(),
        pair(flow.packets),
        pair(flow.bytes),
        (flow.last_seen.saturating_sub(flow.started) / 1000).to_string(),
        rules(flow),
    ])
}

fn rules(flow: &FlowInfo) -> String {
    let rules: Vec<String> = flow.rules.iter().map(ToString::to_string).collect();
    or_dash(rules.join(" and "))
}

fn line(event: &FlowEvent) -> String {
    let what = match &event.update {
        FlowUpdate::Started { flow } => format!("started   {}  by {}", flow.flow, rules(flow)),
        FlowUpdate::Ended { flow, why } => {
            let [there, back] = flow.bytes;
            format!("{why:<9} {}  {there} bytes there, {back} back", flow.flow)
        }
        FlowUpdate::Refused { verdict } => {
            let flow =
                verdict.flow.as_ref().map_or_else(|| format!("from {}", verdict.port), ToString::to_string);
            let times = if verdict.times > 1 { format!(" ({} times)", verdict.times) } else { String::new() };
            format!("dropped   {flow}{times}  {}", cause(verdict))
        }
        FlowUpdate::Missed { host, reason } => format!("missed    host {host}: {reason}"),
    };
    format!("{}  {}\n", time(event.time), output::visible(&what))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::why::tests::denied;

    #[test]
    fn each_event_is_a_line() {
        let verdict = denied();
        let flow = FlowInfo {
            host: "host-a".into(),
            flow: verdict.flow.clone().expect("a flow"),
            state: "established".into(),
            started: 1000,
            last_seen: 61_000,
            packets: [5, 4],
            bytes: [500, 400],
            rules: Vec::new(),
            revision: 7,
        };
        let of = |update: FlowUpdate| line(&FlowEvent { time: 45_296_789, update });
        let name = "tcp web-1.eth0 10.0.1.11:40000 > db-1.eth0 10.0.1.21:5432";
        assert_eq!(
            of(FlowUpdate::Started { flow: flow.clone() }),
            format!("12:34:56.789  started   {name}  by -\n")
        );
        let ended = of(FlowUpdate::Ended { flow: flow.clone(), why: "timed-out".into() });
        assert_eq!(ended, format!("12:34:56.789  timed-out {name}  500 bytes there, 400 back\n"));
        let refused = of(FlowUpdate::Refused { verdict: Box::new(verdict) });
        assert!(
            refused.contains(&format!("dropped   {name} (12 times)  default-deny: no rule")),
            "{refused}"
        );

        let list = FlowList { flows: vec![flow], more: 3, ..FlowList::default() };
        let table = text(&list);
        assert!(table.contains("5/4") && table.contains("60") && table.contains("and 3 more"), "{table}");
        assert_eq!(text(&FlowList::default()), "there are no connections\n");
    }
}
