//! Many datagrams in one system call: `recvmmsg` with `UDP_GRO`, `sendmmsg` with `UDP_SEGMENT`.
//!
//! A message is what one entry of these calls moves: a burst of datagrams of one size, of which the last may be shorter,
//! with one address and one congestion mark.

#![expect(
    unsafe_code,
    reason = "recvmmsg, sendmmsg and UDP_GRO have no safe wrapper that takes these arguments"
)]

use std::io;
use std::marker::PhantomData;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};

use vhost_backend::Burst;

/// Messages that one receiving call takes at most.
pub(crate) const MESSAGES: usize = 32;
/// Room for one received message. More than 64 KiB, so that the starts of messages lie in different sets of the caches.
const ROOM: usize = 65_536 + 192;
/// Control messages of one message: two of one number each.
const CONTROL: usize = 2 * CONTROL_SPACE;
/// A control message's header (length, level, type) and a number, rounded up.
const CONTROL_SPACE: usize = CONTROL_HEADER + 8;
const CONTROL_HEADER: usize = 16;

/// The most parts that the kernel takes for one message (`UIO_MAXIOV`).
pub(crate) const MOST_PARTS: usize = 1024;

/// An address as the kernel reads and writes it: a `sockaddr_in` or `sockaddr_in6`.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(8))]
pub(crate) struct Name {
    bytes: [u8; 32],
    len: u32,
}

impl Name {
    const EMPTY: Self = Self { bytes: [0; 32], len: 0 };

    pub(crate) fn of(address: SocketAddr) -> Self {
        let mut bytes = [0; 32];
        let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
        bytes[..2].copy_from_slice(&(family as u16).to_ne_bytes());
        bytes[2..4].copy_from_slice(&address.port().to_be_bytes());
        let len = match address.ip() {
            IpAddr::V4(ip) => {
                bytes[4..8].copy_from_slice(&ip.octets());
                16
            }
            IpAddr::V6(ip) => {
                bytes[8..24].copy_from_slice(&ip.octets());
                28
            }
        };
        Self { bytes, len }
    }

    fn address(&self) -> Option<SocketAddr> {
        let [f0, f1, p0, p1, ..] = self.bytes;
        let ip = match i32::from(u16::from_ne_bytes([f0, f1])) {
            libc::AF_INET => Ipv4Addr::from(*self.bytes[4..].first_chunk::<4>()?).into(),
            libc::AF_INET6 => Ipv6Addr::from(*self.bytes[8..].first_chunk::<16>()?).into(),
            _ => return None,
        };
        Some(SocketAddr::new(ip, u16::from_be_bytes([p0, p1])))
    }
}

/// Control messages of one message.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(8))]
struct Control {
    bytes: [u8; CONTROL],
    len: usize,
}

impl Control {
    const EMPTY: Self = Self { bytes: [0; CONTROL], len: 0 };

    fn push(&mut self, level: i32, kind: i32, body: &[u8]) {
        let Some(place) = self.bytes.get_mut(self.len..self.len + CONTROL_SPACE) else { return };
        place[..8].copy_from_slice(&(CONTROL_HEADER + body.len()).to_ne_bytes());
        place[8..12].copy_from_slice(&level.to_ne_bytes());
        place[12..16].copy_from_slice(&kind.to_ne_bytes());
        place[16..16 + body.len()].copy_from_slice(body);
        self.len += CONTROL_SPACE;
    }

    /// Level, type and the number of each message, of which the kernel writes the first byte, or four.
    fn iter(&self) -> impl Iterator<Item = (i32, i32, i32)> {
        let used = &self.bytes[..self.len.min(CONTROL)];
        used.chunks(CONTROL_SPACE).filter_map(|one| {
            let word = |at: usize| Some(i32::from_ne_bytes(*one.get(at..)?.first_chunk()?));
            let len = usize::from_ne_bytes(*one.first_chunk()?);
            let value = match len.checked_sub(CONTROL_HEADER)? {
                1 => i32::from(*one.get(CONTROL_HEADER)?),
                2 => i32::from(u16::from_ne_bytes(*one.get(CONTROL_HEADER..)?.first_chunk()?)),
                _ => word(CONTROL_HEADER)?,
            };
            Some((word(8)?, word(12)?, value))
        })
    }
}

