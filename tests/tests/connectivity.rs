//! Two guests and two containers on one network reach each other, and nobody sees what is not for them.

use std::net::IpAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::capture::Capture;
use e2e::lab::{GATEWAY, Lab, LabSpec, v4_of, v6_of};
use e2e::scapy::send_from_netns;
use e2e::shell::Shell;
use e2e::traffic::{must_ping, stream, wait_ping};
use e2e::trials::{Fixture, check, note, run};

/// Not the usual 1500, so that a guest that has it was told.
const MTU: &str = "1400";
const SOON: Duration = Duration::from_secs(5);

struct Net(Lab);

impl Fixture for Net {
    fn new() -> Result<Self> {
        let spec = LabSpec { containers: vec!["c", "d"], mtu: MTU, ..LabSpec::default() };
        Ok(Self(Lab::start(&spec)?))
    }

    fn report(&self) -> String {
        self.0.report()
    }
}

fn main() -> ExitCode {
    let mut checks = vec![
        check("everybody_reaches_everybody_over_ipv4_and_ipv6", 120, everybody_reaches_everybody),
        check("a_guest_has_the_mac_and_mtu_that_its_port_declares", 30, guest_has_mac_and_mtu),
        check("a_container_has_the_mac_and_mtu_that_its_port_declares", 30, container_has_mac_and_mtu),
        check("the_gateway_answers_ping_over_both_families", 60, gateway_answers),
        check("neighbours_are_answered_at_the_port_with_declared_macs", 60, neighbours_are_answered),
        check("a_neighbour_that_nobody_declared_is_not_asked_for", 60, unknown_neighbour),
        check("unknown_unicast_reaches_nobody", 60, unknown_unicast),
        check("unicast_reaches_nobody_else", 60, unicast_is_private),
        check("broadcast_and_multicast_reach_every_port", 60, broadcast_and_multicast),
    ];
    for (from, to) in [("a", "b"), ("b", "a"), ("a", "c"), ("c", "a")] {
        for (family, address) in [("ipv4", v4_of as fn(&str) -> IpAddr), ("ipv6", v6_of)] {
            let name = format!("100_megabytes_from_{from}_to_{to}_over_{family}_arrive_unchanged");
            checks.push(check(name, 150, move |net: &mut Net| {
                let stream = stream(net.0.end(from), net.0.end(to), address(to), 100)?;
                note(&format!("{from} -> {to} {family}: {:.0} Mbit/s", stream.mbit_per_second()));
                Ok(())
            }));
        }
    }
    run(checks)
}

fn everybody_reaches_everybody(Net(lab): &mut Net) -> Result<()> {
    for (from, to) in
        [("a", "b"), ("b", "a"), ("a", "c"), ("c", "a"), ("b", "d"), ("d", "b"), ("c", "d"), ("d", "c")]
    {
        for address in [v4_of(to), v6_of(to)] {
            wait_ping(lab.end(from), address, SOON)?;
            must_ping(lab.end(from), address).with_context(|| format!("{from} to {to}"))?;
        }
    }
    Ok(())
}

fn guest_has_mac_and_mtu(Net(lab): &mut Net) -> Result<()> {
    for name in ["a", "b"] {
        has_mac_and_mtu(lab, name, "eth0")?;
    }
    Ok(())
}

fn container_has_mac_and_mtu(Net(lab): &mut Net) -> Result<()> {
    for name in ["c", "d"] {
        has_mac_and_mtu(lab, name, &lab.container(name).device())?;
    }
    Ok(())
}

fn has_mac_and_mtu(lab: &Lab, name: &str, device: &str) -> Result<()> {
    let declared = lab.palisade.port(name, "eth0")?.mac()?;
    let seen =
        lab.end(name).run(&format!("cat /sys/class/net/{device}/address /sys/class/net/{device}/mtu"))?;
    let expected = format!("{declared}\n{MTU}\n");
    ensure!(seen == expected, "{name} has {seen:?}, its port declares {expected:?}");
    Ok(())
}

fn gateway_answers(Net(lab): &mut Net) -> Result<()> {
    for name in ["a", "c"] {
        for gateway in GATEWAY {
            must_ping(lab.end(name), gateway.parse()?)?;
        }
    }
    Ok(())
}

fn neighbours_are_answered(Net(lab): &mut Net) -> Result<()> {
    let mac = lab.palisade.port("b", "eth0")?.mac()?;
    // Neither question may arrive at b: the port has answered them.
    let questions =
        Capture::start(lab.end("b"), "eth0", "(arp and arp[6:2] = 1) or (icmp6 and ip6[40] = 135)")?;
    let (netns, device) = (&lab.container("c").netns, lab.container("c").device());
    netns.ip(&["neigh", "flush", "dev", &device])?;
    for address in [v4_of("b"), v6_of("b")] {
        must_ping(netns, address)?;
        let neighbour = netns.ip(&["neigh", "show", &address.to_string(), "dev", &device])?;
        ensure!(neighbour.contains(&format!("lladdr {mac}")), "{address} is {neighbour:?}, declared {mac}");
    }
    let arrived = questions.stop(lab.end("b"))?;
    ensure!(arrived.is_empty(), "questions arrived at b: {arrived:#?}");
    Ok(())
}

