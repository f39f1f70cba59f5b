//! What outlives the process: entries, history, records, audit log.

mod address;
mod embedded;
mod etcd;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::time::SystemTime;

use mgmt_types::{AuditEntry, Kind, Revision};

use crate::files::FileError;
use crate::state::{Counters, Entry, GroupSet, State};

pub use address::{EtcdAddress, StoreAddress, StoreAddressError, StoreTls};
pub(crate) use embedded::{Embedded, Limits};
pub(crate) use etcd::{Etcd, attend};

/// Where desired state is kept. What a method acknowledged is still there after a crash of the machine.
pub(crate) trait Store: Send + Sync {
    /// The newest state.
    fn load(&self) -> Result<State, StoreError>;

    /// The newest state, when others changed it since it was `state`; for a store that is shared.
    fn catch_up(&self, state: &State) -> Result<Option<State>, StoreError> {
        let _ = state;
        Ok(None)
    }

    /// Whether other managers may use it at the same time.
    fn is_shared(&self) -> bool {
        false
    }

    /// Since when it does not answer.
    fn cut_off(&self) -> Option<SystemTime> {
        None
    }

    /// Writes one revision and its audit entry, both or none; refused unless it follows the newest revision.
    fn commit(&self, commit: &Commit<'_>) -> Result<(), StoreError>;

    /// Puts a whole state in the place of everything; refused unless the newest revision is the one expected.
    fn replace(&self, replacement: &Replacement<'_>) -> Result<(), StoreError>;

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

/// A whole state, to be written in the place of everything.
#[derive(Debug)]
pub(crate) struct Replacement<'a> {
    /// The newest revision before.
    pub(crate) before: u64,
    pub(crate) state: &'a State,
    /// The revision that the state is at.
    pub(crate) revision: &'a Revision,
    /// What came before it, oldest first.
    pub(crate) history: &'a [Revision],
    /// Tables of records that are replaced; the others stay.
    pub(crate) tables: &'a [Table],
    /// What is in these tables afterwards: table, key, text.
    pub(crate) records: &'a [(Table, String, String)],
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
    /// Every table.
    pub(crate) const ALL: [Self; 5] =
        [Self::Users, Self::Tokens, Self::JoinTokens, Self::Enrolments, Self::Authorities];

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
    /// No member of the cluster answered in time. A change may have been made all the same.
    #[error("the store does not answer: {doing} at {member}: {why}")]
    Unreachable {
        /// What was being done.
        doing: &'static str,
        /// The member that was asked last.
        member: String,
        /// What came of it.
        why: String,
    },
    /// The cluster has not answered for a while; nothing was tried.
    #[error("the store has not answered since {since}")]
    CutOff {
        /// The last answer, RFC 3339 in UTC.
        since: String,
    },
    /// A member of the cluster answered that it will not do it.
    #[error("the store refuses: {doing} at {member}: {why}")]
    Refused {
        /// What was being done.
        doing: &'static str,
        /// The member that refused.
        member: String,
        /// What it said.
        why: String,
    },
    /// It is older than what this manager knows: its own data was lost or brought back from a copy.
    #[error(
        "the store went back from revision {from} to {to}: restore a backup, or start the managers anew to go on from there"
    )]
    WentBack {
        /// The revision this manager knows.
        from: u64,
        /// The newest one in the store.
        to: u64,
    },
    /// It changed each time it was read.
    #[error("the store changed {rounds} times while it was read")]
    Restless {
        /// How often it was tried.
        rounds: u32,
    },
    /// Another manager leads by now.
    #[error("{doing}: this manager does not lead any more")]
    NotLeading {
        /// What was being done.
        doing: &'static str,
    },
    /// Something is kept there that no manager wrote.
    #[error("{key:?} in the store has a value that no manager writes")]
    Foreign {
        /// The key.
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
