//! A logical layer-2 segment.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::ToSchema;

use crate::{Labels, Mistake, labels, name, text};

/// One VNI and its subnets: ports of one network reach each other on layer 2.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Network {
    /// DNS label, at most 63 characters; unique among networks.
    #[schema(max_length = 63, pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", example = "blue")]
    pub name: String,
    /// Free key-value pairs to select by.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// What is wanted.
    pub spec: NetworkSpec,
    /// What is. Written by the manager; ignored in what a client sends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(read_only)]
    pub status: Option<NetworkReport>,
    /// The revision that last changed this resource. Written by the manager.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(read_only)]
    pub revision: Option<u64>,
}

/// What is wanted of a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NetworkSpec {
    /// Address ranges of the network, each written with its network address, such as `10.0.1.0/24`.
    #[serde(deserialize_with = "text::subnets")]
    #[schema(value_type = Vec<String>, max_items = 16, example = json!(["10.0.1.0/24", "fd00:1::/64"]))]
    pub subnets: Vec<IpNet>,
    /// Name of the router the network hangs on; networks of one router may not overlap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub router: Option<String>,
    /// Largest IP packet ports may send, in bytes: `auto` or a number.
    #[serde(default)]
    pub mtu: Mtu,
    /// GENEVE virtual network identifier, 1 to 16777215 (RFC 8926 section 3.3); chosen by the manager and kept when
    /// not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 16777215)]
    pub vni: Option<u32>,
    /// Addresses the network's gateway answers on, at most one per subnet; the first host address of each subnet when
    /// not given, none when empty.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "text::maybe_addresses")]
    #[schema(value_type = Option<Vec<String>>, example = json!(["10.0.1.1"]))]
    pub gateways: Option<Vec<IpAddr>>,
    /// Cut the maximum segment size that TCP connections announce to what the MTU carries; yes when not given.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    #[schema(default = true)]
    pub mss_clamp: bool,
}

const fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out a reference")]
const fn is_yes(value: &bool) -> bool {
    *value
}

/// What the manager says about a network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct NetworkReport {
    /// The identifier in use.
    pub vni: u32,
    /// The MTU in use, in bytes.
    pub mtu: u16,
    /// The gateway addresses in use.
    #[schema(value_type = Vec<String>)]
    pub gateways: Vec<IpAddr>,
    /// How many ports are plugged into it.
    pub ports: u32,
    /// What somebody should look at, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// Largest IP packet, in bytes: written `auto` or as a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mtu {
    /// What the path between the network's hosts carries.
    #[default]
    Auto,
    /// Exactly this many bytes.
    Bytes(u16),
}

impl Mtu {
    /// RFC 8200 section 5: every IPv6 link carries 1280 bytes.
    pub const MIN: u16 = 1280;
    /// The largest frame common hardware switches carry is 9216 bytes; more cannot leave a host.
    pub const MAX: u16 = 9216;
    /// What `auto` means where no host has an underlay: the Ethernet default.
    pub const WITHOUT_UNDERLAY: u16 = 1500;
}

/// Largest VNI: 24 bits on the wire (RFC 8926 section 3.3).
pub(crate) const MAX_VNI: u32 = 0xff_ffff;
/// Most subnets one network may have.
const MAX_SUBNETS: usize = 16;

impl NetworkSpec {
    /// The gateway addresses in use: those given, else the first host address of each subnet that has room for one.
    pub fn gateways_in_use(&self) -> Vec<IpAddr> {
        match &self.gateways {
            Some(given) => given.clone(),
            None => self.subnets.iter().filter_map(first_host).collect(),
        }
    }
}

impl Network {
    /// What is wrong within this resource alone; empty when nothing is.
    pub fn mistakes(&self) -> Vec<Mistake> {
        let mut found = Vec::new();
        Mistake::check_name(&mut found, "name", name::check(&self.name), &self.name);
        labels::check(&self.labels, &mut found);
        let spec = &self.spec;
        if let Some(router) = &spec.router {
            Mistake::check_name(&mut found, "spec.router", name::check(router), router);
        }
        if spec.subnets.len() > MAX_SUBNETS {
            found.push(
                Mistake::new(
                    "spec.subnets",
                    format!("{} subnets", spec.subnets.len()),
                    format!("at most {MAX_SUBNETS}"),
                )
                .detail("a network has too many subnets"),
            );
        }
        for (index, subnet) in spec.subnets.iter().enumerate() {
            check_subnet(&mut found, index, *subnet, &spec.subnets);
        }
        if let Mtu::Bytes(bytes) = spec.mtu
            && !(Mtu::MIN..=Mtu::MAX).contains(&bytes)
        {
            found.push(
                Mistake::new("spec.mtu", bytes, format!("auto, or {} to {} bytes", Mtu::MIN, Mtu::MAX))
                    .detail("the MTU is out of range"),
            );
        }
        if let Some(vni) = spec.vni
            && !(1..=MAX_VNI).contains(&vni)
        {
            found.push(
                Mistake::new("spec.vni", vni, format!("1 to {MAX_VNI}")).detail("the VNI is out of range"),
            );
        }
        check_gateways(&mut found, spec);
        found
    }
}

