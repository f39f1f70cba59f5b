//! What connection tracking looks at in a TCP segment.

use wire::tcp;

use crate::DropReason;

/// The largest shift of a window (RFC 7323, section 2.3): larger ones count as this.
pub(crate) const MAX_SCALE: u8 = 14;

/// The window scale option (RFC 7323): kind, and its length.
const WINDOW_SCALE: (u8, u8) = (3, 3);

/// A TCP segment, or many that a sender leaves to be cut (up to 64 KiB).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// What its flags make it.
    pub kind: Kind,
    /// Sequence number of the first byte, or of SYN.
    pub seq: u32,
    /// Acknowledgement number; of no meaning in [`Kind::Syn`] and [`Kind::Rst`].
    pub ack: u32,
    /// Window, as it stands in the header.
    pub window: u16,
    /// Bytes of payload.
    pub len: u32,
    /// Window scale option: the shift, at most 14. Only in segments with SYN.
    pub scale: Option<u8>,
    /// Whether this is only its beginning, and the rest comes in fragments that are not looked at.
    pub partial: bool,
}

/// What the flags make of a segment. URG, PSH and the bits of ECN have no say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// SYN alone: asks for a connection.
    Syn,
    /// SYN with ACK: grants it, or answers a SYN that crossed the own.
    SynAck,
    /// ACK alone: data, acknowledgement, window update, probe.
    Ack,
    /// FIN with ACK: no more data from its sender.
    Fin,
    /// RST alone: the answer to a segment with ACK that fits no connection, or an abort.
    Rst,
    /// RST with ACK: the answer to a segment without ACK, or an abort.
    RstAck,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 6] = [Self::Syn, Self::SynAck, Self::Ack, Self::Fin, Self::Rst, Self::RstAck];

    /// The kind that `flags` make, or `None` if no honest sender combines them so: SYN, FIN and RST exclude each other,
    /// and nothing but a first SYN and a RST comes without ACK (RFC 9293, section 3.10.7).
    #[inline]
    pub const fn of(flags: u8) -> Option<Self> {
        match (flags & (tcp::SYN | tcp::FIN | tcp::RST), flags & tcp::ACK != 0) {
            (0, true) => Some(Self::Ack),
            (tcp::SYN, false) => Some(Self::Syn),
            (tcp::SYN, true) => Some(Self::SynAck),
            (tcp::FIN, true) => Some(Self::Fin),
            (tcp::RST, false) => Some(Self::Rst),
            (tcp::RST, true) => Some(Self::RstAck),
            _ => None,
        }
    }

    /// Whether it opens a connection, one way or the other.
    #[inline]
    pub(crate) const fn opens(self) -> bool {
        matches!(self, Self::Syn | Self::SynAck)
    }

    /// How many sequence numbers SYN or FIN take: each one.
    const fn numbers(self) -> u32 {
        match self {
            Self::Syn | Self::SynAck | Self::Fin => 1,
            Self::Ack | Self::Rst | Self::RstAck => 0,
        }
    }
}

impl Segment {
    /// Reads a segment: `header` is the TCP header with its options (what lies behind them does no harm), `len` the
    /// payload's bytes.
    ///
    /// # Errors
    /// [`DropReason::MalformedTransport`] when `header` ends before the fixed header does,
    /// [`DropReason::TcpBadFlags`].
    #[inline]
    pub fn parse(header: &[u8], len: u32) -> Result<Self, DropReason> {
        let Some(fixed) = header.first_chunk::<{ tcp::HEADER_LEN }>() else {
            return Err(DropReason::MalformedTransport);
        };
        let [_, _, _, _, s0, s1, s2, s3, a0, a1, a2, a3, offset, flags, w0, w1, ..] = *fixed;
        let kind = Kind::of(flags).ok_or(DropReason::TcpBadFlags)?;
        let scale = match kind {
            Kind::Syn | Kind::SynAck => {
                let end = header.len().min(usize::from(offset >> 4) * 4);
                window_scale(header.get(tcp::HEADER_LEN..end).unwrap_or_default())
            }
            Kind::Ack | Kind::Fin | Kind::Rst | Kind::RstAck => None,
        };
        let (seq, ack) = (u32::from_be_bytes([s0, s1, s2, s3]), u32::from_be_bytes([a0, a1, a2, a3]));
        Ok(Self { kind, seq, ack, window: u16::from_be_bytes([w0, w1]), len, scale, partial: false })
    }

    /// The sequence number behind the segment: SYN and FIN take one each.
    #[inline]
    pub const fn end(&self) -> u32 {
        self.seq.wrapping_add(self.len).wrapping_add(self.kind.numbers())
    }
}

/// The shift in the window scale option. What cannot be read ends the search, as it does in hosts.
#[cold]
fn window_scale(mut options: &[u8]) -> Option<u8> {
    loop {
        options = match options {
            [] | [0, ..] => return None,
            [1, rest @ ..] => rest,
            [kind, len, shift, ..] if (*kind, *len) == WINDOW_SCALE => return Some((*shift).min(MAX_SCALE)),
            [_, len, ..] if *len >= 2 => options.get(usize::from(*len)..)?,
            _ => return None,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `bytes(TCP(sport=40000, dport=443, seq=0x01020304, ack=0x05060708, flags="SA", window=0x1234, options=[("MSS",
    /// 1460), ("SAckOK", b""), ("NOP", None), ("WScale", 7)])).hex()`, of scapy.
    const SYN_ACK: [u8; 32] = [
        0x9c, 0x40, 0x01, 0xbb, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x80, 0x12, 0x12, 0x34, 0x00,
        0x00, 0x00, 0x00, 0x02, 0x04, 0x05, 0xb4, 0x04, 0x02, 0x01, 0x03, 0x03, 0x07, 0x00, 0x00,
    ];

    #[test]
    fn a_segment_is_read() {
        let segment = Segment::parse(&SYN_ACK, 5).unwrap();
        let wanted = Segment {
            kind: Kind::SynAck,
            seq: 0x0102_0304,
            ack: 0x0506_0708,
            window: 0x1234,
            len: 5,
            scale: Some(7),
            partial: false,
        };
        assert_eq!(segment, wanted);
        assert_eq!(segment.end(), 0x0102_030a);
    }

    #[test]
    fn a_scale_is_of_a_syn_alone_within_the_header_and_at_most_14() {
        let with = |at: usize, to: u8| {
            let mut bytes = SYN_ACK;
            bytes[at] = to;
            Segment::parse(&bytes, 0).unwrap().scale
        };
        assert_eq!(with(13, 0x10), None, "not a SYN");
        assert_eq!(with(12, 0x70), None, "behind the header");
        assert_eq!(with(29, 15), Some(14));
        assert_eq!(with(21, 0), None, "an option of no bytes");
        assert_eq!(with(21, 200), None, "an option beyond the header");
        assert_eq!(with(26, 0), None, "behind the end of options");
    }

    #[test]
    fn every_combination_of_flags_is_a_kind_or_refused() {
        for flags in 0..=255_u8 {
            let one_of = (flags & (tcp::SYN | tcp::FIN | tcp::RST)).count_ones();
            let ack = flags & tcp::ACK != 0;
            let honest = one_of <= 1 && (ack || flags & (tcp::SYN | tcp::RST) != 0);
            assert_eq!(Kind::of(flags).is_some(), honest, "{flags:#x}");
        }
    }
}
