//! Huge pages for the generator and the DPDK peers, on a mount of the bench's own.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::process::output;

const POOL: &str = "/proc/sys/vm/nr_hugepages";

/// Size of one page of the pool, in MiB.
const PAGE_MIB: u64 = 2;

/// A hugetlbfs mount and the pages added to the machine's pool for it. Both are given back when dropped.
#[derive(Debug)]
pub(crate) struct Hugepages {
    mount: PathBuf,
    added: u64,
}

impl Hugepages {
    /// Adds `mib` to the pool and mounts it at `work`/huge.
    pub(crate) fn reserve(work: &Path, mib: u64) -> Result<Hugepages> {
        let before = pool()?;
        let wanted = mib / PAGE_MIB;
        fs::write(POOL, (before + wanted).to_string()).context("reserve huge pages (root needed)")?;
        let added = pool()?.saturating_sub(before);
        let mount = work.join("huge");
        let mut pages = Hugepages { mount: PathBuf::new(), added };
        ensure!(added >= wanted, "{added} huge pages of {wanted} could be had: free some memory");
        fs::create_dir_all(&mount)?;
        output(&["mount", "-t", "hugetlbfs", "-o", "pagesize=2M", "none", path(&mount)?])?;
        pages.mount = mount;
        Ok(pages)
    }

    /// The directory for DPDK's `--huge-dir`.
    pub(crate) fn directory(&self) -> &Path {
        &self.mount
    }

    /// Removes what processes left in the mount, so that the next one finds all pages free.
    pub(crate) fn clear(&self) -> Result<()> {
        for entry in fs::read_dir(&self.mount)? {
            fs::remove_file(entry?.path())?;
        }
        Ok(())
    }
}

impl Drop for Hugepages {
    fn drop(&mut self) {
        if !self.mount.as_os_str().is_empty() {
            let _ = self.clear();
            let _ = output(&["umount".as_ref(), self.mount.as_os_str()]);
        }
        if let Ok(now) = pool() {
            let _ = fs::write(POOL, now.saturating_sub(self.added).to_string());
        }
    }
}

fn pool() -> Result<u64> {
    Ok(fs::read_to_string(POOL)?.trim().parse()?)
}

/// A path of the bench's own making, as text.
pub(crate) fn path(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{}: not UTF-8", path.display()))
}
