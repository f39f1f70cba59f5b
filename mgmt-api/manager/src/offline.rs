//! Backup and restore of a state directory that no manager runs on.

use std::io::{BufRead, Write};
use std::path::Path;
use std::time::SystemTime;

use mgmt_types::{AuditEntry, Problem, Restored};

use crate::backup::{self, Backup, BackupError};
use crate::files::{self, FileError};
use crate::restore::{self, Options};
use crate::store::{Embedded, Limits, Store, StoreError};

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    /// The directory.
    #[error(transparent)]
    File(#[from] FileError),
    /// Its store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The backup.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// The backup cannot be written.
    #[error("the backup cannot be written: {0}")]
    Write(std::io::Error),
    /// It was refused.
    #[error("{0}")]
    Refused(Box<Problem>),
}

/// Writes a backup of the store in `state_dir`.
pub fn backup(state_dir: &Path, mut to: impl Write) -> Result<(), OfflineError> {
    let store = open(state_dir)?;
    let state = store.load()?;
    let time = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let mut failed = None;
    let sink = |line: Vec<u8>| match to.write_all(&line) {
        Ok(()) => true,
        Err(error) => {
            failed = Some(error);
            false
        }
    };
    backup::write(&state, &store, time, sink).map_err(|problem| OfflineError::Refused(Box::new(problem)))?;
    match failed {
        Some(error) => Err(OfflineError::Write(error)),
        None => to.flush().map_err(OfflineError::Write),
    }
}

/// Puts a backup in the place of everything in `state_dir`, which is made when it is not there.
pub fn restore(
    state_dir: &Path,
    from: impl BufRead,
    force: bool,
    keep_tokens: bool,
) -> Result<Restored, OfflineError> {
    let backup = Backup::read(from)?;
    files::make_directory(state_dir)?;
    let store = open(state_dir)?;
    let audit = AuditEntry {
        id: 0,
        time: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
        author: None,
        role: None,
        peer: None,
        action: "restore without a manager".to_owned(),
        status: 200,
        revision: None,
        changes: Vec::new(),
        detail: None,
        suppressed: 0,
    };
    let replaced = restore::replace(&store, &store.load()?, backup, Options { force, keep_tokens }, audit);
    replaced.map(|(_, restored)| restored).map_err(|problem| OfflineError::Refused(Box::new(problem)))
}

fn open(state_dir: &Path) -> Result<Embedded, StoreError> {
    Embedded::open(&state_dir.join("manager.redb"), Limits::default())
}
