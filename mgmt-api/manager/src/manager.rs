//! The manager without its network: state, store, records and audit log under one roof.
//!
//! `access` has users and tokens, `mesh` the joining of hosts, `trust` the authorities.
//!
//! Methods that write block on the disk; the API calls them from threads that may block.

mod access;
mod mesh;
mod trust;

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

use mgmt_types::agent::{GENEVE_PORT, HostStatus, Underlay};
use mgmt_types::{
    Applied, AuditEntry, BASELINE, Change, FirewallPolicy, Host, HostSpec, Kind, Labels, MAX_UNDERLAY,
    ManagerList, ManagerReport, ManagerRole, Mistake, Outcome, Problem, ProblemKind, Realised, Resource,
    Revision, StoreKind, is_underlay_address,
};
use tokio::sync::watch;

use crate::authority::{AuthorityError, StoredAuthority, Trust};
use crate::board::Board;
use crate::colleagues::Colleagues;
use crate::document;
use crate::join_token::JoinRefusal;
use crate::limiter::Limiter;
use crate::moves::Moves;
use crate::records::Records;
use crate::seal::Seal;
use crate::state::State;
use crate::store::{Commit, RecordChange, Store, StoreError, Table};
use crate::token::Caller;
use crate::transaction::{self, Note, Wish};

pub(crate) use mesh::CertificateRefusal;

pub(crate) struct Manager {
    store: Arc<dyn Store>,
    current: watch::Sender<Arc<State>>,
    /// Held from reading the state a transaction begins with until the next one is on disk.
    writing: Mutex<()>,
    pub(crate) board: Board,
    pub(crate) colleagues: Colleagues,
    pub(crate) records: Records,
    /// Who is trusted now.
    trust: watch::Sender<Arc<Trust>>,
    /// Opens the keys of authorities.
    seal: Seal,
    /// URLs of managers that hosts are told.
    advertised: Vec<String>,
    /// Tells of every change of enrolments.
    enrolled: watch::Sender<u64>,
    limiter: Mutex<Limiter>,
    moves: Mutex<Moves>,
    pub(crate) numbers: Numbers,
}

/// What `/metrics` counts since the start.
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    pub(crate) connections: AtomicU64,
    pub(crate) connections_refused: AtomicU64,
    pub(crate) handshakes_failed: AtomicU64,
    /// Answers by hundreds of the status: 2xx, 3xx, 4xx, 5xx.
    pub(crate) answers: [AtomicU64; 4],
    pub(crate) refusals: AtomicU64,
    /// Machines that became hosts.
    pub(crate) joins: AtomicU64,
    /// Machines that did not, by [`JoinRefusal::ALL`].
    pub(crate) join_refusals: [AtomicU64; JoinRefusal::ALL.len()],
    /// Certificates that hosts got, the first included.
    pub(crate) certificates: AtomicU64,
    /// Requests with a certificate that proves nothing, by [`mesh::CertificateRefusal::ALL`].
    pub(crate) certificate_refusals: [AtomicU64; CertificateRefusal::ALL.len()],
    pub(crate) refusals_unwritten: AtomicU64,
}

/// Who asks for what, for the audit log.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) caller: Option<Caller>,
    pub(crate) peer: Option<IpAddr>,
    /// Method and path.
    pub(crate) action: String,
}

/// Most outcomes an audit entry lists; the revision lists all.
const AUDIT_CHANGES: usize = 100;
/// Longest action an audit entry holds, in characters.
const AUDIT_ACTION: usize = 200;
/// Author of what the manager does by itself.
pub(crate) const MANAGER: &str = "manager";
/// How often a change is planned anew because another manager was faster.
const ATTEMPTS: usize = 16;

/// Why a manager cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Authority(#[from] AuthorityError),
}

