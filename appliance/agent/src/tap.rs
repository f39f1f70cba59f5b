//! TAP devices: multiqueue, virtio net headers, offloads; created inside their network namespace.
//!
//! Devices are persistent: an agent that dies leaves the device, and with it the addresses and
//! routes somebody gave it, in the namespace; the next agent attaches to it again. Addresses are
//! never set here: they belong to whoever owns the namespace.

#![expect(unsafe_code, reason = "ioctl and writev have no safe wrapper that takes these arguments")]

use std::ffi::CStr;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use arrayvec::ArrayVec;
use vhost_backend::{Burst, NET_HEADER};

use crate::netns::{self, NetnsError};

/// The kernel's limit for a device name without its final NUL (IFNAMSIZ - 1).
pub(crate) const NAME_MAX: usize = libc::IFNAMSIZ - 1;

/// `TUN_F_USO4`, Linux 6.2.
const TUN_F_USO4: libc::c_uint = 0x20;
/// `TUN_F_USO6`, Linux 6.2.
const TUN_F_USO6: libc::c_uint = 0x40;

/// The most pieces of one frame: net header, private head, and as many as a vhost ring lets a guest use.
const PARTS: usize = 2 + 256;

/// What a TAP port wants to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TapConfig {
    /// Name of the device, at most [`NAME_MAX`] bytes.
    pub(crate) device: String,
    /// Namespace it lives in; `None`: ours.
    pub(crate) netns: Option<String>,
    /// Number of queues, at least 1.
    pub(crate) queues: u16,
    /// Hardware address.
    pub(crate) mac: [u8; 6],
    /// MTU in bytes.
    pub(crate) mtu: u16,
}

/// An attached TAP device.
#[derive(Debug)]
pub(crate) struct Tap {
    queues: Box<[OwnedFd]>,
    uso: bool,
    created: bool,
}

/// A TAP device could not be attached.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TapError {
    /// The device name cannot be one.
    #[error("device name {name:?} must be 1 to {NAME_MAX} bytes without '/', '%' or space")]
    Name {
        /// The name given.
        name: String,
    },
    /// The namespace cannot be entered.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// A step of the set-up failed.
    #[error("{step} of TAP {device}: {source}")]
    Step {
        /// The device.
        device: String,
        /// What was tried.
        step: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Why a read gave no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReadEnd {
    /// Nothing is waiting.
    Empty,
    /// The device was removed behind our back.
    Gone,
}

/// Why a frame could not be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WriteError {
    /// The kernel found the frame or its header wrong.
    Refused,
    /// The device has no room or no memory now.
    Full,
    /// The device is down or gone.
    Down,
    /// The frame's memory vanished while it was read (a guest truncated its memory).
    Fault,
}

impl Tap {
    /// Attaches to the device, creating it when it is not there.
    ///
    /// `known` says that an earlier run of this agent created the device. A device that is there
    /// and not known is somebody else's: it is used, and never removed.
    pub(crate) fn attach(config: &TapConfig, known: bool) -> Result<Self, TapError> {
        let name = &config.device;
        let fits = (1..=NAME_MAX).contains(&name.len());
        if !fits || name.bytes().any(|b| b == b'/' || b == b'%' || b <= b' ') || name.starts_with('.') {
            return Err(TapError::Name { name: name.clone() });
        }
        netns::inside(config.netns.as_deref(), || Self::attach_here(config, known))?
    }

    /// Whether this agent made the device, and so removes it with its port.
    pub(crate) fn created(&self) -> bool {
        self.created
    }

    /// Whether the kernel takes UDP segmentation (USO) on this device.
    pub(crate) fn uso(&self) -> bool {
        self.uso
    }

    /// Number of queues.
    pub(crate) fn queues(&self) -> usize {
        self.queues.len()
    }

    /// The file of one queue, for an epoll set.
    pub(crate) fn fd(&self, queue: usize) -> RawFd {
        self.queues[queue % self.queues.len()].as_raw_fd()
    }

    /// Reads one frame, net header first. Returns its length with the header.
    pub(crate) fn read(&self, queue: usize, into: &mut [u8]) -> Result<usize, ReadEnd> {
        loop {
            match rustix::io::read(&self.queues[queue % self.queues.len()], &mut *into) {
                Ok(read) => return Ok(read),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return Err(ReadEnd::Empty),
                Err(_) => return Err(ReadEnd::Gone),
            }
        }
    }

