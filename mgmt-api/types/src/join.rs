//! How machines become hosts of a mesh, and what they are known by.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Labels, Mistake, labels, name};

/// The header with the fingerprint of the authority that signs hosts' certificates now. It is in every answer to a host;
/// one whose certificate another authority signed renews it.
pub const AUTHORITY_HEADER: &str = "palisade-authority";

/// A wish for a join token.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewJoinToken {
    /// DNS label, at most 63 characters; one is made up when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How many hosts may join with it, 1 to 1000; 1 when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uses: Option<u32>,
    /// For how many seconds it is valid, at most 30 days; an hour when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in: Option<u64>,
    /// Labels that the hosts get.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// The only host that may join with it; any when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Whether a host that joined before may be replaced by another machine.
    #[serde(default)]
    pub replace: bool,
}

/// Longest life of a join token, in seconds: it is meant to be used, not kept.
const LONGEST: u64 = 30 * 24 * 60 * 60;
/// Most hosts that may join with one token.
const MOST_USES: u32 = 1000;

impl NewJoinToken {
    /// For how many seconds it is valid.
    pub fn life(&self) -> u64 {
        self.expires_in.unwrap_or(60 * 60)
    }

    /// What is wrong with it; empty when nothing is.
    pub fn mistakes(&self) -> Vec<Mistake> {
        let mut found = Vec::new();
        for (field, name) in [("name", &self.name), ("host", &self.host)] {
            if let Some(name) = name {
                Mistake::check_name(&mut found, field, name::check(name), name);
            }
        }
        if let Some(uses) = self.uses.filter(|uses| !(1..=MOST_USES).contains(uses)) {
            let expected = format!("1 to {MOST_USES}");
            found.push(Mistake::new("uses", uses, expected).detail("a token is for some hosts"));
        }
        if !(1..=LONGEST).contains(&self.life()) {
            let expected = format!("1 to {LONGEST} seconds");
            found.push(Mistake::new("expiresIn", self.life(), expected).detail("it lives at most 30 days"));
        }
        labels::check(&self.labels, &mut found);
        found
    }
}

/// What has become of a join token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum JoinTokenState {
    /// Hosts can join with it.
    Valid,
    /// As many hosts joined with it as may.
    UsedUp,
    /// Its time is over.
    Expired,
    /// It was withdrawn.
    Revoked,
}

impl JoinTokenState {
    /// As written in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::UsedUp => "used-up",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        }
    }
}

/// What is known about a join token; its secret is not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct JoinToken {
    /// Its name.
    pub name: String,
    /// Who made it.
    pub author: String,
    /// When it was made, RFC 3339 in UTC.
    pub created: String,
    /// Until when it is valid, RFC 3339 in UTC.
    pub expires: String,
    /// How many hosts may join with it.
    pub uses: u32,
    /// How many did.
    pub used: u32,
    /// Labels that the hosts get.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// The only host that may join with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Whether a host that joined before may be replaced by another machine.
    pub replace: bool,
    /// What has become of it.
    pub state: JoinTokenState,
}

/// Join tokens, those that were valid within the last 30 days included.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct JoinTokenList {
    /// The tokens, by name.
    pub items: Vec<JoinToken>,
}

/// A join token just made: the only time its secret is seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct JoinTokenSecret {
    /// What is known about it.
    pub token: JoinToken,
    /// What to join with: the secret, a dot, and the fingerprint of the authority that the manager proves itself by.
    pub secret: String,
}

/// What a machine says to become a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JoinRequest {
    /// The secret of a join token: what stands before the dot.
    pub token: String,
    /// Name of the host: DNS label, at most 63 characters.
    pub host: String,
    /// Certificate signing request (RFC 2986), PEM. Only its key is looked at, and that it signed the request.
    pub csr: String,
}

/// What a host says to get its next certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RenewalRequest {
    /// Certificate signing request (RFC 2986), PEM.
    pub csr: String,
}

