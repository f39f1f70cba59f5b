//! `cargo xtask demo`: two hosts, a virtual machine and a container on each, seen from outside.
//!
//! Network `blue` reaches over both hosts: machine `a` and container `c` on host-a, machine `b` on host-b. Network `green`
//! is behind the same router, with container `d` on host-b.
//!
//! Every line with a mark is checked; the exit code is not 0 when one of them fails.

#![expect(clippy::print_stdout, reason = "a command for people")]

use std::io::{IsTerminal, Write};
use std::net::IpAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::capture::Capture;
use e2e::fabric::BRIDGE;
use e2e::lab::{LINK, labelled};
use e2e::mesh::{Mesh, MeshSpec};
use e2e::process::{kill_all, run as run_command};
use e2e::scapy::send_from_guest;
use e2e::shell::Shell;
use e2e::traffic::{must_ping, ping, stream, wait_ping};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// What crosses the underlay between emulated machines; between containers, ten times that.
const MEGABYTES: u32 = 10;
/// Gateways of both networks, which the router answers for on every host.
const GATEWAYS: [&str; 4] = ["10.0.1.1", "fd00:1::1", "10.0.2.1", "fd00:2::1"];
/// Within a host, across hosts, and through the router.
const WAYS: [(&str, &str, &str); 6] = [
    ("a", "c", "on one host"),
    ("a", "b", "across hosts"),
    ("b", "c", "across hosts"),
    ("a", "d", "across hosts, through the router"),
    ("b", "d", "on one host, through the router"),
    ("d", "c", "across hosts, through the router"),
];

fn main() -> ExitCode {
    let keep = std::env::args().any(|word| word == "--keep");
    let (sender, interrupted) = std::sync::mpsc::channel();
    match Signals::new([SIGINT, SIGTERM]) {
        Ok(mut signals) => drop(std::thread::spawn(move || {
            for _ in signals.forever() {
                // The first asks; without an answer, the next one ends everything at once.
                if sender.send(()).is_err() {
                    kill_all();
                    e2e::netns::remove_all();
                    std::process::exit(130);
                }
            }
        })),
        Err(error) => println!("Ctrl-C will leave processes behind: {error}"),
    }
    let mut stage = Stage::new();
    let ended = play(&mut stage, keep, interrupted);
    stage.close(ended)
}

fn play(stage: &mut Stage, keep: bool, interrupted: std::sync::mpsc::Receiver<()>) -> Result<()> {
    stage.title("Two hosts, two networks, four workloads");
    let spec = MeshSpec { boot: false, ..MeshSpec::default() };
    let mut mesh = stage.step(
        "a manager runs, host-a and host-b join it, networks blue and green and all workloads are realised",
        || Mesh::start(&spec),
    )?;
    let arguments = stage.step("`palisade port attach a --qemu` prints QEMU's arguments", || {
        Ok([("a", mesh.qemu_arguments("a")?), ("b", mesh.qemu_arguments("b")?)])
    })?;
    stage.quote(&arguments[0].1.join(" "));
    stage
        .step("a QEMU guest boots on each host: Debian's kernel, virtio-net over vhost-user", || {
            mesh.boot(&arguments)
        })
        .map_err(|error| error.context(mesh.report()))?;
    let outcome = checks(stage, &mesh, &interrupted);
    if outcome.is_err() {
        return outcome.map_err(|error| error.context(mesh.report()));
    }
    stage.title("What the operator sees: palisade get workloads");
    stage.quote(&mesh.palisade.cli(&["get", "workloads"])?);
    stage.title("palisade get hosts");
    stage.quote(&mesh.palisade.cli(&["get", "hosts"])?);
    if keep {
        stay(stage, &mesh, &interrupted)?;
    }
    Ok(())
}

