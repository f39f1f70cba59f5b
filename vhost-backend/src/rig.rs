//! A guest driver in this process: rings in anonymous memory, one transmit and one receive ring, as well behaved or as
//! hostile as the caller wants.

use std::fs::File;
use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};
use vm_memory::{Bytes, GuestAddress};

use crate::frame::NET_HEADER;
use crate::memory::{Mapping, Memory};
use crate::slot::{RxQueue, Slot, TxQueue};

/// virtio feature bits that the rig's users need.
pub mod feature {
    /// VIRTIO_F_VERSION_1
    pub const VERSION_1: u64 = 1 << 32;
    /// VIRTIO_NET_F_MRG_RXBUF
    pub const MRG_RXBUF: u64 = 1 << 15;
    /// VIRTIO_F_INDIRECT_DESC
    pub const INDIRECT: u64 = 1 << 28;
    /// VIRTIO_F_EVENT_IDX
    pub const EVENT_IDX: u64 = 1 << 29;
    /// VIRTIO_NET_F_CSUM, _HOST_TSO4, _HOST_TSO6
    pub const HOST_OFFLOADS: u64 = 1 << 0 | 1 << 11 | 1 << 12;
    /// VIRTIO_NET_F_GUEST_CSUM, _TSO4, _TSO6
    pub const GUEST_OFFLOADS: u64 = 1 << 1 | 1 << 7 | 1 << 8;
}

/// Guest address where memory begins; everything below is unmapped.
pub const BASE: u64 = 0x10_0000;
/// Bytes of guest memory.
pub const MEMORY: u64 = 0x40_0000;
/// Where a second region begins, right behind the first.
pub const SECOND: u64 = BASE + MEMORY;
/// Bytes of the second region.
pub const SECOND_LEN: u64 = 0x1_0000;
const TX_RING: u64 = BASE;
const RX_RING: u64 = BASE + 0x4_0000;
/// Guest memory for indirect tables and such, not used by the well-behaved calls.
pub const SCRATCH: u64 = BASE + 0x8_0000;
const BUFFERS: u64 = BASE + 0x10_0000;
/// Bytes of each well-behaved buffer.
pub const BUFFER: u32 = 2048;

/// One ring of the rig, seen by the driver.
#[derive(Debug)]
pub struct DriverRing {
    base: u64,
    size: u16,
    next_avail: u16,
    seen_used: u16,
    free: Vec<u16>,
}

impl DriverRing {
    fn new(base: u64, size: u16) -> Self {
        DriverRing { base, size, next_avail: 0, seen_used: 0, free: (0..size).rev().collect() }
    }
    /// Guest address of the descriptor table.
    pub fn descriptors(&self) -> u64 {
        self.base
    }
    /// Guest address of the available ring.
    pub fn available(&self) -> u64 {
        self.base + 0x1_0000
    }
    /// Guest address of the used ring.
    pub fn used(&self) -> u64 {
        self.base + 0x2_0000
    }
}

/// Guest memory with a transmit and a receive ring.
#[derive(Debug)]
pub struct Rig {
    memory: Arc<Memory>,
    slots: [Arc<Slot>; 2],
    /// The ring that the guest transmits on.
    pub transmit: DriverRing,
    /// The ring that the guest receives on.
    pub receive: DriverRing,
    calls: [File; 2],
}

