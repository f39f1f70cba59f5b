//! A three-tier application behind the distributed firewall: who may talk to whom follows labels, at once.
//!
//! Guest `a` is the web tier, guest `b` the application, container `c` the database; container `d` is nobody in particular.

#![expect(clippy::print_stdout, reason = "what was measured is shown beside the check")]

use std::net::IpAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::capture::Capture;
use e2e::lab::{Lab, LabSpec, container, labelled, v4_of, v6_of};
use e2e::netns::Netns;
use e2e::process::eventually;
use e2e::shell::Shell;
use e2e::traffic::{Pinger, must_ping, ping, slow_stream, wait_listens};
use e2e::trials::{Fixture, check, run};
use serde_json::Value;

const SHOP: &str = "
---
kind: Group
name: web
spec: { match: \"tier = web\" }
---
kind: Group
name: app
spec: { match: \"tier = app\" }
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
  appliesTo: [web, app, db]
  rules:
    - { name: ping, action: allow, from: [web, app, db], to: [web, app, db], services: [ping] }
    - { name: https, direction: in, action: allow, from: [any], to: [web], services: [tcp/8443] }
    - { name: to-app, action: allow, from: [web], to: [app], services: [tcp/8080-8090] }
    - { name: streams, action: allow, from: [app], to: [db], services: [tcp/20000-20999] }
    - { name: to-db, action: allow, from: [app], to: [db], services: [tcp/5432, udp/5432], log: true }
    - { name: no-telnet, direction: in, action: drop, to: [db], services: [tcp/23] }
    - { name: rest, direction: in, action: reject }
";

struct Shop(Lab);

impl Fixture for Shop {
    fn new() -> Result<Self> {
        let spec =
            LabSpec { containers: vec!["c", "d"], policy: SHOP, labels: tier_of, ..LabSpec::default() };
        let lab = Lab::start(&spec)?;
        for name in ["a", "b", "c", "d"] {
            for port in [8443, 8080, 5432, 23, 9999] {
                serve(lab.end(name), port)?;
            }
        }
        Ok(Self(lab))
    }

    fn report(&self) -> String {
        self.0.report()
    }
}

fn tier_of(name: &str) -> &'static str {
    match name {
        "a" => "tier: web",
        "b" => "tier: app",
        "c" => "tier: db",
        _ => "",
    }
}

fn main() -> ExitCode {
    run(vec![
        check("what_the_rules_allow_passes_and_all_else_is_refused_as_its_rule_says", 120, matrix),
        check("trace_why_and_flows_say_what_decided", 60, explained),
        check("a_dry_run_names_the_connections_that_would_end", 60, dry_run),
        check("iperf3_and_ping_pass_where_they_may", 60, iperf_and_ping),
        check("default_deny_holds_for_who_is_in_no_group", 60, default_deny),
        check("a_label_moves_a_workload_at_once_and_what_stays_allowed_loses_nothing", 90, label_change),
        check("an_unrelated_policy_change_leaves_flows_alone", 120, unrelated_change),
        check("an_audit_policy_counts_and_drops_nothing", 60, audit),
        check("an_excluded_port_is_shown_as_not_enforced", 60, exclusion),
    ])
}

/// What becomes of a connection.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Connects,
    /// A reset came back.
    Refused,
    /// Nothing came back.
    Silent,
}

/// A listener for as long as the fixture lives; each connection is closed at once.
fn serve(end: &dyn Shell, port: u16) -> Result<()> {
    end.run(&format!("nc -ll -p {port} -e true > /dev/null 2>&1 &"))?;
    wait_listens(end, port)
}

fn connect(from: &dyn Shell, to: IpAddr, port: u16) -> Result<Fate> {
    let begin = Instant::now();
    let output = from.try_run(&format!("nc -w 2 {to} {port} < /dev/null"), Duration::from_secs(20))?;
    Ok(match (output.success(), begin.elapsed() < Duration::from_millis(1800)) {
        (true, _) => Fate::Connects,
        (false, true) => Fate::Refused,
        (false, false) => Fate::Silent,
    })
}

