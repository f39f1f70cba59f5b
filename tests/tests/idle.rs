//! An idle host costs next to nothing.

use std::fs;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::lab::{Lab, LabSpec, v4_of};
use e2e::traffic::must_ping;
use e2e::trials::{Fixture, check, note, run};

/// Over which time the processor is watched.
const WINDOW: Duration = Duration::from_secs(10);

struct Net(Lab);

impl Fixture for Net {
    fn new() -> Result<Self> {
        Ok(Self(Lab::start(&LabSpec::default())?))
    }

    fn report(&self) -> String {
        self.0.report()
    }
}

fn main() -> ExitCode {
    run(vec![
        check("two_idle_guests_cost_less_than_a_hundredth_of_a_core", 60, idle_processor),
        check("two_guests_cost_less_than_60_mebibytes", 30, memory),
    ])
}

fn idle_processor(Net(lab): &mut Net) -> Result<()> {
    must_ping(lab.guest("a"), v4_of("b"))?;
    let id = lab.palisade.id();
    let (begin, before) = (Instant::now(), ticks(id)?);
    std::thread::sleep(WINDOW);
    let (took, used) = (begin.elapsed(), ticks(id)? - before);
    // /proc counts in hundredths of a second (USER_HZ).
    let share = used as f64 / 100.0 / took.as_secs_f64();
    note(&format!("{:.2} % of a core over {took:.0?}", share * 100.0));
    ensure!(share < 0.01, "{:.2} % of a core while idle", share * 100.0);
    Ok(())
}

fn memory(Net(lab): &mut Net) -> Result<()> {
    let status = fs::read_to_string(format!("/proc/{}/status", lab.palisade.id()))?;
    let field = |name: &str| -> Result<u64> {
        let line =
            status.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("no {name}"))?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    };
    // Guest memory is shared and mapped, not ours: what was touched of it counts as RssShmem.
    let (all, shared) = (field("VmRSS:")?, field("RssShmem:")?);
    let own = (all - shared) / 1024;
    note(&format!("{own} MiB of its own, {} MiB of the guests' memory touched", shared / 1024));
    ensure!(own < 60, "{own} MiB");
    Ok(())
}

/// User and system time of a process, all its threads: fields 14 and 15 of proc(5) stat.
fn ticks(id: u32) -> Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat"))?;
    // The name in parentheses may hold spaces.
    let (_, rest) = stat.rsplit_once(") ").context("stat")?;
    let fields: Vec<&str> = rest.split(' ').collect();
    let field = |n: usize| -> Result<u64> { Ok(fields.get(n - 3).context("stat")?.parse()?) };
    Ok(field(14)? + field(15)?)
}
