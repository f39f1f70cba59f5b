//! Two hosts with an agent each: networks and routers that reach over both, and what neither lets pass.
//!
//! Network `blue` has guest `a` and container `c` on host-a, guest `b` and container `e` on host-b; `green`, on the same
//! router, has container `f` on host-a and `d` on host-b. Network `red`, of another router, has the addresses of `blue`:
//! `c-red` on host-b, `e-red` on host-a.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::capture::Capture;
use e2e::fabric::BRIDGE;
use e2e::lab::{LINK, OPEN, labelled};
use e2e::mesh::{Kind, Member, Mesh, MeshSpec, UNDERLAY, with_mesh};
use e2e::process::eventually;
use e2e::scapy::send_from_netns;
use e2e::shell::Shell;
use e2e::traffic::{Pinger, must_ping, ping, slow_stream, stream, wait_listens, wait_ping};
use e2e::trials::{Fixture, check, note, run};
use serde_json::Value;

/// Enough for slow start to be over.
const MEGABYTES: u32 = 10;
const SOON: Duration = Duration::from_secs(5);

/// Pairs on different hosts: of one network, and of two networks of one router. The last two share a host and no network.
const PAIRS: [(&str, &str); 9] = [
    ("a", "b"),
    ("b", "a"),
    ("a", "e"),
    ("e", "c"),
    ("c", "b"),
    ("a", "d"),
    ("d", "c"),
    ("f", "b"),
    ("c", "f"),
];

struct Net(Mesh);

impl Fixture for Net {
    fn new() -> Result<Self> {
        let mut spec = MeshSpec::default();
        for member in &mut spec.members {
            if member.name == "b" {
                member.kind = Kind::Movable;
            }
        }
        spec.members.extend([
            container("e", "blue", "host-b"),
            container("f", "green", "host-a"),
            container("c-red", "red", "host-b"),
            container("e-red", "red", "host-a"),
        ]);
        Ok(Self(Mesh::start(&spec)?))
    }

    fn report(&self) -> String {
        self.0.report()
    }
}

fn container(name: &'static str, network: &'static str, host: &'static str) -> Member {
    Member { name, network, host, kind: Kind::Container }
}

fn main() -> ExitCode {
    run(vec![
        check("workloads_of_two_hosts_reach_each_other_within_networks_and_through_the_router", 120, reach),
        check("streams_arrive_unchanged_across_hosts", 120, streams),
        check("the_router_answers_and_tells_when_the_time_to_live_is_over", 60, router),
        check("broadcast_and_multicast_cross_once_and_unknown_unicast_never", 60, flooding),
        check("two_routers_may_have_the_same_addresses", 60, isolation),
        check("what_no_host_may_send_is_refused_under_its_own_reason", 90, refusals),
        check("rules_hold_across_hosts_and_follow_labels_at_once", 90, labels),
        check("a_workload_that_moves_keeps_its_connections", 90, moves),
        check("without_a_manager_traffic_restarts_and_new_connections_go_on", 120, alone),
        check("a_packet_larger_than_the_path_is_answered_with_its_size", 90, narrow_path),
        check("the_underlay_may_be_ipv6", 60, |_: &mut Net| ipv6_underlay()),
    ])
}

fn reach(Net(mesh): &mut Net) -> Result<()> {
    for (from, to) in PAIRS {
        for address in mesh.addresses(to) {
            wait_ping(mesh.shell(from), address, LINK)?;
            must_ping(mesh.shell(from), address).with_context(|| format!("{from} to {to}"))?;
        }
    }
    let hosts = mesh.palisade.cli(&["get", "hosts"])?;
    ensure!(hosts.contains("host-a") && hosts.contains("host-b"), "{hosts}");
    Ok(())
}

