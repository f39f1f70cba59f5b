//! What is wrong between resources: references, duplicates, overlaps, and what is still in use.
//!
//! A mistake is reported where the client can mend it: at a resource it sent, never at one it did not touch.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::net::IpAddr;

use mgmt_types::{Attach, BASELINE, Kind, MacAddr, Mistake, PortSpec, Resource, Workload};

use crate::compile;
use crate::state::{NetworkEntry, State, WorkloadEntry};
use crate::transaction::Wish;

/// All that is wrong with a candidate state.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// Mistakes in what was sent.
    pub(crate) invalid: Vec<Mistake>,
    /// Resources to be deleted that others still need.
    pub(crate) in_use: Vec<Mistake>,
}

impl Findings {
    /// Checks `next`, made by `wishes` from a state without mistakes.
    pub(crate) fn of(next: &State, wishes: &[Wish]) -> Self {
        let sent: HashMap<(Kind, &str), &Wish> = wishes.iter().map(|wish| (wish.key(), wish)).collect();
        let mut checker = Checker { next, sent, findings: Self::default() };
        checker.vnis();
        checker.routers();
        checker.workloads();
        checker.policies();
        checker.findings
    }
}

struct Checker<'a> {
    next: &'a State,
    sent: HashMap<(Kind, &'a str), &'a Wish>,
    findings: Findings,
}

impl<'a> Checker<'a> {
    /// Items of a kind, first those the client did not send, then those it did: of two that clash, the later one is
    /// reported.
    fn unsent_first<T>(&self, kind: Kind, all: &'a BTreeMap<String, T>) -> Vec<(&'a str, &'a T)> {
        let (mut items, sent): (Vec<_>, Vec<_>) = all
            .iter()
            .map(|(name, item)| (name.as_str(), item))
            .partition(|(name, _)| !self.sent.contains_key(&(kind, *name)));
        items.extend(sent);
        items
    }

    fn invalid(&mut self, kind: Kind, name: &str, mistake: Mistake) {
        match self.sent.get(&(kind, name)) {
            Some(wish) => self.findings.invalid.push(wish.locate(mistake)),
            // The state before had no such mistake, so this is reported with the cause, not the effect.
            None => {
                self.findings.invalid.push(Mistake { resource: Some(format!("{kind}/{name}")), ..mistake })
            }
        }
    }

    fn vnis(&mut self) {
        let mut holders: HashMap<u32, &str> = HashMap::new();
        for (name, entry) in self.unsent_first(Kind::Network, &self.next.networks) {
            if let Some(other) = holders.insert(entry.vni, name) {
                let mistake = Mistake::new(
                    "spec.vni",
                    entry.vni,
                    format!("a VNI no network has; Network/{other} has it"),
                )
                .detail("two networks have the same VNI");
                self.invalid(Kind::Network, name, mistake);
            }
        }
    }

    fn routers(&mut self) {
        let mut members: HashMap<&str, Vec<&NetworkEntry>> = HashMap::new();
        for (name, entry) in self.unsent_first(Kind::Network, &self.next.networks) {
            let Some(router) = &entry.resource.spec.router else { continue };
            let others = members.entry(router).or_default();
            let clash = others.iter().find_map(|other| {
                let (mine, theirs) = entry.resource.spec.overlap_with(&other.resource.spec)?;
                Some((mine, theirs, other.resource.name.as_str()))
            });
            others.push(entry);
            if let Some((mine, theirs, other)) = clash {
                let index =
                    entry.resource.spec.subnets.iter().position(|subnet| *subnet == mine).unwrap_or(0);
                let mistake = Mistake::new(
                    format!("spec.subnets[{index}]"),
                    mine,
                    format!("a range outside {theirs} of Network/{other}, or another router"),
                )
                .detail(format!("two networks of router {router} overlap"));
                self.invalid(Kind::Network, name, mistake);
            }
        }
    }

    fn workloads(&mut self) {
        let mut taken = Taken::default();
        for (name, entry) in self.unsent_first(Kind::Workload, &self.next.workloads) {
            let workload = &entry.resource;
            self.host_of(workload);
            for (index, port) in workload.spec.ports.iter().enumerate() {
                let at = format!("spec.ports[{index}]");
                match self.next.networks.get(&port.network) {
                    None => self.missing_network(name, &at, port),
                    Some(network) => {
                        self.addresses(name, &at, port, network);
                        self.duplicates(&mut taken, entry, &at, port, network);
                    }
                }
                self.attachments(&mut taken, workload, &at, port);
            }
        }
    }

