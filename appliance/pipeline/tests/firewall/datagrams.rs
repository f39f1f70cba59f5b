//! Flows of which only the directions are known: how long they last.

use pipeline::Ending;
use pipeline::conntrack::timeouts::{Class, Timeouts};

use crate::frames::{v4, v6};
use crate::world::{Host, open};

/// How a flow looks after some packets (`>` and `<`), and its class.
fn after(packets: &str, protocol: u8, v6_: bool) -> (Host, &'static str) {
    let path = if v6_ { v6("web", "app") } else { v4("web", "app") };
    let mut host = Host::new(open());
    for packet in packets.chars() {
        let (from, to, way, ports) = match packet {
            '>' => ("web", "app", path, (7, 9)),
            _ => ("app", "web", path.back(), (9, 7)),
        };
        let frame = match (protocol, packet) {
            (17, _) => way.udp(ports.0, ports.1, b"data"),
            (1, '>') => way.ping(3),
            (1, _) => way.pong(3),
            _ => way.packet(protocol, &[0; 20]),
        };
        assert_eq!(host.send(from, &frame), to);
    }
    let state = host.record().state;
    (host, state)
}

#[test]
fn each_state_lasts_as_long_as_its_class_says() {
    for v6_ in [false, true] {
        for (protocol, packets, state, class) in [
            (17, ">", "udp-unreplied", Class::UdpUnreplied),
            (17, ">>>", "udp-unreplied", Class::UdpUnreplied),
            (17, "><", "udp-replied", Class::UdpReplied),
            (17, "><<", "udp-replied", Class::UdpReplied),
            (17, "><>", "udp-stream", Class::UdpStream),
            (1, ">", "icmp-unreplied", Class::IcmpQuery),
            (1, "><", "icmp-replied", Class::IcmpQuery),
            (1, "><>", "icmp-replied", Class::IcmpQuery),
            (47, ">", "unreplied", Class::OtherUnreplied),
            (47, "><", "replied", Class::OtherReplied),
            (132, "><>", "replied", Class::OtherReplied),
        ] {
            let (mut host, got) = after(packets, protocol, v6_);
            assert_eq!(got, state, "{protocol} {packets}");
            let lasts = u64::from(Timeouts::default().of(class)) * 1000;
            host.wait(lasts);
            assert_eq!(host.expire(), [], "{state}: not earlier");
            assert_eq!(host.flows.len(), 1);
            // A tick of the wheel later at most, which is 1.024 s.
            host.wait(2048);
            let ended: Vec<_> = host.expire().iter().map(|(record, why)| (record.state, *why)).collect();
            assert_eq!(ended, [(state, Ending::TimedOut)], "{protocol} {packets}");
            assert_eq!((host.flows.len(), host.begun_by("web")), (0, 0));
        }
    }
}

#[test]
fn what_goes_on_does_not_end() {
    let (mut host, _) = after("><>", 17, false);
    for _ in 0..50 {
        host.wait(299_000);
        assert_eq!(host.expire(), []);
        assert_eq!(host.send("web", &v4("web", "app").udp(7, 9, b"data")), "app");
    }
    assert_eq!(host.record().packets, [52, 1]);
    // One side alone, too.
    let (mut host, _) = after(">", 17, false);
    for _ in 0..50 {
        host.wait(29_000);
        assert_eq!(host.expire(), []);
        assert_eq!(host.send("web", &v4("web", "app").udp(7, 9, b"data")), "app");
    }
}

#[test]
fn an_answer_that_comes_too_late_belongs_to_nothing() {
    let mut host = Host::new(crate::world::three_tiers());
    let path = v4("web", "app");
    assert_eq!(host.send("web", &path.udp(7, 53, b"?")), "app");
    host.wait(30_001);
    // Nobody has looked for silent flows meanwhile.
    assert_eq!(host.flows.len(), 1);
    assert_eq!(host.send("app", &path.back().udp(53, 7, b"!")), "drop default-deny");
    assert_eq!(host.happened(), ["started udp-unreplied", "ended timed-out udp-unreplied"]);
}

#[test]
fn timeouts_that_change_hold_from_then_on() {
    let (host, _) = after("><>", 17, false);
    let mut host = host;
    host.flows.configure(&Timeouts { udp_stream: 10, ..Timeouts::default() }, &Default::default());
    host.wait(10_001);
    assert_eq!(host.send("web", &v4("web", "app").udp(7, 9, b"data")), "app");
    assert_eq!(
        host.happened(),
        ["started udp-unreplied", "ended timed-out udp-stream", "started udp-unreplied"]
    );
}

/// The head of a list waits for long: those behind it, whose time is shorter, do not wait for it.
#[test]
fn no_flow_waits_for_one_that_may_last_longer() {
    let mut host = Host::new(open());
    let path = v4("web", "app");
    for port in 1001..=1500 {
        assert_eq!(host.send("web", &path.tcp((port, 80), "S", (1, 0), b"")), "app");
    }
    host.wait(1);
    for port in 1001..=1500 {
        assert_eq!(host.send("web", &path.udp(port, 53, b"?")), "app");
    }
    host.wait(30_001);
    let ended = host.expire();
    assert_eq!(ended.len(), 500);
    assert!(ended.iter().all(|(record, _)| record.state == "udp-unreplied"));
}
