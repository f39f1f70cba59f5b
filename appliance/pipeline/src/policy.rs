//! Who may talk to whom: the firewall's rules, compiled.
//!
//! A [`Policy`] is immutable and knows nothing of packets. It is asked with two endpoints and a service, and names the
//! first rule that matches:
//!
//! 1. Policies are judged by tier, then priority, then name; the rules of one in their order. The first match wins.
//! 2. A rule counts at ports that its policy `applies_to`, in its direction, or in both when it has none.
//! 3. Coming in, the remote side must be one of `from` and the port one of `to`; going out, the port must be one of
//!    `from` and the remote side one of `to`. An empty list is everybody.
//! 4. A peer is everybody, a group, or a network. One is in a group by identity or by address.
//! 5. A rule of an audit policy never decides. It is told when it would have decided otherwise.
//! 6. What nothing matches is dropped: default deny.
//!
//! How that is found without walking the rules, and what it costs, is in `docs/decisions/rule-classifier.md`.

mod addresses;
mod config;
mod endpoints;
mod error;
mod members;
mod rule;
mod rule_set;
mod rules;
mod services;

use core::net::IpAddr;
use std::sync::Arc;

pub use config::{
    FirewallPolicyConfig, GroupConfig, IdentityConfig, Peer, PolicyConfig, RuleConfig, RulesConfig,
    ServiceMatch,
};
pub use error::PolicyError;
pub use rule::{Action, Decision, Direction, Rule, RuleId, RuleIndex, Service, Tier};

use endpoints::Endpoints;
use rule_set::{Bits, search};
use rules::Rules;

/// Who may talk to whom.
#[derive(Debug)]
pub struct Policy {
    rules: Arc<Rules>,
    endpoints: Endpoints,
}

/// Somebody, as far as one [`Policy`] can tell: one set of groups. Of use with that policy only; any other takes it for
/// somebody else or for nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint(u32);

impl Policy {
    /// Compiles a configuration. What did not change since `previous` is shared with it.
    ///
    /// # Errors
    /// What contradicts itself, or is more than provided for.
    pub fn compile(config: &PolicyConfig, previous: Option<&Policy>) -> Result<Policy, PolicyError> {
        let same = |previous: &&Policy| {
            Arc::ptr_eq(&previous.rules.config, &config.rules) || previous.rules.config == config.rules
        };
        let previous = previous.filter(same);
        let rules = match previous {
            Some(previous) => Arc::clone(&previous.rules),
            None => Arc::new(Rules::new(&config.rules)?),
        };
        let before = previous.map(|previous| &previous.endpoints);
        let endpoints = Endpoints::new(&rules, &config.identities, &config.endpoints, before)?;
        Ok(Policy { rules, endpoints })
    }

    /// A declared identity at one of the addresses that the configuration gave it, or, with `None`, at an address that
    /// is in no group. `None` when the configuration did not say that it exists.
    pub fn endpoint(&self, identity: u32, address: Option<IpAddr>) -> Option<Endpoint> {
        let class = address.map_or(0, |address| self.rules.addresses.class(address));
        self.endpoints.find(identity, class)
    }

    /// An address that nobody has declared: in the groups whose networks hold it, and in no other.
    #[inline]
    pub fn external(&self, address: IpAddr) -> Endpoint {
        // Identity 0 comes first, and has every class of addresses.
        Endpoint(self.rules.addresses.class(address))
    }

    /// The decision at a port of `local` on a new flow from (`In`) or to (`Out`) `remote`.
    pub fn judge(
        &self,
        direction: Direction,
        local: Endpoint,
        remote: Endpoint,
        service: Service,
    ) -> Decision {
        let rules = &*self.rules;
        let deny = Decision { rule: None, action: Action::Drop, would: None };
        let Some(service) = rules.services.find(service) else { return deny };
        let local = self.endpoints.local(rules, local, direction);
        let remote = self.endpoints.remote(rules, remote, direction);
        let mut trial = Trial::default();
        let rule = search(rules.shape, [service, local, remote], |place, word| {
            let audit = rules.audit.word(place);
            let enforced = word & !audit;
            if word & audit != 0 {
                trial.note(rules, place, word & audit, enforced);
            }
            (enforced != 0).then(|| RuleIndex(place as u32 * 64 + enforced.trailing_zeros()))
        });
        let action = rule.map_or(Action::Drop, |rule| self.action(rule));
        let would = if action == Action::Allow { trial.refuses } else { trial.allows };
        Decision { rule, action, would: would.map(|rule| (rule, self.action(rule))) }
    }

    /// A rule of this policy.
    ///
    /// # Panics
    /// When `rule` is not from this policy and not in it either.
    pub fn rule(&self, rule: RuleIndex) -> &Rule {
        &self.rules.table[rule.place()]
    }

    /// All rules in order of judgement.
    pub fn rules(&self) -> &[Rule] {
        &self.rules.table
    }

    /// Names of the groups that an endpoint is in, in the order of their numbers.
    pub fn groups_of(&self, endpoint: Endpoint) -> impl Iterator<Item = &str> {
        self.endpoints.members(endpoint).iter().filter_map(|group| self.rules.group_name(*group))
    }

    /// How many distinct endpoints there are.
    pub fn endpoint_count(&self) -> usize {
        self.endpoints.count()
    }

    /// Whether both have the same compiled rules in memory.
    pub fn shares_rules_with(&self, other: &Policy) -> bool {
        Arc::ptr_eq(&self.rules, &other.rules)
    }

    /// Bytes of the compiled rules and of the endpoints, names and configuration not counted.
    pub fn size(&self) -> (usize, usize) {
        (self.rules.size(), self.endpoints.size())
    }

    #[inline]
    fn action(&self, rule: RuleIndex) -> Action {
        self.rules.actions.get(rule.place()).copied().unwrap_or(Action::Drop)
    }
}

impl Default for Policy {
    /// Without any rule: everything is dropped by default deny.
    fn default() -> Self {
        match Policy::compile(&PolicyConfig::default(), None) {
            Ok(policy) => policy,
            Err(error) => unreachable!("nothing contradicts nothing: {error}"),
        }
    }
}

/// What audit policies would have done.
#[derive(Default)]
struct Trial {
    /// The policy that matched last, by its place: only a policy's first match counts.
    policy: Option<u32>,
    allows: Option<RuleIndex>,
    refuses: Option<RuleIndex>,
}

impl Trial {
    /// Notes rules of audit policies that match and come before the lowest of `enforced`.
    #[cold]
    fn note(&mut self, rules: &Rules, place: usize, audit: u64, enforced: u64) {
        let before = enforced & enforced.wrapping_neg();
        for bit in Bits(audit & before.wrapping_sub(1)) {
            let rule = RuleIndex(place as u32 * 64 + bit);
            let policy = rules.policies.get(rule.place()).copied();
            if self.policy == policy {
                continue;
            }
            self.policy = policy;
            match rules.actions.get(rule.place()) {
                Some(Action::Allow) => self.allows = self.allows.or(Some(rule)),
                _ => self.refuses = self.refuses.or(Some(rule)),
            }
        }
    }
}
