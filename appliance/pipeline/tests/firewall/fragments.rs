//! Fragments share the fate of their packet's first, in whatever order they come. The frames are scapy's.

use crate::world::{GUESTS, Guest, Host, called, open, three_tiers};

const OVERLAP: &str = "drop fragment-overlap";

/// The fragments of a packet of `golden/fragments.tsv`, which `golden/fragments.py` prints.
pub(crate) fn pieces(name: &str) -> Vec<Vec<u8>> {
    let line = include_str!("golden/fragments.tsv")
        .lines()
        .find(|line| line.split('\t').next() == Some(name))
        .expect("a packet");
    line.split('\t').skip(1).map(bytes).collect()
}

/// Hexadecimal, and perhaps `(78*COUNT)` at its end.
fn bytes(text: &str) -> Vec<u8> {
    let (hex, rest) = text.split_once("(78*").unwrap_or((text, "0)"));
    let digits = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("two digits");
    let mut bytes: Vec<u8> = (0..hex.len()).step_by(2).map(digits).collect();
    bytes.resize(bytes.len() + rest.trim_end_matches(')').parse::<usize>().expect("a count"), 0x78);
    bytes
}

const ALLOWED: [&str; 4] = ["udp", "udp, ipv6", "ping", "ping, ipv6"];
const FORBIDDEN: [&str; 2] = ["udp to a port that is not allowed", "udp to a port that is not allowed, ipv6"];

#[test]
fn fragments_in_order_go_where_their_first_goes() {
    for name in ALLOWED {
        let mut host = Host::new(three_tiers());
        let pieces = pieces(name);
        assert!(pieces.len() >= 3);
        assert_eq!(host.send_all("web", &pieces), vec!["app"; pieces.len()], "{name}, in one burst");
        assert_eq!(host.released("web"), []);
        assert_eq!(host.record().packets, [1, 0], "the others have no ports: the first counts");
        // And one by one.
        let mut host = Host::new(three_tiers());
        for piece in &pieces {
            assert_eq!(host.send("web", piece), "app", "{name}");
        }
    }
    for name in FORBIDDEN {
        let mut host = Host::new(three_tiers());
        let pieces = pieces(name);
        assert_eq!(host.send_all("web", &pieces), vec!["drop default-deny"; pieces.len()], "{name}");
        let mut host = Host::new(three_tiers());
        for piece in &pieces {
            assert_eq!(host.send("web", piece), "drop default-deny", "{name}");
        }
        assert!(host.flows.is_empty());
    }
}

#[test]
fn fragments_in_reverse_are_judged_when_their_first_comes() {
    for (names, shown) in [(&ALLOWED[..], "app"), (&FORBIDDEN[..], "drop default-deny")] {
        for name in names {
            let mut pieces = pieces(name);
            pieces.reverse();
            let mut host = Host::new(three_tiers());
            assert_eq!(host.send_all("web", &pieces), vec![shown; pieces.len()], "{name}, in one burst");
            assert_eq!(host.released("web"), [], "none left the burst");
            // Across bursts they wait in slots.
            let mut host = Host::new(three_tiers());
            let (first, later) = pieces.split_last().expect("some");
            for (slot, piece) in later.iter().enumerate() {
                assert_eq!(host.send("web", piece), format!("hold {slot}"), "{name}");
                assert_eq!(host.released("web"), []);
            }
            assert_eq!(host.send("web", first), shown, "{name}");
            let released: Vec<_> = (0..later.len()).map(|slot| (slot as u8, shown.to_string())).collect();
            assert_eq!(host.released("web"), released, "{name}, in the order of arrival");
        }
    }
}

#[test]
fn packets_that_come_mixed_are_told_apart() {
    let mut host = Host::new(three_tiers());
    let [good, bad, also] = ["udp", FORBIDDEN[0], "udp again"].map(pieces);
    let frames: Vec<Vec<u8>> =
        [&good[2], &bad[1], &also[1], &bad[2], &bad[0], &good[1], &also[2], &good[0], &also[0]]
            .map(Clone::clone)
            .to_vec();
    let deny = "drop default-deny";
    assert_eq!(host.send_all("web", &frames), ["app", deny, "app", deny, deny, "app", "app", "app", "app"]);
    assert_eq!(host.released("web"), []);
}

