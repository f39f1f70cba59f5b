//! Everything ends and begins again, and traffic goes on without anybody's hand: guests, drivers, VMMs, the agent.

use std::fs;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::lab::{LINK, Lab, LabSpec, addresses, rounds, settle, v4_of, v6_of};
use e2e::process::eventually;
use e2e::shell::Shell;
use e2e::traffic::{Pinger, must_ping, slow_stream, spread, wait_ping};
use e2e::trials::{Fixture, check, note, run};

/// R1, and the Foundation's own promise: after this long from the start of the new process traffic flows again.
const RESUME: Duration = Duration::from_secs(2);
/// How long to go on looking after that, to say by how much it was missed.
const PATIENCE: Duration = Duration::from_secs(20);

struct Net(Lab);

impl Fixture for Net {
    fn new() -> Result<Self> {
        Ok(Self(Lab::start(&LabSpec { containers: vec!["c", "d"], ..LabSpec::default() })?))
    }

    fn report(&self) -> String {
        self.0.report()
    }
}

fn main() -> ExitCode {
    run(vec![
        check("a_guest_reboots_and_traffic_resumes", 400, guest_reboots),
        check("a_driver_unbinds_and_binds_and_traffic_resumes", 300, driver_rebinds),
        check("a_vmm_is_killed_and_replaced_and_traffic_resumes", 400, vmm_is_replaced),
        check(
            "the_agent_is_killed_and_traffic_resumes_within_two_seconds_of_the_new_one",
            400,
            agent_is_killed,
        ),
        check("traffic_resumes_after_outages_of_1_5_and_30_seconds", 120, outages),
        check("a_graceful_stop_ends_with_success_and_traffic_resumes_after_it", 60, graceful_stop),
        check("a_stream_survives_the_agents_death", 200, stream_survives),
    ])
}

fn guest_reboots(Net(lab): &mut Net) -> Result<()> {
    let mut leak = Leak::default();
    let mut took = Vec::new();
    for round in 0..rounds() {
        let begin = Instant::now();
        lab.guest("a").reset().with_context(|| format!("round {round}"))?;
        settle(lab.guest("a")).with_context(|| format!("round {round}"))?;
        reaches(lab, "a").with_context(|| format!("round {round}"))?;
        took.push(begin.elapsed());
        leak.look(lab)?;
    }
    note(&format!("reboot to traffic: {}", spread(took)));
    leak.judge()
}

fn driver_rebinds(Net(lab): &mut Net) -> Result<()> {
    let mut leak = Leak::default();
    let guest = lab.guest("a");
    let driver = "/sys/bus/virtio/drivers/virtio_net";
    let device = guest.run(&format!("basename {driver}/virtio*"))?.trim().to_owned();
    let mut took = Vec::new();
    for round in 0..rounds() {
        let begin = Instant::now();
        guest.run(&format!("echo {device} > {driver}/unbind"))?;
        eventually("the port sees the driver go", Duration::from_secs(5), || {
            Ok(!lab.palisade.port("a", "eth0")?.is_up())
        })
        .with_context(|| format!("round {round}"))?;
        guest.run(&format!("echo {device} > {driver}/bind"))?;
        // The kernel numbers the card anew.
        guest.run("[ -e /sys/class/net/eth0 ] || ip link set $(basename /sys/class/net/eth*) name eth0")?;
        settle(guest)?;
        reaches(lab, "a").with_context(|| format!("round {round}"))?;
        took.push(begin.elapsed());
        leak.look(lab)?;
    }
    note(&format!("unbind to traffic: {}", spread(took)));
    leak.judge()
}

fn vmm_is_replaced(Net(lab): &mut Net) -> Result<()> {
    let mut leak = Leak::default();
    let mut took = Vec::new();
    for round in 0..rounds() {
        let begin = Instant::now();
        lab.guest("a").kill();
        lab.replace("a").with_context(|| format!("round {round}"))?;
        reaches(lab, "a").with_context(|| format!("round {round}"))?;
        took.push(begin.elapsed());
        leak.look(lab)?;
    }
    note(&format!("VMM killed to traffic of its successor: {}", spread(took)));
    leak.judge()
}

fn agent_is_killed(Net(lab): &mut Net) -> Result<()> {
    let (mut guests, mut containers) = (Vec::new(), Vec::new());
    for round in 0..rounds() {
        let gap = outage(lab, Duration::ZERO).with_context(|| format!("round {round}"))?;
        guests.push(gap.guest);
        containers.push(gap.container);
    }
    let all: Vec<Duration> = guests.iter().chain(&containers).copied().collect();
    note(&format!("new process to traffic between guests: {}", spread(guests)));
    note(&format!("new process to traffic between containers: {}", spread(containers)));
    let late = all.iter().filter(|gap| **gap > RESUME).count();
    ensure!(late == 0, "{late} of {} were later than {RESUME:?}: {}", all.len(), spread(all));
    Ok(())
}

