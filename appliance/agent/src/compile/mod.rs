//! From what the manager says to what workers read. Pure.
//!
//! This is where resources and the data plane meet: a [`Slice`] becomes a [`Snapshot`] and the list of local ports
//! to have open. A slice that contradicts itself is refused whole.

pub(crate) mod firewall;
mod plan;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use mgmt_types::agent::{Slice, SliceHost, SliceNetwork, SlicePort, SliceRouter};
use pipeline::policy::PolicyError;
use pipeline::{
    BuildError, HashKey, HostConfig, HostIndex, Location, Moved, NetworkConfig, NetworkIndex, Policy,
    PortConfig, RateLimit, RouteConfig, RouterConfig, RouterIndex, Snapshot, SnapshotBuilder,
};

use crate::moves::Moves;
use crate::slots::{Numbers, Slots};

pub use plan::socket_path;
pub(crate) use plan::{AttachmentPlan, Difference, PortPlan};

/// What a slice compiles to.
#[derive(Debug)]
pub(crate) struct Compiled {
    /// What workers judge by.
    pub(crate) snapshot: Snapshot,
    /// Local ports to have open, by id.
    pub(crate) plans: BTreeMap<u32, PortPlan>,
    /// The id behind each of the snapshot's port indexes.
    pub(crate) ids: Vec<u32>,
}

/// What is known besides a slice. Without it everything has other numbers, and nothing counts as it was.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Known<'a> {
    /// The policy in force: rules that did not change are shared with it.
    pub(crate) policy: Option<&'a Policy>,
    /// Where each port's flows are counted, and by which number a network's or router's are known: with others they would be
    /// unknown after each that comes or goes.
    pub(crate) numbers: Option<&'a Numbers>,
    /// Where ports lived and who they were until just now.
    pub(crate) moves: Option<&'a Moves>,
    /// By host: bytes of the largest IP packet that was seen to reach it. Others are taken at their interface's word.
    pub(crate) paths: Option<&'a HashMap<String, u16>>,
}

/// What is wrong with a slice.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// It is for somebody else.
    #[error("the slice is for host {got}, this is host {here}")]
    WrongHost {
        /// The host it names.
        got: String,
        /// Our name.
        here: String,
    },
    /// A network is there twice.
    #[error("network {0} is in the slice twice")]
    NetworkTwice(String),
    /// A port names a network that the slice does not have.
    #[error("port {port} is on network {network}, which the slice does not have")]
    UnknownNetwork {
        /// The port.
        port: String,
        /// The network it names.
        network: String,
    },
    /// A router is there twice.
    #[error("router {0} is in the slice twice")]
    RouterTwice(String),
    /// A host is there twice.
    #[error("host {0} is in the slice twice")]
    HostTwice(String),
    /// A network names a router that the slice does not have.
    #[error("network {network} is on router {router}, which the slice does not have")]
    UnknownRouter {
        /// The network.
        network: String,
        /// The router it names.
        router: String,
    },
    /// Two ports have one id.
    #[error("port id {id} is used twice, the second time by {port}")]
    SharedId {
        /// The id.
        id: u32,
        /// The second port that has it.
        port: String,
    },
    /// A number of queue pairs outside 1..=16.
    #[error("port {port} has {got} queue pairs; 1 to {most} are possible")]
    Queues {
        /// The port.
        port: String,
        /// Queue pairs asked for.
        got: u16,
        /// The most there can be.
        most: u16,
    },
    /// A socket path does not fit into a socket address.
    #[error("socket {} of port {port} is {len} bytes long, at most {most} are possible; a shorter --run-dir or name helps", .socket.display())]
    SocketPath {
        /// The port.
        port: String,
        /// Its socket.
        socket: PathBuf,
        /// Bytes of the path.
        len: usize,
        /// The most there can be.
        most: usize,
    },
    /// A device name does not fit.
    #[error("device name {device:?} of port {port} must be 1 to {most} bytes")]
    DeviceName {
        /// The port.
        port: String,
        /// The name.
        device: String,
        /// The most bytes there can be.
        most: usize,
    },
    /// Two ports are plugged into the same thing.
    #[error("ports {one} and {two} both use {what}")]
    SharedAttachment {
        /// One port.
        one: String,
        /// The other.
        two: String,
        /// The socket or device.
        what: String,
    },
    /// The pipeline refuses a network.
    #[error("network {network}: {source}")]
    Network {
        /// The network.
        network: String,
        /// Why.
        source: BuildError,
    },
    /// The pipeline refuses a router.
    #[error("router {router}: {source}")]
    Router {
        /// The router.
        router: String,
        /// Why.
        source: BuildError,
    },
    /// The pipeline refuses a host.
    #[error("host {host}: {source}")]
    Host {
        /// The host.
        host: String,
        /// Why.
        source: BuildError,
    },
    /// The pipeline refuses a port.
    #[error("port {port}: {source}")]
    Port {
        /// The port.
        port: String,
        /// Why.
        source: BuildError,
    },
    /// The pipeline refuses the firewall's rules.
    #[error("firewall: {0}")]
    Firewall(#[from] PolicyError),
    /// The pipeline refuses the whole.
    #[error(transparent)]
    Whole(BuildError),
}

