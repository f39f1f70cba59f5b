//! Neighbours, announced to a workload whose link comes up.
//!
//! A guest whose link was down has lost its neighbours: Linux forgets them with the carrier, and whoever sends meanwhile
//! starts a question that nobody hears and that is repeated a second later. When the link is back it would sit that
//! second out. It need not: what it will ask is known, so it is answered before it asks.
//!
//! IPv4 by ARP replies to the guest's own MAC and address, IPv6 by unsolicited advertisements (RFC 4861, section 7.2.6). A
//! guest takes either only for a neighbour it has an entry for (Linux, with `arp_accept` 0), which is exactly
//! the case that waits.
//!
//! They are given more than once: a guest finds out that its link is up in its own time, and an entry that it makes between
//! the first announcement and that moment would wait like any other.
//!
//! The control thread gives them, through the ring's own short lock, a few at a time: a worker has no say in it and loses
//! nothing to it, and a guest that stays away costs nobody anything.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mgmt_types::MacAddr;
use mgmt_types::agent::Slice;
use pipeline::link_local;
use vhost_backend::NET_HEADER;
use wire::arp::{self, Arp};
use wire::{ethernet, ipv6, nd};

use crate::port::{Attachment, LocalPort};

/// The most announcements for one start of a link, the most useful first. A guest with more neighbours asks for the others.
pub(crate) const MOST: usize = 256;

/// When they are given, after the link came up: three times at most (RFC 4861, section 10: MAX_NEIGHBOR_ADVERTISEMENT).
const TIMES: [Duration; 3] = [Duration::ZERO, Duration::from_millis(50), Duration::from_millis(300)];

/// Announcements for one port at a time: few enough that frames of others find buffers beside them.
const BATCH: usize = 32;

/// The time between two batches.
const PACE: Duration = Duration::from_millis(1);

/// A guest that takes nothing for this long after its link came up is left alone: it asks by itself meanwhile.
const PATIENCE: Duration = Duration::from_secs(1);

/// Where a frame's IP or ARP packet begins.
const L3: usize = ethernet::HEADER_LEN;
/// Bytes of the longer kind of announcement.
const LONGEST: usize = L3 + ipv6::HEADER_LEN + nd::ADVERTISEMENT_LEN;
/// All nodes on the link (RFC 4291, section 2.7.1), and the MAC of that group (RFC 2464, section 7).
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];

/// Announcements under way. See the module.
#[derive(Debug, Default)]
pub(crate) struct Announcer {
    waiting: Vec<Waiting>,
}

impl Announcer {
    /// Finds out which of the ports came up since the last call and what is to be said to them.
    pub(crate) fn look<'a>(
        &mut self,
        ports: impl Iterator<Item = &'a Arc<LocalPort>>,
        slice: &Slice,
        now: Instant,
    ) {
        for port in ports {
            if port.came_up() {
                self.waiting.retain(|waiting| waiting.port.id != port.id);
                let frames = announcements(slice, port.id);
                self.waiting.push(Waiting {
                    port: port.clone(),
                    frames,
                    up: now,
                    due: now,
                    time: 0,
                    given: 0,
                });
            }
        }
    }

    /// When something is to be given next.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.waiting.iter().map(|waiting| waiting.due).min()
    }

    /// Gives each port what is due.
    pub(crate) fn give(&mut self, now: Instant) {
        self.waiting.retain_mut(|waiting| waiting.due > now || waiting.give(now));
    }
}

#[derive(Debug)]
struct Waiting {
    port: Arc<LocalPort>,
    frames: Vec<Announcement>,
    /// When the link came up.
    up: Instant,
    /// When the next batch is due.
    due: Instant,
    /// How often all were given.
    time: usize,
    /// How many were given this time.
    given: usize,
}

