//! Ports that come, change and go while others carry traffic.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::lab::{Lab, LabSpec, addresses, container, device, v4_of, v6_of, workload};
use e2e::netns::{Netns, ip};
use e2e::process::eventually;
use e2e::scapy::send_from_netns;
use e2e::shell::Shell;
use e2e::traffic::{must_ping, ping, slow_stream, wait_ping};
use e2e::trials::{Fixture, check, note, run};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(5);

struct Net(Lab);

impl Fixture for Net {
    fn new() -> Result<Self> {
        let spec =
            LabSpec { guests: vec![("a", |nic| nic)], containers: vec!["c", "d"], ..LabSpec::default() };
        Ok(Self(Lab::start(&spec)?))
    }

    fn report(&self) -> String {
        self.0.report()
    }
}

fn main() -> ExitCode {
    run(vec![
        check("ports_come_and_go_while_a_stream_passes", 180, come_and_go),
        check("a_device_is_made_in_its_namespace_and_goes_with_its_port", 60, device_lives_in_namespace),
        check("a_port_of_the_host_has_its_device_in_the_hosts_namespace", 60, host_port),
        check("a_changed_address_is_in_force_at_once", 60, address_changes),
        check("a_limit_of_packets_holds_and_is_counted", 60, packets_are_limited),
        check("a_limit_of_bits_holds_and_is_counted", 90, bits_are_limited),
        check("many_ports_come_in_one_transaction", 120, many_ports),
    ])
}

fn come_and_go(Net(lab): &mut Net) -> Result<()> {
    let lab = &*lab;
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| slow_stream(lab.guest("a"), lab.end("c"), v4_of("c"), 100));
        let mut rounds = 0;
        while !sender.is_finished() && rounds < 20 {
            let netns = Netns::new("pal-f")?;
            lab.palisade.apply(&container("f", &netns))?;
            configure(&netns, "f")?;
            wait_ping(&netns, v4_of("d"), SOON).with_context(|| format!("round {rounds}"))?;
            must_ping(&netns, v6_of("c"))?;
            lab.palisade.cli(&["delete", "workload", "f"])?;
            rounds += 1;
        }
        let stream = sender.join().map_err(|_| anyhow::anyhow!("the sender panicked"))??;
        note(&format!("{rounds} ports came and went; {:.0} Mbit/s meanwhile", stream.mbit_per_second()));
        ensure!(rounds > 0, "the stream was too short to see a port come");
        Ok(())
    })
}

fn device_lives_in_namespace(Net(lab): &mut Net) -> Result<()> {
    let netns = Netns::new("pal-f")?;
    let there = format!("[ -d /sys/class/net/{} ]", device("f"));
    lab.palisade.apply(&container("f", &netns))?;
    eventually("the device is there", SOON, || netns.succeeds(&there))?;
    ensure!(!ip(&["link"])?.contains(&device("f")), "the device is in the host's namespace too");
    lab.palisade.cli(&["delete", "workload", "f"])?;
    eventually("the device is gone", SOON, || Ok(!netns.succeeds(&there)?))
}

fn host_port(Net(lab): &mut Net) -> Result<()> {
    let attach = format!("attach: {{ tap: {{ device: {} }} }}", device("h"));
    lab.palisade.apply(&workload("h", "host", &attach))?;
    let mac = lab.palisade.port("h", "eth0")?.mac()?;
    eventually("the device is there", SOON, || {
        Ok(ip(&["link", "show", &device("h")]).is_ok_and(|link| link.contains(&mac)))
    })?;
    lab.palisade.cli(&["delete", "workload", "h"])?;
    eventually("the device is gone", SOON, || Ok(ip(&["link", "show", &device("h")]).is_err()))
}

fn address_changes(Net(lab): &mut Net) -> Result<()> {
    let netns = Netns::new("pal-g")?;
    lab.palisade.apply(&container("g", &netns))?;
    configure(&netns, "g")?;
    wait_ping(&netns, v4_of("c"), SOON)?;
    // The same workload with another address: the old one is now somebody else's, as far as anyone knows.
    let before = lab.palisade.port("g", "eth0")?.drops("spoofed-ipv4");
    let changed = container("g", &netns).replace(&v4_of("g").to_string(), "10.0.1.117");
    lab.palisade.apply(&changed)?;
    ensure!(ping(&netns, v4_of("c"), 3)? == 0, "the old address still works");
    lab.palisade.wait_drops("g", "spoofed-ipv4", before, 1)?;
    let device = device("g");
    netns.ip(&["address", "del", &format!("{}/24", v4_of("g")), "dev", &device])?;
    netns.ip(&["address", "add", "10.0.1.117/24", "dev", &device])?;
    wait_ping(&netns, v4_of("c"), SOON)?;
    lab.palisade.cli(&["delete", "workload", "g"]).map(drop)
}

