//! Who is let in, who is not, and what the audit log says about it.

use mgmt_types::{NewToken, Role};
use serde_json::Value;

use crate::server::{BASE, PATIENCE, Server};

async fn audit(server: &Server) -> Vec<Value> {
    server.get("/v1/audit?limit=1000").await.json()["items"].as_array().unwrap().clone()
}

#[tokio::test]
async fn without_a_valid_token_there_is_401_and_an_audit_entry() {
    let server = Server::start().await;
    for (headers, path) in [
        (vec![], "/v1/networks"),
        (vec![("authorization", "Bearer wrong")], "/v1/workloads"),
        (vec![("authorization", "Basic YTpi")], "/v1/hosts"),
        (vec![("authorization", "Bearer ")], "/metrics"),
        (vec![], "/v1/openapi.json"),
        (vec![], "/no/such/address"),
    ] {
        let answer = server.ask("GET", path, &headers, b"").await;
        assert_eq!(answer.status, 401, "{path}: {answer:?}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        assert_eq!(answer.header("www-authenticate"), Some("bearer"));
        assert!(!answer.body.contains("wrong"), "the token is sent back: {answer:?}");
        let entries = audit(&server).await;
        let entry = entries.iter().find(|entry| entry["action"] == format!("GET {path}")).unwrap();
        assert_eq!((&entry["status"], &entry["peer"]), (&401.into(), &"127.0.0.1".into()));
        assert_eq!(entry["author"], Value::Null);
    }
}

#[tokio::test]
async fn a_role_does_what_it_may_and_nothing_else() {
    let server = Server::start().await;
    server.apply(BASE).await;
    let network = r#"{"spec":{"subnets":[]}}"#;
    let json = ("content-type", "application/json");
    let yaml = ("content-type", "application/yaml");
    // Method, path, header, body, and the roles that may: a viewer, o operator, a admin, g agent.
    let requests = [
        ("GET", "/v1/networks", json, "", "voa"),
        ("GET", "/v1/networks/blue", json, "", "voa"),
        ("PUT", "/v1/networks/red", json, network, "oa"),
        ("PATCH", "/v1/networks/blue", json, r#"{"labels":{"a":"b"}}"#, "oa"),
        ("DELETE", "/v1/workloads/nothing", json, "", "oa"),
        ("POST", "/v1/apply", yaml, BASE, "oa"),
        ("POST", "/v1/apply?dryRun=true", yaml, BASE, "oa"),
        ("POST", "/v1/delete?dryRun=true", yaml, BASE, "oa"),
        ("GET", "/v1/audit", json, "", "oa"),
        ("GET", "/v1/revisions/1", json, "", "voa"),
        ("GET", "/v1/revisions/1/realized", json, "", "voa"),
        ("GET", "/v1/tokens", json, "", "a"),
        ("POST", "/v1/tokens", json, r#"{"name":"t","role":"viewer"}"#, "a"),
        ("DELETE", "/v1/tokens/t", json, "", "a"),
        ("POST", "/v1/agent/status", json, r#"{"host":"host-a","version":"1","revision":1,"ports":[]}"#, "g"),
        ("POST", "/v1/agent/answers/1", json, r#"{"answer":{"refused":"no"},"last":true}"#, "g"),
        ("POST", "/v1/agent/certificate", json, r#"{"csr":"none"}"#, "g"),
        ("GET", "/v1/users", json, "", "a"),
        ("POST", "/v1/users", json, r#"{"name":"u","role":"viewer"}"#, "a"),
        ("PUT", "/v1/users/u", json, r#"{"role":"operator"}"#, "a"),
        ("DELETE", "/v1/users/u", json, "", "a"),
        ("GET", "/v1/join-tokens", json, "", "a"),
        ("POST", "/v1/join-tokens", json, r#"{"name":"j"}"#, "a"),
        ("DELETE", "/v1/join-tokens/j", json, "", "a"),
        ("GET", "/v1/authorities", json, "", "voa"),
        ("POST", "/v1/authorities", json, "", "a"),
        ("DELETE", "/v1/authorities/00", json, "", "a"),
        ("POST", "/v1/trace", json, r#"{"source":"web-1","destination":"10.0.1.1","service":"ping"}"#, "voa"),
        ("GET", "/v1/workloads/web-1/verdicts", json, "", "voa"),
        ("GET", "/v1/flows", json, "", "voa"),
        ("GET", "/v1/managers", json, "", "voag"),
        ("GET", "/v1/backup", json, "", "a"),
        ("POST", "/v1/restore", json, "", "a"),
        ("GET", "/v1/openapi.json", json, "", "voag"),
        ("GET", "/metrics", json, "", "voa"),
    ];
    let described = manager::openapi();
    let covered = |path: &str, method: &str| {
        requests.iter().any(|(m, p, ..)| {
            let p = p.split('?').next().unwrap();
            m.eq_ignore_ascii_case(method)
                && p.split('/').count() == path.split('/').count()
                && p.split('/').zip(path.split('/')).all(|(a, b)| a == b || b.starts_with('{'))
        })
    };
    for (path, methods) in described["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            // Streams do not end, health and joining need no token; they have tests of their own.
            let other = ["/v1/watch", "/v1/agent/state", "/v1/join", "/healthz"].contains(&path.as_str());
            assert!(other || covered(path, method), "no case for {method} {path}");
        }
    }
    let member = server.join("host-a").await;
    for (method, path, header, body, may) in requests {
        let answer = server.ask_as(Some(&member), method, path, &[header], body.as_bytes()).await;
        assert_eq!(answer.status == 403, !may.contains('g'), "agent {method} {path}: {answer:?}");
        assert!(answer.status < 500 && answer.status != 401, "agent {method} {path}: {answer:?}");
    }
    for (name, role) in [("v", Role::Viewer), ("o", Role::Operator), ("a", Role::Admin)] {
        let bearer = format!("Bearer {}", server.token(&format!("token-{name}"), role).await);
        for (method, path, header, body, may) in requests {
            let answer =
                server.ask(method, path, &[("authorization", &bearer), header], body.as_bytes()).await;
            let refused = answer.status == 403;
            assert_eq!(refused, !may.contains(name), "{role} {method} {path}: {answer:?}");
            assert!(answer.status < 500 && answer.status != 401, "{role} {method} {path}: {answer:?}");
        }
    }
    let answer = server.ask_as(Some(&member), "GET", "/v1/watch", &[], b"").await;
    assert_eq!(answer.status, 403, "{answer:?}");
    let viewer = format!("Bearer {}", server.token("viewer", Role::Viewer).await);
    let answer = server.ask("GET", "/v1/agent/state?host=x", &[("authorization", &viewer)], b"").await;
    assert_eq!(answer.status, 403, "{answer:?}");
}

#[tokio::test]
async fn a_viewers_write_is_403_and_in_the_audit_log_under_its_name() {
    let server = Server::start().await;
    let bearer = format!("Bearer {}", server.token("looker", Role::Viewer).await);
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let answer = server.ask("PUT", "/v1/networks/x", &headers, br#"{"spec":{"subnets":[]}}"#).await;
    assert_eq!(answer.status, 403);
    let problem = answer.json();
    assert_eq!((&problem["got"], &problem["expected"]), (&"viewer".into(), &"operator or admin".into()));
    let entries = audit(&server).await;
    let entry = entries.iter().find(|entry| entry["action"] == "PUT /v1/networks/x").unwrap();
    assert_eq!((&entry["status"], &entry["author"]), (&403.into(), &"looker".into()));
    assert_eq!(server.get("/v1/networks/x").await.status, 404);
}

#[tokio::test]
async fn a_flood_of_refusals_fills_neither_disk_nor_log() {
    let server = Server::start().await;
    for _ in 0..200 {
        assert_eq!(server.ask("GET", "/v1/networks", &[], b"").await.status, 401);
    }
    let refused = audit(&server).await.iter().filter(|entry| entry["status"] == 401).count();
    // Ten at once, and one more for each second this took.
    assert!((10..100).contains(&refused), "{refused} entries");
    let metrics = server.get("/metrics").await.body;
    assert!(metrics.contains("palisade_manager_refusals_total 200"), "{metrics}");
}

#[tokio::test]
async fn every_change_is_in_the_audit_log_with_author_and_revision() {
    let server = Server::start().await;
    let revision = server.apply(BASE).await;
    let entries = audit(&server).await;
    assert_eq!(entries[0]["author"], "admin");
    assert_eq!(entries[0]["revision"], revision);
    assert_eq!(entries[0]["changes"].as_array().unwrap().len(), 3);
    let diff = server.get(&format!("/v1/revisions/{revision}")).await.json();
    assert_eq!((&diff["author"], &diff["hosts"][0]), (&"admin".into(), &"host-a".into()));
    assert_eq!(diff["changes"][2]["after"]["spec"]["host"], "host-a");
    // Pages of the log follow each other.
    let page = server.get("/v1/audit?limit=1").await.json();
    let id = page["items"][0]["id"].as_u64().unwrap();
    let next = server.get(&format!("/v1/audit?limit=1&before={id}")).await.json();
    assert!(next["items"][0]["id"].as_u64().unwrap() < id);
}

#[tokio::test]
async fn a_token_is_shown_once_and_withdrawn_at_once() {
    let server = Server::start().await;
    let secret = server.token("ci", Role::Operator).await;
    let list = server.get("/v1/tokens").await;
    assert!(list.body.contains("\"ci\"") && !list.body.contains(&secret));
    let client = server.client_with(&secret);
    client.list(mgmt_types::Kind::Network, None).await.unwrap();
    server.client().delete_token("ci").await.unwrap();
    assert!(client.list(mgmt_types::Kind::Network, None).await.is_err());
    for (body, field) in [
        (r#"{"name":"admin","role":"viewer"}"#, "name"),
        (r#"{"name":"Ci","role":"viewer"}"#, "name"),
        (r#"{"name":"ci","role":"root"}"#, "role"),
        (r#"{"name":"ci","role":"viewer","secret":"x"}"#, "secret"),
        (r#"{"name":"ci","role":"agent"}"#, "role"),
        (r#"{"name":"ci"}"#, "user"),
        (r#"{"name":"ci","role":"viewer","user":"admin"}"#, "user"),
        (r#"{"name":"ci","role":"viewer","expiresIn":0}"#, "expiresIn"),
    ] {
        let answer = server.send("POST", "/v1/tokens", &[("content-type", "application/json")], body).await;
        assert_eq!((answer.status, &answer.json()["field"]), (422, &field.into()), "{body}: {answer:?}");
    }
    assert_eq!(server.send("DELETE", "/v1/tokens/admin", &[], "").await.status, 409);
    assert_eq!(server.send("DELETE", "/v1/tokens/nobody", &[], "").await.status, 404);
}

#[tokio::test]
async fn health_needs_no_token_and_tells_nothing() {
    let server = Server::start().await;
    let answer = server.ask("GET", "/healthz", &[], b"").await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "ok\n"));
}

#[tokio::test]
async fn a_user_has_a_role_and_several_tokens_and_is_the_author_of_what_is_done_with_them() {
    let server = Server::start().await;
    let admin = server.client();
    admin.create_user("alice", Role::Viewer).await.unwrap();
    let token = async |name: &str| {
        let wish = NewToken { name: name.into(), user: Some("alice".into()), ..NewToken::default() };
        server.client_with(&admin.create_token_as(&wish).await.unwrap().secret)
    };
    let (laptop, desk) = (token("laptop").await, token("desk").await);
    let host = |name: &str| {
        serde_json::from_value(serde_json::json!({ "kind": "Host", "name": name, "spec": {} })).unwrap()
    };
    assert!(laptop.put(&host("h1"), None).await.is_err());
    admin.change_user("alice", Role::Operator).await.unwrap();
    laptop.put(&host("h1"), None).await.unwrap();
    desk.put(&host("h2"), None).await.unwrap();
    let entries = audit(&server).await;
    assert_eq!((&entries[0]["author"], &entries[1]["author"]), (&"alice".into(), &"alice".into()));

    admin.delete_token("laptop").await.unwrap();
    assert!(laptop.list(mgmt_types::Kind::Host, None).await.is_err());
    desk.list(mgmt_types::Kind::Host, None).await.unwrap();
    assert_eq!(admin.users().await.unwrap()[1].tokens, 1);
    let directory = server.stop().await;
    let server = Server::start_in(directory).await;
    assert_eq!(server.client().users().await.unwrap()[1].role, Role::Operator);
    server.client().delete_user("alice").await.unwrap();
    assert_eq!(server.client().tokens().await.unwrap().len(), 1);
    assert_eq!(audit(&server).await[0]["detail"], "user alice with role operator");
}

#[tokio::test]
async fn a_token_with_an_end_lets_nobody_in_after_it() {
    let server = Server::start().await;
    let wish = NewToken {
        name: "short".into(),
        role: Some(Role::Viewer),
        expires_in: Some(1),
        ..NewToken::default()
    };
    let client = server.client_with(&server.client().create_token_as(&wish).await.unwrap().secret);
    let end = tokio::time::Instant::now() + PATIENCE;
    let problem = loop {
        match client.list(mgmt_types::Kind::Host, None).await {
            Ok(_) => assert!(tokio::time::Instant::now() < end, "it is valid for ever"),
            Err(error) => break error,
        }
    };
    let text = problem.to_string();
    assert!(text.contains("token short expired at") && text.contains("clock says"), "{text}");
}

#[tokio::test]
async fn somebody_can_always_do_everything() {
    let server = Server::start().await;
    let admin = server.client();
    let in_use = |result: Result<(), mgmt_client::Error>| {
        let error = result.unwrap_err();
        assert_eq!(error.problem().map(|problem| problem.status), Some(409), "{error}");
    };
    in_use(admin.delete_token("admin").await);
    in_use(admin.delete_user("admin").await);
    in_use(admin.change_user("admin", Role::Viewer).await.map(drop));
    // One whose token has an end does not count.
    let wish = NewToken {
        name: "short".into(),
        role: Some(Role::Admin),
        expires_in: Some(3600),
        ..NewToken::default()
    };
    admin.create_token_as(&wish).await.unwrap();
    in_use(admin.delete_user("admin").await);
    let other = server.client_with(&server.token("other", Role::Admin).await);
    other.delete_user("admin").await.unwrap();
    assert!(admin.users().await.is_err());
}
