//! `cargo xtask demo`: two virtual machines and a container on one network, seen from outside.
//!
//! Every line with a mark is checked; the exit code is not 0 when one of them fails.

#![expect(clippy::print_stdout, reason = "a command for people")]

use std::io::{IsTerminal, Write};
use std::net::IpAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::capture::Capture;
use e2e::guest::{Guest, GuestSpec, Nic};
use e2e::lab::{GATEWAY, LINK, Lab, LabSpec, container, labelled, machine, settle, v4_of, v6_of};
use e2e::process::kill_all;
use e2e::scapy::send_from_guest;
use e2e::shell::Shell;
use e2e::traffic::{must_ping, ping, stream, wait_ping};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Not the usual 1500, to show that the guests were told.
const MTU: &str = "1400";
const MEGABYTES: u32 = 100;
/// Both ways between the machines, and between a machine and the container.
const WAYS: [(&str, &str); 4] = [("a", "b"), ("b", "a"), ("a", "c"), ("c", "a")];

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
    stage.title("One host, one network, three workloads");
    let spec = LabSpec { guests: vec![], mtu: MTU, ..LabSpec::default() };
    let mut lab = stage
        .step("`palisade up` is ready, network blue and container c are realised", || Lab::start(&spec))?;
    stage.step("virtual machines a and b are declared in one transaction", || {
        let none = Nic::new("", "");
        lab.palisade.apply(&(machine("a", &none) + &machine("b", &none)))
    })?;
    let arguments = stage.step("`palisade port attach a --qemu` prints QEMU's arguments", || {
        Ok([lab.palisade.qemu_arguments("a")?, lab.palisade.qemu_arguments("b")?])
    })?;
    stage.quote(&arguments[0].join(" "));
    stage
        .step("two QEMU guests boot Debian's kernel with virtio-net over vhost-user", || {
            let mut guests = Vec::new();
            for (name, arguments) in ["a", "b"].iter().zip(&arguments) {
                let spec = GuestSpec::new(name).with_nic_arguments(arguments);
                guests.push(Guest::start(spec, lab.scratch.path())?);
            }
            for guest in guests {
                guest.wait_ready()?;
                settle(&guest)?;
                lab.put(guest);
            }
            Ok(())
        })
        .map_err(|error| error.context(lab.report()))?;
    let outcome = checks(stage, &lab, &interrupted);
    if outcome.is_err() {
        return outcome.map_err(|error| error.context(lab.report()));
    }
    stage.title("What the operator sees: palisade get workloads");
    stage.quote(&lab.palisade.cli(&["get", "workloads"])?);
    if keep {
        stay(stage, &lab, &interrupted)?;
    }
    Ok(())
}

