//! The certificate authorities of this installation.
//!
//! Several may be trusted at a time, so that one can take the place of another: the oldest signs the certificates of
//! managers, which everybody who has not heard of a newer one can check, and the newest those of hosts, which only
//! managers check. Their certificates are records of the store; so are their keys, sealed with a key that is not there.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{SHA256, digest};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::crypto::aws_lc_rs as provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::CertifiedKey;
use rustls::{CertificateError as Invalid, RootCertStore};
use serde::{Deserialize, Serialize};
use x509_parser::extensions::GeneralName;

use crate::seal::{Seal, SealError};
use crate::time;
use crate::token::hex;

const HOUR: Duration = Duration::from_secs(time::HOUR);
const DAY: Duration = Duration::from_secs(time::DAY);
/// Life of an authority: it is replaced by hand, with an overlap, long before.
const AUTHORITY_LIFE: Duration = Duration::from_secs(3650 * time::DAY);
/// Life of a manager's certificate: below the 398 days that clients accept (CA/Browser Forum baseline requirements 6.3.2).
pub(crate) const SERVER_LIFE: Duration = Duration::from_secs(365 * time::DAY);
/// Life of a host's certificate: long enough to outlive a manager's worst week, renewed at half.
pub(crate) const HOST_LIFE: Duration = Duration::from_secs(30 * time::DAY);
/// How names of hosts begin in their certificates, before the host's name, a colon and the enrolment's word (RFC 8141).
const HOST_URN: &str = "urn:palisade:host:";

/// An authority as it is kept. Its key is its number, so that they are in the order in which they were made.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StoredAuthority {
    pub(crate) number: u32,
    /// Common name of its certificate.
    pub(crate) name: String,
    /// PEM.
    pub(crate) certificate: String,
    /// SHA-256 of the certificate, in hexadecimal.
    pub(crate) fingerprint: String,
    /// In seconds since 1970.
    pub(crate) not_after: u64,
    /// Its private key, PKCS #8, sealed.
    key: String,
}

impl fmt::Debug for StoredAuthority {
    /// Without the key, sealed as it is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredAuthority").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Why an authority cannot be made or used.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A certificate or key could not be made or read.
    #[error("{0}")]
    Make(#[from] rcgen::Error),
    /// The TLS library refused it.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// Its certificate cannot be read.
    #[error("its certificate cannot be read: {0}")]
    Certificate(String),
    /// Its key cannot be opened.
    #[error(transparent)]
    Seal(#[from] SealError),
}

impl StoredAuthority {
    /// A new authority, as number `number`.
    pub(crate) fn make(number: u32, seal: &Seal, now: SystemTime) -> Result<Self, AuthorityError> {
        let key = KeyPair::generate()?;
        let name = format!("Palisade authority {number}");
        let certificate = params(&name, now)?.self_signed(&key)?;
        Self::new(number, name, certificate.pem(), certificate.der(), &key, seal)
    }

    /// The authority that an older version left as files: its key, and its certificate unless that got lost.
    pub(crate) fn import(
        key: &str,
        certificate: Option<&str>,
        seal: &Seal,
        now: SystemTime,
    ) -> Result<Self, AuthorityError> {
        const NAME: &str = "Palisade authority";
        let key = KeyPair::from_pem(key)?;
        let pem = match certificate {
            Some(pem) => pem.to_owned(),
            None => params(NAME, now)?.self_signed(&key)?.pem(),
        };
        let der = der(&pem)?;
        Self::new(1, NAME.to_owned(), pem, &der, &key, seal)
    }

    fn new(
        number: u32,
        name: String,
        certificate: String,
        der: &CertificateDer<'_>,
        key: &KeyPair,
        seal: &Seal,
    ) -> Result<Self, AuthorityError> {
        let not_after = parsed(der)?.validity().not_after.timestamp();
        let fingerprint = fingerprint(der);
        Ok(Self {
            number,
            name,
            certificate,
            not_after: u64::try_from(not_after).unwrap_or(0),
            key: seal.seal(&fingerprint, key.serialized_der())?,
            fingerprint,
        })
    }

    /// Its key among records.
    pub(crate) fn key(&self) -> String {
        format!("{:010}", self.number)
    }
}

/// SHA-256 of a certificate, in hexadecimal.
pub(crate) fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    hex(digest(&SHA256, certificate).as_ref())
}

/// Who is trusted, and who signs. Immutable: a change makes another.
#[derive(Debug)]
pub(crate) struct Trust {
    /// Oldest first; never empty.
    pub(crate) authorities: Vec<StoredAuthority>,
    oldest: Signer,
    newest: Signer,
    verifier: Arc<dyn ClientCertVerifier>,
}

#[derive(Debug)]
struct Signer {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    fingerprint: String,
}

/// A certificate just signed for a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostCertificate {
    pub(crate) pem: String,
    /// In seconds since 1970.
    pub(crate) not_before: u64,
    /// In seconds since 1970.
    pub(crate) not_after: u64,
    pub(crate) authority: String,
}

