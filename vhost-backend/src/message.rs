//! vhost-user messages: the header, and for every request what it carries, what it needs and what it is answered with.
//!
//! ```text
//!  0         4       8      12
//!  | request | flags | size | payload (size bytes) ...      native byte order; file descriptors ride on the first byte
//! ```
//! Source: QEMU docs/interop/vhost-user.

use std::os::fd::OwnedFd;

use vhost::vhost_user::message::FrontendReq;

use crate::features::PROTOCOL;

/// Bytes before the payload.
pub(crate) const HEADER: usize = 12;
/// Most bytes of payload. The largest message, SET_MEM_TABLE with 32 regions, has 1032; the crate underneath takes 4096.
pub(crate) const MAX_BODY: usize = 4096;
/// Most file descriptors with one message: the most regions the crate takes in SET_MEM_TABLE (the protocol's own limit
/// is 8, but cloud-hypervisor sends one per region).
pub(crate) const MAX_FDS: usize = 32;

/// Flags: bits 0–1 version (1), bit 2 reply, bit 3 an answer is wanted.
pub(crate) const VERSION: u32 = 1;
pub(crate) const REPLY: u32 = 1 << 2;
pub(crate) const NEED_REPLY: u32 = 1 << 3;

/// In the payload of SET_VRING_KICK, _CALL and _ERR: no descriptor comes with this (bits 0–7: which ring).
pub(crate) const NO_FD: u64 = 1 << 8;

/// One message, whole.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) request: FrontendReq,
    pub(crate) flags: u32,
    pub(crate) body: Vec<u8>,
    pub(crate) fds: Vec<OwnedFd>,
}

impl Message {
    pub(crate) fn new(request: FrontendReq, flags: u32, body: &[u8]) -> Self {
        Message { request, flags: VERSION | flags, body: body.to_vec(), fds: Vec::new() }
    }

    pub(crate) fn header(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[0..4].copy_from_slice(&u32::from(self.request).to_ne_bytes());
        bytes[4..8].copy_from_slice(&self.flags.to_ne_bytes());
        bytes[8..12].copy_from_slice(&(self.body.len() as u32).to_ne_bytes());
        bytes
    }

    /// Whether the sender set the flag that asks for an answer to a request that has none of its own.
    pub(crate) fn wants_reply(&self) -> bool {
        self.flags & NEED_REPLY != 0
    }

    /// The payload's `n`th 32-bit number; zero where the payload ends, which [`Shape`] rules out.
    pub(crate) fn u32(&self, n: usize) -> u32 {
        number(&self.body, n * 4).map_or(0, u32::from_ne_bytes)
    }

    /// The payload's `n`th 64-bit number.
    pub(crate) fn u64(&self, n: usize) -> u64 {
        number(&self.body, n * 8).map_or(0, u64::from_ne_bytes)
    }

    /// The memory regions of SET_MEM_TABLE, ADD_MEM_REG and REM_MEM_REG, which all begin after 8 bytes.
    pub(crate) fn regions(&self) -> impl Iterator<Item = Region> + '_ {
        let bytes = self.body.get(8..).unwrap_or_default();
        bytes.chunks_exact(Region::SIZE).map(|bytes| {
            let at = |n: usize| number(bytes, n * 8).map_or(0, u64::from_ne_bytes);
            Region { guest: at(0), size: at(1), user: at(2), offset: at(3) }
        })
    }

    /// Puts the regions of SET_MEM_TABLE and their descriptors in the order of guest addresses. The protocol asks for none,
    /// the crate underneath does.
    pub(crate) fn sort_regions(&mut self) {
        let at = |bytes: &[u8]| number(bytes, 0).map_or(0, u64::from_ne_bytes);
        let table = self.body.get(8..).unwrap_or_default();
        let entries = table.chunks_exact(Region::SIZE).map(<[u8]>::to_vec);
        let mut pairs: Vec<_> = entries.zip(std::mem::take(&mut self.fds)).collect();
        pairs.sort_by_key(|(bytes, _)| at(bytes));
        self.body.truncate(8);
        for (bytes, fd) in pairs {
            self.body.extend(bytes);
            self.fds.push(fd);
        }
    }

    /// The ring this message is about.
    pub(crate) fn ring(&self) -> Option<u32> {
        match rule(self.request)?.shape {
            Shape::Ring => Some(self.u32(0)),
            Shape::RingAddress => Some(self.u32(0)),
            Shape::RingFd => Some((self.u64(0) & 0xff) as u32),
            Shape::Nothing
            | Shape::Number
            | Shape::Regions
            | Shape::RegionAdded
            | Shape::RegionRemoved
            | Shape::Log
            | Shape::Config => None,
        }
    }
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

/// One region of guest memory as the VMM describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Region {
    pub(crate) guest: u64,
    pub(crate) size: u64,
    pub(crate) user: u64,
    pub(crate) offset: u64,
}

impl Region {
    const SIZE: usize = 32;