fn streams(Net(mesh): &mut Net) -> Result<()> {
    for (from, to, family) in
        [("a", "b", 0), ("b", "a", 1), ("c", "e", 0), ("a", "e", 1), ("d", "a", 0), ("c", "d", 1)]
    {
        let stream = stream(mesh.shell(from), mesh.shell(to), mesh.addresses(to)[family], MEGABYTES)
            .with_context(|| format!("{from} to {to}"))?;
        note(&format!("{from} -> {to}: {:.0} Mbit/s", stream.mbit_per_second()));
    }
    Ok(())
}

fn router(Net(mesh): &mut Net) -> Result<()> {
    for (from, gateway) in
        [("a", "10.0.1.1"), ("a", "fd00:1::1"), ("a", "10.0.2.1"), ("c", "fd00:2::1"), ("d", "10.0.1.1")]
    {
        must_ping(mesh.shell(from), gateway.parse()?).with_context(|| format!("{from} to {gateway}"))?;
    }
    for (word, to, gateway) in
        [("traceroute", mesh.v4("d"), "10.0.1.1"), ("traceroute6", mesh.v6("d"), "fd00:1::1")]
    {
        let route = mesh.shell("c").run(&format!("{word} -n -q 1 -w 2 -m 4 {to}"))?;
        let hops: Vec<&str> = route
            .lines()
            .filter_map(|line| line.trim().split_once("  ")?.1.split_whitespace().next())
            .collect();
        ensure!(hops == [gateway, &to.to_string()], "the way to {to} is {hops:?}:\n{route}");
    }
    Ok(())
}

fn flooding(Net(mesh): &mut Net) -> Result<()> {
    let (netns, mac) = (mesh.container("c"), mesh.palisade.port("c", "eth0")?.mac()?);
    let outer = Capture::start(&mesh.underlay.netns, BRIDGE, "udp port 6081")?;
    let captures = ["a", "b", "e"]
        .map(|name| {
            let (shell, device) = mesh.end(name);
            Ok::<_, anyhow::Error>((name, Capture::start(shell, &device, "udp portrange 4001-4003")?))
        })
        .into_iter()
        .collect::<Result<Vec<_>>>()?;
    let [v4, v6] = mesh.addresses("c");
    let frames = format!(
        "[Ether(src='{mac}',dst='ff:ff:ff:ff:ff:ff')/IP(src='{v4}',dst='10.0.1.255')/UDP(sport=4000,dport=4001)/'hello',\
         Ether(src='{mac}',dst='01:00:5e:00:00:fb')/IP(src='{v4}',dst='224.0.0.251')/UDP(sport=4000,dport=4002)/'hello',\
         Ether(src='{mac}',dst='33:33:00:00:00:fb')/IPv6(src='{v6}',dst='ff02::fb')/UDP(sport=4000,dport=4003)/'hello',\
         Ether(src='{mac}',dst='02:00:00:00:00:77')/IP(src='{v4}',dst='10.0.1.77')/UDP(sport=4000,dport=4001)/'hello']"
    );
    let before = mesh.palisade.port("c", "eth0")?.drops("unknown-destination");
    send_from_netns(netns, "pal-c", &frames)?;
    mesh.palisade.wait_drops("c", "unknown-destination", before, 1)?;
    for (name, capture) in captures {
        for port in [4001, 4002, 4003] {
            capture.wait_for(mesh.shell(name), &format!(".{port}:"), SOON)?;
        }
        let arrived = capture.stop(mesh.shell(name))?;
        ensure!(arrived.len() == 3, "{name} received each once? {arrived:#?}");
    }
    // tcpdump shows what is inside on the same line.
    let crossed = outer.stop(&mesh.underlay.netns)?;
    let ours =
        crossed.iter().filter(|line| [".4001:", ".4002:", ".4003:"].iter().any(|it| line.contains(it)));
    ensure!(ours.count() == 3, "crossed the underlay: {crossed:#?}");
    Ok(())
}

