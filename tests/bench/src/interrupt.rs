//! Ctrl-C and SIGTERM become an error at the next wait, so that every process, mount and namespace is released by
//! the value that owns it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

static INTERRUPTED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// How often a wait looks again.
const STEP: Duration = Duration::from_millis(10);

/// Turns SIGINT, SIGTERM and SIGHUP into a flag that [`check`] reads.
pub(crate) fn listen() -> Result<()> {
    let flag = INTERRUPTED.get_or_init(Arc::default);
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(flag))?;
    }
    Ok(())
}

/// An error once a signal has come.
pub(crate) fn check() -> Result<()> {
    ensure!(!INTERRUPTED.get().is_some_and(|flag| flag.load(Ordering::Relaxed)), "interrupted");
    Ok(())
}

/// Lets measured traffic run for `time`.
pub(crate) fn pause(time: Duration) -> Result<()> {
    let end = Instant::now() + time;
    while Instant::now() < end {
        check()?;
        std::thread::sleep(STEP.min(end.saturating_duration_since(Instant::now())));
    }
    Ok(())
}

/// Asks `ready` again and again until it gives a value; an error naming `what` after `limit`.
pub(crate) fn until<T>(
    what: &str,
    limit: Duration,
    mut ready: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let end = Instant::now() + limit;
    loop {
        check()?;
        if let Some(value) = ready()? {
            return Ok(value);
        }
        if Instant::now() > end {
            bail!("{what}: not after {limit:?}");
        }
        std::thread::sleep(STEP);
    }
}
