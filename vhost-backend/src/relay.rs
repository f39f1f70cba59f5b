//! Between a VMM and the crate's daemon: checks every message, answers what the crate has no handler for, and brings the
//! crate into the state that a VMM expects.
//!
//! One request at a time: it goes to the daemon, the daemon's answer comes back, and only then is the next one read. So
//! nothing can overtake anything, and the relay knows what became of each request. Towards the daemon every request asks
//! for an answer; the VMM gets it if it asked too.
//!
//! Why the VMM does not talk to the daemon itself: QEMU enables rings before it sets features, which the crate takes for
//! an error (here a SET_FEATURES of the protocol bit alone comes first); NET_SET_MTU and SEND_RARP are unknown to it; it
//! forgets the dirty log when the memory table changes; and it trusts numbers that this one checks.

use std::collections::BTreeMap;
use std::iter;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::fs::{FileType, SealFlags};
use vhost::vhost_user::message::FrontendReq as Request;

use crate::end::End;
use crate::features::{LOG_ALL, PROTOCOL_FEATURES, PROTOCOL_OFFERED};
use crate::message::{Answer, Message, Misfit, NEED_REPLY, NO_FD, REPLY, Region, Rule, Shape, rule};
use crate::socket::{Alarm, Reads, Socket, wait};

/// What the port offers, to check requests against.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Offer<'a> {
    /// The port's, for the log.
    pub(crate) name: &'a str,
    pub(crate) pairs: u16,
    /// Virtio feature bits.
    pub(crate) features: u64,
    /// Bytes of network-layer packet.
    pub(crate) mtu: u16,
}

/// Something about the connection that the port shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fact {
    Features(u64),
    ProtocolFeatures(u64),
    /// The MTU that the VMM told its guest; whether frames of that size can pass here.
    Mtu(u16, bool),
    /// The guest is here now: learn its address.
    Announced([u8; 6]),
    Memory {
        regions: usize,
        bytes: u64,
    },
    /// Requests were slowed down.
    Throttled,
}

/// The port, as the relay sees it.
pub(crate) trait Desk {
    /// Takes note of a fact.
    fn note(&self, fact: Fact);
    /// From now on, rings lose their memory when it changes, and wait.
    fn hold_rings(&self);
    /// They go on with the memory that is current then.
    fn release_rings(&self);
    /// Somebody else connects: sends them away. `false` when the listener is better left alone for a while.
    fn turn_away(&self) -> bool;
}

/// See the module.
pub(crate) struct Relay<'a> {
    vmm: Socket,
    device: &'a Socket,
    alarm: Alarm<'a>,
    offer: Offer<'a>,
    desk: &'a dyn Desk,
    protocol: u64,
    /// Regions by guest address.
    memory: BTreeMap<u64, Kept>,
    log: Option<Log>,
    pace: Pace,
}

/// A memory region that the daemon has.
#[derive(Clone, Copy, Debug)]
struct Kept {
    region: Region,
    /// Device and inode of its file; none when it came without one.
    file: Option<(u64, u64)>,
    /// How often it was added. QEMU 7.2 adds and removes each region once for every queue pair.
    times: u32,
}

/// The dirty log of a live migration, to set it again.
struct Log {
    body: Vec<u8>,
    fd: OwnedFd,
}

impl<'a> Relay<'a> {
    /// Between `vmm` and `device`, which is the other end of a daemon's socket.
    pub(crate) fn new(
        vmm: OwnedFd,
        device: &'a Socket,
        alarm: Alarm<'a>,
        offer: Offer<'a>,
        desk: &'a dyn Desk,
    ) -> Result<Self, End> {
        Ok(Relay {
            vmm: Socket::new(vmm, Reads::Requests)?,
            device,
            alarm,
            offer,
            desk,
            protocol: 0,
            memory: BTreeMap::new(),
            log: None,
            pace: Pace::new(Instant::now()),
        })
    }

