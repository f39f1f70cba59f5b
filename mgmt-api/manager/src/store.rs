//! What outlives the process: entries, history, tokens, audit log.

mod embedded;

use std::path::PathBuf;

use mgmt_types::{AuditEntry, Kind, Revision, Role};
use serde::{Deserialize, Serialize};

use crate::files::FileError;
use crate::state::{Counters, Entry, GroupSet, State};

pub(crate) use embedded::{Embedded, Limits};

/// Where desired state is kept. What a method acknowledged is still there after a crash of the machine.
pub(crate) trait Store: Send + Sync {
    /// The newest state.
    fn load(&self) -> Result<State, StoreError>;

    /// Writes one revision and its audit entry, both or none; refused unless it follows the newest revision.
    fn commit(&self, commit: &Commit<'_>) -> Result<(), StoreError>;

    /// One revision, when it is still kept.
    fn revision(&self, number: u64) -> Result<Option<Revision>, StoreError>;

    /// Revisions after `number`, oldest first, at most `most`.
    fn revisions_after(&self, number: u64, most: usize) -> Result<Vec<Revision>, StoreError>;

    /// The oldest revision that is still kept.
    fn oldest_revision(&self) -> Result<Option<u64>, StoreError>;

    /// All tokens, by name.
    fn tokens(&self) -> Result<Vec<StoredToken>, StoreError>;

    /// Adds or removes a token and writes the audit entry, both or none.
    fn change_token(&self, change: TokenChange<'_>, audit: &AuditEntry) -> Result<(), StoreError>;

    /// Adds an entry about something that was refused.
    fn refused(&self, audit: &AuditEntry) -> Result<(), StoreError>;

    /// Entries of the audit log with a number below `before`, newest first, at most `most`.
    fn audit(&self, before: Option<u64>, most: usize) -> Result<Vec<AuditEntry>, StoreError>;
}

/// One revision to be written.
#[derive(Debug)]
pub(crate) struct Commit<'a> {
    pub(crate) revision: &'a Revision,
    pub(crate) puts: &'a [Entry],
    pub(crate) removals: &'a [(Kind, String)],
    /// Sets of groups to write, by number, and those to remove.
    pub(crate) identities: &'a [(u32, Option<GroupSet>)],
    pub(crate) counters: Counters,
    pub(crate) audit: &'a AuditEntry,
}

/// A token without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredToken {
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) created: String,
    /// SHA-256 of the secret, in hexadecimal.
    pub(crate) hash: String,
}

/// What happens to a token.
#[derive(Debug, Clone, Copy)]
pub(crate) enum TokenChange<'a> {
    Add(&'a StoredToken),
    Remove(&'a str),
}

/// Why the store could not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Its file cannot be opened.
    #[error(transparent)]
    File(FileError),
    /// Another process has it open.
    #[error("{} is in use by another process: only one manager may run on a state directory", .path.display())]
    Locked {
        /// The database file.
        path: PathBuf,
    },
    /// It was written by a version with another layout.
    #[error("{} has layout {have}; this version reads layouts up to {know}", .path.display())]
    Layout {
        /// The database file.
        path: PathBuf,
        /// The layout found.
        have: u64,
        /// The layout this version writes.
        know: u64,
    },
    /// Somebody else wrote in between.
    #[error("the store is at revision {have}, revision {got} does not follow it")]
    Conflict {
        /// The newest revision in the store.
        have: u64,
        /// The revision that was to be written.
        got: u64,
    },
    /// Something in it cannot be read.
    #[error("the store is damaged: {what}: {source}")]
    Damaged {
        /// Which record.
        what: String,
        /// What the reader said.
        source: serde_json::Error,
    },
    /// The database failed.
    #[error("the store failed: {0}")]
    Database(#[from] Box<redb::Error>),
}
