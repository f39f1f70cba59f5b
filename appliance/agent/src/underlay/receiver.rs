//! From datagrams to frames: GENEVE headers come off, and TCP segments that came together become one large frame.

use std::net::SocketAddr;

use arrayvec::ArrayVec;
use vhost_backend::{BURST, Burst, HEAD, NET_HEADER};
use wire::geneve;
use wire::gro::Run;
use wire::gso::MAX_HEADERS;

use crate::underlay::message::{Inbox, MESSAGES, Message};

/// In the second byte of a GENEVE header: a control packet, never for a workload.
const CONTROL: u8 = 0x80;

/// A datagram that came.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrived<'a> {
    /// Who sent it, by the outer header.
    pub(crate) source: SocketAddr,
    /// The congestion mark of the outer header.
    pub(crate) ecn: u8,
    /// The GENEVE header with its options; all there is when it ends too early.
    pub(crate) tunnel: &'a [u8],
    /// What lies behind it.
    pub(crate) frame: &'a [u8],
}

/// The datagrams of an inbox, in order.
#[derive(Debug)]
pub(crate) struct Datagrams<'a> {
    inbox: &'a Inbox,
    next: usize,
    rest: Option<Message<'a>>,
}

impl<'a> Datagrams<'a> {
    pub(crate) fn of(inbox: &'a Inbox) -> Self {
        Self { inbox, next: 0, rest: None }
    }
}

impl<'a> Iterator for Datagrams<'a> {
    type Item = Arrived<'a>;

    #[inline]
    fn next(&mut self) -> Option<Arrived<'a>> {
        loop {
            if let Some(message) = &mut self.rest
                && let Some(datagram) = message.take_first()
            {
                let (source, ecn) = (message.source, message.ecn);
                let (tunnel, frame) = geneve::split(datagram);
                return Some(Arrived { source, ecn, tunnel, frame });
            }
            if self.next == MESSAGES {
                return None;
            }
            self.rest = self.inbox.message(self.next);
            self.next += 1;
        }
    }
}

/// What each frame of a burst came in.
pub(crate) type Origins<'a> = ArrayVec<Arrived<'a>, BURST>;

/// Fills a burst with what came; `origins` gets what each frame came in: of a large frame its first segment's. Control
/// packets go to `control` instead. What has no room stays in `datagrams`.
pub(crate) fn unpack<'b, 'a: 'b>(
    datagrams: &mut std::iter::Peekable<Datagrams<'a>>,
    burst: &mut Burst<'b>,
    origins: &mut Origins<'a>,
    mut control: impl FnMut(&Arrived<'a>),
) {
    while burst.has_room() {
        let Some(first) = datagrams.next() else { return };
        if first.tunnel.get(1).is_some_and(|flags| flags & CONTROL != 0) {
            control(&first);
            continue;
        }
        let mut run = Run::begin(first.frame);
        if let Some(run) = &mut run {
            while datagrams.next_if(|next| first.continues(next) && run.join(next.frame)).is_some() {}
        }
        let added = match &run {
            Some(run) if run.count() > 1 => {
                let mut room = [0; MAX_HEADERS];
                let (headers, net) = run.headers(&mut room);
                burst.push_parts(&net.to_bytes(), headers, run.parts())
            }
            _ => burst.push(&[0; NET_HEADER], first.frame),
        };
        if added {
            origins.push(first);
        }
    }
}

impl Arrived<'_> {
    /// Whether a datagram came in the same way, so that only what it carries differs.
    fn continues(&self, next: &Arrived<'_>) -> bool {
        (self.source, self.ecn, self.tunnel) == (next.source, next.ecn, next.tunnel)
    }
}

const _: () = assert!(MAX_HEADERS <= HEAD);

#[cfg(test)]
mod tests {
    use super::*;
    use std::ops::ControlFlow;

    use vhost_backend::Store;
    use wire::gso::{Checksum, Segmenter};
    use wire::vnet::{GSO_TCPV4, NEEDS_CSUM, VnetHeader};

    use crate::underlay::sender::Destination;
    use crate::underlay::socket::Sockets;

    /// An inbox that got these datagrams over the loopback, one after the other.
    fn inbox(datagrams: &[Vec<u8>]) -> (Inbox, Sockets) {
        let ip = "127.0.0.1".parse().expect("an address");
        let sockets = Sockets::open(&[ip], 0).expect("sockets");
        let receiver = &sockets.receivers()[0];
        let name = rustix::net::getsockname(receiver.fd()).expect("a name");
        let to = Destination::new(SocketAddr::try_from(name).expect("an address"));
        for datagram in datagrams {
            let flags = rustix::net::SendFlags::empty();
            rustix::net::sendto(sockets.v4()[0].fd(), datagram, flags, &to.address).expect("sent");
        }
        let mut inbox = Inbox::new();
        assert_eq!(inbox.fill(receiver.fd(), MESSAGES), datagrams.len());
        (inbox, sockets)
    }

