//! `palisade token`

use clap::Subcommand;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use mgmt_types::Role;

use crate::connection::ConnectionArgs;
use crate::failure::Failure;
use crate::output::{self, OutputArgs};

/// Manage the tokens that people and agents are let in with
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Create(Create),
    List(List),
    Delete(Delete),
}

/// Make a token and print its secret, once
#[derive(Debug, clap::Args)]
pub(crate) struct Create {
    /// Name of the token; the author of changes made with it
    name: String,
    /// What its holder may do: everything; change resources; read; or be a host's agent
    #[arg(long, value_parser = role(), value_name = "ROLE")]
    role: Role,
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
            let token = args.connection.client()?.create_token(&args.name, args.role).await?;
            // The secret alone on stdout, so that it can go straight to a file.
            output::remark(&format!("token {} with role {}; it is not shown again:", token.name, token.role));
            output::result(args.output.format, &token, || format!("{}\n", token.secret))
        }
        Command::List(args) => {
            let tokens = args.connection.client()?.tokens().await?;
            output::list(args.output.format, &tokens, || {
                let row = |token: &mgmt_types::TokenInfo| {
                    vec![token.name.clone(), token.role.to_string(), token.created.clone()].into()
                };
                output::table(&["NAME", "ROLE", "CREATED"], tokens.iter().map(row).collect())
            })
        }
        Command::Delete(args) => {
            args.connection.client()?.delete_token(&args.name).await?;
            output::print(&format!("token {} deleted\n", args.name))
        }
    }
}

fn role() -> impl TypedValueParser<Value = Role> {
    PossibleValuesParser::new(["admin", "operator", "viewer", "agent"]).try_map(|word| word.parse::<Role>())
}
