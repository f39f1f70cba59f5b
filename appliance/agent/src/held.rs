//! Fragments that wait for the first of their packet: the pipeline numbers the slots, the frames lie here.

use std::sync::{Mutex, MutexGuard, PoisonError};

use pipeline::DropReason;

/// The slots of one port. Its workers share them; who has the lock does not wait for anything.
#[derive(Debug, Default)]
pub(crate) struct Held(Mutex<Vec<Slot>>);

/// The memory of a frame is kept for the slot's next one.
#[derive(Debug, Default)]
struct Slot {
    frame: Vec<u8>,
    full: bool,
    /// Another worker was told what becomes of the frame before it was here.
    missed: Option<DropReason>,
}

impl Held {
    /// Keeps a frame, unless another worker was told of its end already: this is the reason then, and the slot is empty.
    pub(crate) fn keep(&self, slot: u8, frame: &[u8]) -> Result<(), DropReason> {
        let mut slots = self.lock();
        let slot = entry(&mut slots, slot);
        if let Some(reason) = slot.missed.take() {
            return Err(reason);
        }
        slot.frame.clear();
        slot.frame.extend_from_slice(frame);
        slot.full = true;
        Ok(())
    }

    /// Takes what was kept in a slot, for as long as `with` runs: the slot is empty then. `None` when the frame has not
    /// come yet: whoever brings it is told `missed`.
    pub(crate) fn take<R>(&self, slot: u8, missed: DropReason, with: impl FnOnce(&[u8]) -> R) -> Option<R> {
        let mut slots = self.lock();
        let slot = entry(&mut slots, slot);
        if !slot.full {
            slot.missed = Some(missed);
            return None;
        }
        slot.full = false;
        Some(with(&slot.frame))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Slot>> {
        // A panic in a worker ends the process, so a poisoned lock is only met while it goes down.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn entry(slots: &mut Vec<Slot>, slot: u8) -> &mut Slot {
    let slot = usize::from(slot);
    if slots.len() <= slot {
        slots.resize_with(slot + 1, Slot::default);
    }
    &mut slots[slot]
}

#[cfg(test)]
mod tests {
    use super::*;

    const MISSED: DropReason = DropReason::FragmentOverlap;

    #[test]
    fn a_slot_gives_what_it_was_given_once() {
        let held = Held::default();
        assert_eq!(held.keep(3, b"three"), Ok(()));
        assert_eq!(held.keep(0, b"zero"), Ok(()));
        assert_eq!(held.take(3, MISSED, <[u8]>::to_vec), Some(b"three".to_vec()));
        assert_eq!(held.keep(0, b"no"), Ok(()));
        assert_eq!(held.take(0, MISSED, <[u8]>::to_vec), Some(b"no".to_vec()));
    }

    #[test]
    fn a_frame_that_comes_after_its_verdict_is_told_so_and_not_kept() {
        let held = Held::default();
        assert_eq!(held.take(9, MISSED, <[u8]>::to_vec), None);
        assert_eq!(held.keep(9, b"late"), Err(MISSED));
        assert_eq!(held.keep(9, b"next"), Ok(()));
        assert_eq!(held.take(9, MISSED, <[u8]>::to_vec), Some(b"next".to_vec()));
    }
}
