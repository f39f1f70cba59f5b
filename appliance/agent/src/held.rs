//! Fragments that wait for the first of their packet: the pipeline numbers the slots, the frames lie here.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// The slots of one port. Its workers share them; who has the lock does not wait for anything.
#[derive(Debug, Default)]
pub(crate) struct Held(Mutex<Vec<Vec<u8>>>);

impl Held {
    /// Keeps a frame. A slot's memory is kept for its next one.
    pub(crate) fn keep(&self, slot: u8, frame: &[u8]) {
        let mut slots = self.lock();
        let slot = usize::from(slot);
        if slots.len() <= slot {
            slots.resize_with(slot + 1, Vec::new);
        }
        slots[slot].clear();
        slots[slot].extend_from_slice(frame);
    }

    /// Takes what was kept in a slot, for as long as `with` runs.
    pub(crate) fn take<R>(&self, slot: u8, with: impl FnOnce(&[u8]) -> R) -> Option<R> {
        let mut slots = self.lock();
        let frame = slots.get_mut(usize::from(slot)).filter(|frame| !frame.is_empty())?;
        let result = with(frame);
        frame.clear();
        Some(result)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        // A panic in a worker ends the process, so a poisoned lock is only met while it goes down.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_gives_what_it_was_given_once() {
        let held = Held::default();
        held.keep(3, b"three");
        held.keep(0, b"zero");
        assert_eq!(held.take(3, <[u8]>::to_vec), Some(b"three".to_vec()));
        assert_eq!(held.take(3, <[u8]>::to_vec), None);
        assert_eq!(held.take(9, <[u8]>::to_vec), None);
        held.keep(0, b"no");
        assert_eq!(held.take(0, <[u8]>::to_vec), Some(b"no".to_vec()));
    }
}
