//! What a host has of its manager's slices, and how it takes the next one. No input or output.

use std::sync::Arc;

use mgmt_client::{AgentEvent, Follow};
use mgmt_types::agent::{DeltaError, SealedSlice, Slice, SliceDelta, SliceState, SliceVersion, SyncStatus};

/// See the module.
#[derive(Debug)]
pub(crate) struct Following {
    host: String,
    has: Option<SealedSlice>,
    /// Whether deltas of this manager can be applied, as far as is known.
    deltas: bool,
    /// True from a refusal on until something other than a whole slice fits again.
    refused: bool,
    status: SyncStatus,
}

/// What a word of the manager comes to.
#[derive(Debug, PartialEq)]
pub(crate) enum Taken {
    /// This is to be put in force.
    Slice(Arc<Slice>),
    /// This is to be put in force, and the manager to be asked anew: in another form.
    Last(Arc<Slice>),
    /// Nothing is to be done.
    Nothing,
}

/// Why a slice or a delta is not taken. What is in force stays.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("a slice of host {got:?} came, but this is {host:?}")]
    OtherHost { got: String, host: String },
    #[error("the delta to revision {revision} does not fit: {source}")]
    Delta { revision: u64, source: DeltaError },
    #[error("a delta to revision {revision} came before any slice")]
    NoBase { revision: u64 },
    #[error("revision {revision} is said to be here, but it is not")]
    NotHere { revision: u64 },
}

impl Following {
    /// Begins with the slice that is in force.
    pub(crate) fn new(host: String, in_force: Option<&Slice>) -> Self {
        let has = in_force.map(|slice| SealedSlice::new(slice.clone()));
        Self { host, has, deltas: true, refused: false, status: SyncStatus::default() }
    }

    /// What to ask the manager for.
    pub(crate) fn ask(&self) -> Follow {
        match self.deltas {
            true => Follow::Deltas { has: self.has.as_ref().map(SealedSlice::version) },
            false => Follow::Whole,
        }
    }

    /// The stream ended. The next manager may be one whose deltas can be applied.
    pub(crate) fn ended(&mut self) {
        self.deltas = true;
    }

    /// Whether the manager's words fit, so that it may be asked again soon.
    pub(crate) fn fits(&self) -> bool {
        !self.refused
    }

    /// What became of the manager's words.
    pub(crate) fn status(&self) -> SyncStatus {
        self.status.clone()
    }

    /// Takes what the manager sent.
    pub(crate) fn take(&mut self, event: AgentEvent) -> Result<Taken, Refusal> {
        let taken = match event {
            AgentEvent::Slice(slice) => self.whole(SealedSlice::new(*slice)).map(Taken::Slice),
            AgentEvent::State(state) => self.state(*state),
            AgentEvent::Delta(delta) => self.delta(&delta).map(Taken::Slice),
            AgentEvent::Unchanged(version) => self.unchanged(version),
            AgentEvent::Asked(_) => Ok(Taken::Nothing),
        };
        if let Err(refusal) = &taken {
            self.refuse(refusal.to_string());
        }
        taken
    }

    /// Notes that something was not taken. A whole slice is asked for next.
    pub(crate) fn refuse(&mut self, why: String) {
        self.has = None;
        self.refused = true;
        self.status.refused += 1;
        self.status.refusal = Some(why);
    }

    fn whole(&mut self, sealed: SealedSlice) -> Result<Arc<Slice>, Refusal> {
        let got = &sealed.slice().host;
        if *got != self.host {
            return Err(Refusal::OtherHost { got: got.clone(), host: self.host.clone() });
        }
        self.status.whole += 1;
        let slice = Arc::clone(sealed.slice());
        self.has = Some(sealed);
        Ok(slice)
    }

    fn state(&mut self, state: SliceState) -> Result<Taken, Refusal> {
        let (sealed, agreed) = state.seal();
        let slice = self.whole(sealed)?;
        if agreed {
            return Ok(Taken::Slice(slice));
        }
        self.deltas = false;
        Ok(Taken::Last(slice))
    }

    fn delta(&mut self, delta: &SliceDelta) -> Result<Arc<Slice>, Refusal> {
        let revision = delta.revision;
        let before = self.has.as_ref().ok_or(Refusal::NoBase { revision })?;
        let next = before.apply(delta).map_err(|source| Refusal::Delta { revision, source })?;
        let slice = Arc::clone(next.slice());
        self.has = Some(next);
        self.refused = false;
        self.status.deltas += 1;
        Ok(slice)
    }

