//! The state of the agent for whoever asks.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use mgmt_types::agent::{Counters, HostStatus, Link, PortStatus};
use pipeline::DropReason;
use vhost_backend::features;

use crate::compile::{AttachmentPlan, PortPlan};
use crate::counters::Sums;
use crate::port::{Attachment, LocalPort};

/// What the control thread last did, and the ports to read counters and links from.
#[derive(Debug)]
pub(crate) struct Board {
    host: String,
    state: Mutex<Notes>,
    /// Why there is no talk with the manager.
    silence: Mutex<Option<String>>,
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
    pub(crate) fn new(host: String) -> Self {
        Self { host, state: Mutex::default(), silence: Mutex::default() }
    }

    pub(crate) fn write(&self, notes: Notes) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = notes;
    }

    /// Notes why there is no talk with the manager, or that there is.
    pub(crate) fn set_silence(&self, why: Option<String>) {
        *self.silence.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    /// The status now: links and counters are read as they are at this moment.
    pub(crate) fn status(&self) -> HostStatus {
        let notes = self.state.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let silence = self.silence.lock().unwrap_or_else(PoisonError::into_inner).clone();
        HostStatus {
            host: self.host.clone(),
            version: env!("CARGO_PKG_VERSION").to_string(),
            revision: notes.revision,
            error: notes.error.or(silence),
            ports: notes.ports.iter().map(Entry::status).collect(),
            rules: Vec::new(),
        }
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
        let drops =
            DropReason::ALL.iter().map(|reason| (reason.name().to_string(), sums.drops[reason.index()]));
        PortStatus {
            id: self.plan.id,
            workload: self.plan.workload.clone(),
            port: self.plan.name.clone(),
            link,
            faults,
            from_guest: Counters { packets: sums.from.0, bytes: sums.from.1 },
            to_guest: Counters { packets: sums.to.0, bytes: sums.to.1 },
            drops: drops.filter(|&(_, count)| count > 0).collect(),
            details,
            enforced: false,
            flows: 0,
            flow_limit: 0,
        }
    }
}
