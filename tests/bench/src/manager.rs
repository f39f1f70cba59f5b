//! `manager`: how soon a change reaches the hosts of a large mesh, and what the manager takes for it.
#![expect(clippy::print_stdout, reason = "a command for people")]

mod agents;
mod world;

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mgmt_client::{Client, Document, Endpoint, Membership, Timeouts};
use mgmt_types::{Applied, NewJoinToken};
use serde_json::{Map, Value, json};
use tokio::runtime::Runtime;

use self::agents::Agents;
use crate::noise::{Noise, Watch};
use crate::options::Options;
use crate::palisade::binary;
use crate::process::Process;
use crate::rounds::{self, Better, Figure, Row};

/// Sizes of the mesh at which a slice is measured, in hosts; the last one is that of all other cases.
const SIZES: [usize; 3] = [100, 300, 1000];

/// What everything is held against.
const BUDGET: &str = "budget";
/// Milliseconds within which 99 of 100 hosts have a changed label.
const CHANGE_BUDGET: f64 = 1000.0;
/// Seconds within which every host of a manager that was started anew has its whole slice.
const RESYNC_BUDGET: f64 = 60.0;
/// Most MiB the manager ever has resident.
const MEMORY_BUDGET: f64 = 1024.0;

/// How long a change, a start and a resynchronisation may take before the bench gives up.
const CHANGE: Duration = Duration::from_secs(20);
const START: Duration = Duration::from_secs(60);
const RESYNC: Duration = Duration::from_secs(180);

/// All cases.
pub(crate) fn cases() -> Vec<String> {
    let mut cases: Vec<String> = SIZES.iter().map(|hosts| format!("slice-size-{hosts}")).collect();
    cases.extend(["label-change", "resync", "memory"].map(String::from));
    cases
}

/// Measures the chosen cases and prints every sample as it is taken.
pub(crate) fn run(options: &Options, work: &Path, machine: &mut Map<String, Value>) -> Result<Vec<Row>> {
    let chosen = options.chosen(cases())?;
    let mut mesh = Mesh::start(work)?;
    let sizes = mesh.grow()?;
    let hosts = SIZES.iter().max().copied().unwrap_or(0);
    machine.insert(
        "mesh".to_owned(),
        json!(format!("{hosts} hosts, {} workloads, {} groups", hosts * world::WORKLOADS, world::GROUPS)),
    );
    let mut rows = Vec::new();
    for case in chosen {
        let size = SIZES.iter().zip(&sizes).find(|(hosts, _)| case == format!("slice-size-{hosts}"));
        let (unit, budget) = match case.as_str() {
            "label-change" => ("ms", CHANGE_BUDGET),
            "resync" => ("s", RESYNC_BUDGET),
            "memory" => ("MiB", MEMORY_BUDGET),
            _ => ("KiB", sizes.first().copied().unwrap_or(0.0)),
        };
        let (names, ours, peers) = parties(options);
        let samples = if size.is_some() || case == "memory" { 1 } else { options.samples() };
        let measure = |party: usize| match names[party] {
            BUDGET => Ok(Figure::new(budget, QUIET)),
            _ => match (case.as_str(), size) {
                (_, Some((_, size))) => Ok(Figure::new(*size, QUIET)),
                ("label-change", _) => mesh.change_labels(if options.quick { 20 } else { 100 }),
                ("resync", _) => mesh.resynchronise(),
                _ => mesh.memory(),
            },
        };
        let told = |round, party: &str, figure: &Figure| crate::told(&case, round, party, unit, figure);
        let rounds = rounds::interleave(&names, samples, measure, told)?;
        rows.extend(rounds::rows(&case, unit, Better::Lower, &rounds, ours, &peers));
    }
    machine.insert("longest label-change".to_owned(), json!(format!("{:.0} ms", mesh.longest)));
    Ok(rows)
}

/// Where nothing disturbs, because nothing is timed.
const QUIET: Noise = Noise { steal: 0.0, wait: None, others: 0.0 };

/// Who takes part, and the places of Palisade and of the budget.
fn parties(options: &Options) -> (Vec<&'static str>, Option<usize>, Vec<(usize, &'static str)>) {
    let mut names = Vec::new();
    let ours = (!options.peers_only).then(|| {
        names.push("palisade");
        0
    });
    let mut peers = Vec::new();
    if !options.ours_only {
        peers.push((names.len(), BUDGET));
        names.push(BUDGET);
    }
    (names, ours, peers)
}

/// A manager, the means to change what it has, and its hosts.
struct Mesh {
    work: PathBuf,
    listen: String,
    process: Process,
    runtime: Runtime,
    client: Client,
    url: String,
    agents: Option<Agents>,
    /// The group of each workload.
    groups: Vec<usize>,
    /// The next workload to change.
    turn: usize,
    /// The longest time a label took, in milliseconds.
    longest: f64,
}

impl Mesh {
    fn start(work: &Path) -> Result<Mesh> {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let listen = format!("127.0.0.1:{port}");
        let process = manager(work, &listen)?;
        let read = |file: &str| {
            let path = work.join("state").join(file);
            fs::read_to_string(&path).with_context(|| path.display().to_string())
        };
        let url = format!("https://{listen}");
        let admin = Endpoint { url: url.clone(), token: read("admin.token")?, ca_pem: read("ca.pem")? };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let timeouts = Timeouts { request: START, ..Timeouts::default() };
        Ok(Mesh {
            work: work.to_owned(),
            listen,
            process,
            runtime,
            client: Client::connect_with(&admin, timeouts)?,
            url,
            agents: None,
            groups: Vec::new(),
            turn: 0,
            longest: 0.0,
        })
    }

