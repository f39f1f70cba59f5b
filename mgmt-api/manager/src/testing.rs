//! What unit tests share.

use crate::document::{self, Format};
use crate::state::State;
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
