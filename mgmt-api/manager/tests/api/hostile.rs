//! Clients that mean no good, or know no better.

use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::server::{PATIENCE, Server};

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_and_the_client_is_told() {
    let server = Server::start().await;
    let body = "# nothing\n".repeat(600_000);
    let answer = server.send("POST", "/v1/apply", &[("content-type", "application/yaml")], &body).await;
    assert_eq!(answer.status, 413, "{}", answer.head);
    assert!(answer.json()["expected"].as_str().unwrap().contains("at most 4194304 bytes"));
}

#[tokio::test]
async fn a_body_is_not_read_for_a_stranger() {
    let server = Server::start().await;
    // The length is promised and never sent: the answer comes all the same.
    let request = "POST /v1/apply HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/yaml\r\ncontent-length: 4000000\r\n\r\n";
    assert_eq!(server.raw(request.as_bytes()).await.status, 401);
}

#[tokio::test]
async fn a_huge_or_broken_head_is_refused() {
    let server = Server::start().await;
    let long = format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "x".repeat(100_000));
    let many = format!("GET / HTTP/1.1\r\nhost: x\r\n{}\r\n", "a: b\r\n".repeat(1000));
    for head in [
        long.as_str(),
        many.as_str(),
        "HELO example.org\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "\0\0\0\0\r\n\r\n",
    ] {
        let answer = server.raw(head.as_bytes()).await;
        assert!(matches!(answer.status, 0 | 400..=499), "{answer:?}");
    }
    assert_eq!(server.get("/v1/networks").await.status, 200);
}

#[tokio::test]
async fn who_speaks_no_tls_is_hung_up_on() {
    let server = Server::start().await;
    let mut stream = TcpStream::connect(server.running.address()).await.unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap();
    assert!(read.is_err() || !answer.starts_with(b"HTTP"), "{answer:?}");
}

#[tokio::test]
async fn more_connections_than_one_source_may_have_are_closed_and_others_work() {
    let server = Server::start().await;
    let mut held = Vec::new();
    for _ in 0..300 {
        held.push(TcpStream::connect(server.running.address()).await.unwrap());
    }
    // The last ones are closed by the server at once.
    let mut last = held.pop().unwrap();
    let end = tokio::time::timeout(PATIENCE, last.read_u8()).await.unwrap();
    assert!(end.is_err());
    // Another source is not affected.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 2], 0).into()).unwrap();
    let mut other = socket.connect(server.running.address()).await.unwrap();
    let waits = tokio::time::timeout(std::time::Duration::from_millis(100), other.read_u8()).await;
    assert!(waits.is_err(), "it was closed");
    drop(held);
    let began = Instant::now();
    let answer = loop {
        // Slots are free again once the server has seen the clients go.
        let mut stream = TcpStream::connect(server.running.address()).await.unwrap();
        let closed = tokio::time::timeout(std::time::Duration::from_millis(50), stream.read_u8()).await;
        if closed.is_err() {
            break server.get("/metrics").await;
        }
        assert!(began.elapsed() < PATIENCE);
    };
    let refused =
        answer.body.lines().find(|line| line.starts_with("palisade_manager_connections_refused_total"));
    let refused: u64 = refused.unwrap().rsplit(' ').next().unwrap().parse().unwrap();
    assert!(refused >= 44, "{refused}");
}

#[tokio::test]
async fn a_manager_of_another_authority_is_not_trusted() {
    let server = Server::start().await;
    let other = Server::start().await;
    let mut endpoint = server.endpoint(&server.admin);
    endpoint.ca_pem = other.endpoint("").ca_pem;
    let client = mgmt_client::Client::connect(&endpoint).unwrap();
    let error = client.list(mgmt_types::Kind::Network, None).await.unwrap_err();
    assert!(error.is_unreachable(), "{error}");
}