impl Waiting {
    /// Gives one batch; whether there is more to do.
    fn give(&mut self, now: Instant) -> bool {
        let batch = self.frames.iter().skip(self.given).take(BATCH);
        let plain = [0; NET_HEADER];
        let done = match &self.port.attachment {
            Attachment::Vhost(port) => {
                // Gone again: the next start begins anew.
                let Some(mut ring) = port.rx(0).enter() else { return false };
                batch.take_while(|frame| ring.put_bytes(&plain, frame.bytes(), &[]).is_ok()).count()
            }
            Attachment::Tap(tap) => {
                batch.take_while(|frame| tap.write_bytes(0, &plain, frame.bytes(), &[]).is_ok()).count()
            }
            Attachment::Missing => return false,
        };
        self.port.announce(done);
        self.given += done;
        self.due = now + PACE;
        if self.given == self.frames.len() {
            (self.time, self.given) = (self.time + 1, 0);
            let Some(after) = TIMES.get(self.time) else { return false };
            self.due = self.up + *after;
        }
        now < self.up + PATIENCE
    }
}

/// A frame that tells who has an address.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Announcement {
    bytes: [u8; LONGEST],
    len: usize,
}

impl Announcement {
    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// An ARP reply, as if `to` had asked.
    fn v4(address: Ipv4Addr, mac: MacAddr, to: MacAddr, own: Ipv4Addr) -> Self {
        let (mac, to) = (mac.octets(), to.octets());
        let reply =
            Arp { operation: arp::REPLY, sender_mac: mac, sender: address, target_mac: to, target: own };
        Self::new(to, mac, ethernet::ARP, &[&reply.to_bytes()])
    }

    /// An unsolicited neighbour advertisement.
    fn v6(address: Ipv6Addr, mac: MacAddr, router: bool) -> Self {
        let flags = nd::OVERRIDE | if router { nd::ROUTER } else { 0 };
        let advertisement = nd::advertisement(address, mac.octets(), flags, ALL_NODES);
        let [len_hi, len_lo] = (nd::ADVERTISEMENT_LEN as u16).to_be_bytes();
        let fixed = [0x60, 0, 0, 0, len_hi, len_lo, ipv6::ICMPV6, nd::HOP_LIMIT];
        let packet: [&[u8]; 4] = [&fixed, &address.octets(), &ALL_NODES.octets(), &advertisement];
        Self::new(ALL_NODES_MAC, mac.octets(), ethernet::IPV6, &packet)
    }

    fn new(to: [u8; 6], from: [u8; 6], ethertype: u16, parts: &[&[u8]]) -> Self {
        let mut frame = Self { bytes: [0; LONGEST], len: 0 };
        let ethernet: [&[u8]; 3] = [&to, &from, &ethertype.to_be_bytes()];
        for part in ethernet.iter().chain(parts) {
            frame.bytes[frame.len..][..part.len()].copy_from_slice(part);
            frame.len += part.len();
        }
        frame
    }
}

