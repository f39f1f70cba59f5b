//! Whether the firewall stands before a port: as wanted, and as it is.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Whether the firewall is wanted on a port.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Firewall {
    /// Policies decide about its connections.
    #[default]
    On,
    /// The port is excluded: nothing decides about its connections but what stands at their other end.
    Off,
}

impl Firewall {
    /// True for `on`.
    pub const fn is_on(&self) -> bool {
        matches!(self, Self::On)
    }
}

/// Whether the firewall stands before a port, or before the ports of a workload.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Enforced {
    /// It does, by the newest policies.
    Yes,
    /// It does not.
    No,
    /// Before some of the ports and not before others.
    Partly,
    /// The host has not said so yet.
    #[default]
    Pending,
}

impl Enforced {
    /// Several ports together.
    pub fn of_all(ports: impl IntoIterator<Item = Self>) -> Self {
        let each: Vec<Self> = ports.into_iter().collect();
        let has = |wanted| each.contains(&wanted);
        match (has(Self::Pending), has(Self::No) || has(Self::Partly), has(Self::Yes) || has(Self::Partly)) {
            (true, ..) => Self::Pending,
            (false, true, true) => Self::Partly,
            (false, true, false) => Self::No,
            (false, false, _) => Self::Yes,
        }
    }
}

impl fmt::Display for Enforced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Yes => "yes",
            Self::No => "no",
            Self::Partly => "partly",
            Self::Pending => "pending",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Enforced::{No, Partly, Pending, Yes};
    use super::*;

    #[test]
    fn a_workload_is_enforced_when_all_its_ports_are() {
        for (ports, all) in [
            (vec![], Yes),
            (vec![Yes, Yes], Yes),
            (vec![No], No),
            (vec![Yes, No], Partly),
            (vec![Partly], Partly),
            (vec![Yes, Pending], Pending),
            (vec![No, Pending], Pending),
        ] {
            assert_eq!(Enforced::of_all(ports.clone()), all, "{ports:?}");
        }
    }
}
