//! A manager among those that share the store: it shows that it lives, hears what others change, tells what its hosts
//! say, and does the chores while it is the leader.
//!
//! All of it hangs on one lease. While the cluster answers, the lease is kept alive; when it does not, others see this
//! manager go, and this one goes on with what it knows.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use etcd_client::{Compare, CompareOp, Error, EventType, PutOptions, Txn, TxnOp, WatchOptions};
use mgmt_types::ManagerReport;
use mgmt_types::agent::HostStatus;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::members::PATIENCE;
use super::{Etcd, chores, decode, encode, first, text};
use crate::manager::Manager;
use crate::store::{Store, StoreError, Table};

/// How long a manager that says nothing counts as alive, in seconds. etcd takes no less than about three elections.
const LIFE: i64 = 5;
/// How often it says something.
const BEAT: Duration = Duration::from_secs(1);
/// How long the cluster may be silent before writes are refused at once.
const SILENCE: Duration = Duration::from_secs(3);
/// The pause before a stream is begun anew, or something that failed is tried again.
const PAUSE: Duration = Duration::from_millis(300);
/// How often what hosts said is passed on.
const TELL: Duration = Duration::from_millis(200);
/// How often the leader looks for something to do.
const CHORES: Duration = Duration::from_secs(10);
/// Most operations in one transaction; etcd takes 128.
const OPERATIONS: usize = 64;
/// Most bytes in one transaction; etcd takes 1.5 MiB.
const BYTES: usize = 1 << 20;
/// Longest status of one host that is passed on, in bytes.
const STATUS: usize = 256 << 10;

/// What a host said, and to whom.
#[derive(Debug, Serialize, Deserialize)]
struct Said {
    /// Name of the manager it is connected to.
    manager: String,
    status: HostStatus,
}

struct Session {
    store: Arc<Etcd>,
    manager: Arc<Manager>,
    own: ManagerReport,
    lease: watch::Sender<Option<i64>>,
}

/// Takes part until `stopping` becomes true.
pub(crate) async fn attend(store: Arc<Etcd>, manager: Arc<Manager>, mut stopping: watch::Receiver<bool>) {
    let own = manager.colleagues.own();
    let session = Session { store, manager, own, lease: watch::Sender::new(None) };
    let work = async { tokio::join!(session.live(), session.follow(), session.tell(), session.serve()) };
    tokio::select! {
        _ = work => {}
        _ = stopping.wait_for(|stopping| *stopping) => {}
    }
    session.leave().await;
}

impl Session {
    /// Keeps the lease, and takes the lead when nobody has it.
    async fn live(&self) {
        let mut heard = SystemTime::now();
        loop {
            let lease = *self.lease.borrow();
            let done = async {
                let lease = match lease {
                    Some(lease) if self.stay(lease).await? => lease,
                    Some(_) | None => self.join().await?,
                };
                self.lead(lease).await?;
                Ok::<i64, StoreError>(lease)
            };
            match done.await {
                Ok(kept) => {
                    heard = SystemTime::now();
                    if self.store.cut_off().is_some() {
                        log::warn!("the store answers again");
                        self.store.set_cut_off(None);
                    }
                    if lease != Some(kept) {
                        self.lease.send_replace(Some(kept));
                    }
                    sleep(BEAT).await;
                }
                Err(error) => {
                    let silent = heard.elapsed().is_ok_and(|silent| silent > SILENCE);
                    if silent && self.store.cut_off().is_none() {
                        log::error!("{error}; changes are refused until the store answers");
                        self.store.set_cut_off(Some(heard));
                        self.manager.colleagues.lead(None);
                    }
                    sleep(PAUSE).await;
                }
            }
        }
    }

    /// Keeps the lease alive; false when it is gone.
    async fn stay(&self, lease: i64) -> Result<bool, StoreError> {
        let work = |client: etcd_client::Client| async move {
            match client.lease_client().keep_alive(lease).await {
                Ok(_) => Ok(true),
                Err(Error::LeaseKeepAliveError(_)) => Ok(false),
                Err(error) => Err(error),
            }
        };
        self.store.members.call("keep the lease", SILENCE, work).await
    }

    /// Takes a lease and shows who is there.
    async fn join(&self) -> Result<i64, StoreError> {
        let work = |client: etcd_client::Client| async move { client.lease_client().grant(LIFE, None).await };
        let lease = self.store.members.call("take a lease", SILENCE, work).await?.id();
        let key = self.store.keys.manager(&self.own.name);
        let value = encode("manager", &self.own)?;
        let shown = Txn::new().and_then([TxnOp::put(key, value, leased(lease))]);
        self.store.transact_within(SILENCE, "show that the manager is there", shown).await?;
        // What was told under a lease before is gone with it.
        self.manager.board.forget_told();
        Ok(lease)
    }