/// Room for received messages, filled by one call.
pub(crate) struct Inbox {
    bytes: Box<[u8]>,
    names: Box<[Name; MESSAGES]>,
    controls: Box<[Control; MESSAGES]>,
    parts: Box<[libc::iovec; MESSAGES]>,
    headers: Box<[libc::mmsghdr; MESSAGES]>,
    count: usize,
}

// SAFETY: the pointers in `parts` and `headers` are set anew by each `fill`, to boxes that the same value owns.
unsafe impl Send for Inbox {}

impl std::fmt::Debug for Inbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "inbox with {} messages", self.count)
    }
}

/// One received message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Message<'a> {
    /// Who sent it.
    pub(crate) source: SocketAddr,
    /// The congestion mark of the outer header (RFC 3168): two bits.
    pub(crate) ecn: u8,
    /// Bytes of each datagram but the last; at least 1.
    size: usize,
    bytes: &'a [u8],
}

impl<'a> Message<'a> {
    /// Takes the first datagram out; of an empty message there is none.
    #[inline]
    pub(crate) fn take_first(&mut self) -> Option<&'a [u8]> {
        let (first, rest) = self.bytes.split_at(self.size.min(self.bytes.len()));
        self.bytes = rest;
        (!first.is_empty()).then_some(first)
    }
}

impl Inbox {
    pub(crate) fn new() -> Self {
        let part = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        Self {
            bytes: vec![0; MESSAGES * ROOM].into_boxed_slice(),
            names: Box::new([Name::EMPTY; MESSAGES]),
            controls: Box::new([Control::EMPTY; MESSAGES]),
            parts: Box::new([part; MESSAGES]),
            headers: Box::new([EMPTY_HEADER; MESSAGES]),
            count: 0,
        }
    }

    /// Takes up to `most` messages that wait at a socket; how many. None when nothing waits, or the socket has an error to
    /// tell, which is then told.
    pub(crate) fn fill(&mut self, socket: BorrowedFd<'_>, most: usize) -> usize {
        self.count = 0;
        let most = most.min(MESSAGES);
        for i in 0..most {
            let part = &mut self.parts[i];
            part.iov_base = self.bytes[i * ROOM..(i + 1) * ROOM].as_mut_ptr().cast();
            part.iov_len = ROOM;
            let header = &mut self.headers[i];
            header.msg_len = 0;
            header.msg_hdr.msg_name = self.names[i].bytes.as_mut_ptr().cast();
            header.msg_hdr.msg_namelen = self.names[i].bytes.len() as u32;
            header.msg_hdr.msg_iov = part;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_control = self.controls[i].bytes.as_mut_ptr().cast();
            header.msg_hdr.msg_controllen = CONTROL;
            header.msg_hdr.msg_flags = 0;
        }
        // SAFETY: the first `most` headers point to rooms of their own, each as long as it says, all owned by `self`.
        let taken = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                most as u32,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        self.count = usize::try_from(taken).unwrap_or(0);
        for i in 0..self.count {
            self.controls[i].len = self.headers[i].msg_hdr.msg_controllen;
        }
        self.count
    }

    /// Bytes of all messages of the last [`Self::fill`].
    pub(crate) fn bytes(&self) -> usize {
        self.headers[..self.count].iter().map(|header| header.msg_len as usize).sum()
    }

    /// A message of the last [`Self::fill`]. `None` for one that was longer than any datagram can be, or of a foreign
    /// family.
    pub(crate) fn message(&self, i: usize) -> Option<Message<'_>> {
        let header = self.headers.get(i).filter(|_| i < self.count)?;
        if header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0 {
            return None;
        }
        let bytes = self.bytes.get(i * ROOM..i * ROOM + header.msg_len as usize)?;
        let (mut ecn, mut size) = (0, bytes.len());
        for (level, kind, value) in self.controls[i].iter() {
            match (level, kind) {
                (libc::IPPROTO_IP, libc::IP_TOS) | (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                    ecn = value as u8 & 0b11;
                }
                (libc::SOL_UDP, libc::UDP_GRO) => size = usize::try_from(value).unwrap_or(0),
                _ => {}
            }
        }
        let source = self.names[i].address()?;
        Some(Message { source, ecn, size: size.max(1), bytes })
    }
}

const EMPTY_HEADER: libc::mmsghdr = libc::mmsghdr {
    msg_hdr: libc::msghdr {
        msg_name: std::ptr::null_mut(),
        msg_namelen: 0,
        msg_iov: std::ptr::null_mut(),
        msg_iovlen: 0,
        msg_control: std::ptr::null_mut(),
        msg_controllen: 0,
        msg_flags: 0,
    },
    msg_len: 0,
};

