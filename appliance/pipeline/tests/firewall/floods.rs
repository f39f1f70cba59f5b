//! Frames for many: the sender's rules decide about each, every receiver's about its own copy.

use pipeline::policy::{Action, RuleConfig};
use pipeline::{DropReason, RuleId, admits};

use crate::frames::{v4, v6};
use crate::world::{APP, Host, IN, OUT, Sent, WEB, all_of, allow, called, open, policy, port, rule};

const ALL: [u8; 6] = [0xff; 6];

fn admitted(host: &Host, from: &str, to: &str, frame: &[u8]) -> Result<(), DropReason> {
    admits(&host.snapshot, host.index(from), host.index(to), &Sent::new(frame).frame())
}

#[test]
fn a_broadcast_needs_its_senders_leave() {
    let discovery =
        RuleConfig { direction: OUT, ..allow(1, WEB, pipeline::policy::Peer::Any, port(17, 9999)) };
    let mut host = Host::new(vec![policy("p", vec![discovery])]);
    for frame in [
        v4("web", "app").to("255.255.255.255").to_mac(ALL).udp(1, 9999, b""),
        v4("web", "app").to("10.0.1.255").to_mac(ALL).udp(1, 9999, b""),
        v4("web", "app").to("224.0.0.251").to_mac([1, 0, 0x5e, 0, 0, 0xfb]).udp(1, 9999, b""),
        v6("web", "app").to("ff02::fb").to_mac([0x33, 0x33, 0, 0, 0, 0xfb]).udp(1, 9999, b""),
    ] {
        assert_eq!(host.send("web", &frame), "flood");
        assert_eq!(host.happened(), Vec::<String>::new(), "no flow is made of it");
        assert!(host.trace("web", &frame).passes());
    }
    let frame = v4("web", "app").to("255.255.255.255").to_mac(ALL).udp(1, 9998, b"");
    assert_eq!(host.send("web", &frame), "drop default-deny");
    assert_eq!(host.last_drop().direction, OUT);
    assert!(!host.trace("web", &frame).passes());
    let frame = v4("app", "web").to("255.255.255.255").to_mac(ALL).udp(1, 9999, b"");
    assert_eq!(host.send("app", &frame), "drop default-deny");
    let frame = v4("free", "web").to("255.255.255.255").to_mac(ALL).udp(1, 9998, b"");
    assert_eq!(host.send("free", &frame), "flood", "excluded");
}

#[test]
fn every_receiver_decides_for_itself() {
    let out = RuleConfig { direction: OUT, ..rule(1, Action::Allow) };
    let into = RuleConfig { direction: IN, ..allow(2, WEB, APP, all_of(17)) };
    let mut host = Host::new(vec![policy("p", vec![out, into])]);
    let frame = v4("web", "app").to("255.255.255.255").to_mac(ALL).udp(1, 9999, b"");
    assert_eq!(host.send("web", &frame), "flood");
    assert_eq!(admitted(&host, "web", "app", &frame), Ok(()));
    assert_eq!(admitted(&host, "web", "free", &frame), Ok(()), "excluded");
    for other in ["db", "nobody"] {
        assert_eq!(admitted(&host, "web", other, &frame), Err(DropReason::DefaultDeny), "{other}");
    }
    let from_db = v4("db", "app").to("255.255.255.255").to_mac(ALL).udp(1, 9999, b"");
    assert_eq!(admitted(&host, "db", "app", &from_db), Err(DropReason::DefaultDeny));
    // And an excluded sender's is judged where it arrives.
    let from_free = v4("free", "app").to("255.255.255.255").to_mac(ALL).udp(1, 9999, b"");
    assert_eq!(admitted(&host, "free", "app", &from_free), Err(DropReason::DefaultDeny));
    assert_eq!(admitted(&host, "free", "idle", &from_free), Ok(()));
}

#[test]
fn a_rejection_of_what_was_for_many_is_silent() {
    let mut host = Host::new(vec![policy("p", vec![rule(1, Action::Reject)])]);
    let frame = v4("web", "app").to("255.255.255.255").to_mac(ALL).udp(1, 9999, b"");
    assert_eq!(host.send("web", &frame), "drop policy-reject");
    assert_eq!(host.last_drop().rule, Some(RuleId(1)));
    assert_eq!(admitted(&host, "web", "app", &frame), Err(DropReason::PolicyReject));
}

#[test]
fn announcements_are_the_guards_and_no_rules() {
    // An ARP announcement of the own address, of all its fields.
    let mac = called("web").mac();
    let arp =
        [&ALL[..], &mac, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &mac, &[10, 0, 1, 11], &[0; 6], &[10, 0, 1, 11]];
    let frame = arp.concat();
    let mut host = Host::new(vec![]);
    assert_eq!(host.send("web", &frame), "flood");
    assert_eq!(admitted(&host, "web", "app", &frame), Ok(()));
    let mut host = Host::new(open());
    assert_eq!(host.send("web", &frame), "flood");
}
