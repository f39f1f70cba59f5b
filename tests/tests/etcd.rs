//! One state, several managers: whoever dies and whatever is cut, no acknowledged change is lost, hosts follow, and
//! traffic goes on.

use std::fs;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use e2e::etcd::{Client, Etcd, Manager};
use e2e::lab::{self, Container, OPEN, v4_of};
use e2e::netns::Netns;
use e2e::palisade::binary;
use e2e::process::{Process, eventually, tail};
use e2e::scratch::Scratch;
use e2e::traffic::{Pinger, must_ping};
use e2e::trials::{Fixture, check, note, run};
use serde_json::{Value, json};

/// How soon a survivor leads: a lease of 5 s, and the turns after it.
const SUCCESSION: Duration = Duration::from_secs(15);
/// How soon everybody knows of a change.
const NEWS: Duration = Duration::from_secs(10);
/// Pings a second that show whether traffic goes on.
const PINGS: u32 = 20;

/// Two managers over three members; host-a is connected to the first, host-b to the second.
struct Mesh {
    // In the order in which they have to go.
    agents: Vec<Process>,
    containers: Vec<Container>,
    managers: Vec<Manager>,
    etcd: Etcd,
    _netns: Netns,
    _scratch: Scratch,
}

impl Fixture for Mesh {
    fn new() -> Result<Self> {
        let scratch = Scratch::new("mesh")?;
        let netns = Netns::new("pal-mesh")?;
        let etcd = Etcd::start()?;
        let mut managers: Vec<Manager> = Vec::new();
        for wire in 1..=2u16 {
            let mut manager = Manager::new(scratch.join(format!("m{wire}")), wire, &netns, &etcd)?;
            if let Some(first) = managers.first() {
                share(&first.client, &manager.client)?;
            }
            manager.start()?;
            managers.push(manager);
        }
        let mut mesh = Self {
            agents: Vec::new(),
            containers: Vec::new(),
            managers,
            etcd,
            _netns: netns,
            _scratch: scratch,
        };
        mesh.populate().map_err(|error| error.context(mesh.report()))?;
        Ok(mesh)
    }

    fn report(&self) -> String {
        let mut text = self.etcd.report();
        for manager in &self.managers {
            text += &format!("\n--- {} ---\n{}", manager.client.url, manager.report());
        }
        for agent in &self.agents {
            text += &format!("\n--- agent ---\n{}", tail(&agent.output(), 20));
        }
        text
    }
}

/// Gives the second manager the key of the authorities and the administrator's token.
fn share(from: &Client, to: &Client) -> Result<()> {
    for file in ["authority.key", "admin.token"] {
        fs::copy(from.state_dir.join(file), to.state_dir.join(file)).with_context(|| file.to_owned())?;
    }
    Ok(())
}

impl Mesh {
    fn populate(&mut self) -> Result<()> {
        let hosts = "kind: Host\nname: host-a\n---\nkind: Host\nname: host-b\n---\n";
        let network = "kind: Network\nname: blue\nspec: { subnets: [10.0.1.0/24, \"fd00:1::/64\"] }\n";
        let mut yaml = [hosts, network, OPEN].concat();
        for (name, host) in [("c", "host-a"), ("d", "host-a"), ("e", "host-b")] {
            let netns = Netns::new(&format!("pal-m{name}"))?;
            yaml += &lab::container(name, &netns).replace("host-a", host);
            self.containers.push(Container { name, netns });
        }
        self.managers[0].client.must(&["apply", "-f", "-"], &yaml)?;
        for (host, manager) in [("host-a", 0), ("host-b", 1)] {
            let agent = self.agent(host, manager)?;
            self.agents.push(agent);
        }
        for container in &self.containers {
            container.configure()?;
        }
        eventually("traffic passes", NEWS, || Ok(must_ping(&self.containers[0].netns, v4_of("d")).is_ok()))
    }

    /// Joins as a host and starts its agent, which prefers one manager and knows the other.
    fn agent(&self, host: &str, manager: usize) -> Result<Process> {
        let client = self.client(manager);
        let token = client.must(&["join-token", "create"], "")?;
        let dir = client.state_dir.with_file_name(host);
        fs::create_dir_all(&dir)?;
        let mut command = client.command(&binary()?);
        command
            .args(["agent", "--host", host, "--workers", "1", "--join", &client.url])
            .args(["--manager", &client.url, "--manager", &self.client(1 - manager).url, "--state-dir"])
            .arg(dir.join("state"))
            .arg("--run-dir")
            .arg(dir.join("run"))
            .env("PALISADE_JOIN_TOKEN", token.trim());
        let agent = Process::spawn(&format!("agent of {host}"), &mut command, &dir.join("agent.log"))?;
        eventually("the agent is ready", Duration::from_secs(20), || {
            Ok(agent.output().lines().any(|line| line.trim() == "ready"))
        })
        .with_context(|| agent.output())?;
        Ok(agent)
    }