fn checks(stage: &mut Stage, mesh: &Mesh, interrupted: &std::sync::mpsc::Receiver<()>) -> Result<()> {
    for name in ["a", "b"] {
        let port = mesh.palisade.port(name, "eth0")?;
        let (mac, mtu) = (port.mac()?, port.mtu());
        stage.check(&format!("guest {name} has MAC {mac} and MTU {mtu} from its device"), || {
            let seen = mesh.guest(name).run("cat /sys/class/net/eth0/address /sys/class/net/eth0/mtu")?;
            ensure!(seen == format!("{mac}\n{mtu}\n"), "it has {seen:?}");
            Ok(String::new())
        });
    }

    stage.title("Everybody reaches everybody");
    for gateway in GATEWAYS {
        stage.check(&format!("a pings the gateway {gateway}"), || answered(mesh, "a", gateway.parse()?));
    }
    for (from, to, how) in WAYS {
        for address in mesh.addresses(to) {
            stage.check(&format!("{from} pings {to} at {address}, {how}"), || answered(mesh, from, address));
        }
    }
    underlay(stage, mesh)?;

    stage.title("Streams over TCP, SHA-256 compared (emulated guests: function, not speed)");
    for (from, to, how) in WAYS {
        let containers = !["a", "b"].iter().any(|machine| [from, to].contains(machine));
        let megabytes = if containers { 10 * MEGABYTES } else { MEGABYTES };
        for address in mesh.addresses(to) {
            ensure!(interrupted.try_recv().is_err(), "interrupted");
            stage.check(&format!("{megabytes} MB from {from} to {to} at {address}, {how}"), || {
                let stream = stream(mesh.shell(from), mesh.shell(to), address, megabytes)?;
                Ok(format!("{:.0} Mbit/s", stream.mbit_per_second()))
            });
        }
    }

    firewall(stage, mesh)?;

    stage.title("A guest that speaks in another's name is not heard");
    for (what, reason, source) in [
        ("another IPv4 address", "spoofed-ipv4", "src=MAC,dst=PEER)/IP(src='10.0.1.99',dst=PEER4)"),
        ("another MAC address", "spoofed-mac", "src='02:00:00:00:00:99',dst=PEER)/IP(src=V4,dst=PEER4)"),
    ] {
        stage.check(&format!("a sends 10 frames from {what}: dropped, counted as {reason}"), || {
            spoof(mesh, reason, source)
        });
    }
    Ok(())
}

/// What the hosts know of their way to each other, and what goes over it.
fn underlay(stage: &mut Stage, mesh: &Mesh) -> Result<()> {
    stage.title("Between the hosts: GENEVE");
    for host in &mesh.hosts {
        stage.check(&format!("{} says how large a packet may be on its way to the other", host.name), || {
            let mut mtu = None;
            e2e::process::eventually("the path is measured", Duration::from_secs(15), || {
                mtu = host.peers()?.iter().find_map(|peer| peer["pathMtu"].as_u64());
                Ok(mtu.is_some())
            })?;
            Ok(format!("path MTU {}", mtu.unwrap_or_default()))
        });
    }
    let packet = mesh.scratch.join("geneve.pcap").display().to_string();
    stage.check("tshark decodes a packet of a to b on its way", || {
        let filter = format!("udp dst port 6081 and src host {}", mesh.host("host-a").address);
        let script = format!(
            "/usr/bin/tcpdump -Z root --immediate-mode -U -c 5 -i {BRIDGE} -w {packet} '{filter}' > /dev/null 2>&1 & echo $!"
        );
        let pid = mesh.underlay.netns.run(&script)?;
        let echo = ["-r", &packet, "-c", "1", "-Y", "geneve && icmp", "-V", "-O", "geneve,icmp"];
        let mut decoded = String::new();
        e2e::process::eventually("a packet is captured", Duration::from_secs(10), || {
            must_ping(mesh.shell("a"), mesh.v4("b"))?;
            decoded = run_command(std::process::Command::new("/usr/bin/tshark").args(echo), Duration::from_secs(20))?.text;
            Ok(decoded.contains("Generic Network Virtualization"))
        })?;
        mesh.underlay.netns.run(&format!("kill {} 2>/dev/null || true", pid.trim()))?;
        for line in decoded.lines().filter(|line| !line.trim().is_empty()) {
            println!("      {line}");
        }
        Ok(String::new())
    });
    Ok(())
}

