//! What people ask of hosts and what hosts answer, with agents played by the test.

use std::net::IpAddr;

use mgmt_client::{AgentEvent, AgentEvents, Client, Document, Follow};
use mgmt_types::question::{
    Answer, Asked, FlowEvent, FlowQuery, FlowTidings, FlowUpdate, Probe, Question, Reply, Trace, TraceEnd,
    TraceOutcome, TraceRequest, Verdict, VerdictKind, VerdictQuery,
};
use mgmt_types::{FlowImpact, ProblemKind, Role};

use crate::server::{PATIENCE, Server};

const TWO_HOSTS: &str = r#"
kind: Host
name: host-a
---
kind: Host
name: host-b
---
kind: Network
name: blue
spec: { subnets: [10.0.1.0/24] }
---
kind: Workload
name: web-1
labels: { tier: web }
spec: { host: host-a, kind: vm, ports: [{ name: eth0, network: blue, addresses: [10.0.1.11] }] }
---
kind: Workload
name: db-1
spec: { host: host-b, kind: vm, ports: [{ name: eth0, network: blue, addresses: [10.0.1.21] }] }
"#;

/// The test's end of a host.
struct Host {
    client: Client,
    events: AgentEvents,
}

impl Host {
    async fn connect(server: &Server, host: &str) -> Self {
        let client = server.host(host).await;
        let events = client.agent_events(host, Follow::Whole).await.unwrap();
        let mut this = Self { client, events };
        assert!(matches!(this.next().await, AgentEvent::Slice(_)));
        this
    }

    async fn next(&mut self) -> AgentEvent {
        tokio::time::timeout(PATIENCE, self.events.next()).await.unwrap().unwrap().unwrap()
    }

    async fn asked(&mut self) -> Asked {
        loop {
            if let AgentEvent::Asked(asked) = self.next().await {
                return *asked;
            }
        }
    }

    /// Answers the next question in one piece.
    async fn answer(&mut self, answer: impl FnOnce(&Question) -> Answer) {
        let asked = self.asked().await;
        let reply = Reply { answer: answer(&asked.question), last: true };
        assert!(self.client.answer(asked.id, &reply).await.unwrap(), "nobody waits");
    }
}

fn request() -> TraceRequest {
    TraceRequest {
        source: "web-1".into(),
        destination: "db-1.eth0".into(),
        service: Probe::Tcp(5432),
        source_port: None,
    }
}

fn trace(host: &str, outcome: TraceOutcome) -> Trace {
    let end = |port: &str, host: &str, address: [u8; 4]| TraceEnd {
        port: Some(port.into()),
        host: Some(host.into()),
        address: IpAddr::from(address),
        groups: vec!["web".into()],
    };
    Trace {
        host: host.into(),
        revision: 3,
        source: end("web-1.eth0", "host-a", [10, 0, 1, 11]),
        destination: end("db-1.eth0", "host-b", [10, 0, 1, 21]),
        network: "blue".into(),
        service: Probe::Tcp(5432),
        steps: Vec::new(),
        outcome,
    }
}

#[tokio::test]
async fn a_trace_asks_the_sources_host_and_then_the_destinations() {
    let server = Server::start().await;
    server.apply(TWO_HOSTS).await;
    let (mut a, mut b) = (Host::connect(&server, "host-a").await, Host::connect(&server, "host-b").await);
    let viewer = server.client_with(&server.token("viewer", Role::Viewer).await);
    let request = request();
    let (answer, (), ()) = tokio::join!(
        viewer.trace(&request),
        a.answer(|question| {
            assert_eq!(question, &Question::Trace(request.clone()));
            Answer::Trace(Box::new(trace("host-a", TraceOutcome::Delivered)))
        }),
        b.answer(|_| Answer::Trace(Box::new(trace("host-b", TraceOutcome::Dropped)))),
    );
    let answer = answer.unwrap();
    let hosts: Vec<&str> = answer.traces.iter().map(|trace| trace.host.as_str()).collect();
    assert_eq!((hosts, answer.delivered), (vec!["host-a", "host-b"], false));
    assert!(answer.silent.is_empty());
}

#[tokio::test]
async fn a_host_that_is_silent_is_named_and_what_is_not_there_is_a_problem() {
    let server = Server::start().await;
    server.apply(TWO_HOSTS).await;
    let client = server.client();
    let mut a = Host::connect(&server, "host-a").await;
    let request = request();
    let (answer, ()) = tokio::join!(
        client.trace(&request),
        a.answer(|_| Answer::Trace(Box::new(trace("host-a", TraceOutcome::Delivered)))),
    );
    let answer = answer.unwrap();
    assert_eq!((answer.traces.len(), answer.delivered, answer.silent[0].host.as_str()), (1, false, "host-b"));
    assert!(answer.silent[0].reason.contains("not connected"), "{answer:?}");

    let nobody = client.trace(&TraceRequest { source: "web-9".into(), ..request.clone() }).await;
    let Err(mgmt_client::Error::Problem(problem)) = nobody else { panic!("{nobody:?}") };
    assert!(
        problem.is(ProblemKind::NotFound) && problem.first.field.as_deref() == Some("source"),
        "{problem:?}"
    );

    // What a host does not understand is the asker's mistake.
    let (refused, ()) = tokio::join!(
        client.trace(&request),
        a.answer(|_| Answer::Refused("db-1 is on no network of web-1".into()))
    );
    let Err(mgmt_client::Error::Problem(problem)) = refused else { panic!("{refused:?}") };
    assert!(problem.is(ProblemKind::Invalid) && problem.detail.contains("no network of"), "{problem:?}");
}

