//! One host's stream: its slice or what is different in it, and what it is asked.

use std::convert::Infallible;
use std::sync::Arc;

use axum::response::sse::Event;
use mgmt_types::agent::{SealedSlice, SliceDelta, SliceVersion};
use mgmt_types::question::Asked;

use super::Context;
use super::reply;
use crate::compile;
use crate::desk::Ear;
use crate::state::State;

/// See the module.
pub(super) struct Follower {
    pub(super) context: Context,
    pub(super) host: String,
    /// The revision of the slice sent last.
    pub(super) sent: Option<u64>,
    /// What it has; none when it takes whole slices only.
    pub(super) has: Option<Has>,
    /// For those that can be asked.
    pub(super) ear: Option<Ear>,
}

/// What a host has.
#[derive(Debug, Clone)]
pub(super) enum Has {
    Nothing,
    /// What it says it has.
    Claimed(SliceVersion),
    /// What it was told.
    Told(SealedSlice),
}

/// What a host is told next.
enum Next {
    State(Arc<State>),
    Asked(Asked),
}

impl Follower {
    pub(super) async fn next(mut self) -> Option<(Result<Event, Infallible>, Self)> {
        let mut states = self.context.manager.watch();
        let next = {
            let differs = |state: &Arc<State>| {
                let wanted = state.hosts.get(&self.host).map(|entry| entry.wanted);
                self.sent.is_none() || (wanted.is_some() && wanted != self.sent)
            };
            let asked = async {
                let heard = match &mut self.ear {
                    Some(ear) => ear.next().await,
                    None => None,
                };
                match heard {
                    Some(asked) => asked,
                    // It cannot be asked, or is asked on a newer line: it follows all the same.
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // The state first: what is asked is asked of a host that knows it.
                biased;
                _ = self.context.stopping.wait_for(|stopping| *stopping) => None,
                state = states.wait_for(differs) => Some(Next::State(Arc::clone(&*state.ok()?))),
                asked = asked => Some(Next::Asked(asked)),
            }
        };
        let state = match next? {
            Next::State(state) => state,
            Next::Asked(asked) => {
                let event = reply::event("question", asked.id, &asked)?;
                return Some((Ok(event), self));
            }
        };
        let (host, has, shelf) = (self.host.clone(), self.has.take(), Arc::clone(&self.context.shelf));
        let compiled = reply::in_turn(&self.context.compiling, move || {
            let slice = compile::slice(&state, &host);
            let revision = slice.revision;
            let Some(has) = has else {
                return Ok((revision, reply::event("slice", revision, &slice), None));
            };
            let slice = SealedSlice::new(slice);
            let has = match has {
                Has::Claimed(version) if version != slice.version() => {
                    shelf.find(&host, version).map_or(Has::Nothing, Has::Told)
                }
                has => has,
            };
            let event = tell(&has, &slice);
            shelf.put(&state, &host, slice.clone());
            Ok((revision, event, Some(Has::Told(slice))))
        });
        let (revision, event, has) = compiled.await.ok()?;
        (self.sent, self.has) = (Some(revision), has);
        Some((Ok(event?), self))
    }
}

/// What to say to a host that is to have `slice`; none when it cannot be written.
fn tell(has: &Has, slice: &SealedSlice) -> Option<Event> {
    let revision = slice.slice().revision;
    match has {
        Has::Claimed(version) if *version == slice.version() => reply::event("unchanged", revision, version),
        Has::Told(before) => match SliceDelta::between(before, slice) {
            Some(delta) => reply::event("delta", revision, &delta),
            None => reply::event("state", revision, slice),
        },
        Has::Nothing | Has::Claimed(_) => reply::event("state", revision, slice),
    }
}
