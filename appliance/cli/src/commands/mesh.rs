//! Hosts and routers, as `get` and `describe` show them.

use mgmt_types::agent::PeerStatus;
use mgmt_types::{Host, HostKind, HostState, Router};

use crate::commands::get::join;
use crate::output::{self, Row, facts, or_dash};

pub(crate) const HOST_COLUMNS: &[&str] = &[
    "NAME", "KIND", "STATE", "REVISION", "WANTED", "PORTS", "UP", "UNDERLAY", "MTU", "PEERS", "VERSION",
    "TROUBLE",
];

pub(crate) fn host_row(host: &Host) -> Row {
    let report = host.status.clone().unwrap_or_default();
    let is_ours = host.spec.kind.is_agent();
    let ours = |text: String| if is_ours { text } else { "-".to_owned() };
    let trouble: Vec<String> = report.reasons.iter().chain(&report.warnings).cloned().collect();
    let is_cut_off = report.peers_up < report.peers;
    let alarm = is_ours && (report.state != HostState::Ready || is_cut_off) || !trouble.is_empty();
    let cells = vec![
        host.name.clone(),
        kind(host.spec.kind).to_owned(),
        ours(report.state.to_string()),
        ours(report.revision.to_string()),
        ours(report.wanted.to_string()),
        report.ports.to_string(),
        ours(report.ports_up.to_string()),
        or_dash(join(&report.underlay)),
        if report.underlay.is_empty() { "-".to_owned() } else { report.underlay_mtu.to_string() },
        match report.peers {
            0 => "-".to_owned(),
            peers => format!("{} of {peers} up", report.peers_up),
        },
        report.version.unwrap_or_else(|| "-".to_owned()),
        or_dash(trouble.join("; ")),
    ];
    Row { cells, alarm }
}

pub(crate) const ROUTER_COLUMNS: &[&str] = &["NAME", "NETWORKS", "HOSTS", "ROUTES", "WARNINGS"];

pub(crate) fn router_row(router: &Router) -> Row {
    let report = router.status.clone().unwrap_or_default();
    let cells = vec![
        router.name.clone(),
        or_dash(join(&report.networks)),
        or_dash(join(&report.hosts)),
        router.spec.routes.len().to_string(),
        or_dash(report.warnings.join("; ")),
    ];
    Row { cells, alarm: !report.warnings.is_empty() }
}

/// What is known about a host, ports aside.
pub(crate) fn host(host: &Host, labels: String) -> String {
    let report = host.status.clone().unwrap_or_default();
    let mut lines = vec![("labels", labels), ("kind", kind(host.spec.kind).to_owned())];
    if host.spec.kind.is_agent() {
        let behind = if report.revision >= report.wanted { "up to date" } else { "behind" };
        lines.extend([
            ("state", report.state.to_string()),
            ("why", or_dash(report.reasons.join("; "))),
            ("last seen", report.last_seen.unwrap_or_else(|| "-".to_owned())),
            ("version", report.version.unwrap_or_else(|| "-".to_owned())),
            ("realised", format!("revision {} of {} wanted, {behind}", report.revision, report.wanted)),
            ("error", report.error.unwrap_or_else(|| "-".to_owned())),
            ("ports", format!("{}, {} up", report.ports, report.ports_up)),
        ]);
    } else {
        let options = if host.spec.options == Some(true) { "understood" } else { "none" };
        lines.extend([("options", options.to_owned()), ("ports", report.ports.to_string())]);
    }
    let underlay = match report.underlay.as_slice() {
        [] => "-".to_owned(),
        some => format!("{}, UDP port {}, MTU {}", join(some), report.geneve_port, report.underlay_mtu),
    };
    lines.push(("underlay", underlay));
    lines.extend(report.warnings.into_iter().map(|warning| ("warning", warning)));
    let mut text = facts(2, &lines);
    if !report.paths.is_empty() {
        let header = ["  PEER", "UP", "ADDRESS", "MTU", "RTT", "SENT", "RECEIVED", "DROPPED"];
        let rows = report.paths.iter().map(path_row).collect();
        text += &format!("paths\n{}", output::table(&header, rows));
    }
    text
}

fn path_row(path: &PeerStatus) -> Row {
    let dash = || "-".to_owned();
    let drops = path.drops.iter().filter(|(_, count)| **count > 0);
    let drops: Vec<String> = drops.map(|(reason, count)| format!("{count} {reason}")).collect();
    let cells = vec![
        format!("  {}", path.host),
        path.up.map_or_else(dash, yes_or_no),
        path.address.map_or_else(dash, |address| address.to_string()),
        path.path_mtu.map_or_else(dash, |mtu| mtu.to_string()),
        path.rtt_us.map_or_else(dash, |rtt| format!("{rtt} µs")),
        path.tx.packets.to_string(),
        path.rx.packets.to_string(),
        or_dash(drops.join(", ")),
    ];
    Row { cells, alarm: path.up == Some(false) }
}

