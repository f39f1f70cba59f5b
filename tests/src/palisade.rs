//! The binary under test: one `palisade up` with directories of its own, and its command line.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use serde_json::Value;

use crate::process::{Process, eventually, run_with_input, tail};
use crate::scratch::target_dir;
use crate::shell::Output;

/// The host's name in every test.
pub const HOST: &str = "host-a";
/// How long a start may take on a busy machine.
const START: Duration = Duration::from_secs(20);
/// How long a client command may take.
const COMMAND: Duration = Duration::from_secs(20);

/// One running `palisade up`.
#[derive(Debug)]
pub struct Palisade {
    dir: PathBuf,
    port: u16,
    extra: Vec<String>,
    running: Mutex<Running>,
}

#[derive(Debug)]
struct Running {
    process: Process,
    starts: u32,
}

/// One port of a workload as `palisade get workloads -o json` shows it.
#[derive(Clone, Debug)]
pub struct PortView(pub Value);

impl Palisade {
    /// Starts `palisade up` with its state below `dir` and waits until it says `ready`.
    ///
    /// # Errors
    /// When the binary is not built or does not become ready; the message holds its output.
    pub fn start(dir: &Path, extra: &[&str]) -> Result<Self> {
        // The kernel picks a free port; it stays free but for a race that nobody here runs.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let extra: Vec<String> = extra.iter().map(|&word| word.to_owned()).collect();
        let process = spawn(dir, port, &extra, 1)?;
        let running = Mutex::new(Running { process, starts: 1 });
        let palisade = Self { dir: dir.to_owned(), port, extra, running };
        palisade.wait_ready()?;
        Ok(palisade)
    }

    /// The manager's address.
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// `--state-dir`.
    pub fn state_dir(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// `--run-dir`.
    pub fn run_dir(&self) -> PathBuf {
        self.dir.join("run")
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.running().process.id()
    }

    /// The vhost-user socket that a port has by default.
    pub fn socket(&self, workload: &str, port: &str) -> PathBuf {
        self.run_dir().join("ports").join(format!("{workload}.{port}.sock"))
    }

    /// Ends the process as a crash would.
    pub fn kill9(&self) {
        self.running().process.kill();
    }

    /// Asks for a graceful stop and waits for it.
    ///
    /// # Errors
    /// When it does not end within 10 s or not with exit code 0.
    pub fn stop(&self) -> Result<()> {
        let status = {
            let process = &mut self.running().process;
            process.signal(Signal::TERM)?;
            process.wait(Duration::from_secs(10))?
        };
        ensure!(status.success(), "graceful stop ended with {status}:\n{}", tail(&self.log(), 40));
        Ok(())
    }

    /// Starts a new process in the place of one that was killed or stopped; returns when it was started.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn start_again(&self) -> Result<Instant> {
        let mut running = self.running();
        ensure!(!running.process.is_running(), "the previous process still runs");
        running.starts += 1;
        let started = Instant::now();
        running.process = spawn(&self.dir, self.port, &self.extra, running.starts)?;
        Ok(started)
    }

