//! The store in etcd, shared by several managers. `keys` has the layout.
//!
//! A change becomes current by one transaction that is guarded by the newest revision's key: of two managers that plan
//! the same revision one wins, the other sees who did and plans anew. Whether an attempt won can be read at any time
//! later, so an answer that was lost on the way is no riddle: trying again either makes it current or finds that it is.

mod chores;
mod keys;
mod members;
mod pieces;
mod session;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use etcd_client::{Compare, CompareOp, DeleteOptions, GetOptions, KeyValue, Txn, TxnOp, TxnOpResponse};
use mgmt_types::{AuditEntry, Revision};
use tokio::runtime::Handle;

use self::keys::{Keys, Log, Span, revision_of};
use self::members::{Members, PATIENCE, keys_and_values};
use self::pieces::{Step, Whole, Winner, cut, join};
use super::{Commit, EtcdAddress, RecordChange, Replacement, Store, StoreError, StoreTls, Table};
use crate::state::{Counters, State};

pub(crate) use session::attend;

/// The layout this version writes.
const LAYOUT: u64 = 1;
/// Most records that change in one transaction; etcd takes 128 operations in one.
const RECORDS: usize = 100;
/// How often a state is read anew when it changes while it is read.
const ROUNDS: u32 = 5;

/// The store in etcd.
pub(crate) struct Etcd {
    members: Members,
    keys: Keys,
    runtime: Handle,
    /// Name of this manager for as long as it runs; attempts and audit entries carry it.
    name: String,
    attempts: AtomicU64,
    /// The last number of an audit entry.
    last_audit: AtomicU64,
    /// Since when the cluster does not answer; what would have to wait for it fails at once then.
    cut_off: RwLock<Option<SystemTime>>,
}

/// What a range of keys is read for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Read {
    /// Keys alone.
    Keys,
    /// Values of some hundred bytes.
    Small,
    /// Values as large as a piece.
    Values,
}

impl Read {
    /// How many are read at once.
    const fn page(self) -> i64 {
        match self {
            Self::Keys => 5000,
            Self::Small => 1000,
            Self::Values => 64,
        }
    }
}

impl Etcd {
    /// Opens the store for a manager that is called `name`; it has to be a name no other manager has. Blocks; its calls
    /// run on `runtime`, one of whose own threads must not make them.
    pub(crate) fn open(
        address: &EtcdAddress,
        tls: &StoreTls,
        name: String,
        runtime: Handle,
    ) -> Result<Self, StoreError> {
        let members = runtime.block_on(Members::new(address, tls))?;
        let store = Self {
            members,
            keys: Keys::new(address.prefix.clone()),
            runtime,
            name,
            attempts: AtomicU64::new(0),
            last_audit: AtomicU64::new(0),
            cut_off: RwLock::new(None),
        };
        store.prepare()?;
        Ok(store)
    }

    fn prepare(&self) -> Result<(), StoreError> {
        let key = self.keys.layout();
        let mine = Txn::new()
            .when([Compare::create_revision(key.clone(), CompareOp::Equal, 0)])
            .and_then([TxnOp::put(key.clone(), LAYOUT.to_string(), None)])
            .or_else([TxnOp::get(key.clone(), None)]);
        let answer = self.wait(self.transact("read the layout", mine))?;
        let Some(found) = first(&answer) else { return Ok(()) };
        match text(&found)?.parse() {
            Ok(LAYOUT) => Ok(()),
            Ok(have) => Err(StoreError::Layout { path: key.into(), have, know: LAYOUT }),
            Err(_) => Err(StoreError::Foreign { key }),
        }
    }

    /// Waits for a call, unless the cluster is known not to answer.
    fn wait<T>(&self, call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        if let Some(since) = self.cut_off() {
            return Err(StoreError::CutOff { since: humantime::format_rfc3339_seconds(since).to_string() });
        }
        self.runtime.block_on(call)
    }

    fn set_cut_off(&self, since: Option<SystemTime>) {
        *self.cut_off.write().unwrap_or_else(PoisonError::into_inner) = since;
    }

    async fn transact(&self, doing: &'static str, txn: Txn) -> Result<etcd_client::TxnResponse, StoreError> {
        self.transact_within(PATIENCE, doing, txn).await
    }

