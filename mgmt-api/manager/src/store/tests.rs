//! Every store does the same: the embedded one and etcd, with a real etcd.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mgmt_types::{AuditEntry, Kind, Revision, Role};
use proptest::prelude::*;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::{Commit, Embedded, Etcd, EtcdAddress, Limits, RecordChange, Store, StoreError, StoreTls, Table};
use crate::state::State;
use crate::testing::{deletions, wishes};
use crate::transaction::{self, Wish};

/// An etcd of one member, ended when dropped.
pub(super) struct Cluster {
    child: Child,
    _directory: TempDir,
    pub(super) port: u16,
    /// Where the calls of its stores run.
    pub(super) runtime: Runtime,
}

impl Cluster {
    pub(super) fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (port, peers) = (free(), free());
        let url = |port| format!("http://127.0.0.1:{port}");
        let child = Command::new("etcd")
            .arg("--data-dir")
            .arg(directory.path())
            .args(["--listen-client-urls", &url(port), "--advertise-client-urls", &url(port)])
            .args(["--listen-peer-urls", &url(peers), "--initial-advertise-peer-urls", &url(peers)])
            .args(["--initial-cluster", &format!("default={}", url(peers))])
            .args(["--heartbeat-interval", "50", "--election-timeout", "500", "--unsafe-no-fsync"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("etcd is not installed");
        let runtime = Runtime::new().unwrap();
        let cluster = Self { child, _directory: directory, port, runtime };
        let end = Instant::now() + Duration::from_secs(20);
        while let Err(error) = cluster.try_open(&[port], "/ready", "probe") {
            assert!(Instant::now() < end, "etcd does not answer: {error}");
        }
        cluster
    }

    /// A store as a manager of this name has it.
    pub(super) fn open(&self, prefix: &str, name: &str) -> Arc<Etcd> {
        Arc::new(self.try_open(&[self.port], prefix, name).unwrap())
    }

    pub(super) fn try_open(&self, ports: &[u16], prefix: &str, name: &str) -> Result<Etcd, StoreError> {
        let members = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        let address = EtcdAddress { tls: false, members, prefix: prefix.to_owned() };
        Etcd::open(&address, &StoreTls::default(), name.to_owned(), self.runtime.handle().clone())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The embedded store and etcd, both empty, for one check.
fn each(check: impl Fn(&dyn Store)) {
    let directory = tempfile::tempdir().unwrap();
    check(&Embedded::open(&directory.path().join("store"), Limits::default()).unwrap());
    let cluster = Cluster::start();
    check(&*cluster.open("/each", "one"));
}

pub(super) const BASE: &str = "kind: Host\nname: a\n---\nkind: Network\nname: blue\nspec: { subnets: [10.0.1.0/24] }\n---\nkind: Workload\nname: w\nspec: { host: a, kind: vm, ports: [{ name: e, network: blue }] }\n";

pub(super) fn entry(action: &str) -> AuditEntry {
    AuditEntry {
        id: 0,
        time: "2024-01-01T00:00:00Z".into(),
        author: Some("me".into()),
        role: Some(Role::Admin),
        peer: None,
        action: action.into(),
        status: 200,
        revision: None,
        changes: Vec::new(),
        detail: None,
        suppressed: 0,
    }
}

pub(super) fn try_apply(
    store: &dyn Store,
    state: &State,
    wishes: &[Wish],
    records: &[RecordChange],
) -> Result<State, StoreError> {
    let plan = transaction::plan(state, wishes).unwrap();
    if plan.diffs.is_empty() {
        return Ok(plan.state);
    }
    let revision = Revision {
        revision: plan.state.revision,
        time: "2024-01-01T00:00:00Z".into(),
        author: "me".into(),
        changes: plan.diffs,
        hosts: plan.hosts,
    };
    let counters = plan.state.counters;
    let (puts, removals, audit) = (&plan.puts, &plan.removals, &entry("apply"));
    let identities = &plan.identities;
    store.commit(&Commit { revision: &revision, puts, removals, identities, counters, records, audit })?;
    Ok(plan.state)
}

pub(super) fn apply(store: &dyn Store, state: &State, wishes: &[Wish]) -> State {
    try_apply(store, state, wishes, &[]).unwrap()
}

pub(super) fn label(n: u64) -> Vec<Wish> {
    wishes(&format!("kind: Host\nname: a\nlabels: {{ n: '{n}' }}\n"))
}

fn record(key: &str, before: Option<&str>, after: Option<&str>) -> RecordChange {
    let owned = |text: Option<&str>| text.map(str::to_owned);
    RecordChange { table: Table::Tokens, key: key.to_owned(), before: owned(before), after: owned(after) }
}

#[test]
fn state_and_history_are_read_as_they_were_written() {
    each(|store| {
        assert_eq!(store.load().unwrap(), State::default());
        assert_eq!(store.oldest_revision().unwrap(), None);
        let mut state = apply(store, &State::default(), &wishes(BASE));
        for n in 0..5 {
            state = apply(store, &state, &label(n));
        }
        state = apply(store, &state, &deletions("kind: Workload\nname: w\n"));
        assert_eq!(store.load().unwrap(), state);
        assert_eq!(store.catch_up(&state).unwrap(), None);
        assert_eq!(store.oldest_revision().unwrap(), Some(1));
        assert_eq!(store.revision(7).unwrap().unwrap().changes[0].kind, Kind::Workload);
        assert_eq!(store.revision(8).unwrap(), None);
        let numbers = |after, most| -> Vec<u64> {
            store.revisions_after(after, most).unwrap().iter().map(|revision| revision.revision).collect()
        };
        assert_eq!((numbers(0, 3), numbers(5, 9), numbers(7, 9)), (vec![1, 2, 3], vec![6, 7], vec![]));
    });
}

#[test]
fn a_revision_that_does_not_follow_is_refused() {
    each(|store| {
        let state = apply(store, &State::default(), &wishes(BASE));
        let refused = try_apply(store, &State::default(), &wishes("kind: Host\nname: b\n"), &[]);
        assert!(matches!(refused, Err(StoreError::Conflict { have: 1, got: 1 })), "{refused:?}");
        assert_eq!(store.load().unwrap(), state);
        assert_eq!(store.audit(None, 9).unwrap().len(), 1);
    });
}

#[test]
fn records_change_all_or_none_and_only_from_what_they_were() {
    each(|store| {
        let records = || store.records(Table::Tokens).unwrap();
        let pair = |key: &str, text: &str| (key.to_owned(), text.to_owned());
        let both = [record("a", None, Some("1")), record("b", None, Some("2"))];
        store.change_records(&both, &entry("both")).unwrap();
        assert_eq!(records(), [pair("a", "1"), pair("b", "2")]);
        let second = [record("a", Some("1"), Some("3")), record("b", Some("0"), None)];
        let refused = store.change_records(&second, &entry("wrong"));
        assert!(matches!(&refused, Err(StoreError::Raced { key, .. }) if key == "b"), "{refused:?}");
        assert!(matches!(store.change_records(&both, &entry("again")), Err(StoreError::Raced { .. })));
        assert_eq!(records(), [pair("a", "1"), pair("b", "2")]);

        let state = apply(store, &State::default(), &wishes(BASE));
        let refused = try_apply(store, &state, &label(1), &[record("a", Some("9"), None)]);
        assert!(matches!(&refused, Err(StoreError::Raced { key, .. }) if key == "a"), "{refused:?}");
        assert_eq!(store.load().unwrap(), state);
        try_apply(store, &state, &label(1), &[record("a", Some("1"), None)]).unwrap();
        assert_eq!(records(), [pair("b", "2")]);
        assert_eq!(store.audit(None, 9).unwrap().len(), 3);
    });
}

#[test]
fn the_audit_log_is_read_from_the_newest_on_page_by_page() {
    each(|store| {
        for n in 0..6 {
            match n % 2 {
                0 => store.change_records(&[record(&n.to_string(), None, Some("x"))], &entry(&n.to_string())),
                _ => store.refused(&entry(&n.to_string())),
            }
            .unwrap();
        }
        let actions = |page: &[AuditEntry]| page.iter().map(|entry| entry.action.clone()).collect::<Vec<_>>();
        let all = store.audit(None, 9).unwrap();
        assert_eq!(actions(&all), ["5", "4", "3", "2", "1", "0"]);
        assert_eq!(actions(&store.audit(Some(all[1].id), 3).unwrap()), ["3", "2", "1"]);
    });
}

/// One step of a script: what is declared or deleted, by small numbers.
fn step() -> impl Strategy<Value = Vec<Wish>> {
    let (name, other) = (0..4u8, 0..3u8);
    (0..9u8, name, other).prop_map(|(what, n, m)| match what {
        0 => wishes(&format!("kind: Host\nname: h{n}\nlabels: {{ n: '{m}' }}\n")),
        1 => wishes(&format!("kind: Network\nname: n{n}\nspec: {{ subnets: [10.{n}.{m}.0/24] }}\n")),
        2 | 3 => wishes(&format!(
            "kind: Workload\nname: w{n}\nlabels: {{ tier: t{m} }}\nspec: {{ host: h{m}, kind: vm, ports: [{{ name: e, network: n{n} }}] }}\n"
        )),
        4 => wishes(&format!("kind: Group\nname: g{m}\nspec: {{ match: \"tier = t{n}\" }}\n")),
        5 => wishes(&format!(
            "kind: FirewallPolicy\nname: p{n}\nspec: {{ tier: application, appliesTo: [g{m}], rules: [{{ name: r{m}, direction: in, action: allow, from: [any] }}] }}\n"
        )),
        6 => deletions(&format!("kind: Workload\nname: w{n}\n")),
        7 => deletions(&format!("kind: Group\nname: g{m}\n")),
        _ => deletions(&format!("kind: Network\nname: n{n}\n")),
    })
}

#[test]
fn the_same_script_gives_the_same_state_in_both_stores_whichever_manager_does_a_step() {
    let cluster = Cluster::start();
    let directory = tempfile::tempdir().unwrap();
    let scripts = prop::collection::vec((step(), any::<bool>()), 1..40);
    let mut case = 0;
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(40));
    let mut accepted = 0;
    let run = |script: Vec<(Vec<Wish>, bool)>| -> Result<usize, TestCaseError> {
        case += 1;
        let embedded = Embedded::open(&directory.path().join(case.to_string()), Limits::default()).unwrap();
        let managers = ["one", "two"].map(|name| cluster.open(&format!("/script/{case}"), name));
        let mut states = [State::default(), State::default()];
        let mut alone = State::default();
        let mut accepted = 0;
        for (wishes, first) in script {
            let at = usize::from(!first);
            let (store, state) = (&managers[at], &mut states[at]);
            if let Some(newer) = store.catch_up(state).unwrap() {
                *state = newer;
            }
            prop_assert_eq!(&*state, &alone);
            if transaction::plan(&alone, &wishes).is_err() {
                continue;
            }
            alone = apply(&embedded, &alone, &wishes);
            *state = apply(&**store, state, &wishes);
            accepted += 1;
        }
        prop_assert_eq!(&embedded.load().unwrap(), &alone);
        for store in &managers {
            prop_assert_eq!(&store.load().unwrap(), &alone);
            prop_assert_eq!(store.revisions_after(0, 99).unwrap(), embedded.revisions_after(0, 99).unwrap());
        }
        Ok(accepted)
    };
    let run = std::cell::RefCell::new(run);
    let total = std::cell::RefCell::new(&mut accepted);
    runner
        .run(&scripts, |script| {
            **total.borrow_mut() += (run.borrow_mut())(script)?;
            Ok(())
        })
        .unwrap();
    assert!(accepted > 200, "only {accepted} steps were ever accepted");
}
