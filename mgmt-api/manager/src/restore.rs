//! A backup in the place of all that there is.
//!
//! Revision numbers go on far above every one that was ever given: after the backup was made the lost manager may have
//! given more, and a host that knows one of those must not take another state for the same. So a restore leaves a gap.

use std::sync::Arc;

use mgmt_types::{AuditEntry, Mistake, Problem, ProblemKind, Restored, Revision};

use crate::authority::StoredAuthority;
use crate::backup::Backup;
use crate::manager::{MANAGER, Manager, Request, refusal};
use crate::state::{Counters, State};
use crate::store::{Replacement, Store, Table};

/// How far revision numbers jump: more than a manager gives between two backups.
const GAP: u64 = 1_000_000;
/// How far the numbers of ports, rules and identities jump, for the same reason.
const NUMBERS: u32 = 100_000;

/// How to restore.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Options {
    /// Also in the place of a state that is newer.
    pub(crate) force: bool,
    /// Leave users and tokens as they are.
    pub(crate) keep_tokens: bool,
}

impl Manager {
    /// Puts a backup in the place of all that there is: state, history and records.
    pub(crate) fn restore(
        &self,
        request: &Request,
        backup: Backup,
        options: Options,
    ) -> Result<Restored, Problem> {
        let _writing = self.begin();
        self.advance().map_err(|error| refusal(&error))?;
        let authorities = backup.records.iter().filter(|(table, ..)| *table == Table::Authorities);
        let authorities: Result<Vec<StoredAuthority>, _> =
            authorities.map(|(.., text)| serde_json::from_str(text)).collect();
        let opened = authorities
            .map_err(|error| error.to_string())
            .and_then(|authorities| self.can_open(authorities).map_err(|error| error.to_string()));
        if let Err(reason) = opened {
            let detail = format!(
                "the backup's authorities cannot be used here: {reason}; start the manager with the authority.key that \
                 belongs to the backup"
            );
            return Err(Problem::new(ProblemKind::Invalid, detail));
        }
        let audit = self.entry(request, 200);
        let (state, restored) = replace(self.store(), &self.state(), backup, options, audit)?;
        self.publish(state);
        self.reload_records().map_err(|error| refusal(&error))?;
        Ok(restored)
    }
}

/// Puts a backup into a store that is at `have`; the state that is in force then.
pub(crate) fn replace(
    store: &dyn Store,
    have: &State,
    backup: Backup,
    options: Options,
    mut audit: AuditEntry,
) -> Result<(State, Restored), Problem> {
    let Backup { head, state, mut records, history } = backup;
    if have.revision > head.revision && !options.force {
        let expected = format!("at least {}, the newest here, or force", have.revision);
        let mistake = Mistake::new("revision", head.revision, expected)
            .detail(format!("the backup of {} is older than what is here", head.time));
        return Err(Problem::of(ProblemKind::Stale, vec![mistake]));
    }
    let stays = |table: Table| {
        let is_token = matches!(table, Table::Users | Table::Tokens);
        // A backup of an older version has no authorities, and nobody could come in without any.
        let is_lost = table == Table::Authorities && records.iter().all(|(other, ..)| *other != table);
        (options.keep_tokens && is_token) || is_lost
    };
    let tables: Vec<Table> = Table::ALL.into_iter().filter(|table| !stays(*table)).collect();
    records.retain(|(table, ..)| tables.contains(table));
    let state = continued(state, have);
    audit.revision = Some(state.revision);
    audit.detail = Some(format!("restored revision {} of {}", head.revision, head.time));
    let revision = Revision {
        revision: state.revision,
        time: audit.time.clone(),
        author: audit.author.clone().unwrap_or_else(|| MANAGER.to_owned()),
        changes: Vec::new(),
        hosts: state.hosts.keys().cloned().collect(),
    };
    let replacement = Replacement {
        before: have.revision,
        state: &state,
        revision: &revision,
        history: &history,
        tables: &tables,
        records: &records,
        audit: &audit,
    };
    store.replace(&replacement).map_err(|error| refusal(&error))?;
    let restored =
        Restored { revision: state.revision, backup_revision: head.revision, backup_time: head.time };
    Ok((state, restored))
}

/// The state of a backup as it goes on after `have`: no number that was ever given is given again.
fn continued(mut state: State, have: &State) -> State {
    state.revision = state.revision.max(have.revision).saturating_add(GAP);
    let Counters { next_vni, next_port, next_rule, next_identity } = have.counters;
    let beyond = |one: u32, other: u32| one.max(other).saturating_add(NUMBERS);
    let counters = &mut state.counters;
    // VNIs are given again; the search for a free one only begins somewhere.
    counters.next_vni = counters.next_vni.max(next_vni);
    counters.next_port = beyond(counters.next_port, next_port);
    counters.next_rule = beyond(counters.next_rule, next_rule);
    counters.next_identity = beyond(counters.next_identity, next_identity);
    for entry in state.hosts.values_mut() {
        Arc::make_mut(entry).wanted = state.revision;
    }
    state
}
