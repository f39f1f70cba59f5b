//! The store in one file, on redb: copy-on-write B-trees, each transaction on disk before it is acknowledged.
//!
//! History and audit log are bounded: the oldest records go when new ones come. What was refused has a table of its
//! own, so that a flood of refusals pushes out only other refusals.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use mgmt_types::{AuditEntry, Kind, Revision};
use redb::backends::FileBackend;
use redb::{
    Database, DatabaseError, ReadableDatabase, ReadableTable, Table, TableDefinition, WriteTransaction,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Commit, RecordChange, Replacement, Store, StoreError, Table as Records};
use crate::files::FileError;
use crate::state::{Counters, Entry, State};

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const ENTRIES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("entries");
const IDENTITIES: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("identities");
const HISTORY: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("history");
/// By table and key, with a slash between them.
const RECORDS: TableDefinition<'_, &str, &str> = TableDefinition::new("records");
/// Where layouts 1 and 2 keep tokens.
const TOKENS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("tokens");
const DONE: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("audit-done");
const REFUSED: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("audit-refused");

/// The layout this version writes. One that was written by an older version has less in it: layout 1 knows no groups and
/// no policies, layout 2 has no records but a table of tokens, which become records.
const LAYOUT: u64 = 3;
/// Cache of the database, in bytes: the state itself is in memory, so it serves history and audit reads alone.
const CACHE: usize = 16 << 20;

/// How much is kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Revisions.
    pub(crate) revisions: u64,
    /// Bytes of all revisions together.
    pub(crate) revision_bytes: u64,
    /// Audit entries of what was done.
    pub(crate) done: u64,
    /// Audit entries of what was refused.
    pub(crate) refused: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { revisions: 10_000, revision_bytes: 256 << 20, done: 100_000, refused: 10_000 }
    }
}

/// The store in one file.
#[derive(Debug)]
pub(crate) struct Embedded {
    database: Database,
    limits: Limits,
}

impl Embedded {
    /// Opens the file, or makes it.
    pub(crate) fn open(path: &Path, limits: Limits) -> Result<Self, StoreError> {
        let path = PathBuf::from(path);
        // Names, addresses and hashes of tokens are nobody else's business.
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options
            .open(&path)
            .map_err(|source| StoreError::File(FileError { doing: "open", path: path.clone(), source }))?;
        let opened = FileBackend::new(file)
            .and_then(|file| Database::builder().set_cache_size(CACHE).create_with_backend(file));
        let database = opened.map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => StoreError::Locked { path: path.clone() },
            other => failed(other),
        })?;
        let store = Self { database, limits };
        store.prepare(&path)?;
        Ok(store)
    }

    fn prepare(&self, path: &Path) -> Result<(), StoreError> {
        let write = self.database.begin_write().map_err(failed)?;
        {
            let mut meta = write.open_table(META).map_err(failed)?;
            let have = number(&meta, "layout")?.unwrap_or(LAYOUT);
            if !(1..=LAYOUT).contains(&have) {
                return Err(StoreError::Layout { path: path.to_owned(), have, know: LAYOUT });
            }
            meta.insert("layout", LAYOUT).map_err(failed)?;
            // Readers find no table that was never opened for writing.
            write.open_table(ENTRIES).map_err(failed)?;
            write.open_table(IDENTITIES).map_err(failed)?;
            let mut records = write.open_table(RECORDS).map_err(failed)?;
            let mut tokens = write.open_table(TOKENS).map_err(failed)?;
            while let Some((name, token)) = tokens.pop_first().map_err(failed)? {
                let token: serde_json::Value = decode(name.value(), token.value())?;
                let key = record_key(Records::Tokens, name.value());
                records.insert(key.as_str(), token.to_string().as_str()).map_err(failed)?;
            }
            for table in [HISTORY, DONE, REFUSED] {
                write.open_table(table).map_err(failed)?;
            }
        }
        write.commit().map_err(failed)
    }

    /// Does `work` in one transaction that is on disk when this returns.
    fn write(
        &self,
        work: impl FnOnce(&WriteTransaction) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let write = self.database.begin_write().map_err(failed)?;
        work(&write)?;
        write.commit().map_err(failed)
    }
}

