//! GENEVE (RFC 8926): what a frame travels in between hosts, behind UDP.
//!
//! ```text
//!  0            1           2              4           7          8
//! +------------+-----------+--------------+-----------+----------+---------
//! |ver|opt len | O C rsvd  | protocol     | VNI       | reserved | options
//! +------------+-----------+--------------+-----------+----------+---------
//! ```
//! `opt len` counts the options in units of 4 bytes. An option:
//! ```text
//!  0            2       3               4
//! +------------+-------+---------------+------
//! | class      | type  | R R R | len   | body      len: of the body, in units of 4 bytes
//! +------------+-------+---------------+------
//! ```
//! The highest bit of an option's type says that it is critical: who does not know it must drop the packet.
//!
//! Ours are of [`CLASS`]: the sender's identity ([`IDENTITY`], critical), its tags ([`TAGS`]) and the destination port
//! ([`PORT`], critical). None differs between the packets of a flow, as segmentation copies them.

use thiserror::Error;

/// The UDP port (RFC 8926, section 3.3).
pub const UDP_PORT: u16 = 6081;
/// Bytes of the header without options.
pub const HEADER_LEN: usize = 8;
/// Bytes of the longest header: 63 units of options.
pub const MOST_LEN: usize = HEADER_LEN + 63 * UNIT;
/// Bytes of the longest header that [`Builder`] writes.
pub const BUILT_LEN: usize = HEADER_LEN + IDENTITY_LEN + TAGS_LEN + PORT_LEN;
/// Ethernet frames ("transparent Ethernet bridging"): the only protocol inside.
pub const ETHERNET: u16 = 0x6558;
/// The largest VNI: it has 24 bits.
pub const MOST_VNI: u32 = 0x00ff_ffff;

/// The class of our options: for experiments (RFC 8926, section 7), until one is registered.
pub const CLASS: u16 = 0xff00;
/// Type of the option with the identity of the sender's workload, a u32. Critical.
pub const IDENTITY: u8 = 0x01 | CRITICAL;
/// Type of the option with the user's and the application's tag of the sending port, two u32.
pub const TAGS: u8 = 0x02;
/// Type of the option with the id of the destination's port, a u32. Critical.
pub const PORT: u8 = 0x03 | CRITICAL;
/// Bytes of the identity option, its header included.
pub const IDENTITY_LEN: usize = OPTION_HEADER_LEN + 4;
/// Bytes of the tags option, its header included.
pub const TAGS_LEN: usize = OPTION_HEADER_LEN + 8;
/// Bytes of the port option, its header included.
pub const PORT_LEN: usize = OPTION_HEADER_LEN + 4;

/// In an option's type: who does not know it must drop the packet.
const CRITICAL: u8 = 0x80;
/// In the second byte: a control packet, never for a workload.
const CONTROL_BIT: u8 = 0x80;
/// In the second byte: there are critical options.
const CRITICAL_BIT: u8 = 0x40;
/// Lengths count in these.
const UNIT: usize = 4;
const OPTION_HEADER_LEN: usize = 4;
/// Bits of an option's fourth byte that are its length.
const OPTION_UNITS: u8 = 0x1f;
/// Bits of the first byte that are the options' length.
const UNITS: u8 = 0x3f;

/// Why bytes are no GENEVE header that can be honoured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum GeneveError {
    /// The bytes end before the header does.
    #[error("a GENEVE header needs {need} bytes, there are {have}")]
    Short {
        /// Bytes needed.
        need: usize,
        /// Bytes there are.
        have: usize,
    },
    /// Another version than 0.
    #[error("GENEVE version {0}; only 0 is known")]
    Version(u8),
    /// Something else inside than Ethernet.
    #[error("GENEVE protocol {0:#06x}; only {ETHERNET:#06x} is carried")]
    Protocol(u16),
    /// An option goes on behind the last, or fewer bytes are left than the header of one.
    #[error("a GENEVE option needs {need} bytes, {have} are left")]
    OptionLength {
        /// Bytes needed.
        need: usize,
        /// Bytes left of the options.
        have: usize,
    },
    /// A critical option that is not known, is there twice, or has another length than it must have.
    #[error("critical GENEVE option {class:#06x}/{kind:#04x} with {len} bytes cannot be honoured")]
    CriticalOption {
        /// Its class.
        class: u16,
        /// Its type.
        kind: u8,
        /// Bytes of its body.
        len: usize,
    },
}

