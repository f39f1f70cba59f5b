//! Connections that come, go, overlap and break off.

use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use vhost::vhost_user::message::FrontendReq as Request;
use vhost_backend::{Port, PortConfig, Role};

use crate::front_ends::{frames_pass, qemu_7_2};
use crate::guest::{Guest, RAM, fd_of};
use crate::plugged::Plugged;
use crate::vmm::{ALL, DRIVER, PROTOCOL, Vmm, address, message, number, ring, table};

/// One message or more of a VMM that starts.
type Step<'a> = &'a dyn Fn(&mut Vmm, &Guest);

#[test]
fn a_vmm_may_vanish_at_any_point_and_the_next_one_is_served() {
    let plugged = Plugged::new(1);
    let mut guest = Guest::new(1);
    let steps: &[Step<'_>] = &[
        &|vmm, _| vmm.negotiate(ALL),
        &|vmm, _| assert!(vmm.tell(Request::SET_VRING_ENABLE, &ring(0, 1), &[])),
        &|vmm, _| assert!(vmm.tell(Request::SET_FEATURES, &number(DRIVER | PROTOCOL), &[])),
        &|vmm, guest| assert!(vmm.tell(Request::SET_MEM_TABLE, &table(&[RAM]), &[guest.ram.as_fd()])),
        &|vmm, _| assert!(vmm.tell(Request::SET_VRING_NUM, &ring(0, 256), &[])),
        &|vmm, guest| assert!(vmm.tell(Request::SET_VRING_ADDR, &address(guest, 0), &[])),
        &|vmm, guest| assert!(vmm.tell(Request::SET_VRING_KICK, &number(0), &[fd_of(&guest.ring(0).kick)])),
        &|vmm, guest| assert!(vmm.tell(Request::SET_VRING_CALL, &number(0), &[fd_of(&guest.ring(0).call)])),
        &|vmm, guest| vmm.start(guest, &[]),
        &|vmm, guest| drop(vmm.stop(guest)),
        &|vmm, _| assert!(vmm.raw(&message(1, 1, &[])[..7], &[])),
    ];
    for until in 0..=steps.len() {
        let mut vmm = Vmm::connect(&plugged.socket());
        steps[..until].iter().for_each(|step| step(&mut vmm, &guest));
        drop(vmm);
        plugged.until(|state| !state.connected && state.connects == until as u64 + 1);
        let state = plugged.port.state();
        assert!(state.rings.iter().all(|ring| !ring.running && ring.fault.is_none()), "{state:?}");
        assert_eq!((state.features, state.memory_regions), (0, 0));
    }
    let mut vmm = Vmm::connect(&plugged.socket());
    guest.reboot();
    qemu_7_2(&mut vmm, &guest, DRIVER);
    plugged.until_running();
    frames_pass(&plugged, &mut guest);
    let ends = plugged.port.state().ends;
    assert_eq!((ends["hung-up"], ends["truncated"], ends.len()), (steps.len() as u64, 1, 2));
}

#[test]
fn a_second_vmm_is_turned_away_while_one_is_attached() {
    let plugged = Plugged::new(1);
    let mut guest = Guest::new(1);
    let mut first = Vmm::connect(&plugged.socket());
    qemu_7_2(&mut first, &guest, DRIVER);
    plugged.until_running();
    for count in 1..=3 {
        let mut second = Vmm::connect(&plugged.socket());
        assert!(second.is_hung_up());
        plugged.until(|state| state.turned_away == count);
    }
    frames_pass(&plugged, &mut guest);
    assert_eq!(plugged.port.state().connects, 1);
}

#[test]
fn a_vmm_that_restarts_is_never_turned_away_for_its_own_old_connection() {
    let plugged = Plugged::new(1);
    let guest = Guest::new(1);
    for _ in 0..20 {
        let mut vmm = Vmm::connect(&plugged.socket());
        qemu_7_2(&mut vmm, &guest, DRIVER);
        // No waiting in between: the next connection is made while this one is still being taken down.
        drop(vmm);
    }
    let mut vmm = Vmm::connect(&plugged.socket());
    vmm.negotiate(ALL);
    let state = plugged.port.state();
    assert_eq!((state.connects, state.turned_away), (21, 0));
}

