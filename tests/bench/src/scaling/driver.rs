//! One worker: it writes frames as its two guests would, and has each burst judged.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant as Clock;

use anyhow::{Result, ensure};
use pipeline::{Event, Frame, HEAD, Instant, PortState, Verdict, Workspace, from_port};
use rustix::thread::{CpuSet, sched_setaffinity};

use super::world::{End, World};

/// Frames of one call.
const BURST: usize = 64;

/// Bytes of a frame.
const FRAME: usize = 64;

/// UDP ports of the client, and those of the server, from the first on.
const FIRST_PORT: u16 = 1024;
const PORTS: u64 = 62_500;
const FIRST_SERVICE: u16 = 5202;

/// Bytes of a `virtio_net_hdr`.
const NET: usize = 12;

/// What a worker has to do.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Task {
    /// So many flows in turn, in both directions, until told to stop.
    Established(u64),
    /// So many flows, one frame of each.
    New(u64),
}

/// What others see of a worker.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Its thread.
    pub(crate) thread: AtomicU64,
    /// Frames that were judged and are to be delivered.
    pub(crate) frames: AtomicU64,
    /// Nanoseconds that a task with an end has taken.
    pub(crate) nanos: AtomicU64,
}

/// Runs a task on `cpu`. Every flow is established before the start.
pub(crate) fn run(
    world: &World,
    ends: [End; 2],
    task: Task,
    cpu: usize,
    progress: &Progress,
    start: &Barrier,
    stop: &AtomicBool,
) -> Result<()> {
    let pinned = pin(cpu);
    let mut driver = Driver::new(world, ends);
    let mut result = Ok(());
    if let Task::Established(flows) = task {
        result = (0..flows).step_by(BURST).try_for_each(|_| driver.round(flows)).map(|()| driver.frames = 0);
    }
    progress.thread.store(rustix::thread::gettid().as_raw_nonzero().get() as u64, Ordering::Relaxed);
    start.wait();
    pinned?;
    result?;
    let begun = Clock::now();
    match task {
        Task::Established(flows) => {
            while !stop.load(Ordering::Relaxed) {
                driver.round(flows)?;
                progress.frames.store(driver.frames, Ordering::Relaxed);
            }
        }
        Task::New(flows) => {
            while driver.frames < flows {
                driver.burst(0, u64::MAX)?;
                progress.frames.store(driver.frames, Ordering::Relaxed);
            }
        }
    }
    progress.nanos.store(begun.elapsed().as_nanos() as u64, Ordering::Release);
    Ok(())
}

struct Slot {
    head: [u8; HEAD],
    head_len: u16,
    len: u32,
    net: [u8; NET],
}

struct Driver<'a> {
    world: &'a World,
    ends: [End; 2],
    states: [PortState; 2],
    slots: Box<[Slot; BURST]>,
    verdicts: Box<[Verdict; BURST]>,
    templates: [[u8; FRAME]; 2],
    work: Workspace,
    clock: Clock,
    /// By end: the flow of the next frame.
    next: [u64; 2],
    frames: u64,
}

impl<'a> Driver<'a> {
    fn new(world: &'a World, ends: [End; 2]) -> Self {
        let slot = |_| Slot { head: [0; HEAD], head_len: 0, len: 0, net: [0; NET] };
        let [a, b] = ends;
        Driver {
            world,
            ends,
            states: [PortState::default(), PortState::default()],
            slots: Box::new(std::array::from_fn(slot)),
            verdicts: Box::new([Verdict::Flood; BURST]),
            templates: [template(&a, &b), template(&b, &a)],
            work: Workspace::new(),
            clock: Clock::now(),
            next: [0; 2],
            frames: 0,
        }
    }

    /// A burst of the client and one of the server, which answers.
    fn round(&mut self, flows: u64) -> Result<()> {
        self.burst(0, flows)?;
        self.burst(1, flows)
    }

    /// Frames of the next flows of `flows`, written as into a ring's buffers and copied from there, and judged.
    fn burst(&mut self, side: usize, flows: u64) -> Result<()> {
        for slot in self.slots.iter_mut() {
            let flow = self.next[side];
            self.next[side] = if flow + 1 == flows { 0 } else { flow + 1 };
            let ports = [FIRST_PORT + (flow % PORTS) as u16, FIRST_SERVICE + (flow / PORTS) as u16]
                .map(u16::to_be_bytes);
            let [from, to] = [ports[side], ports[1 - side]];
            slot.head[..FRAME].copy_from_slice(&self.templates[side]);
            slot.head[34..36].copy_from_slice(&from);
            slot.head[36..38].copy_from_slice(&to);
            (slot.head_len, slot.len, slot.net) = (FRAME as u16, FRAME as u32, [0; NET]);
        }
        let mut frames = self.slots.each_mut().map(|slot| Frame {
            head: &mut slot.head,
            head_len: &mut slot.head_len,
            len: &mut slot.len,
            net: &mut slot.net,
        });
        let World { snapshot, flows, .. } = self.world;
        // From 1 on: 0 is before everything.
        let now = Instant::from_nanos(1 + self.clock.elapsed().as_nanos() as u64);
        let (port, state) = (self.ends[side].port, &self.states[side]);
        from_port(
            snapshot,
            flows,
            port,
            state,
            now,
            &mut frames,
            self.verdicts.as_mut_slice(),
            &mut self.work,
        );
        let to = Verdict::Deliver(self.ends[1 - side].port);
        let wrong = self.verdicts.iter().find(|verdict| **verdict != to);
        ensure!(wrong.is_none(), "a frame was to be delivered, and the verdict is {wrong:?}");
        let ended = self.work.report.drain().filter(|event| !matches!(event, Event::FlowStarted(_))).count();
        ensure!(ended == 0, "{ended} flows ended or frames were dropped in one burst");
        self.frames += BURST as u64;
        Ok(())
    }
}

/// Ethernet, IPv4 and UDP from one end to the other; the UDP ports are 0.
fn template(from: &End, to: &End) -> [u8; FRAME] {
    let mut frame = [0; FRAME];
    frame[..6].copy_from_slice(&to.mac);
    frame[6..12].copy_from_slice(&from.mac);
    frame[12..14].copy_from_slice(&[0x08, 0x00]);
    let total = (FRAME - 14) as u8;
    frame[14..26].copy_from_slice(&[0x45, 0, 0, total, 0, 0, 0, 0, 64, 17, 0, 0]);
    frame[26..30].copy_from_slice(&from.address.octets());
    frame[30..34].copy_from_slice(&to.address.octets());
    let sum: u32 =
        frame[14..34].chunks_exact(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1])).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    frame[24..26].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    frame[38..40].copy_from_slice(&u16::from(total - 20).to_be_bytes());
    frame
}

fn pin(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    Ok(sched_setaffinity(None, &set)?)
}