fn matrix(shop: &mut Shop) -> Result<()> {
    let lab = &shop.0;
    let wanted = [
        ("a", "b", 8080, Fate::Connects),
        ("b", "c", 5432, Fate::Connects),
        ("d", "a", 8443, Fate::Connects),
        ("b", "a", 8443, Fate::Connects),
        ("a", "c", 5432, Fate::Refused),
        ("d", "c", 5432, Fate::Refused),
        ("d", "b", 8080, Fate::Refused),
        ("a", "b", 9999, Fate::Refused),
        ("b", "c", 23, Fate::Silent),
        ("d", "c", 23, Fate::Silent),
        ("c", "d", 9999, Fate::Silent),
    ];
    let mut wrong = Vec::new();
    for (from, to, port, fate) in wanted {
        for address in [v4_of(to), v6_of(to)] {
            let got = connect(lab.end(from), address, port)?;
            if got != fate {
                wrong.push(format!("{from} to {to} at {address} port {port}: {got:?}, not {fate:?}"));
            }
        }
    }
    ensure!(wrong.is_empty(), "{wrong:#?}");
    let drops = lab.palisade.wait_drops("a", "policy-reject", 0, 4)?;
    ensure!(drops >= 4, "{drops} refusals of a");
    Ok(())
}

fn explained(shop: &mut Shop) -> Result<()> {
    let palisade = &shop.0.palisade;
    for (question, code, rule) in [
        (["a", "b", "tcp/8080"], 0, "shop/to-app"),
        (["b", "c", "tcp/5432"], 0, "shop/to-db"),
        (["a", "c", "tcp/5432"], 1, "shop/rest"),
        (["d", "c", "tcp/23"], 1, "shop/no-telnet"),
        (["c", "d", "udp/9"], 1, "baseline/in"),
    ] {
        let output = palisade.try_cli(&[&["trace"], &question[..]].concat(), "")?;
        ensure!(output.code == code, "trace {question:?} ended with {}: {}", output.code, output.text);
        ensure!(output.text.contains(rule), "trace {question:?} does not name {rule}: {}", output.text);
    }
    let lab = &shop.0;
    ensure!(connect(lab.end("d"), v4_of("c"), 23)? == Fate::Silent, "telnet passed");
    eventually("the drop is explained", Duration::from_secs(5), || {
        let why = palisade.cli(&["why", "d", "--drops"])?;
        Ok(why.contains("shop/no-telnet") && why.contains("policy-drop"))
    })?;
    hold_open(lab, "a", "b", 8083)?;
    eventually("the connection is listed", Duration::from_secs(5), || {
        let flows = palisade.cli(&["flows", "--workload", "a"])?;
        let line = flows.lines().find(|line| line.contains(":8083"));
        Ok(line.is_some_and(|line| line.contains("established") && line.contains("shop/to-app")))
    })
}

/// A connection that stays open for some seconds.
fn hold_open(lab: &Lab, from: &str, to: &str, port: u16) -> Result<()> {
    lab.end(to).run(&format!("sleep 30 | nc -l -p {port} > /dev/null 2>&1 &"))?;
    wait_listens(lab.end(to), port)?;
    lab.end(from).run(&format!("sleep 30 | nc {} {port} > /dev/null 2>&1 &", v4_of(to))).map(drop)
}

fn dry_run(shop: &mut Shop) -> Result<()> {
    let lab = &shop.0;
    hold_open(lab, "a", "b", 8084)?;
    eventually("the connection is listed", Duration::from_secs(5), || {
        Ok(lab.palisade.cli(&["flows", "--workload", "a"])?.contains(":8084"))
    })?;
    let narrower = SHOP.replace("tcp/8080-8090", "tcp/8080-8083");
    let said = lab.palisade.cli_with(&["apply", "-f", "-", "--dry-run"], &narrower)?;
    ensure!(said.contains(":8084"), "the connection that would end is not named: {said}");
    ensure!(lab.palisade.cli(&["flows", "--workload", "a"])?.contains(":8084"), "a dry run ended it");
    Ok(())
}

