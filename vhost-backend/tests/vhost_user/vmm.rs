//! A VMM that sends any message, right or wrong.

use std::io::{ErrorKind, IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use vhost::vhost_user::message::FrontendReq as Request;

use crate::guest::{DIMM, Guest, RAM, SIZE, USER};

/// Protocol feature bits.
pub(crate) const MQ: u64 = 1 << 0;
pub(crate) const LOG_SHMFD: u64 = 1 << 1;
pub(crate) const RARP: u64 = 1 << 2;
pub(crate) const REPLY_ACK: u64 = 1 << 3;
pub(crate) const NET_MTU: u64 = 1 << 4;
pub(crate) const CONFIG: u64 = 1 << 9;
pub(crate) const RESET_DEVICE: u64 = 1 << 13;
pub(crate) const MEM_SLOTS: u64 = 1 << 15;
pub(crate) const ALL: u64 = MQ | LOG_SHMFD | RARP | REPLY_ACK | NET_MTU | CONFIG | RESET_DEVICE | MEM_SLOTS;

/// Virtio feature bits.
pub(crate) const PROTOCOL: u64 = 1 << 30;
pub(crate) const LOG_ALL: u64 = 1 << 26;
/// What a Linux driver accepts of a port: VERSION_1, MRG_RXBUF, INDIRECT_DESC.
pub(crate) const DRIVER: u64 = 1 << 32 | 1 << 15 | 1 << 28;

const NEED_REPLY: u32 = 8;

/// One connection from the VMM's side.
pub(crate) struct Vmm {
    pub(crate) stream: UnixStream,
}

impl Vmm {
    pub(crate) fn connect(path: &Path) -> Self {
        Self::over(UnixStream::connect(path).unwrap())
    }

    pub(crate) fn over(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Vmm { stream }
    }

    /// Sends whatever it is told. `false` when the port has hung up.
    pub(crate) fn raw(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> bool {
        let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(fds.is_empty() || control.push(SendAncillaryMessage::ScmRights(fds)));
        let sent =
            rustix::net::sendmsg(&self.stream, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL);
        sent.is_ok_and(|count| count == bytes.len())
    }

    /// Sends a message that asks for no answer.
    pub(crate) fn tell(&self, request: Request, body: &[u8], fds: &[BorrowedFd<'_>]) -> bool {
        self.raw(&message(request.into(), 1, body), fds)
    }

    /// Sends a message that asks for an answer, and returns it: 0 means it worked.
    pub(crate) fn order(&mut self, request: Request, body: &[u8], fds: &[BorrowedFd<'_>]) -> Option<u64> {
        self.raw(&message(request.into(), 1 | NEED_REPLY, body), fds);
        self.reply(request).map(|body| u64::from_ne_bytes(body.try_into().unwrap()))
    }

    /// Sends a request that has a reply of its own.
    pub(crate) fn ask(&mut self, request: Request, body: &[u8]) -> Option<Vec<u8>> {
        self.tell(request, body, &[]);
        self.reply(request)
    }

    pub(crate) fn ask_number(&mut self, request: Request) -> u64 {
        u64::from_ne_bytes(self.ask(request, &[]).unwrap().try_into().unwrap())
    }

    /// The payload of the next reply, which must be to `request`; `None` when the port hung up instead.
    pub(crate) fn reply(&mut self, request: Request) -> Option<Vec<u8>> {
        let mut header = [0; 12];
        match self.stream.read_exact(&mut header) {
            Ok(()) => {}
            Err(error)
                if error.kind() == ErrorKind::UnexpectedEof || error.kind() == ErrorKind::ConnectionReset =>
            {
                return None;
            }
            Err(error) => panic!("no reply to {request:?}: {error}"),
        }
        let word = |at: usize| u32::from_ne_bytes(header[at..at + 4].try_into().unwrap());
        assert_eq!((word(0), word(4)), (request.into(), 5), "reply to {request:?}");
        let mut body = vec![0; word(8) as usize];
        self.stream.read_exact(&mut body).unwrap();
        Some(body)
    }

    /// Whether the port hangs up now, with nothing more to read.
    pub(crate) fn is_hung_up(&mut self) -> bool {
        let mut byte = [0; 1];
        match self.stream.read(&mut byte) {
            Ok(count) => count == 0,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => true,
            Err(error) => panic!("the port neither answers nor hangs up: {error}"),
        }
    }

    /// What every VMM does first; then the answers to requests are as `protocol` says.
    pub(crate) fn negotiate(&mut self, protocol: u64) {
        assert_eq!(self.ask_number(Request::GET_FEATURES) & PROTOCOL, PROTOCOL);
        assert_eq!(self.ask_number(Request::GET_PROTOCOL_FEATURES) & protocol, protocol);
        assert!(self.tell(Request::SET_PROTOCOL_FEATURES, &number(protocol), &[]));
        assert!(self.tell(Request::SET_OWNER, &[], &[]));
    }

    /// Memory and rings of `guest`, each ring from where the driver's queue stood when it was last stopped.
    pub(crate) fn start(&mut self, guest: &Guest, bases: &[u32]) {
        self.tell(Request::SET_MEM_TABLE, &table(&[RAM]), &[guest.ram.as_fd()]);
        for index in 0..guest.rings() {
            self.set_ring(guest, index, bases.get(index).copied().unwrap_or(0));
            self.tell(Request::SET_VRING_ENABLE, &ring(index, 1), &[]);
        }
    }

    pub(crate) fn set_ring(&self, guest: &Guest, index: usize, base: u32) {
        let its = guest.ring(index);
        self.tell(Request::SET_VRING_NUM, &ring(index, SIZE.into()), &[]);
        self.tell(Request::SET_VRING_BASE, &ring(index, base), &[]);
        self.tell(Request::SET_VRING_ADDR, &address(guest, index), &[]);
        self.tell(Request::SET_VRING_KICK, &number(index as u64), &[crate::guest::fd_of(&its.kick)]);
        self.tell(Request::SET_VRING_CALL, &number(index as u64), &[crate::guest::fd_of(&its.call)]);
    }

    /// Stops every ring; where each stood.
    pub(crate) fn stop(&mut self, guest: &Guest) -> Vec<u32> {
        (0..guest.rings()).map(|index| self.get_base(index)).collect()
    }

    pub(crate) fn get_base(&mut self, index: usize) -> u32 {
        let reply = self.ask(Request::GET_VRING_BASE, &ring(index, 0)).unwrap();
        assert_eq!(reply[..4], (index as u32).to_ne_bytes());
        u32::from_ne_bytes(reply[4..].try_into().unwrap())
    }
}

/// A message's bytes.
pub(crate) fn message(request: u32, flags: u32, body: &[u8]) -> Vec<u8> {
    let header = [request, flags, body.len() as u32];
    header.iter().flat_map(|word| word.to_ne_bytes()).chain(body.iter().copied()).collect()
}

pub(crate) fn number(value: u64) -> [u8; 8] {
    value.to_ne_bytes()
}

/// Ring index and value.
pub(crate) fn ring(index: usize, value: u32) -> Vec<u8> {
    [index as u32, value].iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// SET_VRING_ADDR for a ring of the guest.
pub(crate) fn address(guest: &Guest, index: usize) -> Vec<u8> {
    let its = guest.ring(index);
    let fields = [its.descriptors + USER, its.used + USER, its.available + USER, 0];
    let fields = fields.iter().flat_map(|field| field.to_ne_bytes());
    ring(index, 0).into_iter().chain(fields).collect()
}

fn region((start, len): (u64, u64)) -> Vec<u8> {
    [start, len, start + USER, 0].iter().flat_map(|field| field.to_ne_bytes()).collect()
}

/// SET_MEM_TABLE of regions given by guest address and length.
pub(crate) fn table(regions: &[(u64, u64)]) -> Vec<u8> {
    let mut body = number(regions.len() as u64).to_vec();
    regions.iter().for_each(|its| body.extend(region(*its)));
    body
}

/// ADD_MEM_REG and REM_MEM_REG of [`DIMM`].
pub(crate) fn dimm() -> Vec<u8> {
    [number(0).to_vec(), region(DIMM)].concat()
}
