//! Connections leave nothing behind: counted in a process of its own, where nothing else happens.

use std::os::unix::net::UnixListener;
use std::process::Command;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketType};
use rustix::process::{Resource, Rlimit};
use vhost::vhost_user::message::FrontendReq as Request;
use vhost_backend::Role;

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

/// [`held`] once the last connection's threads have ended: the same twice, some milliseconds apart.
fn held_at_rest(plugged: &Plugged) -> (usize, usize, usize) {
    plugged.until(|state| !state.connected);
    let mut last = held();
    for _ in 0..250 {
        std::thread::sleep(std::time::Duration::from_millis(20));
        let now = held();
        if now == last {
            return now;
        }
        last = now;
    }
    panic!("descriptors, threads and mappings keep changing: {last:?}");
}

/// Runs `test`, which is called `name`, where no other test runs.
fn alone(name: &str, test: impl FnOnce()) {
    if std::env::var_os(ALONE).is_some() {
        return test();
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    let output = command.args(["--exact", name, "--nocapture"]).env(ALONE, "1").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{name} did not run");
}

/// One VMM that starts its guest, sees frames pass and goes, now and then in the middle of a message with a descriptor.
fn visit(plugged: &Plugged, guest: &mut Guest, mut vmm: Vmm, count: u64) {
    guest.reboot();
    qemu_7_2(&mut vmm, guest, DRIVER);
    plugged.until_running();
    frames_pass(plugged, guest);
    if count.is_multiple_of(10) {
        vmm.raw(&message(12, 1, &[0; 8])[..15], &[crate::guest::fd_of(&guest.ring(0).kick)]);
    }
    drop(vmm);
    plugged.until(|state| !state.connected && state.connects == count);
}

#[test]
fn connections_to_a_server_leave_no_descriptor_thread_or_mapping() {
    alone("leaks::connections_to_a_server_leave_no_descriptor_thread_or_mapping", || {
        let plugged = Plugged::new(2);
        let mut guest = Guest::new(2);
        let mut round = |count| visit(&plugged, &mut guest, Vmm::connect(&plugged.socket()), count);
        (1..=10).for_each(&mut round);
        let before = held_at_rest(&plugged);
        (11..=300).for_each(&mut round);
        assert_eq!(held_at_rest(&plugged), before);
        plugged.port.close();
        let after = held();
        // The port's own: its listener and its thread.
        assert_eq!((before.0 - after.0, before.1 - after.1, before.2 - after.2), (1, 1, 0));
    });
}

#[test]
fn connections_of_a_client_leave_no_descriptor_thread_or_mapping() {
    alone("leaks::connections_of_a_client_leave_no_descriptor_thread_or_mapping", || {
        let plugged = Plugged::with(1, |config| config.role = Role::Client);
        let mut guest = Guest::new(1);
        let listener = UnixListener::bind(plugged.socket()).unwrap();
        let mut round = |count| visit(&plugged, &mut guest, Vmm::over(listener.accept().unwrap().0), count);
        (1..=3).for_each(&mut round);
        let before = held_at_rest(&plugged);
        (4..=9).for_each(&mut round);
        assert_eq!(held_at_rest(&plugged), before);
    });
}

#[test]
fn ports_that_come_and_go_with_a_vmm_attached_leave_nothing() {
    alone("leaks::ports_that_come_and_go_with_a_vmm_attached_leave_nothing", || {
        let mut guest = Guest::new(1);
        let mut round = || {
            let plugged = Plugged::new(1);
            let mut vmm = Vmm::connect(&plugged.socket());
            guest.reboot();
            qemu_7_2(&mut vmm, &guest, DRIVER);
            plugged.until_running();
        };
        round();
        let before = held();
        (0..50).for_each(|_| round());
        assert_eq!(held(), before);
    });
}

#[test]
fn a_process_without_free_descriptors_refuses_connections_and_recovers() {
    alone("leaks::a_process_without_free_descriptors_refuses_connections_and_recovers", || {
        let limit = rustix::process::getrlimit(Resource::Nofile);
        let allow = |current| {
            rustix::process::setrlimit(Resource::Nofile, Rlimit { current, ..limit }).unwrap();
        };
        // One after the other, everything that a connection needs a descriptor for fails.
        let mut served = Vec::new();
        for free in 0..12 {
            let plugged = Plugged::new(1);
            let mut guest = Guest::new(1);
            let stream = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
            let before = held();
            // Reading the directory took one of those counted.
            allow(Some(before.0 as u64 - 1 + free));
            rustix::net::connect(&stream, &SocketAddrUnix::new(plugged.socket()).unwrap()).unwrap();
            let mut vmm = Vmm::over(stream.into());
            if free > 0 {
                plugged.until(|state| state.connects == 1);
            }
            let refused = {
                vmm.tell(Request::GET_FEATURES, &[], &[]);
                free > 0 && vmm.reply(Request::GET_FEATURES).is_none()
            };
            allow(limit.current);
            drop(vmm);
            let state =
                plugged.until(|state| state.connects == 1 && !state.connected && !state.ends.is_empty());
            // One may also be answered first and run out of descriptors a moment later.
            assert!(!refused || state.ends.contains_key("io"), "{state:?}");
            served.push(!refused);
            visit(&plugged, &mut guest, Vmm::connect(&plugged.socket()), 2);
            let after = held();
            assert_eq!((after.1, after.2), (before.1, before.2));
            // The VMM's socket is gone.
            assert_eq!(after.0, before.0 - 1);
        }
        // With none free the connection waits in the queue until there are some again.
        assert!(served[0] && served[1..].is_sorted(), "{served:?}");
        assert!(!served[5] && served[11], "{served:?}");
    });
}
