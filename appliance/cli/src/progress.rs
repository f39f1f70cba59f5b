//! How far the hosts are, while `--wait` waits: a bar on a terminal, else a line whenever something changed. On stderr.

use std::io::{self, IsTerminal, Write};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use mgmt_types::{Realised, RealisedState};

use crate::output;

/// See the module.
pub(crate) enum Progress {
    /// For who looks on.
    Bar(ProgressBar),
    /// For a log. What was said last.
    Lines(String),
    /// For programs.
    Silent,
}

impl Progress {
    /// One for this process's stderr. Programs get none: they read the result.
    pub(crate) fn new(for_people: bool) -> Self {
        if !for_people {
            return Self::Silent;
        }
        if !output::has_colours(io::stderr().is_terminal()) {
            return Self::Lines(String::new());
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        // The template is a constant that indicatif understands; without it the bar only looks otherwise.
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} hosts  {wide_msg}") {
            bar.set_style(style);
        }
        Self::Bar(bar)
    }

    /// Shows how far it is.
    pub(crate) fn show(&mut self, realised: &Realised) {
        let Tally { hosts, applied, .. } = Tally::of(realised);
        match self {
            Self::Bar(bar) => {
                bar.set_length(hosts);
                bar.set_position(applied);
                bar.set_message(remarks(realised));
            }
            Self::Lines(last) => {
                let line = line(realised);
                if *last != line {
                    // Nobody reads it: what is waited for goes on.
                    let _ = writeln!(io::stderr().lock(), "{line}");
                    *last = line;
                }
            }
            Self::Silent => {}
        }
    }

    /// Makes room for the result.
    pub(crate) fn end(self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

struct Tally {
    hosts: u64,
    applied: u64,
    failed: u64,
}

impl Tally {
    fn of(realised: &Realised) -> Self {
        let count = |state| realised.hosts.iter().filter(|host| host.state == state).count() as u64;
        Self {
            hosts: realised.hosts.len() as u64,
            applied: count(RealisedState::Applied),
            failed: count(RealisedState::Failed),
        }
    }
}

fn line(realised: &Realised) -> String {
    let Tally { hosts, applied, .. } = Tally::of(realised);
    let remarks = remarks(realised);
    let separator = if remarks.is_empty() { "" } else { "; " };
    format!("revision {}: {applied} of {hosts} hosts{separator}{remarks}", realised.revision)
}

/// What holds it up: failures first, then one of those that are waited for.
fn remarks(realised: &Realised) -> String {
    let Tally { hosts, applied, failed } = Tally::of(realised);
    let first = |state| realised.hosts.iter().find(|host| host.state == state);
    let mut remarks = Vec::new();
    if let Some(host) = first(RealisedState::Failed) {
        let why = host.reason.as_deref().unwrap_or("it does not say why");
        remarks.push(format!("{failed} failed ({}: {})", host.host, output::visible(why)));
    }
    if let Some(host) = first(RealisedState::Pending) {
        let pending = hosts - applied - failed;
        let more = if pending > 1 { ", ..." } else { "" };
        remarks.push(format!("{pending} pending ({}{more})", host.host));
    }
    remarks.join("; ")
}

#[cfg(test)]
mod tests {
    use mgmt_types::RealisedHost;

    use super::*;

    fn realised(hosts: &[(&str, RealisedState)]) -> Realised {
        let host = |(host, state): &(&str, RealisedState)| RealisedHost {
            host: (*host).to_owned(),
            state: *state,
            reason: (*state == RealisedState::Failed).then(|| "no such device\x1b[2J".to_owned()),
        };
        Realised { revision: 7, done: false, hosts: hosts.iter().map(host).collect() }
    }

    #[test]
    fn a_line_says_how_many_hosts_are_there_and_who_is_waited_for() {
        use RealisedState::{Applied, Failed, Pending};
        assert_eq!(line(&realised(&[("a", Applied), ("b", Applied)])), "revision 7: 2 of 2 hosts");
        assert_eq!(
            line(&realised(&[("a", Applied), ("b", Pending)])),
            "revision 7: 1 of 2 hosts; 1 pending (b)"
        );
        assert_eq!(
            line(&realised(&[("a", Pending), ("b", Pending), ("c", Failed)])),
            "revision 7: 0 of 3 hosts; 1 failed (c: no such device\u{fffd}[2J); 2 pending (a, ...)"
        );
    }

    #[test]
    fn programs_see_no_progress() {
        assert!(matches!(Progress::new(false), Progress::Silent));
    }
}
