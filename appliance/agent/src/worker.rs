//! The loop that carries frames.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use event_manager::{EventManager, EventSet, Events, SubscriberId, SubscriberOps};
use pipeline::{Instant, PortIndex};
use vhost_backend::{Burst, Store};

use crate::Poll;
use crate::arena::{self, Arena};
use crate::clock;
use crate::deliver::Deliverer;
use crate::plane::Plane;
use crate::port::{Attachment, LocalPort};
use crate::readiness::{EVENTS_MAX, Readiness, UNDERLAY, WAKE};
use crate::tap::ReadEnd;
use crate::teller::Teller;
use crate::underlay::answer;
use crate::underlay::message::{Inbox, MESSAGES};
use crate::underlay::receiver::{Datagrams, Origins, unpack};
use crate::underlay::socket::Sockets;
use crate::world::World;

/// How long an idle guest ring is polled before its guest is asked to kick. A kick and the wake-up behind it cost
/// the guest and us several microseconds; polling an idle ring costs a cache hit.
const RING_PATIENCE: u64 = 30_000;

/// How long an idle TAP queue is polled before epoll is trusted to report it. A poll is a system call here, and
/// the process that will send the next frame often waits for our core.
const TAP_PATIENCE: u64 = 0;

/// The same for sockets of the underlay.
const UNDERLAY_PATIENCE: u64 = 0;

/// Bytes that are taken from a socket of the underlay by one call, about: what comes as bursts of 64 KiB is taken one by one,
/// so that it is still in the core's caches when it is written.
const UNDERLAY_BITE: usize = 64 << 10;

/// How long after the last look at epoll a busy worker looks again, for sources it does not poll.
const LOOK_EVERY: u64 = 20_000;

/// A thread's worth of data plane: its sources, and what it needs to carry their frames.
pub(crate) struct Worker {
    index: usize,
    poll: Poll,
    plane: Arc<Plane>,
    world: Arc<World>,
    generation: u64,
    sources: Vec<Source>,
    /// Places in `sources` of those that are polled. The others reported that they have nothing and will be
    /// announced by epoll.
    hot: Vec<u32>,
    events: EventManager<Readiness>,
    readiness: SubscriberId,
    last_look: u64,
    store: Store,
    arena: Arena,
    deliverer: Deliverer,
    underlay: Incoming,
}

/// What comes from other hosts.
#[derive(Debug)]
struct Incoming {
    /// Each worker's sockets, ours as they are in the epoll set.
    sockets: Option<Arc<[Sockets]>>,
    inbox: Inbox,
    /// Messages that are taken by one call.
    bite: usize,
    hot: bool,
    last_work: u64,
}

/// One queue that frames come from.
struct Source {
    port: Arc<LocalPort>,
    index: PortIndex,
    queue: usize,
    /// The eventfd a guest kicks, as it is in the epoll set. Held, so that its number stays ours.
    kick: Option<Arc<OwnedFd>>,
    hot: bool,
    last_work: u64,
}

/// What one look at a source gave.
enum Look {
    /// Frames.
    Frames,
    /// No frames, but there may be some any moment; epoll will not tell.
    Later,
    /// No frames, and epoll or a change of generation will tell.
    Idle,
}

/// A worker cannot be set up.
#[derive(Debug, thiserror::Error)]
#[error("worker {worker}: {source}")]
pub(crate) struct SetupError {
    worker: usize,
    source: event_manager::Error,
}

