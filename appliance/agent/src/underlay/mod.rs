//! What leaves for other hosts and comes from them: GENEVE in UDP over the host's own network.
//!
//! `socket` opens each worker's sockets, `message` moves many datagrams by one system call. Outwards: `sender` puts frames
//! into datagrams, `runs` says which of them leave together. Inwards: `receiver` takes frames out and joins TCP segments.
//! `path` knows the way to each host, `prober` asks and `answer` answers. `home` is our own place in the underlay.

pub(crate) mod answer;
pub(crate) mod home;
pub(crate) mod message;
pub(crate) mod path;
pub(crate) mod peer;
pub(crate) mod prober;
pub(crate) mod receiver;
mod runs;
pub(crate) mod sender;
pub(crate) mod socket;

use std::net::IpAddr;
use std::sync::Arc;

use pipeline::{HostIndex, PortState, Snapshot};

use self::peer::Peer;
use self::socket::Sockets;
use crate::counters::Counters;
use crate::port::Memory;

/// The other hosts, and the way to them.
#[derive(Debug, Clone)]
pub(crate) struct Underlay {
    /// Each worker's sockets; `None` while we have no address of our own.
    pub(crate) sockets: Option<Arc<[Sockets]>>,
    /// By the snapshot's host indexes.
    pub(crate) peers: Box<[Arc<Peer>]>,
    /// What is remembered of what came from other hosts. The same in every world of an agent.
    pub(crate) memory: Arc<Memory>,
    /// Counts what came from nobody known, a block for each worker.
    pub(crate) strangers: Arc<[Counters]>,
}

impl Underlay {
    /// Nobody, and no way.
    pub(crate) fn none(workers: usize) -> Self {
        let memory = Memory { state: PortState::of_underlay(), ..Memory::default() };
        Self {
            sockets: None,
            peers: Box::default(),
            memory: Arc::new(memory),
            strangers: Counters::per_worker(workers),
        }
    }

    /// A host.
    #[inline]
    pub(crate) fn peer(&self, host: HostIndex) -> Option<&Peer> {
        self.peers.get(usize::from(host.0)).map(Arc::as_ref)
    }

    /// The host that has an address.
    pub(crate) fn peer_at(&self, snapshot: &Snapshot, address: IpAddr) -> Option<&Peer> {
        self.peer(snapshot.host_at(address)?)
    }
}