/// A header that was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Bytes of the header with its options; the frame begins behind them.
    pub len: usize,
    /// The network: 24 bits.
    pub vni: u32,
    /// A control packet: not for a workload.
    pub control: bool,
    /// The identity of the sender's workload.
    pub identity: Option<u32>,
    /// Tags of the sending port: the user's, the application's.
    pub tags: Option<(u32, u32)>,
    /// The id of the destination's port.
    pub port: Option<u32>,
}

/// Bytes of the header that starts like this, options included; `None` of nothing.
#[inline]
pub fn header_len(bytes: &[u8]) -> Option<usize> {
    bytes.first().map(|first| HEADER_LEN + usize::from(first & UNITS) * UNIT)
}

/// A datagram's header, and the frame behind it. All of it is header when it ends too early, so that
/// [`Header::parse`] says so.
#[inline]
pub fn split(datagram: &[u8]) -> (&[u8], &[u8]) {
    let at = header_len(datagram).unwrap_or(0).min(datagram.len());
    datagram.split_at(at)
}

impl Header {
    /// Reads the header at the start of `bytes`, which may go on behind it.
    ///
    /// Proves: version 0; Ethernet inside; the header with its options lies within `bytes`; the options fill exactly the
    /// length they are said to have; each critical option is known, there once, and as long as it must be. Options that
    /// are not critical and not known are skipped (section 3.5). Reserved bits are not looked at (section 3.4). Critical
    /// options count whether or not the header's C bit announces them: Linux does not set it.
    ///
    /// # Errors
    /// What of this is not so.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<Self, GeneveError> {
        let Some((fixed, rest)) = bytes.split_first_chunk::<HEADER_LEN>() else {
            return Err(GeneveError::Short { need: HEADER_LEN, have: bytes.len() });
        };
        let [first, second, p0, p1, v0, v1, v2, _] = *fixed;
        if first >> 6 != 0 {
            return Err(GeneveError::Version(first >> 6));
        }
        let protocol = u16::from_be_bytes([p0, p1]);
        if protocol != ETHERNET {
            return Err(GeneveError::Protocol(protocol));
        }
        let len = HEADER_LEN + usize::from(first & UNITS) * UNIT;
        let Some(options) = rest.get(..len - HEADER_LEN) else {
            return Err(GeneveError::Short { need: len, have: bytes.len() });
        };
        let mut header = Self {
            len,
            vni: u32::from_be_bytes([0, v0, v1, v2]),
            control: second & CONTROL_BIT != 0,
            ..Self::default()
        };
        header.options(options)?;
        Ok(header)
    }

    fn options(&mut self, mut left: &[u8]) -> Result<(), GeneveError> {
        while !left.is_empty() {
            let Some((fixed, rest)) = left.split_first_chunk::<OPTION_HEADER_LEN>() else {
                return Err(GeneveError::OptionLength { need: OPTION_HEADER_LEN, have: left.len() });
            };
            let [c0, c1, kind, units] = *fixed;
            let len = usize::from(units & OPTION_UNITS) * UNIT;
            let Some((body, behind)) = rest.split_at_checked(len) else {
                return Err(GeneveError::OptionLength { need: OPTION_HEADER_LEN + len, have: left.len() });
            };
            let class = u16::from_be_bytes([c0, c1]);
            if !self.take(class, kind, body) && kind & CRITICAL != 0 {
                return Err(GeneveError::CriticalOption { class, kind, len });
            }
            left = behind;
        }
        Ok(())
    }

    /// Notes an option. False when it is not known, was there before, or is too long or too short.
    #[inline]
    fn take(&mut self, class: u16, kind: u8, body: &[u8]) -> bool {
        let number = |bytes: &[u8]| bytes.try_into().ok().map(u32::from_be_bytes);
        match (class, kind) {
            (CLASS, IDENTITY) if self.identity.is_none() => {
                self.identity = number(body);
                self.identity.is_some()
            }
            (CLASS, PORT) if self.port.is_none() => {
                self.port = number(body);
                self.port.is_some()
            }
            (CLASS, TAGS) if self.tags.is_none() => {
                let halves = body.split_at_checked(4);
                self.tags = halves.and_then(|(user, app)| Some((number(user)?, number(app)?)));
                self.tags.is_some()
            }
            _ => false,
        }
    }
}