/// Whom a certificate stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostIdentity {
    pub(crate) host: String,
    /// The word of its [`crate::enrolment::Enrolment`].
    pub(crate) enrolment: String,
}

/// Why a certificate proves nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// No authority that is trusted signed it, or not for this purpose.
    Foreign(String),
    /// It is valid no more, or not yet: from when or until when, in seconds since 1970.
    Expired(u64),
    Early(u64),
}

impl Trust {
    /// Opens the authorities' keys. `None` when there are no authorities.
    pub(crate) fn open(
        authorities: Vec<StoredAuthority>,
        seal: &Seal,
    ) -> Result<Option<Self>, AuthorityError> {
        let (Some(oldest), Some(newest)) = (authorities.first(), authorities.last()) else { return Ok(None) };
        let (oldest, newest) = (Signer::open(oldest, seal)?, Signer::open(newest, seal)?);
        let mut roots = RootCertStore::empty();
        for authority in &authorities {
            roots.add(der(&authority.certificate)?)?;
        }
        let provider = Arc::new(provider::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|error| AuthorityError::Certificate(error.to_string()))?;
        Ok(Some(Self { authorities, oldest, newest, verifier }))
    }

    /// All certificates, PEM, newest last: what clients trust.
    pub(crate) fn bundle(&self) -> String {
        self.authorities.iter().map(|authority| authority.certificate.as_str()).collect()
    }

    /// The authority that managers prove themselves by, as join tokens name it.
    pub(crate) fn of_managers(&self) -> &str {
        &self.oldest.fingerprint
    }

    /// The authority that signs hosts' certificates.
    pub(crate) fn of_hosts(&self) -> &str {
        &self.newest.fingerprint
    }

    /// A certificate for a manager that clients know by `names`, with its key and its authority's certificate, in which
    /// a machine that joins finds the fingerprint that its token names.
    pub(crate) fn sign_manager(
        &self,
        names: &[String],
        now: SystemTime,
    ) -> Result<CertifiedKey, AuthorityError> {
        let mut params = CertificateParams::new(names.to_vec())?;
        named(&mut params, "Palisade manager");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        // A day of grace for clients whose clock is behind.
        params.not_before = (now - DAY).into();
        params.not_after = (now + SERVER_LIFE).into();
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.oldest.issuer)?;
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let signer = provider::sign::any_supported_type(&private)?;
        Ok(CertifiedKey::new(vec![certificate.der().clone(), self.oldest.certificate.clone()], signer))
    }

    /// Signs a host's key. Of the request only the key is looked at, and that it signed the request.
    pub(crate) fn sign_host(
        &self,
        csr: &str,
        identity: &HostIdentity,
        now: SystemTime,
    ) -> Result<HostCertificate, AuthorityError> {
        let mut request = CertificateSigningRequestParams::from_pem(csr)?;
        let HostIdentity { host, enrolment } = identity;
        let mut params = CertificateParams::new(vec![host.clone()])?;
        let urn = format!("{HOST_URN}{host}:{enrolment}");
        params.subject_alt_names.push(SanType::URI(urn.as_str().try_into()?));
        named(&mut params, host);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        // An hour of grace between the clocks of several managers.
        let (not_before, not_after) = (now - HOUR, now + HOST_LIFE);
        params.not_before = not_before.into();
        params.not_after = not_after.into();
        request.params = params;
        let certificate = request.signed_by(&self.newest.issuer)?;
        Ok(HostCertificate {
            pem: certificate.pem(),
            not_before: time::seconds(not_before),
            not_after: time::seconds(not_after),
            authority: self.newest.fingerprint.clone(),
        })
    }

    /// Whom a certificate, the first of `chain`, stands for. That whoever shows it has its key was proved by TLS.
    pub(crate) fn judge(&self, chain: &[CertificateDer<'_>], now: SystemTime) -> Result<HostIdentity, Unfit> {
        let foreign = |reason: String| Unfit::Foreign(reason);
        let Some((end, intermediates)) = chain.split_first() else {
            return Err(foreign("there is none".to_owned()));
        };
        let at = UnixTime::since_unix_epoch(Duration::from_secs(time::seconds(now)));
        self.verifier.verify_client_cert(end, intermediates, at).map_err(|error| match error {
            rustls::Error::InvalidCertificate(Invalid::ExpiredContext { not_after, .. }) => {
                Unfit::Expired(not_after.as_secs())
            }
            rustls::Error::InvalidCertificate(Invalid::NotValidYetContext { not_before, .. }) => {
                Unfit::Early(not_before.as_secs())
            }
            rustls::Error::InvalidCertificate(error) => foreign(error.to_string()),
            other => foreign(other.to_string()),
        })?;
        let certificate = parsed(end).map_err(|error| foreign(error.to_string()))?;
        let names = certificate.subject_alternative_name().ok().flatten();
        let urns = names.iter().flat_map(|names| &names.value.general_names).filter_map(|name| match name {
            GeneralName::URI(urn) => urn.strip_prefix(HOST_URN)?.split_once(':'),
            _ => None,
        });
        match urns.collect::<Vec<_>>().as_slice() {
            [(host, enrolment)] => {
                Ok(HostIdentity { host: (*host).to_owned(), enrolment: (*enrolment).to_owned() })
            }
            _ => Err(foreign("it names no host".to_owned())),
        }
    }
}

