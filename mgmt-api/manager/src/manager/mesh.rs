//! The joining of hosts, and their certificates.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use mgmt_types::{
    Credentials, JoinRequest, JoinToken, JoinTokenSecret, JoinTokenState, Kind, Labels, Mistake,
    NewJoinToken, Problem, ProblemKind, Resource, Role, name,
};
use rustls::pki_types::CertificateDer;

use super::{Manager, Request, internal};
use crate::authority::{HostCertificate, HostIdentity, Trust, Unfit};
use crate::document;
use crate::enrolment::Enrolment;
use crate::join_token::{JoinRefusal, StoredJoinToken};
use crate::store::{RecordChange, StoreError};
use crate::time;
use crate::token::{self, Caller};
use crate::transaction::Wish;

/// Most join tokens, those that are over included: bounds what a leaked admin token can fill.
const MOST_TOKENS: usize = 1000;

/// Why a certificate proves nothing to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CertificateRefusal {
    /// No authority that is trusted signed it.
    Foreign,
    /// It is over.
    Expired,
    /// It is not valid yet.
    Early,
    /// The host was deleted, or joined again.
    Withdrawn,
    /// It is one host's, and the request another's.
    OtherHost,
}

impl CertificateRefusal {
    pub(crate) const ALL: [Self; 5] =
        [Self::Foreign, Self::Expired, Self::Early, Self::Withdrawn, Self::OtherHost];

    /// As in metrics.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Foreign => "foreign",
            Self::Expired => "expired",
            Self::Early => "not-yet-valid",
            Self::Withdrawn => "withdrawn",
            Self::OtherHost => "other-host",
        }
    }
}

impl Manager {
    /// The changes that withdraw the certificates of hosts that are deleted.
    pub(super) fn withdrawals(&self, removals: &[(Kind, String)]) -> Result<Vec<RecordChange>, StoreError> {
        let hosts = removals.iter().filter(|(kind, _)| *kind == Kind::Host).map(|(_, name)| name);
        hosts
            .filter(|host| self.records.enrolments.get(host).is_some())
            .map(|host| self.records.enrolments.change(host, None))
            .collect()
    }

