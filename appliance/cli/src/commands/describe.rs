//! `palisade describe`

use mgmt_client::Client;
use mgmt_types::agent::Counters;
use mgmt_types::{Host, Kind, Labels, Network, PortReport, RateLimit, Resource, Workload};

use crate::commands::get::join;
use crate::commands::{firewall, mesh};
use crate::connection::ConnectionArgs;
use crate::failure::Failure;
use crate::output::{self, Row, facts, or_dash};
use crate::port;

/// Show all that is known about one resource
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// network, router, workload, host, group or firewallpolicy (also: policy)
    kind: Kind,
    /// Name of the resource
    name: String,
    #[command(flatten)]
    connection: ConnectionArgs,
}

pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let client = args.connection.client()?;
    let text = match client.get(args.kind, &args.name).await? {
        Resource::Network(resource) => network(&resource, &workloads(&client).await?),
        Resource::Router(router) => {
            title("Router", &router.name, router.revision) + &mesh::router(&router, labels(&router.labels))
        }
        Resource::Workload(resource) => workload(&resource),
        Resource::Host(resource) => host(&resource, &workloads(&client).await?),
        Resource::Group(group) => {
            title("Group", &group.name, group.revision) + &firewall::group(&group, labels(&group.labels))
        }
        Resource::FirewallPolicy(policy) => {
            title("FirewallPolicy", &policy.name, policy.revision)
                + &firewall::policy(&policy, labels(&policy.labels))
        }
    };
    output::print(&text)
}

async fn workloads(client: &Client) -> Result<Vec<Workload>, Failure> {
    let workloads =
        client.list(Kind::Workload, None).await?.into_iter().filter_map(|resource| match resource {
            Resource::Workload(workload) => Some(workload),
            Resource::Network(_)
            | Resource::Router(_)
            | Resource::Host(_)
            | Resource::Group(_)
            | Resource::FirewallPolicy(_) => None,
        });
    Ok(workloads.collect())
}

fn network(network: &Network, workloads: &[Workload]) -> String {
    let report = network.status.clone().unwrap_or_default();
    let mut text = title("Network", &network.name, network.revision);
    let mut lines = vec![
        ("labels", labels(&network.labels)),
        ("subnets", or_dash(join(&network.spec.subnets))),
        ("gateways", or_dash(join(&report.gateways))),
        ("router", network.spec.router.clone().unwrap_or_else(|| "-".to_owned())),
        ("mtu", report.mtu.to_string()),
        ("mss clamp", if network.spec.mss_clamp { "on" } else { "off" }.to_owned()),
        ("vni", report.vni.to_string()),
    ];
    lines.extend(report.warnings.into_iter().map(|warning| ("warning", warning)));
    text += &facts(2, &lines);
    text + &ports("ports", workloads, |_, port| port == network.name)
}

fn host(host: &Host, workloads: &[Workload]) -> String {
    let text = title("Host", &host.name, host.revision) + &mesh::host(host, labels(&host.labels));
    text + &ports("ports", workloads, |workload, _| workload.spec.host == host.name)
}

/// A table of the ports that `wanted` chooses by workload and network.
fn ports(title: &str, workloads: &[Workload], wanted: impl Fn(&Workload, &str) -> bool) -> String {
    let mut rows = Vec::new();
    for workload in workloads {
        for declared in workload.spec.ports.iter().filter(|declared| wanted(workload, &declared.network)) {
            let status = workload.status.as_ref();
            let report = status.and_then(|status| port::report(status, &declared.name));
            let cells = vec![
                format!("  {}.{}", workload.name, declared.name),
                workload.spec.host.clone(),
                declared.network.clone(),
                report.map_or_else(|| "-".to_owned(), |report| or_dash(join(&report.addresses))),
                report.zip(status).map_or("-", |(report, status)| port::link(report, status)).to_owned(),
            ];
            rows.push(Row { cells, alarm: !report.zip(status).is_some_and(port::is_sound) });
        }
    }
    if rows.is_empty() {
        return String::new();
    }
    format!("{title}\n{}", output::table(&["  PORT", "HOST", "NETWORK", "ADDRESSES", "LINK"], rows))
}

fn workload(workload: &Workload) -> String {
    let Workload { spec, status, .. } = workload;
    let silent = match status {
        Some(status) if status.connected => "",
        _ => " (silent: what follows is not of this moment)",
    };
    let kind = serde_json::to_value(spec.kind).ok();
    let kind = kind.as_ref().and_then(|kind| kind.as_str()).unwrap_or("-").to_owned();
    let mut text = title("Workload", &workload.name, workload.revision);
    text += &facts(
        2,
        &[("labels", labels(&workload.labels)), ("kind", kind), ("host", format!("{}{silent}", spec.host))],
    );
    let Some(status) = status else { return text };
    text += &facts(
        2,
        &[
            ("groups", or_dash(join(&status.groups))),
            ("policies", or_dash(join(&status.policies))),
            ("enforced", status.enforced.to_string()),
        ],
    );
    for report in &status.ports {
        let declared = spec.ports.iter().find(|declared| declared.name == report.name);
        let network = declared.map_or("-", |declared| declared.network.as_str());
        let limit = declared.and_then(|declared| declared.rate_limit);
        text += &format!("port {}\n", report.name);
        text += &port_facts(report, network, limit, port::link(report, status));
    }
    text
}