impl Worker {
    pub(crate) fn new(
        index: usize,
        poll: Poll,
        plane: Arc<Plane>,
        teller: Teller,
    ) -> Result<Self, SetupError> {
        let failed = |source| SetupError { worker: index, source };
        let mut events = EventManager::new_with_capacity(EVENTS_MAX).map_err(failed)?;
        let readiness = events.add_subscriber(Readiness::new());
        // Edge-triggered: the eventfd is never read, each write to it is one event.
        let wake =
            Events::with_data_raw(plane.waker(index).fd(), WAKE, EventSet::IN | EventSet::EDGE_TRIGGERED);
        events.event_ops(readiness).and_then(|mut ops| ops.add(wake)).map_err(failed)?;
        Ok(Self {
            index,
            poll,
            world: plane.world(),
            plane,
            generation: 0,
            sources: Vec::new(),
            hot: Vec::new(),
            events,
            readiness,
            last_look: 0,
            store: Store::new(),
            arena: Arena::new(),
            deliverer: Deliverer::new(index, teller),
            underlay: Incoming {
                sockets: None,
                inbox: Inbox::new(),
                bite: MESSAGES,
                hot: false,
                last_work: 0,
            },
        })
    }

    /// Carries frames until the plane stops.
    pub(crate) fn run(&mut self) {
        while self.turn() {}
    }

    /// One turn: a burst from each source that is polled, then a look at epoll when it is time. False at the end.
    #[inline]
    pub(crate) fn turn(&mut self) -> bool {
        if self.plane.generation() != self.generation && !self.adopt() {
            return false;
        }
        if self.hot.is_empty() && !self.underlay.hot {
            self.sleep();
            return true;
        }
        let now = clock::now();
        let mut at = 0;
        while let Some(&place) = self.hot.get(at) {
            match self.look_at(place as usize, now) {
                Look::Idle => {
                    self.sources[place as usize].hot = false;
                    self.hot.swap_remove(at);
                }
                Look::Frames | Look::Later => at += 1,
            }
        }
        if self.underlay.hot {
            self.look_at_underlay(now);
        }
        let all_hot = self.hot.len() == self.sources.len() && self.underlay.is_polled();
        if !all_hot && now.saturating_sub(self.last_look) >= LOOK_EVERY {
            self.last_look = now;
            self.wait(0);
        }
        true
    }

    /// Takes one burst from a source to its destinations.
    #[inline]
    fn look_at(&mut self, place: usize, now: u64) -> Look {
        let Self { sources, world, store, arena, deliverer, poll, .. } = self;
        let source = &mut sources[place];
        let at = Instant::from_nanos(now);
        match &source.port.attachment {
            Attachment::Vhost(port) => {
                let queue = port.tx(source.queue as u16);
                let Some(mut ring) = queue.enter() else {
                    // Taken by a change: it is over in a moment, and nobody announces that. Not running: the
                    // port announces when it does.
                    return if queue.running() { Look::Later } else { Look::Idle };
                };
                let mut burst = ring.take(store);
                if !burst.is_empty() {
                    deliverer.forward(world, source.index, &mut burst, at);
                    source.last_work = now;
                    return Look::Frames;
                }
                drop(burst);
                // A guest without a kick descriptor has asked to be polled.
                let rest =
                    poll.over(now.saturating_sub(source.last_work), RING_PATIENCE) && source.kick.is_some();
                if rest && !ring.arm() { Look::Idle } else { Look::Later }
            }
            Attachment::Tap(tap) => {
                let end = arena.fill(tap, source.queue, arena::FRAMES);
                let mut burst = Burst::private(store);
                for (net, bytes) in arena.frames() {
                    burst.push(net, bytes);
                }
                let any = !burst.is_empty();
                if any {
                    deliverer.forward(world, source.index, &mut burst, at);
                    source.last_work = now;
                }
                match end {
                    Some(ReadEnd::Gone) => {
                        source.port.gone.store(true, Ordering::Release);
                        Look::Idle
                    }
                    Some(ReadEnd::Empty) if poll.over(now.saturating_sub(source.last_work), TAP_PATIENCE) => {
                        Look::Idle
                    }
                    _ if any => Look::Frames,
                    _ => Look::Later,
                }
            }
            Attachment::Missing => Look::Idle,
        }
    }

