//! A copy of all that is kept, as lines of JSON: a head, then entries, identities, records and history, then an end that
//! proves that nothing is missing or changed. The audit log is not in it.
//!
//! ```text
//! {"head":{"format":1,"revision":7,"time":"…","version":"…","counters":{…}}}
//! {"entry":{…}}            every entry, of any kind
//! {"identity":[1,["web"]]} every set of groups
//! {"record":["tokens","admin","{…}"]}
//! {"history":{…}}          every revision that is still kept, oldest first
//! {"end":{"lines":42,"sha256":"…"}}
//! ```

use std::io::{BufRead, Read as _};

use aws_lc_rs::digest::{Context, SHA256};
use mgmt_types::{Problem, Revision};
use serde::{Deserialize, Serialize};

use crate::manager::{internal, refusal};
use crate::state::{Counters, Entry, GroupSet, State};
use crate::store::{Store, Table};

/// The format this version writes, and the newest it reads.
const FORMAT: u32 = 1;
/// Revisions read from the store at once.
const AT_ONCE: usize = 64;
/// Longest line that is read: one transaction of the largest body, before and after.
const MAX_LINE: u64 = 64 << 20;

/// A backup that was read to its end.
#[derive(Debug)]
pub(crate) struct Backup {
    pub(crate) head: Head,
    /// The state at the head's revision.
    pub(crate) state: State,
    pub(crate) records: Vec<(Table, String, String)>,
    pub(crate) history: Vec<Revision>,
}

/// The first line.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Head {
    format: u32,
    /// The newest revision.
    pub(crate) revision: u64,
    /// When it was made, RFC 3339 in UTC.
    pub(crate) time: String,
    /// The version that made it.
    version: String,
    counters: Counters,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Line {
    Head(Head),
    Entry(Entry),
    Identity(u32, GroupSet),
    /// Table, key and text.
    Record(String, String, String),
    History(Box<Revision>),
    End(End),
}

/// The last line: how many came before it, and the SHA-256 of all of them, in hexadecimal.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct End {
    lines: u64,
    sha256: String,
}

/// What is wrong with a backup.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// It cannot be read.
    #[error("the backup cannot be read: {0}")]
    Io(#[from] std::io::Error),
    /// A line is none of a backup's.
    #[error("line {line} of the backup is no line of a backup: {source}")]
    Line {
        /// Which one, counted from 1.
        line: u64,
        /// What the reader said.
        source: serde_json::Error,
    },
    /// A line is too long.
    #[error("line {line} of the backup has more than {MAX_LINE} bytes")]
    Long {
        /// Which one, counted from 1.
        line: u64,
    },
    /// It does not begin with a head, or has a second one.
    #[error("line {line} of the backup is out of place: a head comes first, and once")]
    Order {
        /// Which one, counted from 1.
        line: u64,
    },
    /// It was written by a newer version.
    #[error("the backup has format {have}; this version reads formats up to {FORMAT}")]
    Format {
        /// Its format.
        have: u32,
    },
    /// It names a kind of record that this version does not know.
    #[error("line {line} of the backup has a record of {table:?}, which this version does not know")]
    Table {
        /// Which line, counted from 1.
        line: u64,
        /// The table.
        table: String,
    },
    /// It ends before its end.
    #[error("the backup breaks off after {lines} lines")]
    Short {
        /// How many there are.
        lines: u64,
    },
    /// It is not what was written.
    #[error(
        "the backup was changed or damaged: it has {lines} lines and SHA-256 {sha256}, its end says otherwise"
    )]
    Damaged {
        /// How many lines come before the end.
        lines: u64,
        /// Their digest.
        sha256: String,
    },
}