fn isolation(Net(mesh): &mut Net) -> Result<()> {
    ensure!(mesh.v4("c") == mesh.v4("c-red"), "the networks do not overlap");
    let at = |name: &str| {
        let (shell, device) = mesh.end(name);
        Capture::start(shell, &device, "icmp[0] = 8 or (icmp6 and ip6[40] = 128)")
    };
    let (blue, red) = (at("c")?, at("c-red")?);
    for address in mesh.addresses("c-red") {
        must_ping(mesh.shell("e-red"), address)?;
    }
    ensure!(blue.stop(mesh.shell("c"))?.is_empty(), "red's pings reached blue");
    ensure!(red.stop(mesh.shell("c-red"))?.len() >= 6, "red's pings did not arrive");
    let red = at("c-red")?;
    must_ping(mesh.shell("e"), mesh.v4("c"))?;
    ensure!(red.stop(mesh.shell("c-red"))?.is_empty(), "blue's pings reached red");
    // Another router leads nowhere else.
    ensure!(ping(mesh.shell("e-red"), mesh.v4("d"), 2)? == 0, "red reaches green");
    Ok(())
}

/// What arrives at host-b from the underlay, and what it is refused for. Words are replaced in scapy's: SRC is host-a's
/// address, VNI that of `blue`, INNER a UDP frame from `c` to `e`, ID and PORT the options that belong to it.
const REFUSED: [(&str, &str, &str); 12] = [
    ("from a stranger", "unknown-peer", "outer('192.0.2.77', geneve(VNI, ID+PORT, INNER))"),
    ("of version 1", "geneve-version", "outer(SRC, b'\\x44'+geneve(VNI, ID+PORT, INNER)[1:])"),
    ("that ends within the header", "geneve-length", "outer(SRC, geneve(VNI, ID+PORT, INNER)[:7])"),
    ("that ends within the options", "geneve-length", "outer(SRC, geneve(VNI, ID+PORT, INNER)[:12])"),
    (
        "with options that do not add up",
        "geneve-length",
        "outer(SRC, geneve(VNI, ID+option(0x0102, 5, b'')[:3]+b'\\x1f', INNER))",
    ),
    (
        "with an unknown critical option",
        "geneve-critical-option",
        "outer(SRC, geneve(VNI, ID+PORT+option(0xff00, 0xfe, b'abcd'), INNER))",
    ),
    (
        "with something else than Ethernet inside",
        "geneve-protocol",
        "outer(SRC, geneve(VNI, ID+PORT, INNER, protocol=0x0800))",
    ),
    ("of a network that is not there", "unknown-vni", "outer(SRC, geneve(0xfffffe, ID+PORT, INNER))"),
    ("without an identity", "identity-missing", "outer(SRC, geneve(VNI, b'', INNER))"),
    (
        "with an identity that host-b's workloads have",
        "identity-not-owned",
        "outer(SRC, geneve(VNI, THEIRS+PORT, INNER))",
    ),
    (
        "that speaks for a workload of host-b",
        "remote-spoofed",
        "outer(SRC, geneve(VNI, ID+PORT, INNER.replace(MAC_C, MAC_B)))",
    ),
    (
        "from an address that its sender has not",
        "remote-spoofed",
        "outer(SRC, geneve(VNI, ID+PORT, udp('10.0.1.99')))",
    ),
];

fn refusals(Net(mesh): &mut Net) -> Result<()> {
    // So that `e` has an identity that nobody on host-a has.
    let document = mesh.document("e", "host-b")?;
    mesh.palisade.apply(&format!(
        "kind: Group\nname: db\nspec: {{ match: \"tier = db\" }}\n---\nkind: FirewallPolicy\nname: db\nspec:\n  \
         tier: application\n  priority: 1\n  appliesTo: [any]\n  \
         rules: [{{ name: db, action: allow, from: [db], to: [any] }}]\n{}",
        labelled(&document, "tier: db")
    ))?;
    let refused = refused(mesh);
    mesh.palisade.apply(&document)?;
    mesh.palisade.cli(&["delete", "policies", "db"])?;
    refused
}

