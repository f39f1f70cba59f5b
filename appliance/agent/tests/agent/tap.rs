//! Two namespaces talk through two TAP ports of an agent in this process.

use crate::bed::{Bed, eventually};
use mgmt_types::agent::Link;

#[test]
fn namespaces_reach_each_other_and_everything_is_counted() {
    let Some(mut bed) = Bed::new("reach", 2) else { return };
    bed.start();
    bed.put(bed.slice(1, &[1, 2]));
    bed.address_all();
    bed.ping(1, "10.77.0.2");
    bed.ping(2, "10.77.0.1");
    bed.ping(1, "fd77::2");

    let status = bed.status();
    assert_eq!((status.revision, status.error), (1, None));
    for port in &status.ports {
        assert_eq!(port.link, Link::Up, "{port:?}");
        assert!(port.from_guest.packets >= 6 && port.to_guest.packets >= 6, "{port:?}");
    }
}

#[test]
fn a_big_transfer_in_each_direction_arrives_whole() {
    let Some(mut bed) = Bed::new("bulk", 2) else { return };
    bed.start();
    bed.put(bed.slice(1, &[1, 2]));
    bed.address_all();
    for (from, to, address) in
        [(1, 2, "10.77.0.2"), (2, 1, "10.77.0.1"), (1, 2, "fd77::2"), (2, 1, "fd77::1")]
    {
        let sent = bed.transfer(from, to, address, 40 << 20);
        assert_eq!(sent, 40 << 20, "{from} to {to} at {address}");
    }
    let drops: Vec<_> = bed.status().ports.into_iter().map(|port| port.drops).collect();
    let offload = drops.iter().any(|drops| drops.contains_key("bad-offload"));
    assert!(!offload, "{drops:?}");
}

#[test]
fn a_device_outlives_the_agent_with_its_addresses_and_goes_with_its_port() {
    let Some(mut bed) = Bed::new("stay", 2) else { return };
    bed.start();
    bed.put(bed.slice(1, &[1, 2]));
    bed.address_all();
    bed.ping(1, "10.77.0.2");

    bed.stop();
    assert!(bed.addresses(1).contains("10.77.0.1/24"), "addresses went with the agent");
    // Nobody tells the new agent anything: it lives by what is on disk.
    bed.start();
    assert_eq!(bed.status().revision, 1);
    bed.ping(1, "10.77.0.2");

    bed.put(bed.slice(2, &[1]));
    eventually("the device of a removed port goes", || bed.devices(2).is_empty());
    assert!(bed.addresses(1).contains("10.77.0.1/24"), "the other port was disturbed");

    // A port removed while no agent ran takes its device along at the next start with a newer slice.
    bed.stop();
    bed.start();
    bed.put(bed.slice(3, &[]));
    eventually("a left-over device goes", || bed.devices(1).is_empty());
}

#[test]
fn a_port_waits_for_its_namespace_and_comes_back_with_its_device() {
    let Some(mut bed) = Bed::new("wait", 1) else { return };
    bed.start();
    bed.put(bed.slice(1, &[1, 2]));
    let status = bed.status();
    let late = status.ports.iter().find(|port| port.id == 2).expect("port 2");
    assert_eq!(late.link, Link::Waiting);
    assert!(late.faults[0].contains("does not exist"), "{:?}", late.faults);

    bed.add_namespace(2);
    eventually("the port opens", || bed.link(2) == Link::Up);
    bed.address_all();
    bed.ping(1, "10.77.0.2");

    bed.delete_device(2);
    eventually("the device is made again", || bed.devices(2).len() == 1 && bed.link(2) == Link::Up);
    bed.address_all();
    bed.ping(1, "10.77.0.2");
}

#[test]
fn somebody_elses_device_is_used_and_left_alone() {
    let Some(mut bed) = Bed::new("mine", 2) else { return };
    bed.make_device(1);
    bed.start();
    bed.put(bed.slice(1, &[1, 2]));
    bed.address_all();
    bed.ping(1, "10.77.0.2");
    bed.put(bed.slice(2, &[2]));
    bed.stop();
    assert_eq!(bed.devices(1).len(), 1, "a device that was there before was removed");
}

#[test]
fn a_bad_slice_is_refused_whole_and_a_changed_address_disturbs_nobody() {
    let Some(mut bed) = Bed::new("bad", 2) else { return };
    bed.start();
    bed.put(bed.slice(1, &[1, 2]));
    bed.address_all();
    let indexes = |bed: &Bed| (bed.interface_index(1), bed.interface_index(2));
    let before = indexes(&bed);

    let mut bad = bed.slice(2, &[1, 2]);
    bad.ports[0].network = "green".into();
    bed.send(bad);
    eventually("the error shows", || bed.status().error.is_some());
    let status = bed.status();
    assert_eq!(status.revision, 1);
    assert!(status.error.expect("an error").contains("network green, which the slice does not have"));
    bed.ping(1, "10.77.0.2");

    let mut moved = bed.slice(3, &[1, 2]);
    moved.ports[1].addresses.push("10.77.0.99".parse().expect("an address"));
    bed.put(moved);
    assert_eq!(bed.status().error, None);
    assert_eq!(indexes(&bed), before);
    bed.ping(1, "10.77.0.2");
}

#[test]
fn a_spoofed_source_is_dropped_and_counted() {
    let Some(mut bed) = Bed::new("spoof", 2) else { return };
    bed.start();
    bed.put(bed.slice(1, &[1, 2]));
    bed.address_all();
    bed.in_namespace(1, &["ip", "addr", "add", "10.77.0.66/24", "dev", &bed.device(1)]);
    let ping =
        bed.try_in_namespace(1, &["busybox", "ping", "-c", "1", "-W", "1", "-I", "10.77.0.66", "10.77.0.2"]);
    assert!(!ping, "a spoofed ping was answered");
    let drops = bed.port(1).drops;
    assert!(drops.contains_key("spoofed-arp") || drops.contains_key("spoofed-ipv4"), "{drops:?}");
}

#[test]
fn the_local_api_answers_on_its_socket() {
    let Some(mut bed) = Bed::new("api", 1) else { return };
    bed.start();
    bed.put(bed.slice(4, &[1]));
    let status: mgmt_types::agent::HostStatus =
        serde_json::from_str(&bed.get("/v1/status")).expect("a status");
    assert_eq!(status.revision, 4);
    let ports: Vec<mgmt_types::agent::PortStatus> =
        serde_json::from_str(&bed.get("/v1/ports")).expect("ports");
    assert_eq!(ports.len(), 1);
    assert!(bed.get("/metrics").contains("palisade_revision{host=\"here\"} 4"));
}
