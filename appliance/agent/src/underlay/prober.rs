//! The thread that asks other hosts whether they are there, and what passes on the way.
//!
//! It sleeps until the next probe is due, and for ever while there is nobody to ask.

use std::hash::{BuildHasher, RandomState};
use std::sync::mpsc::Sender;
use std::time::Duration;

use rustix::io::Errno;
use wire::path_probe::{Kind, PathProbe};

use crate::control::Message;
use crate::plane::Plane;
use crate::underlay::path::Probe;
use crate::underlay::peer::Peer;
use crate::underlay::socket::Receiver;
use crate::underlay::{Underlay, answer};
use crate::{clock, control};

/// The shortest pause: hosts whose probes are due at nearly the same time are asked together.
const LEAST_PAUSE: u64 = 5_000_000;

/// Probes until the plane stops. Whatever becomes known is told to the control thread.
pub(crate) fn keep(plane: &Plane, control: &Sender<control::Message>) {
    let chance = RandomState::new();
    let mut asked = 0u64;
    while !plane.stopping() {
        let world = plane.world();
        let now = clock::now();
        let mut due = None::<u64>;
        let mut changed = false;
        for peer in &world.underlay.peers {
            let Some(receiver) = receiver_for(&world.underlay, peer) else { continue };
            loop {
                asked += 1;
                let next = peer.memory.path().tick(now, chance.hash_one(asked));
                let Some(probe) = next else { break };
                if let Some(size) = ask(receiver, peer, probe) {
                    peer.memory.path().refused(size, now);
                }
            }
            let mut path = peer.memory.path();
            changed |= path.take_change();
            let own = path.due();
            due = Some(due.map_or(own, |due| due.min(own)));
        }
        drop(world);
        if changed && control.send(Message::Paths).is_err() {
            return;
        }
        match due {
            Some(due) => {
                let pause = due.saturating_sub(clock::now()).max(LEAST_PAUSE);
                std::thread::park_timeout(Duration::from_nanos(pause));
            }
            None => std::thread::park(),
        }
    }
}

/// The socket that a host is asked from; `None` for one that is not asked.
fn receiver_for<'a>(underlay: &'a Underlay, peer: &Peer) -> Option<&'a Receiver> {
    let to = peer.destination.filter(|_| peer.probed)?;
    let sockets = underlay.sockets.as_ref()?.first()?;
    sockets.receivers().iter().find(|own| own.address.is_ipv4() == to.address.is_ipv4())
}

/// Sends a probe; its size when our own interface does not take it.
fn ask(receiver: &Receiver, peer: &Peer, probe: Probe) -> Option<u16> {
    let to = peer.destination.as_ref()?;
    let headers = peer.outer_headers();
    let size = probe.size.unwrap_or(headers + answer::LEN as u16);
    let request = PathProbe { kind: Kind::Request, size, nonce: probe.nonce };
    let len = usize::from(size.saturating_sub(headers));
    match answer::try_send(receiver, to, request, len) {
        Err(Errno::MSGSIZE) => Some(size),
        // Lost, as on the way.
        Ok(()) | Err(_) => None,
    }
}
