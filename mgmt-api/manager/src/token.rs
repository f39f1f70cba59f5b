//! Users, and the tokens that let them in.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand;
use mgmt_types::{Role, TokenInfo, User};
use serde::{Deserialize, Serialize};

use crate::records::Records;
use crate::time;

/// A user as it is kept. Its key is its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredUser {
    pub(crate) name: String,
    pub(crate) role: Role,
    /// RFC 3339 in UTC.
    pub(crate) created: String,
}

/// A token as it is kept: without its secret. Its key is its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredToken {
    pub(crate) name: String,
    /// Whose it is. A version before users left none, but `role`.
    #[serde(default)]
    pub(crate) user: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) role: Option<Role>,
    /// RFC 3339 in UTC.
    pub(crate) created: String,
    /// In seconds since 1970; for ever when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) expires: Option<u64>,
    /// SHA-256 of the secret, in hexadecimal.
    pub(crate) hash: String,
}

impl StoredToken {
    pub(crate) fn is_expired(&self, now: u64) -> bool {
        self.expires.is_some_and(|end| end <= now)
    }
}

/// A fresh secret: 256 random bits in hexadecimal behind a prefix that secret scanners can look for.
pub(crate) fn secret(prefix: &str) -> Result<String, aws_lc_rs::error::Unspecified> {
    let mut bytes = [0u8; 32];
    rand::fill(&mut bytes)?;
    Ok(format!("{prefix}_{}", hex(&bytes)))
}

/// A word of `bytes` random bytes that nobody has to keep to oneself.
pub(crate) fn word(bytes: usize) -> Result<String, aws_lc_rs::error::Unspecified> {
    let mut random = vec![0u8; bytes];
    rand::fill(&mut random)?;
    Ok(hex(&random))
}

/// Some letters and digits that nothing else has by chance, for a name.
pub(crate) fn nonce() -> Result<String, aws_lc_rs::error::Unspecified> {
    let mut bytes = [0u8; 5];
    rand::fill(&mut bytes)?;
    Ok(hex(&bytes))
}

/// What is kept of a secret. One round of SHA-256 is enough: slow, salted hashes protect secrets that can be guessed,
/// and nobody guesses 256 random bits; a slow hash would only give strangers a way to keep the manager busy.
pub(crate) fn hash(secret: &str) -> String {
    hex(digest(&SHA256, secret.as_bytes()).as_ref())
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whoever is let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Caller {
    /// Name of the user or host.
    pub(crate) name: String,
    /// `Agent` for a host.
    pub(crate) role: Role,
    /// Of a host, the word of its enrolment.
    pub(crate) enrolment: Option<String>,
}

impl Caller {
    /// A user.
    pub(crate) fn user(name: &str, role: Role) -> Self {
        Self { name: name.to_owned(), role, enrolment: None }
    }

    /// A host.
    pub(crate) fn host(name: &str, enrolment: &str) -> Self {
        Self { name: name.to_owned(), role: Role::Agent, enrolment: Some(enrolment.to_owned()) }
    }
}

/// Why a token lets nobody in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenRefusal {
    #[error("the token is not valid (any more)")]
    Unknown,
    #[error("token {name} expired at {at}, and the manager's clock says {now}")]
    Expired { name: String, at: String, now: String },
}

/// Who holds this secret. Finding a token by its hash tells a prying client nothing: how long the search takes depends on
/// the hash, which the client cannot choose.
pub(crate) fn caller(records: &Records, secret: &str, now: u64) -> Result<Caller, TokenRefusal> {
    let hash = hash(secret);
    let token = records.tokens.find(|token| token.hash == hash).ok_or(TokenRefusal::Unknown)?;
    if let Some(end) = token.expires.filter(|_| token.is_expired(now)) {
        let (name, at, now) = (token.name.clone(), time::rfc3339(end), time::rfc3339(now));
        return Err(TokenRefusal::Expired { name, at, now });
    }
    let user = records.users.get(&token.user).ok_or(TokenRefusal::Unknown)?;
    Ok(Caller::user(&user.name, user.role))
}

/// All tokens, by name.
pub(crate) fn tokens(records: &Records) -> Vec<TokenInfo> {
    let all = records.tokens.all();
    let info = |(_, token): (String, std::sync::Arc<StoredToken>)| {
        let user = records.users.get(&token.user)?;
        Some(TokenInfo {
            name: token.name.clone(),
            user: user.name.clone(),
            role: user.role,
            created: token.created.clone(),
            expires: token.expires.map(time::rfc3339),
        })
    };
    all.into_iter().filter_map(info).collect()
}

/// All users, by name.
pub(crate) fn users(records: &Records) -> Vec<User> {
    let all = records.users.all();
    all.into_iter().map(|(_, user)| described(records, &user)).collect()
}

/// A user as others see it.
pub(crate) fn described(records: &Records, user: &StoredUser) -> User {
    let tokens = records.tokens.count(|token| token.user == user.name);
    User {
        name: user.name.clone(),
        role: user.role,
        created: user.created.clone(),
        tokens: u32::try_from(tokens).unwrap_or(u32::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_sha_256() {
        // FIPS 180-2 appendix B.1.
        assert_eq!(hash("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn a_secret_has_256_bits_behind_its_prefix() {
        let (one, other) = (secret("palisade").unwrap(), secret("palisade").unwrap());
        assert_eq!(one.len(), "palisade_".len() + 64);
        assert_ne!(one, other);
    }

    #[test]
    fn a_token_of_a_version_before_users_can_be_read() {
        let text = r#"{"name":"ci","role":"viewer","created":"2024-01-01T00:00:00Z","hash":"00"}"#;
        let token: StoredToken = serde_json::from_str(text).unwrap();
        assert_eq!((token.user.as_str(), token.role, token.expires), ("", Some(Role::Viewer), None));
    }
}
