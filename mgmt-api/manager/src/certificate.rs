//! The certificate authority of this installation and the manager's own certificate.
//!
//! The authority is made once and kept in the state directory. The manager's certificate is made at each start, lives
//! in memory only, and is made again at half its life; clients trust the authority and notice nothing.

use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::files::{self, FileError};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Life of the authority: it is replaced by hand, with an overlap, long before.
const AUTHORITY_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
/// Life of a server certificate: below the 398 days that clients accept (CA/Browser Forum baseline requirements 6.3.2).
const SERVER_LIFE: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A key or certificate could not be made or read.
    #[error("{}: {source}; remove ca.key and ca.pem to make a new authority, which clients must then be given", .path.display())]
    Make {
        /// The file of the authority's key.
        path: PathBuf,
        /// What the library said.
        source: rcgen::Error,
    },
    /// The TLS library refused the certificate.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
}

/// Makes server certificates and hands out the newest.
#[derive(Debug)]
pub(crate) struct Certifier {
    issuer: Issuer<'static, KeyPair>,
    key_path: PathBuf,
    names: Vec<String>,
    current: RwLock<Issued>,
}

#[derive(Debug, Clone)]
struct Issued {
    key: Arc<CertifiedKey>,
    renew_at: SystemTime,
}

impl Certifier {
    /// Reads the authority from `directory`, or makes it there: `ca.pem` for clients, `ca.key` for the owner only.
    pub(crate) fn open(
        directory: &Path,
        names: Vec<String>,
        now: SystemTime,
    ) -> Result<Arc<Self>, CertificateError> {
        let key_path = directory.join("ca.key");
        let failed = |source| CertificateError::Make { path: key_path.clone(), source };
        let key = match files::read(&key_path)? {
            Some(pem) => KeyPair::from_pem(&pem).map_err(failed)?,
            None => {
                let key = KeyPair::generate().map_err(failed)?;
                let certificate =
                    authority(now).and_then(|params| params.self_signed(&key)).map_err(failed)?;
                files::write(&directory.join("ca.pem"), certificate.pem().as_bytes(), 0o644)?;
                // The key comes last: without it the next start begins anew.
                files::write(&key_path, key.serialize_pem().as_bytes(), 0o600)?;
                key
            }
        };
        // Only the subject and the key of the issuer go into what it signs.
        let issuer = Issuer::new(authority(now).map_err(failed)?, key);
        let first = issue(&issuer, &names, now).map_err(failed)??;
        Ok(Arc::new(Self { issuer, key_path, names, current: RwLock::new(first) }))
    }

    /// Makes a new certificate when the current one has passed half its life.
    pub(crate) fn renew(&self, now: SystemTime) -> Result<(), CertificateError> {
        let due = self.current.read().is_ok_and(|issued| issued.renew_at <= now);
        if due {
            let failed = |source| CertificateError::Make { path: self.key_path.clone(), source };
            let fresh = issue(&self.issuer, &self.names, now).map_err(failed)??;
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

/// What the server speaks: TLS 1.3 and HTTP/1.1.
pub(crate) fn server_config(certifier: Arc<Certifier>) -> Result<rustls::ServerConfig, CertificateError> {
    let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_cert_resolver(certifier);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn authority(now: SystemTime) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "Palisade authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    // A day of grace for clients whose clock is behind.
    params.not_before = (now - DAY).into();
    params.not_after = (now + AUTHORITY_LIFE).into();
    Ok(params)
}

fn issue(
    issuer: &Issuer<'static, KeyPair>,
    names: &[String],
    now: SystemTime,
) -> Result<Result<Issued, CertificateError>, rcgen::Error> {
    let mut params = CertificateParams::new(names.to_vec())?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "Palisade manager");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    params.not_before = (now - DAY).into();
    params.not_after = (now + SERVER_LIFE).into();
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, issuer)?;
    let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    Ok(aws_lc_rs::sign::any_supported_type(&private).map_err(CertificateError::Tls).map(|signer| Issued {
        key: Arc::new(CertifiedKey::new(vec![certificate.der().clone()], signer)),
        renew_at: now + SERVER_LIFE / 2,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_authority_is_made_once_and_its_key_is_private() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        Certifier::open(directory.path(), vec!["localhost".into()], now).unwrap();
        let first = std::fs::read(directory.path().join("ca.pem")).unwrap();
        Certifier::open(directory.path(), vec!["localhost".into()], now).unwrap();
        assert_eq!(std::fs::read(directory.path().join("ca.pem")).unwrap(), first);
        let mode = std::fs::metadata(directory.path().join("ca.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_server_certificate_is_renewed_at_half_its_life() {
        let directory = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let certifier = Certifier::open(directory.path(), vec!["localhost".into()], now).unwrap();
        let leaf = || certifier.current.read().unwrap().key.cert[0].clone();
        let first = leaf();
        certifier.renew(now + SERVER_LIFE / 2 - DAY).unwrap();
        assert_eq!(leaf(), first);
        certifier.renew(now + SERVER_LIFE / 2).unwrap();
        assert_ne!(leaf(), first);
    }
}
