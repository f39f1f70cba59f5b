//! A virtual machine, a container, or a host's own traffic, and its virtual NICs.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::agent::{Counters, Link};
use crate::{
    Attach, Enforced, Firewall, Labels, MacAddr, Mistake, RateLimit, Tap, VhostUser, derive, labels, name,
    text,
};

/// Something that has ports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Workload {
    /// DNS label, at most 63 characters; unique among workloads.
    #[schema(max_length = 63, pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", example = "web-1")]
    pub name: String,
    /// Free key-value pairs to select by.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// What is wanted.
    pub spec: WorkloadSpec,
    /// What is. Written by the manager; ignored in what a client sends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(read_only)]
    pub status: Option<WorkloadReport>,
    /// The revision that last changed this resource. Written by the manager.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(read_only)]
    pub revision: Option<u64>,
}

/// What is wanted of a workload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkloadSpec {
    /// Name of the host it runs on now.
    #[schema(example = "host-a")]
    pub host: String,
    /// What it is.
    pub kind: WorkloadKind,
    /// Its virtual NICs.
    #[schema(max_items = 64)]
    pub ports: Vec<PortSpec>,
}

/// What a workload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum WorkloadKind {
    /// A virtual machine; attached by vhost-user unless said otherwise.
    Vm,
    /// A container or network namespace; attached by TAP unless said otherwise.
    Container,
    /// The host's own traffic; attached by TAP unless said otherwise.
    Host,
}

/// One virtual NIC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PortSpec {
    /// DNS label, at most 15 characters; unique within the workload.
    #[schema(max_length = 15, pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", example = "eth0")]
    pub name: String,
    /// Name of the network it is plugged into.
    #[schema(example = "blue")]
    pub network: String,
    /// Addresses it may use, each in a subnet of the network. In every IPv6 subnet of 64 bits or more of host part
    /// where none is given, one is derived from the MAC address (RFC 4291 appendix A).
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "text::addresses")]
    #[schema(value_type = Vec<String>, max_items = 64, example = json!(["10.0.1.11"]))]
    pub addresses: Vec<IpAddr>,
    /// Its MAC address; derived from workload and port name when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "52:54:00:00:00:01")]
    pub mac: Option<MacAddr>,
    /// Queue pairs, 1 to 16; 1 when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 16)]
    pub queues: Option<u16>,
    /// Limit on what the workload sends through this port; none when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimit>,
    /// How it is attached; chosen by the workload's kind when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attach: Option<Attach>,
    /// `off` excludes the port from the firewall; it shows as not enforced wherever it is shown.
    #[serde(default, skip_serializing_if = "Firewall::is_on")]
    pub firewall: Firewall,
}

/// What is known about a workload.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadReport {
    /// The host it runs on.
    pub host: String,
    /// True when that host spoke to the manager within the last 15 seconds.
    pub connected: bool,
    /// Groups it belongs to, by name; also those by an address of one of its ports.
    #[serde(default)]
    pub groups: Vec<String>,
    /// Firewall policies that apply to one of its ports, in the order of judgement.
    #[serde(default)]
    pub policies: Vec<String>,
    /// Whether the firewall stands before its ports.
    #[serde(default)]
    pub enforced: Enforced,
    /// Its ports, in the order of the spec.
    pub ports: Vec<PortReport>,
}

/// What is known about a port: what the manager derived and what the host counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PortReport {
    /// The port's name.
    pub name: String,
    /// Its number, stable for the life of the port.
    pub id: u32,
    /// The MAC address in use.
    #[schema(value_type = String)]
    pub mac: MacAddr,
    /// The addresses in use, derived ones included.
    #[schema(value_type = Vec<String>)]
    pub addresses: Vec<IpAddr>,
    /// How it is attached.
    pub attach: Attach,
    /// Queue pairs.
    pub queues: u16,
    /// The MTU of its network, in bytes.
    pub mtu: u16,
    /// Whether the firewall stands before it.
    #[serde(default)]
    pub enforced: Enforced,
    /// Connections tracked for it now.
    #[serde(default)]
    pub flows: u64,
    /// Most connections it may have; 0 while its host does not say.
    #[serde(default)]
    pub flow_limit: u64,
    /// Whether it carries traffic; absent while its host has said nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<Link>,
    /// What is broken, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<String>,
    /// What the workload sent and was accepted.
    #[serde(default)]
    pub from_guest: Counters,
    /// What was delivered to the workload.
    #[serde(default)]
    pub to_guest: Counters,
    /// Dropped packets by reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub drops: BTreeMap<String, u64>,
    /// Further facts by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub details: BTreeMap<String, String>,
}

