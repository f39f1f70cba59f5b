//! Who a request comes from.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand;
use mgmt_types::{Role, TokenInfo};
use serde::{Deserialize, Serialize};

/// A token as it is kept: without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredToken {
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) created: String,
    /// SHA-256 of the secret, in hexadecimal.
    pub(crate) hash: String,
}

/// A fresh secret: 256 random bits in hexadecimal behind a prefix that secret scanners can look for.
pub(crate) fn secret() -> Result<String, aws_lc_rs::error::Unspecified> {
    let mut bytes = [0u8; 32];
    rand::fill(&mut bytes)?;
    Ok(format!("palisade_{}", hex(&bytes)))
}

/// What is kept of a secret. One round of SHA-256 is enough: slow, salted hashes protect secrets that can be guessed,
/// and nobody guesses 256 random bits; a slow hash would only give strangers a way to keep the manager busy.
pub(crate) fn hash(secret: &str) -> String {
    hex(digest(&SHA256, secret.as_bytes()).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whoever holds a valid token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) name: String,
    pub(crate) role: Role,
}

/// All valid tokens, by hash. Finding one by its hash tells a prying client nothing: how long the search takes depends
/// on the hash, which the client cannot choose.
#[derive(Debug, Default)]
pub(crate) struct Tokens(RwLock<HashMap<String, StoredToken>>);

impl Tokens {
    pub(crate) fn new(tokens: Vec<StoredToken>) -> Self {
        Self(RwLock::new(tokens.into_iter().map(|token| (token.hash.clone(), token)).collect()))
    }

    /// Who holds this secret.
    pub(crate) fn caller(&self, secret: &str) -> Option<Caller> {
        let tokens = self.0.read().unwrap_or_else(PoisonError::into_inner);
        tokens.get(&hash(secret)).map(|token| Caller { name: token.name.clone(), role: token.role })
    }

    pub(crate) fn add(&self, token: StoredToken) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(token.hash.clone(), token);
    }

    pub(crate) fn remove(&self, name: &str) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).retain(|_, token| token.name != name);
    }

    /// All tokens, by name.
    pub(crate) fn list(&self) -> Vec<TokenInfo> {
        let tokens = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let info = |token: &StoredToken| TokenInfo {
            name: token.name.clone(),
            role: token.role,
            created: token.created.clone(),
        };
        let mut list: Vec<TokenInfo> = tokens.values().map(info).collect();
        list.sort_by(|a, b| a.name.cmp(&b.name));
        list
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
    fn a_secret_is_known_until_its_token_is_removed() {
        let secret = secret().unwrap();
        assert_eq!(secret.len(), "palisade_".len() + 64);
        let token = StoredToken {
            name: "ci".into(),
            role: Role::Viewer,
            created: String::new(),
            hash: hash(&secret),
        };
        let tokens = Tokens::new(vec![token]);
        assert_eq!(tokens.caller(&secret), Some(Caller { name: "ci".into(), role: Role::Viewer }));
        assert_eq!(tokens.caller("palisade_"), None);
        tokens.remove("ci");
        assert_eq!(tokens.caller(&secret), None);
    }
}
