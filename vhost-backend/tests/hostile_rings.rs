//! What a guest can do to its rings, and what must come of it: the right fault on that ring, and nothing else.

use proptest::prelude::*;
use vhost_backend::rig::{self, Rig, feature};
use vhost_backend::{BURST, Burst, HEAD, NET_HEADER, PutError, RingFault, Store};

const NORMAL: u64 = feature::VERSION_1 | feature::MRG_RXBUF | feature::INDIRECT | feature::HOST_OFFLOADS;
const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;
const NET: [u8; NET_HEADER] = [0; NET_HEADER];

/// Takes one burst; every frame, linearised.
fn take(rig: &Rig, store: &mut Store) -> Option<Vec<Vec<u8>>> {
    let queue = rig.tx();
    let mut ring = queue.enter()?;
    let burst = ring.take(store);
    let mut buffer = vec![0; 70_000];
    let frames = (0..burst.len())
        .map(|i| {
            let len = burst.copy_to(i, &mut buffer).expect("a frame fits");
            assert_eq!(len, burst.frames()[i].len as usize);
            buffer[..len].to_vec()
        })
        .collect();
    Some(frames)
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + len) as u8).collect()
}

#[test]
fn frames_of_every_size_pass_from_one_guest_to_another_unchanged() {
    let mut from = Rig::new(256, NORMAL);
    let mut to = Rig::new(256, NORMAL);
    let mut store = Store::new();
    for len in (14..300).chain([1500, 1514, 2034, 2035, 2036, 2037, 4096, 9014, 65_000, 65_549]) {
        while to.offer(rig::BUFFER) {}
        let frame = pattern(len);
        let net = [1, 0, 3, 4, 5, 6, 7, 8, 9, 10, 0, 0];
        assert!(from.send(&net, &frame), "{len}");
        {
            let (tx, rx) = (from.tx(), to.rx());
            let mut ring = tx.enter().expect("running");
            let burst = ring.take(&mut store);
            assert_eq!(burst.len(), 1);
            assert_eq!(burst.frames()[0].head(), &frame[..len.min(HEAD)]);
            let mut out = rx.enter().expect("running");
            out.expect(1);
            out.put(&burst, 0, &burst.frames()[0].net).expect("room");
        }
        assert_eq!(from.reap(), 1);
        let received = to.receive();
        assert_eq!(received.len(), 1, "{len}");
        assert_eq!(received[0].0[..10], net[..10]);
        assert_eq!(received[0].1, frame, "{len}");
    }
}

#[test]
fn without_offloads_a_senders_header_means_nothing() {
    let mut from = Rig::new(64, feature::VERSION_1 | feature::MRG_RXBUF);
    for len in [60, 5000] {
        assert!(from.send(&[1; NET_HEADER], &pattern(len)));
        let tx = from.tx();
        let mut ring = tx.enter().expect("running");
        let mut store = Store::new();
        let burst = ring.take(&mut store);
        assert_eq!(burst.frames()[0].net, NET, "{len}");
    }
}

#[test]
fn a_frame_cut_to_its_head_ends_there() {
    let (mut from, mut to) = (Rig::new(64, NORMAL), Rig::new(64, NORMAL));
    assert!(to.offer(rig::BUFFER) && from.send(&NET, &pattern(1000)));
    {
        let (tx, rx) = (from.tx(), to.rx());
        let (mut ring, mut store) = (tx.enter().expect("running"), Store::new());
        let mut burst = ring.take(&mut store);
        let frame = &mut burst.frames_mut()[0];
        (frame.len, frame.head_len) = (42, 42);
        rx.enter().expect("running").put(&burst, 0, &NET).expect("room");
    }
    assert_eq!(to.receive()[0].1, pattern(1000)[..42]);
}

#[test]
fn bytes_from_elsewhere_reach_a_guest() {
    let mut to = Rig::new(64, NORMAL);
    while to.offer(rig::BUFFER) {}
    {
        let rx = to.rx();
        let mut out = rx.enter().expect("running");
        out.put_bytes(&NET, &pattern(54), &pattern(1000)).expect("room");
        out.put_bytes(&NET, &pattern(60), &[]).expect("room");
    }
    let received = to.receive();
    assert_eq!(received[0].1, [pattern(54), pattern(1000)].concat());
    assert_eq!(received[1].1, pattern(60));
    assert_eq!(to.interrupts(0), 1, "one interrupt for the whole burst");
}

