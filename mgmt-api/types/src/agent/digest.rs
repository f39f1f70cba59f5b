//! A short name for the content of a slice, by which manager and agent find out whether they mean the same.

use std::fmt;
use std::io::{BufWriter, Write};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use super::Slice;

/// The first 128 bits of SHA-256 (FIPS 180-4) over the slice's JSON as this version writes it: members in the order of
/// their declaration, no white space. Versions whose slices have other members give other digests. 32 digits of
/// lower-case hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(into = "String", try_from = "String")]
#[schema(value_type = String, pattern = "^[0-9a-f]{32}$", example = "0f9c1a5b2e7d4c3896f0a1b2c3d4e5f6")]
pub struct SliceDigest([u8; 16]);

/// A text that is no [`SliceDigest`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{got:?} is no digest: 32 digits 0-9 and a-f")]
pub struct DigestParseError {
    /// The text.
    pub got: String,
}

impl Slice {
    /// The digest of its content.
    pub fn digest(&self) -> SliceDigest {
        let mut writer = BufWriter::with_capacity(8 << 10, Hasher(Sha256::new()));
        // Neither can fail: a slice has no map with keys other than text, and hashing takes everything.
        let _ = serde_json::to_writer(&mut writer, self);
        let _ = writer.flush();
        let hash = writer.get_ref().0.clone().finalize();
        let mut digest = [0; 16];
        digest.iter_mut().zip(hash).for_each(|(to, from)| *to = from);
        SliceDigest(digest)
    }
}

struct Hasher(Sha256);

impl Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl fmt::Display for SliceDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for SliceDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for SliceDigest {
    type Err = DigestParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refuse = || DigestParseError { got: text.chars().take(40).collect() };
        let digits =
            text.len() == 32 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        let bits = digits.then(|| u128::from_str_radix(text, 16).ok()).flatten().ok_or_else(refuse)?;
        Ok(Self(bits.to_be_bytes()))
    }
}

impl TryFrom<String> for SliceDigest {
    type Error = DigestParseError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<SliceDigest> for String {
    fn from(digest: SliceDigest) -> Self {
        digest.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_the_head_of_sha_256_over_the_json() {
        let slice = Slice { revision: 7, host: "host-a".into(), ..Slice::default() };
        let json = r#"{"revision":7,"host":"host-a","networks":[],"ports":[],"settings":{"tcpPickUp":true,"timeouts":{}}}"#;
        assert_eq!(serde_json::to_string(&slice).unwrap(), json);
        // By coreutils: printf '%s' "$json" | sha256sum
        assert_eq!(slice.digest().to_string(), "c273b1009c7aa84fb7afb0aba895adec");
    }

    #[test]
    fn a_digest_reads_back_and_nothing_else_is_one() {
        let digest = Slice::default().digest();
        assert_eq!(digest.to_string().parse(), Ok(digest));
        let upper = digest.to_string().to_uppercase();
        for text in ["", "12", "+0000000000000000000000000000000", &upper, &format!("{digest}0")] {
            assert!(text.parse::<SliceDigest>().is_err(), "{text}");
        }
    }
}