/// What a header is written from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Builder {
    /// The network: the lower 24 bits count.
    pub vni: u32,
    /// A control packet.
    pub control: bool,
    /// The identity of the sender's workload.
    pub identity: Option<u32>,
    /// Tags of the sending port: the user's, the application's.
    pub tags: Option<(u32, u32)>,
    /// The id of the destination's port.
    pub port: Option<u32>,
}

impl Builder {
    /// Bytes of the header: at most [`BUILT_LEN`].
    #[inline]
    pub fn len(&self) -> usize {
        let option = |there, len| if there { len } else { 0 };
        HEADER_LEN
            + option(self.identity.is_some(), IDENTITY_LEN)
            + option(self.tags.is_some(), TAGS_LEN)
            + option(self.port.is_some(), PORT_LEN)
    }

    /// False: a header is never empty.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Writes the header to the start of `buffer`, the options in the order identity, tags, port. Its length; 0 when the
    /// buffer is too short, which one of [`BUILT_LEN`] bytes never is.
    #[inline]
    pub fn write(&self, buffer: &mut [u8]) -> usize {
        let len = self.len();
        let Some((fixed, mut rest)) =
            buffer.get_mut(..len).and_then(|header| header.split_first_chunk_mut::<HEADER_LEN>())
        else {
            return 0;
        };
        let critical = self.identity.is_some() || self.port.is_some();
        let [_, v0, v1, v2] = self.vni.to_be_bytes();
        let [p0, p1] = ETHERNET.to_be_bytes();
        let flag = |on, bit| if on { bit } else { 0 };
        *fixed = [
            ((len - HEADER_LEN) / UNIT) as u8,
            flag(self.control, CONTROL_BIT) | flag(critical, CRITICAL_BIT),
            p0,
            p1,
            v0,
            v1,
            v2,
            0,
        ];
        for (kind, number) in [(IDENTITY, self.identity), (PORT, self.port)] {
            // Between the two stand the tags.
            if let (PORT, Some((user, app))) = (kind, self.tags) {
                rest = put(rest, TAGS, 2, u64::from(user) << 32 | u64::from(app));
            }
            if let Some(number) = number {
                rest = put(rest, kind, 1, u64::from(number) << 32);
            }
        }
        len
    }
}

/// Writes an option whose body is the first `units` words of `body`, and gives what is left of the buffer.
#[inline]
fn put(buffer: &mut [u8], kind: u8, units: u8, body: u64) -> &mut [u8] {
    let [c0, c1] = CLASS.to_be_bytes();
    let len = usize::from(units) * UNIT;
    match buffer.split_at_mut_checked(OPTION_HEADER_LEN + len) {
        Some((option, rest)) => {
            let (header, place) = option.split_at_mut(OPTION_HEADER_LEN);
            header.copy_from_slice(&[c0, c1, kind, units]);
            place.copy_from_slice(&body.to_be_bytes()[..len]);
            rest
        }
        None => &mut [],
    }
}

const _: () = assert!(BUILT_LEN <= MOST_LEN);
