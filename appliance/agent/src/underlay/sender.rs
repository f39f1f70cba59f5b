//! From frames to datagrams: a GENEVE header in front of each, large ones cut, and those that go the same way sent together.

use std::net::SocketAddr;
use std::ops::ControlFlow;

use pipeline::DropReason;
use vhost_backend::{Burst, Frame, MAX_FRAME};
use wire::geneve;
use wire::gso::{Checksum, MAX_HEADERS, MAX_TCP_SEGMENTS, Segmenter, finish_checksum};
use wire::vnet::VnetHeader;

use crate::spread::flow_hash;
use crate::underlay::message::{Batch, Envelope, MOST_ENVELOPES, MOST_PARTS, Name, Outbox, SendError};
use crate::underlay::runs::{Datagram, MOST_DATAGRAMS, Run, plan};
use crate::underlay::socket::{LANES, Lane, Sockets};

/// Room for the headers of one frame that is cut into the most segments, and for the frame itself. A batch that needs more
/// is sent in several.
const ROOM: usize = MAX_FRAME as usize + (MAX_TCP_SEGMENTS + 1) * (geneve::BUILT_LEN + MAX_HEADERS);
/// Datagrams of one batch: a frame of the most segments, and some.
const DATAGRAMS: usize = 2 * MAX_TCP_SEGMENTS;
/// Parts of one batch.
const PARTS: usize = 2 * DATAGRAMS + MOST_PARTS;
/// The most parts of a frame's payload: the pieces of a guest's chain.
const PIECES: usize = 256;

/// Where another host takes datagrams.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Destination {
    /// Its address and port.
    pub(crate) address: SocketAddr,
    name: Name,
}

impl Destination {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { address, name: Name::of(address) }
    }
}

/// A frame that leaves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outgoing {
    /// Its place in the burst.
    pub(crate) frame: usize,
    /// Number of the host that it goes to.
    pub(crate) peer: u16,
    /// What its header says.
    pub(crate) header: geneve::Builder,
}

/// What became of frames.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Outcome {
    /// So many datagrams with so many bytes behind their UDP headers left for a host.
    Sent {
        /// The host.
        peer: u16,
        /// Datagrams.
        packets: u64,
        /// Bytes behind UDP headers.
        bytes: u64,
    },
    /// A frame, or some of its segments, ended here.
    Dropped {
        /// The host that it was for.
        peer: u16,
        /// Why.
        reason: DropReason,
        /// The size of datagram that was too large for the way, without UDP header.
        too_large: Option<u32>,
    },
}

/// One worker's way out.
#[derive(Debug)]
pub(crate) struct Sender {
    outbox: Outbox,
    room: Box<[u8]>,
    datagrams: Vec<Datagram>,
    order: Vec<u16>,
    runs: Vec<Run>,
}

impl Sender {
    pub(crate) fn new() -> Self {
        Self {
            outbox: Outbox::new(PARTS),
            room: vec![0; ROOM].into_boxed_slice(),
            datagrams: Vec::with_capacity(DATAGRAMS),
            order: Vec::with_capacity(DATAGRAMS),
            runs: Vec::with_capacity(DATAGRAMS),
        }
    }

    /// Sends frames of a burst; `outcome` is told what became of them.
    pub(crate) fn send<'p>(
        &mut self,
        sockets: &Sockets,
        burst: &Burst<'_>,
        frames: impl Iterator<Item = Outgoing>,
        destination: impl Fn(u16) -> Option<&'p Destination>,
        outcome: &mut impl FnMut(Outcome),
    ) {
        let Self { outbox, room, datagrams, order, runs } = self;
        let mut frames = frames.peekable();
        while frames.peek().is_some() {
            datagrams.clear();
            let mut load = Load { batch: outbox.batch(), room: &mut room[..], datagrams: &mut *datagrams };
            while let Some(next) = frames.peek() {
                let lane = lane_of(sockets, burst, next.frame, destination(next.peer));
                let added = match lane {
                    Some(lane) => load.add(burst, next, lane),
                    None => Err(DropReason::UnderlayDown),
                };
                match added {
                    // Of an empty batch nothing is full.
                    Ok(false) if !load.datagrams.is_empty() => break,
                    Ok(_) => {}
                    Err(reason) => outcome(Outcome::Dropped { peer: next.peer, reason, too_large: None }),
                }
                frames.next();
            }
            let mut batch = load.batch;
            let mut used = datagrams.iter().fold(0u32, |used, datagram| used | 1 << datagram.lane);
            while used != 0 {
                let number = used.trailing_zeros() as u8;
                used &= used - 1;
                let Some(lane) = lane_number(sockets, number) else { continue };
                let most = if lane.takes_bursts() { MOST_DATAGRAMS } else { 1 };
                plan(datagrams, number, most, MOST_PARTS as u32, order, runs);
                for some in runs.chunks(MOST_ENVELOPES) {
                    post(lane, &mut batch, datagrams, order, some, &destination, outcome);
                }
            }
        }
    }
}

