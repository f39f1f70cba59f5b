//! Tables are bounded, and nobody fills them for others.

use pipeline::Event;

use crate::frames::v4;
use crate::world::{Host, open, table};

fn syn(from: &str, to: &str, port: u16, number: u16) -> Vec<u8> {
    v4(from, to).tcp((port, number), "S", (1, 0), b"")
}

#[test]
fn a_port_at_its_limit_is_told_so_and_others_are_not_touched() {
    let mut host = Host::with(open(), table(8192, 100));
    let shown: Vec<String> = (1..=300).map(|port| host.send("web", &syn("web", "app", port, 80))).collect();
    assert_eq!(shown.iter().filter(|shown| *shown == "app").count(), 100);
    assert!(shown[..100].iter().all(|shown| shown == "app"));
    assert!(shown[100..].iter().all(|shown| shown == "drop state-limit"));
    let record = host.last_drop();
    assert_eq!((record.rule, record.direction), (None, None));
    assert_eq!(record.key.expect("a key").destination.1, 80);
    assert_eq!((host.begun_by("web"), host.flows.len()), (100, 100));
    // What it tracks goes on, and so do all others.
    assert_eq!(host.send("app", &v4("app", "web").tcp((80, 1), "SA", (1, 2), b"")), "web");
    assert_eq!(host.send("app", &syn("app", "db", 1, 80)), "db");
    assert_eq!(host.send("app", &syn("app", "web", 1, 80)), "web", "towards it, too: its asker counts");
}

#[test]
fn an_attempt_older_than_a_second_gives_way_to_another_of_its_port() {
    let mut host = Host::with(open(), table(8192, 1000));
    for port in 1..=1000 {
        assert_eq!(host.send("web", &syn("web", "app", port, 80)), "app");
    }
    host.take_events();
    host.wait(1000);
    assert_eq!(host.send("web", &syn("web", "app", 2000, 80)), "drop state-limit", "not yet older");
    host.wait(1);
    for port in 2001..=2500 {
        assert_eq!(host.send("web", &syn("web", "app", port, 80)), "app", "{port}");
        assert_eq!(host.begun_by("web"), 1000);
    }
    let events = host.take_events();
    let ended = events.iter().filter_map(|event| match event {
        Event::FlowEnded(record, why) => Some((record.state, why.name())),
        _ => None,
    });
    let ended: Vec<_> = ended.collect();
    assert_eq!(ended, vec![("syn-sent", "evicted"); 500]);
}

#[test]
fn what_both_sides_agreed_on_does_not_give_way() {
    let mut host = Host::with(open(), table(4096, 50));
    for port in 1001..=1050 {
        assert_eq!(host.send("web", &v4("web", "app").udp(port, 80, b"?")), "app");
        assert_eq!(host.send("app", &v4("app", "web").udp(80, port, b"!")), "web");
    }
    host.wait(60_000);
    for port in 2001..=2100 {
        assert_eq!(host.send("web", &v4("web", "app").udp(port, 80, b"?")), "drop state-limit");
    }
    assert_eq!(host.flows.len(), 50);
}

/// A flood of one port leaves the others' attempts where they are.
#[test]
fn a_flood_takes_no_place_of_another_port() {
    let mut host = Host::with(open(), table(8192, 1000));
    for port in 1..=200 {
        assert_eq!(host.send("db", &syn("db", "app", port, 80)), "app");
    }
    for second in 0..5u16 {
        for number in 0..3000 {
            host.send("web", &syn("web", "app", 1 + number, 100 + second));
        }
        host.wait(1100);
    }
    assert_eq!(host.begun_by("web"), 1000);
    assert_eq!(host.begun_by("db"), 200);
    for port in 1..=200 {
        assert_eq!(host.send("app", &v4("app", "db").tcp((80, port), "SA", (1, 2), b"")), "db");
    }
}

#[test]
fn a_full_table_evicts_the_oldest_attempt_and_no_connection() {
    let mut host = Host::with(open(), table(4096, 4096));
    let answered = |host: &mut Host, port| {
        assert_eq!(host.send("web", &v4("web", "app").udp(port, 80, b"?")), "app");
        assert_eq!(host.send("app", &v4("app", "web").udp(80, port, b"!")), "web");
    };
    for port in 1001..=2000 {
        answered(&mut host, port);
    }
    for port in 1..=3000 {
        host.send("db", &syn("db", "app", port, 80));
        host.wait(1);
    }
    host.take_events();
    let mut begun = 0;
    for port in 3001..=6000 {
        begun += usize::from(host.send("nobody", &syn("nobody", "app", port, 80)) == "app");
    }
    let evicted: Vec<_> = host
        .take_events()
        .into_iter()
        .filter_map(|event| match event {
            Event::FlowEnded(record, why) => Some((record, why.name())),
            _ => None,
        })
        .collect();
    // Entries are kept by shard: a few may find only connections in theirs.
    assert!(begun > 2900, "{begun}");
    assert!(
        evicted.len() > 2500
            && evicted.iter().all(|(record, why)| { (record.state, *why) == ("syn-sent", "evicted") })
    );
    // Within a shard the oldest goes first; over all, mostly.
    let old = evicted.iter().take(1000).filter(|(record, _)| record.key.source.1 <= 2000).count();
    assert!(old > 900, "{old}");
    for port in 1001..=2000 {
        assert_eq!(host.send("app", &v4("app", "web").udp(80, port, b"!")), "web", "a connection stays");
    }
    assert!(host.flows.len() <= 4096);
}

#[test]
fn a_port_that_is_no_more_leaves_nothing_behind() {
    let mut host = Host::with(open(), table(4096, 4096));
    for port in 1..=200 {
        host.send("web", &syn("web", "app", port, 80));
        host.send("app", &v4("app", "db").udp(1000 + port, 80, b"?"));
    }
    let slot = host.snapshot.port(host.index("web")).slot();
    let mut ended = 0;
    host.flows.forget(slot, host.now, |record, _| {
        assert_eq!(record.key.protocol, 6);
        ended += 1;
    });
    assert_eq!((ended, host.begun_by("web"), host.begun_by("app"), host.flows.len()), (200, 0, 200, 200));
    host.flows.forget(slot, host.now, |_, _| panic!("ended twice"));
    assert_eq!(host.records().len(), 200);
}

#[test]
fn counts_return_to_zero() {
    let mut host = Host::with(open(), table(4096, 4096));
    for port in 1..=500 {
        host.send("web", &syn("web", "app", port, 80));
        host.send("app", &v4("app", "db").udp(1000 + port, 80, b"?"));
        host.send("db", &v4("db", "app").udp(80, 1000 + port, b"!"));
    }
    host.change(vec![]);
    for port in 1..=100 {
        host.send("web", &syn("web", "app", port, 80));
        host.send("db", &v4("db", "app").udp(80, 1000 + port, b"!"));
    }
    assert_eq!((host.begun_by("web"), host.begun_by("app"), host.begun_by("db")), (400, 400, 0));
    host.wait(300_000);
    assert_eq!(host.expire().len(), 800);
    assert_eq!((host.begun_by("web"), host.begun_by("app"), host.flows.len()), (0, 0, 0));
    assert_eq!(host.records(), []);
}
