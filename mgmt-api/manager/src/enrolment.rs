//! What the manager keeps of each host that joined.

use mgmt_types::{ExpiryAlarm, Labels};
use serde::{Deserialize, Serialize};

/// A host that joined. Its key is the host's name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Enrolment {
    /// A random word that is in all certificates of this joining: when it changes they are worth nothing.
    pub(crate) id: String,
    /// When it joined, RFC 3339 in UTC.
    pub(crate) joined: String,
    /// Labels that its token gave it.
    #[serde(default)]
    pub(crate) labels: Labels,
    /// Fingerprint of the authority that signed its newest certificate.
    pub(crate) authority: String,
    /// Until when that certificate is valid, in seconds since 1970.
    pub(crate) not_after: u64,
}

impl Enrolment {
    /// How near the end of its certificate is. Hosts renew at half life, so that any alarm says that one does not.
    pub(crate) fn alarm(&self, now: u64) -> Option<ExpiryAlarm> {
        ExpiryAlarm::of(self.not_after, now).filter(|alarm| *alarm > ExpiryAlarm::Month)
    }
}
