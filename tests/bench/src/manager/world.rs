//! A mesh of racks: hosts of a rack share its networks, so what a host needs does not depend on how many racks there are.

use std::fmt::Write;
use std::ops::Range;

use mgmt_client::Document;

/// Hosts of a rack. Each has ports on every network of the rack.
pub(super) const RACK: usize = 20;
/// Workloads of a host.
pub(super) const WORKLOADS: usize = 20;
/// Networks of a rack.
const NETWORKS: usize = 4;
/// Groups of workloads, each chosen by a label.
pub(super) const GROUPS: usize = 2000;
/// Policies, each for one group and with rules about others.
const POLICIES: usize = 500;

/// The name of a host.
pub(super) fn host(number: usize) -> String {
    format!("host-{number:04}")
}

/// Groups and policies: the same for a mesh of any size.
pub(super) fn rules() -> Document {
    let mut text = String::new();
    for group in 0..GROUPS {
        put(&mut text, format_args!("kind: Group\nname: g-{group}\nspec: {{ match: app = a-{group} }}\n"));
    }
    for policy in 0..POLICIES {
        let [to, one, other] = [policy * 4, policy * 4 + 1, policy * 7 + 3].map(|group| group % GROUPS);
        put(
            &mut text,
            format_args!(
                "kind: FirewallPolicy\nname: p-{policy}\nspec:\n  appliesTo: [g-{to}]\n  rules:\n    - {{ name: web, direction: in, action: allow, from: [g-{one}], services: [tcp/443] }}\n    - {{ name: db, direction: in, action: allow, from: [g-{other}], services: [tcp/5432, tcp/6379] }}\n"
            ),
        );
    }
    document(text)
}

/// Hosts, networks and workloads of some racks.
pub(super) fn racks(racks: Range<usize>) -> Document {
    let mut text = String::new();
    for rack in racks {
        for network in rack * NETWORKS..(rack + 1) * NETWORKS {
            let (high, low) = (network / 256, network % 256);
            put(
                &mut text,
                format_args!(
                    "kind: Network\nname: n-{network}\nspec: {{ subnets: [10.{high}.{low}.0/24] }}\n"
                ),
            );
        }
        for host in rack * RACK..(rack + 1) * RACK {
            put(&mut text, format_args!("kind: Host\nname: {}\n", self::host(host)));
            for number in host * WORKLOADS..(host + 1) * WORKLOADS {
                put(&mut text, format_args!("{}", declared(number, number % GROUPS)));
            }
        }
    }
    document(text)
}

/// One workload with the label that puts it into a group.
pub(super) fn workload(number: usize, group: usize) -> Document {
    document(declared(number, group))
}

fn declared(number: usize, group: usize) -> String {
    let (host, nth) = (number / WORKLOADS, number % WORKLOADS);
    let network = host / RACK * NETWORKS + nth % NETWORKS;
    let address = 10 + host % RACK * (WORKLOADS / NETWORKS) + nth / NETWORKS;
    let (high, low) = (network / 256, network % 256);
    format!(
        "kind: Workload\nname: w-{number:05}\nlabels: {{ app: a-{group}, tier: t-{} }}\nspec: {{ host: {}, kind: vm, ports: [{{ name: eth0, network: n-{network}, addresses: [10.{high}.{low}.{address}] }}] }}\n",
        number % 3,
        self::host(host)
    )
}

fn put(text: &mut String, document: std::fmt::Arguments<'_>) {
    // Writing into a String cannot fail.
    let _ = writeln!(text, "---\n{document}");
}

fn document(text: String) -> Document {
    Document { file: "world.yaml".to_owned(), text }
}
