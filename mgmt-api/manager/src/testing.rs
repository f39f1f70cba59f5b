//! What unit tests share.

use std::sync::Arc;
use std::time::SystemTime;

use crate::authority::StoredAuthority;
use crate::document::{self, Format};
use crate::manager::Manager;
use crate::seal::Seal;
use crate::state::State;
use crate::store::Store;
use crate::transaction::{self, Wish};

/// The wishes of a YAML text.
pub(crate) fn wishes(yaml: &str) -> Vec<Wish> {
    document::read(Format::Yaml, yaml.as_bytes()).unwrap().into_iter().map(Wish::Put).collect()
}

/// The wishes to delete what a YAML text names.
pub(crate) fn deletions(yaml: &str) -> Vec<Wish> {
    document::read_names(Format::Yaml, yaml.as_bytes()).unwrap().into_iter().map(Wish::Delete).collect()
}

/// The state after one transaction.
pub(crate) fn state_of(yaml: &str) -> State {
    transaction::plan(&State::default(), &wishes(yaml)).unwrap().state
}

/// A manager of a store, without anybody who listens.
pub(crate) fn manager(store: Arc<dyn Store>) -> Arc<Manager> {
    let first = |seal: &Seal| StoredAuthority::make(1, seal, SystemTime::now());
    Arc::new(Manager::open(store, Seal::of([7; 32]), Vec::new(), first).unwrap())
}
