//! Connections leave nothing behind: counted in a process of its own, where nothing else happens.

use std::process::Command;

use crate::front_ends::{frames_pass, qemu_7_2};
use crate::guest::Guest;
use crate::plugged::Plugged;
use crate::vmm::{DRIVER, Vmm, message};

const ALONE: &str = "VHOST_USER_TEST_ALONE";

/// Open descriptors, threads, and mappings of shared memory files.
fn held() -> (usize, usize, usize) {
    let count = |dir: &str| std::fs::read_dir(dir).unwrap().count();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    (count("/proc/self/fd"), count("/proc/self/task"), maps.matches("/memfd:").count())
}

#[test]
fn two_hundred_connections_leave_no_descriptor_thread_or_mapping() {
    if std::env::var_os(ALONE).is_none() {
        let name = "leaks::two_hundred_connections_leave_no_descriptor_thread_or_mapping";
        let mut command = Command::new(std::env::current_exe().unwrap());
        let output = command.args(["--exact", name, "--nocapture"]).env(ALONE, "1").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
        return;
    }
    let plugged = Plugged::new(2);
    let mut guest = Guest::new(2);
    let mut round = |count: u64| {
        let mut vmm = Vmm::connect(&plugged.socket());
        guest.reboot();
        qemu_7_2(&mut vmm, &guest, DRIVER);
        plugged.until_running();
        frames_pass(&plugged, &mut guest);
        // Some leave in the middle of a message that already carried a descriptor.
        if count % 10 == 0 {
            vmm.raw(&message(12, 1, &[0; 8])[..15], &[crate::guest::fd_of(&guest.ring(0).kick)]);
        }
        drop(vmm);
        plugged.until(|state| !state.connected && state.connects == count);
    };
    (1..=10).for_each(&mut round);
    let before = held();
    (11..=200).for_each(&mut round);
    assert_eq!(held(), before);

    plugged.port.close();
    let after = held();
    // The port's own: listener, alarm, thread.
    assert_eq!((before.0 - after.0, before.1 - after.1, before.2 - after.2), (1, 1, 0));
}
