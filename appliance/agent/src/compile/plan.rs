//! Which local ports to open, and what changes between two such lists.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use mgmt_types::agent::{Slice, SlicePort};
use mgmt_types::{Attach, VhostRole};

use super::CompileError;
use crate::tap::{NAME_MAX, TapConfig};

/// The longest path of a unix socket: `sun_path` is 108 bytes with its NUL (unix(7)).
const SOCKET_PATH_MAX: usize = 107;

/// The most queue pairs of one port.
const QUEUES_MAX: u16 = 16;

/// A local port to be open. Holds only what needs an opening: addresses and limits live in the snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PortPlan {
    /// [`SlicePort::id`].
    pub(crate) id: u32,
    /// Name of its workload.
    pub(crate) workload: String,
    /// Its name within the workload.
    pub(crate) name: String,
    /// What to open.
    pub(crate) attachment: AttachmentPlan,
}

/// What a port is plugged into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AttachmentPlan {
    /// A vhost-user socket.
    Vhost {
        /// Path of the socket.
        socket: PathBuf,
        /// Whether we listen or connect.
        role: VhostRole,
        /// Hardware address told to the guest.
        mac: [u8; 6],
        /// MTU told to the guest, in bytes.
        mtu: u16,
        /// Queue pairs offered.
        pairs: u16,
    },
    /// A TAP device.
    Tap(TapConfig),
}

impl AttachmentPlan {
    /// How many queues frames come from.
    pub(crate) fn queues(&self) -> usize {
        match self {
            Self::Vhost { pairs, .. } => usize::from(*pairs),
            Self::Tap(tap) => usize::from(tap.queues),
        }
    }
}

/// What has to happen to get from the running ports to the planned ones. Everything not listed stays as it is.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Difference {
    /// Not planned any more: close, and remove their devices.
    pub(crate) remove: Vec<u32>,
    /// Planned differently: close, then open as planned.
    pub(crate) reopen: Vec<PortPlan>,
    /// New.
    pub(crate) create: Vec<PortPlan>,
}

impl Difference {
    /// Compares by port id. Ids come out in ascending order.
    pub(crate) fn between(running: &BTreeMap<u32, PortPlan>, planned: &BTreeMap<u32, PortPlan>) -> Self {
        let mut difference = Self {
            remove: running.keys().filter(|id| !planned.contains_key(id)).copied().collect(),
            ..Self::default()
        };
        for (id, plan) in planned {
            match running.get(id) {
                None => difference.create.push(plan.clone()),
                Some(now) if now.attachment != plan.attachment => difference.reopen.push(plan.clone()),
                Some(_) => {}
            }
        }
        difference
    }
}

/// The local ports of a slice, by id.
pub(crate) fn local_ports(slice: &Slice, run_dir: &Path) -> Result<BTreeMap<u32, PortPlan>, CompileError> {
    let mtus: HashMap<&str, u16> = slice.networks.iter().map(|net| (net.name.as_str(), net.mtu)).collect();
    let mut plans = BTreeMap::new();
    let mut taken: HashMap<AttachmentKey, String> = HashMap::new();
    for port in slice.ports.iter().filter(|port| port.host == slice.host) {
        let full = full_name(port);
        let Some(&mtu) = mtus.get(port.network.as_str()) else {
            return Err(CompileError::UnknownNetwork { port: full, network: port.network.clone() });
        };
        if !(1..=QUEUES_MAX).contains(&port.queues) {
            return Err(CompileError::Queues { port: full, got: port.queues, most: QUEUES_MAX });
        }
        let attachment = attachment(port, mtu, run_dir)?;
        if let Some(other) = taken.insert(AttachmentKey::of(&attachment), full.clone()) {
            return Err(CompileError::SharedAttachment {
                one: other,
                two: full,
                what: describe(&attachment),
            });
        }
        let plan =
            PortPlan { id: port.id, workload: port.workload.clone(), name: port.name.clone(), attachment };
        if plans.insert(port.id, plan).is_some() {
            return Err(CompileError::SharedId { id: port.id, port: full });
        }
    }
    Ok(plans)
}

/// `workload.port`.
pub(crate) fn full_name(port: &SlicePort) -> String {
    format!("{}.{}", port.workload, port.name)
}

/// What two ports can not have both.
#[derive(PartialEq, Eq, Hash)]
enum AttachmentKey {
    Socket(PathBuf),
    Device(Option<PathBuf>, String),
}

impl AttachmentKey {
    fn of(attachment: &AttachmentPlan) -> Self {
        match attachment {
            AttachmentPlan::Vhost { socket, .. } => Self::Socket(socket.clone()),
            AttachmentPlan::Tap(tap) => {
                Self::Device(tap.netns.as_deref().map(crate::netns::path_of), tap.device.clone())
            }
        }
    }
}

fn describe(attachment: &AttachmentPlan) -> String {
    match attachment {
        AttachmentPlan::Vhost { socket, .. } => format!("socket {}", socket.display()),
        AttachmentPlan::Tap(TapConfig { device, netns: Some(netns), .. }) => {
            format!("device {device} in namespace {netns}")
        }
        AttachmentPlan::Tap(tap) => format!("device {}", tap.device),
    }
}

