//! Either side may listen on the vhost-user socket, and either side may go and come back.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::guest::{Guest, GuestSpec, Nic};
use e2e::lab::{LINK, Lab, LabSpec, settle, v4_of, v6_of, with_lab};
use e2e::shell::Shell;
use e2e::traffic::{Pinger, must_ping, spread, stream, wait_ping};
use e2e::trials::{Nothing, check, note, run};

fn main() -> ExitCode {
    run(vec![
        check("a_vmm_that_listens_is_connected_to", 120, |_: &mut Nothing| vmm_listens()),
        check("a_new_agent_connects_again_to_a_vmm_that_listens", 180, |_: &mut Nothing| agent_returns()),
        check("a_new_vmm_that_listens_is_connected_to_again", 180, |_: &mut Nothing| vmm_returns()),
        check("the_arguments_that_port_attach_prints_boot_a_guest", 120, |_: &mut Nothing| {
            printed_arguments()
        }),
    ])
}

fn listening() -> LabSpec {
    LabSpec { guests: vec![("a", Nic::listening), ("b", |nic| nic)], ..LabSpec::default() }
}

fn vmm_listens() -> Result<()> {
    with_lab(&listening(), |lab| {
        both_ways(lab)?;
        stream(lab.guest("a"), lab.guest("b"), v4_of("b"), 20)?;
        stream(lab.guest("b"), lab.guest("a"), v6_of("a"), 20).map(drop)
    })
}

fn agent_returns() -> Result<()> {
    with_lab(&listening(), |lab| {
        let a = lab.guest("a");
        let pings = Pinger::start(a, v4_of("b"), 20)?;
        pings.resumed(a, 0, Instant::now(), LINK)?;
        let mut gaps = Vec::new();
        for round in 0..5 {
            lab.palisade.kill9();
            let seen = pings.answers(a)?;
            let started = lab.palisade.start_again()?;
            let gap = pings.resumed(a, seen, started, Duration::from_secs(20));
            gaps.push(gap.with_context(|| format!("round {round}"))?);
            lab.palisade.wait_ready()?;
        }
        let late = gaps.iter().filter(|gap| **gap > Duration::from_secs(2)).count();
        let spread = spread(gaps);
        note(&format!("new process to traffic: {spread}"));
        ensure!(late == 0, "{late} later than 2 s: {spread}");
        Ok(())
    })
}

fn vmm_returns() -> Result<()> {
    with_lab(&listening(), |lab| {
        for round in 0..3 {
            lab.guest("a").kill();
            lab.replace("a").with_context(|| format!("round {round}"))?;
            both_ways(lab).with_context(|| format!("round {round}"))?;
        }
        Ok(())
    })
}

fn printed_arguments() -> Result<()> {
    let spec = LabSpec { guests: vec![("b", |nic| nic)], ..LabSpec::default() };
    with_lab(&spec, |lab| {
        lab.palisade.apply(&e2e::lab::machine("a", &Nic::new("", "")))?;
        let guest = GuestSpec::new("a").with_nic_arguments(&lab.palisade.qemu_arguments("a")?);
        let guest = Guest::boot(guest, lab.scratch.path())?;
        settle(&guest)?;
        lab.put(guest);
        both_ways(lab)?;
        let declared = lab.palisade.port("a", "eth0")?.mac()?;
        let seen = lab.guest("a").run("cat /sys/class/net/eth0/address")?;
        ensure!(seen.trim() == declared, "the guest has {seen:?}, its port declares {declared}");
        Ok(())
    })
}

fn both_ways(lab: &Lab) -> Result<()> {
    wait_ping(lab.end("a"), v4_of("b"), LINK)?;
    must_ping(lab.end("a"), v6_of("c"))?;
    must_ping(lab.end("b"), v6_of("a"))
}