    /// Whether none of its ends overflows: the crate underneath adds them unchecked.
    pub(crate) fn is_sound(&self) -> bool {
        self.size != 0
            && [self.guest, self.user, self.offset].iter().all(|start| start.checked_add(self.size).is_some())
    }
}

/// What a request carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Nothing,
    /// u64
    Number,
    /// u32 ring, u32 value
    Ring,
    /// u32 ring, u32 flags, u64 descriptors, used, available, log
    RingAddress,
    /// u64 ring and flag [`NO_FD`]; a descriptor unless that is set
    RingFd,
    /// u32 count, u32 padding, regions; a descriptor for each
    Regions,
    /// u64 padding, region; its descriptor
    RegionAdded,
    /// u64 padding, region; perhaps a descriptor, which means nothing
    RegionRemoved,
    /// u64 size, u64 offset; the log's descriptor
    Log,
    /// u32 offset, u32 size, u32 flags, bytes
    Config,
}

impl Shape {
    /// Whether a message of `size` payload bytes starting with `head` and `fds` descriptors has this shape.
    pub(crate) fn fits(self, body: &[u8], fds: usize) -> Result<(), Misfit> {
        let word = |at: usize| number(body, at).map_or(0, u32::from_ne_bytes) as usize;
        let (size, least, most) = match self {
            Shape::Nothing => (0, 0, 0),
            Shape::Number => (8, 0, 0),
            Shape::Ring => (8, 0, 0),
            Shape::RingAddress => (40, 0, 0),
            Shape::RingFd => {
                let fd = usize::from(number(body, 0).map_or(0, u64::from_ne_bytes) & NO_FD == 0);
                (8, fd, fd)
            }
            Shape::Regions => {
                let count = word(0).min(MAX_FDS + 1);
                (8 + count * Region::SIZE, count, count)
            }
            Shape::RegionAdded => (8 + Region::SIZE, 1, 1),
            Shape::RegionRemoved => (8 + Region::SIZE, 0, 1),
            Shape::Log => (16, 1, 1),
            Shape::Config => (12 + word(4).min(MAX_BODY), 0, 0),
        };
        if body.len() != size {
            Err(Misfit::Size { got: body.len(), expected: size })
        } else if fds < least || fds > most {
            Err(Misfit::Fds { got: fds, expected: most })
        } else {
            Ok(())
        }
    }
}

/// How a message differs from its request's shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Misfit {
    Size { got: usize, expected: usize },
    Fds { got: usize, expected: usize },
}

/// What a request is answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Its own reply, always.
    Own,
    /// 0 or an error number, when REPLY_ACK is negotiated and the message asks.
    Ack,
}

/// What is known about a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rule {
    pub(crate) shape: Shape,
    pub(crate) answer: Answer,
    /// The protocol feature without which it must not be sent.
    pub(crate) needs: Option<&'static str>,
}

impl Rule {
    /// The bits of [`needs`](Self::needs).
    pub(crate) fn needed_bits(&self) -> u64 {
        let bit =
            |name| PROTOCOL.iter().find(|feature| feature.name == name).map_or(0, |feature| 1 << feature.bit);
        self.needs.map_or(0, bit)
    }
}

