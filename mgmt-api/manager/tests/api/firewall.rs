//! Groups and firewall policies: what is refused, what stays, what follows.

use std::path::Path;

use mgmt_types::Role;
use mgmt_types::agent::{HostStatus, Link, Peer, PortStatus, RuleStatus, Slice};
use serde_json::{Value, json};

use crate::server::{BASE, PATIENCE, Server};

/// Groups and a policy for the workload of [`BASE`].
const SHOP: &str = "\
kind: Group
name: web
spec: { match: \"app = shop and name = web-*\" }
---
kind: Group
name: db
spec: { match: app = db }
---
kind: FirewallPolicy
name: shop
spec:
  appliesTo: [web, db]
  rules:
    - { name: https, direction: in, action: allow, services: [https] }
    - { name: to-db, action: allow, from: [web], to: [db, 10.0.9.0/24], services: [postgres], log: true }
    - { name: rest, action: reject }
";

const YAML: (&str, &str) = ("content-type", "application/yaml");
const JSON: (&str, &str) = ("content-type", "application/json");

async fn server() -> Server {
    let server = Server::start().await;
    server.apply(BASE).await;
    server.apply(SHOP).await;
    server
}

async fn apply(server: &Server, yaml: &str) -> (u16, Value) {
    let answer = server.send("POST", "/v1/apply", &[YAML], yaml).await;
    (answer.status, answer.json())
}

async fn status(server: &Server, path: &str) -> Value {
    server.get(path).await.json()["status"].clone()
}

#[tokio::test]
async fn every_wrong_field_is_named_with_what_would_be_right() {
    let server = server().await;
    let group = |spec: &str| format!("kind: Group\nname: g\nspec: {spec}\n");
    let policy = |spec: &str| format!("kind: FirewallPolicy\nname: p\nspec: {{ {spec} }}\n");
    let rule = |rule: &str| policy(&format!("appliesTo: [any], rules: [{{ {rule} }}]"));
    let cases = [
        (group("{ match: \"tier web\" }"), "spec.match", "at column 6 instead of 'web'"),
        (group("{ match: \"kind = ship\" }"), "spec.match", "vm, container or host"),
        (group("{ match: 5 }"), "spec.match", "an expression"),
        (group("{ name: \"Web-*\" }"), "spec.name", "a pattern such as web-*"),
        (group("{ workloads: [web-1, Web] }"), "spec.workloads[1]", "letters a-z"),
        (group("{ cidrs: [10.0.0.1/8] }"), "spec.cidrs[0]", "10.0.0.0/8"),
        (group("{ cidrs: [here] }"), "spec.cidrs[0]", "such as 10.0.1.11"),
        (group("{}"), "spec", "at least one of match, name, workloads and cidrs"),
        (group("{ labels: { a: b } }"), "spec.labels", "match, name, workloads or cidrs"),
        ("kind: Group\nname: any\nspec: { name: a }\n".to_owned(), "name", "another name"),
        ("kind: Group\nname: g\n".to_owned(), "spec", "missing"),
        (policy("appliesTo: [any], rules: [], tier: top"), "spec.tier", "emergency, security"),
        (policy("appliesTo: [any], rules: [], priority: 70000"), "spec.priority", "0 to 65535"),
        (policy("appliesTo: [any], rules: [], mode: dry"), "spec.mode", "enforce or audit"),
        (policy("appliesTo: [], rules: []"), "spec.appliesTo", "at least one entry"),
        (policy("appliesTo: [10.0.0.1/8], rules: []"), "spec.appliesTo[0]", "10.0.0.0/8"),
        (policy("rules: []"), "spec.appliesTo", "missing"),
        (policy("appliesTo: [any]"), "spec.rules", "missing"),
        (rule("action: allow"), "spec.rules[0].name", "missing"),
        (rule("name: A, action: allow"), "spec.rules[0].name", "letters a-z"),
        (rule("name: a"), "spec.rules[0].action", "missing"),
        (rule("name: a, action: accept"), "spec.rules[0].action", "allow, drop or reject"),
        (rule("name: a, action: allow, direction: both"), "spec.rules[0].direction", "in or out"),
        (rule("name: a, action: allow, from: [Web]"), "spec.rules[0].from[0]", "the name of a group"),
        (rule("name: a, action: allow, from: []"), "spec.rules[0].from", "at least one entry"),
        (rule("name: a, action: allow, to: [10.0.0.0/40]"), "spec.rules[0].to[0]", "10.0.1.0/24"),
        (rule("name: a, action: allow, services: [tcp/0-70000]"), "spec.rules[0].services[0]", "0 to 65535"),
        (rule("name: a, action: allow, services: [udp/9-5]"), "spec.rules[0].services[0]", "5-9"),
        (rule("name: a, action: allow, services: [http, gopher]"), "spec.rules[0].services[1]", "https, ssh"),
        (rule("name: a, action: allow, services: [icmp/300]"), "spec.rules[0].services[0]", "icmp/3/4"),
        (rule("name: a, action: allow, services: []"), "spec.rules[0].services", "at least one entry"),
        (rule("name: a, action: allow, log: maybe"), "spec.rules[0].log", "true or false"),
        (
            rule("name: a, action: drop, keepEstablished: true"),
            "spec.rules[0].keepEstablished",
            "action allow",
        ),
        (rule("name: a, action: allow, port: 5"), "spec.rules[0].port", "services"),
        (rule("name: a, action: allow }, { name: a, action: drop"), "spec.rules[1].name", "no other rule"),
        // References.
        (policy("appliesTo: [wep], rules: []"), "spec.appliesTo[0]", "a known group: db, web"),
        (rule("name: a, action: allow, from: [web, wep]"), "spec.rules[0].from[1]", "a known group: db, web"),
        (rule("name: a, action: allow, to: [wep]"), "spec.rules[0].to[0]", "a known group: db, web"),
        (BASE.replace("addresses: [10.0.1.11]", "firewall: audit"), "spec.ports[0].firewall", "on or off"),
    ];
    for (yaml, field, words) in cases {
        let (code, problem) = apply(&server, &yaml).await;
        assert_eq!((code, problem["field"].as_str()), (422, Some(field)), "{yaml}: {problem}");
        assert!(problem["line"].is_u64(), "{yaml}: {problem}");
        assert!(problem.to_string().contains(words), "{yaml}: {problem}");
    }
    assert_eq!(server.get("/v1/groups").await.json()["revision"], 3, "something was applied");
}

#[tokio::test]
async fn a_group_in_use_stays_and_goes_with_its_user() {
    let server = server().await;
    let answer = server.send("DELETE", "/v1/groups/db", &[], "").await;
    assert_eq!(answer.status, 409, "{answer:?}");
    assert!(answer.body.contains("spec.appliesTo[1] of FirewallPolicy/shop"), "{answer:?}");
    let names = "kind: Group\nname: db\n---\nkind: FirewallPolicy\nname: shop\n";
    let answer = server.send("POST", "/v1/delete", &[YAML], names).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(server.get("/v1/groups/db").await.status, 404);
}

#[tokio::test]
async fn the_baseline_is_there_from_the_start_and_changes_but_stays() {
    let server = Server::start().await;
    let baseline = server.get("/v1/firewallpolicies/baseline").await.json();
    let rules: Vec<&str> = baseline["spec"]["rules"]
        .as_array()
        .unwrap()
        .iter()
        .map(|rule| rule["name"].as_str().unwrap())
        .collect();
    assert_eq!((&baseline["revision"], rules), (&json!(1), vec!["dns-in", "dhcp-in", "out", "in"]));
    assert_eq!(
        (&baseline["spec"]["tier"], &baseline["spec"]["appliesTo"]),
        (&json!("baseline"), &json!(["any"]))
    );
    let made = server.get("/v1/revisions/1").await.json();
    assert_eq!((&made["author"], &made["changes"][0]["name"]), (&json!("manager"), &json!("baseline")));

    let refused = server.send("DELETE", "/v1/firewallpolicies/baseline", &[], "").await;
    assert_eq!((refused.status, &refused.json()["type"]), (409, &json!("urn:palisade:problem:in-use")));
    assert!(refused.body.contains("what holds when no other policy decides"), "{refused:?}");
    let path = "/v1/firewallpolicies/baseline";
    let moved = server.send("PATCH", path, &[JSON], r#"{"spec":{"tier":"emergency"}}"#).await;
    assert_eq!((moved.status, &moved.json()["field"]), (422, &json!("spec.tier")));
    let open = r#"{"spec":{"rules":[{"name":"in","action":"allow"}]}}"#;
    assert_eq!(server.send("PATCH", path, &[JSON], open).await.status, 200);
    // Another policy may stand in its tier.
    let other = "kind: FirewallPolicy\nname: mine\nspec: { tier: baseline, appliesTo: [any], rules: [] }\n";
    server.apply(other).await;

    // What an operator made of it outlives a restart.
    let server = Server::start_in(server.stop().await).await;
    let baseline = server.get(path).await.json();
    assert_eq!(
        (&baseline["revision"], &baseline["spec"]["rules"][0]["action"]),
        (&json!(2), &json!("allow"))
    );
}

#[tokio::test]
async fn a_store_of_an_older_version_gets_the_baseline_and_keeps_what_it_has() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    std::fs::create_dir(&state).unwrap();
    // Written by the last version that knew neither groups nor policies, from `BASE`.
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/layout-1");
    for name in ["manager.redb", "admin.token"] {
        std::fs::copy(kept.join(name), state.join(name)).unwrap();
    }
    let server = Server::start_in(directory).await;
    assert!(!server.running.is_first_start());
    // Its administrator is a user now, and nobody may be a host by a token.
    let users = server.client().users().await.unwrap();
    let users: Vec<_> = users.iter().map(|user| (user.name.as_str(), user.role, user.tokens)).collect();
    assert_eq!(users, [("admin", mgmt_types::Role::Admin, 1)]);
    assert_eq!(server.client().tokens().await.unwrap().len(), 1);
    assert_eq!(server.get("/v1/firewallpolicies/baseline").await.json()["revision"], 2);
    let workload = server.get("/v1/workloads/web-1").await.json();
    assert_eq!((&workload["revision"], &workload["status"]["ports"][0]["id"]), (&json!(1), &json!(1)));
    assert_eq!(workload["status"]["policies"], json!(["baseline"]));
    // Its host has something to do.
    let revision = server.get("/v1/revisions/2").await.json();
    assert_eq!((&revision["author"], &revision["hosts"]), (&json!("manager"), &json!(["host-a"])));
    assert_eq!(server.apply(BASE).await, 2);
    server.apply(SHOP).await;
    assert_eq!(status(&server, "/v1/workloads/web-1").await["groups"], json!(["web"]));
}

#[tokio::test]
async fn membership_follows_a_label() {
    let server = server().await;
    let groups = async || status(&server, "/v1/workloads/web-1").await["groups"].clone();
    let members = async |group: &str| status(&server, &format!("/v1/groups/{group}")).await;
    assert_eq!(groups().await, json!(["web"]));
    assert_eq!(members("web").await, json!({ "count": 1, "members": ["web-1"], "usedBy": ["shop"] }));
    assert_eq!(status(&server, "/v1/firewallpolicies/shop").await["workloads"], 1);
    let label = |value: &str| format!(r#"{{"labels":{{"app":"{value}"}}}}"#);
    server.send("PATCH", "/v1/workloads/web-1", &[JSON], &label("db")).await;
    assert_eq!(groups().await, json!(["db"]));
    assert_eq!(members("web").await["count"], 0);
    server.send("PATCH", "/v1/workloads/web-1", &[JSON], &label("none")).await;
    let workload = status(&server, "/v1/workloads/web-1").await;
    assert_eq!((&workload["groups"], &workload["policies"]), (&json!([]), &json!(["baseline"])));
    // A group that changes takes along whom it chooses, by address too.
    server.apply("kind: Group\nname: db\nspec: { match: app = db, cidrs: [10.0.1.8/29] }\n").await;
    let workload = status(&server, "/v1/workloads/web-1").await;
    assert_eq!((&workload["groups"], &workload["policies"]), (&json!(["db"]), &json!(["shop", "baseline"])));
}

async fn slice(server: &Server) -> Slice {
    let agent = server.host("host-a").await;
    let mut slices = agent.agent_state_stream("host-a", 0).await.unwrap();
    tokio::time::timeout(PATIENCE, slices.next()).await.unwrap().unwrap().unwrap()
}

#[tokio::test]
async fn a_host_gets_groups_identities_and_policies_by_number() {
    let server = server().await;
    let slice = slice(&server).await;
    let groups: Vec<&str> = slice.groups.iter().map(|group| group.name.as_str()).collect();
    assert_eq!(groups, ["db", "web"]);
    assert_eq!((slice.identities.len(), slice.identities[0].groups.as_slice()), (1, &[1][..]));
    assert_eq!((slice.ports[0].identity, slice.ports[0].firewall), (slice.identities[0].id, true));
    let policies: Vec<&str> = slice.policies.iter().map(|policy| policy.name.as_str()).collect();
    assert_eq!(policies, ["shop", "baseline"]);
    let to_db = &slice.policies[0].rules[1];
    assert_eq!(to_db.from, [Peer::Group(1)]);
    assert_eq!(to_db.to, [Peer::Group(0), Peer::Cidr("10.0.9.0/24".parse().unwrap())]);
    assert_eq!((to_db.services[0].protocol, to_db.services[0].ports), (Some(6), Some((5432, 5432))));
    assert!(to_db.log && slice.settings.tcp_pick_up);
    assert_eq!(slice.policies[0].revision, 3);
}

#[tokio::test]
async fn numbers_of_rules_and_of_sets_of_groups_stay() {
    let server = server().await;
    let ids = async |server: &Server| -> Vec<(String, u64)> {
        let report = status(server, "/v1/firewallpolicies/shop").await;
        let rule = |rule: &Value| (rule["name"].as_str().unwrap().to_owned(), rule["id"].as_u64().unwrap());
        report["rules"].as_array().unwrap().iter().map(rule).collect()
    };
    let before = ids(&server).await;
    let identity = slice(&server).await.ports[0].identity;
    assert_ne!(identity, 0);
    // Other rules, another order, other contents: who keeps the name keeps the number.
    let edited = SHOP.replace("    - { name: https, direction: in, action: allow, services: [https] }\n", "")
        + "    - { name: more, action: drop }\n    - { name: https, action: drop }\n";
    server.apply(&edited).await;
    let after = ids(&server).await;
    let names: Vec<&str> = after.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["to-db", "rest", "more", "https"]);
    let id = |ids: &[(String, u64)], name: &str| ids.iter().find(|(n, _)| n == name).map(|(_, id)| *id);
    for name in ["to-db", "rest", "https"] {
        assert_eq!(id(&after, name), id(&before, name), "{name}");
    }
    let newest = id(&after, "more").unwrap();
    assert!(before.iter().all(|(_, id)| *id < newest));
    // A rule that goes and comes back is another one.
    server.apply(SHOP).await;
    server.apply(&edited).await;
    assert!(id(&ids(&server).await, "more").unwrap() > newest);

    let known = ids(&server).await;
    let server = Server::start_in(server.stop().await).await;
    assert_eq!(ids(&server).await, known);
    assert_eq!(slice(&server).await.ports[0].identity, identity);
}

#[tokio::test]
async fn what_hosts_count_and_enforce_is_told_and_summed() {
    let server = server().await;
    let path = "/v1/workloads/web-1";
    assert_eq!(status(&server, path).await["enforced"], "pending");
    let agent = server.host("host-a").await;
    let workload = status(&server, path).await;
    let id = |value: &Value| u32::try_from(value["id"].as_u64().unwrap()).unwrap();
    let rule = id(&status(&server, "/v1/firewallpolicies/shop").await["rules"][0]);
    let said = |revision, enforced| HostStatus {
        host: "host-a".into(),
        version: "1".into(),
        revision,
        ports: vec![PortStatus {
            id: id(&workload["ports"][0]),
            link: Link::Up,
            enforced,
            flows: 3,
            flow_limit: 100,
            ..PortStatus::default()
        }],
        rules: vec![
            RuleStatus {
                id: rule,
                packets: 10,
                bytes: 1000,
                hits: 2,
                last_hit: Some(1_700_000_000_123),
                would: 1,
            },
            RuleStatus { id: 999, hits: 1, ..RuleStatus::default() },
        ],
        ..HostStatus::default()
    };
    for (revision, enforced, shown) in [(1, true, "pending"), (3, false, "no"), (3, true, "yes")] {
        agent.post_status(&said(revision, enforced)).await.unwrap();
        let now = status(&server, path).await;
        assert_eq!((&now["enforced"], &now["ports"][0]["enforced"]), (&json!(shown), &json!(shown)));
    }
    assert_eq!(status(&server, path).await["ports"][0]["flowLimit"], 100);
    // Another host counts on; one that says nothing sensible about time does no harm.
    let mut other = HostStatus { host: "host-b".into(), ports: Vec::new(), ..said(3, true) };
    other.rules[0].last_hit = Some(u64::MAX);
    let neighbour = server.host("host-b").await;
    neighbour.post_status(&other).await.unwrap();
    let counted = status(&server, "/v1/firewallpolicies/shop").await["rules"][0].clone();
    assert_eq!(
        (&counted["hits"], &counted["packets"], &counted["bytes"], &counted["would"]),
        (&json!(4), &json!(20), &json!(2000), &json!(2))
    );
    assert!(counted["lastHit"].as_str().unwrap().starts_with("20"), "{counted}");
    let again = HostStatus { rules: said(3, true).rules, ..other };
    neighbour.post_status(&again).await.unwrap();
    let counted = status(&server, "/v1/firewallpolicies/shop").await["rules"][0].clone();
    assert_eq!(counted["lastHit"], "2023-11-14T22:13:20.123Z");

    // An excluded port is enforced by nothing, whatever its host says.
    let off = BASE.replace("addresses: [10.0.1.11]", "addresses: [10.0.1.11], firewall: off");
    let revision = server.apply(&off).await;
    agent.post_status(&said(revision, true)).await.unwrap();
    assert_eq!(status(&server, path).await["enforced"], "no");
    assert!(!slice(&server).await.ports[0].firewall);
}

#[tokio::test]
async fn a_viewer_reads_and_does_not_write() {
    let server = server().await;
    let bearer = format!("Bearer {}", server.token("looker", Role::Viewer).await);
    let ask = async |method: &str, path: &str, body: &str| {
        let headers = [("authorization", bearer.as_str()), JSON];
        server.ask(method, path, &headers, body.as_bytes()).await.status
    };
    for path in ["/v1/groups", "/v1/groups/web", "/v1/firewallpolicies", "/v1/firewallpolicies/baseline"] {
        assert_eq!(ask("GET", path, "").await, 200, "{path}");
    }
    let group = r#"{"spec":{"name":"a*"}}"#;
    assert_eq!(ask("PUT", "/v1/groups/new", group).await, 403);
    assert_eq!(ask("PATCH", "/v1/firewallpolicies/baseline", r#"{"spec":{"rules":[]}}"#).await, 403);
    assert_eq!(ask("DELETE", "/v1/firewallpolicies/shop", "").await, 403);
}

#[tokio::test]
async fn a_dry_run_says_what_would_change_and_a_watcher_sees_what_does() {
    let server = server().await;
    let edited = SHOP.replace("services: [https]", "services: [https, tcp/8443-8450]");
    let answer = server.send("POST", "/v1/apply?dryRun=true", &[YAML], &edited).await.json();
    let changes: Vec<&Value> =
        answer["results"].as_array().unwrap().iter().map(|result| &result["change"]).collect();
    assert_eq!(changes, ["unchanged", "unchanged", "configured"]);
    // The one host that would have something to do is told of, though it is not there to say what.
    let impacts = answer["flows"].as_array().unwrap();
    assert_eq!(
        (impacts.len(), &impacts[0]["host"], &impacts[0]["countCut"]),
        (1, &json!("host-a"), &json!(0))
    );
    assert!(impacts[0]["error"].as_str().unwrap().contains("not connected"), "{answer}");
    assert_eq!(server.get("/v1/firewallpolicies/shop").await.json()["revision"], 3);

    let mut events = server.client().watch(Some(2)).await.unwrap();
    server.apply(&edited).await;
    let mut next = async || tokio::time::timeout(PATIENCE, events.next()).await.unwrap().unwrap().unwrap();
    let first = next().await;
    let kinds: Vec<&str> = first.changes.iter().map(|change| change.kind.as_str()).collect();
    assert_eq!((first.revision, kinds), (3, vec!["Group", "Group", "FirewallPolicy"]));
    let second = next().await;
    let after = serde_json::to_value(second.changes[0].after.as_ref().unwrap()).unwrap();
    assert_eq!(after["spec"]["rules"][0]["services"], json!(["https", "tcp/8443-8450"]));
    assert_eq!(second.hosts, ["host-a"]);
}

#[tokio::test]
async fn what_was_read_can_be_written_back_as_it_is() {
    let server = server().await;
    for path in ["/v1/groups/web", "/v1/firewallpolicies/shop", "/v1/firewallpolicies/baseline"] {
        let read = server.get(path).await;
        let revision = read.json()["revision"].clone();
        let written = server.send("PUT", path, &[JSON], &read.body).await;
        assert_eq!((written.status, &written.json()["revision"]), (200, &revision), "{path}");
    }
}
