//! The two guests of the generator, as Palisade is told about them.

use std::net::Ipv4Addr;

use crate::generator::{Load, MACS};

/// Rules of one policy; more are put in further policies.
const RULES_OF_A_POLICY: u32 = 100;

/// Groups of addresses that rules are about and nobody of the guests is in.
const STRANGERS: u32 = 50;

/// Of so many policies one applies to the guests, and the others to somebody else.
const POLICIES_OF_ALL: u32 = 10;

/// What is done about the guests' traffic besides guarding addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Firewall {
    /// The ports are excluded from it.
    Off,
    /// So many rules, of which the last one admits the traffic and no other does, and room for so many flows.
    Rules { count: u32, flows: u32 },
}

/// Who they are, and who may talk to whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Guests {
    addresses: [Vec<Ipv4Addr>; 2],
    firewall: Firewall,
}

impl Guests {
    /// Those that send `load`.
    pub(crate) fn of(load: &Load, firewall: Firewall) -> Guests {
        Guests { addresses: load.addresses(), firewall }
    }

    /// Whether their connections are tracked.
    pub(crate) fn tracked(&self) -> bool {
        self.firewall != Firewall::Off
    }

    /// What they need of `palisade up`.
    pub(crate) fn options(&self) -> Vec<String> {
        match self.firewall {
            Firewall::Off => Vec::new(),
            Firewall::Rules { flows, .. } => ["--max-flows", "--max-flows-per-port"]
                .into_iter()
                .flat_map(|o| [o.to_owned(), flows.to_string()])
                .collect(),
        }
    }

    /// A network, a workload for each, and the rules, in YAML.
    pub(crate) fn resources(&self) -> String {
        // The frames of 1518 bytes hold IP packets of 1504: the network is told so.
        let mut text =
            "kind: Network\nname: bench\nspec: { subnets: [10.64.0.0/24], mtu: 2000 }\n".to_owned();
        let firewall = if self.tracked() { "on" } else { "off" };
        let guests = [("a", "client"), ("b", "server")];
        for (((name, role), mac), addresses) in guests.iter().zip(MACS).zip(&self.addresses) {
            let addresses = addresses.iter().map(Ipv4Addr::to_string).collect::<Vec<_>>().join(", ");
            text.push_str(&format!(
                "---\nkind: Workload\nname: {name}\nlabels: {{ role: {role} }}\nspec:\n  host: bench\n  kind: vm\n  \
                 ports:\n    - {{ name: eth0, network: bench, addresses: [{addresses}], mac: \"{mac}\", \
                 firewall: \"{firewall}\" }}\n"
            ));
        }
        if let Firewall::Rules { count, .. } = self.firewall {
            text.push_str(&groups());
            text.push_str(&rules(count));
        }
        text
    }
}

fn groups() -> String {
    let mut text = String::new();
    for role in ["client", "server"] {
        text.push_str(&format!("---\nkind: Group\nname: {role}s\nspec: {{ match: \"role = {role}\" }}\n"));
    }
    for i in 0..STRANGERS {
        text.push_str(&format!(
            "---\nkind: Group\nname: strangers-{i}\nspec: {{ cidrs: [172.16.{i}.0/24] }}\n"
        ));
    }
    text
}

/// The last policy applies to the guests, and of those before it one in ten. Every rule of these but the last is nearly
/// right: for the guests but about other services, or for those services but about others.
fn rules(count: u32) -> String {
    let mut text = String::new();
    for i in 0..count {
        if i % RULES_OF_A_POLICY == 0 {
            let number = i / RULES_OF_A_POLICY;
            let before_last = (count - 1) / RULES_OF_A_POLICY - number;
            let whose = match before_last % POLICIES_OF_ALL {
                0 => "clients, servers".to_owned(),
                _ => format!("strangers-{}", number % STRANGERS),
            };
            text.push_str(&format!(
                "---\nkind: FirewallPolicy\nname: policy-{number}\nspec:\n  tier: application\n  \
                 priority: {number}\n  appliesTo: [{whose}]\n  rules:\n"
            ));
        }
        let stranger = i % STRANGERS;
        let (action, from, services) = match i {
            _ if i + 1 == count => ("allow", "clients".to_owned(), "udp/5202-65535".to_owned()),
            _ if i % 2 == 0 => ("allow", format!("strangers-{stranger}"), "udp/5000-6000".to_owned()),
            _ => ("drop", "clients".to_owned(), format!("tcp/{}", 6000 + i)),
        };
        text.push_str(&format!(
            "    - {{ name: rule-{i}, action: {action}, from: [{from}], to: [servers], services: [{services}] }}\n"
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_all_rules_is_the_one_that_admits_the_traffic() {
        let text = rules(250);
        assert_eq!(text.matches("kind: FirewallPolicy").count(), 3);
        assert_eq!(text.matches("- { name: rule-").count(), 250);
        let admitting = |line: &&str| line.contains("from: [clients]") && line.contains("udp/");
        assert_eq!(text.lines().filter(admitting).count(), 1);
        assert!(text.lines().last().is_some_and(|line| line.contains("rule-249,")), "{text}");
        assert_eq!(text.matches("appliesTo: [clients, servers]").count(), 1);
        assert_eq!(rules(10_000).matches("appliesTo: [clients, servers]").count(), 10);
    }
}
