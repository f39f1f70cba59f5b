//! A guest in this process: memory in a memfd, a driver with split rings, and a VMM that speaks vhost-user for it.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::Ordering;

use super::eventually;
use vhost::vhost_user::message::VhostUserProtocolFeatures;
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Virtio feature bits (virtio 1.3, 5.1.3 and 6).
pub(crate) mod feature {
    pub(crate) const CSUM: u64 = 1 << 0;
    pub(crate) const GUEST_CSUM: u64 = 1 << 1;
    pub(crate) const GUEST_TSO4: u64 = 1 << 7;
    pub(crate) const HOST_TSO4: u64 = 1 << 11;
    pub(crate) const MRG_RXBUF: u64 = 1 << 15;
    pub(crate) const CTRL_VQ: u64 = 1 << 17;
    pub(crate) const MQ: u64 = 1 << 22;
    pub(crate) const PROTOCOL: u64 = 1 << 30;
    pub(crate) const VERSION_1: u64 = 1 << 32;
    /// What the tests' driver always accepts.
    pub(crate) const PLAIN: u64 = VERSION_1 | MRG_RXBUF | PROTOCOL;
}

/// Bytes of virtio_net_hdr_v1.
pub(crate) const NET: usize = 12;

/// Entries of every ring.
const SIZE: u16 = 256;
const BUFFER: u64 = 2048;
const RAM: u64 = 0x10_0000;
const RAM_LEN: usize = 0x100_0000;
/// A device-writable descriptor, and one that goes on.
const WRITE: u16 = 2;
const NEXT: u16 = 1;

/// See the module.
pub(crate) struct Guest {
    _memfd: File,
    memory: GuestMemoryMmap,
    rings: Vec<Ring>,
    _vmm: Frontend,
}

struct Ring {
    kick: EventFd,
    _call: EventFd,
    base: u64,
    buffers: u64,
    next: u16,
    seen: u16,
}

impl Ring {
    fn new(index: u64) -> Self {
        let event = || EventFd::new(EFD_NONBLOCK).expect("an eventfd");
        Self {
            kick: event(),
            _call: event(),
            base: RAM + index * 0x4000,
            buffers: RAM + 0x20_0000 + index * u64::from(SIZE) * BUFFER,
            next: 0,
            seen: 0,
        }
    }
    fn descriptor(&self, index: u16) -> GuestAddress {
        GuestAddress(self.base + u64::from(index) * 16)
    }
    fn available(&self) -> u64 {
        self.base + 0x1000
    }
    fn used(&self) -> u64 {
        self.base + 0x2000
    }
}

impl Guest {
    /// A guest whose VMM connects to `socket` and whose driver accepts `features`.
    pub(crate) fn boot(socket: &Path, pairs: u16, features: u64) -> Self {
        let memfd = rustix::fs::memfd_create("guest", rustix::fs::MemfdFlags::CLOEXEC).expect("a memfd");
        rustix::fs::ftruncate(&memfd, RAM_LEN as u64).expect("grows");
        let memfd = File::from(memfd);
        let offset = FileOffset::new(memfd.try_clone().expect("a descriptor"), 0);
        let memory = GuestMemoryMmap::from_ranges_with_files([(GuestAddress(RAM), RAM_LEN, Some(offset))])
            .expect("memory");
        let rings: Vec<Ring> = (0..u64::from(pairs) * 2).map(Ring::new).collect();

        let mut stream = None;
        eventually("the socket answers", || {
            stream = UnixStream::connect(socket).ok();
            stream.is_some()
        });
        let mut vmm = Frontend::from_stream(stream.expect("connected"), u64::from(pairs) * 2);
        vmm.set_owner().expect("owner");
        let offered = vmm.get_features().expect("features");
        assert_eq!(offered & features, features, "not all of {features:#x} is offered in {offered:#x}");
        let protocol = vmm.get_protocol_features().expect("protocol features");
        vmm.set_protocol_features(
            protocol & (VhostUserProtocolFeatures::MQ | VhostUserProtocolFeatures::REPLY_ACK),
        )
        .expect("protocol features");
        vmm.set_features(features).expect("features");
        let host = |address| memory.get_host_address(GuestAddress(address)).expect("mapped") as u64;
        let region = VhostUserMemoryRegionInfo {
            guest_phys_addr: RAM,
            memory_size: RAM_LEN as u64,
            userspace_addr: host(RAM),
            mmap_offset: 0,
            mmap_handle: memfd.as_raw_fd(),
        };
        vmm.set_mem_table(&[region]).expect("memory table");
        for (index, ring) in rings.iter().enumerate() {
            let addresses = VringConfigData {
                queue_max_size: SIZE,
                queue_size: SIZE,
                flags: 0,
                desc_table_addr: host(ring.base),
                used_ring_addr: host(ring.used()),
                avail_ring_addr: host(ring.available()),
                log_addr: None,
            };
            vmm.set_vring_num(index, SIZE).expect("size");
            vmm.set_vring_base(index, 0).expect("base");
            vmm.set_vring_addr(index, &addresses).expect("addresses");
            vmm.set_vring_call(index, &ring._call).expect("call");
            vmm.set_vring_kick(index, &ring.kick).expect("kick");
            vmm.set_vring_enable(index, true).expect("enable");
        }
        let mut guest = Self { _memfd: memfd, memory, rings, _vmm: vmm };
        for pair in 0..usize::from(pairs) {
            guest.offer(pair);
        }
        guest
    }

