//! Virtual reassembly against a slow model that keeps every byte, and what attackers and limits do to it.

use std::collections::BTreeSet;

use pipeline::fragments::{FragmentInfo, FragmentKey, FragmentLimits, FragmentVerdict, Fragments, Held};
use pipeline::{DropReason, Instant};
use proptest::prelude::*;

const LIMITS: FragmentLimits =
    FragmentLimits { packets: 3, pieces: 8, held: 4, timeout_nanos: 30_000_000_000 };

fn key(number: u16) -> FragmentKey {
    FragmentKey::v4(0x0a00_010b, 0x0a00_010c, 17, number)
}

fn seconds(seconds: u64) -> Instant {
    Instant::from_nanos(seconds * 1_000_000_000)
}

fn piece(offset: u16, len: u16, more: bool) -> FragmentInfo {
    FragmentInfo { key: key(1), offset, len, more }
}

/// The reason of a drop, and the slots that are freed with it.
fn dropped(verdict: FragmentVerdict) -> (DropReason, Vec<u8>) {
    match verdict {
        FragmentVerdict::Drop(reason, held) => (reason, held.collect()),
        other => panic!("{other:?}"),
    }
}

fn slots(held: Held) -> Vec<u8> {
    assert_eq!(held.len(), held.count());
    held.collect()
}

#[derive(Debug)]
struct Packet {
    key: FragmentKey,
    deadline: Instant,
    bytes: BTreeSet<u16>,
    pieces: u8,
    total: Option<u16>,
    first: bool,
    verdict: Option<u32>,
    refused: Option<DropReason>,
    held: Vec<u8>,
}

impl Packet {
    fn is_complete(&self) -> bool {
        self.total.is_some_and(|total| self.bytes.len() == usize::from(total))
    }

    /// Why the bytes from `start` to `end` cannot be taken.
    fn objection(&self, start: u16, end: u16, more: bool) -> Option<DropReason> {
        if self.pieces == LIMITS.pieces {
            return Some(DropReason::FragmentLimit);
        }
        let overlaps = (start..end).any(|byte| self.bytes.contains(&byte));
        let behind_the_end = self.total.is_some_and(|total| !more || end > total);
        let before_what_came = !more && self.bytes.iter().any(|byte| *byte >= end);
        (overlaps || behind_the_end || before_what_came).then_some(DropReason::FragmentOverlap)
    }
}

#[derive(Default)]
struct Model {
    packets: Vec<Packet>,
    /// Slots that nobody waits in any more, and that were not given back.
    released: Vec<u8>,
}

/// A verdict of the model, which does not care which slot it is.
#[derive(Debug, PartialEq)]
enum Wanted {
    Whole,
    First,
    Follow(u32),
    Hold,
    Drop(DropReason, Vec<u8>),
}

impl Model {
    fn position(&self, key: FragmentKey) -> Option<usize> {
        self.packets.iter().position(|packet| packet.key == key)
    }

