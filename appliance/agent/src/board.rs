//! The state of the agent for whoever asks.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use mgmt_types::agent::{Counters, HostStatus, Link, PeerStatus, PortStatus, SyncStatus, Underlay};
use pipeline::{DropReason, FlowTable, Instant, Port};
use vhost_backend::features;

use crate::compile::{AttachmentPlan, PortPlan};
use crate::counters::Sums;
use crate::directory::Clock;
use crate::plane::Plane;
use crate::port::{Attachment, LocalPort};
use crate::tally::Tally;
use crate::underlay::{self, peer::Peer};

/// Percent of the connections a port may have begun from which on that is a fault.
const ALARM: u64 = 80;

/// What the control thread last did, and the ports to read counters and links from.
#[derive(Debug)]
pub(crate) struct Board {
    host: String,
    state: Mutex<Notes>,
    /// Why there is no talk with the manager.
    silence: Mutex<Option<String>>,
    /// What became of what the manager sent.
    sync: Mutex<SyncStatus>,
    plane: Arc<Plane>,
    tally: Tally,
}

/// Written by the control thread.
#[derive(Debug, Clone, Default)]
pub(crate) struct Notes {
    /// The revision that workers forward by.
    pub(crate) revision: u64,
    /// Why a newer one is not in force, or what else an operator has to look at.
    pub(crate) error: Option<String>,
    /// Local ports by id.
    pub(crate) ports: Vec<Entry>,
    /// Where other hosts reach this one.
    pub(crate) underlay: Option<Underlay>,
}

/// One local port.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) plan: PortPlan,
    pub(crate) port: Arc<LocalPort>,
    /// Why it is not open.
    pub(crate) trouble: Option<String>,
}

impl Board {
    pub(crate) fn new(host: String, plane: Arc<Plane>) -> Self {
        Self {
            host,
            state: Mutex::default(),
            silence: Mutex::default(),
            sync: Mutex::default(),
            plane,
            tally: Tally::default(),
        }
    }

    pub(crate) fn write(&self, notes: Notes) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = notes;
    }

    /// Notes why there is no talk with the manager, or that there is.
    pub(crate) fn set_silence(&self, why: Option<String>) {
        *self.silence.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    /// Notes what became of what the manager sent.
    pub(crate) fn set_sync(&self, sync: SyncStatus) {
        *self.sync.lock().unwrap_or_else(PoisonError::into_inner) = sync;
    }

    /// The status now: links and counters are read as they are at this moment.
    pub(crate) fn status(&self) -> HostStatus {
        let notes = self.state.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let silence = self.silence.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let world = self.plane.world();
        let judged: HashMap<u32, &Port> =
            world.locals().map(|(index, port)| (port.id, world.snapshot.port(index))).collect();
        let port = |entry: &Entry| {
            let mut status = entry.status();
            if let Some(port) = judged.get(&entry.plan.id) {
                tell_flows(&mut status, port, &world.flows);
            }
            status
        };
        HostStatus {
            host: self.host.clone(),
            version: env!("CARGO_PKG_VERSION").to_string(),
            revision: notes.revision,
            error: notes.error.or(silence),
            sync: self.sync.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            ports: notes.ports.iter().map(port).collect(),
            rules: self.tally.rules(&world, &Clock::read()),
            underlay: notes.underlay,
            peers: self.peers(&world.underlay),
        }
    }
}

/// Who is told of what came from no known host.
const STRANGERS: &str = "?";

/// What is known of another host.
fn peer(peer: &Peer) -> PeerStatus {
    let sums = Sums::of(&peer.memory.counters);
    let report = peer.memory.path().report();
    let known = peer.probed && report.up.is_some();
    PeerStatus {
        host: peer.name.clone(),
        up: report.up.filter(|_| peer.probed),
        since: known.then(|| Clock::read().time(Instant::from_nanos(report.since))),
        address: peer.destination.map(|to| to.address.ip()),
        path_mtu: known.then_some(report.mtu),
        rtt_us: report.rtt.map(|rtt| u32::try_from(rtt / 1000).unwrap_or(u32::MAX)),
        tx: Counters { packets: sums.to.0, bytes: sums.to.1 },
        rx: Counters { packets: sums.from.0, bytes: sums.from.1 },
        drops: drops(&sums),
    }
}

