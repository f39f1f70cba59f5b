//! A host's status in Prometheus' text format.

use std::fmt::{self, Write};

use mgmt_types::agent::{HostStatus, Link, PeerStatus, PortStatus, RuleStatus};

/// Renders a status (Prometheus exposition format 0.0.4).
pub(crate) fn render(status: &HostStatus) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write_all(&mut text, status);
    text
}

type ValueOf = fn(&PortStatus) -> u64;

/// Metrics with one value per port: name, type, help, value.
const PER_PORT: [(&str, &str, &str, ValueOf); 9] = [
    ("palisade_port_up", "gauge", "1 when frames can pass.", |port| u64::from(port.link == Link::Up)),
    ("palisade_port_faults", "gauge", "Faults that are latched now.", |port| port.faults.len() as u64),
    ("palisade_port_from_guest_packets_total", "counter", "Frames sent and accepted.", |port| {
        port.from_guest.packets
    }),
    ("palisade_port_from_guest_bytes_total", "counter", "Bytes sent and accepted.", |port| {
        port.from_guest.bytes
    }),
    ("palisade_port_to_guest_packets_total", "counter", "Frames delivered.", |port| port.to_guest.packets),
    ("palisade_port_to_guest_bytes_total", "counter", "Bytes delivered.", |port| port.to_guest.bytes),
    ("palisade_port_enforced", "gauge", "1 when the firewall decides about its frames.", |port| {
        u64::from(port.enforced)
    }),
    ("palisade_port_flows", "gauge", "Connections it has begun that are tracked.", |port| port.flows),
    ("palisade_port_flow_limit", "gauge", "The most connections it may have begun.", |port| port.flow_limit),
];

type PeerValueOf = fn(&PeerStatus) -> u64;

/// Metrics with one value per other host: name, type, help, value.
const PER_PEER: [(&str, &str, &str, PeerValueOf); 7] = [
    ("palisade_peer_up", "gauge", "1 when its probes are answered.", |peer| u64::from(peer.up == Some(true))),
    ("palisade_peer_path_mtu_bytes", "gauge", "Largest IP packet that passes; 0: not probed.", |peer| {
        peer.path_mtu.unwrap_or(0).into()
    }),
    ("palisade_peer_rtt_microseconds", "gauge", "From a probe to its answer; 0: not known.", |peer| {
        peer.rtt_us.unwrap_or(0).into()
    }),
    ("palisade_peer_sent_packets_total", "counter", "Datagrams that left for it.", |peer| peer.tx.packets),
    ("palisade_peer_sent_bytes_total", "counter", "Their bytes, tunnel headers included.", |peer| {
        peer.tx.bytes
    }),
    ("palisade_peer_received_packets_total", "counter", "Frames from it that were accepted.", |peer| {
        peer.rx.packets
    }),
    ("palisade_peer_received_bytes_total", "counter", "Bytes of these frames.", |peer| peer.rx.bytes),
];

type RuleValueOf = fn(&RuleStatus) -> u64;

/// Counters of each firewall rule, by its number.
const PER_RULE: [(&str, &str, RuleValueOf); 4] = [
    ("palisade_rule_hits_total", "Flows admitted and packets refused.", |rule| rule.hits),
    ("palisade_rule_packets_total", "Packets of flows admitted, and packets refused.", |rule| rule.packets),
    ("palisade_rule_bytes_total", "Bytes of these packets.", |rule| rule.bytes),
    ("palisade_rule_would_total", "What a policy in audit would have decided otherwise.", |rule| rule.would),
];

