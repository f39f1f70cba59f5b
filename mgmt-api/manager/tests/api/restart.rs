//! What outlives the process.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

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
    let first = client.managers().await.unwrap().revision;
    for n in first.. {
        let text = format!("kind: Host\nname: h\nlabels: {{ n: '{n}' }}\n---\nkind: Host\nname: h{n}\n");
        let document = mgmt_client::Document { file: "f.yaml".into(), text };
        let applied = client.apply(&[document], false).await.unwrap();
        // A test's standard output is captured, standard error of a process is not.
        use std::io::Write;
        writeln!(std::io::stderr(), "acknowledged {}", applied.revision).unwrap();
    }
}

/// How often the writer is killed.
const KILLS: u64 = 200;

#[tokio::test]
async fn what_was_acknowledged_survives_kill_9_and_nothing_is_half_there() {
    let directory = tempfile::tempdir().unwrap();
    let mut last = 0;
    let mut chance = 0x9e37_79b9_7f4a_7c15_u64;
    for round in 0..KILLS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "restart::killed_writer", "--nocapture"])
            .env(CHILD, directory.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let mut acknowledged =
            || lines.find_map(|line| line.strip_prefix("acknowledged ")?.parse::<u64>().ok());
        last = acknowledged().unwrap_or_else(|| panic!("round {round}: the child acknowledged nothing"));
        // Any moment of the next commits: each takes some milliseconds.
        chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        std::thread::sleep(Duration::from_micros((chance >> 33) % 30_000));
        child.kill().unwrap();
        child.wait().unwrap();
        while let Some(number) = acknowledged() {
            last = number;
        }
        let (revision, history) = kept(directory_copy(directory.path()).path());
        assert!(revision >= last, "round {round}: {last} was acknowledged, {revision} is there");
        assert_eq!(history.last().map(|(number, _)| *number), Some(revision), "round {round}");
        assert!(
            history.windows(2).all(|pair| pair[0].0 + 1 == pair[1].0),
            "round {round}: a revision is missing"
        );
        if round % 20 == 0 {
            whole(directory.path(), revision).await;
        }
    }
    assert!(last > KILLS, "{last} revisions in {KILLS} rounds");
}

/// The newest revision in a directory, and every revision that is kept, as a backup has them.
fn kept(directory: &std::path::Path) -> (u64, Vec<(u64, Value)>) {
    let mut text = Vec::new();
    manager::backup(&directory.join("state"), &mut text).unwrap();
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let mut lines = lines.map(|line| serde_json::from_slice::<Value>(line).unwrap());
    let head = lines.next().unwrap();
    let history = lines.filter_map(|mut line| {
        let revision = line["history"].take();
        Some((revision["revision"].as_u64()?, revision))
    });
    (head["head"]["revision"].as_u64().unwrap(), history.collect())
}

/// A manager on a copy shows all that its newest revision changed.
async fn whole(directory: &std::path::Path, revision: u64) {
    let server = Server::start_in(directory_copy(directory)).await;
    let newest = server.get(&format!("/v1/revisions/{revision}")).await.json();
    for change in newest["changes"].as_array().unwrap() {
        let name = change["name"].as_str().unwrap();
        let host = server.get(&format!("/v1/hosts/{name}")).await.json();
        assert_eq!(host["revision"], json!(revision), "half of revision {revision} is there");
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
