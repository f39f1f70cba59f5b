//! Backups, and what becomes of them.

use mgmt_types::{Kind, ProblemKind, Role};
use serde_json::json;

use crate::server::{BASE, PATIENCE, Server};

async fn backup(server: &Server) -> Vec<u8> {
    let mut text = Vec::new();
    server.client().backup(&mut text).await.unwrap();
    text
}

/// Gives a directory that was never used the key that opens a server's authorities.
fn share_key(server: &Server, directory: &std::path::Path) {
    std::fs::create_dir_all(directory.join("state")).unwrap();
    let key = "state/authority.key";
    std::fs::copy(server.directory.path().join(key), directory.join(key)).unwrap();
}

fn specs(list: &serde_json::Value) -> Vec<(String, serde_json::Value)> {
    let items = list["items"].as_array().unwrap();
    items.iter().map(|item| (item["name"].to_string(), item["spec"].clone())).collect()
}

#[tokio::test]
async fn a_backup_restored_elsewhere_is_the_same_and_goes_on_above_it() {
    let server = Server::start().await;
    server.apply(BASE).await;
    server.apply("kind: Group\nname: all\nspec: { name: \"*\" }\n").await;
    let looker = server.token("looker", Role::Viewer).await;
    let text = backup(&server).await;
    let newest = server.get("/v1/networks").await.json()["revision"].as_u64().unwrap();
    let before = server.get("/v1/workloads").await.json();

    let fresh = tempfile::tempdir().unwrap();
    share_key(&server, fresh.path());
    let other = Server::start_in(fresh).await;
    let restored = other.client().restore(text, false, false).await.unwrap();
    assert_eq!(restored.backup_revision, newest);
    assert!(restored.revision > newest + 1000, "{restored:?}");
    // Tokens are those of the backup, and so is the authority.
    let own = other.admin.clone();
    let directory = other.stop().await;
    std::fs::write(directory.path().join("state/admin.token"), &server.admin).unwrap();
    let admin = Server::start_in(directory).await;
    let refused = admin.client_with(&own).tokens().await.unwrap_err();
    assert!(refused.problem().is_some_and(|problem| problem.is(ProblemKind::Unauthenticated)), "{refused}");
    assert!(admin.client_with(&looker).get(Kind::Workload, "web-1").await.is_ok());
    assert_eq!(
        std::fs::read(admin.running.ca_file()).unwrap(),
        std::fs::read(server.running.ca_file()).unwrap()
    );
    let after = admin.get("/v1/workloads").await.json();
    assert_eq!(specs(&after), specs(&before));
    assert_eq!(after["revision"], restored.revision);
    // History came along, and numbers are not given again.
    assert_eq!(
        admin.get(&format!("/v1/revisions/{newest}")).await.json(),
        server.get(&format!("/v1/revisions/{newest}")).await.json()
    );
    let id = |answer: serde_json::Value| answer["status"]["ports"][0]["id"].as_u64().unwrap();
    let known = id(admin.get("/v1/workloads/web-1").await.json());
    assert_eq!(known, id(server.get("/v1/workloads/web-1").await.json()));
    let more = "kind: Workload\nname: web-9\nspec: { host: host-a, kind: vm, ports: [{ name: eth0, network: blue }] }\n";
    assert_eq!(admin.apply(more).await, restored.revision + 1);
    assert!(id(admin.get("/v1/workloads/web-9").await.json()) > known + 1000);
}

#[tokio::test]
async fn a_backup_whose_authorities_cannot_be_opened_changes_nothing() {
    let server = Server::start().await;
    server.apply(BASE).await;
    let text = backup(&server).await;
    let other = Server::start().await;
    let refused = other.client().restore(text, true, true).await.unwrap_err();
    let problem = refused.problem().unwrap();
    assert!(problem.is(ProblemKind::Invalid) && problem.detail.contains("authority.key"), "{problem}");
    assert_eq!(other.get("/v1/workloads").await.json()["items"], json!([]));
}

#[tokio::test]
async fn a_newer_state_is_not_overwritten_unless_forced() {
    let server = Server::start().await;
    server.apply(BASE).await;
    let text = backup(&server).await;
    server.apply("kind: Network\nname: later\nspec: { subnets: [] }\n").await;
    let refused = server.client().restore(text.clone(), false, false).await.unwrap_err();
    assert!(refused.problem().is_some_and(|problem| problem.is(ProblemKind::Stale)), "{refused}");
    assert_eq!(server.get("/v1/networks/later").await.status, 200);
    server.client().restore(text, true, true).await.unwrap();
    assert_eq!(server.get("/v1/networks/later").await.status, 404);
    let log = server.get("/v1/audit?limit=1").await.json();
    assert_eq!(log["items"][0]["action"], json!("POST /v1/restore"));
}