/// Drops by name, those that there were.
fn drops(sums: &Sums) -> BTreeMap<String, u64> {
    let all = DropReason::ALL.iter().map(|reason| (reason.name().to_string(), sums.drops[reason.index()]));
    all.filter(|&(_, count)| count > 0).collect()
}

impl Board {
    /// The other hosts, and strangers, if some sent something.
    fn peers(&self, underlay: &underlay::Underlay) -> Vec<PeerStatus> {
        let others = underlay.peers.iter().filter(|other| other.name != self.host);
        let strangers = PeerStatus {
            host: STRANGERS.into(),
            drops: drops(&Sums::of(&underlay.strangers)),
            ..PeerStatus::default()
        };
        let strangers = Some(strangers).filter(|strangers| !strangers.drops.is_empty());
        others.map(|other| peer(other)).chain(strangers).collect()
    }
}

/// How many flows a port has begun, and whether that is getting too many.
fn tell_flows(status: &mut PortStatus, port: &Port, flows: &FlowTable) {
    let (count, limit) = (flows.of_port(port.slot()), flows.per_port());
    status.enforced = port.is_judged();
    (status.flows, status.flow_limit) = (count.into(), limit.into());
    if u64::from(count) * 100 >= u64::from(limit) * ALARM {
        let text = format!("{count} connections of at most {limit}: beyond, new ones end as state-limit");
        status.faults.push(text);
    }
}

impl Entry {
    fn status(&self) -> PortStatus {
        let sums = Sums::of(&self.port.counters);
        let mut faults: Vec<String> = self.trouble.iter().cloned().collect();
        let mut details = BTreeMap::new();
        let link = match &self.port.attachment {
            Attachment::Vhost(port) => {
                let state = port.state();
                for (ring, state) in state.rings.iter().enumerate() {
                    if let Some(fault) = state.fault {
                        let (direction, pair) = (if ring % 2 == 0 { "to" } else { "from" }, ring / 2);
                        faults.push(format!("queue {direction} guest {pair}: {fault}"));
                    }
                }
                let features = features::names(features::VIRTIO, state.features);
                details.insert("features".into(), features.join(" "));
                details.insert("connects".into(), state.connects.to_string());
                match (state.connected, state.link_up) {
                    (false, _) => Link::Waiting,
                    (true, true) => Link::Up,
                    (true, false) => Link::Down,
                }
            }
            Attachment::Tap(tap) => {
                details.insert("queues".into(), tap.queues().to_string());
                details.insert("made-by-agent".into(), tap.created().to_string());
                Link::Up
            }
            Attachment::Missing => Link::Waiting,
        };
        match &self.plan.attachment {
            AttachmentPlan::Vhost { socket, .. } => {
                details.insert("socket".into(), socket.display().to_string());
            }
            AttachmentPlan::Tap(tap) => {
                details.insert("device".into(), tap.device.clone());
                if let Some(netns) = &tap.netns {
                    details.insert("netns".into(), netns.clone());
                }
            }
        }
        details.insert("announced".into(), self.port.announced().to_string());
        let workers: Vec<String> = self.port.homes.iter().map(usize::to_string).collect();
        details.insert("workers".into(), workers.join(" "));
        PortStatus {
            id: self.plan.id,
            workload: self.plan.workload.clone(),
            port: self.plan.name.clone(),
            link,
            faults,
            from_guest: Counters { packets: sums.from.0, bytes: sums.from.1 },
            to_guest: Counters { packets: sums.to.0, bytes: sums.to.1 },
            drops: drops(&sums),
            details,
            enforced: false,
            flows: 0,
            flow_limit: 0,
        }
    }
}
