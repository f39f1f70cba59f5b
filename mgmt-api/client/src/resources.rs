//! Single resources, revisions, the audit log.

use http::Method;
use mgmt_types::{
    Applied, AuditEntry, AuditList, Kind, ManagerList, Realised, Resource, ResourceList, Revision, Selector,
};

use crate::Error;
use crate::client::{Body, Client, encoded, expect_revision};

/// Which entries of the audit log are wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AuditQuery {
    /// Only entries with a smaller number, to page back.
    pub before: Option<u64>,
    /// At most this many, the newest; 100 when not given.
    pub limit: Option<u32>,
}

impl Client {
    /// All resources of a kind, by name; with `selector` those whose labels fit.
    ///
    /// # Errors
    /// When the manager cannot be reached or refuses.
    pub async fn list(&self, kind: Kind, selector: Option<&Selector>) -> Result<Vec<Resource>, Error> {
        let query = match selector.filter(|selector| !selector.is_empty()) {
            Some(selector) => format!("?labels={}", encoded(&selector.to_string())),
            None => String::new(),
        };
        let list: ResourceList = self.read(&format!("/v1/{}{query}", kind.plural())).await?;
        Ok(list.items)
    }

    /// One resource.
    ///
    /// # Errors
    /// When the manager cannot be reached or refuses, or there is no such resource.
    pub async fn get(&self, kind: Kind, name: &str) -> Result<Resource, Error> {
        self.read(&path(kind, name)).await
    }

    /// Writes one resource whole; with `expected` only when it is still at that revision.
    ///
    /// # Errors
    /// When the manager cannot be reached or refuses.
    pub async fn put(&self, resource: &Resource, expected: Option<u64>) -> Result<Resource, Error> {
        let path = path(resource.kind(), resource.name());
        let mut request = self.request(Method::PUT, &path, Some(Body::json(resource)?))?;
        expect_revision(&mut request, expected);
        self.json(request).await
    }

    /// Changes some fields of one resource (RFC 7396); with `expected` only when it is still at that revision.
    ///
    /// # Errors
    /// When the manager cannot be reached or refuses.
    pub async fn patch(
        &self,
        kind: Kind,
        name: &str,
        patch: &serde_json::Value,
        expected: Option<u64>,
    ) -> Result<Resource, Error> {
        let body = Body::of("application/merge-patch+json", patch)?;
        let mut request = self.request(Method::PATCH, &path(kind, name), Some(body))?;
        expect_revision(&mut request, expected);
        self.json(request).await
    }

    /// Deletes one resource; with `expected` only when it is still at that revision.
    ///
    /// # Errors
    /// When the manager cannot be reached or refuses, or there is no such resource.
    pub async fn delete(&self, kind: Kind, name: &str, expected: Option<u64>) -> Result<Applied, Error> {
        let mut request = self.request(Method::DELETE, &path(kind, name), None)?;
        expect_revision(&mut request, expected);
        self.json(request).await
    }

    /// What one revision changed.
    ///
    /// # Errors
    /// When the manager cannot be reached or refuses, or does not keep that revision.
    pub async fn revision(&self, revision: u64) -> Result<Revision, Error> {
        self.read(&format!("/v1/revisions/{revision}")).await
    }

    /// How far a revision has come on each host.
    ///
    /// # Errors
    /// When the manager cannot be reached or refuses, or does not keep that revision.
    pub async fn realised(&self, revision: u64) -> Result<Realised, Error> {
        self.read(&format!("/v1/revisions/{revision}/realized")).await
    }

    /// Entries of the audit log, newest first.
    ///
    /// # Errors
    /// When the manager cannot be reached or refuses.
    pub async fn audit(&self, query: AuditQuery) -> Result<Vec<AuditEntry>, Error> {
        let limit = query.limit.unwrap_or(100);
        let before = query.before.map(|before| format!("&before={before}")).unwrap_or_default();
        let list: AuditList = self.read(&format!("/v1/audit?limit={limit}{before}")).await?;
        Ok(list.items)
    }

    /// What the manager is among those that share its store, and who the others are.
    ///
    /// # Errors
    /// When the manager cannot be reached or refuses.
    pub async fn managers(&self) -> Result<ManagerList, Error> {
        self.read("/v1/managers").await
    }
}

fn path(kind: Kind, name: &str) -> String {
    format!("/v1/{}/{}", kind.plural(), encoded(name))
}
