//! Two idealised ends talk through a network that loses, repeats and reorders, on both sides of who tracks them: what the
//! receiver would take in passes, what nobody has sent is refused, and the connection comes to its end.

use pipeline::DropReason;
use pipeline::conntrack::tcp::{Kind, Segment, Settings, State, Tcp};
use pipeline::conntrack::{Change, Side};
use proptest::prelude::*;

use crate::endpoints::{Chance, Endpoint, Phase};

/// How the two behave.
#[derive(Clone, Debug)]
struct Script {
    seed: u64,
    iss: [u32; 2],
    scales: [Option<u8>; 2],
    totals: [u64; 2],
    capacities: [u64; 2],
    /// In a hundred, each before and behind who tracks.
    loss: u64,
    /// In a hundred.
    doubled: u64,
    /// In a hundred: taken from anywhere in the queue.
    reordered: u64,
    both_ask: bool,
    aborts: bool,
}

fn scripts() -> impl Strategy<Value = Script> {
    let iss = prop_oneof![any::<u32>(), (u32::MAX - 100_000)..=u32::MAX];
    let capacity = prop_oneof![Just(536_u64), Just(5_000), Just(60_000), Just(400_000), Just(2_000_000)];
    let total = prop_oneof![0..10_u64, 0..5_000_u64, 0..300_000_u64];
    let pair = |strategy: BoxedStrategy<u64>| [strategy.clone(), strategy];
    (
        any::<u64>(),
        [iss.clone(), iss],
        proptest::array::uniform2(proptest::option::of(0..15_u8)),
        pair(total.boxed()),
        pair(capacity.boxed()),
        (0..25_u64, 0..15_u64, 0..50_u64),
        proptest::bool::weighted(0.3),
        proptest::bool::weighted(0.2),
    )
        .prop_map(
            |(seed, iss, scales, totals, capacities, (loss, doubled, reordered), both_ask, aborts)| Script {
                seed,
                iss,
                scales,
                totals,
                capacities,
                loss,
                doubled,
                reordered,
                both_ask,
                aborts,
            },
        )
}

/// A segment under way, and how many its sender had sent before it.
type Sent = (Segment, u64);

struct Network {
    script: Script,
    chance: Chance,
    ends: [Endpoint; 2],
    /// By sender: on the way to who tracks, and from there on.
    before: [Vec<Sent>; 2],
    behind: [Vec<Sent>; 2],
    /// By sender: copies that come much later.
    strayed: [Vec<Sent>; 2],
    sent: [u64; 2],
    /// By sender: one more than the latest that was seen.
    seen: [u64; 2],
    tracked: Option<Tcp>,
    /// Which end is the initiator.
    initiator: usize,
    calm: bool,
    refused: u64,
    forged: u64,
}

impl Network {
    fn new(script: Script) -> Self {
        let end = |n: usize| {
            // Nobody shifts so far that nothing is left of a window.
            let most = script.capacities[n].ilog2() as u8 - 6;
            let scale = script.scales[n].map(|scale| scale.min(most));
            Endpoint::new(script.iss[n], scale, script.totals[n], script.capacities[n])
        };
        let mut this = Self {
            chance: Chance(script.seed),
            ends: [end(0), end(1)],
            before: [const { Vec::new() }; 2],
            behind: [const { Vec::new() }; 2],
            strayed: [const { Vec::new() }; 2],
            sent: [0; 2],
            seen: [0; 2],
            tracked: None,
            initiator: 0,
            calm: false,
            refused: 0,
            forged: 0,
            script,
        };
        for n in 0..1 + usize::from(this.script.both_ask) {
            let syn = this.ends[n].open();
            this.send(n, syn);
        }
        this
    }

    fn send(&mut self, n: usize, segment: Segment) {
        self.before[n].push((segment, self.sent[n]));
        self.sent[n] += 1;
    }

    fn happens(&mut self, percent: u64) -> bool {
        !self.calm && self.chance.percent(percent)
    }

