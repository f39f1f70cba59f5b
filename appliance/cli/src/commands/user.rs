//! `palisade user`

use clap::Subcommand;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use mgmt_types::{Role, User};

use crate::connection::ConnectionArgs;
use crate::failure::Failure;
use crate::output::{self, OutputArgs};

/// Manage the people and programs that are let in
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Create(Create),
    Change(Change),
    List(List),
    Delete(Delete),
}

/// Make a user, without tokens: `palisade token create NAME --user USER` makes one
#[derive(Debug, clap::Args)]
pub(crate) struct Create {
    /// Name of the user; the author of changes
    name: String,
    /// What the user may do: everything; change resources; read
    #[arg(long, value_parser = role(), value_name = "ROLE")]
    role: Role,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// Give a user another role, at once for all its tokens
#[derive(Debug, clap::Args)]
pub(crate) struct Change {
    /// Name of the user
    name: String,
    /// What the user may do from now on
    #[arg(long, value_parser = role(), value_name = "ROLE")]
    role: Role,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// Show all users
#[derive(Debug, clap::Args)]
pub(crate) struct List {
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// Delete a user with all its tokens: it is no longer let in
#[derive(Debug, clap::Args)]
pub(crate) struct Delete {
    /// Name of the user
    name: String,
    #[command(flatten)]
    connection: ConnectionArgs,
}

pub(crate) async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Create(args) => {
            let user = args.connection.client()?.create_user(&args.name, args.role).await?;
            output::print(&format!("user {} created with role {}\n", user.name, user.role))
        }
        Command::Change(args) => {
            let user = args.connection.client()?.change_user(&args.name, args.role).await?;
            output::print(&format!("user {} has role {}\n", user.name, user.role))
        }
        Command::List(args) => {
            let users = args.connection.client()?.users().await?;
            output::list(args.output.format, &users, || {
                let row = |user: &User| {
                    let tokens = user.tokens.to_string();
                    vec![user.name.clone(), user.role.to_string(), tokens, user.created.clone()].into()
                };
                output::table(&["NAME", "ROLE", "TOKENS", "CREATED"], users.iter().map(row).collect())
            })
        }
        Command::Delete(args) => {
            args.connection.client()?.delete_user(&args.name).await?;
            output::print(&format!("user {} deleted\n", args.name))
        }
    }
}

/// A role that users can have.
pub(crate) fn role() -> impl TypedValueParser<Value = Role> {
    PossibleValuesParser::new(["admin", "operator", "viewer"]).try_map(|word| word.parse::<Role>())
}
