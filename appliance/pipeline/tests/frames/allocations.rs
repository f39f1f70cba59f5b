//! No allocation on any frame's way.
#![expect(unsafe_code, reason = "a global allocator that counts can only be written so")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use pipeline::{Event, Instant, Verdict};

use crate::world::{Host, PORTS, Sent, golden, guarded, port, world};

thread_local! {
    /// Allocations of this thread: other tests of the process do not count.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // Not there any more while the thread ends; nothing is counted then.
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps `alloc`'s contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps `dealloc`'s contract, and the pointer came from the system's allocator.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[test]
fn no_frame_allocates_whatever_becomes_of_it() {
    for (snapshot, what) in [(world(), "no firewall"), (guarded(), "firewall")] {
        let cases = golden();
        let mut host = Host::new();
        for name in PORTS {
            let sent = || {
                let own = cases.iter().filter(|case| case.sender == port(name));
                own.map(|case| Sent::new(case.net, &case.frame)).collect::<Vec<_>>()
            };
            let mut started = 0;
            for round in 0..4 {
                let mut sent = sent();
                let mut verdicts = vec![Verdict::Flood; sent.len()];
                let mut frames: Vec<_> = sent.iter_mut().map(Sent::frame).collect();
                let before = ALLOCATIONS.get();
                // New flows each time, those of the last round having been silent for too long in the last.
                let now = Instant::from_nanos(1 + round * round * 100_000_000_000);
                host.judge(snapshot, port(name), now, &mut frames, &mut verdicts);
                host.flows.expire(now, 100, |_, _| ());
                started +=
                    host.work.report.drain().filter(|event| matches!(event, Event::FlowStarted(_))).count();
                let after = ALLOCATIONS.get();
                for released in host.work.released.drain(..).collect::<Vec<_>>() {
                    host.free(port(name), released.slot);
                }
                // With its first fragment a port gets room for fragments.
                if round > 0 {
                    assert_eq!(after - before, 0, "{what}, port {name}");
                }
            }
            assert!(what == "no firewall" || name != "a" || started > 20, "{started}");
        }
    }
}

#[test]
fn no_question_to_a_policy_allocates() {
    use pipeline::policy::{Direction, Policy, PolicyConfig, Service};
    let config = policy();
    let policy = Policy::compile(&config, None).unwrap();
    let before = ALLOCATIONS.get();
    for number in 0..2000u16 {
        let [a, b] = number.to_be_bytes();
        let outside = policy.external([198, 51, a, b].into());
        let inside = policy.endpoint(1, Some([10, 0, a, b].into())).unwrap_or(outside);
        for direction in [Direction::In, Direction::Out] {
            std::hint::black_box(policy.judge(direction, inside, outside, Service::port(6, number)));
        }
    }
    assert_eq!(ALLOCATIONS.get() - before, 0);

    /// More rules than fit in a cache line, some of them only on trial.
    fn policy() -> PolicyConfig {
        use pipeline::policy::*;
        let rule = |id: u32| RuleConfig {
            id,
            name: "".into(),
            direction: None,
            action: Action::Allow,
            from: vec![Peer::Cidr([198, 51, 100, 0].into(), 24), Peer::Group(0)],
            to: vec![],
            services: vec![ServiceMatch {
                protocol: Some(6),
                ports: Some((id as u16, id as u16)),
                icmp: None,
            }],
            log: false,
            keep_established: false,
        };
        let policy = |priority: u32| FirewallPolicyConfig {
            name: "".into(),
            revision: 1,
            tier: Tier::Application,
            priority,
            audit: priority.is_multiple_of(2),
            applies_to: vec![Peer::Any],
            rules: (priority * 10..priority * 10 + 10).map(rule).collect(),
        };
        let groups = vec![GroupConfig { name: "".into(), cidrs: vec![([10, 0, 0, 0].into(), 24)] }];
        let policies = (0..100).map(policy).collect();
        PolicyConfig {
            rules: std::sync::Arc::new(RulesConfig { groups, policies }),
            identities: vec![IdentityConfig { id: 1, groups: vec![0] }],
            endpoints: vec![(1, [10, 0, 0, 1].into())],
        }
    }
}

#[test]
fn the_counter_counts() {
    let before = ALLOCATIONS.get();
    drop(std::hint::black_box(Box::new(1)));
    assert_eq!(ALLOCATIONS.get() - before, 1);
}
