//! libvirt.

use std::fmt::Write;

use mgmt_types::VhostRole;

use super::{Arguments, DEFAULT_MTU, Nic};

/// Elements of a libvirt domain: one for `<domain>`, one for `<devices>`.
pub(super) fn arguments(nic: &Nic) -> Arguments {
    let mut xml = String::new();
    // Writing into a String cannot fail.
    let _ = write_xml(&mut xml, nic);
    let remarks = vec![
        "guest memory must be shared: <memoryBacking> belongs into <domain>, <interface> into <devices>".to_owned(),
        "without KVM (<domain type='qemu'>) QEMU 7.2 crashes on vhost-user with MSI-X: pass vectors=0 by <qemu:override>"
            .to_owned(),
    ];
    Arguments { arguments: Vec::new(), xml: Some(xml), remarks }
}

fn write_xml(xml: &mut String, nic: &Nic) -> std::fmt::Result {
    let Nic { id, socket, role, mac, mtu, queues, memory: _ } = nic;
    writeln!(xml, "<memoryBacking>")?;
    writeln!(xml, "  <source type='memfd'/>")?;
    writeln!(xml, "  <access mode='shared'/>")?;
    writeln!(xml, "</memoryBacking>")?;
    writeln!(xml, "<interface type='vhostuser'>")?;
    writeln!(xml, "  <mac address='{mac}'/>")?;
    let socket = escaped(socket);
    match role {
        VhostRole::Server => {
            writeln!(xml, "  <source type='unix' path='{socket}' mode='client'>")?;
            writeln!(xml, "    <reconnect enabled='yes' timeout='1'/>")?;
            writeln!(xml, "  </source>")?;
        }
        VhostRole::Client => writeln!(xml, "  <source type='unix' path='{socket}' mode='server'/>")?,
    }
    writeln!(xml, "  <model type='virtio'/>")?;
    let sizes = if *mtu > DEFAULT_MTU { " rx_queue_size='1024' tx_queue_size='1024'" } else { "" };
    if *queues > 1 {
        writeln!(xml, "  <driver queues='{queues}'{sizes}/>")?;
    } else if !sizes.is_empty() {
        writeln!(xml, "  <driver{sizes}/>")?;
    }
    writeln!(xml, "  <mtu size='{mtu}'/>")?;
    // libvirt keeps aliases of users only with this prefix.
    writeln!(xml, "  <alias name='ua-{id}'/>")?;
    writeln!(xml, "</interface>")
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\'' => out.push_str("&apos;"),
            '"' => out.push_str("&quot;"),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::tests::nic;
    use super::*;

    fn xml(nic: &Nic) -> String {
        arguments(nic).xml.expect("XML")
    }

    #[test]
    fn libvirt_connects_and_comes_back() {
        let expected = "\
<memoryBacking>
  <source type='memfd'/>
  <access mode='shared'/>
</memoryBacking>
<interface type='vhostuser'>
  <mac address='52:54:00:00:00:01'/>
  <source type='unix' path='/run/palisade/ports/web-1.eth0.sock' mode='client'>
    <reconnect enabled='yes' timeout='1'/>
  </source>
  <model type='virtio'/>
  <mtu size='1500'/>
  <alias name='ua-web-1-eth0'/>
</interface>
";
        assert_eq!(xml(&nic()), expected);
    }

    #[test]
    fn roles_queues_and_strange_paths_are_told() {
        let nic = Nic { role: VhostRole::Client, queues: 4, mtu: 9000, socket: "/tmp/a'&b".into(), ..nic() };
        let xml = xml(&nic);
        assert!(xml.contains("path='/tmp/a&apos;&amp;b' mode='server'/>"), "{xml}");
        assert!(xml.contains("<driver queues='4' rx_queue_size='1024' tx_queue_size='1024'/>"), "{xml}");
    }
}
