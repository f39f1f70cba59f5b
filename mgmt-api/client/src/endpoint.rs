//! Where the manager is, whom to trust, and what to show.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What a client needs to reach a manager.
#[derive(Clone)]
pub struct Endpoint {
    /// `https://` and the manager's address.
    pub url: String,
    /// Certificates of the authority to trust, in PEM.
    pub ca: Vec<u8>,
    /// The token's secret.
    pub token: String,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The token stays out of logs.
        f.debug_struct("Endpoint").field("url", &self.url).finish_non_exhaustive()
    }
}

/// Why an endpoint cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// A file could not be read.
    #[error("cannot read {what} from {}: {source}", .path.display())]
    Read {
        /// What it should hold.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The authority's file holds no certificate.
    #[error(
        "{0}; expected a PEM file with a certificate, such as the ca.pem of the manager's state directory"
    )]
    Authority(String),
    /// The URL is not one.
    #[error("{url:?} is not the URL of a manager: {reason}; expected for example https://127.0.0.1:7470")]
    Url {
        /// The text as it came.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The token has characters no token has.
    #[error("the token is not well formed; expected what `palisade token create` printed, in one line")]
    Token,
}

impl Endpoint {
    /// An endpoint whose authority and token are in files.
    pub fn from_files(url: &str, ca: &Path, token: &Path) -> Result<Self, EndpointError> {
        let read = |what, path: &Path| {
            fs::read(path).map_err(|source| EndpointError::Read { what, path: path.to_owned(), source })
        };
        let token = String::from_utf8(read("the token", token)?).map_err(|_| EndpointError::Token)?;
        Ok(Self { url: url.to_owned(), ca: read("the authority", ca)?, token: token.trim().to_owned() })
    }
}
