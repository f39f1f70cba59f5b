//! Who may depend on whom: the rule of docs/ARCHITECTURE.md, held against `cargo metadata`.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use serde_json::Value;

/// What each package may depend on inside the workspace. Packages that test or measure are not bound.
const MAY: [(&str, &[&str]); 9] = [
    ("wire", &[]),
    ("pipeline", &["wire"]),
    ("tunnel", &["wire"]),
    ("vhost-backend", &[]),
    ("mgmt-types", &[]),
    ("manager", &["mgmt-types"]),
    ("mgmt-client", &["mgmt-types"]),
    ("agent", &["wire", "pipeline", "tunnel", "vhost-backend", "mgmt-types", "mgmt-client"]),
    ("palisade", &["agent", "manager", "mgmt-client", "mgmt-types"]),
];
const UNBOUND: [&str; 3] = ["e2e", "bench", "xtask"];

/// Packages that are functions of their arguments: no clock, thread, log, file or socket may come in by a dependency.
const PURE: [&str; 3] = ["wire", "pipeline", "tunnel"];
const IMPURE: [&str; 14] = [
    "tokio",
    "mio",
    "serde",
    "serde_json",
    "log",
    "tracing",
    "rustix",
    "nix",
    "libc",
    "rand",
    "getrandom",
    "chrono",
    "time",
    "anyhow",
];

/// Every breach of the rule, in words; none when all is well.
///
/// # Errors
/// When the metadata has not the shape that cargo documents.
pub(crate) fn breaches(metadata: &Value) -> Result<Vec<String>> {
    let graph = Graph::read(metadata)?;
    let mut found = Vec::new();
    for (name, direct) in &graph.members {
        let inside: Vec<&str> =
            direct.iter().map(String::as_str).filter(|on| graph.members.contains_key(*on)).collect();
        let allowed = MAY.iter().find(|(package, _)| package == name).map(|(_, allowed)| *allowed);
        match allowed {
            None if UNBOUND.contains(&name.as_str()) => {}
            None => found.push(format!("{name} has no line in the dependency rule")),
            Some(allowed) => {
                for on in inside.iter().filter(|on| !allowed.contains(on)) {
                    found.push(format!("{name} must not depend on {on}"));
                }
            }
        }
        if PURE.contains(&name.as_str()) {
            for on in graph.reach(name).intersection(&IMPURE.map(str::to_owned).into()) {
                found.push(format!("{name} links {on}, so it is no function of its arguments"));
            }
        }
    }
    Ok(found)
}

/// Dependencies that a normal build links (not those of tests or build scripts).
struct Graph {
    /// Workspace members by name, with the names of their direct dependencies.
    members: BTreeMap<String, BTreeSet<String>>,
    /// Every package by name.
    all: BTreeMap<String, BTreeSet<String>>,
}

impl Graph {
    fn read(metadata: &Value) -> Result<Self> {
        let list =
            |value: &Value, what: &str| value.as_array().cloned().with_context(|| format!("no {what}"));
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let names: BTreeMap<String, String> = list(&metadata["packages"], "packages")?
            .iter()
            .map(|package| (text(&package["id"]), text(&package["name"])))
            .collect();
        let name = |id: &Value| names.get(&text(id)).cloned().unwrap_or_default();
        let mut all: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for node in list(&metadata["resolve"]["nodes"], "resolve.nodes")? {
            let direct = list(&node["deps"], "deps")?;
            let linked = direct.iter().filter(|dep| {
                let kinds = dep["dep_kinds"].as_array();
                kinds.is_none_or(|kinds| kinds.iter().any(|kind| kind["kind"].is_null()))
            });
            all.entry(name(&node["id"])).or_default().extend(linked.map(|dep| name(&dep["pkg"])));
        }
        let members = list(&metadata["workspace_members"], "workspace_members")?
            .iter()
            .map(|id| (name(id), all.get(&name(id)).cloned().unwrap_or_default()))
            .collect();
        Ok(Self { members, all })
    }

    /// Every package that `name` links, at any depth. Procedural macros' own dependencies count too: none is needed.
    fn reach(&self, name: &str) -> BTreeSet<String> {
        let mut seen = BTreeSet::new();
        let mut open = vec![name.to_owned()];
        while let Some(next) = open.pop() {
            for on in self.all.get(&next).into_iter().flatten() {
                if seen.insert(on.clone()) {
                    open.push(on.clone());
                }
            }
        }
        seen
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn graph(edges: &[(&str, &[&str])]) -> Value {
        let packages: Vec<Value> =
            edges.iter().map(|(name, _)| json!({ "id": name, "name": name })).collect();
        let nodes: Vec<Value> = edges
            .iter()
            .map(|(name, on)| {
                let deps: Vec<Value> =
                    on.iter().map(|on| json!({ "pkg": on, "dep_kinds": [{ "kind": null }] })).collect();
                json!({ "id": name, "deps": deps })
            })
            .collect();
        let members: Vec<&str> = edges
            .iter()
            .map(|(name, _)| *name)
            .filter(|name| MAY.iter().any(|(package, _)| package == name) || *name == "stranger")
            .collect();
        json!({ "packages": packages, "resolve": { "nodes": nodes }, "workspace_members": members })
    }

    #[test]
    fn every_package_of_this_workspace_keeps_the_dependency_rule() {
        let metadata = crate::workspace::metadata().unwrap();
        assert_eq!(breaches(&metadata).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn a_dependency_against_the_rule_is_named() {
        let found = breaches(&graph(&[("wire", &["pipeline"]), ("pipeline", &["wire"])])).unwrap();
        assert_eq!(found, ["wire must not depend on pipeline"]);
    }

    #[test]
    fn a_clock_that_comes_in_by_a_detour_is_named() {
        let found =
            breaches(&graph(&[("pipeline", &["harmless"]), ("harmless", &["tokio"]), ("tokio", &[])]));
        assert_eq!(found.unwrap(), ["pipeline links tokio, so it is no function of its arguments"]);
    }

    #[test]
    fn a_package_without_a_rule_is_named() {
        let found = breaches(&graph(&[("stranger", &[])])).unwrap();
        assert_eq!(found, ["stranger has no line in the dependency rule"]);
    }
}