#[tokio::test]
async fn a_backup_that_is_cut_or_changed_changes_nothing() {
    let server = Server::start().await;
    server.apply(BASE).await;
    let text = backup(&server).await;
    let before = server.get("/v1/workloads").await.json();
    let lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
    let swapped = String::from_utf8(text.clone()).unwrap().replacen("blue", "teal", 1).into_bytes();
    let newer =
        String::from_utf8(text.clone()).unwrap().replacen("\"format\":1", "\"format\":9", 1).into_bytes();
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("empty", Vec::new(), "breaks off"),
        ("no end", lines[..lines.len() - 1].concat(), "breaks off"),
        ("a line less", [lines[..2].concat(), lines[3..].concat()].concat(), "changed or damaged"),
        ("no head", lines[1..].concat(), "out of place"),
        ("another name", swapped, "changed or damaged"),
        ("a newer format", newer, "format 9"),
        ("something else", b"kind: Network\n".to_vec(), "line 1"),
    ];
    for (what, text, says) in cases {
        let refused = server.client().restore(text, true, false).await.unwrap_err();
        let problem = refused.problem().unwrap_or_else(|| panic!("{what}: {refused}"));
        assert!(problem.is(ProblemKind::Invalid) && problem.detail.contains(says), "{what}: {problem}");
    }
    assert_eq!(server.get("/v1/workloads").await.json(), before);
}

#[tokio::test]
async fn hosts_take_the_restored_state_even_if_they_knew_a_newer_one() {
    let server = Server::start().await;
    let agent = server.host("host-a").await;
    server.apply(BASE).await;
    let text = backup(&server).await;
    let mut slices = agent.agent_state_stream("host-a", 0).await.unwrap();
    let next = async |slices: &mut mgmt_client::Events<mgmt_types::agent::Slice>| {
        tokio::time::timeout(PATIENCE, slices.next()).await.unwrap().unwrap().unwrap()
    };
    assert_eq!(next(&mut slices).await.ports.len(), 1);
    let more = "kind: Workload\nname: web-2\nspec: { host: host-a, kind: vm, ports: [{ name: eth0, network: blue }] }\n";
    let newest = server.apply(more).await;
    assert_eq!(next(&mut slices).await.ports.len(), 2);
    let restored = server.client().restore(text, true, true).await.unwrap();
    let slice = next(&mut slices).await;
    assert_eq!((slice.ports.len(), slice.revision), (1, restored.revision));
    assert!(slice.revision > newest);
}

#[tokio::test]
async fn only_administrators_take_and_restore_backups() {
    let server = Server::start().await;
    for role in [Role::Operator, Role::Viewer] {
        let client = server.client_with(&server.token(role.as_str(), role).await);
        let taken = client.backup(std::io::sink()).await.unwrap_err();
        let restored = client.restore(Vec::new(), true, false).await.unwrap_err();
        for refused in [taken, restored] {
            assert!(refused.problem().is_some_and(|problem| problem.is(ProblemKind::Forbidden)), "{refused}");
        }
    }
}

#[tokio::test]
async fn a_directory_without_a_manager_is_backed_up_and_restored() {
    let server = Server::start().await;
    server.apply(BASE).await;
    let locked = manager::backup(&server.directory.path().join("state"), std::io::sink()).unwrap_err();
    assert!(locked.to_string().contains("in use"), "{locked}");
    let admin = server.admin.clone();
    let before = server.get("/v1/workloads").await.json();
    let fresh = tempfile::tempdir().unwrap();
    share_key(&server, fresh.path());
    let directory = server.stop().await;
    let mut text = Vec::new();
    manager::backup(&directory.path().join("state"), &mut text).unwrap();
    manager::restore(&fresh.path().join("state"), text.as_slice(), false, false).unwrap();
    std::fs::write(fresh.path().join("state/admin.token"), &admin).unwrap();
    let server = Server::start_in(fresh).await;
    assert!(!server.running.is_first_start());
    assert_eq!(specs(&server.get("/v1/workloads").await.json()), specs(&before));
}