    /// The next of a queue, or one that overtakes it.
    fn next(&mut self, n: usize, queue: impl Fn(&mut Self) -> &mut Vec<Sent>) -> Option<Sent> {
        let len = queue(self).len() as u64;
        if len == 0 {
            return None;
        }
        let at = if self.happens(self.script.reordered) { self.chance.below(len) } else { 0 };
        let sent = queue(self).remove(at as usize);
        if self.happens(self.script.doubled) {
            let at = self.chance.below(len);
            queue(self).insert(at as usize, sent);
            self.strayed[n].push(sent);
        }
        Some(sent)
    }

    fn step(&mut self) -> Result<(), TestCaseError> {
        let n = self.chance.below(2) as usize;
        match self.chance.below(8) {
            0..3 => {
                if let Some(sent) = self.next(n, |this| &mut this.before[n]) {
                    let lost = self.happens(self.script.loss);
                    if !lost {
                        self.track(n, sent)?;
                    }
                }
            }
            3..6 => {
                if let Some((segment, _)) = self.next(n, |this| &mut this.behind[n])
                    && let Some(answer) = self.ends[1 - n].receive(&segment)
                {
                    self.send(1 - n, answer);
                }
            }
            _ => {
                // Nobody sends more while much is under way.
                if self.before[n].len() + self.behind[n].len() < 30
                    && let Some(segment) = self.ends[n].act(&mut self.chance)
                {
                    self.send(n, segment);
                }
                if self.happens(2) && !self.strayed[n].is_empty() {
                    let at = self.chance.below(self.strayed[n].len() as u64);
                    let late = self.strayed[n].swap_remove(at as usize);
                    self.before[n].push(late);
                }
                if self.script.aborts && self.ends[n].phase == Phase::Open && self.happens(1) {
                    let segment = self.ends[n].abort();
                    self.send(n, segment);
                }
            }
        }
        Ok(())
    }

    fn side(&self, n: usize) -> Side {
        if n == self.initiator { Side::Initiator } else { Side::Responder }
    }

    /// A segment comes to who tracks.
    fn track(&mut self, n: usize, sent: Sent) -> Result<(), TestCaseError> {
        let (segment, number) = sent;
        let fresh = number >= self.seen[n];
        let Some(mut tcp) = self.tracked else {
            // Whoever was not heard before asks.
            self.initiator = n;
            let tcp = Tcp::open(&segment, &Settings { pick_up: false });
            prop_assert!(tcp.is_ok(), "{:?} {:?}", tcp, segment);
            self.tracked = tcp.ok();
            self.pass(n, sent);
            return Ok(());
        };
        self.forge(tcp)?;
        let (side, was) = (self.side(n), tcp);
        let receiver = &self.ends[1 - n];
        // What answers a segment of long ago may be of no use to anybody.
        let resets = matches!(segment.kind, Kind::Rst | Kind::RstAck);
        let must = receiver.takes(&segment) || (fresh && !resets);
        match tcp.track(side, &segment) {
            // A SYN that was very late. It is not tried here what replacing the connection does to it.
            Ok(Change::Reopens) => {
                let over =
                    matches!(was.state(), State::TimeWait | State::ResetInitiator | State::ResetResponder);
                prop_assert!(segment.kind == Kind::Syn && (over || !must));
            }
            Ok(_) => {
                self.tracked = Some(tcp);
                self.pass(n, sent);
            }
            Err(reason) => {
                prop_assert!(!must, "{reason}: {segment:?} from {side:?} at {was:?} for {receiver:?}");
                prop_assert_eq!(tcp, was);
                self.refused += 1;
            }
        }
        Ok(())
    }

    fn pass(&mut self, n: usize, sent: Sent) {
        self.seen[n] = self.seen[n].max(sent.1 + 1);
        let lost = self.happens(self.script.loss);
        if !lost {
            self.behind[n].push(sent);
        }
    }

