//! From verdicts to destinations: each distinct destination of a burst is entered once and gets its frames in order.

use std::net::IpAddr;
use std::ops::ControlFlow;

use arrayvec::ArrayVec;
use pipeline::{
    Arrival, DropReason, Encapsulation, Ends, HostIndex, Instant, PortIndex, Released, Verdict, Workspace,
};
use vhost_backend::{BURST, Burst, MAX_FRAME, NET_HEADER, PutError, RxFeatures, RxRing, Store};
use wire::gso::{Checksum, Segmenter, finish_checksum};
use wire::vnet::{self, VnetHeader};

use crate::counters::Counters;
use crate::port::{Attachment, LocalPort, Memory};
use crate::spread::flow_hash;
use crate::tap::{Tap, WriteError};
use crate::teller::Teller;
use crate::underlay::receiver::Arrived;
use crate::underlay::sender::{Outcome, Outgoing, Sender};
use crate::world::World;

/// One worker's hands: judges bursts and gives the frames to their destinations.
pub(crate) struct Deliverer {
    worker: usize,
    /// One frame in one piece, for checksums and segmentation in software.
    linear: Box<[u8]>,
    work: Workspace,
    teller: Teller,
    sender: Sender,
    /// For a frame that leaves alone.
    spare: Option<Store>,
}

impl std::fmt::Debug for Deliverer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "deliverer of worker {}", self.worker)
    }
}

/// Frames of a burst, one bit each.
type Mask = u64;

impl Deliverer {
    pub(crate) fn new(worker: usize, teller: Teller) -> Self {
        let linear = vec![0; MAX_FRAME as usize].into_boxed_slice();
        let (work, sender, spare) = (Workspace::new(), Sender::new(), Some(Store::new()));
        Self { worker, linear, work, teller, sender, spare }
    }

    /// Takes a burst that `from` sent all the way.
    #[inline]
    pub(crate) fn forward(&mut self, world: &World, from: PortIndex, burst: &mut Burst<'_>, now: Instant) {
        let Some(source) = world.local(from) else { return };
        let mut verdicts = [Verdict::Flood; BURST];
        let count = burst.len();
        judge(world, source, from, burst, now, &mut verdicts[..count], &mut self.work);
        self.teller.tell(world, &mut self.work.report, now);

        let counters = &source.counters[self.worker];
        let mut keys = [0u32; BURST];
        let (mut single, mut floods, mut replies): (Mask, Mask, Mask) = (0, 0, 0);
        let (mut accepted, mut bytes) = (0, 0);
        for (i, (verdict, frame)) in verdicts[..count].iter().zip(burst.frames()).enumerate() {
            match verdict {
                Verdict::Deliver(port) => {
                    keys[i] = port.0;
                    single |= 1 << i;
                }
                Verdict::Flood => floods |= 1 << i,
                Verdict::Reply => replies |= 1 << i,
                Verdict::Refuse(reason) => {
                    counters.dropped(*reason, 1);
                    replies |= 1 << i;
                    continue;
                }
                Verdict::Hold(slot) => {
                    self.keep(&source.memory, counters, *slot, burst, i);
                    continue;
                }
                Verdict::Drop(reason) => {
                    counters.dropped(*reason, 1);
                    continue;
                }
            }
            accepted += 1;
            bytes += u64::from(frame.len);
        }
        counters.accepted(accepted, bytes);

        let remote = self.hand_out(world, burst, &keys, single);
        if remote != 0 {
            let leaving = bits(remote).map(|i| {
                let encapsulation = world.snapshot.encapsulation(Some(from), PortIndex(keys[i]));
                outgoing(i, encapsulation)
            });
            self.send(world, burst, leaving, Some(counters), now);
        }
        if replies != 0 {
            self.hand_over(source, burst, replies);
        }
        if floods != 0 {
            self.flood(world, from, burst, floods);
            self.flood_hosts(world, from, burst, floods, counters, now);
        }
        if !self.work.released.is_empty() {
            self.release(world, &source.memory, counters, Some(from), now);
        }
    }

