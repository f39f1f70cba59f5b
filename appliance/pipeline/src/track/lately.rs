//! What the firewall said lately. Flows that begin in one burst are often alike: from one address to another, for one
//! service, a flood of them above all. Those that ask the same get the same answer, and the rules are asked once.

use core::net::IpAddr;

use crate::PortIndex;
use crate::firewall::{Ends, Judgement};
use crate::policy::{Endpoint, Service};

/// Answers that are remembered; a power of two.
const PLACES: usize = 8;

/// All that an answer depends on, within one burst: all of it is judged by one snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Question {
    /// The port that sent it, and who its host says that it is.
    pub(crate) from: (PortIndex, Option<Endpoint>),
    pub(crate) to: PortIndex,
    /// Source and destination.
    pub(crate) addresses: (IpAddr, IpAddr),
    pub(crate) service: Service,
}

/// An answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Said {
    pub(crate) judgement: Judgement,
    /// Who source and destination were taken for, by direction.
    pub(crate) ends: [Ends; 2],
}

/// See the module. To be forgotten with each burst.
#[derive(Debug, Default)]
pub(crate) struct Lately {
    /// A bit for each place that is in use.
    known: u32,
    places: [Option<(Question, Said)>; PLACES],
}

impl Lately {
    #[inline]
    pub(crate) fn forget(&mut self) {
        self.known = 0;
    }

    /// The answer to a question, from `ask` when it was not asked lately.
    #[inline]
    pub(crate) fn answer(&mut self, question: &Question, ask: impl FnOnce() -> Said) -> Said {
        let place = question.place();
        let known = self.known >> place & 1 != 0;
        match self.places.get(place) {
            Some(Some((asked, said))) if known && asked == question => *said,
            _ => self.note(place, question, ask()),
        }
    }

    #[cold]
    fn note(&mut self, place: usize, question: &Question, said: Said) -> Said {
        if let Some(own) = self.places.get_mut(place) {
            *own = Some((*question, said));
            self.known |= 1 << place;
        }
        said
    }
}

impl Question {
    /// Addresses that count up, and ports likewise, are in different places.
    #[inline]
    fn place(&self) -> usize {
        let low = |address: &IpAddr| match address {
            IpAddr::V4(address) => address.to_bits(),
            IpAddr::V6(address) => address.to_bits() as u32,
        };
        let (source, destination) = &self.addresses;
        let mixed = low(source) ^ low(destination).rotate_left(1) ^ u32::from(self.service.port.unwrap_or(0));
        mixed as usize % PLACES
    }
}
