//! `palisade backup` and `palisade restore`

use std::fs::{File, OpenOptions};
use std::io::{BufReader, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::connection::ConnectionArgs;
use crate::failure::Failure;
use crate::output;

/// Copy all that the manager keeps into a file: state, history, hashes of tokens
///
/// The audit log is not in it, nor are files of the state directory. The file is readable by its owner only.
#[derive(Debug, clap::Args)]
pub(crate) struct Backup {
    /// The file; one that is there is replaced when the backup is whole
    file: PathBuf,
    /// Of the store in the state directory of this machine, on which no manager runs
    #[arg(long)]
    offline: bool,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// Put a backup in the place of all that the manager keeps
///
/// Revision numbers go on far above all that were given before, so that every host takes its state anew.
#[derive(Debug, clap::Args)]
pub(crate) struct Restore {
    /// The file
    file: PathBuf,
    /// Also in the place of a state that is newer than the backup
    #[arg(long)]
    force: bool,
    /// Leave the tokens as they are
    #[arg(long)]
    keep_tokens: bool,
    /// Into the state directory of this machine, on which no manager runs
    #[arg(long)]
    offline: bool,
    #[command(flatten)]
    connection: ConnectionArgs,
}

pub(crate) async fn backup(args: Backup) -> Result<(), Failure> {
    let mut name = args.file.clone().into_os_string();
    name.push(".new");
    let fresh = PathBuf::from(name);
    let failed = |error: std::io::Error| Failure::new(format!("{}: {error}", fresh.display()));
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&fresh)
        .map_err(failed)?;
    let done = fill(&args, BufWriter::new(file)).await;
    let done = done.and_then(|()| {
        let file = File::open(&fresh).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        std::fs::rename(&fresh, &args.file).map_err(failed)?;
        file.metadata().map_err(failed)
    });
    match done {
        Ok(metadata) => {
            output::print(&format!("backup in {}, {} bytes\n", args.file.display(), metadata.len()))
        }
        Err(failure) => {
            // What is half of a backup is worth nothing.
            let _ = std::fs::remove_file(&fresh);
            Err(failure)
        }
    }
}

async fn fill(args: &Backup, to: impl Write) -> Result<(), Failure> {
    if args.offline {
        let state_dir = args.connection.state_dir().absolute()?;
        return manager::backup(&state_dir, to).map_err(|error| Failure::new(error.to_string()));
    }
    Ok(args.connection.client()?.backup(to).await?)
}

pub(crate) async fn restore(args: Restore) -> Result<(), Failure> {
    let restored = if args.offline {
        let state_dir = args.connection.state_dir().absolute()?;
        let file = File::open(&args.file).map_err(|error| unreadable(&args.file, &error))?;
        manager::restore(&state_dir, BufReader::new(file), args.force, args.keep_tokens)
            .map_err(|error| Failure::new(error.to_string()))?
    } else {
        let text = std::fs::read(&args.file).map_err(|error| unreadable(&args.file, &error))?;
        args.connection.client()?.restore(text, args.force, args.keep_tokens).await?
    };
    output::print(&format!(
        "restored revision {} of {} as revision {}\n",
        restored.backup_revision, restored.backup_time, restored.revision
    ))
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(format!("{}: {error}", path.display()))
}
