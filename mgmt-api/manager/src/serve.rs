//! The server: TLS connections in bounded number, each with bounded time to say what it wants.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use axum::Router;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use mgmt_types::{NewToken, Role};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

use crate::admission::{self, Admission, Sources};
use crate::api::{self, Context, Peer};
use crate::certificate::{self, CertificateError, Certifier};
use crate::files::{self, FileError};
use crate::manager::{Manager, Request};
use crate::store::{Embedded, Limits, StoreError};
use crate::token;

/// How to run a manager.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where everything is kept: store, authority, first tokens.
    pub state_dir: PathBuf,
    /// Where to listen; port 0 takes any free one.
    pub listen: SocketAddr,
    /// Names and addresses clients use, beyond `localhost`, the machine's name and the listening address.
    pub names: Vec<String>,
    /// How many connections there may be.
    pub admission: Admission,
}

/// Why a manager did not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A file of the state directory.
    #[error(transparent)]
    File(#[from] FileError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The certificate.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The address to listen on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The first tokens.
    #[error("cannot make the first tokens: {0}")]
    Token(Box<mgmt_types::Problem>),
    /// The policy that holds when nothing else was said.
    #[error("cannot make the policy baseline: {0}")]
    Baseline(Box<mgmt_types::Problem>),
}

/// A manager that runs. Dropping it stops it at once; [`Running::stop`] lets answers finish.
#[derive(Debug)]
pub struct Running {
    address: SocketAddr,
    directory: PathBuf,
    first_start: bool,
    stopping: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Running {
    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// `https://` and the address, as clients on this machine use it.
    pub fn url(&self) -> String {
        let mut address = self.address;
        if address.ip().is_unspecified() {
            let loopback = if address.is_ipv4() {
                IpAddr::from([127, 0, 0, 1])
            } else {
                IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])
            };
            address.set_ip(loopback);
        }
        format!("https://{address}")
    }

    /// The authority clients trust.
    pub fn ca_file(&self) -> PathBuf {
        self.directory.join(CA_FILE)
    }

    /// The token of role admin made at the first start.
    pub fn admin_token_file(&self) -> PathBuf {
        self.directory.join(ADMIN_FILE)
    }

    /// The token of role agent made at the first start, for the agent of the same machine.
    pub fn agent_token_file(&self) -> PathBuf {
        self.directory.join(AGENT_FILE)
    }

    /// True when the tokens were made by this start.
    pub const fn is_first_start(&self) -> bool {
        self.first_start
    }

    /// Stops: no new connections, two seconds for answers that are under way.
    pub async fn stop(mut self) {
        let _ = self.stopping.send(true);
        if let Err(error) = (&mut self.task).await {
            log::error!("the server did not end well: {error}");
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The authority's certificate within the state directory.
pub const CA_FILE: &str = "ca.pem";
/// The first admin token within the state directory.
pub const ADMIN_FILE: &str = "admin.token";
/// The first agent token within the state directory.
pub const AGENT_FILE: &str = "agent.token";

/// Time for a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Time for the head of a request, and for a connection to be idle.
const HEAD: Duration = Duration::from_secs(30);
/// Largest head of a request, in bytes.
const HEAD_BYTES: usize = 32 << 10;
/// Most headers of a request.
const HEADERS: usize = 64;
/// Time for answers under way when the server stops.
const FAREWELL: Duration = Duration::from_secs(2);
/// How often the certificate's age is looked at.
const RENEWAL: Duration = Duration::from_secs(60 * 60);
/// How often is looked for moves that are over.
const SETTLING: Duration = Duration::from_secs(10);

/// Starts a manager within the current tokio runtime. It answers when this returns.
pub async fn serve(config: Config) -> Result<Running, ServeError> {
    let directory = config.state_dir.clone();
    let listen = config.listen;
    let sources = Sources::new(config.admission);
    admission::allow_descriptors(config.admission);
    let opened = tokio::task::spawn_blocking(move || open(&config)).await;
    let (manager, certifier, first_start) = match opened {
        Ok(result) => result?,
        Err(error) => return Err(token_problem(crate::manager::internal(&error))),
    };
    let tls = TlsAcceptor::from(Arc::new(certificate::server_config(Arc::clone(&certifier))?));
    let failed = |source| ServeError::Listen { address: listen, source };
    let listener = TcpListener::bind(listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let (stopping, stopped) = watch::channel(false);
    let router = api::router(Context::new(Arc::clone(&manager), stopped.clone()));
    let settling = settle(Arc::clone(&manager));
    let server = Server { manager, router, tls, sources, stopped };
    let task = tokio::spawn(async move {
        let renewal = renew(certifier);
        tokio::select! {
            () = server.accept(listener) => {}
            () = renewal => {}
            () = settling => {}
        }
    });
    Ok(Running { address, directory, first_start, stopping, task })
}

/// Ends moves of workloads for ever.
async fn settle(manager: Arc<Manager>) {
    loop {
        tokio::time::sleep(SETTLING).await;
        let manager = Arc::clone(&manager);
        let settled = tokio::task::spawn_blocking(move || manager.settle_moves(Instant::now())).await;
        if let Ok(Err(problem)) = settled {
            log::warn!("moves of workloads are not ended: {problem}");
        }
    }
}

/// Opens all that is kept in the state directory, and makes what is not there.
fn open(config: &Config) -> Result<(Arc<Manager>, Arc<Certifier>, bool), ServeError> {
    let directory = &config.state_dir;
    files::make_directory(directory)?;
    let store = Embedded::open(&directory.join("manager.redb"), Limits::default())?;
    let manager = Arc::new(Manager::open(Box::new(store))?);
    manager.ensure_baseline().map_err(|problem| ServeError::Baseline(Box::new(problem)))?;
    let certifier = Certifier::open(directory, names(config), SystemTime::now())?;
    let has = |role| manager.tokens.list().iter().any(|token| token.role == role);
    let first = !has(Role::Admin);
    if !has(Role::Agent) {
        first_token(&manager, directory, AGENT_FILE, "agent", Role::Agent)?;
    }
    if first {
        first_token(&manager, directory, ADMIN_FILE, "admin", Role::Admin)?;
    }
    Ok((manager, certifier, first))
}

/// Makes a token and keeps its secret in a file. The file comes first: were the start cut short after the store, the
/// token would be there and nobody would know it.
fn first_token(
    manager: &Manager,
    directory: &Path,
    file: &str,
    name: &str,
    role: Role,
) -> Result<(), ServeError> {
    let secret = token::secret().map_err(|error| token_problem(crate::manager::internal(&error)))?;
    files::write(&directory.join(file), format!("{secret}\n").as_bytes(), 0o600)?;
    let request = Request { caller: None, peer: None, action: "first start".to_owned() };
    manager.add_token(&request, &NewToken { name: name.to_owned(), role }, secret).map_err(token_problem)?;
    Ok(())
}

fn token_problem(problem: mgmt_types::Problem) -> ServeError {
    ServeError::Token(Box::new(problem))
}

/// What the certificate is good for.
fn names(config: &Config) -> Vec<String> {
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    if !config.listen.ip().is_unspecified() {
        names.push(config.listen.ip().to_string());
    }
    // Without a readable name the certificate is good for the rest.
    if let Ok(Some(name)) = files::read(Path::new("/proc/sys/kernel/hostname")) {
        let name = name.trim();
        if name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.') && !name.is_empty() {
            names.push(name.to_owned());
        }
    }
    names.extend(config.names.iter().cloned());
    names.sort();
    names.dedup();
    names
}

async fn renew(certifier: Arc<Certifier>) {
    let mut turns = tokio::time::interval(RENEWAL);
    loop {
        turns.tick().await;
        if let Err(error) = certifier.renew(SystemTime::now()) {
            log::error!("the server certificate cannot be renewed: {error}");
        }
    }
}

struct Server {
    manager: Arc<Manager>,
    router: Router,
    tls: TlsAcceptor,
    sources: Sources,
    stopped: watch::Receiver<bool>,
}

impl Server {
    async fn accept(mut self, listener: TcpListener) {
        let mut connections = JoinSet::new();
        let mut complained: Option<Instant> = None;
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = connections.join_next(), if !connections.is_empty() => continue,
                _ = self.stopped.wait_for(|stopped| *stopped) => break,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let Some(held) = self.sources.enter(peer.ip()) else {
                        self.manager.numbers.connections_refused.fetch_add(1, Ordering::Relaxed);
                        continue;
                    };
                    let connection = self.connection(stream, peer.ip());
                    connections.spawn(async move {
                        let _held = held;
                        connection.await;
                    });
                }
                Err(error) => {
                    // Out of descriptors, most likely: it passes, and must not fill the log meanwhile.
                    if complained.is_none_or(|last| last.elapsed() >= Duration::from_secs(1)) {
                        log::warn!("cannot accept connections: {error}");
                        complained = Some(Instant::now());
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
        drop(listener);
        let farewell = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(FAREWELL, farewell).await.is_err() {
            log::info!("{} connections are cut", connections.len());
        }
    }

    fn connection(&self, stream: TcpStream, peer: IpAddr) -> impl Future<Output = ()> + Send + 'static {
        let (tls, router, mut stopped) = (self.tls.clone(), self.router.clone(), self.stopped.clone());
        let manager = Arc::clone(&self.manager);
        async move {
            let _count = Count::new(&manager);
            // Small answers should not wait for more to come; without this they are only slower.
            let _ = stream.set_nodelay(true);
            let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await else {
                manager.numbers.handshakes_failed.fetch_add(1, Ordering::Relaxed);
                return;
            };
            let service = service_fn(move |mut request: hyper::Request<Incoming>| {
                request.extensions_mut().insert(Peer(peer));
                router.clone().oneshot(request)
            });
            let mut builder = hyper::server::conn::http1::Builder::new();
            builder
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD)
                .max_headers(HEADERS)
                .max_buf_size(HEAD_BYTES);
            let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
            // How a connection ends is the client's business.
            tokio::select! {
                result = connection.as_mut() => { let _ = result; return; }
                _ = stopped.wait_for(|stopped| *stopped) => {}
            }
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}

/// Counts an open connection for as long as it lives.
struct Count<'a>(&'a Manager);

impl<'a> Count<'a> {
    fn new(manager: &'a Manager) -> Self {
        manager.numbers.connections.fetch_add(1, Ordering::Relaxed);
        Self(manager)
    }
}

impl Drop for Count<'_> {
    fn drop(&mut self) {
        self.0.numbers.connections.fetch_sub(1, Ordering::Relaxed);
    }
}
