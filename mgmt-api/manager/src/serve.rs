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
use mgmt_types::{ManagerReport, NewToken, Problem, Role};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

use crate::admission::{self, Admission, Sources};
use crate::api::{self, Context, Peer, Shown};
use crate::authority::{AuthorityError, StoredAuthority};
use crate::certificate::{self, Certifier};
use crate::files::{self, FileError};
use crate::manager::{Manager, OpenError, Request};
use crate::seal::{Seal, SealError};
use crate::store::{self, Embedded, Etcd, Limits, Store, StoreAddress, StoreError, StoreTls};
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
    /// URLs of managers that hosts are told to try, this one's first.
    pub advertised: Vec<String>,
    /// The file whose key seals the authorities' private keys in the store; `authority.key` in the state directory when
    /// not given. Managers that share a store share it.
    pub authority_key: Option<PathBuf>,
    /// Where desired state is kept.
    pub store: StoreAddress,
    /// TLS to a store that is elsewhere.
    pub store_tls: StoreTls,
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
    /// The authority that an older version left cannot be read.
    #[error("{}: {source}; remove ca.key and ca.pem to make a new authority, which clients must then be given", .path.display())]
    Import {
        /// The file of the authority's key.
        path: PathBuf,
        /// What is wrong with it.
        source: AuthorityError,
    },
    /// The authorities cannot be used.
    #[error("the certificate authority cannot be used: {0}")]
    Authority(#[from] AuthorityError),
    /// What the authorities' keys are sealed with.
    #[error(transparent)]
    Seal(#[from] SealError),
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
    /// A name of its own for this manager.
    #[error("this machine gives no random numbers")]
    Random,
    /// The policy that holds when nothing else was said.
    #[error("cannot make the policy baseline: {0}")]
    Baseline(Box<mgmt_types::Problem>),
}

/// A manager that runs. Dropping it stops it at once; [`Running::stop`] lets answers finish.
#[derive(Debug)]
pub struct Running {
    manager: Local,
    address: SocketAddr,
    directory: PathBuf,
    first_start: bool,
    stopping: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// The manager itself, for what only its own process may ask.
struct Local(Arc<Manager>);

impl std::fmt::Debug for Local {
    /// Without the state.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Manager")
    }
}

impl Running {
    /// A join token for the host of this machine, good once and for some minutes. It replaces a host of that name.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn join_token(&self, host: &str) -> Result<String, Box<Problem>> {
        let (manager, host) = (Arc::clone(&self.manager.0), host.to_owned());
        let made =
            tokio::task::spawn_blocking(move || manager.local_join_token(&host, SystemTime::now())).await;
        made.unwrap_or_else(|error| Err(crate::manager::internal(&error))).map_err(Box::new)
    }

    /// Whether a certificate, PEM, is one that this manager knows `host` by.
    pub fn knows(&self, host: &str, certificate: &str) -> bool {
        let Ok(certificate) = CertificateDer::from_pem_slice(certificate.as_bytes()) else { return false };
        let identity = self.manager.0.trust().judge(&[certificate], SystemTime::now());
        identity.is_ok_and(|found| {
            found.host == host && self.manager.0.is_enrolled(&found.host, &found.enrolment)
        })
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// `https://` and the address, as clients on this machine use it.
    pub fn url(&self) -> String {
        url(self.address)
    }

    /// The authority clients trust.
    pub fn ca_file(&self) -> PathBuf {
        self.directory.join(CA_FILE)
    }

    /// The token of role admin made at the first start.
    pub fn admin_token_file(&self) -> PathBuf {
        self.directory.join(ADMIN_FILE)
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
/// Where a version before hosts had certificates left the token of agents.
const AGENT_FILE: &str = "agent.token";
/// Where a version before several authorities left the key of its one.
const CA_KEY_FILE: &str = "ca.key";
/// The key that seals the authorities' private keys, unless it is somewhere else.
const SEAL_FILE: &str = "authority.key";

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
/// How often the certificates' ages are looked at.
const RENEWAL: Duration = Duration::from_secs(60 * 60);
/// How often is looked for moves that are over.
const SETTLING: Duration = Duration::from_secs(10);

/// Starts a manager within the current tokio runtime. It answers when this returns.
pub async fn serve(config: Config) -> Result<Running, ServeError> {
    let directory = config.state_dir.clone();
    let listen = config.listen;
    let sources = Sources::new(config.admission);
    admission::allow_descriptors(config.admission);
    let own_url = config.advertised.first().cloned();
    let opened = tokio::task::spawn_blocking(move || open(&config)).await;
    let Opened { manager, certifier, shared, first_start, name } = match opened {
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
    manager.colleagues.introduce(ManagerReport {
        name,
        url: own_url.unwrap_or_else(|| url(address)),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        since: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
        leader: false,
    });
    let company = {
        let (manager, stopped) = (Arc::clone(&manager), stopped.clone());
        async move {
            if let Some(store) = shared {
                store::attend(store, manager, stopped).await;
            }
        }
    };
    let local = Local(Arc::clone(&manager));
    let renewal = renew(Arc::clone(&manager), certifier, directory.join(CA_FILE));
    let server = Server { manager, router, tls, sources, stopped };
    let task = tokio::spawn(async move {
        let work = async { tokio::join!(server.accept(listener), company) };
        tokio::select! {
            _ = work => {}
            () = renewal => {}
            () = settling => {}
        }
    });
    Ok(Running { manager: local, address, directory, first_start, stopping, task })
}

/// Ends moves of workloads for ever.
async fn settle(manager: Arc<Manager>) {
    loop {
        tokio::time::sleep(SETTLING).await;
        // Of several managers one does it.
        if !manager.does_chores() {
            continue;
        }
        let manager = Arc::clone(&manager);
        let settled = tokio::task::spawn_blocking(move || manager.settle_moves(Instant::now())).await;
        if let Ok(Err(problem)) = settled {
            log::warn!("moves of workloads are not ended: {problem}");
        }
    }
}

/// The address, as clients on this machine use it.
fn url(mut address: SocketAddr) -> String {
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

/// What is open before anybody is listened to.
struct Opened {
    manager: Arc<Manager>,
    certifier: Arc<Certifier>,
    /// The store, when other managers use it, too.
    shared: Option<Arc<Etcd>>,
    first_start: bool,
    /// The manager's name among those.
    name: String,
}

/// Opens all that is kept in the state directory, and makes what is not there.
fn open(config: &Config) -> Result<Opened, ServeError> {
    let directory = &config.state_dir;
    files::make_directory(directory)?;
    let nonce = token::nonce().map_err(|_| ServeError::Random)?;
    let name = format!("{}-{nonce}", machine_name().unwrap_or_else(|| "manager".to_owned()));
    let mut shared = None;
    let store: Arc<dyn Store> = match &config.store {
        StoreAddress::Embedded => {
            Arc::new(Embedded::open(&directory.join("manager.redb"), Limits::default())?)
        }
        StoreAddress::Etcd(address) => {
            let runtime = tokio::runtime::Handle::current();
            let store = Arc::new(Etcd::open(address, &config.store_tls, name.clone(), runtime)?);
            shared = Some(Arc::clone(&store));
            store
        }
    };
    let seal_file = config.authority_key.clone().unwrap_or_else(|| directory.join(SEAL_FILE));
    let seal = Seal::open_file(&seal_file)?;
    let now = SystemTime::now();
    let old_key = files::read(&directory.join(CA_KEY_FILE))?;
    let old_certificate = files::read(&directory.join(CA_FILE))?;
    let first = |seal: &Seal| match &old_key {
        Some(key) => StoredAuthority::import(key, old_certificate.as_deref(), seal, now),
        None => StoredAuthority::make(1, seal, now),
    };
    let advertised = config.advertised.clone();
    let opened = Manager::open(store, seal, advertised, first).map_err(|error| match error {
        OpenError::Store(error) => error.into(),
        OpenError::Authority(source) if old_key.is_some() => {
            ServeError::Import { path: directory.join(CA_KEY_FILE), source }
        }
        OpenError::Authority(error) => error.into(),
    });
    let manager = Arc::new(opened?);
    manager.ensure_baseline().map_err(|problem| ServeError::Baseline(Box::new(problem)))?;
    let trust = manager.trust();
    files::write(&directory.join(CA_FILE), trust.bundle().as_bytes(), 0o644)?;
    // Both are of no use any more: one is in the store, sealed, and the other lets nobody in.
    files::remove(&directory.join(CA_KEY_FILE))?;
    files::remove(&directory.join(AGENT_FILE))?;
    let certifier = Arc::new(Certifier::new(names(config), &trust, now)?);
    let first = manager.records.tokens.count(|_| true) == 0;
    if first {
        first_token(&manager, directory)?;
    }
    Ok(Opened { manager, certifier, shared, first_start: first, name })
}

/// Makes the first administrator and keeps the token's secret in a file. The file comes first: were the start cut short
/// after the store, the token would be there and nobody would know it.
fn first_token(manager: &Manager, directory: &Path) -> Result<(), ServeError> {
    let failed = |error: &dyn std::fmt::Display| token_problem(crate::manager::internal(error));
    let secret = token::secret("palisade").map_err(|error| failed(&error))?;
    files::write(&directory.join(ADMIN_FILE), format!("{secret}\n").as_bytes(), 0o600)?;
    let request = Request { caller: None, peer: None, action: "first start".to_owned() };
    let wish = NewToken { name: "admin".to_owned(), role: Some(Role::Admin), ..NewToken::default() };
    let made = manager.add_token(&request, &wish, &secret, SystemTime::now());
    if made.is_err() {
        // Another manager of the same store, which starts at the same time, may have been faster.
        manager.reload()?;
        if manager.records.tokens.count(|token| token.hash == token::hash(&secret)) == 0
            && manager.records.tokens.count(|_| true) > 0
        {
            return Ok(files::remove(&directory.join(ADMIN_FILE))?);
        }
    }
    made.map(drop).map_err(token_problem)
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
    names.extend(machine_name());
    names.extend(config.names.iter().cloned());
    names.sort();
    names.dedup();
    names
}

/// The machine's name, when it is one.
fn machine_name() -> Option<String> {
    let name = files::read(Path::new("/proc/sys/kernel/hostname")).ok()??;
    let name = name.trim();
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
    (!name.is_empty() && name.bytes().all(fits)).then(|| name.to_owned())
}

/// Keeps the server's certificate and the bundle that clients trust as the authorities are, and tells of ends that near.
async fn renew(manager: Arc<Manager>, certifier: Arc<Certifier>, bundle: PathBuf) {
    let mut turns = tokio::time::interval(RENEWAL);
    let mut changes = manager.trust_changes();
    let mut told = std::collections::BTreeMap::new();
    loop {
        let changed = tokio::select! {
            _ = turns.tick() => false,
            changed = changes.changed() => changed.is_ok(),
        };
        let (now, trust) = (SystemTime::now(), manager.trust());
        if let Err(error) = certifier.renew(&trust, now) {
            log::error!("the server certificate cannot be renewed: {error}");
        }
        manager.warn_of_ends(&mut told, now);
        if changed {
            let (path, text) = (bundle.clone(), trust.bundle());
            let written = tokio::task::spawn_blocking(move || files::write(&path, text.as_bytes(), 0o644));
            match written.await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => log::error!("clients do not learn of the authorities: {error}"),
                Err(error) => log::error!("clients do not learn of the authorities: {error}"),
            }
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
            let shown = stream.get_ref().1.peer_certificates().map(|chain| {
                Shown(chain.iter().map(|certificate| certificate.clone().into_owned()).collect())
            });
            let service = service_fn(move |mut request: hyper::Request<Incoming>| {
                request.extensions_mut().insert(Peer(peer));
                if let Some(shown) = &shown {
                    request.extensions_mut().insert(shown.clone());
                }
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
