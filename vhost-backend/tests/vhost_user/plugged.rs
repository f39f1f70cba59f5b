//! A port in a directory of its own, with somebody who watches it and somebody who carries its frames.

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use tempfile::TempDir;
use vhost_backend::{Port, PortConfig, PortEvents, PortState, Role, RxQueue, Store, TxQueue};

/// Counts the port's events and remembers announcements.
#[derive(Default)]
pub(crate) struct Watch {
    seen: Mutex<(u64, Vec<[u8; 6]>)>,
    news: Condvar,
}

impl Watch {
    fn count(&self) {
        self.seen.lock().unwrap().0 += 1;
        self.news.notify_all();
    }

    pub(crate) fn announced(&self) -> Vec<[u8; 6]> {
        self.seen.lock().unwrap().1.clone()
    }
}

impl PortEvents for Watch {
    fn wake(&self, _: u16) {
        self.count();
    }
    fn changed(&self) {
        self.count();
    }
    fn announced(&self, mac: [u8; 6]) {
        self.seen.lock().unwrap().1.push(mac);
        self.count();
    }
}

/// See the module.
pub(crate) struct Plugged {
    pub(crate) port: Arc<Port>,
    pub(crate) watch: Arc<Watch>,
    pub(crate) dir: TempDir,
}

impl Plugged {
    pub(crate) fn new(pairs: u16) -> Self {
        Self::with(pairs, |_| {})
    }

    pub(crate) fn with(pairs: u16, adjust: impl FnOnce(&mut PortConfig)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = PortConfig {
            name: "web-1.eth0".to_owned(),
            socket: dir.path().join("port.sock"),
            role: Role::Server,
            mac: [2, 0, 0, 0, 0, 1],
            mtu: 1442,
            queue_pairs: pairs,
            features_off: 0,
        };
        adjust(&mut config);
        let watch = Arc::new(Watch::default());
        let port = Port::open(config, watch.clone()).unwrap();
        Plugged { port, watch, dir }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("port.sock")
    }

    /// Waits until the port's state is as wanted.
    pub(crate) fn until(&self, wanted: impl Fn(&PortState) -> bool) -> PortState {
        loop {
            let before = self.watch.seen.lock().unwrap().0;
            let state = self.port.state();
            if wanted(&state) {
                return state;
            }
            let seen = self.watch.seen.lock().unwrap();
            let limit = Duration::from_secs(20);
            let waited = self.watch.news.wait_timeout_while(seen, limit, |seen| seen.0 == before).unwrap().1;
            assert!(!waited.timed_out(), "nothing happens, and the port is {state:#?}");
        }
    }

    /// Waits until all rings of the port run.
    pub(crate) fn until_running(&self) -> PortState {
        self.until(|state| state.rings.iter().all(|ring| ring.running))
    }

    /// Carries what the guest sent on `pair` back to it; how many frames.
    pub(crate) fn turn_around(&self, pair: u16, store: &mut Store) -> usize {
        carry(self.port.tx(pair), self.port.rx(pair), store)
    }
}

/// Carries one burst, once neither ring is in the middle of a change: a front end sets a ring's call eventfd after the
/// message that started it.
pub(crate) fn carry(from: &TxQueue, to: &RxQueue, store: &mut Store) -> usize {
    let (mut from, mut to) = loop {
        if let (Some(from), Some(to)) = (from.enter(), to.enter()) {
            break (from, to);
        }
        if !(from.running() && to.running()) {
            return 0;
        }
        std::thread::yield_now();
    };
    let burst = from.take(store);
    to.expect(burst.len());
    (0..burst.len()).filter(|i| to.put(&burst, *i, &burst.frames()[*i].net).is_ok()).count()
}
