//! Becoming a host of a mesh, and staying one.

use std::fmt;

use http::Method;
use mgmt_types::{Credentials, JoinRequest, RenewalRequest};
use rcgen::{CertificateParams, KeyPair};
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::client::{Body, Client, Timeouts};
use crate::tls::{self, Proof, Trust};

/// What makes a machine a host: its key, and what a manager gave for it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Membership {
    /// The private key, PKCS #8 in PEM.
    pub key: String,
    /// Certificate and authorities.
    pub credentials: Credentials,
    /// Managers to try, in this order; `https://host:port`.
    pub managers: Vec<String>,
}

impl Membership {
    /// Name of the host.
    pub fn host(&self) -> &str {
        &self.credentials.host
    }

    fn proof(&self) -> Proof<'_> {
        Proof { certificate: &self.credentials.certificate, key: &self.key }
    }

    fn tls(&self) -> Result<rustls::ClientConfig, Error> {
        tls::config(Trust::Only(&self.credentials.authorities.concat()), Some(self.proof()))
    }

    /// Whether it is time for the next certificate, at `now` in seconds since 1970: at half life, or when the manager that
    /// `client` talks to names an authority that did not sign this one.
    pub fn is_due(&self, client: &Client, now: u64) -> bool {
        let named = client.named_authority();
        self.credentials.renew_at() <= now || named.is_some_and(|named| named != self.credentials.authority)
    }
}

/// Becomes the host `host`, by one of the managers at `urls`, with a join token: the secret, a dot and the fingerprint of the
/// authority that the manager proves itself by. The secret is told to nobody else. A host that joined `before` proves that
/// it is the same.
///
/// # Errors
/// When the token is none, no manager can be reached or is the one that the token is of, or when it refuses.
pub async fn join(
    urls: &[String],
    token: &str,
    host: &str,
    before: Option<&Membership>,
) -> Result<Membership, Error> {
    let (secret, fingerprint) = token.trim().rsplit_once('.').ok_or(Error::JoinToken)?;
    if fingerprint.len() != 64 || !fingerprint.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Error::JoinToken);
    }
    let key = KeyPair::generate()?;
    let request =
        JoinRequest { token: secret.to_owned(), host: host.to_owned(), csr: signing_request(&key)? };
    let tls = tls::config(Trust::Fingerprint(fingerprint), before.map(Membership::proof))?;
    let client = Client::over(urls, tls, None, Timeouts::default())?;
    let mut tried = 0;
    loop {
        tried += 1;
        match client.write::<Credentials>(Method::POST, "/v1/join", &request).await {
            Ok(credentials) => return Ok(membership_of(&key, credentials, urls)),
            Err(error) if error.is_unreachable() && tried < urls.len() => {}
            Err(error) => return Err(error),
        }
    }
}

impl Client {
    /// A client of the managers of `membership`, as its host. After one that cannot be reached the next is asked.
    ///
    /// # Errors
    /// When there is no manager, a URL is none, is not `https`, has a path, or certificate, key or authorities cannot be
    /// used.
    pub fn member(membership: &Membership) -> Result<Self, Error> {
        Self::over(&membership.managers, membership.tls()?, None, Timeouts::default())
    }

    /// Speaks by another certificate from the next connection on, in all clones.
    ///
    /// # Errors
    /// When certificate, key or authorities cannot be used.
    pub fn speak_as(&self, membership: &Membership) -> Result<(), Error> {
        self.speak(membership.tls()?);
        Ok(())
    }

    /// The next certificate of the host that this client is, with a new key.
    ///
    /// # Errors
    /// When the manager cannot be reached or refuses.
    pub async fn renew(&self, membership: &Membership) -> Result<Membership, Error> {
        let key = KeyPair::generate()?;
        let request = RenewalRequest { csr: signing_request(&key)? };
        let request = self.request(Method::POST, "/v1/agent/certificate", Some(Body::json(&request)?))?;
        let credentials: Credentials = self.json(request).await?;
        Ok(membership_of(&key, credentials, &membership.managers))
    }
}

/// The managers a host knows come first, then those it is told of.
fn membership_of(key: &KeyPair, credentials: Credentials, known: &[String]) -> Membership {
    let mut managers = known.to_vec();
    for url in &credentials.managers {
        if !managers.contains(url) {
            managers.push(url.clone());
        }
    }
    Membership { key: key.serialize_pem(), credentials, managers }
}

fn signing_request(key: &KeyPair) -> Result<String, Error> {
    Ok(CertificateParams::default().serialize_request(key)?.pem()?)
}

impl fmt::Debug for Membership {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Membership")
            .field("host", &self.credentials.host)
            .field("managers", &self.managers)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(managers: &[&str]) -> Credentials {
        Credentials {
            host: "host-a".into(),
            certificate: String::new(),
            not_before: 1000,
            not_after: 3000,
            authority: "00".into(),
            authorities: Vec::new(),
            managers: managers.iter().map(|url| (*url).to_owned()).collect(),
        }
    }

    #[test]
    fn a_host_keeps_the_managers_it_knows_and_learns_of_others() {
        let key = KeyPair::generate().expect("makes");
        let known = ["https://a:1".to_owned(), "https://b:1".to_owned()];
        let joined = membership_of(&key, credentials(&["https://b:1", "https://c:1"]), &known);
        assert_eq!(joined.managers, ["https://a:1", "https://b:1", "https://c:1"]);
        assert_eq!(joined.credentials.renew_at(), 2000);
        assert!(!format!("{joined:?}").contains("PRIVATE"));
    }

    #[tokio::test]
    async fn what_is_no_join_token_is_refused_before_anybody_is_asked() {
        for token in ["", "join_00", "join_00.", "join_00.0011", &format!("join_00.{}", "z".repeat(64))] {
            let refused = join(&["https://127.0.0.1:1".into()], token, "host-a", None).await;
            assert!(matches!(refused, Err(Error::JoinToken)), "{token}: {refused:?}");
        }
    }
}