    /// Waits for the line `ready`.
    ///
    /// # Errors
    /// When the process ends first or takes longer than 20 s.
    pub fn wait_ready(&self) -> Result<()> {
        let end = Instant::now() + START;
        while !self.log().lines().any(|line| line.trim() == "ready") {
            if !self.running().process.is_running() {
                bail!("palisade ended before it was ready:\n{}", tail(&self.log(), 40));
            }
            if Instant::now() > end {
                bail!("palisade is not ready after {START:?}:\n{}", tail(&self.log(), 40));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// What the running process has printed.
    pub fn log(&self) -> String {
        self.running().process.output()
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a client command as the administrator.
    ///
    /// # Errors
    /// When it cannot be run or takes too long; a failing command is not an error here.
    pub fn try_cli(&self, arguments: &[&str], input: &str) -> Result<Output> {
        run_with_input(self.client().args(arguments), input.as_bytes(), COMMAND)
    }

    /// Runs a client command that has to succeed.
    ///
    /// # Errors
    /// When it fails; the message holds what it printed.
    pub fn cli(&self, arguments: &[&str]) -> Result<String> {
        let output = self.try_cli(arguments, "")?;
        ensure!(
            output.success(),
            "palisade {} ended with {}:\n{}{}",
            arguments.join(" "),
            output.code,
            output.text,
            output.errors
        );
        Ok(output.text)
    }

    /// Runs a client command with input that has to succeed.
    ///
    /// # Errors
    /// When it fails; the message holds what it printed.
    pub fn cli_with(&self, arguments: &[&str], input: &str) -> Result<String> {
        let output = self.try_cli(arguments, input)?;
        let (code, said) = (output.code, &output.errors);
        ensure!(code == 0, "palisade {} ended with {code}:\n{said}", arguments.join(" "));
        Ok(output.text)
    }

    /// A client command's JSON.
    ///
    /// # Errors
    /// When it fails or prints something else.
    pub fn json(&self, arguments: &[&str]) -> Result<Value> {
        let text = self.cli(&[arguments, &["-o", "json"]].concat())?;
        serde_json::from_str(&text)
            .with_context(|| format!("palisade {} printed:\n{text}", arguments.join(" ")))
    }

    /// Applies YAML documents that have to be accepted, and waits until the host has realised them.
    ///
    /// # Errors
    /// When they are refused or not realised.
    pub fn apply(&self, yaml: &str) -> Result<()> {
        let output = self.try_cli(&["apply", "-f", "-", "--wait"], yaml)?;
        ensure!(output.success(), "apply ended with {}:\n{}{}", output.code, output.text, output.errors);
        Ok(())
    }

    /// One port as the API shows it.
    ///
    /// # Errors
    /// When there is no such workload or port.
    pub fn port(&self, workload: &str, port: &str) -> Result<PortView> {
        let all = self.json(&["get", "workloads"])?;
        let items =
            all.as_array().or_else(|| all.get("items")?.as_array()).context("not a list of workloads")?;
        let found = items
            .iter()
            .find(|item| item["name"] == workload)
            .and_then(|item| item["status"]["ports"].as_array()?.iter().find(|found| found["name"] == port));
        Ok(PortView(found.with_context(|| format!("no port {workload}.{port} in {all:#}"))?.clone()))
    }

    /// QEMU's arguments for a workload's port, one word each, as `palisade port attach` prints them for scripts.
    ///
    /// # Errors
    /// When there is no such workload.
    pub fn qemu_arguments(&self, workload: &str) -> Result<Vec<String>> {
        let memory = format!("{}M", crate::guest::MEMORY);
        let text = self.cli(&["port", "attach", workload, "--qemu", "--memory", &memory])?;
        Ok(text.split_whitespace().map(str::to_owned).collect())
    }

    /// Waits until a port's counter for `reason` has grown by at least `by` since `before`.
    ///
    /// # Errors
    /// When it has not after 5 s: the agent reports every second or so.
    pub fn wait_drops(&self, workload: &str, reason: &str, before: u64, by: u64) -> Result<u64> {
        let mut grown = 0;
        let waited = eventually("the counter grows", Duration::from_secs(5), || {
            grown = self.port(workload, "eth0")?.drops(reason).saturating_sub(before);
            Ok(grown >= by)
        });
        waited.with_context(|| {
            let drops = self.port(workload, "eth0").map(|port| port.all_drops());
            format!("{workload}: {reason} grew by {grown}, not by {by}; its drops: {drops:?}")
        })?;
        Ok(grown)
    }

    /// One HTTPS request with curl: the status and the body.
    ///
    /// # Errors
    /// When the manager does not answer.
    pub fn http(
        &self,
        method: &str,
        path: &str,
        token: Option<&str>,
        body: Option<&str>,
    ) -> Result<(u16, String)> {
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--max-time", "10", "--request", method]);
        command.args(["--write-out", "\n%{http_code}"]).arg("--cacert").arg(self.state_dir().join("ca.pem"));
        if let Some(token) = token {
            command.args(["--header", &format!("Authorization: Bearer {token}")]);
        }
        if body.is_some() {
            command.args(["--header", "Content-Type: application/json", "--data-binary", "@-"]);
        }
        command.arg(format!("{}{path}", self.url()));
        let output = run_with_input(&mut command, body.unwrap_or_default().as_bytes(), COMMAND)?;
        ensure!(output.success(), "curl {path}: {}", output.errors);
        let (body, status) = output.text.rsplit_once('\n').context("no status")?;
        Ok((status.trim().parse()?, body.to_owned()))
    }

    /// The administrator's token.
    ///
    /// # Errors
    /// When the first start did not write it.
    pub fn admin_token(&self) -> Result<String> {
        let path = self.state_dir().join("admin.token");
        Ok(std::fs::read_to_string(&path).with_context(|| format!("{path:?}"))?.trim().to_owned())
    }

    /// A client command, with the environment that finds this manager.
    pub fn client(&self) -> Command {
        let mut command = Command::new(binary().unwrap_or_else(|_| "palisade".into()));
        command
            .env("PALISADE_URL", self.url())
            .env("PALISADE_CA", self.state_dir().join("ca.pem"))
            .env("PALISADE_TOKEN_FILE", self.state_dir().join("admin.token"))
            .env("PALISADE_STATE_DIR", self.state_dir())
            .env("PALISADE_RUN_DIR", self.run_dir())
            .env("NO_COLOR", "1");
        command
    }

    /// What helps to understand a failure: the log and the counters of every port.
    pub fn report(&self) -> String {
        let counters = match self.try_cli(&["get", "workloads", "-o", "json"], "") {
            Ok(output) => output.text + &output.errors,
            Err(error) => format!("{error:#}"),
        };
        format!("--- palisade ---\n{}\n--- ports ---\n{counters}", tail(&self.log(), 60))
    }
}

impl PortView {
    /// The hardware address.
    ///
    /// # Errors
    /// When the API shows none.
    pub fn mac(&self) -> Result<String> {
        Ok(self.0["mac"].as_str().with_context(|| format!("no mac in {}", self.0))?.to_owned())
    }

    /// The network's MTU.
    pub fn mtu(&self) -> u64 {
        self.0["mtu"].as_u64().unwrap_or(1500)
    }

    /// Whether the link is `up`.
    pub fn is_up(&self) -> bool {
        self.0["link"] == "up"
    }

    /// Packets dropped for one reason.
    pub fn drops(&self, reason: &str) -> u64 {
        self.0["drops"][reason].as_u64().unwrap_or(0)
    }

    /// Every reason with its count.
    pub fn all_drops(&self) -> BTreeMap<String, u64> {
        serde_json::from_value(self.0["drops"].clone()).unwrap_or_default()
    }

    /// Packets the workload sent and was accepted.
    pub fn packets_from_guest(&self) -> u64 {
        self.0["fromGuest"]["packets"].as_u64().unwrap_or(0)
    }

    /// Packets delivered to the workload.
    pub fn packets_to_guest(&self) -> u64 {
        self.0["toGuest"]["packets"].as_u64().unwrap_or(0)
    }

    /// Announcements of neighbours that the workload was given.
    pub fn announced(&self) -> u64 {
        self.0["details"]["announced"].as_str().and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    /// What is broken, in words.
    pub fn faults(&self) -> Vec<String> {
        serde_json::from_value(self.0["faults"].clone()).unwrap_or_default()
    }
}

/// The binary under test: `PALISADE_BIN`, or the release build, whatever profile the tests themselves have.
///
/// # Errors
/// When there is none.
pub fn binary() -> Result<PathBuf> {
    let path = match std::env::var_os("PALISADE_BIN") {
        Some(path) => PathBuf::from(path),
        None => target_dir()?.join("release/palisade"),
    };
    ensure!(path.exists(), "{path:?} is not built: cargo build --release -p palisade");
    Ok(path)
}

fn spawn(dir: &Path, port: u16, extra: &[String], start: u32) -> Result<Process> {
    let mut command = Command::new(binary()?);
    command
        .arg("up")
        .arg("--state-dir")
        .arg(dir.join("state"))
        .arg("--run-dir")
        .arg(dir.join("run"))
        .args(["--listen", &format!("127.0.0.1:{port}"), "--host", HOST])
        .args(extra)
        .env("NO_COLOR", "1");
    Process::spawn("palisade up", &mut command, &dir.join(format!("palisade-{start}.log")))
}
