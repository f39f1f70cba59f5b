//! The client against a server that says exactly what a test wants, over TLS.

use std::sync::Arc;
use std::time::Duration;

use mgmt_client::{Client, Endpoint, Error, Timeouts};
use mgmt_types::agent::{HostStatus, Slice};
use mgmt_types::{Kind, Problem, ProblemKind};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// Accepts one connection, reads one request, answers with `pieces` one write after the other, and then keeps the
/// connection open when `stays`. Gives where it is, and the request it got.
async fn server(pieces: Vec<Vec<u8>>, stays: bool) -> (Endpoint, tokio::task::JoinHandle<String>) {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .expect("a good certificate");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("https://{}", listener.local_addr().expect("an address"));
    let task = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("a client");
        let Ok(mut stream) = TlsAcceptor::from(Arc::new(config)).accept(stream).await else {
            return "no handshake".to_owned();
        };
        let mut request = Vec::new();
        while !is_whole(&request) {
            let mut bytes = [0; 1024];
            let count = stream.read(&mut bytes).await.expect("reads");
            assert!(count > 0, "the client left early");
            request.extend_from_slice(&bytes[..count]);
        }
        for piece in pieces {
            // The client may have seen enough.
            if stream.write_all(&piece).await.is_err() || stream.flush().await.is_err() {
                break;
            }
        }
        if stays {
            std::future::pending::<()>().await;
        }
        // A good end, which TLS tells from a cut line; the client may have left before.
        let _ = stream.shutdown().await;
        String::from_utf8(request).expect("text")
    });
    (Endpoint { url, token: "secret".to_owned(), ca_pem: made.cert.pem() }, task)
}

/// True when head and body of a request are there.
fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    body.len() >= length.unwrap_or(0)
}

fn answer(status: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
        .into_bytes()
}

const STREAM: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";

fn client(endpoint: &Endpoint) -> Client {
    Client::connect(endpoint).expect("a good endpoint")
}

/// A client that gives up soon.
fn hasty(endpoint: &Endpoint) -> Client {
    let soon = Duration::from_millis(50);
    let timeouts =
        Timeouts { connect: Duration::from_secs(5), request: Duration::from_secs(5), silence: soon };
    Client::connect_with(endpoint, timeouts).expect("a good endpoint")
}

fn slice(revision: u64) -> Slice {
    Slice { revision, host: "host-a".to_owned(), ..Slice::default() }
}

fn event(name: &str, data: &impl serde::Serialize) -> String {
    format!("event: {name}\ndata: {}\n\n", serde_json::to_string(data).expect("serialises"))
}

#[tokio::test]
async fn slices_arrive_whole_wherever_the_stream_is_cut() {
    let text =
        format!("{STREAM}{}: sign of life\n\n{}", event("slice", &slice(1)), event("slice", &slice(2)));
    for size in [1, 2, 3, 5, 64, text.len()] {
        let pieces = text.as_bytes().chunks(size).map(<[u8]>::to_vec).collect();
        let (endpoint, served) = server(pieces, false).await;
        let mut slices = client(&endpoint).agent_state_stream("host-a", 7).await.expect("a stream");
        for revision in [1, 2] {
            let next = slices.next().await.expect("an event").expect("a slice");
            assert_eq!(next, slice(revision), "in pieces of {size}");
        }
        assert!(slices.next().await.is_none(), "in pieces of {size}");
        let request = served.await.expect("serves");
        assert!(request.starts_with("GET /v1/agent/state?host=host-a&from=7 HTTP/1.1\r\n"), "{request}");
        assert!(request.to_lowercase().contains("\r\nauthorization: bearer secret\r\n"), "{request}");
    }
}

#[tokio::test]
async fn a_silent_stream_ends_with_an_error() {
    let (endpoint, served) =
        server(vec![format!("{STREAM}{}", event("slice", &slice(1))).into()], true).await;
    let mut slices = hasty(&endpoint).agent_state_stream("host-a", 0).await.expect("a stream");
    assert_eq!(slices.next().await.expect("an event").expect("a slice"), slice(1));
    let error = slices.next().await.expect("an end").expect_err("silence");
    assert!(matches!(error, Error::Silent { .. }) && error.is_unreachable(), "{error}");
    assert!(slices.next().await.is_none());
    served.abort();
}