    /// Carries requests and answers until the connection ends, and says why it did. Meanwhile `listener`, if there is one,
    /// has its visitors turned away.
    pub(crate) fn run(mut self, listener: Option<BorrowedFd<'_>>) -> End {
        let ended = self.greet_device().and_then(|()| self.carry(listener));
        match ended {
            Ok(()) => End::HungUp,
            Err(end) => end,
        }
    }

    fn carry(&mut self, listener: Option<BorrowedFd<'_>>) -> Result<(), End> {
        let mut muted = false;
        loop {
            let vmm = (self.vmm.as_fd(), PollFlags::IN | PollFlags::RDHUP);
            let device = (self.device.as_fd(), PollFlags::IN | PollFlags::RDHUP);
            let visitors = listener.filter(|_| !muted).map(|fd| (fd, PollFlags::IN));
            let timeout = muted.then_some(VISITORS_WAIT);
            let events = wait(&[vmm, device], visitors, self.alarm, timeout)?;
            muted = false;
            if !events[0].is_empty() {
                let Some(message) = self.vmm.receive(self.alarm)? else { return Ok(()) };
                if let Some(pause) = self.pace.next(Instant::now()) {
                    self.desk.note(Fact::Throttled);
                    wait(&[], None, self.alarm, Some(pause))?;
                }
                self.serve(message)?;
            } else if !events[1].is_empty() {
                return Err(End::DeviceGone);
            } else if events.get(2).is_some_and(|events| !events.is_empty()) {
                muted = !self.desk.turn_away();
            }
        }
    }

    /// Brings the daemon to where it answers every request and lets rings be enabled.
    fn greet_device(&mut self) -> Result<(), End> {
        self.ask(Message::new(Request::GET_FEATURES, 0, &[]))?;
        let protocol = PROTOCOL_OFFERED & !OURS_ALONE;
        self.order(Request::SET_PROTOCOL_FEATURES, &protocol.to_ne_bytes())?;
        self.allow_enabling()
    }

    fn allow_enabling(&mut self) -> Result<(), End> {
        self.order(Request::SET_FEATURES, &PROTOCOL_FEATURES.to_ne_bytes())
    }

