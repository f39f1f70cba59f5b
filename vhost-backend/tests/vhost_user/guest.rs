//! A guest's memory and driver: split rings in a memfd, one receive and one transmit ring per queue pair.

#![expect(unsafe_code, reason = "EventFd hands out its descriptor only raw")]

use std::fs::File;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering;

use rustix::fs::{MemfdFlags, SealFlags};
use vhost_backend::NET_HEADER;
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Entries of every ring.
pub(crate) const SIZE: u16 = 256;
/// Guest physical address and length of the memory that is always there.
pub(crate) const RAM: (u64, u64) = (0x10_0000, 0x80_0000);
/// The same of memory that is added later.
pub(crate) const DIMM: (u64, u64) = (0x4000_0000, 0x10_0000);
/// What the VMM adds to a guest address to get its own.
pub(crate) const USER: u64 = 0x7000_0000_0000;

const BUFFER: u64 = 2048;
const WRITE: u16 = 2;

/// See the module.
pub(crate) struct Guest {
    pub(crate) ram: OwnedFd,
    pub(crate) dimm: OwnedFd,
    memory: GuestMemoryMmap,
    rings: Vec<Ring>,
}

/// One ring, as the driver sees it.
pub(crate) struct Ring {
    pub(crate) kick: EventFd,
    pub(crate) call: EventFd,
    pub(crate) descriptors: u64,
    pub(crate) available: u64,
    pub(crate) used: u64,
    buffers: u64,
    next: u16,
    seen: u16,
}

impl Guest {
    pub(crate) fn new(pairs: u16) -> Self {
        let (ram, dimm) = (memfd(RAM.1), memfd(DIMM.1));
        let map = |(start, len): (u64, u64), fd: &OwnedFd| {
            let file = File::from(fd.try_clone().unwrap());
            (GuestAddress(start), len as usize, Some(FileOffset::new(file, 0)))
        };
        let memory = GuestMemoryMmap::from_ranges_with_files([map(RAM, &ram), map(DIMM, &dimm)]).unwrap();
        let rings = (0..u64::from(pairs) * 2).map(Ring::new).collect();
        Guest { ram, dimm, memory, rings }
    }

    /// The same memory and descriptors, for who sets the rings up while the driver uses them.
    pub(crate) fn view(&self) -> Guest {
        let share = |fd: &OwnedFd| fd.try_clone().unwrap();
        let rings = self.rings.iter().map(|ring| Ring {
            kick: ring.kick.try_clone().unwrap(),
            call: ring.call.try_clone().unwrap(),
            ..*ring
        });
        Guest {
            ram: share(&self.ram),
            dimm: share(&self.dimm),
            memory: self.memory.clone(),
            rings: rings.collect(),
        }
    }

    pub(crate) fn ring(&self, index: usize) -> &Ring {
        &self.rings[index]
    }

    pub(crate) fn rings(&self) -> usize {
        self.rings.len()
    }

    /// The driver starts from nothing, as after a reboot: indexes zero, rings cleared.
    pub(crate) fn reboot(&mut self) {
        for ring in &mut self.rings {
            (ring.next, ring.seen) = (0, 0);
            self.memory.write_slice(&[0; 0x2000], GuestAddress(ring.available)).unwrap();
        }
    }

    /// Puts a frame on pair `pair`'s transmit ring, with an empty header before it, and kicks.
    pub(crate) fn send(&mut self, pair: usize, frame: &[u8]) {
        let at = self.rings[pair * 2 + 1].buffers;
        self.send_from(pair, frame, at + u64::from(self.rings[pair * 2 + 1].next % SIZE) * BUFFER);
    }

    /// The same from a buffer at guest address `at`.
    pub(crate) fn send_from(&mut self, pair: usize, frame: &[u8], at: u64) {
        let bytes = [&[0; NET_HEADER][..], frame].concat();
        self.memory.write_slice(&bytes, GuestAddress(at)).unwrap();
        self.offer(pair * 2 + 1, at, bytes.len() as u32, 0);
    }

