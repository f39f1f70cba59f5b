//! The message order of each front end, from the first message to frames passing.

use std::os::fd::AsFd;
use std::os::fd::AsRawFd;

use vhost::vhost_user::message::{FrontendReq as Request, VhostUserHeaderFlag, VhostUserProtocolFeatures};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vhost_backend::{Role, Store, features};

use crate::guest::{DIMM, Guest, RAM, SIZE, USER, fd_of, memfd};
use crate::plugged::Plugged;
use crate::vmm::{self, ALL, DRIVER, PROTOCOL, REPLY_ACK, Vmm, address, dimm, number, ring, table};

/// Frames go to the switch and back on every pair, each unchanged.
pub(crate) fn frames_pass(plugged: &Plugged, guest: &mut Guest) {
    let mut store = Store::new();
    for pair in 0..plugged.port.pairs() {
        let at = usize::from(pair);
        guest.offer_all(at);
        for len in [14, 60, 200, 1514] {
            let frame: Vec<u8> = (0..len).map(|byte| byte as u8 ^ pair as u8).collect();
            guest.send(at, &frame);
            assert_eq!(plugged.turn_around(pair, &mut store), 1);
            assert_eq!(guest.receive(at), Some(frame));
            assert_eq!(guest.unsent(at), 0);
        }
    }
}

/// QEMU 7.2 from the connection to the driver's DRIVER_OK (hw/virtio/vhost-user.c, hw/net/vhost_net.c, net/vhost-user.c).
pub(crate) fn qemu_7_2(vmm: &mut Vmm, guest: &Guest, features: u64) {
    let pairs = guest.rings() / 2;
    for pair in 0..pairs {
        vmm.ask_number(Request::GET_FEATURES);
        let protocol = vmm.ask_number(Request::GET_PROTOCOL_FEATURES) & ALL & !vmm::CONFIG;
        vmm.tell(Request::SET_PROTOCOL_FEATURES, &number(protocol), &[]);
        assert!(vmm.ask_number(Request::GET_QUEUE_NUM) >= pairs as u64);
        assert_eq!(vmm.ask_number(Request::GET_MAX_MEM_SLOTS), 509);
        if pair == 0 {
            vmm.tell(Request::SET_OWNER, &[], &[]);
        }
        vmm.ask_number(Request::GET_FEATURES);
        for index in [pair * 2, pair * 2 + 1] {
            vmm.tell(Request::SET_VRING_CALL, &number(index as u64), &[fd_of(&guest.ring(index).call)]);
        }
    }
    // At realize and reset: before any SET_FEATURES.
    for index in 0..guest.rings() {
        vmm.tell(Request::SET_VRING_ENABLE, &ring(index, u32::from(index < 2)), &[]);
    }
    for pair in 0..pairs {
        for index in [pair * 2, pair * 2 + 1] {
            vmm.tell(Request::SET_VRING_ENABLE, &ring(index, 1), &[]);
        }
        vmm.tell(Request::SET_FEATURES, &number(features | PROTOCOL), &[]);
        // Once for every pair, all the same.
        let add = [number(0).to_vec(), table(&[RAM])[8..].to_vec()].concat();
        assert_eq!(vmm.order(Request::ADD_MEM_REG, &add, &[guest.ram.as_fd()]), Some(0));
        for index in [pair * 2, pair * 2 + 1] {
            vmm.tell(Request::SET_VRING_NUM, &ring(index, SIZE.into()), &[]);
            vmm.tell(Request::SET_VRING_BASE, &ring(index, 0), &[]);
            assert_eq!(vmm.order(Request::SET_VRING_ADDR, &address(guest, index), &[]), Some(0));
            vmm.tell(Request::SET_VRING_KICK, &number(index as u64), &[fd_of(&guest.ring(index).kick)]);
            vmm.tell(Request::SET_VRING_CALL, &number(index as u64), &[fd_of(&guest.ring(index).call)]);
        }
    }
}

#[test]
fn qemu_enables_rings_before_it_sets_features_and_frames_pass() {
    for pairs in [1, 4] {
        let plugged = Plugged::new(pairs);
        let mut guest = Guest::new(pairs);
        let mut vmm = Vmm::connect(&plugged.socket());
        qemu_7_2(&mut vmm, &guest, DRIVER);
        let state = plugged.until_running();
        assert!(state.connected && state.link_up);
        assert_eq!(state.features, DRIVER | PROTOCOL);
        assert_eq!((state.memory_regions, state.memory_bytes), (1, RAM.1));
        frames_pass(&plugged, &mut guest);
    }
}