    fn apply(&self, document: Document) -> Result<Applied> {
        Ok(self.runtime.block_on(self.client.apply(&[document], false))?)
    }

    /// Joins as these hosts.
    fn join(&self, hosts: Range<usize>) -> Result<Vec<Membership>> {
        let wish = NewJoinToken {
            uses: Some(u32::try_from(hosts.len())?),
            expires_in: Some(24 * 60 * 60),
            replace: true,
            ..NewJoinToken::default()
        };
        let urls = std::slice::from_ref(&self.url);
        self.runtime.block_on(async {
            let token = self.client.create_join_token(&wish).await?.secret;
            let mut members = Vec::new();
            for number in hosts {
                members.push(mgmt_client::join(urls, &token, &world::host(number), None).await?);
            }
            Ok(members)
        })
    }

    /// Makes the mesh as large as each of the sizes, one after the other, and then starts its hosts. The size of the
    /// first host's slice at each, in KiB.
    fn grow(&mut self) -> Result<Vec<f64>> {
        let began = Instant::now();
        self.apply(world::rules())?;
        let mut sizes = Vec::new();
        let mut made = 0;
        for hosts in SIZES {
            while made < hosts {
                let racks = (made / world::RACK)..(made + 100) / world::RACK;
                self.apply(world::racks(racks))?;
                made += 100;
            }
            let host = world::host(0);
            let [member] = self.join(0..1)?.try_into().map_err(|_| anyhow::anyhow!("no host"))?;
            let client = Client::member(&member)?;
            let slice = self.runtime.block_on(async {
                let mut slices = client.agent_state_stream(&host, 0).await?;
                slices.next().await.context("the manager ended the stream")?.map_err(anyhow::Error::from)
            })?;
            sizes.push(serde_json::to_vec(&slice)?.len() as f64 / 1024.0);
        }
        self.groups = (0..made * world::WORKLOADS).map(|number| number % world::GROUPS).collect();
        println!("{made} hosts declared after {:.1} s", began.elapsed().as_secs_f64());
        let agents = Agents::start(&self.join(0..made)?)?;
        agents.wait(0, made, RESYNC, |_| true)?;
        println!("all of them follow after {:.1} s", began.elapsed().as_secs_f64());
        self.agents = Some(agents);
        Ok(sizes)
    }

    /// Changes labels one after the other. The time within which 99 of 100 hosts concerned have each, in milliseconds.
    fn change_labels(&mut self, changes: usize) -> Result<Figure> {
        let watch = Watch::start(&[])?;
        let mut times = Vec::new();
        for _ in 0..changes {
            // A stride that visits all racks before it comes back.
            self.turn = (self.turn + 401) % self.groups.len();
            let workload = self.turn;
            let group = (self.groups[workload] + 997) % world::GROUPS;
            self.groups[workload] = group;
            let agents = self.agents.as_ref().context("no hosts")?;
            agents.skip();
            let began = Instant::now();
            let revision = self.apply(world::workload(workload, group))?.revision;
            let first = workload / world::WORKLOADS / world::RACK * world::RACK;
            let when =
                agents.wait(first, world::RACK, CHANGE, |news| news.revision >= revision && !news.whole)?;
            times.extend(when.into_iter().map(|at| 1e3 * (at - began).as_secs_f64()));
        }
        times.sort_by(f64::total_cmp);
        self.longest = self.longest.max(times.last().copied().unwrap_or(0.0));
        let place = (times.len() * 99).div_ceil(100).saturating_sub(1);
        let value = times.get(place).copied().context("nothing was changed")?;
        Ok(Figure::new(value, watch.stop()?))
    }

    /// Ends the manager and starts it again. Seconds from its start until every host has its whole slice again.
    fn resynchronise(&mut self) -> Result<Figure> {
        let agents = self.agents.as_ref().context("no hosts")?;
        agents.forget(true);
        self.process.stop();
        agents.skip();
        let watch = Watch::start(&[])?;
        let began = Instant::now();
        self.process = manager(&self.work, &self.listen)?;
        let hosts = self.groups.len() / world::WORKLOADS;
        let when = agents.wait(0, hosts, RESYNC, |news| news.whole)?;
        agents.forget(false);
        let last = when.into_iter().max().context("no hosts")?;
        Ok(Figure::new((last - began).as_secs_f64(), watch.stop()?))
    }

    /// The most the manager ever had resident, in MiB.
    fn memory(&mut self) -> Result<Figure> {
        self.process.check()?;
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
        let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
        ensure!(kib > 0.0, "a process without memory");
        Ok(Figure::new(kib / 1024.0, QUIET))
    }
}

fn manager(work: &Path, listen: &str) -> Result<Process> {
    let binary = binary()?;
    let state = work.join("state");
    let argv: Vec<&std::ffi::OsStr> = vec![
        binary.as_os_str(),
        "manager".as_ref(),
        "--state-dir".as_ref(),
        state.as_os_str(),
        "--listen".as_ref(),
        listen.as_ref(),
        // All hosts are on this machine.
        "--connections-per-source".as_ref(),
        "4096".as_ref(),
    ];
    let mut process = Process::start("manager", work, None, &[], &argv)?;
    process.line_with("ready", START)?;
    Ok(process)
}