fn unknown_neighbour(Net(lab): &mut Net) -> Result<()> {
    let netns = &lab.container("c").netns;
    let before = lab.palisade.port("c", "eth0")?.drops("unknown-neighbour");
    let at_d = Capture::start(lab.end("d"), &lab.container("d").device(), "arp or icmp6")?;
    for address in ["10.0.1.77", "fd00:1::77"] {
        let word = if address.contains(':') { "ping6" } else { "ping" };
        ensure!(!netns.succeeds(&format!("{word} -c 1 -W 1 {address}"))?, "{address} answered");
    }
    lab.palisade.wait_drops("c", "unknown-neighbour", before, 2)?;
    let arrived = at_d.stop(lab.end("d"))?;
    ensure!(arrived.is_empty(), "arrived at d: {arrived:#?}");
    Ok(())
}

fn unknown_unicast(Net(lab): &mut Net) -> Result<()> {
    let (netns, device) = (&lab.container("c").netns, lab.container("c").device());
    let mac = lab.palisade.port("c", "eth0")?.mac()?;
    let before = lab.palisade.port("c", "eth0")?.drops("unknown-destination");
    let stranger = "02:00:00:00:00:77";
    let witnesses = [("b", "eth0".to_owned()), ("d", lab.container("d").device())];
    let captures = witnesses
        .iter()
        .map(|(name, device)| Capture::start(lab.end(name), device, &format!("ether dst {stranger}")))
        .collect::<Result<Vec<_>>>()?;
    let frame =
        format!("Ether(src='{mac}',dst='{stranger}')/IP(src='{}',dst='10.0.1.77')/UDP(dport=9)", v4_of("c"));
    send_from_netns(netns, &device, &format!("[{frame}]*10"))?;
    let grown = lab.palisade.wait_drops("c", "unknown-destination", before, 10)?;
    ensure!(grown == 10, "10 frames were counted as {grown}");
    for ((name, _), capture) in witnesses.iter().zip(captures) {
        let arrived = capture.stop(lab.end(name))?;
        ensure!(arrived.is_empty(), "arrived at {name}: {arrived:#?}");
    }
    Ok(())
}

fn unicast_is_private(Net(lab): &mut Net) -> Result<()> {
    let at_d = Capture::start(lab.end("d"), &lab.container("d").device(), "icmp or icmp6 or tcp")?;
    must_ping(lab.end("a"), v4_of("b"))?;
    must_ping(lab.end("a"), v6_of("c"))?;
    stream(lab.end("c"), lab.end("b"), v4_of("b"), 1)?;
    let arrived = at_d.stop(lab.end("d"))?;
    ensure!(arrived.is_empty(), "arrived at d: {arrived:#?}");
    Ok(())
}

fn broadcast_and_multicast(Net(lab): &mut Net) -> Result<()> {
    let (netns, device) = (&lab.container("c").netns, lab.container("c").device());
    let mac = lab.palisade.port("c", "eth0")?.mac()?;
    let frames = [
        (
            "4001",
            format!("Ether(src='{mac}',dst='ff:ff:ff:ff:ff:ff')/IP(src='{}',dst='10.0.1.255')", v4_of("c")),
        ),
        (
            "4002",
            format!("Ether(src='{mac}',dst='01:00:5e:00:00:fb')/IP(src='{}',dst='224.0.0.251')", v4_of("c")),
        ),
        (
            "4003",
            format!("Ether(src='{mac}',dst='33:33:00:00:00:fb')/IPv6(src='{}',dst='ff02::fb')", v6_of("c")),
        ),
    ];
    let witnesses = [("a", "eth0".to_owned()), ("b", "eth0".to_owned()), ("d", lab.container("d").device())];
    let captures = witnesses
        .iter()
        .map(|(name, device)| Capture::start(lab.end(name), device, "udp"))
        .collect::<Result<Vec<_>>>()?;
    for (port, frame) in &frames {
        send_from_netns(netns, &device, &format!("[{frame}/UDP(sport=4000,dport={port})/'hello']"))?;
    }
    for ((name, _), capture) in witnesses.iter().zip(captures) {
        for (port, _) in &frames {
            capture.wait_for(lab.end(name), &format!(".{port}:"), SOON)?;
        }
        let arrived = capture.stop(lab.end(name))?;
        ensure!(arrived.len() == frames.len(), "{name} received each once? {arrived:#?}");
    }
    Ok(())
}
