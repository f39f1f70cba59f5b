//! What the agent keeps on disk: the last slice and the TAP devices it made.
//!
//! ```text
//! <state-dir>/agent/lock           held while an agent runs
//! <state-dir>/agent/slice.json     {"version": 1, "content": <Slice>}
//! <state-dir>/agent/devices.json   {"version": 1, "content": [{"device", "netns"}]}
//! ```
//! A file is replaced whole: written beside, synced, renamed, and the directory synced. After a power
//! cut either the old or the new content is there.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use mgmt_types::agent::Slice;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Version of the files' layout.
const VERSION: u32 = 1;

const SLICE: &str = "slice.json";
const DEVICES: &str = "devices.json";

/// The agent's directory, held by this process alone.
#[derive(Debug)]
pub(crate) struct StateDir {
    path: PathBuf,
    _lock: File,
}

/// A TAP device this agent made.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct MadeDevice {
    /// Name of the device.
    pub(crate) device: String,
    /// Its namespace, as the port names it.
    pub(crate) netns: Option<String>,
}

/// The state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Another agent runs on this directory.
    #[error("{} is in use by another agent; stop it or choose another --state-dir", .0.display())]
    InUse(PathBuf),
    /// A file or directory could not be read or written.
    #[error("{}: {source}", .path.display())]
    Io {
        /// What was read or written.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// What was found in a file.
#[derive(Debug, PartialEq)]
pub(crate) enum Found<T> {
    /// Content of a version we know.
    Content(T),
    /// No file.
    Nothing,
    /// Something unreadable; it was renamed aside. Says what and where to.
    Corrupt(String),
}

impl StateDir {
    /// Opens, and makes when needed, `<state_dir>/agent`.
    pub(crate) fn open(state_dir: &Path) -> Result<Self, StateError> {
        let path = state_dir.join("agent");
        let io_error = |path: &Path| {
            let path = path.to_path_buf();
            move |source| StateError::Io { path, source }
        };
        fs::create_dir_all(&path).map_err(io_error(&path))?;
        // What is kept tells who talks to whom: the owner's business only.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).map_err(io_error(&path))?;
        let lock_path = path.join("lock");
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(io_error(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path, _lock: lock }),
            Err(fs::TryLockError::WouldBlock) => Err(StateError::InUse(path)),
            Err(fs::TryLockError::Error(source)) => Err(StateError::Io { path: lock_path, source }),
        }
    }

    /// The slice kept by the last run.
    pub(crate) fn slice(&self) -> Found<Slice> {
        self.read(SLICE)
    }

    /// Keeps a slice for the next start.
    pub(crate) fn keep_slice(&self, slice: &Slice) -> Result<(), StateError> {
        self.write(SLICE, slice)
    }

    /// The devices made by earlier runs.
    pub(crate) fn devices(&self) -> Found<Vec<MadeDevice>> {
        self.read(DEVICES)
    }

    /// Keeps the list of devices we made.
    pub(crate) fn keep_devices(&self, devices: &[MadeDevice]) -> Result<(), StateError> {
        self.write(DEVICES, devices)
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> Found<T> {
        let path = self.path.join(name);
        let problem = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Found::Nothing,
            Err(error) => error.to_string(),
            Ok(bytes) => match parse(&bytes) {
                Ok(content) => return Found::Content(content),
                Err(problem) => problem,
            },
        };
        let aside = path.with_extension("json.corrupt");
        let kept = match fs::rename(&path, &aside) {
            Ok(()) => format!("kept as {}", aside.display()),
            Err(error) => format!("and it could not be renamed: {error}"),
        };
        Found::Corrupt(format!("{}: {problem}; {kept}", path.display()))
    }

    fn write<T: Serialize + ?Sized>(&self, name: &str, content: &T) -> Result<(), StateError> {
        let path = self.path.join(name);
        let beside = path.with_extension("json.new");
        let write = || -> io::Result<()> {
            let mut file = File::create(&beside)?;
            file.write_all(&serde_json::to_vec(&Kept { version: VERSION, content })?)?;
            file.sync_all()?;
            fs::rename(&beside, &path)?;
            File::open(&self.path)?.sync_all()
        };
        write().map_err(|source| StateError::Io { path: path.clone(), source })
    }
}

#[derive(Serialize)]
struct Kept<'a, T: ?Sized> {
    version: u32,
    content: &'a T,
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
        content: serde_json::Value,
    }
    let file: Versioned = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if file.version != VERSION {
        return Err(format!("version {} is not {VERSION}", file.version));
    }
    serde_json::from_value(file.content).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn devices() -> Vec<MadeDevice> {
        vec![MadeDevice { device: "tap0".into(), netns: Some("blue".into()) }]
    }

    fn scratch() -> (tempfile::TempDir, StateDir) {
        let dir = tempfile::tempdir().expect("a directory");
        let state = StateDir::open(dir.path()).expect("opens");
        (dir, state)
    }

    #[test]
    fn what_was_kept_is_found_again() {
        let (_dir, state) = scratch();
        assert_eq!(state.devices(), Found::Nothing);
        state.keep_devices(&devices()).expect("kept");
        assert_eq!(state.devices(), Found::Content(devices()));
    }

    #[test]
    fn a_corrupt_file_is_renamed_aside_and_named() {
        let (dir, state) = scratch();
        for content in
            [&b"{\"version\": 1, \"content\""[..], b"", b"\xff\xfe", b"{\"version\":1,\"content\":3}"]
        {
            fs::write(dir.path().join("agent/devices.json"), content).expect("written");
            let Found::Corrupt(text) = state.devices() else { panic!("{content:?} was accepted") };
            assert!(text.contains("devices.json.corrupt"), "{text}");
            assert_eq!(fs::read(dir.path().join("agent/devices.json.corrupt")).expect("kept"), content);
            assert_eq!(state.devices(), Found::Nothing);
        }
    }

    #[test]
    fn a_version_of_the_future_is_not_misread() {
        let (dir, state) = scratch();
        fs::write(dir.path().join("agent/devices.json"), b"{\"version\":2,\"content\":[]}").expect("written");
        let Found::Corrupt(text) = state.devices() else { panic!("accepted") };
        assert!(text.contains("version 2 is not 1"), "{text}");
    }

    #[test]
    fn a_second_agent_on_the_same_directory_is_refused() {
        let (dir, state) = scratch();
        let error = StateDir::open(dir.path()).expect_err("in use");
        assert!(matches!(error, StateError::InUse(_)), "{error}");
        drop(state);
        StateDir::open(dir.path()).expect("free again");
    }
}
