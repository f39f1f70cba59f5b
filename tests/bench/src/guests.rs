//! The two guests of the generator, as Palisade is told about them.

use std::net::Ipv4Addr;

use crate::generator::MACS;

/// Their addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Guests {
    /// Of guest A and of guest B.
    pub(crate) addresses: [Vec<Ipv4Addr>; 2],
}

impl Guests {
    /// A network and a workload for each, in YAML.
    pub(crate) fn resources(&self) -> String {
        // The frames of 1518 bytes hold IP packets of 1504: the network is told so.
        let mut resources =
            "kind: Network\nname: bench\nspec: { subnets: [10.64.0.0/24], mtu: 2000 }\n".to_owned();
        for ((name, mac), addresses) in ["a", "b"].iter().zip(MACS).zip(&self.addresses) {
            let addresses = addresses.iter().map(Ipv4Addr::to_string).collect::<Vec<_>>().join(", ");
            resources.push_str(&format!(
                "---\nkind: Workload\nname: {name}\nspec:\n  host: bench\n  kind: vm\n  ports:\n    \
                 - {{ name: eth0, network: bench, addresses: [{addresses}], mac: \"{mac}\" }}\n"
            ));
        }
        resources
    }
}
