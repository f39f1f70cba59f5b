//! Records in memory, as the store has them.
//!
//! What is read here may be older than the store when several managers share it; what is written is planned on what is
//! here, and the store refuses it when it was older.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::authority::StoredAuthority;
use crate::enrolment::Enrolment;
use crate::join_token::StoredJoinToken;
use crate::store::{RecordChange, Store, StoreError, Table};
use crate::token::{StoredToken, StoredUser};

/// All records.
#[derive(Debug)]
pub(crate) struct Records {
    pub(crate) users: Kept<StoredUser>,
    pub(crate) tokens: Kept<StoredToken>,
    pub(crate) join_tokens: Kept<StoredJoinToken>,
    pub(crate) enrolments: Kept<Enrolment>,
    pub(crate) authorities: Kept<StoredAuthority>,
}

impl Records {
    /// Reads all records.
    pub(crate) fn load(store: &dyn Store) -> Result<Self, StoreError> {
        let records = Self {
            users: Kept::new(Table::Users),
            tokens: Kept::new(Table::Tokens),
            join_tokens: Kept::new(Table::JoinTokens),
            enrolments: Kept::new(Table::Enrolments),
            authorities: Kept::new(Table::Authorities),
        };
        records.reload(store)?;
        Ok(records)
    }

    /// Reads all records again: somebody else changed some.
    pub(crate) fn reload(&self, store: &dyn Store) -> Result<(), StoreError> {
        self.users.reload(store)?;
        self.tokens.reload(store)?;
        self.join_tokens.reload(store)?;
        self.enrolments.reload(store)?;
        self.authorities.reload(store)
    }

    /// Takes over what the store took.
    pub(crate) fn take(&self, changes: &[RecordChange]) -> Result<(), StoreError> {
        for change in changes {
            match change.table {
                Table::Users => self.users.take(change)?,
                Table::Tokens => self.tokens.take(change)?,
                Table::JoinTokens => self.join_tokens.take(change)?,
                Table::Enrolments => self.enrolments.take(change)?,
                Table::Authorities => self.authorities.take(change)?,
            }
        }
        Ok(())
    }
}

/// The records of one table, by key.
pub(crate) struct Kept<T> {
    table: Table,
    /// With the text as it is in the store, which a change has to name.
    items: RwLock<BTreeMap<String, (String, Arc<T>)>>,
}

impl<T> fmt::Debug for Kept<T> {
    /// Without the records: some are nobody's business.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept").field("table", &self.table).finish_non_exhaustive()
    }
}

impl<T: Serialize + DeserializeOwned> Kept<T> {
    fn new(table: Table) -> Self {
        Self { table, items: RwLock::default() }
    }

    fn reload(&self, store: &dyn Store) -> Result<(), StoreError> {
        let mut items = BTreeMap::new();
        for (key, text) in store.records(self.table)? {
            let item = self.read(&key, &text)?;
            items.insert(key, (text, item));
        }
        *self.items.write().unwrap_or_else(PoisonError::into_inner) = items;
        Ok(())
    }

    fn take(&self, change: &RecordChange) -> Result<(), StoreError> {
        let item = match &change.after {
            Some(text) => Some((text.clone(), self.read(&change.key, text)?)),
            None => None,
        };
        let mut items = self.items.write().unwrap_or_else(PoisonError::into_inner);
        match item {
            Some(item) => drop(items.insert(change.key.clone(), item)),
            None => drop(items.remove(&change.key)),
        }
        Ok(())
    }

    fn read(&self, key: &str, text: &str) -> Result<Arc<T>, StoreError> {
        serde_json::from_str(text).map(Arc::new).map_err(|source| self.damaged(key, source))
    }

    fn damaged(&self, key: &str, source: serde_json::Error) -> StoreError {
        StoreError::Damaged { what: format!("{}/{key}", self.table.as_str()), source }
    }

    /// One record.
    pub(crate) fn get(&self, key: &str) -> Option<Arc<T>> {
        let items = self.items.read().unwrap_or_else(PoisonError::into_inner);
        items.get(key).map(|(_, item)| Arc::clone(item))
    }

    /// All records, by key.
    pub(crate) fn all(&self) -> Vec<(String, Arc<T>)> {
        let items = self.items.read().unwrap_or_else(PoisonError::into_inner);
        items.iter().map(|(key, (_, item))| (key.clone(), Arc::clone(item))).collect()
    }

    /// The first record that `fits`.
    pub(crate) fn find(&self, fits: impl Fn(&T) -> bool) -> Option<Arc<T>> {
        let items = self.items.read().unwrap_or_else(PoisonError::into_inner);
        items.values().find(|(_, item)| fits(item)).map(|(_, item)| Arc::clone(item))
    }

    /// How many records `fit`.
    pub(crate) fn count(&self, fits: impl Fn(&T) -> bool) -> usize {
        let items = self.items.read().unwrap_or_else(PoisonError::into_inner);
        items.values().filter(|(_, item)| fits(item)).count()
    }

    /// The change that makes a record what `after` is, from what it is here.
    pub(crate) fn change(&self, key: &str, after: Option<&T>) -> Result<RecordChange, StoreError> {
        let items = self.items.read().unwrap_or_else(PoisonError::into_inner);
        let before = items.get(key).map(|(text, _)| text.clone());
        let after =
            after.map(serde_json::to_string).transpose().map_err(|source| self.damaged(key, source))?;
        Ok(RecordChange { table: self.table, key: key.to_owned(), before, after })
    }
}
