//! `palisade authority`

use clap::Subcommand;
use mgmt_types::Authority;

use crate::connection::ConnectionArgs;
use crate::failure::Failure;
use crate::output::{self, OutputArgs, Row};

/// Manage the certificate authorities that managers and hosts prove themselves by
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    List(List),
    Rotate(Rotate),
    Retire(Retire),
}

/// Show the authorities that are trusted, oldest first
#[derive(Debug, clap::Args)]
pub(crate) struct List {
    /// Print their certificates, which clients trust: what goes into ca.pem
    #[arg(long)]
    pem: bool,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// Make a new authority beside those there are
///
/// It signs the certificates of hosts from now on, and hosts renew theirs by themselves. Managers prove themselves by the
/// oldest authority until that is retired.
#[derive(Debug, clap::Args)]
pub(crate) struct Rotate {
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// Trust an authority no more
///
/// Clients need the certificate of the next one first: palisade authority list --pem.
#[derive(Debug, clap::Args)]
pub(crate) struct Retire {
    /// Fingerprint of the authority
    fingerprint: String,
    /// Also when hosts have no certificate of a newer one: they have to join again
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    connection: ConnectionArgs,
}

pub(crate) async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::List(args) => {
            let authorities = args.connection.client()?.authorities().await?;
            if args.pem {
                let pem: Vec<&str> = authorities.iter().map(|one| one.certificate.as_str()).collect();
                return output::print(&pem.concat());
            }
            show(&args.output, &authorities)
        }
        Command::Rotate(args) => {
            let authorities = args.connection.client()?.rotate_authority().await?;
            output::remark(
                "give clients the new ca.pem (palisade authority list --pem) before you retire the old one",
            );
            show(&args.output, &authorities)
        }
        Command::Retire(args) => {
            args.connection.client()?.retire_authority(&args.fingerprint, args.force).await?;
            output::print(&format!("authority {} retired\n", args.fingerprint))
        }
    }
}

fn show(output: &OutputArgs, authorities: &[Authority]) -> Result<(), Failure> {
    output::list(output.format, authorities, || {
        let header = ["FINGERPRINT", "NAME", "EXPIRES", "SIGNS", "HOSTS"];
        output::table(&header, authorities.iter().map(row).collect())
    })
}

fn row(authority: &Authority) -> Row {
    let signs = match (authority.signs_managers, authority.signs_hosts) {
        (true, true) => "managers,hosts",
        (true, false) => "managers",
        (false, true) => "hosts",
        (false, false) => "-",
    };
    let cells = vec![
        authority.fingerprint.clone(),
        authority.name.clone(),
        authority.expires.clone(),
        signs.to_owned(),
        authority.hosts.to_string(),
    ];
    Row { cells, alarm: authority.alarm.is_some() }
}
