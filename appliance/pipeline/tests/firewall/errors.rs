//! ICMP errors belong to the flow of the packet that they quote.

use crate::frames::{Path, v4, v6};
use crate::world::{APP, Host, OUTSIDE, WEB, allow, icmp, open, policy, port, three_tiers};

const BOTH: [fn(&str, &str) -> Path; 2] = [v4, v6];
const UNRELATED: &str = "drop icmp-unrelated";

#[test]
fn an_error_about_a_flows_packet_reaches_its_sender() {
    for path in BOTH {
        let mut host = Host::new(three_tiers());
        let there = path("web", "app");
        let (udp, tcp, ping) =
            (there.udp(7, 53, b"question"), there.tcp((7, 80), "S", (1, 0), b""), there.ping(9));
        for frame in [&udp, &tcp, &ping] {
            assert_eq!(host.send("app", &there.back().unreachable(frame)), UNRELATED, "before its flow");
            assert_eq!(host.send("web", frame), "app");
            let before = host.records();
            assert_eq!(host.send("app", &there.back().unreachable(frame)), "web");
            assert_eq!(host.records(), before, "an error neither counts nor makes a flow");
        }
        // Of the responder's packets, to the responder.
        let answer = there.back().udp(53, 7, b"answer..");
        assert_eq!(host.send("app", &answer), "web");
        assert_eq!(host.send("web", &there.unreachable(&answer)), "app");
        assert_eq!(host.flows.len(), 3);
    }
}

#[test]
fn an_error_from_anybody_else_or_for_anybody_else_is_unrelated() {
    for path in BOTH {
        let mut host = Host::new(three_tiers());
        let there = path("web", "app");
        let asked = there.udp(7, 53, b"question");
        assert_eq!(host.send("web", &asked), "app");
        assert_eq!(host.send("db", &path("db", "web").unreachable(&asked)), UNRELATED, "a third");
        assert_eq!(
            host.send("free", &path("free", "web").unreachable(&asked)),
            UNRELATED,
            "an excluded third"
        );
        assert_eq!(host.send("app", &path("app", "db").unreachable(&asked)), UNRELATED, "to a third");
        assert_eq!(
            host.send("web", &path("web", "app").unreachable(&asked)),
            UNRELATED,
            "about its own packet"
        );
        let other = there.udp(8, 53, b"question");
        assert_eq!(host.send("app", &there.back().unreachable(&other)), UNRELATED, "a flow that is not");
        let backwards = there.back().udp(53, 8, b"answer..");
        assert_eq!(host.send("web", &there.unreachable(&backwards)), UNRELATED);
        assert_eq!(host.flows.len(), 1);
    }
}

#[test]
fn a_quote_that_cannot_be_read_is_unrelated() {
    for path in BOTH {
        let mut host = Host::new(open());
        let there = path("web", "app");
        let asked = there.udp(7, 53, b"question");
        assert_eq!(host.send("web", &asked), "app");
        let header = if there.from.is_ipv4() { 20 } else { 40 };
        for len in 0..header + 8 {
            let frame = there.back().unreachable(&asked[..14 + len]);
            assert_eq!(host.send("app", &frame), UNRELATED, "{len} bytes of a quote");
        }
        assert_eq!(host.send("app", &there.back().unreachable(&asked[..14 + header + 8])), "web");
        let nested = there.back().unreachable(&there.unreachable(&asked));
        assert_eq!(host.send("app", &nested), UNRELATED, "an error about an error");
    }
}

#[test]
fn errors_of_every_kind_are_alike() {
    let there = v4("web", "app");
    let asked = there.udp(7, 53, b"question");
    for kind in [3, 4, 11, 12] {
        let mut host = Host::new(open());
        let frame = there.back().icmp(kind, 4, [0, 0, 5, 0], &asked[14..]);
        assert_eq!(host.send("app", &frame), UNRELATED, "{kind}: though everything is allowed");
        assert_eq!(host.send("web", &asked), "app");
        assert_eq!(host.send("app", &frame), "web", "{kind}");
    }
    let there = v6("web", "app");
    let asked = there.udp(7, 53, b"question");
    for kind in [1, 2, 3, 4, 100, 127] {
        let mut host = Host::new(open());
        let frame = there.back().icmp(kind, 0, [0, 0, 5, 0], &asked[14..]);
        assert_eq!(host.send("app", &frame), UNRELATED, "{kind}: though everything is allowed");
        assert_eq!(host.send("web", &asked), "app");
        assert_eq!(host.send("app", &frame), "web", "{kind}");
    }
}

/// After a change errors say no more than the flow's next packet could.
#[test]
fn errors_about_a_flow_that_is_forbidden_since_do_not_pass() {
    for path in BOTH {
        let there = path("web", "app");
        let (udp, tcp, ping) =
            (there.udp(7, 53, b"question"), there.tcp((7, 80), "S", (1, 0), b""), there.ping(9));
        for frame in [&udp, &tcp, &ping] {
            let mut host = Host::new(three_tiers());
            assert_eq!(host.send("web", frame), "app");
            let error = there.back().unreachable(frame);
            host.change(three_tiers());
            assert_eq!(host.send("app", &error), "web", "allowed still");
            host.change(vec![]);
            assert_eq!(host.send("app", &error), UNRELATED);
            assert_eq!(host.flows.len(), 1, "its own packet ends it, not an error");
            assert_eq!(host.send("web", frame), "drop default-deny");
            assert_eq!(host.send("app", &error), UNRELATED);
            host.change(three_tiers());
            assert_eq!(host.send("app", &error), UNRELATED, "it has ended");
        }
    }
}

/// Sent through a guest that routes: only that guest can know what became of it.
#[test]
fn errors_about_what_went_through_a_router_come_from_it_alone() {
    let rules = vec![allow(1, WEB, OUTSIDE, port(17, 53)), allow(2, WEB, APP, icmp(1, 8))];
    let admit = pipeline::policy::RuleConfig {
        direction: crate::world::IN,
        to: vec![APP],
        services: vec![port(17, 53)],
        ..crate::world::rule(3, pipeline::policy::Action::Allow)
    };
    let mut host = Host::new(vec![policy("p", [rules, vec![admit]].concat())]);
    let there = v4("web", "app").to("198.51.100.9");
    let asked = there.udp(7, 53, b"question");
    assert_eq!(host.send("web", &asked), "app");
    assert_eq!(host.send("app", &v4("app", "web").unreachable(&asked)), "web");
    for other in ["db", "free", "nobody"] {
        assert_eq!(host.send(other, &v4(other, "web").unreachable(&asked)), UNRELATED, "{other}");
    }
}