fn refused(mesh: &Mesh) -> Result<()> {
    let prelude = injections(mesh)?;
    let (a, b) = (mesh.host("host-a"), mesh.host("host-b"));
    let (shell, device) = mesh.end("e");
    let at_e = Capture::start(shell, &device, "udp port 4244")?;
    // The same that is not forged arrives, or nothing here means anything.
    send_from_netns(&a.netns, UNDERLAY, &format!("{prelude}[outer(SRC, geneve(VNI, ID+PORT, INNER))]"))?;
    at_e.wait_for(shell, ".4244:", SOON)?;
    let mut wrong = Vec::new();
    for (what, reason, frame) in REFUSED {
        let before = mesh.underlay_drops(b.name, reason)?;
        send_from_netns(&a.netns, UNDERLAY, &format!("{prelude}[{frame}]*5"))?;
        let mut grown = 0;
        let counted = eventually("the refusal is counted", SOON, || {
            grown = mesh.underlay_drops(b.name, reason)?.saturating_sub(before);
            Ok(grown >= 5)
        });
        if counted.is_err() || grown != 5 {
            wrong.push(format!("5 packets {what}: {reason} grew by {grown}"));
        }
    }
    let arrived = at_e.stop(shell)?;
    ensure!(arrived.len() == 1, "refused packets arrived: {arrived:#?}");
    ensure!(wrong.is_empty(), "{wrong:#?}");
    Ok(())
}

/// What the packets of [`REFUSED`] are made of, as an expression that scapy's list follows.
fn injections(mesh: &Mesh) -> Result<String> {
    let (a, b) = (mesh.host("host-a"), mesh.host("host-b"));
    let mac = |host: &e2e::mesh::Host| host.netns.run("cat /sys/class/net/u0/address");
    let vni = mesh.vni("blue")?;
    let port = |name: &str| mesh.palisade.port(name, "eth0");
    let (mac_a, mac_b) = (mac(a)?, mac(b)?);
    Ok(format!(
        "[exec('''\n\
         SRC, VNI = '{}', {vni}\n\
         MAC_C, MAC_B = [bytes.fromhex(m.replace(':', '')) for m in ('{}', '{}')]\n\
         def outer(source, payload):\n  \
         return Ether(src='{}',dst='{}')/IP(src=source,dst='{}')/UDP(sport=50000,dport=6081)/Raw(payload)\n\
         def option(cls, type, body):\n  \
         return struct.pack('!HBB', cls, type, len(body)//4)+body\n\
         def geneve(vni, options, inner, protocol=0x6558):\n  \
         return struct.pack('!BBHI', len(options)//4, 0x40 if options else 0, protocol, vni<<8)+options+inner\n\
         def udp(source):\n  \
         return raw(Ether(src='{}',dst='{}')/IP(src=source,dst='{}')/UDP(sport=4243,dport=4244)/'hello')\n\
         INNER = udp('{}')\n\
         ID = option(0xff00, 0x81, struct.pack('!I', {}))\n\
         THEIRS = option(0xff00, 0x81, struct.pack('!I', {}))\n\
         PORT = option(0xff00, 0x83, struct.pack('!I', {}))\n\
         ''', globals()), []][1]+",
        a.address,
        port("c")?.mac()?,
        port("b")?.mac()?,
        mac_a.trim(),
        mac_b.trim(),
        b.address,
        port("c")?.mac()?,
        port("e")?.mac()?,
        mesh.v4("e"),
        mesh.v4("c"),
        sent_identity(mesh, "c", "e")?,
        sent_identity(mesh, "e", "c")?,
        mesh.port_id("e")?,
    ))
}