fn checks(stage: &mut Stage, lab: &Lab, interrupted: &std::sync::mpsc::Receiver<()>) -> Result<()> {
    for name in ["a", "b"] {
        let declared = lab.palisade.port(name, "eth0")?.mac()?;
        stage.check(&format!("guest {name} has MAC {declared} and MTU {MTU} from its device"), || {
            let seen = lab.guest(name).run("cat /sys/class/net/eth0/address /sys/class/net/eth0/mtu")?;
            ensure!(seen == format!("{declared}\n{MTU}\n"), "it has {seen:?}");
            Ok(String::new())
        });
    }

    stage.title("Everybody reaches everybody");
    for gateway in GATEWAY {
        stage.check(&format!("a pings the gateway {gateway}"), || answered(lab, "a", gateway.parse()?));
    }
    for (from, to) in WAYS {
        for address in [v4_of(to), v6_of(to)] {
            stage.check(&format!("{from} pings {to} at {address}"), || answered(lab, from, address));
        }
    }

    stage.title(&format!("{MEGABYTES} MB over TCP, SHA-256 compared (emulated guests: function, not speed)"));
    for (from, to) in WAYS {
        for address in [v4_of(to), v6_of(to)] {
            ensure!(interrupted.try_recv().is_err(), "interrupted");
            stage.check(&format!("{from} to {to} at {address}"), || {
                let stream = stream(lab.end(from), lab.end(to), address, MEGABYTES)?;
                Ok(format!("{:.0} Mbit/s", stream.mbit_per_second()))
            });
        }
    }

    firewall(stage, lab)?;

    stage.title("A guest that speaks in another's name is not heard");
    for (what, reason, source) in [
        ("another IPv4 address", "spoofed-ipv4", "src=MAC,dst=PEER)/IP(src='10.0.1.99',dst=PEER4)"),
        ("another MAC address", "spoofed-mac", "src='02:00:00:00:00:99',dst=PEER)/IP(src=V4,dst=PEER4)"),
    ] {
        stage.check(&format!("a sends 10 frames from {what}: dropped, counted as {reason}"), || {
            spoof(lab, reason, source)
        });
    }
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

fn firewall(stage: &mut Stage, lab: &Lab) -> Result<()> {
    stage.title("A firewall at every virtual NIC, by labels");
    let none = Nic::new("", "");
    lab.guest("b").run("nc -ll -p 5432 -e true > /dev/null 2>&1 &")?;
    stage.step("policy `open` is deleted: the baseline lets everybody out and nobody in", || {
        lab.palisade.cli(&["delete", "policies", "open", "--wait"]).map(drop)
    })?;
    stage.check("a does not reach b any more", || {
        ensure!(ping(lab.end("a"), v4_of("b"), 3)? == 0, "it does");
        Ok(String::new())
    });
    stage.step("a is labelled tier=web, b tier=db; policy `shop` admits web to db at tcp/5432", || {
        let labels = [("a", "tier: web"), ("b", "tier: db")];
        let documents = labels.map(|(name, labels)| labelled(&machine(name, &none), labels));
        lab.palisade.apply(&(SHOP.to_owned() + &documents.concat()))
    })?;
    stage.check("a connects to b at 5432", || connects(lab, "a", true));
    stage.check("c does not: it is refused", || connects(lab, "c", false));
    stage.title("Why? palisade trace c b tcp/5432");
    let trace = lab.palisade.try_cli(&["trace", "c", "b", "tcp/5432"], "")?;
    stage.quote(&trace.text);
    stage.check("the trace names the rule that refuses, shop/rest", || {
        ensure!(trace.code == 1 && trace.text.contains("shop/rest"), "it ended with {}", trace.code);
        Ok(String::new())
    });
    stage.title("What c met lately: palisade why c --drops");
    stage.quote(&lab.palisade.cli(&["why", "c", "--drops"])?);
    let c = container("c", &lab.container("c").netns);
    stage.step("c is labelled tier=web while it runs", || lab.palisade.apply(&labelled(&c, "tier: web")))?;
    stage.check("now c connects, too", || connects(lab, "c", true));
    stage.title("The database's connections: palisade flows --workload b");
    let flows = lab.palisade.cli(&["flows", "--workload", "b"])?;
    let shown = flows.lines().filter(|line| line.starts_with("HOST") || line.contains(":5432"));
    stage.quote(&shown.collect::<Vec<_>>().join("\n"));
    Ok(())
}

fn connects(lab: &Lab, from: &str, wanted: bool) -> Result<String> {
    let command = format!("nc -w 2 {} 5432 < /dev/null", v4_of("b"));
    let connects = lab.end(from).try_run(&command, Duration::from_secs(20))?.success();
    ensure!(connects == wanted, "it {}", if connects { "does" } else { "does not" });
    Ok(String::new())
}

fn answered(lab: &Lab, from: &str, address: IpAddr) -> Result<String> {
    wait_ping(lab.end(from), address, LINK)?;
    must_ping(lab.end(from), address)?;
    Ok(String::new())
}

fn spoof(lab: &Lab, reason: &str, source: &str) -> Result<String> {
    let mac = |name: &str| lab.palisade.port(name, "eth0")?.mac();
    let words = [
        ("=MAC", mac("a")?),
        ("=PEER4", v4_of("b").to_string()),
        ("=PEER", mac("b")?),
        ("=V4", v4_of("a").to_string()),
    ];
    let mut frame = format!("Ether({source}/UDP(sport=4242,dport=4242)");
    for (word, value) in words {
        frame = frame.replace(word, &format!("='{value}'"));
    }
    let at_b = Capture::start(lab.guest("b"), "eth0", "udp port 4242")?;
    let before = lab.palisade.port("a", "eth0")?.drops(reason);
    send_from_guest(lab.guest("a"), "eth0", &format!("[{frame}]*10"))?;
    let counted = lab.palisade.wait_drops("a", reason, before, 10)?;
    let arrived = at_b.stop(lab.guest("b"))?;
    ensure!(counted == 10 && arrived.is_empty(), "counted {counted} of 10, b received {arrived:#?}");
    Ok(format!("{reason} +{counted}, b saw none"))
}

/// Stays up until Ctrl-C and says how to look around.
fn stay(stage: &Stage, lab: &Lab, interrupted: &std::sync::mpsc::Receiver<()>) -> Result<()> {
    let state = lab.palisade.state_dir();
    println!("\n{}", stage.bold("Staying up. Look around in another terminal, Ctrl-C here ends it:"));
    println!("  export PALISADE_URL={} PALISADE_STATE_DIR={}", lab.palisade.url(), state.display());
    println!("  export PALISADE_CA={0}/ca.pem PALISADE_TOKEN_FILE={0}/admin.token", state.display());
    println!("  {} get workloads", e2e::palisade::binary()?.display());
    println!("  ip netns exec {} ping {}", lab.container("c").netns.id(), v4_of("a"));
    println!(
        "  socat -,raw,echo=0 UNIX-CONNECT:{}     # a shell in guest a",
        lab.scratch.join("a.tty").display()
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
        println!("This is one host. A mesh of several hosts, encrypted between them, is a later step.");
        if failed == 0 && ended.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
