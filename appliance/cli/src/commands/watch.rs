//! `palisade watch`

use std::time::Duration;

use mgmt_client::Client;
use mgmt_types::Revision;
use tokio::time::sleep;

use crate::connection::ConnectionArgs;
use crate::failure::Failure;
use crate::output::{self, Format};

/// The pause before a broken stream is taken up again.
const PAUSE: Duration = Duration::from_secs(1);

/// Follow changes as they are made, until interrupted
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Begin after this revision instead of now
    #[arg(long, value_name = "REVISION")]
    from: Option<u64>,
    /// End after this many revisions
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// How to write results; JSON is one line for each revision
    #[arg(short = 'o', long = "output", value_enum, default_value_t, value_name = "FORMAT")]
    format: Format,
    #[command(flatten)]
    connection: ConnectionArgs,
}

pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let client = args.connection.client()?;
    let mut seen = args.from;
    let mut left = args.limit;
    let mut was_connected = false;
    loop {
        let Err(error) = follow(&client, args.format, &mut seen, &mut left, &mut was_connected).await? else {
            return Ok(());
        };
        // A manager that was never reached is more likely a wrong URL than a restart.
        if !was_connected || !error.is_unreachable() {
            return Err(error.into());
        }
        output::remark(&format!("{error}; trying again"));
        sleep(PAUSE).await;
    }
}

/// One stream until it breaks (the inner error) or enough was seen.
async fn follow(
    client: &Client,
    format: Format,
    seen: &mut Option<u64>,
    left: &mut Option<u64>,
    was_connected: &mut bool,
) -> Result<Result<(), mgmt_client::Error>, Failure> {
    if *left == Some(0) {
        return Ok(Ok(()));
    }
    let mut revisions = match client.watch(*seen).await {
        Ok(revisions) => revisions,
        Err(error) => return Ok(Err(error)),
    };
    *was_connected = true;
    loop {
        let revision = match revisions.next().await {
            Some(Ok(revision)) => revision,
            Some(Err(error)) => return Ok(Err(error)),
            None => {
                let reason = "the manager ended the stream".to_owned();
                return Ok(Err(mgmt_client::Error::Broken { url: client.url().to_owned(), reason }));
            }
        };
        *seen = Some(revision.revision);
        match format {
            Format::Table => output::print(&text(&revision))?,
            Format::Json => output::json_line(&revision)?,
            Format::Yaml => {
                output::list(Format::Yaml, &[&revision], String::new).and_then(|()| output::print("---\n"))?
            }
        }
        if let Some(left) = left {
            *left = left.saturating_sub(1);
            if *left == 0 {
                return Ok(Ok(()));
            }
        }
    }
}

fn text(revision: &Revision) -> String {
    let Revision { revision, time, author, changes, .. } = revision;
    let mut text = format!("revision {revision}  {time}  by {author}\n");
    for change in changes {
        text.push_str(&format!("  {}/{} {}\n", change.kind, change.name, change.change));
    }
    text
}
