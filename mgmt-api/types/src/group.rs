//! A set of workloads and addresses that policies speak of.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::peer::ANY;
use crate::{AddressRange, Glob, Labels, Match, Mistake, Subject, labels, name};

/// A set of workloads, chosen by labels, name or kind or listed by name, and of addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Group {
    /// DNS label, at most 63 characters; unique among groups; `any` is everybody and no group.
    #[schema(max_length = 63, pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", example = "web")]
    pub name: String,
    /// Free key-value pairs to select by.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// What is wanted.
    pub spec: GroupSpec,
    /// What is. Written by the manager; ignored in what a client sends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(read_only)]
    pub status: Option<GroupReport>,
    /// The revision that last changed this resource. Written by the manager.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(read_only)]
    pub revision: Option<u64>,
}

/// Who belongs to a group: all that any of these choose. At least one is given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GroupSpec {
    /// Workloads for which this holds: an expression over labels and the keys `name` and `kind`, with `=`, `!=`, `in`,
    /// `not in`, `exists`, `and`, `or`, `not` and parentheses.
    #[serde(rename = "match", default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, max_length = 1000, example = "tier = web and env in (prod, stage)")]
    pub selector: Option<Match>,
    /// Workloads whose name fits: `*` is any run of characters, `?` any one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, max_length = 63, example = "web-*")]
    pub name: Option<Glob>,
    /// Workloads of these names; one that does not exist is a member once it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_items = 10000, example = json!(["web-1", "web-2"]))]
    pub workloads: Option<Vec<String>>,
    /// Addresses and ranges, of workloads and of whatever else sends and receives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>, max_items = 1000, example = json!(["198.51.100.0/24"]))]
    pub cidrs: Option<Vec<AddressRange>>,
}

/// Who belongs to a group now.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct GroupReport {
    /// How many workloads belong to it, by whatever way: also those of which a port has an address of `cidrs`.
    pub count: u32,
    /// Their names: the first 1000 when one group is read, the first 20 in a list of groups.
    pub members: Vec<String>,
    /// Policies that name it.
    pub used_by: Vec<String>,
}

/// Most names one group lists.
const MAX_WORKLOADS: usize = 10_000;
/// Most ranges one group has.
const MAX_CIDRS: usize = 1000;

impl GroupSpec {
    /// True when the workload belongs to it by its labels, name or kind, or because it is listed. Addresses are not
    /// looked at.
    pub fn selects(&self, subject: Subject<'_>) -> bool {
        self.selector.as_ref().is_some_and(|selector| selector.matches(subject))
            || self.name.as_ref().is_some_and(|name| name.matches(subject.name))
            || self.workloads.as_ref().is_some_and(|names| names.iter().any(|name| name == subject.name))
    }

    /// True when `address` belongs to it by `cidrs`.
    pub fn holds(&self, address: IpAddr) -> bool {
        self.cidrs.iter().flatten().any(|range| range.contains(address))
    }
}

impl Group {
    /// What is wrong within this resource alone; empty when nothing is.
    pub fn mistakes(&self) -> Vec<Mistake> {
        let mut found = Vec::new();
        Mistake::check_name(&mut found, "name", name::check(&self.name), &self.name);
        if self.name == ANY {
            found.push(
                Mistake::new("name", ANY, "another name")
                    .detail("'any' stands for everybody and is no group"),
            );
        }
        labels::check(&self.labels, &mut found);
        let GroupSpec { selector, name, workloads, cidrs } = &self.spec;
        if selector.is_none() && name.is_none() && workloads.is_none() && cidrs.is_none() {
            found.push(
                Mistake::new("spec", "nothing", "at least one of match, name, workloads and cidrs")
                    .detail("the group does not say who belongs to it"),
            );
        }
        let workloads = workloads.as_deref().unwrap_or_default();
        too_many(&mut found, "spec.workloads", workloads.len(), "names", MAX_WORKLOADS);
        for (index, workload) in workloads.iter().enumerate() {
            Mistake::check_name(
                &mut found,
                &format!("spec.workloads[{index}]"),
                name::check(workload),
                workload,
            );
        }
        too_many(&mut found, "spec.cidrs", cidrs.as_ref().map_or(0, Vec::len), "ranges", MAX_CIDRS);
        found
    }
}

/// Adds a mistake when a list is too long.
pub(crate) fn too_many(found: &mut Vec<Mistake>, field: &str, have: usize, what: &str, most: usize) {
    if have > most {
        found.push(
            Mistake::new(field, format!("{have} {what}"), format!("at most {most}"))
                .detail(format!("there are too many {what}")),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::WorkloadKind;

    fn group(spec: &str) -> Group {
        serde_json::from_str(&format!(r#"{{"name":"web","spec":{spec}}}"#)).unwrap()
    }

    #[test]
    fn ways_to_choose_are_united() {
        let group =
            group(r#"{"match":"tier = web","name":"www-*","workloads":["old"],"cidrs":["10.0.0.0/8"]}"#);
        assert_eq!(group.mistakes(), []);
        let tier: Labels = [("tier".to_owned(), "web".to_owned())].into();
        let none = Labels::new();
        for (name, labels, chosen) in
            [("x", &tier, true), ("www-1", &none, true), ("old", &none, true), ("x", &none, false)]
        {
            assert_eq!(
                group.spec.selects(Subject { name, kind: WorkloadKind::Vm, labels }),
                chosen,
                "{name}"
            );
        }
        assert!(
            group.spec.holds("10.1.2.3".parse().unwrap()) && !group.spec.holds("11.0.0.1".parse().unwrap())
        );
    }

    #[test]
    fn each_mistake_names_its_field() {
        let fields = |group: &Group| {
            group.mistakes().into_iter().filter_map(|mistake| mistake.field).collect::<Vec<_>>()
        };
        assert_eq!(fields(&group("{}")), ["spec"]);
        assert_eq!(fields(&group(r#"{"workloads":["a","B"]}"#)), ["spec.workloads[1]"]);
        assert_eq!(fields(&Group { name: "any".into(), ..group(r#"{"cidrs":[]}"#) }), ["name"]);
        let many = vec!["10.0.0.1".parse().unwrap(); 1001];
        let spec = GroupSpec { cidrs: Some(many), ..GroupSpec::default() };
        assert_eq!(fields(&Group { spec, ..group("{}") }), ["spec.cidrs"]);
        for spec in
            [r#"{"match":"tier ="}"#, r#"{"name":"W"}"#, r#"{"cidrs":["10.0.0.1/8"]}"#, r#"{"labels":{}}"#]
        {
            assert!(serde_json::from_str::<GroupSpec>(spec).is_err(), "{spec}");
        }
    }
}