/// The database takes connections from the web tier and from nobody else.
const SHOP: &str = "kind: Group
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
    - { name: to-db, action: allow, from: [web], to: [db], services: [tcp/5432] }
    - { name: rest, direction: in, action: reject }
";

fn firewall(stage: &mut Stage, mesh: &Mesh) -> Result<()> {
    stage.title("A firewall at every virtual NIC, by labels, across hosts");
    mesh.guest("b").run("nc -ll -p 5432 -e true > /dev/null 2>&1 &")?;
    stage.step("policy `open` is deleted: the baseline lets everybody out and nobody in", || {
        mesh.palisade.cli(&["delete", "policies", "open", "--wait"]).map(drop)
    })?;
    stage.check("a does not reach b any more", || {
        ensure!(ping(mesh.shell("a"), mesh.v4("b"), 3)? == 0, "it does");
        Ok(String::new())
    });
    stage.step("a is labelled tier=web, b tier=db; policy `shop` admits web to db at tcp/5432", || {
        let a = labelled(&mesh.document("a", "host-a")?, "tier: web");
        let b = labelled(&mesh.document("b", "host-b")?, "tier: db");
        mesh.palisade.apply(&format!("{SHOP}{a}{b}"))
    })?;
    stage.check("a, on host-a, connects to b, on host-b, at 5432", || connects(mesh, "a", true));
    stage.check("c, on host-a, does not: it is refused", || connects(mesh, "c", false));
    stage.check("d, on host-b and another network, does not", || connects(mesh, "d", false));
    stage.title("Why? palisade trace d b tcp/5432");
    let trace = mesh.palisade.try_cli(&["trace", "d", "b", "tcp/5432"], "")?;
    stage.quote(&trace.text);
    stage.check("the trace names the rule that refuses, shop/rest", || {
        ensure!(trace.code == 1 && trace.text.contains("shop/rest"), "it ended with {}", trace.code);
        Ok(String::new())
    });
    stage.title("What d met lately: palisade why d --drops");
    stage.quote(&mesh.palisade.cli(&["why", "d", "--drops"])?);
    stage.step("c is labelled tier=web while it runs", || {
        mesh.palisade.apply(&labelled(&mesh.document("c", "host-a")?, "tier: web"))
    })?;
    stage.check("now c connects, too", || connects(mesh, "c", true));
    stage.title("The database's connections: palisade flows --workload b");
    let flows = mesh.palisade.cli(&["flows", "--workload", "b"])?;
    let shown = flows.lines().filter(|line| line.starts_with("HOST") || line.contains(":5432"));
    stage.quote(&shown.collect::<Vec<_>>().join("\n"));
    Ok(())
}

fn connects(mesh: &Mesh, from: &str, wanted: bool) -> Result<String> {
    let command = format!("nc -w 2 {} 5432 < /dev/null", mesh.v4("b"));
    let connects = mesh.shell(from).try_run(&command, Duration::from_secs(20))?.success();
    ensure!(connects == wanted, "it {}", if connects { "does" } else { "does not" });
    Ok(String::new())
}

fn answered(mesh: &Mesh, from: &str, address: IpAddr) -> Result<String> {
    wait_ping(mesh.shell(from), address, LINK)?;
    must_ping(mesh.shell(from), address)?;
    Ok(String::new())
}

fn spoof(mesh: &Mesh, reason: &str, source: &str) -> Result<String> {
    let mac = |name: &str| mesh.palisade.port(name, "eth0")?.mac();
    let words = [
        ("=MAC", mac("a")?),
        ("=PEER4", mesh.v4("b").to_string()),
        ("=PEER", mac("b")?),
        ("=V4", mesh.v4("a").to_string()),
    ];
    let mut frame = format!("Ether({source}/UDP(sport=4242,dport=4242)");
    for (word, value) in words {
        frame = frame.replace(word, &format!("='{value}'"));
    }
    let at_b = Capture::start(mesh.guest("b"), "eth0", "udp port 4242")?;
    let before = mesh.palisade.port("a", "eth0")?.drops(reason);
    send_from_guest(mesh.guest("a"), "eth0", &format!("[{frame}]*10"))?;
    let counted = mesh.palisade.wait_drops("a", reason, before, 10)?;
    let arrived = at_b.stop(mesh.guest("b"))?;
    ensure!(counted == 10 && arrived.is_empty(), "counted {counted} of 10, b received {arrived:#?}");
    Ok(format!("{reason} +{counted}, b saw none"))
}

