//! A manager of its own for each test, and requests down to the byte.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use manager::{Admission, Config, Running};
use mgmt_client::{Client, Endpoint, Membership};
use mgmt_types::{NewJoinToken, Role};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Longest time any single request of a test may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Server {
    pub(crate) running: Running,
    pub(crate) directory: TempDir,
    /// Secret of the first admin token.
    pub(crate) admin: String,
}

/// An answer as it came.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The head, in lower case.
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap()).await
    }

    /// Starts on a directory that may have been used before.
    pub(crate) async fn start_in(directory: TempDir) -> Self {
        let running = manager::serve(config(directory.path())).await.unwrap();
        let admin = std::fs::read_to_string(running.admin_token_file()).unwrap().trim().to_owned();
        Self { running, directory, admin }
    }

    /// Stops and gives the directory back.
    pub(crate) async fn stop(self) -> TempDir {
        self.running.stop().await;
        self.directory
    }

    pub(crate) fn endpoint(&self, token: &str) -> Endpoint {
        Endpoint {
            url: self.running.url(),
            token: token.to_owned(),
            ca_pem: std::fs::read_to_string(self.running.ca_file()).unwrap(),
        }
    }

    pub(crate) fn client(&self) -> Client {
        self.client_with(&self.admin)
    }

    pub(crate) fn client_with(&self, token: &str) -> Client {
        Client::connect(&self.endpoint(token)).unwrap()
    }

    /// A new token's secret.
    pub(crate) async fn token(&self, name: &str, role: Role) -> String {
        self.client().create_token(name, role).await.unwrap().secret
    }

    /// A join token as it is printed.
    pub(crate) async fn join_token(&self, wish: &NewJoinToken) -> String {
        self.client().create_join_token(wish).await.unwrap().secret
    }

    /// Joins as `host` with a token.
    pub(crate) async fn join_with(
        &self,
        token: &str,
        host: &str,
        before: Option<&Membership>,
    ) -> Result<Membership, mgmt_client::Error> {
        mgmt_client::join(&[self.running.url()], token, host, before).await
    }

    /// Joins as `host`, whoever was that before.
    pub(crate) async fn join(&self, host: &str) -> Membership {
        let wish = NewJoinToken { replace: true, ..NewJoinToken::default() };
        self.join_with(&self.join_token(&wish).await, host, None).await.unwrap()
    }

    /// A client that is `host`, which joins for it.
    pub(crate) async fn host(&self, host: &str) -> Client {
        Client::member(&self.join(host).await).unwrap()
    }

    /// Applies YAML that must be accepted; the revision.
    pub(crate) async fn apply(&self, yaml: &str) -> u64 {
        let answer = self.send("POST", "/v1/apply", &[("content-type", "application/yaml")], yaml).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["revision"].as_u64().unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], "").await
    }

    /// A request with the admin token.
    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let bearer = format!("Bearer {}", self.admin);
        let mut all = vec![("authorization", bearer.as_str())];
        all.extend(headers);
        self.ask(method, path, &all, body.as_bytes()).await
    }

    /// A request with exactly these headers.
    pub(crate) async fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        self.ask_as(None, method, path, headers, body).await
    }

    /// A request with exactly these headers, by who shows the certificate of a host.
    pub(crate) async fn ask_as(
        &self,
        host: Option<&Membership>,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        let mut request = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n");
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() {
            request.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        request.push_str("\r\n");
        let mut bytes = request.into_bytes();
        bytes.extend_from_slice(body);
        self.raw_as(host, &bytes).await
    }

    /// Sends bytes and reads the answer until the server closes.
    pub(crate) async fn raw(&self, bytes: &[u8]) -> Answer {
        self.raw_as(None, bytes).await
    }

    async fn raw_as(&self, host: Option<&Membership>, bytes: &[u8]) -> Answer {
        let exchange = async {
            let mut stream = self.connect_as(host).await;
            stream.write_all(bytes).await.unwrap();
            let mut answer = Vec::new();
            // A server that closes without TLS's farewell still has answered.
            let _ = stream.read_to_end(&mut answer).await;
            parse(&answer)
        };
        tokio::time::timeout(PATIENCE, exchange).await.expect("no answer in time")
    }

    async fn connect_as(&self, host: Option<&Membership>) -> TlsStream<TcpStream> {
        let ca = std::fs::read(self.running.ca_file()).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(&ca).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots);
        let config = match host {
            None => config.with_no_client_auth(),
            Some(host) => {
                let certificate =
                    CertificateDer::from_pem_slice(host.credentials.certificate.as_bytes()).unwrap();
                let key = PrivateKeyDer::from_pem_slice(host.key.as_bytes()).unwrap();
                config.with_client_auth_cert(vec![certificate], key).unwrap()
            }
        };
        let tcp = TcpStream::connect(self.running.address()).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap()
    }
}

pub(crate) fn config(directory: &Path) -> Config {
    Config {
        state_dir: directory.join("state"),
        listen: ([127, 0, 0, 1], 0).into(),
        names: Vec::new(),
        admission: Admission::default(),
        advertised: Vec::new(),
        authority_key: None,
        store: manager::StoreAddress::Embedded,
        store_tls: manager::StoreTls::default(),
    }
}

fn parse(bytes: &[u8]) -> Answer {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let head = head.to_ascii_lowercase().replace("\r\n", "\n");
    let body = if head.contains("transfer-encoding: chunked") { dechunk(body) } else { body.to_owned() };
    Answer { status, head, body }
}

fn dechunk(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
        if size == 0 {
            break;
        }
        whole.push_str(rest.get(..size).unwrap_or(rest));
        body = rest.get(size + 2..).unwrap_or("");
    }
    whole
}

/// Host, network and workload that fit together.
pub(crate) const BASE: &str = r#"kind: Host
name: host-a
---
kind: Network
name: blue
spec: { subnets: [10.0.1.0/24], router: shop }
---
kind: Workload
name: web-1
labels: { app: shop }
spec:
  host: host-a
  kind: vm
  ports:
    - { name: eth0, network: blue, addresses: [10.0.1.11] }
"#;
