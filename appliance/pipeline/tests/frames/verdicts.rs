//! What becomes of each golden frame: one test for each group of them.

use std::collections::BTreeSet;

use crate::world::{Golden, Host, PORTS, Sent, golden, port, send, world};
use pipeline::{DropReason, Instant, Stage, Verdict};
use wire::vnet::VnetHeader;

fn shown(verdict: Verdict) -> String {
    match verdict {
        Verdict::Deliver(port) => format!("deliver {}", PORTS[port.0 as usize]),
        Verdict::Flood => "flood".to_string(),
        Verdict::Reply => "reply".to_string(),
        Verdict::Refuse(reason) => format!("refuse {reason}"),
        Verdict::Hold(slot) => format!("hold {slot}"),
        Verdict::Drop(reason) => format!("drop {reason}"),
    }
}

fn check(case: &Golden) {
    let mut sent = Sent::new(case.net, &case.frame);
    let verdict = send(world(), case.sender, &mut sent);
    let what = format!("{}: {}", case.group, case.name);
    assert_eq!(shown(verdict), case.verdict, "{what}");
    match verdict {
        Verdict::Reply => {
            assert_eq!(sent.bytes(), case.answer, "{what}");
            // Only an echo keeps what its sender left open; other answers are complete.
            let kept = if case.group == "the_gateway_answers_ping" { case.net } else { [0; 12] };
            assert_eq!(sent.net, kept, "{what}");
        }
        Verdict::Drop(_) => {}
        _ => assert_eq!(sent.bytes(), case.frame, "{what}: the frame goes on as it came"),
    }
}

/// A test for each group, and a list of them all.
macro_rules! groups {
    ($($group:ident,)+) => {
        $(
            #[test]
            fn $group() {
                let mut cases = golden().iter().filter(|case| case.group == stringify!($group)).peekable();
                assert!(cases.peek().is_some());
                cases.for_each(check);
            }
        )+

        #[test]
        fn every_golden_frame_is_in_a_test() {
            let tested = BTreeSet::from([$(stringify!($group)),+]);
            let there: BTreeSet<&str> = golden().iter().map(|case| case.group).collect();
            assert_eq!(tested, there);
        }
    };
}

groups! {
    unicast_goes_to_the_port_that_has_the_mac,
    multicast_goes_to_everybody,
    frames_that_end_early_are_dropped,
    headers_beyond_the_head_are_dropped,
    tags_are_dropped,
    other_ethertypes_are_dropped,
    arp_that_is_not_ethernet_ipv4_is_dropped,
    ipv4_headers_that_lie_are_dropped,
    ipv6_headers_that_lie_are_dropped,
    extension_headers_made_to_confuse_are_dropped,
    source_routes_are_dropped,
    transport_headers_that_lie_are_dropped,
    other_source_macs_are_dropped,
    other_ipv4_sources_are_dropped,
    other_ipv6_sources_are_dropped,
    arp_for_others_is_dropped,
    neighbour_discovery_for_others_is_dropped,
    neighbour_discovery_that_hosts_must_discard_is_dropped,
    what_hides_in_what_is_dropped,
    dhcp_servers_are_dropped,
    routers_are_dropped,
    redirects_are_dropped,
    loopback_destinations_are_dropped,
    offloads_that_do_not_fit_are_dropped,
    offloads_that_fit_go_on,
    arp_is_answered_from_declared_state,
    neighbours_that_nobody_has_are_not_asked_for,
    probes_for_the_own_address_are_not_answered,
    solicitations_are_answered_from_declared_state,
    nobody_else_sees_requests_to_the_network,
    the_gateway_answers_ping,
    nothing_else_goes_through_the_gateway,
    what_nobody_has_goes_nowhere,
    frames_for_everybody_carry_packets_for_everybody,
    packets_above_the_mtu_are_dropped,
}

fn frame_of(name: &str) -> Vec<u8> {
    golden().iter().find(|case| case.name == name).unwrap().frame.clone()
}