#[test]
fn closing_is_prompt_whatever_the_connection_does() {
    let states: &[&dyn Fn(&mut Vmm)] = &[
        &|_| {},
        &|vmm| assert!(vmm.raw(&message(2, 1, &number(0))[..15], &[])),
        &|vmm| vmm.negotiate(ALL),
        &|vmm| qemu_7_2(vmm, &Guest::new(1), DRIVER),
    ];
    for state in states {
        let plugged = Plugged::new(1);
        let mut vmm = Vmm::connect(&plugged.socket());
        state(&mut vmm);
        plugged.until(|state| state.connected);
        let start = Instant::now();
        plugged.port.close();
        assert!(start.elapsed() < Duration::from_secs(2));
        assert!(vmm.is_hung_up());
        assert!(!plugged.socket().exists());
        assert!(!plugged.port.state().connected);
        assert!(plugged.port.tx(0).enter().is_none() && plugged.port.rx(0).enter().is_none());
        plugged.port.close();
    }
    for role in [Role::Server, Role::Client] {
        let plugged = Plugged::with(1, |config| config.role = role);
        let start = Instant::now();
        plugged.port.close();
        assert!(start.elapsed() < Duration::from_secs(2));
    }
}

#[test]
fn many_ports_live_in_one_process_and_go_one_by_one() {
    let mut ports: Vec<_> = (0..12)
        .map(|_| {
            let (plugged, guest) = (Plugged::new(1), Guest::new(1));
            let mut vmm = Vmm::connect(&plugged.socket());
            qemu_7_2(&mut vmm, &guest, DRIVER);
            plugged.until_running();
            (plugged, guest, vmm)
        })
        .collect();
    while let Some((gone, _, mut vmm)) = ports.pop() {
        gone.port.close();
        assert!(vmm.is_hung_up());
        if ports.len() % 4 == 0 {
            for (plugged, guest, _) in &mut ports {
                frames_pass(plugged, guest);
            }
        }
    }
}

#[test]
fn a_closed_port_leaves_a_socket_file_of_somebody_else_alone() {
    let plugged = Plugged::new(1);
    std::fs::remove_file(plugged.socket()).unwrap();
    let _theirs = std::os::unix::net::UnixListener::bind(plugged.socket()).unwrap();
    plugged.port.close();
    assert!(plugged.socket().exists());
}

#[test]
fn a_port_that_makes_no_sense_is_refused_with_the_number() {
    let refused = |adjust: fn(&mut PortConfig)| {
        let plugged = Plugged::new(1);
        let mut config = plugged.port.config().clone();
        config.socket = plugged.dir.path().join("other.sock");
        adjust(&mut config);
        Port::open(config, plugged.watch.clone()).unwrap_err().to_string()
    };
    assert!(refused(|config| config.queue_pairs = 0).contains("0 queue pairs, 1 to 16"));
    assert!(refused(|config| config.queue_pairs = 17).contains("17 queue pairs"));
    assert!(refused(|config| config.mtu = 67).contains("MTU 67"));
    assert!(refused(|config| config.mac[0] = 3).contains("group address"));
    assert!(refused(|config| config.socket.set_file_name("port.sock")).contains("somebody listens"));
    assert!(refused(|config| config.socket = "/nonexistent/a.sock".into()).contains("No such file"));
}

#[test]
fn a_flood_is_served_slower_and_the_connection_lives() {
    let plugged = Plugged::new(1);
    let vmm = Vmm::connect(&plugged.socket());
    let mut reader = vmm.stream.try_clone().unwrap();
    let drain = std::thread::spawn(move || {
        let mut replies = vec![0; 3000 * 20];
        reader.read_exact(&mut replies).unwrap();
    });
    (0..3000).for_each(|_| assert!(send_all(&vmm.stream, &message(1, 1, &[]))));
    drain.join().unwrap();
    let state = plugged.port.state();
    assert!(state.connected && state.throttled >= 1, "{state:?}");
}

fn send_all(mut stream: &UnixStream, bytes: &[u8]) -> bool {
    use std::io::Write;
    stream.write_all(bytes).is_ok()
}