fn port_facts(report: &PortReport, network: &str, limit: Option<RateLimit>, link: &str) -> String {
    let mut lines = vec![
        ("link", link.to_owned()),
        ("faults", or_dash(report.faults.join("; "))),
        ("enforced", report.enforced.to_string()),
        ("flows", flows(report)),
        ("network", network.to_owned()),
        ("addresses", or_dash(join(&report.addresses))),
        ("mac", report.mac.to_string()),
        ("mtu", report.mtu.to_string()),
        ("queues", report.queues.to_string()),
        ("id", report.id.to_string()),
        ("attach", port::attachment(report)),
        ("limit", limit.map_or_else(|| "-".to_owned(), rate_limit)),
        ("sent", traffic(report.from_guest)),
        ("received", traffic(report.to_guest)),
    ];
    let drops: u64 = report.drops.values().sum();
    lines.push(("dropped", format!("{drops} packets")));
    let mut text = facts(2, &lines);
    let mut by_reason: Vec<(&str, String)> = report
        .drops
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(reason, count)| (reason.as_str(), count.to_string()))
        .collect();
    by_reason.sort_by_key(|(reason, _)| std::cmp::Reverse(report.drops.get(*reason).copied()));
    text += &facts(4, &by_reason);
    let details: Vec<(&str, String)> =
        report.details.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
    if !details.is_empty() {
        text.push_str("  details\n");
        text += &facts(4, &details);
    }
    text
}

fn title(kind: &str, name: &str, revision: Option<u64>) -> String {
    match revision {
        Some(revision) => format!("{kind}/{name}, last changed by revision {revision}\n"),
        None => format!("{kind}/{name}\n"),
    }
}

fn labels(labels: &Labels) -> String {
    or_dash(labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(","))
}

fn flows(report: &PortReport) -> String {
    match report.flow_limit {
        0 => report.flows.to_string(),
        limit => format!("{} of at most {limit}", report.flows),
    }
}

fn traffic(counters: Counters) -> String {
    format!("{} packets, {} bytes", counters.packets, counters.bytes)
}

fn rate_limit(limit: RateLimit) -> String {
    let packets = limit
        .packets()
        .map(|bucket| format!("{} packets/s, {} packets at once", bucket.per_second, bucket.burst));
    let bytes = limit.bytes().map(|bucket| {
        let bits = limit.bits_per_second.unwrap_or_default();
        format!("{bits} bit/s, {} bytes at once", bucket.burst)
    });
    or_dash([packets, bytes].into_iter().flatten().collect::<Vec<_>>().join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workload_is_told_port_by_port_with_drops_by_reason() {
        let text = workload(&port::tests::workload());
        for line in [
            "Workload/web-1, last changed by revision 3",
            "  labels  app=shop",
            "  groups    shop,web",
            "  enforced  partly",
            "port eth0",
            "  enforced   yes",
            "  flows      12 of at most 1000",
            "  link       up",
            "  faults     ring 0 stopped",
            "  sent       100 packets, 6000 bytes",
            "  dropped    7 packets",
            "    spoofed-mac  4",
            "    no-buffer    3",
            "    features  csum mrg-rxbuf",
            "port eth1",
            "  link       waiting",
            "  attach     TAP device web-1.eth1 in network namespace blue",
        ] {
            assert!(text.lines().any(|found| found == line), "no {line:?} in\n{text}");
        }
    }

    #[test]
    fn a_network_and_a_host_list_their_ports() {
        let workloads = [port::tests::workload()];
        let blue = serde_json::from_str(
            r#"{"name": "blue", "spec": {"subnets": ["10.0.1.0/24"]},
                "status": {"vni": 4096, "mtu": 1500, "gateways": ["10.0.1.1"], "ports": 1}}"#,
        );
        let text = network(&blue.expect("a network"), &workloads);
        assert!(text.contains("web-1.eth0") && !text.contains("web-1.eth1"), "{text}");
        let a = serde_json::from_str(
            r#"{"name": "host-a", "status": {"connected": true, "revision": 3, "wanted": 4, "ports": 2, "portsUp": 1}}"#,
        );
        let text = host(&a.expect("a host"), &workloads);
        assert!(text.contains("web-1.eth1") && text.contains("revision 3 of 4 wanted, behind"), "{text}");
    }
}
