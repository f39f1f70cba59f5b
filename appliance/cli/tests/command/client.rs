//! Client commands against a manager and an agent that run.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use serde_json::json;

use crate::running::{Done, Service};

const SHOP: &str = "\
kind: Network
name: blue
labels: { env: prod }
spec: { subnets: [10.0.1.0/24, \"fd00:1::/64\"], router: shop }
---
kind: Workload
name: web-1
labels: { app: shop, tier: \"on\" }
spec:
  host: host-a
  kind: vm
  ports:
    - { name: eth0, network: blue, addresses: [10.0.1.11], queues: 2, rateLimit: { packetsPerSecond: 1000 } }
    - { name: eth1, network: blue, mac: \"52:54:00:00:00:01\", attach: { vhostUser: { role: client, socket: /tmp/x.sock } } }
";

const WALL: &str = "\
kind: Group
name: shop
spec: { match: \"app = shop and name = web-*\", cidrs: [198.51.100.0/24] }
---
kind: FirewallPolicy
name: shop
spec:
  appliesTo: [shop]
  rules:
    - { name: https, direction: in, action: allow, services: [https, tcp/8443-8450], log: true }
    - { name: rest, direction: in, action: reject, from: [any] }
---
kind: Router
name: shop
spec: { routes: [{ to: 203.0.113.0/24, via: 10.0.1.11 }] }
";

fn up() -> (tempfile::TempDir, Service) {
    let dir = tempfile::tempdir().expect("a directory");
    let service = Service::start(dir.path(), &["up", "--workers", "1", "--poll", "sleep"]);
    (dir, service)
}

#[test]
fn apply_says_what_became_of_each_resource() {
    let (_dir, up) = up();
    let said = up.run_with(&["apply", "-f", "-", "--dry-run"], SHOP).good();
    assert!(
        said.contains("Network/blue created (dry run)") && said.contains("nothing was changed"),
        "{said}"
    );
    assert_eq!(up.json(&["get", "networks"]), json!([]));

    let said = up.run_with(&["apply", "-f", "-", "--wait"], SHOP).good();
    assert!(said.starts_with("Network/blue created\nWorkload/web-1 created\nrevision "), "{said}");
    assert!(said.ends_with("Host/host-a applied\n"), "{said}");
    let said = up.run_with(&["apply", "-f", "-", "--wait"], SHOP).good();
    assert!(said.contains("Workload/web-1 unchanged") && said.contains("nothing to change"), "{said}");
    let said = up.run_with(&["apply", "-f", "-"], &SHOP.replace("prod", "stage")).good();
    assert!(said.contains("Network/blue configured\nWorkload/web-1 unchanged"), "{said}");
}

#[test]
fn what_get_prints_as_yaml_or_json_applies_again_unchanged() {
    let (_dir, up) = up();
    up.apply(SHOP);
    up.apply(WALL);
    for format in ["yaml", "json"] {
        for kind in ["networks", "routers", "workloads", "hosts", "groups", "policies"] {
            let text = up.run(&["get", kind, "-o", format]).good();
            let said = up.run_with(&["apply", "-f", "-"], &text).good();
            assert!(said.contains("unchanged") && said.contains("nothing to change"), "{text}\n{said}");
        }
    }
}

#[test]
fn get_and_describe_show_what_is_declared_and_what_is() {
    let (_dir, up) = up();
    assert_eq!(up.run(&["get", "workloads"]).good(), "there are no workloads\n");
    up.apply(SHOP);
    let table = up.run(&["get", "wl"]).good();
    assert!(table.contains("10.0.1.11") && table.contains("waiting"), "{table}");
    let text = up.run(&["describe", "workload", "web-1"]).good();
    for word in ["tier=on", "queues     2", "1000 packets/s", "web-1.eth0.sock", "52:54:00:00:00:01"] {
        assert!(text.contains(word), "no {word:?} in\n{text}");
    }
    assert!(up.run(&["describe", "network", "blue"]).good().contains("web-1.eth0"));
    assert!(up.run(&["describe", "host", "host-a"]).good().contains("up to date"));
    assert_eq!(up.run(&["hosts"]).good(), up.run(&["get", "hosts"]).good());
    assert!(up.run(&["hosts"]).good().contains("host-a  agent"));
    let port = &up.json(&["get", "workload", "web-1"])["status"]["ports"][0];
    assert_eq!(port["fromGuest"]["packets"], 0);
    assert_eq!(up.json(&["get", "workloads", "-l", "app=shop,tier!=db"])[0]["name"], "web-1");
    assert_eq!(up.json(&["get", "workloads", "-l", "app!=shop"]), json!([]));
}

#[test]
fn groups_and_policies_show_whom_they_are_about() {
    let (_dir, up) = up();
    up.apply(SHOP);
    up.apply(WALL);
    let table = up.run(&["get", "groups"]).good();
    assert!(table.contains("app = shop and name = web-* or 198.51.100.0/24"), "{table}");
    let table = up.run(&["get", "policies"]).good();
    let line = table.lines().find(|line| line.starts_with("shop")).expect("a line");
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(words, ["shop", "application", "1000", "enforce", "shop", "1", "2", "0"]);
    assert!(table.lines().any(|line| line.starts_with("baseline")), "{table}");
    let text = up.run(&["describe", "policy", "shop"]).good();
    assert!(
        text.contains("https,tcp/8443-8450") && text.contains("  applies to  shop\n  workloads   1\n"),
        "{text}"
    );
    assert!(up.run(&["describe", "grp", "shop"]).good().contains("    web-1\n"));
    let table = up.run(&["get", "workloads"]).good();
    assert!(table.contains("shop,baseline") && table.contains("ENFORCED"), "{table}");
    let said = up.run(&["delete", "policy", "baseline"]).bad(1);
    assert!(said.contains("cannot be deleted"), "{said}");
    let said = up.run(&["delete", "group", "shop"]).bad(1);
    assert!(said.contains("FirewallPolicy/shop"), "{said}");
}

#[test]
fn a_mistake_names_file_line_field_what_was_got_and_what_is_expected() {
    let (dir, up) = up();
    let file = dir.path().join("shop.yaml");
    std::fs::write(&file, SHOP.replace("eth1, network: blue", "eth1, network: blu")).expect("writes");
    let said = up.run(&["apply", "-f", file.to_str().expect("text")]).bad(1);
    for word in [
        "shop.yaml:14:",
        "Workload/web-1",
        "spec.ports[1].network",
        "got       blu",
        "expected  a known network: blue",
    ] {
        assert!(said.contains(word), "no {word:?} in\n{said}");
    }
    assert_eq!(up.json(&["get", "networks"]), json!([]));
}

#[test]
fn files_and_directories_are_one_transaction_and_can_be_deleted_so() {
    let (dir, up) = up();
    let (network, workload) = SHOP.split_once("---\n").expect("two documents");
    let resources = dir.path().join("resources");
    std::fs::create_dir(&resources).expect("makes a directory");
    std::fs::write(resources.join("b-network.yaml"), network).expect("writes");
    std::fs::write(dir.path().join("workload.yml"), workload).expect("writes");
    let files = [resources, dir.path().join("workload.yml")].map(|path| path.display().to_string());
    let said = up.run(&["apply", "-f", &files[0], "-f", &files[1]]).good();
    assert!(said.contains("Network/blue created\nWorkload/web-1 created"), "{said}");

    let said = up.run(&["delete", "network", "blue"]).bad(1);
    assert!(said.contains("still in use") && said.contains("Workload/web-1"), "{said}");
    let said = up.run(&["delete", "-f", &files[0], "-f", &files[1], "--wait"]).good();
    assert!(said.contains("Network/blue deleted") && said.contains("Workload/web-1 deleted"), "{said}");
    assert!(said.ends_with("Host/host-a applied\n"), "{said}");
    assert!(!dir.path().join("run/ports/web-1.eth0.sock").exists());
    let said = up.run(&["delete", "workload", "web-1"]).bad(1);
    assert!(said.contains("web-1"), "{said}");
}

#[test]
fn port_attach_prints_arguments_for_each_vmm() {
    let (dir, up) = up();
    up.apply(SHOP);
    let socket = dir.path().join("run/ports/web-1.eth0.sock").display().to_string();
    let Done { code, out, err } = up.run(&["port", "attach", "web-1.eth0", "--memory", "512M"]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains(&format!("path={socket},reconnect=1")), "{out}");
    assert!(
        out.contains("size=512M,share=on") && out.contains("queues=2") && out.contains("vectors=6"),
        "{out}"
    );
    assert!(!out.contains(['#', '\\']) && err.lines().all(|line| line.starts_with("# ")), "{out}{err}");

    let value = up.json(&["port", "attach", "web-1.eth0", "--cloud-hypervisor"]);
    assert!(value["arguments"][3].as_str().expect("text").contains("num_queues=4"), "{value}");
    let xml = up.run(&["port", "attach", "web-1.eth1", "--libvirt"]).good();
    assert!(xml.contains("path='/tmp/x.sock' mode='server'"), "{xml}");
    let said = up.run(&["port", "attach", "web-1"]).bad(1);
    assert!(said.contains("eth0, eth1"), "{said}");
}

#[test]
fn tokens_let_in_as_far_as_their_role_goes_and_the_audit_log_tells() {
    let (dir, up) = up();
    up.apply(SHOP);
    let file = dir.path().join("viewer.token");
    std::fs::write(&file, up.run(&["token", "create", "looker", "--role", "viewer"]).good()).expect("writes");
    let as_viewer = |arguments: &[&str]| -> Done {
        up.command(arguments).env("PALISADE_TOKEN_FILE", &file).output().expect("runs").into()
    };
    assert!(as_viewer(&["get", "networks"]).good().contains("blue"));
    let said = as_viewer(&["delete", "workload", "web-1"]).bad(1);
    assert!(said.contains("viewer") && said.contains("operator"), "{said}");
    assert!(up.run(&["token", "list"]).good().contains("looker"));
    up.run(&["token", "delete", "looker"]).good();
    let said = as_viewer(&["get", "networks"]).bad(1);
    assert!(said.contains("PALISADE_TOKEN"), "{said}");

    let log = up.json(&["audit"]);
    let entries = log.as_array().expect("a list");
    let has = |status: u16, author: Option<&str>| {
        entries.iter().any(|entry| entry["status"] == status && entry["author"].as_str() == author)
    };
    assert!(has(403, Some("looker")) && has(401, None), "{log:#}");
    assert!(entries.is_sorted_by_key(|entry| entry["id"].as_u64()), "{log:#}");
}

#[test]
fn watch_follows_changes_and_outlives_a_restart_of_the_manager() {
    let dir = tempfile::tempdir().expect("a directory");
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
    let listen = port.expect("an address").to_string();
    let arguments = ["up", "--workers", "1", "--poll", "sleep", "--listen", &listen];
    let mut up = Service::start(dir.path(), &arguments);
    let watch = up
        .command(&["watch", "--from", "1", "--limit", "3", "-o", "json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut watch = watch.expect("starts");
    let mut lines = BufReader::new(watch.stdout.take().expect("a pipe")).lines();
    let mut next = || -> serde_json::Value {
        let line = lines.next().expect("a revision").expect("text");
        serde_json::from_str(&line).expect("JSON")
    };
    assert_eq!(next()["changes"][0]["kind"], "Host");
    up.apply(SHOP);
    let second = next();
    assert_eq!((&second["author"], &second["changes"][0]["name"]), (&json!("admin"), &json!("blue")));
    up.stop("TERM");
    let up = Service::start(dir.path(), &arguments);
    up.apply(&SHOP.replace("prod", "stage"));
    assert_eq!(next()["revision"], second["revision"].as_u64().expect("a number") + 1);
    assert!(watch.wait().expect("ends").success());
}
