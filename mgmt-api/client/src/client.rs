//! Requests and answers.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use mgmt_types::agent::HostStatus;
use mgmt_types::{
    Applied, AuditEntry, Kind, NewToken, Problem, Realised, Resource, ResourceList, Revision, TokenInfo,
    TokenSecret,
};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::endpoint::{Endpoint, EndpointError};
use crate::events::{Events, SliceStream, WatchStream};

/// Time until the head of an answer must be there. The manager gives up after 30 seconds itself.
const PATIENCE: Duration = Duration::from_secs(40);
/// Time for a connection to come about.
const CONNECT: Duration = Duration::from_secs(10);
/// Largest answer that is read, in bytes: all workloads of a full manager.
const MAX_ANSWER: usize = 256 << 20;

/// Why a request did not bring what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The endpoint cannot be used.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// The manager cannot be reached, or cannot be trusted.
    #[error("cannot reach the manager at {url}: {reason}")]
    Reach {
        /// The manager's URL.
        url: String,
        /// What went wrong, from the outside in.
        reason: String,
    },
    /// The manager does not answer.
    #[error("the manager at {url} did not answer within {} seconds", .after.as_secs())]
    Silent {
        /// The manager's URL.
        url: String,
        /// How long the client waited.
        after: Duration,
    },
    /// The manager refuses.
    #[error("{0}")]
    Refused(Box<Problem>),
    /// The manager's answer is not understood; manager and client may be of different versions.
    #[error("the manager at {url} answered {status} with something unexpected: {reason}")]
    Answer {
        /// The manager's URL.
        url: String,
        /// HTTP status of the answer.
        status: u16,
        /// What is wrong with it.
        reason: String,
    },
}

impl Error {
    /// The problem, when the manager refused.
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Refused(problem) => Some(problem),
            _ => None,
        }
    }
}

/// A file of resources under the name that mistakes shall be reported with.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct File {
    /// Its name; `.json` at the end means JSON, all else is YAML.
    pub file: String,
    /// What is in it.
    pub text: String,
}

/// A resource that was written.
#[derive(Debug, Clone)]
pub struct Written {
    /// As it is now.
    pub resource: Resource,
    /// True when it is new.
    pub created: bool,
}

/// A client of one manager. Cheap to clone; connections are shared.
#[derive(Clone)]
pub struct Client {
    http: legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    base: Arc<str>,
    authorization: header::HeaderValue,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("url", &self.base).finish_non_exhaustive()
    }
}

