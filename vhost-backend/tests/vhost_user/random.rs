//! Any messages in any order, half of them nearly right: the port lives, its neighbours do not notice.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use proptest::prelude::*;
use vhost::vhost_user::message::FrontendReq as Request;
use vhost_backend::Store;

use crate::front_ends::{frames_pass, qemu_7_2};
use crate::guest::{DIMM, Guest, RAM, USER, fd_of};
use crate::plugged::Plugged;
use crate::vmm::{ALL, DRIVER, LOG_ALL, PROTOCOL, Vmm, address, dimm, message, number, ring, table};

/// One message, and which descriptors come with it.
#[derive(Clone, Debug)]
enum Move {
    /// What a VMM would send here.
    Sound(u8, u8),
    /// The same with one byte of it changed.
    Bent(u8, u8, usize, u8),
    /// Bytes.
    Wild(u32, u32, Vec<u8>, usize),
    /// Frames are carried meanwhile.
    Carry,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        40 => (any::<u8>(), any::<u8>()).prop_map(|(what, how)| Move::Sound(what, how)),
        1 => (any::<u8>(), any::<u8>(), 8..52usize, any::<u8>())
            .prop_map(|(what, how, at, byte)| Move::Bent(what, how, at, byte)),
        1 => (0..46u32, 0..16u32, proptest::collection::vec(any::<u8>(), 0..64), 0..4usize)
            .prop_map(|(request, flags, body, fds)| Move::Wild(request, flags, body, fds)),
        8 => Just(Move::Carry),
    ];
    proptest::collection::vec(one, 1..60)
}

/// The `what`th request with the `how`th set of values. `added`: whether [`DIMM`] is there, which only the last one to ask
/// for it knows.
fn sound(what: u8, how: u8, guest: &Guest, added: &mut bool) -> (Request, Vec<u8>, Vec<OwnedFd>) {
    let index = usize::from(how % 2);
    let own = |fd: BorrowedFd<'_>| vec![fd.try_clone_to_owned().unwrap()];
    let its = guest.ring(index);
    let none = Vec::new;
    match what % 16 {
        0 => {
            let bits = if how & 4 == 0 { PROTOCOL } else { 0 } | if how & 8 == 0 { LOG_ALL } else { 0 };
            (Request::SET_FEATURES, number(DRIVER | bits).to_vec(), none())
        }
        1 => {
            *added = false;
            (Request::SET_MEM_TABLE, table(&[RAM]), own(guest.ram.as_fd()))
        }
        2 if !std::mem::replace(added, true) => (Request::ADD_MEM_REG, dimm(), own(guest.dimm.as_fd())),
        3 if std::mem::replace(added, false) => (Request::REM_MEM_REG, dimm(), none()),
        4 => (Request::SET_VRING_NUM, ring(index, 1 << (how % 16)), none()),
        5 => (Request::SET_VRING_BASE, ring(index, u32::from(how)), none()),
        2 | 3 | 6 => (Request::SET_VRING_ADDR, address(guest, index), none()),
        7 => {
            // Anywhere in memory, near its ends included.
            let at = USER + RAM.0 + u64::from(how / 2) * (RAM.1 / 128);
            let fields = [at & !15, at & !15, at & !15, 0].map(u64::to_ne_bytes).concat();
            (Request::SET_VRING_ADDR, [ring(index, 0), fields].concat(), none())
        }
        8 => (Request::SET_VRING_KICK, number(index as u64).to_vec(), own(fd_of(&its.kick))),
        9 => (Request::SET_VRING_CALL, number(index as u64).to_vec(), own(fd_of(&its.call))),
        10 | 11 => (Request::SET_VRING_ENABLE, ring(index, u32::from(how & 2 == 0)), none()),
        12 => (Request::GET_VRING_BASE, ring(index, 0), none()),
        13 => {
            let size = (DIMM.0 + DIMM.1) / 4096 / 8;
            let log = crate::guest::memfd(size);
            (Request::SET_LOG_BASE, [number(size), number(0)].concat(), vec![log])
        }
        14 => (Request::RESET_DEVICE, Vec::new(), none()),
        _ => (Request::SET_VRING_CALL, number(index as u64 | 0x100).to_vec(), none()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_sequence_of_messages_stops_a_port_or_disturbs_another(moves in moves()) {
        let (attacked, neighbour) = (Plugged::new(1), Plugged::new(1));
        let (mut victim, mut guest) = (Guest::new(1), Guest::new(1));
        let mut other = Vmm::connect(&neighbour.socket());
        qemu_7_2(&mut other, &guest, DRIVER);
        neighbour.until_running();

        let vmm = Vmm::connect(&attacked.socket());
        let mut greeting = Vmm::over(vmm.stream.try_clone().unwrap());
        greeting.negotiate(ALL);
        victim.offer_all(0);
        victim.send(0, &[1; 60]);
        let mut store = Store::new();
        greeting.tell(Request::SET_FEATURES, &number(DRIVER | PROTOCOL), &[]);
        greeting.start(&victim, &[]);
        let (mut alive, mut added) = (true, false);
        for its in moves {
            if !alive {
                break;
            }
            alive = match its {
                Move::Carry => {
                    attacked.turn_around(0, &mut store);
                    true
                }
                Move::Sound(what, how) => {
                    let (request, body, fds) = sound(what, how, &victim, &mut added);
                    let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
                    vmm.tell(request, &body, &fds)
                }
                Move::Bent(what, how, at, byte) => {
                    let (request, body, fds) = sound(what, how, &victim, &mut added);
                    let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
                    let mut bytes = message(request.into(), 1, &body);
                    let at = at.min(bytes.len() - 1);
                    bytes[at] = byte;
                    vmm.raw(&bytes, &fds)
                }
                Move::Wild(request, flags, body, count) => {
                    let fds = vec![victim.ram.as_fd(); count];
                    vmm.raw(&message(request, flags, &body), &fds)
                }
            };
        }
        frames_pass(&neighbour, &mut guest);
        drop((vmm, greeting));
        attacked.until(|state| !state.connected && state.connects == 1);
        let state = attacked.port.state();
        prop_assert!(state.rings.iter().all(|ring| !ring.running && ring.fault.is_none()));
        prop_assert_eq!(state.ends.values().sum::<u64>(), 1);
        prop_assert!(!state.ends.contains_key("out-of-turn") && !state.ends.contains_key("device-gone"), "{:?}", state);
    }
}
