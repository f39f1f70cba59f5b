//! Asking hosts: `trace`, `why`, `flows`, and what a dry run says of connections.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use serde_json::json;

use crate::running::Service;

/// web-1 may reach db-1 on 5432 and nothing else; ext-1 is on another network and another host.
const SHOP: &str = "\
kind: Host
name: host-b
---
kind: Network
name: blue
spec: { subnets: [10.0.1.0/24, \"fd00:1::/64\"] }
---
kind: Network
name: green
spec: { subnets: [10.0.2.0/24] }
---
kind: Workload
name: web-1
labels: { tier: web }
spec: { host: host-a, kind: vm, ports: [{ name: eth0, network: blue, addresses: [10.0.1.11] }] }
---
kind: Workload
name: db-1
labels: { tier: db }
spec: { host: host-a, kind: vm, ports: [{ name: eth0, network: blue, addresses: [10.0.1.21] }] }
---
kind: Workload
name: far-1
spec: { host: host-b, kind: vm, ports: [{ name: eth0, network: blue, addresses: [10.0.1.31] }] }
---
kind: Workload
name: ext-1
spec: { host: host-b, kind: vm, ports: [{ name: eth0, network: green, addresses: [10.0.2.9] }] }
---
kind: Group
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
  appliesTo: [db]
  rules:
    - { name: to-db, direction: in, action: allow, from: [web], services: [tcp/5432] }
    - { name: rest, direction: in, action: reject, services: [tcp] }
";

fn up() -> (tempfile::TempDir, Service) {
    let dir = tempfile::tempdir().expect("a directory");
    let service = Service::start(dir.path(), &["up", "--workers", "1", "--poll", "sleep"]);
    service.run_with(&["apply", "-f", "-"], SHOP).good();
    // host-b has no agent: what host-a does is what counts.
    let begun = std::time::Instant::now();
    let is_behind = || {
        let status = &service.json(&["get", "host", "host-a"])["status"];
        status["revision"] != status["wanted"]
    };
    while is_behind() {
        assert!(begun.elapsed().as_secs() < 10, "host-a does not follow");
    }
    (dir, service)
}

#[test]
fn a_trace_shows_each_stage_with_its_rule_and_ends_with_the_verdict() {
    let (_dir, up) = up();
    let said = up.run(&["trace", "web-1", "db-1", "tcp/5432"]).good();
    assert!(said.starts_with("tcp/5432 on network blue\n  from  web-1.eth0 10.0.1.11, in web\n"), "{said}");
    for part in [
        "to    db-1.eth0 10.0.1.21, in db",
        "host host-a, revision ",
        "guard",
        "baseline/out (baseline, allow out)",
        "shop/to-db (application, allow in) of revision ",
        "begins a flow",
        "to db-1.eth0",
    ] {
        assert!(said.contains(part), "{part}:\n{said}");
    }
    assert!(said.ends_with("\ndelivered\n"), "{said}");

    for (arguments, reason) in [
        (["web-1", "db-1.eth0", "tcp/80"], "rejected: policy-reject"),
        (["web-1", "fd00:1::99", "udp/53"], "dropped: unknown-neighbour"),
        (["db-1", "10.0.1.11", "udp/99"], "dropped: policy-drop"),
        (["db-1", "10.0.1.1", "ping"], "answered"),
    ] {
        let done = up.run(&[&["trace"], &arguments[..]].concat());
        assert!(done.out.ends_with(&format!("\n{reason}\n")), "{arguments:?}: {done:?}");
        assert_eq!(done.code, i32::from(reason != "answered"), "{arguments:?}: {done:?}");
        assert_eq!(done.err, "", "{arguments:?}");
    }
}

#[test]
fn a_trace_for_programs_has_everything_in_fields() {
    let (_dir, up) = up();
    let done = up.run(&["trace", "db-1", "web-1", "tcp/22", "-o", "json"]);
    assert_eq!(done.code, 1);
    let answer: serde_json::Value = serde_json::from_str(&done.out).expect("JSON");
    let trace = &answer["traces"][0];
    assert_eq!((&answer["delivered"], &trace["outcome"]), (&json!(false), &json!("dropped")));
    let steps = trace["steps"].as_array().expect("steps");
    let last = steps.last().expect("a step");
    assert_eq!((&last["stage"], &last["reason"]), (&json!("firewall"), &json!("policy-drop")), "{trace:#}");
    let rule = &last["rules"][0];
    assert_eq!(
        (&rule["policy"], &rule["rule"], &rule["tier"], &rule["direction"]),
        (&json!("baseline"), &json!("in"), &json!("baseline"), &json!("in"))
    );
    assert_eq!(trace["source"]["groups"], json!(["db"]));
}

#[test]
fn a_trace_to_another_host_names_it_and_what_cannot_be_asked_says_why() {
    let (_dir, up) = up();
    let done = up.run(&["trace", "web-1", "far-1", "ping"]);
    assert_eq!(done.code, 1);
    assert!(done.out.contains("host host-b did not answer: it is not connected"), "{}", done.out);
    assert!(done.out.contains("remote-destination"), "{}", done.out);

    let said = up.run(&["trace", "web-9", "db-1", "ping"]).bad(1);
    assert!(said.contains("there is no Workload/web-9"), "{said}");
    let said = up.run(&["trace", "web-1", "ext-1", "ping"]).bad(1);
    assert!(said.contains("ext-1 is neither an address nor a workload"), "{said}");
    let said = up.run(&["trace", "web-1", "db-1", "tcp"]).bad(2);
    assert!(said.contains("tcp/5432"), "{said}");
}

#[test]
fn without_traffic_there_is_nothing_to_tell_and_a_silent_host_is_no_success() {
    let (_dir, up) = up();
    assert_eq!(up.run(&["why", "web-1"]).good(), "nothing is known of web-1 yet\n");
    assert_eq!(up.run(&["flows", "--workload", "db-1"]).good(), "there are no connections\n");
    for arguments in [&["why", "far-1", "--drops"][..], &["flows"]] {
        let said = up.run(arguments).bad(1);
        assert!(said.contains("host host-b did not answer: it is not connected"), "{said}");
    }
    assert!(up.run(&["why", "web-9"]).bad(1).contains("there is no Workload/web-9"));

    // Followed, it is told at once.
    let mut follow = up.command(&["flows", "--follow", "--limit", "1", "-o", "json"]);
    let mut child = follow.stdout(Stdio::piped()).spawn().expect("starts");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
    let event: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!((&event["event"], &event["host"]), (&json!("missed"), &json!("host-b")), "{event}");
    assert!(child.wait().expect("ends").success());
}

#[test]
fn a_dry_run_asks_the_hosts_concerned() {
    let (_dir, up) = up();
    let policy = "kind: FirewallPolicy\nname: shut\nspec: { tier: emergency, appliesTo: [any], rules: [{ name: all, action: drop }] }\n";
    let mut apply = up.command(&["apply", "-f", "-", "--dry-run", "-o", "json"]);
    let mut child = apply.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("starts");
    std::io::Write::write_all(&mut child.stdin.take().expect("a pipe"), policy.as_bytes()).expect("is read");
    let output = child.wait_with_output().expect("ends");
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let flows = answer["flows"].as_array().expect("flows");
    assert_eq!((&flows[0]["host"], &flows[0]["countCut"]), (&json!("host-a"), &json!(0)), "{answer:#}");
    assert!(flows[0].get("error").is_none(), "{answer:#}");
    assert_eq!(flows[1]["host"], json!("host-b"));
    assert!(flows[1]["error"].as_str().is_some_and(|why| why.contains("not connected")), "{answer:#}");
}