    fn host_of(&mut self, workload: &Workload) {
        let host = &workload.spec.host;
        if self.next.hosts.contains_key(host) {
            return;
        }
        let user = format!("Workload/{}", workload.name);
        if self.delete_of(Kind::Host, host, &user) {
            return;
        }
        let known = known(self.next.hosts.keys());
        let mistake = Mistake::new("spec.host", host, format!("a known host: {known}"))
            .detail("there is no such host; a host appears when its agent first speaks");
        self.invalid(Kind::Workload, &workload.name, mistake);
    }

    fn missing_network(&mut self, workload: &str, at: &str, port: &PortSpec) {
        let user = format!("port {} of Workload/{workload}", port.name);
        if self.delete_of(Kind::Network, &port.network, &user) {
            return;
        }
        let known = known(self.next.networks.keys());
        let mistake =
            Mistake::new(format!("{at}.network"), &port.network, format!("a known network: {known}"))
                .detail("there is no such network");
        self.invalid(Kind::Workload, workload, mistake);
    }

    /// Every group a policy names is there, and the policy `baseline` stays.
    fn policies(&mut self) {
        if let Some(wish @ Wish::Delete(_)) = self.sent.get(&(Kind::FirewallPolicy, BASELINE)) {
            let mistake = Mistake {
                expected: Some(
                    "a change of its rules; `allow` and `drop` without more say all there is".to_owned(),
                ),
                ..Mistake::default().detail(
                    "the policy baseline cannot be deleted: it says what holds when no other policy decides",
                )
            };
            self.findings.in_use.push(wish.locate(mistake));
        }
        // What nobody sent was right before: only a deletion can have made it wrong.
        let deleted =
            self.sent.iter().any(|((kind, _), wish)| *kind == Kind::Group && matches!(wish, Wish::Delete(_)));
        for (name, entry) in &self.next.policies {
            if !deleted && !self.sent.contains_key(&(Kind::FirewallPolicy, name.as_str())) {
                continue;
            }
            for (field, peer) in entry.resource.peers() {
                let Some(group) = peer.group() else { continue };
                if self.next.groups.contains_key(group) {
                    continue;
                }
                if self.delete_of(Kind::Group, group, &format!("{field} of FirewallPolicy/{name}")) {
                    continue;
                }
                let known = known(self.next.groups.keys());
                let mistake = Mistake::new(
                    field,
                    group,
                    format!("any, an address or range, or a known group: {known}"),
                )
                .detail("there is no such group");
                self.invalid(Kind::FirewallPolicy, name, mistake);
            }
        }
    }

    /// Reports the wish that deletes what `user` needs, when there is one.
    fn delete_of(&mut self, kind: Kind, name: &str, user: &str) -> bool {
        match self.sent.get(&(kind, name)) {
            Some(wish @ Wish::Delete(_)) => {
                let mistake = Mistake {
                    expected: Some(format!("nothing that uses it; {user} does")),
                    ..Mistake::default().detail("it is still in use")
                };
                self.findings.in_use.push(wish.locate(mistake));
                true
            }
            Some(Wish::Put(_)) | None => false,
        }
    }

    fn addresses(&mut self, workload: &str, at: &str, port: &PortSpec, network: &NetworkEntry) {
        let spec = &network.resource.spec;
        let gateways = spec.gateways_in_use();
        for (index, address) in port.addresses.iter().enumerate() {
            let wrong = if gateways.contains(address) {
                Some(("the address is the network's gateway", "another address of the network".to_owned()))
            } else if spec.subnet_of_host(*address).is_none() {
                let within = spec.subnets.iter().find(|subnet| subnet.contains(address));
                Some(match within {
                    Some(subnet) => (
                        "the address is the subnet's network or broadcast address",
                        format!("a host address of {subnet}"),
                    ),
                    None => (
                        "the address is in no subnet of the network",
                        format!("an address in {} of Network/{}", known(&spec.subnets), port.network),
                    ),
                })
            } else {
                None
            };
            if let Some((reason, expected)) = wrong {
                let field = format!("{at}.addresses[{index}]");
                let mistake = Mistake::new(field, address, expected).detail(reason);
                self.blame(workload, &port.network, &port.name, *address, mistake);
            }
        }
    }

    /// An address that does not fit its network is the fault of the workload if it was sent, else of the network.
    fn blame(&mut self, workload: &str, network: &str, port: &str, address: IpAddr, mistake: Mistake) {
        if self.sent.contains_key(&(Kind::Workload, workload)) {
            self.invalid(Kind::Workload, workload, mistake);
            return;
        }
        let field = match self.sent.get(&(Kind::Network, network)) {
            Some(Wish::Put(declared)) => match &*declared.resource {
                Resource::Network(sent)
                    if sent.spec.gateways.as_ref().is_some_and(|g| g.contains(&address)) =>
                {
                    "spec.gateways"
                }
                _ => "spec.subnets",
            },
            _ => "spec.subnets",
        };
        let reason = mistake.reason.unwrap_or_default();
        let mistake = Mistake {
            field: Some(field.to_owned()),
            got: Some(match self.next.networks.get(network) {
                Some(entry) if field == "spec.subnets" => known(&entry.resource.spec.subnets),
                Some(entry) => known(entry.resource.spec.gateways_in_use()),
                None => String::new(),
            }),
            expected: Some(format!("a choice that leaves {address} to port {port} of Workload/{workload}")),
            ..Mistake::default().detail(format!("the network does not fit a port it has: {reason}"))
        };
        self.invalid(Kind::Network, network, mistake);
    }

