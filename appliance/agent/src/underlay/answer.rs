//! Control packets that came: probes are answered, answers are noted.
//!
//! Only known hosts get an answer, at their GENEVE port, and none that is longer than what it answers: nobody can have us
//! send more than he sent, or send it to somebody else.

use pipeline::{DropReason, Snapshot};
use rustix::net::{SendFlags, sendto};
use wire::geneve;
use wire::path_probe::{self, PathProbe};

use crate::underlay::Underlay;
use crate::underlay::receiver::Arrived;
use crate::underlay::sender::Destination;
use crate::underlay::socket::Receiver;

/// Bytes of a control packet without padding, behind its UDP header.
pub(crate) const LEN: usize = geneve::HEADER_LEN + path_probe::LEN;

/// Takes a control packet that came to `receiver`.
#[cold]
pub(crate) fn take(
    underlay: &Underlay,
    snapshot: &Snapshot,
    receiver: &Receiver,
    arrived: &Arrived<'_>,
    worker: usize,
    now: u64,
) {
    let Some(peer) = underlay.peer_at(snapshot, arrived.source.ip()) else {
        return underlay.strangers[worker].dropped(DropReason::UnknownPeer, 1);
    };
    let probe = match (geneve::Header::parse(arrived.tunnel), PathProbe::parse(arrived.frame)) {
        (Ok(_), Ok(probe)) => probe,
        _ => return peer.memory.counters[worker].dropped(DropReason::GeneveControl, 1),
    };
    match (probe.answer(), &peer.destination) {
        (Some(answer), Some(to)) if peer.probed => send(receiver, to, answer, LEN),
        (None, _) if peer.memory.path().answered(probe.nonce, now) => {}
        // What nobody asked, and what somebody else's tunnel endpoint has no business with.
        _ => peer.memory.counters[worker].dropped(DropReason::GeneveControl, 1),
    }
}

/// Sends a probe, padded to `len` bytes behind its UDP header. What does not leave is lost, as on the way.
pub(crate) fn send(receiver: &Receiver, to: &Destination, probe: PathProbe, len: usize) {
    let _ = try_send(receiver, to, probe, len);
}

/// The same, and what the kernel says.
pub(crate) fn try_send(
    receiver: &Receiver,
    to: &Destination,
    probe: PathProbe,
    len: usize,
) -> rustix::io::Result<()> {
    let mut room = [0; u16::MAX as usize];
    let header = geneve::Builder { control: true, ..geneve::Builder::default() };
    let at = header.write(&mut room);
    room[at..LEN].copy_from_slice(&probe.to_bytes());
    let packet = &room[..len.clamp(LEN, room.len())];
    sendto(receiver.fd(), packet, SendFlags::DONTWAIT, &to.address).map(|_| ())
}
