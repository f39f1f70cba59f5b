//! What can be typed.

use clap::{Parser, Subcommand};

use crate::commands;

/// Shown below the help of every command that can fail in ways scripts tell apart.
const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  refused by the manager, or failed; trace: the packet would not arrive
  2  the command line is wrong
  3  the manager cannot be reached
  4  --wait: accepted, but a host has not realised it

Environment of the client commands:
  PALISADE_URL, PALISADE_CA, PALISADE_TOKEN, PALISADE_TOKEN_FILE   where the manager is and how to be let in
  PALISADE_JOIN_TOKEN  what `join` joins with
  PALISADE_STATE_DIR   on the manager's machine: where these four are found when not given
  NO_COLOR             no colours, whatever the value
  RUST_LOG             which log lines `up`, `manager` and `agent` write to stderr";

/// One gate in front of every virtual NIC.
#[derive(Debug, Parser)]
#[command(name = "palisade", version, about, after_help = EXIT_CODES, max_term_width = 110)]
#[command(propagate_version = false, disable_help_subcommand = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    /// Which log lines to write to stderr: error, warn, info, debug, trace, or as RUST_LOG has it
    #[arg(long, global = true, value_name = "LEVEL")]
    pub(crate) log_level: Option<String>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands, in the order of `--help`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Up(commands::up::Args),
    Manager(commands::manager::Args),
    Agent(commands::agent::Args),
    Join(commands::join::Args),
    Apply(commands::apply::Args),
    Get(commands::get::Args),
    Hosts(commands::hosts::Args),
    Describe(commands::describe::Args),
    Delete(commands::delete::Args),
    Watch(commands::watch::Args),
    Trace(commands::trace::Args),
    Why(commands::why::Args),
    Flows(commands::flows::Args),
    #[command(subcommand)]
    Port(commands::port::Command),
    Managers(commands::managers::Args),
    #[command(subcommand)]
    User(commands::user::Command),
    #[command(subcommand)]
    Token(commands::token::Command),
    #[command(subcommand)]
    JoinToken(commands::join_token::Command),
    #[command(subcommand)]
    Authority(commands::authority::Command),
    Audit(commands::audit::Args),
    Backup(commands::backup::Backup),
    Restore(commands::backup::Restore),
    Completions(commands::completions::Args),
    Version(commands::version::Args),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_and_argument_has_a_help_text() {
        fn check(command: &clap::Command) {
            assert!(command.get_about().is_some(), "{}", command.get_name());
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{} {}", command.get_name(), argument.get_id());
            }
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }
}