#[test]
fn a_full_receiver_refuses_and_loses_nothing_it_took() {
    let mut to = Rig::new(8, NORMAL);
    for _ in 0..3 {
        to.offer(rig::BUFFER);
    }
    {
        let rx = to.rx();
        let mut out = rx.enter().expect("running");
        out.expect(5);
        assert_eq!(out.put_bytes(&NET, &pattern(100), &[]), Ok(()));
        assert_eq!(out.put_bytes(&NET, &pattern(20), &pattern(3000)), Ok(()));
        assert_eq!(out.put_bytes(&NET, &pattern(101), &[]), Err(PutError::Full));
    }
    let received = to.receive();
    assert_eq!(received.iter().map(|(_, frame)| frame.len()).collect::<Vec<_>>(), [100, 3020]);
    assert_eq!(u16::from_le_bytes([received[1].0[10], received[1].0[11]]), 2);
}

#[test]
fn without_mergeable_buffers_a_frame_must_fit_in_one() {
    let mut to = Rig::new(8, feature::VERSION_1);
    while to.offer(rig::BUFFER) {}
    {
        let rx = to.rx();
        let mut out = rx.enter().expect("running");
        assert_eq!(out.put_bytes(&NET, &pattern(20), &pattern(3000)), Err(PutError::TooLong));
        assert_eq!(out.put_bytes(&NET, &pattern(20), &pattern(1000)), Ok(()));
    }
    assert_eq!(to.receive().len(), 1);
}

#[test]
fn a_frame_that_no_number_of_buffers_can_hold_is_too_long_rather_than_full() {
    let mut to = Rig::new(4, NORMAL);
    while to.offer(100) {}
    let rx = to.rx();
    let mut out = rx.enter().expect("running");
    assert_eq!(out.put_bytes(&NET, &pattern(60), &pattern(1000)), Err(PutError::TooLong));
}

#[test]
fn indirect_tables_and_split_headers_are_understood() {
    let mut from = Rig::new(16, NORMAL);
    let frame = pattern(500);
    let data = rig::SCRATCH + 0x1000;
    from.write(data, &[&NET, frame.as_slice()].concat());
    // Header in two pieces, frame in three.
    let cuts = [0u64, 5, 12, 40, 300, 512];
    for i in 0..5u16 {
        let (at, end) = (cuts[usize::from(i)], cuts[usize::from(i) + 1]);
        from.descriptor(rig::SCRATCH, i, data + at, (end - at) as u32, if i < 4 { NEXT } else { 0 }, i + 1);
    }
    from.descriptor(from.transmit.descriptors(), 3, rig::SCRATCH, 5 * 16, INDIRECT, 0);
    from.make_available(1, 3);
    assert_eq!(take(&from, &mut Store::new()), Some(vec![frame]));
    assert_eq!(from.used(1), [(3, 0)]);
}

#[test]
fn a_buffer_that_spans_two_memory_regions_arrives_whole() {
    let mut from = Rig::new(16, NORMAL);
    let frame = pattern(900);
    let bytes = [&NET, frame.as_slice()].concat();
    let at = rig::SECOND - 400;
    from.write(at, &bytes[..400]);
    from.write(rig::SECOND, &bytes[400..]);
    from.descriptor(from.transmit.descriptors(), 0, at, bytes.len() as u32, 0, 0);
    from.make_available(1, 0);
    assert_eq!(take(&from, &mut Store::new()), Some(vec![frame]));
}

/// What the guest wrote as descriptors 0.. of its transmit ring, and which fault that is.
fn transmit_fault(descriptors: &[(u64, u32, u16, u16)], features: u64) -> Option<RingFault> {
    let mut rig = Rig::new(16, features);
    for (i, (gpa, len, flags, next)) in descriptors.iter().enumerate() {
        rig.descriptor(rig.transmit.descriptors(), i as u16, *gpa, *len, *flags, *next);
    }
    // A good frame first, which must still come through.
    let good = 15;
    rig.descriptor(rig.transmit.descriptors(), good, rig::SCRATCH + 0x8000, 12 + 60, 0, 0);
    rig.make_available(1, good);
    rig.make_available(1, 0);
    let frames = take(&rig, &mut Store::new()).expect("running before");
    assert_eq!(frames[0].len(), 60);
    let state = rig.state(1);
    if state.fault.is_some() {
        assert_eq!(frames.len(), 1);
        assert!(!state.running);
        assert_eq!(state.faults, 1);
        assert!(rig.tx().enter().is_none(), "a broken ring is left alone");
        assert_eq!(rig.used(1), [(good, 0)], "only what was good is given back");
    }
    state.fault
}