impl Store for Embedded {
    fn load(&self) -> Result<State, StoreError> {
        let read = self.database.begin_read().map_err(failed)?;
        let meta = read.open_table(META).map_err(failed)?;
        let mut state = State { revision: number(&meta, "revision")?.unwrap_or(0), ..State::default() };
        let counter = |key, default: u32| -> Result<u32, StoreError> {
            Ok(number(&meta, key)?.and_then(|value| u32::try_from(value).ok()).unwrap_or(default))
        };
        let fresh = Counters::default();
        state.counters = Counters {
            next_vni: counter("next-vni", fresh.next_vni)?,
            next_port: counter("next-port", fresh.next_port)?,
            next_rule: counter("next-rule", fresh.next_rule)?,
            next_identity: counter("next-identity", fresh.next_identity)?,
        };
        for item in read.open_table(ENTRIES).map_err(failed)?.iter().map_err(failed)? {
            let (key, value) = item.map_err(failed)?;
            state.put(decode::<Entry>(key.value(), value.value())?);
        }
        for item in read.open_table(IDENTITIES).map_err(failed)?.iter().map_err(failed)? {
            let (key, value) = item.map_err(failed)?;
            let set = decode(&format!("identity {}", key.value()), value.value())?;
            state.identities.insert(key.value(), set);
        }
        Ok(state)
    }

    fn commit(&self, commit: &Commit<'_>) -> Result<(), StoreError> {
        let got = commit.revision.revision;
        self.write(|write| {
            let mut meta = write.open_table(META).map_err(failed)?;
            let have = number(&meta, "revision")?.unwrap_or(0);
            if have.checked_add(1) != Some(got) {
                return Err(StoreError::Conflict { have, got });
            }
            meta.insert("revision", got).map_err(failed)?;
            put_counters(&mut meta, commit.counters)?;
            let mut entries = write.open_table(ENTRIES).map_err(failed)?;
            for entry in commit.puts {
                put_entry(&mut entries, entry)?;
            }
            for (kind, name) in commit.removals {
                entries.remove(format!("{kind}/{name}").as_str()).map_err(failed)?;
            }
            let mut identities = write.open_table(IDENTITIES).map_err(failed)?;
            for (id, set) in commit.identities {
                match set {
                    Some(set) => {
                        drop(identities.insert(id, encode("identity", set)?.as_slice()).map_err(failed)?)
                    }
                    None => drop(identities.remove(id).map_err(failed)?),
                }
            }
            change_records(write, commit.records)?;
            self.add_history(write, &mut meta, commit.revision)?;
            add_audit(write, &mut meta, DONE, self.limits.done, commit.audit)
        })
    }

    fn replace(&self, replacement: &Replacement<'_>) -> Result<(), StoreError> {
        let Replacement { before, state, revision, history, tables, records, audit } = *replacement;
        self.write(|write| {
            let mut meta = write.open_table(META).map_err(failed)?;
            let have = number(&meta, "revision")?.unwrap_or(0);
            if have != before {
                return Err(StoreError::Conflict { have, got: state.revision });
            }
            meta.insert("revision", state.revision).map_err(failed)?;
            put_counters(&mut meta, state.counters)?;
            let mut entries = write.open_table(ENTRIES).map_err(failed)?;
            entries.retain(|_, _| false).map_err(failed)?;
            for entry in Kind::ALL.into_iter().flat_map(|kind| state.list(kind)) {
                put_entry(&mut entries, &entry)?;
            }
            let mut identities = write.open_table(IDENTITIES).map_err(failed)?;
            identities.retain(|_, _| false).map_err(failed)?;
            for (id, set) in &state.identities {
                identities.insert(id, encode("identity", set)?.as_slice()).map_err(failed)?;
            }
            let mut kept = write.open_table(RECORDS).map_err(failed)?;
            let replaced: Vec<String> = tables.iter().map(|table| record_key(*table, "")).collect();
            let stays = |key: &str, _: &str| !replaced.iter().any(|prefix| key.starts_with(prefix));
            kept.retain(stays).map_err(failed)?;
            for (table, key, text) in records {
                kept.insert(record_key(*table, key).as_str(), text.as_str()).map_err(failed)?;
            }
            write.open_table(HISTORY).map_err(failed)?.retain(|_, _| false).map_err(failed)?;
            meta.insert("history-bytes", 0).map_err(failed)?;
            meta.insert("history-count", 0).map_err(failed)?;
            for revision in history.iter().chain([revision]) {
                self.add_history(write, &mut meta, revision)?;
            }
            add_audit(write, &mut meta, DONE, self.limits.done, audit)
        })
    }