/// Compiles a slice for `host`; sockets without a declared path lie under `run_dir`. `known` is what came before.
///
/// # Errors
/// The first thing found wrong. Nothing of a wrong slice is used.
pub(crate) fn compile(
    slice: &Slice,
    host: &str,
    run_dir: &Path,
    key: HashKey,
    known: Known<'_>,
) -> Result<Compiled, CompileError> {
    if slice.host != host {
        return Err(CompileError::WrongHost { got: slice.host.clone(), here: host.to_string() });
    }
    let none = Numbers::default();
    let numbers = known.numbers.unwrap_or(&none);
    let mut builder = Snapshot::builder(slice.revision, key, firewall::policy(slice, known.policy)?);
    let hosts = add_hosts(&mut builder, slice, known)?;
    let routers = add_routers(&mut builder, slice, numbers)?;
    let networks = add_networks(&mut builder, slice, numbers, &routers)?;
    let plans = plan::local_ports(slice, run_dir)?;
    let location = |name: &str| match hosts.get(name) {
        _ if name == slice.host => Location::Here,
        Some(host) => *host,
        None => Location::Unknown,
    };
    let moved = |port: &SlicePort| {
        let (home, until) = known.moves?.left(port.id)?;
        Some(Moved { from: location(home), until })
    };
    let mut ids = Vec::with_capacity(slice.ports.len());
    for port in &slice.ports {
        let full = || plan::full_name(port);
        let Some(&network) = networks.get(port.network.as_str()) else {
            return Err(CompileError::UnknownNetwork { port: full(), network: port.network.clone() });
        };
        let config = PortConfig {
            network,
            mac: port.mac.octets(),
            addresses: port.addresses.clone(),
            id: port.id,
            location: location(&port.host),
            moved: moved(port),
            rate_limit: port.rate_limit.as_ref().map(rate_limit),
            identity: port.identity,
            firewall: port.firewall,
            slot: numbers.ports.of(&port.id),
        };
        builder.port(config).map_err(|source| CompileError::Port { port: full(), source })?;
        ids.push(port.id);
    }
    let snapshot = builder.build().map_err(CompileError::Whole)?;
    Ok(Compiled { snapshot, plans, ids })
}

/// Hosts have the slice's order. One that has told no address yet cannot be reached.
fn add_hosts<'a>(
    builder: &mut SnapshotBuilder,
    slice: &'a Slice,
    known: Known<'_>,
) -> Result<HashMap<&'a str, Location>, CompileError> {
    let mut hosts = HashMap::new();
    for host in &slice.hosts {
        let SliceHost { name, underlay, options, external, mtu, .. } = host;
        let config = HostConfig {
            addresses: underlay.clone(),
            options: *options,
            external: *external,
            path_mtu: known.paths.and_then(|paths| paths.get(name)).copied().unwrap_or(*mtu),
            identities: known.moves.map(|moves| moves.identities(name)).unwrap_or_default(),
        };
        let index: HostIndex =
            builder.host(config).map_err(|source| CompileError::Host { host: name.clone(), source })?;
        let location = if underlay.is_empty() { Location::Unknown } else { Location::Host(index) };
        if hosts.insert(name.as_str(), location).is_some() {
            return Err(CompileError::HostTwice(name.clone()));
        }
    }
    Ok(hosts)
}