    fn admit(&mut self, now: Instant, info: &FragmentInfo) -> Wanted {
        if info.offset == 0 && !info.more {
            return Wanted::Whole;
        }
        // Nobody waits for these, so nobody must be told.
        let over = |packet: &Packet| packet.deadline <= now && packet.held.is_empty();
        if self.packets.len() == usize::from(LIMITS.packets) || self.position(info.key).is_some() {
            self.packets.retain(|packet| !over(packet));
        }
        let held = self.released.len() + self.packets.iter().map(|packet| packet.held.len()).sum::<usize>();
        let number = match self.position(info.key) {
            Some(number) => number,
            None if self.packets.len() == usize::from(LIMITS.packets) => {
                return Wanted::Drop(DropReason::FragmentLimit, Vec::new());
            }
            None => {
                let deadline = Instant::from_nanos(now.as_nanos() + LIMITS.timeout_nanos);
                let (bytes, held) = (BTreeSet::new(), Vec::new());
                let (pieces, total, first, verdict, refused) = (0, None, false, None, None);
                let key = info.key;
                self.packets.push(Packet {
                    key,
                    deadline,
                    bytes,
                    pieces,
                    total,
                    first,
                    verdict,
                    refused,
                    held,
                });
                self.packets.len() - 1
            }
        };
        let packet = &mut self.packets[number];
        if let Some(reason) = packet.refused {
            return Wanted::Drop(reason, Vec::new());
        }
        let end = info.offset + info.len;
        let mut objection = packet.objection(info.offset, end, info.more);
        let waits = info.offset != 0 && packet.verdict.is_none();
        if waits && held == usize::from(LIMITS.held) {
            objection = objection.or(Some(DropReason::FragmentLimit));
        }
        if let Some(reason) = objection {
            packet.refused = Some(reason);
            return Wanted::Drop(reason, std::mem::take(&mut packet.held));
        }
        packet.pieces += 1;
        packet.bytes.extend(info.offset..end);
        packet.total = packet.total.or((!info.more).then_some(end));
        if info.offset == 0 {
            packet.first = true;
            return Wanted::First;
        }
        let Some(verdict) = packet.verdict else { return Wanted::Hold };
        if packet.is_complete() {
            self.packets.remove(number);
        }
        Wanted::Follow(verdict)
    }

    fn settle(&mut self, key: FragmentKey, verdict: u32) -> Vec<u8> {
        let Some(number) = self.position(key) else { return Vec::new() };
        let packet = &mut self.packets[number];
        if !packet.first || packet.verdict.is_some() || packet.refused.is_some() {
            return Vec::new();
        }
        packet.verdict = Some(verdict);
        let held = std::mem::take(&mut packet.held);
        if packet.is_complete() {
            self.packets.remove(number);
        }
        held
    }

    fn expire(&mut self, now: Instant) -> BTreeSet<u8> {
        let over = |packet: &Packet| packet.deadline <= now;
        let held = self
            .packets
            .iter()
            .filter(|packet| over(packet))
            .flat_map(|packet| packet.held.clone())
            .collect();
        self.packets.retain(|packet| !over(packet));
        held
    }
}

#[derive(Clone, Debug)]
enum Step {
    Admit(FragmentInfo),
    Settle(u16, u32),
    Wait(u64),
    Expire,
    /// All slots that were released are given back.
    Free,
}

