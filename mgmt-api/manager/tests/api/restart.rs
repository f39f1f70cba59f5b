//! What outlives the process.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::server::{BASE, Server, config};

#[tokio::test]
async fn a_restart_keeps_state_tokens_authority_and_numbers() {
    let server = Server::start().await;
    assert!(server.running.is_first_start());
    server.apply(BASE).await;
    let before = server.get("/v1/workloads/web-1").await.json();
    let (admin, ca) = (server.admin.clone(), std::fs::read(server.running.ca_file()).unwrap());
    let directory = server.stop().await;
    let server = Server::start_in(directory).await;
    assert!(!server.running.is_first_start());
    assert_eq!(server.admin, admin);
    assert_eq!(std::fs::read(server.running.ca_file()).unwrap(), ca);
    assert_eq!(server.get("/v1/workloads/web-1").await.json(), before);
    assert_eq!(server.apply(BASE).await, 2);
}

#[tokio::test]
async fn only_the_owner_can_read_what_is_kept() {
    let server = Server::start().await;
    server.apply(BASE).await;
    let state = server.directory.path().join("state");
    assert_eq!(std::fs::metadata(&state).unwrap().permissions().mode() & 0o777, 0o700);
    for entry in std::fs::read_dir(&state).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        let name = entry.file_name();
        assert!(mode == if name == "ca.pem" { 0o644 } else { 0o600 }, "{name:?} has mode {mode:o}");
    }
    let kept = std::fs::read(state.join("manager.redb")).unwrap();
    let secret = server.admin.as_bytes();
    assert!(!kept.windows(secret.len()).any(|window| window == secret), "the store holds a secret");
}

#[tokio::test]
async fn two_managers_do_not_share_a_directory() {
    let server = Server::start().await;
    let error = manager::serve(config(server.directory.path())).await.unwrap_err();
    assert!(error.to_string().contains("only one manager"), "{error}");
}

/// The directory a child of this test works on; absent in the parent.
const CHILD: &str = "PALISADE_TEST_KILLED_WRITER";

/// In the child: applies one revision after the other and says so once each is acknowledged.
#[tokio::test]
async fn killed_writer() {
    let Ok(directory) = std::env::var(CHILD) else { return };
    let running = manager::serve(config(directory.as_ref())).await.unwrap();
    let endpoint = mgmt_client::Endpoint {
        url: running.url(),
        token: std::fs::read_to_string(running.admin_token_file()).unwrap().trim().to_owned(),
        ca_pem: std::fs::read_to_string(running.ca_file()).unwrap(),
    };
    let client = mgmt_client::Client::connect(&endpoint).unwrap();
    for n in 0.. {
        let text = format!("kind: Host\nname: h\nlabels: {{ n: '{n}' }}\n---\nkind: Host\nname: h{n}\n");
        let document = mgmt_client::Document { file: "f.yaml".into(), text };
        let applied = client.apply(&[document], false).await.unwrap();
        // A test's standard output is captured, standard error of a process is not.
        use std::io::Write;
        writeln!(std::io::stderr(), "acknowledged {}", applied.revision).unwrap();
    }
}

#[tokio::test]
async fn what_was_acknowledged_survives_kill_9_and_nothing_is_half_there() {
    let directory = tempfile::tempdir().unwrap();
    let mut last = 0;
    for round in 0..5u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "restart::killed_writer", "--nocapture"])
            .env(CHILD, directory.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut fresh = 0;
        for line in lines.map_while(Result::ok) {
            if let Some(number) = line.strip_prefix("acknowledged ") {
                last = number.parse().unwrap();
                fresh += 1;
            }
            if fresh == 3 + 7 * round {
                child.kill().unwrap();
                break;
            }
        }
        child.wait().unwrap();
        assert!(fresh > 0, "the child acknowledged nothing");
        let server = Server::start_in(directory_copy(directory.path())).await;
        let hosts = server.get("/v1/hosts").await.json();
        let revision = hosts["revision"].as_u64().unwrap();
        assert!(revision >= last, "{last} was acknowledged, {revision} is there");
        let newest = server.get(&format!("/v1/revisions/{revision}")).await.json();
        for change in newest["changes"].as_array().unwrap() {
            let name = change["name"].as_str().unwrap();
            let host = server.get(&format!("/v1/hosts/{name}")).await.json();
            assert_eq!(host["revision"], json!(revision), "half of revision {revision} is there");
        }
    }
}

/// A copy, so that the next round finds what the killed process left and not what a clean stop made of it.
fn directory_copy(from: &std::path::Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    let state = copy.path().join("state");
    std::fs::create_dir(&state).unwrap();
    for entry in std::fs::read_dir(from.join("state")).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), state.join(entry.file_name())).unwrap();
    }
    copy
}