/// The number of the socket that a frame leaves from: its flow decides. `None` when nothing leads to there.
#[inline]
fn lane_of(sockets: &Sockets, burst: &Burst<'_>, i: usize, to: Option<&Destination>) -> Option<u8> {
    let ip = to?.address.ip();
    if sockets.lanes_to(ip).is_empty() {
        return None;
    }
    let lane = flow_hash(burst.frames()[i].head()) as usize % LANES;
    Some((lane + if ip.is_ipv4() { 0 } else { LANES }) as u8)
}

/// The socket with a number.
fn lane_number(sockets: &Sockets, number: u8) -> Option<&Lane> {
    let number = usize::from(number);
    if number < LANES { sockets.v4().get(number) } else { sockets.v6().get(number - LANES) }
}

/// Sends runs from one socket.
fn post<'p>(
    lane: &Lane,
    batch: &mut Batch<'_, '_>,
    datagrams: &[Datagram],
    order: &[u16],
    runs: &[Run],
    destination: &impl Fn(u16) -> Option<&'p Destination>,
    outcome: &mut impl FnMut(Outcome),
) {
    let members = |run: &Run| {
        let first = run.first as usize;
        order[first..first + usize::from(run.count)].iter().map(|&place| &datagrams[usize::from(place)])
    };
    let envelopes = runs.iter().filter_map(|run| {
        let size = (run.count > 1).then_some(run.size as u16);
        let envelope = Envelope { name: &destination(run.peer)?.name, ecn: run.ecn, size };
        let parts = members(run).map(|datagram| {
            let first = datagram.first as usize;
            first..first + usize::from(datagram.parts)
        });
        Some((envelope, parts))
    });
    batch.send(lane.fd(), envelopes, |place, result| {
        let Some(run) = runs.get(place) else { return };
        let Err(error) = result else {
            let bytes = members(run).map(|datagram| u64::from(datagram.len)).sum();
            return outcome(Outcome::Sent { peer: run.peer, packets: run.count.into(), bytes });
        };
        let (reason, too_large) = match error {
            SendError::Full => (DropReason::UnderlayFull, None),
            SendError::TooLarge => (DropReason::UnderlayRefused, Some(run.size)),
            SendError::NoBursts => {
                lane.no_bursts();
                (DropReason::UnderlayRefused, None)
            }
            SendError::Fault => (DropReason::Truncated, None),
            SendError::Refused => (DropReason::UnderlayRefused, None),
        };
        let mut last = None;
        for datagram in members(run) {
            if last != Some(datagram.frame) {
                outcome(Outcome::Dropped { peer: run.peer, reason, too_large });
            }
            last = Some(datagram.frame);
        }
    });
}

/// A batch that is being filled.
struct Load<'o, 'd, 'a> {
    batch: Batch<'o, 'a>,
    /// What is left of the room for headers and copies.
    room: &'a mut [u8],
    datagrams: &'d mut Vec<Datagram>,
}

