//! Rules about who may open which connections.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::group::too_many;
use crate::{Labels, Mistake, Peer, PolicyMode, RuleAction, RuleDirection, Service, Tier, labels, name};

/// Ordered rules for the ports of some workloads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FirewallPolicy {
    /// DNS label, at most 63 characters; unique among firewall policies. `baseline` is the manager's own.
    #[schema(max_length = 63, pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", example = "shop")]
    pub name: String,
    /// Free key-value pairs to select by.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// What is wanted.
    pub spec: FirewallPolicySpec,
    /// What is. Written by the manager; ignored in what a client sends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(read_only)]
    pub status: Option<PolicyReport>,
    /// The revision that last changed this resource. Written by the manager.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(read_only)]
    pub revision: Option<u64>,
}

/// What a policy wants. Policies are judged by tier, then by priority, then by name, and within a policy the rules in
/// their order; the first rule that matches decides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FirewallPolicySpec {
    /// Its tier: `application` when not given.
    #[serde(default)]
    pub tier: Tier,
    /// Its place within the tier, 0 to 65535: the lower number is judged first; 1000 when not given.
    #[serde(default = "default_priority")]
    #[schema(maximum = 65535, default = 1000)]
    pub priority: u16,
    /// Whom it applies to: ports of workloads in one of these groups, ports with one of these addresses, or `any`.
    #[schema(value_type = Vec<String>, min_items = 1, max_items = 64, example = json!(["web", "db"]))]
    pub applies_to: Vec<Peer>,
    /// Whether it decides or only tells what it would decide: `enforce` when not given.
    #[serde(default)]
    pub mode: PolicyMode,
    /// Its rules, in order of judgement.
    #[schema(max_items = 1000)]
    pub rules: Vec<Rule>,
}

/// One rule. At a port the policy applies to it is about connections to that port and from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rule {
    /// DNS label, at most 63 characters; unique within the policy. Counters and verdicts name the rule by it.
    #[schema(max_length = 63, pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", example = "https")]
    pub name: String,
    /// Only connections opened towards the port, or only those opened from it; both when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direction: Option<RuleDirection>,
    /// What is done with it.
    pub action: RuleAction,
    /// Who opens the connection; everybody when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>, min_items = 1, max_items = 64, example = json!(["web"]))]
    pub from: Option<Vec<Peer>>,
    /// To whom it is opened; everybody when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>, min_items = 1, max_items = 64, example = json!(["db"]))]
    pub to: Option<Vec<Peer>>,
    /// Which services; every one when not given. `tcp/443`, `tcp/8443-8450`, `udp/53`, `tcp`, `sctp/2905`, `icmp`,
    /// `icmp/8`, `icmp/3/4`, `icmpv6/128`, `proto/47`, or a name such as `https`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>, min_items = 1, max_items = 64, example = json!(["tcp/443", "tcp/8443-8450"]))]
    pub services: Option<Vec<Service>>,
    /// Write a line in the log for each connection it decides, within a limit of lines per second.
    #[serde(default, skip_serializing_if = "is_false")]
    pub log: bool,
    /// A connection it allowed lives on when a later change forbids it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub keep_established: bool,
}

/// What is known about a policy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyReport {
    /// How many workloads it applies to.
    pub workloads: u32,
    /// Its rules, in order of judgement.
    pub rules: Vec<RuleReport>,
}

/// What hosts counted for one rule, all together, since their agents started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RuleReport {
    /// Its name.
    pub name: String,
    /// Its number: stable for the life of the rule, never used again for another.
    pub id: u32,
    /// Connections it allowed and packets it refused.
    pub hits: u64,
    /// Packets of connections it allowed, both directions, and packets it refused.
    pub packets: u64,
    /// Bytes of these packets' frames.
    pub bytes: u64,
    /// How often it would have decided otherwise than what was done, were its policy enforced; for policies in mode
    /// `audit`.
    pub would: u64,
    /// When it last matched, RFC 3339 in UTC; absent when never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_hit: Option<String>,
}

