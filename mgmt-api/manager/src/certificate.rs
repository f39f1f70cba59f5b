//! The manager's own certificate, and what it speaks.
//!
//! The certificate is made at each start, lives in memory only, and is made again at half its life or when another
//! authority signs managers; clients trust the authorities and notice nothing.

use std::sync::{Arc, RwLock};
use std::time::SystemTime;

use rustls::crypto::{WebPkiSupportedAlgorithms, aws_lc_rs};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, DistinguishedName, SignatureScheme};

use crate::authority::{AuthorityError, SERVER_LIFE, Trust};

/// Makes server certificates and hands out the newest.
#[derive(Debug)]
pub(crate) struct Certifier {
    names: Vec<String>,
    current: RwLock<Issued>,
}

#[derive(Debug, Clone)]
struct Issued {
    key: Arc<CertifiedKey>,
    authority: String,
    renew_at: SystemTime,
}

impl Certifier {
    /// With a first certificate for a manager that clients know by `names`.
    pub(crate) fn new(names: Vec<String>, trust: &Trust, now: SystemTime) -> Result<Self, AuthorityError> {
        let first = issue(trust, &names, now)?;
        Ok(Self { names, current: RwLock::new(first) })
    }

    /// Makes a new certificate when the current one has passed half its life, or is not of the authority that signs
    /// managers now.
    pub(crate) fn renew(&self, trust: &Trust, now: SystemTime) -> Result<(), AuthorityError> {
        let is_due = |issued: &Issued| issued.renew_at <= now || issued.authority != trust.of_managers();
        if self.current.read().is_ok_and(|issued| is_due(&issued)) {
            let fresh = issue(trust, &self.names, now)?;
            if let Ok(mut current) = self.current.write() {
                *current = fresh;
            }
            log::info!("a new server certificate is in use");
        }
        Ok(())
    }
}

impl ResolvesServerCert for Certifier {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.current.read().ok().map(|issued| Arc::clone(&issued.key))
    }
}

fn issue(trust: &Trust, names: &[String], now: SystemTime) -> Result<Issued, AuthorityError> {
    Ok(Issued {
        key: Arc::new(trust.sign_manager(names, now)?),
        authority: trust.of_managers().to_owned(),
        renew_at: now + SERVER_LIFE / 2,
    })
}

/// What the server speaks: TLS 1.3 and HTTP/1.1. A client may show a certificate.
pub(crate) fn server_config(certifier: Arc<Certifier>) -> Result<rustls::ServerConfig, AuthorityError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let any = AnyCertificate { algorithms: provider.signature_verification_algorithms };
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(any))
        .with_cert_resolver(certifier);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// Lets a client show any certificate whose key it has. Whom it stands for is judged at each request
/// ([`Trust::judge`]): a refusal then has words, and trust that ends, ends on open connections too.
#[derive(Debug)]
struct AnyCertificate {
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for AnyCertificate {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authority::StoredAuthority;
    use crate::seal::Seal;

    #[test]
    fn a_server_certificate_is_renewed_at_half_its_life_and_when_the_authority_changes() {
        let (seal, now) = (Seal::of([7; 32]), SystemTime::now());
        let make = |number| StoredAuthority::make(number, &seal, now).unwrap();
        let trust = |list| Trust::open(list, &seal).unwrap().unwrap();
        let (one, two) = (make(1), make(2));
        let first_trust = trust(vec![one.clone()]);
        let certifier = Certifier::new(vec!["localhost".into()], &first_trust, now).unwrap();
        let leaf = || certifier.current.read().unwrap().key.cert[0].clone();
        let first = leaf();
        certifier.renew(&first_trust, now + SERVER_LIFE / 3).unwrap();
        certifier.renew(&trust(vec![one, two.clone()]), now).unwrap();
        assert_eq!(leaf(), first, "an authority that is only trusted changes nothing");
        certifier.renew(&first_trust, now + SERVER_LIFE / 2).unwrap();
        let second = leaf();
        assert_ne!(second, first);
        certifier.renew(&trust(vec![two]), now).unwrap();
        assert_ne!(leaf(), second);
    }
}