impl Client {
    /// Prepares a client. Nothing is sent before the first request.
    pub fn connect(endpoint: &Endpoint) -> Result<Self, EndpointError> {
        let base = endpoint.url.trim_end_matches('/').to_owned();
        let wrong =
            |reason: &str| EndpointError::Url { url: endpoint.url.clone(), reason: reason.to_owned() };
        let uri: Uri = base.parse().map_err(|error: http::uri::InvalidUri| wrong(&error.to_string()))?;
        if uri.scheme_str() != Some("https") {
            return Err(wrong("it does not begin with https://"));
        }
        if uri.path() != "/" || uri.query().is_some() {
            return Err(wrong("it has more than scheme, address and port"));
        }
        let mut authorization = header::HeaderValue::from_str(&format!("Bearer {}", endpoint.token.trim()))
            .map_err(|_| EndpointError::Token)?;
        authorization.set_sensitive(true);
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(CONNECT));
        tcp.set_nodelay(true);
        let https = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls(&endpoint.ca)?)
            .https_only()
            .enable_http1()
            .wrap_connector(tcp);
        let http = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            // Below the manager's own limit, so that a request never meets a connection just being closed.
            .pool_idle_timeout(Duration::from_secs(15))
            .build(https);
        Ok(Self { http, base: base.into(), authorization })
    }

    /// The manager's URL.
    pub fn url(&self) -> &str {
        &self.base
    }

    /// All resources of a kind; `labels` is a selector such as `app=shop`, empty for all.
    pub async fn list(&self, kind: Kind, labels: &str) -> Result<ResourceList, Error> {
        let query = if labels.is_empty() { String::new() } else { format!("?labels={}", encode(labels)) };
        self.get(&format!("/v1/{}{query}", kind.plural())).await
    }

    /// One resource, with its status.
    pub async fn read(&self, kind: Kind, name: &str) -> Result<Resource, Error> {
        self.get(&format!("/v1/{}/{}", kind.plural(), encode(name))).await
    }

    /// Makes a resource exactly so; only if it is at revision `at`, when given.
    pub async fn replace(&self, resource: &Resource, at: Option<u64>) -> Result<Written, Error> {
        let path = format!("/v1/{}/{}", resource.kind().plural(), encode(resource.name()));
        let mut request = self.request(Method::PUT, &path, "application/json", self.body(resource)?)?;
        if let Some(revision) = at
            && let Ok(value) = header::HeaderValue::from_str(&format!("\"{revision}\""))
        {
            request.headers_mut().insert(header::IF_MATCH, value);
        }
        let (status, resource) = self.ask(request).await?;
        Ok(Written { resource, created: status == StatusCode::CREATED })
    }

    /// Changes members of a resource by JSON merge patch (RFC 7396).
    pub async fn patch(&self, kind: Kind, name: &str, patch: &serde_json::Value) -> Result<Resource, Error> {
        let path = format!("/v1/{}/{}", kind.plural(), encode(name));
        let kind = "application/merge-patch+json";
        Ok(self.ask(self.request(Method::PATCH, &path, kind, self.body(patch)?)?).await?.1)
    }

    /// Deletes a resource that nothing uses.
    pub async fn delete(&self, kind: Kind, name: &str) -> Result<Applied, Error> {
        let path = format!("/v1/{}/{}", kind.plural(), encode(name));
        Ok(self.ask(self.request(Method::DELETE, &path, "", Bytes::new())?).await?.1)
    }

    /// Makes all resources of all files exactly so, in one transaction, or only checks them.
    pub async fn apply(&self, files: &[File], dry_run: bool) -> Result<Applied, Error> {
        self.transaction("/v1/apply", files, dry_run).await
    }

    /// Deletes all resources that the files name, in one transaction, or only checks them.
    pub async fn delete_all(&self, files: &[File], dry_run: bool) -> Result<Applied, Error> {
        self.transaction("/v1/delete", files, dry_run).await
    }

    /// Applies a text of YAML documents.
    pub async fn apply_yaml(&self, text: &str) -> Result<Applied, Error> {
        let body = Bytes::copy_from_slice(text.as_bytes());
        Ok(self.ask(self.request(Method::POST, "/v1/apply", "application/yaml", body)?).await?.1)
    }

    async fn transaction(&self, path: &str, files: &[File], dry_run: bool) -> Result<Applied, Error> {
        let path = format!("{path}?dryRun={dry_run}");
        let kind = "application/vnd.palisade.files+json";
        Ok(self.ask(self.request(Method::POST, &path, kind, self.body(&files)?)?).await?.1)
    }

    /// One revision: who changed what.
    pub async fn revision(&self, number: u64) -> Result<Revision, Error> {
        self.get(&format!("/v1/revisions/{number}")).await
    }

    /// How far a revision has come on each host.
    pub async fn realised(&self, number: u64) -> Result<Realised, Error> {
        self.get(&format!("/v1/revisions/{number}/realized")).await
    }

    /// The newest entries of the audit log, newest first.
    pub async fn audit(&self, limit: usize) -> Result<Vec<AuditEntry>, Error> {
        self.get(&format!("/v1/audit?limit={limit}")).await
    }

    /// All tokens, without their secrets.
    pub async fn tokens(&self) -> Result<Vec<TokenInfo>, Error> {
        self.get("/v1/tokens").await
    }

    /// Makes a token; the answer is the only place its secret appears.
    pub async fn create_token(&self, wish: &NewToken) -> Result<TokenSecret, Error> {
        let body = self.body(wish)?;
        Ok(self.ask(self.request(Method::POST, "/v1/tokens", "application/json", body)?).await?.1)
    }

    /// Withdraws a token at once.
    pub async fn delete_token(&self, name: &str) -> Result<(), Error> {
        let path = format!("/v1/tokens/{}", encode(name));
        self.send(self.request(Method::DELETE, &path, "", Bytes::new())?).await.map(drop)
    }

    /// The description of the API.
    pub async fn openapi(&self) -> Result<serde_json::Value, Error> {
        self.get("/v1/openapi.json").await
    }

    /// The manager's counters in the Prometheus text format.
    pub async fn metrics(&self) -> Result<String, Error> {
        let response = self.send(self.request(Method::GET, "/metrics", "", Bytes::new())?).await?;
        Ok(String::from_utf8_lossy(&self.read_body(response).await?.1).into_owned())
    }

    /// Every revision after `from`, or from now on, as it comes about.
    pub async fn watch(&self, from: Option<u64>) -> Result<WatchStream, Error> {
        let query = from.map_or_else(String::new, |from| format!("?from={from}"));
        Ok(WatchStream::new(self.events(&format!("/v1/watch{query}")).await?))
    }

    /// The slice of a host: the full state at once, then again whenever it changes.
    pub async fn agent_state_stream(&self, host: &str, from: u64) -> Result<SliceStream, Error> {
        let path = format!("/v1/agent/state?host={}&from={from}", encode(host));
        Ok(SliceStream::new(self.events(&path).await?))
    }

    /// Says how a host fares; the manager counts it as gone after 15 seconds of silence.
    pub async fn post_status(&self, status: &HostStatus) -> Result<(), Error> {
        let body = self.body(status)?;
        self.send(self.request(Method::POST, "/v1/agent/status", "application/json", body)?).await.map(drop)
    }

    async fn events(&self, path: &str) -> Result<Events, Error> {
        let response = self.send(self.request(Method::GET, path, "", Bytes::new())?).await?;
        Ok(Events::new(response.into_body(), Arc::clone(&self.base)))
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        Ok(self.ask(self.request(Method::GET, path, "", Bytes::new())?).await?.1)
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        kind: &str,
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, Error> {
        let mut builder = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header(header::AUTHORIZATION, self.authorization.clone());
        if !kind.is_empty() {
            builder = builder.header(header::CONTENT_TYPE, kind);
        }
        builder.body(Full::new(body)).map_err(|error| {
            Error::Endpoint(EndpointError::Url { url: self.base.to_string(), reason: error.to_string() })
        })
    }

    fn body<T: Serialize + ?Sized>(&self, value: &T) -> Result<Bytes, Error> {
        serde_json::to_vec(value).map(Bytes::from).map_err(|error| Error::Answer {
            url: self.base.to_string(),
            status: 0,
            reason: format!("the request cannot be written: {error}"),
        })
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<(StatusCode, T), Error> {
        let response = self.send(request).await?;
        let (status, bytes) = self.read_body(response).await?;
        let value = serde_json::from_slice(&bytes).map_err(|error| self.strange(status, &error))?;
        Ok((status, value))
    }

    /// Sends a request and waits for the head of the answer; a refusal is an error.
    async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Error> {
        let response = match tokio::time::timeout(PATIENCE, self.http.request(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(self.unreachable(&error)),
            Err(_) => return Err(Error::Silent { url: self.base.to_string(), after: PATIENCE }),
        };
        if response.status().is_success() {
            return Ok(response);
        }
        let (status, bytes) = self.read_body(response).await?;
        match serde_json::from_slice(&bytes) {
            Ok(problem) => Err(Error::Refused(Box::new(problem))),
            Err(error) => Err(self.strange(status, &error)),
        }
    }

    async fn read_body(&self, response: Response<Incoming>) -> Result<(StatusCode, Bytes), Error> {
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect();
        match tokio::time::timeout(PATIENCE, body).await {
            Ok(Ok(body)) => Ok((status, body.to_bytes())),
            Ok(Err(error)) => Err(self.strange(status, &*error)),
            Err(_) => Err(Error::Silent { url: self.base.to_string(), after: PATIENCE }),
        }
    }

    fn unreachable(&self, error: &dyn std::error::Error) -> Error {
        Error::Reach { url: self.base.to_string(), reason: chain(error) }
    }

    fn strange(&self, status: StatusCode, error: &dyn std::error::Error) -> Error {
        Error::Answer { url: self.base.to_string(), status: status.as_u16(), reason: chain(error) }
    }
}

fn tls(ca: &[u8]) -> Result<rustls::ClientConfig, EndpointError> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca) {
        let certificate =
            certificate.map_err(|error| EndpointError::Authority(format!("not PEM: {error}")))?;
        roots.add(certificate).map_err(|error| EndpointError::Authority(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(EndpointError::Authority("there is no certificate in the authority's file".to_owned()));
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| EndpointError::Authority(error.to_string()))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

/// An error and its causes in one line; what a cause repeats is said once.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let words = inner.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        cause = inner.source();
    }
    text
}

/// Percent-encodes all but unreserved characters (RFC 3986 section 2.3).
fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte))
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_that_cannot_work_says_why() {
        let endpoint = |url: &str, ca: &str| Endpoint {
            url: url.to_owned(),
            ca: ca.as_bytes().to_vec(),
            token: "x".to_owned(),
        };
        for (url, ca, words) in [
            ("http://127.0.0.1", "", "does not begin with https://"),
            ("https://127.0.0.1/v1", "", "more than scheme, address and port"),
            ("https://127.0.0.1:7470", "", "no certificate"),
            ("not a url", "", "not the URL of a manager"),
        ] {
            let error = Client::connect(&endpoint(url, ca)).unwrap_err().to_string();
            assert!(error.contains(words), "{url}: {error}");
        }
    }

    #[test]
    fn what_goes_into_a_url_is_encoded() {
        assert_eq!(encode("a b/ü,x=1"), "a%20b%2F%C3%BC%2Cx%3D1");
    }
}
