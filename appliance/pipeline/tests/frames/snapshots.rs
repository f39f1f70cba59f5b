//! What a snapshot's builder refuses, and what a snapshot answers.

use std::net::IpAddr;

use pipeline::{
    BuildError, HashKey, Location, NetworkConfig, NetworkIndex, PortConfig, PortIndex, Snapshot,
    SnapshotBuilder, link_local,
};

const GATEWAY: [u8; 6] = [2, 0, 0, 0, 0xff, 1];

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn network() -> NetworkConfig {
    NetworkConfig {
        gateway_mac: GATEWAY,
        gateways: vec![address("10.0.1.1")],
        subnets: vec![(address("10.0.1.0"), 24)],
        mtu: 1500,
        ..NetworkConfig::default()
    }
}

fn port(last: u8, addresses: &[&str]) -> PortConfig {
    PortConfig {
        network: NetworkIndex(0),
        mac: [2, 0, 0, 0, 0, last],
        addresses: addresses.iter().map(|text| address(text)).collect(),
        identity: 0,
        firewall: true,
        slot: 0,
        ..PortConfig::default()
    }
}

fn builder() -> SnapshotBuilder {
    let mut builder = Snapshot::builder(7, HashKey([1, 2]), Default::default());
    assert_eq!(builder.network(network()), Ok(NetworkIndex(0)));
    assert_eq!(builder.port(port(1, &["10.0.1.11", "fd00::11"])), Ok(PortIndex(0)));
    builder
}

#[test]
fn macs_and_addresses_are_unique_in_a_network() {
    let network = NetworkIndex(0);
    let duplicate = |text| Err(BuildError::DuplicateAddress { network, address: address(text) });
    let mac = [2, 0, 0, 0, 0, 1];
    assert_eq!(builder().port(port(1, &[])), Err(BuildError::DuplicateMac { network, mac }));
    let gateways = PortConfig { mac: GATEWAY, ..port(2, &[]) };
    assert_eq!(builder().port(gateways), Err(BuildError::DuplicateMac { network, mac: GATEWAY }));
    assert_eq!(builder().port(port(2, &["10.0.1.11"])), duplicate("10.0.1.11"));
    assert_eq!(builder().port(port(2, &["fd00::11"])), duplicate("fd00::11"));
    assert_eq!(builder().port(port(2, &["10.0.1.1"])), duplicate("10.0.1.1"), "the gateway's");
    assert_eq!(builder().port(port(2, &["10.0.1.12", "10.0.1.12"])), duplicate("10.0.1.12"));
    let others = link_local(mac).to_string();
    assert_eq!(builder().port(port(2, &[&others])), duplicate(&others), "it follows from a MAC");
    let own = link_local([2, 0, 0, 0, 0, 2]).to_string();
    assert_eq!(builder().port(port(2, &[&own])), Ok(PortIndex(1)), "declared as well");
}

#[test]
fn a_second_network_may_have_the_same_macs_and_addresses() {
    let mut builder = builder();
    let second = builder.network(network()).unwrap();
    builder.port(PortConfig { network: second, ..port(1, &["10.0.1.11"]) }).unwrap();
    let snapshot = builder.build().unwrap();
    assert_eq!(snapshot.flood_ports(NetworkIndex(0)), [PortIndex(0)]);
    assert_eq!(snapshot.flood_ports(second), [PortIndex(1)]);
}

#[test]
fn only_addresses_of_one_interface_are_taken() {
    for text in [
        "0.0.0.0",
        "0.1.2.3",
        "127.0.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "ff02::1",
        "::ffff:10.0.1.12",
    ] {
        let error = Err(BuildError::NotUnicastAddress { address: address(text) });
        assert_eq!(builder().port(port(2, &[text])), error);
        let gateways = vec![address(text)];
        let refused = builder().network(NetworkConfig { gateways, ..network() });
        assert_eq!(refused.map(|_| PortIndex(0)), error);
    }
    for mac in [[0; 6], [0xff; 6], [1, 0, 0x5e, 0, 0, 1]] {
        let error = BuildError::NotUnicastMac { mac };
        assert_eq!(builder().port(PortConfig { mac, ..port(2, &[]) }), Err(error.clone()));
        assert_eq!(builder().network(NetworkConfig { gateway_mac: mac, ..network() }), Err(error));
    }
}

#[test]
fn numbers_out_of_range_are_refused() {
    let unknown = BuildError::UnknownNetwork { network: NetworkIndex(1), have: 1 };
    assert_eq!(builder().port(PortConfig { network: NetworkIndex(1), ..port(2, &[]) }), Err(unknown));
    let subnets = vec![(address("10.0.1.0"), 33)];
    let error = BuildError::Prefix { address: address("10.0.1.0"), prefix: 33, most: 32 };
    assert_eq!(builder().network(NetworkConfig { subnets, ..network() }), Err(error));
    let error = BuildError::Mtu { mtu: 575, least: 576 };
    assert_eq!(builder().network(NetworkConfig { mtu: 575, ..network() }), Err(error));
}

#[test]
fn errors_name_numbers_for_people() {
    let mac = [2, 0, 0xab, 0, 0, 1];
    let error = BuildError::DuplicateMac { network: NetworkIndex(3), mac };
    assert_eq!(error.to_string(), "MAC 02:00:ab:00:00:01 is used twice in network 3");
}

#[test]
fn a_snapshot_knows_who_answers() {
    let mut builder = builder();
    builder.port(PortConfig { location: Location::Unknown, ..port(2, &["10.0.1.12"]) }).unwrap();
    let snapshot = builder.build().unwrap();
    assert_eq!(snapshot.revision(), 7);
    let found =
        |text| snapshot.neighbour(NetworkIndex(0), address(text)).map(|found| (found.mac[5], found.gateway));
    assert_eq!(found("10.0.1.11"), Some((1, false)));
    assert_eq!(found("fd00::11"), Some((1, false)));
    assert_eq!(found("fe80::ff:fe00:2"), Some((2, false)), "of another host, by the address of its MAC");
    assert_eq!(found("10.0.1.1"), Some((1, true)));
    assert_eq!(found("fe80::ff:fe00:ff01"), Some((1, true)));
    assert_eq!(found("10.0.1.13"), None);
    assert_eq!(snapshot.flood_ports(NetworkIndex(0)), [PortIndex(0)], "only local ports");
}