    /// Writes frame `i` of a burst, its net header first. Payload in guest memory goes straight to the kernel.
    #[inline]
    pub(crate) fn write_frame(&self, queue: usize, burst: &Burst<'_>, i: usize) -> Result<(), WriteError> {
        let net = &burst.frames()[i].net;
        let mut parts: ArrayVec<libc::iovec, PARTS> = ArrayVec::new();
        parts.push(libc::iovec { iov_base: net.as_ptr().cast_mut().cast(), iov_len: net.len() });
        let mut fits = true;
        burst.for_each_part(i, |ptr, len| {
            let part = libc::iovec { iov_base: ptr.cast_mut().cast(), iov_len: len };
            fits = parts.try_push(part).is_ok();
            fits
        });
        if !fits {
            return Err(WriteError::Refused);
        }
        // SAFETY: the header is private memory that the burst owns; the other parts stay mapped while the burst
        // lives, says `for_each_part`. They may change meanwhile: only the kernel reads them, and a page that is
        // gone makes it answer EFAULT.
        unsafe { self.write(queue, &parts) }
    }

    /// Writes a frame made of a header and a payload.
    pub(crate) fn write_bytes(
        &self,
        queue: usize,
        net: &[u8; NET_HEADER],
        head: &[u8],
        payload: &[u8],
    ) -> Result<(), WriteError> {
        let part =
            |bytes: &[u8]| libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        // SAFETY: three borrowed slices, that nobody changes during the call.
        unsafe { self.write(queue, &[part(net), part(head), part(payload)]) }
    }

    /// Writes one frame from its parts, net header first.
    ///
    /// # Safety
    /// Every part must point to `iov_len` bytes that stay mapped during the call.
    unsafe fn write(&self, queue: usize, parts: &[libc::iovec]) -> Result<(), WriteError> {
        let fd = self.fd(queue);
        loop {
            // The bare system call: glibc's writev is a cancellation point and pays for that on each call.
            // SAFETY: `parts` is a valid slice of iovecs and the caller vouches for what they point to.
            let written = unsafe { libc::syscall(libc::SYS_writev, fd, parts.as_ptr(), parts.len()) };
            if written >= 0 {
                return Ok(());
            }
            match io::Error::last_os_error().raw_os_error() {
                Some(libc::EINTR) => {}
                Some(libc::EINVAL | libc::EMSGSIZE) => return Err(WriteError::Refused),
                Some(libc::EFAULT) => return Err(WriteError::Fault),
                Some(libc::EAGAIN | libc::ENOMEM | libc::ENOBUFS) => return Err(WriteError::Full),
                _ => return Err(WriteError::Down),
            }
        }
    }

    /// Lets the device end with its last user, when this agent made it.
    pub(crate) fn release(&self) {
        if self.created {
            // Fails only for a device that is gone already.
            let _ = persist(&self.queues[0], false);
        }
    }

    /// Removes a device that an earlier run made and nobody wants any more.
    pub(crate) fn remove_left_over(device: &str, netns: Option<&str>) -> Result<(), TapError> {
        let outcome = netns::inside(netns, || {
            if !Interface::new(device).and_then(|it| it.exists()).unwrap_or(false) {
                return Ok(());
            }
            let queue = open_queue(device)?;
            persist(&queue, false)
        });
        match outcome {
            // The namespace went, and its devices with it.
            Err(NetnsError::Missing { .. }) => Ok(()),
            Err(error) => Err(error.into()),
            Ok(done) => {
                done.map_err(|source| TapError::Step { device: device.into(), step: "removal", source })
            }
        }
    }

