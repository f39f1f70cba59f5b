//! A user's mistake is never a 500: it is told where it is and what would be right.

use serde_json::Value;

use crate::server::{BASE, Server};

const YAML: &str = "application/yaml";
const JSON: &str = "application/json";

/// What one wrong request is answered with.
struct Case {
    name: &'static str,
    format: &'static str,
    body: String,
    status: u16,
    kind: &'static str,
    field: &'static str,
    line: u64,
    /// Words that the answer has.
    words: &'static str,
}

fn case(
    name: &'static str,
    format: &'static str,
    body: impl Into<String>,
    (status, kind): (u16, &'static str),
    (field, line): (&'static str, u64),
    words: &'static str,
) -> Case {
    Case { name, format, body: body.into(), status, kind, field, line, words }
}

const SYNTAX: (u16, &str) = (400, "syntax");
const INVALID: (u16, &str) = (422, "invalid");

fn cases() -> Vec<Case> {
    let web_2 = |more: &str| {
        format!(
            "kind: Workload\nname: web-2\nspec:\n  host: host-a\n  kind: vm\n  ports:\n  - name: eth0\n    network: blue\n{more}"
        )
    };
    vec![
        case("bad YAML", YAML, "kind: Network\nname: [\n", SYNTAX, ("", 3), "not YAML"),
        case("bad JSON", JSON, "{\n  \"kind\": \"Network\",\n  \"name\": }", SYNTAX, ("", 3), "not JSON"),
        case("a key twice", YAML, "kind: Network\nname: a\nname: b\n", SYNTAX, ("", 3), "each key once"),
        case(
            "an unknown field",
            YAML,
            web_2("    colour: red\n"),
            INVALID,
            ("spec.ports[0].colour", 9),
            "name, network, addresses",
        ),
        case(
            "an unknown field in JSON",
            JSON,
            "{\"kind\": \"Host\",\n \"name\": \"h\",\n \"colour\": 1}",
            INVALID,
            ("colour", 3),
            "name, labels",
        ),
        case(
            "an unknown kind",
            YAML,
            "kind: Netwerk\nname: a\n",
            INVALID,
            ("kind", 1),
            "Network, Router, Workload, Host, Group or FirewallPolicy",
        ),
        case(
            "a field that is missing",
            YAML,
            "kind: Network\nname: a\nspec: {}\n",
            INVALID,
            ("spec.subnets", 3),
            "missing",
        ),
        case(
            "a value of the wrong type",
            YAML,
            "kind: Network\nname: a\nspec: { subnets: 10.0.0.0/8 }\n",
            INVALID,
            ("spec.subnets", 3),
            "a list",
        ),
        case(
            "a wrong reference",
            YAML,
            web_2("").replace("blue", "blu"),
            INVALID,
            ("spec.ports[0].network", 8),
            "blue",
        ),
        case(
            "an unknown host",
            YAML,
            web_2("").replace("host-a", "host-b"),
            INVALID,
            ("spec.host", 4),
            "host-a",
        ),
        case(
            "a duplicate address",
            YAML,
            web_2("    addresses: [10.0.1.11]\n"),
            INVALID,
            ("spec.ports[0].addresses[0]", 9),
            "Workload/web-1",
        ),
        case(
            "an address outside",
            YAML,
            web_2("    addresses: [10.0.2.11]\n"),
            INVALID,
            ("spec.ports[0].addresses[0]", 9),
            "10.0.1.0/24",
        ),
        case(
            "an overlap in a router",
            YAML,
            "kind: Network\nname: red\nspec:\n  router: shop\n  subnets:\n  - 10.9.0.0/24\n  - 10.0.1.128/25\n",
            INVALID,
            ("spec.subnets[1]", 7),
            "10.0.1.0/24 of Network/blue",
        ),
        case(
            "a name too long",
            YAML,
            format!("kind: Host\nname: {}\n", "h".repeat(64)),
            INVALID,
            ("name", 2),
            "at most 63",
        ),
        case("a name of wrong letters", YAML, "kind: Host\nname: Host_A\n", INVALID, ("name", 2), "a-z"),
        case(
            "an MTU too small",
            YAML,
            "kind: Network\nname: a\nspec: { subnets: [], mtu: 500 }\n",
            INVALID,
            ("spec.mtu", 3),
            "1280 to 9216",
        ),
        case("deep nesting in YAML", YAML, "[".repeat(5000), SYNTAX, ("", 1), "at most 32 levels"),
        case("deep nesting in JSON", JSON, "[".repeat(5000), SYNTAX, ("", 1), "at most 32 levels"),
        case("an alias bomb", YAML, bomb(), SYNTAX, ("", 6), "at most 500000"),
        case("no documents that are resources", YAML, "hello", INVALID, ("", 1), "mapping"),
        case(
            "a file of the wrong shape",
            "application/vnd.palisade.files+json",
            "[{\"file\": 1}]",
            INVALID,
            ("[0].file", 1),
            "a string",
        ),
    ]
}

fn bomb() -> String {
    let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for level in 1..9 {
        let inner = format!("*a{}", level - 1);
        text.push_str(&format!("a{level}: &a{level} [{}]\n", [inner.as_str(); 9].join(", ")));
    }
    text
}

#[tokio::test]
async fn each_mistake_is_told_with_place_and_remedy_and_changes_nothing() {
    let server = Server::start().await;
    let before = server.apply(BASE).await;
    for case in cases() {
        let headers = [("content-type", case.format)];
        let answer = server.send("POST", "/v1/apply", &headers, &case.body).await;
        let name = case.name;
        assert_eq!(answer.status, case.status, "{name}: {answer:?}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{name}");
        let problem = answer.json();
        assert_eq!(problem["type"], format!("urn:palisade:problem:{}", case.kind), "{name}: {problem}");
        assert_eq!(problem["status"], case.status, "{name}: {problem}");
        assert_eq!(problem["field"].as_str().unwrap_or_default(), case.field, "{name}: {problem}");
        assert_eq!(problem["line"], case.line, "{name}: {problem}");
        assert!(answer.body.contains(case.words), "{name}: {problem}");
        assert!(!problem["detail"].as_str().unwrap().is_empty(), "{name}: {problem}");
    }
    let list = server.get("/v1/networks").await.json();
    assert_eq!(list["revision"], before, "something was applied");
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn one_wrong_document_of_many_undoes_all() {
    let server = Server::start().await;
    server.apply(BASE).await;
    let good = "kind: Network\nname: green\nspec: { subnets: [] }\n";
    let bad = "kind: Workload\nname: w\nspec: { host: nowhere, kind: vm, ports: [] }\n";
    let body = serde_json::json!([{ "file": "a.yaml", "text": good }, { "file": "dir/b.yaml", "text": format!("\n{bad}") }]);
    let headers = [("content-type", "application/vnd.palisade.files+json")];
    let answer = server.send("POST", "/v1/apply", &headers, &body.to_string()).await;
    assert_eq!(answer.status, 422);
    let problem = answer.json();
    assert_eq!((&problem["file"], &problem["line"]), (&"dir/b.yaml".into(), &4.into()));
    assert_eq!(server.get("/v1/networks/green").await.status, 404);
}

#[tokio::test]
async fn what_is_in_use_is_not_deleted() {
    let server = Server::start().await;
    server.apply(BASE).await;
    for path in ["/v1/networks/blue", "/v1/hosts/host-a"] {
        let answer = server.send("DELETE", path, &[], "").await;
        assert_eq!(answer.status, 409, "{answer:?}");
        assert!(answer.body.contains("Workload/web-1"), "{answer:?}");
    }
}

/// Method, path, headers, body, and the status it is answered with.
type Senseless = (&'static str, &'static str, Vec<(&'static str, &'static str)>, &'static str, u16);

#[tokio::test]
async fn requests_that_make_no_sense_are_told_so() {
    let server = Server::start().await;
    server.apply(BASE).await;
    let json = ("content-type", "application/json");
    let cases: Vec<Senseless> = vec![
        ("GET", "/v1/nets", vec![], "", 404),
        ("GET", "/v1/networks/none", vec![], "", 404),
        ("GET", "/no/such/address", vec![], "", 404),
        ("POST", "/v1/networks/blue", vec![json], "{}", 405),
        ("DELETE", "/v1/apply", vec![], "", 405),
        ("POST", "/v1/apply", vec![("content-type", "text/html")], "x", 415),
        ("POST", "/v1/apply", vec![], "x", 415),
        ("PUT", "/v1/networks/blue", vec![json], r#"{"name":"red","spec":{"subnets":[]}}"#, 422),
        ("PUT", "/v1/networks/blue", vec![json], r#"{"kind":"Host","spec":{}}"#, 422),
        ("PUT", "/v1/networks/blue", vec![json], "[]", 422),
        ("PUT", "/v1/networks/Blue", vec![json], r#"{"spec":{"subnets":[]}}"#, 422),
        ("PATCH", "/v1/networks/blue", vec![json], "5", 422),
        ("PATCH", "/v1/networks/none", vec![json], "{}", 404),
        (
            "PUT",
            "/v1/networks/blue",
            vec![json, ("if-none-match", "\"1\"")],
            r#"{"spec":{"subnets":[]}}"#,
            422,
        ),
        ("POST", "/v1/apply?dry=1", vec![json], "[]", 422),
        ("GET", "/v1/networks?labels=%3Dx", vec![], "", 422),
        ("GET", "/v1/networks?colour=red", vec![], "", 422),
        ("GET", "/v1/revisions/none", vec![], "", 422),
        ("GET", "/v1/revisions/0", vec![], "", 404),
        ("GET", "/v1/revisions/999", vec![], "", 404),
        ("GET", "/v1/audit?limit=many", vec![], "", 422),
        ("GET", "/v1/watch?from=x", vec![], "", 422),
        ("GET", "/v1/watch?from=99", vec![], "", 422),
    ];
    let of_hosts: Vec<Senseless> = vec![
        ("GET", "/v1/agent/state", vec![], "", 422),
        ("GET", "/v1/agent/state?host=A", vec![], "", 422),
        ("POST", "/v1/agent/status", vec![json], "{}", 422),
        ("POST", "/v1/agent/certificate", vec![json], "{}", 422),
        ("POST", "/v1/join", vec![json], "{}", 422),
        ("GET", "/v1/join", vec![], "", 405),
    ];
    let member = server.join("host-a").await;
    let cases = cases.into_iter().map(|case| (None, case));
    for (host, case) in cases.chain(of_hosts.into_iter().map(|case| (Some(&member), case))) {
        let (method, path, headers, body, status) = case;
        let answer = match host {
            None => server.send(method, path, &headers, body).await,
            member => server.ask_as(member, method, path, &headers, body.as_bytes()).await,
        };
        assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
        let problem = answer.json();
        assert!(!problem["detail"].as_str().unwrap_or_default().is_empty(), "{method} {path}: {problem}");
        assert_ne!(problem["title"], Value::Null, "{method} {path}: {problem}");
    }
}