/// What a host proves itself by, and whom it trusts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Credentials {
    /// Name of the host.
    pub host: String,
    /// Its certificate, PEM.
    pub certificate: String,
    /// From when the certificate is valid, in seconds since 1970.
    pub not_before: u64,
    /// Until when.
    pub not_after: u64,
    /// Fingerprint of the authority that signed it.
    pub authority: String,
    /// Certificates of the authorities that a manager may prove itself by, PEM.
    pub authorities: Vec<String>,
    /// URLs of managers to try besides those that the host knows.
    #[serde(default)]
    pub managers: Vec<String>,
}

impl Credentials {
    /// When to get the next certificate, in seconds since 1970: at half life.
    pub const fn renew_at(&self) -> u64 {
        self.not_before + self.not_after.saturating_sub(self.not_before) / 2
    }
}

/// One certificate authority that is trusted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Authority {
    /// SHA-256 of its certificate, in hexadecimal.
    pub fingerprint: String,
    /// Its name, as it stands in its certificate.
    pub name: String,
    /// Until when its certificate is valid, RFC 3339 in UTC.
    pub expires: String,
    /// Whether it signs the certificates of managers: the oldest does.
    pub signs_managers: bool,
    /// Whether it signs the certificates of hosts: the newest does.
    pub signs_hosts: bool,
    /// How many hosts have a certificate that it signed and that is still valid.
    pub hosts: u32,
    /// How near its end is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alarm: Option<ExpiryAlarm>,
    /// Its certificate, PEM.
    pub certificate: String,
}

/// All authorities that are trusted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuthorityList {
    /// The authorities, oldest first.
    pub items: Vec<Authority>,
}

/// How near the end of a certificate is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ExpiryAlarm {
    /// 30 days or less.
    Month,
    /// 7 days or less.
    Week,
    /// A day or less.
    Day,
    /// It is over.
    Expired,
}

impl ExpiryAlarm {
    /// The alarm for what ends at `end`, both in seconds since 1970.
    pub const fn of(end: u64, now: u64) -> Option<Self> {
        const DAY: u64 = 24 * 60 * 60;
        match end.saturating_sub(now) {
            0 => Some(Self::Expired),
            left if left <= DAY => Some(Self::Day),
            left if left <= 7 * DAY => Some(Self::Week),
            left if left <= 30 * DAY => Some(Self::Month),
            _ => None,
        }
    }

    /// As written in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Month => "month",
            Self::Week => "week",
            Self::Day => "day",
            Self::Expired => "expired",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_beyond_the_limits_names_the_field() {
        let wish = NewJoinToken::default();
        assert_eq!(wish.mistakes(), []);
        for (wish, field) in [
            (NewJoinToken { uses: Some(0), ..wish.clone() }, "uses"),
            (NewJoinToken { uses: Some(MOST_USES + 1), ..wish.clone() }, "uses"),
            (NewJoinToken { expires_in: Some(0), ..wish.clone() }, "expiresIn"),
            (NewJoinToken { expires_in: Some(LONGEST + 1), ..wish.clone() }, "expiresIn"),
            (NewJoinToken { name: Some("a b".into()), ..wish.clone() }, "name"),
            (NewJoinToken { host: Some("A".into()), ..wish.clone() }, "host"),
            (NewJoinToken { labels: [(String::new(), "x".into())].into(), ..wish.clone() }, "labels"),
        ] {
            let found = wish.mistakes();
            assert!(found.len() == 1 && found[0].field.as_deref().unwrap().starts_with(field), "{found:?}");
        }
    }

    #[test]
    fn an_alarm_is_raised_at_30_7_and_1_days() {
        const DAY: u64 = 86_400;
        let alarm = |left: u64| ExpiryAlarm::of(1_000_000_000 + left, 1_000_000_000);
        assert_eq!(alarm(30 * DAY + 1), None);
        assert_eq!(alarm(30 * DAY), Some(ExpiryAlarm::Month));
        assert_eq!(alarm(7 * DAY), Some(ExpiryAlarm::Week));
        assert_eq!(alarm(DAY), Some(ExpiryAlarm::Day));
        assert_eq!(alarm(0), Some(ExpiryAlarm::Expired));
        assert_eq!(ExpiryAlarm::of(5, 9), Some(ExpiryAlarm::Expired));
    }
}
