//! Our own place in the underlay: which addresses are ours, what their interface takes, and the sockets on them.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::sync::Arc;

use mgmt_types::agent::SliceHost;

use crate::clock;
use crate::config::UnderlayConfig;
use crate::tap;
use crate::underlay::Underlay;
use crate::underlay::path::Path;
use crate::underlay::peer::{Peer, PeerMemory};
use crate::underlay::sender::Destination;
use crate::underlay::socket::Sockets;

/// The MTU of an underlay of which none is known: Ethernet's.
const USUAL_MTU: u16 = 1500;

/// See the module. The control thread's.
#[derive(Debug)]
pub(crate) struct Home {
    config: UnderlayConfig,
    /// Host and port of the manager, to find the way out.
    manager: Option<String>,
    workers: usize,
    addresses: Vec<IpAddr>,
    mtu: u16,
    sockets: Option<Arc<[Sockets]>>,
    trouble: Option<String>,
    peers: BTreeMap<String, Arc<PeerMemory>>,
    /// What outlives every configuration.
    lasting: Underlay,
}

impl Home {
    pub(crate) fn new(config: UnderlayConfig, manager: Option<String>, lasting: Underlay) -> Self {
        let workers = lasting.strangers.len();
        let mut home = Self {
            config,
            manager,
            workers,
            addresses: Vec::new(),
            mtu: USUAL_MTU,
            sockets: None,
            trouble: None,
            peers: BTreeMap::new(),
            lasting,
        };
        home.look();
        home
    }

    /// Looks which addresses are ours now. True when something changed, and workers need other sockets.
    pub(crate) fn look(&mut self) -> bool {
        let addresses = match self.config.addresses.as_slice() {
            [] if self.addresses.is_empty() => {
                self.manager.as_deref().and_then(way_out).into_iter().collect()
            }
            // What was found once stays: hosts know us by it.
            [] => self.addresses.clone(),
            given => given.to_vec(),
        };
        let mtu = self.config.mtu.unwrap_or_else(|| interface_mtu(&addresses).unwrap_or(self.mtu));
        let changed = mtu != self.mtu || addresses != self.addresses;
        self.mtu = mtu;
        if addresses == self.addresses && (self.sockets.is_some() || addresses.is_empty()) {
            return changed;
        }
        self.addresses = addresses;
        let opened: Result<Vec<Sockets>, _> =
            (0..self.workers).map(|_| Sockets::open(&self.addresses, self.config.port)).collect();
        match opened {
            Ok(_) if self.addresses.is_empty() => (self.sockets, self.trouble) = (None, None),
            Ok(sockets) => (self.sockets, self.trouble) = (Some(sockets.into()), None),
            Err(error) => {
                let text = format!("underlay: {error}");
                if self.trouble.as_ref() != Some(&text) {
                    log::error!("{text}");
                }
                (self.sockets, self.trouble) = (None, Some(text));
            }
        }
        true
    }

    /// Gives the sockets up, with the next underlay.
    pub(crate) fn leave(&mut self) {
        self.sockets = None;
    }

    /// The underlay that workers use with these hosts, in the order of their indexes; `here` is ourselves.
    pub(crate) fn underlay(&mut self, here: &str, hosts: &[SliceHost]) -> Underlay {
        let mut before = std::mem::take(&mut self.peers);
        let peers = hosts.iter().map(|host| {
            let limit = self.limit(host);
            let now = clock::now();
            let memory = before
                .remove(&host.name)
                .unwrap_or_else(|| Arc::new(PeerMemory::new(self.workers, Path::new(limit, now))));
            memory.path().set_limit(limit, now);
            let probed = !host.external && host.name != here;
            if host.name != here {
                self.peers.insert(host.name.clone(), memory.clone());
            }
            let destination =
                host.underlay.first().map(|&ip| Destination::new(SocketAddr::new(ip, host.port)));
            Arc::new(Peer { name: host.name.clone(), destination, probed, memory })
        });
        let peers = peers.collect();
        Underlay { sockets: self.sockets.clone(), peers, ..self.lasting.clone() }
    }

    /// By host: the largest IP packet that passes there, as far as is known.
    pub(crate) fn paths(&self, hosts: &[SliceHost]) -> HashMap<String, u16> {
        let path = |host: &SliceHost| {
            let limit = self.limit(host);
            let known = self.peers.get(&host.name).filter(|_| !host.external);
            let mtu = known.map_or(limit, |memory| memory.path().report().mtu.min(limit));
            (host.name.clone(), mtu)
        };
        hosts.iter().map(path).collect()
    }

    /// What the interfaces at both ends take.
    fn limit(&self, host: &SliceHost) -> u16 {
        if host.mtu == 0 { self.mtu } else { self.mtu.min(host.mtu) }
    }

