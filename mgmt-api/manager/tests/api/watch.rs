//! The stream of revisions.

use mgmt_types::Change;

use crate::server::{BASE, PATIENCE, Server};

#[tokio::test]
async fn a_watcher_sees_every_revision_after_the_one_it_knows() {
    let server = Server::start().await;
    let client = server.client();
    for name in ["a", "b", "c"] {
        server.apply(&format!("kind: Host\nname: {name}\n")).await;
    }
    let mut events = client.watch(Some(2)).await.unwrap();
    let mut seen = Vec::new();
    for _ in 0..2 {
        let revision = tokio::time::timeout(PATIENCE, events.next()).await.unwrap().unwrap().unwrap();
        seen.push((revision.revision, revision.changes[0].name.clone()));
    }
    assert_eq!(seen, [(3, "b".to_owned()), (4, "c".to_owned())]);
    server.apply("kind: Host\nname: c\nlabels: { x: y }\n").await;
    let live = tokio::time::timeout(PATIENCE, events.next()).await.unwrap().unwrap().unwrap();
    assert_eq!((live.revision, live.changes[0].change), (5, Change::Configured));
    assert!(live.changes[0].before.is_some() && live.changes[0].after.is_some());
}

#[tokio::test]
async fn without_a_revision_a_watcher_begins_now() {
    let server = Server::start().await;
    server.apply(BASE).await;
    let mut events = server.client().watch(None).await.unwrap();
    server.apply("kind: Host\nname: late\n").await;
    let next = tokio::time::timeout(PATIENCE, events.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(next.revision, 3);
}
