//! The UDP sockets of one worker.
//!
//! What other hosts send arrives on one socket for each underlay address, at the GENEVE port; the sockets of all workers
//! share it, and the kernel spreads what comes by its addresses and ports. What is sent leaves from several sockets whose
//! ports the kernel chose: the flow inside decides which, so that routers on the way spread flows over their links
//! (RFC 8926, section 3.3).

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::net::sockopt;
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto};

use crate::underlay::message;

/// Ports that one worker sends from, for each family.
pub(crate) const LANES: usize = 8;
/// Bytes that may wait for their way out or for a worker: some milliseconds of 10 Gbit/s. The kernel counts its own overhead
/// too.
const BUFFER: usize = 8 << 20;

/// See the module.
#[derive(Debug)]
pub(crate) struct Sockets {
    receivers: Box<[Receiver]>,
    v4: Box<[Lane]>,
    v6: Box<[Lane]>,
}

/// A socket that other hosts send to.
#[derive(Debug)]
pub(crate) struct Receiver {
    socket: OwnedFd,
    /// Our address there.
    pub(crate) address: SocketAddr,
}

/// A socket that sends.
#[derive(Debug)]
pub(crate) struct Lane {
    socket: OwnedFd,
    /// Whether its device cuts bursts into datagrams, as far as is known.
    bursts: AtomicBool,
}

/// A socket of the underlay could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("{step} of {address}: {source}")]
pub(crate) struct SocketError {
    step: &'static str,
    address: SocketAddr,
    source: io::Error,
}

impl Sockets {
    /// Opens one worker's sockets for these addresses of ours. An address that no interface has yet is no error: it may
    /// come.
    pub(crate) fn open(addresses: &[IpAddr], port: u16) -> Result<Self, SocketError> {
        let receivers = addresses.iter().map(|&ip| Receiver::open(SocketAddr::new(ip, port)));
        let receivers = receivers.collect::<Result<_, _>>()?;
        let lanes = |is_ours: fn(&&IpAddr) -> bool| match addresses.iter().find(is_ours) {
            Some(&ip) => (0..LANES).map(|_| Lane::open(SocketAddr::new(ip, 0))).collect(),
            None => Ok(Box::default()),
        };
        Ok(Self { receivers, v4: lanes(|ip| ip.is_ipv4())?, v6: lanes(|ip| ip.is_ipv6())? })
    }

    /// The sockets that receive, one for each address.
    pub(crate) fn receivers(&self) -> &[Receiver] {
        &self.receivers
    }

    /// The sockets that send over IPv4.
    pub(crate) fn v4(&self) -> &[Lane] {
        &self.v4
    }

    /// The sockets that send over IPv6.
    pub(crate) fn v6(&self) -> &[Lane] {
        &self.v6
    }

    /// The sockets that send to an address; none when we have no address of its family.
    #[inline]
    pub(crate) fn lanes_to(&self, ip: IpAddr) -> &[Lane] {
        if ip.is_ipv4() { &self.v4 } else { &self.v6 }
    }
}

impl Receiver {
    fn open(address: SocketAddr) -> Result<Self, SocketError> {
        let socket = open(address, |socket| {
            sockopt::set_socket_reuseport(socket, true)?;
            match address {
                SocketAddr::V4(_) => sockopt::set_ip_recvtos(socket, true)?,
                SocketAddr::V6(_) => sockopt::set_ipv6_recvtclass(socket, true)?,
            }
            message::receive_bursts(socket)?;
            // More than the administrator's limit takes a right that tests may not have.
            if sockopt::set_socket_recv_buffer_size_force(socket, BUFFER).is_err() {
                sockopt::set_socket_recv_buffer_size(socket, BUFFER)?;
            }
            Ok(())
        })?;
        Ok(Self { socket, address })
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Lane {
    fn open(address: SocketAddr) -> Result<Self, SocketError> {
        let socket = open(address, |_| Ok(()))?;
        Ok(Self { socket, bursts: AtomicBool::new(true) })
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Whether several datagrams may be sent as one message.
    #[inline]
    pub(crate) fn takes_bursts(&self) -> bool {
        self.bursts.load(Ordering::Relaxed)
    }

    /// Its device cannot cut bursts: from now on each datagram is a message.
    #[cold]
    pub(crate) fn no_bursts(&self) {
        self.bursts.store(false, Ordering::Relaxed);
    }
}

/// A bound UDP socket that never waits and whose packets are never fragmented. It sends what its interface takes: what
/// routers say of the way is not believed, everybody could say that; the probes of [`crate::underlay::path`] find out.
fn open(
    address: SocketAddr,
    more: impl FnOnce(BorrowedFd<'_>) -> io::Result<()>,
) -> Result<OwnedFd, SocketError> {
    let at = |step| move |source: io::Error| SocketError { step, address, source };
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::DGRAM, flags, Some(ipproto::UDP))
        .map_err(|error| at("opening the socket")(error.into()))?;
    let set = || -> io::Result<()> {
        match address {
            SocketAddr::V4(_) => {
                sockopt::set_ip_freebind(&socket, true)?;
                sockopt::set_ip_mtu_discover(&socket, sockopt::Ipv4PathMtuDiscovery::PROBE)?;
            }
            SocketAddr::V6(_) => {
                sockopt::set_ipv6_v6only(&socket, true)?;
                sockopt::set_ipv6_freebind(&socket, true)?;
                sockopt::set_ipv6_mtu_discover(&socket, sockopt::Ipv6PathMtuDiscovery::PROBE)?;
            }
        }
        if sockopt::set_socket_send_buffer_size_force(&socket, BUFFER).is_err() {
            sockopt::set_socket_send_buffer_size(&socket, BUFFER)?;
        }
        more(socket.as_fd())
    };
    set().map_err(at("setting options"))?;
    rustix::net::bind(&socket, &address).map_err(|error| at("binding")(error.into()))?;
    Ok(socket)
}