    /// One request of the VMM, from check to answer.
    fn serve(&mut self, message: Message) -> Result<(), End> {
        let request = message.request;
        let rule = self.check(&message)?;
        match message.ring() {
            Some(ring) => log::trace!("{}: {request:?} for ring {ring}", self.offer.name),
            None => log::trace!("{}: {request:?}", self.offer.name),
        }
        let wants_reply = message.wants_reply();
        let reply = match request {
            Request::GET_PROTOCOL_FEATURES => number(request, PROTOCOL_OFFERED),
            Request::SET_PROTOCOL_FEATURES => {
                self.protocol = message.u64(0);
                self.desk.note(Fact::ProtocolFeatures(self.protocol));
                number(request, OK)
            }
            Request::NET_SET_MTU => number(request, self.set_mtu(message.u64(0))),
            Request::SEND_RARP => {
                let bytes = message.u64(0).to_ne_bytes();
                self.desk.note(Fact::Announced([bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5]]));
                number(request, OK)
            }
            // Every field is read-only for a driver of virtio 1.0 and later.
            Request::SET_CONFIG => number(request, READ_ONLY),
            Request::SET_FEATURES => self.set_features(message)?,
            Request::RESET_DEVICE | Request::RESET_OWNER => self.reset(message)?,
            Request::SET_MEM_TABLE | Request::ADD_MEM_REG | Request::REM_MEM_REG => {
                self.change_memory(message)?
            }
            Request::SET_LOG_BASE => self.set_log(message)?,
            _ => self.ask(message)?,
        };
        let asked = wants_reply && self.protocol & REPLY_ACK != 0;
        if rule.answer == Answer::Own || asked {
            self.vmm.send(&reply, self.alarm)?;
        }
        if rule.answer == Answer::Ack && !is_ours(request) && reply.u64(0) != OK {
            // The daemon hangs up after a refusal; so do we, with the VMM informed if it asked to be.
            return Err(End::Refused { request });
        }
        Ok(())
    }

    /// Form, negotiation and numbers of a request.
    fn check(&self, message: &Message) -> Result<Rule, End> {
        let request = message.request;
        let rule = rule(request).ok_or(End::NotOffered { request })?;
        rule.shape.fits(&message.body, message.fds.len()).map_err(|misfit| match misfit {
            Misfit::Size { got, expected } => End::Size { request, got, expected },
            Misfit::Fds { got, expected } => End::Fds { request, got, expected },
        })?;
        if let Some(needs) = rule.needs.filter(|_| self.protocol & rule.needed_bits() == 0) {
            return Err(End::NotNegotiated { request, needs });
        }
        if let Some(ring) = message.ring().filter(|ring| *ring >= u32::from(self.offer.pairs) * 2) {
            return Err(End::Ring { request, ring, pairs: self.offer.pairs });
        }
        let expect = |good: bool, value: u64, expected| match good {
            true => Ok(()),
            false => Err(End::Value { request, value, expected }),
        };
        let second = message.u32(1);
        match request {
            Request::SET_FEATURES => none_of(request, message.u64(0) & !self.offer.features)?,
            Request::SET_PROTOCOL_FEATURES => none_of(request, message.u64(0) & !PROTOCOL_OFFERED)?,
            Request::SET_VRING_NUM => {
                let fine = second.is_power_of_two() && second <= u32::from(MAX_QUEUE_SIZE);
                expect(fine, second.into(), "a power of two from 1 to 32768")?;
            }
            Request::SET_VRING_BASE => expect(second <= 0xffff, second.into(), "an index below 65536")?,
            Request::SET_VRING_ENABLE => expect(second <= 1, second.into(), "0 or 1")?,
            Request::SET_VRING_KICK | Request::SET_VRING_CALL | Request::SET_VRING_ERR => {
                let value = message.u64(0);
                expect(value & !(NO_FD | 0xff) == 0, value, "a ring and the no-descriptor flag")?;
            }
            Request::GET_CONFIG => {
                expect(message.u32(1) > 0, 0, "at least one byte")?;
            }
            _ => {}
        }
        match rule.shape {
            Shape::Regions | Shape::RegionAdded => self.check_memory(message)?,
            Shape::Log => check_log(message)?,
            _ => {}
        }
        Ok(rule)
    }

    fn check_memory(&self, message: &Message) -> Result<(), End> {
        let request = message.request;
        let kept = if request == Request::ADD_MEM_REG { self.bytes() } else { 0u64 };
        let mut total = kept;
        for region in message.regions() {
            if !region.is_sound() {
                return Err(End::Memory { request, problem: "a region is empty or ends beyond 2^64" });
            }
            total = total.saturating_add(region.size);
        }
        if total > MAX_MEMORY {
            return Err(End::Memory { request, problem: "more than 16 TiB of guest memory" });
        }
        if request == Request::ADD_MEM_REG && self.memory.len() >= MAX_SLOTS && !self.is_known(message) {
            return Err(End::Memory { request, problem: "more than 509 memory regions" });
        }
        if message.body.len() <= 8 {
            return Err(End::Memory { request, problem: "an empty memory table" });
        }
        message
            .regions()
            .zip(&message.fds)
            .try_for_each(|(region, fd)| check_memory_file(fd, &region, request))
    }

    fn set_mtu(&self, mtu: u64) -> u64 {
        let fits = mtu <= u64::from(self.offer.mtu);
        let sound = u16::try_from(mtu).ok().filter(|mtu| *mtu >= MIN_MTU);
        if let Some(mtu) = sound {
            self.desk.note(Fact::Mtu(mtu, fits));
        }
        if fits && sound.is_some() { OK } else { INVALID }
    }

    fn set_features(&mut self, message: Message) -> Result<Message, End> {
        let features = message.u64(0);
        let reply = self.ask(message)?;
        if features & LOG_ALL == 0 {
            self.log = None;
        }
        self.desk.note(Fact::Features(features));
        Ok(reply)
    }

    /// The crate only disables the rings: left at that, a ring enabled early by the next driver's VMM would go on with the
    /// last driver's addresses. And it forgets that rings may be enabled at all.
    fn reset(&mut self, message: Message) -> Result<Message, End> {
        let reply = self.ask(message)?;
        for ring in 0..u32::from(self.offer.pairs) * 2 {
            let zero = [ring.to_ne_bytes(), [0; 4]].concat();
            self.ask(Message::new(Request::GET_VRING_BASE, 0, &zero))?;
            self.order(Request::SET_VRING_BASE, &zero)?;
        }
        self.allow_enabling()?;
        self.log = None;
        self.desk.note(Fact::Features(0));
        Ok(reply)
    }

    fn change_memory(&mut self, mut message: Message) -> Result<Message, End> {
        let request = message.request;
        if request == Request::SET_MEM_TABLE {
            message.sort_regions();
        }
        if self.counts_only(&message) {
            return Ok(number(request, OK));
        }
        let files: Vec<_> = message.fds.iter().map(file_of).collect();
        let regions: Vec<_> = message.regions().zip(files.into_iter().chain(iter::repeat(None))).collect();
        if request == Request::REM_MEM_REG {
            // Of no meaning, says the specification, but old front ends send one.
            message.fds.clear();
        }
        if self.log.is_none() {
            let reply = self.ask(message)?;
            self.remember(request, &regions);
            return Ok(reply);
        }
        // The crate gives new regions no log: until they have one, no ring may write there.
        self.desk.hold_rings();
        let changed = self.ask(message).and_then(|reply| self.set_log_again().map(|()| reply));
        self.desk.release_rings();
        self.remember(request, &regions);
        changed
    }

    /// Whether a region is added that is there already, or removed that has been added several times: the count changes
    /// and nothing else.
    fn counts_only(&mut self, message: &Message) -> bool {
        let known = self.is_known(message);
        let Some(region) = message.regions().next() else { return false };
        let Some(kept) = self.memory.get_mut(&region.guest) else { return false };
        match message.request {
            Request::ADD_MEM_REG if known => kept.times = kept.times.saturating_add(1),
            Request::REM_MEM_REG if kept.times > 1 && kept.region == region => kept.times -= 1,
            _ => return false,
        }
        true
    }

    /// Whether a region to add is, in place and file, one that is there.
    fn is_known(&self, message: &Message) -> bool {
        let Some(region) = message.regions().next() else { return false };
        let file = message.fds.first().and_then(file_of);
        let kept = self.memory.get(&region.guest).filter(|kept| kept.region == region);
        kept.is_some_and(|kept| file.is_some() && kept.file == file)
    }

    fn remember(&mut self, request: Request, regions: &[(Region, Option<(u64, u64)>)]) {
        match request {
            Request::REM_MEM_REG => regions.iter().for_each(|(region, _)| {
                self.memory.remove(&region.guest);
            }),
            _ => {
                if request == Request::SET_MEM_TABLE {
                    self.memory.clear();
                }
                let kept = |&(region, file): &(Region, _)| (region.guest, Kept { region, file, times: 1 });
                self.memory.extend(regions.iter().map(kept));
            }
        }
        self.desk.note(Fact::Memory { regions: self.memory.len(), bytes: self.bytes() });
    }

    /// Guest memory in all.
    fn bytes(&self) -> u64 {
        self.memory.values().map(|kept| kept.region.size).sum()
    }

    fn set_log(&mut self, message: Message) -> Result<Message, End> {
        let again = message.fds.first().map(OwnedFd::try_clone).transpose()?;
        let body = message.body.clone();
        let reply = self.ask(message)?;
        self.log = again.map(|fd| Log { body, fd });
        Ok(reply)
    }

    fn set_log_again(&mut self) -> Result<(), End> {
        let Some(log) = &self.log else { return Ok(()) };
        let mut message = Message::new(Request::SET_LOG_BASE, 0, &log.body);
        message.fds.push(log.fd.try_clone()?);
        self.ask(message).map(|_| ())
    }

    /// A request of our own that must succeed.
    fn order(&mut self, request: Request, body: &[u8]) -> Result<(), End> {
        match self.ask(Message::new(request, 0, body))?.u64(0) {
            OK => Ok(()),
            _ => Err(End::Refused { request }),
        }
    }

    /// A request to the daemon, and its answer.
    fn ask(&mut self, mut message: Message) -> Result<Message, End> {
        let request = message.request;
        message.flags |= NEED_REPLY;
        self.device.send(&message, self.alarm).map_err(|end| match end {
            End::HungUp => End::Refused { request },
            end => end,
        })?;
        drop(message);
        self.device.wait_readable(self.alarm)?;
        match self.device.receive(self.alarm)? {
            Some(reply) if reply.request == request => Ok(reply),
            Some(_) => Err(End::OutOfTurn { request }),
            None => Err(End::Refused { request }),
        }
    }
}

