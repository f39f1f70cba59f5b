//! `palisade manager`, and the manager's part of `palisade up`.

use std::net::SocketAddr;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use manager::{Admission, Config, Running, StoreAddress, StoreTls};

use crate::directories::{self, StateDir};
use crate::failure::Failure;
use crate::output;
use crate::stop::Stop;

/// Run a manager on this machine, until SIGTERM or SIGINT
///
/// The first start makes a certificate authority and an administrator's token, which is printed once.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    state_dir: StateDir,
    #[command(flatten)]
    manager: ManagerArgs,
}

/// The manager of this machine.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Manager")]
pub(crate) struct ManagerArgs {
    /// Address and port to listen on, HTTPS; `0.0.0.0:7470` or `[::]:7470` for other machines
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7470", env = "PALISADE_LISTEN")]
    pub(crate) listen: SocketAddr,
    /// Further name or address that clients use, for the certificate; may be given several times
    #[arg(long = "name", value_name = "NAME")]
    names: Vec<String>,
    /// Connections at once, in all: two for each host, and some for people
    #[arg(long, value_name = "N", default_value_t = Admission::default().connections)]
    connections: usize,
    /// Connections at once of one source; more when many hosts share an address
    #[arg(long, value_name = "N", default_value_t = Admission::default().per_source)]
    connections_per_source: usize,
    /// URL of a manager that hosts are told to try, this one's first; may be given several times
    #[arg(long = "advertise", value_name = "URL")]
    advertised: Vec<String>,
    /// File with the key that seals the authorities' private keys in the store; managers of one store share it
    /// [default: authority.key in the state directory]
    #[arg(long, value_name = "FILE")]
    authority_key: Option<PathBuf>,
    /// Where desired state is kept: redb, a file of this machine; or etcd://HOST:PORT,HOST:PORT/PREFIX, which several
    /// managers may share (etcds:// for TLS)
    #[arg(long, value_name = "STORE", default_value_t, env = "PALISADE_STORE")]
    store: StoreAddress,
    /// PEM file with the authority that signed the certificates of etcd's members
    #[arg(long, value_name = "FILE", env = "PALISADE_STORE_CA")]
    store_ca: Option<PathBuf>,
    /// PEM file with our certificate for etcd
    #[arg(long, value_name = "FILE", requires = "store_key", env = "PALISADE_STORE_CERT")]
    store_cert: Option<PathBuf>,
    /// PEM file with the key of that certificate
    #[arg(long, value_name = "FILE", requires = "store_cert", env = "PALISADE_STORE_KEY")]
    store_key: Option<PathBuf>,
}

pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let mut stop = Stop::new()?;
    let running = start(&args.state_dir.absolute()?, &args.manager).await?;
    output::print(&(greeting(&running, None)? + "ready\n"))?;
    log::info!("{}: stopping", stop.asked().await);
    running.stop().await;
    Ok(())
}

/// Starts a manager in this process.
pub(crate) async fn start(state_dir: &Path, args: &ManagerArgs) -> Result<Running, Failure> {
    let args = args.clone();
    let config = Config {
        state_dir: state_dir.to_owned(),
        listen: args.listen,
        names: args.names,
        admission: Admission { connections: args.connections, per_source: args.connections_per_source },
        advertised: args.advertised,
        authority_key: args.authority_key,
        store: args.store,
        store_tls: StoreTls { ca: args.store_ca, identity: args.store_cert.zip(args.store_key) },
    };
    let listen = config.listen;
    let running = manager::serve(config).await.map_err(|error| refusal(&error, state_dir, listen))?;
    remember(state_dir, &running.url())?;
    Ok(running)
}

/// What a person reads at the start; the administrator's token only the first time.
pub(crate) fn greeting(running: &Running, host: Option<&str>) -> Result<String, Failure> {
    let who = host.map_or_else(String::new, |host| format!(", host {host}"));
    let mut lines = vec![("manager", running.url()), ("authority", running.ca_file().display().to_string())];
    let file = running.admin_token_file();
    if running.is_first_start() {
        let token = std::fs::read_to_string(&file)
            .map_err(|error| Failure::new(format!("{}: {error}", file.display())))?;
        lines
            .push(("admin token", format!("{} (shown this once; kept in {})", token.trim(), file.display())));
        lines.push(("next", "declare networks and workloads: palisade apply -f FILE".to_owned()));
        lines.push(("", "see what there is:              palisade get hosts".to_owned()));
        lines.push(("", "let another machine join:       palisade join-token create".to_owned()));
        lines.push(("", "plug a guest in:                palisade port attach WORKLOAD --qemu".to_owned()));
    }
    Ok(format!("palisade {}{who}\n{}", env!("CARGO_PKG_VERSION"), output::facts(2, &lines)))
}

/// Leaves the manager's URL where client commands on this machine look for it.
fn remember(state_dir: &Path, url: &str) -> Result<(), Failure> {
    use std::io::Write;
    let path = directories::url(state_dir);
    let write = || {
        let mut file =
            std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
        writeln!(file, "{url}")
    };
    write().map_err(|error| Failure::new(format!("{}: {error}", path.display())))
}

/// A start that failed, with what to do about it.
fn refusal(error: &manager::ServeError, state_dir: &Path, listen: SocketAddr) -> Failure {
    use std::io::ErrorKind;
    let advice = match error {
        manager::ServeError::Listen { source, .. } => match source.kind() {
            ErrorKind::AddrInUse => {
                format!(
                    "another process listens on port {}; stop it or choose another with --listen",
                    listen.port()
                )
            }
            ErrorKind::AddrNotAvailable => {
                format!("{} is no address of this machine; choose one with --listen", listen.ip())
            }
            ErrorKind::PermissionDenied => {
                "ports below 1024 need more rights; choose another with --listen".to_owned()
            }
            _ => return Failure::new(error.to_string()),
        },
        _ => format!("the state directory is {}; choose another with --state-dir", state_dir.display()),
    };
    Failure::new(format!("the manager cannot start: {error}\n  {advice}"))
}