#[test]
fn each_way_to_break_a_transmit_ring_has_its_fault() {
    let data = rig::SCRATCH;
    let fault = |descriptors: &[_]| transmit_fault(descriptors, NORMAL);
    assert_eq!(fault(&[(data, 100, 0, 0)]), None);
    assert_eq!(fault(&[(data, 100, NEXT, 0)]), Some(RingFault::ChainTooLong));
    assert_eq!(fault(&[(data, 100, NEXT, 1), (data, 100, NEXT, 0)]), Some(RingFault::ChainTooLong));
    assert_eq!(fault(&[(data, 100, NEXT, 16)]), Some(RingFault::IndexOutOfRange));
    assert_eq!(fault(&[(0x1000, 100, 0, 0)]), Some(RingFault::AddressOutOfRange));
    assert_eq!(fault(&[(rig::SECOND + rig::SECOND_LEN - 50, 100, 0, 0)]), Some(RingFault::AddressOutOfRange));
    assert_eq!(fault(&[(u64::MAX - 10, 100, 0, 0)]), Some(RingFault::AddressOutOfRange));
    assert_eq!(fault(&[(data, 100, WRITE, 0)]), Some(RingFault::WrongDirection));
    assert_eq!(fault(&[(data, 0, 0, 0)]), Some(RingFault::EmptyDescriptor));
    assert_eq!(fault(&[(data, 50, NEXT, 1), (data, 0, 0, 0)]), Some(RingFault::EmptyDescriptor));
    assert_eq!(fault(&[(data, 11, 0, 0)]), Some(RingFault::ShortHeader));
    assert_eq!(fault(&[(data, 0x2_0000, 0, 0)]), Some(RingFault::FrameTooLong));
    assert_eq!(fault(&[(data, 8, INDIRECT, 0)]), Some(RingFault::BadIndirect));
    assert_eq!(fault(&[(data, 0, INDIRECT, 0)]), Some(RingFault::BadIndirect));
    assert_eq!(fault(&[(data + 1, 32, INDIRECT, 0)]), Some(RingFault::BadIndirect));
    assert_eq!(fault(&[(data, 32, INDIRECT | NEXT, 1)]), Some(RingFault::BadIndirect));
    assert_eq!(fault(&[(0x1000, 32, INDIRECT, 0)]), Some(RingFault::AddressOutOfRange));
    let without = transmit_fault(&[(data, 32, INDIRECT, 0)], feature::VERSION_1);
    assert_eq!(without, Some(RingFault::BadIndirect));
}

#[test]
fn an_indirect_table_that_loops_or_nests_is_a_fault() {
    let mut rig = Rig::new(16, NORMAL);
    let table = rig::SCRATCH;
    rig.descriptor(table, 0, rig::SCRATCH + 0x1000, 64, NEXT, 1);
    rig.descriptor(table, 1, rig::SCRATCH + 0x1000, 64, NEXT, 0);
    rig.descriptor(rig.transmit.descriptors(), 0, table, 32, INDIRECT, 0);
    rig.make_available(1, 0);
    assert_eq!(take(&rig, &mut Store::new()), Some(vec![]));
    assert_eq!(rig.state(1).fault, Some(RingFault::ChainTooLong));

    let mut rig = Rig::new(16, NORMAL);
    rig.descriptor(table, 0, table, 32, INDIRECT, 0);
    rig.descriptor(rig.transmit.descriptors(), 0, table, 32, INDIRECT, 0);
    rig.make_available(1, 0);
    assert_eq!(take(&rig, &mut Store::new()), Some(vec![]));
    assert_eq!(rig.state(1).fault, Some(RingFault::BadIndirect));
}

