//! What one manager does for all: it writes bases, lets history and audit log go that are too old or too many, and
//! sweeps up what crashed writers and hosts that are gone left behind.
//!
//! Every step is guarded by the leader's key, so that one who believes to lead still does no harm.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use etcd_client::{Compare, CompareOp, Txn, TxnOp};

use super::keys::{Log, attempt_of};
use super::pieces::{Whole, Winner, cut};
use super::{Etcd, Read, delete, encode};
use crate::manager::Manager;
use crate::store::StoreError;

/// Revisions after the base before a new one is written, and their bytes: what a start reads beyond the state itself.
const BASE_REVISIONS: u64 = 200;
const BASE_BYTES: u64 = 8 << 20;
/// How much history is kept: revisions, and bytes of all together. etcd's own limit is 2 GiB for everything.
const REVISIONS: usize = 10_000;
const REVISION_BYTES: u64 = 128 << 20;
/// How much of the audit log is kept.
const DONE: usize = 50_000;
const REFUSED: usize = 10_000;
/// How long pieces of an attempt at a revision to come may lie there: far longer than any commit takes.
const FORSAKEN: Duration = Duration::from_secs(60);
/// How long etcd keeps what was overwritten, for those who watch and read; afterwards it is compacted away.
const OVERWRITTEN: Duration = Duration::from_secs(300);
/// Every so many turns, what takes many reads is done.
const RARELY: u64 = 30;

/// What the leader remembers from turn to turn.
#[derive(Debug, Default)]
pub(super) struct Chores {
    turn: u64,
    /// Up to which revision there are no pieces of losers.
    swept: u64,
    /// Attempts at revisions to come, and when they were first seen.
    pending: HashMap<(u64, String), SystemTime>,
    /// etcd's own revision some time ago.
    earlier: Option<(SystemTime, i64)>,
}

impl Chores {
    pub(super) async fn run(
        &mut self,
        store: &Etcd,
        manager: &Arc<Manager>,
        now: SystemTime,
    ) -> Result<(), StoreError> {
        let newest = manager.state().revision;
        let base = store.write_base(manager).await?;
        self.sweep(store, newest, now).await?;
        if self.turn.is_multiple_of(RARELY) {
            store.trim_history(base).await?;
            store.trim_audit(Log::Done, DONE).await?;
            store.trim_audit(Log::Refused, REFUSED).await?;
        }
        store.forget_hosts(manager).await?;
        self.compact(store, now).await?;
        self.turn += 1;
        Ok(())
    }

    /// Removes pieces of attempts that lost, and of those that will never win because their writer is gone.
    async fn sweep(&mut self, store: &Etcd, newest: u64, now: SystemTime) -> Result<(), StoreError> {
        let from = self.swept + 1;
        let winners = store.winners(from, newest, usize::MAX).await?;
        let winners: HashSet<(u64, &str)> =
            winners.iter().map(|winner| (winner.revision, winner.attempt.as_str())).collect();
        let span = store.keys.pieces_between(from, u64::MAX);
        let keys = store.range("look for forsaken pieces", span, usize::MAX, Read::Keys).await?;
        let attempts: HashSet<(u64, &str)> = keys
            .iter()
            .filter_map(|(key, _)| attempt_of(key))
            .filter(|attempt| !winners.contains(attempt))
            .collect();
        let mut pending = HashMap::new();
        for (revision, attempt) in attempts {
            let key = (revision, attempt.to_owned());
            let seen = self.pending.get(&key).copied().unwrap_or(now);
            let is_old = now.duration_since(seen).is_ok_and(|age| age >= FORSAKEN);
            if revision <= newest || is_old {
                store.sweep_up(revision, attempt).await?;
            } else {
                pending.insert(key, seen);
            }
        }
        self.pending = pending;
        self.swept = newest;
        Ok(())
    }

    /// Lets etcd forget what was overwritten long ago; it would keep it for ever.
    async fn compact(&mut self, store: &Etcd, now: SystemTime) -> Result<(), StoreError> {
        let present = store.moment().await?;
        let Some((at, earlier)) = self.earlier else {
            self.earlier = Some((now, present));
            return Ok(());
        };
        if now.duration_since(at).is_ok_and(|age| age >= OVERWRITTEN) {
            store.forget_before(earlier).await?;
            self.earlier = Some((now, present));
        }
        Ok(())
    }
}

impl Etcd {
    /// Writes a new base when much has changed since the last one; the revision of the base that is current then.
    async fn write_base(&self, manager: &Manager) -> Result<u64, StoreError> {
        let state = manager.state();
        let old = self.base().await?;
        let since = old.as_ref().map_or(0, |base| base.revision);
        let winners = self.winners(since + 1, state.revision, usize::MAX).await?;
        let bytes: u64 = winners.iter().map(|winner| winner.bytes).sum();
        if state.revision.saturating_sub(since) < BASE_REVISIONS && bytes < BASE_BYTES {
            return Ok(since);
        }
        self.write_base_of(&state, old.as_ref()).await?;
        Ok(state.revision)
    }

    /// Writes a state as a base that is not current yet; the base, and in how many pieces it is.
    pub(super) async fn write_base_pieces(
        &self,
        state: &crate::state::State,
        attempt: &str,
    ) -> Result<(Winner, usize), StoreError> {
        let text = encode("the base", &Whole::of(state))?;
        let pieces = cut(&text);
        let count = pieces.len();
        for (piece, number) in pieces.into_iter().zip(0u32..) {
            let key = self.keys.base_piece(state.revision, attempt, number);
            self.put("write a piece of the base", key, piece.to_vec()).await?;
        }
        Ok((Winner::of(state.revision, attempt, &text), count))
    }

