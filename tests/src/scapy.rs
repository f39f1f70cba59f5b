//! Frames that no honest stack would send, made by scapy: from a namespace directly, from a guest by tcpreplay.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::guest::Guest;
use crate::netns::Netns;
use crate::process::run;
use crate::scratch::Scratch;
use crate::shell::Shell;

/// Debian's interpreter: python3-scapy is installed for it and for no other.
const PYTHON: &str = "/usr/bin/python3";
const BOUND: Duration = Duration::from_secs(30);

/// Sends the frames of a python list expression (`[Ether(...)/IP(...)]`) through a device of a namespace.
///
/// # Errors
/// When scapy fails; the message holds what it said.
pub fn send_from_netns(netns: &Netns, device: &str, frames: &str) -> Result<()> {
    let script = format!("{PRELUDE}sendp({frames}, iface='{device}', verbose=False)\n");
    python(netns.command(PYTHON).args(["-c", &script]))
}

/// Sends the frames of a python list expression through a card of a guest.
///
/// # Errors
/// When scapy or the guest's tcpreplay fails.
pub fn send_from_guest(guest: &Guest, device: &str, frames: &str) -> Result<()> {
    let scratch = Scratch::new("pcap")?;
    let file = scratch.join("frames.pcap");
    let path = file.to_str().context("path")?;
    python(Command::new(PYTHON).args(["-c", &format!("{PRELUDE}wrpcap('{path}', {frames})\n")]))?;
    guest.put_file("/tmp/frames.pcap", &fs::read(&file)?)?;
    guest.run(&format!("/usr/bin/tcpreplay --topspeed -q -i {device} /tmp/frames.pcap")).map(drop)
}

/// The expression with values in the place of words, where a word stands as an argument: behind `=` or `,`.
pub fn with_values(frames: &str, words: &[(&str, String)]) -> String {
    let mut text = frames.to_owned();
    for (word, value) in words {
        for (before, after) in [("=", ","), ("=", ")"), (",", ")")] {
            text = text.replace(&format!("{before}{word}{after}"), &format!("{before}'{value}'{after}"));
        }
    }
    text
}

const PRELUDE: &str =
    "import logging; logging.getLogger('scapy').setLevel(logging.ERROR)\nfrom scapy.all import *\n";

fn python(command: &mut Command) -> Result<()> {
    let output = run(command, BOUND)?;
    ensure!(output.success(), "scapy: {}{}", output.text, output.errors);
    Ok(())
}
