//! The authorities: which are trusted, which is made next, which is let go.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use mgmt_types::{AuditEntry, Authority, ExpiryAlarm, Problem, ProblemKind};
use tokio::sync::watch;

use super::{Manager, OpenError, Request, internal};
use crate::authority::{AuthorityError, StoredAuthority, Trust};
use crate::enrolment::Enrolment;
use crate::records::Records;
use crate::seal::Seal;
use crate::store::{Store, StoreError};
use crate::time;

/// Most authorities at a time: one, its successor, and room for an accident.
const MOST_AUTHORITIES: usize = 4;

/// The authorities that are kept, or the first one.
pub(super) fn first_trust(
    store: &dyn Store,
    records: &Records,
    seal: &Seal,
    first: impl FnOnce(&Seal) -> Result<StoredAuthority, AuthorityError>,
) -> Result<Trust, OpenError> {
    if records.authorities.count(|_| true) == 0 {
        let authority = first(seal)?;
        let audit = AuditEntry {
            id: 0,
            time: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            author: None,
            role: None,
            peer: None,
            action: "make the first authority".to_owned(),
            status: 200,
            revision: None,
            changes: Vec::new(),
            detail: Some(format!("authority {}", authority.fingerprint)),
            suppressed: 0,
        };
        let change = records.authorities.change(&authority.key(), Some(&authority))?;
        match store.change_records(std::slice::from_ref(&change), &audit) {
            // Another manager made it at the same time: that one is as good, if its key can be opened.
            Ok(()) | Err(StoreError::Raced { .. }) => records.reload(store)?,
            Err(error) => return Err(error.into()),
        }
    }
    let kept = kept_authorities(records);
    let none = || AuthorityError::Certificate("the store has lost the authorities".to_owned());
    Ok(Trust::open(kept, seal)?.ok_or_else(none)?)
}

fn kept_authorities(records: &Records) -> Vec<StoredAuthority> {
    records.authorities.all().into_iter().map(|(_, authority)| (*authority).clone()).collect()
}

impl Manager {
    /// Who is trusted now.
    pub(crate) fn trust(&self) -> Arc<Trust> {
        Arc::clone(&self.trust.borrow())
    }

    /// Tells when others are trusted.
    pub(crate) fn trust_changes(&self) -> watch::Receiver<Arc<Trust>> {
        self.trust.subscribe()
    }

    /// Trusts what the records say.
    pub(super) fn trust_anew(&self) {
        match Trust::open(kept_authorities(&self.records), &self.seal) {
            Ok(Some(trust)) => drop(self.trust.send_replace(Arc::new(trust))),
            Ok(None) => log::error!("the store has lost the authorities; the last ones stay in use"),
            Err(error) => log::error!("the authorities cannot be used, the last ones stay in use: {error}"),
        }
    }

    /// All authorities that are trusted, oldest first.
    pub(crate) fn authorities(&self, now: SystemTime) -> Vec<Authority> {
        let (trust, now) = (self.trust(), time::seconds(now));
        let described = |authority: &StoredAuthority| {
            let signed = |host: &Enrolment| host.authority == authority.fingerprint && host.not_after > now;
            let hosts = self.records.enrolments.count(signed);
            Authority {
                fingerprint: authority.fingerprint.clone(),
                name: authority.name.clone(),
                expires: time::rfc3339(authority.not_after),
                signs_managers: authority.fingerprint == trust.of_managers(),
                signs_hosts: authority.fingerprint == trust.of_hosts(),
                hosts: u32::try_from(hosts).unwrap_or(u32::MAX),
                alarm: ExpiryAlarm::of(authority.not_after, now),
                certificate: authority.certificate.clone(),
            }
        };
        trust.authorities.iter().map(described).collect()
    }

    /// Makes a new authority beside those there are. It signs hosts' certificates from now on.
    pub(crate) fn rotate_authority(
        &self,
        request: &Request,
        now: SystemTime,
    ) -> Result<Vec<Authority>, Problem> {
        self.change(request, 201, |records, audit| {
            let kept = kept_authorities(records);
            if kept.len() >= MOST_AUTHORITIES {
                let detail = format!("there are {MOST_AUTHORITIES} authorities; retire the oldest first");
                return Err(Problem::new(ProblemKind::InUse, detail));
            }
            let number = kept.last().map_or(1, |newest| newest.number.saturating_add(1));
            let made = StoredAuthority::make(number, &self.seal, now).map_err(|error| internal(&error))?;
            audit.detail = Some(format!("authority {}", made.fingerprint));
            let change =
                records.authorities.change(&made.key(), Some(&made)).map_err(|error| internal(&error))?;
            Ok((vec![change], ()))
        })?;
        Ok(self.authorities(now))
    }

    /// Trusts an authority no more. The newest stays; and, unless `force`, one that hosts' certificates still need.
    pub(crate) fn retire_authority(
        &self,
        request: &Request,
        fingerprint: &str,
        force: bool,
        now: SystemTime,
    ) -> Result<(), Problem> {
        self.change(request, 200, |records, audit| {
            let kept = kept_authorities(records);
            let Some(retired) = kept.iter().find(|kept| kept.fingerprint == fingerprint) else {
                let detail = format!("there is no authority {fingerprint:?}");
                return Err(Problem::new(ProblemKind::NotFound, detail));
            };
            if kept.last().is_some_and(|newest| newest.fingerprint == fingerprint) {
                let detail = "it is the newest authority; `palisade authority rotate` makes the next one";
                return Err(Problem::new(ProblemKind::InUse, detail));
            }
            let needs = |host: &Enrolment| {
                host.authority == fingerprint && host.not_after > time::seconds(now)
            };
            let hosts: Vec<String> = (records.enrolments.all().into_iter())
                .filter(|(_, host)| needs(host))
                .map(|(name, _)| name)
                .collect();
            if let (Some(first), false) = (hosts.first(), force) {
                let detail = format!(
                    "{} host(s) have not renewed their certificates yet, {first} among them; wait for them, or \
                     force it and let them join again",
                    hosts.len()
                );
                return Err(Problem::new(ProblemKind::InUse, detail));
            }
            audit.detail = Some(format!("authority {fingerprint}, which {} host(s) needed", hosts.len()));
            let change = records.authorities.change(&retired.key(), None).map_err(|error| internal(&error))?;
            Ok((vec![change], ()))
        })
    }

    /// Says in the log which certificates are near their end, at most once for each alarm.
    pub(crate) fn warn_of_ends(&self, told: &mut BTreeMap<String, ExpiryAlarm>, now: SystemTime) {
        let seconds = time::seconds(now);
        let authorities = kept_authorities(&self.records).into_iter().map(|authority| {
            let alarm = ExpiryAlarm::of(authority.not_after, seconds);
            (format!("authority {}", authority.fingerprint), authority.not_after, alarm)
        });
        let hosts =
            self.records.enrolments.all().into_iter().map(|(host, enrolment)| {
                (format!("host {host}"), enrolment.not_after, enrolment.alarm(seconds))
            });
        let mut near = BTreeMap::new();
        for (whose, end, alarm) in authorities.chain(hosts) {
            let Some(alarm) = alarm else { continue };
            if told.get(&whose) != Some(&alarm) {
                log::warn!("the certificate of {whose} is valid until {}", time::rfc3339(end));
            }
            near.insert(whose, alarm);
        }
        *told = near;
    }
}