/// The identity that the packets of `from` to `to`, on another host, carry.
fn sent_identity(mesh: &Mesh, from: &str, to: &str) -> Result<u32> {
    let netns = &mesh.underlay.netns;
    let file = format!("{}/identity", netns.files());
    // GENEVE with critical options, and an ICMP echo request behind two of them.
    let filter = "udp dst port 6081 and udp[9] & 0x40 != 0 and udp[66] = 8";
    let script = format!(
        "rm -f {file}; timeout 10 /usr/bin/tcpdump -Z root --immediate-mode -l -x -n -i {BRIDGE} '{filter}' > {file} 2>&1 &"
    );
    netns.run(&script)?;
    let mut identity = None;
    eventually("a packet with an identity is captured", SOON, || {
        must_ping(mesh.shell(from), mesh.v4(to))?;
        let text = netns.run(&format!("cat {file}"))?;
        let lines = text.lines().skip_while(|line| !line.contains("0x0000:")).take(4);
        let digits: String = lines
            .filter_map(|line| line.split_once(":  "))
            .map(|(_, words)| words.replace(' ', ""))
            .collect();
        // Outer IPv4 and UDP headers, GENEVE's, and that of the first option.
        identity = digits.get(2 * (20 + 8 + 8 + 4)..2 * (20 + 8 + 8 + 8)).map(str::to_owned);
        Ok(identity.is_some())
    })?;
    u32::from_str_radix(&identity.unwrap_or_default(), 16).context("no identity")
}

