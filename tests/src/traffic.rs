//! Pings and streams between two ends, whatever kind they are.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::process::eventually;
use crate::shell::Shell;

/// How long a stream may take: an emulated guest without offloads moves 100 MB in about 20 s.
const STREAM: Duration = Duration::from_secs(120);

/// A stream that arrived whole.
#[derive(Clone, Copy, Debug)]
pub struct Stream {
    /// Bytes.
    pub bytes: u64,
    /// From the first connect to the sender's end.
    pub took: Duration,
}

impl Stream {
    /// Megabits per second.
    pub fn mbit_per_second(&self) -> f64 {
        self.bytes as f64 * 8.0 / 1e6 / self.took.as_secs_f64().max(1e-9)
    }
}

/// Pings `to` `count` times, five a second, and returns how many answers came.
///
/// # Errors
/// When ping cannot be run.
pub fn ping(from: &dyn Shell, to: IpAddr, count: u32) -> Result<u32> {
    let bound = Duration::from_secs(u64::from(count / 5) + 10);
    let output = from.try_run(&format!("{} -c {count} -i 0.2 -W 2 {to}", ping_word(to)), bound)?;
    // "3 packets transmitted, 3 packets received, 0% packet loss"
    let received =
        output.text.split_once("packets transmitted, ").and_then(|(_, rest)| rest.split(' ').next());
    received
        .and_then(|n| n.parse().ok())
        .with_context(|| format!("ping printed:\n{}{}", output.text, output.errors))
}

/// Pings three times and asks for three answers.
///
/// # Errors
/// When fewer come.
pub fn must_ping(from: &dyn Shell, to: IpAddr) -> Result<()> {
    let received = ping(from, to, 3)?;
    ensure!(received == 3, "{}: {received} of 3 pings to {to} were answered", from.name());
    Ok(())
}

/// Waits until one ping is answered.
///
/// # Errors
/// When none is within `bound`.
pub fn wait_ping(from: &dyn Shell, to: IpAddr, bound: Duration) -> Result<()> {
    eventually(&format!("{} reaches {to}", from.name()), bound, || {
        from.succeeds(&format!("{} -c 1 -W 1 {to}", ping_word(to)))
    })
}

/// Sends `megabytes` (of 1000000 bytes) of random data over TCP and compares the SHA-256 of both ends.
///
/// # Errors
/// When the stream does not arrive whole; the message holds both sums.
pub fn stream(from: &dyn Shell, to: &dyn Shell, address: IpAddr, megabytes: u32) -> Result<Stream> {
    send_file(from, to, address, megabytes, |file, peer| format!("nc {peer} < {file}"))
}

/// [`stream`] through a pipe, which slows an emulated guest down: it lasts long enough for something to happen meanwhile.
///
/// # Errors
/// As [`stream`].
pub fn slow_stream(from: &dyn Shell, to: &dyn Shell, address: IpAddr, megabytes: u32) -> Result<Stream> {
    send_file(from, to, address, megabytes, |file, peer| format!("cat {file} | nc {peer}"))
}

fn send_file(
    from: &dyn Shell,
    to: &dyn Shell,
    address: IpAddr,
    megabytes: u32,
    sender: fn(&str, &str) -> String,
) -> Result<Stream> {
    static PORT: AtomicU16 = AtomicU16::new(20000);
    let port = PORT.fetch_add(1, Ordering::Relaxed);
    let (file, sum) = random_file(from, megabytes)?;
    let received = format!("{}/received.{port}", to.files());
    // The sum is taken while the data comes in; the file appears when it is complete. The connection is the sum's
    // standard input, so it closes, and the sender ends, when the last byte was taken.
    let sum_up = format!("sha256sum > {received}.part; mv {received}.part {received}");
    to.run(&format!("nc -l -p {port} -e sh -c '{sum_up}' > /dev/null 2>&1 &"))?;
    wait_listens(to, port)?;
    let begin = Instant::now();
    from.run_within(&sender(&file, &format!("{address} {port}")), STREAM)
        .with_context(|| format!("{megabytes} MB from {} to {}", from.name(), to.name()))?;
    let mut took = begin.elapsed();
    let mut arrived = String::new();
    eventually("the receiver ends", STREAM, || {
        let output =
            to.try_run(&format!("cat {received} 2>/dev/null && rm {received}"), Duration::from_secs(10))?;
        took = took.max(begin.elapsed());
        arrived = first_word(&output.text);
        Ok(output.success())
    })?;
    ensure!(arrived == sum, "{} sent SHA-256 {sum}, {} received {arrived}", from.name(), to.name());
    Ok(Stream { bytes: u64::from(megabytes) * 1_000_000, took })
}