/// Puts a backup line by line into `sink`; ends early when that does not want any more.
pub(crate) fn write(
    state: &State,
    store: &dyn Store,
    time: String,
    sink: impl FnMut(Vec<u8>) -> bool,
) -> Result<(), Problem> {
    let mut writer = Writer { digest: Context::new(&SHA256), lines: 0, sink };
    let head = Head {
        format: FORMAT,
        revision: state.revision,
        time,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        counters: state.counters,
    };
    let mut wanted = writer.line(&Line::Head(head))?;
    for entry in mgmt_types::Kind::ALL.into_iter().flat_map(|kind| state.list(kind)) {
        wanted = wanted && writer.line(&Line::Entry(entry))?;
    }
    for (id, set) in &state.identities {
        wanted = wanted && writer.line(&Line::Identity(*id, set.clone()))?;
    }
    for table in Table::ALL {
        for (key, text) in store.records(table).map_err(|error| refusal(&error))? {
            wanted = wanted && writer.line(&Line::Record(table.as_str().to_owned(), key, text))?;
        }
    }
    let mut known = 0;
    while wanted && known < state.revision {
        let page = store.revisions_after(known, AT_ONCE).map_err(|error| refusal(&error))?;
        let Some(last) = page.last() else { break };
        known = last.revision;
        for revision in page.into_iter().filter(|revision| revision.revision <= state.revision) {
            wanted = wanted && writer.line(&Line::History(Box::new(revision)))?;
        }
    }
    if wanted {
        let end = End { lines: writer.lines, sha256: hex(writer.digest.clone()) };
        writer.line(&Line::End(end))?;
    }
    Ok(())
}

struct Writer<F> {
    digest: Context,
    lines: u64,
    sink: F,
}

impl<F: FnMut(Vec<u8>) -> bool> Writer<F> {
    fn line(&mut self, line: &Line) -> Result<bool, Problem> {
        let mut bytes = serde_json::to_vec(line).map_err(|error| internal(&error))?;
        bytes.push(b'\n');
        self.digest.update(&bytes);
        self.lines += 1;
        Ok((self.sink)(bytes))
    }
}

impl Backup {
    /// Reads a backup to its end.
    pub(crate) fn read(mut from: impl BufRead) -> Result<Self, BackupError> {
        let mut digest = Context::new(&SHA256);
        let mut backup: Option<Self> = None;
        let mut bytes = Vec::new();
        for number in 1.. {
            bytes.clear();
            let length = from.by_ref().take(MAX_LINE + 1).read_until(b'\n', &mut bytes)?;
            if length as u64 > MAX_LINE {
                return Err(BackupError::Long { line: number });
            }
            if length == 0 {
                return Err(BackupError::Short { lines: number - 1 });
            }
            let line = serde_json::from_slice(&bytes)
                .map_err(|source| BackupError::Line { line: number, source })?;
            match (line, &mut backup) {
                (Line::Head(head), None) if head.format > FORMAT => {
                    return Err(BackupError::Format { have: head.format });
                }
                (Line::Head(head), None) => {
                    let state =
                        State { revision: head.revision, counters: head.counters, ..State::default() };
                    backup = Some(Self { head, state, records: Vec::new(), history: Vec::new() });
                }
                (Line::Entry(entry), Some(backup)) => backup.state.put(entry),
                (Line::Identity(id, set), Some(backup)) => drop(backup.state.identities.insert(id, set)),
                (Line::Record(table, key, text), Some(backup)) => {
                    let known = Table::ALL.into_iter().find(|known| known.as_str() == table);
                    let table = known.ok_or(BackupError::Table { line: number, table })?;
                    backup.records.push((table, key, text));
                }
                (Line::History(revision), Some(backup)) => backup.history.push(*revision),
                (Line::End(end), Some(_)) => {
                    let found = End { lines: number - 1, sha256: hex(digest) };
                    if end != found {
                        return Err(BackupError::Damaged { lines: found.lines, sha256: found.sha256 });
                    }
                    break;
                }
                (Line::Head(_), Some(_)) | (_, None) => return Err(BackupError::Order { line: number }),
            }
            digest.update(&bytes);
        }
        backup.ok_or(BackupError::Short { lines: 0 })
    }
}

fn hex(digest: Context) -> String {
    digest.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
