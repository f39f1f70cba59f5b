//! `palisade completions`

use clap::CommandFactory;
use clap_complete::Shell;

use crate::args::Cli;
use crate::failure::Failure;
use crate::output;

/// Print a shell's completion script
///
/// bash: `palisade completions bash > /usr/share/bash-completion/completions/palisade`
/// zsh: `palisade completions zsh > "${fpath[1]}/_palisade"`
/// fish: `palisade completions fish > ~/.config/fish/completions/palisade.fish`
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Args {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "palisade", &mut script);
    output::print(&String::from_utf8_lossy(&script))
}