    fn unchanged(&mut self, version: SliceVersion) -> Result<Taken, Refusal> {
        if self.has.as_ref().map(SealedSlice::version) != Some(version) {
            return Err(Refusal::NotHere { revision: version.revision });
        }
        self.refused = false;
        self.status.unchanged += 1;
        Ok(Taken::Nothing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mgmt_types::agent::SliceRouter;

    fn slice(revision: u64, routers: &[&str]) -> Slice {
        let routers = routers.iter().map(|name| SliceRouter { name: (*name).into(), routes: Vec::new() });
        Slice { revision, host: "a".into(), routers: routers.collect(), ..Slice::default() }
    }

    fn state(slice: Slice) -> AgentEvent {
        AgentEvent::State(Box::new(SliceState { digest: slice.digest(), slice }))
    }

    fn delta(from: Slice, to: Slice) -> AgentEvent {
        let delta = SliceDelta::between(&SealedSlice::new(from), &SealedSlice::new(to));
        AgentEvent::Delta(Box::new(delta.expect("both are in order")))
    }

    fn follows(has: Slice) -> Follow {
        Follow::Deltas { has: Some(SealedSlice::new(has).version()) }
    }

    #[test]
    fn deltas_lead_on_from_what_is_in_force() {
        let mut following = Following::new("a".into(), Some(&slice(3, &["x"])));
        assert_eq!(following.ask(), follows(slice(3, &["x"])));
        let taken = following.take(delta(slice(3, &["x"]), slice(5, &["x", "y"])));
        assert_eq!(taken, Ok(Taken::Slice(slice(5, &["x", "y"]).into())));
        assert_eq!(following.ask(), follows(slice(5, &["x", "y"])));
        let version = SealedSlice::new(slice(5, &["x", "y"])).version();
        assert_eq!(following.take(AgentEvent::Unchanged(version)), Ok(Taken::Nothing));
        assert_eq!(following.status(), SyncStatus { deltas: 1, unchanged: 1, ..SyncStatus::default() });
    }

    #[test]
    fn what_does_not_fit_is_refused_whole_and_a_whole_slice_is_asked_for() {
        let other = Slice { host: "b".into(), ..slice(4, &[]) };
        let nowhere = SealedSlice::new(slice(9, &[])).version();
        let cases = [
            (state(other.clone()), "a slice of host \"b\" came, but this is \"a\""),
            (AgentEvent::Slice(Box::new(other)), "a slice of host \"b\" came, but this is \"a\""),
            (
                delta(slice(2, &[]), slice(4, &[])),
                "the delta to revision 4 does not fit: it begins at revision 2, but the slice is of revision 3",
            ),
            (
                delta(slice(3, &["y"]), slice(4, &[])),
                "the delta to revision 4 does not fit: it removes \"y\" from routers, where there is no such item",
            ),
            (AgentEvent::Unchanged(nowhere), "revision 9 is said to be here, but it is not"),
        ];
        for (event, why) in cases {
            let mut following = Following::new("a".into(), Some(&slice(3, &["x"])));
            assert_eq!(following.take(event).expect_err(why).to_string(), why);
            assert_eq!(following.ask(), Follow::Deltas { has: None });
            let status = following.status();
            assert_eq!((status.refused, status.refusal.as_deref()), (1, Some(why)));
            assert!(!following.fits());
            // A whole slice alone does not prove that what follows will fit.
            following.take(state(slice(4, &[]))).expect("fits");
            assert!(!following.fits());
            following.take(delta(slice(4, &[]), slice(5, &[]))).expect("fits");
            assert!(following.fits());
        }
        let early = Following::new("a".into(), None).take(delta(slice(3, &[]), slice(4, &[])));
        assert_eq!(early, Err(Refusal::NoBase { revision: 4 }));
    }

    #[test]
    fn a_manager_that_counts_digests_otherwise_is_followed_by_whole_slices() {
        let mut following = Following::new("a".into(), None);
        let digest = slice(0, &[]).digest();
        let of_another_version = AgentEvent::State(Box::new(SliceState { digest, slice: slice(4, &["x"]) }));
        assert_eq!(following.take(of_another_version), Ok(Taken::Last(slice(4, &["x"]).into())));
        assert_eq!(following.ask(), Follow::Whole);
        let taken = following.take(AgentEvent::Slice(Box::new(slice(5, &[]))));
        assert_eq!(taken, Ok(Taken::Slice(slice(5, &[]).into())));
        assert_eq!((following.status().whole, following.status().refused), (2, 0));
        following.ended();
        assert_eq!(following.ask(), follows(slice(5, &[])));
    }
}