    fn attach_here(config: &TapConfig, known: bool) -> Result<Self, TapError> {
        let step =
            |step: &'static str| move |source| TapError::Step { device: config.device.clone(), step, source };
        let interface = Interface::new(&config.device).map_err(step("control socket"))?;
        let there = interface.exists().map_err(step("look-up"))?;
        let created = known || !there;
        let mut queues = Vec::with_capacity(usize::from(config.queues));
        for _ in 0..config.queues.max(1) {
            queues.push(open_queue(&config.device).map_err(step("attaching a queue"))?);
        }
        if created {
            persist(&queues[0], true).map_err(step("making it persistent"))?;
        }
        let mut uso = true;
        for queue in &queues {
            set_header_size(queue).map_err(step("setting the header size"))?;
            uso &= set_offloads(queue).map_err(step("setting offloads"))?;
        }
        interface.set_mac(config.mac).map_err(step("setting the MAC address"))?;
        interface.set_mtu(config.mtu).map_err(step("setting the MTU"))?;
        interface.set_up().map_err(step("setting it up"))?;
        Ok(Self { queues: queues.into_boxed_slice(), uso, created })
    }
}

fn open_queue(device: &str) -> io::Result<OwnedFd> {
    let queue = rustix::fs::open(
        "/dev/net/tun",
        rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )?;
    let mut request = request_for(device);
    // Multiqueue even for one queue: the flag is a property of a persistent device, and the number
    // of queues may grow later.
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_MULTI_QUEUE;
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes one ifreq, which `request` is.
    check(unsafe { libc::ioctl(queue.as_raw_fd(), libc::TUNSETIFF as libc::Ioctl, &raw mut request) })?;
    Ok(queue)
}

fn persist(queue: &OwnedFd, on: bool) -> io::Result<()> {
    let on = libc::c_ulong::from(on);
    // SAFETY: TUNSETPERSIST takes its argument by value.
    check(unsafe { libc::ioctl(queue.as_raw_fd(), libc::TUNSETPERSIST as libc::Ioctl, on) })
}

fn set_header_size(queue: &OwnedFd) -> io::Result<()> {
    let size = NET_HEADER as libc::c_int;
    // SAFETY: TUNSETVNETHDRSZ reads one int.
    check(unsafe { libc::ioctl(queue.as_raw_fd(), libc::TUNSETVNETHDRSZ as libc::Ioctl, &raw const size) })?;
    let little: libc::c_int = 1;
    // SAFETY: TUNSETVNETLE reads one int.
    check(unsafe { libc::ioctl(queue.as_raw_fd(), libc::TUNSETVNETLE as libc::Ioctl, &raw const little) })
}

/// Tells the kernel which unfinished frames we take; false when it is too old for USO.
fn set_offloads(queue: &OwnedFd) -> io::Result<bool> {
    let base = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
    let set = |offloads: libc::c_uint| {
        // SAFETY: TUNSETOFFLOAD takes its argument by value.
        let result = unsafe {
            libc::ioctl(queue.as_raw_fd(), libc::TUNSETOFFLOAD as libc::Ioctl, libc::c_ulong::from(offloads))
        };
        check(result)
    };
    match set(base | TUN_F_USO4 | TUN_F_USO6) {
        Ok(()) => Ok(true),
        Err(_) => set(base).map(|()| false),
    }
}

/// The netdevice ioctls on one interface of the namespace the thread is in.
struct Interface<'a> {
    name: &'a str,
    socket: OwnedFd,
}