    /// Our addresses, the preferred one first.
    pub(crate) fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// The UDP port of GENEVE.
    pub(crate) fn port(&self) -> u16 {
        self.config.port
    }

    /// The largest IP packet that our interface takes.
    pub(crate) fn mtu(&self) -> u16 {
        self.mtu
    }

    /// What is wrong, when other hosts are to be reached.
    pub(crate) fn trouble(&self) -> Option<String> {
        let none = "no underlay address: nothing reaches other hosts; give one with --underlay";
        let lacks = self.sockets.is_none() && self.trouble.is_none() && !self.peers.is_empty();
        self.trouble.clone().or_else(|| lacks.then(|| none.to_string()))
    }
}

/// Host and port of a URL.
pub(crate) fn authority(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let authority = rest.split('/').next().filter(|authority| !authority.is_empty())?;
    let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let port = if scheme == "http" { 80 } else { 443 };
    Some(if has_port { authority.to_owned() } else { format!("{authority}:{port}") })
}

/// The address that packets to the manager leave from; none when it is on this host.
fn way_out(manager: &str) -> Option<IpAddr> {
    let to = manager.to_socket_addrs().ok()?.next()?;
    let from: SocketAddr = if to.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(from).ok()?;
    // Sends nothing: the kernel chooses a route.
    socket.connect(to).ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_loopback() && ip != to.ip()).then_some(ip)
}

/// The MTU of the interface that has the first of these addresses.
fn interface_mtu(addresses: &[IpAddr]) -> Option<u16> {
    let name = tap::interface_with(*addresses.first()?)?;
    Some(u16::try_from(tap::mtu_of(&name).ok()?).unwrap_or(u16::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str, underlay: &[&str], mtu: u16) -> SliceHost {
        SliceHost {
            name: name.into(),
            underlay: underlay.iter().map(|ip| ip.parse().expect("an address")).collect(),
            port: 6081,
            mtu,
            options: true,
            external: false,
        }
    }

    fn home(addresses: &[&str]) -> Home {
        let addresses = addresses.iter().map(|ip| ip.parse().expect("an address")).collect();
        let config = UnderlayConfig { addresses, port: 0, mtu: Some(1500) };
        Home::new(config, None, Underlay::none(2))
    }

    #[test]
    fn a_url_names_host_and_port() {
        for (url, want) in [
            ("https://10.0.0.1:8443", Some("10.0.0.1:8443")),
            ("https://[fd00::1]:8443/v1", Some("[fd00::1]:8443")),
            ("https://[fd00::1]", Some("[fd00::1]:443")),
            ("http://manager/", Some("manager:80")),
            ("https:///", None),
            ("manager", None),
        ] {
            assert_eq!(authority(url).as_deref(), want, "{url}");
        }
    }

    #[test]
    fn a_manager_on_this_host_says_nothing_about_the_underlay() {
        assert_eq!(way_out("127.0.0.1:8443"), None);
        assert_eq!(interface_mtu(&["127.0.0.1".parse().expect("an address")]), Some(u16::MAX));
        assert_eq!(interface_mtu(&["198.51.100.7".parse().expect("an address")]), None);
    }

    #[test]
    fn hosts_keep_what_is_known_of_them_and_we_are_not_our_own_peer() {
        let mut home = home(&["127.0.0.1"]);
        let hosts = [host("a", &["192.0.2.1"], 9000), host("here", &["127.0.0.1"], 1500), host("b", &[], 0)];
        let before = home.underlay("here", &hosts);
        assert_eq!(before.sockets.as_ref().map(|all| all.len()), Some(2), "one for each worker");
        let probed: Vec<_> =
            before.peers.iter().map(|peer| (peer.probed, peer.destination.is_some())).collect();
        assert_eq!(probed, [(true, true), (false, true), (true, false)]);
        before.peers[0].memory.path().refused(1400, 1);
        let after = home.underlay("here", &[hosts[1].clone(), hosts[0].clone()]);
        assert!(Arc::ptr_eq(&before.peers[0].memory, &after.peers[1].memory));
        let paths = home.paths(&hosts);
        assert_eq!((paths["a"], paths["b"]), (1280, 1500));
        assert_eq!(home.trouble(), None);
    }

    #[test]
    fn without_an_address_it_is_said_when_there_is_somebody_to_reach() {
        let mut home = home(&[]);
        assert_eq!(home.trouble(), None);
        home.underlay("here", &[host("here", &[], 1500)]);
        assert_eq!(home.trouble(), None);
        home.underlay("here", &[host("a", &["192.0.2.1"], 1500)]);
        assert!(home.trouble().expect("trouble").contains("--underlay"));
    }
}
