//! What no VMM should send: each ends that connection, by name, and harms nothing else.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use vhost::vhost_user::message::FrontendReq as Request;
use vhost_backend::RingFault;

use crate::front_ends::{frames_pass, qemu_7_2};
use crate::guest::{DIMM, Guest, RAM, USER, fd_of, memfd};
use crate::plugged::Plugged;
use crate::vmm::{ALL, DRIVER, PROTOCOL, Vmm, address, dimm, message, number, ring, table};

/// A connection that has negotiated everything gets `attack`; how it ended.
fn end_of(attack: impl FnOnce(&mut Vmm, &Guest)) -> &'static str {
    let plugged = Plugged::new(1);
    let guest = Guest::new(1);
    let mut vmm = Vmm::connect(&plugged.socket());
    vmm.negotiate(ALL);
    attack(&mut vmm, &guest);
    while !vmm.is_hung_up() {}
    let state = plugged.until(|state| !state.connected);
    assert!(state.last_end.is_some_and(|end| !end.is_empty()));
    let ends: Vec<_> = state.ends.into_iter().collect();
    assert_eq!(ends.len(), 1);
    assert_eq!(ends[0].1, 1);
    ends[0].0
}

fn end_of_message(request: Request, body: &[u8], fds: &[BorrowedFd<'_>]) -> &'static str {
    end_of(|vmm, _| assert!(vmm.tell(request, body, fds)))
}

#[test]
fn a_header_that_makes_no_sense() {
    let raw = |bytes: Vec<u8>| end_of(move |vmm, _| assert!(vmm.raw(&bytes, &[])));
    assert_eq!(raw(message(0, 1, &[])), "unknown-request");
    assert_eq!(raw(message(999, 1, &[])), "unknown-request");
    assert_eq!(raw(message(1, 2, &[])), "flags");
    assert_eq!(raw(message(1, 5, &[])), "flags");
    assert_eq!(raw([1u32, 1, u32::MAX].iter().flat_map(|word| word.to_ne_bytes()).collect()), "oversized");
}

#[test]
fn a_payload_of_the_wrong_size() {
    assert_eq!(end_of_message(Request::SET_FEATURES, &[0; 7], &[]), "size");
    assert_eq!(end_of_message(Request::GET_FEATURES, &[0; 1], &[]), "size");
    assert_eq!(end_of_message(Request::SET_VRING_ADDR, &[0; 32], &[]), "size");
    assert_eq!(end_of_message(Request::SET_MEM_TABLE, &number(33), &[]), "size");
    assert_eq!(end_of_message(Request::GET_CONFIG, &[0xff; 12], &[]), "size");
    assert_eq!(end_of_message(Request::SET_MEM_TABLE, &number(0), &[]), "memory");
}

#[test]
fn file_descriptors_where_none_belong_or_none_where_some_do() {
    let fd = memfd(4096);
    let ten: Vec<_> = (0..10).map(|_| fd.as_fd()).collect();
    let hundred: Vec<_> = (0..100).map(|_| fd.as_fd()).collect();
    assert_eq!(end_of_message(Request::GET_FEATURES, &[], &ten[..1]), "fds");
    assert_eq!(end_of_message(Request::SET_FEATURES, &number(PROTOCOL), &ten), "fds");
    assert_eq!(end_of_message(Request::SET_VRING_KICK, &number(0), &[]), "fds");
    assert_eq!(end_of_message(Request::SET_VRING_CALL, &number(0x100), &ten[..1]), "fds");
    assert_eq!(end_of_message(Request::SET_MEM_TABLE, &table(&[RAM, DIMM]), &ten[..1]), "fds");
    assert_eq!(end_of_message(Request::ADD_MEM_REG, &dimm(), &ten[..2]), "fds");
    assert_eq!(end_of_message(Request::GET_FEATURES, &[], &hundred), "too-many-fds");
}

#[test]
fn requests_that_were_not_offered_or_not_negotiated() {
    assert_eq!(end_of_message(Request::IOTLB_MSG, &[0; 40], &[]), "not-offered");
    assert_eq!(end_of_message(Request::GET_INFLIGHT_FD, &[0; 24], &[]), "not-offered");
    assert_eq!(end_of_message(Request::SET_BACKEND_REQ_FD, &[], &[]), "not-offered");
    assert_eq!(end_of_message(Request::POSTCOPY_ADVISE, &[], &[]), "not-offered");
    let nothing = |request, body: &'static [u8]| {
        end_of(move |vmm, _| {
            vmm.tell(Request::SET_PROTOCOL_FEATURES, &number(0), &[]);
            vmm.tell(request, body, &[]);
        })
    };
    assert_eq!(nothing(Request::GET_QUEUE_NUM, &[]), "not-negotiated");
    assert_eq!(nothing(Request::NET_SET_MTU, &[0; 8]), "not-negotiated");
    assert_eq!(nothing(Request::RESET_DEVICE, &[]), "not-negotiated");
}

#[test]
fn features_that_were_not_offered() {
    assert_eq!(end_of_message(Request::SET_FEATURES, &number(1 << 34), &[]), "feature-bits");
    assert_eq!(end_of_message(Request::SET_FEATURES, &number(1 << 22), &[]), "feature-bits");
    assert_eq!(end_of_message(Request::SET_PROTOCOL_FEATURES, &number(1 << 12), &[]), "feature-bits");
}

#[test]
fn rings_and_values_out_of_range() {
    let guest = Guest::new(1);
    let kick = [fd_of(&guest.ring(0).kick)];
    assert_eq!(end_of_message(Request::SET_VRING_NUM, &ring(2, 256), &[]), "ring");
    assert_eq!(end_of_message(Request::GET_VRING_BASE, &ring(usize::MAX, 0), &[]), "ring");
    assert_eq!(end_of_message(Request::SET_VRING_KICK, &number(2), &kick), "ring");
    assert_eq!(end_of_message(Request::SET_VRING_NUM, &ring(0, 0), &[]), "value");
    assert_eq!(end_of_message(Request::SET_VRING_NUM, &ring(0, 255), &[]), "value");
    assert_eq!(end_of_message(Request::SET_VRING_NUM, &ring(0, 65536), &[]), "value");
    assert_eq!(end_of_message(Request::SET_VRING_BASE, &ring(0, 65536), &[]), "value");
    assert_eq!(end_of_message(Request::SET_VRING_ENABLE, &ring(0, 2), &[]), "value");
    assert_eq!(end_of_message(Request::SET_VRING_KICK, &number(1 << 9), &kick), "value");
}

#[test]
fn memory_that_overlaps_overflows_is_not_there_or_could_stall_us() {
    let regions = |fields: [u64; 4]| {
        let body = [1].iter().chain(&fields).flat_map(|field: &u64| field.to_ne_bytes()).collect::<Vec<_>>();
        let fd = memfd(1 << 20);
        end_of_message(Request::SET_MEM_TABLE, &body, &[fd.as_fd()])
    };
    assert_eq!(regions([0, 0, 0, 0]), "memory");
    assert_eq!(regions([u64::MAX, 4096, 0, 0]), "memory");
    assert_eq!(regions([0, 4096, u64::MAX, 0]), "memory");
    assert_eq!(regions([0, 4096, 0, u64::MAX]), "memory");
    assert_eq!(regions([0, 17 << 40, 0, 0]), "memory");
    assert_eq!(regions([0, 2 << 20, 0, 0]), "memory");
    // Not at a page: the system refuses to map it.
    assert_eq!(regions([0, 4096, 0, 1]), "refused");
    let fd = memfd(RAM.1);
    let overlap = [RAM, (RAM.0 + 4096, 4096)];
    assert_eq!(
        end_of_message(Request::SET_MEM_TABLE, &table(&overlap), &[fd.as_fd(), fd.as_fd()]),
        "refused"
    );
    let (pipe, _other) = rustix::pipe::pipe().unwrap();
    assert_eq!(end_of_message(Request::ADD_MEM_REG, &dimm(), &[pipe.as_fd()]), "memory");
    assert_eq!(end_of_message(Request::REM_MEM_REG, &dimm(), &[]), "refused");
}

#[test]
fn more_memory_regions_than_slots() {
    let end = end_of(|vmm, _| {
        let page = memfd(4096);
        let add = |vmm: &mut Vmm, at: u64| {
            let fields = [0, at << 12, 4096, at << 12, 0];
            let body: Vec<u8> = fields.iter().flat_map(|field: &u64| field.to_ne_bytes()).collect();
            vmm.order(Request::ADD_MEM_REG, &body, &[page.as_fd()])
        };
        (0..509).for_each(|at| assert_eq!(add(vmm, at), Some(0)));
        assert_eq!(add(vmm, 509), None);
    });
    assert_eq!(end, "memory");
}

#[test]
fn a_dirty_log_that_could_shrink_or_is_too_short() {
    let body = [number(4096), number(0)].concat();
    let open = rustix::fs::memfd_create("log", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&open, 4096).unwrap();
    assert_eq!(end_of_message(Request::SET_LOG_BASE, &body, &[open.as_fd()]), "memory");
    assert_eq!(end_of_message(Request::SET_LOG_BASE, &body, &[memfd(4095).as_fd()]), "memory");
    // Too short for the memory that is there: the crate refuses.
    let end = end_of(|vmm, guest| {
        vmm.tell(Request::SET_MEM_TABLE, &table(&[DIMM]), &[guest.dimm.as_fd()]);
        vmm.tell(Request::SET_LOG_BASE, &body, &[memfd(4096).as_fd()]);
    });
    assert_eq!(end, "refused");
}

#[test]
fn ring_addresses_outside_of_guest_memory() {
    let at = |descriptors: u64| {
        move |vmm: &mut Vmm, guest: &Guest| {
            vmm.tell(Request::SET_MEM_TABLE, &table(&[RAM]), &[guest.ram.as_fd()]);
            vmm.tell(Request::SET_VRING_NUM, &ring(0, 256), &[]);
            let mut body = address(guest, 0);
            body[8..16].copy_from_slice(&descriptors.to_ne_bytes());
            vmm.tell(Request::SET_VRING_ADDR, &body, &[]);
        }
    };
    assert_eq!(end_of(at(0)), "refused");
    assert_eq!(end_of(at(u64::MAX)), "refused");
    assert_eq!(end_of(at(RAM.0 + USER + 1)), "refused");
    let before_memory = |vmm: &mut Vmm, guest: &Guest| {
        vmm.tell(Request::SET_VRING_ADDR, &address(guest, 0), &[]);
    };
    assert_eq!(end_of(before_memory), "refused");
}

#[test]
fn a_refusal_is_told_to_a_vmm_that_asks_before_the_connection_ends() {
    let end = end_of(|vmm, _| assert_eq!(vmm.order(Request::REM_MEM_REG, &dimm(), &[]), Some(1)));
    assert_eq!(end, "refused");
}

#[test]
fn a_kick_that_is_no_eventfd_is_a_fault_of_that_ring_alone() {
    let plugged = Plugged::new(1);
    let guest = Guest::new(1);
    let mut vmm = Vmm::connect(&plugged.socket());
    qemu_7_2(&mut vmm, &guest, DRIVER);
    plugged.until_running();
    let (pipe, _other): (OwnedFd, _) = rustix::pipe::pipe().unwrap();
    vmm.tell(Request::SET_VRING_CALL, &number(1), &[pipe.as_fd()]);
    let state = plugged.until(|state| state.rings[1].fault.is_some());
    assert_eq!(state.rings[1].fault, Some(RingFault::NotAnEventFd));
    assert!(state.rings[0].running && state.connected && !state.link_up);
}

#[test]
fn a_broken_ring_is_shown_and_forgiven_when_it_is_stopped() {
    let plugged = Plugged::new(2);
    let mut guest = Guest::new(2);
    let mut vmm = Vmm::connect(&plugged.socket());
    qemu_7_2(&mut vmm, &guest, DRIVER);
    plugged.until_running();
    frames_pass(&plugged, &mut guest);
    // An available index that jumps by more than the ring holds.
    guest.poke(guest.ring(1).available + 2, 5000);
    let mut store = vhost_backend::Store::new();
    assert_eq!(plugged.turn_around(0, &mut store), 0);
    let state = plugged.until(|state| state.rings[1].fault.is_some());
    assert_eq!(state.rings[1].faults, 1);
    assert!(state.rings[0].running && state.rings[2].running && state.rings[3].running && state.link_up);
    let bases = vmm.stop(&guest);
    guest.poke(guest.ring(1).available + 2, guest.available_index(1));
    (0..4).for_each(|index| vmm.set_ring(&guest, index, bases[index]));
    plugged.until_running();
    frames_pass(&plugged, &mut guest);
}

#[test]
fn who_makes_mistakes_is_served_again_but_not_at_once() {
    let plugged = Plugged::new(1);
    let mut guest = Guest::new(1);
    for count in 1..=3 {
        let mut vmm = Vmm::connect(&plugged.socket());
        vmm.raw(&message(999, 1, &[]), &[]);
        assert!(vmm.is_hung_up());
        plugged.until(|state| state.ends.get("unknown-request") == Some(&count));
    }
    let mut vmm = Vmm::connect(&plugged.socket());
    qemu_7_2(&mut vmm, &guest, DRIVER);
    plugged.until_running();
    frames_pass(&plugged, &mut guest);
}
