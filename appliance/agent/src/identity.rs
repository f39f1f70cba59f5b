//! What makes this machine a host: its key, its certificate and the authorities it trusts.
//!
//! ```text
//! <state-dir>/identity.json   {"version": 1, "content": <Membership>}, for the owner only
//! ```
//! One file, replaced whole, so that key and certificate always belong together.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use mgmt_client::Membership;
use serde::{Deserialize, Serialize};

/// Version of the file's layout.
const VERSION: u32 = 1;
/// The file within the state directory.
const FILE: &str = "identity.json";

#[derive(Serialize, Deserialize)]
struct Kept<T> {
    version: u32,
    content: T,
}

/// The file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// It could not be read or written.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// It holds something else.
    #[error("{}: {reason}; remove it and join again", .path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// What joining left in this state directory; none when the machine did not join.
///
/// # Errors
/// When the file is there and cannot be used.
pub fn load(state_dir: &Path) -> Result<Option<Membership>, IdentityError> {
    let path = state_dir.join(FILE);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(IdentityError::Io { path, source }),
    };
    let wrong = |reason: String| IdentityError::Content { path: path.clone(), reason };
    let kept: Kept<serde_json::Value> =
        serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    if kept.version != VERSION {
        return Err(wrong(format!("version {} is not {VERSION}", kept.version)));
    }
    serde_json::from_value(kept.content).map(Some).map_err(|error| wrong(error.to_string()))
}

/// Keeps what joining or renewing gave, for this and later starts.
///
/// # Errors
/// When the file cannot be written; then the old one is still there.
pub fn keep(state_dir: &Path, membership: &Membership) -> Result<(), IdentityError> {
    let path = state_dir.join(FILE);
    let beside = path.with_extension("json.new");
    let write = || -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(state_dir)?;
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        file.write_all(&serde_json::to_vec(&Kept { version: VERSION, content: membership })?)?;
        file.sync_all()?;
        fs::rename(&beside, &path)?;
        fs::File::open(state_dir)?.sync_all()
    };
    write().map_err(|source| IdentityError::Io { path: path.clone(), source })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn membership() -> Membership {
        let json = r#"{"key":"KEY","managers":["https://a:1"],"credentials":{"host":"host-a","certificate":"PEM",
            "notBefore":1,"notAfter":3,"authority":"00","authorities":["PEM"]}}"#;
        serde_json::from_str(json).expect("reads")
    }

    #[test]
    fn what_was_kept_is_found_again_by_the_owner_only() {
        let dir = tempfile::tempdir().expect("a directory");
        let state = dir.path().join("state");
        assert_eq!(load(&state).expect("nothing is no error"), None);
        for _ in 0..2 {
            keep(&state, &membership()).expect("keeps");
            assert_eq!(load(&state).expect("reads"), Some(membership()));
        }
        let mode = |path: &Path| fs::metadata(path).expect("a mode").permissions().mode() & 0o777;
        assert_eq!((mode(&state), mode(&state.join(FILE))), (0o700, 0o600));
    }

    #[test]
    fn what_cannot_be_read_is_named_and_left_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        for text in ["", "{", r#"{"version":2,"content":{}}"#, r#"{"version":1,"content":{}}"#] {
            fs::write(dir.path().join(FILE), text).expect("writes");
            let error = load(dir.path()).expect_err("it is wrong").to_string();
            assert!(error.contains(FILE) && error.contains("join again"), "{error}");
            assert_eq!(fs::read_to_string(dir.path().join(FILE)).expect("is there"), text);
        }
    }
}
