//! Directories of one test, and names that no other test uses.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};

/// A directory that is removed at the end, or kept and named when `PALISADE_KEEP` is set.
///
/// It lives in the system's temporary directory because a unix socket's path has at most 107 bytes.
#[derive(Debug)]
pub struct Scratch {
    dir: Option<tempfile::TempDir>,
    path: PathBuf,
}

impl Scratch {
    /// Makes an empty directory.
    ///
    /// # Errors
    /// When the temporary directory is not writable.
    pub fn new(name: &str) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix(&format!("palisade-{name}-")).tempdir()?;
        let path = dir.path().to_owned();
        Ok(Self { dir: Some(dir), path })
    }

    /// Where the directory is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path inside the directory.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if std::env::var_os("PALISADE_KEEP").is_some()
            && let Some(dir) = self.dir.take()
        {
            let _ = dir.keep();
        }
    }
}

/// A name of at most 15 bytes that no other test on this machine uses now: an interface's name has no more.
pub fn unique(prefix: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{prefix}{:x}-{n:x}", std::process::id())
}

/// Cargo's target directory: the running program lies in one.
///
/// # Errors
/// When it does not.
pub fn target_dir() -> Result<PathBuf> {
    let exe = std::env::current_exe()?;
    // Cargo marks the directory so that backups leave it out.
    let marked = exe.ancestors().find(|dir| dir.join("CACHEDIR.TAG").exists());
    Ok(marked.with_context(|| format!("{exe:?} lies in no cargo target directory"))?.to_owned())
}

/// A directory for what is expensive to make and the same for all tests, beside the build.
///
/// # Errors
/// When it cannot be made.
pub fn cache_dir() -> Result<PathBuf> {
    let dir = target_dir()?.join("e2e-cache");
    std::fs::create_dir_all(&dir).with_context(|| format!("{dir:?}"))?;
    Ok(dir)
}