#[tokio::test]
async fn a_host_that_connects_again_is_asked_there_and_the_first_connection_goes_on() {
    let server = Server::start().await;
    server.apply(TWO_HOSTS).await;
    let mut first = Host::connect(&server, "host-a").await;
    let mut second = Host {
        events: first.client.agent_events("host-a", Follow::Whole).await.unwrap(),
        client: first.client.clone(),
    };
    assert!(matches!(second.next().await, AgentEvent::Slice(_)));
    let (client, query) = (server.client(), VerdictQuery { workload: "web-1".into(), ..Default::default() });
    let (list, ()) = tokio::join!(client.verdicts(&query), second.answer(|_| Answer::Verdicts(Vec::new())));
    assert!(list.unwrap().silent.is_empty());
    server.apply(&TWO_HOSTS.replace("tier: web", "tier: front")).await;
    server.apply("kind: Workload\nname: web-2\nspec: { host: host-a, kind: vm, ports: [{ name: eth0, network: blue }] }\n").await;
    for host in [&mut first, &mut second] {
        assert!(matches!(host.next().await, AgentEvent::Slice(_)));
    }
}

#[tokio::test]
async fn an_answer_comes_in_time_or_its_host_is_silent_and_late_answers_are_told_so() {
    let server = Server::start().await;
    server.apply(TWO_HOSTS).await;
    let mut a = Host::connect(&server, "host-a").await;
    let client = server.client();
    let query =
        VerdictQuery { workload: "web-1".into(), drops_only: true, limit: Some(7), ..Default::default() };
    let (list, asked) = tokio::join!(client.verdicts(&query), a.asked());
    assert_eq!(asked.question, Question::Verdicts(query));
    let list = list.unwrap();
    assert!(list.verdicts.is_empty() && list.silent[0].reason.contains("within 5 s"), "{list:?}");
    let late = Reply { answer: Answer::Verdicts(Vec::new()), last: true };
    assert!(!a.client.answer(asked.id, &late).await.unwrap(), "somebody waits still");
}

#[tokio::test]
async fn flows_are_followed_over_all_hosts_until_nobody_listens() {
    let server = Server::start().await;
    server.apply(TWO_HOSTS).await;
    let mut a = Host::connect(&server, "host-a").await;
    let mut events = server.client().follow_flows(&FlowQuery::default()).await.unwrap();
    let next = async |events: &mut mgmt_client::Events<FlowEvent>| {
        tokio::time::timeout(PATIENCE, events.next()).await.unwrap().unwrap().unwrap().update
    };
    let asked = a.asked().await;
    assert!(matches!(&asked.question, Question::Flows(query) if query.follow));
    // Of the host that cannot be listened to one hears so.
    let FlowUpdate::Missed { host, .. } = next(&mut events).await else { panic!("no word of host-b") };
    assert_eq!(host, "host-b");

    let verdict = Verdict {
        time: 5,
        host: "host-a".into(),
        port: "web-1.eth0".into(),
        verdict: VerdictKind::Dropped,
        reason: Some("default-deny".into()),
        meaning: None,
        flow: None,
        direction: None,
        rules: Vec::new(),
        source_groups: None,
        destination_groups: Some(vec!["db".into()]),
        revision: 1,
        bytes: 60,
        times: 3,
    };
    let update = FlowUpdate::Refused { verdict: Box::new(verdict) };
    for round in 0..3 {
        let event = FlowEvent { time: round, update: update.clone() };
        let tidings = FlowTidings { events: vec![event], ..FlowTidings::default() };
        let reply = Reply { answer: Answer::FlowEvents(tidings), last: false };
        assert!(a.client.answer(asked.id, &reply).await.unwrap());
        assert_eq!(next(&mut events).await, update);
    }
    drop(events);
    let empty = Reply { answer: Answer::FlowEvents(FlowTidings::default()), last: false };
    let end = tokio::time::Instant::now() + PATIENCE;
    while a.client.answer(asked.id, &empty).await.unwrap() {
        assert!(tokio::time::Instant::now() < end, "the question stays open");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_dry_run_says_what_would_become_of_live_flows_host_by_host() {
    let server = Server::start().await;
    server.apply(TWO_HOSTS).await;
    let mut a = Host::connect(&server, "host-a").await;
    let policy = "kind: FirewallPolicy\nname: strict\nspec: { tier: security, appliesTo: [any], rules: [{ name: none, action: drop }] }\n";
    let documents = [Document { file: "strict.yaml".into(), text: policy.into() }];
    let client = server.client();
    let (applied, ()) = tokio::join!(
        client.apply(&documents, true),
        a.answer(|question| {
            let Question::Impact(slice) = question else { panic!("{question:?}") };
            assert!(slice.policies.iter().any(|policy| policy.name == "strict"), "{slice:?}");
            Answer::Impact(FlowImpact { count_cut: 2, flows_allowed: 1, ..FlowImpact::default() })
        }),
    );
    let applied = applied.unwrap();
    assert!(applied.dry_run);
    let [here, there] = applied.flows.as_slice() else { panic!("{applied:?}") };
    assert_eq!(
        (here.host.as_str(), here.count_cut, here.flows_allowed, &here.error),
        ("host-a", 2, 1, &None)
    );
    assert_eq!(there.host, "host-b");
    assert!(there.error.is_some());
}