#[test]
fn memory_that_is_added_for_every_queue_pair_goes_when_the_last_pair_removes_it() {
    let plugged = Plugged::new(2);
    let mut guest = Guest::new(2);
    let mut vmm = Vmm::connect(&plugged.socket());
    qemu_7_2(&mut vmm, &guest, DRIVER);
    plugged.until_running();
    let regions = || plugged.port.state().memory_regions;
    for count in [2, 2] {
        assert_eq!(vmm.order(Request::ADD_MEM_REG, &dimm(), &[guest.dimm.as_fd()]), Some(0));
        assert_eq!(regions(), count);
    }
    for count in [2, 1] {
        assert_eq!(vmm.order(Request::REM_MEM_REG, &dimm(), &[]), Some(0));
        assert_eq!(regions(), count);
    }
    frames_pass(&plugged, &mut guest);
    // Another file in the same place is another region, and there is no room for it.
    let other = memfd(RAM.1);
    let add = [number(0).to_vec(), table(&[RAM])[8..].to_vec()].concat();
    assert_eq!(vmm.order(Request::ADD_MEM_REG, &add, &[other.as_fd()]), Some(1));
}

#[test]
fn a_reset_by_qemu_stops_the_rings_until_the_next_driver_sets_them_up() {
    let plugged = Plugged::new(2);
    let mut guest = Guest::new(2);
    let mut vmm = Vmm::connect(&plugged.socket());
    qemu_7_2(&mut vmm, &guest, DRIVER);
    plugged.until_running();
    for _ in 0..3 {
        frames_pass(&plugged, &mut guest);
        assert_eq!(vmm.order(Request::RESET_DEVICE, &[], &[]), Some(0));
        guest.reboot();
        for index in 0..guest.rings() {
            assert_eq!(vmm.order(Request::SET_VRING_ENABLE, &ring(index, 1), &[]), Some(0));
        }
        let state = plugged.port.state();
        assert!(!state.link_up && state.connected, "{state:?}");
        assert_eq!(state.features, 0);
        vmm.tell(Request::SET_FEATURES, &number(DRIVER | PROTOCOL), &[]);
        (0..guest.rings()).for_each(|index| vmm.set_ring(&guest, index, 0));
        plugged.until_running();
    }
}

#[test]
fn a_ring_goes_on_where_get_vring_base_left_it() {
    let plugged = Plugged::new(1);
    let mut guest = Guest::new(1);
    let mut vmm = Vmm::connect(&plugged.socket());
    qemu_7_2(&mut vmm, &guest, DRIVER);
    plugged.until_running();
    for _ in 0..3 {
        frames_pass(&plugged, &mut guest);
        let bases = vmm.stop(&guest);
        assert_eq!(bases[1], u32::from(guest.available_index(1)));
        assert_eq!(bases[0], u32::from(guest.used_index(0)));
        assert!(!plugged.port.state().link_up);
        (0..2).for_each(|index| vmm.set_ring(&guest, index, bases[index]));
        plugged.until_running();
    }
}

/// What cloud-hypervisor's `vu_common_ctrl.rs` does with the same crate.
struct CloudHypervisor(Frontend);

impl CloudHypervisor {
    fn connect(plugged: &Plugged, rings: usize) -> Self {
        let mut front = Frontend::connect(plugged.socket(), rings as u64).unwrap();
        front.set_owner().unwrap();
        front.get_features().unwrap();
        let wanted = VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS
            | VhostUserProtocolFeatures::REPLY_ACK
            | VhostUserProtocolFeatures::INFLIGHT_SHMFD
            | VhostUserProtocolFeatures::LOG_SHMFD
            | VhostUserProtocolFeatures::DEVICE_STATE;
        let protocol = front.get_protocol_features().unwrap() & wanted;
        assert!(!protocol.contains(VhostUserProtocolFeatures::INFLIGHT_SHMFD));
        front.set_protocol_features(protocol).unwrap();
        front.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        assert!(front.get_queue_num().unwrap() >= rings as u64);
        CloudHypervisor(front)
    }