fn steps() -> impl Strategy<Value = Step> {
    let info =
        (0..5_u16, 0..10_u16, 1..4_u16, proptest::bool::weighted(0.8)).prop_map(|(id, at, len, more)| {
            FragmentInfo { key: key(id), offset: at * 8, len: if more { len * 8 } else { len * 8 - 3 }, more }
        });
    prop_oneof![
        12 => info.prop_map(Step::Admit),
        2 => (0..5_u16, any::<u32>()).prop_map(|(id, verdict)| Step::Settle(id, verdict)),
        1 => (0..20_u64).prop_map(Step::Wait),
        1 => Just(Step::Expire),
        4 => Just(Step::Free),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn every_fragment_is_judged_as_by_one_who_keeps_every_byte(steps in proptest::collection::vec(steps(), 1..120)) {
        let (mut fragments, mut model) = (Fragments::new(LIMITS), Model::default());
        let mut now = Instant::default();
        for step in steps {
            match step {
                Step::Admit(info) => {
                    let wanted = model.admit(now, &info);
                    let got = match fragments.admit(now, &info) {
                        FragmentVerdict::Whole => Wanted::Whole,
                        FragmentVerdict::First => Wanted::First,
                        FragmentVerdict::Follow(verdict) => Wanted::Follow(verdict),
                        FragmentVerdict::Drop(reason, held) => {
                            model.released.extend(slots(held));
                            Wanted::Drop(reason, slots(held))
                        }
                        FragmentVerdict::Hold(slot) => {
                            prop_assert!(slot < LIMITS.held);
                            prop_assert!(model.packets.iter().all(|packet| !packet.held.contains(&slot)), "taken");
                            prop_assert!(!model.released.contains(&slot), "not given back");
                            if wanted == Wanted::Hold {
                                let number = model.position(info.key).unwrap();
                                model.packets[number].held.push(slot);
                            }
                            Wanted::Hold
                        }
                    };
                    prop_assert_eq!(got, wanted, "{:?}", info);
                }
                Step::Settle(id, verdict) => {
                    let held = slots(fragments.settle(&key(id), verdict));
                    model.released.extend(&held);
                    prop_assert_eq!(held, model.settle(key(id), verdict));
                }
                Step::Free => model.released.drain(..).for_each(|slot| fragments.free(slot)),
                Step::Wait(time) => now = Instant::from_nanos(now.as_nanos() + time * 1_000_000_000),
                Step::Expire => {
                    let held: BTreeSet<u8> = slots(fragments.expire(now)).into_iter().collect();
                    model.released.extend(&held);
                    prop_assert_eq!(held, model.expire(now));
                    prop_assert_eq!(fragments.len(), model.packets.len());
                }
            }
        }
    }

    /// The largest packet in pieces of Ethernet's size, in any order.
    #[test]
    fn an_honest_packet_in_any_order_follows_its_first_fragment(
        order in Just((0..45_u16).collect::<Vec<_>>()).prop_shuffle()
    ) {
        let mut fragments = Fragments::default();
        let (mut held, mut followed, mut settled) = (Vec::new(), 0, false);
        for number in order {
            let info = piece(number * 1480, if number == 44 { 400 } else { 1480 }, number != 44);
            match fragments.admit(seconds(1), &info) {
                FragmentVerdict::First => {
                    settled = true;
                    prop_assert_eq!(slots(fragments.settle(&info.key, 7)), std::mem::take(&mut held));
                }
                FragmentVerdict::Hold(slot) => held.push(slot),
                FragmentVerdict::Follow(7) => followed += 1,
                other => panic!("{other:?}"),
            }
            prop_assert!(settled || followed == 0);
        }
        prop_assert!(held.is_empty() && fragments.is_empty());
    }
}

/// A first fragment of 1480 bytes that is settled, and one behind it.
fn begun() -> Fragments {
    let mut fragments = Fragments::default();
    assert_eq!(fragments.admit(seconds(0), &piece(0, 1480, true)), FragmentVerdict::First);
    assert_eq!(slots(fragments.settle(&key(1), 5)), []);
    assert_eq!(fragments.admit(seconds(0), &piece(1480, 1480, true)), FragmentVerdict::Follow(5));
    fragments
}

#[test]
fn whatever_overlaps_ends_its_packet() {
    for (what, overlap) in [
        ("an exact duplicate", piece(1480, 1480, true)),
        ("another first", piece(0, 1480, true)),
        ("a shorter first", piece(0, 64, true)),
        ("one byte of the next", piece(2952, 16, true)),
        ("one that lies within", piece(1600, 8, true)),
        ("one around all", piece(8, 8000, true)),
        ("a last that ends before", piece(800, 8, false)),
        ("a last that ends within", piece(1488, 100, false)),
    ] {
        let mut fragments = begun();
        let overlapped = (DropReason::FragmentOverlap, Vec::new());
        assert_eq!(dropped(fragments.admit(seconds(1), &overlap)), overlapped, "{what}");
        assert_eq!(
            dropped(fragments.admit(seconds(2), &piece(2960, 100, false))),
            overlapped,
            "the rest: {what}"
        );
        assert_eq!(slots(fragments.expire(seconds(30))), []);
        assert!(fragments.is_empty());
    }
}

#[test]
fn a_packet_has_one_end_and_nothing_behind_it() {
    for behind in [piece(2968, 8, true), piece(2968, 100, false), piece(2960, 9, false)] {
        let mut fragments = Fragments::default();
        assert_eq!(fragments.admit(seconds(0), &piece(2960, 8, false)), FragmentVerdict::Hold(0));
        assert_eq!(dropped(fragments.admit(seconds(0), &behind)), (DropReason::FragmentOverlap, vec![0]));
    }
}

#[test]
fn what_waits_goes_with_its_packet() {
    let mut fragments = Fragments::default();
    for number in 1..4 {
        let held = fragments.admit(seconds(0), &piece(number * 8, 8, true));
        assert_eq!(held, FragmentVerdict::Hold(number as u8 - 1));
    }
    assert_eq!(
        dropped(fragments.admit(seconds(0), &piece(8, 8, true))),
        (DropReason::FragmentOverlap, vec![0, 1, 2])
    );
    // Whoever keeps the frames takes them out, and then gives the slots back.
    let other = FragmentInfo { key: key(2), ..piece(8, 8, true) };
    assert_eq!(fragments.admit(seconds(0), &other), FragmentVerdict::Hold(3));
    fragments.free(1);
    let other = FragmentInfo { key: key(3), ..other };
    assert_eq!(fragments.admit(seconds(0), &other), FragmentVerdict::Hold(1));
    // What never was a slot is nobody's.
    fragments.free(200);
    Fragments::default().free(0);
}

#[test]
fn a_first_that_does_not_come_is_a_timeout() {
    let mut fragments = Fragments::default();
    assert_eq!(fragments.admit(seconds(0), &piece(8, 8, true)), FragmentVerdict::Hold(0));
    assert_eq!(fragments.admit(seconds(29), &piece(16, 8, true)), FragmentVerdict::Hold(1));
    assert_eq!(slots(fragments.expire(seconds(29))), []);
    assert_eq!(slots(fragments.expire(seconds(30))), [0, 1], "counted from the first to arrive");
    assert!(fragments.is_empty());
    assert_eq!(slots(fragments.expire(seconds(60))), []);
}

#[test]
fn a_packet_that_goes_on_too_long_begins_anew() {
    let mut fragments = begun();
    assert_eq!(fragments.admit(seconds(29), &piece(2960, 8, true)), FragmentVerdict::Follow(5));
    assert_eq!(fragments.admit(seconds(30), &piece(2968, 8, true)), FragmentVerdict::Hold(0));
}

#[test]
fn fragments_wait_until_the_first_is_settled_and_follow_once_it_is() {
    let mut fragments = Fragments::default();
    assert_eq!(fragments.admit(seconds(0), &piece(16, 8, true)), FragmentVerdict::Hold(0));
    assert_eq!(slots(fragments.settle(&key(1), 5)), [], "there is nothing to tell yet");
    assert_eq!(fragments.admit(seconds(0), &piece(0, 8, true)), FragmentVerdict::First);
    assert_eq!(fragments.admit(seconds(0), &piece(8, 8, true)), FragmentVerdict::Hold(1));
    assert_eq!(slots(fragments.settle(&key(1), 5)), [0, 1], "in the order of arrival");
    assert_eq!(slots(fragments.settle(&key(1), 6)), []);
    assert_eq!(fragments.admit(seconds(0), &piece(24, 1, false)), FragmentVerdict::Follow(5));
    assert!(fragments.is_empty(), "complete");
}

#[test]
fn a_whole_packet_with_a_fragment_header_touches_no_other() {
    let mut fragments = begun();
    assert_eq!(fragments.admit(seconds(1), &piece(0, 100, false)), FragmentVerdict::Whole);
    assert_eq!(fragments.admit(seconds(1), &piece(2960, 8, false)), FragmentVerdict::Follow(5));
}

#[test]
fn limits_hold_and_name_themselves() {
    let limit = |held: &[u8]| (DropReason::FragmentLimit, held.to_vec());
    let packets = |id| FragmentInfo { key: key(id), ..piece(0, 8, true) };
    let mut fragments = Fragments::new(LIMITS);
    for id in 1..=3 {
        assert_eq!(fragments.admit(seconds(0), &packets(id)), FragmentVerdict::First);
    }
    assert_eq!(dropped(fragments.admit(seconds(0), &packets(4))), limit(&[]), "packets");
    assert_eq!(
        fragments.admit(seconds(30), &packets(4)),
        FragmentVerdict::First,
        "whose time is over makes room"
    );

    let mut fragments = Fragments::new(LIMITS);
    for number in 1..=4 {
        assert_eq!(
            fragments.admit(seconds(0), &piece(number * 8, 8, true)),
            FragmentVerdict::Hold(number as u8 - 1)
        );
    }
    assert_eq!(dropped(fragments.admit(seconds(0), &piece(80, 8, true))), limit(&[0, 1, 2, 3]), "slots");

    let mut fragments = Fragments::new(LIMITS);
    assert_eq!(fragments.admit(seconds(0), &packets(1)), FragmentVerdict::First);
    let _ = fragments.settle(&key(1), 3);
    for number in 1..8 {
        assert_eq!(fragments.admit(seconds(0), &piece(number * 8, 8, true)), FragmentVerdict::Follow(3));
    }
    assert_eq!(dropped(fragments.admit(seconds(0), &piece(64, 8, true))), limit(&[]), "pieces");
}

/// Between two pieces that do not touch another is missing: more than 32 of them never become whole within 64.
#[test]
fn a_packet_of_holes_is_refused() {
    let mut fragments = Fragments::default();
    assert_eq!(fragments.admit(seconds(0), &piece(0, 8, true)), FragmentVerdict::First);
    let _ = fragments.settle(&key(1), 3);
    for number in 1..32 {
        assert_eq!(fragments.admit(seconds(0), &piece(number * 16, 8, true)), FragmentVerdict::Follow(3));
    }
    let (reason, _) = dropped(fragments.admit(seconds(0), &piece(32 * 16, 8, true)));
    assert_eq!(reason, DropReason::FragmentLimit);
}

#[test]
fn packets_are_told_apart_by_all_that_their_fragments_share() {
    let mut fragments = Fragments::default();
    let keys = [
        FragmentKey::v4(1, 2, 17, 7),
        FragmentKey::v4(1, 2, 17, 8),
        FragmentKey::v4(1, 2, 6, 7),
        FragmentKey::v4(1, 3, 17, 7),
        FragmentKey::v4(3, 2, 17, 7),
        FragmentKey::v6(1, 2, 7),
        FragmentKey::v6(1, 2, 0x0001_0007),
    ];
    for key in keys {
        let first = FragmentInfo { key, ..piece(0, 8, true) };
        assert_eq!(fragments.admit(seconds(0), &first), FragmentVerdict::First);
    }
    assert_eq!(fragments.len(), keys.len());
}

#[test]
fn what_no_parser_lets_through_is_malformed() {
    let mut fragments = Fragments::default();
    let v6 = FragmentKey::v6(1, 2, 3);
    for (key, reason) in [(key(1), DropReason::MalformedIpv4), (v6, DropReason::MalformedIpv6)] {
        for info in [piece(65528, 8, true), piece(8, 0, true), piece(0, 0, false)] {
            assert_eq!(
                dropped(fragments.admit(seconds(0), &FragmentInfo { key, ..info })),
                (reason, Vec::new())
            );
        }
    }
    assert!(fragments.is_empty());
}

#[test]
fn limits_of_nothing_and_of_the_most_are_survived() {
    for limits in [
        FragmentLimits { packets: 0, pieces: 0, held: 0, timeout_nanos: 0 },
        FragmentLimits { packets: 1, pieces: 0, held: 0, timeout_nanos: u64::MAX },
        FragmentLimits { packets: 2, pieces: 255, held: 255, timeout_nanos: u64::MAX },
    ] {
        let mut fragments = Fragments::new(limits);
        for number in 0..200 {
            for info in [piece(number * 8, 8, true), piece(number * 24 + 8, 8, true)] {
                let _ = fragments.admit(seconds(1), &info);
                let _ = fragments.settle(&info.key, 1);
            }
        }
        let _ = fragments.expire(Instant::from_nanos(u64::MAX));
    }
}