/// Stays up until Ctrl-C and says how to look around.
fn stay(stage: &Stage, mesh: &Mesh, interrupted: &std::sync::mpsc::Receiver<()>) -> Result<()> {
    let (state, manager) = (mesh.palisade.state_dir(), mesh.manager().id());
    println!("\n{}", stage.bold("Staying up. Look around in another terminal, Ctrl-C here ends it:"));
    println!("  export PALISADE_URL={} PALISADE_STATE_DIR={}", mesh.palisade.url(), state.display());
    println!("  export PALISADE_CA={0}/ca.pem PALISADE_TOKEN_FILE={0}/admin.token", state.display());
    println!("  ip netns exec {manager} {} get hosts", e2e::palisade::binary()?.display());
    println!("  ip netns exec {} ping {}", mesh.container("c").id(), mesh.v4("b"));
    println!("  ip netns exec {} tcpdump -n -i {BRIDGE} udp port 6081", mesh.underlay.netns.id());
    println!(
        "  socat -,raw,echo=0 UNIX-CONNECT:{}     # a shell in guest a",
        mesh.scratch.join("a.tty").display()
    );
    interrupted.recv().context("no way to be interrupted")
}

/// What is shown: titles, checked lines with a mark, and the sum at the end.
struct Stage {
    begin: Instant,
    colour: bool,
    passed: u32,
    failed: u32,
}

impl Stage {
    fn new() -> Self {
        let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { begin: Instant::now(), colour, passed: 0, failed: 0 }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn bold(&self, text: &str) -> String {
        self.paint("1", text)
    }

    fn title(&self, text: &str) {
        println!("\n{}", self.bold(text));
    }

    fn quote(&self, text: &str) {
        for line in text.lines() {
            println!("      {}", self.paint("2", line));
        }
    }

    /// Something everything after it needs.
    fn step<T>(&mut self, what: &str, action: impl FnOnce() -> Result<T>) -> Result<T> {
        self.begin(what);
        let begin = Instant::now();
        let done = action();
        self.end(
            what,
            done.as_ref().map(|_| String::new()).map_err(|error| format!("{error:#}")),
            begin.elapsed(),
        );
        done
    }

    /// Something that may fail while the rest goes on; the text it returns is shown beside it.
    fn check(&mut self, what: &str, action: impl FnOnce() -> Result<String>) {
        self.begin(what);
        let begin = Instant::now();
        let done = action();
        self.end(what, done.map_err(|error| format!("{error:#}")), begin.elapsed());
    }

    fn begin(&self, what: &str) {
        if self.colour {
            print!("  … {what}");
            // What is not shown at once is shown with the next line.
            let _ = std::io::stdout().flush();
        }
    }

    fn end(&mut self, what: &str, outcome: Result<String, String>, took: Duration) {
        let back = if self.colour { "\r" } else { "" };
        let seconds = self.paint("2", &format!("{:.1} s", took.as_secs_f64()));
        match outcome {
            Ok(detail) => {
                self.passed += 1;
                println!("{back}  {} {what}  {detail} {seconds}", self.paint("32", "✓"));
            }
            Err(error) => {
                self.failed += 1;
                println!("{back}  {} {what}  {seconds}", self.paint("31", "✗"));
                self.quote(&error);
            }
        }
    }

    fn close(&self, ended: Result<()>) -> ExitCode {
        if let Err(error) = &ended {
            println!("\n{error:#}");
        }
        let (passed, failed) = (self.passed, self.failed);
        let sum = format!(
            "{passed} checks passed, {failed} failed, in {:.0} s",
            self.begin.elapsed().as_secs_f64()
        );
        println!("\n{}", self.bold(&sum));
        println!("Between the hosts packets are in clear: encryption is a later step.");
        if failed == 0 && ended.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
