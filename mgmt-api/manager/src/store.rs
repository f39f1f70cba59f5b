//! What outlives the process: entries, history, records, audit log.

mod embedded;

use std::path::PathBuf;

use mgmt_types::{AuditEntry, Kind, Revision};

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

    /// All records of a table, by key.
    fn records(&self, table: Table) -> Result<Vec<(String, String)>, StoreError>;

    /// Changes records and writes the audit entry, all or nothing; refused when a record is not as a change expects.
    fn change_records(&self, changes: &[RecordChange], audit: &AuditEntry) -> Result<(), StoreError>;

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
    /// Records that change with it; it is refused when one of them is not as expected.
    pub(crate) records: &'a [RecordChange],
    pub(crate) audit: &'a AuditEntry,
}

/// What records are about. A record is JSON text under a key; it has no revision and no history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Table {
    /// People and programs, by name.
    Users,
    /// Their tokens, by name.
    Tokens,
    /// What machines become hosts with, by name.
    JoinTokens,
    /// Hosts that joined, by name.
    Enrolments,
    /// Certificate authorities that are trusted, by number.
    Authorities,
}

impl Table {
    /// As keys of the store begin; it has no slash.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Users => "users",
            Self::Tokens => "tokens",
            Self::JoinTokens => "join-tokens",
            Self::Enrolments => "enrolments",
            Self::Authorities => "authorities",
        }
    }
}

/// What happens to one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RecordChange {
    pub(crate) table: Table,
    pub(crate) key: String,
    /// The text that has to be there, byte by byte; none: there must be no such record.
    pub(crate) before: Option<String>,
    /// The text that is there afterwards; none: the record is removed.
    pub(crate) after: Option<String>,
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
    /// Somebody else changed a record in between.
    #[error("{table}/{key} is not as it was when its change was planned")]
    Raced {
        /// The record's table.
        table: &'static str,
        /// The record's key.
        key: String,
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
