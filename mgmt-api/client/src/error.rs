//! What can go wrong between a client and its manager.

use std::error::Error as StdError;
use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mgmt_types::Problem;

/// A request did not give what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The manager understood and refused; this says why.
    #[error(transparent)]
    Problem(Box<Problem>),
    /// Not the base URL of a manager.
    #[error("{got:?} is not a manager's URL: expected https://host:port")]
    Url {
        /// The text as it came.
        got: String,
    },
    /// The token has characters no header may carry.
    #[error("the token is not one line of visible ASCII characters")]
    Token,
    /// The authority's certificate cannot be used.
    #[error("the authority's certificate cannot be used: {reason}: expected the manager's ca.pem")]
    Authority {
        /// What is wrong with it.
        reason: String,
    },
    /// A host's own certificate or key cannot be used.
    #[error("the host's certificate or key cannot be used: {reason}: `palisade join` gets others")]
    Certificate {
        /// What is wrong with it.
        reason: String,
    },
    /// Not a join token.
    #[error("the join token is not SECRET.FINGERPRINT, as `palisade join-token create` prints it")]
    JoinToken,
    /// A key or a request to sign it could not be made.
    #[error("no key could be made: {0}")]
    Key(#[from] rcgen::Error),
    /// No connection stands.
    #[error("{url}: {reason}: is the manager running there, and is the way to it open?")]
    Connect {
        /// The manager's URL.
        url: String,
        /// What the kernel or the resolver said.
        reason: String,
    },
    /// Whoever answers there is not trusted, or does not speak TLS.
    #[error("{url}: {reason}: is the ca.pem the one of this manager?")]
    Tls {
        /// The manager's URL.
        url: String,
        /// What TLS said.
        reason: String,
    },
    /// The connection broke before the answer was whole.
    #[error("{url}: the connection broke: {reason}")]
    Broken {
        /// The manager's URL.
        url: String,
        /// What was seen last.
        reason: String,
    },
    /// No answer in time.
    #[error("{url}: no answer after {} s: is the manager overloaded?", .after.as_secs())]
    Timeout {
        /// The manager's URL.
        url: String,
        /// How long was waited.
        after: Duration,
    },
    /// A stream gave no sign of life.
    #[error("the stream {path} was silent for {} s", .after.as_secs())]
    Silent {
        /// Path of the request.
        path: String,
        /// How long was waited.
        after: Duration,
    },
    /// An error that no manager of this version sends: a proxy, or another service.
    #[error("{path} answered {status} with {got:?}: is this the URL of a manager?")]
    Status {
        /// Path of the request.
        path: String,
        /// HTTP status of the answer.
        status: u16,
        /// The body, cut to 200 characters.
        got: String,
    },
    /// An answer this version does not understand.
    #[error("{path} answered what this version does not understand: {source}: got {got:?}")]
    Answer {
        /// Path of the request.
        path: String,
        /// What does not fit.
        source: serde_json::Error,
        /// The body, cut to 200 characters.
        got: String,
    },
    /// The answer's body broke off, or is larger than is read.
    #[error("{path}: the answer could not be read: {reason}")]
    Body {
        /// Path of the request.
        path: String,
        /// What was wrong.
        reason: String,
    },
    /// The request could not be written as JSON.
    #[error("the request could not be written: {0}")]
    Request(#[source] serde_json::Error),
}

impl Error {
    /// True when the manager could not be talked to, and trying again later may help.
    pub fn is_unreachable(&self) -> bool {
        match self {
            Self::Connect { .. }
            | Self::Tls { .. }
            | Self::Broken { .. }
            | Self::Timeout { .. }
            | Self::Silent { .. }
            | Self::Body { .. } => true,
            Self::Problem(_)
            | Self::Url { .. }
            | Self::Token
            | Self::Authority { .. }
            | Self::Certificate { .. }
            | Self::JoinToken
            | Self::Key(_)
            | Self::Status { .. }
            | Self::Answer { .. }
            | Self::Request(_) => false,
        }
    }

    /// The manager's refusal, when it is one.
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Problem(problem) => Some(problem),
            _ => None,
        }
    }

    /// Sorts what the HTTP client reports.
    pub(crate) fn transport(url: &str, error: &hyper_util::client::legacy::Error) -> Self {
        let url = url.to_owned();
        let mut reason = error.to_string();
        let mut next: Option<&(dyn StdError + 'static)> = error.source();
        while let Some(cause) = next {
            reason = cause.to_string();
            next = cause.source();
            let Some(io) = cause.downcast_ref::<io::Error>() else { continue };
            // TLS errors travel inside I/O errors, whose source() skips them.
            if let Some(tls) = io.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
                return Self::Tls { url, reason: tls_reason(tls, SystemTime::now()) };
            }
            next = io.get_ref().map(|inner| inner as &(dyn StdError + 'static)).or(next);
        }
        if error.is_connect() { Self::Connect { url, reason } } else { Self::Broken { url, reason } }
    }
}

/// What TLS failed for. Where times disagree it names the clock: one that is wrong looks like a certificate that is.
fn tls_reason(error: &rustls::Error, now: SystemTime) -> String {
    use rustls::CertificateError::{ExpiredContext, NotValidForNameContext, NotValidYetContext};
    let show = |time: SystemTime| humantime::format_rfc3339_seconds(time);
    let at = |seconds: u64| show(UNIX_EPOCH + Duration::from_secs(seconds.min(MAX_SECONDS)));
    let now = show(now);
    match error {
        rustls::Error::InvalidCertificate(ExpiredContext { not_after, .. }) => format!(
            "its certificate was valid until {}, and this machine's clock says {now}: is the clock right",
            at(not_after.as_secs())
        ),
        rustls::Error::InvalidCertificate(NotValidYetContext { not_before, .. }) => format!(
            "its certificate is valid from {}, and this machine's clock says {now}: is the clock right",
            at(not_before.as_secs())
        ),
        rustls::Error::InvalidCertificate(NotValidForNameContext { .. }) => {
            format!("{error}: `palisade manager --name NAME` makes it good for a further name or address")
        }
        other => other.to_string(),
    }
}

/// The last second that RFC 3339 can write.
const MAX_SECONDS: u64 = 253_402_300_799;

#[cfg(test)]
mod tests {
    use rustls::CertificateError;
    use rustls::pki_types::UnixTime;

    use super::*;

    #[test]
    fn a_clock_that_is_wrong_is_named() {
        let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let early =
            CertificateError::NotValidYetContext { time: at(1_000_000_000), not_before: at(1_100_000_000) };
        let late = CertificateError::ExpiredContext { time: at(1_000_000_000), not_after: at(900_000_000) };
        for (error, other) in [(early, "2004-11-09T11:33:20Z"), (late, "1998-07-09T16:00:00Z")] {
            let reason = tls_reason(&rustls::Error::InvalidCertificate(error), now);
            assert!(reason.contains("clock says 2001-09-09T01:46:40Z") && reason.contains(other), "{reason}");
        }
    }
}
