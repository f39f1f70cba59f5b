use std::fmt::Write as _;
use std::time::{Duration, Instant};

use super::*;

const SHOP: &str = r#"# a comment
kind: Network
name: blue
spec: { subnets: [10.0.1.0/24, "fd00:1::/64"], router: shop, mtu: auto }
---
kind: Workload
name: web-1
labels: { app: shop, tier: web, env: prod }
spec:
  host: host-a
  kind: vm
  ports:
    - name: eth0
      network: blue
      addresses: [10.0.1.11]
      attach: { vhostUser: { role: client, socket: /run/vm/web-1.sock } }
"#;

fn mistake(text: &str) -> Mistake {
    let problem = read(Format::Yaml, text.as_bytes()).unwrap_err();
    problem.first
}

#[test]
fn yaml_and_json_read_the_same() {
    let yaml = read(Format::Yaml, SHOP.as_bytes()).unwrap();
    assert_eq!(yaml.len(), 2);
    let json = serde_json::to_string(&yaml.iter().map(|d| &d.resource).collect::<Vec<_>>()).unwrap();
    let again = read(Format::Json, json.as_bytes()).unwrap();
    for (a, b) in yaml.iter().zip(&again) {
        assert_eq!(a.resource, b.resource);
    }
    assert_eq!(again.len(), 2);
}

#[test]
fn each_mistake_has_line_field_got_and_expected() {
    let cases: &[(&str, &str, &str, u32, &str, &str)] = &[
        (
            "addresses: [10.0.1.11]",
            "addresses: [10.0.1.411]",
            "spec.ports[0].addresses[0]",
            15,
            "10.0.1.411",
            "an IP address",
        ),
        ("network: blue", "netwrk: blue", "spec.ports[0].netwrk", 14, "netwrk", "name, network, addresses"),
        ("kind: vm", "kind: vn", "spec.kind", 11, "vn", "vm, container or host"),
        (
            "role: client",
            "role: clint",
            "spec.ports[0].attach.vhostUser.role",
            16,
            "clint",
            "server or client",
        ),
        ("{ vhostUser: {", "{ vhost: {", "spec.ports[0].attach.vhost", 16, "vhost", "vhostUser or tap"),
        ("name: eth0", "name: 7", "spec.ports[0].name", 13, "7", "quotes"),
        ("mtu: auto", "mtu: big", "spec.mtu", 4, "big", "auto or a number of bytes"),
        ("10.0.1.0/24,", "10.0.1.0/33,", "spec.subnets[0]", 4, "10.0.1.0/33", "such as 10.0.1.0/24"),
        (
            "kind: Workload",
            "kind: Workloads",
            "kind",
            6,
            "Workloads",
            "Network, Router, Workload, Host, Group or FirewallPolicy",
        ),
        ("labels: { app: shop", "labels: { app: [shop]", "labels.app", 8, "a list", "a string"),
    ];
    for (right, wrong, field, line, got, expected) in cases {
        assert!(SHOP.contains(right), "{right}");
        let found = mistake(&SHOP.replacen(right, wrong, 1));
        assert_eq!(found.field.as_deref(), Some(*field), "{wrong}: {found}");
        assert_eq!(found.line, Some(*line), "{wrong}: {found}");
        assert_eq!(found.got.as_deref(), Some(*got), "{wrong}: {found}");
        assert!(found.expected.as_deref().unwrap_or_default().contains(expected), "{wrong}: {found}");
    }
}

#[test]
fn a_missing_field_is_named_with_the_line_of_its_owner() {
    let found = mistake("kind: Workload\nname: a\nspec:\n  kind: vm\n  ports: []\n");
    assert_eq!(found.field.as_deref(), Some("spec.host"));
    assert_eq!(found.line, Some(4));
    assert_eq!(found.resource.as_deref(), Some("Workload/a"));
}

#[test]
fn every_wrong_document_is_reported_not_only_the_first() {
    let problem =
        read(Format::Yaml, b"kind: Network\nname: a\nspec: {}\n---\nkind: Nonsense\nname: b\n").unwrap_err();
    let lines: Vec<_> = problem.errors.iter().map(|m| (m.document, m.line)).collect();
    assert_eq!(lines, [(Some(1), Some(3)), (Some(2), Some(5))]);
}

#[test]
fn json_mistakes_have_lines_too() {
    let text = "[\n {\"kind\": \"Network\", \"name\": \"a\",\n  \"spec\": {\"subnets\": [\"10.0.1.0/24\"],\n  \"mtu\": 70000}}]";
    let problem = read(Format::Json, text.as_bytes()).unwrap_err();
    assert_eq!(problem.first.field.as_deref(), Some("spec.mtu"));
    assert_eq!(problem.first.line, Some(4));
    for (text, line) in [("{\n  \"kind\": }", 2), ("{\"a\": 1,\n\"a\": 2}", 2), ("", 1), ("{} {}", 1)] {
        let problem = read(Format::Json, text.as_bytes()).unwrap_err();
        assert!(problem.is(ProblemKind::Syntax), "{text}: {problem}");
        assert!(problem.first.line.unwrap_or(1) == line, "{text}: {problem}");
    }
}

#[test]
fn files_are_named() {
    let body = serde_json::json!([
        { "file": "net.yaml", "text": "kind: Network\nname: a\nspec: { subnets: [] }\n" },
        { "file": "web.json", "text": "{\"kind\": \"Workload\",\n \"name\": 5}" },
    ]);
    let problem = read(Format::Files, body.to_string().as_bytes()).unwrap_err();
    assert_eq!(
        problem.first.to_string(),
        "web.json:2:2: name: wrong type: got \"5\", expected a string (put it in quotes)"
    );
}

