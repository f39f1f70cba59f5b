//! `palisade get`

use mgmt_types::{Kind, Network, Resource, Selector, Workload};

use crate::commands::{firewall, mesh};
use crate::connection::ConnectionArgs;
use crate::failure::Failure;
use crate::output::{self, OutputArgs, Row, or_dash};
use crate::port;

/// Show resources: networks, routers, workloads, hosts, groups or firewallpolicies
///
/// Workloads are shown with one line for each port: SENT and RECEIVED are packets as the workload sees them,
/// DROPPED is what it sent and what was meant for it that did not go on, by all reasons together. ENFORCED says
/// whether the firewall stands before the port: a line is red where it does not.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// networks, routers, workloads, hosts, groups or firewallpolicies (also: policies)
    kind: Kind,
    /// Name of one resource; all of the kind when not given
    name: Option<String>,
    /// Only those whose labels fit: key=value, key!=value, key, !key, several separated by commas
    #[arg(short = 'l', long, value_name = "SELECTOR", conflicts_with = "name")]
    selector: Option<Selector>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    connection: ConnectionArgs,
}

pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let Some(name) = &args.name else {
        return all(args.kind, args.selector, args.output, args.connection).await;
    };
    let resource = args.connection.client()?.get(args.kind, name).await?;
    let show = || table(args.kind, std::slice::from_ref(&resource));
    output::result(args.output.format, &resource, show)
}

/// Shows the resources of a kind that the selector chooses.
pub(crate) async fn all(
    kind: Kind,
    selector: Option<Selector>,
    output: OutputArgs,
    connection: ConnectionArgs,
) -> Result<(), Failure> {
    let resources = connection.client()?.list(kind, selector.as_ref()).await?;
    output::list(output.format, &resources, || match resources.as_slice() {
        [] => format!("there are no {}\n", kind.plural()),
        some => table(kind, some),
    })
}

fn table(kind: Kind, resources: &[Resource]) -> String {
    let header: &[&str] = match kind {
        Kind::Network => &["NAME", "SUBNETS", "GATEWAYS", "MTU", "VNI", "ROUTER", "PORTS", "WARNINGS"],
        Kind::Router => mesh::ROUTER_COLUMNS,
        Kind::Workload => &[
            "NAME",
            "HOST",
            "PORT",
            "NETWORK",
            "ADDRESSES",
            "LINK",
            "ENFORCED",
            "GROUPS",
            "POLICIES",
            "SENT",
            "RECEIVED",
            "DROPPED",
            "FAULTS",
        ],
        Kind::Host => mesh::HOST_COLUMNS,
        Kind::Group => firewall::GROUP_COLUMNS,
        Kind::FirewallPolicy => firewall::POLICY_COLUMNS,
    };
    let rows = resources.iter().flat_map(|resource| match resource {
        Resource::Network(network) => vec![network_row(network)],
        Resource::Router(router) => vec![mesh::router_row(router)],
        Resource::Workload(workload) => workload_rows(workload),
        Resource::Host(host) => vec![mesh::host_row(host)],
        Resource::Group(group) => vec![firewall::group_row(group)],
        Resource::FirewallPolicy(policy) => vec![firewall::policy_row(policy)],
    });
    output::table(header, rows.collect())
}

fn network_row(network: &Network) -> Row {
    let Network { name, spec, .. } = network;
    let report = network.status.clone().unwrap_or_default();
    let cells = vec![
        name.clone(),
        or_dash(join(&spec.subnets)),
        or_dash(join(&report.gateways)),
        report.mtu.to_string(),
        report.vni.to_string(),
        spec.router.clone().unwrap_or_else(|| "-".to_owned()),
        report.ports.to_string(),
        or_dash(report.warnings.join("; ")),
    ];
    Row { cells, alarm: !report.warnings.is_empty() }
}

fn workload_rows(workload: &Workload) -> Vec<Row> {
    let Workload { name, spec, status, .. } = workload;
    if spec.ports.is_empty() {
        let mut row = vec!["-".to_owned(); 13];
        row.splice(0..2, [name.clone(), spec.host.clone()]);
        if let Some(status) = status {
            row.splice(7..8, [or_dash(join(&status.groups))]);
        }
        return vec![row.into()];
    }
    let rows = spec.ports.iter().map(|declared| {
        let report = status.as_ref().and_then(|status| port::report(status, &declared.name));
        let mut row = vec![name.clone(), spec.host.clone(), declared.name.clone(), declared.network.clone()];
        match (report, status) {
            (Some(report), Some(status)) => row.extend([
                or_dash(join(&report.addresses)),
                port::link(report, status).to_owned(),
                report.enforced.to_string(),
                or_dash(join(&status.groups)),
                or_dash(join(&status.policies)),
                report.from_guest.packets.to_string(),
                report.to_guest.packets.to_string(),
                report.drops.values().sum::<u64>().to_string(),
                or_dash(report.faults.join("; ")),
            ]),
            _ => row.extend(std::iter::repeat_n("-".to_owned(), 9)),
        }
        Row { cells: row, alarm: !report.zip(status.as_ref()).is_some_and(port::is_sound) }
    });
    rows.collect()
}

/// Values with commas between them.
pub(crate) fn join<T: ToString>(values: &[T]) -> String {
    values.iter().map(T::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use mgmt_types::Enforced;

    use super::*;
    use crate::port::tests::workload;

    #[test]
    fn a_workload_shows_a_line_for_each_port() {
        let text = table(Kind::Workload, &[Resource::Workload(workload())]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        let words: Vec<&str> = lines[1].split_whitespace().collect();
        assert_eq!(
            words,
            [
                "web-1",
                "host-a",
                "eth0",
                "blue",
                "10.0.1.11,fd00:1::11",
                "up",
                "yes",
                "shop,web",
                "shop,baseline",
                "100",
                "200",
                "7",
                "ring",
                "0",
                "stopped"
            ]
        );
        assert!(lines[2].contains("eth1"), "{text}");
    }

    #[test]
    fn a_port_that_nothing_enforces_on_is_an_alarm() {
        let mut workload = workload();
        let alarm =
            |workload: &Workload| workload_rows(workload).iter().map(|row| row.alarm).collect::<Vec<_>>();
        workload.status.as_mut().expect("a status").ports[0].faults.clear();
        assert_eq!(alarm(&workload), [false, true], "eth1 is excluded");
        workload.status.as_mut().expect("a status").ports[0].enforced = Enforced::Pending;
        assert_eq!(alarm(&workload), [true, true]);
        let text = table(Kind::Workload, &[Resource::Workload(workload)]);
        assert!(text.contains("pending") && text.contains(" no "), "{text}");
    }

    #[test]
    fn a_port_nobody_reports_on_shows_dashes() {
        let mut workload = workload();
        workload.status = None;
        let text = table(Kind::Workload, &[Resource::Workload(workload)]);
        let words: Vec<&str> = text.lines().nth(1).expect("a row").split_whitespace().collect();
        assert_eq!(words, ["web-1", "host-a", "eth0", "blue", "-", "-", "-", "-", "-", "-", "-", "-", "-"]);
    }
}
