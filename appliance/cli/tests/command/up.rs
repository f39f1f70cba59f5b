//! Starting, stopping and starting again.

use std::net::TcpListener;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

use crate::running::{Done, Service, palisade};

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
fn a_host_whose_identity_is_lost_or_damaged_joins_again_by_itself() {
    let dir = tempfile::tempdir().expect("a directory");
    let identity = dir.path().join("state/identity.json");
    for damage in [None, Some("{}")] {
        let mut up = Service::start(dir.path(), &UP);
        up.stop("TERM");
        match damage {
            None => std::fs::remove_file(&identity).expect("removes"),
            Some(text) => std::fs::write(&identity, text).expect("writes"),
        }
        let mut up = Service::start(dir.path(), &UP);
        assert_eq!(up.json(&["get", "host", "host-a"])["status"]["connected"], true);
        up.stop("TERM");
    }
}

#[test]
fn a_state_directory_of_a_version_before_joining_still_starts() {
    let dir = tempfile::tempdir().expect("a directory");
    let state = dir.path().join("state");
    std::fs::create_dir(&state).expect("a directory");
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../mgmt-api/manager/tests/data/layout-1");
    for name in ["manager.redb", "admin.token"] {
        std::fs::copy(kept.join(name), state.join(name)).expect("copies");
    }
    std::fs::write(state.join("agent.token"), "palisade_0\n").expect("writes");
    let up = Service::start(dir.path(), &UP);
    assert_eq!(up.json(&["get", "host", "host-a"])["status"]["connected"], true);
    assert!(dir.path().join("run/ports/web-1.eth0.sock").exists());
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
    let secret = manager.run(&["join-token", "create", "--label", "rack=r7"]).good();
    let url = std::fs::read_to_string(manager.state().join("manager.url")).expect("a URL");
    let arguments = ["agent", "--host", "host-b", "--join", url.trim(), "--token", secret.trim()];
    let mut agent = Service::start(&dir.path().join("a"), &[&arguments[..], &["--workers", "1"]].concat());
    // A host is known from its agent's first word on, which may come after the agent is ready.
    let host = || manager.run(&["get", "host", "host-b"]);
    assert!((0..1000).any(|_| host().code == 0), "{:?}", host());
    assert_eq!(manager.json(&["get", "host", "host-b"])["labels"]["rack"], "r7");
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
fn a_machine_joins_once_and_is_that_host_from_then_on() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut manager = Service::start(&dir.path().join("m"), &["manager"]);
    let url = std::fs::read_to_string(manager.state().join("manager.url")).expect("a URL");
    let secret = manager.run(&["join-token", "create", "first", "--expires", "5m"]).good();
    let state = dir.path().join("a/state");
    let join = |host: &str, token: &str| {
        let words = ["join", url.trim(), "--host", host, "--token", token.trim(), "--workers", "1"];
        Done::from(palisade(&words).env("PALISADE_STATE_DIR", &state).output().expect("runs"))
    };
    assert!(Service::fails(&dir.path().join("a"), &["agent"]).bad(1).contains("palisade join"));
    assert!(join("host-b", "nonsense").bad(1).contains("SECRET.FINGERPRINT"));
    let wrong = format!("{}.{}", secret.trim().split('.').next().expect("a secret"), "0".repeat(64));
    assert!(join("host-b", &wrong).bad(3).contains("fingerprint"));
    assert!(join("host-b", &secret).good().contains("palisade agent"));
    let mode = std::fs::metadata(state.join("identity.json")).expect("is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(join("host-b", &secret).bad(1).contains("used by 1 of 1 hosts"));

    let said = Service::fails(&dir.path().join("a"), &["agent", "--host", "host-c"]).bad(2);
    assert!(said.contains("joined as host host-b"), "{said}");
    let mut agent = Service::start(&dir.path().join("a"), &["agent", "--host", "host-b", "--workers", "1"]);
    let connected = || manager.json(&["get", "host", "host-b"])["status"]["connected"] == true;
    assert!((0..1000).any(|_| connected()));
    assert!(agent.stop("TERM").0.success());

    let tokens = manager.run(&["join-token", "list"]).good();
    assert!(tokens.contains("first") && tokens.contains("used-up") && tokens.contains("1/1"), "{tokens}");
    let open = manager.run(&["join-token", "create", "open", "--uses", "2"]).good();
    assert!(manager.run(&["join-token", "revoke", "open"]).good().contains("revoked"));
    assert!(join("host-c", &open).bad(1).contains("was revoked"));
    let audit = manager.run(&["audit"]).good();
    assert!(audit.contains("host host-b joined with join token first of admin"), "{audit}");
    assert!(manager.stop("TERM").0.success());
}

#[test]
fn users_tokens_and_authorities_are_managed_from_the_command_line() {
    let dir = tempfile::tempdir().expect("a directory");
    let manager = Service::start(dir.path(), &["manager"]);
    manager.run(&["user", "create", "alice", "--role", "viewer"]).good();
    let secret = manager.run(&["token", "create", "laptop", "--user", "alice", "--expires", "90d"]).good();
    let apply = || manager.run_with(&["apply", "-f", "-", "--token", secret.trim()], "kind: Host\nname: h\n");
    assert!(apply().bad(1).contains("alice may not"));
    manager.run(&["user", "change", "alice", "--role", "operator"]).good();
    apply().good();
    let users = manager.run(&["user", "list"]).good();
    assert!(users.lines().any(|line| line.starts_with("alice") && line.contains("operator")), "{users}");
    let tokens = manager.run(&["token", "list"]).good();
    assert!(tokens.lines().any(|line| line.starts_with("laptop") && !line.contains("never")), "{tokens}");
    manager.run(&["user", "delete", "alice"]).good();
    assert!(apply().bad(1).contains("not valid"));

    let one = manager.json(&["authority", "list"]);
    let old = one[0]["fingerprint"].as_str().expect("a fingerprint");
    assert!(manager.run(&["authority", "rotate"]).good().contains(old));
    let pem = manager.run(&["authority", "list", "--pem"]).good();
    assert_eq!(pem.matches("BEGIN CERTIFICATE").count(), 2);
    manager.run(&["authority", "retire", old]).good();
    let kept = || std::fs::read_to_string(manager.state().join("ca.pem")).expect("is there");
    let is_new = |_| manager.run(&["authority", "list"]).code == 0 && kept().matches("BEGIN").count() == 1;
    assert!((0..200).any(is_new), "{}", kept());
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
