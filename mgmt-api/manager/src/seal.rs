//! Keeps secrets that many may read in the store: AES-256-GCM (NIST SP 800-38D) under a key that is in a file.
//!
//! ```text
//! sealed, in hexadecimal:  nonce (12 bytes) | ciphertext | tag (16 bytes)
//! ```
//! The nonce is random, which is good for 2^32 secrets under one key; there is one for each authority.

use std::fmt;
use std::path::{Path, PathBuf};

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::rand;

use crate::files::{self, FileError};
use crate::token::hex;

/// Length of the key, in bytes.
const KEY: usize = 32;

/// See the module.
pub(crate) struct Seal {
    key: [u8; KEY],
}

/// Why a secret cannot be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The file of the key could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file holds something else.
    #[error("{} is not 64 hexadecimal digits", .path.display())]
    Key {
        /// The file.
        path: PathBuf,
    },
    /// No randomness, or a cipher that fails its own tests.
    #[error("the cipher failed")]
    Cipher,
    /// It was sealed with another key, or changed since.
    #[error(
        "it was sealed with another key than this manager's authority.key: copy that file from a manager that has it"
    )]
    Broken,
}

impl fmt::Debug for Seal {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seal")
    }
}

impl Seal {
    /// Reads the key from a file, or makes one there for the owner only.
    pub(crate) fn open_file(path: &Path) -> Result<Self, SealError> {
        let key = match files::read(path)? {
            Some(text) => unhex(text.trim()).and_then(|bytes| bytes.try_into().ok()),
            None => {
                let mut key = [0; KEY];
                rand::fill(&mut key).map_err(|_| SealError::Cipher)?;
                files::write(path, format!("{}\n", hex(&key)).as_bytes(), 0o600)?;
                Some(key)
            }
        };
        key.map(|key| Self { key }).ok_or_else(|| SealError::Key { path: path.to_owned() })
    }

    #[cfg(test)]
    pub(crate) fn of(key: [u8; KEY]) -> Self {
        Self { key }
    }

    /// Seals a secret that belongs to `whose`.
    pub(crate) fn seal(&self, whose: &str, secret: &[u8]) -> Result<String, SealError> {
        let mut bytes = secret.to_vec();
        let key = self.cipher()?;
        let nonce = key
            .seal_in_place_append_tag(Aad::from(whose.as_bytes()), &mut bytes)
            .map_err(|_| SealError::Cipher)?;
        Ok(hex(nonce.as_ref()) + &hex(&bytes))
    }

    /// Opens what [`Seal::seal`] sealed for the same `whose`.
    pub(crate) fn open(&self, whose: &str, sealed: &str) -> Result<Vec<u8>, SealError> {
        let bytes = unhex(sealed).ok_or(SealError::Broken)?;
        let (nonce, secret) = bytes.split_at_checked(NONCE_LEN).ok_or(SealError::Broken)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealError::Broken)?;
        let mut secret = secret.to_vec();
        let key = self.cipher()?;
        let opened = key
            .open_in_place(nonce, Aad::from(whose.as_bytes()), &mut secret)
            .map_err(|_| SealError::Broken)?;
        Ok(opened.to_vec())
    }

    fn cipher(&self) -> Result<RandomizedNonceKey, SealError> {
        RandomizedNonceKey::new(&AES_256_GCM, &self.key).map_err(|_| SealError::Cipher)
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sealed_opens_with_the_same_key_for_the_same_owner_and_unchanged() {
        let seal = Seal::of([1; 32]);
        let sealed = seal.seal("a", b"secret").unwrap();
        assert_eq!(seal.open("a", &sealed).unwrap(), b"secret");
        assert_ne!(seal.seal("a", b"secret").unwrap(), sealed);
        assert!(seal.open("b", &sealed).is_err());
        assert!(Seal::of([2; 32]).open("a", &sealed).is_err());
        for at in 0..sealed.len() {
            let mut changed = sealed.clone().into_bytes();
            changed[at] = if changed[at] == b'0' { b'1' } else { b'0' };
            assert!(seal.open("a", std::str::from_utf8(&changed).unwrap()).is_err(), "digit {at}");
        }
        for short in ["", "0", "zz", &sealed[..24], &sealed[..sealed.len() - 1]] {
            assert!(seal.open("a", short).is_err(), "{short:?}");
        }
    }

    #[test]
    fn it_opens_what_another_implementation_sealed() {
        // Test case 14 of the GCM specification (McGrew and Viega): key and nonce of zeros, 16 zero bytes.
        let sealed = "000000000000000000000000\
                      cea7403d4d606b6e074ec5d3baf39d18\
                      d0d1c8a799996bf0265b98b5d48ab919";
        assert_eq!(Seal::of([0; 32]).open("", sealed).unwrap(), [0; 16]);
    }

    #[test]
    fn the_key_is_made_once_for_the_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("authority.key");
        let sealed = Seal::open_file(&path).unwrap().seal("a", b"secret").unwrap();
        assert_eq!(Seal::open_file(&path).unwrap().open("a", &sealed).unwrap(), b"secret");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::write(&path, "no key").unwrap();
        assert!(matches!(Seal::open_file(&path), Err(SealError::Key { .. })));
    }
}
