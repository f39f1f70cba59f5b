//! What needs no manager: help, completions, mistakes on the command line.

use std::io::Read;
use std::process::Stdio;

use crate::running::{palisade, run};

#[test]
fn help_names_every_command_and_the_exit_codes() {
    let help = run(&["--help"]).good();
    for word in [
        "up",
        "manager",
        "agent",
        "apply",
        "get",
        "describe",
        "delete",
        "watch",
        "port",
        "token",
        "audit",
        "completions",
        "version",
        "Exit codes",
        "PALISADE_URL",
        "NO_COLOR",
    ] {
        assert!(help.contains(word), "no {word:?} in\n{help}");
    }
    assert!(run(&["up", "--help"]).good().contains("ready"));
}

#[test]
fn help_never_shows_a_token_of_the_environment() {
    let output = palisade(&["get", "--help"]).env("PALISADE_TOKEN", "s3cret").output().expect("runs");
    assert!(!String::from_utf8_lossy(&output.stdout).contains("s3cret"));
}

#[test]
fn every_shell_gets_a_completion_script() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run(&["completions", shell]).good();
        assert!(script.contains("describe") && script.contains("attach"), "{shell}");
    }
}

#[test]
fn bash_accepts_its_completion_script() {
    let script = run(&["completions", "bash"]).good();
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), script).expect("writes");
    let bash = std::process::Command::new("bash").arg("-n").arg(file.path()).status().expect("bash runs");
    assert!(bash.success());
}

#[test]
fn a_wrong_command_line_ends_with_2_and_says_what_would_be_right() {
    for (arguments, word) in [
        (&["frobnicate"][..], "frobnicate"),
        (&["get", "cats"], "networks, routers, workloads, hosts, groups and firewallpolicies"),
        (&["apply"], "--file"),
        (&["get", "hosts", "-l", "a b"], "key=value"),
        (&["delete", "network"], "<NAME>"),
        (&["delete", "network", "blue", "-f", "x.yaml"], "cannot be used with"),
        (&["up", "--cpus", "7-4"], "expected 4-7"),
        (&["up", "--workers", "0"], "0"),
        (&["up", "--poll", "never"], "adaptive"),
        (&["up", "--host", "Host_A"], "host-a"),
        (&["port", "attach", "web_1"], "only a-z"),
        (&["port", "attach", "web-1", "--qemu", "--libvirt"], "cannot be used with"),
        (&["token", "create", "bob", "--role", "king"], "operator"),
    ] {
        let said = run(arguments).bad(2);
        assert!(said.contains(word), "{arguments:?}: no {word:?} in\n{said}");
    }
}

#[test]
fn without_a_token_it_says_where_it_looked() {
    let said = run(&["get", "hosts"]).bad(1);
    assert!(said.contains("/nonexistent/admin.token") && said.contains("PALISADE_TOKEN"), "{said}");
}

#[test]
fn a_certificate_that_is_none_is_refused() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let ca = file.path().to_str().expect("text");
    let said = run(&["get", "hosts", "--token", "x", "--ca", ca]).bad(1);
    assert!(said.contains("ca.pem"), "{said}");
}

#[test]
fn a_reader_that_leaves_early_is_no_failure() {
    let mut child = palisade(&["completions", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    drop(child.stdout.take());
    let mut said = String::new();
    child.stderr.take().expect("a pipe").read_to_string(&mut said).expect("text");
    assert!(child.wait().expect("ends").success());
    assert_eq!(said, "");
}

#[test]
fn the_version_is_the_same_in_every_way_to_ask() {
    let version = run(&["version"]).good();
    assert_eq!(version, run(&["--version"]).good());
    let value: serde_json::Value =
        serde_json::from_str(&run(&["version", "-o", "json"]).good()).expect("JSON");
    assert_eq!(version, format!("palisade {}\n", value["version"].as_str().expect("text")));
}
