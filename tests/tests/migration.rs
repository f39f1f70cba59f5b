//! A busy guest moves to another QEMU process, its memory tracked by the dirty log that palisade keeps.
//!
//! Both processes are on one host, so the destination has a port of its own; when the guest has moved, its name and
//! addresses move too, in one transaction.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::guest::{Guest, Nic};
use e2e::lab::{LINK, Lab, LabSpec, machine, v4_of, v6_of, with_lab};
use e2e::palisade::HOST;
use e2e::process::eventually;
use e2e::shell::Shell;
use e2e::traffic::{Pinger, must_ping, stream, wait_ping};
use e2e::trials::{Nothing, check, note, run};
use serde_json::json;

fn main() -> ExitCode {
    run(vec![check(
        "a_guest_that_receives_and_sends_migrates_with_its_memory_intact",
        300,
        |_: &mut Nothing| with_lab(&LabSpec::default(), migrates),
    )])
}

fn migrates(lab: &mut Lab) -> Result<()> {
    lab.palisade.apply(&machine("e", &Nic::new("", "")))?;
    let socket = lab.scratch.join("migration.sock");
    let mut spec = lab.guest("a").spec().clone();
    spec.nics[0].socket = lab.palisade.socket("e", "eth0");
    spec.name = "e".to_owned();
    spec.incoming = Some(socket.clone());
    // Files with the destination's own names: the source still uses its.
    let destination = Guest::start(spec, lab.scratch.path())?;

    let source = lab.guest("a");
    let pings = Pinger::start(lab.guest("b"), v4_of("a"), 20)?;
    // A stream into the guest writes its memory through the rings all the while.
    lab.guest("a").run("/usr/bin/iperf3 -s -D")?;
    let load = format!("/usr/bin/iperf3 -c {} -t 60 > /dev/null 2>&1 &", v4_of("a"));
    lab.end("c").run(&load)?;
    source.run("head -c 50000000 /dev/urandom > /tmp/kept && sha256sum < /tmp/kept > /tmp/kept.sum")?;

    let begin = Instant::now();
    // Emulation is slow beside memory: without a limit nothing would change during the migration.
    source.qmp("migrate-set-parameters", json!({ "max-bandwidth": 100_000_000, "downtime-limit": 300 }))?;
    source.qmp("migrate", json!({ "uri": format!("unix:{}", socket.display()) }))?;
    let mut report = json!({});
    eventually("the migration completes", Duration::from_secs(120), || {
        report = source.qmp("query-migrate", json!({}))?;
        ensure!(report["status"] != "failed", "the migration failed: {report}");
        Ok(report["status"] == "completed")
    })
    .with_context(|| format!("{report}"))?;
    let took = begin.elapsed();
    note(&format!(
        "migrated in {took:.1?}, downtime {} ms, {} passes",
        report["downtime"], report["ram"]["dirty-sync-count"]
    ));
    ensure!(report["ram"]["dirty-sync-count"].as_u64() >= Some(2), "nothing was dirty: {report}");

    let seen = pings.answers(lab.guest("b"))?;
    let port = lab.palisade.port("a", "eth0")?;
    lab.guest("a").kill();
    lab.palisade.cli(&["delete", "workload", "a"])?;
    lab.palisade.apply(&moved(&port.mac()?))?;
    let moved = Instant::now();
    let resumed = pings.resumed(lab.guest("b"), seen, moved, LINK)?;
    note(&format!("traffic {resumed:.2?} after the port had moved"));
    pings.stop(lab.guest("b"))?;

    // The very guest, with the very memory.
    destination.run("sha256sum < /tmp/kept | cmp - /tmp/kept.sum")?;
    must_ping(&destination, v4_of("b"))?;
    wait_ping(&destination, v6_of("b"), LINK)?;
    stream(lab.guest("b"), &destination, v4_of("a"), 20)?;
    stream(&destination, lab.end("c"), v6_of("c"), 20)?;
    Ok(())
}

/// Workload e with the addresses that were a's.
fn moved(mac: &str) -> String {
    let (v4, v6) = (v4_of("a"), v6_of("a"));
    format!(
        "kind: Workload\nname: e\nspec:\n  host: {HOST}\n  kind: vm\n  \
         ports: [{{ name: eth0, network: blue, addresses: [{v4}, \"{v6}\"], mac: \"{mac}\" }}]\n"
    )
}