/// What to say to a port of this slice: its gateways first, then its neighbours on this host, then the others, at
/// most [`MOST`]. Nothing of a family that the port has no address of.
fn announcements(slice: &Slice, port: u32) -> Vec<Announcement> {
    let Some(own) = slice.ports.iter().find(|other| other.id == port) else { return Vec::new() };
    let Some(network) = slice.networks.iter().find(|network| network.name == own.network) else {
        return Vec::new();
    };
    let v4 = own.addresses.iter().find_map(|address| match address {
        IpAddr::V4(address) => Some(*address),
        IpAddr::V6(_) => None,
    });
    let has_v6 = own.addresses.iter().any(IpAddr::is_ipv6);

    let gateway = IpAddr::V6(link_local(network.gateway_mac.octets()));
    let gateways =
        network.gateways.iter().chain([&gateway]).map(|address| (*address, network.gateway_mac, true));
    let neighbours = |local: bool| {
        let those = slice.ports.iter().filter(move |other| {
            other.id != port && other.network == own.network && (other.host == slice.host) == local
        });
        those.flat_map(|other| other.addresses.iter().map(|address| (*address, other.mac, false)))
    };
    gateways
        .chain(neighbours(true))
        .chain(neighbours(false))
        .filter_map(|(address, mac, router)| match address {
            IpAddr::V4(address) => Some(Announcement::v4(address, mac, own.mac, v4?)),
            IpAddr::V6(address) => has_v6.then(|| Announcement::v6(address, mac, router)),
        })
        .take(MOST)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::tests::{slice, vm_port};

    /// 10.0.1.11 and fd00:1::11 ask; beside the gateway there are port 2 on this host and port 3 on another.
    fn three() -> Slice {
        let mut slice = slice(vec![vm_port(3, "far"), vm_port(1, "own"), vm_port(2, "near")]);
        slice.ports[0].host = "elsewhere".into();
        for port in &mut slice.ports {
            port.addresses.push(format!("fd00:1::{}", 10 + port.id).parse().expect("an address"));
        }
        slice.networks[0].gateways.push("fd00:1::1".parse().expect("an address"));
        slice
    }

    /// Which address each frame tells of, in order.
    fn addresses(frames: &[Announcement]) -> Vec<String> {
        let address = |frame: &Announcement| match frame.bytes()[12..14] {
            [0x08, 0x06] => Arp::parse(&frame.bytes()[L3..]).expect("ARP").sender.to_string(),
            _ => {
                nd::Neighbour::parse(&frame.bytes()[L3 + ipv6::HEADER_LEN..]).expect("ND").target.to_string()
            }
        };
        frames.iter().map(address).collect()
    }

    #[test]
    fn gateways_come_first_then_this_host_then_the_others_and_never_the_port_itself() {
        let told = addresses(&announcements(&three(), 1));
        let gateway = link_local([2, 0, 0, 0, 1, 1]).to_string();
        let expected =
            ["10.0.1.1", "fd00:1::1", &gateway, "10.0.1.12", "fd00:1::12", "10.0.1.13", "fd00:1::13"];
        assert_eq!(told, expected);
    }

    #[test]
    fn another_network_and_a_family_without_an_own_address_are_none_of_its_business() {
        let mut slice = three();
        slice.ports[2].network = "green".into();
        slice.ports[1].addresses.truncate(1);
        assert_eq!(addresses(&announcements(&slice, 1)), ["10.0.1.1", "10.0.1.13"]);
        slice.ports[1].addresses.clear();
        assert_eq!(announcements(&slice, 1), []);
        assert_eq!(announcements(&slice, 99), []);
    }

    #[test]
    fn a_large_network_is_announced_in_part() {
        let many = (1..=255).chain(300..400).map(|id| {
            let mut port = vm_port(1, &format!("w{id}"));
            (port.id, port.addresses) = (id, vec![Ipv4Addr::from(0x0a00_0200 + id).into()]);
            port
        });
        let slice = slice(many.collect());
        let told = addresses(&announcements(&slice, 1));
        assert_eq!(told.len(), MOST);
        assert_eq!(told[0], "10.0.1.1");
    }

    #[test]
    fn the_bytes_are_an_arp_reply_and_an_advertisement_that_overrides() {
        let frames = announcements(&three(), 1);
        assert_eq!(
            frames[3].bytes(),
            [
                &[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 6, 0, 1, 8, 0, 6, 4, 0, 2][..],
                &[2, 0, 0, 0, 0, 2, 10, 0, 1, 12, 2, 0, 0, 0, 0, 1, 10, 0, 1, 11]
            ]
            .concat()
        );
        let advertisement = frames[1].bytes();
        assert_eq!(advertisement[..14], [0x33, 0x33, 0, 0, 0, 1, 2, 0, 0, 0, 1, 1, 0x86, 0xdd]);
        let packet = ipv6::Ipv6::parse(&advertisement[L3..], advertisement.len() - L3).expect("IPv6");
        assert_eq!((packet.hop_limit(), packet.next_header()), (255, ipv6::ICMPV6));
        assert_eq!(packet.destination(), ALL_NODES);
        // Router, not solicited, override.
        assert_eq!(advertisement[L3 + ipv6::HEADER_LEN + 4], 0xa0);
        assert_eq!(frames[4].bytes()[L3 + ipv6::HEADER_LEN + 4], 0x20);
    }
}