#[test]
fn plain_scalars_follow_the_core_schema() {
    let documents =
        yaml::parse("[no, yes, true, ~, 0x1f, 0o17, 010, -3, 1.5, 1e3, .5, 1:20, '5', +4, inf, 12:34]")
            .unwrap();
    assert_eq!(
        documents[0].to_json(),
        serde_json::json!([
            "no", "yes", true, null, 31, 15, 10, -3, 1.5, 1000.0, 0.5, "1:20", "5", 4, "inf", "12:34"
        ])
    );
}

#[test]
fn what_yaml_allows_and_declarations_do_not_need_is_refused_by_name() {
    for (text, reason) in [
        ("a: 1\na: 2\n", "occurs twice"),
        ("? [a]\n: 1\n", "wrong type"),
        ("!!binary aGk=\n", "tag"),
        ("a: &x [*x]\n", "alias"),
        ("a: *nowhere\n", "not YAML"),
        ("a: [1, 2\n", "not YAML"),
        ("a: 'x\n", "not YAML"),
        ("a:\n\tb: 1\n", "not YAML"),
        ("%YAML 9.9.9\n---\na\n", "not YAML"),
    ] {
        let problem = read(Format::Yaml, text.as_bytes()).unwrap_err();
        let found = problem.first.to_string();
        assert!(problem.is(ProblemKind::Syntax), "{text:?}: {problem}");
        assert!(found.contains(reason), "{text:?}: {found}");
        assert!(problem.first.line.is_some(), "{text:?}: {found}");
    }
}

#[test]
fn text_that_is_not_utf8_is_refused_with_its_line() {
    let problem = read(Format::Yaml, b"kind: Network\nname: \xff\n").unwrap_err();
    assert_eq!((problem.status, problem.first.line), (400, Some(2)));
}

/// The classic: nine levels of nine aliases each are 387 million values.
fn bomb() -> String {
    let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for level in 1..9 {
        let inner = format!("*a{}", level - 1);
        let _ = writeln!(text, "a{level}: &a{level} [{}]", [inner.as_str(); 9].join(", "));
    }
    text
}

#[test]
fn hostile_texts_are_refused_in_bounded_time() {
    let size = 1 << 20;
    let cases = [
        ("aliases", bomb()),
        ("deep flow lists", "[".repeat(size)),
        ("deep flow mappings", "{a: ".repeat(size / 4)),
        ("deep block lists", "- ".repeat(size / 2)),
        (
            "deep block mappings",
            (0..2000).fold(String::new(), |mut text, depth| {
                let _ = writeln!(text, "{}a:", " ".repeat(depth));
                text
            }),
        ),
        ("many values", "[x,".to_owned() + &"x,".repeat(size / 2) + "x]"),
        ("many documents", "---\nx\n".repeat(size / 6)),
        (
            "many anchors",
            (0..100_000).fold(String::new(), |mut text, n| {
                let _ = writeln!(text, "- &a{n} x");
                text
            }),
        ),
        ("anchors on anchors", "&a ".repeat(size / 3)),
        ("one long key", "x".repeat(size) + ": y"),
        (
            "many keys",
            (0..100_000).fold(String::new(), |mut text, n| {
                let _ = writeln!(text, "k{n}: x");
                text
            }),
        ),
        ("open quotes", "'\n".repeat(size / 2 + 1)),
        ("question marks", "? ".repeat(size / 2)),
        ("colons", ": ".repeat(size / 2)),
        ("percent lines", "%X\n".repeat(size / 3)),
        ("tags", "!<".to_owned() + &"x".repeat(size)),
        ("blank lines", "\n".repeat(size) + "["),
        ("folded blanks", "a: >\n".to_owned() + &" \n".repeat(size / 2)),
    ];
    for (name, text) in cases {
        let begin = Instant::now();
        let _ = read(Format::Yaml, text.as_bytes());
        let _ = read(Format::Json, text.as_bytes());
        let took = begin.elapsed();
        assert!(took < Duration::from_secs(5), "{name}: {took:?}");
    }
    assert!(read(Format::Yaml, bomb().as_bytes()).unwrap_err().is(ProblemKind::Syntax));
    let deep = read(Format::Json, "[".repeat(100).as_bytes()).unwrap_err();
    assert!(deep.first.to_string().contains("at most 32 levels"), "{deep}");
    let deep = read(Format::Yaml, "[".repeat(100).as_bytes()).unwrap_err();
    assert!(deep.first.to_string().contains("at most 32 levels"), "{deep}");
}

proptest::proptest! {
    #[test]
    fn no_text_panics(text in "(?s)([-\\[\\]{}:,?&*!|>'\"%#@` \t\n\r]|[a-c0-9~.]|---\n|key: ){0,60}") {
        let _ = read(Format::Yaml, text.as_bytes());
        let _ = read(Format::Json, text.as_bytes());
    }

    #[test]
    fn places_point_into_the_text(name in "[a-z]{1,8}", blank in 0usize..5) {
        let text = format!("{}kind: Network\nname: {name}\nspec: {{ subnets: [], vni: x }}\n", "\n".repeat(blank));
        let found = mistake(&text);
        proptest::prop_assert_eq!(found.line, Some(3 + u32::try_from(blank).unwrap()));
        proptest::prop_assert_eq!(found.column, Some(27));
    }
}