    fn set_up(&mut self, guest: &Guest) {
        let front = &mut self.0;
        front.set_features(DRIVER | PROTOCOL).unwrap();
        front.set_mem_table(&[region(RAM, guest.ram.as_raw_fd())]).unwrap();
        for index in 0..guest.rings() {
            front.set_vring_num(index, SIZE).unwrap();
        }
        for index in 0..guest.rings() {
            let its = guest.ring(index);
            let config = VringConfigData {
                queue_max_size: SIZE,
                queue_size: SIZE,
                flags: 0,
                desc_table_addr: its.descriptors + USER,
                used_ring_addr: its.used + USER,
                avail_ring_addr: its.available + USER,
                log_addr: None,
            };
            front.set_vring_addr(index, &config).unwrap();
            // It starts a ring at its used index: what the last backend did not finish is done again.
            front.set_vring_base(index, guest.used_index(index)).unwrap();
            front.set_vring_call(index, &its.call).unwrap();
            front.set_vring_kick(index, &its.kick).unwrap();
        }
        for index in 0..guest.rings() {
            front.set_vring_enable(index, true).unwrap();
        }
    }
}

fn region((start, size): (u64, u64), fd: i32) -> VhostUserMemoryRegionInfo {
    VhostUserMemoryRegionInfo {
        guest_phys_addr: start,
        memory_size: size,
        userspace_addr: start + USER,
        mmap_offset: 0,
        mmap_handle: fd,
    }
}

#[test]
fn cloud_hypervisor_connects_adds_memory_pauses_and_resets() {
    let plugged = Plugged::new(2);
    let mut guest = Guest::new(2);
    let mut vmm = CloudHypervisor::connect(&plugged, 4);
    vmm.set_up(&guest);
    plugged.until_running();
    frames_pass(&plugged, &mut guest);

    vmm.0.add_mem_region(&region(DIMM, guest.dimm.as_raw_fd())).unwrap();
    assert_eq!(plugged.port.state().memory_regions, 2);
    let mut store = Store::new();
    guest.send_from(0, b"from memory that was added", DIMM.0 + 4096);
    assert_eq!(plugged.turn_around(0, &mut store), 1);
    assert_eq!(guest.receive(0).unwrap(), b"from memory that was added");
    vmm.0.remove_mem_region(&region(DIMM, guest.dimm.as_raw_fd())).unwrap();
    assert_eq!(plugged.port.state().memory_regions, 1);

    (0..4).for_each(|index| vmm.0.set_vring_enable(index, false).unwrap());
    assert!(!plugged.port.state().link_up);
    (0..4).for_each(|index| vmm.0.set_vring_enable(index, true).unwrap());
    frames_pass(&plugged, &mut guest);
}

#[test]
fn cloud_hypervisor_finds_its_way_back_after_the_connection_is_lost() {
    let plugged = Plugged::new(1);
    let mut guest = Guest::new(1);
    for _ in 0..3 {
        let mut vmm = CloudHypervisor::connect(&plugged, 2);
        vmm.set_up(&guest);
        plugged.until_running();
        frames_pass(&plugged, &mut guest);
        drop(vmm);
        plugged.until(|state| !state.connected);
    }
}

#[test]
fn dpdk_virtio_user_starts_after_several_rounds_of_memory_tables() {
    let plugged = Plugged::new(1);
    let mut guest = Guest::new(1);
    let mut vmm = Vmm::connect(&plugged.socket());
    vmm.tell(Request::SET_OWNER, &[], &[]);
    vmm.ask_number(Request::GET_FEATURES);
    let protocol = vmm.ask_number(Request::GET_PROTOCOL_FEATURES) & (vmm::MQ | REPLY_ACK);
    vmm.tell(Request::SET_PROTOCOL_FEATURES, &number(protocol), &[]);
    assert_eq!(vmm.ask_number(Request::GET_QUEUE_NUM), 2);
    for index in 0..2 {
        vmm.tell(Request::SET_VRING_CALL, &number(index), &[fd_of(&guest.ring(index as usize).call)]);
    }
    let features = 1 << 32 | 1 << 15 | PROTOCOL;
    assert_eq!(vmm.order(Request::SET_FEATURES, &number(features), &[]), Some(0));
    assert_eq!(vmm.order(Request::SET_MEM_TABLE, &table(&[RAM]), &[guest.ram.as_fd()]), Some(0));
    (0..2).for_each(|index| vmm.set_ring(&guest, index, 0));
    (0..2).for_each(|index| assert!(vmm.tell(Request::SET_VRING_ENABLE, &ring(index, 1), &[])));
    for regions in [&[RAM, DIMM][..], &[RAM], &[DIMM, RAM]] {
        (0..2).for_each(|index| assert!(vmm.tell(Request::SET_VRING_ENABLE, &ring(index, 0), &[])));
        let fds: Vec<_> = regions
            .iter()
            .map(|its| if *its == RAM { guest.ram.as_fd() } else { guest.dimm.as_fd() })
            .collect();
        assert_eq!(vmm.order(Request::SET_MEM_TABLE, &table(regions), &fds), Some(0));
        (0..2).for_each(|index| assert!(vmm.tell(Request::SET_VRING_ENABLE, &ring(index, 1), &[])));
        plugged.until_running();
        frames_pass(&plugged, &mut guest);
    }
}

