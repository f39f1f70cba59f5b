//! An idealised end of a TCP connection: RFC 9293 as it is written, and slow. Numbers count from its own SYN (which is 0)
//! and from its peer's.

use pipeline::conntrack::tcp::{Kind, Segment};

/// Chance, from a seed.
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    /// A number below `most`.
    pub(crate) fn below(&mut self, most: u64) -> u64 {
        // Xorshift (Marsaglia), of which zero has no successor.
        self.0 |= u64::from(self.0 == 0);
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % most.max(1)
    }

    /// Whether something of this many in a hundred happens.
    pub(crate) fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// RFC 9293, section 3.3.2, without what closing adds: FINs are numbers like others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Listen,
    SynSent,
    SynReceived,
    Open,
    /// Reset, or gone.
    Dead,
}

#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    pub(crate) phase: Phase,
    iss: u32,
    offered: Option<u8>,
    /// Bytes that it has to send, before FIN.
    total: u64,
    una: u64,
    nxt: u64,
    /// Up to where the peer lets it send.
    allowed: u64,
    peers_shift: u8,
    irs: u32,
    next: u64,
    /// What came out of order: from, to.
    early: Vec<(u64, u64)>,
    /// The number of the peer's FIN.
    fin: Option<u64>,
    unread: u64,
    capacity: u64,
    /// Up to where it lets the peer send.
    promised: u64,
    shift: u8,
}

impl Endpoint {
    pub(crate) fn new(iss: u32, offered: Option<u8>, total: u64, capacity: u64) -> Self {
        Self {
            phase: Phase::Listen,
            iss,
            offered,
            total,
            una: 0,
            nxt: 0,
            allowed: 0,
            peers_shift: 0,
            irs: 0,
            next: 0,
            early: Vec::new(),
            fin: None,
            unread: 0,
            capacity,
            promised: 0,
            shift: 0,
        }
    }

    /// Asks for the connection.
    pub(crate) fn open(&mut self) -> Segment {
        self.phase = Phase::SynSent;
        self.nxt = 1;
        self.segment(Kind::Syn, 0, 0)
    }

    /// Gives the connection up at once.
    pub(crate) fn abort(&mut self) -> Segment {
        self.phase = Phase::Dead;
        self.segment(Kind::RstAck, self.nxt, 0)
    }

    /// Whether all is sent, acknowledged, and received to the peer's FIN.
    pub(crate) fn is_done(&self) -> bool {
        self.una == self.total + 2 && self.fin.is_some_and(|fin| self.next == fin + 1)
    }

    /// A segment of `len` bytes from `from`; with SYN or FIN where there is one.
    fn segment(&mut self, kind: Kind, from: u64, len: u64) -> Segment {
        let asks = matches!(kind, Kind::Syn | Kind::SynAck);
        let free = self.promised.max(self.next + self.capacity.saturating_sub(self.unread)) - self.next;
        let shift = if asks { 0 } else { self.shift };
        let window = (free >> shift).min(0xffff);
        if kind != Kind::Rst {
            self.promised = self.promised.max(self.next + (window << shift));
        }
        Segment {
            kind,
            seq: self.iss.wrapping_add(from as u32),
            ack: if matches!(kind, Kind::Syn | Kind::Rst) {
                0
            } else {
                self.irs.wrapping_add(self.next as u32)
            },
            window: window as u16,
            len: len as u32,
            scale: if asks { self.offered } else { None },
            partial: false,
        }
    }

    fn ack(&mut self) -> Segment {
        self.segment(Kind::Ack, self.nxt, 0)
    }

    /// What lies from `from` to `to`: data, or data and FIN.
    fn data(&mut self, from: u64, to: u64) -> Segment {
        let end_of_data = self.total + 1;
        let kind = if to > end_of_data { Kind::Fin } else { Kind::Ack };
        self.segment(kind, from, to.min(end_of_data) - from)
    }

