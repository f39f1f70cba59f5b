//! Calls to a cluster of which some members may be down, slow or cut off from the others.
//!
//! The client library speaks to one member and gives up at the first failure. Here every call goes round: to the member
//! that answered last, then to the others, until one answers or time is up. So every call must be one that may arrive
//! twice: reads, puts of the same value, and transactions whose comparison tells whether they were done before.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use etcd_client::{Certificate, Client, ConnectOptions, Error, Identity, TlsOptions};
use tokio::time::{Instant, sleep, timeout};

use crate::files::{self, FileError};
use crate::store::{EtcdAddress, StoreError, StoreTls};

/// How long one member may take to answer.
const TRY: Duration = Duration::from_secs(1);
/// How long a call may take with all its tries. An election among members takes about as long as one try.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// The pause after every member failed once.
const PAUSE: Duration = Duration::from_millis(100);
/// How long a silent connection is trusted, and how long a member may take to show that it is alive.
const ALIVE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(2));
/// Largest answer that is read: a page of pieces with room to spare.
pub(super) const MAX_ANSWER: usize = 64 << 20;

/// See the module.
pub(super) struct Members {
    clients: Vec<(String, Client)>,
    /// Place of the member that answered last.
    preferred: AtomicUsize,
}

impl Members {
    /// Makes clients; no member is spoken to yet.
    pub(super) async fn new(address: &EtcdAddress, tls: &StoreTls) -> Result<Self, StoreError> {
        let mut options = ConnectOptions::new()
            .with_keep_alive(ALIVE.0, ALIVE.1)
            .with_keep_alive_while_idle(true)
            .with_connect_timeout(TRY)
            // A member without a leader says so at once.
            .with_require_leader(true);
        if address.tls {
            options = options.with_tls(tls_options(tls)?);
        }
        let scheme = if address.tls { "https" } else { "http" };
        let mut clients = Vec::new();
        for member in &address.members {
            let url = format!("{scheme}://{member}");
            let client = Client::connect([&url], Some(options.clone()))
                .await
                .map_err(|error| refusal("reach", member, &error))?;
            clients.push((member.clone(), client));
        }
        Ok(Self { clients, preferred: AtomicUsize::new(0) })
    }

    /// Calls members in turn until one answers, for at most `patience`.
    pub(super) async fn call<T, F>(
        &self,
        doing: &'static str,
        patience: Duration,
        work: impl Fn(Client) -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let end = Instant::now() + patience;
        let mut at = self.preferred.load(Ordering::Relaxed);
        let mut tries = 0usize;
        loop {
            let Some((member, client)) = self.clients.get(at % self.clients.len().max(1)) else {
                return Err(StoreError::Unreachable {
                    doing,
                    member: String::new(),
                    why: "no member is named".to_owned(),
                });
            };
            let left = end.saturating_duration_since(Instant::now()).min(TRY);
            let why = match timeout(left, work(client.clone())).await {
                Ok(Ok(answer)) => {
                    self.preferred.store(at, Ordering::Relaxed);
                    return Ok(answer);
                }
                Ok(Err(error)) if !may_pass(&error) => return Err(refusal(doing, member, &error)),
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("no answer within {left:?}"),
            };
            log::debug!("etcd {member}: {doing}: {why}");
            tries += 1;
            at = (at + 1) % self.clients.len();
            if Instant::now() >= end {
                return Err(StoreError::Unreachable { doing, member: member.clone(), why });
            }
            if tries.is_multiple_of(self.clients.len()) {
                sleep(PAUSE.min(end.saturating_duration_since(Instant::now()))).await;
            }
        }
    }

    /// The member that answered last, for a stream; when it ends, [`Members::next`] turns to another one.
    pub(super) fn preferred(&self) -> Option<&(String, Client)> {
        self.clients.get(self.preferred.load(Ordering::Relaxed))
    }

    /// Turns to the next member.
    pub(super) fn next(&self) {
        let next = self.preferred.load(Ordering::Relaxed) + 1;
        self.preferred.store(next % self.clients.len().max(1), Ordering::Relaxed);
    }
}

/// A client of the key-value part that reads large answers.
pub(super) fn keys_and_values(client: &Client) -> etcd_client::KvClient {
    client.kv_client().max_decoding_message_size(MAX_ANSWER)
}

/// Whether another try, or another member, may have more luck. Codes are those of gRPC.
fn may_pass(error: &Error) -> bool {
    const INVALID_ARGUMENT: i32 = 3;
    const PERMISSION_DENIED: i32 = 7;
    const RESOURCE_EXHAUSTED: i32 = 8;
    const OUT_OF_RANGE: i32 = 11;
    const UNIMPLEMENTED: i32 = 12;
    const UNAUTHENTICATED: i32 = 16;
    match error {
        Error::GRpcStatus(status) => ![
            INVALID_ARGUMENT,
            PERMISSION_DENIED,
            RESOURCE_EXHAUSTED,
            OUT_OF_RANGE,
            UNIMPLEMENTED,
            UNAUTHENTICATED,
        ]
        .contains(&i32::from(status.code())),
        Error::TransportError(_)
        | Error::IoError(_)
        | Error::WatchError(_)
        | Error::LeaseKeepAliveError(_) => true,
        _ => false,
    }
}

fn refusal(doing: &'static str, member: &str, error: &Error) -> StoreError {
    StoreError::Refused { doing, member: member.to_owned(), why: error.to_string() }
}

fn tls_options(tls: &StoreTls) -> Result<TlsOptions, StoreError> {
    let read = |path: &std::path::Path| -> Result<String, StoreError> {
        let text = files::read(path).map_err(StoreError::File)?;
        text.ok_or_else(|| {
            let source = std::io::ErrorKind::NotFound.into();
            StoreError::File(FileError { doing: "read", path: path.to_owned(), source })
        })
    };
    let mut options = TlsOptions::new();
    if let Some(path) = &tls.ca {
        options = options.ca_certificate(Certificate::from_pem(read(path)?));
    }
    if let Some((certificate, key)) = &tls.identity {
        options = options.identity(Identity::from_pem(read(certificate)?, read(key)?));
    }
    Ok(options)
}