/// The range of prefix lengths a subnet may have. Longer than /30 or /126 leaves no room for gateway and workload.
fn check_subnet(found: &mut Vec<Mistake>, index: usize, subnet: IpNet, all: &[IpNet]) {
    let field = format!("spec.subnets[{index}]");
    if subnet.addr() != subnet.network() {
        found.push(
            Mistake::new(&field, subnet, subnet.trunc())
                .detail("a subnet is written with its network address"),
        );
        return;
    }
    let (least, most) = match subnet {
        IpNet::V4(_) => (8, 30),
        IpNet::V6(_) => (32, 126),
    };
    if !(least..=most).contains(&subnet.prefix_len()) {
        found.push(
            Mistake::new(&field, subnet, format!("a prefix length from /{least} to /{most}"))
                .detail("the subnet is too large or too small"),
        );
    }
    if !is_unicast_range(subnet) {
        found.push(
            Mistake::new(&field, subnet, "a range of unicast addresses, such as 10.0.1.0/24 or fd00:1::/64")
                .detail("workloads cannot have multicast, loopback, link-local or unspecified addresses"),
        );
    }
    if let Some((other, clash)) =
        all.iter().enumerate().take(index).find(|(_, other)| overlap(**other, subnet))
    {
        found.push(
            Mistake::new(&field, subnet, format!("a range outside {clash} (spec.subnets[{other}])"))
                .detail("two subnets of the network overlap"),
        );
    }
}

fn check_gateways(found: &mut Vec<Mistake>, spec: &NetworkSpec) {
    let Some(gateways) = &spec.gateways else { return };
    for (index, gateway) in gateways.iter().enumerate() {
        let field = format!("spec.gateways[{index}]");
        let Some(subnet) = spec.subnets.iter().find(|subnet| subnet.contains(gateway)) else {
            found.push(
                Mistake::new(&field, gateway, format!("an address in one of: {}", list(&spec.subnets)))
                    .detail("the gateway is in no subnet of the network"),
            );
            continue;
        };
        if !is_host_address(subnet, *gateway) {
            found.push(
                Mistake::new(&field, gateway, format!("a host address of {subnet}"))
                    .detail("the gateway is the subnet's network or broadcast address"),
            );
        }
        if let Some(other) = gateways.iter().take(index).find(|other| subnet.contains(*other)) {
            found.push(
                Mistake::new(&field, gateway, format!("one gateway per subnet; {subnet} has {other}"))
                    .detail("a subnet has two gateways"),
            );
        }
    }
}

/// True when the two ranges share an address.
pub(crate) fn overlap(a: IpNet, b: IpNet) -> bool {
    a.contains(&b) || b.contains(&a)
}

/// True when `address` may belong to a station of `subnet`: not its network address (for IPv6 the subnet-router
/// anycast address, RFC 4291 section 2.6.1) and not its broadcast address.
pub(crate) fn is_host_address(subnet: &IpNet, address: IpAddr) -> bool {
    subnet.contains(&address)
        && address != subnet.network()
        && !(address.is_ipv4() && address == subnet.broadcast())
}

impl NetworkSpec {
    /// The subnet that holds `address`, when it may belong to a station there.
    pub fn subnet_of_host(&self, address: IpAddr) -> Option<&IpNet> {
        self.subnets.iter().find(|subnet| is_host_address(subnet, address))
    }

    /// The first pair of subnets, one of each, that share an address.
    pub fn overlap_with(&self, other: &Self) -> Option<(IpNet, IpNet)> {
        self.subnets
            .iter()
            .flat_map(|mine| other.subnets.iter().map(move |theirs| (*mine, *theirs)))
            .find(|(mine, theirs)| overlap(*mine, *theirs))
    }
}

fn first_host(subnet: &IpNet) -> Option<IpAddr> {
    // `hosts()` of an IPv6 range begins with the subnet-router anycast address.
    subnet.hosts().find(|address| is_host_address(subnet, *address))
}