    fn revision(&self, number: u64) -> Result<Option<Revision>, StoreError> {
        let read = self.database.begin_read().map_err(failed)?;
        let history = read.open_table(HISTORY).map_err(failed)?;
        let found = history.get(number).map_err(failed)?;
        found.map(|value| decode(&format!("revision {number}"), value.value())).transpose()
    }

    fn revisions_after(&self, number: u64, most: usize) -> Result<Vec<Revision>, StoreError> {
        let read = self.database.begin_read().map_err(failed)?;
        let history = read.open_table(HISTORY).map_err(failed)?;
        let mut revisions = Vec::new();
        for item in history.range(number.saturating_add(1)..).map_err(failed)?.take(most) {
            let (key, value) = item.map_err(failed)?;
            revisions.push(decode(&format!("revision {}", key.value()), value.value())?);
        }
        Ok(revisions)
    }

    fn oldest_revision(&self) -> Result<Option<u64>, StoreError> {
        let read = self.database.begin_read().map_err(failed)?;
        let history = read.open_table(HISTORY).map_err(failed)?;
        Ok(history.first().map_err(failed)?.map(|(key, _)| key.value()))
    }

    fn records(&self, table: Records) -> Result<Vec<(String, String)>, StoreError> {
        let read = self.database.begin_read().map_err(failed)?;
        let records = read.open_table(RECORDS).map_err(failed)?;
        let prefix = record_key(table, "");
        let mut found = Vec::new();
        for item in records.range(prefix.as_str()..).map_err(failed)? {
            let (key, value) = item.map_err(failed)?;
            let Some(key) = key.value().strip_prefix(&prefix) else { break };
            found.push((key.to_owned(), value.value().to_owned()));
        }
        Ok(found)
    }

    fn change_records(&self, changes: &[RecordChange], audit: &AuditEntry) -> Result<(), StoreError> {
        self.write(|write| {
            change_records(write, changes)?;
            let mut meta = write.open_table(META).map_err(failed)?;
            add_audit(write, &mut meta, DONE, self.limits.done, audit)
        })
    }

    fn refused(&self, audit: &AuditEntry) -> Result<(), StoreError> {
        self.write(|write| {
            let mut meta = write.open_table(META).map_err(failed)?;
            add_audit(write, &mut meta, REFUSED, self.limits.refused, audit)
        })
    }

    fn audit(&self, before: Option<u64>, most: usize) -> Result<Vec<AuditEntry>, StoreError> {
        let read = self.database.begin_read().map_err(failed)?;
        let before = before.unwrap_or(u64::MAX);
        let mut entries: Vec<AuditEntry> = Vec::new();
        for definition in [DONE, REFUSED] {
            let table = read.open_table(definition).map_err(failed)?;
            for item in table.range(..before).map_err(failed)?.rev().take(most) {
                let (key, value) = item.map_err(failed)?;
                entries.push(decode(&format!("audit entry {}", key.value()), value.value())?);
            }
        }
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.id));
        entries.truncate(most);
        Ok(entries)
    }
}

impl Embedded {
    /// Adds a revision and lets the oldest go while there are too many or they are too large; never the new one.
    fn add_history(
        &self,
        write: &WriteTransaction,
        meta: &mut Table<'_, &'static str, u64>,
        revision: &Revision,
    ) -> Result<(), StoreError> {
        let mut history = write.open_table(HISTORY).map_err(failed)?;
        let value = encode("revision", revision)?;
        let mut bytes = number(meta, "history-bytes")?.unwrap_or(0).saturating_add(value.len() as u64);
        let mut count = number(meta, "history-count")?.unwrap_or(0).saturating_add(1);
        history.insert(revision.revision, value.as_slice()).map_err(failed)?;
        while count > 1 && (count > self.limits.revisions || bytes > self.limits.revision_bytes) {
            let Some((_, value)) = history.pop_first().map_err(failed)? else { break };
            bytes = bytes.saturating_sub(value.value().len() as u64);
            count -= 1;
        }
        meta.insert("history-bytes", bytes).map_err(failed)?;
        meta.insert("history-count", count).map_err(failed)?;
        Ok(())
    }
}