fn outages(Net(lab): &mut Net) -> Result<()> {
    for seconds in [1, 5, 30] {
        let gap = outage(lab, Duration::from_secs(seconds)).with_context(|| format!("{seconds} s"))?;
        note(&format!(
            "{seconds} s outage: guests {:.2?}, containers {:.2?} after the start",
            gap.guest, gap.container
        ));
        ensure!(gap.guest <= RESUME && gap.container <= RESUME, "later than {RESUME:?}");
    }
    Ok(())
}

struct Gap {
    guest: Duration,
    container: Duration,
}

/// Kills the agent, waits, starts a new one, and measures until pings between the guests, and between the containers,
/// are answered. QEMU looks for its peer once a second, counted from the kill, so traffic between guests is back within
/// little more than a second: nobody waits for a guest's own question for its neighbours.
fn outage(lab: &Lab, pause: Duration) -> Result<Gap> {
    let (a, c) = (lab.guest("a"), &lab.container("c").netns);
    let pings = Pinger::start(a, v4_of("b"), 20)?;
    let taps = Pinger::start(c, v4_of("d"), 20)?;
    pings.resumed(a, 0, Instant::now(), PATIENCE)?;
    taps.resumed(c, 0, Instant::now(), PATIENCE)?;
    lab.palisade.kill9();
    let (seen, seen_tap) = (pings.answers(a)?, taps.answers(c)?);
    // The outage itself is what is tested here.
    std::thread::sleep(pause);
    let started = lab.palisade.start_again()?;
    // Two watchers, so that one's wait is not the other's measurement.
    let (guest, container) = std::thread::scope(|scope| {
        let tap = scope.spawn(|| taps.resumed(c, seen_tap, started, PATIENCE));
        let guest = pings.resumed(a, seen, started, PATIENCE);
        (guest, tap.join())
    });
    let container = container.map_err(|_| anyhow::anyhow!("the watcher panicked"))??;
    let gap = Gap { guest: guest?, container };
    lab.palisade.wait_ready()?;
    pings.stop(a)?;
    taps.stop(c)?;
    Ok(gap)
}

fn graceful_stop(Net(lab): &mut Net) -> Result<()> {
    lab.palisade.stop()?;
    let started = lab.palisade.start_again()?;
    lab.palisade.wait_ready()?;
    wait_ping(lab.guest("a"), v4_of("b"), PATIENCE)?;
    wait_ping(&lab.container("c").netns, v6_of("a"), PATIENCE)?;
    note(&format!("ready and pinged {:.2?} after the start", started.elapsed()));
    Ok(())
}

fn stream_survives(Net(lab): &mut Net) -> Result<()> {
    let before = lab.palisade.port("b", "eth0")?.packets_to_guest();
    let lab = &*lab;
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| slow_stream(lab.guest("a"), lab.guest("b"), v4_of("b"), 100));
        // In the middle of it: enough of it went through, and far from all.
        eventually("the stream flows", Duration::from_secs(60), || {
            let flows = lab.palisade.port("b", "eth0")?.packets_to_guest() > before + 1000;
            Ok(flows || sender.is_finished())
        })?;
        ensure!(!sender.is_finished(), "the stream was over before the agent died");
        lab.palisade.kill9();
        lab.palisade.start_again()?;
        lab.palisade.wait_ready()?;
        let stream = sender.join().map_err(|_| anyhow::anyhow!("the sender panicked"))??;
        note(&format!("100 MB arrived unchanged in {:.1?}", stream.took));
        Ok(())
    })
}

fn reaches(lab: &Lab, name: &str) -> Result<()> {
    wait_ping(lab.end(name), v4_of("b"), LINK)?;
    must_ping(lab.end(name), v6_of("b"))?;
    must_ping(lab.end("c"), addresses(name)[0].0)
}

/// Open files and memory of the process from round to round: what a round leaves behind, all rounds multiply.
#[derive(Default)]
struct Leak {
    files: Vec<usize>,
    kilobytes: Vec<u64>,
}

impl Leak {
    fn look(&mut self, lab: &Lab) -> Result<()> {
        let process = format!("/proc/{}", lab.palisade.id());
        self.files.push(fs::read_dir(format!("{process}/fd"))?.count());
        let status = fs::read_to_string(format!("{process}/status"))?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        self.kilobytes.push(resident.trim().trim_end_matches(" kB").parse()?);
        Ok(())
    }

    /// The first rounds warm up; from then on nothing may grow with the number of rounds.
    fn judge(&self) -> Result<()> {
        let warm = 2.min(self.files.len().saturating_sub(1));
        let rounds = self.files.len().saturating_sub(warm + 1);
        let (Some(first), Some(last)) = (self.files.get(warm), self.files.last()) else { return Ok(()) };
        // Client connections of the moment may open a few.
        ensure!(*last <= first + 4, "open files grow: {:?}", self.files);
        let (Some(first), Some(last)) = (self.kilobytes.get(warm), self.kilobytes.last()) else {
            return Ok(());
        };
        let limit = first + 4096 + 64 * rounds as u64;
        ensure!(*last <= limit, "resident kilobytes grow: {:?}", self.kilobytes);
        Ok(())
    }
}