    fn duplicates(
        &mut self,
        taken: &mut Taken<'a>,
        entry: &'a WorkloadEntry,
        at: &str,
        port: &'a PortSpec,
        network: &'a NetworkEntry,
    ) {
        let workload = entry.resource.name.as_str();
        let me = (workload, port.name.as_str());
        let net = network.resource.name.as_str();
        let mac = port.mac_in_use(workload);
        if mac == compile::gateway_mac(network.vni) {
            let mistake = Mistake::new(format!("{at}.mac"), mac, "another address")
                .detail("the MAC address is the network's gateway's");
            self.invalid(Kind::Workload, workload, mistake);
        }
        if let Some(other) = taken.macs.insert((net, mac), me) {
            self.duplicate(workload, format!("{at}.mac"), mac, "MAC address", net, other);
        }
        let addresses = compile::addresses(&network.resource.spec.subnets, workload, port);
        for (index, address) in addresses.into_iter().enumerate() {
            if let Some(other) = taken.addresses.insert((net, address), me) {
                // One that was not given follows from the MAC address.
                let given = index < port.addresses.len();
                let field = if given { format!("{at}.addresses[{index}]") } else { format!("{at}.mac") };
                self.duplicate(workload, field, address, "address", net, other);
            }
        }
    }

    fn duplicate(
        &mut self,
        workload: &str,
        field: String,
        got: impl Display,
        what: &str,
        network: &str,
        (other, port): (&str, &str),
    ) {
        let expected =
            format!("an {what} no port of Network/{network} has; port {port} of Workload/{other} has it");
        let expected = if what.starts_with('M') { expected.replacen("an M", "a M", 1) } else { expected };
        // A network's new subnet can derive an address that is taken, without a workload being sent.
        let kind_and_name = if self.sent.contains_key(&(Kind::Workload, workload)) {
            (Kind::Workload, workload)
        } else {
            (Kind::Network, network)
        };
        let field = if kind_and_name.0 == Kind::Network { "spec.subnets".to_owned() } else { field };
        let mistake = Mistake::new(field, got, expected).detail(format!("the {what} is taken"));
        self.invalid(kind_and_name.0, kind_and_name.1, mistake);
    }

    fn attachments(&mut self, taken: &mut Taken<'a>, workload: &'a Workload, at: &str, port: &'a PortSpec) {
        let name = workload.name.as_str();
        let (field, place) = match port.attach_in_use(name, workload.spec.kind) {
            Attach::VhostUser(mgmt_types::VhostUser { socket: Some(path), .. }) => ("vhostUser.socket", path),
            Attach::VhostUser(mgmt_types::VhostUser { socket: None, .. }) => return,
            Attach::Tap(tap) => {
                let netns = tap.netns.unwrap_or_default();
                // A namespace may be named or given by path; the same one in both forms is the same.
                let netns = netns.strip_prefix("/run/netns/").unwrap_or(&netns).to_owned();
                (
                    "tap.device",
                    if netns.is_empty() { tap.device } else { format!("{} in {netns}", tap.device) },
                )
            }
        };
        let key = (workload.spec.host.as_str(), field, place.clone());
        if let Some((other, other_port)) = taken.attachments.insert(key, (name, port.name.as_str())) {
            let mistake = Mistake::new(
                format!("{at}.attach.{field}"),
                place,
                format!("one that no port of the host has; port {other_port} of Workload/{other} has it"),
            )
            .detail("two ports of one host are attached to the same place");
            self.invalid(Kind::Workload, name, mistake);
        }
    }
}

/// Who has what so far.
#[derive(Default)]
struct Taken<'a> {
    macs: HashMap<(&'a str, MacAddr), (&'a str, &'a str)>,
    addresses: HashMap<(&'a str, IpAddr), (&'a str, &'a str)>,
    attachments: HashMap<(&'a str, &'static str, String), (&'a str, &'a str)>,
}

/// What there is, for a message: at most ten, then how many more.
fn known<T: Display>(items: impl IntoIterator<Item = T>) -> String {
    const SHOWN: usize = 10;
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    if items.is_empty() {
        return "there is none".to_owned();
    }
    let mut text = items.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    if let Some(more) = items.len().checked_sub(SHOWN).filter(|more| *more > 0) {
        text.push_str(&format!(" and {more} more"));
    }
    text
}
