//! Two guests on one switch, and the same for each peer, in turns.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::core_distance;
use crate::generator::{Generator, Load, Report};
use crate::hugepages::Hugepages;
use crate::interrupt;
use crate::options::Options;
use crate::rounds::{self, Better, Figure, Round, Row};
use crate::switch::{self, Kind, Switch};

/// The party whose figures are `ours`.
pub(crate) const OURS: &str = "palisade";

/// Frames in flight in each direction: a full ring.
pub(crate) const WINDOW: u32 = 256;

/// One side of a comparison.
#[derive(Debug, Clone)]
pub(crate) struct Party {
    /// In tables and JSON.
    pub(crate) name: &'static str,
    /// What is started.
    pub(crate) kind: Kind,
    /// What its guests send.
    pub(crate) load: Load,
}

/// What every contest on vhost-user switches needs.
#[derive(Debug)]
pub(crate) struct Contest<'a> {
    options: &'a Options,
    work: &'a Path,
    pages: Hugepages,
    generator: Generator,
}

impl<'a> Contest<'a> {
    /// An error when `options` name a peer that is not among `known`.
    pub(crate) fn new(options: &'a Options, work: &'a Path, known: &[&str]) -> Result<Contest<'a>> {
        for name in &options.peers {
            ensure!(known.contains(&name.as_str()), "--peers {name}: one of {}", known.join(", "));
        }
        let generator = Generator::build()?;
        let pages = Hugepages::reserve(work, switch::HUGE_MIB)?;
        Ok(Contest { options, work, pages, generator })
    }

    /// Those of `parties` that were asked for; none of them when no two are left that could be compared and were not
    /// excluded by name.
    pub(crate) fn chosen(&self, parties: Vec<Party>) -> Vec<Party> {
        let options = self.options;
        let named =
            |party: &Party| options.peers.is_empty() || options.peers.iter().any(|name| name == party.name);
        let asked = |party: &Party| match &party.kind {
            Kind::Palisade(_) if options.peers_only => false,
            _ if party.name == OURS => true,
            _ => !options.ours_only && named(party),
        };
        let chosen: Vec<Party> = parties.into_iter().filter(asked).collect();
        let peers = chosen.iter().filter(|party| party.name != OURS).count();
        if peers == 0 && !options.ours_only { Vec::new() } else { chosen }
    }

    /// Interleaved rounds of `parties`: million frames a second that arrived. Prints every sample as it is taken.
    pub(crate) fn rounds(&self, case: &str, unit: &'static str, parties: &[Party]) -> Result<Vec<Round>> {
        let names: Vec<&str> = parties.iter().map(|party| party.name).collect();
        let measure = |party: usize| {
            let directory = self.work.join(names[party]);
            fs::create_dir(&directory)?;
            let figure = self
                .sample(&parties[party], &directory)
                .with_context(|| format!("{case} with {}", names[party]))?;
            fs::remove_dir_all(&directory)?;
            self.pages.clear()?;
            Ok(figure)
        };
        rounds::interleave(&names, self.options.samples(), measure, |round, party, figure| {
            crate::told(case, round, party, unit, figure);
        })
    }

    /// One run with a fresh switch and fresh guests.
    fn sample(&self, party: &Party, work: &Path) -> Result<Figure> {
        let mut switch = Switch::start(&party.kind, work, &self.pages).context("start it")?;
        let load = Load { server: switch.guests_listen(), ..party.load.clone() };
        let figure = self.traffic(&switch, work, &load).with_context(|| switch.said())?;
        switch.check()?;
        Ok(figure)
    }

    fn traffic(&self, switch: &Switch, work: &Path, load: &Load) -> Result<Figure> {
        let memory = switch.memory()?;
        let mut run = self.generator.start(work, &self.pages, switch.sockets(), load)?;
        // The distance is taken while both CPUs poll: a busy pair of CPUs may be placed otherwise than an idle one.
        run.links_up()?;
        let before = core_distance::measure()?;
        run.warm_up()?;
        let Report::Window(window, noise) = run.next(&switch.ids())? else { bail!("no window was measured") };
        let hop_ns = [before, core_distance::measure()?];
        let Report::Total(total) = run.next(&[])? else { bail!("a window too many was measured") };
        ensure!(window.mpps > 0.0, "nothing arrived: {total:?}");
        ensure!(total.bad == 0, "{} frames arrived changed or at the wrong guest: {total:?}", total.bad);
        ensure!(
            total.reordered == 0,
            "{} frames of one flow arrived out of order: {total:?}",
            total.reordered
        );
        ensure!(total.rx <= total.tx, "more frames arrived than were sent: {total:?}");
        let tracked = switch.tracked()?;
        match tracked {
            // Each frame that arrived began a connection of its own; one that was lost may have begun one, too. In a table
            // that is nearly full a few of those that nobody answered give way to others.
            Some(tracked) if load.mode == "newflow" => ensure!(
                (total.rx - total.rx / 1000..=total.tx).contains(&tracked),
                "{tracked} connections are tracked: {total:?}"
            ),
            Some(tracked) => {
                ensure!(tracked == load.flows, "{tracked} connections are tracked, and not {}", load.flows);
            }
            None => {}
        }
        let grown = switch.memory()?.saturating_sub(memory);
        // The ports close in order, and the switch sees its guests leave.
        drop(run);
        interrupt::pause(Duration::from_millis(50))?;
        Ok(Figure {
            loss: Some(total.loss()),
            held: Some(window.held),
            tracked,
            bytes_per_flow: tracked.map(|flows| grown as f64 / flows.max(1) as f64),
            hop_ns,
            ..Figure::new(window.mpps, noise)
        })
    }
}

/// Rows for what `parties` did in `rounds`.
pub(crate) fn rows(
    case: &str,
    unit: &'static str,
    better: Better,
    parties: &[Party],
    rounds: &[Round],
) -> Vec<Row> {
    let names = || parties.iter().map(|party| party.name).enumerate();
    let ours = names().find(|(_, name)| *name == OURS).map(|(position, _)| position);
    let peers: Vec<(usize, &str)> = names().filter(|(_, name)| *name != OURS).collect();
    rounds::rows(case, unit, better, rounds, ours, &peers)
}