#[test]
fn an_index_that_jumps_stops_the_ring() {
    for (ring, size) in [(0, 64u16), (1, 64)] {
        let rig = Rig::new(size, NORMAL);
        let available = if ring == 0 { rig.receive.available() } else { rig.transmit.available() };
        rig.write(available + 2, &(size + 1).to_le_bytes());
        if ring == 1 {
            assert_eq!(take(&rig, &mut Store::new()), Some(vec![]));
        } else {
            let rx = rig.rx();
            let mut out = rx.enter().expect("running");
            assert_eq!(
                out.put_bytes(&NET, &pattern(60), &[]),
                Err(PutError::Fault(RingFault::AvailableJump))
            );
            assert_eq!(
                out.put_bytes(&NET, &pattern(60), &[]),
                Err(PutError::Fault(RingFault::AvailableJump))
            );
        }
        assert_eq!(rig.state(ring).fault, Some(RingFault::AvailableJump));
        assert_eq!(rig.state(1 - ring).fault, None, "the other ring goes on");
    }
}

#[test]
fn a_broken_receive_ring_has_its_fault() {
    let put_len = |descriptor: (u64, u32, u16, u16), head: u16, frame: usize| {
        let mut rig = Rig::new(16, NORMAL);
        let (gpa, len, flags, next) = descriptor;
        rig.descriptor(rig.receive.descriptors(), 0, gpa, len, flags, next);
        rig.make_available(0, head);
        let rx = rig.rx();
        let mut out = rx.enter().expect("running");
        out.expect(1);
        out.put_bytes(&NET, &pattern(frame), &[])
    };
    let put = |descriptor, head| put_len(descriptor, head, 60);
    let data = rig::SCRATCH;
    assert_eq!(put((data, 100, WRITE, 0), 0), Ok(()));
    assert_eq!(put((data, 100, 0, 0), 0), Err(PutError::Fault(RingFault::WrongDirection)));
    assert_eq!(put((data, 100, WRITE, 0), 16), Err(PutError::Fault(RingFault::IndexOutOfRange)));
    assert_eq!(put((0x1000, 100, WRITE, 0), 0), Err(PutError::Fault(RingFault::AddressOutOfRange)));
    assert_eq!(put_len((data, 20, WRITE | NEXT, 0), 0, 1000), Err(PutError::Fault(RingFault::ChainTooLong)));
    assert_eq!(put((data, 0, WRITE, 0), 0), Err(PutError::Fault(RingFault::EmptyDescriptor)));
    assert_eq!(put((data, 8, WRITE, 0), 0), Err(PutError::Fault(RingFault::ShortHeader)));
}

#[test]
fn interrupts_are_sent_when_asked_for_and_only_then() {
    for event_idx in [false, true] {
        let features = if event_idx { NORMAL | feature::EVENT_IDX } else { NORMAL };
        let mut rig = Rig::new(16, features);
        let wish = |rig: &Rig, wanted: bool, used: u16| {
            let available = rig.transmit.available();
            if event_idx {
                let event = if wanted { used } else { used.wrapping_sub(2) };
                rig.write(available + 4 + 2 * 16, &event.to_le_bytes());
            } else {
                rig.write(available, &u16::from(!wanted).to_le_bytes());
            }
        };
        let mut store = Store::new();
        rig.interrupts(1);
        for (used, wanted) in (0..).zip([true, false, true, true, false]) {
            wish(&rig, wanted, used);
            rig.send(&NET, &pattern(60));
            take(&rig, &mut store);
            assert_eq!(rig.interrupts(1), u64::from(wanted), "event_idx {event_idx}");
        }
    }
}

#[test]
fn arming_asks_for_kicks_and_notices_what_came_meanwhile() {
    for event_idx in [false, true] {
        let features = if event_idx { NORMAL | feature::EVENT_IDX } else { NORMAL };
        let mut rig = Rig::new(16, features);
        let mut store = Store::new();
        rig.send(&NET, &pattern(60));
        take(&rig, &mut store);
        let used = rig.transmit.used();
        if !event_idx {
            assert_eq!(rig.read(used, 2), [1, 0], "awake: no kicks, please");
        }
        let tx = rig.tx();
        assert!(!tx.enter().expect("running").arm());
        if event_idx {
            assert_eq!(rig.read(used + 4 + 8 * 16, 2), [1, 0], "kick when the next one comes");
        } else {
            assert_eq!(rig.read(used, 2), [0, 0]);
        }
        rig.send(&NET, &pattern(60));
        assert!(tx.enter().expect("running").arm());
    }
}