#[test]
fn a_front_end_without_protocol_features_has_its_rings_enabled_by_set_features() {
    let plugged = Plugged::new(1);
    let mut guest = Guest::new(1);
    let mut vmm = Vmm::connect(&plugged.socket());
    vmm.tell(Request::SET_OWNER, &[], &[]);
    vmm.ask_number(Request::GET_FEATURES);
    vmm.tell(Request::SET_FEATURES, &number(DRIVER), &[]);
    vmm.tell(Request::SET_MEM_TABLE, &table(&[RAM]), &[guest.ram.as_fd()]);
    (0..2).for_each(|index| vmm.set_ring(&guest, index, 0));
    plugged.until_running();
    frames_pass(&plugged, &mut guest);
}

#[test]
fn the_port_connects_to_a_vmm_that_listens_and_again_when_it_comes_back() {
    let plugged = Plugged::with(1, |config| config.role = Role::Client);
    let mut guest = Guest::new(1);
    for round in 1..=3 {
        let listener = std::os::unix::net::UnixListener::bind(plugged.socket()).unwrap();
        let mut vmm = Vmm::over(listener.accept().unwrap().0);
        guest.reboot();
        qemu_7_2(&mut vmm, &guest, DRIVER);
        assert_eq!(plugged.until_running().connects, round);
        frames_pass(&plugged, &mut guest);
        std::fs::remove_file(plugged.socket()).unwrap();
        drop((vmm, listener));
        plugged.until(|state| !state.connected);
    }
}

#[test]
fn configuration_space_mtu_and_announcements_are_answered() {
    let plugged = Plugged::new(2);
    let mut vmm = Vmm::connect(&plugged.socket());
    vmm.negotiate(ALL);
    let config = |offset: u32, size: u32| {
        let head = [offset, size, 0].iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<_>>();
        [head, vec![0; size as usize]].concat()
    };
    let space = vmm.ask(Request::GET_CONFIG, &config(0, 12)).unwrap();
    assert_eq!(space[12..], [2, 0, 0, 0, 0, 1, 1, 0, 2, 0, 0xa2, 0x05]);
    // Less than was asked for: there is no more.
    assert_eq!(vmm.ask(Request::GET_CONFIG, &config(250, 7)).unwrap().len(), 12);
    assert_ne!(vmm.order(Request::SET_CONFIG, &config(0, 6), &[]), Some(0));

    assert_eq!(vmm.order(Request::NET_SET_MTU, &number(1442), &[]), Some(0));
    assert_eq!(plugged.port.state().vmm_mtu, Some(1442));
    assert_ne!(vmm.order(Request::NET_SET_MTU, &number(1443), &[]), Some(0));
    assert_eq!(plugged.port.state().vmm_mtu, Some(1443));
    assert_ne!(vmm.order(Request::NET_SET_MTU, &number(67), &[]), Some(0));
    assert_ne!(vmm.order(Request::NET_SET_MTU, &number(1 << 16 | 1400), &[]), Some(0));

    let mac = [0x52, 0x54, 0, 0x12, 0x34, 0x56, 0, 0];
    assert_eq!(vmm.order(Request::SEND_RARP, &mac, &[]), Some(0));
    assert_eq!(plugged.watch.announced(), [[0x52, 0x54, 0, 0x12, 0x34, 0x56]]);
    let state = plugged.port.state();
    assert!(state.connected && state.announcements == 1);
    assert_eq!(features::names(features::PROTOCOL, state.protocol_features).len(), 8);
}

#[test]
fn features_that_are_switched_off_are_not_offered() {
    let off = features::parse(features::VIRTIO, "CSUM,EVENT_IDX").unwrap();
    let plugged = Plugged::with(1, |config| config.features_off = off);
    let mut vmm = Vmm::connect(&plugged.socket());
    let offered = vmm.ask_number(Request::GET_FEATURES);
    let names = features::names(features::VIRTIO, offered);
    assert_eq!(offered, plugged.port.state().offered);
    for gone in ["CSUM", "HOST_TSO4", "HOST_TSO6", "HOST_ECN", "HOST_USO", "EVENT_IDX", "MQ"] {
        assert!(!names.iter().any(|name| name == gone), "{gone}");
    }
    assert!(names.iter().any(|name| name == "GUEST_CSUM"));
}