    /// Takes a burst that came from other hosts to its ports; `origins` says what each frame came in.
    pub(crate) fn take_in(
        &mut self,
        world: &World,
        burst: &mut Burst<'_>,
        origins: &[Arrived<'_>],
        now: Instant,
    ) {
        let count = burst.len();
        let mut verdicts = [Verdict::Flood; BURST];
        let mut ends = [Ends::default(); BURST];
        judge_arrivals(world, burst, origins, now, &mut verdicts[..count], &mut ends, &mut self.work);
        self.teller.tell(world, &mut self.work.report, now);

        let mut keys = [0u32; BURST];
        let (mut single, mut floods, mut replies): (Mask, Mask, Mask) = (0, 0, 0);
        let mut counting = Counting::new(world, self.worker);
        for (i, (verdict, origin)) in verdicts[..count].iter().zip(origins).enumerate() {
            let counters = counting.of(origin.source.ip());
            match verdict {
                Verdict::Deliver(port) => {
                    keys[i] = port.0;
                    single |= 1 << i;
                }
                Verdict::Flood => floods |= 1 << i,
                Verdict::Reply => replies |= 1 << i,
                Verdict::Refuse(reason) => {
                    counters.dropped(*reason, 1);
                    replies |= 1 << i;
                    continue;
                }
                Verdict::Hold(slot) => {
                    self.keep(&world.underlay.memory, counters, *slot, burst, i);
                    continue;
                }
                Verdict::Drop(reason) => {
                    counters.dropped(*reason, 1);
                    continue;
                }
            }
            counters.accepted(1, burst.frames()[i].len.into());
        }

        let remote = self.hand_out(world, burst, &keys, single);
        if remote | replies != 0 {
            let leaving = bits(remote | replies).map(|i| {
                let Ends { sender, receiver } = ends[i];
                let (from, to) = if replies >> i & 1 == 1 {
                    (receiver, sender)
                } else {
                    (sender, Some(PortIndex(keys[i])))
                };
                outgoing(i, to.and_then(|to| world.snapshot.encapsulation(from, to)))
            });
            self.send(world, burst, leaving, None, now);
        }
        for i in bits(floods) {
            if let Some(from) = ends[i].sender {
                self.flood(world, from, burst, 1 << i);
            }
        }
        if !self.work.released.is_empty() {
            self.release(world, &world.underlay.memory, &world.underlay.strangers[self.worker], None, now);
        }
    }

    /// Gives frames to the local ports that they are for. Those that are left, for ports of other hosts.
    #[inline(always)]
    fn hand_out(&mut self, world: &World, burst: &Burst<'_>, keys: &[u32; BURST], mut single: Mask) -> Mask {
        let mut remote = 0;
        while single != 0 {
            let key = keys[single.trailing_zeros() as usize];
            let same =
                keys.iter().enumerate().fold(0, |mask, (i, &other)| mask | Mask::from(other == key) << i);
            match world.local(PortIndex(key)) {
                Some(port) => self.hand_over(port, burst, same & single),
                None => remote |= same & single,
            }
            single &= !same;
        }
        remote
    }

    /// Gives frames to the underlay. What does not leave is counted with the host it was for, and with `counters`, those of
    /// the port that sent it.
    #[inline(never)]
    fn send(
        &mut self,
        world: &World,
        burst: &Burst<'_>,
        leaving: impl Iterator<Item = Option<Outgoing>>,
        counters: Option<&Counters>,
        now: Instant,
    ) {
        let (underlay, worker) = (&world.underlay, self.worker);
        let dropped = |reason| counters.iter().for_each(|counters| counters.dropped(reason, 1));
        let known = leaving.filter_map(|one| {
            if one.is_none() {
                dropped(DropReason::DestinationDown);
            }
            one
        });
        let Some(sockets) = underlay.sockets.as_ref().and_then(|all| all.get(worker)) else {
            return known.for_each(|_| dropped(DropReason::UnderlayDown));
        };
        let peer = |number| underlay.peer(HostIndex(number));
        let destination = |number| peer(number)?.destination.as_ref();
        self.sender.send(sockets, burst, known, destination, &mut |outcome| match outcome {
            Outcome::Sent { peer: number, packets, bytes } => {
                if let Some(peer) = peer(number) {
                    peer.memory.counters[worker].delivered(packets, bytes);
                }
            }
            Outcome::Dropped { peer: number, reason, too_large } => {
                dropped(reason);
                if let Some(peer) = peer(number) {
                    peer.memory.counters[worker].dropped(reason, 1);
                    if let Some(len) = too_large {
                        peer.refused(len, now.as_nanos());
                    }
                }
            }
        });
    }

    /// Keeps a fragment that waits for the first of its packet.
    #[cold]
    fn keep(&mut self, memory: &Memory, counters: &Counters, slot: u8, burst: &Burst<'_>, i: usize) {
        // The pipeline holds nothing above the MTU, which has room here.
        let len = burst.copy_to(i, &mut self.linear).unwrap_or(0);
        if let Err(reason) = memory.held.keep(slot, &self.linear[..len]) {
            memory.state.free(slot);
            counters.dropped(reason, 1);
        }
    }

    /// Sends fragments on that waited, or drops them. They ask for no offload: the pipeline lets no fragment. `from` is the
    /// port that sent them; none when another host did.
    #[cold]
    fn release(
        &mut self,
        world: &World,
        memory: &Memory,
        counters: &Counters,
        from: Option<PortIndex>,
        now: Instant,
    ) {
        let Some(mut spare) = self.spare.take() else { return };
        let all = std::mem::take(&mut self.work.released);
        for released in &all {
            let done = take_out(world, memory, counters, self.worker, released, |frame, to| {
                let Some(from) = from else {
                    // What came for a port that has moved away does not follow it in pieces that had to wait.
                    return counters.dropped(DropReason::RemoteDestination, 1);
                };
                let mut burst = Burst::private(&mut spare);
                burst.push(&[0; NET_HEADER], frame);
                let leaving = outgoing(0, world.snapshot.encapsulation(Some(from), to));
                self.send(world, &burst, std::iter::once(leaving), Some(counters), now);
            });
            if done {
                memory.state.free(released.slot);
            }
        }
        self.spare = Some(spare);
        // The room is kept.
        self.work.released = all;
        self.work.released.clear();
    }

    /// Gives frames for many to each other host that has the network.
    #[inline(never)]
    fn flood_hosts(
        &mut self,
        world: &World,
        from: PortIndex,
        burst: &Burst<'_>,
        floods: Mask,
        counters: &Counters,
        now: Instant,
    ) {
        let hosts = world.snapshot.flood_hosts(world.snapshot.port(from).network());
        let leaving = hosts.iter().flat_map(|&host| {
            let encapsulation = world.snapshot.flood_encapsulation(from, host);
            bits(floods).map(move |i| outgoing(i, encapsulation))
        });
        self.send(world, burst, leaving, Some(counters), now);
    }

    /// Gives frames for many to all who admit them.
    #[inline(never)]
    fn flood(&mut self, world: &World, from: PortIndex, burst: &mut Burst<'_>, floods: Mask) {
        for &port in world.snapshot.flood_ports(world.snapshot.port(from).network()) {
            let Some(receiver) = world.local(port).filter(|_| port != from) else { continue };
            let mut admitted = floods;
            for i in bits(floods) {
                if let Err(reason) =
                    pipeline::admits(&world.snapshot, from, port, &view(&mut burst.frames_mut()[i]))
                {
                    receiver.counters[self.worker].dropped(reason, 1);
                    admitted &= !(1 << i);
                }
            }
            if admitted != 0 {
                self.hand_over(receiver, burst, admitted);
            }
        }
    }

    /// Gives the frames of `group` to one port.
    fn hand_over(&mut self, port: &LocalPort, burst: &Burst<'_>, group: Mask) {
        let counters = &port.counters[self.worker];
        match &port.attachment {
            Attachment::Vhost(vhost) => {
                let pairs = port.receiving_pairs();
                if pairs > 1 {
                    return self.spread(port, pairs, burst, group);
                }
                match vhost.rx(0).enter() {
                    Some(ring) => put_all(
                        RingSink { ring, features: vhost.rx(0).features() },
                        burst,
                        group,
                        &mut self.linear,
                        counters,
                    ),
                    None => counters.dropped(DropReason::DestinationDown, group.count_ones().into()),
                }
            }
            // The kernel sends the answers of a flow out on the queue that its frames came in on: with a
            // queue per worker, a flow stays on one worker in both directions.
            Attachment::Tap(tap) => {
                let sink = TapSink { tap, queue: self.worker };
                put_all(sink, burst, group, &mut self.linear, counters);
            }
            Attachment::Missing => counters.dropped(DropReason::DestinationDown, group.count_ones().into()),
        }
    }

    /// Gives frames to a guest with several receive queues, each flow on its own.
    #[inline(never)]
    fn spread(&mut self, port: &LocalPort, pairs: u16, burst: &Burst<'_>, group: Mask) {
        let Attachment::Vhost(vhost) = &port.attachment else { return };
        let counters = &port.counters[self.worker];
        let mut queues = [0u16; BURST];
        for i in bits(group) {
            queues[i] = (flow_hash(burst.frames()[i].head()) % u32::from(pairs)) as u16;
        }
        let mut left = group;
        while left != 0 {
            let queue = queues[left.trailing_zeros() as usize];
            let same = queues.iter().enumerate().fold(0, |mask, (i, &q)| mask | Mask::from(q == queue) << i);
            match vhost.rx(queue).enter() {
                Some(ring) => put_all(
                    RingSink { ring, features: vhost.rx(queue).features() },
                    burst,
                    same & left,
                    &mut self.linear,
                    counters,
                ),
                None => counters.dropped(DropReason::DestinationDown, (same & left).count_ones().into()),
            }
            left &= !same;
        }
    }
}

/// Gives one whole frame to a port.
fn put_one(port: &LocalPort, worker: usize, frame: &[u8]) -> Result<(), DropReason> {
    match &port.attachment {
        Attachment::Vhost(vhost) => {
            let queue = (flow_hash(frame) % u32::from(port.receiving_pairs())) as u16;
            let ring = vhost.rx(queue).enter().ok_or(DropReason::DestinationDown)?;
            let mut sink = RingSink { ring, features: vhost.rx(queue).features() };
            sink.expect(1);
            sink.put_bytes(&[0; NET_HEADER], frame, &[])
        }
        Attachment::Tap(tap) => TapSink { tap, queue: worker }.put_bytes(&[0; NET_HEADER], frame, &[]),
        Attachment::Missing => Err(DropReason::DestinationDown),
    }
}

/// Asks the pipeline.
#[inline]
fn judge(
    world: &World,
    source: &LocalPort,
    from: PortIndex,
    burst: &mut Burst<'_>,
    now: Instant,
    verdicts: &mut [Verdict],
    work: &mut Workspace,
) {
    let mut frames: ArrayVec<pipeline::Frame<'_>, BURST> = burst.frames_mut().iter_mut().map(view).collect();
    let World { snapshot, flows, .. } = world;
    pipeline::from_port(snapshot, flows, from, &source.memory.state, now, &mut frames, verdicts, work);
}

/// Asks the pipeline about what came from other hosts.
fn judge_arrivals(
    world: &World,
    burst: &mut Burst<'_>,
    origins: &[Arrived<'_>],
    now: Instant,
    verdicts: &mut [Verdict],
    ends: &mut [Ends; BURST],
    work: &mut Workspace,
) {
    let frames = burst.frames_mut().iter_mut().zip(origins);
    let mut arrivals: ArrayVec<Arrival<'_>, BURST> = frames
        .map(|(frame, origin)| Arrival {
            source: origin.source.ip(),
            // There is no other protection yet: who gives a host an underlay address trusts that network.
            trusted: true,
            ecn: origin.ecn,
            tunnel: origin.tunnel,
            frame: view(frame),
            ends: Ends::default(),
        })
        .collect();
    let World { snapshot, flows, underlay, .. } = world;
    pipeline::from_underlay(snapshot, flows, &underlay.memory.state, now, &mut arrivals, verdicts, work);
    for (ends, arrival) in ends.iter_mut().zip(&arrivals) {
        *ends = arrival.ends;
    }
}

/// How frame `i` leaves.
#[inline]
fn outgoing(i: usize, encapsulation: Option<Encapsulation>) -> Option<Outgoing> {
    encapsulation.map(|Encapsulation { host, header }| Outgoing { frame: i, peer: host.0, header })
}

/// Where frames of other hosts are counted: most of a burst come from one.
struct Counting<'a> {
    world: &'a World,
    worker: usize,
    last: Option<(IpAddr, &'a Counters)>,
}

impl<'a> Counting<'a> {
    fn new(world: &'a World, worker: usize) -> Self {
        Self { world, worker, last: None }
    }

    #[inline]
    fn of(&mut self, source: IpAddr) -> &'a Counters {
        match self.last {
            Some((address, counters)) if address == source => counters,
            _ => {
                let World { underlay, snapshot, .. } = self.world;
                let known = underlay.peer_at(snapshot, source).map(|peer| &peer.memory.counters);
                let counters = &known.unwrap_or(&underlay.strangers)[self.worker];
                self.last = Some((source, counters));
                counters
            }
        }
    }
}

/// A frame, as the pipeline sees it.
#[inline]
fn view(frame: &mut vhost_backend::Frame) -> pipeline::Frame<'_> {
    pipeline::Frame {
        head: &mut frame.head,
        head_len: &mut frame.head_len,
        len: &mut frame.len,
        net: &mut frame.net,
    }
}