fn is_unicast_range(subnet: IpNet) -> bool {
    match subnet {
        IpNet::V4(net) => {
            let first = net.network();
            !(first.is_multicast()
                || first.is_loopback()
                || first.is_link_local()
                || first.octets()[0] == 0
                || first.octets()[0] >= 240)
        }
        IpNet::V6(net) => {
            let first = net.network();
            !(first.is_multicast()
                || first.is_loopback()
                || first.is_unspecified()
                || first.is_unicast_link_local()
                || first.to_ipv4_mapped().is_some())
        }
    }
}

/// Items separated by commas, or `none`.
pub(crate) fn list<T: fmt::Display>(items: &[T]) -> String {
    if items.is_empty() {
        return "none".to_owned();
    }
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

impl Serialize for Mtu {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::Bytes(bytes) => serializer.serialize_u16(*bytes),
        }
    }
}

impl<'de> Deserialize<'de> for Mtu {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Mtu;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "auto or a number of bytes from {} to {}", Mtu::MIN, Mtu::MAX)
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Mtu, E> {
                if text == "auto" {
                    return Ok(Mtu::Auto);
                }
                Err(E::invalid_value(serde::de::Unexpected::Str(text), &self))
            }

            fn visit_u64<E: serde::de::Error>(self, bytes: u64) -> Result<Mtu, E> {
                u16::try_from(bytes)
                    .map(Mtu::Bytes)
                    .map_err(|_| E::invalid_value(serde::de::Unexpected::Unsigned(bytes), &self))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl utoipa::PartialSchema for Mtu {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Type};
        OneOfBuilder::new()
            .item(ObjectBuilder::new().schema_type(Type::String).enum_values(Some(["auto"])))
            .item(
                ObjectBuilder::new()
                    .schema_type(Type::Integer)
                    .minimum(Some(Self::MIN))
                    .maximum(Some(Self::MAX)),
            )
            .description(Some("Largest IP packet, in bytes: auto or a number."))
            .into()
    }
}

impl ToSchema for Mtu {}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(spec: &str) -> Network {
        Network {
            name: "blue".into(),
            labels: Labels::new(),
            spec: serde_json::from_str(spec).unwrap(),
            status: None,
            revision: None,
        }
    }

    #[test]
    fn gateways_default_to_the_first_host_address_of_each_subnet() {
        let spec = network(r#"{"subnets":["10.0.1.0/24","fd00:1::/64"]}"#).spec;
        let expected: Vec<IpAddr> = vec!["10.0.1.1".parse().unwrap(), "fd00:1::1".parse().unwrap()];
        assert_eq!(spec.gateways_in_use(), expected);
        assert!(spec.mtu == Mtu::Auto && spec.mss_clamp);
    }

    #[test]
    fn an_empty_list_of_gateways_means_none() {
        let spec = network(r#"{"subnets":["10.0.1.0/24"],"gateways":[]}"#).spec;
        assert_eq!(spec.gateways_in_use(), Vec::<IpAddr>::new());
    }

    #[test]
    fn each_mistake_names_its_field() {
        for (spec, field) in [
            (r#"{"subnets":["10.0.1.7/24"]}"#, "spec.subnets[0]"),
            (r#"{"subnets":["10.0.0.0/16","10.0.1.0/24"]}"#, "spec.subnets[1]"),
            (r#"{"subnets":["224.0.0.0/8"]}"#, "spec.subnets[0]"),
            (r#"{"subnets":["fe80::/64"]}"#, "spec.subnets[0]"),
            (r#"{"subnets":["10.0.1.0/31"]}"#, "spec.subnets[0]"),
            (r#"{"subnets":[],"mtu":1279}"#, "spec.mtu"),
            (r#"{"subnets":[],"vni":0}"#, "spec.vni"),
            (r#"{"subnets":[],"vni":16777216}"#, "spec.vni"),
            (r#"{"subnets":[],"router":"Shop"}"#, "spec.router"),
            (r#"{"subnets":["10.0.1.0/24"],"gateways":["10.0.2.1"]}"#, "spec.gateways[0]"),
            (r#"{"subnets":["10.0.1.0/24"],"gateways":["10.0.1.255"]}"#, "spec.gateways[0]"),
            (r#"{"subnets":["10.0.1.0/24"],"gateways":["10.0.1.1","10.0.1.2"]}"#, "spec.gateways[1]"),
        ] {
            let fields: Vec<String> = network(spec).mistakes().into_iter().filter_map(|m| m.field).collect();
            assert_eq!(fields, [field], "{spec}");
        }
    }

    #[test]
    fn a_wrong_mtu_says_what_would_be_right() {
        for text in ["\"big\"", "70000", "-1", "true"] {
            let error = serde_json::from_str::<Mtu>(text).unwrap_err().to_string();
            assert!(error.contains("auto or a number of bytes from 1280 to 9216"), "{error}");
        }
    }
}