    /// Takes what other hosts sent to its destinations.
    fn look_at_underlay(&mut self, now: u64) {
        let Self { index, world, store, deliverer, poll, underlay, .. } = self;
        let Incoming { sockets, inbox, bite, hot, last_work } = underlay;
        let own = sockets.as_ref().and_then(|all| all.get(*index));
        let (mut messages, mut bytes) = (0, 0);
        for receiver in own.map_or(&[][..], Sockets::receivers) {
            messages += inbox.fill(receiver.fd(), *bite);
            bytes += inbox.bytes();
            let mut datagrams = Datagrams::of(inbox).peekable();
            while datagrams.peek().is_some() {
                let mut burst = Burst::private(store);
                let mut origins = Origins::new();
                unpack(&mut datagrams, &mut burst, &mut origins, |control| {
                    answer::take(&world.underlay, &world.snapshot, receiver, control, *index, now);
                });
                if !burst.is_empty() {
                    deliverer.take_in(world, &mut burst, &origins, Instant::from_nanos(now));
                }
            }
        }
        if messages > 0 {
            *last_work = now;
            *bite = (UNDERLAY_BITE * messages / bytes.max(1)).clamp(1, MESSAGES);
        } else {
            *hot = !poll.over(now.saturating_sub(*last_work), UNDERLAY_PATIENCE);
        }
    }

    /// Sleeps until a source, the control thread or a port reports something.
    fn sleep(&mut self) {
        self.plane.waker(self.index).about_to_sleep();
        // Whoever changed the generation before it saw us asleep did not wake us.
        if self.plane.generation() == self.generation {
            self.wait(-1);
        }
        self.plane.waker(self.index).awake();
    }

    /// Takes reports from epoll, waiting for the first up to `milliseconds` (-1: for ever).
    fn wait(&mut self, milliseconds: i32) {
        if self.events.run_with_timeout(milliseconds).is_err() {
            // Only a broken epoll descriptor can do that; polling everything keeps frames going.
            self.heat_all();
            return;
        }
        let Ok(readiness) = self.events.subscriber_mut(self.readiness) else { return };
        while let Some(place) = readiness.pop() {
            if place == UNDERLAY {
                self.underlay.hot = true;
                continue;
            }
            heat(&mut self.sources, &mut self.hot, place as usize);
        }
    }

    fn heat_all(&mut self) {
        self.underlay.hot = self.underlay.sockets.is_some();
        for place in 0..self.sources.len() {
            heat(&mut self.sources, &mut self.hot, place);
        }
    }

    /// Takes over what changed: another world, or other descriptors of the same. False when the plane stops.
    #[cold]
    fn adopt(&mut self) -> bool {
        let generation = self.plane.generation();
        if self.plane.stopping() {
            self.let_go();
            self.use_sockets(None);
            self.plane.adopt(self.index, u64::MAX);
            return false;
        }
        let world = self.plane.world();
        if self.generation == 0 || !Arc::ptr_eq(&world, &self.world) {
            self.let_go();
            for (index, port) in world.locals() {
                // A port that is not open has no queues to look at.
                if matches!(port.attachment, Attachment::Missing) {
                    continue;
                }
                for (queue, _) in port.homes.iter().enumerate().filter(|&(_, &home)| home == self.index) {
                    let port = port.clone();
                    self.sources.push(Source { port, index, queue, kick: None, hot: false, last_work: 0 });
                }
            }
            self.hot.reserve(self.sources.len());
            for place in 0..self.sources.len() {
                let source = &self.sources[place];
                if let Attachment::Tap(tap) = &source.port.attachment {
                    self.watch(tap.fd(source.queue), place);
                }
            }
            self.use_sockets(world.underlay.sockets.clone());
            self.world = world;
        }
        for place in 0..self.sources.len() {
            self.refresh_kick(place);
        }
        self.world.locals().for_each(|(_, port)| port.refresh());
        self.heat_all();
        self.generation = generation;
        self.plane.adopt(self.index, generation);
        true
    }