fn attachment(port: &SlicePort, mtu: u16, run_dir: &Path) -> Result<AttachmentPlan, CompileError> {
    let mac = port.mac.octets();
    match &port.attach {
        Attach::VhostUser(vhost) => {
            let socket = match &vhost.socket {
                Some(path) => PathBuf::from(path),
                None => socket_path(run_dir, &port.workload, &port.name),
            };
            let len = socket.as_os_str().len();
            if len > SOCKET_PATH_MAX {
                return Err(CompileError::SocketPath {
                    port: full_name(port),
                    socket,
                    len,
                    most: SOCKET_PATH_MAX,
                });
            }
            Ok(AttachmentPlan::Vhost { socket, role: vhost.role, mac, mtu, pairs: port.queues })
        }
        Attach::Tap(tap) => {
            if !(1..=NAME_MAX).contains(&tap.device.len()) {
                return Err(CompileError::DeviceName {
                    port: full_name(port),
                    device: tap.device.clone(),
                    most: NAME_MAX,
                });
            }
            Ok(AttachmentPlan::Tap(TapConfig {
                device: tap.device.clone(),
                netns: tap.netns.clone(),
                queues: port.queues,
                mac,
                mtu,
            }))
        }
    }
}

/// Where the socket of a port lies when nothing else is declared.
pub fn socket_path(run_dir: &Path, workload: &str, port: &str) -> PathBuf {
    run_dir.join("ports").join(format!("{workload}.{port}.sock"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::tests::{slice, tap_port, vm_port};
    use proptest::prelude::*;

    fn plans(slice: &Slice) -> BTreeMap<u32, PortPlan> {
        local_ports(slice, Path::new("/run/palisade")).expect("a good slice")
    }

    #[test]
    fn a_vm_port_gets_its_socket_under_the_run_directory() {
        let plans = plans(&slice(vec![vm_port(1, "web-1"), tap_port(2, "box", "tap0")]));
        let AttachmentPlan::Vhost { socket, mtu, pairs, .. } = &plans[&1].attachment else { panic!("vhost") };
        assert_eq!(socket, Path::new("/run/palisade/ports/web-1.eth0.sock"));
        assert_eq!((*mtu, *pairs), (1450, 1));
        let AttachmentPlan::Tap(tap) = &plans[&2].attachment else { panic!("tap") };
        assert_eq!(tap.device, "tap0");
    }

    #[test]
    fn ports_of_other_hosts_are_not_opened() {
        let mut far = vm_port(3, "far");
        far.host = "elsewhere".into();
        assert_eq!(plans(&slice(vec![far])), BTreeMap::new());
    }

    #[test]
    fn addresses_and_limits_do_not_reopen_a_port() {
        let before = slice(vec![vm_port(1, "web-1")]);
        let mut after = before.clone();
        after.ports[0].addresses.push("10.0.1.77".parse().expect("an address"));
        after.ports[0].rate_limit =
            Some(mgmt_types::RateLimit { packets_per_second: Some(9), ..Default::default() });
        assert_eq!(Difference::between(&plans(&before), &plans(&after)), Difference::default());
    }

    #[test]
    fn each_wrong_plan_names_what_is_wrong() {
        let mut unknown = vm_port(1, "web-1");
        unknown.network = "green".into();
        let mut long = vm_port(1, "web-1");
        long.attach = Attach::VhostUser(mgmt_types::VhostUser {
            socket: Some(format!("/{}", "s".repeat(120))),
            ..Default::default()
        });
        let mut queues = vm_port(1, "web-1");
        queues.queues = 17;
        let table = [
            (vec![unknown], "web-1.eth0 is on network green, which the slice does not have"),
            (vec![long], "121 bytes"),
            (vec![queues], "17 queue pairs"),
            (vec![tap_port(1, "box", "a-device-name-too-long")], "a-device-name-too-long"),
            (
                vec![tap_port(1, "a", "tap0"), tap_port(2, "b", "tap0")],
                "a.eth0 and b.eth0 both use device tap0",
            ),
            (vec![vm_port(1, "a"), vm_port(1, "b")], "id 1 is used twice"),
        ];
        for (ports, wanted) in table {
            let error = local_ports(&slice(ports), Path::new("/run/palisade")).expect_err(wanted);
            assert!(error.to_string().contains(wanted), "{error} does not say {wanted:?}");
        }
    }

    /// A handful of ids with a handful of shapes, so that keeping, changing, adding and removing all happen.
    fn any_ports() -> impl Strategy<Value = Vec<SlicePort>> {
        prop::collection::btree_map(0u32..8, 0u16..4, 0..8).prop_map(|ports| {
            ports
                .into_iter()
                .map(|(id, shape)| {
                    let mut port = if shape < 2 {
                        vm_port(id, &format!("vm-{id}"))
                    } else {
                        tap_port(id, &format!("box-{id}"), &format!("tap{id}"))
                    };
                    port.queues = 1 + shape % 2;
                    port
                })
                .collect()
        })
    }

    proptest! {
        #[test]
        fn carrying_out_a_difference_gives_the_plan(before in any_ports(), after in any_ports()) {
            let (mut running, planned) = (plans(&slice(before)), plans(&slice(after)));
            let difference = Difference::between(&running, &planned);
            for id in &difference.remove {
                prop_assert!(running.remove(id).is_some(), "removes what runs");
            }
            for plan in &difference.reopen {
                prop_assert_ne!(running.insert(plan.id, plan.clone()), Some(plan.clone()));
            }
            for plan in &difference.create {
                prop_assert_eq!(running.insert(plan.id, plan.clone()), None);
            }
            prop_assert_eq!(&running, &planned);
            prop_assert_eq!(Difference::between(&running, &planned), Difference::default());
        }
    }
}