impl<'a> Load<'_, '_, 'a> {
    /// Adds a frame. False when there is no room for it any more.
    #[inline]
    fn add(&mut self, burst: &'a Burst<'_>, what: &Outgoing, lane: u8) -> Result<bool, DropReason> {
        let frame = &burst.frames()[what.frame];
        let net = VnetHeader::from_bytes(&frame.net);
        let ecn = congestion_mark(frame.head());
        if net.is_gso() {
            return self.cut(burst, what, lane, ecn, &net);
        }
        if net.needs_csum() {
            return self.finish(burst, what, lane, ecn, &net);
        }
        let head = frame.head();
        let header_len = what.header.len();
        if self.datagrams.len() == self.datagrams.capacity() || !self.batch.has_room(1 + PIECES) {
            return Ok(false);
        }
        let Some(place) = self.take(header_len + head.len()) else { return Ok(false) };
        what.header.write(place);
        place[header_len..].copy_from_slice(head);
        let first = self.batch.len();
        self.batch.push(place);
        self.batch.push_payload(burst, what.frame);
        self.note(what, lane, ecn, header_len + len_of(frame), first);
        Ok(true)
    }

    /// Adds a frame whose checksum is open: whole, and summed here.
    fn finish(
        &mut self,
        burst: &'a Burst<'_>,
        what: &Outgoing,
        lane: u8,
        ecn: u8,
        net: &VnetHeader,
    ) -> Result<bool, DropReason> {
        let header_len = what.header.len();
        let len = header_len + len_of(&burst.frames()[what.frame]);
        if self.datagrams.len() == self.datagrams.capacity() || !self.batch.has_room(1) {
            return Ok(false);
        }
        let Some(place) = self.take(len) else { return Ok(false) };
        what.header.write(place);
        let frame = &mut place[header_len..];
        burst.copy_to(what.frame, frame).ok_or(DropReason::BadOffload)?;
        finish_checksum(frame, net).map_err(|_| DropReason::BadOffload)?;
        let first = self.batch.len();
        self.batch.push(place);
        self.note(what, lane, ecn, len, first);
        Ok(true)
    }

    /// Adds the segments of a large frame.
    fn cut(
        &mut self,
        burst: &'a Burst<'_>,
        what: &Outgoing,
        lane: u8,
        ecn: u8,
        net: &VnetHeader,
    ) -> Result<bool, DropReason> {
        let len = len_of(&burst.frames()[what.frame]);
        let segments = len.div_ceil(usize::from(net.gso_size).max(1)).min(MAX_TCP_SEGMENTS);
        let header_len = what.header.len();
        let room = len + segments * (header_len + MAX_HEADERS);
        if self.room.len() < room
            || self.datagrams.len() + segments > self.datagrams.capacity()
            || !self.batch.has_room(2 * segments)
        {
            return Ok(false);
        }
        let Some(copy) = self.take(len) else { return Ok(false) };
        burst.copy_to(what.frame, copy).ok_or(DropReason::BadOffload)?;
        let segments = Segmenter::new(copy, net).map_err(|_| DropReason::BadOffload)?;
        let _ = segments.for_each(Checksum::Finish, |head, payload| {
            let Some(place) = self.take(header_len + head.len()) else { return ControlFlow::Break(()) };
            what.header.write(place);
            place[header_len..].copy_from_slice(head);
            let first = self.batch.len();
            self.batch.push(place);
            self.batch.push(payload);
            self.note(what, lane, ecn, header_len + head.len() + payload.len(), first);
            ControlFlow::Continue(())
        });
        Ok(true)
    }

    fn note(&mut self, what: &Outgoing, lane: u8, ecn: u8, len: usize, first: usize) {
        let parts = (self.batch.len() - first) as u16;
        let (first, len) = (first as u32, len as u32);
        let datagram = Datagram { lane, ecn, peer: what.peer, len, first, parts, frame: what.frame as u8 };
        self.datagrams.push(datagram);
    }

    /// The next `len` bytes of the room.
    #[inline]
    fn take(&mut self, len: usize) -> Option<&'a mut [u8]> {
        if len > self.room.len() {
            return None;
        }
        let (taken, rest) = std::mem::take(&mut self.room).split_at_mut(len);
        self.room = rest;
        Some(taken)
    }
}

/// Bytes of a whole frame: of one that was rewritten to end within its head, those of the head.
fn len_of(frame: &Frame) -> usize {
    (frame.len as usize).max(frame.head().len())
}