    /// The host whose certificate this is.
    pub(crate) fn host_of(&self, chain: &[CertificateDer<'_>], now: SystemTime) -> Result<Caller, Problem> {
        let clock = || time::rfc3339(time::seconds(now));
        let refuse = |why: CertificateRefusal, reason: String| {
            Err(self.certificate_refused(why, ProblemKind::Unauthenticated, reason))
        };
        match self.trust().judge(chain, now) {
            Ok(identity) if self.is_enrolled(&identity.host, &identity.enrolment) => {
                Ok(Caller::host(&identity.host, &identity.enrolment))
            }
            Ok(HostIdentity { host, .. }) => refuse(
                CertificateRefusal::Withdrawn,
                format!("the certificate of host {host} was withdrawn: the host was deleted or joined again"),
            ),
            Err(Unfit::Expired(end)) => refuse(
                CertificateRefusal::Expired,
                format!(
                    "the certificate was valid until {}, and the manager's clock says {}",
                    time::rfc3339(end),
                    clock()
                ),
            ),
            Err(Unfit::Early(begin)) => refuse(
                CertificateRefusal::Early,
                format!(
                    "the certificate is valid from {}, and the manager's clock says {}: one of two clocks is wrong",
                    time::rfc3339(begin),
                    clock()
                ),
            ),
            Err(Unfit::Foreign(reason)) => refuse(
                CertificateRefusal::Foreign,
                format!("no authority of this installation signed the certificate for a host: {reason}"),
            ),
        }
    }

    /// The refusal of a request with a certificate, counted.
    fn certificate_refused(&self, why: CertificateRefusal, kind: ProblemKind, reason: String) -> Problem {
        if let Some(counter) = self.numbers.certificate_refusals.get(why as usize) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        let mistake = Mistake {
            field: Some("certificate".to_owned()),
            expected: Some("the certificate of a host that joined: `palisade join` gets one".to_owned()),
            ..Mistake::default().detail(reason)
        };
        Problem::of(kind, vec![mistake])
    }

    /// A host may speak for itself alone.
    pub(crate) fn check_speaker(&self, request: &Request, host: &str) -> Result<(), Problem> {
        match &request.caller {
            Some(caller) if caller.role == Role::Agent && caller.name == host => Ok(()),
            caller => {
                let who = caller.as_ref().map_or("nobody", |caller| caller.name.as_str());
                let reason = format!("the certificate of host {who} is not good for host {host}");
                Err(self.certificate_refused(CertificateRefusal::OtherHost, ProblemKind::Forbidden, reason))
            }
        }
    }

    /// Whether a host's certificates with this word are good.
    pub(crate) fn is_enrolled(&self, host: &str, enrolment: &str) -> bool {
        self.records.enrolments.get(host).is_some_and(|kept| kept.id == enrolment)
    }

    /// Returns when the certificate of a caller is withdrawn.
    pub(crate) async fn withdrawn(self: Arc<Self>, caller: Option<Caller>) {
        let mut changes = self.enrolled.subscribe();
        let Some(Caller { name, enrolment: Some(enrolment), .. }) = caller else { return };
        // The sender lives as long as the manager.
        let _ = changes.wait_for(|_| !self.is_enrolled(&name, &enrolment)).await;
    }

    /// Makes a join token; its secret is known only to the caller from here on.
    pub(crate) fn add_join_token(
        &self,
        request: &Request,
        wish: &NewJoinToken,
        now: SystemTime,
    ) -> Result<JoinTokenSecret, Problem> {
        let now = time::seconds(now);
        let secret = token::secret("join").map_err(|error| internal(&error))?;
        let word = token::word(4).map_err(|error| internal(&error))?;
        let name = wish.name.clone().unwrap_or_else(|| format!("join-{word}"));
        let author = request.caller.as_ref().map_or(super::MANAGER, |caller| caller.name.as_str());
        let hash = token::hash(&secret);
        let made = StoredJoinToken::new(wish, name, author.to_owned(), hash, now)?;
        self.change(request, 201, |records, audit| {
            let failed = |error: StoreError| internal(&error);
            let mut changes = Vec::new();
            let mut count = 0;
            for (key, token) in records.join_tokens.all() {
                if token.is_forgotten(now) {
                    changes.push(records.join_tokens.change(&key, None).map_err(failed)?);
                } else if token.name == made.name {
                    let mistake = Mistake::new("name", &made.name, "a name no join token has")
                        .detail("there is a join token of this name");
                    return Err(Problem::of(ProblemKind::Invalid, vec![mistake]));
                } else {
                    count += 1;
                }
            }
            if count >= MOST_TOKENS {
                let reason = format!("there are {MOST_TOKENS} join tokens of the last 30 days");
                return Err(Problem::new(ProblemKind::Invalid, reason));
            }
            let uses = made.uses;
            audit.detail = Some(format!("join token {} for {uses} host(s)", made.name));
            // A forgotten token of this name is replaced, not removed and made.
            changes.retain(|change: &RecordChange| change.key != made.name);
            changes.push(records.join_tokens.change(&made.name, Some(&made)).map_err(failed)?);
            Ok((changes, ()))
        })?;
        let secret = format!("{secret}.{}", self.trust().of_managers());
        Ok(JoinTokenSecret { token: made.info(now), secret })
    }

    /// All join tokens, by name.
    pub(crate) fn join_tokens(&self, now: SystemTime) -> Vec<JoinToken> {
        let now = time::seconds(now);
        let all = self.records.join_tokens.all().into_iter();
        all.filter(|(_, token)| !token.is_forgotten(now)).map(|(_, token)| token.info(now)).collect()
    }

    /// Withdraws a join token, at once.
    pub(crate) fn revoke_join_token(&self, request: &Request, name: &str) -> Result<(), Problem> {
        self.change(request, 200, |records, audit| {
            let Some(token) = records.join_tokens.get(name) else {
                return Err(Problem::new(ProblemKind::NotFound, format!("there is no join token {name:?}")));
            };
            audit.detail = Some(format!("join token {name}"));
            let revoked = StoredJoinToken { revoked: true, ..(*token).clone() };
            let change =
                records.join_tokens.change(name, Some(&revoked)).map_err(|error| internal(&error))?;
            Ok((vec![change], ()))
        })
    }

    /// Makes a machine a host. Of two that come with a token for one, one gets in.
    pub(crate) fn join(
        &self,
        request: &Request,
        wish: &JoinRequest,
        now: SystemTime,
    ) -> Result<Credentials, Problem> {
        let (host, hash) = (wish.host.as_str(), token::hash(&wish.token));
        check_join(wish)?;
        self.check_no_external(host)?;
        let refuse = |why: JoinRefusal, reason: String| {
            if let Some(counter) = self.numbers.join_refusals.get(why as usize) {
                counter.fetch_add(1, Ordering::Relaxed);
            }
            why.problem(host, reason)
        };
        let trust = self.trust();
        let signed = self.change(request, 200, |records, audit| {
            let unknown = || refuse(JoinRefusal::Unknown, "there is no such join token".to_owned());
            let token = records.join_tokens.find(|token| token.hash == hash).ok_or_else(unknown)?;
            let used =
                token.used_by(host, time::seconds(now)).map_err(|(why, reason)| refuse(why, reason))?;
            let is_host = |caller: &Caller| caller.role == Role::Agent && caller.name == host;
            let itself = request.caller.as_ref().is_some_and(is_host);
            if records.enrolments.get(host).is_some() && !itself && !token.replace {
                let reason = format!("host {host} joined before, and its certificate was not shown");
                return Err(refuse(JoinRefusal::Taken, reason));
            }
            let id = token::word(16).map_err(|error| internal(&error))?;
            let identity = HostIdentity { host: host.to_owned(), enrolment: id };
            let signed = trust
                .sign_host(&wish.csr, &identity, now)
                .map_err(|error| refuse(JoinRefusal::Request, error.to_string()))?;
            let enrolment = Enrolment {
                id: identity.enrolment,
                joined: audit.time.clone(),
                labels: used.labels.clone(),
                authority: signed.authority.clone(),
                not_after: signed.not_after,
            };
            audit.author = Some(host.to_owned());
            audit.role = Some(Role::Agent);
            audit.detail =
                Some(format!("host {host} joined with join token {} of {}", used.name, used.author));
            let failed = |error: StoreError| internal(&error);
            let changes = vec![
                records.join_tokens.change(&used.name, Some(&used)).map_err(failed)?,
                records.enrolments.change(host, Some(&enrolment)).map_err(failed)?,
            ];
            Ok((changes, (signed, enrolment)))
        })?;
        let (signed, enrolment) = signed;
        self.numbers.joins.fetch_add(1, Ordering::Relaxed);
        let joined = Request { caller: Some(Caller::host(host, &enrolment.id)), ..request.clone() };
        self.ensure_host(&joined, host)?;
        self.label_host(&joined, host, &enrolment.labels)?;
        Ok(self.credentials(&trust, host, signed))
    }

    /// Gives a host that was declared before it joined the labels of its token.
    fn label_host(&self, request: &Request, host: &str, labels: &Labels) -> Result<(), Problem> {
        self.transact(request, |state| {
            let Some(entry) = state.hosts.get(host) else { return Ok(Vec::new()) };
            let mut resource = entry.resource.clone();
            resource.labels.extend(labels.clone());
            if resource.labels == entry.resource.labels {
                return Ok(Vec::new());
            }
            let value = serde_json::to_value(Resource::Host(resource)).map_err(|error| internal(&error))?;
            Ok(vec![Wish::Put(document::from_json(&value, Kind::Host, host)?)])
        })?;
        Ok(())
    }

    /// The next certificate of a host that shows the one it has.
    pub(crate) fn renew_host(
        &self,
        request: &Request,
        csr: &str,
        now: SystemTime,
    ) -> Result<Credentials, Problem> {
        let Some(Caller { name: host, enrolment: Some(enrolment), .. }) = &request.caller else {
            return Err(Problem::new(ProblemKind::Unauthenticated, "the request has no certificate"));
        };
        let identity = HostIdentity { host: host.clone(), enrolment: enrolment.clone() };
        let trust = self.trust();
        let signed = trust
            .sign_host(csr, &identity, now)
            .map_err(|error| JoinRefusal::Request.problem(host, error.to_string()))?;
        self.change(request, 200, |records, audit| {
            let kept = records.enrolments.get(host).filter(|kept| kept.id == *enrolment);
            let Some(kept) = kept else {
                let reason = format!("the certificate of host {host} was withdrawn");
                let kind = ProblemKind::Unauthenticated;
                return Err(self.certificate_refused(CertificateRefusal::Withdrawn, kind, reason));
            };
            let renewed = Enrolment {
                authority: signed.authority.clone(),
                not_after: signed.not_after,
                ..(*kept).clone()
            };
            audit.detail = Some(format!("certificate until {}", time::rfc3339(signed.not_after)));
            let change = records.enrolments.change(host, Some(&renewed)).map_err(|error| internal(&error))?;
            Ok((vec![change], ()))
        })?;
        Ok(self.credentials(&trust, host, signed))
    }

    fn credentials(&self, trust: &Trust, host: &str, signed: HostCertificate) -> Credentials {
        self.numbers.certificates.fetch_add(1, Ordering::Relaxed);
        Credentials {
            host: host.to_owned(),
            certificate: signed.pem,
            not_before: signed.not_before,
            not_after: signed.not_after,
            authority: signed.authority,
            authorities: trust.authorities.iter().map(|authority| authority.certificate.clone()).collect(),
            managers: self.advertised.clone(),
        }
    }

    /// A join token for the host of this machine, good for a few minutes: whoever runs the manager may replace it.
    pub(crate) fn local_join_token(&self, host: &str, now: SystemTime) -> Result<String, Problem> {
        let request =
            Request { caller: None, peer: None, action: "join the host of this machine".to_owned() };
        let wish = NewJoinToken {
            name: None,
            uses: Some(1),
            expires_in: Some(300),
            labels: Labels::new(),
            host: Some(host.to_owned()),
            replace: true,
        };
        Ok(self.add_join_token(&request, &wish, now)?.secret)
    }

    /// How many join tokens are valid.
    pub(crate) fn valid_join_tokens(&self, now: SystemTime) -> usize {
        let now = time::seconds(now);
        self.records.join_tokens.count(|token| token.state(now) == JoinTokenState::Valid)
    }
}

fn check_join(wish: &JoinRequest) -> Result<(), Problem> {
    let mut mistakes = Vec::new();
    if let Err(error) = name::check(&wish.host) {
        let expected = "letters a-z, digits and '-', beginning and ending with either";
        mistakes.push(Mistake::new("host", &wish.host, expected).detail(format!("the name {error}")));
    }
    if mistakes.is_empty() { Ok(()) } else { Err(Problem::of(ProblemKind::Invalid, mistakes)) }
}
