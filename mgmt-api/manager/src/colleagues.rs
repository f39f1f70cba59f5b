//! The other managers of the same store, as far as this one knows.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use mgmt_types::ManagerReport;

/// See the module. Empty when the store is shared with nobody.
#[derive(Debug, Default)]
pub(crate) struct Colleagues(RwLock<Known>);

#[derive(Debug, Default)]
struct Known {
    own: ManagerReport,
    managers: BTreeMap<String, ManagerReport>,
    leader: Option<String>,
}

impl Colleagues {
    /// What this manager shows of itself.
    pub(crate) fn introduce(&self, own: ManagerReport) {
        self.write().own = own;
    }

    /// What this manager shows of itself.
    pub(crate) fn own(&self) -> ManagerReport {
        self.read().own.clone()
    }

    /// True when this manager leads.
    pub(crate) fn leads(&self) -> bool {
        let known = self.read();
        known.leader.as_ref() == Some(&known.own.name)
    }

    /// What a manager shows of itself; none when it is gone.
    pub(crate) fn hear(&self, name: String, report: Option<ManagerReport>) {
        let mut known = self.write();
        match report {
            Some(report) => drop(known.managers.insert(name, report)),
            None => drop(known.managers.remove(&name)),
        }
    }

    /// Who leads, if anybody.
    pub(crate) fn lead(&self, name: Option<String>) {
        let mut known = self.write();
        if known.leader != name {
            match &name {
                Some(name) => log::info!("manager {name} leads"),
                None => log::info!("no manager is known to lead"),
            }
            known.leader = name;
        }
    }

    /// Forgets who is there, to hear it anew.
    pub(crate) fn clear(&self) {
        self.write().managers.clear();
    }

    /// Where a manager can be reached.
    pub(crate) fn url(&self, name: &str) -> Option<String> {
        self.read().managers.get(name).map(|report| report.url.clone())
    }

    /// All that are alive, by name.
    pub(crate) fn list(&self) -> Vec<ManagerReport> {
        let known = self.read();
        let leads = |report: &ManagerReport| known.leader.as_ref() == Some(&report.name);
        known
            .managers
            .values()
            .map(|report| ManagerReport { leader: leads(report), ..report.clone() })
            .collect()
    }

    fn read(&self) -> RwLockReadGuard<'_, Known> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Known> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}