    async fn transact_within(
        &self,
        patience: Duration,
        doing: &'static str,
        txn: Txn,
    ) -> Result<etcd_client::TxnResponse, StoreError> {
        let work = |client: etcd_client::Client| {
            let txn = txn.clone();
            async move { keys_and_values(&client).txn(txn).await }
        };
        self.members.call(doing, patience, work).await
    }

    /// One value.
    async fn get(&self, doing: &'static str, key: String) -> Result<Option<Vec<u8>>, StoreError> {
        let work = |client: etcd_client::Client| {
            let key = key.clone();
            async move { keys_and_values(&client).get(key, None).await }
        };
        let answer = self.members.call(doing, PATIENCE, work).await?;
        Ok(answer.kvs().first().map(|found| found.value().to_vec()))
    }

    /// Keys and values of a span in the order of keys, at most `most`, all as they were at one moment.
    async fn range(
        &self,
        doing: &'static str,
        span: Span,
        most: usize,
        read: Read,
    ) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let (mut from, end) = span;
        let mut found: Vec<(String, Vec<u8>)> = Vec::new();
        let mut moment = 0;
        loop {
            let page = read.page();
            let left = i64::try_from(most - found.len()).unwrap_or(page);
            let mut options =
                GetOptions::new().with_range(end.clone()).with_limit(left.min(page)).with_revision(moment);
            if read == Read::Keys {
                options = options.with_keys_only();
            }
            let work = |client: etcd_client::Client| {
                let (from, options) = (from.clone(), options.clone());
                async move { keys_and_values(&client).get(from, Some(options)).await }
            };
            let answer = self.members.call(doing, PATIENCE, work).await?;
            if moment == 0 {
                moment = answer.header().map_or(0, etcd_client::ResponseHeader::revision);
            }
            for pair in answer.kvs() {
                found.push((key_text(pair)?, pair.value().to_vec()));
            }
            match found.last() {
                // The smallest key after the last one.
                Some((last, _)) if answer.more() && found.len() < most => from = format!("{last}\0"),
                _ => return Ok(found),
            }
        }
    }

    /// The newest revision; 0 before the first.
    async fn head(&self) -> Result<u64, StoreError> {
        match self.get("read the newest revision", self.keys.head()).await? {
            Some(value) => number(&self.keys.head(), &value),
            None => Ok(0),
        }
    }

    async fn read(&self) -> Result<State, StoreError> {
        for _ in 0..ROUNDS {
            let head = self.head().await?;
            let mut state = match self.base().await? {
                None => State::default(),
                Some(base) => {
                    let span = self.keys.base_pieces(base.revision, &base.attempt);
                    let pieces = self.range("read the base", span, usize::MAX, Read::Values).await?;
                    // Another base took its place while it was read.
                    let Some(text) = join(&base, &pieces) else { continue };
                    decode::<Whole>("the base", &text)?.into_state()
                }
            };
            if state.revision >= head || self.advance(&mut state, head).await? {
                return Ok(state);
            }
        }
        Err(StoreError::Restless { rounds: ROUNDS })
    }

    async fn base(&self) -> Result<Option<Winner>, StoreError> {
        let found = self.get("read which base is current", self.keys.base()).await?;
        found.map(|value| decode("the base", &value)).transpose()
    }

    /// Brings a state to revision `to` by the log; false when the log does not go that far back.
    async fn advance(&self, state: &mut State, to: u64) -> Result<bool, StoreError> {
        let steps = self.steps(state.revision + 1, to, usize::MAX).await?;
        let follows =
            steps.iter().zip(state.revision + 1..).all(|(step, next)| step.revision.revision == next);
        if !follows || steps.last().is_none_or(|step| step.revision.revision < to) {
            return Ok(false);
        }
        for step in steps {
            step.apply(state);
        }
        Ok(true)
    }

    /// What the revisions `from` up to and including `to` change, oldest first, at most `most`; those that are no longer
    /// kept are left out.
    async fn steps(&self, from: u64, to: u64, most: usize) -> Result<Vec<Step>, StoreError> {
        let winners = self.winners(from, to, most).await?;
        let (Some(first), Some(last)) = (winners.first(), winners.last()) else { return Ok(Vec::new()) };
        let span = self.keys.pieces_between(first.revision, last.revision);
        let pieces = self.range("read the log", span, usize::MAX, Read::Values).await?;
        let mut steps = Vec::with_capacity(winners.len());
        for winner in &winners {
            if let Some(text) = join(winner, &pieces) {
                steps.push(decode(&self.keys.won(winner.revision), &text)?);
            }
        }
        Ok(steps)
    }

    async fn winners(&self, from: u64, to: u64, most: usize) -> Result<Vec<Winner>, StoreError> {
        let span = self.keys.won_between(from, to);
        let found = self.range("read which attempts won", span, most, Read::Small).await?;
        found.iter().map(|(key, value)| decode(key, value)).collect()
    }

    /// The name of something that is written once.
    fn attempt(&self) -> String {
        format!("{}-{}", self.name, self.attempts.fetch_add(1, Ordering::Relaxed))
    }

    /// A number for an audit entry: after all others of this manager, and, as far as clocks agree, of all managers.
    /// Microseconds since 1970 stay below 2^53, the largest integer that every reader of JSON understands.
    fn audit_id(&self, entry: &AuditEntry) -> u64 {
        let time = humantime::parse_rfc3339(&entry.time).unwrap_or(SystemTime::UNIX_EPOCH);
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let earliest = u64::try_from(since.as_micros()).unwrap_or(u64::MAX >> 11);
        let next = |last: u64| Some(earliest.max(last + 1));
        let last = self.last_audit.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        earliest.max(last.unwrap_or(0) + 1)
    }

    /// The key and value of an audit entry.
    fn audit_entry(&self, log: Log, entry: &AuditEntry) -> Result<(String, Vec<u8>), StoreError> {
        let id = self.audit_id(entry);
        let value = encode("audit entry", &AuditEntry { id, ..entry.clone() })?;
        Ok((self.keys.audit(log, id, &self.name), value))
    }

    /// Comparisons that hold when every record is as its change expects, and the operations that make the changes.
    fn record_changes(&self, changes: &[RecordChange]) -> (Vec<Compare>, Vec<TxnOp>) {
        let (mut compares, mut puts) = (Vec::new(), Vec::new());
        for change in changes {
            let key = self.keys.record(change.table.as_str(), &change.key);
            compares.push(match &change.before {
                Some(before) => Compare::value(key.clone(), CompareOp::Equal, before.as_str()),
                None => Compare::create_revision(key.clone(), CompareOp::Equal, 0),
            });
            puts.push(match &change.after {
                Some(after) => TxnOp::put(key, after.as_str(), None),
                None => TxnOp::delete(key, None),
            });
        }
        let mut tables: Vec<&str> = changes.iter().map(|change| change.table.as_str()).collect();
        tables.sort_unstable();
        tables.dedup();
        puts.extend(tables.into_iter().map(|table| self.table_changes(table)));
        (compares, puts)
    }

    /// Which record is not as its change expects.
    async fn raced(&self, changes: &[RecordChange]) -> Result<StoreError, StoreError> {
        for change in changes {
            let key = self.keys.record(change.table.as_str(), &change.key);
            let have = self.get("read a record", key).await?;
            if have.as_deref() != change.before.as_deref().map(str::as_bytes) {
                return Ok(raced(change));
            }
        }
        // It was changed and changed back meanwhile.
        Ok(changes.first().map_or(StoreError::Restless { rounds: 1 }, raced))
    }

    async fn write(&self, commit: &Commit<'_>) -> Result<(), StoreError> {
        let what = || format!("revision {}", commit.revision.revision);
        let text = Step::encode(commit).map_err(|source| StoreError::Damaged { what: what(), source })?;
        let attempt = self.attempt();
        self.write_pieces(commit.revision.revision, &attempt, &text).await?;
        self.make_current(commit, &attempt, &text).await
    }

    /// Writes what does not fit into the transaction that makes it current.
    async fn write_pieces(&self, revision: u64, attempt: &str, text: &[u8]) -> Result<(), StoreError> {
        let pieces = cut(text);
        if pieces.len() > 1 {
            for (piece, number) in pieces.into_iter().zip(0u32..) {
                self.put("write a piece", self.keys.piece(revision, attempt, number), piece.to_vec()).await?;
            }
        }
        Ok(())
    }

    async fn make_current(&self, commit: &Commit<'_>, attempt: &str, text: &[u8]) -> Result<(), StoreError> {
        let revision = commit.revision.revision;
        let winner = Winner::of(revision, attempt, text);
        let first_piece = self.keys.piece(revision, attempt, 0);
        let head = self.keys.head();
        let (mut compares, mut puts) = self.record_changes(commit.records);
        compares.push(match revision.saturating_sub(1) {
            0 => Compare::create_revision(head.clone(), CompareOp::Equal, 0),
            before => Compare::value(head.clone(), CompareOp::Equal, before.to_string()),
        });
        match cut(text).as_slice() {
            [piece] => puts.push(TxnOp::put(first_piece, *piece, None)),
            // Whoever sweeps up takes all pieces of an attempt at once: when the first is there, all are.
            _ => compares.push(Compare::create_revision(first_piece, CompareOp::Greater, 0)),
        }
        let (audit, entry) = self.audit_entry(Log::Done, commit.audit)?;
        puts.push(TxnOp::put(audit.clone(), entry, None));
        puts.push(TxnOp::put(self.keys.won(revision), encode("winner", &winner)?, None));
        puts.push(TxnOp::put(head.clone(), revision.to_string(), None));
        let otherwise = [TxnOp::get(audit, None), TxnOp::get(head.clone(), None)];
        let txn = Txn::new().when(compares).and_then(puts).or_else(otherwise);
        let answer = self.transact("commit", txn).await?;
        // A try before this one may have done it: then its audit entry is there.
        if answer.succeeded() || first(&answer).is_some() {
            return Ok(());
        }
        let have = match second(&answer) {
            Some(found) => number(&head, found.value())?,
            None => 0,
        };
        if have + 1 == revision && !commit.records.is_empty() {
            return Err(self.raced(commit.records).await?);
        }
        Err(StoreError::Conflict { have, got: revision })
    }

    async fn put(&self, doing: &'static str, key: String, value: Vec<u8>) -> Result<(), StoreError> {
        let work = |client: etcd_client::Client| {
            let (key, value) = (key.clone(), value.clone());
            async move { client.kv_client().put(key, value, None).await }
        };
        self.members.call(doing, PATIENCE, work).await.map(drop)
    }

    /// Writes the state as a base and makes it current in one transaction that takes all that came before away. History
    /// follows, and records that are too many for the transaction: whoever is cut short there begins again.
    async fn write_replacement(&self, replacement: &Replacement<'_>) -> Result<(), StoreError> {
        let Replacement { before, state, revision, history, audit, .. } = *replacement;
        let attempt = self.attempt();
        let (base, base_pieces) = self.write_base_pieces(state, &attempt).await?;
        let step = Step::empty(revision, state.counters).map_err(damaged)?;
        let (key, entry) = self.audit_entry(Log::Done, audit)?;
        let head = self.keys.head();
        let guard = match before {
            0 => Compare::create_revision(head.clone(), CompareOp::Equal, 0),
            before => Compare::value(head.clone(), CompareOp::Equal, before.to_string()),
        };
        let mut records = self.replaced_records(replacement).await?;
        let later = records.split_off(records.len().min(RECORDS));
        let mut puts = records;
        puts.extend([
            delete((self.keys.won(0), self.keys.won(revision.revision))),
            delete(self.keys.pieces_between(0, revision.revision.saturating_sub(1))),
            TxnOp::put(self.keys.piece(revision.revision, &attempt, 0), step.clone(), None),
            TxnOp::put(
                self.keys.won(revision.revision),
                encode("winner", &Winner::of(revision.revision, &attempt, &step))?,
                None,
            ),
            TxnOp::put(self.keys.base(), encode("the base", &base)?, None),
            TxnOp::put(key.clone(), entry, None),
            TxnOp::put(head.clone(), revision.revision.to_string(), None),
        ]);
        puts.extend(replacement.tables.iter().map(|table| self.table_changes(table.as_str())));
        let txn = Txn::new()
            .when([guard])
            .and_then(puts)
            .or_else([TxnOp::get(key, None), TxnOp::get(head.clone(), None)]);
        let answer = self.transact("restore", txn).await?;
        if !answer.succeeded() && first(&answer).is_none() {
            let have = second(&answer).map_or(Ok(0), |found| number(&head, found.value()))?;
            return Err(StoreError::Conflict { have, got: revision.revision });
        }
        for part in later.chunks(RECORDS) {
            self.transact("restore records", Txn::new().and_then(part)).await?;
        }
        for earlier in history {
            let step = Step::empty(earlier, Counters::default()).map_err(damaged)?;
            self.write_pieces(earlier.revision, &attempt, &step).await?;
            let mut puts = Vec::new();
            if let [piece] = cut(&step).as_slice() {
                puts.push(TxnOp::put(self.keys.piece(earlier.revision, &attempt, 0), *piece, None));
            }
            let winner = Winner::of(earlier.revision, &attempt, &step);
            puts.push(TxnOp::put(self.keys.won(earlier.revision), encode("winner", &winner)?, None));
            self.transact("restore history", Txn::new().and_then(puts)).await?;
        }
        if !later.is_empty() {
            let tell = replacement.tables.iter().map(|table| self.table_changes(table.as_str()));
            self.transact("restore records", Txn::new().and_then(tell.collect::<Vec<_>>())).await?;
        }
        log::info!("restored in {base_pieces} pieces");
        Ok(())
    }

    /// What makes the records of the replaced tables those of the replacement.
    async fn replaced_records(&self, replacement: &Replacement<'_>) -> Result<Vec<TxnOp>, StoreError> {
        let mut wanted: BTreeMap<String, &str> = BTreeMap::new();
        for (table, key, text) in replacement.records {
            wanted.insert(self.keys.record(table.as_str(), key), text);
        }
        let mut operations = Vec::new();
        for table in replacement.tables {
            let span = self.keys.records(table.as_str());
            for (key, _) in self.range("read records", span, usize::MAX, Read::Keys).await? {
                if !wanted.contains_key(&key) {
                    operations.push(TxnOp::delete(key, None));
                }
            }
        }
        operations.extend(wanted.into_iter().map(|(key, text)| TxnOp::put(key, text, None)));
        Ok(operations)
    }

    /// Tells other managers that a table of records is not as it was.
    fn table_changes(&self, table: &str) -> TxnOp {
        TxnOp::put(self.keys.table_changed(table), self.attempt(), None)
    }

    async fn write_records(&self, changes: &[RecordChange], audit: &AuditEntry) -> Result<(), StoreError> {
        let (compares, mut puts) = self.record_changes(changes);
        let (key, entry) = self.audit_entry(Log::Done, audit)?;
        puts.push(TxnOp::put(key.clone(), entry, None));
        let txn = Txn::new().when(compares).and_then(puts).or_else([TxnOp::get(key, None)]);
        let answer = self.transact("change records", txn).await?;
        if answer.succeeded() || first(&answer).is_some() { Ok(()) } else { Err(self.raced(changes).await?) }
    }

    async fn read_audit(&self, before: Option<u64>, most: usize) -> Result<Vec<AuditEntry>, StoreError> {
        let mut entries: Vec<AuditEntry> = Vec::new();
        for log in [Log::Done, Log::Refused] {
            for (key, value) in
                self.range("read the audit log", self.keys.audits(log, before), most, Read::Values).await?
            {
                entries.push(decode(&key, &value)?);
            }
        }
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.id));
        entries.truncate(most);
        Ok(entries)
    }
}