    fn client(&self, at: usize) -> &Client {
        &self.managers[at].client
    }

    /// Which manager leads, and which does not.
    fn leader(&self) -> Result<(usize, usize)> {
        let mut found = None;
        eventually("one manager leads and the other follows", SUCCESSION, || {
            let roles = [self.client(0).role(), self.client(1).role()];
            let roles = roles.map(|role| role.unwrap_or_default());
            found = match roles.each_ref().map(String::as_str) {
                ["leader", "follower"] => Some((0, 1)),
                ["follower", "leader"] => Some((1, 0)),
                _ => None,
            };
            Ok(found.is_some())
        })?;
        found.context("no leader")
    }

    /// A manager's view of a host.
    fn host(&self, at: usize, host: &str) -> Result<Value> {
        Ok(self.client(at).get(&format!("/v1/hosts/{host}"))?["status"].take())
    }

    /// Both managers know that both hosts do what is wanted of them.
    fn converged(&self) -> Result<()> {
        let mut last = String::new();
        let done = eventually("both managers see both hosts up to date", NEWS * 2, || {
            last.clear();
            for at in 0..2 {
                for host in ["host-a", "host-b"] {
                    let status = self.host(at, host)?;
                    let (is, wanted) = (status["revision"].as_u64(), status["wanted"].as_u64());
                    if status["connected"] != true || is < wanted {
                        last = format!("manager {at} about {host}: {status}");
                        return Ok(false);
                    }
                }
            }
            Ok(true)
        });
        done.context(last)
    }

    /// Runs `fault` while changes stream in and pings go to and fro; nothing that was acknowledged may be lost, and
    /// traffic has to go on.
    fn under_load(&mut self, name: &str, fault: impl FnOnce(&mut Self, &Load) -> Result<()>) -> Result<()> {
        let clients = [self.client(0).clone(), self.client(1).clone()];
        let load = Load::start(name, clients);
        let pinger = Pinger::start(&self.containers[0].netns, v4_of("d"), PINGS)?;
        let begin = Instant::now();
        load.wait_for(5)?;
        let done = fault(self, &load);
        let acknowledged = load.stop()?;
        let seconds = begin.elapsed().as_secs_f64();
        let answers = pinger.answers(&self.containers[0].netns)?;
        pinger.stop(&self.containers[0].netns)?;
        done?;
        note(&format!(
            "{} changes acknowledged in {seconds:.0} s, {} refused, {answers} pings answered",
            acknowledged.names.len(),
            acknowledged.refused
        ));
        let expected = seconds * f64::from(PINGS);
        ensure!(answers as f64 > expected * 0.9, "{answers} of about {expected:.0} pings were answered");
        for at in 0..2 {
            let known = |names: &[String]| -> Result<Vec<String>> {
                let list = self.client(at).get("/v1/networks")?;
                let items = list["items"].as_array().context("no list")?.clone();
                let has = |name: &String| items.iter().any(|item| item["name"] == name.as_str());
                Ok(names.iter().filter(|name| !has(name)).cloned().collect())
            };
            let mut lost = Vec::new();
            eventually("the manager knows every acknowledged change", NEWS, || {
                lost = known(&acknowledged.names)?;
                Ok(lost.is_empty())
            })
            .with_context(|| format!("manager {at} lost {lost:?}"))?;
        }
        // A change that both hosts have something to do for.
        let label = format!("kind: Workload\nname: e\nlabels: {{ after: {name} }}\n");
        let e = lab::container("e", &self.containers[2].netns).replace("host-a", "host-b");
        let e = e.replacen("---\nkind: Workload\nname: e\n", &label, 1);
        let c = lab::labelled(&lab::container("c", &self.containers[0].netns), &format!("after: {name}"));
        self.client(1).must(&["apply", "-f", "-", "--wait"], &(e + &c))?;
        self.converged()
    }
}

/// Changes, one after the other, by turns at each manager.
struct Load {
    ended: Arc<AtomicBool>,
    done: Arc<Mutex<Acknowledged>>,
    thread: JoinHandle<Result<()>>,
}

/// What came of them.
#[derive(Clone, Default)]
struct Acknowledged {
    /// Networks that were made.
    names: Vec<String>,
    /// Changes that were refused, or not answered.
    refused: usize,
    /// What was said to those.
    refusals: Vec<(u16, String)>,
}

