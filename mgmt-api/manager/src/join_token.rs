//! Join tokens: what a machine becomes a host with, and why it may not.

use mgmt_types::{JoinToken, JoinTokenState, Labels, Mistake, NewJoinToken, Problem, ProblemKind};
use serde::{Deserialize, Serialize};

use crate::time::{self, DAY};

/// How long a token that is over is remembered, in seconds, so that whoever comes with it learns why it is refused.
pub(crate) const REMEMBERED: u64 = 30 * DAY;

/// A join token as it is kept: without its secret. Its key is its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StoredJoinToken {
    pub(crate) name: String,
    /// SHA-256 of the secret, in hexadecimal.
    pub(crate) hash: String,
    pub(crate) author: String,
    /// In seconds since 1970.
    pub(crate) created: u64,
    /// In seconds since 1970.
    pub(crate) expires: u64,
    pub(crate) uses: u32,
    pub(crate) used: u32,
    #[serde(default)]
    pub(crate) revoked: bool,
    #[serde(default)]
    pub(crate) labels: Labels,
    #[serde(default)]
    pub(crate) host: Option<String>,
    #[serde(default)]
    pub(crate) replace: bool,
}

/// Why a machine may not become a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JoinRefusal {
    Unknown,
    Expired,
    Revoked,
    UsedUp,
    OtherHost,
    Taken,
    Request,
}

impl JoinRefusal {
    pub(crate) const ALL: [Self; 7] = [
        Self::Unknown,
        Self::Expired,
        Self::Revoked,
        Self::UsedUp,
        Self::OtherHost,
        Self::Taken,
        Self::Request,
    ];

    /// As in metrics.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown-token",
            Self::Expired => "expired-token",
            Self::Revoked => "revoked-token",
            Self::UsedUp => "used-up-token",
            Self::OtherHost => "other-host",
            Self::Taken => "taken-name",
            Self::Request => "signing-request",
        }
    }

    /// The refusal of a machine that wants to be `host`, for a person.
    pub(crate) fn problem(self, host: &str, reason: impl Into<String>) -> Problem {
        let (kind, field, expected) = match self {
            Self::Unknown | Self::Expired | Self::Revoked | Self::UsedUp => (
                ProblemKind::Unauthenticated,
                "token",
                "a join token that is valid: `palisade join-token create` makes one",
            ),
            Self::OtherHost => (ProblemKind::Forbidden, "host", "the host that the token was made for"),
            Self::Taken => (
                ProblemKind::InUse,
                "host",
                "another name, the certificate that the host has, or a token made with `--replace`",
            ),
            Self::Request => {
                (ProblemKind::Invalid, "csr", "a certificate signing request in PEM, signed by its key")
            }
        };
        // Secrets and requests are not sent back.
        let got = (field == "host").then(|| host.to_owned());
        let mistake = Mistake {
            field: Some(field.to_owned()),
            got,
            expected: Some(expected.to_owned()),
            ..Mistake::default().detail(reason)
        };
        Problem::of(kind, vec![mistake])
    }
}

impl StoredJoinToken {
    /// What `wish` comes to at `now`, in seconds since 1970.
    pub(crate) fn new(
        wish: &NewJoinToken,
        name: String,
        author: String,
        hash: String,
        now: u64,
    ) -> Result<Self, Problem> {
        let mistakes = wish.mistakes();
        if !mistakes.is_empty() {
            return Err(Problem::of(ProblemKind::Invalid, mistakes));
        }
        Ok(Self {
            name,
            hash,
            author,
            created: now,
            expires: now.saturating_add(wish.life()),
            uses: wish.uses.unwrap_or(1),
            used: 0,
            revoked: false,
            labels: wish.labels.clone(),
            host: wish.host.clone(),
            replace: wish.replace,
        })
    }

    pub(crate) fn state(&self, now: u64) -> JoinTokenState {
        if self.revoked {
            JoinTokenState::Revoked
        } else if self.used >= self.uses {
            JoinTokenState::UsedUp
        } else if self.expires <= now {
            JoinTokenState::Expired
        } else {
            JoinTokenState::Valid
        }
    }

    /// The token after `host` joined with it.
    pub(crate) fn used_by(&self, host: &str, now: u64) -> Result<Self, (JoinRefusal, String)> {
        let name = &self.name;
        let refuse = |refusal, reason: String| Err((refusal, reason));
        match self.state(now) {
            JoinTokenState::Revoked => refuse(JoinRefusal::Revoked, format!("join token {name} was revoked")),
            JoinTokenState::UsedUp => {
                let reason = format!("join token {name} was used by {} of {} hosts", self.used, self.uses);
                refuse(JoinRefusal::UsedUp, reason)
            }
            JoinTokenState::Expired => {
                let (expired, now) = (time::rfc3339(self.expires), time::rfc3339(now));
                let reason =
                    format!("join token {name} expired at {expired}, and the manager's clock says {now}");
                refuse(JoinRefusal::Expired, reason)
            }
            JoinTokenState::Valid => match &self.host {
                Some(only) if only != host => {
                    refuse(JoinRefusal::OtherHost, format!("join token {name} is for host {only}"))
                }
                _ => Ok(Self { used: self.used + 1, ..self.clone() }),
            },
        }
    }

    pub(crate) fn info(&self, now: u64) -> JoinToken {
        JoinToken {
            name: self.name.clone(),
            author: self.author.clone(),
            created: time::rfc3339(self.created),
            expires: time::rfc3339(self.expires),
            uses: self.uses,
            used: self.used,
            labels: self.labels.clone(),
            host: self.host.clone(),
            replace: self.replace,
            state: self.state(now),
        }
    }

    /// Whether it was over so long ago that nobody needs to know why.
    pub(crate) fn is_forgotten(&self, now: u64) -> bool {
        self.expires.saturating_add(REMEMBERED) <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::HOUR;

    fn token(wish: &NewJoinToken) -> StoredJoinToken {
        StoredJoinToken::new(wish, "t".into(), "admin".into(), String::new(), 1000).unwrap()
    }

    #[test]
    fn a_token_is_good_for_one_host_and_one_hour_unless_told_otherwise() {
        let fresh = token(&NewJoinToken::default());
        let used = fresh.used_by("a", 1000 + HOUR - 1).unwrap();
        assert_eq!(used.used_by("b", 1001).unwrap_err().0, JoinRefusal::UsedUp);
        assert_eq!(fresh.used_by("a", 1000 + HOUR).unwrap_err().0, JoinRefusal::Expired);
        let revoked = StoredJoinToken { revoked: true, ..fresh };
        assert_eq!(revoked.used_by("a", 1001).unwrap_err().0, JoinRefusal::Revoked);
    }

    #[test]
    fn a_token_for_one_host_is_for_no_other() {
        let bound = token(&NewJoinToken { host: Some("a".into()), ..NewJoinToken::default() });
        assert_eq!(bound.used_by("b", 1001).unwrap_err().0, JoinRefusal::OtherHost);
        assert_eq!(bound.used_by("a", 1001).unwrap().used, 1);
    }
}