/// Waits until somebody at an end listens on a TCP port.
///
/// # Errors
/// When nobody does within 10 s.
pub fn wait_listens(end: &dyn Shell, port: u16) -> Result<()> {
    // /proc/net/tcp: the local address and port, in hexadecimal, then the remote ones, which are 0 here.
    let wanted = format!(":{port:04X} 0*:0000 ");
    eventually(&format!("{} listens on {port}", end.name()), Duration::from_secs(10), || {
        end.succeeds(&format!("cat /proc/net/tcp /proc/net/tcp6 | grep -q '{wanted}'"))
    })
}

/// A ping that goes on in the background and whose answers can be counted.
#[derive(Debug)]
pub struct Pinger {
    log: String,
    pid: String,
}

impl Pinger {
    /// Starts pinging, `per_second` times a second.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(from: &dyn Shell, to: IpAddr, per_second: u32) -> Result<Self> {
        let log = format!("{}/pings", from.files());
        let interval = 1.0 / f64::from(per_second.max(1));
        let script = format!("{} -i {interval:.3} {to} > {log} 2>&1 & echo $!", ping_word(to));
        Ok(Self { log, pid: from.run(&script)?.trim().to_owned() })
    }

    /// Answers so far.
    ///
    /// # Errors
    /// When `from` does not answer.
    pub fn answers(&self, from: &dyn Shell) -> Result<u64> {
        Ok(from.run(&format!("grep -c 'bytes from' {} || true", self.log))?.trim().parse()?)
    }

    /// Waits until answers come again and says how long that took since `since`.
    ///
    /// # Errors
    /// When none comes within `bound`.
    pub fn resumed(&self, from: &dyn Shell, seen: u64, since: Instant, bound: Duration) -> Result<Duration> {
        eventually(&format!("pings of {} are answered again", from.name()), bound, || {
            Ok(self.answers(from)? > seen)
        })?;
        Ok(since.elapsed())
    }

    /// Ends it.
    ///
    /// # Errors
    /// When `from` does not answer.
    pub fn stop(self, from: &dyn Shell) -> Result<()> {
        from.run(&format!("kill {} || true", self.pid)).map(drop)
    }
}

/// Least, median and most of some durations, for people.
pub fn spread(mut samples: Vec<Duration>) -> String {
    samples.sort_unstable();
    match (samples.first(), samples.get(samples.len() / 2), samples.last()) {
        (Some(least), Some(median), Some(most)) => {
            format!("min {least:.2?}, median {median:.2?}, max {most:.2?} of {}", samples.len())
        }
        _ => "no samples".to_owned(),
    }
}

/// A file of random bytes and its SHA-256, made once per end and size.
fn random_file(end: &dyn Shell, megabytes: u32) -> Result<(String, String)> {
    let file = format!("{}/random.{megabytes}", end.files());
    let make = format!(
        "[ -f {file}.sum ] || {{ head -c {megabytes}000000 /dev/urandom > {file} && \
         sha256sum < {file} > {file}.new && mv {file}.new {file}.sum; }}; cat {file}.sum"
    );
    Ok((file, first_word(&end.run_within(&make, Duration::from_secs(60))?)))
}

fn first_word(text: &str) -> String {
    text.split_whitespace().next().unwrap_or_default().to_owned()
}

fn ping_word(to: IpAddr) -> &'static str {
    if to.is_ipv6() { "ping6" } else { "ping" }
}