    /// How many sent frames the device has not given back.
    pub(crate) fn unsent(&mut self, pair: usize) -> u16 {
        let ring = &self.rings[pair * 2 + 1];
        ring.next.wrapping_sub(self.used_index(pair * 2 + 1))
    }

    /// Fills pair `pair`'s receive ring with buffers.
    pub(crate) fn offer_all(&mut self, pair: usize) {
        while self.rings[pair * 2].next.wrapping_sub(self.rings[pair * 2].seen) < SIZE {
            let at = self.rings[pair * 2].buffers + u64::from(self.rings[pair * 2].next % SIZE) * BUFFER;
            self.offer(pair * 2, at, BUFFER as u32, WRITE);
        }
    }

    /// One receive buffer at guest address `at`.
    pub(crate) fn offer_at(&mut self, pair: usize, at: u64) {
        self.offer(pair * 2, at, BUFFER as u32, WRITE);
    }

    /// The next frame received on pair `pair`, without its header.
    pub(crate) fn receive(&mut self, pair: usize) -> Option<Vec<u8>> {
        let ring = &self.rings[pair * 2];
        if self.used_index(pair * 2) == ring.seen {
            return None;
        }
        let used = ring.used + 4 + u64::from(ring.seen % SIZE) * 8;
        let [id, len]: [u32; 2] = [0, 4].map(|at| self.memory.read_obj(GuestAddress(used + at)).unwrap());
        let at: u64 = self.memory.read_obj(GuestAddress(ring.descriptors + u64::from(id) * 16)).unwrap();
        let mut bytes = vec![0; len as usize];
        self.memory.read_slice(&mut bytes, GuestAddress(at)).unwrap();
        self.rings[pair * 2].seen = ring.seen.wrapping_add(1);
        Some(bytes.split_off(NET_HEADER))
    }

    /// Writes two bytes anywhere, as a driver could.
    pub(crate) fn poke(&self, at: u64, value: u16) {
        self.memory.write_obj(value, GuestAddress(at)).unwrap();
    }

    pub(crate) fn used_index(&self, ring: usize) -> u16 {
        self.memory.load(GuestAddress(self.rings[ring].used + 2), Ordering::Acquire).unwrap()
    }

    pub(crate) fn available_index(&self, ring: usize) -> u16 {
        self.rings[ring].next
    }

    fn offer(&mut self, index: usize, at: u64, len: u32, flags: u16) {
        let ring = &mut self.rings[index];
        let slot = ring.next % SIZE;
        let descriptor = [&at.to_le_bytes()[..], &len.to_le_bytes(), &flags.to_le_bytes(), &[0; 2]].concat();
        let write = |bytes: &[u8], at| self.memory.write_slice(bytes, GuestAddress(at)).unwrap();
        write(&descriptor, ring.descriptors + u64::from(slot) * 16);
        write(&slot.to_le_bytes(), ring.available + 4 + u64::from(slot) * 2);
        ring.next = ring.next.wrapping_add(1);
        self.memory.store(ring.next, GuestAddress(ring.available + 2), Ordering::Release).unwrap();
        ring.kick.write(1).unwrap();
    }
}

impl Ring {
    fn new(index: u64) -> Self {
        let base = RAM.0 + index * 0x4000;
        let event = || EventFd::new(EFD_NONBLOCK).unwrap();
        Ring {
            kick: event(),
            call: event(),
            descriptors: base,
            available: base + 0x1000,
            used: base + 0x2000,
            buffers: RAM.0 + 0x10_0000 + index * u64::from(SIZE) * BUFFER,
            next: 0,
            seen: 0,
        }
    }
}

/// A memfd that cannot shrink, as VMMs make them.
pub(crate) fn memfd(len: u64) -> OwnedFd {
    let fd = rustix::fs::memfd_create("guest", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    rustix::fs::ftruncate(&fd, len).unwrap();
    rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK).unwrap();
    fd
}

/// The descriptor of an eventfd.
pub(crate) fn fd_of(event: &EventFd) -> BorrowedFd<'_> {
    // SAFETY: the descriptor lives as long as `event`, which the result borrows.
    unsafe { BorrowedFd::borrow_raw(event.as_raw_fd()) }
}
