//! What is wrong between resources: references, duplicates, overlaps, and what is still in use.
//!
//! A mistake is reported where the client can mend it: at a resource it sent, never at one it did not touch.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Display;
use std::net::IpAddr;

use ipnet::IpNet;
use mgmt_types::{Attach, BASELINE, Kind, MacAddr, Mistake, PortSpec, Resource, Route, Workload};

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
    /// Checks `next`, made by `wishes` from the state `before`, which has no mistakes.
    pub(crate) fn of(next: &State, before: &State, wishes: &[Wish]) -> Self {
        let sent: HashMap<(Kind, &str), &Wish> = wishes.iter().map(|wish| (wish.key(), wish)).collect();
        let mut checker = Checker { next, before, sent, findings: Self::default() };
        checker.vnis();
        checker.underlays();
        checker.routers();
        checker.routes();
        checker.workloads();
        checker.policies();
        checker.findings
    }
}

struct Checker<'a> {
    next: &'a State,
    before: &'a State,
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

    /// Each underlay address belongs to one host: what comes from it is taken for that host's.
    fn underlays(&mut self) {
        if !self.sent.keys().any(|(kind, _)| *kind == Kind::Host) {
            return;
        }
        let mut holders: HashMap<IpAddr, &str> = HashMap::new();
        for (name, entry) in self.unsent_first(Kind::Host, &self.next.hosts) {
            for (index, address) in compile::peer(entry).underlay.into_iter().enumerate() {
                if let Some(other) = holders.insert(address, name) {
                    let expected = format!("an address no host has; Host/{other} has it");
                    let mistake = Mistake::new(format!("spec.underlay[{index}]"), address, expected)
                        .detail("two hosts have the same underlay address");
                    self.invalid(Kind::Host, name, mistake);
                }
            }
        }
    }

    /// Every static route leads out of its router's networks, through an address that a port on one of them can have.
    fn routes(&mut self) {
        if !self.sent.keys().any(|(kind, _)| matches!(kind, Kind::Router | Kind::Network)) {
            return;
        }
        for (name, entry) in &self.next.routers {
            for (index, route) in entry.resource.spec.routes.iter().enumerate() {
                if let Some(misrouted) = Misrouted::find(self.next, name, route) {
                    self.misrouted(name, index, route, &misrouted);
                }
            }
        }
    }

    /// A route that does not fit its router's networks is the fault of the router if it was sent, else of the network.
    fn misrouted(&mut self, router: &str, index: usize, route: &Route, misrouted: &Misrouted<'_>) {
        let at = format!("spec.routes[{index}]");
        let mistake = match misrouted {
            Misrouted::Inside { subnet, network } => {
                let expected = format!("a range outside {subnet} of Network/{network}");
                Mistake::new(format!("{at}.to"), route.to, expected)
                    .detail("the route leads into one of the router's own networks")
            }
            Misrouted::Gateway { network } => {
                let expected = format!("the address of a port; it is a gateway of Network/{network}");
                Mistake::new(format!("{at}.via"), route.via, expected)
                    .detail("the route leads back to the router")
            }
            Misrouted::Nowhere => {
                let networks = self.next.places.of_router(router);
                let subnets = networks
                    .filter_map(|name| self.next.networks.get(name))
                    .flat_map(|entry| &entry.resource.spec.subnets);
                let expected = format!("a host address of a network of the router: {}", known(subnets));
                Mistake::new(format!("{at}.via"), route.via, expected)
                    .detail(format!("no network of router {router} has the address"))
            }
        };
        if self.sent.contains_key(&(Kind::Router, router)) {
            self.invalid(Kind::Router, router, mistake);
            return;
        }
        let held = |state: &State, name: &str| {
            state.networks.get(name).is_some_and(|entry| {
                let spec = &entry.resource.spec;
                spec.router.as_deref() == Some(router) && spec.subnet_of_host(route.via).is_some()
            })
        };
        let culprit = match misrouted {
            Misrouted::Inside { network, .. } | Misrouted::Gateway { network } => Some(*network),
            Misrouted::Nowhere => {
                let sent = self.sent.keys().filter(|(kind, _)| *kind == Kind::Network);
                sent.map(|(_, name)| *name).find(|name| held(self.before, name))
            }
        };
        let Some(network) = culprit else {
            self.invalid(Kind::Router, router, mistake);
            return;
        };
        if self.delete_of(Kind::Network, network, &format!("the route to {} of Router/{router}", route.to)) {
            return;
        }
        let field = match misrouted {
            Misrouted::Gateway { .. } => "spec.gateways",
            Misrouted::Inside { .. } | Misrouted::Nowhere => "spec.subnets",
        };
        let got = self.next.networks.get(network).map(|entry| match misrouted {
            Misrouted::Gateway { .. } => known(entry.resource.spec.gateways_in_use()),
            Misrouted::Inside { .. } | Misrouted::Nowhere => known(&entry.resource.spec.subnets),
        });
        let expected =
            format!("a choice that leaves Router/{router} its route to {} through {}", route.to, route.via);
        let reason = mistake.reason.unwrap_or_default();
        let mistake = Mistake::new(field, got.unwrap_or_default(), expected)
            .detail(format!("the network does not fit a route of its router: {reason}"));
        self.invalid(Kind::Network, network, mistake);
    }

    fn workloads(&mut self) {
        let mut taken = Taken::default();
        let (mut concerned, sent): (Vec<_>, Vec<_>) =
            self.concerned().into_iter().partition(|name| !self.sent.contains_key(&(Kind::Workload, *name)));
        concerned.extend(sent);
        let entries = &self.next.workloads;
        for (name, entry) in concerned.into_iter().filter_map(|name| entries.get_key_value(name)) {
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

    /// Workloads that what was sent can have made wrong: those sent, and those that share a host or a network with one or
    /// whose host or network was sent. All others are as they were, which was right.
    fn concerned(&self) -> BTreeSet<&'a str> {
        let places = &self.next.places;
        let (mut names, mut hosts, mut networks) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for (kind, name) in self.sent.keys() {
            match kind {
                Kind::Workload => {
                    names.insert(*name);
                    if let Some(entry) = self.next.workloads.get(*name) {
                        let spec = &entry.resource.spec;
                        hosts.insert(spec.host.as_str());
                        networks.extend(spec.ports.iter().map(|port| port.network.as_str()));
                    }
                }
                Kind::Host => drop(hosts.insert(*name)),
                Kind::Network => drop(networks.insert(*name)),
                Kind::Router | Kind::Group | Kind::FirewallPolicy => {}
            }
        }
        names.extend(hosts.into_iter().flat_map(|host| places.on_host(host)));
        names.extend(networks.into_iter().flat_map(|network| places.on_network(network)));
        names
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
            Some(Wish::Put(_) | Wish::Note(_)) | None => false,
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
        // What is on an external host is attached there by somebody else.
        if !self.next.runs_agent(&workload.spec.host) {
            return;
        }
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

/// What is wrong with a static route.
enum Misrouted<'a> {
    /// It leads into a subnet of the router.
    Inside { subnet: IpNet, network: &'a str },
    /// It leads through a gateway of the router.
    Gateway { network: &'a str },
    /// It leads through an address that no port of the router's networks can have.
    Nowhere,
}

impl<'a> Misrouted<'a> {
    fn find(state: &'a State, router: &str, route: &Route) -> Option<Self> {
        let mut through = None;
        for name in state.places.of_router(router) {
            let Some(spec) = state.networks.get(name).map(|entry| &entry.resource.spec) else { continue };
            if let Some(subnet) = spec.subnets.iter().find(|subnet| subnet.contains(&route.to)) {
                return Some(Self::Inside { subnet: *subnet, network: name });
            }
            if spec.subnet_of_host(route.via).is_some() {
                through = Some((name, spec));
            }
        }
        match through {
            None => Some(Self::Nowhere),
            Some((network, spec)) if spec.gateways_in_use().contains(&route.via) => {
                Some(Self::Gateway { network })
            }
            Some(_) => None,
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
