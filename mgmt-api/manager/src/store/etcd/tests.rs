//! What only a shared store can do, and suffer.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use mgmt_types::Revision;

use super::chores::Chores;
use super::pieces::{PIECE, Step};
use super::{Etcd, Read};
use crate::state::State;
use crate::store::tests::{BASE, Cluster, apply, entry, label, try_apply};
use crate::store::{Commit, RecordChange, Store, StoreError, Table};
use crate::testing::{manager, wishes};
use crate::transaction;

/// Makes a store's manager the leader, for as long as etcd runs.
fn lead(cluster: &Cluster, store: &Etcd) {
    let put = store.put("lead", store.keys.leader(), store.name.clone().into_bytes());
    cluster.runtime.block_on(put).unwrap();
}

fn keys(cluster: &Cluster, store: &Etcd, span: super::Span) -> Vec<String> {
    let found = cluster.runtime.block_on(store.range("look", span, usize::MAX, Read::Keys)).unwrap();
    found.into_iter().map(|(key, _)| key).collect()
}

/// One transaction that is larger than etcd takes in one request, and of more keys.
fn large() -> String {
    let mut text = BASE.to_owned();
    for n in 0..4000 {
        text.push_str(&format!(
            "---\nkind: Workload\nname: large-{n}\nlabels: {{ filling: {} }}\nspec: {{ host: a, kind: vm, ports: [{{ name: e, network: blue, addresses: [10.0.{}.{}] }}] }}\n",
            "x".repeat(60),
            64 + n / 250,
            1 + n % 250
        ));
    }
    text.replace("10.0.1.0/24", "10.0.0.0/16")
}

#[test]
fn of_two_managers_one_wins_and_the_other_goes_on_from_there() {
    let cluster = Cluster::start();
    let (one, two) = (cluster.open("/p", "one"), cluster.open("/p", "two"));
    let first = apply(&*one, &State::default(), &wishes(BASE));
    let seen = two.catch_up(&State::default()).unwrap().unwrap();
    assert_eq!(seen, first);
    let second = apply(&*two, &seen, &label(2));
    let late = try_apply(&*one, &first, &label(1), &[]);
    assert!(matches!(late, Err(StoreError::Conflict { have: 2, got: 2 })), "{late:?}");
    assert_eq!(one.catch_up(&first).unwrap(), Some(second));
}

#[test]
fn a_change_larger_than_a_request_is_made_whole() {
    let cluster = Cluster::start();
    let store = cluster.open("/p", "one");
    let state = apply(&*store, &State::default(), &wishes(&large()));
    let pieces = keys(&cluster, &store, store.keys.pieces_between(1, 1));
    assert!(pieces.len() > 3, "{} pieces of {PIECE} bytes", pieces.len());
    assert_eq!(store.load().unwrap(), state);
    assert_eq!(store.revision(1).unwrap().unwrap().changes.len(), 4003);
}

#[test]
fn a_writer_that_dies_before_its_change_is_current_leaves_nothing_for_long() {
    let cluster = Cluster::start();
    let store = cluster.open("/p", "one");
    lead(&cluster, &store);
    let manager = manager(store.clone());
    let state = apply(&*store, &State::default(), &wishes(BASE));
    manager.catch_up().unwrap();
    // Two died while they wrote the next revision, and one long ago.
    for key in
        [store.keys.piece(2, "dead-0", 0), store.keys.piece(2, "dead-0", 1), store.keys.piece(1, "dead-9", 0)]
    {
        cluster.runtime.block_on(store.put("die", key, b"half of it".to_vec())).unwrap();
    }
    assert_eq!(store.load().unwrap(), state);
    let mut chores = Chores::default();
    let mut turn = |seconds| {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        cluster.runtime.block_on(chores.run(&store, &manager, now)).unwrap();
        keys(&cluster, &store, store.keys.pieces_between(0, u64::MAX)).len()
    };
    assert_eq!(turn(0), 3, "who may still be writing is left alone");
    assert_eq!(turn(59), 3);
    assert_eq!(turn(60), 1);
    assert_eq!(store.load().unwrap(), state);
}

#[test]
fn pieces_that_were_swept_up_do_not_become_current() {
    let cluster = Cluster::start();
    let (one, two) = (cluster.open("/p", "one"), cluster.open("/p", "two"));
    lead(&cluster, &two);
    let plan = transaction::plan(&State::default(), &wishes(&large())).unwrap();
    let revision = Revision {
        revision: 1,
        time: String::new(),
        author: "me".into(),
        changes: plan.diffs,
        hosts: plan.hosts,
    };
    let commit = Commit {
        revision: &revision,
        puts: &plan.puts,
        removals: &[],
        identities: &plan.identities,
        counters: plan.state.counters,
        records: &[],
        audit: &entry("apply"),
    };
    let text = Step::encode(&commit).unwrap();
    cluster.runtime.block_on(one.write_pieces(1, "one-0", &text)).unwrap();
    cluster.runtime.block_on(two.sweep_up(1, "one-0")).unwrap();
    let late = cluster.runtime.block_on(one.make_current(&commit, "one-0", &text));
    assert!(matches!(late, Err(StoreError::Conflict { .. })), "{late:?}");
    assert_eq!(two.load().unwrap(), State::default());

    one.commit(&commit).unwrap();
    assert_eq!(two.load().unwrap(), plan.state);
    cluster.runtime.block_on(two.sweep_up(1, "one-0")).unwrap();
    assert_eq!(two.load().unwrap(), plan.state, "what won is never swept up");
}