#[test]
fn a_burst_is_at_most_64_frames_and_the_rest_waits() {
    let mut rig = Rig::new(256, NORMAL);
    for _ in 0..150 {
        assert!(rig.send(&NET, &pattern(60)));
    }
    let mut store = Store::new();
    let counts: Vec<_> = (0..4).map(|_| take(&rig, &mut store).map(|frames| frames.len())).collect();
    assert_eq!(counts, [Some(BURST), Some(BURST), Some(22), Some(0)]);
    assert_eq!(rig.reap(), 150);
}

#[test]
fn a_private_burst_holds_what_was_pushed() {
    let mut store = Store::new();
    let long = pattern(5000);
    let mut burst = Burst::private(&mut store);
    assert!(burst.push(&NET, &long));
    assert!(burst.push(&NET, &long[..60]));
    let mut out = vec![0; 6000];
    assert_eq!(burst.copy_to(0, &mut out), Some(5000));
    assert_eq!(out[..5000], long);
    assert_eq!(burst.copy_to(1, &mut out[..59]), None);
}

#[test]
fn memory_replaced_under_load_loses_nothing() {
    let mut rig = Rig::new(64, NORMAL);
    let mut store = Store::new();
    for round in 0..200 {
        assert!(rig.send(&NET, &pattern(60 + round)));
        rig.remap();
        assert_eq!(take(&rig, &mut store), Some(vec![pattern(60 + round)]));
        rig.remap();
        assert_eq!(rig.reap(), 1);
    }
}

fn arbitrary_descriptor() -> impl Strategy<Value = (u64, u32, u16, u16)> {
    let address = prop_oneof![
        4 => (0u64..0x8_0000).prop_map(|at| rig::BASE + at),
        1 => (0u64..0x2000).prop_map(|at| rig::SECOND - 0x1000 + at),
        1 => (0u64..0x2000).prop_map(|at| rig::SECOND + rig::SECOND_LEN - 0x1000 + at),
        1 => any::<u64>(),
    ];
    let len = prop_oneof![4 => 0u32..3000, 1 => any::<u32>()];
    (address, len, 0u16..8, 0u16..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Whatever the tables contain: no access outside guest memory (a crash), no endless loop, and every frame taken is
    /// given back exactly once, in order.
    #[test]
    fn any_ring_contents_are_survived(
        tables in proptest::collection::vec(arbitrary_descriptor(), 32),
        indirect in proptest::collection::vec(arbitrary_descriptor(), 16),
        heads in proptest::collection::vec(0u16..34, 1..32),
        jump in prop_oneof![9 => Just(0u16), 1 => any::<u16>()],
    ) {
        let mut rig = Rig::new(32, NORMAL);
        for (i, (gpa, len, flags, next)) in tables.iter().enumerate() {
            rig.descriptor(rig.transmit.descriptors(), i as u16, *gpa, *len, *flags, *next);
            rig.descriptor(rig.receive.descriptors(), i as u16, *gpa, *len, *flags ^ WRITE, *next);
        }
        for (i, (gpa, len, flags, next)) in indirect.iter().enumerate() {
            rig.descriptor(rig::SCRATCH, i as u16, *gpa, *len, *flags, *next);
        }
        for head in &heads {
            rig.make_available(1, *head);
            rig.make_available(0, *head);
        }
        if jump != 0 {
            rig.write(rig.transmit.available() + 2, &jump.to_le_bytes());
        }
        let mut store = Store::new();
        let mut taken = 0;
        for _ in 0..4 {
            let (tx, rx) = (rig.tx(), rig.rx());
            let Some(mut ring) = tx.enter() else { break };
            let burst = ring.take(&mut store);
            taken += burst.len();
            if let Some(mut out) = rx.enter() {
                out.expect(burst.len());
                for i in 0..burst.len() {
                    let _ = out.put(&burst, i, &NET);
                }
            }
        }
        // The used ring may itself have been overwritten through the receive buffers: only its index is ours to check when
        // nothing was received.
        let state = rig.state(1);
        prop_assert!(taken <= 32 * 4);
        prop_assert_eq!(state.running, state.fault.is_none());
    }
}