/// Lets a socket receive bursts of datagrams as one message.
pub(crate) fn receive_bursts(socket: BorrowedFd<'_>) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: UDP_GRO reads one int.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_UDP,
            libc::UDP_GRO,
            (&raw const on).cast(),
            size_of_val(&on) as u32,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Room for what is sent by one call; holds nothing between two [`Batch`]es.
pub(crate) struct Outbox {
    parts: Vec<libc::iovec>,
    gathered: Vec<libc::iovec>,
    headers: Vec<libc::mmsghdr>,
    controls: Vec<Control>,
}

// SAFETY: the pointers are only followed through a `Batch`, which borrows what they point to; between batches they are
// dead bytes.
unsafe impl Send for Outbox {}

impl std::fmt::Debug for Outbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "outbox for {} parts", self.parts.capacity())
    }
}

impl Outbox {
    /// Room for datagrams of this many parts in all.
    pub(crate) fn new(parts: usize) -> Self {
        Self {
            parts: Vec::with_capacity(parts),
            gathered: Vec::with_capacity(parts),
            headers: Vec::with_capacity(MOST_ENVELOPES),
            controls: vec![Control::EMPTY; MOST_ENVELOPES],
        }
    }

    /// An empty batch.
    pub(crate) fn batch<'o, 'a>(&'o mut self) -> Batch<'o, 'a> {
        self.parts.clear();
        Batch { outbox: self, _data: PhantomData }
    }
}

/// Parts of datagrams that are about to be sent. What they point to lives at least as long as this.
#[derive(Debug)]
pub(crate) struct Batch<'o, 'a> {
    outbox: &'o mut Outbox,
    _data: PhantomData<&'a [u8]>,
}

/// What is sent as one message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Envelope<'n> {
    /// Where to.
    pub(crate) name: &'n Name,
    /// The congestion mark of the outer header.
    pub(crate) ecn: u8,
    /// Bytes of each datagram, where there are several.
    pub(crate) size: Option<u16>,
}

/// The most messages that are sent by one call.
pub(crate) const MOST_ENVELOPES: usize = 64;

/// Why a message could not be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SendError {
    /// No room in the socket's or the device's queue.
    Full,
    /// Larger than the way to there takes.
    TooLarge,
    /// The device cannot cut bursts into datagrams.
    NoBursts,
    /// Memory of it vanished while it was read (a guest truncated its memory).
    Fault,
    /// No way to there.
    Refused,
}