impl Signer {
    fn open(authority: &StoredAuthority, seal: &Seal) -> Result<Self, AuthorityError> {
        let key = seal.open(&authority.fingerprint, &authority.key)?;
        let key = KeyPair::try_from(key.as_slice())?;
        let certificate = der(&authority.certificate)?;
        // Only the subject and the key of the issuer go into what it signs.
        let issuer = Issuer::new(params(&authority.name, SystemTime::UNIX_EPOCH + AUTHORITY_LIFE)?, key);
        Ok(Self { issuer, certificate, fingerprint: authority.fingerprint.clone() })
    }
}

fn params(name: &str, now: SystemTime) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    named(&mut params, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    // A day of grace for clients whose clock is behind.
    params.not_before = (now - DAY).into();
    params.not_after = (now + AUTHORITY_LIFE).into();
    Ok(params)
}

fn named(params: &mut CertificateParams, name: &str) {
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
}

fn der(pem: &str) -> Result<CertificateDer<'static>, AuthorityError> {
    CertificateDer::from_pem_slice(pem.as_bytes())
        .map_err(|error| AuthorityError::Certificate(error.to_string()))
}

fn parsed<'a>(
    der: &'a CertificateDer<'_>,
) -> Result<x509_parser::certificate::X509Certificate<'a>, AuthorityError> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der)
        .map_err(|error| AuthorityError::Certificate(error.to_string()))?;
    Ok(certificate)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trust(count: u32, seal: &Seal, now: SystemTime) -> Trust {
        let made = (1..=count).map(|number| StoredAuthority::make(number, seal, now).unwrap()).collect();
        Trust::open(made, seal).unwrap().unwrap()
    }

    fn request() -> String {
        let key = KeyPair::generate().unwrap();
        CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap()
    }

    fn identity() -> HostIdentity {
        HostIdentity { host: "host-a".into(), enrolment: "0123".into() }
    }

    fn chain(certificate: &HostCertificate) -> [CertificateDer<'static>; 1] {
        [der(&certificate.pem).unwrap()]
    }

    #[test]
    fn a_hosts_certificate_stands_for_it_while_it_is_valid() {
        let now = SystemTime::now();
        let trust = trust(1, &Seal::of([7; 32]), now);
        let signed = trust.sign_host(&request(), &identity(), now).unwrap();
        let chain = chain(&signed);
        assert_eq!(trust.judge(&chain, now), Ok(identity()));
        assert_eq!(trust.judge(&chain, now + HOST_LIFE + HOUR), Err(Unfit::Expired(signed.not_after)));
        assert_eq!(trust.judge(&chain, now - DAY), Err(Unfit::Early(signed.not_before)));
        assert_eq!(
            signed.not_after - signed.not_before,
            time::seconds(SystemTime::UNIX_EPOCH + HOST_LIFE + HOUR)
        );
    }

    #[test]
    fn what_another_authority_signed_stands_for_nobody() {
        let now = SystemTime::now();
        let seal = Seal::of([7; 32]);
        let (here, there) = (trust(1, &seal, now), trust(1, &seal, now));
        let signed = there.sign_host(&request(), &identity(), now).unwrap();
        assert!(matches!(here.judge(&chain(&signed), now), Err(Unfit::Foreign(_))));
        assert!(matches!(here.judge(&[], now), Err(Unfit::Foreign(_))));
        let nonsense = [CertificateDer::from(vec![0x30, 0x03, 1, 2, 3])];
        assert!(matches!(here.judge(&nonsense, now), Err(Unfit::Foreign(_))));
    }

    #[test]
    fn a_managers_certificate_stands_for_no_host() {
        let now = SystemTime::now();
        let trust = trust(1, &Seal::of([7; 32]), now);
        let manager = trust.sign_manager(&["localhost".into()], now).unwrap();
        assert!(matches!(trust.judge(&manager.cert, now), Err(Unfit::Foreign(_))));
    }

    #[test]
    fn of_several_authorities_the_oldest_signs_managers_and_the_newest_hosts_and_all_are_trusted() {
        let now = SystemTime::now();
        let seal = Seal::of([7; 32]);
        let first = StoredAuthority::make(1, &seal, now).unwrap();
        let second = StoredAuthority::make(2, &seal, now).unwrap();
        let alone = Trust::open(vec![first.clone()], &seal).unwrap().unwrap();
        let both = Trust::open(vec![first.clone(), second.clone()], &seal).unwrap().unwrap();
        let later = Trust::open(vec![second.clone()], &seal).unwrap().unwrap();
        assert_eq!((both.of_managers(), both.of_hosts()), (&*first.fingerprint, &*second.fingerprint));
        let manager = both.sign_manager(&["localhost".into()], now).unwrap();
        assert_eq!(fingerprint(&manager.cert[1]), first.fingerprint);

        let old = alone.sign_host(&request(), &identity(), now).unwrap();
        let new = both.sign_host(&request(), &identity(), now).unwrap();
        assert_eq!(both.judge(&chain(&old), now), Ok(identity()));
        assert_eq!(both.judge(&chain(&new), now), Ok(identity()));
        assert!(matches!(later.judge(&chain(&old), now), Err(Unfit::Foreign(_))));
        assert_eq!(later.judge(&chain(&new), now), Ok(identity()));
    }

    #[test]
    fn what_a_request_asks_for_beside_its_key_is_not_granted() {
        let now = SystemTime::now();
        let trust = trust(1, &Seal::of([7; 32]), now);
        let key = KeyPair::generate().unwrap();
        let mut greedy = CertificateParams::new(vec!["host-b".to_owned()]).unwrap();
        let urn = format!("{HOST_URN}host-b:9");
        greedy.subject_alt_names.push(SanType::URI(urn.as_str().try_into().unwrap()));
        greedy.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let csr = greedy.serialize_request(&key).unwrap().pem().unwrap();
        let signed = trust.sign_host(&csr, &identity(), now).unwrap();
        assert_eq!(trust.judge(&chain(&signed), now), Ok(identity()));
        let [der] = chain(&signed);
        let certificate = parsed(&der).unwrap();
        assert!(!certificate.is_ca());
        assert_eq!(certificate.subject().to_string(), "CN=host-a");
    }

    #[test]
    fn a_request_that_its_key_did_not_sign_is_refused() {
        let now = SystemTime::now();
        let trust = trust(1, &Seal::of([7; 32]), now);
        for csr in [
            "",
            "no request",
            "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
        ] {
            assert!(trust.sign_host(csr, &identity(), now).is_err(), "{csr:?}");
        }
        let (mine, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let good = CertificateParams::default().serialize_request(&mine).unwrap();
        // The key's point within the request becomes another's; the signature stays.
        let mut forged = good.der().to_vec();
        let point = mine.public_key_raw();
        let place = forged.windows(point.len()).position(|window| window == point).unwrap();
        forged[place..place + point.len()].copy_from_slice(other.public_key_raw());
        let error = CertificateSigningRequestParams::from_der(&forged.into()).unwrap_err();
        assert_eq!(error, rcgen::Error::InvalidCertificationRequestSignature);
    }

    #[test]
    fn an_authority_of_an_older_version_stays_the_same_authority() {
        let now = SystemTime::now();
        let seal = Seal::of([7; 32]);
        let key = KeyPair::generate().unwrap();
        let pem = params("Palisade authority", now).unwrap().self_signed(&key).unwrap().pem();
        let imported = StoredAuthority::import(&key.serialize_pem(), Some(&pem), &seal, now).unwrap();
        assert_eq!((imported.number, &imported.certificate), (1, &pem));
        let trust = Trust::open(vec![imported], &seal).unwrap().unwrap();
        let signed = trust.sign_host(&request(), &identity(), now).unwrap();
        assert_eq!(trust.judge(&chain(&signed), now), Ok(identity()));
    }

    #[test]
    fn without_the_seal_the_keys_are_of_no_use() {
        let now = SystemTime::now();
        let made = StoredAuthority::make(1, &Seal::of([7; 32]), now).unwrap();
        assert!(matches!(Trust::open(vec![made], &Seal::of([8; 32])), Err(AuthorityError::Seal(_))));
    }
}