fn add_routers<'a>(
    builder: &mut SnapshotBuilder,
    slice: &'a Slice,
    numbers: &Numbers,
) -> Result<HashMap<&'a str, RouterIndex>, CompileError> {
    let mut routers = HashMap::new();
    for router in in_order(&slice.routers, &numbers.routers, |router: &SliceRouter| router.name.clone()) {
        let Some(router) = router else {
            builder.router(RouterConfig::default()).map_err(CompileError::Whole)?;
            continue;
        };
        let route = |route: &mgmt_types::agent::SliceRoute| RouteConfig {
            to: (route.to.addr(), route.to.prefix_len()),
            via: route.via,
        };
        let config = RouterConfig { routes: router.routes.iter().map(route).collect() };
        let index = builder
            .router(config)
            .map_err(|source| CompileError::Router { router: router.name.clone(), source })?;
        if routers.insert(router.name.as_str(), index).is_some() {
            return Err(CompileError::RouterTwice(router.name.clone()));
        }
    }
    Ok(routers)
}

fn add_networks<'a>(
    builder: &mut SnapshotBuilder,
    slice: &'a Slice,
    numbers: &Numbers,
    routers: &HashMap<&str, RouterIndex>,
) -> Result<HashMap<&'a str, NetworkIndex>, CompileError> {
    let mut networks: HashMap<&str, NetworkIndex> = HashMap::new();
    for network in in_order(&slice.networks, &numbers.networks, |network: &SliceNetwork| network.vni) {
        let Some(network) = network else {
            builder.network(nobodys()).map_err(CompileError::Whole)?;
            continue;
        };
        let unknown = |router: &String| CompileError::UnknownRouter {
            network: network.name.clone(),
            router: router.clone(),
        };
        let router = network.router.as_ref();
        let router = router.map(|name| routers.get(name.as_str()).copied().ok_or_else(|| unknown(name)));
        let config = NetworkConfig {
            gateway_mac: network.gateway_mac.octets(),
            gateways: network.gateways.clone(),
            subnets: network.subnets.iter().map(|net| (net.addr(), net.prefix_len())).collect(),
            mtu: network.mtu,
            vni: Some(network.vni),
            router: router.transpose()?,
            clamp_mss: network.mss_clamp,
        };
        // Told by name before the pipeline finds the VNI twice.
        if networks.contains_key(network.name.as_str()) {
            return Err(CompileError::NetworkTwice(network.name.clone()));
        }
        let index = builder
            .network(config)
            .map_err(|source| CompileError::Network { network: network.name.clone(), source })?;
        networks.insert(&network.name, index);
    }
    Ok(networks)
}

/// Things by their numbers. A place whose thing is gone is empty; one without a number takes the first of these.
fn in_order<'a, T, K: Ord + Clone>(
    things: &'a [T],
    numbers: &Slots<K>,
    id: impl Fn(&T) -> K,
) -> Vec<Option<&'a T>> {
    let mut places: Vec<Option<&T>> = Vec::new();
    let mut left = Vec::new();
    for thing in things {
        let Some(number) = numbers.get(&id(thing)) else {
            left.push(thing);
            continue;
        };
        let number = number as usize;
        places.resize(places.len().max(number + 1), None);
        match &mut places[number] {
            free @ None => *free = Some(thing),
            Some(_) => left.push(thing),
        }
    }
    for thing in left {
        match places.iter_mut().find(|place| place.is_none()) {
            Some(place) => *place = Some(thing),
            None => places.push(Some(thing)),
        }
    }
    places
}

/// Keeps the number of a network that is gone. Nothing is plugged into it.
fn nobodys() -> NetworkConfig {
    NetworkConfig { gateway_mac: [2, 0, 0, 0, 0, 1], mtu: 1500, ..NetworkConfig::default() }
}

