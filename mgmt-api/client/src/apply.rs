//! Several documents as one transaction.

use http::Method;
use mgmt_types::Applied;
use serde::Serialize;

use crate::Error;
use crate::client::{Body, Client};

/// A text with resources: YAML, or JSON when the file's name ends in `.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Document {
    /// Name of its file, for messages.
    pub file: String,
    /// Its text.
    pub text: String,
}

/// Texts with the names of their files; the manager reads them, so that its messages name file and line.
const FILES: &str = "application/vnd.palisade.files+json";

impl Client {
    /// Makes what the documents declare so: all of it or nothing. With `dry_run` it is only checked.
    ///
    /// # Errors
    /// When the manager cannot be reached or refuses any of it.
    pub async fn apply(&self, documents: &[Document], dry_run: bool) -> Result<Applied, Error> {
        self.transaction("/v1/apply", documents, dry_run).await
    }

    /// Deletes what the documents name, all or nothing; what is not there counts as deleted.
    ///
    /// # Errors
    /// When the manager cannot be reached, or something else still needs one of them.
    pub async fn delete_documents(&self, documents: &[Document], dry_run: bool) -> Result<Applied, Error> {
        self.transaction("/v1/delete", documents, dry_run).await
    }

    async fn transaction(&self, path: &str, documents: &[Document], dry_run: bool) -> Result<Applied, Error> {
        let path = if dry_run { format!("{path}?dryRun=true") } else { path.to_owned() };
        let request = self.request(Method::POST, &path, Some(Body::of(FILES, &documents)?))?;
        self.json(request).await
    }
}
