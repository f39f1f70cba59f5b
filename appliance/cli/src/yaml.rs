//! JSON values written as YAML 1.2, block style.
//!
//! Everything that is not plainly a word is quoted as in JSON, whose strings are YAML's double-quoted scalars. So no
//! reader, of whatever version of YAML, takes an address for a number or `no` for a truth value.

use serde_json::{Map, Value};

/// One document, ending with a newline.
pub(crate) fn document(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => mapping(&mut out, map, 0, false),
        Value::Array(items) if !items.is_empty() => sequence(&mut out, items, 0),
        _ => {
            scalar(&mut out, value);
            out.push('\n');
        }
    }
    out
}

/// `key: value` lines; the first one follows a `- ` when `inline`.
fn mapping(out: &mut String, map: &Map<String, Value>, indent: usize, inline: bool) {
    for (index, (key, value)) in map.iter().enumerate() {
        if index > 0 || !inline {
            out.extend(std::iter::repeat_n(' ', indent));
        }
        text(out, key);
        out.push(':');
        match value {
            Value::Object(inner) if !inner.is_empty() => {
                out.push('\n');
                mapping(out, inner, indent + 2, false);
            }
            Value::Array(items) if items.iter().any(|item| item.is_object() || item.is_array()) => {
                out.push('\n');
                sequence(out, items, indent + 2);
            }
            _ => {
                out.push(' ');
                scalar(out, value);
                out.push('\n');
            }
        }
    }
}

fn sequence(out: &mut String, items: &[Value], indent: usize) {
    for item in items {
        out.extend(std::iter::repeat_n(' ', indent));
        out.push_str("- ");
        match item {
            Value::Object(map) if !map.is_empty() => mapping(out, map, indent + 2, true),
            _ => {
                scalar(out, item);
                out.push('\n');
            }
        }
    }
}

/// A value on one line; lists and mappings in flow style.
fn scalar(out: &mut String, value: &Value) {
    match value {
        Value::String(string) => text(out, string),
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                scalar(out, item);
            }
            out.push(']');
        }
        Value::Object(_) | Value::Null | Value::Bool(_) | Value::Number(_) => {
            out.push_str(&value.to_string())
        }
    }
}

fn text(out: &mut String, text: &str) {
    if is_plain(text) {
        out.push_str(text);
    } else {
        out.push_str(&Value::from(text).to_string());
    }
}

/// Words that YAML 1.1 or 1.2 takes for something else.
const RESERVED: [&str; 9] = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];

fn is_plain(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/'))
        && !RESERVED.contains(&text.to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_resource_reads_as_people_write_it() {
        let resource = json!({
            "kind": "Workload",
            "name": "web-1",
            "labels": {"app": "shop", "on": "yes", "a/b": ""},
            "spec": {
                "host": "host-a",
                "ports": [
                    {"name": "eth0", "addresses": ["10.0.1.11", "fd00:1::11"], "queues": 2, "attach": {"tap": {"device": "t0"}}},
                    {"name": "eth1", "mac": "52:54:00:00:00:01", "none": null, "empty": {}, "nothing": []},
                ],
            },
        });
        let expected = r#"kind: Workload
labels:
  a/b: ""
  app: shop
  "on": "yes"
name: web-1
spec:
  host: host-a
  ports:
    - addresses: ["10.0.1.11", "fd00:1::11"]
      attach:
        tap:
          device: t0
      name: eth0
      queues: 2
    - empty: {}
      mac: "52:54:00:00:00:01"
      name: eth1
      none: null
      nothing: []
"#;
        let sorted = |text: &str| {
            let mut lines: Vec<String> = text.lines().map(|line| line.replace("- ", "  ")).collect();
            lines.sort();
            lines
        };
        // The order of keys depends on how serde_json is built.
        assert_eq!(sorted(&document(&resource)), sorted(expected));
    }

    #[test]
    fn what_could_be_taken_for_something_else_is_quoted() {
        for (value, expected) in [
            (json!("no"), "\"no\"\n"),
            (json!("12e3"), "\"12e3\"\n"),
            (json!("a: b"), "\"a: b\"\n"),
            (json!("# x"), "\"# x\"\n"),
            (json!("line\nline"), "\"line\\nline\"\n"),
            (json!(""), "\"\"\n"),
            (json!("nobody"), "nobody\n"),
            (json!(3), "3\n"),
            (json!([]), "[]\n"),
            (json!({}), "{}\n"),
        ] {
            assert_eq!(document(&value), expected);
        }
    }

    #[test]
    fn lists_of_lists_stay_lists() {
        assert_eq!(document(&json!([[1, 2], [3]])), "- [1, 2]\n- [3]\n");
    }
}
