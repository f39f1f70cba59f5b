//! Network namespaces, named as `ip netns` names them or by path.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A namespace could not be entered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NetnsError {
    /// There is no such file: the namespace does not exist yet, or no longer.
    #[error("network namespace {} does not exist", .path.display())]
    Missing {
        /// The file that was looked for.
        path: PathBuf,
    },
    /// The file is there but is no namespace, or we may not enter it.
    #[error("cannot enter network namespace {}: {source}", .path.display())]
    Enter {
        /// The file that was opened.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// No thread could be started to enter the namespace with.
    #[error("cannot start a thread for a network namespace: {0}")]
    Thread(std::io::Error),
}

/// The file of a namespace: a path as it is, a bare name under `/run/netns`.
pub(crate) fn path_of(netns: &str) -> PathBuf {
    if netns.contains('/') { PathBuf::from(netns) } else { Path::new("/run/netns").join(netns) }
}

/// Runs `work` on a thread of its own that lives in `netns` (`None`: our own namespace).
///
/// Sockets and devices opened by `work` belong to the namespace and stay usable from every thread;
/// only the helper thread ever changes its namespace, and it ends here.
pub(crate) fn inside<T: Send>(netns: Option<&str>, work: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
    let Some(netns) = netns else { return Ok(work()) };
    let path = path_of(netns);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => {
            return Err(NetnsError::Missing { path });
        }
        Err(source) => return Err(NetnsError::Enter { path, source }),
    };
    std::thread::scope(|scope| {
        let helper = std::thread::Builder::new().name("pal-netns".into()).spawn_scoped(scope, || {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                .map_err(|errno| NetnsError::Enter { path: path.clone(), source: errno.into() })?;
            Ok(work())
        });
        match helper {
            Ok(helper) => helper.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            Err(source) => Err(NetnsError::Thread(source)),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_name_lies_under_run_netns_and_a_path_stays() {
        assert_eq!(path_of("blue"), Path::new("/run/netns/blue"));
        assert_eq!(path_of("/proc/7/ns/net"), Path::new("/proc/7/ns/net"));
    }

    #[test]
    fn a_missing_namespace_is_told_apart_from_other_errors() {
        let error = inside(Some("no-such-namespace-here"), || ()).expect_err("there is none");
        assert!(matches!(error, NetnsError::Missing { .. }), "{error}");
    }

    #[test]
    fn work_without_a_namespace_runs_in_place() {
        let here = std::thread::current().id();
        assert_eq!(inside(None, || std::thread::current().id()).expect("runs"), here);
    }
}