impl Load {
    fn start(name: &str, clients: [Client; 2]) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let done = Arc::new(Mutex::new(Acknowledged::default()));
        let thread = std::thread::spawn({
            let (ended, done, name) = (ended.clone(), done.clone(), name.to_owned());
            move || {
                let mut n = 0;
                while !ended.load(Ordering::Relaxed) {
                    let network = format!("{name}-{n}");
                    let body = json!({ "spec": { "subnets": [] } }).to_string();
                    let answer =
                        clients[n % 2].http("PUT", &format!("/v1/networks/{network}"), Some(&body))?;
                    let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                    match answer {
                        Some((200 | 201, _)) => done.names.push(network),
                        Some(refusal) => {
                            done.refused += 1;
                            done.refusals.push(refusal);
                        }
                        None => done.refused += 1,
                    }
                    n += 1;
                }
                Ok(())
            }
        });
        Self { ended, done, thread }
    }

    fn so_far(&self) -> Acknowledged {
        self.done.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until so many more changes are acknowledged.
    fn wait_for(&self, more: usize) -> Result<()> {
        let before = self.so_far().names.len();
        eventually("changes are acknowledged", Duration::from_secs(30), || {
            Ok(self.so_far().names.len() >= before + more)
        })
        .with_context(|| format!("the last refusals: {:?}", self.so_far().refusals.last()))
    }

    fn stop(self) -> Result<Acknowledged> {
        self.ended.store(true, Ordering::Relaxed);
        let done = self.done.clone();
        match self.thread.join() {
            Ok(ended) => ended?,
            Err(_) => bail!("the stream of changes panicked"),
        }
        Ok(done.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

fn main() -> ExitCode {
    run(vec![
        check("two_managers_show_one_state_and_all_hosts", 60, one_state),
        check("a_question_to_a_host_of_another_manager_names_that_manager", 30, questions),
        check("the_leading_manager_dies_and_nothing_acknowledged_is_lost", 90, manager_dies),
        check("a_member_of_etcd_dies_and_nothing_acknowledged_is_lost", 90, member_dies),
        check("a_manager_that_is_cut_off_serves_what_it_knows_and_catches_up", 90, cut_off),
        check("a_token_that_is_deleted_is_refused_by_every_manager", 30, tokens),
        check("a_backup_is_restored_for_all_managers", 60, backup),
    ])
}

fn one_state(mesh: &mut Mesh) -> Result<()> {
    mesh.leader()?;
    for (at, other) in [(0, 1), (1, 0)] {
        let name = format!("from-{at}");
        let yaml = format!("kind: Network\nname: {name}\nspec: {{ subnets: [] }}\n");
        mesh.client(at).must(&["apply", "-f", "-"], &yaml)?;
        eventually("the other manager knows", NEWS, || {
            Ok(mesh
                .client(other)
                .http("GET", &format!("/v1/networks/{name}"), None)?
                .is_some_and(|it| it.0 == 200))
        })?;
    }
    mesh.converged()?;
    let shown = mesh.client(0).must(&["managers"], "")?;
    ensure!(shown.contains("leader") && shown.contains("follower"), "{shown}");
    let ports = |at: usize| -> Result<Value> {
        Ok(mesh.client(at).get("/v1/workloads/e")?["status"]["ports"][0]["link"].take())
    };
    eventually("ports of the other manager's host are shown", NEWS, || {
        Ok(ports(0)? == "up" && ports(1)? == "up")
    })
}

fn questions(mesh: &mut Mesh) -> Result<()> {
    mesh.converged()?;
    let own = mesh.client(0).get("/v1/workloads/c/verdicts")?;
    ensure!(own["silent"].as_array().is_none_or(Vec::is_empty), "{own}");
    let foreign = mesh.client(1).get("/v1/workloads/c/verdicts")?;
    let reason = foreign["silent"][0]["reason"].as_str().unwrap_or_default().to_owned();
    ensure!(reason.contains(&mesh.client(0).url), "{foreign}");
    Ok(())
}

fn manager_dies(mesh: &mut Mesh) -> Result<()> {
    let (leader, other) = mesh.leader()?;
    mesh.under_load("manager", |mesh, load| {
        mesh.managers[leader].kill9();
        let begin = Instant::now();
        load.wait_for(5)?;
        note(&format!("5 more changes {:.1?} after the leading manager's death", begin.elapsed()));
        eventually("the other manager leads", SUCCESSION, || Ok(mesh.client(other).role()? == "leader"))?;
        note(&format!("the other manager leads after {:.1?}", begin.elapsed()));
        mesh.managers[leader].start()?;
        load.wait_for(10)
    })
}

fn member_dies(mesh: &mut Mesh) -> Result<()> {
    let member = mesh.etcd.leader()?;
    mesh.under_load("member", |mesh, load| {
        mesh.etcd.kill_member(member);
        let begin = Instant::now();
        load.wait_for(5)?;
        note(&format!("5 more changes {:.1?} after the leading member's death", begin.elapsed()));
        mesh.etcd.start_member(member)?;
        load.wait_for(10)
    })
}

fn cut_off(mesh: &mut Mesh) -> Result<()> {
    let (leader, other) = mesh.leader()?;
    mesh.under_load("cut", |mesh, load| {
        mesh.managers[leader].cut(true, &mesh.etcd)?;
        let begin = Instant::now();
        eventually("the manager knows that it is cut off", SUCCESSION, || {
            Ok(mesh.client(leader).role()? == "disconnected")
        })?;
        note(&format!("it knows after {:.1?}", begin.elapsed()));
        let managers = mesh.client(leader).get("/v1/managers")?;
        ensure!(managers["disconnectedSince"].is_string(), "{managers}");
        // It serves what it knows, and refuses what it cannot do at once.
        mesh.client(leader).get("/v1/workloads/c")?;
        let body = json!({ "spec": { "subnets": [] } }).to_string();
        let begin = Instant::now();
        let answer = mesh.client(leader).http("PUT", "/v1/networks/never", Some(&body))?;
        let (status, problem) = answer.context("no answer")?;
        ensure!(status == 503 && problem.contains("urn:palisade:problem:store"), "{status}: {problem}");
        ensure!(begin.elapsed() < Duration::from_secs(2), "refused only after {:?}", begin.elapsed());
        eventually("the other manager leads", SUCCESSION, || Ok(mesh.client(other).role()? == "leader"))?;
        load.wait_for(5)?;
        mesh.managers[leader].cut(false, &mesh.etcd)?;
        let begin = Instant::now();
        eventually("the manager is back", SUCCESSION, || Ok(mesh.client(leader).role()? == "follower"))?;
        note(&format!("it is back after {:.1?}", begin.elapsed()));
        load.wait_for(10)
    })?;
    let never = mesh.client(other).http("GET", "/v1/networks/never", None)?;
    ensure!(never.is_some_and(|(status, _)| status == 404), "what was refused is there");
    Ok(())
}

fn tokens(mesh: &mut Mesh) -> Result<()> {
    let secret = mesh.client(0).must(&["token", "create", "passer-by", "--role", "viewer"], "")?;
    let dir = mesh.client(1).state_dir.with_file_name("passer-by");
    fs::create_dir_all(&dir)?;
    fs::copy(mesh.client(1).state_dir.join("ca.pem"), dir.join("ca.pem"))?;
    fs::write(dir.join("admin.token"), secret.trim())?;
    let mut viewer = mesh.client(1).clone();
    viewer.state_dir = dir;
    let reads =
        || -> Result<Option<u16>> { Ok(viewer.http("GET", "/v1/networks", None)?.map(|answer| answer.0)) };
    eventually("the other manager lets it in", NEWS, || Ok(reads()? == Some(200)))?;
    mesh.client(0).must(&["token", "delete", "passer-by"], "")?;
    eventually("the other manager refuses it", NEWS, || Ok(reads()? == Some(401)))
}

fn backup(mesh: &mut Mesh) -> Result<()> {
    let file = mesh.client(0).state_dir.with_file_name("backup");
    let file = file.to_str().context("a path that is not UTF-8")?.to_owned();
    mesh.client(0).must(&["backup", &file], "")?;
    let before = mesh.client(0).get("/v1/networks")?;
    mesh.client(0).must(&["apply", "-f", "-"], "kind: Network\nname: later\nspec: { subnets: [] }\n")?;
    let refused = mesh.client(1).cli(&["restore", &file], "")?;
    ensure!(!refused.success() && refused.errors.contains("older"), "{}{}", refused.text, refused.errors);
    mesh.client(1).must(&["restore", &file, "--force"], "")?;
    let names = |list: &Value| -> Vec<String> {
        let items = list["items"].as_array().cloned().unwrap_or_default();
        items.iter().map(|item| item["name"].to_string()).collect()
    };
    for at in 0..2 {
        eventually("the state of the backup is in force", NEWS, || {
            Ok(names(&mesh.client(at).get("/v1/networks")?) == names(&before))
        })?;
    }
    let after = mesh.client(0).get("/v1/networks")?;
    ensure!(after["revision"].as_u64() > before["revision"].as_u64().map(|it| it + 1000), "{after}");
    mesh.converged()?;
    must_ping(&mesh.containers[0].netns, v4_of("d"))
}