/// How long a listener that cannot accept (no descriptors left) is left alone.
const VISITORS_WAIT: Duration = Duration::from_secs(1);
/// The longest split ring (virtio 1.3, 2.7).
pub(crate) const MAX_QUEUE_SIZE: u16 = 32768;
/// What the crate answers to GET_MAX_MEM_SLOTS. It does not count them itself.
const MAX_SLOTS: usize = 509;
/// Address space for one port. The process has 128 TiB, so that no single VMM can use it up.
const MAX_MEMORY: u64 = 16 << 40;
/// RFC 791: every module must forward 68 bytes unfragmented; virtio 1.3, 5.1.4.1: at least that.
const MIN_MTU: u16 = 68;

/// Answers to a request without a reply of its own: zero, or whatever is not.
const OK: u64 = 0;
const INVALID: u64 = 22;
const READ_ONLY: u64 = 30;

const RARP: u64 = 1 << 2;
const REPLY_ACK: u64 = 1 << 3;
const NET_MTU: u64 = 1 << 4;
/// Protocol features that the relay serves and the crate does not know.
const OURS_ALONE: u64 = RARP | NET_MTU;

fn is_ours(request: Request) -> bool {
    matches!(
        request,
        Request::NET_SET_MTU | Request::SEND_RARP | Request::SET_CONFIG | Request::SET_PROTOCOL_FEATURES
    )
}