/// Where frames of one group go.
trait Sink {
    /// What the receiver takes as it is.
    fn accepts(&self) -> Accepts;
    /// Announces how many frames come.
    fn expect(&mut self, count: usize);
    /// Gives it a frame of the burst with the burst's net header.
    fn put(&mut self, burst: &Burst<'_>, i: usize) -> Result<(), DropReason>;
    /// Gives it a frame in two parts.
    fn put_bytes(&mut self, net: &[u8; NET_HEADER], head: &[u8], payload: &[u8]) -> Result<(), DropReason>;
}

#[inline]
fn put_all<S: Sink>(mut sink: S, burst: &Burst<'_>, group: Mask, linear: &mut [u8], counters: &Counters) {
    let accepts = sink.accepts();
    let total = u64::from(group.count_ones());
    let (mut packets, mut bytes) = (0, 0);
    sink.expect(total as usize);
    for (done, i) in (0u64..).zip(bits(group)) {
        let frame = &burst.frames()[i];
        let outcome = if accepts.takes(&frame.net, &frame.head) {
            sink.put(burst, i).map(|()| (1, u64::from(frame.len)))
        } else {
            finish(&mut sink, accepts, burst, i, linear, counters)
        };
        match outcome {
            Ok(sent) => {
                packets += sent.0;
                bytes += sent.1;
            }
            // Whoever has no room now has none for the rest of the burst either; passing the rest by small
            // frames would only change their order.
            Err(DropReason::DestinationFull) => {
                counters.dropped(DropReason::DestinationFull, total - done);
                break;
            }
            Err(reason) => counters.dropped(reason, 1),
        }
    }
    drop(sink);
    counters.delivered(packets, bytes);
}

/// Does in software what the receiver does not take: sums the checksum, or cuts the frame into segments. Returns
/// packets and bytes as the receiver got them.
#[cold]
#[inline(never)]
fn finish<S: Sink>(
    sink: &mut S,
    accepts: Accepts,
    burst: &Burst<'_>,
    i: usize,
    linear: &mut [u8],
    counters: &Counters,
) -> Result<(u64, u64), DropReason> {
    let net = VnetHeader::from_bytes(&burst.frames()[i].net);
    let len = burst.copy_to(i, linear).ok_or(DropReason::DestinationTooSmall)?;
    let frame = &mut linear[..len];
    if !net.is_gso() {
        finish_checksum(frame, &net).map_err(|_| DropReason::BadOffload)?;
        return sink.put_bytes(&[0; NET_HEADER], frame, &[]).map(|()| (1, len as u64));
    }
    let segments = Segmenter::new(frame, &net).map_err(|_| DropReason::BadOffload)?;
    let checksum = if accepts.csum { Checksum::Partial } else { Checksum::Finish };
    let header = segments.net_header(checksum).to_bytes();
    let (mut packets, mut bytes) = (0, 0);
    let mut refused = None;
    let _ = segments.for_each(checksum, |head, payload| match sink.put_bytes(&header, head, payload) {
        Ok(()) => {
            packets += 1;
            bytes += (head.len() + payload.len()) as u64;
            ControlFlow::Continue(())
        }
        Err(reason) => {
            refused = Some(reason);
            ControlFlow::Break(())
        }
    });
    match refused {
        Some(reason) if packets == 0 => Err(reason),
        // What went out went out; the rest is lost as one frame.
        Some(reason) => {
            counters.dropped(reason, 1);
            Ok((packets, bytes))
        }
        None => Ok((packets, bytes)),
    }
}

/// Which unfinished frames a receiver takes.
#[derive(Clone, Copy, Debug)]
struct Accepts {
    csum: bool,
    tso4: bool,
    tso6: bool,
    ecn: bool,
    uso4: bool,
    uso6: bool,
}

impl Accepts {
    /// Whether a frame can go as it is.
    #[inline]
    fn takes(self, net: &[u8; NET_HEADER], head: &[u8]) -> bool {
        let [flags, gso, ..] = *net;
        if flags | gso == 0 {
            return true;
        }
        if flags & vnet::NEEDS_CSUM != 0 && !self.csum {
            return false;
        }
        let kind = match gso & !vnet::GSO_ECN {
            vnet::GSO_NONE => true,
            vnet::GSO_TCPV4 => self.tso4,
            vnet::GSO_TCPV6 => self.tso6,
            vnet::GSO_UDP_L4 if head[12..14] == [0x86, 0xdd] => self.uso6,
            vnet::GSO_UDP_L4 => self.uso4,
            _ => false,
        };
        kind && (gso & vnet::GSO_ECN == 0 || self.ecn)
    }
}

/// A guest's receive ring.
struct RingSink<'a> {
    ring: RxRing<'a>,
    features: RxFeatures,
}

