//! The hand-over of a ring between a worker and the control side, in every interleaving.
//! Run with `RUSTFLAGS="--cfg loom" cargo test -p vhost-backend --test loom --release`.
#![cfg(loom)]

use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;
use vhost_backend::handover::Handover;

/// Guest memory that may be unmapped: using it afterwards is what must never happen.
struct Mapping {
    mapped: AtomicBool,
}

fn use_mapping(mapping: &Mapping) {
    assert!(mapping.mapped.load(Ordering::Relaxed), "used after it was unmapped");
}

#[test]
fn after_a_change_no_worker_uses_the_old_memory() {
    loom::model(|| {
        let old = Arc::new(Mapping { mapped: AtomicBool::new(true) });
        let new = Arc::new(Mapping { mapped: AtomicBool::new(true) });
        let ring = Arc::new(Handover::new(old.clone()));
        let worker = {
            let ring = ring.clone();
            thread::spawn(move || {
                for _ in 0..2 {
                    if let Some(mapping) = ring.try_enter() {
                        use_mapping(&mapping);
                        thread::yield_now();
                        use_mapping(&mapping);
                    }
                }
            })
        };
        drop(ring.change(|mapping| std::mem::replace(mapping, new)));
        // The reply goes to the VMM, which takes its memory away.
        old.mapped.store(false, Ordering::Relaxed);
        worker.join().unwrap();
    });
}

#[test]
fn two_workers_and_a_change_never_meet_inside() {
    loom::model(|| {
        let inside = Arc::new(AtomicBool::new(false));
        let ring = Arc::new(Handover::new(0u32));
        let visit = |ring: &Handover<u32>, inside: &AtomicBool| {
            let mut value = ring.enter();
            assert!(!inside.swap(true, Ordering::Relaxed));
            *value += 1;
            inside.store(false, Ordering::Relaxed);
        };
        let worker = {
            let (ring, inside) = (ring.clone(), inside.clone());
            thread::spawn(move || visit(&ring, &inside))
        };
        ring.change(|value| {
            assert!(!inside.swap(true, Ordering::Relaxed));
            *value += 10;
            inside.store(false, Ordering::Relaxed);
        });
        visit(&ring, &inside);
        worker.join().unwrap();
        assert_eq!(*ring.enter(), 12);
    });
}