    /// Sends a frame behind its net header on a queue pair.
    pub(crate) fn send(&mut self, pair: usize, net: [u8; NET], frame: &[u8]) {
        self.queue(pair, net, frame);
        self.rings[pair * 2 + 1].kick.write(1).expect("kicks");
    }

    /// The same without a kick.
    pub(crate) fn queue(&mut self, pair: usize, net: [u8; NET], frame: &[u8]) {
        let index = pair * 2 + 1;
        let has_room = || self.rings[index].next.wrapping_sub(self.used_index(index)) < SIZE / 64;
        // A worker that is awake makes room at once: a nap would be much longer.
        let mut looks = 0;
        while !has_room() && looks < 1000 {
            std::thread::yield_now();
            looks += 1;
        }
        eventually("the transmit ring has room", has_room);
        // A frame takes as many buffers of the ring, in a chain, as it needs; at most 64 in flight would overlap.
        let bytes = [&net[..], frame].concat();
        let ring = &self.rings[index];
        let first = (ring.next % (SIZE / 64)) * 64;
        let chunks: Vec<&[u8]> = bytes.chunks(BUFFER as usize).collect();
        for (n, chunk) in (0u16..).zip(&chunks) {
            let at = first + n;
            let address = ring.buffers + u64::from(at) * BUFFER;
            self.memory.write_slice(chunk, GuestAddress(address)).expect("mapped");
            let last = usize::from(n) + 1 == chunks.len();
            self.describe(index, at, address, chunk.len() as u32, if last { 0 } else { NEXT }, at + 1);
        }
        self.publish(index, first);
    }

    /// How many sent frames were not given back yet.
    pub(crate) fn in_flight(&self, pair: usize) -> u16 {
        self.rings[pair * 2 + 1].next.wrapping_sub(self.used_index(pair * 2 + 1))
    }

    /// Everything received on a queue pair since the last call: net header and frame, merged buffers joined.
    pub(crate) fn receive(&mut self, pair: usize) -> Vec<([u8; NET], Vec<u8>)> {
        let index = pair * 2;
        let mut frames = Vec::new();
        let mut more = 0;
        while self.rings[index].seen != self.used_index(index) {
            let ring = &self.rings[index];
            let used = ring.used() + 4 + u64::from(ring.seen % SIZE) * 8;
            let [id, len]: [u32; 2] =
                [0, 4].map(|at| self.memory.read_obj(GuestAddress(used + at)).expect("mapped"));
            let mut bytes = vec![0; len as usize];
            let buffer = ring.buffers + u64::from(id) * BUFFER;
            self.memory.read_slice(&mut bytes, GuestAddress(buffer)).expect("mapped");
            self.rings[index].seen = self.rings[index].seen.wrapping_add(1);
            if more == 0 {
                let net: [u8; NET] = bytes[..NET].try_into().expect("a net header");
                more = u16::from_le_bytes([net[10], net[11]]);
                frames.push((net, bytes.split_off(NET)));
            } else if let Some((_, frame)) = frames.last_mut() {
                frame.extend(bytes);
            }
            more -= 1;
        }
        self.offer(pair);
        frames
    }

    /// Fills the receive ring with buffers.
    fn offer(&mut self, pair: usize) {
        let index = pair * 2;
        while self.rings[index].next.wrapping_sub(self.rings[index].seen) < SIZE {
            let slot = self.rings[index].next % SIZE;
            let address = self.rings[index].buffers + u64::from(slot) * BUFFER;
            self.describe(index, slot, address, BUFFER as u32, WRITE, 0);
            self.publish(index, slot);
        }
    }

    fn describe(&self, ring: usize, at: u16, address: u64, len: u32, flags: u16, next: u16) {
        let bytes =
            [&address.to_le_bytes()[..], &len.to_le_bytes(), &flags.to_le_bytes(), &next.to_le_bytes()]
                .concat();
        self.memory.write_slice(&bytes, self.rings[ring].descriptor(at)).expect("mapped");
    }

    fn publish(&mut self, index: usize, head: u16) {
        let ring = &mut self.rings[index];
        let entry = ring.available() + 4 + u64::from(ring.next % SIZE) * 2;
        self.memory.write_obj(head, GuestAddress(entry)).expect("mapped");
        ring.next = ring.next.wrapping_add(1);
        self.memory.store(ring.next, GuestAddress(ring.available() + 2), Ordering::Release).expect("mapped");
    }

    fn used_index(&self, ring: usize) -> u16 {
        self.memory.load(GuestAddress(self.rings[ring].used() + 2), Ordering::Acquire).expect("mapped")
    }
}