fn write_all(text: &mut String, status: &HostStatus) -> fmt::Result {
    head(text, "palisade_revision", "gauge", "Revision of the configuration in force.")?;
    writeln!(text, "palisade_revision{{host=\"{}\"}} {}", Escaped(&status.host), status.revision)?;
    head(
        text,
        "palisade_configuration_refused",
        "gauge",
        "1 when something newer could not be put in force.",
    )?;
    writeln!(
        text,
        "palisade_configuration_refused{{host=\"{}\"}} {}",
        Escaped(&status.host),
        u8::from(status.error.is_some())
    )?;
    let sync = &status.sync;
    head(text, "palisade_sync_total", "counter", "What became of slices and deltas the manager sent.")?;
    for (outcome, count) in [
        ("whole", sync.whole),
        ("delta", sync.deltas),
        ("unchanged", sync.unchanged),
        ("refused", sync.refused),
    ] {
        writeln!(text, "palisade_sync_total{{outcome=\"{outcome}\"}} {count}")?;
    }
    for (name, kind, help, value) in PER_PORT {
        head(text, name, kind, help)?;
        for port in &status.ports {
            writeln!(text, "{name}{{{}}} {}", Labels(port), value(port))?;
        }
    }
    let name = "palisade_port_drops_total";
    head(text, name, "counter", "Frames that did not go on, by reason.")?;
    for port in &status.ports {
        for (reason, count) in &port.drops {
            writeln!(text, "{name}{{{},reason=\"{}\"}} {count}", Labels(port), Escaped(reason))?;
        }
    }
    for (name, kind, help, value) in PER_PEER {
        head(text, name, kind, help)?;
        for peer in &status.peers {
            writeln!(text, "{name}{{peer=\"{}\"}} {}", Escaped(&peer.host), value(peer))?;
        }
    }
    let name = "palisade_peer_drops_total";
    head(text, name, "counter", "Packets from or to another host that did not go on, by reason.")?;
    for peer in &status.peers {
        for (reason, count) in &peer.drops {
            let labels = (Escaped(&peer.host), Escaped(reason));
            writeln!(text, "{name}{{peer=\"{}\",reason=\"{}\"}} {count}", labels.0, labels.1)?;
        }
    }
    for (name, help, value) in PER_RULE {
        head(text, name, "counter", help)?;
        for rule in &status.rules {
            writeln!(text, "{name}{{rule=\"{}\"}} {}", rule.id, value(rule))?;
        }
    }
    Ok(())
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) -> fmt::Result {
    writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}")
}

struct Labels<'a>(&'a PortStatus);

impl fmt::Display for Labels<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "workload=\"{}\",port=\"{}\"", Escaped(&self.0.workload), Escaped(&self.0.port))
    }
}

/// A label value, escaped as the format asks.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '\\' => f.write_str("\\\\"),
            '"' => f.write_str("\\\""),
            '\n' => f.write_str("\\n"),
            _ => f.write_char(c),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mgmt_types::agent::{Counters, SyncStatus};

    #[test]
    fn a_scrape_has_each_metric_once_with_help_and_type_before_its_values() {
        let port = PortStatus {
            id: 1,
            workload: "web-1".into(),
            port: "eth\"0".into(),
            link: Link::Up,
            faults: vec!["broken".into()],
            from_guest: Counters { packets: 3, bytes: 300 },
            to_guest: Counters { packets: 4, bytes: 400 },
            drops: [("spoofed-mac".to_string(), 9)].into(),
            ..PortStatus::default()
        };
        let status = HostStatus {
            host: "a".into(),
            version: "1".into(),
            revision: 12,
            ports: vec![port.clone(), PortStatus { port: "eth1".into(), link: Link::Waiting, ..port }],
            sync: SyncStatus { deltas: 5, refused: 1, ..SyncStatus::default() },
            ..HostStatus::default()
        };
        let text = render(&status);
        for line in [
            "palisade_revision{host=\"a\"} 12",
            "palisade_sync_total{outcome=\"delta\"} 5",
            "palisade_sync_total{outcome=\"refused\"} 1",
            "palisade_port_up{workload=\"web-1\",port=\"eth\\\"0\"} 1",
            "palisade_port_up{workload=\"web-1\",port=\"eth1\"} 0",
            "palisade_port_to_guest_bytes_total{workload=\"web-1\",port=\"eth1\"} 400",
            "palisade_port_drops_total{workload=\"web-1\",port=\"eth1\",reason=\"spoofed-mac\"} 9",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is missing in\n{text}");
        }
        let types: Vec<&str> = text.lines().filter(|line| line.starts_with("# TYPE")).collect();
        let mut unique = types.clone();
        unique.dedup();
        assert_eq!(types, unique);
        assert_eq!(types.len(), 25);
    }
}