/// Most ports of one workload.
const MAX_PORTS: usize = 64;
/// Most addresses of one port.
const MAX_ADDRESSES: usize = 64;
/// Most queue pairs of one port; what virtio-net guests are tested with.
const MAX_QUEUES: u16 = 16;
impl PortSpec {
    /// The MAC address in use.
    pub fn mac_in_use(&self, workload: &str) -> MacAddr {
        self.mac.unwrap_or_else(|| derive::mac(workload, &self.name))
    }

    /// How the port is attached when its workload is `kind`.
    pub fn attach_in_use(&self, workload: &str, kind: WorkloadKind) -> Attach {
        match (&self.attach, kind) {
            (Some(given), _) => given.clone(),
            (None, WorkloadKind::Vm) => Attach::VhostUser(VhostUser::default()),
            (None, WorkloadKind::Container | WorkloadKind::Host) => {
                Attach::Tap(Tap { device: derive::device(workload, &self.name), netns: None })
            }
        }
    }
}

impl Workload {
    /// What is wrong within this resource alone; empty when nothing is.
    pub fn mistakes(&self) -> Vec<Mistake> {
        let mut found = Vec::new();
        Mistake::check_name(&mut found, "name", name::check(&self.name), &self.name);
        labels::check(&self.labels, &mut found);
        Mistake::check_name(&mut found, "spec.host", name::check(&self.spec.host), &self.spec.host);
        let ports = &self.spec.ports;
        if ports.len() > MAX_PORTS {
            found.push(
                Mistake::new("spec.ports", format!("{} ports", ports.len()), format!("at most {MAX_PORTS}"))
                    .detail("a workload has too many ports"),
            );
        }
        for (index, port) in ports.iter().enumerate() {
            let at = format!("spec.ports[{index}]");
            check_port(&mut found, &at, port);
            if ports.iter().take(index).any(|other| other.name == port.name) {
                found.push(
                    Mistake::new(
                        format!("{at}.name"),
                        &port.name,
                        "a name no other port of the workload has",
                    )
                    .detail("two ports of the workload have the same name"),
                );
            }
        }
        found
    }
}