/// The requests we take, by name; `None` for those whose protocol feature we do not offer.
pub(crate) fn rule(request: FrontendReq) -> Option<Rule> {
    use FrontendReq as R;
    let taken = |shape, answer, needs| Some(Rule { shape, answer, needs });
    match request {
        R::GET_FEATURES | R::GET_PROTOCOL_FEATURES => taken(Shape::Nothing, Answer::Own, None),
        R::SET_FEATURES | R::SET_PROTOCOL_FEATURES => taken(Shape::Number, Answer::Ack, None),
        R::SET_OWNER | R::RESET_OWNER => taken(Shape::Nothing, Answer::Ack, None),
        R::SET_MEM_TABLE => taken(Shape::Regions, Answer::Ack, None),
        R::SET_LOG_BASE => taken(Shape::Log, Answer::Own, Some("LOG_SHMFD")),
        R::SET_VRING_NUM | R::SET_VRING_BASE | R::SET_VRING_ENABLE => taken(Shape::Ring, Answer::Ack, None),
        R::SET_VRING_ADDR => taken(Shape::RingAddress, Answer::Ack, None),
        R::GET_VRING_BASE => taken(Shape::Ring, Answer::Own, None),
        R::SET_VRING_KICK | R::SET_VRING_CALL | R::SET_VRING_ERR => taken(Shape::RingFd, Answer::Ack, None),
        R::GET_QUEUE_NUM => taken(Shape::Nothing, Answer::Own, Some("MQ")),
        R::SEND_RARP => taken(Shape::Number, Answer::Ack, Some("RARP")),
        R::NET_SET_MTU => taken(Shape::Number, Answer::Ack, Some("NET_MTU")),
        R::GET_CONFIG => taken(Shape::Config, Answer::Own, Some("CONFIG")),
        R::SET_CONFIG => taken(Shape::Config, Answer::Ack, Some("CONFIG")),
        R::RESET_DEVICE => taken(Shape::Nothing, Answer::Ack, Some("RESET_DEVICE")),
        R::GET_MAX_MEM_SLOTS => taken(Shape::Nothing, Answer::Own, Some("CONFIGURE_MEM_SLOTS")),
        R::ADD_MEM_REG => taken(Shape::RegionAdded, Answer::Ack, Some("CONFIGURE_MEM_SLOTS")),
        R::REM_MEM_REG => taken(Shape::RegionRemoved, Answer::Ack, Some("CONFIGURE_MEM_SLOTS")),
        R::SET_LOG_FD
        | R::SET_BACKEND_REQ_FD
        | R::IOTLB_MSG
        | R::SET_VRING_ENDIAN
        | R::CREATE_CRYPTO_SESSION
        | R::CLOSE_CRYPTO_SESSION
        | R::POSTCOPY_ADVISE
        | R::POSTCOPY_LISTEN
        | R::POSTCOPY_END
        | R::GET_INFLIGHT_FD
        | R::SET_INFLIGHT_FD
        | R::GPU_SET_SOCKET
        | R::VRING_KICK
        | R::SET_STATUS
        | R::GET_STATUS
        | R::GET_SHARED_OBJECT
        | R::SET_DEVICE_STATE_FD
        | R::CHECK_DEVICE_STATE
        | R::GET_SHMEM_CONFIG => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> impl Iterator<Item = FrontendReq> {
        (1..=44u32).map(|number| FrontendReq::try_from(number).unwrap())
    }

    #[test]
    fn a_request_is_taken_only_if_its_protocol_feature_is_offered() {
        for rule in all().filter_map(rule) {
            if let Some(name) = rule.needs {
                let feature = PROTOCOL.iter().find(|feature| feature.name == name).unwrap();
                assert!(feature.offered, "{name}");
                assert_eq!(rule.needed_bits(), 1 << feature.bit);
            }
        }
    }

    #[test]
    fn a_message_fits_its_shape_only_to_the_byte_and_the_descriptor() {
        use Shape::*;
        let word = |value: u32| value.to_ne_bytes().to_vec();
        assert_eq!(Nothing.fits(&[], 0), Ok(()));
        assert_eq!(Nothing.fits(&[0], 0), Err(Misfit::Size { got: 1, expected: 0 }));
        assert_eq!(Number.fits(&[0; 8], 1), Err(Misfit::Fds { got: 1, expected: 0 }));
        assert_eq!(RingFd.fits(&0u64.to_ne_bytes(), 1), Ok(()));
        assert_eq!(RingFd.fits(&0u64.to_ne_bytes(), 0), Err(Misfit::Fds { got: 0, expected: 1 }));
        assert_eq!(RingFd.fits(&NO_FD.to_ne_bytes(), 0), Ok(()));
        assert_eq!(RingFd.fits(&NO_FD.to_ne_bytes(), 1), Err(Misfit::Fds { got: 1, expected: 0 }));
        let table = |count: u32, regions: usize| [word(count), word(0), vec![0; regions * 32]].concat();
        assert_eq!(Regions.fits(&table(2, 2), 2), Ok(()));
        assert_eq!(Regions.fits(&table(2, 2), 1), Err(Misfit::Fds { got: 1, expected: 2 }));
        assert_eq!(Regions.fits(&table(2, 1), 2), Err(Misfit::Size { got: 40, expected: 72 }));
        assert_eq!(
            Regions.fits(&table(u32::MAX, 1), 1),
            Err(Misfit::Size { got: 40, expected: 8 + 33 * 32 })
        );
        assert_eq!(Regions.fits(&[], 0), Err(Misfit::Size { got: 0, expected: 8 }));
        assert_eq!(Config.fits(&[word(0), word(4), word(0), word(7)].concat(), 0), Ok(()));
        assert!(Config.fits(&[word(0), word(u32::MAX), word(0)].concat(), 0).is_err());
    }

    #[test]
    fn regions_are_read_from_a_table_and_checked_for_overflow() {
        let fields: Vec<u8> = [1u64, 0x1000, 2, 3, 0x4000].iter().flat_map(|n| n.to_ne_bytes()).collect();
        let message = Message::new(FrontendReq::SET_MEM_TABLE, 0, &fields);
        let region = message.regions().next().unwrap();
        assert_eq!(region, Region { guest: 0x1000, size: 2, user: 3, offset: 0x4000 });
        assert!(region.is_sound());
        assert!(!Region { size: 0, ..region }.is_sound());
        assert!(!Region { guest: u64::MAX - 1, ..region }.is_sound());
        assert!(!Region { user: u64::MAX - 1, ..region }.is_sound());
        assert!(!Region { offset: u64::MAX - 1, ..region }.is_sound());
    }
}
