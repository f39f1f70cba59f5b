//! `palisade token`

use std::time::Duration;

use clap::Subcommand;
use mgmt_types::{NewToken, Role};

use crate::commands::user::role;
use crate::connection::ConnectionArgs;
use crate::failure::Failure;
use crate::output::{self, OutputArgs};

/// Manage the tokens that users are let in with
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Create(Create),
    List(List),
    Delete(Delete),
}

/// Make a token and print its secret, once
///
/// It is of a user that there is, or with --role of one that is made with it and named like it.
#[derive(Debug, clap::Args)]
pub(crate) struct Create {
    /// Name of the token
    name: String,
    /// Whose token it is: the author of changes made with it
    #[arg(long, value_name = "USER", conflicts_with = "role", required_unless_present = "role")]
    user: Option<String>,
    /// What its holder may do: everything; change resources; read
    #[arg(long, value_parser = role(), value_name = "ROLE")]
    role: Option<Role>,
    /// For how long it is valid, such as 12h or 90d [default: for ever]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    expires: Option<Duration>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// Show all tokens, without their secrets
#[derive(Debug, clap::Args)]
pub(crate) struct List {
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// Delete a token: its holder is no longer let in
#[derive(Debug, clap::Args)]
pub(crate) struct Delete {
    /// Name of the token
    name: String,
    #[command(flatten)]
    connection: ConnectionArgs,
}

pub(crate) async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Create(args) => {
            let wish = NewToken {
                name: args.name,
                user: args.user,
                role: args.role,
                expires_in: args.expires.map(|life| life.as_secs()),
            };
            let token = args.connection.client()?.create_token_as(&wish).await?;
            // The secret alone on stdout, so that it can go straight to a file.
            output::remark(&format!(
                "token {} of user {} with role {}; it is not shown again:",
                token.name, token.user, token.role
            ));
            output::result(args.output.format, &token, || format!("{}\n", token.secret))
        }
        Command::List(args) => {
            let tokens = args.connection.client()?.tokens().await?;
            output::list(args.output.format, &tokens, || {
                let row = |token: &mgmt_types::TokenInfo| {
                    let expires = token.expires.clone().unwrap_or_else(|| "never".to_owned());
                    let (role, created) = (token.role.to_string(), token.created.clone());
                    vec![token.name.clone(), token.user.clone(), role, created, expires].into()
                };
                let header = ["NAME", "USER", "ROLE", "CREATED", "EXPIRES"];
                output::table(&header, tokens.iter().map(row).collect())
            })
        }
        Command::Delete(args) => {
            args.connection.client()?.delete_token(&args.name).await?;
            output::print(&format!("token {} deleted\n", args.name))
        }
    }
}