fn rate_limit(limit: &mgmt_types::RateLimit) -> RateLimit {
    let (packets, bytes) = (limit.packets(), limit.bytes());
    RateLimit {
        packets_per_second: packets.map_or(0, |bucket| bucket.per_second),
        burst_packets: packets.map_or(0, |bucket| bucket.burst),
        bits_per_second: bytes.map_or(0, |bucket| bucket.per_second.saturating_mul(8)),
        burst_bits: bytes.map_or(0, |bucket| bucket.burst.saturating_mul(8)),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use mgmt_types::agent::SlicePort;
    use mgmt_types::{Attach, MacAddr, Tap, VhostUser};
    use pipeline::PortIndex;

    const KEY: HashKey = HashKey([1, 2]);

    /// A slice for host `here` with one network `blue` (10.0.1.0/24, MTU 1450) and these ports.
    pub(crate) fn slice(ports: Vec<SlicePort>) -> Slice {
        Slice {
            revision: 7,
            host: "here".into(),
            networks: vec![SliceNetwork {
                name: "blue".into(),
                vni: 100,
                subnets: vec!["10.0.1.0/24".parse().expect("a subnet")],
                gateways: vec!["10.0.1.1".parse().expect("an address")],
                gateway_mac: MacAddr([2, 0, 0, 0, 1, 1]),
                mtu: 1450,
                router: None,
                mss_clamp: true,
            }],
            ports,
            ..Slice::default()
        }
    }

    /// A port `eth0` of a VM on this host, with MAC 02:00:00:00:00:ID and address 10.0.1.(10 + ID).
    pub(crate) fn vm_port(id: u32, workload: &str) -> SlicePort {
        SlicePort {
            id,
            workload: workload.into(),
            name: "eth0".into(),
            network: "blue".into(),
            host: "here".into(),
            moved_from: None,
            mac: MacAddr([2, 0, 0, 0, 0, id as u8]),
            addresses: vec![format!("10.0.1.{}", 10 + id).parse().expect("an address")],
            attach: Attach::VhostUser(VhostUser::default()),
            queues: 1,
            rate_limit: None,
            identity: 0,
            firewall: true,
        }
    }

    /// The same with a TAP device.
    pub(crate) fn tap_port(id: u32, workload: &str, device: &str) -> SlicePort {
        let attach = Attach::Tap(Tap { device: device.into(), netns: None });
        SlicePort { attach, ..vm_port(id, workload) }
    }

    fn compiled(slice: &Slice) -> Result<Compiled, CompileError> {
        compile(slice, "here", Path::new("/run/palisade"), KEY, Known::default())
    }

    #[test]
    fn local_and_remote_ports_are_known_and_only_local_ones_are_opened() {
        let mut far = vm_port(2, "far");
        far.host = "elsewhere".into();
        let compiled = compiled(&slice(vec![vm_port(9, "near"), far])).expect("compiles");
        assert_eq!(compiled.snapshot.revision(), 7);
        assert_eq!(compiled.ids, [9, 2]);
        assert_eq!(compiled.plans.keys().copied().collect::<Vec<_>>(), [9]);
        assert!(compiled.snapshot.port(PortIndex(0)).is_local());
        assert!(!compiled.snapshot.port(PortIndex(1)).is_local());
    }

    #[test]
    fn a_network_keeps_its_number_when_others_come_and_go() {
        let network =
            |name: &str, vni| SliceNetwork { name: name.into(), vni, ..slice(vec![]).networks.remove(0) };
        let mut numbers = Numbers::default();
        let mut number_of_blue = |networks: Vec<SliceNetwork>| {
            let slice = Slice { networks, ..slice(vec![vm_port(1, "a")]) };
            numbers.networks.keep(slice.networks.iter().map(|network| network.vni));
            let known = Known { numbers: Some(&numbers), ..Known::default() };
            let compiled = compile(&slice, "here", Path::new("/run/palisade"), KEY, known);
            compiled.expect("compiles").snapshot.port(PortIndex(0)).network().0
        };
        let (amber, blue, azure) = (network("amber", 7), network("blue", 100), network("azure", 9));
        assert_eq!(number_of_blue(vec![amber.clone(), blue.clone()]), 1);
        assert_eq!(number_of_blue(vec![blue.clone()]), 1);
        assert_eq!(number_of_blue(vec![amber.clone(), azure.clone(), blue.clone()]), 1);
        assert_eq!(number_of_blue(vec![blue, azure, amber]), 1);
    }

    /// A host as a slice has it, with this address on the underlay if any.
    fn slice_host(name: &str, underlay: &str) -> SliceHost {
        SliceHost {
            name: name.into(),
            underlay: underlay.parse().into_iter().collect(),
            port: 6081,
            mtu: 1500,
            options: true,
            external: false,
        }
    }

    #[test]
    fn a_port_lives_where_its_host_is_and_nowhere_while_that_has_no_address() {
        let mut ports = [1, 2, 3, 4].map(|id| vm_port(id, &format!("w{id}")));
        for (port, host) in ports.iter_mut().zip(["here", "there", "mute", "unheard-of"]) {
            port.host = host.into();
        }
        let mut slice = slice(ports.into());
        slice.hosts =
            vec![slice_host("here", "192.0.2.1"), slice_host("mute", ""), slice_host("there", "192.0.2.3")];
        let snapshot = compiled(&slice).expect("compiles").snapshot;
        let homes = snapshot.ports().iter().map(|port| (port.is_local(), port.host()));
        let there = Some(HostIndex(2));
        assert_eq!(homes.collect::<Vec<_>>(), [(true, None), (false, there), (false, None), (false, None)]);
        assert_eq!(snapshot.host_at("192.0.2.3".parse().expect("an address")), there);
        let way = snapshot.encapsulation(Some(PortIndex(0)), PortIndex(1)).expect("a way");
        assert_eq!((way.header.vni, way.header.identity, way.header.port), (100, Some(0), Some(2)));
        // 1500 less IPv4, UDP, GENEVE with two options, and the frame's own header.
        assert_eq!(snapshot.host(HostIndex(2)).inner_mtu(), 1434);
        let paths = HashMap::from([("there".to_owned(), 1400)]);
        let known = Known { paths: Some(&paths), ..Known::default() };
        let snapshot =
            compile(&slice, "here", Path::new("/run/palisade"), KEY, known).expect("compiles").snapshot;
        assert_eq!(snapshot.host(HostIndex(2)).inner_mtu(), 1334);
    }

    #[test]
    fn a_router_keeps_its_number_when_others_come_and_go() {
        let mut numbers = Numbers::default();
        let mut number_of = |routers: &[&str]| {
            let mut slice = slice(vec![vm_port(1, "a")]);
            slice.routers =
                routers.iter().map(|name| SliceRouter { name: (*name).into(), routes: Vec::new() }).collect();
            slice.networks[0].router = Some("core".into());
            let _ = numbers.routers.keep(slice.routers.iter().map(|router| router.name.clone()));
            let known = Known { numbers: Some(&numbers), ..Known::default() };
            let compiled = compile(&slice, "here", Path::new("/run/palisade"), KEY, known).expect("compiles");
            compiled.snapshot.network(NetworkIndex(0)).router()
        };
        assert_eq!(number_of(&["branch", "core"]), Some(RouterIndex(1)));
        assert_eq!(number_of(&["core"]), Some(RouterIndex(1)));
        assert_eq!(number_of(&["azure", "core"]), Some(RouterIndex(1)));
    }

    #[test]
    fn limits_keep_their_units() {
        let mut port = vm_port(1, "a");
        port.rate_limit = Some(mgmt_types::RateLimit {
            packets_per_second: Some(1000),
            bits_per_second: Some(8_000_000),
            burst_packets: Some(5),
            burst_bytes: Some(70_000),
        });
        let compiled = compiled(&slice(vec![port])).expect("compiles");
        let expected = RateLimit {
            packets_per_second: 1000,
            burst_packets: 5,
            bits_per_second: 8_000_000,
            burst_bits: 560_000,
        };
        assert_eq!(compiled.snapshot.port(PortIndex(0)).rate_limit(), Some(&expected));
    }

    #[test]
    fn each_wrong_slice_names_what_is_wrong() {
        let good = slice(vec![vm_port(1, "a"), vm_port(2, "b")]);
        let wrong = |change: fn(&mut Slice)| {
            let mut slice = good.clone();
            change(&mut slice);
            compiled(&slice).expect_err("wrong").to_string()
        };
        assert_eq!(wrong(|s| s.host = "moon".into()), "the slice is for host moon, this is host here");
        assert_eq!(wrong(|s| s.networks.push(s.networks[0].clone())), "network blue is in the slice twice");
        assert_eq!(
            wrong(|s| s.ports[1].network = "green".into()),
            "port b.eth0 is on network green, which the slice does not have"
        );
        assert_eq!(
            wrong(|s| s.networks[0].router = Some("core".into())),
            "network blue is on router core, which the slice does not have"
        );
        assert_eq!(
            wrong(|s| s.routers = vec![SliceRouter { name: "core".into(), routes: Vec::new() }; 2]),
            "router core is in the slice twice"
        );
        let same_address =
            wrong(|s| s.hosts = vec![slice_host("a", "192.0.2.1"), slice_host("b", "192.0.2.1")]);
        assert_eq!(same_address, "host b: underlay address 192.0.2.1 is that of two hosts");
        let same_mac = wrong(|s| s.ports[1].mac = s.ports[0].mac);
        assert!(same_mac.contains("02:00:00:00:00:01"), "{same_mac}");
    }
}
