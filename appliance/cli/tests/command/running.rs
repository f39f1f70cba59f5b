//! Running the binary: client commands, and services that say `ready`.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread::JoinHandle;

use serde_json::Value;

/// What a command printed and how it ended.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Done {
    /// Its standard output; panics when it failed.
    #[track_caller]
    pub(crate) fn good(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.out
    }

    /// What it said on standard error; panics when it did not end with `code`.
    #[track_caller]
    pub(crate) fn bad(self, code: i32) -> String {
        assert_eq!(self.code, code, "{self:?}");
        assert!(!self.err.contains("panicked"), "{self:?}");
        self.err
    }
}

impl From<Output> for Done {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// The binary, without this machine's environment.
pub(crate) fn palisade(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_palisade"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PALISADE_")) {
        command.env_remove(name);
    }
    command.env_remove("RUST_LOG").env("PALISADE_STATE_DIR", "/nonexistent").args(arguments);
    command
}

/// Runs a command to its end.
pub(crate) fn run(arguments: &[&str]) -> Done {
    palisade(arguments).output().expect("runs").into()
}

/// A service: `up`, `manager` or `agent`, with directories of its own. Killed when dropped.
pub(crate) struct Service {
    child: Child,
    output: String,
    errors: Option<JoinHandle<String>>,
    dir: PathBuf,
}

impl Service {
    /// Starts it in `dir` and waits until it says `ready`.
    #[track_caller]
    pub(crate) fn start(dir: &Path, arguments: &[&str]) -> Self {
        let mut service = Self::spawn(dir, arguments);
        let stdout = service.child.stdout.take().expect("a pipe");
        let mut lines = BufReader::new(stdout).lines();
        while service.output.lines().last() != Some("ready") {
            match lines.next() {
                Some(line) => service.output.push_str(&(line.expect("text") + "\n")),
                None => {
                    let errors = service.errors();
                    panic!("it ended before it was ready:\n{}{errors}", service.output);
                }
            }
        }
        service
    }

    /// Starts what is going to fail, and waits for its end.
    pub(crate) fn fails(dir: &Path, arguments: &[&str]) -> Done {
        let mut service = Self::spawn(dir, arguments);
        let mut out = String::new();
        let mut stdout = service.child.stdout.take().expect("a pipe");
        stdout.read_to_string(&mut out).expect("text");
        let code = service.child.wait().expect("ends").code().unwrap_or(-1);
        Done { code, out, err: service.errors() }
    }

    fn spawn(dir: &Path, arguments: &[&str]) -> Self {
        let mut command = palisade(arguments);
        command.env("PALISADE_STATE_DIR", dir.join("state")).env("PALISADE_RUN_DIR", dir.join("run"));
        command.env("PALISADE_LISTEN", "127.0.0.1:0").env("PALISADE_HOST", "host-a");
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts");
        let mut stderr = child.stderr.take().expect("a pipe");
        // Read as it comes: a full pipe would stop the service.
        let errors = std::thread::spawn(move || {
            let mut errors = String::new();
            let _ = stderr.read_to_string(&mut errors);
            errors
        });
        Self { child, output: String::new(), errors: Some(errors), dir: dir.to_owned() }
    }

    /// What it printed until it was ready.
    pub(crate) fn output(&self) -> &str {
        &self.output
    }

    /// The state directory.
    pub(crate) fn state(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// A client command, with nothing but the state directory to find the manager by.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = palisade(arguments);
        command.env("PALISADE_STATE_DIR", self.state()).env("PALISADE_RUN_DIR", self.dir.join("run"));
        command
    }

    /// Runs a client command.
    pub(crate) fn run(&self, arguments: &[&str]) -> Done {
        self.command(arguments).output().expect("runs").into()
    }

    /// Runs a client command with text on its standard input.
    pub(crate) fn run_with(&self, arguments: &[&str], input: &str) -> Done {
        let mut command = self.command(arguments);
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("starts");
        let mut stdin = child.stdin.take().expect("a pipe");
        stdin.write_all(input.as_bytes()).expect("is read");
        drop(stdin);
        child.wait_with_output().expect("ends").into()
    }

    /// A client command's JSON.
    #[track_caller]
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let text = self.run(&[arguments, &["-o", "json"]].concat()).good();
        serde_json::from_str(&text).expect("JSON")
    }

    /// Applies YAML that has to be accepted and realised.
    #[track_caller]
    pub(crate) fn apply(&self, yaml: &str) {
        self.run_with(&["apply", "-f", "-", "--wait"], yaml).good();
    }

    /// Asks it to stop as `kill` does, and waits. Says how it ended and what it logged.
    pub(crate) fn stop(&mut self, signal: &str) -> (ExitStatus, String) {
        let id = self.child.id().to_string();
        let killed = Command::new("kill").args([&format!("-{signal}"), &id]).status().expect("kill runs");
        assert!(killed.success());
        let status = self.child.wait().expect("ends");
        (status, self.errors())
    }

    fn errors(&mut self) -> String {
        self.errors.take().map(|thread| thread.join().expect("reads")).unwrap_or_default()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