    /// Becomes the leader when there is none.
    async fn lead(&self, lease: i64) -> Result<(), StoreError> {
        let key = self.store.keys.leader();
        let txn = Txn::new()
            .when([Compare::create_revision(key.clone(), CompareOp::Equal, 0)])
            .and_then([TxnOp::put(key.clone(), self.own.name.as_str(), leased(lease))])
            .or_else([TxnOp::get(key, None)]);
        let answer = self.store.transact_within(SILENCE, "take the lead", txn).await?;
        let leader = match first(&answer) {
            Some(found) => text(&found)?,
            None => self.own.name.clone(),
        };
        self.manager.colleagues.lead(Some(leader));
        Ok(())
    }

    /// Gives the lease back, so that others need not wait for its end.
    async fn leave(&self) {
        let Some(lease) = *self.lease.borrow() else { return };
        let work = |client: etcd_client::Client| async move { client.lease_client().revoke(lease).await };
        if let Err(error) = self.store.members.call("give the lease back", BEAT, work).await {
            log::info!("{error}");
        }
    }

    /// Hears what others do, for ever.
    async fn follow(&self) {
        loop {
            match self.everything().await {
                Ok(mut moment) => {
                    while let Err(why) = self.events(&mut moment).await {
                        log::debug!("etcd: the watch ended: {why}");
                        self.store.members.next();
                        sleep(PAUSE).await;
                    }
                    // What came after the last event is no longer kept: begin with everything again.
                }
                Err(error) => {
                    log::debug!("{error}");
                    sleep(PAUSE).await;
                }
            }
        }
    }

    /// Takes in all that is live; the moment it is from.
    async fn everything(&self) -> Result<i64, StoreError> {
        let key = self.store.keys.head();
        let work = |client: etcd_client::Client| {
            let key = key.clone();
            async move { client.kv_client().get(key, None).await }
        };
        let answer = self.store.members.call("read the newest revision", PATIENCE, work).await?;
        let moment = answer.header().map_or(0, etcd_client::ResponseHeader::revision);
        let live = self
            .store
            .range("read what is live", self.store.keys.all_live(), usize::MAX, super::Read::Values)
            .await?;
        let mut news = News { head: true, records: true };
        self.manager.colleagues.clear();
        for (key, value) in live {
            self.hear(&key, Some(&value), &mut news);
        }
        self.take_in(&mut news).await?;
        Ok(moment)
    }

    /// Takes in events after `moment` and moves it on; ends well when what came after it is no longer kept.
    async fn events(&self, moment: &mut i64) -> Result<(), StoreError> {
        let broken = |member: &str, why: String| StoreError::Unreachable {
            doing: "watch",
            member: member.to_owned(),
            why,
        };
        let Some((member, client)) = self.store.members.preferred() else {
            return Err(broken("", "no member is named".to_owned()));
        };
        let (key, end) = self.store.keys.all_live();
        let options = WatchOptions::new().with_range(end).with_start_revision(*moment + 1);
        let mut watcher = client.watch_client().max_decoding_message_size(super::members::MAX_ANSWER);
        let mut stream = match timeout(BEAT, watcher.watch(key, Some(options))).await {
            Ok(stream) => stream.map_err(|error| broken(member, error.to_string()))?,
            Err(_) => return Err(broken(member, format!("no answer within {BEAT:?}"))),
        };
        let mut news = News::default();
        loop {
            let message = tokio::select! {
                message = stream.message() => message.map_err(|error| broken(member, error.to_string()))?,
                () = sleep(PAUSE), if !news.is_empty() => {
                    self.take_in(&mut news).await?;
                    continue;
                }
            };
            let Some(message) = message else { return Err(broken(member, "the stream ended".to_owned())) };
            if message.canceled() {
                if message.compact_revision() > 0 {
                    return Ok(());
                }
                return Err(broken(member, message.cancel_reason().to_owned()));
            }
            for event in message.events() {
                let Some(pair) = event.kv() else { continue };
                let value = (event.event_type() == EventType::Put).then(|| pair.value());
                self.hear(&super::key_text(pair)?, value, &mut news);
            }
            if let Some(header) = message.header() {
                *moment = header.revision().max(*moment);
            }
            self.take_in(&mut news).await?;
        }
    }