    /// Sends what nobody has sent: far from what there is, or acknowledging what there is not.
    fn forge(&mut self, tcp: Tcp) -> Result<(), TestCaseError> {
        use State::{Closing, Established, HalfClosedInitiator, HalfClosedResponder};
        if !matches!(tcp.state(), Established | HalfClosedInitiator | HalfClosedResponder | Closing) {
            return Ok(());
        }
        let side = if self.chance.percent(50) { Side::Initiator } else { Side::Responder };
        let (mine, theirs) = (tcp.windows()[side.index()], tcp.windows()[side.other().index()]);
        let kind = [Kind::Ack, Kind::Fin, Kind::Rst, Kind::RstAck][self.chance.below(4) as usize];
        let len = if matches!(kind, Kind::Ack | Kind::Fin) { self.chance.below(2000) as u32 } else { 0 };
        let window = self.chance.below(0x10000) as u16;
        let honest =
            Segment { kind, seq: mine.end, ack: theirs.end, window, len, scale: None, partial: false };
        let range = |chance: &mut Chance, from: u64, to: u64| (from + chance.below(to - from)) as u32;
        // The window is what one end lets the other send, and what it may still repeat.
        let room = (i64::from(mine.max_end.wrapping_sub(mine.end) as i32) + 3) as u64;
        let back = u64::from(theirs.max_win) + u64::from(len) + 4;
        let whole = 1_u64 << 32;
        let forged = match self.chance.below(3) {
            0 => {
                let seq = mine.end.wrapping_add(range(&mut self.chance, room, whole - back));
                Segment { seq, ..honest }
            }
            _ if matches!(kind, Kind::Rst | Kind::RstAck) => return Ok(()),
            1 => {
                let back = 2 * u64::from(mine.max_win) + 2;
                let ack = theirs.end.wrapping_add(range(&mut self.chance, 1, whole - back));
                Segment { ack, ..honest }
            }
            _ => Segment { ack: theirs.end.wrapping_add(1), ..honest },
        };
        let mut hit = tcp;
        let result = hit.track(side, &forged);
        prop_assert_eq!(result, Err(DropReason::TcpOutOfWindow), "{:?} from {:?} at {:?}", forged, side, tcp);
        prop_assert_eq!(hit, tcp);
        self.forged += 1;
        Ok(())
    }

    fn is_quiet(&self) -> bool {
        [&self.before, &self.behind].into_iter().flatten().all(Vec::is_empty)
    }
}

/// Runs a script to its end.
fn run(script: &Script) -> Result<Network, TestCaseError> {
    let mut network = Network::new(script.clone());
    for _ in 0..3000 {
        network.step()?;
    }
    // Then the network is calm, and what can be finished is.
    network.calm = true;
    for _ in 0..200_000 {
        let [one, other] = &network.ends;
        let over = |end: &Endpoint| end.phase == Phase::Dead || end.is_done();
        if over(one) && over(other) && network.is_quiet() {
            break;
        }
        network.step()?;
    }
    Ok(network)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn honest_ends_come_to_their_end_and_nobody_else_is_heard(script in scripts()) {
        let network = run(&script)?;
        let [one, other] = &network.ends;
        let state = network.tracked.map(|tcp| tcp.state());
        if one.phase == Phase::Open && other.phase == Phase::Open {
            prop_assert!(one.is_done() && other.is_done(), "{:?} {:?} {:?}", one, other, network.tracked);
            prop_assert_eq!(state, Some(State::TimeWait));
        } else {
            prop_assert!(script.aborts, "{:?} {:?}", one, other);
        }
    }
}

/// The property above would hold of a network in which nothing happens.
#[test]
fn much_is_refused_and_forged_where_much_happens() {
    let script = Script {
        seed: 7,
        iss: [u32::MAX - 2000, 99],
        scales: [Some(3), Some(9)],
        totals: [200_000, 100_000],
        capacities: [600, 60_000],
        loss: 10,
        doubled: 10,
        reordered: 50,
        both_ask: false,
        aborts: false,
    };
    let network = run(&script).unwrap();
    assert!(network.refused > 3 && network.forged > 300, "{} {}", network.refused, network.forged);
    assert_eq!(network.tracked.unwrap().state(), State::TimeWait);
}
