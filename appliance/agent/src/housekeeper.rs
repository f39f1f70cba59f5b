//! The thread that does what can wait: ends silent flows, takes in what workers told.
//!
//! It works while there is something to look after, at a slow pace, and sleeps until a worker wakes it when there is
//! not: an idle host costs no CPU.

use std::time::Duration;

use pipeline::{Event, FlowTable, Instant};

use crate::plane::Plane;
use crate::recorder::Recorder;

/// How often flows are looked after while there are some. Timeouts are in seconds.
const EVERY: u64 = 1_000_000_000;
/// Calls that go round the flow table once: it has 64 parts.
const ROUND: usize = 64;
/// Flows that are looked at in one part at a time, while its lock is held.
const BUDGET: usize = 2048;
/// The pause while somebody follows.
const FOLLOWED: Duration = Duration::from_millis(200);
/// The pause while there is much to take in.
const BUSY: Duration = Duration::from_millis(50);
/// What much is.
const MUCH: usize = 256;

/// Looks after the agent until the plane stops. `writer` is its number among those who write rules' counters.
pub(crate) fn keep(recorder: &Recorder, plane: &Plane, writer: usize) {
    let mut looked = 0;
    while !plane.stopping() {
        let taken = recorder.catch_up();
        let world = plane.world();
        let now = crate::clock::now();
        let flows = !world.flows.is_empty();
        if flows && now.saturating_sub(looked) >= EVERY {
            looked = now;
            expire(&world.flows, recorder, Instant::from_nanos(now), |event| {
                world.rules.count(writer, event, Instant::from_nanos(now));
            });
        }
        drop(world);
        let pause = if recorder.is_followed() {
            recorder.flush();
            FOLLOWED
        } else if taken >= MUCH {
            BUSY
        } else if flows || taken > 0 {
            Duration::from_nanos(EVERY)
        } else {
            recorder.about_to_sleep();
            // Whoever told something before it saw us asleep did not wake us.
            if recorder.catch_up() == 0 && plane.world().flows.is_empty() && !plane.stopping() {
                std::thread::park();
            }
            continue;
        };
        std::thread::park_timeout(pause);
    }
}

/// Ends flows that were silent for too long.
fn expire(flows: &FlowTable, recorder: &Recorder, now: Instant, mut count: impl FnMut(&Event)) {
    let followed = recorder.is_followed();
    let mut ended = Vec::new();
    for _ in 0..ROUND {
        flows.expire(now, BUDGET, |flow, why| {
            count(&Event::FlowEnded(*flow, why));
            if followed {
                ended.push((*flow, why));
            }
        });
        recorder.ended(&ended);
        ended.clear();
    }
}
