//! What an agent makes of a manager that sends nonsense.

use std::sync::{Arc, Mutex};

use agent::{Config, Poll, Source, UnderlayConfig};
use mgmt_client::Membership;
use mgmt_types::Credentials;
use mgmt_types::agent::{HostStatus, SealedSlice, Slice, SliceDelta, SliceVersion};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::bed::{Bed, eventually};

/// A manager that says what a test wants: to each stream that an agent opens, the next of its scripts. The last one stays
/// open, the others end.
struct Manager {
    scripts: Vec<Vec<String>>,
    seen: Mutex<Seen>,
}

/// What agents asked for and reported.
#[derive(Default)]
struct Seen {
    asked: Vec<String>,
    reports: Vec<HostStatus>,
}

impl Manager {
    async fn serve(self: Arc<Self>, listener: TcpListener, acceptor: TlsAcceptor) {
        loop {
            let (stream, _) = listener.accept().await.expect("a client");
            let (manager, acceptor) = (self.clone(), acceptor.clone());
            tokio::spawn(async move { manager.connection(stream, acceptor).await });
        }
    }

    async fn connection(&self, stream: TcpStream, acceptor: TlsAcceptor) {
        let mut stream = acceptor.accept(stream).await.expect("a handshake");
        let mut bytes = Vec::new();
        loop {
            let mut more = [0; 4096];
            let Ok(count @ 1..) = stream.read(&mut more).await else { return };
            bytes.extend_from_slice(&more[..count]);
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            if head.starts_with("POST /v1/agent/status ") {
                let Ok(report) = serde_json::from_str(body) else { continue };
                self.seen.lock().expect("no panic").reports.push(report);
                bytes.clear();
                stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.expect("the agent reads");
                continue;
            }
            let script = {
                let mut seen = self.seen.lock().expect("no panic");
                seen.asked.push(head.lines().next().unwrap_or_default().to_owned());
                self.scripts.get(seen.asked.len() - 1).cloned().unwrap_or_default()
            };
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
            let said = head.to_owned() + &script.concat();
            // An agent that has read enough may leave.
            let _ = stream.write_all(said.as_bytes()).await;
            let _ = stream.flush().await;
            if self.seen.lock().expect("no panic").asked.len() >= self.scripts.len() {
                std::future::pending::<()>().await;
            }
            let _ = stream.shutdown().await;
            return;
        }
    }
}

fn event(name: &str, data: &impl Serialize) -> String {
    raw(name, &serde_json::to_string(data).expect("serialises"))
}

fn raw(name: &str, data: &str) -> String {
    format!("event: {name}\ndata: {data}\n\n")
}

#[test]
fn what_does_not_fit_is_refused_whole_and_counted_and_the_agent_asks_anew() {
    let bed = Bed::without_namespaces("nonsense");
    let sealed = |revision, ports: &[u32]| SealedSlice::new(bed.guests(revision, ports));
    let (one, two) = (sealed(1, &[1]), sealed(2, &[1, 2]));
    let good = SliceDelta::between(&one, &two).expect("both are in order");
    let bad = |change: &dyn Fn(&mut SliceDelta)| {
        let mut delta = good.clone();
        change(&mut delta);
        event("delta", &delta)
    };
    let state = event("state", &one);
    let foreign = Slice { host: "elsewhere".into(), ..bed.guests(7, &[1, 2]) };
    let nonsense = [
        raw("delta", "{\"from\": 1, \"revision\": [2"),
        bad(&|delta| delta.digest = one.digest()),
        bad(&|delta| delta.ports.remove.push(77)),
        event("state", &SealedSlice::new(foreign)),
    ];
    let refusals = nonsense.len() as u64;
    let mut scripts: Vec<Vec<String>> = nonsense.into_iter().map(|last| vec![state.clone(), last]).collect();
    scripts.push(vec![state, event("delta", &good)]);
    scripts.push(vec![event("unchanged", &two.version())]);
    let asks = scripts.len();
    let manager = Arc::new(Manager { scripts, seen: Mutex::default() });

    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .expect("a good certificate");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
    let url = format!("https://{}", listener.local_addr().expect("an address"));
    runtime.spawn(manager.clone().serve(listener, TlsAcceptor::from(Arc::new(tls))));

    let directory = tempfile::tempdir().expect("a directory");
    // As joining would have left it; this manager asks for no certificate.
    let credentials = Credentials {
        host: "here".into(),
        certificate: made.cert.pem(),
        not_before: 0,
        not_after: u64::MAX,
        authority: String::new(),
        authorities: vec![made.cert.pem()],
        managers: Vec::new(),
    };
    let member = Membership { key: made.signing_key.serialize_pem(), credentials, managers: vec![url] };
    agent::identity::keep(&directory.path().join("state"), &member).expect("keeps");
    let agent = agent::run(Config {
        host: "here".into(),
        state_dir: directory.path().join("state"),
        run_dir: directory.path().join("run"),
        workers: 1,
        cpus: Vec::new(),
        poll: Poll::Sleep,
        max_flows: 1 << 10,
        max_flows_per_port: 1 << 9,
        underlay: UnderlayConfig::default(),
        source: Source::Managers(Vec::new()),
    })
    .expect("the agent starts");

    eventually("the good delta is in force", || agent.status().revision == 2);
    eventually("the agent called again", || manager.seen.lock().expect("no panic").asked.len() == asks);
    eventually("it is told that nothing changed", || agent.status().sync.unchanged == 1);
    let status = agent.status();
    assert_eq!(status.ports.len(), 2);
    assert_eq!((status.sync.refused, status.sync.deltas), (refusals, 1), "{:?}", status.sync);
    assert!(status.sync.refusal.expect("a reason").contains("\"elsewhere\""));
    eventually("the manager is told", || {
        let seen = manager.seen.lock().expect("no panic");
        seen.reports.last().is_some_and(|report| report.revision == 2 && report.sync.refused == refusals)
    });
    let seen = manager.seen.lock().expect("no panic");
    for report in &seen.reports {
        assert!(matches!((report.revision, report.ports.len()), (0, 0) | (1, 1) | (2, 2)), "{report:?}");
    }
    let SliceVersion { revision, digest } = two.version();
    let names = |request: &String| request.contains(&format!("&from={revision}&digest={digest} "));
    assert!(seen.asked.iter().all(|request| request.contains("&deltas=true")), "{:?}", seen.asked);
    assert!(seen.asked[..asks - 1].iter().all(|request| !request.contains("from=")), "{:?}", seen.asked);
    assert!(seen.asked.last().is_some_and(names), "{:?}", seen.asked);
    drop(seen);
    agent.stop();
}