const TIERS: &str = "kind: Group
name: web
spec: { match: \"tier = web\" }
---
kind: Group
name: db
spec: { match: \"tier = db\" }
---
kind: FirewallPolicy
name: shop
spec:
  tier: application
  priority: 100
  appliesTo: [web, db]
  rules:
    - { name: ping, action: allow, from: [web], to: [db], services: [ping] }
    - { name: to-db, action: allow, from: [web], to: [db], services: [tcp/5432] }
    - { name: rest, direction: in, action: reject }
---
kind: FirewallPolicy
name: meter
spec:
  tier: platform
  priority: 1
  appliesTo: [any]
  rules: [{ name: iperf, action: allow, services: [tcp/5201, udp/5201] }]
";

/// `c`, on host-a, is of the web tier and pings `e`, the database on host-b; then it is of another tier. What it sends to
/// `d` over UDP is allowed throughout.
fn labels(Net(mesh): &mut Net) -> Result<()> {
    let (c, d, e) = (mesh.container("c"), mesh.container("d"), mesh.container("e"));
    e.run("nc -ll -p 5432 -e true > /dev/null 2>&1 &")?;
    wait_listens(e, 5432)?;
    let web = labelled(&mesh.document("c", "host-a")?, "tier: web");
    let db = labelled(&mesh.document("e", "host-b")?, "tier: db");
    mesh.palisade.apply(&format!("{TIERS}{web}{db}"))?;
    mesh.palisade.cli(&["delete", "policies", "open", "--wait"])?;
    let connects = |from: &str| {
        let command = format!("nc -w 2 {} 5432 < /dev/null", mesh.v4("e"));
        Ok::<_, anyhow::Error>(mesh.shell(from).try_run(&command, Duration::from_secs(20))?.success())
    };
    ensure!(connects("c")?, "the web tier does not reach the database on the other host");
    ensure!(!connects("a")? && !connects("f")?, "others reach the database");

    d.run("iperf3 -s -1 -p 5201 -D")?;
    wait_listens(d, 5201)?;
    let answers = Capture::start(c, "pal-c", "icmp[0] = 0")?;
    let pings = Pinger::start(c, mesh.v4("e"), 100)?;
    let meter = format!("iperf3 -c {} -p 5201 -u -b 10M -l 1000 -t 4 -J", mesh.v4("d"));
    c.run(&format!("{meter} > {}/iperf.json 2>&1 &", c.files()))?;
    eventually("pings are answered", SOON, || Ok(pings.answers(c)? > 100))?;
    let document = mesh.document("c", "host-a")?;
    mesh.palisade.cli_with(&["apply", "-f", "-"], &labelled(&document, "tier: quarantine"))?;
    let acknowledged = second_of_day()?;
    let report = format!("{}/iperf.json", c.files());
    eventually("iperf3 ends", Duration::from_secs(15), || {
        c.succeeds(&format!("tail -1 {report} | grep -q '^}}'"))
    })?;
    pings.stop(c)?;
    let answers = answers.stop(c)?;
    let last = answers.last().and_then(|line| captured_at(line)).context("no answer was captured")?;
    note(&format!(
        "the last answer came {:.0} ms after the change was acknowledged",
        (last - acknowledged) * 1e3
    ));
    ensure!(last - acknowledged < 1.0, "the last answer came {:.2} s after the change", last - acknowledged);
    let json: Value = serde_json::from_str(&c.run(&format!("cat {report}"))?)?;
    let (sent, lost) = (&json["end"]["sum"]["packets"], &json["end"]["sum"]["lost_packets"]);
    ensure!(
        lost.as_u64() == Some(0) && sent.as_u64().is_some_and(|sent| sent > 1000),
        "{lost} of {sent} packets that were allowed throughout were lost"
    );
    mesh.palisade.apply(&format!("{OPEN}{document}{}", mesh.document("e", "host-b")?))?;
    mesh.palisade.cli(&["delete", "policies", "shop", "--wait"])?;
    mesh.palisade.cli(&["delete", "policies", "meter", "--wait"]).map(drop)
}

/// Guest `b` stays where it is, and its port goes from host-b to host-a and back, while `e` pings it and `a` sends.
fn moves(Net(mesh): &mut Net) -> Result<()> {
    let e = mesh.container("e");
    let pings = Pinger::start(e, mesh.v4("b"), 20)?;
    pings.resumed(e, 0, Instant::now(), LINK)?;
    std::thread::scope(|scope| {
        let stream = scope.spawn(|| slow_stream(mesh.shell("a"), mesh.shell("b"), mesh.v4("b"), 3).map(drop));
        for host in ["host-a", "host-b"] {
            mesh.palisade.cli_with(&["apply", "-f", "-"], &mesh.document("b", host)?)?;
            let acknowledged = Instant::now();
            eventually(&format!("b is on {host}"), LINK, || {
                Ok(mesh.palisade.port("b", "eth0")?.is_up()
                    && acknowledged.elapsed() > Duration::from_secs(1))
            })?;
            let seen = pings.answers(e)?;
            let gap = pings.resumed(e, seen, Instant::now(), Duration::from_secs(10))?;
            note(&format!("on {host}: answers came again within {gap:.1?} of its link"));
            ensure!(gap < Duration::from_secs(1), "others followed b to {host} only after {gap:.1?}");
        }
        stream.join().map_err(|_| anyhow::anyhow!("the stream's thread panicked"))?
    })?;
    pings.stop(e)
}

fn alone(Net(mesh): &mut Net) -> Result<()> {
    mesh.palisade.kill9();
    must_ping(mesh.shell("a"), mesh.v4("b"))?;
    let a = mesh.shell("a");
    let pings = Pinger::start(a, mesh.v4("e"), 20)?;
    pings.resumed(a, 0, Instant::now(), LINK)?;
    for host in &mesh.hosts {
        host.agent.kill9();
        let seen = pings.answers(a)?;
        let started = host.agent.start_again()?;
        let gap = pings.resumed(a, seen, started, Duration::from_secs(20)).with_context(|| host.name)?;
        note(&format!("{} was killed: answers came again after {gap:.1?}", host.name));
        host.agent.wait_ready()?;
    }
    pings.stop(a)?;
    // New connections.
    wait_ping(mesh.shell("c"), mesh.v4("b"), LINK)?;
    stream(mesh.shell("c"), mesh.shell("e"), mesh.v6("e"), MEGABYTES)?;
    stream(mesh.shell("a"), mesh.shell("d"), mesh.v4("d"), 2)?;
    mesh.palisade.start_again()?;
    mesh.palisade.wait_ready()?;
    eventually("both hosts are back", Duration::from_secs(20), || {
        let hosts = mesh.palisade.json(&["get", "hosts"])?;
        let items = hosts.as_array().or_else(|| hosts.get("items")?.as_array()).cloned().unwrap_or_default();
        Ok(items.len() == 2 && items.iter().all(|host| host["status"]["connected"] == true))
    })
}

fn narrow_path(Net(mesh): &mut Net) -> Result<()> {
    // The largest packets of the network do not fit once GENEVE and two options, an inner Ethernet and an outer UDP and IPv4
    // header are around them.
    let mtu = mesh.palisade.port("c", "eth0")?.mtu();
    mesh.underlay.narrow(u16::try_from(mtu)? + 40)?;
    let (c, mac) = (mesh.container("c"), mesh.palisade.port("c", "eth0")?.mac()?);
    let peer = mesh.palisade.port("e", "eth0")?.mac()?;
    let told = Capture::start(c, "pal-c", "(icmp[0] = 3 and icmp[1] = 4) or (icmp6 and ip6[40] = 2)")?;
    let frames = format!(
        "[Ether(src='{mac}',dst='{peer}')/IP(src='{}',dst='{}',flags='DF')/UDP(sport=4245,dport=4245)/('x'*{}),\
         Ether(src='{mac}',dst='{peer}')/IPv6(src='{}',dst='{}')/UDP(sport=4245,dport=4245)/('x'*{})]",
        mesh.v4("c"),
        mesh.v4("e"),
        mtu - 28,
        mesh.v6("c"),
        mesh.v6("e"),
        mtu - 48,
    );
    // The hosts have to find out first.
    eventually("the sender is told over both families", Duration::from_secs(60), || {
        send_from_netns(c, "pal-c", &frames)?;
        let told = told.frames(c)?;
        Ok(["need to frag", "packet too big"].iter().all(|it| told.iter().any(|line| line.contains(it))))
    })?;
    told.stop(c)?;
    stream(mesh.shell("c"), mesh.shell("e"), mesh.v4("e"), MEGABYTES)?;
    stream(mesh.shell("c"), mesh.shell("e"), mesh.v6("e"), MEGABYTES)?;
    mesh.underlay.narrow(1500)
}

fn ipv6_underlay() -> Result<()> {
    let members = vec![
        container("c", "blue", "host-a"),
        container("e", "blue", "host-b"),
        container("d", "green", "host-b"),
    ];
    with_mesh(&MeshSpec { members, ipv6: true, ..MeshSpec::default() }, |mesh| {
        for to in ["e", "d"] {
            for address in mesh.addresses(to) {
                wait_ping(mesh.shell("c"), address, LINK)?;
                must_ping(mesh.shell("c"), address)?;
            }
        }
        let crossed = Capture::start(&mesh.underlay.netns, BRIDGE, "ip6 and udp port 6081")?;
        stream(mesh.shell("c"), mesh.shell("e"), mesh.v4("e"), MEGABYTES)?;
        stream(mesh.shell("d"), mesh.shell("c"), mesh.v6("c"), MEGABYTES)?;
        ensure!(!crossed.stop(&mesh.underlay.netns)?.is_empty(), "nothing crossed in IPv6");
        Ok(())
    })
}

/// Seconds since midnight, UTC.
fn second_of_day() -> Result<f64> {
    Ok(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs_f64() % 86400.0)
}

/// The time that begins a line of tcpdump: `12:34:56.123456`.
fn captured_at(line: &str) -> Option<f64> {
    let mut parts = line.split(' ').next()?.split(':').map(str::parse::<f64>);
    let mut next = || parts.next()?.ok();
    Some(next()? * 3600.0 + next()? * 60.0 + next()?)
}
