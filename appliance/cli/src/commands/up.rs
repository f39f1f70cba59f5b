//! `palisade up`: manager and agent of one machine in one process.
//!
//! On a machine that was up before, the agent comes first: guests wait for it, and it needs no manager to forward.

use std::path::Path;
use std::time::Duration;

use ::manager::Running;
use agent::{Handle, Source, identity};
use mgmt_client::{Client, Endpoint};
use mgmt_types::{Kind, ProblemKind, Resource};
use tokio::time::{Instant, sleep};

use crate::commands::manager::ManagerArgs;
use crate::commands::{agent as host_agent, manager};
use crate::directories::{self, StateDir};
use crate::failure::Failure;
use crate::host::HostArgs;
use crate::output;
use crate::stop::Stop;

/// How long the host may take to follow its manager before it is called ready all the same.
const FOLLOW: Duration = Duration::from_secs(10);
/// The pause between two looks at how far it is.
const LOOK: Duration = Duration::from_millis(20);

/// Run manager and data plane on this machine, until SIGTERM or SIGINT
///
/// The first start makes a certificate authority and an administrator's token, which is printed once. The line `ready`
/// says that the API answers and the data plane forwards.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    state_dir: StateDir,
    #[command(flatten)]
    manager: ManagerArgs,
    #[command(flatten)]
    host: HostArgs,
}

pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let mut stop = Stop::new()?;
    let host = args.host.name()?;
    let state_dir = &args.state_dir.absolute()?;

    // Without an authority there was no start before: nobody waits for the agent yet.
    let early = match kept_url(state_dir, &args.manager) {
        Some(url) => Some(start_agent(&args, &host, state_dir, url).await?),
        None => None,
    };
    let running = manager::start(state_dir, &args.manager).await?;
    join(&running, &host, state_dir).await?;
    let agent = match early {
        Some(agent) => agent,
        None => start_agent(&args, &host, state_dir, running.url()).await?,
    };

    // An administrator may keep the token elsewhere; then nobody here can ask how far the host is.
    let admin = match read(&running.admin_token_file()) {
        Ok(token) => Some(Endpoint { url: running.url(), token, ca_pem: read(&running.ca_file())? }),
        Err(_) => None,
    };
    output::print(&manager::greeting(&running, Some(&host))?)?;
    tokio::select! {
        followed = follows(admin.as_ref(), &host, &agent) => {
            if let Err(why) = followed {
                log::warn!("host {host} has not followed its manager yet: {why}");
            }
            output::print("ready\n")?;
            log::info!("{}: stopping", stop.asked().await);
        }
        signal = stop.asked() => log::info!("{signal}: stopping"),
    }
    // The manager last, so that it learns how the host ended.
    host_agent::stop(agent).await;
    running.stop().await;
    Ok(())
}

async fn start_agent(args: &Args, host: &str, state_dir: &Path, url: String) -> Result<Handle, Failure> {
    let source = Source::Managers(vec![url]);
    host_agent::start(args.host.config(host.to_owned(), state_dir, source)?).await
}

/// Where the manager will be, when it ran before and that can be known before it runs.
fn kept_url(state_dir: &Path, args: &ManagerArgs) -> Option<String> {
    let mut address = args.listen;
    if address.port() == 0 || !directories::ca(state_dir).exists() {
        return None;
    }
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            std::net::SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            std::net::SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    Some(format!("https://{address}"))
}

/// Makes this machine a host of its own manager, unless it is one that the manager knows. An agent that runs already finds
/// what is left for it.
async fn join(running: &Running, host: &str, state_dir: &Path) -> Result<(), Failure> {
    let kept = identity::load(state_dir).unwrap_or_else(|error| {
        log::warn!("{error}");
        None
    });
    if kept.is_some_and(|kept| kept.host() == host && running.knows(host, &kept.credentials.certificate)) {
        return Ok(());
    }
    let failed = |error: &dyn std::fmt::Display| Failure::new(format!("host {host} cannot join: {error}"));
    let token = running.join_token(host).await.map_err(|problem| failed(&problem))?;
    let joined = mgmt_client::join(&[running.url()], &token, host, None).await;
    let joined = joined.map_err(|error| failed(&error))?;
    identity::keep(state_dir, &joined).map_err(|error| failed(&error))
}

fn read(path: &Path) -> Result<String, Failure> {
    let text = std::fs::read_to_string(path);
    text.map(|text| text.trim().to_owned())
        .map_err(|error| Failure::new(format!("{}: {error}", path.display())))
}

/// Waits until the manager knows the host and the host forwards by what the manager wants of it.
async fn follows(admin: Option<&Endpoint>, host: &str, agent: &Handle) -> Result<(), String> {
    let Some(admin) = admin else { return Ok(()) };
    let client = Client::connect(admin).map_err(|error| error.to_string())?;
    let end = Instant::now() + FOLLOW;
    loop {
        let why = match client.get(Kind::Host, host).await {
            Ok(Resource::Host(found)) => match found.status {
                Some(status) if status.connected && agent.status().revision >= status.wanted => return Ok(()),
                Some(status) => status.error.unwrap_or_else(|| "it is behind".to_owned()),
                None => "it has not spoken".to_owned(),
            },
            Err(error) if is_refused(&error) => return Ok(()),
            Ok(_) => "the manager does not know it".to_owned(),
            Err(error) => error.to_string(),
        };
        if Instant::now() >= end {
            return Err(why);
        }
        sleep(LOOK).await;
    }
}

/// True when the token is no longer one that may ask.
fn is_refused(error: &mgmt_client::Error) -> bool {
    let may_not = [ProblemKind::Unauthenticated, ProblemKind::Forbidden];
    error.problem().is_some_and(|problem| may_not.iter().any(|kind| problem.is(*kind)))
}