impl<'a> Interface<'a> {
    fn new(name: &'a str) -> io::Result<Self> {
        // SAFETY: socket(2) takes its arguments by value.
        let fd = unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
        check(fd)?;
        // SAFETY: `fd` was just opened and nobody else knows it.
        Ok(Self { name, socket: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    fn exists(&self) -> io::Result<bool> {
        match self.call(libc::SIOCGIFINDEX, &mut request_for(self.name)) {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// A value that is already right is left alone: a change would tell every listener in the namespace.
    fn set_mac(&self, mac: [u8; 6]) -> io::Result<()> {
        let mut request = request_for(self.name);
        self.call(libc::SIOCGIFHWADDR, &mut request)?;
        // SAFETY: SIOCGIFHWADDR filled the address arm of the union.
        let mut address = unsafe { request.ifr_ifru.ifru_hwaddr };
        let wanted = mac.map(|byte| byte as libc::c_char);
        if address.sa_data[..6] == wanted {
            return Ok(());
        }
        address.sa_family = libc::ARPHRD_ETHER;
        address.sa_data[..6].copy_from_slice(&wanted);
        request.ifr_ifru.ifru_hwaddr = address;
        self.call(libc::SIOCSIFHWADDR, &mut request)
    }

    fn set_mtu(&self, mtu: u16) -> io::Result<()> {
        let mut request = request_for(self.name);
        self.call(libc::SIOCGIFMTU, &mut request)?;
        // SAFETY: SIOCGIFMTU filled the MTU arm of the union.
        if unsafe { request.ifr_ifru.ifru_mtu } == libc::c_int::from(mtu) {
            return Ok(());
        }
        request.ifr_ifru.ifru_mtu = libc::c_int::from(mtu);
        self.call(libc::SIOCSIFMTU, &mut request)
    }

    fn set_up(&self) -> io::Result<()> {
        let mut request = request_for(self.name);
        self.call(libc::SIOCGIFFLAGS, &mut request)?;
        // SAFETY: SIOCGIFFLAGS filled the flags arm of the union.
        let flags = unsafe { request.ifr_ifru.ifru_flags };
        let up = libc::IFF_UP as libc::c_short;
        if flags & up != 0 {
            return Ok(());
        }
        request.ifr_ifru.ifru_flags = flags | up;
        self.call(libc::SIOCSIFFLAGS, &mut request)
    }

    fn call(&self, number: libc::c_ulong, request: &mut libc::ifreq) -> io::Result<()> {
        // SAFETY: every SIOC?IF* call reads and writes one ifreq.
        check(unsafe { libc::ioctl(self.socket.as_raw_fd(), number as libc::Ioctl, &raw mut *request) })
    }
}

/// The MTU of an interface of the namespace the thread is in.
pub(crate) fn mtu_of(name: &str) -> io::Result<u32> {
    let mut request = request_for(name);
    Interface::new(name)?.call(libc::SIOCGIFMTU, &mut request)?;
    // SAFETY: SIOCGIFMTU filled the MTU arm of the union.
    let mtu = unsafe { request.ifr_ifru.ifru_mtu };
    u32::try_from(mtu).map_err(io::Error::other)
}

/// The interface of the namespace the thread is in that has an address.
pub(crate) fn interface_with(address: IpAddr) -> Option<String> {
    let mut list = std::ptr::null_mut();
    // SAFETY: getifaddrs writes one pointer, to a list that is ours until it is freed below.
    check(unsafe { libc::getifaddrs(&raw mut list) }).ok()?;
    let mut found = None;
    let mut at = list.cast_const();
    while !at.is_null() {
        // SAFETY: `at` is an entry of the list, which is not yet freed.
        let entry = unsafe { &*at };
        if found.is_none() && is_address(entry.ifa_addr, address) {
            // SAFETY: each entry has a name that ends with NUL and lives as long as the list.
            let name = unsafe { CStr::from_ptr(entry.ifa_name) };
            found = Some(name.to_string_lossy().into_owned());
        }
        at = entry.ifa_next;
    }
    // SAFETY: `list` came from getifaddrs and nothing points into it any more.
    unsafe { libc::freeifaddrs(list) };
    found
}

/// Whether an interface's address, of an entry of getifaddrs, is this one.
fn is_address(address: *const libc::sockaddr, wanted: IpAddr) -> bool {
    if address.is_null() {
        return false;
    }
    // SAFETY: getifaddrs gives pointers that are aligned for every kind of socket address, and each has a family.
    let family = i32::from(unsafe { (*address).sa_family });
    match (family, wanted) {
        (libc::AF_INET, IpAddr::V4(wanted)) => {
            // SAFETY: the family says that it is a sockaddr_in.
            let bits = unsafe { (*address.cast::<libc::sockaddr_in>()).sin_addr.s_addr };
            bits.to_ne_bytes() == wanted.octets()
        }
        (libc::AF_INET6, IpAddr::V6(wanted)) => {
            // SAFETY: the family says that it is a sockaddr_in6.
            let octets = unsafe { (*address.cast::<libc::sockaddr_in6>()).sin6_addr.s6_addr };
            octets == wanted.octets()
        }
        _ => false,
    }
}

fn request_for(name: &str) -> libc::ifreq {
    // SAFETY: an ifreq is plain data; zero is a valid value of every arm.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name[..NAME_MAX].iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