    /// Takes in one live key; what needs the store is left in `news`.
    fn hear(&self, key: &str, value: Option<&[u8]>, news: &mut News) {
        let keys = &self.store.keys;
        let below = |span: super::Span| key.strip_prefix(span.0.as_str()).map(str::to_owned);
        if key == keys.head() {
            news.head = true;
        } else if key == keys.leader() {
            let leader = value.and_then(|name| std::str::from_utf8(name).ok()).map(str::to_owned);
            self.manager.colleagues.lead(leader);
        } else if let Some(name) = below(keys.managers()) {
            let report = value.and_then(|value| readable::<ManagerReport>(key, value));
            self.manager.colleagues.hear(name, report);
        } else if below(keys.hosts()).is_some() {
            // When a manager goes, what its hosts said last stays known, and grows old.
            let Some(said) = value.and_then(|value| readable::<Said>(key, value)) else { return };
            if said.manager != self.own.name {
                self.manager.board.hear(&self.manager.state(), said.status, said.manager, SystemTime::now());
            }
        } else if Table::ALL.into_iter().any(|table| key == keys.table_changed(table.as_str())) {
            news.records = true;
        }
    }

    /// Reads what the store has to say about the news; they stay when it does not answer.
    async fn take_in(&self, news: &mut News) -> Result<(), StoreError> {
        if news.is_empty() {
            return Ok(());
        }
        let News { head, records } = *news;
        let manager = Arc::clone(&self.manager);
        let work = move || -> Result<(), StoreError> {
            if records {
                manager.reload()?;
            }
            if head { manager.catch_up() } else { Ok(()) }
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(Ok(())) => *news = News::default(),
            Ok(Err(error @ StoreError::WentBack { .. })) => log::error!("{error}"),
            Ok(Err(error)) => log::debug!("{error}"),
            Err(error) => log::error!("a change of others cannot be taken in: {error}"),
        }
        Ok(())
    }

    /// Passes on what this manager's hosts say, for ever.
    async fn tell(&self) {
        loop {
            sleep(TELL).await;
            let Some(lease) = *self.lease.borrow() else { continue };
            if self.store.cut_off().is_some() {
                continue;
            }
            let mut untold = self.manager.board.untold(SystemTime::now());
            while !untold.is_empty() {
                match self.pass_on(lease, &mut untold).await {
                    Ok(told) => self.manager.board.told(&told, SystemTime::now()),
                    Err(error) => {
                        log::debug!("{error}");
                        break;
                    }
                }
            }
        }
    }

    /// Passes on as much as fits into one transaction, and takes it off the list.
    async fn pass_on(&self, lease: i64, untold: &mut Vec<HostStatus>) -> Result<Vec<String>, StoreError> {
        let (mut puts, mut told, mut bytes) = (Vec::new(), Vec::new(), 0);
        while let Some(status) = untold.pop() {
            let host = status.host.clone();
            let value =
                encode("status", &Said { manager: self.own.name.clone(), status: shortened(status)? })?;
            bytes += value.len();
            puts.push(TxnOp::put(self.store.keys.host(&host), value, leased(lease)));
            told.push(host);
            if puts.len() >= OPERATIONS || bytes + STATUS > BYTES {
                break;
            }
        }
        self.store.transact_within(SILENCE, "tell what hosts say", Txn::new().and_then(puts)).await?;
        Ok(told)
    }

    /// Does what one alone has to do, whenever this manager is the leader.
    async fn serve(&self) {
        let mut chores = chores::Chores::default();
        loop {
            sleep(CHORES).await;
            if self.manager.colleagues.leads()
                && self.store.cut_off().is_none()
                && let Err(error) = chores.run(&self.store, &self.manager, SystemTime::now()).await
            {
                log::warn!("a chore of the store was not done: {error}");
            }
        }
    }
}

/// What has to be read anew.
#[derive(Debug, Default)]
struct News {
    head: bool,
    records: bool,
}

impl News {
    fn is_empty(&self) -> bool {
        !self.head && !self.records
    }
}

fn leased(lease: i64) -> Option<PutOptions> {
    Some(PutOptions::new().with_lease(lease))
}

fn readable<T: serde::de::DeserializeOwned>(key: &str, value: &[u8]) -> Option<T> {
    match decode(key, value) {
        Ok(read) => Some(read),
        Err(error) => {
            log::warn!("{error}");
            None
        }
    }
}

/// A status in bounded size: first what rules counted is left out, then what ports say in detail, then ports.
fn shortened(mut status: HostStatus) -> Result<HostStatus, StoreError> {
    for step in 0.. {
        if encode("status", &status)?.len() <= STATUS {
            break;
        }
        match step {
            0 => status.rules.clear(),
            1 => status.ports.iter_mut().for_each(|port| {
                port.details.clear();
                port.drops.clear();
                port.faults.truncate(1);
            }),
            _ => status.ports.truncate(status.ports.len() / 2),
        }
    }
    Ok(status)
}
