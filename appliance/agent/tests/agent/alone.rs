//! A test that needs a process of its own.

use std::process::Command;

const ALONE: &str = "PALISADE_TEST_ALONE";

/// Runs `test` in a new process in which nothing else runs: what it measures are the process's own workers.
#[track_caller]
pub(crate) fn alone(test: impl FnOnce()) {
    if std::env::var_os(ALONE).is_some() {
        return test();
    }
    let name = std::thread::current().name().expect("a test has a name").to_string();
    let output = Command::new(std::env::current_exe().expect("a path"))
        .args(["--exact", "--nocapture", &name])
        .env(ALONE, "1")
        .output()
        .expect("runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("1 passed"), "the test did not run: {said}");
}
