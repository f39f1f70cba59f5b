//! Requests whose answer goes on: what changes, and what a host has to do.

use http::Method;
use http::header::{ACCEPT, HeaderValue};
use mgmt_types::Revision;
use mgmt_types::agent::{HostStatus, Slice};
use serde::de::DeserializeOwned;

use crate::client::{Body, Client, encoded};
use crate::{Error, Events};

impl Client {
    /// Every revision after `from`, those to come included; `None` begins now.
    ///
    /// # Errors
    /// When the manager cannot be reached, refuses, or no longer keeps that revision.
    pub async fn watch(&self, from: Option<u64>) -> Result<Events<Revision>, Error> {
        let query = from.map(|from| format!("?from={from}")).unwrap_or_default();
        self.events(&format!("/v1/watch{query}")).await
    }

    /// What `host` has to do, whole: now, when that is newer than revision `from`, and at each change.
    ///
    /// # Errors
    /// When the manager cannot be reached or refuses.
    pub async fn agent_state_stream(&self, host: &str, from: u64) -> Result<Events<Slice>, Error> {
        self.events(&format!("/v1/agent/state?host={}&from={from}", encoded(host))).await
    }

    /// Says how a host is.
    ///
    /// # Errors
    /// When the manager cannot be reached or refuses.
    pub async fn post_status(&self, status: &HostStatus) -> Result<(), Error> {
        let request = self.request(Method::POST, "/v1/agent/status", Some(Body::json(status)?))?;
        self.bytes(request).await.map(drop)
    }

    pub(crate) async fn events<T: DeserializeOwned>(&self, path: &str) -> Result<Events<T>, Error> {
        let mut request = self.request(Method::GET, path, None)?;
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
        let path = request.uri().path().to_owned();
        let response = self.open(request).await?;
        Ok(Events::new(path, response.into_body(), self.timeouts().silence))
    }
}