/// The congestion mark that the outer header gets: that of the inner one (RFC 6040, section 4.1); none of what is not IP.
#[inline]
fn congestion_mark(head: &[u8]) -> u8 {
    match head.get(12..16) {
        Some([0x08, 0x00, _, service]) => service & 0b11,
        Some([0x86, 0xdd, _, class]) => class >> 4 & 0b11,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::net::IpAddr;

    use vhost_backend::{NET_HEADER, Store};
    use wire::vnet::{GSO_TCPV4, NEEDS_CSUM};

    use crate::underlay::message::{Inbox, MESSAGES};

    const HERE: &str = "127.0.0.1";

    /// Two ends on the loopback: our sockets, and those of the host that we send to.
    struct Ends {
        ours: Sockets,
        theirs: Sockets,
        to: Destination,
        sender: Sender,
    }

    impl Ends {
        fn new(ip: &str) -> Self {
            let ip: IpAddr = ip.parse().expect("an address");
            // A port of the kernel's choice: the tests run side by side.
            let theirs = Sockets::open(&[ip], 0).expect("sockets");
            let address = rustix::net::getsockname(theirs.receivers()[0].fd()).expect("a name");
            let address = SocketAddr::try_from(address).expect("an address");
            let ours = Sockets::open(&[ip], 0).expect("sockets");
            Self { ours, theirs, to: Destination::new(address), sender: Sender::new() }
        }

        /// Sends frames to the other end; what became of them.
        fn send(&mut self, frames: &[([u8; NET_HEADER], Vec<u8>)]) -> Vec<Outcome> {
            let mut store = Store::new();
            let mut burst = Burst::private(&mut store);
            for (net, frame) in frames {
                assert!(burst.push(net, frame));
            }
            let outgoing = (0..frames.len()).map(|frame| Outgoing { frame, peer: 7, header: header() });
            let (to, mut outcomes) = (self.to, Vec::new());
            let find = |peer| (peer == 7).then_some(&to);
            self.sender.send(&self.ours, &burst, outgoing, find, &mut |outcome| outcomes.push(outcome));
            outcomes
        }

        /// What waits at the other end, each with its mark, by the port it came from.
        fn received(&self) -> BTreeMap<u16, Vec<(u8, Vec<u8>)>> {
            let mut inbox = Inbox::new();
            let mut all: BTreeMap<u16, Vec<_>> = BTreeMap::new();
            while inbox.fill(self.theirs.receivers()[0].fd(), MESSAGES) > 0 {
                for mut message in (0..MESSAGES).filter_map(|i| inbox.message(i)) {
                    let list = all.entry(message.source.port()).or_default();
                    while let Some(datagram) = message.take_first() {
                        list.push((message.ecn, datagram.to_vec()));
                    }
                }
            }
            all
        }
    }

    fn header() -> geneve::Builder {
        geneve::Builder { vni: 0x1234, identity: Some(77), port: Some(9), ..geneve::Builder::default() }
    }

    /// An IPv4 frame with this type of service, from a source port.
    fn frame(port: u16, service: u8, len: usize) -> Vec<u8> {
        let mut frame = vec![0; len];
        frame[12..16].copy_from_slice(&[8, 0, 0x45, service]);
        frame[16..18].copy_from_slice(&((len - 14) as u16).to_be_bytes());
        frame[22..34].copy_from_slice(&[64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        frame[34..36].copy_from_slice(&port.to_be_bytes());
        frame
    }

    fn encapsulated(frame: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; header().len()];
        header().write(&mut bytes);
        bytes.extend(frame);
        bytes
    }

    fn sent(outcomes: &[Outcome]) -> (u64, u64) {
        outcomes.iter().fold((0, 0), |sum, outcome| match outcome {
            Outcome::Sent { packets, bytes, .. } => (sum.0 + packets, sum.1 + bytes),
            Outcome::Dropped { .. } => sum,
        })
    }

    #[test]
    fn frames_arrive_as_they_were_in_order_with_their_marks_and_a_port_for_each_flow() {
        for ip in [HERE, "::1"] {
            let mut ends = Ends::new(ip);
            let frames: Vec<_> = (0..60u16)
                .map(|n| {
                    let mut frame =
                        frame(n % 6, [0, 3, 2][usize::from(n / 20)], 60 + usize::from(n / 7) * 100);
                    frame[50..52].copy_from_slice(&n.to_be_bytes());
                    ([0; NET_HEADER], frame)
                })
                .collect();
            let outcomes = ends.send(&frames);
            let bytes: usize = frames.iter().map(|(_, frame)| encapsulated(frame).len()).sum();
            assert_eq!(sent(&outcomes), (60, bytes as u64));
            let received = ends.received();
            assert!(received.len() > 1, "one port for all flows");
            for flow in 0..6 {
                let sent: Vec<_> =
                    frames.iter().map(|(_, frame)| frame).filter(|frame| frame[35] == flow).collect();
                let model: Vec<_> = sent.iter().map(|frame| (frame[15] & 3, encapsulated(frame))).collect();
                let of_flow = |datagram: &(u8, Vec<u8>)| datagram.1[header().len() + 35] == flow;
                let ports: Vec<_> = received.values().filter(|list| list.iter().any(of_flow)).collect();
                assert_eq!(ports.len(), 1, "a flow has one port");
                let got: Vec<_> = ports[0].iter().filter(|&datagram| of_flow(datagram)).cloned().collect();
                assert_eq!(got, model);
            }
        }
    }

    #[test]
    fn open_checksums_are_finished_and_large_frames_leave_as_segments() {
        let mut ends = Ends::new(HERE);
        let mut large = frame(1, 2, 14 + 20 + 20 + 60_000);
        (large[23], large[46], large[47]) = (6, 0x50, 0x10);
        let net = |gso_type, gso_size| {
            let flags = NEEDS_CSUM;
            VnetHeader { flags, gso_type, gso_size, csum_start: 34, csum_offset: 16, ..VnetHeader::default() }
        };
        let mut open = large[..1000].to_vec();
        open[16..18].copy_from_slice(&986u16.to_be_bytes());
        let cut = net(GSO_TCPV4, 1400);
        let frames = [(net(0, 0).to_bytes(), open.clone()), (cut.to_bytes(), large.clone())];
        let outcomes = ends.send(&frames);
        assert_eq!(sent(&outcomes).0, 1 + 43);
        let mut model = Vec::new();
        finish_checksum(&mut open, &net(0, 0)).expect("fits");
        model.push((2, encapsulated(&open)));
        let _ = Segmenter::new(&large, &cut).expect("fits").for_each(Checksum::Finish, |head, payload| {
            model.push((2, encapsulated(&[head, payload].concat())));
            ControlFlow::Continue(())
        });
        assert_eq!(ends.received().into_values().collect::<Vec<_>>(), [model]);
    }

    #[test]
    fn frames_of_the_most_segments_leave_in_several_batches() {
        let mut ends = Ends::new(HERE);
        let mut large = frame(1, 0, 54 + 1024 * 8);
        (large[23], large[46], large[47]) = (6, 0x50, 0x10);
        let net = VnetHeader {
            flags: NEEDS_CSUM,
            gso_type: GSO_TCPV4,
            gso_size: 8,
            csum_start: 34,
            csum_offset: 16,
            ..VnetHeader::default()
        };
        let frames = vec![(net.to_bytes(), large); 4];
        assert_eq!(sent(&ends.send(&frames)).0, 4096);
        assert_eq!(ends.received().into_values().flatten().count(), 4096);
    }

    #[test]
    fn what_cannot_leave_says_why() {
        let mut ends = Ends::new(HERE);
        let huge = frame(1, 0, 65_549);
        let outcomes = ends.send(&[([0; NET_HEADER], huge), ([0; NET_HEADER], frame(1, 0, 60))]);
        let refused = DropReason::UnderlayRefused;
        assert!(
            matches!(outcomes[0], Outcome::Dropped { peer: 7, reason, too_large: Some(65_573) } if reason == refused),
            "{outcomes:?}"
        );
        assert_eq!(sent(&outcomes).0, 1, "the next one leaves");
        ends.to = Destination::new("[::1]:6081".parse().expect("an address"));
        let outcomes = ends.send(&[([0; NET_HEADER], frame(1, 0, 60))]);
        let down = DropReason::UnderlayDown;
        assert!(matches!(outcomes[..], [Outcome::Dropped { reason, .. }] if reason == down), "{outcomes:?}");
    }
}
