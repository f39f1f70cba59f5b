//! Groups and firewall policies, as `get` and `describe` show them.

use mgmt_types::{FirewallPolicy, Group, GroupSpec, Peer, PolicyMode, Rule, RuleReport};

use crate::commands::get::join;
use crate::output::{self, Row, facts, or_dash};

/// The columns of [`group_row`].
pub(crate) const GROUP_COLUMNS: &[&str] = &["NAME", "COUNT", "MEMBERS", "CHOOSES", "USED-BY"];

/// The columns of [`policy_row`].
pub(crate) const POLICY_COLUMNS: &[&str] =
    &["NAME", "TIER", "PRIORITY", "MODE", "APPLIES-TO", "WORKLOADS", "RULES", "HITS"];

/// Names shown in a line before the rest is counted.
const SHOWN: usize = 4;

/// A line of the table of groups.
pub(crate) fn group_row(group: &Group) -> Row {
    let report = group.status.clone().unwrap_or_default();
    vec![
        group.name.clone(),
        report.count.to_string(),
        some_of(&report.members, report.count),
        choice(&group.spec).into_iter().map(|(_, value)| value).collect::<Vec<_>>().join(" or "),
        or_dash(join(&report.used_by)),
    ]
    .into()
}

/// A line of the table of policies; one that only tells what it would do is marked.
pub(crate) fn policy_row(policy: &FirewallPolicy) -> Row {
    let spec = &policy.spec;
    let report = policy.status.clone().unwrap_or_default();
    vec![
        policy.name.clone(),
        spec.tier.to_string(),
        spec.priority.to_string(),
        spec.mode.to_string(),
        join(&spec.applies_to),
        report.workloads.to_string(),
        spec.rules.len().to_string(),
        report.rules.iter().map(|rule| rule.hits).fold(0, u64::saturating_add).to_string(),
    ]
    .into()
}

/// All about a group, below its title.
pub(crate) fn group(group: &Group, labels: String) -> String {
    let report = group.status.clone().unwrap_or_default();
    let mut lines = vec![("labels", labels)];
    lines.extend(choice(&group.spec));
    lines.push(("used by", or_dash(join(&report.used_by))));
    lines.push(("members", report.count.to_string()));
    let mut text = facts(2, &lines);
    for member in &report.members {
        text += &format!("    {}\n", output::visible(member));
    }
    match usize::try_from(report.count).unwrap_or(usize::MAX).saturating_sub(report.members.len()) {
        0 => text,
        more => text + &format!("    and {more} more\n"),
    }
}

/// All about a policy, below its title.
pub(crate) fn policy(policy: &FirewallPolicy, labels: String) -> String {
    let spec = &policy.spec;
    let report = policy.status.clone().unwrap_or_default();
    let mode = match spec.mode {
        PolicyMode::Enforce => "enforce".to_owned(),
        PolicyMode::Audit => "audit: it decides nothing; WOULD counts what it would have decided".to_owned(),
    };
    let mut text = facts(
        2,
        &[
            ("labels", labels),
            ("tier", spec.tier.to_string()),
            ("priority", spec.priority.to_string()),
            ("mode", mode),
            ("applies to", join(&spec.applies_to)),
            ("workloads", report.workloads.to_string()),
        ],
    );
    if spec.rules.is_empty() {
        return text;
    }
    text += "rules, the first that matches decides\n";
    let header = [
        "  NAME", "DIR", "ACTION", "FROM", "TO", "SERVICES", "HITS", "PACKETS", "BYTES", "WOULD", "LAST-HIT",
        "MORE",
    ];
    let rows = spec.rules.iter().map(|rule| {
        let counted = report.rules.iter().find(|counted| counted.name == rule.name).cloned();
        rule_row(rule, &counted.unwrap_or_default())
    });
    text + &output::table(&header, rows.collect())
}