    fn tunnelled(header: geneve::Builder, frame: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; header.len()];
        header.write(&mut bytes);
        bytes.extend(frame);
        bytes
    }

    /// Segments of a TCP frame with so much data, and what was cut.
    fn segments(data: usize) -> (Vec<Vec<u8>>, Vec<u8>, VnetHeader) {
        let mut frame = vec![0; 54 + data];
        frame[12..16].copy_from_slice(&[8, 0, 0x45, 0]);
        frame[16..18].copy_from_slice(&((40 + data) as u16).to_be_bytes());
        frame[20..24].copy_from_slice(&[0x40, 0, 64, 6]);
        (frame[46], frame[47]) = (0x50, 0x10);
        frame[54..].iter_mut().enumerate().for_each(|(i, byte)| *byte = i as u8);
        let net = VnetHeader {
            flags: NEEDS_CSUM,
            gso_type: GSO_TCPV4,
            gso_size: 1000,
            hdr_len: 54,
            csum_start: 34,
            csum_offset: 16,
            num_buffers: 0,
        };
        let mut segments = Vec::new();
        let _ = Segmenter::new(&frame, &net).expect("fits").for_each(Checksum::Finish, |head, payload| {
            segments.push([head, payload].concat());
            ControlFlow::Continue(())
        });
        (segments, frame, net)
    }

    #[test]
    fn segments_become_one_frame_unless_their_tunnel_headers_differ() {
        let header = geneve::Builder { vni: 7, identity: Some(5), ..geneve::Builder::default() };
        let (segments, frame, net) = segments(4500);
        let other = geneve::Builder { identity: Some(6), ..header };
        let mut datagrams: Vec<Vec<u8>> = segments.iter().map(|segment| tunnelled(header, segment)).collect();
        datagrams.push(tunnelled(header, &[9; 60]));
        datagrams.extend(segments[..2].iter().map(|segment| tunnelled(header, segment)));
        datagrams.push(tunnelled(other, &segments[2]));
        datagrams.push(vec![0x3f]);
        let (inbox, _sockets) = inbox(&datagrams);
        let mut store = Store::new();
        let mut burst = Burst::private(&mut store);
        let mut origins = Origins::new();
        let mut left = Datagrams::of(&inbox).peekable();
        unpack(&mut left, &mut burst, &mut origins, |_| unreachable!("no control packet"));
        let lens: Vec<_> = burst.frames().iter().map(|frame| frame.len).collect();
        assert_eq!(lens, [4554, 60, 2054, 1054, 0]);
        let mut copy = vec![0; 4554];
        assert_eq!(burst.copy_to(0, &mut copy), Some(4554));
        assert_eq!(copy[54..], frame[54..]);
        let got = VnetHeader::from_bytes(&burst.frames()[0].net);
        assert_eq!(got, net);
        let tunnels: Vec<_> = origins.iter().map(|origin| geneve::Header::parse(origin.tunnel)).collect();
        let identity = |i: usize| tunnels[i].expect("a header").identity;
        assert_eq!([identity(0), identity(2), identity(3)], [Some(5), Some(5), Some(6)]);
        assert!(tunnels[4].is_err());
    }

    #[test]
    fn control_packets_are_no_frames_and_a_full_burst_leaves_the_rest() {
        let header = geneve::Builder { vni: 7, ..geneve::Builder::default() };
        let mut datagrams = vec![tunnelled(geneve::Builder { control: true, ..header }, &[1; 26])];
        datagrams.extend((0..MESSAGES - 1).map(|n| tunnelled(header, &[n as u8; 60])));
        let (inbox, _sockets) = inbox(&datagrams);
        let mut store = Store::new();
        let mut left = Datagrams::of(&inbox).peekable();
        let mut controls = 0;
        {
            let mut burst = Burst::private(&mut store);
            let mut origins = Origins::new();
            unpack(&mut left, &mut burst, &mut origins, |arrived| {
                assert_eq!(arrived.frame, [1; 26]);
                controls += 1;
            });
            assert_eq!((burst.len(), origins.len(), controls), (MESSAGES - 1, MESSAGES - 1, 1));
        }
        assert!(left.peek().is_none());
    }
}
