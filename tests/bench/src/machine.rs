//! On what a figure was measured.

use std::fs;

use serde_json::{Map, Value, json};

use crate::palisade;
use crate::process::output;
use crate::switch;

/// Processor, kernel, memory and versions of all parties.
pub(crate) fn describe() -> Map<String, Value> {
    let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
    let field = |text: &str, name: &str| -> Option<String> {
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let mut machine = Map::new();
    let mut put = |name: &str, value: Value| machine.insert(name.to_owned(), value);
    put("cpu", json!(field(&read("/proc/cpuinfo"), "model name")));
    put("cores", json!(std::thread::available_parallelism().map(usize::from).ok()));
    put("memory", json!(field(&read("/proc/meminfo"), "MemTotal")));
    put("kernel", json!(read("/proc/sys/kernel/osrelease").trim()));
    let virtualised = output(&["systemd-detect-virt"]).ok();
    put("virtualisation", json!(virtualised.as_deref().map(str::trim)));
    let version = palisade::binary().and_then(|binary| output(&[binary.as_os_str(), "--version".as_ref()]));
    put("palisade", json!(version.ok().as_deref().map(str::trim)));
    for (name, version) in switch::versions() {
        put(name, json!(version));
    }
    machine
}