impl Manager {
    /// Opens what the store has. `first` makes the authority of an installation that has none yet.
    pub(crate) fn open(
        store: Arc<dyn Store>,
        seal: Seal,
        advertised: Vec<String>,
        first: impl FnOnce(&Seal) -> Result<StoredAuthority, AuthorityError>,
    ) -> Result<Self, OpenError> {
        let state = store.load()?;
        let records = Records::load(&*store)?;
        let trusted = trust::first_trust(&*store, &records, &seal, first)?;
        let manager = Self {
            store,
            current: watch::Sender::new(Arc::new(state)),
            writing: Mutex::new(()),
            board: Board::default(),
            colleagues: Colleagues::default(),
            records,
            trust: watch::Sender::new(Arc::new(trusted)),
            seal,
            advertised,
            enrolled: watch::Sender::new(0),
            limiter: Mutex::new(Limiter::new(Instant::now())),
            moves: Mutex::default(),
            numbers: Numbers::default(),
        };
        manager.fold_tokens()?;
        Ok(manager)
    }

    /// The newest state.
    pub(crate) fn state(&self) -> Arc<State> {
        Arc::clone(&self.current.borrow())
    }

    /// Tells of every newer state; may skip some when there are many.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<State>> {
        self.current.subscribe()
    }

    /// What this manager is among those that share its store.
    pub(crate) fn managers(&self) -> ManagerList {
        let own = self.colleagues.own();
        let cut_off = self.store.cut_off();
        let (is_shared, leads) = (self.store.is_shared(), self.colleagues.leads());
        let role = match cut_off {
            Some(_) => ManagerRole::Disconnected,
            None if !is_shared => ManagerRole::Alone,
            None if leads => ManagerRole::Leader,
            None => ManagerRole::Follower,
        };
        let mut items = self.colleagues.list();
        if items.iter().all(|report| report.name != own.name) {
            items.insert(0, ManagerReport { leader: leads, ..own.clone() });
        }
        ManagerList {
            answering: own.name,
            store: if is_shared { StoreKind::Etcd } else { StoreKind::Redb },
            role,
            revision: self.state().revision,
            disconnected_since: cut_off.map(|since| humantime::format_rfc3339_seconds(since).to_string()),
            items,
        }
    }

    /// Whether this manager does what one alone must do.
    pub(crate) fn does_chores(&self) -> bool {
        !self.store.is_shared() || (self.colleagues.leads() && self.store.cut_off().is_none())
    }

    /// Takes in what others changed in the store.
    pub(crate) fn catch_up(&self) -> Result<(), StoreError> {
        let _writing = self.begin();
        self.advance()
    }

    pub(crate) fn store(&self) -> &dyn Store {
        &*self.store
    }

    /// The turn to write; held until the write is done.
    pub(crate) fn begin(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows a state that is in the store.
    pub(crate) fn publish(&self, state: State) {
        self.board.retain(&state);
        self.current.send_replace(Arc::new(state));
    }

    pub(crate) fn advance(&self) -> Result<(), StoreError> {
        if let Some(next) = self.store.catch_up(&self.state())? {
            self.publish(next);
        }
        Ok(())
    }

    /// Reads all records anew: another manager changed some.
    pub(crate) fn reload(&self) -> Result<(), StoreError> {
        let _writing = self.begin();
        self.reload_records()
    }

    /// Whether the keys of these authorities can be opened here.
    pub(crate) fn can_open(&self, authorities: Vec<StoredAuthority>) -> Result<(), AuthorityError> {
        Trust::open(authorities, &self.seal).map(drop)
    }

    /// Does one transaction. `wishes` are made from the state the transaction begins with; when another manager is
    /// faster, they are made and planned again from what it left.
    pub(crate) fn transact(
        &self,
        request: &Request,
        wishes: impl Fn(&State) -> Result<Vec<Wish>, Problem>,
    ) -> Result<Applied, Problem> {
        let _writing = self.begin();
        for _ in 0..ATTEMPTS {
            match self.attempt(request, &wishes)? {
                Ok(applied) => return Ok(applied),
                Err(conflict) => {
                    log::debug!("{conflict}");
                    if matches!(conflict, StoreError::Raced { .. }) {
                        self.reload_records().map_err(|error| refusal(&error))?;
                    }
                }
            }
            self.advance().map_err(|error| refusal(&error))?;
        }
        let detail = format!("other managers were faster {ATTEMPTS} times; try again");
        Err(Problem::new(ProblemKind::Busy, detail))
    }

    /// One try of a transaction; in good order with the conflict when somebody else wrote in between.
    fn attempt(
        &self,
        request: &Request,
        wishes: impl Fn(&State) -> Result<Vec<Wish>, Problem>,
    ) -> Result<Result<Applied, StoreError>, Problem> {
        let before = self.state();
        let wishes = wishes(&before)?;
        let plan = transaction::plan(&before, &wishes)?;
        let applied = Applied {
            revision: plan.state.revision,
            dry_run: false,
            results: plan.outcomes,
            flows: Vec::new(),
        };
        if plan.diffs.is_empty() {
            return Ok(Ok(applied));
        }
        let mut audit = self.entry(request, 200);
        audit.revision = Some(applied.revision);
        audit.detail = wishes.iter().find_map(|wish| match wish {
            Wish::Note(note) => Some(note.to_string()),
            Wish::Put(_) | Wish::Delete(_) => None,
        });
        let changed = applied.results.iter().filter(|outcome| outcome.change != Change::Unchanged);
        audit.changes = changed.take(AUDIT_CHANGES).cloned().collect();
        let revision = Revision {
            revision: applied.revision,
            time: audit.time.clone(),
            author: audit.author.clone().unwrap_or_else(|| MANAGER.to_owned()),
            changes: plan.diffs,
            hosts: plan.hosts,
        };
        let records = self.withdrawals(&plan.removals).map_err(|error| internal(&error))?;
        let written = self.store.commit(&Commit {
            revision: &revision,
            puts: &plan.puts,
            removals: &plan.removals,
            identities: &plan.identities,
            counters: plan.state.counters,
            records: &records,
            audit: &audit,
        });
        match written {
            Ok(()) => {}
            Err(conflict @ (StoreError::Conflict { .. } | StoreError::Raced { .. })) => {
                return Ok(Err(conflict));
            }
            Err(error) => return Err(refusal(&error)),
        }
        self.take(&records).map_err(|error| internal(&error))?;
        self.publish(plan.state);
        Ok(Ok(applied))
    }

    /// What a transaction would come to: the state after it, and the hosts that would have something to do.
    pub(crate) fn foresee(
        &self,
        wishes: impl FnOnce(&State) -> Result<Vec<Wish>, Problem>,
    ) -> Result<(Applied, Arc<State>, Vec<String>), Problem> {
        let before = self.state();
        let plan = transaction::plan(&before, &wishes(&before)?)?;
        let (revision, results) = (before.revision, plan.outcomes);
        let applied = Applied { revision, dry_run: true, results, flows: Vec::new() };
        Ok((applied, Arc::new(plan.state), plan.hosts))
    }

    /// Makes the policy `baseline` where there is none: at the first start, and in what an older version left.
    pub(crate) fn ensure_baseline(&self) -> Result<(), Problem> {
        if self.state().policies.contains_key(BASELINE) {
            return Ok(());
        }
        let resource = Resource::FirewallPolicy(FirewallPolicy::baseline());
        let value = serde_json::to_value(&resource).map_err(|error| internal(&error))?;
        let declared = document::from_json(&value, Kind::FirewallPolicy, BASELINE)?;
        let request = Request { caller: None, peer: None, action: "make the policy baseline".to_owned() };
        self.transact(&request, |_| Ok(vec![Wish::Put(declared.clone())]))?;
        Ok(())
    }

    /// Declares a host that joined, with the labels that its token gave it. Nobody speaks for an external one.
    pub(crate) fn ensure_host(&self, request: &Request, host: &str) -> Result<(), Problem> {
        self.check_no_external(host)?;
        if self.state().hosts.contains_key(host) {
            return Ok(());
        }
        let enrolment = self.records.enrolments.get(host);
        let resource = Resource::Host(Host {
            name: host.to_owned(),
            labels: enrolment.map_or_else(Labels::new, |enrolment| enrolment.labels.clone()),
            spec: HostSpec::default(),
            status: None,
            revision: None,
        });
        let value = serde_json::to_value(&resource).map_err(|error| internal(&error))?;
        let declared = document::from_json(&value, Kind::Host, host)?;
        self.transact(request, |state| {
            let known = state.hosts.contains_key(host);
            Ok(if known { Vec::new() } else { vec![Wish::Put(declared.clone())] })
        })?;
        Ok(())
    }

    /// Nobody speaks for a host that is declared as external.
    fn check_no_external(&self, host: &str) -> Result<(), Problem> {
        match self.state().hosts.get(host) {
            Some(entry) if !entry.resource.spec.kind.is_agent() => {
                let mistake = Mistake::new("host", host, "the name of a host that runs an agent")
                    .detail("the host is declared as external: no agent speaks for it");
                Err(Problem::of(ProblemKind::Invalid, vec![mistake]))
            }
            _ => Ok(()),
        }
    }

    /// Takes what a host says about where others reach it into the state, when that is new and no other host has one of
    /// the addresses; the host's status says so then.
    pub(crate) fn hear(&self, request: &Request, status: &HostStatus) -> Result<(), Problem> {
        let state = self.state();
        let (Some(told), Some(entry)) = (&status.underlay, state.hosts.get(&status.host)) else {
            return Ok(());
        };
        let told = sane(told);
        if entry.announced.as_ref() == Some(&told) {
            return Ok(());
        }
        let note = Note::Underlay { host: status.host.clone(), told };
        match self.transact(request, |_| Ok(vec![Wish::Note(note.clone())])) {
            Err(problem) if !problem.is(ProblemKind::Invalid) => Err(problem),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Ends moves that began long enough ago: the old host needs to pass nothing on any more.
    pub(crate) fn settle_moves(&self, now: Instant) -> Result<(), Problem> {
        let over = {
            let mut moves = self.moves.lock().unwrap_or_else(PoisonError::into_inner);
            moves.look(&self.state(), now)
        };
        if over.is_empty() {
            return Ok(());
        }
        let request = Request { caller: None, peer: None, action: "end moves of workloads".to_owned() };
        let notes: Vec<Wish> =
            over.into_iter().map(|workload| Wish::Note(Note::Settled { workload })).collect();
        self.transact(&request, |_| Ok(notes.clone())).map(drop)
    }

    /// Changes records as `plan` says; when another manager was faster it is asked again, with what that one made.
    fn change<T>(
        &self,
        request: &Request,
        status: u16,
        plan: impl Fn(&Records, &mut AuditEntry) -> Result<(Vec<RecordChange>, T), Problem>,
    ) -> Result<T, Problem> {
        let _writing = self.begin();
        for _ in 0..ATTEMPTS {
            let mut audit = self.entry(request, status);
            let (changes, value) = plan(&self.records, &mut audit)?;
            match self.store.change_records(&changes, &audit) {
                Ok(()) => {
                    self.take(&changes).map_err(|error| internal(&error))?;
                    return Ok(value);
                }
                Err(StoreError::Raced { .. }) => self.reload_records().map_err(|error| refusal(&error))?,
                Err(error) => return Err(refusal(&error)),
            }
        }
        Err(Problem::new(ProblemKind::Busy, format!("{ATTEMPTS} times another manager was faster")))
    }

    /// Reads all records again: another manager changed some.
    pub(crate) fn reload_records(&self) -> Result<(), StoreError> {
        self.records.reload(&*self.store)?;
        self.enrolled.send_modify(|count| *count += 1);
        self.trust_anew();
        Ok(())
    }

    /// Takes over records that the store took.
    fn take(&self, changes: &[RecordChange]) -> Result<(), StoreError> {
        self.records.take(changes)?;
        if changes.iter().any(|change| change.table == Table::Enrolments) {
            self.enrolled.send_modify(|count| *count += 1);
        }
        if changes.iter().any(|change| change.table == Table::Authorities) {
            self.trust_anew();
        }
        Ok(())
    }

    /// Notes that a request was refused for want of a token or a right; blocks on the disk when it is written.
    pub(crate) fn refused(&self, request: &Request, status: u16, detail: &str, now: Instant) {
        self.numbers.refusals.fetch_add(1, Ordering::Relaxed);
        let from = request.peer.unwrap_or(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED));
        let admitted = self.limiter.lock().unwrap_or_else(PoisonError::into_inner).admit(from, now);
        let Some(suppressed) = admitted else {
            self.numbers.refusals_unwritten.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let mut audit = self.entry(request, status);
        audit.detail = Some(detail.chars().take(AUDIT_ACTION).collect());
        audit.suppressed = suppressed;
        log::warn!("refused with {status}: {} from {from} ({suppressed} more not logged)", audit.action);
        if let Err(error) = self.store.refused(&audit) {
            log::error!("the audit log cannot be written: {error}");
        }
    }

    pub(crate) fn audit(&self, before: Option<u64>, most: usize) -> Result<Vec<AuditEntry>, Problem> {
        self.store.audit(before, most).map_err(|error| refusal(&error))
    }

    /// One revision.
    pub(crate) fn revision(&self, number: u64) -> Result<Revision, Problem> {
        let newest = self.state().revision;
        if number == 0 || number > newest {
            let detail = format!("there is no revision {number}; there are 1 to {newest}");
            return Err(Problem::new(ProblemKind::NotFound, detail));
        }
        match self.store.revision(number).map_err(|error| refusal(&error))? {
            Some(revision) => Ok(revision),
            None => Err(self.gone(number)?),
        }
    }

    /// How far a revision has come.
    pub(crate) fn realised(&self, number: u64, now: SystemTime) -> Result<Realised, Problem> {
        let revision = self.revision(number)?;
        Ok(self.board.realised(&self.state(), &revision, now))
    }

    /// Revisions after `number`, oldest first, at most `most`.
    pub(crate) fn revisions_after(&self, number: u64, most: usize) -> Result<Vec<Revision>, Problem> {
        let revisions = self.store.revisions_after(number, most).map_err(|error| refusal(&error))?;
        match revisions.first() {
            Some(first) if first.revision > number.saturating_add(1) => Err(self.gone(number)?),
            _ => Ok(revisions),
        }
    }

    fn gone(&self, number: u64) -> Result<Problem, Problem> {
        let oldest = self.store.oldest_revision().map_err(|error| refusal(&error))?.unwrap_or(0);
        let detail =
            format!("what came right after revision {number} is no longer kept; the oldest kept is {oldest}");
        Ok(Problem::new(ProblemKind::Gone, detail))
    }

    pub(crate) fn entry(&self, request: &Request, status: u16) -> AuditEntry {
        AuditEntry {
            id: 0,
            time: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            author: request.caller.as_ref().map(|caller| caller.name.clone()),
            role: request.caller.as_ref().map(|caller| caller.role),
            peer: request.peer.map(|peer| peer.to_string()),
            action: request.action.chars().take(AUDIT_ACTION).collect(),
            status,
            revision: None,
            changes: Vec::<Outcome>::new(),
            detail: None,
            suppressed: 0,
        }
    }
}

/// Of what an agent says of its underlay, what can be.
fn sane(told: &Underlay) -> Underlay {
    let mut addresses = Vec::new();
    for address in &told.addresses {
        if is_underlay_address(*address) && !addresses.contains(address) && addresses.len() < MAX_UNDERLAY {
            addresses.push(*address);
        }
    }
    let port = if told.port == 0 { GENEVE_PORT } else { told.port };
    Underlay { addresses, port, mtu: told.mtu }
}

/// What a client is told when the store did not do it: what it can wait for in words, the rest is in the log.
pub(crate) fn refusal(error: &StoreError) -> Problem {
    let more = match error {
        StoreError::CutOff { .. } => "nothing was changed; what is known is served on",
        StoreError::Unreachable { .. } => "whether a change was made shows when it answers again",
        StoreError::Refused { .. } => "nothing was changed",
        _ => return internal(error),
    };
    log::warn!("{error}");
    Problem::new(ProblemKind::Store, format!("{error}; {more}"))
}

/// The client learns that something broke, the log what.
pub(crate) fn internal(error: &dyn std::fmt::Display) -> Problem {
    log::error!("{error}");
    Problem::new(ProblemKind::Internal, "the manager's log says what")
}
