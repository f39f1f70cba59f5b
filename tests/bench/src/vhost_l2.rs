//! `vhost-l2`: two guests on one vhost-user switch, layer 2, one polling core.

use std::path::Path;

use anyhow::{Context, Result};

use crate::contest::{self, Contest, OURS, Party, WINDOW};
use crate::generator::Load;
use crate::guests::{Firewall, Guests};
use crate::open_vswitch;
use crate::options::Options;
use crate::rounds::{Better, Row};
use crate::switch::Kind;

/// DPDK's testpmd, and Open vSwitch as a learning switch and with a rule for each port.
const PEERS: [&str; 3] = ["dpdk-io", "ovs-normal", "ovs-p2p"];

/// All cases: bytes of a frame in the virtqueue, and direction.
pub(crate) fn cases() -> Vec<String> {
    let sizes = ["64", "256", "1518"];
    sizes.iter().flat_map(|size| ["bidir", "oneway"].map(|mode| format!("{size}/{mode}"))).collect()
}

/// Measures the chosen cases and prints every sample as it is taken.
pub(crate) fn run(options: &Options, work: &Path) -> Result<Vec<Row>> {
    let contest = Contest::new(options, work, &PEERS)?;
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
            addresses: 1,
            budget: None,
            server: false,
            packed: false,
        };
        let kinds = [
            Kind::Palisade(Guests::of(&load, Firewall::Off)),
            Kind::DpdkIo,
            Kind::OpenVswitch(open_vswitch::NORMAL),
            Kind::OpenVswitch(open_vswitch::P2P),
        ];
        let parties = [OURS].into_iter().chain(PEERS).zip(kinds);
        let parties = parties.map(|(name, kind)| Party { name, kind, load: load.clone() }).collect();
        let parties = contest.chosen(parties);
        let rounds = contest.rounds(&case, "Mpps", &parties)?;
        rows.extend(contest::rows(&case, "Mpps", Better::Higher, &parties, &rounds));
    }
    Ok(rows)
}
