//! What each VMM wants to hear to plug a vhost-user port in.

mod cloud_hypervisor;
mod libvirt;
mod qemu;

use mgmt_types::{MacAddr, VhostRole};
use serde::Serialize;

/// The VMMs we know the words of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Vmm {
    Qemu,
    CloudHypervisor,
    Libvirt,
}

/// A virtual NIC, as a VMM sees it.
#[derive(Debug, Clone)]
pub(crate) struct Nic {
    /// Unique within the guest; letters, digits and hyphens.
    pub(crate) id: String,
    /// Path of the vhost-user socket.
    pub(crate) socket: String,
    /// Whether the appliance listens or connects.
    pub(crate) role: VhostRole,
    pub(crate) mac: MacAddr,
    /// Largest IP packet, in bytes.
    pub(crate) mtu: u16,
    /// Queue pairs.
    pub(crate) queues: u16,
    /// Guest memory, with its unit.
    pub(crate) memory: String,
}

/// What to tell a VMM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Arguments {
    /// Command-line arguments, an option followed by its value; empty when there is XML.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) arguments: Vec<String>,
    /// Elements of a domain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) xml: Option<String>,
    /// What a person should know.
    pub(crate) remarks: Vec<String>,
}

impl Vmm {
    /// What to tell this VMM about a NIC.
    pub(crate) fn arguments(self, nic: &Nic) -> Arguments {
        match self {
            Self::Qemu => qemu::arguments(nic),
            Self::CloudHypervisor => cloud_hypervisor::arguments(nic),
            Self::Libvirt => libvirt::arguments(nic),
        }
    }
}

impl Arguments {
    /// One line for each option with its value.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.arguments.chunks(2).map(|pair| pair.join(" ")).collect()
    }
}

/// MTU that every virtio-net driver takes when the device names none.
const DEFAULT_MTU: u16 = 1500;

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The NIC all tests begin with.
    pub(crate) fn nic() -> Nic {
        Nic {
            id: "web-1-eth0".into(),
            socket: "/run/palisade/ports/web-1.eth0.sock".into(),
            role: VhostRole::Server,
            mac: MacAddr([0x52, 0x54, 0, 0, 0, 1]),
            mtu: DEFAULT_MTU,
            queues: 1,
            memory: "1G".into(),
        }
    }

    #[test]
    fn an_option_and_its_value_share_a_line() {
        let arguments = Vmm::CloudHypervisor.arguments(&nic());
        assert!(arguments.lines()[0].starts_with("--memory size=1G"), "{arguments:?}");
    }
}