#[test]
fn the_leader_writes_bases_and_a_new_manager_starts_from_them() {
    let cluster = Cluster::start();
    let store = cluster.open("/p", "one");
    lead(&cluster, &store);
    let manager = manager(store.clone());
    let mut chores = Chores::default();
    let mut state = apply(&*store, &State::default(), &wishes(&large()));
    for round in 0..3u64 {
        for n in 0..100 {
            state = apply(&*store, &state, &label(round * 100 + n));
        }
        manager.catch_up().unwrap();
        cluster.runtime.block_on(chores.run(&store, &manager, SystemTime::UNIX_EPOCH)).unwrap();
    }
    let base = cluster.runtime.block_on(store.base()).unwrap().unwrap();
    assert!((200..=301).contains(&base.revision), "{base:?}");
    let pieces = keys(&cluster, &store, store.keys.bases());
    assert_eq!(pieces.len() as u32, base.pieces, "a base that was replaced is gone");
    assert_eq!(cluster.open("/p", "two").load().unwrap(), state);
    assert_eq!(*manager.state(), state);
}

#[test]
fn who_does_not_lead_does_no_chores() {
    let cluster = Cluster::start();
    let store = cluster.open("/p", "one");
    let manager = manager(store.clone());
    let mut state = apply(&*store, &State::default(), &wishes(BASE));
    for n in 0..200 {
        state = apply(&*store, &state, &label(n));
    }
    manager.catch_up().unwrap();
    let done = cluster.runtime.block_on(Chores::default().run(&store, &manager, SystemTime::UNIX_EPOCH));
    assert!(matches!(done, Err(StoreError::NotLeading { .. })), "{done:?}");
    assert_eq!(cluster.runtime.block_on(store.base()).unwrap(), None);
    assert_eq!(store.load().unwrap(), state);
}

/// Stands before etcd; while it is mute, requests arrive and answers do not.
struct Mute {
    port: u16,
    mute: Arc<AtomicBool>,
}

impl Mute {
    fn before(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mute = Arc::new(AtomicBool::new(false));
        let flag = mute.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let server = TcpStream::connect(("127.0.0.1", target)).unwrap();
                let (from_client, to_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                std::thread::spawn(move || pass(from_client, to_server, &AtomicBool::new(false)));
                let flag = flag.clone();
                std::thread::spawn(move || pass(server, client, &flag));
            }
        });
        Self { port, mute }
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, mute: &AtomicBool) {
    let mut buffer = [0; 65536];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        if !mute.load(Ordering::Relaxed) && to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

#[test]
fn an_answer_that_is_lost_is_no_riddle_the_change_is_made_once() {
    let cluster = Cluster::start();
    let proxy = Mute::before(cluster.port);
    let store = cluster.try_open(&[proxy.port, cluster.port], "/p", "one").unwrap();
    let state = apply(&store, &State::default(), &wishes(BASE));
    // The first member takes the commit and its answer is lost; the second one is asked again.
    proxy.mute.store(true, Ordering::Relaxed);
    let state = apply(&store, &state, &label(1));
    assert_eq!(store.load().unwrap(), state);
    assert_eq!(store.revisions_after(0, 9).unwrap().len(), 2);
    assert_eq!(store.audit(None, 9).unwrap().len(), 2);
}

#[test]
fn a_record_whose_answer_is_lost_is_changed_once() {
    let cluster = Cluster::start();
    let proxy = Mute::before(cluster.port);
    let store = cluster.try_open(&[proxy.port, cluster.port], "/p", "one").unwrap();
    store.load().unwrap();
    proxy.mute.store(true, Ordering::Relaxed);
    let change =
        RecordChange { table: Table::Tokens, key: "a".into(), before: None, after: Some("1".into()) };
    store.change_records(&[change], &entry("add")).unwrap();
    assert_eq!(store.records(Table::Tokens).unwrap().len(), 1);
    assert_eq!(store.audit(None, 9).unwrap().len(), 1);
}

#[test]
fn what_does_not_answer_is_said_in_time_and_by_name() {
    let cluster = Cluster::start();
    let proxy = Mute::before(cluster.port);
    let store = cluster.try_open(&[proxy.port], "/p", "one").unwrap();
    proxy.mute.store(true, Ordering::Relaxed);
    let begin = std::time::Instant::now();
    let error = store.load().unwrap_err();
    assert!(matches!(error, StoreError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains(&proxy.port.to_string()), "{error}");
    assert!(begin.elapsed() < Duration::from_secs(8), "{:?}", begin.elapsed());
    store.set_cut_off(Some(SystemTime::UNIX_EPOCH));
    let error = store.load().unwrap_err();
    assert!(matches!(error, StoreError::CutOff { .. }), "{error}");
}

#[test]
fn a_store_of_another_layout_is_not_touched() {
    let cluster = Cluster::start();
    let store = cluster.open("/p", "one");
    let put = store.put("age", store.keys.layout(), b"99".to_vec());
    cluster.runtime.block_on(put).unwrap();
    let refused = cluster.try_open(&[cluster.port], "/p", "two").err().unwrap();
    assert!(refused.to_string().contains("layout 99"), "{refused}");
}