impl Sink for RingSink<'_> {
    #[inline]
    fn accepts(&self) -> Accepts {
        Accepts {
            csum: self.features.csum(),
            tso4: self.features.tso4(),
            tso6: self.features.tso6(),
            ecn: self.features.ecn(),
            uso4: self.features.uso4(),
            uso6: self.features.uso6(),
        }
    }

    #[inline]
    fn expect(&mut self, count: usize) {
        self.ring.expect(count);
    }

    #[inline]
    fn put(&mut self, burst: &Burst<'_>, i: usize) -> Result<(), DropReason> {
        self.ring.put(burst, i, &burst.frames()[i].net).map_err(put_error)
    }

    fn put_bytes(&mut self, net: &[u8; NET_HEADER], head: &[u8], payload: &[u8]) -> Result<(), DropReason> {
        self.ring.put_bytes(net, head, payload).map_err(put_error)
    }
}

#[cold]
fn put_error(error: PutError) -> DropReason {
    match error {
        PutError::Full => DropReason::DestinationFull,
        PutError::TooLong => DropReason::DestinationTooSmall,
        PutError::Fault(_) => DropReason::DestinationDown,
    }
}

/// A TAP device, written to on one of its queues.
struct TapSink<'a> {
    tap: &'a Tap,
    queue: usize,
}