    /// What it does of itself: sends, sends again, probes, or reads.
    pub(crate) fn act(&mut self, chance: &mut Chance) -> Option<Segment> {
        let (una, nxt, everything) = (self.una, self.nxt, self.total + 2);
        match self.phase {
            Phase::Listen | Phase::Dead => None,
            Phase::SynSent => Some(self.segment(Kind::Syn, 0, 0)),
            Phase::SynReceived => Some(self.segment(Kind::SynAck, 0, 0)),
            Phase::Open => match chance.below(10) {
                0 if nxt == una => {
                    // A keepalive, with or without the byte that old hosts need.
                    let len = chance.below(2);
                    Some(self.segment(Kind::Ack, nxt - 1, len))
                }
                0 | 1 if nxt > una => {
                    let len = 1 + chance.below(nxt - una);
                    // Most often it is the first that is missing.
                    let from = if chance.percent(70) { una } else { una + chance.below(nxt - una - len + 1) };
                    Some(self.data(from, from + len))
                }
                2 if nxt == una && nxt >= self.allowed && nxt < everything => {
                    // The window is closed: it tries whether it still is.
                    self.nxt += 1;
                    Some(self.data(nxt, nxt + 1))
                }
                3 => {
                    self.unread -= chance.below(self.unread + 1);
                    Some(self.ack())
                }
                _ => {
                    // Some send FIN though there is no room for it.
                    let room = self.allowed + u64::from(nxt + 1 == everything && chance.percent(20));
                    let most = room.min(everything).saturating_sub(nxt);
                    let largest = 1 << chance.below(17);
                    let len = 1 + chance.below(most.min(largest));
                    (most > 0).then(|| {
                        self.nxt += len;
                        self.data(nxt, nxt + len)
                    })
                }
            },
        }
    }

    /// The number that a sequence number stands for, near those expected.
    fn number(&self, seq: u32) -> i64 {
        let expected = self.irs.wrapping_add(self.next as u32);
        self.next as i64 + i64::from(seq.wrapping_sub(expected) as i32)
    }

    /// The number that an acknowledgement stands for.
    fn acknowledged(&self, ack: u32) -> i64 {
        self.una as i64 + i64::from(ack.wrapping_sub(self.iss.wrapping_add(self.una as u32)) as i32)
    }

    /// RFC 9293, section 3.10.7.4, first and fifth: whether it takes a segment in, be it for its data, its
    /// acknowledgement or its RST.
    pub(crate) fn takes(&self, segment: &Segment) -> bool {
        match (self.phase, segment.kind) {
            (Phase::Dead, _) => false,
            (Phase::Listen, kind) => kind == Kind::Syn,
            (Phase::SynSent, Kind::Syn) => true,
            (Phase::SynSent, Kind::SynAck | Kind::RstAck) => segment.ack == self.iss.wrapping_add(1),
            (Phase::SynSent, Kind::Ack | Kind::Fin | Kind::Rst) => false,
            (Phase::SynReceived, Kind::SynAck) => segment.seq == self.irs,
            // What it knows already.
            (Phase::SynReceived, Kind::Syn) | (Phase::Open, Kind::Syn | Kind::SynAck) => false,
            // RFC 5961, section 3.2: others in the window are only challenged.
            (Phase::SynReceived | Phase::Open, Kind::Rst | Kind::RstAck) => {
                self.number(segment.seq) == self.next as i64
            }
            (Phase::SynReceived | Phase::Open, Kind::Ack | Kind::Fin) => {
                let ack = self.acknowledged(segment.ack);
                let numbers = segment.len + u32::from(segment.kind == Kind::Fin);
                self.reaches(segment.seq, numbers) && (self.una as i64..=self.nxt as i64).contains(&ack)
            }
        }
    }

    /// RFC 9293, section 3.4: whether any of these numbers lies in the window.
    fn reaches(&self, seq: u32, numbers: u32) -> bool {
        let (next, edge, from) = (self.next as i64, self.promised as i64, self.number(seq));
        let inside = |number: i64| (next..edge).contains(&number);
        match numbers {
            0 if next == edge => from == next,
            0 => inside(from),
            _ => inside(from) || inside(from + i64::from(numbers) - 1),
        }
    }