/// The policy that holds when nothing else was said. The manager makes it; it can be changed, not deleted.
pub const BASELINE: &str = "baseline";

/// Priority of a policy that names none.
const DEFAULT_PRIORITY: u16 = 1000;
/// Most rules of one policy.
const MAX_RULES: usize = 1000;
/// Most entries in each list of a rule.
const MAX_ENTRIES: usize = 64;

fn default_priority() -> u16 {
    DEFAULT_PRIORITY
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out a reference")]
fn is_false(value: &bool) -> bool {
    !*value
}

impl FirewallPolicy {
    /// The policy `baseline` as it is first made: what no policy mentions is allowed out and dropped in, but for name
    /// service and address assignment. Replies belong to their connection and need no rule.
    pub fn baseline() -> Self {
        let rule = |name: &str, direction, action, services: &[&str]| Rule {
            name: name.to_owned(),
            direction: Some(direction),
            action,
            from: None,
            to: None,
            services: match services {
                [] => None,
                some => Some(some.iter().filter_map(|service| service.parse().ok()).collect()),
            },
            log: false,
            keep_established: false,
        };
        Self {
            name: BASELINE.to_owned(),
            labels: Labels::new(),
            spec: FirewallPolicySpec {
                tier: Tier::Baseline,
                // Behind every other policy of its tier.
                priority: u16::MAX,
                applies_to: vec![Peer::Any],
                mode: PolicyMode::Enforce,
                rules: vec![
                    rule("dns-in", RuleDirection::In, RuleAction::Allow, &["dns"]),
                    rule("dhcp-in", RuleDirection::In, RuleAction::Allow, &["dhcp"]),
                    rule("out", RuleDirection::Out, RuleAction::Allow, &[]),
                    rule("in", RuleDirection::In, RuleAction::Drop, &[]),
                ],
            },
            status: None,
            revision: None,
        }
    }

    /// Every place that names a peer, with its field.
    pub fn peers(&self) -> impl Iterator<Item = (String, &Peer)> {
        let applies =
            self.spec.applies_to.iter().enumerate().map(|(i, peer)| (format!("spec.appliesTo[{i}]"), peer));
        let sides = self.spec.rules.iter().enumerate().flat_map(|(r, rule)| {
            let from = rule.from.iter().flatten().enumerate();
            let to = rule.to.iter().flatten().enumerate();
            from.map(move |(i, peer)| (format!("spec.rules[{r}].from[{i}]"), peer))
                .chain(to.map(move |(i, peer)| (format!("spec.rules[{r}].to[{i}]"), peer)))
        });
        applies.chain(sides)
    }

    /// What is wrong within this resource alone; empty when nothing is.
    pub fn mistakes(&self) -> Vec<Mistake> {
        let mut found = Vec::new();
        Mistake::check_name(&mut found, "name", name::check(&self.name), &self.name);
        labels::check(&self.labels, &mut found);
        let spec = &self.spec;
        if self.name == BASELINE && spec.tier != Tier::Baseline {
            found.push(
                Mistake::new("spec.tier", spec.tier, Tier::Baseline).detail(
                    "the policy baseline has its place at the end; another name may stand in any tier",
                ),
            );
        }
        check_list(
            &mut found,
            "spec.appliesTo",
            Some(&spec.applies_to),
            "a policy that applies to nobody is of no use: name a group, or any",
        );
        too_many(&mut found, "spec.rules", spec.rules.len(), "rules", MAX_RULES);
        let mut names = std::collections::HashSet::new();
        for (index, rule) in spec.rules.iter().enumerate() {
            let at = format!("spec.rules[{index}]");
            check_rule(&mut found, &at, rule);
            if !names.insert(rule.name.as_str()) {
                found.push(
                    Mistake::new(format!("{at}.name"), &rule.name, "a name no other rule of the policy has")
                        .detail("two rules of the policy have the same name"),
                );
            }
        }
        found
    }
}

fn check_rule(found: &mut Vec<Mistake>, at: &str, rule: &Rule) {
    Mistake::check_name(found, &format!("{at}.name"), name::check(&rule.name), &rule.name);
    check_list(
        found,
        &format!("{at}.from"),
        rule.from.as_deref(),
        "an empty list matches nobody: leave it out for everybody",
    );
    check_list(
        found,
        &format!("{at}.to"),
        rule.to.as_deref(),
        "an empty list matches nobody: leave it out for everybody",
    );
    check_list(
        found,
        &format!("{at}.services"),
        rule.services.as_deref(),
        "an empty list matches nothing: leave it out for every service",
    );
    if rule.keep_established && rule.action != RuleAction::Allow {
        found.push(
            Mistake::new(
                format!("{at}.keepEstablished"),
                "true",
                format!("action allow, or no keepEstablished; the action is {}", rule.action),
            )
            .detail("only a connection that was allowed can live on"),
        );
    }
}

/// A list that is there is neither empty nor too long.
fn check_list<T>(found: &mut Vec<Mistake>, field: &str, list: Option<&[T]>, empty: &str) {
    match list {
        Some([]) => found.push(Mistake::new(field, "an empty list", "at least one entry").detail(empty)),
        Some(items) => too_many(found, field, items.len(), "entries", MAX_ENTRIES),
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(rule: &str) -> FirewallPolicy {
        serde_json::from_str(&format!(r#"{{"name":"shop","spec":{{"appliesTo":["web"],"rules":[{rule}]}}}}"#))
            .unwrap()
    }

    #[test]
    fn what_is_not_said_has_a_meaning() {
        let policy = policy(r#"{"name":"rest","action":"reject"}"#);
        assert_eq!((policy.spec.tier, policy.spec.priority), (Tier::Application, 1000));
        assert_eq!(policy.spec.mode, PolicyMode::Enforce);
        assert_eq!(policy.mistakes(), []);
        let peers: Vec<_> = policy.peers().collect();
        assert_eq!(peers, [("spec.appliesTo[0]".to_owned(), &Peer::Group("web".into()))]);
    }

    #[test]
    fn the_baseline_is_sound_and_says_all_it_means() {
        let baseline = FirewallPolicy::baseline();
        assert_eq!(baseline.mistakes(), []);
        let services: Vec<usize> =
            baseline.spec.rules.iter().map(|rule| rule.services.as_ref().map_or(0, Vec::len)).collect();
        assert_eq!(services, [1, 1, 0, 0]);
    }

    #[test]
    fn each_mistake_names_its_field() {
        for (rule, field) in [
            (r#"{"name":"A","action":"allow"}"#, "spec.rules[0].name"),
            (r#"{"name":"a","action":"allow","from":[]}"#, "spec.rules[0].from"),
            (r#"{"name":"a","action":"allow","to":[]}"#, "spec.rules[0].to"),
            (r#"{"name":"a","action":"allow","services":[]}"#, "spec.rules[0].services"),
            (r#"{"name":"a","action":"drop","keepEstablished":true}"#, "spec.rules[0].keepEstablished"),
            (r#"{"name":"a","action":"allow"},{"name":"a","action":"drop"}"#, "spec.rules[1].name"),
        ] {
            let found = policy(rule).mistakes();
            let fields: Vec<_> = found.into_iter().filter_map(|mistake| mistake.field).collect();
            assert_eq!(fields, [field], "{rule}");
        }
        let mut moved = FirewallPolicy::baseline();
        moved.spec.tier = Tier::Emergency;
        moved.spec.applies_to.clear();
        let fields: Vec<_> = moved.mistakes().into_iter().filter_map(|mistake| mistake.field).collect();
        assert_eq!(fields, ["spec.tier", "spec.appliesTo"]);
        let rule = r#"{"name":"a","action":"allow"}"#;
        let many = policy(&vec![rule; 1001].join(","));
        assert_eq!(many.mistakes()[0].field.as_deref(), Some("spec.rules"));
    }
}