impl<'a> Batch<'_, 'a> {
    /// Parts so far.
    pub(crate) fn len(&self) -> usize {
        self.outbox.parts.len()
    }

    /// Whether so many parts more have room.
    pub(crate) fn has_room(&self, parts: usize) -> bool {
        self.len() + parts <= self.outbox.parts.capacity()
    }

    /// Adds a part.
    #[inline]
    pub(crate) fn push(&mut self, bytes: &'a [u8]) {
        self.add(bytes.as_ptr(), bytes.len());
    }

    /// Adds what lies behind the head of frame `i`, which may be in guest memory.
    #[inline]
    pub(crate) fn push_payload(&mut self, burst: &'a Burst<'_>, i: usize) {
        let mut is_head = true;
        burst.for_each_part(i, |ptr, len| {
            if !std::mem::take(&mut is_head) {
                self.add(ptr, len);
            }
            true
        });
    }

    #[inline]
    fn add(&mut self, ptr: *const u8, len: usize) {
        self.outbox.parts.push(libc::iovec { iov_base: ptr.cast_mut().cast(), iov_len: len });
    }

    /// Sends messages from one socket, in order; `outcome` is told of each by its place. A message comes with its parts, as
    /// ranges of what was pushed. At most [`MOST_ENVELOPES`] are sent, the rest is left to another call.
    pub(crate) fn send<'n, P: Iterator<Item = Range<usize>>>(
        &mut self,
        socket: BorrowedFd<'_>,
        envelopes: impl Iterator<Item = (Envelope<'n>, P)>,
        mut outcome: impl FnMut(usize, Result<(), SendError>),
    ) {
        let Outbox { parts, gathered, headers, controls } = &mut *self.outbox;
        headers.clear();
        gathered.clear();
        for ((envelope, ranges), control) in envelopes.zip(controls.iter_mut()) {
            let first = gathered.len();
            for part in ranges.filter_map(|range| parts.get(range)).flatten() {
                let has_room = gathered.len() < gathered.capacity();
                match gathered[first..].last_mut() {
                    // Headers and small frames lie one behind the other.
                    Some(last) if end_of(last) == part.iov_base => last.iov_len += part.iov_len,
                    // No more than there are, as each is part of one message: the pointers below stay right.
                    _ if has_room => gathered.push(*part),
                    _ => {}
                }
            }
            control.len = 0;
            let v4 = envelope.name.len == 16;
            if envelope.ecn != 0 {
                let (level, kind) = if v4 {
                    (libc::IPPROTO_IP, libc::IP_TOS)
                } else {
                    (libc::IPPROTO_IPV6, libc::IPV6_TCLASS)
                };
                control.push(level, kind, &i32::from(envelope.ecn).to_ne_bytes());
            }
            if let Some(size) = envelope.size {
                control.push(libc::SOL_UDP, libc::UDP_SEGMENT, &size.to_ne_bytes());
            }
            let mut header = EMPTY_HEADER;
            header.msg_hdr.msg_name = envelope.name.bytes.as_ptr().cast_mut().cast();
            header.msg_hdr.msg_namelen = envelope.name.len;
            let own = &mut gathered[first..];
            header.msg_hdr.msg_iov = own.as_mut_ptr();
            header.msg_hdr.msg_iovlen = own.len();
            header.msg_hdr.msg_control = control.bytes.as_mut_ptr().cast();
            header.msg_hdr.msg_controllen = control.len;
            headers.push(header);
        }
        let mut at = 0;
        while at < headers.len() {
            let rest = &mut headers[at..];
            // SAFETY: names are borrowed for `'n`, control messages and parts are the outbox's own. Parts point to what is
            // borrowed for `'a`, or to guest memory that stays mapped while its burst, borrowed for `'a`, lives: only the
            // kernel reads it, and a page that is gone makes it answer EFAULT.
            let sent = unsafe {
                libc::sendmmsg(socket.as_raw_fd(), rest.as_mut_ptr(), rest.len() as u32, libc::MSG_DONTWAIT)
            };
            if let Ok(sent @ 1..) = usize::try_from(sent) {
                (at..at + sent).for_each(|place| outcome(place, Ok(())));
                at += sent;
                continue;
            }
            // Nothing of the first: it says why, and the next gets its chance.
            let of_burst = controls[at].iter().any(|(level, ..)| level == libc::SOL_UDP);
            let error = match io::Error::last_os_error().raw_os_error() {
                Some(libc::EINTR) => continue,
                Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM) => SendError::Full,
                Some(libc::EMSGSIZE) => SendError::TooLarge,
                // A burst of datagrams that do not fit is told like that.
                Some(libc::EINVAL) if of_burst => SendError::TooLarge,
                Some(libc::EIO) if of_burst => SendError::NoBursts,
                Some(libc::EFAULT) => SendError::Fault,
                _ => SendError::Refused,
            };
            outcome(at, Err(error));
            at += 1;
        }
    }
}

/// Where a part ends.
fn end_of(part: &libc::iovec) -> *mut libc::c_void {
    part.iov_base.cast::<u8>().wrapping_add(part.iov_len).cast()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_kernels_form() {
        for text in ["10.1.2.3:6081", "[fd00::12:34]:65535"] {
            let address: SocketAddr = text.parse().expect("an address");
            assert_eq!(Name::of(address).address(), Some(address));
        }
        assert_eq!(Name::EMPTY.address(), None);
    }

    #[test]
    fn control_messages_are_laid_out_as_the_kernel_reads_them() {
        let mut control = Control::EMPTY;
        control.push(libc::IPPROTO_IP, libc::IP_TOS, &2i32.to_ne_bytes());
        control.push(libc::SOL_UDP, libc::UDP_SEGMENT, &1400u16.to_ne_bytes());
        // SAFETY: CMSG_SPACE only computes.
        let space = unsafe { libc::CMSG_SPACE(4) };
        // SAFETY: and so does CMSG_LEN.
        let len = unsafe { libc::CMSG_LEN(2) };
        assert_eq!((CONTROL_SPACE, CONTROL_HEADER + 2), (space as usize, len as usize));
        let read: Vec<_> = control.iter().collect();
        assert_eq!(read, [(libc::IPPROTO_IP, libc::IP_TOS, 2), (libc::SOL_UDP, libc::UDP_SEGMENT, 1400)]);
    }
}
