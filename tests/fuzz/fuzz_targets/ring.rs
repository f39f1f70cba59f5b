//! A hostile driver: anything in the tables, at any time, while frames are taken from one ring and put into another.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use vhost_backend::rig::{self, Rig, feature};
use vhost_backend::{NET_HEADER, Store};

#[derive(Arbitrary, Debug)]
enum Place {
    Buffers(u16),
    EndOfFirst(u8),
    EndOfSecond(u8),
    Rings(u16),
    Anywhere(u64),
}

impl Place {
    fn address(&self) -> u64 {
        match *self {
            Place::Buffers(at) => rig::SCRATCH + u64::from(at),
            Place::EndOfFirst(before) => rig::SECOND - u64::from(before),
            Place::EndOfSecond(before) => rig::SECOND + rig::SECOND_LEN - u64::from(before),
            Place::Rings(at) => rig::BASE + u64::from(at),
            Place::Anywhere(at) => at,
        }
    }
}

#[derive(Arbitrary, Debug)]
enum Step {
    Descriptor { ring: bool, index: u8, place: Place, len: u32, flags: u8, next: u8 },
    Indirect { index: u8, place: Place, len: u16, flags: u8, next: u8 },
    Available { ring: bool, head: u8 },
    Write { place: Place, bytes: Vec<u8> },
    Jump { ring: bool, index: u16 },
    Offer(u16),
    Send(Vec<u8>),
    Forward,
    PutBytes(u16),
    Arm,
    Remap,
    Restart(u8),
}

fuzz_target!(|steps: Vec<Step>| {
    let features = |bits: u8| {
        let all = [feature::VERSION_1, feature::MRG_RXBUF, feature::INDIRECT, feature::EVENT_IDX];
        all.iter().enumerate().filter(|(i, _)| bits >> i & 1 == 1).map(|(_, bit)| bit).sum::<u64>()
    };
    let mut rig = Rig::new(32, features(7));
    let mut store = Store::new();
    let mut linear = vec![0; 70_000];
    let payload = vec![0x5a; 65_535];
    for step in steps.iter().take(200) {
        match step {
            Step::Descriptor { ring, index, place, len, flags, next } => {
                let table = if *ring { rig.transmit.descriptors() } else { rig.receive.descriptors() };
                let index = u16::from(*index) % 32;
                rig.descriptor(table, index, place.address(), *len, u16::from(*flags), u16::from(*next));
            }
            Step::Indirect { index, place, len, flags, next } => {
                rig.descriptor(
                    rig::SCRATCH,
                    u16::from(*index) % 64,
                    place.address(),
                    u32::from(*len),
                    u16::from(*flags),
                    u16::from(*next),
                );
            }
            Step::Available { ring, head } => rig.make_available(usize::from(*ring), u16::from(*head)),
            Step::Write { place, bytes } => rig.write(place.address(), bytes),
            Step::Jump { ring, index } => {
                let at = if *ring { rig.transmit.available() } else { rig.receive.available() };
                rig.write(at + 2, &index.to_le_bytes());
            }
            Step::Offer(len) => {
                rig.offer(u32::from(*len));
            }
            Step::Send(frame) => {
                rig.send(&[0; NET_HEADER], frame);
            }
            Step::Forward => {
                let (tx, rx) = (rig.tx(), rig.rx());
                let Some(mut ring) = tx.enter() else { continue };
                let burst = ring.take(&mut store);
                for (i, frame) in burst.frames().iter().enumerate() {
                    assert!(frame.len <= vhost_backend::MAX_FRAME);
                    assert_eq!(burst.copy_to(i, &mut linear), Some(frame.len as usize));
                }
                let Some(mut out) = rx.enter() else { continue };
                out.expect(burst.len());
                for i in 0..burst.len() {
                    let _ = out.put(&burst, i, &burst.frames()[i].net);
                }
            }
            Step::PutBytes(len) => {
                let rx = rig.rx();
                let Some(mut out) = rx.enter() else { continue };
                let (head, rest) = payload[..usize::from(*len)].split_at(usize::from(*len).min(54));
                let _ = out.put_bytes(&[0; NET_HEADER], head, rest);
            }
            Step::Arm => {
                if let Some(mut ring) = rig.tx().enter() {
                    ring.arm();
                }
            }
            Step::Remap => rig.remap(),
            Step::Restart(bits) => rig.start(features(*bits)),
        }
        for ring in 0..2 {
            let state = rig.state(ring);
            assert_eq!(state.running, state.fault.is_none());
        }
    }
});