fn iperf_and_ping(shop: &mut Shop) -> Result<()> {
    let lab = &shop.0;
    must_ping(lab.end("a"), v4_of("c"))?;
    must_ping(lab.end("c"), v6_of("b"))?;
    let rate = iperf3(lab.end("a"), lab.end("b"), v4_of("b"), 8081, "-t 2")?;
    let bits = rate["end"]["sum_received"]["bits_per_second"].as_f64().context("a rate")?;
    ensure!(bits > 1e6, "{bits} bit/s");
    Ok(())
}

fn default_deny(shop: &mut Shop) -> Result<()> {
    let lab = &shop.0;
    let before = lab.palisade.port("c", "eth0")?.drops("default-deny")
        + lab.palisade.port("c", "eth0")?.drops("policy-drop");
    ensure!(ping(lab.end("c"), v4_of("d"), 3)? == 0, "a ping reached who admits nobody");
    let after = lab.palisade.port("c", "eth0")?;
    eventually("the drop is counted", Duration::from_secs(5), || {
        let port = lab.palisade.port("c", "eth0")?;
        Ok(port.drops("default-deny") + port.drops("policy-drop") >= before + 3)
    })
    .with_context(|| format!("{:?}", after.all_drops()))
}

/// `c` is given another tier and back while it pings `a` (allowed before, not after) and `d` sends it UDP that a policy
/// of its own allows throughout.
fn label_change(shop: &mut Shop) -> Result<()> {
    let lab = &shop.0;
    lab.palisade.apply(
        "kind: FirewallPolicy\nname: meter\nspec:\n  tier: platform\n  priority: 1\n  appliesTo: [any]\n  \
         rules: [{ name: iperf, action: allow, services: [tcp/5201, udp/5201] }]\n",
    )?;
    let (c, d) = (lab.container("c"), lab.container("d"));
    let files = c.netns.files().to_owned();
    d.netns.run("iperf3 -s -1 -p 5201 -D")?;
    wait_listens(&d.netns, 5201)?;
    let answers = Capture::start(&c.netns, &c.device(), "icmp[0] = 0")?;
    let before = datagrams(&d.netns)?;
    let pings = Pinger::start(&c.netns, v4_of("a"), 100)?;
    let meter = format!("iperf3 -c {} -p 5201 -u -b 20M -l 1000 -t 6 -J", v4_of("d"));
    c.netns.run(&format!("{meter} > {files}/iperf.json 2>&1 &"))?;
    std::thread::sleep(Duration::from_secs(2));
    let document = container("c", &c.netns);
    lab.palisade.cli_with(&["apply", "-f", "-"], &labelled(&document, "tier: quarantine"))?;
    let acknowledged = second_of_day()?;
    std::thread::sleep(Duration::from_secs(7));

    pings.stop(&c.netns)?;
    let answers = answers.stop(&c.netns)?;
    ensure!(answers.len() > 100, "{} answers", answers.len());
    let last = answers.last().and_then(|line| captured_at(line)).context("no time in a captured line")?;
    let outlived = last - acknowledged;
    println!("    the last answer came {:.1} ms after the change was acknowledged", outlived * 1e3);
    ensure!(outlived < 0.1, "the last answer came {outlived:.3} s after the change was acknowledged");

    let json: Value = serde_json::from_str(&c.netns.run(&format!("cat {files}/iperf.json"))?)?;
    let sent = json["end"]["sum"]["packets"].as_u64().with_context(|| format!("{json:#}"))?;
    let arrived = datagrams(&d.netns)? - before;
    ensure!(
        arrived >= sent && sent > 1000,
        "{arrived} of {sent} packets that were allowed throughout arrived"
    );
    lab.palisade.cli_with(&["apply", "-f", "-", "--wait"], &labelled(&document, "tier: db"))?;
    must_ping(lab.end("c"), v4_of("a"))
}

