//! docs/connections.md says what the code says.

use std::path::Path;

use pipeline::conntrack::tcp::State;
use pipeline::conntrack::timeouts::{Class, Timeouts};

fn page() -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/connections.md");
    std::fs::read_to_string(page).unwrap()
}

#[test]
fn the_table_of_timeouts_is_the_codes() {
    let page = page();
    let rows = page.lines().filter_map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        Some((cells.first()?.to_string(), cells.get(1)?.parse().ok()?))
    });
    let wanted = Class::ALL.iter().map(|class| (class.name().to_string(), Timeouts::default().of(*class)));
    assert_eq!(rows.collect::<Vec<(String, u32)>>(), wanted.collect::<Vec<_>>());
}

#[test]
fn every_state_of_tcp_is_named() {
    let page = page();
    for state in State::ALL {
        assert!(page.contains(&format!("`{}`", state.name())), "{state:?}");
    }
}
