//! An agent without traffic uses no CPU.

use std::time::Duration;

use crate::alone::alone;
use crate::bed::guest::{Guest, NET, feature};
use crate::bed::packet::udp;
use crate::bed::{Bed, eventually};
use mgmt_types::agent::Link;

#[test]
fn an_idle_agent_sleeps_and_wakes_on_a_kick() {
    alone(measure);
}

fn measure() {
    let mut bed = Bed::without_namespaces("idle");
    if let Some(with_namespace) = Bed::new("idle", 1) {
        bed = with_namespace;
    }
    bed.workers = 2;
    bed.start();
    let mut slice = bed.guests(1, &[1, 2, 3]);
    if bed.has_namespaces() {
        slice.ports[0] = bed.slice(1, &[1]).ports.remove(0);
    }
    bed.put(slice);
    let mut guests = [2, 3].map(|n| {
        let mut guest = Guest::boot(&bed.socket(n), 1, feature::PLAIN);
        eventually("the link is up", || bed.link(n) == Link::Up);
        bed.announcements(&mut guest);
        guest
    });
    let pause = Duration::from_millis(20);
    for round in 0..20 {
        // Long enough for the workers to fall asleep: what wakes them is the subject.
        std::thread::sleep(pause);
        guests[0].send(0, [0; NET], &udp(2, 3, 1000 + round, b"wake up"));
        eventually("the frame arrives", || guests[1].receive(0).len() == 1);
    }
    // A new device announces itself for about two seconds.
    std::thread::sleep(Duration::from_secs(3));
    let before = bed.worker_cpu_time();
    std::thread::sleep(Duration::from_secs(2));
    let used = bed.worker_cpu_time() - before;
    assert!(used <= Duration::from_millis(20), "workers used {used:?} in two seconds");
}

#[test]
fn the_housekeeper_sleeps_once_silent_connections_have_ended() {
    alone(|| {
        let mut bed = Bed::without_namespaces("naps");
        bed.start();
        let mut slice = bed.guests(1, &[1, 2]);
        slice.settings.timeouts.udp_unreplied = Some(1);
        bed.put(slice);
        let mut guest = Guest::boot(&bed.socket(1), 1, feature::PLAIN);
        eventually("the link is up", || bed.link(1) == Link::Up);
        for round in 0..20 {
            guest.send(0, [0; NET], &udp(1, 2, 1000 + round, b"a connection"));
        }
        eventually("they are tracked", || bed.port(1).flows == 20);
        eventually("they have ended", || bed.port(1).flows == 0);
        // Its last look is over.
        std::thread::sleep(Duration::from_millis(1500));
        let naps = bed.housekeeper_naps();
        assert!(naps > 0);
        std::thread::sleep(Duration::from_secs(2));
        assert_eq!(bed.housekeeper_naps(), naps, "it is up with nothing to do");

        guest.send(0, [0; NET], &udp(1, 2, 1000, b"another"));
        eventually("it is tracked", || bed.port(1).flows == 1);
        eventually("it has ended", || bed.port(1).flows == 0);
    });
}