fn unrelated_change(shop: &mut Shop) -> Result<()> {
    let lab = &shop.0;
    std::thread::scope(|scope| {
        let stream = scope.spawn(|| slow_stream(lab.end("b"), lab.end("c"), v4_of("c"), 5).map(drop));
        for round in 0..5 {
            std::thread::sleep(Duration::from_millis(300));
            lab.palisade.apply(&format!(
                "kind: FirewallPolicy\nname: elsewhere\nspec:\n  tier: security\n  priority: 7\n  \
                 appliesTo: [web]\n  rules: [{{ name: r{round}, action: drop, services: [tcp/1] }}]\n",
            ))?;
        }
        match stream.join() {
            Ok(outcome) => outcome,
            Err(_) => anyhow::bail!("the stream's thread panicked"),
        }
    })
}

fn audit(shop: &mut Shop) -> Result<()> {
    let lab = &shop.0;
    lab.palisade.apply(
        "kind: FirewallPolicy\nname: trial\nspec:\n  tier: security\n  priority: 1\n  mode: audit\n  \
         appliesTo: [web]\n  rules: [{ name: nothing-in, direction: in, action: drop }]\n",
    )?;
    ensure!(connect(lab.end("d"), v4_of("a"), 8443)? == Fate::Connects, "an audit policy dropped something");
    eventually("the audit policy's rule counts", Duration::from_secs(10), || {
        let policy = lab.palisade.json(&["get", "policies", "trial"])?;
        Ok(first_rule(&policy)["would"].as_u64().unwrap_or(0) >= 1)
    })
    .with_context(|| lab.palisade.cli(&["get", "policies", "trial", "-o", "json"]).unwrap_or_default())?;
    lab.palisade.cli(&["delete", "policies", "trial"]).map(drop)
}

fn first_rule(policy: &Value) -> &Value {
    let one = policy.get("items").and_then(|items| items.get(0)).or_else(|| policy.get(0)).unwrap_or(policy);
    &one["status"]["rules"][0]
}

fn exclusion(shop: &mut Shop) -> Result<()> {
    let lab = &shop.0;
    let c = lab.container("c");
    let document = labelled(&container("c", &c.netns), "tier: db");
    let off = document.replace("name: eth0,", "name: eth0, firewall: off,");
    ensure!(off != document, "no port to exclude in {document}");
    lab.palisade.apply(&off)?;
    // Nobody asks at c now; a's own rules let it out.
    ensure!(connect(lab.end("a"), v4_of("c"), 5432)? == Fate::Connects, "an excluded port still refuses");
    let shown = lab.palisade.cli(&["get", "workloads"])?;
    ensure!(shown.lines().any(|line| line.starts_with("c ") && line.contains("no")), "{shown}");
    lab.palisade.apply(&document)?;
    ensure!(connect(lab.end("a"), v4_of("c"), 5432)? == Fate::Refused, "the port stays excluded");
    Ok(())
}

/// UDP datagrams that have reached a namespace, also those for which a busy receiver had no room.
fn datagrams(netns: &Netns) -> Result<u64> {
    let text = netns.run("cat /proc/net/snmp")?;
    let lines: Vec<Vec<&str>> =
        text.lines().filter(|line| line.starts_with("Udp: ")).map(|line| line.split(' ').collect()).collect();
    let [names, values] = &lines[..] else { anyhow::bail!("no UDP in {text}") };
    let wanted = names.iter().zip(values).filter(|(name, _)| ["InDatagrams", "InErrors"].contains(name));
    Ok(wanted.filter_map(|(_, value)| value.parse::<u64>().ok()).sum())
}

/// One iperf3 run; its report.
fn iperf3(from: &dyn Shell, to: &dyn Shell, address: IpAddr, port: u16, words: &str) -> Result<Value> {
    to.run(&format!("iperf3 -s -1 -p {port} -D"))?;
    wait_listens(to, port)?;
    let text =
        from.run_within(&format!("iperf3 -c {address} -p {port} {words} -J"), Duration::from_secs(40))?;
    serde_json::from_str(&text).with_context(|| text.clone())
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