fn record_key(table: Records, key: &str) -> String {
    format!("{}/{key}", table.as_str())
}

fn change_records(write: &WriteTransaction, changes: &[RecordChange]) -> Result<(), StoreError> {
    let mut records = write.open_table(RECORDS).map_err(failed)?;
    for change in changes {
        let key = record_key(change.table, &change.key);
        let before = match &change.after {
            Some(after) => records.insert(key.as_str(), after.as_str()).map_err(failed)?,
            None => records.remove(key.as_str()).map_err(failed)?,
        };
        // What was written goes with the transaction.
        if before.as_ref().map(|before| before.value()) != change.before.as_deref() {
            return Err(StoreError::Raced { table: change.table.as_str(), key: change.key.clone() });
        }
    }
    Ok(())
}

fn put_counters(meta: &mut Table<'_, &'static str, u64>, counters: Counters) -> Result<(), StoreError> {
    let Counters { next_vni, next_port, next_rule, next_identity } = counters;
    for (key, value) in [
        ("next-vni", next_vni),
        ("next-port", next_port),
        ("next-rule", next_rule),
        ("next-identity", next_identity),
    ] {
        meta.insert(key, u64::from(value)).map_err(failed)?;
    }
    Ok(())
}

fn put_entry(entries: &mut Table<'_, &'static str, &'static [u8]>, entry: &Entry) -> Result<(), StoreError> {
    let key = format!("{}/{}", entry.kind(), entry.name());
    entries.insert(key.as_str(), encode(&key, entry)?.as_slice()).map_err(failed)?;
    Ok(())
}

/// Adds an entry under the next number and lets the oldest of its table go while there are too many.
fn add_audit(
    write: &WriteTransaction,
    meta: &mut Table<'_, &'static str, u64>,
    definition: TableDefinition<'static, u64, &'static [u8]>,
    most: u64,
    entry: &AuditEntry,
) -> Result<(), StoreError> {
    use redb::{ReadableTableMetadata, TableHandle};
    let id = number(meta, "audit-id")?.unwrap_or(0).saturating_add(1);
    meta.insert("audit-id", id).map_err(failed)?;
    let mut table = write.open_table(definition).map_err(failed)?;
    let value = encode(definition.name(), &AuditEntry { id, ..entry.clone() })?;
    table.insert(id, value.as_slice()).map_err(failed)?;
    while table.len().map_err(failed)? > most {
        if table.pop_first().map_err(failed)?.is_none() {
            break;
        }
    }
    Ok(())
}

fn number(
    table: &impl ReadableTable<&'static str, u64>,
    key: &'static str,
) -> Result<Option<u64>, StoreError> {
    Ok(table.get(key).map_err(failed)?.map(|value| value.value()))
}

fn encode<T: Serialize>(what: &str, value: &T) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(value).map_err(|source| StoreError::Damaged { what: what.to_owned(), source })
}

fn decode<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(bytes).map_err(|source| StoreError::Damaged { what: what.to_owned(), source })
}

fn failed(error: impl Into<redb::Error>) -> StoreError {
    StoreError::Database(Box::new(error.into()))
}

#[cfg(test)]
mod tests {
    use mgmt_types::Role;

    use super::*;
    use crate::testing::{deletions, wishes};
    use crate::transaction::{self, Wish};

    const BASE: &str = "kind: Host\nname: a\n---\nkind: Network\nname: blue\nspec: { subnets: [10.0.1.0/24] }\n---\nkind: Workload\nname: w\nspec: { host: a, kind: vm, ports: [{ name: e, network: blue }] }\n";

    fn entry(action: &str) -> AuditEntry {
        AuditEntry {
            id: 0,
            time: "2024-01-01T00:00:00Z".into(),
            author: Some("me".into()),
            role: Some(Role::Admin),
            peer: None,
            action: action.into(),
            status: 200,
            revision: None,
            changes: Vec::new(),
            detail: None,
            suppressed: 0,
        }
    }

