//! One manager, and how requests reach it.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, IF_MATCH};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use mgmt_types::{AUTHORITY_HEADER, Problem, ProblemKind};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Error;
use crate::tls::{self, Trust};

/// Where a manager is and how to be let in.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Base URL, `https://host:port`.
    pub url: String,
    /// Bearer token.
    pub token: String,
    /// PEM of the authority that signed the manager's certificate.
    pub ca_pem: String,
}

/// How long things may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// Until a connection stands.
    pub connect: Duration,
    /// Until a request is answered whole, or a stream's first byte came.
    pub request: Duration,
    /// Between two signs of life of a stream; the manager sends one every 15 s.
    pub silence: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            request: Duration::from_secs(15),
            silence: Duration::from_secs(45),
        }
    }
}

/// Largest answer that is read: the audit log and 20 000 ports with all their counters stay far below.
const MAX_ANSWER: usize = 64 << 20;

type Http = legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// A client of one manager, or of several that share one state: then the next one is asked after one that cannot be reached.
/// Connections are made when needed and kept for a while; clones share them.
#[derive(Clone)]
pub struct Client {
    http: Arc<RwLock<Http>>,
    /// Base URLs; at least one.
    bases: Arc<[String]>,
    /// Which of them is asked now.
    at: Arc<AtomicUsize>,
    /// None for who is known by a certificate.
    authorization: Option<HeaderValue>,
    timeouts: Timeouts,
    /// The authority of hosts, as the manager last named it.
    authority: Arc<Mutex<Option<String>>>,
}

impl Client {
    /// A client for `endpoint`. No connection is made yet: the first request makes it.
    ///
    /// # Errors
    /// When the URL is none, is not `https`, has a path, or token or certificate cannot be used.
    pub fn connect(endpoint: &Endpoint) -> Result<Self, Error> {
        Self::connect_with(endpoint, Timeouts::default())
    }

