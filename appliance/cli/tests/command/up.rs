//! Starting, stopping and starting again.

use std::net::TcpListener;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

use crate::running::{Done, Service};

const VM: &str = "\
kind: Network
name: blue
spec: { subnets: [10.0.1.0/24] }
---
kind: Workload
name: web-1
spec: { host: host-a, kind: vm, ports: [{ name: eth0, network: blue }] }
";

const UP: [&str; 5] = ["up", "--workers", "1", "--poll", "sleep"];

fn token(state: &Path) -> String {
    std::fs::read_to_string(state.join("admin.token")).expect("a token").trim().to_owned()
}

#[test]
fn the_first_start_prints_the_token_once_and_what_to_do_next() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut up = Service::start(dir.path(), &UP);
    let secret = token(&up.state());
    assert_eq!(up.output().matches(&secret).count(), 1, "{}", up.output());
    assert!(
        up.output().contains("palisade apply -f") && up.output().ends_with("\nready\n"),
        "{}",
        up.output()
    );
    let host = up.json(&["get", "host", "host-a"]);
    assert_eq!(host["status"]["connected"], true, "{host:#}");

    let (status, errors) = up.stop("INT");
    assert!(status.success() && !errors.contains(&secret), "{status}\n{errors}");
    let mut up = Service::start(dir.path(), &UP);
    assert!(!up.output().contains(&secret), "{}", up.output());
    assert_eq!(token(&up.state()), secret);
    assert!(up.stop("TERM").0.success());
}

#[test]
fn nothing_but_the_authority_is_readable_by_others() {
    let dir = tempfile::tempdir().expect("a directory");
    let up = Service::start(dir.path(), &UP);
    for entry in std::fs::read_dir(up.state()).expect("reads") {
        let entry = entry.expect("an entry");
        let mode = entry.metadata().expect("a mode").permissions().mode() & 0o777;
        assert!(
            entry.file_name() == "ca.pem" || mode & 0o077 == 0,
            "{:?} has mode {mode:o}",
            entry.file_name()
        );
    }
}

#[test]
fn after_a_crash_the_sockets_are_back_and_nothing_is_lost() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut up = Service::start(dir.path(), &UP);
    up.apply(VM);
    let socket = dir.path().join("run/ports/web-1.eth0.sock");
    assert!(std::fs::metadata(&socket).expect("a socket").file_type().is_socket());
    up.stop("KILL");
    let up = Service::start(dir.path(), &UP);
    assert!(std::os::unix::net::UnixStream::connect(&socket).is_ok());
    assert_eq!(up.json(&["get", "workloads"])[0]["status"]["ports"][0]["name"], "eth0");
}

#[test]
fn what_stands_in_the_way_of_a_start_is_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let _up = Service::start(dir.path(), &UP);
    let said = Service::fails(dir.path(), &UP).bad(1);
    assert!(said.contains("in use") && said.contains("--state-dir"), "{said}");

    let other = tempfile::tempdir().expect("a directory");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let said = Service::fails(other.path(), &[&UP[..], &["--listen", &address]].concat()).bad(1);
    assert!(said.contains(&address) && said.contains("--listen"), "{said}");

    let file = tempfile::NamedTempFile::new().expect("a file");
    let said = Service::fails(file.path(), &UP).bad(1);
    assert!(said.contains("--state-dir"), "{said}");
    let said = Service::fails(other.path(), &[&UP[..], &["--cpus", "1023"]].concat()).bad(1);
    assert!(said.contains("1023"), "{said}");
}

#[test]
fn an_agent_without_a_token_of_its_own_uses_the_administrators() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut up = Service::start(dir.path(), &UP);
    up.stop("TERM");
    std::fs::remove_file(up.state().join("agent.token")).expect("removes");
    let up = Service::start(dir.path(), &UP);
    assert_eq!(up.json(&["get", "host", "host-a"])["status"]["connected"], true);
}

#[test]
fn an_administrator_may_keep_the_token_elsewhere() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut up = Service::start(dir.path(), &UP);
    let secret = token(&up.state());
    up.apply(VM);
    up.stop("TERM");
    std::fs::remove_file(up.state().join("admin.token")).expect("removes");
    let up = Service::start(dir.path(), &UP);
    let said = up.run(&["get", "hosts"]).bad(1);
    assert!(said.contains("admin.token"), "{said}");
    assert!(up.run(&["get", "hosts", "--token", &secret]).good().contains("host-a"));
}

#[test]
fn manager_and_agent_run_apart() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut manager = Service::start(&dir.path().join("m"), &["manager"]);
    let secret = manager.run(&["token", "create", "host-b", "--role", "agent"]).good();
    let url = std::fs::read_to_string(manager.state().join("manager.url")).expect("a URL");
    let ca = manager.state().join("ca.pem").display().to_string();
    let arguments = ["agent", "--host", "host-b", "--url", url.trim(), "--ca", &ca, "--token", secret.trim()];
    let mut agent = Service::start(&dir.path().join("a"), &[&arguments[..], &["--workers", "1"]].concat());
    // A host is known from its agent's first word on, which may come after the agent is ready.
    let host = || manager.run(&["get", "host", "host-b"]);
    assert!((0..1000).any(|_| host().code == 0), "{:?}", host());
    manager.apply(&VM.replace("host-a", "host-b"));
    assert!(dir.path().join("a/run/ports/web-1.eth0.sock").exists());

    let stopped = agent.stop("TERM").0;
    assert!(stopped.success());
    let said = manager.run_with(
        &["apply", "-f", "-", "--wait", "--timeout", "0"],
        &VM.replace("web-1", "web-2").replace("host-a", "host-b"),
    );
    let said = said.bad(4);
    assert!(said.contains("accepted") && said.contains("1 of 1 hosts"), "{said}");
    assert!(manager.stop("TERM").0.success());
    let said = manager.run(&["get", "hosts"]).bad(3);
    assert!(said.contains("is the manager running"), "{said}");
}

#[test]
fn a_stranger_at_the_managers_address_is_not_trusted() {
    let dir = tempfile::tempdir().expect("a directory");
    let here = Service::start(&dir.path().join("here"), &["manager"]);
    let there = Service::start(&dir.path().join("there"), &["manager"]);
    let command = here.command(&["get", "hosts"]).env("PALISADE_CA", there.state().join("ca.pem")).output();
    let said = Done::from(command.expect("runs")).bad(3);
    assert!(said.contains("ca.pem"), "{said}");
}
