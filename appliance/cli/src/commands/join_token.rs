//! `palisade join-token`

use std::time::Duration;

use clap::Subcommand;
use mgmt_types::{JoinToken, JoinTokenState, Labels, NewJoinToken};

use crate::connection::ConnectionArgs;
use crate::failure::Failure;
use crate::output::{self, OutputArgs, Row};

/// Manage the tokens that machines become hosts with
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Create(Create),
    List(List),
    Revoke(Revoke),
}

/// Make a join token and print it, once
///
/// It is good for one host and one hour unless told otherwise.
#[derive(Debug, clap::Args)]
pub(crate) struct Create {
    /// Name of the token [default: one is made up]
    name: Option<String>,
    /// How many hosts may join with it
    #[arg(long, value_name = "N", default_value_t = 1)]
    uses: u32,
    /// For how long it is valid, such as 30m or 2d; at most 30d
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = humantime::parse_duration)]
    expires: Duration,
    /// Label that the hosts get; may be given several times
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// The only host that may join with it
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
    /// Let the machine take the place of one that joined under its name before
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// Show join tokens, without their secrets; those of the last 30 days too
#[derive(Debug, clap::Args)]
pub(crate) struct List {
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// Revoke a join token: nobody joins with it any more
#[derive(Debug, clap::Args)]
pub(crate) struct Revoke {
    /// Name of the token
    name: String,
    #[command(flatten)]
    connection: ConnectionArgs,
}

pub(crate) async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Create(args) => {
            let wish = NewJoinToken {
                name: args.name,
                uses: Some(args.uses),
                expires_in: Some(args.expires.as_secs()),
                labels: args.labels.into_iter().collect::<Labels>(),
                host: args.host,
                replace: args.replace,
            };
            let client = args.connection.client()?;
            let made = client.create_join_token(&wish).await?;
            // The secret alone on stdout, so that it can go straight to a file.
            output::remark(&format!(
                "join token {} for {} host(s) until {}; it is not shown again:",
                made.token.name, made.token.uses, made.token.expires
            ));
            output::result(args.output.format, &made, || format!("{}\n", made.secret))?;
            output::remark(&format!("on the machine: palisade join {} --token TOKEN", client.url()));
            Ok(())
        }
        Command::List(args) => {
            let tokens = args.connection.client()?.join_tokens().await?;
            output::list(args.output.format, &tokens, || {
                let header = ["NAME", "STATE", "USED", "EXPIRES", "HOST", "LABELS", "AUTHOR"];
                output::table(&header, tokens.iter().map(row).collect())
            })
        }
        Command::Revoke(args) => {
            args.connection.client()?.revoke_join_token(&args.name).await?;
            output::print(&format!("join token {} revoked\n", args.name))
        }
    }
}

fn row(token: &JoinToken) -> Row {
    let labels: Vec<String> = token.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let cells = vec![
        token.name.clone(),
        token.state.as_str().to_owned(),
        format!("{}/{}", token.used, token.uses),
        token.expires.clone(),
        token.host.clone().unwrap_or_else(|| "any".to_owned()),
        output::or_dash(labels.join(",")),
        token.author.clone(),
    ];
    Row { cells, alarm: token.state == JoinTokenState::Revoked }
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("a label is KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}