    fn apply(store: &Embedded, state: &State, wishes: &[Wish]) -> State {
        let plan = transaction::plan(state, wishes).unwrap();
        let revision = Revision {
            revision: plan.state.revision,
            time: "2024-01-01T00:00:00Z".into(),
            author: "me".into(),
            changes: plan.diffs,
            hosts: plan.hosts,
        };
        let counters = plan.state.counters;
        let (puts, removals, audit) = (&plan.puts, &plan.removals, &entry("apply"));
        let identities = &plan.identities;
        let records = &[];
        let commit = Commit { revision: &revision, puts, removals, identities, counters, records, audit };
        store.commit(&commit).unwrap();
        plan.state
    }

    fn rename(n: u64) -> Vec<Wish> {
        wishes(&format!("kind: Host\nname: a\nlabels: {{ n: '{n}' }}\n"))
    }

    #[test]
    fn a_reopened_store_has_the_same_state() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store");
        let store = Embedded::open(&path, Limits::default()).unwrap();
        let state = apply(&store, &State::default(), &wishes(BASE));
        let state = apply(&store, &state, &deletions("kind: Workload\nname: w\n"));
        drop(store);
        let store = Embedded::open(&path, Limits::default()).unwrap();
        assert_eq!(store.load().unwrap(), state);
        assert_eq!(store.revision(2).unwrap().unwrap().changes.len(), 1);
        assert_eq!(store.revision(3).unwrap(), None);
    }

    #[test]
    fn a_second_opening_is_refused_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store");
        let _store = Embedded::open(&path, Limits::default()).unwrap();
        let error = Embedded::open(&path, Limits::default()).unwrap_err();
        assert!(error.to_string().contains("only one manager"), "{error}");
    }

    #[test]
    fn a_revision_that_does_not_follow_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let store = Embedded::open(&directory.path().join("store"), Limits::default()).unwrap();
        let state = apply(&store, &State::default(), &wishes(BASE));
        let stale = Revision {
            revision: 1,
            time: String::new(),
            author: String::new(),
            changes: Vec::new(),
            hosts: Vec::new(),
        };
        let counters = state.counters;
        let (records, audit) = (&[], &entry("x"));
        let commit =
            Commit { revision: &stale, puts: &[], removals: &[], identities: &[], counters, records, audit };
        assert!(matches!(store.commit(&commit), Err(StoreError::Conflict { have: 1, got: 1 })));
        assert_eq!(store.load().unwrap(), state);
    }

    #[test]
    fn history_and_audit_log_are_bounded_and_refusals_push_out_refusals_only() {
        let directory = tempfile::tempdir().unwrap();
        let limits = Limits { revisions: 5, revision_bytes: 1 << 20, done: 4, refused: 3 };
        let store = Embedded::open(&directory.path().join("store"), limits).unwrap();
        let mut state = apply(&store, &State::default(), &wishes(BASE));
        for n in 0..10 {
            state = apply(&store, &state, &rename(n));
            store.refused(&entry(&format!("refused {n}"))).unwrap();
            store.refused(&entry(&format!("refused {n} again"))).unwrap();
        }
        assert_eq!(store.oldest_revision().unwrap(), Some(7));
        assert_eq!(store.revisions_after(0, 100).unwrap().len(), 5);
        assert_eq!(
            store.revisions_after(8, 2).unwrap().iter().map(|r| r.revision).collect::<Vec<_>>(),
            [9, 10]
        );
        let all = store.audit(None, 100).unwrap();
        let refused = all.iter().filter(|entry| entry.action.starts_with("refused")).count();
        assert_eq!((all.len(), refused), (7, 3));
        assert!(all.windows(2).all(|pair| pair[0].id > pair[1].id));
        let page = store.audit(Some(all[2].id), 2).unwrap();
        assert_eq!(page, all[3..5]);
    }

    #[test]
    fn history_is_bounded_in_bytes_too() {
        let directory = tempfile::tempdir().unwrap();
        let limits = Limits { revision_bytes: 1500, ..Limits::default() };
        let store = Embedded::open(&directory.path().join("store"), limits).unwrap();
        let mut state = apply(&store, &State::default(), &wishes(BASE));
        for n in 0..20 {
            state = apply(&store, &state, &rename(n));
        }
        let kept = store.revisions_after(0, 100).unwrap();
        let bytes: usize = kept.iter().map(|revision| serde_json::to_vec(revision).unwrap().len()).sum();
        assert!(bytes <= 1500 && kept.len() > 1, "{bytes} bytes in {} revisions", kept.len());
        assert_eq!(kept.last().map(|revision| revision.revision), Some(state.revision));
    }

    fn change(key: &str, before: Option<&str>, after: Option<&str>) -> RecordChange {
        let text = |text: &str| text.to_owned();
        RecordChange {
            table: Records::Tokens,
            key: key.into(),
            before: before.map(text),
            after: after.map(text),
        }
    }

    #[test]
    fn a_record_changes_only_when_it_is_as_expected_and_then_with_all_others() {
        let directory = tempfile::tempdir().unwrap();
        let store = Embedded::open(&directory.path().join("store"), Limits::default()).unwrap();
        let found = || store.records(Records::Tokens).unwrap();
        let record = |key: &str, text: &str| (key.to_owned(), text.to_owned());
        let both = [change("a", None, Some("1")), change("b", None, Some("2"))];
        store.change_records(&both, &entry("add")).unwrap();
        assert_eq!(found(), [record("a", "1"), record("b", "2")]);

        for wrong in [
            change("b", None, Some("3")),
            change("b", Some("1"), Some("3")),
            change("b", Some("1"), None),
            change("c", Some("2"), Some("3")),
            change("c", Some("2"), None),
        ] {
            let changes = [change("a", Some("1"), Some("9")), wrong];
            let error = store.change_records(&changes, &entry("lose")).unwrap_err();
            assert!(matches!(error, StoreError::Raced { table: "tokens", .. }), "{error}");
            assert_eq!(found(), [record("a", "1"), record("b", "2")]);
        }

        store
            .change_records(&[change("a", Some("1"), None), change("b", Some("2"), Some("4"))], &entry("x"))
            .unwrap();
        assert_eq!(found(), [record("b", "4")]);
        assert_eq!(store.audit(None, 9).unwrap().len(), 2, "what was not done is not in the log");
    }

    #[test]
    fn a_commit_with_a_record_that_is_not_as_expected_is_refused_whole() {
        let directory = tempfile::tempdir().unwrap();
        let store = Embedded::open(&directory.path().join("store"), Limits::default()).unwrap();
        let revision = |revision| Revision {
            revision,
            time: String::new(),
            author: String::new(),
            changes: Vec::new(),
            hosts: Vec::new(),
        };
        let commit = |number, records: &[RecordChange]| {
            let (counters, audit) = (Counters::default(), &entry("x"));
            let revision = &revision(number);
            store.commit(&Commit {
                revision,
                puts: &[],
                removals: &[],
                identities: &[],
                counters,
                records,
                audit,
            })
        };
        commit(1, &[change("a", None, Some("1"))]).unwrap();
        assert!(matches!(commit(2, &[change("a", None, Some("2"))]), Err(StoreError::Raced { .. })));
        assert_eq!(store.load().unwrap().revision, 1);
        assert_eq!(store.records(Records::Tokens).unwrap(), [("a".to_owned(), "1".to_owned())]);
        commit(2, &[change("a", Some("1"), None)]).unwrap();
        assert_eq!(store.records(Records::Tokens).unwrap(), []);
    }

    #[test]
    fn tokens_of_an_older_layout_become_records() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store");
        {
            let database = Database::create(&path).unwrap();
            let write = database.begin_write().unwrap();
            write.open_table(META).unwrap().insert("layout", 2).unwrap();
            let token = br#"{"name":"ci","role":"viewer","created":"2024-01-01T00:00:00Z","hash":"00"}"#;
            write.open_table(TOKENS).unwrap().insert("ci", token.as_slice()).unwrap();
            write.commit().unwrap();
        }
        for _ in 0..2 {
            let store = Embedded::open(&path, Limits::default()).unwrap();
            let records = store.records(Records::Tokens).unwrap();
            let (key, text) = &records[0];
            let token: serde_json::Value = serde_json::from_str(text).unwrap();
            assert_eq!((records.len(), key.as_str(), &token["role"]), (1, "ci", &"viewer".into()));
        }
    }
}
