//! The description of the API, and the documentation that people read.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::server::Server;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// What the description says of a schema, with everything it refers to.
fn schema(name: &str) -> Value {
    let components = manager::openapi()["components"].clone();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$ref": format!("#/components/schemas/{name}"),
        "components": components,
    })
}

#[tokio::test]
async fn the_description_is_served_and_checked_in() {
    let server = Server::start().await;
    let served = server.get("/v1/openapi.json").await.json();
    assert_eq!(served, manager::openapi());
    let path = repository().join("docs/openapi.json");
    let text = format!("{}\n", serde_json::to_string_pretty(&served).unwrap());
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    if kept != text {
        // Whoever changed the API finds the new description beside the old one.
        let fresh = Path::new(env!("CARGO_TARGET_TMPDIR")).join("openapi.json");
        std::fs::write(&fresh, text).unwrap();
        panic!("docs/openapi.json is not what the API says any more; copy {} over it", fresh.display());
    }
}

#[test]
fn the_description_is_valid_openapi_3_1() {
    let text =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/openapi-3.1.json"));
    let official: Value = serde_json::from_str(&text.unwrap()).unwrap();
    let validator = jsonschema::draft202012::new(&official).unwrap();
    let description = manager::openapi();
    assert!(description["openapi"].as_str().unwrap().starts_with("3.1."));
    let mistakes: Vec<String> = validator
        .iter_errors(&description)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert!(mistakes.is_empty(), "{mistakes:#?}");
    // The official schema leaves schemas themselves to their dialect.
    for name in description["components"]["schemas"].as_object().unwrap().keys() {
        jsonschema::draft202012::new(&schema(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

#[test]
fn every_reference_of_the_description_leads_somewhere() {
    let description = manager::openapi();
    let mut references = Vec::new();
    collect(&description, &mut references);
    assert!(references.len() > 20);
    for reference in references {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(description.pointer(pointer).is_some(), "{reference}");
    }
}

fn collect(value: &Value, references: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            references.extend(members.get("$ref").and_then(Value::as_str).map(str::to_owned));
            members.values().for_each(|value| collect(value, references));
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, references)),
        _ => {}
    }
}

#[tokio::test]
async fn answers_are_as_described() {
    let server = Server::start().await;
    server.apply(crate::server::BASE).await;
    server
        .apply("kind: Router\nname: shop\nspec: { routes: [{ to: 192.0.2.0/24, via: 10.0.1.99 }] }\n---\nkind: Group\nname: all\nspec: { name: '*', match: exists app, cidrs: [10.0.0.0/8] }\n")
        .await;
    let check = |name: &str, value: &Value| {
        let validator = jsonschema::draft202012::new(&schema(name)).unwrap();
        let mistakes: Vec<String> = validator.iter_errors(value).map(|error| error.to_string()).collect();
        assert!(mistakes.is_empty(), "{name}: {mistakes:#?}\n{value:#}");
    };
    for (path, name) in [
        ("/v1/networks", "ResourceList"),
        ("/v1/workloads", "ResourceList"),
        ("/v1/hosts", "ResourceList"),
        ("/v1/workloads/web-1", "Resource"),
        ("/v1/workloads/web-1", "Workload"),
        ("/v1/networks/blue", "Network"),
        ("/v1/hosts/host-a", "Host"),
        ("/v1/groups", "ResourceList"),
        ("/v1/routers", "ResourceList"),
        ("/v1/routers/shop", "Router"),
        ("/v1/firewallpolicies", "ResourceList"),
        ("/v1/groups/all", "Group"),
        ("/v1/firewallpolicies/baseline", "FirewallPolicy"),
        ("/v1/revisions/1", "Revision"),
        ("/v1/revisions/1/realized", "Realised"),
        ("/v1/audit", "AuditList"),
        ("/v1/tokens", "TokenList"),
        ("/v1/networks/none", "Problem"),
    ] {
        check(name, &server.get(path).await.json());
    }
    let wrong = json!({ "kind": "Network", "name": "a", "spec": { "subnets": [], "colour": 1 } });
    assert!(!jsonschema::draft202012::new(&schema("Resource")).unwrap().is_valid(&wrong));
}

#[tokio::test]
async fn the_firewall_is_as_its_page_says() {
    let page = std::fs::read_to_string(repository().join("docs/firewall.md")).unwrap();
    let server = Server::start().await;
    let examples = blocks(&page, "yaml");
    assert_eq!(examples.len(), 2);
    for block in examples {
        server.apply(&block).await;
    }
    assert_eq!(server.get("/v1/workloads/probe").await.json()["status"]["enforced"], "no");
    for service in mgmt_types::NAMED_SERVICES {
        let parts: Vec<String> = service
            .matches
            .iter()
            .map(|part| {
                let protocol = match part.protocol.unwrap() {
                    1 => "icmp".to_owned(),
                    6 => "tcp".to_owned(),
                    17 => "udp".to_owned(),
                    58 => "icmpv6".to_owned(),
                    number => return format!("`proto/{number}`"),
                };
                match (part.ports, part.icmp) {
                    (Some((first, last)), _) if first == last => format!("`{protocol}/{first}`"),
                    (Some((first, last)), _) => format!("`{protocol}/{first}-{last}`"),
                    (None, Some((kind, _))) => format!("`{protocol}/{kind}`"),
                    (None, None) => format!("`{protocol}`"),
                }
            })
            .collect();
        let row = format!("| `{}` | {} |", service.name, parts.join(", "));
        assert!(page.lines().any(|line| line == row), "the page lacks {row}");
    }
    for rule in mgmt_types::FirewallPolicy::baseline().spec.rules {
        let services = rule.services.map_or("all".to_owned(), |services| format!("`{}`", services[0]));
        let direction = rule.direction.unwrap();
        let row = format!("| `{}` | {direction} | {} | {services} |", rule.name, rule.action);
        assert!(page.lines().any(|line| line == row), "the page lacks {row}");
    }
    let answer = server
        .send(
            "POST",
            "/v1/apply",
            &[("content-type", "application/yaml")],
            "kind: Group\nname: web\nspec: { match: tier web }\n",
        )
        .await
        .json();
    assert!(page.contains(answer["expected"].as_str().unwrap()), "{answer}");
    assert!(
        page.contains(&format!(":{}:{}: Group/web: spec.match", answer["line"], answer["column"])),
        "{answer}"
    );
}

/// The fenced blocks of a language in a page.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut open: Option<String> = None;
    for line in page.lines() {
        match &mut open {
            Some(block) if line == "```" => {
                blocks.push(std::mem::take(block));
                open = None;
            }
            Some(block) => {
                block.push_str(line);
                block.push('\n');
            }
            None if line == format!("```{language}") => open = Some(String::new()),
            None => {}
        }
    }
    blocks
}

