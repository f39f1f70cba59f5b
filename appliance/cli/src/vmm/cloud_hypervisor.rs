//! cloud-hypervisor.

use mgmt_types::VhostRole;

use super::{Arguments, DEFAULT_MTU, Nic};

/// Arguments for `cloud-hypervisor`.
pub(super) fn arguments(nic: &Nic) -> Arguments {
    let Nic { id, socket, role, mac, mtu, queues, memory } = nic;
    // Rings, not pairs; its `vhost_mode` is the VMM's own side.
    let rings = 2 * queues;
    let mode = match role {
        VhostRole::Server => "client",
        VhostRole::Client => "server",
    };
    let mut net = format!(
        "id={id},vhost_user=true,socket={socket},vhost_mode={mode},mac={mac},num_queues={rings},queue_size=1024"
    );
    if *mtu != DEFAULT_MTU {
        net.push_str(&format!(",mtu={mtu}"));
    }
    let mut remarks =
        vec![format!("guest memory must be shared: --memory size={memory},shared=on, once for the guest")];
    if *queues > 1 {
        remarks.push(format!("{queues} queue pairs need as many CPUs: --cpus boot={queues}"));
    }
    let arguments = vec!["--memory".to_owned(), format!("size={memory},shared=on"), "--net".to_owned(), net];
    Arguments { arguments, xml: None, remarks }
}

#[cfg(test)]
mod tests {
    use super::super::tests::nic;
    use super::*;

    #[test]
    fn queues_are_counted_as_rings() {
        let nic = Nic { queues: 2, mtu: 9000, ..nic() };
        assert_eq!(
            arguments(&nic).arguments,
            [
                "--memory",
                "size=1G,shared=on",
                "--net",
                "id=web-1-eth0,vhost_user=true,socket=/run/palisade/ports/web-1.eth0.sock,vhost_mode=client,\
                 mac=52:54:00:00:00:01,num_queues=4,queue_size=1024,mtu=9000",
            ]
        );
    }

    #[test]
    fn the_vmm_listens_when_we_connect() {
        let arguments = arguments(&Nic { role: VhostRole::Client, ..nic() });
        assert!(arguments.arguments[3].contains("vhost_mode=server"), "{arguments:?}");
    }
}