impl Sink for TapSink<'_> {
    #[inline]
    fn accepts(&self) -> Accepts {
        let uso = self.tap.uso();
        Accepts { csum: true, tso4: true, tso6: true, ecn: true, uso4: uso, uso6: uso }
    }

    #[inline]
    fn expect(&mut self, _count: usize) {}

    #[inline]
    fn put(&mut self, burst: &Burst<'_>, i: usize) -> Result<(), DropReason> {
        self.tap.write_frame(self.queue, burst, i).map_err(write_error)
    }

    fn put_bytes(&mut self, net: &[u8; NET_HEADER], head: &[u8], payload: &[u8]) -> Result<(), DropReason> {
        self.tap.write_bytes(self.queue, net, head, payload).map_err(write_error)
    }
}

#[cold]
fn write_error(error: WriteError) -> DropReason {
    match error {
        WriteError::Refused => DropReason::BadOffload,
        WriteError::Full => DropReason::DestinationFull,
        WriteError::Down => DropReason::DestinationDown,
        WriteError::Fault => DropReason::Truncated,
    }
}

/// The places of the bits set, lowest first.
#[inline]
fn bits(mut mask: Mask) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let i = mask.trailing_zeros() as usize;
        (mask != 0).then(|| {
            mask &= mask - 1;
            i
        })
    })
}

