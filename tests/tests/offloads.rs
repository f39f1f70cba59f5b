//! Guests that offload and guests that do not understand each other; so do many queues and large frames.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::capture::Capture;
use e2e::guest::Nic;
use e2e::lab::{Change, LINK, Lab, LabSpec, v4_of, v6_of, with_lab};
use e2e::shell::Shell;
use e2e::traffic::{slow_stream, stream, wait_ping};
use e2e::trials::{Nothing, check, note, run};

/// Enough for slow start to be over and for thousands of segments in every direction.
const MEGABYTES: u32 = 20;

fn everything(nic: Nic) -> Nic {
    nic.with_offloads(true)
}

fn nothing(nic: Nic) -> Nic {
    nic.with_offloads(false)
}

/// Checksums are left to the other side in both directions, segmentation is not.
fn checksums(nic: Nic) -> Nic {
    nic.with_offloads(false).with("csum", "on").with("guest_csum", "on")
}

/// Receives whole TSO frames, but sends none.
fn receives_large(nic: Nic) -> Nic {
    nic.with_offloads(true).with("host_tso4", "off").with("host_tso6", "off")
}

/// Sends TSO frames, but has to be sent single segments.
fn sends_large(nic: Nic) -> Nic {
    nic.with_offloads(true).with("guest_tso4", "off").with("guest_tso6", "off")
}

/// One descriptor chain per frame, so a TSO frame needs a 64 KiB buffer.
fn unmergeable(nic: Nic) -> Nic {
    nic.with("mrg_rxbuf", "off")
}

/// Every older way to lay out and announce descriptors.
fn plain_rings(nic: Nic) -> Nic {
    nic.with("event_idx", "off").with("indirect_desc", "off").with("mrg_rxbuf", "off")
}

const PAIRS: [(&str, Change, Change); 8] = [
    ("all_on_and_all_on", everything, everything),
    ("all_off_and_all_off", nothing, nothing),
    ("all_on_and_all_off", everything, nothing),
    ("checksums_only_and_all_on", checksums, everything),
    ("large_senders_and_large_receivers", sends_large, receives_large),
    ("mergeable_and_unmergeable_buffers", everything, unmergeable),
    ("unmergeable_buffers_and_no_offload", unmergeable, nothing),
    ("plain_rings_and_all_on", plain_rings, everything),
];

fn main() -> ExitCode {
    let mut checks = Vec::new();
    for (name, a, b) in PAIRS {
        checks.push(check(format!("streams_arrive_unchanged_with_{name}"), 240, move |_: &mut Nothing| {
            let spec = LabSpec { guests: vec![("a", a), ("b", b)], ..LabSpec::default() };
            with_lab(&spec, every_direction)
        }));
    }
    checks.push(check("a_guest_uses_four_queue_pairs", 240, |_: &mut Nothing| four_queues()));
    checks.push(check("frames_of_9000_bytes_pass_whole", 240, |_: &mut Nothing| jumbo()));
    checks.push(check("memory_added_at_run_time_carries_traffic", 240, |_: &mut Nothing| hot_memory()));
    run(checks)
}

fn every_direction(lab: &mut Lab) -> Result<()> {
    for (from, to) in [("a", "b"), ("b", "a"), ("a", "c"), ("c", "a"), ("b", "c"), ("c", "b")] {
        wait_ping(lab.end(from), v4_of(to), LINK)?;
        for address in [v4_of(to), v6_of(to)] {
            let stream = stream(lab.end(from), lab.end(to), address, MEGABYTES)
                .with_context(|| format!("{from} to {to} at {address}"))?;
            note(&format!("{from} -> {to} {address}: {:.0} Mbit/s", stream.mbit_per_second()));
        }
    }
    Ok(())
}

fn four_queues() -> Result<()> {
    let spec =
        LabSpec { queues: 4, guests: vec![("a", everything), ("b", everything)], ..LabSpec::default() };
    with_lab(&spec, |lab| {
        for name in ["a", "b"] {
            // "Combined: 4" stands once for what there can be and once for what there is.
            let channels =
                lab.guest(name).run("/usr/sbin/ethtool -L eth0 combined 4; /usr/sbin/ethtool -l eth0")?;
            let combined =
                channels.lines().filter(|line| line.split_whitespace().eq(["Combined:", "4"])).count();
            ensure!(combined == 2, "{name} does not use 4 queue pairs:\n{channels}");
        }
        every_direction(lab)?;
        let (a, b) = (lab.guest("a"), lab.guest("b"));
        b.run("/usr/bin/iperf3 -s -D")?;
        a.run_within(&format!("/usr/bin/iperf3 -c {} -P 8 -t 4", v4_of("b")), Duration::from_secs(30))?;
        let statistics = b.run("/usr/sbin/ethtool -S eth0")?;
        // "rx_queue_2_packets: 17" (Linux 6.1), one line per queue.
        let busy = statistics
            .lines()
            .filter(|line| line.trim().starts_with("rx_queue_") && line.contains("_packets:"))
            .filter(|line| !line.trim().ends_with(" 0"))
            .count();
        ensure!(busy >= 2, "8 streams came in through {busy} of 4 queues:\n{statistics}");
        Ok(())
    })
}

fn jumbo() -> Result<()> {
    fn large(nic: Nic) -> Nic {
        nic.with("rx_queue_size", "1024").with("tx_queue_size", "1024")
    }
    let spec = LabSpec { mtu: "9000", guests: vec![("a", large), ("b", large)], ..LabSpec::default() };
    with_lab(&spec, |lab| {
        for (to, device) in [("b", "eth0".to_owned()), ("c", lab.container("c").device())] {
            let whole = Capture::start(lab.end(to), &device, "icmp[0] = 8 and greater 9000")?;
            // 9000 bytes less IPv4 and ICMP headers; larger than this would be fragmented.
            lab.guest("a").run(&format!("ping -c 3 -s 8972 {}", v4_of(to)))?;
            let frames = whole.stop(lab.end(to))?;
            ensure!(frames.len() == 3, "{to} received {frames:#?}");
        }
        every_direction(lab)
    })
}

fn hot_memory() -> Result<()> {
    with_lab(&LabSpec::default(), |lab| {
        let lab = &*lab;
        let before = lab.palisade.port("a", "eth0")?.packets_to_guest();
        std::thread::scope(|scope| {
            let sender = scope.spawn(|| slow_stream(lab.end("c"), lab.guest("a"), v4_of("a"), 100));
            e2e::process::eventually("the stream flows", Duration::from_secs(30), || {
                Ok(lab.palisade.port("a", "eth0")?.packets_to_guest() > before + 300)
            })?;
            for n in 0..3 {
                lab.guest("a").add_memory(&format!("hot{n}"), 128)?;
            }
            sender.join().map_err(|_| anyhow::anyhow!("the sender panicked"))??;
            Ok::<_, anyhow::Error>(())
        })?;
        // Most of the free memory is new now, so buffers lie in it.
        stream(lab.guest("b"), lab.guest("a"), v6_of("a"), 100).map(drop)
    })
}