    /// As [`Client::connect`], with other limits of time.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub fn connect_with(endpoint: &Endpoint, timeouts: Timeouts) -> Result<Self, Error> {
        let tls = tls::config(Trust::Only(&endpoint.ca_pem), None)?;
        let mut authorization =
            HeaderValue::from_str(&format!("Bearer {}", endpoint.token.trim())).map_err(|_| Error::Token)?;
        authorization.set_sensitive(true);
        Self::over(std::slice::from_ref(&endpoint.url), tls, Some(authorization), timeouts)
    }

    /// A client of the managers at `urls` that speaks TLS as `tls` has it.
    pub(crate) fn over(
        urls: &[String],
        tls: rustls::ClientConfig,
        authorization: Option<HeaderValue>,
        timeouts: Timeouts,
    ) -> Result<Self, Error> {
        let bases: Result<Arc<[String]>, Error> = urls.iter().map(|url| base(url)).collect();
        let bases = bases?;
        if bases.is_empty() {
            return Err(Error::Url { got: String::new() });
        }
        let http = Arc::new(RwLock::new(Self::http(tls, timeouts)));
        Ok(Self { http, bases, at: Arc::default(), authorization, timeouts, authority: Arc::default() })
    }

    /// Speaks TLS as `tls` has it from the next connection on, in all clones.
    pub(crate) fn speak(&self, tls: rustls::ClientConfig) {
        *self.http.write().unwrap_or_else(PoisonError::into_inner) = Self::http(tls, self.timeouts);
    }

    fn http(tls: rustls::ClientConfig, timeouts: Timeouts) -> Http {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(timeouts.connect));
        let https = HttpsConnectorBuilder::new().with_tls_config(tls).https_only().enable_http1();
        legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(10))
            .build(https.wrap_connector(tcp))
    }

    /// Fingerprint of the authority that signs hosts' certificates, as the manager last named it to this host.
    pub(crate) fn named_authority(&self) -> Option<String> {
        self.authority.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The base URL of the manager that is asked now.
    pub fn url(&self) -> &str {
        let at = self.at.load(Ordering::Relaxed) % self.bases.len().max(1);
        self.bases.get(at).map_or("", String::as_str)
    }

    /// The manager at `base` does not answer: the next one is asked from now on, unless somebody found that out before.
    fn pass_over(&self, base: &str) {
        if let Some(at) = self.bases.iter().position(|known| known == base) {
            let next = (at + 1) % self.bases.len();
            // Who comes too late changes nothing.
            let _ = self.at.compare_exchange(at, next, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// A GET of JSON.
    pub(crate) async fn read<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        self.json(self.request(Method::GET, path, None)?).await
    }

    /// Sends JSON, reads JSON.
    pub(crate) async fn write<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Error> {
        self.json(self.request(method, path, Some(Body::json(body)?))?).await
    }

    /// Sends a request, reads JSON.
    pub(crate) async fn json<T: DeserializeOwned>(&self, request: Request<Full<Bytes>>) -> Result<T, Error> {
        self.json_within(self.timeouts.request, request).await
    }

    /// As [`Client::json`], for what may take longer than most.
    pub(crate) async fn json_within<T: DeserializeOwned>(
        &self,
        after: Duration,
        request: Request<Full<Bytes>>,
    ) -> Result<T, Error> {
        let path = request.uri().path().to_owned();
        let body = self.bytes_within(after, request).await?;
        serde_json::from_slice(&body).map_err(|source| Error::Answer {
            path,
            source,
            got: String::from_utf8_lossy(&body).chars().take(200).collect(),
        })
    }

    /// Sends a request, reads the body of a good answer.
    pub(crate) async fn bytes(&self, request: Request<Full<Bytes>>) -> Result<Bytes, Error> {
        self.bytes_within(self.timeouts.request, request).await
    }

    async fn bytes_within(&self, after: Duration, request: Request<Full<Bytes>>) -> Result<Bytes, Error> {
        let path = request.uri().path().to_owned();
        let base = base_of(request.uri());
        let exchange = async {
            let response = self.send(request).await?;
            let body = Limited::new(response.into_body(), MAX_ANSWER);
            match body.collect().await {
                Ok(body) => Ok(body.to_bytes()),
                Err(error) => Err(Error::Body { path: path.clone(), reason: error.to_string() }),
            }
        };
        self.within(after, &base, exchange).await
    }

    /// Sends a request; gets a good answer whose body is not read yet, within the time of one request.
    pub(crate) async fn open(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Error> {
        let base = base_of(request.uri());
        self.within(self.timeouts.request, &base, self.send(request)).await
    }

    async fn within<T>(
        &self,
        after: Duration,
        base: &str,
        exchange: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let late = |_| Error::Timeout { url: base.to_owned(), after };
        let result = tokio::time::timeout(after, exchange).await.map_err(late).flatten();
        // A manager that says it is busy, or cut off from the store, may not be the only one.
        let is_busy = |error: &Error| {
            let busy = [ProblemKind::Busy, ProblemKind::Store];
            error.problem().is_some_and(|problem| busy.iter().any(|kind| problem.is(*kind)))
        };
        if result.as_ref().is_err_and(|error| error.is_unreachable() || is_busy(error)) {
            self.pass_over(base);
        }
        result
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Error> {
        let path = request.uri().path().to_owned();
        let base = base_of(request.uri());
        let http = self.http.read().unwrap_or_else(PoisonError::into_inner).clone();
        let response = http.request(request).await.map_err(|error| Error::transport(&base, &error))?;
        let named = response.headers().get(AUTHORITY_HEADER).and_then(|value| value.to_str().ok());
        if let Some(named) = named {
            *self.authority.lock().unwrap_or_else(PoisonError::into_inner) = Some(named.to_owned());
        }
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_PROBLEM).collect().await;
        let body = body.map(|body| body.to_bytes()).unwrap_or_default();
        Err(refusal(status, path, &body))
    }

    pub(crate) fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<Body>,
    ) -> Result<Request<Full<Bytes>>, Error> {
        let uri = format!("{}{path}", self.url());
        let uri: Uri = uri.parse().map_err(|_| Error::Url { got: uri.clone() })?;
        let mut request = Request::new(Full::default());
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        let headers = request.headers_mut();
        if let Some(authorization) = &self.authorization {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        if let Some(body) = body {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(body.content_type));
            *request.body_mut() = Full::new(body.bytes);
        }
        Ok(request)
    }

    pub(crate) fn timeouts(&self) -> Timeouts {
        self.timeouts
    }
}

/// Largest error that is read.
const MAX_PROBLEM: usize = 1 << 20;

fn refusal(status: StatusCode, path: String, body: &[u8]) -> Error {
    match serde_json::from_slice::<Problem>(body) {
        Ok(problem) => Error::Problem(Box::new(problem)),
        Err(_) => {
            let got = String::from_utf8_lossy(body).chars().take(200).collect();
            Error::Status { path, status: status.as_u16(), got }
        }
    }
}

/// What a URI begins with.
fn base_of(uri: &Uri) -> String {
    uri.authority().map_or_else(String::new, |authority| format!("https://{authority}"))
}

/// `https://host:port` without anything behind it.
fn base(url: &str) -> Result<String, Error> {
    let refuse = || Error::Url { got: url.to_owned() };
    let uri: Uri = url.trim().parse().map_err(|_| refuse())?;
    let authority = uri.authority().ok_or_else(refuse)?;
    let bare = matches!(uri.path(), "" | "/") && uri.query().is_none();
    if uri.scheme_str() != Some("https") || !bare || authority.as_str().contains('@') {
        return Err(refuse());
    }
    Ok(format!("https://{authority}"))
}

/// What a request carries.
pub(crate) struct Body {
    content_type: &'static str,
    bytes: Bytes,
}

impl Body {
    pub(crate) fn json(value: &impl Serialize) -> Result<Self, Error> {
        Self::of("application/json", value)
    }

    pub(crate) fn raw(content_type: &'static str, bytes: Vec<u8>) -> Self {
        Self { content_type, bytes: bytes.into() }
    }

    pub(crate) fn of(content_type: &'static str, value: &impl Serialize) -> Result<Self, Error> {
        let bytes = serde_json::to_vec(value).map_err(Error::Request)?;
        Ok(Self { content_type, bytes: bytes.into() })
    }
}

/// `If-Match` for a resource that is expected at `revision`.
pub(crate) fn expect_revision(request: &mut Request<Full<Bytes>>, revision: Option<u64>) {
    if let Some(revision) = revision {
        let value = HeaderValue::from_str(&format!("\"{revision}\""));
        // Digits in quotes are always a header's value.
        if let Ok(value) = value {
            request.headers_mut().insert(IF_MATCH, value);
        }
    }
}

/// One segment of a path or one value of a query, percent-encoded (RFC 3986 section 2.3).
pub(crate) fn encoded(text: &str) -> String {
    use fmt::Write;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing into a String cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

impl fmt::Debug for Endpoint {
    /// Without the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("url", &self.url).finish_non_exhaustive()
    }
}

impl fmt::Debug for Client {
    /// Without the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("url", &self.url()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_url_is_https_and_bare() {
        for (url, base_url) in [
            ("https://127.0.0.1:7470", "https://127.0.0.1:7470"),
            ("https://manager/", "https://manager"),
            (" https://[::1]:7470 ", "https://[::1]:7470"),
        ] {
            assert_eq!(base(url).expect("a good URL"), base_url);
        }
        for url in ["", "manager:7470", "http://manager", "https://manager/v1", "https://a@b", "https://m/?x"]
        {
            assert!(base(url).is_err(), "{url}");
        }
    }

    #[test]
    fn a_name_with_a_slash_stays_one_segment() {
        assert_eq!(encoded("web-1"), "web-1");
        assert_eq!(encoded("a/../b?c=d&e é"), "a%2F..%2Fb%3Fc%3Dd%26e%20%C3%A9");
    }

    #[test]
    fn an_answer_that_is_no_problem_is_shown_as_it_came() {
        let error = refusal(StatusCode::BAD_GATEWAY, "/v1/hosts".into(), b"<html>proxy");
        assert!(matches!(&error, Error::Status { status: 502, got, .. } if got == "<html>proxy"), "{error}");
        let problem = Problem::new(mgmt_types::ProblemKind::NotFound, "no such host");
        let body = serde_json::to_vec(&problem).expect("serialises");
        let error = refusal(StatusCode::NOT_FOUND, "/v1/hosts/a".into(), &body);
        assert!(matches!(&error, Error::Problem(got) if **got == problem), "{error}");
    }
}