#[test]
fn overlaps_end_their_packet_and_nothing_of_it_goes_on() {
    for (name, first) in [
        ("two firsts", "app"),
        ("two firsts, ipv6", "app"),
        ("a first and one that begins within it", "app"),
        ("a first and one that begins within it, ipv6", "app"),
        ("tcp overlap", "app"),
    ] {
        let pieces = pieces(name);
        let mut host = Host::new(three_tiers());
        let shown = host.send_all("web", &pieces);
        assert_eq!(shown[0], first, "{name}");
        let wanted = if name == "tcp overlap" { "drop malformed-transport" } else { OVERLAP };
        assert_eq!(shown[1], wanted, "{name}");
        if wanted == OVERLAP {
            assert_eq!(host.send("web", &pieces[1]), OVERLAP, "{name}: nor again");
        }
    }
    // The other way round, the one that is allowed is the intruder.
    let mut pieces = pieces("two firsts");
    pieces.reverse();
    assert_eq!(Host::new(three_tiers()).send_all("web", &pieces), ["drop default-deny", OVERLAP]);
}

/// A fragment that waited in a packet which an overlap ended shares no other packet's fate: its slot is not given again
/// while its frame may lie in it.
#[test]
fn a_slot_that_is_released_in_a_burst_is_not_given_again_in_it() {
    let mut host = Host::new(three_tiers());
    let [bad, good] = [FORBIDDEN[0], "udp"].map(pieces);
    let frames: Vec<Vec<u8>> = [&bad[1], &bad[1], &good[1], &good[0]].map(Clone::clone).to_vec();
    assert_eq!(host.send_all("web", &frames), [OVERLAP, OVERLAP, "app", "app"]);
    assert_eq!(host.released("web"), []);
    // Of an earlier burst, not before it was freed.
    let (again, ping) = (pieces("udp again"), pieces("ping"));
    assert_eq!(host.send("web", &again[2]), "hold 0");
    assert_eq!(host.send_all("web", &[again[2].clone(), ping[1].clone()]), [OVERLAP, "hold 1"]);
    assert_eq!(host.released("web"), [(0, OVERLAP.to_string())]);
    assert_eq!(host.send("web", &ping[2]), "hold 0");
}

#[test]
fn fragments_too_small_to_be_judged_are_dropped() {
    let pieces = pieces("tiny");
    let mut host = Host::new(open());
    for piece in &pieces {
        assert_eq!(host.send("web", piece), "drop malformed-transport");
    }
    assert!(host.flows.is_empty());
}

#[test]
fn a_whole_packet_with_a_fragments_header_is_a_packet() {
    let mut host = Host::new(three_tiers());
    let atomic = pieces("atomic").remove(0);
    for _ in 0..3 {
        assert_eq!(host.send("web", &atomic), "app");
    }
    assert_eq!(host.record().packets, [3, 0]);
    assert_eq!(Host::new(vec![]).send("web", &atomic), "drop default-deny");
}

#[test]
fn a_first_that_does_not_come_in_time_is_a_timeout() {
    let mut host = Host::new(three_tiers());
    let (slow, other) = (pieces("udp"), pieces("udp again"));
    assert_eq!(host.send("web", &slow[1]), "hold 0");
    host.wait(30_001);
    assert_eq!(host.send("web", &other[0]), "app");
    assert_eq!(host.released("web"), [(0, "drop fragment-timeout".to_string())]);
    assert_eq!(host.send("web", &slow[0]), "app", "a packet of its own");
    assert_eq!(host.send("web", &slow[1]), "app");
}

#[test]
fn more_than_can_wait_is_dropped() {
    let mut host = Host::new(three_tiers());
    let mut piece = pieces("udp")[1].clone();
    for id in 0..64u16 {
        piece[18..20].copy_from_slice(&(1000 + id).to_be_bytes());
        assert_eq!(host.send("web", &piece), format!("hold {id}"));
    }
    piece[18..20].copy_from_slice(&[0xff, 0xff]);
    assert_eq!(host.send("web", &piece), "drop fragment-limit");
    // Another port has its own.
    let mut other = piece.clone();
    other[..12].copy_from_slice(&[called("db").mac(), called("app").mac()].concat());
    other[26..34].copy_from_slice(&[10, 0, 1, 12, 10, 0, 1, 13]);
    assert_eq!(host.send("app", &other), "hold 0");
}