fn number(request: Request, value: u64) -> Message {
    Message::new(request, REPLY, &value.to_ne_bytes())
}

fn none_of(request: Request, bits: u64) -> Result<(), End> {
    if bits == 0 { Ok(()) } else { Err(End::FeatureBits { request, bits }) }
}

/// Device and inode: what makes two descriptors the same file.
fn file_of(fd: &OwnedFd) -> Option<(u64, u64)> {
    rustix::fs::fstat(fd).ok().map(|stat| (stat.st_dev, stat.st_ino))
}

/// Touching guest memory must never wait for somebody else: no FUSE, no network file systems.
fn check_memory_file(fd: &OwnedFd, region: &Region, request: Request) -> Result<(), End> {
    /// linux/magic.h: tmpfs (memfd, /dev/shm), hugetlbfs, ramfs, ext2–4, XFS, Btrfs.
    const LOCAL: [u64; 6] = [0x0102_1994, 0x9584_58f6, 0x8584_58f6, 0xef53, 0x5846_5342, 0x9123_683e];
    let stat = rustix::fs::fstat(fd).map_err(std::io::Error::from)?;
    let kind = rustix::fs::fstatfs(fd).map_err(std::io::Error::from)?.f_type as u64 & 0xffff_ffff;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || !LOCAL.contains(&kind) {
        let problem = "guest memory must be a memfd, or a file in /dev/shm, on hugetlbfs or on a local disk";
        return Err(End::Memory { request, problem });
    }
    if region.offset.saturating_add(region.size) > stat.st_size as u64 {
        return Err(End::Memory { request, problem: "a region ends beyond the end of its file" });
    }
    Ok(())
}