#[test]
fn a_port_above_its_rate_limit_is_dropped() {
    let snapshot = world();
    let mut frame = frame_of("udp over ipv4");
    frame[11] = 4;
    frame[29] = 14;
    let mut host = Host::new();
    let mut burst = |nanos| {
        let mut sent = [const { None }; 3].map(|_: Option<()>| Sent::new([0; 12], &frame));
        let mut verdicts = [Verdict::Flood; 3];
        let mut frames: Vec<_> = sent.iter_mut().map(Sent::frame).collect();
        host.judge(snapshot, port("d"), Instant::from_nanos(nanos), &mut frames, &mut verdicts);
        verdicts.map(shown)
    };
    assert_eq!(burst(1), ["deliver b", "deliver b", "drop rate-limit"]);
    assert_eq!(burst(1_000_001), ["deliver b", "drop rate-limit", "drop rate-limit"]);
    assert_eq!(burst(1_000_000_000), ["deliver b", "deliver b", "drop rate-limit"]);
}

#[test]
fn a_spoofed_frame_uses_nothing_of_the_rate_limit() {
    let snapshot = world();
    let mut frame = frame_of("udp over ipv4");
    let mut host = Host::new();
    let mut one = |frame: &[u8]| {
        let mut sent = Sent::new([0; 12], frame);
        let mut verdicts = [Verdict::Flood];
        let now = Instant::from_nanos(1);
        host.judge(snapshot, port("d"), now, &mut [sent.frame()], &mut verdicts);
        shown(verdicts[0])
    };
    for _ in 0..10 {
        assert_eq!(one(&frame), "drop spoofed-mac");
    }
    frame[11] = 4;
    frame[29] = 14;
    assert_eq!(one(&frame), "deliver b");
}

#[test]
fn every_drop_reason_has_a_test() {
    let by_golden = golden().iter().filter_map(|case| case.verdict.strip_prefix("drop "));
    let mut tested: BTreeSet<&str> = by_golden.collect();
    // `a_port_above_its_rate_limit_is_dropped`.
    tested.insert(DropReason::RateLimit.name());
    // Flows and rules need more than one frame: `reasons.rs` beside the firewall's tests has some for each of these.
    let of_flows = |reason: &DropReason| {
        matches!(reason.stage(), Stage::Flow | Stage::Firewall) || *reason == DropReason::DestinationMismatch
    };
    // Other hosts and routers have tests of their own: `mesh`.
    let of_mesh = |reason: &DropReason| {
        use DropReason::{PathMtu, RemoteSpoofed, StaleDestination, TtlExceeded};
        reason.stage() == Stage::Decap
            || matches!(reason, RemoteSpoofed | StaleDestination | TtlExceeded | PathMtu)
    };
    // What happens after a verdict is the agent's to test.
    let ours = DropReason::ALL
        .iter()
        .filter(|reason| reason.stage() != Stage::Put && !of_flows(reason) && !of_mesh(reason));
    assert_eq!(tested, ours.map(|reason| reason.name()).collect());
}

#[test]
fn what_goes_on_keeps_of_its_offload_header_only_what_is_proven() {
    let net_of = |name: &str| {
        let cases = golden();
        let case = cases.iter().find(|case| case.name == name).unwrap();
        let mut sent = Sent::new(case.net, &case.frame);
        send(world(), case.sender, &mut sent);
        VnetHeader::from_bytes(&sent.net)
    };
    let none = VnetHeader::default();
    assert_eq!(net_of("a checksum the sender vouches for"), none);
    let open = VnetHeader { flags: 1, csum_start: 34, csum_offset: 6, ..none };
    assert_eq!(net_of("udp checksum"), open);
    let tso4 = VnetHeader {
        flags: 1,
        gso_type: 0x81,
        hdr_len: 54,
        gso_size: 500,
        csum_start: 34,
        csum_offset: 16,
        ..none
    };
    assert_eq!(net_of("segments of ipv4"), tso4, "the sender said a header length of 0");
    let tso6 = VnetHeader { gso_type: 4, hdr_len: 74, csum_start: 54, ..tso4 };
    assert_eq!(net_of("segments of ipv6"), tso6, "the sender said a header length of 9999");
}
