//! How a test file runs its checks: one after the other over one shared fixture, each with a bound.
//!
//! The fixture is made for the first check that runs. After a failure it is thrown away, so that the next check finds
//! a fresh one; the failure prints the fixture's report.

use std::fmt;
use std::io::Write;
use std::process::ExitCode;
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use anyhow::Result;
use libtest_mimic::{Arguments, Failed, Trial};

use crate::process::{end_all_on_signals, kill_all};

/// What checks share.
pub trait Fixture: Send + Sized + 'static {
    /// Makes it.
    ///
    /// # Errors
    /// Whatever keeps the checks from running.
    fn new() -> Result<Self>;

    /// What helps to understand a failed check.
    fn report(&self) -> String;
}

/// One check over a fixture.
pub struct Check<F> {
    name: String,
    seconds: u64,
    body: Body<F>,
}

type Body<F> = Box<dyn Fn(&mut F) -> Result<()> + Send>;

/// A check: a sentence that says what holds, the seconds it may take, and what it does.
pub fn check<F>(
    name: impl Into<String>,
    seconds: u64,
    body: impl Fn(&mut F) -> Result<()> + Send + 'static,
) -> Check<F> {
    Check { name: name.into(), seconds, body: Box::new(body) }
}

/// For checks that make what they need themselves.
#[derive(Debug)]
pub struct Nothing;

impl Fixture for Nothing {
    fn new() -> Result<Self> {
        Ok(Self)
    }

    fn report(&self) -> String {
        String::new()
    }
}

/// Seconds that making a fixture may take on top of a check.
const FIXTURE: u64 = 120;

/// Runs the checks that the command line (as libtest's) asks for.
pub fn run<F: Fixture>(checks: Vec<Check<F>>) -> ExitCode {
    let mut arguments = Arguments::from_args();
    // The fixture is shared and the machine is small.
    arguments.test_threads = Some(1);
    let fixture: Arc<Mutex<Option<F>>> = Arc::new(Mutex::new(None));
    let trials = checks.into_iter().map(|check| {
        let fixture = Arc::clone(&fixture);
        Trial::test(check.name.clone(), move || {
            let mut fixture = fixture.lock().unwrap_or_else(PoisonError::into_inner);
            run_one(&check, &mut fixture)
        })
    });
    if let Err(error) = end_all_on_signals() {
        note(&format!("signals will leave processes behind: {error:#}"));
    }
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    drop(fixture);
    conclusion.exit_code()
}

/// An error that means: this check cannot run here. It is reported as skipped, which fails unless the skip is listed.
#[derive(Debug)]
pub struct Skip(pub String);

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "skipped: {}", self.0)
    }
}

impl std::error::Error for Skip {}

fn run_one<F: Fixture>(check: &Check<F>, slot: &mut Option<F>) -> Result<(), Failed> {
    let Check { name, seconds, body } = check;
    let bound = seconds + if slot.is_none() { FIXTURE } else { 0 };
    let _watchdog = Watchdog::start(name.clone(), Duration::from_secs(bound));
    let fixture = match slot {
        Some(fixture) => fixture,
        None => slot.insert(F::new().map_err(|error| Failed::from(format!("fixture: {error:?}")))?),
    };
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| body(fixture)));
    let failure = match outcome {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(error)) => match error.downcast_ref::<Skip>() {
            Some(Skip(reason)) => {
                note_skip(name, reason);
                return Ok(());
            }
            None => format!("{error:?}"),
        },
        Err(_) => "panicked; the message stands above".to_owned(),
    };
    let report = fixture.report();
    *slot = None;
    Err(Failed::from(format!("{failure}\n\n{report}")))
}

/// A measured value for whoever reads the output; never a reason to pass.
pub fn note(line: &str) {
    let _ = std::io::stderr().write_all(format!("    {line}\n").as_bytes());
}

/// Tells `cargo xtask test`, which counts skips and knows which are expected.
fn note_skip(name: &str, reason: &str) {
    let line = format!("skipped: {name}: {reason}\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
    if let Some(path) = std::env::var_os("PALISADE_SKIPPED") {
        let file = std::fs::File::options().create(true).append(true).open(path);
        let _ = file.and_then(|mut file| file.write_all(format!("{name}\t{reason}\n").as_bytes()));
    }
}

/// Ends the whole program when a check outlasts its bound: it hangs somewhere that no other bound reaches.
struct Watchdog {
    _cancel: mpsc::Sender<()>,
}

impl Watchdog {
    fn start(name: String, bound: Duration) -> Self {
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            if receiver.recv_timeout(bound) == Err(RecvTimeoutError::Timeout) {
                let line = format!("\n{name}: not done after {bound:?}; giving up on this file\n");
                let _ = std::io::stderr().write_all(line.as_bytes());
                kill_all();
                crate::netns::remove_all();
                std::process::exit(101);
            }
        });
        Self { _cancel: sender }
    }
}