    /// Watches the eventfd that a guest kicks now, instead of an earlier one.
    fn refresh_kick(&mut self, place: usize) {
        let source = &self.sources[place];
        let Attachment::Vhost(port) = &source.port.attachment else { return };
        let kick = port.tx(source.queue as u16).kick_fd();
        let same = match (&kick, &source.kick) {
            (Some(new), Some(old)) => Arc::ptr_eq(new, old),
            (new, old) => new.is_none() && old.is_none(),
        };
        if same {
            return;
        }
        if let Some(old) = self.sources[place].kick.take() {
            self.unwatch(old.as_raw_fd());
        }
        if let Some(kick) = kick {
            self.watch(kick.as_raw_fd(), place);
            self.sources[place].kick = Some(kick);
        }
    }

    /// Listens to other hosts on these sockets from now on.
    fn use_sockets(&mut self, sockets: Option<Arc<[Sockets]>>) {
        let same = match (&sockets, &self.underlay.sockets) {
            (Some(new), Some(old)) => Arc::ptr_eq(new, old),
            (new, old) => new.is_none() && old.is_none(),
        };
        if same {
            return;
        }
        let before = std::mem::replace(&mut self.underlay.sockets, sockets.clone());
        let index = self.index;
        for receiver in before.iter().flat_map(|all| all.get(index)).flat_map(Sockets::receivers) {
            self.unwatch(receiver.fd().as_raw_fd());
        }
        for receiver in sockets.iter().flat_map(|all| all.get(index)).flat_map(Sockets::receivers) {
            let fd = receiver.fd().as_raw_fd();
            let events = Events::with_data_raw(fd, UNDERLAY, EventSet::IN | EventSet::EDGE_TRIGGERED);
            let added = self.events.event_ops(self.readiness).and_then(|mut ops| ops.add(events));
            if let Err(error) = added {
                log::error!("worker {}: cannot watch {}: {error}", self.index, receiver.address);
            }
        }
        self.underlay.hot = sockets.is_some();
    }

    /// Lets go of every port.
    fn let_go(&mut self) {
        for source in std::mem::take(&mut self.sources) {
            match (&source.port.attachment, source.kick) {
                (Attachment::Tap(tap), _) => self.unwatch(tap.fd(source.queue)),
                (_, Some(kick)) => self.unwatch(kick.as_raw_fd()),
                _ => {}
            }
        }
        self.hot.clear();
    }

    fn watch(&mut self, fd: i32, place: usize) {
        let events = Events::with_data_raw(fd, place as u32, EventSet::IN | EventSet::EDGE_TRIGGERED);
        let added = self.events.event_ops(self.readiness).and_then(|mut ops| ops.add(events));
        if let Err(error) = added {
            log::error!(
                "worker {}: cannot watch a queue of {}: {error}",
                self.index,
                self.sources[place].port.full_name
            );
        }
    }

    fn unwatch(&mut self, fd: i32) {
        if let Ok(mut ops) = self.events.event_ops(self.readiness) {
            // Fails only for what could not be added.
            let _ = ops.remove(Events::empty_raw(fd));
        }
    }
}

impl Incoming {
    /// Whether epoll has nothing to tell of it.
    fn is_polled(&self) -> bool {
        self.hot || self.sockets.is_none()
    }
}

impl Poll {
    /// Whether a source that is idle for `idle` nanoseconds goes to sleep.
    #[inline]
    fn over(self, idle: u64, patience: u64) -> bool {
        match self {
            Self::Always => false,
            Self::Adaptive => idle >= patience,
            Self::Sleep => true,
        }
    }
}

fn heat(sources: &mut [Source], hot: &mut Vec<u32>, place: usize) {
    if let Some(source) = sources.get_mut(place)
        && !source.hot
    {
        source.hot = true;
        hot.push(place as u32);
    }
}