fn rule_row(rule: &Rule, counted: &RuleReport) -> Row {
    let peers =
        |peers: &Option<Vec<Peer>>| peers.as_ref().map_or_else(|| "any".to_owned(), |peers| join(peers));
    let more = [(rule.log, "log"), (rule.keep_established, "keepEstablished")];
    let more: Vec<&str> = more.into_iter().filter(|(is, _)| *is).map(|(_, word)| word).collect();
    vec![
        format!("  {}", rule.name),
        rule.direction.map_or_else(|| "both".to_owned(), |direction| direction.to_string()),
        rule.action.to_string(),
        peers(&rule.from),
        peers(&rule.to),
        rule.services.as_ref().map_or_else(|| "all".to_owned(), |services| join(services)),
        counted.hits.to_string(),
        counted.packets.to_string(),
        counted.bytes.to_string(),
        counted.would.to_string(),
        counted.last_hit.clone().unwrap_or_else(|| "-".to_owned()),
        or_dash(more.join(",")),
    ]
    .into()
}

/// The ways a group chooses, by name of the field.
fn choice(spec: &GroupSpec) -> Vec<(&'static str, String)> {
    let GroupSpec { selector, name, workloads, cidrs } = spec;
    let counted = |names: &Vec<String>| some_of(names, u32::try_from(names.len()).unwrap_or(u32::MAX));
    let ways = [
        ("match", selector.as_ref().map(ToString::to_string)),
        ("name", name.as_ref().map(|name| format!("name {name}"))),
        ("workloads", workloads.as_ref().map(counted)),
        ("cidrs", cidrs.as_ref().map(|cidrs| or_dash(join(cidrs)))),
    ];
    ways.into_iter().filter_map(|(field, value)| Some((field, value?))).collect()
}

/// The first names, and how many more there are.
fn some_of(names: &[String], count: u32) -> String {
    let shown = names.get(..SHOWN).unwrap_or(names);
    let more = usize::try_from(count).unwrap_or(usize::MAX).saturating_sub(shown.len());
    match (shown.is_empty(), more) {
        (_, 0) => or_dash(shown.join(",")),
        (true, more) => more.to_string(),
        (false, more) => format!("{} and {more} more", shown.join(",")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T: serde::de::DeserializeOwned>(text: &str) -> T {
        serde_json::from_str(text).expect("a resource")
    }

    #[test]
    fn a_group_shows_how_it_chooses_and_whom() {
        let web: Group = read(
            r#"{"name": "web", "spec": {"match": "tier = web", "cidrs": ["198.51.100.0/24"]},
                "status": {"count": 6, "members": ["a", "b", "c", "d", "e"], "usedBy": ["shop"]}}"#,
        );
        let row = group_row(&web).cells;
        assert_eq!(row, ["web", "6", "a,b,c,d and 2 more", "tier = web or 198.51.100.0/24", "shop"]);
        let text = group(&web, "-".to_owned());
        assert!(text.contains("  match    tier = web\n") && text.contains("    e\n"), "{text}");
        assert!(text.ends_with("    and 1 more\n"), "{text}");
    }

    #[test]
    fn a_policy_shows_its_rules_with_what_they_counted() {
        let shop: FirewallPolicy = read(
            r#"{"name": "shop", "spec": {"appliesTo": ["web", "db"], "mode": "audit", "rules": [
                {"name": "https", "direction": "in", "action": "allow", "services": ["tcp/443", "dns"], "log": true},
                {"name": "rest", "action": "reject", "from": ["web", "10.0.0.0/8"]}]},
                "status": {"workloads": 3, "rules": [
                {"name": "https", "id": 7, "hits": 5, "packets": 50, "bytes": 5000, "would": 2,
                 "lastHit": "2024-01-01T00:00:00.000Z"}]}}"#,
        );
        let row = policy_row(&shop).cells;
        assert_eq!(row, ["shop", "application", "1000", "audit", "web,db", "3", "2", "5"]);
        let text = policy(&shop, "-".to_owned());
        let line = |name: &str| {
            let line = text.lines().find(|line| line.trim_start().starts_with(name)).expect("a line");
            line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
        };
        let https = line("https");
        assert_eq!(https[1..6], ["in", "allow", "any", "any", "tcp/443,dns"]);
        assert_eq!(https[6..], ["5", "50", "5000", "2", "2024-01-01T00:00:00.000Z", "log"]);
        assert_eq!(line("rest")[1..8], ["both", "reject", "web,10.0.0.0/8", "any", "all", "0", "0"]);
        assert!(text.contains("it decides nothing"), "{text}");
    }
}