/// What is known about a router.
pub(crate) fn router(router: &Router, labels: String) -> String {
    let report = router.status.clone().unwrap_or_default();
    let mut lines = vec![
        ("labels", labels),
        ("networks", or_dash(join(&report.networks))),
        ("hosts", or_dash(join(&report.hosts))),
    ];
    lines.extend(report.warnings.into_iter().map(|warning| ("warning", warning)));
    let mut text = facts(2, &lines);
    if !router.spec.routes.is_empty() {
        let routes = router.spec.routes.iter();
        let rows = routes.map(|route| vec![format!("  {}", route.to), route.via.to_string()].into());
        text += &format!("routes\n{}", output::table(&["  TO", "VIA"], rows.collect()));
    }
    text
}

fn yes_or_no(is: bool) -> String {
    if is { "yes" } else { "no" }.to_owned()
}

const fn kind(kind: HostKind) -> &'static str {
    match kind {
        HostKind::Agent => "agent",
        HostKind::External => "external",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = r#"{"name": "host-a", "status": {"state": "ready", "connected": true, "revision": 3, "wanted": 3, "ports": 2,
        "portsUp": 2, "version": "1.0", "underlay": ["192.0.2.1"], "genevePort": 6081, "underlayMtu": 1500,
        "peers": 2, "peersUp": 1, "paths": [
        {"host": "host-b", "up": true, "address": "192.0.2.2", "pathMtu": 1500, "rttUs": 210,
         "tx": {"packets": 5, "bytes": 500}, "rx": {"packets": 4, "bytes": 400}, "drops": {"unknown-vni": 2, "none": 0}},
        {"host": "host-c", "up": false}, {"host": "ext-1"}]}}"#;

    #[test]
    fn a_host_shows_its_underlay_and_whom_it_reaches() {
        let one: Host = serde_json::from_str(HOST).expect("a host");
        let row = host_row(&one);
        assert_eq!(
            row.cells,
            ["host-a", "agent", "ready", "3", "3", "2", "2", "192.0.2.1", "1500", "1 of 2 up", "1.0", "-"]
        );
        assert!(row.alarm, "a peer does not answer");
        let text = host(&one, "-".into());
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        for line in [
            "  underlay   192.0.2.1, UDP port 6081, MTU 1500",
            "  PEER UP ADDRESS MTU RTT SENT RECEIVED DROPPED",
            "  host-b yes 192.0.2.2 1500 210 µs 5 4 2 unknown-vni",
            "  host-c no - - - 0 0 -",
            "  ext-1 - - - - 0 0 -",
        ] {
            assert!(text.lines().any(|found| words(found) == words(line)), "no {line:?} in\n{text}");
        }
    }

    #[test]
    fn an_external_host_is_never_missed() {
        let text = r#"{"name": "ext", "spec": {"kind": "external", "underlay": ["192.0.2.9"]},
            "status": {"connected": false, "revision": 0, "wanted": 1, "ports": 1, "portsUp": 0,
            "underlay": ["192.0.2.9"], "underlayMtu": 1500, "genevePort": 6081}}"#;
        let ext: Host = serde_json::from_str(text).expect("a host");
        let row = host_row(&ext);
        assert_eq!(
            row.cells,
            ["ext", "external", "-", "-", "-", "1", "-", "192.0.2.9", "1500", "-", "-", "-"]
        );
        assert!(!row.alarm);
        assert!(!host(&ext, "-".into()).contains("state"));
    }

    #[test]
    fn a_warning_is_shown_and_is_an_alarm() {
        let mut one: Host = serde_json::from_str(HOST).expect("a host");
        let status = one.status.as_mut().expect("a status");
        (status.peers_up, status.warnings) = (2, vec!["no underlay".into()]);
        let row = host_row(&one);
        assert!(row.alarm && row.cells.last().is_some_and(|cell| cell == "no underlay"));
        assert!(host(&one, "-".into()).contains("warning    no underlay"));
    }

    #[test]
    fn a_router_shows_its_networks_and_routes() {
        let text = r#"{"name": "shop", "spec": {"routes": [{"to": "0.0.0.0/0", "via": "10.0.1.9"}]},
            "status": {"networks": ["blue", "red"], "hosts": ["host-a"], "warnings": ["it leads nowhere"]}}"#;
        let shop: Router = serde_json::from_str(text).expect("a router");
        let row = router_row(&shop);
        assert_eq!(row.cells, ["shop", "blue,red", "host-a", "1", "it leads nowhere"]);
        assert!(row.alarm);
        let text = router(&shop, "-".into());
        assert!(text.contains("  TO") && text.contains("0.0.0.0/0  10.0.1.9"), "{text}");
    }
}
