//! Workers do not allocate per frame.

#![expect(unsafe_code, reason = "a global allocator")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering::Relaxed};

use crate::alone::alone;
use crate::bed::guest::{Guest, NET, feature};
use crate::bed::packet::{tcp_partial, udp};
use crate::bed::{Bed, eventually};
use crate::mesh::Mesh;
use mgmt_types::agent::Link;

/// Counts what the watched thread asks for.
struct Counting;

/// Thread id of the watched worker; 0: nobody.
static WATCHED: AtomicI32 = AtomicI32::new(0);
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

fn count() {
    let watched = WATCHED.load(Relaxed);
    if watched != 0 && rustix::thread::gettid().as_raw_nonzero().get() == watched {
        ALLOCATIONS.fetch_add(1, Relaxed);
    }
}

// SAFETY: everything is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are those that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        count();
        // SAFETY: as above; `ptr` came from `System`.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.realloc(ptr, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Thread id of `pal-worker-0`.
fn worker() -> i32 {
    let tasks = std::fs::read_dir("/proc/self/task").expect("procfs");
    let is_worker = |task: &std::path::Path| {
        std::fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim() == "pal-worker-0")
    };
    let worker = tasks.flatten().map(|task| task.path()).find(|task| is_worker(task)).expect("a worker");
    worker.file_name().and_then(|name| name.to_str()).expect("a number").parse().expect("a number")
}

/// Allocations of the worker while `work` runs.
fn allocations(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.load(Relaxed);
    WATCHED.store(worker(), Relaxed);
    work();
    WATCHED.store(0, Relaxed);
    ALLOCATIONS.load(Relaxed) - before
}

#[test]
fn a_worker_that_carries_frames_never_allocates() {
    alone(|| {
        guests();
        devices();
        hosts();
    });
}

/// Small frames, TSO frames passed on and cut, broadcasts, spoofed frames, frames for a full ring, sleep and wake.
fn guests() {
    let mut bed = Bed::without_namespaces("alloc");
    bed.start();
    bed.put(bed.guests(1, &[1, 2, 3]));
    let offloads = feature::CSUM | feature::HOST_TSO4 | feature::GUEST_CSUM | feature::GUEST_TSO4;
    let [mut one, mut able, mut plain] = [(1, offloads), (2, offloads), (3, 0)].map(|(n, features)| {
        let guest = Guest::boot(&bed.socket(n), 1, feature::PLAIN | features);
        eventually("the link is up", || bed.link(n) == Link::Up);
        guest
    });
    let tso = [1, 1, 54, 0, 0xa8, 0x05, 34, 0, 16, 0, 0, 0];
    let mut broadcast = udp(1, 255, 68, b"hello all");
    broadcast[..6].fill(0xff);
    let mut spoofed = udp(1, 2, 7, b"not me");
    spoofed[11] = 9;
    let mut round = |n: u16| {
        one.send(0, [0; NET], &udp(1, 2, 1000 + n, b"small"));
        one.send(0, tso, &tcp_partial(1, 2, &[1; 30_000]));
        one.send(0, tso, &tcp_partial(1, 3, &[2; 30_000]));
        one.send(0, [0; NET], &broadcast);
        one.send(0, [0; NET], &spoofed);
        able.send(0, [0; NET], &udp(2, 1, 1000 + n, b"back"));
        eventually("all is taken", || one.in_flight(0) == 0 && able.in_flight(0) == 0);
        one.receive(0);
        able.receive(0);
        plain.receive(0);
    };
    (0..20).for_each(&mut round);
    let counted = allocations(|| (20..200).for_each(&mut round));
    let ports = bed.status().ports;
    assert!(ports[1].to_guest.packets > 300 && ports[2].to_guest.packets > 2000, "{ports:?}");
    assert_eq!(counted, 0);
}

/// Bulk TCP with segmentation, both ways between two devices.
fn devices() {
    let Some(mut bed) = Bed::new("alloc", 2) else { return };
    bed.start();
    bed.put(bed.slice(1, &[1, 2]));
    bed.address_all();
    bed.ping(1, "10.77.0.2");
    let counted = allocations(|| {
        assert_eq!(bed.transfer(1, 2, "10.77.0.2", 20 << 20), 20 << 20);
        assert_eq!(bed.transfer(2, 1, "10.77.0.1", 20 << 20), 20 << 20);
    });
    assert_eq!(counted, 0);
}

/// Bulk TCP between two hosts, both ways, joined and cut; probes go on meanwhile.
fn hosts() {
    let Some(mut mesh) = Mesh::with_namespaces("allocmesh", 20, 2, 2) else { return };
    mesh.put_devices(&[0, 1]);
    let bed = &mesh.hosts[0];
    bed.address_all();
    bed.ping(1, "10.77.0.2");
    bed.ping(1, "fd77::2");
    // Both agents' workers have one name: whichever is found sends in one direction and receives in the other.
    let counted = allocations(|| {
        assert_eq!(bed.transfer(1, 2, "10.77.0.2", 20 << 20), 20 << 20);
        assert_eq!(bed.transfer(2, 1, "fd77::1", 20 << 20), 20 << 20);
    });
    assert_eq!(counted, 0);
}