impl Rig {
    /// Two running rings of `size` entries with `features` negotiated.
    ///
    /// # Panics
    /// When the process has no memory or descriptors left: a rig is for tests.
    pub fn new(size: u16, features: u64) -> Self {
        let ranges = [(GuestAddress(BASE), MEMORY as usize), (GuestAddress(SECOND), SECOND_LEN as usize)];
        let memory = Arc::new(Memory::from_ranges(&ranges).expect("anonymous memory"));
        let slot = |index| Arc::new(Slot::new(index, Arc::new(|| {})));
        let call =
            || File::from(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).expect("an eventfd"));
        let rig = Rig {
            memory,
            slots: [slot(0), slot(1)],
            transmit: DriverRing::new(TX_RING, size),
            receive: DriverRing::new(RX_RING, size),
            calls: [call(), call()],
        };
        rig.start(features);
        rig
    }

    /// Sets both rings up again, as after a reset by the VMM; indexes start at zero.
    pub fn start(&self, features: u64) {
        let mapping = Mapping::new(self.memory.clone()).expect("a mapping");
        for (slot, (ring, call)) in
            self.slots.iter().zip([&self.receive, &self.transmit].into_iter().zip(&self.calls))
        {
            slot.set_features(features);
            slot.set_memory(Some(mapping.clone()));
            slot.set_call(call.try_clone().ok());
            slot.set_up(|setup, _| {
                setup.size = ring.size;
                setup.descriptors = ring.descriptors();
                setup.available = ring.available();
                setup.used = ring.used();
                setup.next_avail = 0;
                setup.next_used = 0;
                setup.run = true;
            });
        }
    }

    /// Moves both rings to fresh mappings of the same memory, as SET_MEM_TABLE does under load.
    pub fn remap(&self) {
        let mapping = Mapping::new(self.memory.clone()).expect("a mapping");
        for slot in &self.slots {
            slot.set_memory(Some(mapping.clone()));
        }
    }

    /// What the guest transmits.
    pub fn tx(&self) -> TxQueue {
        TxQueue(self.slots[1].clone())
    }

    /// What the guest receives.
    pub fn rx(&self) -> RxQueue {
        RxQueue(self.slots[0].clone())
    }

    /// State of the receive (0) or transmit (1) ring.
    pub fn state(&self, ring: usize) -> crate::RingState {
        self.slots[ring].state()
    }

    /// How often the device interrupted the driver on the receive (0) or transmit (1) ring since the last question.
    pub fn interrupts(&self, ring: usize) -> u64 {
        let mut count = [0; 8];
        match rustix::io::read(&self.calls[ring], &mut count) {
            Ok(_) => u64::from_ne_bytes(count),
            Err(_) => 0,
        }
    }

    /// Writes guest memory; what lies outside is not written.
    pub fn write(&self, gpa: u64, bytes: &[u8]) {
        let _ = self.memory.write(bytes, GuestAddress(gpa));
    }

    /// Reads guest memory; zeros where there is none.
    pub fn read(&self, gpa: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let _ = self.memory.read(&mut bytes, GuestAddress(gpa));
        bytes
    }

    fn read_u16(&self, gpa: u64) -> u16 {
        u16::from_le_bytes(self.read(gpa, 2).try_into().unwrap_or_default())
    }

    /// Writes descriptor `index` of the table at `table`.
    pub fn descriptor(&self, table: u64, index: u16, gpa: u64, len: u32, flags: u16, next: u16) {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&gpa.to_le_bytes());
        bytes[8..12].copy_from_slice(&len.to_le_bytes());
        bytes[12..14].copy_from_slice(&flags.to_le_bytes());
        bytes[14..].copy_from_slice(&next.to_le_bytes());
        self.write(table + 16 * u64::from(index), &bytes);
    }

    /// Puts `head` in the available ring of the receive (0) or transmit (1) ring and moves the index.
    pub fn make_available(&mut self, ring: usize, head: u16) {
        let ring = if ring == 0 { &mut self.receive } else { &mut self.transmit };
        let slot = ring.next_avail % ring.size;
        ring.next_avail = ring.next_avail.wrapping_add(1);
        let (entry, index, value) =
            (ring.available() + 4 + 2 * u64::from(slot), ring.available() + 2, ring.next_avail);
        self.write(entry, &head.to_le_bytes());
        self.write(index, &value.to_le_bytes());
    }

    /// Sends a frame, behind a net header, in buffers of at most [`BUFFER`] bytes. `false`: no free descriptors.
    pub fn send(&mut self, net: &[u8; NET_HEADER], frame: &[u8]) -> bool {
        let bytes = [net.as_slice(), frame].concat();
        let parts = bytes.chunks(BUFFER as usize).collect::<Vec<_>>();
        if self.transmit.free.len() < parts.len() {
            return false;
        }
        let indexes = self.transmit.free.split_off(self.transmit.free.len() - parts.len());
        for (i, part) in parts.iter().enumerate() {
            let gpa = BUFFERS + u64::from(indexes[i]) * u64::from(BUFFER);
            self.write(gpa, part);
            let (flags, next) = indexes.get(i + 1).map_or((0, 0), |next| (1, *next));
            self.descriptor(self.transmit.descriptors(), indexes[i], gpa, part.len() as u32, flags, next);
        }
        self.make_available(1, indexes[0]);
        true
    }

    /// Offers one receive buffer of `len` bytes, at most [`BUFFER`]. `false`: no free descriptor.
    pub fn offer(&mut self, len: u32) -> bool {
        let Some(index) = self.receive.free.pop() else { return false };
        let gpa = BUFFERS + 0x10_0000 + u64::from(index) * u64::from(BUFFER);
        self.descriptor(self.receive.descriptors(), index, gpa, len.min(BUFFER), 2, 0);
        self.make_available(0, index);
        true
    }

    /// Transmit descriptors that came back; their number.
    pub fn reap(&mut self) -> usize {
        let heads = self.used(1);
        for (head, _) in &heads {
            let mut index = *head;
            loop {
                let at = self.transmit.descriptors() + 16 * u64::from(index);
                let (flags, next) = (self.read_u16(at + 12), self.read_u16(at + 14));
                self.transmit.free.push(index);
                if flags & 1 == 0 {
                    break;
                }
                index = next;
            }
        }
        heads.len()
    }

    /// Frames that arrived: net header and bytes, merged buffers put together. Their buffers are free again.
    pub fn receive(&mut self) -> Vec<([u8; NET_HEADER], Vec<u8>)> {
        let mut frames = Vec::new();
        let used = self.used(0);
        let mut used = used.into_iter();
        while let Some((head, len)) = used.next() {
            let mut bytes = self.buffer(head, len);
            let more = u16::from_le_bytes([bytes[10], bytes[11]]).max(1) - 1;
            for (head, len) in used.by_ref().take(usize::from(more)) {
                bytes.extend(self.buffer(head, len));
            }
            let frame = bytes.split_off(NET_HEADER);
            frames.push((bytes.try_into().unwrap_or([0; NET_HEADER]), frame));
        }
        frames
    }

    fn buffer(&mut self, head: u16, len: u32) -> Vec<u8> {
        self.receive.free.push(head);
        self.read(BUFFERS + 0x10_0000 + u64::from(head) * u64::from(BUFFER), len as usize)
    }

    /// New entries of the used ring of the receive (0) or transmit (1) ring: head and length.
    pub fn used(&mut self, ring: usize) -> Vec<(u16, u32)> {
        let ring = if ring == 0 { &self.receive } else { &self.transmit };
        let (base, size, mut seen) = (ring.used(), ring.size, ring.seen_used);
        let index = self.read_u16(base + 2);
        let mut entries = Vec::new();
        while seen != index {
            let bytes = self.read(base + 4 + 8 * u64::from(seen % size), 8);
            let word =
                |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
            entries.push((word(0) as u16, word(4)));
            seen = seen.wrapping_add(1);
        }
        if base == self.receive.used() {
            self.receive.seen_used = seen
        } else {
            self.transmit.seen_used = seen
        }
        entries
    }
}