    /// Takes a segment, and answers.
    pub(crate) fn receive(&mut self, segment: &Segment) -> Option<Segment> {
        let resets = matches!(segment.kind, Kind::Rst | Kind::RstAck);
        match self.phase {
            Phase::Dead if resets => None,
            Phase::Dead => Some(self.refuse(segment)),
            Phase::Listen if segment.kind == Kind::Syn => {
                self.nxt = 1;
                self.meet(segment);
                Some(self.segment(Kind::SynAck, 0, 0))
            }
            Phase::Listen if resets => None,
            Phase::Listen => Some(self.refuse(segment)),
            Phase::SynSent => match segment.kind {
                Kind::Syn => {
                    self.meet(segment);
                    Some(self.segment(Kind::SynAck, 0, 0))
                }
                Kind::SynAck if self.takes(segment) => {
                    self.meet(segment);
                    self.agree();
                    Some(self.ack())
                }
                Kind::RstAck if self.takes(segment) => {
                    self.phase = Phase::Dead;
                    None
                }
                Kind::SynAck | Kind::Ack | Kind::Fin => Some(self.refuse(segment)),
                Kind::Rst | Kind::RstAck => None,
            },
            Phase::SynReceived if segment.kind == Kind::Syn && segment.seq == self.irs => {
                Some(self.segment(Kind::SynAck, 0, 0))
            }
            Phase::SynReceived if segment.kind == Kind::SynAck && self.takes(segment) => {
                self.agree();
                Some(self.ack())
            }
            Phase::SynReceived | Phase::Open => self.go_on(segment),
        }
    }

    /// What who knows of no connection answers.
    fn refuse(&mut self, segment: &Segment) -> Segment {
        let seq = segment.ack.wrapping_sub(self.iss);
        if segment.kind == Kind::Syn {
            let answer = self.segment(Kind::RstAck, 0, 0);
            return Segment { seq: 0, ack: segment.end(), ..answer };
        }
        self.segment(Kind::Rst, u64::from(seq), 0)
    }

    /// The peer's SYN is here.
    fn meet(&mut self, segment: &Segment) {
        self.phase = Phase::SynReceived;
        (self.irs, self.next) = (segment.seq, 1);
        self.promised = self.promised.max(1);
        self.allowed = 1 + u64::from(segment.window);
        if let (Some(mine), Some(peers)) = (self.offered, segment.scale) {
            (self.shift, self.peers_shift) = (mine, peers);
        }
    }

    /// The own SYN is acknowledged.
    fn agree(&mut self) {
        self.phase = Phase::Open;
        self.una = self.una.max(1);
    }

    /// Takes in what lies between, as far as it is new.
    fn keep(&mut self, from: u64, to: u64) {
        if from >= to {
            return;
        }
        let touches = |range: &(u64, u64)| range.0 <= to && from <= range.1;
        let (together, apart): (Vec<_>, Vec<_>) = self.early.drain(..).partition(touches);
        self.early = apart;
        let from = together.iter().map(|range| range.0).fold(from, u64::min);
        let to = together.iter().map(|range| range.1).fold(to, u64::max);
        if from <= self.next {
            self.unread += to - self.next;
            self.next = to;
        } else {
            self.early.push((from, to));
        }
    }

    fn go_on(&mut self, segment: &Segment) -> Option<Segment> {
        if matches!(segment.kind, Kind::Rst | Kind::RstAck) {
            if self.takes(segment) {
                self.phase = Phase::Dead;
                return None;
            }
            return self.reaches(segment.seq, 0).then(|| self.ack());
        }
        if !self.takes(segment) {
            return Some(self.ack());
        }
        let ack = self.acknowledged(segment.ack) as u64;
        if self.phase == Phase::SynReceived && ack >= 1 {
            self.agree();
        }
        self.una = self.una.max(ack);
        self.allowed = self.allowed.max(ack + (u64::from(segment.window) << self.peers_shift));
        let from = self.number(segment.seq);
        let end = from + i64::from(segment.len);
        if segment.kind == Kind::Fin {
            self.fin = Some(end as u64);
        }
        let (from, to) = (from.max(self.next as i64) as u64, end.min(self.promised as i64).max(0) as u64);
        self.keep(from, to);
        if self.fin == Some(self.next) {
            self.next += 1;
            self.promised = self.promised.max(self.next);
        }
        (segment.len > 0 || segment.kind == Kind::Fin).then(|| self.ack())
    }
}