#[test]
fn a_fragment_to_another_mac_does_not_follow() {
    for name in ["udp", "udp, ipv6"] {
        let mut host = Host::new(three_tiers());
        let mut pieces = pieces(name);
        let db = called("db").mac();
        pieces[1][..6].copy_from_slice(&db);
        assert_eq!(host.send("web", &pieces[0]), "app");
        assert_eq!(host.send("web", &pieces[1]), "drop destination-mismatch", "{name}");
        // Nor does it wait.
        let mut host = Host::new(three_tiers());
        assert_eq!(host.send("web", &pieces[1]), "drop destination-mismatch", "{name}");
        pieces[1][..6].copy_from_slice(&[2, 0, 0, 0, 0, 99]);
        assert_eq!(host.send("web", &pieces[1]), "drop unknown-destination");
        // To an address that nobody has the MAC decides, and the first's holds for all.
        if name == "udp" {
            let mut host = Host::new(open());
            for piece in &mut pieces {
                piece[30..34].copy_from_slice(&[198, 51, 100, 9]);
            }
            pieces[1][..6].copy_from_slice(&db);
            assert_eq!(host.send("web", &pieces[0]), "app");
            assert_eq!(host.send("web", &pieces[1]), "drop destination-mismatch");
            assert_eq!(host.send("web", &pieces[2]), "app");
        }
    }
}

#[test]
fn a_fragment_above_the_mtu_does_not_wait() {
    let mut host = Host::new(three_tiers());
    let mut piece = pieces("udp")[1].clone();
    piece.resize(1515, 0);
    piece[16..18].copy_from_slice(&1501u16.to_be_bytes());
    // Its length is no multiple of 8, so it says that none follows.
    piece[20] &= !0x20;
    assert_eq!(host.send("web", &piece), "drop over-mtu");
}

#[test]
fn fragments_follow_over_a_change_of_the_snapshot() {
    let mut host = Host::new(three_tiers());
    let pieces = pieces("udp");
    assert_eq!(host.send("web", &pieces[2]), "hold 0");
    // All numbers shift.
    let mut guests = GUESTS.to_vec();
    guests.rotate_left(4);
    host.go_over_to(crate::world::Config { revision: 2, guests: guests.clone(), policies: three_tiers() });
    assert_eq!(host.send("web", &pieces[0]), "app");
    assert_eq!(host.released("web"), [(0, "app".to_string())]);
    guests.rotate_left(3);
    host.go_over_to(crate::world::Config { revision: 3, guests: guests.clone(), policies: three_tiers() });
    assert_eq!(host.send("web", &pieces[1]), "app", "decided for the first");
    // The receiver is gone.
    let again = self::pieces("udp again");
    assert_eq!(host.send("web", &again[0]), "app");
    let here: Vec<Guest> = guests.into_iter().filter(|guest| guest.name != "app").collect();
    host.go_over_to(crate::world::Config { revision: 4, guests: here, policies: three_tiers() });
    assert_eq!(host.send("web", &again[1]), "drop unknown-destination");
}

#[test]
fn fragments_that_wait_under_rules_that_change_are_judged_by_the_new() {
    let mut host = Host::new(three_tiers());
    let pieces = pieces("udp");
    assert_eq!(host.send("web", &pieces[2]), "hold 0");
    host.change(vec![]);
    assert_eq!(host.send("web", &pieces[0]), "drop default-deny");
    assert_eq!(host.released("web"), [(0, "drop default-deny".to_string())]);
}

/// Only the first fragment of a segment tells of its numbers: what the others carried may be acknowledged.
#[test]
fn a_segment_in_fragments_can_be_acknowledged() {
    let (path, back) = (crate::frames::v4("web", "app"), crate::frames::v4("app", "web"));
    let mut host = Host::new(three_tiers());
    assert_eq!(host.send("web", &path.tcp((4000, 80), "S", (1000, 0), b"")), "app");
    assert_eq!(host.send("app", &back.tcp((80, 4000), "SA", (5000, 1001), b"")), "web");
    assert_eq!(host.send("web", &path.tcp((4000, 80), "A", (1001, 5001), b"")), "app");
    assert_eq!(host.send_all("web", &pieces("tcp data")), ["app", "app", "app"]);
    assert_eq!(host.send("app", &back.tcp((80, 4000), "A", (5001, 1001 + 3072), b"")), "web");
    // No more than was ever allowed: 8192 from there.
    assert_eq!(
        host.send("app", &back.tcp((80, 4000), "A", (5001, 1001 + 3072 + 8193), b"")),
        "drop tcp-out-of-window"
    );
    assert_eq!(host.send("web", &path.tcp((4000, 80), "A", (1001 + 3072, 5001), b"more")), "app");
}

#[test]
fn between_excluded_ports_fragments_are_not_looked_at() {
    let mut host = Host::new(vec![]);
    let mut piece = pieces("two firsts")[0].clone();
    piece[..12].copy_from_slice(&[called("idle").mac(), called("free").mac()].concat());
    piece[26..34].copy_from_slice(&[10, 0, 1, 15, 10, 0, 1, 16]);
    for _ in 0..3 {
        assert_eq!(host.send("free", &piece), "idle");
    }
}
