//! Fragments in the flow stage: a packet's first fragment is judged like a packet, the others share its fate.
//!
//! Fragments that come before the first wait in the caller's hands. Those of the same burst mostly wait no longer than
//! until the burst is judged.

use std::sync::{MutexGuard, PoisonError};

use wire::ipv4;

use crate::deliver::{Target, resolve};
use crate::fragments::{FragmentInfo, FragmentKey, FragmentVerdict, Fragments};
use crate::from_port::Context;
use crate::header::{self, L3};
use crate::offload::Cut;
use crate::parse::{Fragment, Ip};
use crate::port_state::PortState;
use crate::report::{Event, Origin, note};
use crate::{DropReason, Frame, Snapshot, Verdict, Workspace};

/// What is remembered of a packet whose first fragment was refused: the reason's number above this. Below, it was admitted
/// to the port whose slot is this less one.
const REFUSED: u32 = 1 << 31;

/// A first fragment that is being judged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct First {
    /// The frame's place in the burst.
    frame: usize,
    key: FragmentKey,
}

/// A fragment of this burst that waits for its first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiting {
    frame: usize,
    slot: u8,
}

/// What becomes of a fragment; `None` when it is a first and is to be judged.
#[cold]
pub(crate) fn admit(
    context: &Context<'_>,
    place: usize,
    frame: &mut Frame<'_>,
    ip: &Ip,
    work: &mut Workspace,
) -> Result<Option<Verdict>, DropReason> {
    let info = info(frame, ip);
    // Nothing waits that could not go on.
    let to = match ip.fragment {
        Fragment::Later(_) => Some(destination(context, frame, ip)?),
        Fragment::First | Fragment::Whole => None,
    };
    let mut fragments = lock(context.state);
    let late = fragments.expire(context.now);
    late.for_each(|slot| work.release(slot, Verdict::Drop(DropReason::FragmentTimeout)));
    match fragments.admit(context.now, &info) {
        FragmentVerdict::Whole => Ok(None),
        FragmentVerdict::First => {
            work.firsts.push(First { frame: place, key: info.key });
            Ok(None)
        }
        FragmentVerdict::Follow(fate) => {
            let verdict = follow(to, fate)?;
            finish(context, frame, ip, to);
            Ok(Some(verdict))
        }
        FragmentVerdict::Hold(slot) => {
            work.waiting.push(Waiting { frame: place, slot });
            // The caller keeps it as it goes on.
            finish(context, frame, ip, to);
            Ok(Some(Verdict::Hold(slot)))
        }
        FragmentVerdict::Drop(reason, held) => {
            for slot in held {
                match work.waiting.iter().position(|waiting| waiting.slot == slot) {
                    // A fragment of this burst never left it.
                    Some(waiting) => {
                        work.refused.push((work.waiting.swap_remove(waiting).frame, reason));
                        fragments.free(slot);
                    }
                    None => work.release(slot, Verdict::Drop(reason)),
                }
            }
            Err(reason)
        }
    }
}

/// Tells the fragments that wait what became of their first, once the burst is judged. `from` says of a place in the burst
/// where its frame came from and how long it is.
#[cold]
pub(crate) fn settle(
    snapshot: &Snapshot,
    state: &PortState,
    from: impl Fn(usize) -> Option<(Origin, u32)>,
    verdicts: &mut [Verdict],
    work: &mut Workspace,
) {
    let mut fragments = lock(state);
    for number in 0..work.firsts.len() {
        let First { frame, key } = work.firsts[number];
        let Some(verdict) = verdicts.get(frame).copied() else { continue };
        let (fate, verdict) = match verdict {
            Verdict::Deliver(to) => (1 + snapshot.port(to).slot(), verdict),
            Verdict::Drop(reason) | Verdict::Refuse(reason) => {
                (REFUSED | reason.index() as u32, Verdict::Drop(reason))
            }
            // What is answered or goes to many is not tracked and has no lane.
            Verdict::Reply | Verdict::Flood | Verdict::Hold(_) => continue,
        };
        for slot in fragments.settle(&key, fate) {
            match work.waiting.iter().position(|waiting| waiting.slot == slot) {
                Some(waiting) => {
                    let Waiting { frame, .. } = work.waiting.swap_remove(waiting);
                    if let Some(own) = verdicts.get_mut(frame) {
                        *own = verdict;
                    }
                    fragments.free(slot);
                }
                None => work.release(slot, verdict),
            }
        }
    }
    for (place, reason) in work.refused.drain(..) {
        if let (Some(own), Some((origin, len))) = (verdicts.get_mut(place), from(place)) {
            work.report.add(Event::Dropped(note(snapshot.revision(), origin, reason, None, len)));
            *own = Verdict::Drop(reason);
        }
    }
    work.firsts.clear();
}

/// As its first: to the same port, or nowhere. The port is found again, as another snapshot may have come.
fn follow(to: Option<Target<'_>>, fate: u32) -> Result<Verdict, DropReason> {
    if fate & REFUSED != 0 {
        let reason = DropReason::ALL.get((fate & !REFUSED) as usize).copied();
        return Err(reason.unwrap_or(DropReason::FragmentLimit));
    }
    match to {
        Some(to) if to.port.slot() + 1 == fate => Ok(Verdict::Deliver(to.index)),
        _ => Err(DropReason::DestinationMismatch),
    }
}

fn destination<'a>(context: &Context<'a>, frame: &Frame<'_>, ip: &Ip) -> Result<Target<'a>, DropReason> {
    let target = resolve(context, frame, ip)?;
    target.fits(context.sender, &Cut { packets: 1, largest: *frame.len, bytes: *frame.len })?;
    Ok(target)
}

/// A fragment that goes where `to` is, now or later.
fn finish(context: &Context<'_>, frame: &mut Frame<'_>, ip: &Ip, to: Option<Target<'_>>) {
    if let Some(to) = to {
        to.finish(context, frame, ip);
    }
}

/// Where a fragment lies in its packet. The parser proved the headers; an IPv6 fragment header is the last before the
/// transport's.
fn info(frame: &Frame<'_>, ip: &Ip) -> FragmentInfo {
    let units = match ip.fragment {
        Fragment::Later(units) => units,
        Fragment::First | Fragment::Whole => 0,
    };
    let len = ip.end.saturating_sub(u32::from(ip.transport)) as u16;
    let (key, more) = if ip.v6 {
        let header = ip.transport().saturating_sub(8);
        let (source, destination) = (header::ipv6_source(frame.head), header::ipv6_destination(frame.head));
        let id = header::double_word(frame.head, header + 4);
        (FragmentKey::v6(source, destination, id), header::word(frame.head, header + 2) & 1 != 0)
    } else {
        let (source, destination) = (header::ipv4_source(frame.head), header::ipv4_destination(frame.head));
        let id = header::word(frame.head, L3 + ipv4::field::ID.start);
        let flags = header::word(frame.head, L3 + ipv4::field::FRAGMENT.start);
        (FragmentKey::v4(source, destination, ip.protocol, id), flags & ipv4::MORE_FRAGMENTS != 0)
    };
    FragmentInfo { key, offset: units * 8, len, more }
}

fn lock(state: &PortState) -> MutexGuard<'_, Fragments> {
    state.fragments.lock().unwrap_or_else(PoisonError::into_inner)
}
