//! Palisade itself, started and configured as a user would.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::process::{Process, run};

/// How long `palisade up` may take to say that it is ready.
const START: Duration = Duration::from_secs(30);

/// How its workers wait for frames.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Poll {
    Always,
    Adaptive,
}

/// `palisade up` with a fresh state directory.
#[derive(Debug)]
pub(crate) struct Palisade {
    process: Process,
    binary: PathBuf,
    run_directory: PathBuf,
    environment: Vec<(&'static str, OsString)>,
    resources: PathBuf,
}

impl Palisade {
    /// Starts it in `work` with the workers on `worker_cpus` and all other threads on `control_cpus`, and with
    /// `further` options.
    pub(crate) fn start(
        work: &Path,
        control_cpus: Option<&str>,
        workers: u32,
        worker_cpus: &str,
        poll: Poll,
        further: &[String],
    ) -> Result<Palisade> {
        let binary = binary()?;
        let state = work.join("state");
        let run_directory = work.join("run");
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let listen = format!("127.0.0.1:{port}");
        let workers = workers.to_string();
        let poll = match poll {
            Poll::Always => "always",
            Poll::Adaptive => "adaptive",
        };
        let mut argv: Vec<&OsStr> = vec![
            binary.as_os_str(),
            "up".as_ref(),
            "--state-dir".as_ref(),
            state.as_os_str(),
            "--run-dir".as_ref(),
            run_directory.as_os_str(),
            "--listen".as_ref(),
            listen.as_ref(),
            "--host".as_ref(),
            "bench".as_ref(),
            "--workers".as_ref(),
            workers.as_ref(),
            "--cpus".as_ref(),
            worker_cpus.as_ref(),
            "--poll".as_ref(),
            poll.as_ref(),
        ];
        argv.extend(further.iter().map(OsStr::new));
        let mut process = Process::start("palisade", work, control_cpus, &[], &argv)?;
        process.line_with("ready", START)?;
        let environment = vec![
            ("PALISADE_URL", format!("https://{listen}").into()),
            ("PALISADE_TOKEN_FILE", state.join("admin.token").into()),
            ("PALISADE_CA", state.join("ca.pem").into()),
        ];
        Ok(Palisade { process, binary, run_directory, environment, resources: work.join("resources.yaml") })
    }

    /// Applies resources in YAML.
    pub(crate) fn apply(&self, resources: &str) -> Result<()> {
        fs::write(&self.resources, resources)?;
        let environment = self.environment.iter().map(|(name, value)| (*name, value.as_os_str()));
        run(Command::new(&self.binary).args(["apply", "-f"]).arg(&self.resources).envs(environment))?;
        Ok(())
    }

    /// Where the sockets of its ports are.
    pub(crate) fn run_directory(&self) -> &Path {
        &self.run_directory
    }

    /// Flows that it tracks; `None` when it does not say.
    pub(crate) fn tracked(&self) -> Result<Option<u64>> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Port {
            flows: u64,
            flow_limit: u64,
        }
        // Each flow counts for the port that began it.
        let ports: Vec<Port> = serde_json::from_str(&self.ask_agent("/v1/ports")?)?;
        let told = ports.iter().all(|port| port.flow_limit > 0);
        Ok(told.then(|| ports.iter().map(|port| port.flows).sum()))
    }

    /// The body of an answer of the agent's own API.
    fn ask_agent(&self, path: &str) -> Result<String> {
        let mut stream = UnixStream::connect(self.run_directory.join("agent.sock"))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("the agent's answer has no head")?;
        ensure!(head.starts_with("HTTP/1.1 200"), "the agent answered {head}");
        Ok(body.to_owned())
    }

    /// The process.
    pub(crate) fn process(&self) -> &Process {
        &self.process
    }

    /// The same, to look after it.
    pub(crate) fn process_mut(&mut self) -> &mut Process {
        &mut self.process
    }

    /// The process, without the means to configure it.
    pub(crate) fn into_process(self) -> Process {
        self.process
    }
}

/// The release binary: `PALISADE_BIN`, or `palisade` beside the bench's own executable.
pub(crate) fn binary() -> Result<PathBuf> {
    let binary = match std::env::var_os("PALISADE_BIN") {
        Some(path) => PathBuf::from(path),
        None => std::env::current_exe()?.with_file_name("palisade"),
    };
    ensure!(
        binary.exists(),
        "{} does not exist: build it with `cargo build --release`, or name it in PALISADE_BIN",
        binary.display()
    );
    fs::canonicalize(&binary).with_context(|| binary.display().to_string())
}
