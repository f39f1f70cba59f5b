//! Everything workers read: the snapshot and the ports its indexes stand for, replaced as a whole.

use std::collections::BTreeMap;
use std::sync::Arc;

use pipeline::{FlowTable, PortIndex, Snapshot};

use crate::port::LocalPort;
use crate::rule_book::RuleBook;
use crate::underlay::Underlay;

/// One configuration in force.
#[derive(Debug)]
pub(crate) struct World {
    /// What the pipeline judges by.
    pub(crate) snapshot: Arc<Snapshot>,
    /// The connections that workers track; the same in every world of an agent.
    pub(crate) flows: Arc<FlowTable>,
    /// What the rules count.
    pub(crate) rules: Arc<RuleBook>,
    /// Other hosts, and the way to them.
    pub(crate) underlay: Underlay,
    /// By port index; `None` for ports of other hosts.
    ports: Box<[Option<Arc<LocalPort>>]>,
}

impl World {
    /// Joins a snapshot with the local ports; `ids` are the port ids behind the snapshot's indexes.
    pub(crate) fn new(
        snapshot: Arc<Snapshot>,
        flows: Arc<FlowTable>,
        rules: Arc<RuleBook>,
        underlay: Underlay,
        ids: &[u32],
        local: &BTreeMap<u32, Arc<LocalPort>>,
    ) -> Self {
        let ports = ids.iter().map(|id| local.get(id).cloned()).collect();
        Self { snapshot, flows, rules, underlay, ports }
    }

    /// A local port.
    #[inline]
    pub(crate) fn local(&self, port: PortIndex) -> Option<&LocalPort> {
        self.ports.get(port.0 as usize)?.as_deref()
    }

    /// All local ports with their indexes.
    pub(crate) fn locals(&self) -> impl Iterator<Item = (PortIndex, &Arc<LocalPort>)> {
        (0..).map(PortIndex).zip(&self.ports).filter_map(|(index, port)| Some((index, port.as_ref()?)))
    }
}
