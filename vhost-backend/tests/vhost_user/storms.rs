//! Memory and rings that change as fast as a VMM can, while a worker carries frames.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use vhost::vhost_user::message::FrontendReq as Request;
use vhost_backend::Store;

use crate::front_ends::qemu_7_2;
use crate::guest::{DIMM, Guest, RAM};
use crate::plugged::Plugged;
use crate::vmm::{DRIVER, PROTOCOL, Vmm, dimm, number, ring, table};

/// Ends what others loop for, also when this thread panics.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A worker carries frames between the guest's rings and the driver checks each, while the VMM does `storm`.
fn under_traffic(storm: impl FnOnce(&mut Vmm, &Guest)) {
    let plugged = Plugged::new(1);
    let mut driver = Guest::new(1);
    let mut vmm = Vmm::connect(&plugged.socket());
    qemu_7_2(&mut vmm, &driver, DRIVER);
    plugged.until_running();
    // The VMM's view of the same memory and descriptors.
    let view = driver.view();
    let over = AtomicBool::new(false);
    let carried = AtomicU64::new(0);
    let is_over = || over.load(Ordering::Relaxed);
    let until_carried = |count: u64| {
        while carried.load(Ordering::Relaxed) < count && !is_over() {
            std::thread::yield_now();
        }
    };
    std::thread::scope(|scope| {
        let end = Over(&over);
        let worker = scope.spawn(|| {
            let _end = Over(&over);
            let mut store = Store::new();
            while !is_over() {
                plugged.turn_around(0, &mut store);
                std::thread::yield_now();
            }
        });
        let guest = scope.spawn(|| {
            let _end = Over(&over);
            let (mut sent, mut expected) = (0u64, 0u64);
            while !is_over() {
                driver.offer_all(0);
                if driver.unsent(0) < 64 {
                    driver.send(0, &numbered(sent));
                    sent += 1;
                }
                while let Some(frame) = driver.receive(0) {
                    // In order, none twice, none damaged; some were lost while the receive ring was stopped.
                    let number = u64::from_le_bytes(frame[..8].try_into().unwrap());
                    assert!(number >= expected, "{number} after {expected}");
                    assert!(frame == numbered(number), "frame {number} is damaged");
                    expected = number + 1;
                    carried.fetch_add(1, Ordering::Relaxed);
                }
                std::thread::yield_now();
            }
            sent
        });
        until_carried(1000);
        storm(&mut vmm, &view);
        let state = plugged.until_running();
        assert!(state.rings.iter().all(|ring| ring.faults == 0), "{state:?}");
        until_carried(carried.load(Ordering::Relaxed) + 1000);
        drop(end);
        worker.join().unwrap();
        assert!(guest.join().unwrap() > 2000);
    });
}

/// A frame that says which it is, and is filled and sized accordingly.
fn numbered(number: u64) -> Vec<u8> {
    let mut frame = vec![number as u8; 60 + (number % 1400) as usize];
    frame[..8].copy_from_slice(&number.to_le_bytes());
    frame
}

#[test]
fn rings_stop_and_go_hundreds_of_times_and_no_frame_is_damaged_or_doubled() {
    under_traffic(|vmm, guest| {
        for _ in 0..150 {
            let bases = vmm.stop(guest);
            (0..2).for_each(|index| vmm.set_ring(guest, index, bases[index]));
        }
    });
}

#[test]
fn memory_tables_change_hundreds_of_times_under_load() {
    under_traffic(|vmm, guest| {
        for round in 0..300 {
            let (regions, fds) = match round % 3 {
                0 => (vec![RAM, DIMM], vec![guest.ram.as_fd(), guest.dimm.as_fd()]),
                1 => (vec![DIMM, RAM], vec![guest.dimm.as_fd(), guest.ram.as_fd()]),
                _ => (vec![RAM], vec![guest.ram.as_fd()]),
            };
            assert_eq!(vmm.order(Request::SET_MEM_TABLE, &table(&regions), &fds), Some(0));
        }
    });
}

#[test]
fn memory_regions_come_and_go_hundreds_of_times_under_load() {
    under_traffic(|vmm, guest| {
        for _ in 0..200 {
            assert_eq!(vmm.order(Request::ADD_MEM_REG, &dimm(), &[guest.dimm.as_fd()]), Some(0));
            assert_eq!(vmm.order(Request::REM_MEM_REG, &dimm(), &[]), Some(0));
        }
    });
}

#[test]
fn rings_are_disabled_and_features_set_again_under_load() {
    under_traffic(|vmm, _| {
        for round in 0..300 {
            assert_eq!(vmm.order(Request::SET_VRING_ENABLE, &ring(round % 2, 0), &[]), Some(0));
            let features = DRIVER | PROTOCOL | if round % 2 == 0 { 1 << 29 } else { 0 };
            // Harmless for this driver: it neither reads nor writes event indexes, and looks without being interrupted.
            assert_eq!(vmm.order(Request::SET_FEATURES, &number(features), &[]), Some(0));
            assert_eq!(vmm.order(Request::SET_VRING_ENABLE, &ring(round % 2, 1), &[]), Some(0));
        }
    });
}
