//! Hosts without a data plane: each follows the manager over a TLS connection of its own, applies what it is sent, and
//! reports as an agent does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use mgmt_client::{AgentEvent, Client, Follow, Membership};
use mgmt_types::agent::{Counters, HostStatus, Link, PortStatus, SealedSlice};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;

use super::world;
use crate::interrupt;

/// As an agent's own: the pauses before it connects again, and the time between two reports without news.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
const ROUTINE: Duration = Duration::from_secs(2);

/// All hosts. They end when this is dropped.
pub(super) struct Agents {
    _runtime: Runtime,
    news: Receiver<News>,
    forget: Arc<AtomicBool>,
}

/// A host has a newer slice.
#[derive(Debug, Clone, Copy)]
pub(super) struct News {
    pub(super) host: usize,
    pub(super) revision: u64,
    pub(super) whole: bool,
    pub(super) at: Instant,
}

impl Agents {
    /// Starts hosts, numbered from 0.
    pub(super) fn start(members: &[Membership]) -> Result<Agents> {
        allow_descriptors();
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let (sender, news) = channel();
        let forget = Arc::new(AtomicBool::new(false));
        for (number, member) in members.iter().enumerate() {
            let client = Client::member(member)?;
            let (sender, forget) = (sender.clone(), forget.clone());
            runtime.spawn(async move { host(number, client, &sender, &forget).await });
        }
        Ok(Agents { _runtime: runtime, news, forget })
    }

    /// Whether hosts that lose their manager forget what they have, and must be told whole.
    pub(super) fn forget(&self, forget: bool) {
        self.forget.store(forget, Ordering::Relaxed);
    }

    /// Leaves out what happened so far.
    pub(super) fn skip(&self) {
        while self.news.try_recv().is_ok() {}
    }

    /// Waits until each of the `count` hosts from `first` on has what `wanted` chooses; when each had, in any order.
    pub(super) fn wait(
        &self,
        first: usize,
        count: usize,
        limit: Duration,
        wanted: impl Fn(&News) -> bool,
    ) -> Result<Vec<Instant>> {
        let end = Instant::now() + limit;
        let mut when: Vec<Option<Instant>> = vec![None; count];
        let mut missing = count;
        while missing > 0 {
            interrupt::check()?;
            match self.news.recv_timeout(Duration::from_millis(50)) {
                Ok(news) if wanted(&news) => {
                    let place = news.host.checked_sub(first).and_then(|place| when.get_mut(place));
                    if let Some(place @ None) = place {
                        *place = Some(news.at);
                        missing -= 1;
                    }
                }
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => {
                    ensure!(Instant::now() < end, "{missing} of {count} hosts got nothing within {limit:?}");
                }
                Err(RecvTimeoutError::Disconnected) => bail!("all hosts ended"),
            }
        }
        Ok(when.into_iter().flatten().collect())
    }
}

async fn host(number: usize, client: Client, news: &Sender<News>, forget: &AtomicBool) {
    let name = world::host(number);
    let (report, reports) = watch::channel(HostStatus { host: name.clone(), ..HostStatus::default() });
    tokio::join!(follow(number, &name, &client, news, forget, &report), post(&client, reports));
}

async fn follow(
    number: usize,
    name: &str,
    client: &Client,
    news: &Sender<News>,
    forget: &AtomicBool,
    report: &watch::Sender<HostStatus>,
) {
    let mut has: Option<SealedSlice> = None;
    let mut pause = FIRST_PAUSE;
    loop {
        let follow = Follow::Deltas { has: has.as_ref().map(SealedSlice::version) };
        if let Ok(mut events) = client.agent_events(name, follow).await {
            while let Some(Ok(event)) = events.next().await {
                let whole = matches!(event, AgentEvent::State(_));
                let next = match (event, &has) {
                    (AgentEvent::State(state), _) => Some(state.seal().0),
                    (AgentEvent::Delta(delta), Some(before)) => before.apply(&delta).ok(),
                    (AgentEvent::Unchanged(_), before) => before.clone(),
                    (AgentEvent::Asked(_), _) => continue,
                    (AgentEvent::Slice(_) | AgentEvent::Delta(_), _) => None,
                };
                has = next;
                let Some(has) = &has else { break };
                let revision = has.slice().revision;
                let told = News { host: number, revision, whole, at: Instant::now() };
                if news.send(told).is_err() {
                    return;
                }
                report.send_replace(status(name, has));
                pause = FIRST_PAUSE;
            }
        }
        if forget.load(Ordering::Relaxed) {
            has = None;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn post(client: &Client, mut reports: watch::Receiver<HostStatus>) {
    loop {
        let status = reports.borrow_and_update().clone();
        // A manager that is away is told again soon.
        let _ = client.post_status(&status).await;
        if let Ok(Err(_)) = tokio::time::timeout(ROUTINE, reports.changed()).await {
            return;
        }
    }
}

/// What a host with traffic on all its ports says.
fn status(name: &str, has: &SealedSlice) -> HostStatus {
    let slice = has.slice();
    let ports = slice.ports.iter().filter(|port| port.host == name).map(|port| PortStatus {
        id: port.id,
        workload: port.workload.clone(),
        port: port.name.clone(),
        link: Link::Up,
        from_guest: Counters { packets: 1 << 30, bytes: 1 << 40 },
        to_guest: Counters { packets: 1 << 30, bytes: 1 << 40 },
        drops: [("policy-drop", 4711), ("spoofed-mac", 3)]
            .map(|(name, count)| (name.to_owned(), count))
            .into(),
        enforced: true,
        flows: 1000,
        flow_limit: 131_072,
        ..PortStatus::default()
    });
    HostStatus {
        host: name.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        revision: slice.revision,
        ports: ports.collect(),
        ..HostStatus::default()
    }
}

/// Each host takes two descriptors here; what the system does not give shows as hosts that get nothing.
fn allow_descriptors() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}