/// Takes a fragment out of its slot, and sends it on or drops it; `remote` takes one that is for a port of another host.
/// False when the fragment has not come yet.
fn take_out(
    world: &World,
    memory: &Memory,
    counters: &Counters,
    worker: usize,
    released: &Released,
    remote: impl FnOnce(&[u8], PortIndex),
) -> bool {
    let Released { slot, verdict } = *released;
    let (to, missed) = match verdict {
        Verdict::Deliver(to) => (Some(to), DropReason::FragmentTimeout),
        Verdict::Drop(reason) => (None, reason),
        Verdict::Flood | Verdict::Reply | Verdict::Refuse(_) | Verdict::Hold(_) => return true,
    };
    let taken = memory.held.take(slot, missed, |frame| {
        let Some(to) = to else { return counters.dropped(missed, 1) };
        let bytes = frame.len() as u64;
        let Some(port) = world.local(to) else {
            counters.accepted(1, bytes);
            return remote(frame, to);
        };
        match put_one(port, worker, frame) {
            Ok(()) => {
                counters.accepted(1, bytes);
                port.counters[worker].delivered(1, bytes);
            }
            Err(reason) => port.counters[worker].dropped(reason, 1),
        }
    });
    taken.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOTHING: Accepts =
        Accepts { csum: false, tso4: false, tso6: false, ecn: false, uso4: false, uso6: false };

    fn net(flags: u8, gso_type: u8) -> [u8; NET_HEADER] {
        VnetHeader { flags, gso_type, ..VnetHeader::default() }.to_bytes()
    }

    fn head(ethertype: u16) -> [u8; 60] {
        let mut head = [0; 60];
        head[12..14].copy_from_slice(&ethertype.to_be_bytes());
        head
    }

    #[test]
    fn a_frame_passes_uncut_only_to_a_receiver_that_negotiated_all_of_it() {
        let (v4, v6) = (head(0x0800), head(0x86dd));
        let csum = Accepts { csum: true, ..NOTHING };
        let tcp4 = vnet::GSO_TCPV4;
        let table = [
            (NOTHING, net(0, 0), &v4, true),
            (NOTHING, net(vnet::NEEDS_CSUM, 0), &v4, false),
            (csum, net(vnet::NEEDS_CSUM, 0), &v4, true),
            (csum, net(vnet::NEEDS_CSUM, tcp4), &v4, false),
            (Accepts { tso4: true, ..csum }, net(vnet::NEEDS_CSUM, tcp4), &v4, true),
            (Accepts { tso6: true, ..csum }, net(vnet::NEEDS_CSUM, tcp4), &v4, false),
            (Accepts { tso4: true, ..csum }, net(vnet::NEEDS_CSUM, tcp4 | vnet::GSO_ECN), &v4, false),
            (
                Accepts { tso4: true, ecn: true, ..csum },
                net(vnet::NEEDS_CSUM, tcp4 | vnet::GSO_ECN),
                &v4,
                true,
            ),
            (Accepts { tso4: true, ..csum }, net(vnet::NEEDS_CSUM, vnet::GSO_TCPV6), &v6, false),
            (Accepts { uso4: true, ..csum }, net(vnet::NEEDS_CSUM, vnet::GSO_UDP_L4), &v4, true),
            (Accepts { uso4: true, ..csum }, net(vnet::NEEDS_CSUM, vnet::GSO_UDP_L4), &v6, false),
            (Accepts { uso6: true, ..csum }, net(vnet::NEEDS_CSUM, vnet::GSO_UDP_L4), &v6, true),
            (Accepts { tso4: true, ..csum }, net(vnet::NEEDS_CSUM, vnet::GSO_UDP), &v4, false),
        ];
        for (accepts, net, head, expected) in table {
            assert_eq!(accepts.takes(&net, head), expected, "{accepts:?} {net:?}");
        }
    }

    proptest! {
        #[test]
        fn bits_are_the_set_ones_in_order(mask: u64) {
            let model: Vec<usize> = (0..64).filter(|i| mask >> i & 1 == 1).collect();
            prop_assert_eq!(bits(mask).collect::<Vec<_>>(), model);
        }
    }
}
