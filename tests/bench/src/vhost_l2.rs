//! `vhost-l2`: two guests on one vhost-user switch, layer 2, one polling core.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::core_distance;
use crate::generator::{Generator, Load, Report};
use crate::hugepages::Hugepages;
use crate::interrupt;
use crate::options::Options;
use crate::rounds::{self, Figure, Row};
use crate::switch::{self, Party, Switch};

/// Frames in flight in each direction: a full ring.
const WINDOW: u32 = 256;

/// All cases: bytes of a frame in the virtqueue, and direction.
pub(crate) fn cases() -> Vec<String> {
    let sizes = ["64", "256", "1518"];
    sizes.iter().flat_map(|size| ["bidir", "oneway"].map(|mode| format!("{size}/{mode}"))).collect()
}

/// Measures the chosen cases and prints every sample as it is taken.
pub(crate) fn run(options: &Options, work: &Path) -> Result<Vec<Row>> {
    let generator = Generator::build()?;
    let pages = Hugepages::reserve(work, switch::HUGE_MIB)?;
    let mut parties = if options.ours_only { Vec::new() } else { switch::peers(&options.peers)? };
    if !options.peers_only {
        parties.insert(0, Party::Palisade);
    }
    let names: Vec<&str> = parties.iter().map(|party| party.name()).collect();
    let mut rows = Vec::new();
    for case in options.chosen(cases())? {
        let (size, mode) = case.split_once('/').context("a case is SIZE/MODE")?;
        let load = Load {
            size: size.parse()?,
            mode: mode.to_owned(),
            warm: options.seconds(0.7, 0.3),
            seconds: options.seconds(2.0, 1.0),
            samples: 1,
            window: WINDOW,
            flows: 1,
            server: false,
            packed: false,
        };
        let measure = |party: usize| {
            let directory = work.join(names[party]);
            fs::create_dir(&directory)?;
            let figure = sample(parties[party], &directory, &pages, &generator, &load)
                .with_context(|| format!("{case} with {}", names[party]))?;
            fs::remove_dir_all(&directory)?;
            pages.clear()?;
            Ok(figure)
        };
        let rounds = rounds::interleave(&names, options.samples(), measure, |round, party, figure| {
            crate::told(&case, round, party, "Mpps", figure);
        })?;
        let ours = (!options.peers_only).then_some(0);
        let peers: Vec<(usize, &str)> =
            names.iter().copied().enumerate().filter(|(_, name)| *name != Party::Palisade.name()).collect();
        rows.extend(rounds::rows(&case, "Mpps", &rounds, ours, &peers));
    }
    Ok(rows)
}

/// One run with a fresh switch and fresh guests.
fn sample(
    party: Party,
    work: &Path,
    pages: &Hugepages,
    generator: &Generator,
    load: &Load,
) -> Result<Figure> {
    let mut switch = Switch::start(party, work, pages)?;
    let load = Load { server: switch.guests_listen(), ..load.clone() };
    let figure = traffic(&switch, work, pages, generator, &load).with_context(|| switch.said())?;
    switch.check()?;
    Ok(figure)
}

fn traffic(
    switch: &Switch,
    work: &Path,
    pages: &Hugepages,
    generator: &Generator,
    load: &Load,
) -> Result<Figure> {
    let mut run = generator.start(work, pages, switch.sockets(), load)?;
    // The distance is taken while both CPUs poll: a busy pair of CPUs may be placed otherwise than an idle one.
    run.links_up()?;
    let before = core_distance::measure()?;
    run.warm_up()?;
    let Report::Window(window, noise) = run.next(&switch.ids())? else { bail!("no window was measured") };
    let hop_ns = [before, core_distance::measure()?];
    let Report::Total(total) = run.next(&[])? else { bail!("a window too many was measured") };
    ensure!(window.mpps > 0.0, "nothing arrived: {total:?}");
    ensure!(total.bad == 0, "{} frames arrived changed or at the wrong guest: {total:?}", total.bad);
    ensure!(total.reordered == 0, "{} frames of one flow arrived out of order: {total:?}", total.reordered);
    ensure!(total.rx <= total.tx, "more frames arrived than were sent: {total:?}");
    // The ports close in order, and the switch sees its guests leave.
    drop(run);
    interrupt::pause(Duration::from_millis(50))?;
    Ok(Figure {
        value: window.mpps,
        loss: Some(total.loss()),
        held: Some(window.held),
        cpu: BTreeMap::new(),
        hop_ns,
        noise,
    })
}
