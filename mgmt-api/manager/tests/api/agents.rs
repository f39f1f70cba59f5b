//! What hosts get and say.

use mgmt_client::{AgentEvent, AgentEvents, Client, Follow};
use mgmt_types::agent::{Counters, HostStatus, Link, PortStatus, SealedSlice, SliceVersion};
use mgmt_types::{Kind, RealisedState, Resource};

use crate::server::{BASE, PATIENCE, Server};

/// The test's end of a host that takes deltas.
struct Host {
    client: Client,
    events: AgentEvents,
}

impl Host {
    async fn follow(client: Client, has: Option<SliceVersion>) -> Self {
        let events = client.agent_events("host-a", Follow::Deltas { has }).await.unwrap();
        Self { client, events }
    }

    async fn next(&mut self) -> AgentEvent {
        tokio::time::timeout(PATIENCE, self.events.next()).await.unwrap().unwrap().unwrap()
    }

    /// The next event must be a delta; what it leads to.
    async fn delta(&mut self, before: &SealedSlice) -> SealedSlice {
        match self.next().await {
            AgentEvent::Delta(delta) => before.apply(&delta).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    /// The next event must be a whole slice.
    async fn state(&mut self) -> SealedSlice {
        match self.next().await {
            AgentEvent::State(state) => {
                let (sealed, agreed) = state.seal();
                assert!(agreed);
                sealed
            }
            other => panic!("{other:?}"),
        }
    }

    /// Hangs up and calls again.
    async fn again(self, has: Option<SliceVersion>) -> Self {
        drop(self.events);
        Self::follow(self.client, has).await
    }
}

const MORE: &str =
    "kind: Workload\nname: web-2\nspec: { host: host-a, kind: vm, ports: [{ name: eth0, network: blue }] }\n";

#[tokio::test]
async fn a_host_that_takes_deltas_gets_a_whole_slice_once_and_then_what_is_different() {
    let server = Server::start().await;
    server.apply(BASE).await;
    let client = server.host("host-a").await;
    let mut host = Host::follow(client, None).await;
    let first = host.state().await;
    assert_eq!(first.slice().ports.len(), 1);
    let revision = server.apply(MORE).await;
    let second = host.delta(&first).await;
    assert_eq!((second.slice().revision, second.slice().ports.len()), (revision, 2));
    server.apply("kind: Group\nname: shop\nspec: { match: app = shop }\n").await;
    let third = host.delta(&second).await;
    assert_ne!(third.slice().ports[0].identity, 0);
    // What whoever asks anew is told is the same.
    let mut other = Host::follow(server.host("host-a").await, None).await;
    assert_eq!(other.state().await, third);
}

#[tokio::test]
async fn a_host_that_calls_again_is_told_what_happened_meanwhile_and_no_more() {
    let server = Server::start().await;
    server.apply(BASE).await;
    let client = server.host("host-a").await;
    let mut host = Host::follow(client, None).await;
    let first = host.state().await;

    let mut host = host.again(Some(first.version())).await;
    assert_eq!(host.next().await, AgentEvent::Unchanged(first.version()));
    server.apply(MORE).await;
    let second = host.delta(&first).await;

    // It hangs up, something happens, it calls again.
    let Host { client, events } = host;
    drop(events);
    server.apply(&MORE.replace("web-2", "web-3")).await;
    let mut host = Host::follow(client, Some(second.version())).await;
    let third = host.delta(&second).await;
    assert_eq!(third.slice().ports.len(), 3);

    // One that has something else is told all, and so is one that could not apply a delta.
    let strange = SliceVersion { digest: first.digest(), ..third.version() };
    for has in [Some(strange), Some(first.version()), None] {
        host = host.again(has).await;
        assert_eq!(host.state().await, third);
    }
}

#[tokio::test]
async fn a_manager_that_was_restarted_tells_again_only_what_a_host_does_not_have() {
    let server = Server::start().await;
    server.apply(BASE).await;
    let client = server.host("host-a").await;
    let first = Host::follow(client, None).await.state().await;
    let server = Server::start_in(server.stop().await).await;
    let mut host = Host::follow(server.host("host-a").await, Some(first.version())).await;
    assert_eq!(host.next().await, AgentEvent::Unchanged(first.version()));
    server.apply(MORE).await;
    let second = host.delta(&first).await;

    let server = Server::start_in(server.stop().await).await;
    let mut host = Host::follow(server.host("host-a").await, Some(first.version())).await;
    assert_eq!(host.state().await, second, "what it had is not remembered");
}

fn status(revision: u64, ports: Vec<PortStatus>) -> HostStatus {
    HostStatus { host: "host-a".into(), version: "1.2".into(), revision, ports, ..HostStatus::default() }
}

#[tokio::test]
async fn a_host_gets_its_slice_at_once_and_again_when_it_changes() {
    let server = Server::start().await;
    let agent = server.host("host-a").await;
    let mut slices = agent.agent_state_stream("host-a", 0).await.unwrap();
    let next = async |slices: &mut mgmt_client::Events<_>| {
        tokio::time::timeout(PATIENCE, slices.next()).await.unwrap().unwrap().unwrap()
    };
    let first: mgmt_types::agent::Slice = next(&mut slices).await;
    assert_eq!((first.revision, first.host.as_str(), first.ports.len()), (2, "host-a", 0));
    // Joining made the host.
    assert!(matches!(server.client().get(Kind::Host, "host-a").await.unwrap(), Resource::Host(_)));

    let revision = server.apply(BASE).await;
    let second: mgmt_types::agent::Slice = next(&mut slices).await;
    assert_eq!((second.revision, second.networks.len(), second.ports.len()), (revision, 1, 1));

    // What is nobody's business here does not come; the next thing that is, does.
    server.apply("kind: Network\nname: other\nspec: { subnets: [] }\n").await;
    let more = "kind: Workload\nname: web-2\nspec: { host: host-a, kind: vm, ports: [{ name: eth0, network: blue }] }\n";
    let revision = server.apply(more).await;
    let third: mgmt_types::agent::Slice = next(&mut slices).await;
    assert_eq!((third.revision, third.ports.len()), (revision, 2));
    server.stop().await;
    let end = tokio::time::timeout(PATIENCE, slices.next()).await.unwrap();
    assert!(end.is_none_or(|last| last.is_err()), "the stream goes on without a manager");
}

#[tokio::test]
async fn what_a_host_says_is_shown_and_revisions_become_realised() {
    let server = Server::start().await;
    let client = server.client();
    let revision = server.apply(BASE).await;
    let waiting = client.realised(revision).await.unwrap();
    assert_eq!((waiting.done, waiting.hosts[0].state), (false, RealisedState::Pending));

    let agent = server.host("host-a").await;
    let Resource::Workload(workload) = client.get(Kind::Workload, "web-1").await.unwrap() else { panic!() };
    let id = workload.status.unwrap().ports[0].id;
    let port = PortStatus {
        id,
        workload: "web-1".into(),
        port: "eth0".into(),
        link: Link::Up,
        faults: vec!["ring 1: index jumped".into()],
        from_guest: Counters { packets: 7, bytes: 420 },
        to_guest: Counters { packets: 8, bytes: 480 },
        drops: [("spoofed-mac".to_owned(), 3)].into(),
        details: [("vmm".to_owned(), "qemu".to_owned())].into(),
        ..PortStatus::default()
    };
    agent.post_status(&status(revision, vec![port])).await.unwrap();
    let done = client.realised(revision).await.unwrap();
    assert_eq!((done.done, done.hosts[0].state), (true, RealisedState::Applied));

    let Resource::Workload(workload) = client.get(Kind::Workload, "web-1").await.unwrap() else { panic!() };
    let report = workload.status.unwrap();
    let port = &report.ports[0];
    assert!(report.connected);
    assert_eq!((port.link, port.from_guest.packets, port.drops["spoofed-mac"]), (Some(Link::Up), 7, 3));
    let Resource::Host(host) = client.get(Kind::Host, "host-a").await.unwrap() else { panic!() };
    let report = host.status.unwrap();
    assert_eq!((report.connected, report.version.as_deref()), (true, Some("1.2")));
    assert_eq!((report.revision, report.ports, report.ports_up), (revision, 1, 0), "a fault is not up");
}

#[tokio::test]
async fn unknown_fields_of_what_a_host_says_are_ignored() {
    let server = Server::start().await;
    let member = server.join("host-z").await;
    let body = br#"{"host":"host-z","version":"9","revision":0,"ports":[],"mood":"good"}"#;
    let json = [("content-type", "application/json")];
    let answer = server.ask_as(Some(&member), "POST", "/v1/agent/status", &json, body).await;
    assert_eq!(answer.status, 204, "{answer:?}");
    let host = server.get("/v1/hosts/host-z").await.json();
    assert_eq!(host["status"]["connected"], true);
    // Saying it again is no new revision.
    server.ask_as(Some(&member), "POST", "/v1/agent/status", &json, body).await;
    assert_eq!(server.get("/v1/hosts").await.json()["revision"], 2);
}
