//! Several managers that share one etcd: three members in a namespace of their own, two managers and a host beside them,
//! and a wire from each manager to the members that can be cut.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::netns::Netns;
use crate::palisade::binary;
use crate::process::{Process, eventually, run_with_input, tail};
use crate::scratch::Scratch;
use crate::shell::Output;

/// How many members etcd has.
const MEMBERS: usize = 3;
/// How long a start may take on a busy machine.
const START: Duration = Duration::from_secs(30);
/// How long a client command may take.
const COMMAND: Duration = Duration::from_secs(20);

/// Three members of etcd, in a namespace of their own.
#[derive(Debug)]
pub struct Etcd {
    members: Vec<Option<Process>>,
    /// Where they run.
    pub netns: Netns,
    scratch: Scratch,
}

impl Etcd {
    /// Starts all members and waits until they have a leader.
    ///
    /// # Errors
    /// When etcd is not installed or does not become healthy.
    pub fn start() -> Result<Self> {
        let mut etcd =
            Self { members: Vec::new(), netns: Netns::new("pal-etcd")?, scratch: Scratch::new("etcd")? };
        for at in 0..MEMBERS {
            etcd.members.push(None);
            etcd.start_member(at)?;
        }
        eventually("etcd has a leader", START, || Ok(etcd.leader().is_ok()))?;
        Ok(etcd)
    }

    /// Starts a member that does not run.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_member(&mut self, at: usize) -> Result<()> {
        let peer = |at: usize| format!("http://127.0.0.1:{}", 2380 + 10 * at);
        let all: Vec<String> = (0..MEMBERS).map(|at| format!("m{at}={}", peer(at))).collect();
        let mut command = self.netns.command("etcd");
        command
            .args(["--name", &format!("m{at}"), "--data-dir"])
            .arg(self.scratch.join(format!("m{at}")))
            .args(["--listen-client-urls", &format!("http://0.0.0.0:{}", client_port(at))])
            .args(["--advertise-client-urls", &format!("http://127.0.0.1:{}", client_port(at))])
            .args(["--listen-peer-urls", &peer(at), "--initial-advertise-peer-urls", &peer(at)])
            .args(["--initial-cluster", &all.join(",")])
            .args(["--heartbeat-interval", "50", "--election-timeout", "500", "--unsafe-no-fsync"]);
        let log = self.scratch.join(format!("m{at}.log"));
        self.members[at] = Some(Process::spawn(&format!("etcd m{at}"), &mut command, &log)?);
        Ok(())
    }

    /// Ends a member as a crash would.
    pub fn kill_member(&mut self, at: usize) {
        self.members[at] = None;
    }

    /// Which member leads.
    ///
    /// # Errors
    /// When none does, or nobody answers.
    pub fn leader(&self) -> Result<usize> {
        for at in (0..MEMBERS).filter(|at| self.members[*at].is_some()) {
            let mut command = self.netns.command("etcdctl");
            command.env("ETCDCTL_API", "3").args(["--endpoints", &format!("127.0.0.1:{}", client_port(at))]);
            let output = run_with_input(command.args(["endpoint", "status", "-w", "json"]), b"", COMMAND)?;
            let Ok(status) = serde_json::from_str::<Value>(&output.text) else { continue };
            let status = &status[0]["Status"];
            if status["leader"]
                .as_u64()
                .is_some_and(|leader| Some(leader) == status["header"]["member_id"].as_u64())
            {
                return Ok(at);
            }
        }
        anyhow::bail!("no member of etcd leads")
    }

    /// What members printed last.
    pub fn report(&self) -> String {
        let members = self.members.iter().flatten();
        members.map(|member| tail(&member.output(), 5)).collect::<Vec<_>>().join("\n")
    }
}

const fn client_port(member: usize) -> u16 {
    2379 + 10 * member as u16
}

/// One `palisade manager` that keeps its state in etcd.
#[derive(Debug)]
pub struct Manager {
    process: Option<Process>,
    /// How it is asked.
    pub client: Client,
    dir: PathBuf,
    /// The third number of its wire's addresses; the last digit of its port.
    wire: u16,
    starts: u32,
}

/// How a manager is asked, as its administrator.
#[derive(Clone, Debug)]
pub struct Client {
    netns: String,
    /// The manager's URL, within the namespace.
    pub url: String,
    /// The manager's state directory.
    pub state_dir: PathBuf,
}

impl Manager {
    /// A manager that does not run yet, with a wire of its own from `netns` to etcd.
    ///
    /// # Errors
    /// When the wire cannot be made.
    pub fn new(dir: PathBuf, wire: u16, netns: &Netns, etcd: &Etcd) -> Result<Self> {
        let name = format!("wire{wire}");
        netns.ip(&["link", "add", &name, "type", "veth", "peer", "name", &name, "netns", etcd.netns.id()])?;
        netns.ip(&["addr", "add", &format!("10.77.{wire}.2/24"), "dev", &name])?;
        etcd.netns.ip(&["addr", "add", &format!("10.77.{wire}.1/24"), "dev", &name])?;
        netns.ip(&["link", "set", &name, "up"])?;
        etcd.netns.ip(&["link", "set", &name, "up"])?;
        fs::create_dir_all(dir.join("state"))?;
        let url = format!("https://127.0.0.1:{}", 7470 + wire);
        let client = Client { netns: netns.id().to_owned(), url, state_dir: dir.join("state") };
        Ok(Self { process: None, client, dir, wire, starts: 0 })
    }