#[tokio::test]
async fn a_problem_within_a_stream_is_told_and_ends_it() {
    let problem = Problem::new(ProblemKind::Gone, "revision 3 is no longer kept");
    let text = format!("{STREAM}{}{}", event("problem", &problem), event("slice", &slice(1)));
    let (endpoint, _) = server(vec![text.into()], false).await;
    let mut revisions = client(&endpoint).watch(Some(3)).await.expect("a stream");
    let error = revisions.next().await.expect("an event").expect_err("a problem");
    assert_eq!(error.problem(), Some(&problem));
    assert!(revisions.next().await.is_none());
}

#[tokio::test]
async fn an_event_that_is_something_else_is_shown_and_ends_the_stream() {
    let (endpoint, _) =
        server(vec![format!("{STREAM}data: {{\"revision\": \"x\"}}\n\n").into()], false).await;
    let mut slices = client(&endpoint).agent_state_stream("host-a", 0).await.expect("a stream");
    let error = slices.next().await.expect("an event").expect_err("no slice");
    assert!(matches!(&error, Error::Answer { got, .. } if got.contains("revision")), "{error}");
    assert!(slices.next().await.is_none());
}

#[tokio::test]
async fn a_problem_is_an_error_that_keeps_all_it_says() {
    let problem = Problem::new(ProblemKind::NotFound, "there is no Network/blue");
    let body = serde_json::to_string(&problem).expect("serialises");
    let (endpoint, served) = server(vec![answer("404 Not Found", &body)], false).await;
    let error = client(&endpoint).get(Kind::Network, "a/b").await.expect_err("a problem");
    assert_eq!(error.problem(), Some(&problem));
    assert!(served.await.expect("serves").starts_with("GET /v1/networks/a%2Fb "));
}

#[tokio::test]
async fn an_answer_of_another_service_is_shown() {
    let (endpoint, _) = server(vec![answer("502 Bad Gateway", "<html>proxy")], false).await;
    let error = client(&endpoint).list(Kind::Network, None).await.expect_err("no manager");
    assert!(matches!(&error, Error::Status { status: 502, got, .. } if got == "<html>proxy"), "{error}");
    let (endpoint, _) = server(vec![answer("200 OK", "<html>hello")], false).await;
    let error = client(&endpoint).list(Kind::Network, None).await.expect_err("no manager");
    assert!(matches!(&error, Error::Answer { got, .. } if got == "<html>hello"), "{error}");
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_an_error() {
    let cut = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"revision\"".to_vec();
    let (endpoint, _) = server(vec![cut], false).await;
    let error = client(&endpoint).list(Kind::Network, None).await.expect_err("half an answer");
    assert!(error.is_unreachable(), "{error}");
}

#[tokio::test]
async fn a_request_that_is_not_answered_has_an_end() {
    let (endpoint, served) = server(Vec::new(), true).await;
    let soon = Duration::from_millis(50);
    let timeouts = Timeouts { connect: soon, request: soon, silence: soon };
    let client = Client::connect_with(&endpoint, timeouts).expect("a good endpoint");
    let error = client.list(Kind::Network, None).await.expect_err("no answer");
    assert!(matches!(error, Error::Timeout { .. }), "{error}");
    served.abort();
}

#[tokio::test]
async fn status_is_posted_and_needs_no_answer() {
    let (endpoint, served) = server(vec![b"HTTP/1.1 204 No Content\r\n\r\n".to_vec()], false).await;
    let status = HostStatus {
        host: "host-a".to_owned(),
        version: "1".to_owned(),
        revision: 4,
        ..HostStatus::default()
    };
    client(&endpoint).post_status(&status).await.expect("taken");
    let request = served.await.expect("serves");
    assert!(request.starts_with("POST /v1/agent/status ") && request.contains("\"revision\":4"), "{request}");
}

#[tokio::test]
async fn only_the_authority_that_was_named_is_trusted() {
    let (good, served) = server(Vec::new(), false).await;
    let (other, _) = server(Vec::new(), false).await;
    let wrong = Endpoint { ca_pem: other.ca_pem, ..good };
    let error = client(&wrong).list(Kind::Network, None).await.expect_err("a stranger");
    assert!(matches!(error, Error::Tls { .. }), "{error:?}");
    assert_eq!(served.await.expect("serves"), "no handshake");
}

#[tokio::test]
async fn a_manager_that_is_not_there_is_named() {
    let (endpoint, served) = server(Vec::new(), false).await;
    served.abort();
    let gone = served.await.expect_err("was ended");
    assert!(gone.is_cancelled());
    let error = client(&endpoint).list(Kind::Network, None).await.expect_err("nobody");
    assert!(matches!(&error, Error::Connect { url, .. } if *url == endpoint.url), "{error:?}");
    assert!(error.to_string().contains("is the manager running"), "{error}");
}