impl Store for Etcd {
    fn load(&self) -> Result<State, StoreError> {
        self.wait(self.read())
    }

    fn catch_up(&self, state: &State) -> Result<Option<State>, StoreError> {
        self.wait(async {
            let head = self.head().await?;
            if head == state.revision {
                return Ok(None);
            }
            if head < state.revision {
                return Err(StoreError::WentBack { from: state.revision, to: head });
            }
            let mut next = state.clone();
            if !self.advance(&mut next, head).await? {
                next = self.read().await?;
            }
            Ok(Some(next))
        })
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn cut_off(&self) -> Option<SystemTime> {
        *self.cut_off.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn commit(&self, commit: &Commit<'_>) -> Result<(), StoreError> {
        self.wait(self.write(commit))
    }

    fn replace(&self, replacement: &Replacement<'_>) -> Result<(), StoreError> {
        self.wait(self.write_replacement(replacement))
    }

    fn revision(&self, number: u64) -> Result<Option<Revision>, StoreError> {
        let steps = self.wait(self.steps(number, number, 1))?;
        Ok(steps.into_iter().next().map(|step| step.revision))
    }

    fn revisions_after(&self, number: u64, most: usize) -> Result<Vec<Revision>, StoreError> {
        let steps = self.wait(self.steps(number.saturating_add(1), u64::MAX, most))?;
        Ok(steps.into_iter().map(|step| step.revision).collect())
    }

    fn oldest_revision(&self) -> Result<Option<u64>, StoreError> {
        let span = self.keys.won_between(0, u64::MAX);
        let found = self.wait(self.range("read the oldest revision", span, 1, Read::Keys))?;
        Ok(found.first().and_then(|(key, _)| revision_of(key)))
    }

    fn records(&self, table: Table) -> Result<Vec<(String, String)>, StoreError> {
        let span = self.keys.records(table.as_str());
        let skip = span.0.len();
        let found = self.wait(self.range("read records", span, usize::MAX, Read::Values))?;
        found
            .into_iter()
            .map(|(key, value)| match String::from_utf8(value) {
                Ok(text) => Ok((key.get(skip..).unwrap_or_default().to_owned(), text)),
                Err(_) => Err(StoreError::Foreign { key }),
            })
            .collect()
    }

    fn change_records(&self, changes: &[RecordChange], audit: &AuditEntry) -> Result<(), StoreError> {
        self.wait(self.write_records(changes, audit))
    }

    fn refused(&self, audit: &AuditEntry) -> Result<(), StoreError> {
        let (key, entry) = self.audit_entry(Log::Refused, audit)?;
        self.wait(self.put("write an audit entry", key, entry))
    }

    fn audit(&self, before: Option<u64>, most: usize) -> Result<Vec<AuditEntry>, StoreError> {
        self.wait(self.read_audit(before, most))
    }
}

fn damaged(source: serde_json::Error) -> StoreError {
    StoreError::Damaged { what: "the backup".to_owned(), source }
}

/// Deletes all keys of a span.
fn delete(span: Span) -> TxnOp {
    TxnOp::delete(span.0, Some(DeleteOptions::new().with_range(span.1)))
}

fn raced(change: &RecordChange) -> StoreError {
    StoreError::Raced { table: change.table.as_str(), key: change.key.clone() }
}

/// The first value that the first, or the second, operation of a transaction read.
fn first(answer: &etcd_client::TxnResponse) -> Option<KeyValue> {
    read_by(answer, 0)
}

fn second(answer: &etcd_client::TxnResponse) -> Option<KeyValue> {
    read_by(answer, 1)
}

fn read_by(answer: &etcd_client::TxnResponse, place: usize) -> Option<KeyValue> {
    match answer.op_responses().get(place) {
        Some(TxnOpResponse::Get(found)) => found.kvs().first().cloned(),
        _ => None,
    }
}

fn key_text(pair: &KeyValue) -> Result<String, StoreError> {
    let foreign = |_| StoreError::Foreign { key: String::from_utf8_lossy(pair.key()).into_owned() };
    pair.key_str().map(str::to_owned).map_err(foreign)
}

fn text(pair: &KeyValue) -> Result<String, StoreError> {
    let key = key_text(pair)?;
    pair.value_str().map(str::to_owned).map_err(|_| StoreError::Foreign { key })
}

fn number(key: &str, value: &[u8]) -> Result<u64, StoreError> {
    let text = std::str::from_utf8(value).ok();
    text.and_then(|text| text.parse().ok()).ok_or_else(|| StoreError::Foreign { key: key.to_owned() })
}

fn encode<T: serde::Serialize>(what: &str, value: &T) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(value).map_err(|source| StoreError::Damaged { what: what.to_owned(), source })
}

fn decode<T: serde::de::DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(bytes).map_err(|source| StoreError::Damaged { what: what.to_owned(), source })
}
