//! A distributed logical router between networks.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Labels, Mistake, labels, name, text};

/// What a router does beyond leading from each of its networks to the others. Networks name their router; one that has
/// no resource of its own has no routes of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Router {
    /// DNS label, at most 63 characters; unique among routers.
    #[schema(max_length = 63, pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", example = "shop")]
    pub name: String,
    /// Free key-value pairs to select by.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// What is wanted.
    #[serde(default)]
    pub spec: RouterSpec,
    /// What is. Written by the manager; ignored in what a client sends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(read_only)]
    pub status: Option<RouterReport>,
    /// The revision that last changed this resource. Written by the manager.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(read_only)]
    pub revision: Option<u64>,
}

/// What is wanted of a router.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RouterSpec {
    /// Static routes; the longest prefix counts, and the networks' own subnets before them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 1000)]
    pub routes: Vec<Route>,
}

/// A static route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Route {
    /// Where to: a range written with its network address; `0.0.0.0/0` and `::/0` are everywhere else.
    #[serde(deserialize_with = "text::subnet")]
    #[schema(value_type = String, example = "203.0.113.0/24")]
    pub to: IpNet,
    /// The address, on one of the router's networks, of the port that takes it from there.
    #[serde(deserialize_with = "text::address")]
    #[schema(value_type = String, example = "10.0.1.20")]
    pub via: IpAddr,
}

/// What the manager says about a router.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RouterReport {
    /// Networks that hang on it, by name.
    pub networks: Vec<String>,
    /// Hosts that route for it, by name.
    pub hosts: Vec<String>,
    /// What somebody should look at, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// Most static routes of one router.
const MAX_ROUTES: usize = 1000;

impl Router {
    /// What is wrong within this resource alone; empty when nothing is.
    pub fn mistakes(&self) -> Vec<Mistake> {
        let mut found = Vec::new();
        Mistake::check_name(&mut found, "name", name::check(&self.name), &self.name);
        labels::check(&self.labels, &mut found);
        let routes = &self.spec.routes;
        if routes.len() > MAX_ROUTES {
            let got = format!("{} routes", routes.len());
            found.push(
                Mistake::new("spec.routes", got, format!("at most {MAX_ROUTES}"))
                    .detail("a router has too many routes"),
            );
            return found;
        }
        for (index, route) in routes.iter().enumerate() {
            let at = format!("spec.routes[{index}]");
            if let Some(mistake) = route.mistake(&at) {
                found.push(mistake);
            } else if let Some(other) = routes.iter().take(index).find(|other| other.to == route.to) {
                found.push(
                    Mistake::new(
                        format!("{at}.to"),
                        route.to,
                        format!("each range once; it has {}", other.via),
                    )
                    .detail("two routes lead to the same range"),
                );
            }
        }
        found
    }
}

impl Route {
    fn mistake(&self, at: &str) -> Option<Mistake> {
        let Self { to, via } = self;
        if to.addr() != to.network() {
            let mistake = Mistake::new(format!("{at}.to"), to, to.trunc());
            return Some(mistake.detail("a range is written with its network address"));
        }
        let first = to.network();
        let link_local = match first {
            IpAddr::V4(v4) => v4.is_link_local(),
            IpAddr::V6(v6) => v6.is_unicast_link_local(),
        };
        if to.prefix_len() > 0 && (first.is_multicast() || first.is_loopback() || link_local) {
            let expected = "a range of unicast addresses, such as 203.0.113.0/24 or ::/0";
            let mistake = Mistake::new(format!("{at}.to"), to, expected);
            return Some(mistake.detail("multicast, loopback and link-local addresses are not routed"));
        }
        if to.addr().is_ipv4() != via.is_ipv4() {
            let family = if to.addr().is_ipv4() { "an IPv4 address" } else { "an IPv6 address" };
            let mistake = Mistake::new(format!("{at}.via"), via, family);
            return Some(mistake.detail("a route leads to one kind of address through another"));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn router(routes: &str) -> Router {
        serde_json::from_str(&format!(r#"{{"name":"shop","spec":{{"routes":[{routes}]}}}}"#)).unwrap()
    }

    #[test]
    fn each_mistake_names_its_field() {
        for (routes, field) in [
            (r#"{"to":"203.0.113.7/24","via":"10.0.1.2"}"#, "spec.routes[0].to"),
            (r#"{"to":"224.0.0.0/8","via":"10.0.1.2"}"#, "spec.routes[0].to"),
            (r#"{"to":"fe80::/64","via":"fd00::2"}"#, "spec.routes[0].to"),
            (r#"{"to":"::/0","via":"10.0.1.2"}"#, "spec.routes[0].via"),
            (
                r#"{"to":"0.0.0.0/0","via":"10.0.1.2"},{"to":"0.0.0.0/0","via":"10.0.1.3"}"#,
                "spec.routes[1].to",
            ),
        ] {
            let found = router(routes).mistakes();
            let fields: Vec<_> = found.iter().filter_map(|mistake| mistake.field.as_deref()).collect();
            assert_eq!(fields, [field], "{routes}");
        }
        let many: Vec<String> = (0..1001u32)
            .map(|n| format!(r#"{{"to":"198.18.{}.{}/32","via":"10.0.1.2"}}"#, n / 256, n % 256))
            .collect();
        assert_eq!(router(&many.join(",")).mistakes()[0].field.as_deref(), Some("spec.routes"));
    }

    #[test]
    fn both_families_have_a_default_route() {
        let router = router(r#"{"to":"0.0.0.0/0","via":"10.0.1.2"},{"to":"::/0","via":"fd00::2"}"#);
        assert!(router.mistakes().is_empty());
    }

    #[test]
    fn what_is_no_address_says_what_would_be_right() {
        for (text, expected) in [
            (r#"{"to":"everywhere","via":"10.0.1.2"}"#, "a range of addresses, such as"),
            (r#"{"to":"0.0.0.0/0","via":"web-1"}"#, "an IP address, such as"),
        ] {
            let error = serde_json::from_str::<Route>(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