    /// Makes `state` the base in the place of `old`.
    async fn write_base_of(
        &self,
        state: &crate::state::State,
        old: Option<&Winner>,
    ) -> Result<(), StoreError> {
        let (base, _) = self.write_base_pieces(state, &self.attempt()).await?;
        self.lead(
            "make a base current",
            vec![TxnOp::put(self.keys.base(), encode("the base", &base)?, None)],
        )
        .await?;
        // Pieces of other bases; who reads the old one right now begins again.
        let own = self.keys.base_pieces(base.revision, &base.attempt);
        let all = self.keys.bases();
        let others = vec![delete((all.0, own.0)), delete((own.1, all.1))];
        self.lead("remove the base before", others).await?;
        if old.is_some() {
            log::debug!("the base is at revision {}", state.revision);
        }
        Ok(())
    }

    /// Removes the oldest revisions that are too many or too large, none that the base needs to be followed by.
    async fn trim_history(&self, base: u64) -> Result<(), StoreError> {
        let winners = self.winners(0, u64::MAX, usize::MAX).await?;
        let (mut count, mut bytes, mut cut) = (0usize, 0u64, None);
        for winner in winners.iter().rev() {
            count += 1;
            bytes = bytes.saturating_add(winner.bytes);
            if count > REVISIONS || bytes > REVISION_BYTES {
                cut = Some(winner.revision.min(base));
                break;
            }
        }
        match cut {
            Some(cut) => {
                let spans = [self.keys.won_between(0, cut), self.keys.pieces_between(0, cut)];
                self.lead("remove old revisions", spans.into_iter().map(delete).collect()).await
            }
            None => Ok(()),
        }
    }

    /// Removes the pieces of an attempt that did not win.
    pub(super) async fn sweep_up(&self, revision: u64, attempt: &str) -> Result<(), StoreError> {
        let won = self.get("read which attempt won", self.keys.won(revision)).await?;
        let guard = match &won {
            Some(value) if super::decode::<Winner>("winner", value)?.attempt == attempt => return Ok(()),
            Some(value) => Compare::value(self.keys.won(revision), CompareOp::Equal, value.clone()),
            None => Compare::create_revision(self.keys.won(revision), CompareOp::Equal, 0),
        };
        let doing = "sweep up pieces";
        let pieces = delete(self.keys.pieces(revision, attempt));
        let txn = Txn::new().when([self.leads(), guard]).and_then([pieces]);
        let answer = self.transact(doing, txn).await?;
        if answer.succeeded() { Ok(()) } else { Err(StoreError::NotLeading { doing }) }
    }

    async fn trim_audit(&self, log: Log, most: usize) -> Result<(), StoreError> {
        let all = self.keys.audits(log, None);
        let keys = self.range("count the audit log", all.clone(), most + 1, Read::Keys).await?;
        match keys.get(most) {
            Some((oldest, _)) => {
                self.lead("remove old audit entries", vec![delete((oldest.clone(), all.1))]).await
            }
            None => Ok(()),
        }
    }

    /// Removes what hosts said that are no longer declared.
    async fn forget_hosts(&self, manager: &Manager) -> Result<(), StoreError> {
        let span = self.keys.hosts();
        let skip = span.0.len();
        let keys = self.range("look for hosts that are gone", span, usize::MAX, Read::Keys).await?;
        let state = manager.state();
        let gone = keys.into_iter().map(|(key, _)| key);
        let gone = gone.filter(|key| !state.hosts.contains_key(key.get(skip..).unwrap_or_default()));
        let gone: Vec<TxnOp> = gone.take(100).map(|key| TxnOp::delete(key, None)).collect();
        if gone.is_empty() { Ok(()) } else { self.lead("forget hosts that are gone", gone).await }
    }

    /// Does operations that only the leader may do.
    async fn lead(&self, doing: &'static str, operations: Vec<TxnOp>) -> Result<(), StoreError> {
        let txn = Txn::new().when([self.leads()]).and_then(operations);
        let answer = self.transact(doing, txn).await?;
        if answer.succeeded() { Ok(()) } else { Err(StoreError::NotLeading { doing }) }
    }

    fn leads(&self) -> Compare {
        Compare::value(self.keys.leader(), CompareOp::Equal, self.name.as_str())
    }

    /// etcd's own revision.
    async fn moment(&self) -> Result<i64, StoreError> {
        let key = self.keys.head();
        let work = |client: etcd_client::Client| {
            let key = key.clone();
            async move { client.kv_client().get(key, None).await }
        };
        let answer = self.members.call("read etcd's revision", super::PATIENCE, work).await?;
        Ok(answer.header().map_or(0, etcd_client::ResponseHeader::revision))
    }

    async fn forget_before(&self, moment: i64) -> Result<(), StoreError> {
        let work = |client: etcd_client::Client| async move {
            match client.kv_client().compact(moment, None).await {
                Ok(_) => Ok(()),
                // Somebody else did it, up to a later moment.
                Err(error) if error.to_string().contains("required revision has been compacted") => Ok(()),
                Err(error) => Err(error),
            }
        };
        self.members.call("compact", super::PATIENCE, work).await
    }
}