#[tokio::test]
async fn the_examples_of_the_documentation_are_true() {
    let page = std::fs::read_to_string(repository().join("docs/api.md")).unwrap();
    let server = Server::start().await;
    let yaml = blocks(&page, "yaml");
    assert!(yaml.len() >= 3, "{} examples", yaml.len());
    for block in yaml {
        server.apply(&block).await;
    }
    let validator = jsonschema::draft202012::new(&schema("ResourceList")).unwrap();
    for path in ["/v1/networks", "/v1/workloads", "/v1/hosts", "/v1/groups", "/v1/firewallpolicies"] {
        let list = server.get(path).await.json();
        let mistakes: Vec<String> = validator.iter_errors(&list).map(|error| error.to_string()).collect();
        assert!(mistakes.is_empty(), "{mistakes:#?}\n{list:#}");
    }
    let problems = blocks(&page, "json problem");
    assert!(!problems.is_empty());
    for block in problems {
        let shown: Value = serde_json::from_str(&block).unwrap();
        let problem: mgmt_types::Problem = serde_json::from_value(shown.clone()).unwrap();
        assert_eq!(serde_json::to_value(&problem).unwrap(), shown);
    }
    // Every address the API has is in the page, and no other.
    let described = manager::openapi();
    let paths = described["paths"].as_object().unwrap();
    for path in paths.keys() {
        assert!(page.contains(&format!("`{path}`")), "the page does not mention {path}");
    }
    for mentioned in page.split('`').filter(|word| word.starts_with("/v1/") && !word.contains(['?', ' '])) {
        assert!(paths.contains_key(mentioned), "the page mentions {mentioned}, which is not there");
    }
    // So is every kind of problem.
    for kind in mgmt_types::ProblemKind::ALL {
        let (status, code, _) = kind.parts();
        assert!(page.contains(&format!("| `{code}` | {status} |")), "the page does not explain {code}");
    }
}
