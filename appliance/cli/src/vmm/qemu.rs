//! QEMU.

use mgmt_types::VhostRole;

use super::{Arguments, DEFAULT_MTU, Nic};

/// Arguments for `qemu-system-*`, 7.2 or newer.
pub(super) fn arguments(nic: &Nic) -> Arguments {
    let Nic { id, socket, role, mac, mtu, queues, memory } = nic;
    let socket = escaped(socket);
    let meet = match role {
        // The appliance may be restarted: QEMU comes back after a second.
        VhostRole::Server => "reconnect=1",
        VhostRole::Client => "server=on,wait=off",
    };
    let mut device = format!("virtio-net-pci,netdev={id},mac={mac},mrg_rxbuf=on,host_mtu={mtu}");
    if *queues > 1 {
        // One vector for each ring, one for the control ring, one for changes of the configuration.
        device.push_str(&format!(",mq=on,vectors={}", 2 * queues + 2));
    }
    if *mtu > DEFAULT_MTU {
        device.push_str(",rx_queue_size=1024,tx_queue_size=1024");
    }
    let mut remarks = vec![
        format!(
            "guest memory must be shared: give -m {memory} too, and the memory backend once for the whole guest"
        ),
        "without KVM, QEMU 7.2 crashes on vhost-user with MSI-X: add ,vectors=0 to the device".to_owned(),
    ];
    if *queues > 1 {
        remarks
            .push(format!("a guest uses {queues} queue pairs only when it has as many CPUs: -smp {queues}"));
    }
    let pairs = [
        ("-object", format!("memory-backend-memfd,id=palisade-memory,size={memory},share=on")),
        ("-numa", "node,memdev=palisade-memory".to_owned()),
        ("-chardev", format!("socket,id={id},path={socket},{meet}")),
        ("-netdev", format!("vhost-user,id={id},chardev={id},queues={queues},vhostforce=on")),
        ("-device", device),
    ];
    let arguments = pairs.into_iter().flat_map(|(option, value)| [option.to_owned(), value]).collect();
    Arguments { arguments, xml: None, remarks }
}

/// A comma within a value is doubled.
fn escaped(value: &str) -> String {
    value.replace(',', ",,")
}

#[cfg(test)]
mod tests {
    use super::super::tests::nic;
    use super::*;

    #[test]
    fn qemu_connects_to_us_and_comes_back() {
        assert_eq!(
            arguments(&nic()).lines().join("\n"),
            "-object memory-backend-memfd,id=palisade-memory,size=1G,share=on\n\
             -numa node,memdev=palisade-memory\n\
             -chardev socket,id=web-1-eth0,path=/run/palisade/ports/web-1.eth0.sock,reconnect=1\n\
             -netdev vhost-user,id=web-1-eth0,chardev=web-1-eth0,queues=1,vhostforce=on\n\
             -device virtio-net-pci,netdev=web-1-eth0,mac=52:54:00:00:00:01,mrg_rxbuf=on,host_mtu=1500"
        );
    }

    #[test]
    fn qemu_listens_when_we_connect() {
        let nic = Nic { role: VhostRole::Client, socket: "/tmp/a,b".into(), ..nic() };
        let lines = arguments(&nic).lines();
        assert_eq!(lines[2], "-chardev socket,id=web-1-eth0,path=/tmp/a,,b,server=on,wait=off");
    }

    #[test]
    fn several_queues_and_jumbo_frames_need_more() {
        let lines = arguments(&Nic { queues: 4, mtu: 9000, ..nic() }).lines();
        assert!(lines[3].contains("queues=4"), "{lines:?}");
        assert!(
            lines[4].ends_with("host_mtu=9000,mq=on,vectors=10,rx_queue_size=1024,tx_queue_size=1024"),
            "{lines:?}"
        );
    }
}