/// Bits are set in the log without any check that it is still there, so it must not be able to shrink. QEMU and
/// cloud-hypervisor seal theirs.
fn check_log(message: &Message) -> Result<(), End> {
    let request = message.request;
    let problem = |problem| Err(End::Memory { request, problem });
    let (size, offset) = (message.u64(0), message.u64(1));
    let Some(fd) = message.fds.first() else { return problem("no log") };
    let Ok(seals) = rustix::fs::fcntl_get_seals(fd) else { return problem("the dirty log is not a memfd") };
    if !seals.contains(SealFlags::SHRINK) {
        return problem("the dirty log is not sealed against shrinking (F_SEAL_SHRINK)");
    }
    let length = rustix::fs::fstat(fd).map_err(std::io::Error::from)?.st_size as u64;
    match offset.checked_add(size) {
        Some(end) if size > 0 && end <= length => Ok(()),
        _ => problem("the dirty log is shorter than said"),
    }
}

/// Slows a VMM down that floods us: requests cost CPU that workers need. A start with 16 queue pairs and 509 regions takes
/// about 750 requests.
struct Pace {
    since: Instant,
    left: u32,
}

impl Pace {
    const REQUESTS: u32 = 2048;
    const PER: Duration = Duration::from_secs(1);

    fn new(now: Instant) -> Self {
        Pace { since: now, left: Self::REQUESTS }
    }

    /// How long to wait before the next request is served.
    fn next(&mut self, now: Instant) -> Option<Duration> {
        let over = self.since + Self::PER;
        if now >= over {
            *self = Pace::new(now);
        }
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                None
            }
            None => {
                *self = Pace::new(over);
                Some(over - now)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_slowed_down_and_a_start_is_not() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        assert!((0..Pace::REQUESTS).all(|_| pace.next(start).is_none()));
        let later = start + Duration::from_millis(300);
        assert_eq!(pace.next(later), Some(Duration::from_millis(700)));
        assert_eq!(pace.next(start + Pace::PER), None);
        assert!((0..Pace::REQUESTS).all(|_| pace.next(start + Pace::PER * 3).is_none()));
    }

    #[test]
    fn only_memory_that_cannot_stall_a_worker_is_mapped() {
        let request = Request::ADD_MEM_REG;
        let region = Region { guest: 0, size: 4096, user: 0, offset: 8192 };
        let memfd = rustix::fs::memfd_create("ram", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&memfd, 12288).unwrap();
        assert!(check_memory_file(&memfd, &region, request).is_ok());
        let longer = Region { size: 4097, ..region };
        assert_eq!(check_memory_file(&memfd, &longer, request).unwrap_err().name(), "memory");
        let (pipe, _write) = rustix::pipe::pipe().unwrap();
        assert_eq!(check_memory_file(&pipe, &region, request).unwrap_err().name(), "memory");
        let proc = std::fs::File::open("/proc/self/maps").unwrap().into();
        assert_eq!(check_memory_file(&proc, &region, request).unwrap_err().name(), "memory");
        let device = std::fs::File::open("/dev/zero").unwrap().into();
        assert_eq!(check_memory_file(&device, &region, request).unwrap_err().name(), "memory");
    }

    #[test]
    fn a_dirty_log_must_be_sealed_and_as_long_as_said() {
        use rustix::fs::{MemfdFlags, fcntl_add_seals, ftruncate, memfd_create};
        let log = |size: u64, seal: bool, length: u64| {
            let fd = memfd_create("log", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
            ftruncate(&fd, length).unwrap();
            if seal {
                fcntl_add_seals(&fd, SealFlags::SHRINK).unwrap();
            }
            let body = [size.to_ne_bytes(), 0u64.to_ne_bytes()].concat();
            let mut message = Message::new(Request::SET_LOG_BASE, 0, &body);
            message.fds.push(fd);
            check_log(&message).is_ok()
        };
        assert!(log(4096, true, 4096));
        assert!(!log(4096, false, 4096));
        assert!(!log(4097, true, 4096));
        assert!(!log(0, true, 4096));
        assert!(!log(u64::MAX, true, 4096));
    }
}