    /// Starts it and waits until it answers.
    ///
    /// # Errors
    /// When it does not become ready.
    pub fn start(&mut self) -> Result<()> {
        let port = |at: usize| format!("10.77.{}.1:{}", self.wire, client_port(at));
        let members: Vec<String> = (0..MEMBERS).map(port).collect();
        let mut command = self.client.command(&binary()?);
        command
            .args(["manager", "--listen", &format!("127.0.0.1:{}", 7470 + self.wire), "--state-dir"])
            .arg(&self.client.state_dir)
            .args(["--store", &format!("etcd://{}/e2e", members.join(","))])
            .env("NO_COLOR", "1");
        self.starts += 1;
        let mut process = Process::spawn(&format!("manager {}", self.wire), &mut command, &self.log())?;
        eventually("the manager is ready", START, || {
            ensure!(process.is_running(), "the manager ended:\n{}", tail(&process.output(), 20));
            Ok(process.output().lines().any(|line| line.trim() == "ready"))
        })?;
        self.process = Some(process);
        Ok(())
    }

    /// Ends it as a crash would.
    pub fn kill9(&mut self) {
        self.process = None;
    }

    /// Cuts its wire to etcd, or mends it.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn cut(&self, cut: bool, etcd: &Etcd) -> Result<()> {
        let state = if cut { "down" } else { "up" };
        etcd.netns.ip(&["link", "set", &format!("wire{}", self.wire), state]).map(drop)
    }

    /// What it printed last.
    pub fn report(&self) -> String {
        tail(&crate::process::read_lossy(&self.log()), 30)
    }

    fn log(&self) -> PathBuf {
        self.dir.join(format!("manager-{}.log", self.starts))
    }
}

impl Client {
    /// A program in the manager's namespace.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.netns]).arg(program);
        command
    }

    /// One HTTPS request: the status and the body; none when nobody answers.
    ///
    /// # Errors
    /// When curl cannot be run.
    pub fn http(&self, method: &str, path: &str, body: Option<&str>) -> Result<Option<(u16, String)>> {
        let token = fs::read_to_string(self.state_dir.join("admin.token"))?;
        let mut command = self.command(Path::new("curl"));
        command.args(["--silent", "--max-time", "10", "--request", method, "--write-out", "\n%{http_code}"]);
        command.arg("--cacert").arg(self.state_dir.join("ca.pem"));
        command.args(["--header", &format!("Authorization: Bearer {}", token.trim())]);
        if body.is_some() {
            command.args(["--header", "Content-Type: application/json", "--data-binary", "@-"]);
        }
        command.arg(format!("{}{path}", self.url));
        let output = run_with_input(&mut command, body.unwrap_or_default().as_bytes(), COMMAND)?;
        if !output.success() {
            return Ok(None);
        }
        let (body, status) = output.text.rsplit_once('\n').context("no status")?;
        Ok(Some((status.trim().parse()?, body.to_owned())))
    }

    /// A GET of JSON that has to be answered.
    ///
    /// # Errors
    /// When it is not answered well.
    pub fn get(&self, path: &str) -> Result<Value> {
        let answer = self.http("GET", path, None)?;
        let (status, body) = answer.with_context(|| format!("{} does not answer {path}", self.url))?;
        ensure!(status == 200, "{path}: {status}: {body}");
        Ok(serde_json::from_str(&body)?)
    }

    /// Runs a client command of `palisade`.
    ///
    /// # Errors
    /// When it cannot be run or takes too long.
    pub fn cli(&self, arguments: &[&str], input: &str) -> Result<Output> {
        let mut command = self.command(&binary()?);
        command
            .env("PALISADE_URL", &self.url)
            .env("PALISADE_CA", self.state_dir.join("ca.pem"))
            .env("PALISADE_TOKEN_FILE", self.state_dir.join("admin.token"))
            .env("NO_COLOR", "1");
        run_with_input(command.args(arguments), input.as_bytes(), COMMAND)
    }

    /// Runs a client command that has to succeed.
    ///
    /// # Errors
    /// When it fails; the message holds what it printed.
    pub fn must(&self, arguments: &[&str], input: &str) -> Result<String> {
        let output = self.cli(arguments, input)?;
        let (code, said) = (output.code, &output.errors);
        ensure!(code == 0, "palisade {} ended with {code}:\n{said}", arguments.join(" "));
        Ok(output.text)
    }

    /// What the manager is among the others: `leader`, `follower` or `disconnected`.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn role(&self) -> Result<String> {
        let managers = self.get("/v1/managers")?;
        Ok(managers["role"].as_str().unwrap_or_default().to_owned())
    }
}