fn check_port(found: &mut Vec<Mistake>, at: &str, port: &PortSpec) {
    Mistake::check_name(found, &format!("{at}.name"), name::check_port(&port.name), &port.name);
    Mistake::check_name(found, &format!("{at}.network"), name::check(&port.network), &port.network);
    if port.addresses.len() > MAX_ADDRESSES {
        found.push(
            Mistake::new(
                format!("{at}.addresses"),
                format!("{} addresses", port.addresses.len()),
                format!("at most {MAX_ADDRESSES}"),
            )
            .detail("a port has too many addresses"),
        );
    }
    if let Some(mac) = port.mac
        && (mac.is_multicast() || mac.is_zero())
    {
        found.push(
            Mistake::new(format!("{at}.mac"), mac, "a unicast address, such as 52:54:00:00:00:01")
                .detail("the MAC address cannot be a station's"),
        );
    }
    if let Some(queues) = port.queues
        && !(1..=MAX_QUEUES).contains(&queues)
    {
        found.push(
            Mistake::new(format!("{at}.queues"), queues, format!("1 to {MAX_QUEUES} queue pairs"))
                .detail("the number of queue pairs is out of range"),
        );
    }
    if let Some(limit) = &port.rate_limit {
        limit.check(found, &format!("{at}.rateLimit"));
    }
    if let Some(attach) = &port.attach {
        attach.check(found, &format!("{at}.attach"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::VhostRole;

    fn workload(ports: &str) -> Workload {
        serde_json::from_str(&format!(
            r#"{{"name":"web-1","spec":{{"host":"host-a","kind":"vm","ports":{ports}}}}}"#
        ))
        .unwrap()
    }

    #[test]
    fn a_vm_listens_and_a_container_gets_a_tap() {
        let workload = workload(r#"[{"name":"eth0","network":"blue"}]"#);
        let port = &workload.spec.ports[0];
        assert_eq!(
            port.attach_in_use("web-1", WorkloadKind::Vm),
            Attach::VhostUser(VhostUser { role: VhostRole::Server, socket: None })
        );
        assert_eq!(
            port.attach_in_use("web-1", WorkloadKind::Container),
            Attach::Tap(Tap { device: "web-1.eth0".into(), netns: None })
        );
    }

    #[test]
    fn each_mistake_names_its_field() {
        for (port, field) in [
            (r#"{"name":"Eth0","network":"blue"}"#, "spec.ports[0].name"),
            (r#"{"name":"eth0","network":""}"#, "spec.ports[0].network"),
            (r#"{"name":"eth0","network":"b","mac":"01:00:5e:00:00:01"}"#, "spec.ports[0].mac"),
            (r#"{"name":"eth0","network":"b","queues":0}"#, "spec.ports[0].queues"),
            (r#"{"name":"eth0","network":"b","queues":17}"#, "spec.ports[0].queues"),
            (
                r#"{"name":"eth0","network":"b","rateLimit":{"packetsPerSecond":0}}"#,
                "spec.ports[0].rateLimit.packetsPerSecond",
            ),
            (
                r#"{"name":"eth0","network":"b","attach":{"vhostUser":{"socket":"a.sock"}}}"#,
                "spec.ports[0].attach.vhostUser.socket",
            ),
            (
                r#"{"name":"eth0","network":"b","attach":{"tap":{"device":"a/b"}}}"#,
                "spec.ports[0].attach.tap.device",
            ),
            (
                r#"{"name":"eth0","network":"b","attach":{"tap":{"device":"a","netns":"../x"}}}"#,
                "spec.ports[0].attach.tap.netns",
            ),
        ] {
            let found = workload(&format!("[{port}]")).mistakes();
            let fields: Vec<_> = found.into_iter().filter_map(|m| m.field).collect();
            assert_eq!(fields, [field], "{port}");
        }
    }

    #[test]
    fn a_port_is_behind_the_firewall_unless_it_is_excluded() {
        let workload =
            workload(r#"[{"name":"a","network":"b"},{"name":"c","network":"b","firewall":"off"}]"#);
        let text = serde_json::to_value(&workload.spec.ports).unwrap();
        assert_eq!((text[0].get("firewall"), text[1].get("firewall")), (None, Some(&"off".into())));
        assert!(
            serde_json::from_str::<PortSpec>(r#"{"name":"a","network":"b","firewall":"audit"}"#).is_err()
        );
    }

    #[test]
    fn two_ports_of_one_name_are_refused() {
        let found = workload(r#"[{"name":"eth0","network":"a"},{"name":"eth0","network":"b"}]"#).mistakes();
        assert_eq!(found[0].field.as_deref(), Some("spec.ports[1].name"));
    }

    #[test]
    fn an_unknown_field_is_refused_at_every_level() {
        for text in [
            r#"{"name":"eth0","network":"b","colour":"red"}"#,
            r#"{"name":"eth0","network":"b","attach":{"vhostUser":{"sock":"/a"}}}"#,
            r#"{"name":"eth0","network":"b","attach":{"tap":{"device":"a","ns":"x"}}}"#,
            r#"{"name":"eth0","network":"b","attach":{"tap":{"device":"a"},"vhostUser":{}}}"#,
            r#"{"name":"eth0","network":"b","rateLimit":{"pps":1}}"#,
        ] {
            assert!(serde_json::from_str::<PortSpec>(text).is_err(), "{text}");
        }
    }
}
