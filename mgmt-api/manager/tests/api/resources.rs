//! Writing and reading resources.

use serde_json::json;

use crate::server::{BASE, Server};

const JSON: (&str, &str) = ("content-type", "application/json");

#[tokio::test]
async fn a_put_creates_then_replaces_then_changes_nothing() {
    let server = Server::start().await;
    let body = r#"{"spec":{"subnets":["10.0.1.0/24"]}}"#;
    let first = server.send("PUT", "/v1/networks/blue", &[JSON], body).await;
    assert_eq!((first.status, first.header("etag")), (201, Some("\"2\"")));
    assert_eq!(first.json()["kind"], "Network");
    let again = server.send("PUT", "/v1/networks/blue", &[JSON], body).await;
    assert_eq!((again.status, again.header("etag")), (200, Some("\"2\"")), "{again:?}");
    let wider = server.send("PUT", "/v1/networks/blue", &[JSON], r#"{"spec":{"subnets":[]}}"#).await;
    assert_eq!((wider.status, wider.header("etag")), (200, Some("\"3\"")));
    let yaml = "spec: { subnets: [10.0.9.0/24] }\n";
    let wider = server.send("PUT", "/v1/networks/blue", &[("content-type", "application/yaml")], yaml).await;
    assert_eq!((wider.status, wider.header("etag")), (200, Some("\"4\"")));
}

#[tokio::test]
async fn what_was_read_can_be_written_back() {
    let server = Server::start().await;
    let before = server.apply(BASE).await;
    for path in ["/v1/networks/blue", "/v1/workloads/web-1", "/v1/hosts/host-a"] {
        let read = server.get(path).await;
        assert!(read.json()["status"].is_object(), "{read:?}");
        let written = server.send("PUT", path, &[JSON], &read.body).await;
        assert_eq!((written.status, written.json()["revision"].as_u64()), (200, Some(before)), "{path}");
    }
}

#[tokio::test]
async fn a_patch_changes_only_what_it_names() {
    let server = Server::start().await;
    server.apply(BASE).await;
    let patch = r#"{"labels":{"tier":"web","app":null},"spec":{"ports":[{"name":"eth0","network":"blue"}]}}"#;
    let answer = server
        .send("PATCH", "/v1/workloads/web-1", &[("content-type", "application/merge-patch+json")], patch)
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let now = answer.json();
    assert_eq!(now["labels"], json!({ "tier": "web" }));
    assert_eq!(now["spec"]["host"], "host-a");
    assert_eq!(now["spec"]["ports"][0].get("addresses"), None);
    let wrong = server.send("PATCH", "/v1/workloads/web-1", &[JSON], r#"{"spec":{"kind":"ship"}}"#).await;
    assert_eq!((wrong.status, &wrong.json()["field"]), (422, &json!("spec.kind")));
}

#[tokio::test]
async fn a_stale_write_is_refused() {
    let server = Server::start().await;
    server.apply(BASE).await;
    let body = r#"{"spec":{"subnets":["10.0.1.0/24"]}}"#;
    for (method, headers, status) in [
        ("PUT", [JSON, ("if-match", "\"7\"")], 412),
        ("PATCH", [JSON, ("if-match", "\"7\"")], 412),
        ("DELETE", [JSON, ("if-match", "\"7\"")], 412),
        ("PUT", [JSON, ("if-none-match", "*")], 412),
        ("PUT", [JSON, ("if-match", "\"7\", \"2\"")], 200),
        ("PUT", [JSON, ("if-match", "*")], 200),
    ] {
        let answer = server.send(method, "/v1/networks/blue", &headers, body).await;
        assert_eq!(answer.status, status, "{method} {headers:?}: {answer:?}");
    }
    let absent = server.send("PUT", "/v1/networks/new", &[JSON, ("if-match", "*")], body).await;
    assert_eq!(absent.status, 412);
    let fresh = server.send("PUT", "/v1/networks/new", &[JSON, ("if-none-match", "*")], body).await;
    assert_eq!(fresh.status, 201);
}

#[tokio::test]
async fn lists_are_by_name_and_by_label() {
    let server = Server::start().await;
    server.apply(BASE).await;
    server.apply("kind: Workload\nname: db-1\nspec: { host: host-a, kind: vm, ports: [] }\n").await;
    let names = async |query: &str| {
        let list = server.get(&format!("/v1/workloads{query}")).await.json();
        list["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|i| i["name"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(names("").await, ["db-1", "web-1"]);
    assert_eq!(names("?labels=app%3Dshop").await, ["web-1"]);
    assert_eq!(names("?labels=!app").await, ["db-1"]);
    assert_eq!(names("?labels=app%3Dbank").await, [""; 0]);
}

#[tokio::test]
async fn a_dry_run_says_what_would_be_and_does_nothing() {
    let server = Server::start().await;
    let headers = [("content-type", "application/yaml")];
    let answer = server.send("POST", "/v1/apply?dryRun=true", &headers, BASE).await;
    let applied = answer.json();
    assert_eq!((answer.status, &applied["revision"], &applied["dryRun"]), (200, &json!(1), &json!(true)));
    assert_eq!(applied["results"][1], json!({ "kind": "Network", "name": "blue", "change": "created" }));
    assert_eq!(server.get("/v1/networks").await.json()["items"], json!([]));
    server.apply(BASE).await;
    let answer = server.send("POST", "/v1/delete?dryRun=true", &headers, BASE).await;
    assert_eq!(answer.json()["results"][0]["change"], "deleted");
    let answer = server.send("POST", "/v1/delete", &headers, BASE).await;
    assert_eq!((answer.status, answer.json()["revision"].as_u64()), (200, Some(3)));
    let answer = server.send("POST", "/v1/delete", &headers, BASE).await;
    assert_eq!(answer.json()["results"][0]["change"], "unchanged");
}

#[tokio::test]
async fn a_workload_shows_what_was_derived() {
    let server = Server::start().await;
    server.apply(BASE).await;
    let status = server.get("/v1/workloads/web-1").await.json()["status"].clone();
    assert_eq!(status["connected"], false);
    let port = &status["ports"][0];
    assert_eq!((&port["mac"], &port["mtu"]), (&json!("f6:7d:f9:29:85:eb"), &json!(1500)));
    assert_eq!(port["attach"], json!({ "vhostUser": { "role": "server" } }));
    let network = server.get("/v1/networks/blue").await.json();
    assert_eq!(network["status"], json!({ "vni": 4096, "mtu": 1500, "gateways": ["10.0.1.1"], "ports": 1 }));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_writers_that_collide_none_is_lost() {
    use mgmt_types::{Kind, ProblemKind};
    const WRITERS: u64 = 8;
    const EACH: u64 = 10;
    let server = Server::start().await;
    server.apply("kind: Host\nname: tally\nlabels: { n: '0' }\n").await;
    let writers = (0..WRITERS).map(|_| {
        let client = server.client();
        tokio::spawn(async move {
            for _ in 0..EACH {
                loop {
                    let host = client.get(Kind::Host, "tally").await.unwrap();
                    let n: u64 = host.labels()["n"].parse().unwrap();
                    let patch = json!({ "labels": { "n": (n + 1).to_string() } });
                    match client.patch(Kind::Host, "tally", &patch, host.revision()).await {
                        Ok(_) => break,
                        Err(mgmt_client::Error::Problem(problem)) => {
                            assert!(problem.is(ProblemKind::Stale), "{problem}");
                        }
                        Err(other) => panic!("{other}"),
                    }
                }
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    let host = server.get("/v1/hosts/tally").await.json();
    assert_eq!(host["labels"]["n"], (WRITERS * EACH).to_string());
    assert_eq!(host["revision"], 2 + WRITERS * EACH, "a revision was made for a write that was refused");
}
