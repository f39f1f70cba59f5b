//! Whom to trust, and whom to be.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::Error;

/// A certificate and its key, both PEM.
#[derive(Clone, Copy)]
pub(crate) struct Proof<'a> {
    pub(crate) certificate: &'a str,
    pub(crate) key: &'a str,
}

/// Whom to trust.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Trust<'a> {
    /// What one of the authorities in this PEM signed, and nothing else.
    Only(&'a str),
    /// What the authority of this fingerprint signed: SHA-256 of its certificate, in hexadecimal.
    Fingerprint(&'a str),
}

/// TLS that trusts nobody else, and proves who we are when there is a `proof`.
pub(crate) fn config(trust: Trust<'_>, proof: Option<Proof<'_>>) -> Result<ClientConfig, Error> {
    let refuse = |reason: String| Error::Authority { reason };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| refuse(error.to_string()))?;
    let builder = match trust {
        Trust::Only(pem) => builder.with_root_certificates(roots(pem)?),
        Trust::Fingerprint(fingerprint) => {
            let pinned = Pinned { fingerprint: fingerprint.to_owned(), provider };
            builder.dangerous().with_custom_certificate_verifier(Arc::new(pinned))
        }
    };
    let Some(Proof { certificate, key }) = proof else { return Ok(builder.with_no_client_auth()) };
    let refuse = |reason: String| Error::Certificate { reason };
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect();
    let certificates = certificates.map_err(|error| refuse(error.to_string()))?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|error| refuse(error.to_string()))?;
    builder.with_client_auth_cert(certificates, key).map_err(|error| refuse(error.to_string()))
}

fn roots(pem: &str) -> Result<RootCertStore, Error> {
    let refuse = |reason: String| Error::Authority { reason };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|error| refuse(error.to_string()))?;
        roots.add(certificate).map_err(|error| refuse(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(refuse("there is no certificate in it".to_owned()));
    }
    Ok(roots)
}

/// SHA-256 of a certificate, in hexadecimal.
fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    digest(&SHA256, certificate).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Trusts the authority that has a fingerprint, which the server has to show among its certificates.
#[derive(Debug)]
struct Pinned {
    fingerprint: String,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let fits = |shown: &&CertificateDer<'_>| fingerprint(shown).eq_ignore_ascii_case(&self.fingerprint);
        let Some(authority) = intermediates.iter().find(fits) else {
            let shown = intermediates.last().map_or_else(|| "none".to_owned(), fingerprint);
            return Err(rustls::Error::General(format!(
                "the manager's authority has fingerprint {shown}, and the token names {}",
                self.fingerprint
            )));
        };
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let general = |error: rustls::server::VerifierBuilderError| rustls::Error::General(error.to_string());
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider))
                .build()
                .map_err(general)?;
        verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_holds_no_certificate_is_refused() {
        for pem in ["", "secret", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            let refused = config(Trust::Only(pem), None);
            assert!(matches!(refused, Err(Error::Authority { .. })), "{pem:?}: {refused:?}");
        }
    }

    #[test]
    fn what_proves_nobody_is_refused() {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("makes");
        let (pem, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        assert!(config(Trust::Only(&pem), Some(Proof { certificate: &pem, key: &key })).is_ok());
        for (certificate, key) in [("", key.as_str()), (&pem, ""), ("nonsense", "nonsense")] {
            let refused = config(Trust::Only(&pem), Some(Proof { certificate, key }));
            assert!(matches!(refused, Err(Error::Certificate { .. })), "{refused:?}");
        }
    }
}
