//! Live migration: every page that we write while the log is on is in the log.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

use vhost::vhost_user::message::FrontendReq as Request;
use vhost_backend::Store;

use crate::front_ends::qemu_7_2;
use crate::guest::{DIMM, Guest, memfd};
use crate::plugged::Plugged;
use crate::vmm::{DRIVER, LOG_ALL, PROTOCOL, Vmm, address, dimm, number};

/// One bit for each page up to the end of [`DIMM`].
struct Log(OwnedFd);

impl Log {
    const SIZE: u64 = (DIMM.0 + DIMM.1) / 4096 / 8;

    fn new() -> Self {
        Log(memfd(Self::SIZE))
    }

    fn set(&self, vmm: &mut Vmm) {
        let body = [number(Self::SIZE), number(0)].concat();
        vmm.tell(Request::SET_LOG_BASE, &body, &[self.0.as_fd()]);
        assert_eq!(vmm.reply(Request::SET_LOG_BASE).unwrap(), body);
    }

    fn has(&self, address: u64) -> bool {
        let mut byte = [0; 1];
        let file = std::fs::File::from(self.0.try_clone().unwrap());
        file.read_exact_at(&mut byte, address / 4096 / 8).unwrap();
        byte[0] >> (address / 4096 % 8) & 1 == 1
    }
}

/// The guest sends itself one frame into a buffer at `to`.
fn one_frame(plugged: &Plugged, guest: &mut Guest, to: u64) {
    guest.offer_at(0, to);
    guest.send(0, &[7; 100]);
    assert_eq!(plugged.turn_around(0, &mut Store::new()), 1);
    assert_eq!(guest.receive(0), Some(vec![7; 100]));
}

#[test]
fn pages_written_while_the_log_is_on_are_marked_and_others_are_not() {
    let plugged = Plugged::new(1);
    let mut guest = Guest::new(1);
    let mut vmm = Vmm::connect(&plugged.socket());
    qemu_7_2(&mut vmm, &guest, DRIVER);
    plugged.until_running();
    let buffer = |n: u64| 0x50_0000 + n * 0x1_0000;
    let (receive_used, transmit_used) = (guest.ring(0).used, guest.ring(1).used);

    let log = Log::new();
    log.set(&mut vmm);
    one_frame(&plugged, &mut guest, buffer(0));
    assert!(!log.has(buffer(0)), "not switched on yet");

    // As QEMU does it: on live rings, addresses again with the log flag.
    assert_eq!(vmm.order(Request::SET_FEATURES, &number(DRIVER | PROTOCOL | LOG_ALL), &[]), Some(0));
    for index in 0..2 {
        let mut body = address(&guest, index);
        body[4] = 1;
        body[32..40].copy_from_slice(&guest.ring(index).used.to_ne_bytes());
        assert_eq!(vmm.order(Request::SET_VRING_ADDR, &body, &[]), Some(0));
    }
    one_frame(&plugged, &mut guest, buffer(1));
    assert!(log.has(buffer(1)) && log.has(receive_used) && log.has(transmit_used));
    assert!(!log.has(buffer(0)) && !log.has(buffer(2)));

    // Another log takes the old one's place.
    let second = Log::new();
    second.set(&mut vmm);
    one_frame(&plugged, &mut guest, buffer(2));
    assert!(second.has(buffer(2)) && second.has(receive_used));
    assert!(!log.has(buffer(2)));

    // The migration failed: off again.
    assert_eq!(vmm.order(Request::SET_FEATURES, &number(DRIVER | PROTOCOL), &[]), Some(0));
    one_frame(&plugged, &mut guest, buffer(3));
    assert!(!second.has(buffer(3)));
}

#[test]
fn memory_that_comes_during_a_migration_is_logged_from_its_first_write() {
    let plugged = Plugged::new(1);
    let mut guest = Guest::new(1);
    let mut vmm = Vmm::connect(&plugged.socket());
    qemu_7_2(&mut vmm, &guest, DRIVER);
    plugged.until_running();
    let log = Log::new();
    log.set(&mut vmm);
    assert_eq!(vmm.order(Request::SET_FEATURES, &number(DRIVER | PROTOCOL | LOG_ALL), &[]), Some(0));
    assert_eq!(vmm.order(Request::ADD_MEM_REG, &dimm(), &[guest.dimm.as_fd()]), Some(0));
    plugged.until_running();
    one_frame(&plugged, &mut guest, DIMM.0 + 0x3000);
    assert!(log.has(DIMM.0 + 0x3000) && log.has(guest.ring(0).used));
    assert!(!log.has(DIMM.0 + 0x4000));
    one_frame(&plugged, &mut guest, 0x50_0000);
    assert!(log.has(0x50_0000));
}

#[test]
fn the_destination_goes_on_with_the_indexes_of_the_source() {
    let (source, destination) = (Plugged::new(1), Plugged::new(1));
    let mut guest = Guest::new(1);
    let mut vmm = Vmm::connect(&source.socket());
    qemu_7_2(&mut vmm, &guest, DRIVER);
    source.until_running();
    for n in 0..100 {
        one_frame(&source, &mut guest, 0x50_0000 + n * 2048);
    }
    let bases = vmm.stop(&guest);
    assert_eq!(bases, [100, 100]);
    let mut arrived = Vmm::connect(&destination.socket());
    arrived.negotiate(crate::vmm::ALL);
    arrived.tell(Request::SET_FEATURES, &number(DRIVER | PROTOCOL), &[]);
    arrived.start(&guest, &bases);
    destination.until_running();
    one_frame(&destination, &mut guest, 0x50_0000);
}
