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
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use mgmt_types::agent::{GENEVE_PORT, HostStatus, Underlay};
use mgmt_types::{
    Applied, AuditEntry, BASELINE, Change, FirewallPolicy, Host, HostSpec, Kind, Labels, MAX_UNDERLAY,
    Mistake, Outcome, Problem, ProblemKind, Realised, Resource, Revision, is_underlay_address,
};
use tokio::sync::watch;

use crate::authority::{AuthorityError, StoredAuthority, Trust};
use crate::board::Board;
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
    store: Box<dyn Store>,
    current: watch::Sender<Arc<State>>,
    /// Held from reading the state a transaction begins with until the next one is on disk.
    writing: Mutex<()>,
    pub(crate) board: Board,
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
const MANAGER: &str = "manager";
/// How often a change of records is planned anew because another manager was faster.
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
        store: Box<dyn Store>,
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

    /// Does one transaction. `wishes` are made from the state the transaction begins with.
    pub(crate) fn transact(
        &self,
        request: &Request,
        wishes: impl FnOnce(&State) -> Result<Vec<Wish>, Problem>,
    ) -> Result<Applied, Problem> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
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
            return Ok(applied);
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
        self.store
            .commit(&Commit {
                revision: &revision,
                puts: &plan.puts,
                removals: &plan.removals,
                identities: &plan.identities,
                counters: plan.state.counters,
                records: &records,
                audit: &audit,
            })
            .map_err(|error| internal(&error))?;
        self.take(&records).map_err(|error| internal(&error))?;
        self.board.retain(&plan.state);
        self.current.send_replace(Arc::new(plan.state));
        Ok(applied)
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
        self.transact(&request, |_| Ok(vec![Wish::Put(declared)]))?;
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
            Ok(if known { Vec::new() } else { vec![Wish::Put(declared)] })
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
        match self.transact(request, |_| Ok(vec![Wish::Note(note)])) {
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
        let notes = over.into_iter().map(|workload| Wish::Note(Note::Settled { workload }));
        self.transact(&request, |_| Ok(notes.collect())).map(drop)
    }

    /// Changes records as `plan` says; when another manager was faster it is asked again, with what that one made.
    fn change<T>(
        &self,
        request: &Request,
        status: u16,
        plan: impl Fn(&Records, &mut AuditEntry) -> Result<(Vec<RecordChange>, T), Problem>,
    ) -> Result<T, Problem> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..ATTEMPTS {
            let mut audit = self.entry(request, status);
            let (changes, value) = plan(&self.records, &mut audit)?;
            match self.store.change_records(&changes, &audit) {
                Ok(()) => {
                    self.take(&changes).map_err(|error| internal(&error))?;
                    return Ok(value);
                }
                Err(StoreError::Raced { .. }) => {
                    self.reload_records().map_err(|error| internal(&error))?;
                }
                Err(error) => return Err(internal(&error)),
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
        self.store.audit(before, most).map_err(|error| internal(&error))
    }

    /// One revision.
    pub(crate) fn revision(&self, number: u64) -> Result<Revision, Problem> {
        let newest = self.state().revision;
        if number == 0 || number > newest {
            let detail = format!("there is no revision {number}; there are 1 to {newest}");
            return Err(Problem::new(ProblemKind::NotFound, detail));
        }
        match self.store.revision(number).map_err(|error| internal(&error))? {
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
        let revisions = self.store.revisions_after(number, most).map_err(|error| internal(&error))?;
        match revisions.first() {
            Some(first) if first.revision > number.saturating_add(1) => Err(self.gone(number)?),
            _ => Ok(revisions),
        }
    }

    fn gone(&self, number: u64) -> Result<Problem, Problem> {
        let oldest = self.store.oldest_revision().map_err(|error| internal(&error))?.unwrap_or(0);
        let detail =
            format!("what came right after revision {number} is no longer kept; the oldest kept is {oldest}");
        Ok(Problem::new(ProblemKind::Gone, detail))
    }

    fn entry(&self, request: &Request, status: u16) -> AuditEntry {
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

/// The client learns that something broke, the log what.
pub(crate) fn internal(error: &dyn std::fmt::Display) -> Problem {
    log::error!("{error}");
    Problem::new(ProblemKind::Internal, "the manager's log says what")
}