fn packets_are_limited(Net(lab): &mut Net) -> Result<()> {
    let netns = Netns::new("pal-g")?;
    let limited = limit(&container("g", &netns), "packetsPerSecond: 50, burstPackets: 50");
    lab.palisade.apply(&limited)?;
    configure(&netns, "g")?;
    wait_ping(&netns, v4_of("c"), SOON)?;
    let mac = lab.palisade.port("g", "eth0")?.mac()?;
    let peer = lab.palisade.port("d", "eth0")?;
    let before = lab.palisade.port("g", "eth0")?.drops("rate-limit");
    let frame = format!(
        "Ether(src='{mac}',dst='{}')/IP(src='{}',dst='{}')/UDP(dport=9)",
        peer.mac()?,
        v4_of("g"),
        v4_of("d")
    );
    let begin = std::time::Instant::now();
    send_from_netns(&netns, &device("g"), &format!("[{frame}]*2000"))?;
    // scapy's own start is in here, so this allows more than the bucket did: never less.
    let allowed = 50 + (begin.elapsed().as_secs_f64() * 50.0) as u64 + 10;
    let dropped = lab.palisade.wait_drops("g", "rate-limit", before, 2000 - allowed)?;
    note(&format!("2000 packets at 50 a second: {dropped} dropped"));
    let mut arrived = 0;
    eventually("the peer's counter settles", SOON, || {
        let now = lab.palisade.port("d", "eth0")?.packets_to_guest() - peer.packets_to_guest();
        let settled = now == arrived && now + dropped >= 2000;
        arrived = now;
        Ok(settled)
    })?;
    ensure!(arrived <= allowed, "{arrived} packets arrived, at most {allowed} may");
    lab.palisade.cli(&["delete", "workload", "g"]).map(drop)
}

fn bits_are_limited(Net(lab): &mut Net) -> Result<()> {
    let netns = Netns::new("pal-g")?;
    lab.palisade.apply(&limit(&container("g", &netns), "bitsPerSecond: 20000000"))?;
    configure(&netns, "g")?;
    wait_ping(&netns, v4_of("c"), SOON)?;
    lab.end("c").run("/usr/bin/iperf3 -s -D -1")?;
    let text =
        netns.run_within(&format!("/usr/bin/iperf3 -c {} -t 6 -J", v4_of("c")), Duration::from_secs(30))?;
    let report: Value = serde_json::from_str(&text)?;
    let rate = report["end"]["sum_received"]["bits_per_second"].as_f64().context("no rate")? / 1e6;
    note(&format!("TCP under a limit of 20 Mbit/s: {rate:.1} Mbit/s"));
    // Below: TCP meets a policer without a queue, so it does not fill it. Above: the burst, over six seconds.
    ensure!((5.0..23.0).contains(&rate), "{rate} Mbit/s under a limit of 20");
    ensure!(lab.palisade.port("g", "eth0")?.drops("rate-limit") > 0, "nothing was counted");
    lab.palisade.cli(&["delete", "workload", "g"]).map(drop)
}

fn many_ports(Net(lab): &mut Net) -> Result<()> {
    let netns = Netns::new("pal-m")?;
    let names: Vec<String> = ('i'..='x').map(String::from).collect();
    lab.palisade.apply(&names.iter().map(|name| container(name, &netns)).collect::<String>())?;
    for name in &names {
        eventually("the device is there", SOON, || {
            netns.succeeds(&format!("[ -d /sys/class/net/{} ]", device(name)))
        })?;
        ensure!(lab.palisade.port(name, "eth0")?.faults().is_empty(), "{name} has a fault");
    }
    must_ping(lab.guest("a"), v4_of("c"))?;
    for name in &names {
        lab.palisade.cli(&["delete", "workload", name])?;
    }
    eventually("all devices are gone", SOON, || Ok(netns.run("ls /sys/class/net")?.trim() == "lo"))
}

fn limit(yaml: &str, limit: &str) -> String {
    yaml.replace("attach:", &format!("rateLimit: {{ {limit} }}, attach:"))
}

fn configure(netns: &Netns, name: &str) -> Result<()> {
    let device = device(name);
    eventually(&format!("{device} appears"), SOON, || {
        netns.succeeds(&format!("[ -d /sys/class/net/{device} ]"))
    })?;
    netns.run(&e2e::guest::configure_script(&device, &addresses(name))).map(drop)
}
