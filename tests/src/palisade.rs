//! The binary under test: one `palisade up` or `palisade manager` with directories of its own, and its command line.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::daemon::Daemon;
use crate::netns::{Netns, inside};
use crate::process::{eventually, run_with_input, tail};
use crate::scratch::target_dir;
use crate::shell::Output;

/// The host's name in every test.
pub const HOST: &str = "host-a";
/// Where a manager listens by default.
const MANAGER_PORT: u16 = 7470;
/// How long a client command may take.
const COMMAND: Duration = Duration::from_secs(20);

/// One running manager, alone or with this machine's agent, and the command line as its administrator has it.
#[derive(Debug)]
pub struct Palisade {
    dir: PathBuf,
    url: String,
    /// The namespace it runs in, and every command.
    place: Option<String>,
    daemon: Daemon,
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
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        Self::run(dir, None, "up", address, &[&["--host", HOST], extra].concat())
    }

    /// Starts `palisade manager` in a namespace, without an agent, with its state below `dir`.
    ///
    /// # Errors
    /// As [`Palisade::start`].
    pub fn manager(dir: &Path, place: &Netns, address: IpAddr) -> Result<Self> {
        Self::run(dir, Some(place), "manager", (address, MANAGER_PORT).into(), &[])
    }

    fn run(
        dir: &Path,
        place: Option<&Netns>,
        command: &str,
        listen: SocketAddr,
        extra: &[&str],
    ) -> Result<Self> {
        let (state, run) = (dir.join("state").display().to_string(), dir.join("run").display().to_string());
        let listens = listen.to_string();
        let mut words = vec![command, "--state-dir", &state, "--listen", &listens];
        if command == "up" {
            words.extend(["--run-dir", &run]);
        }
        words.extend(extra);
        let words = words.into_iter().map(str::to_owned).collect();
        let daemon = Daemon::start(dir, place, words)?;
        let place = place.map(|netns| netns.id().to_owned());
        Ok(Self { dir: dir.to_owned(), url: format!("https://{listen}"), place, daemon })
    }

    /// The manager's address.
    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// `--state-dir`.
    pub fn state_dir(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// `--run-dir`.
    pub fn run_dir(&self) -> PathBuf {
        self.dir.join("run")
    }

    /// The process.
    pub fn daemon(&self) -> &Daemon {
        &self.daemon
    }

    /// The vhost-user socket that a port has by default.
    pub fn socket(&self, workload: &str, port: &str) -> PathBuf {
        self.run_dir().join("ports").join(format!("{workload}.{port}.sock"))
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.daemon.id()
    }

    /// [`Daemon::kill9`].
    pub fn kill9(&self) {
        self.daemon.kill9();
    }

    /// [`Daemon::stop`].
    ///
    /// # Errors
    /// As that.
    pub fn stop(&self) -> Result<()> {
        self.daemon.stop()
    }

    /// [`Daemon::start_again`].
    ///
    /// # Errors
    /// As that.
    pub fn start_again(&self) -> Result<Instant> {
        self.daemon.start_again()
    }

    /// [`Daemon::wait_ready`].
    ///
    /// # Errors
    /// As that.
    pub fn wait_ready(&self) -> Result<()> {
        self.daemon.wait_ready()
    }

    /// What the running process has printed.
    pub fn log(&self) -> String {
        self.daemon.log()
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
        let mut command = match &self.place {
            Some(place) => inside(place, "curl"),
            None => Command::new("curl"),
        };
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
        let binary = binary().unwrap_or_else(|_| "palisade".into());
        let mut command = match &self.place {
            Some(place) => inside(place, binary),
            None => Command::new(binary),
        };
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
