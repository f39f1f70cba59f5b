//! A connected vhost-user socket: whole messages with their descriptors, bounded in size and time.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use vhost::vhost_user::message::FrontendReq;

use crate::end::End;
use crate::message::{HEADER, MAX_BODY, MAX_FDS, Message, NEED_REPLY, REPLY, VERSION};

/// How long the rest of a message, or room to send one, may take. A front end sends a message with one system call: who
/// needs longer is stopped, or plays.
const PATIENCE: Duration = Duration::from_secs(10);
/// Room for more descriptors than any message may have, so that too many are seen (and closed) as such.
const FD_ROOM: usize = MAX_FDS + 8;

/// What can interrupt waiting for the peer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Alarm<'a>(pub(crate) BorrowedFd<'a>);

/// Which side of a connection this end reads: requests, or the replies to its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reads {
    Requests,
    Replies,
}

/// One end of a connection.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: OwnedFd,
    reads: Reads,
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Socket {
    /// Takes over a connected stream socket, which becomes non-blocking.
    pub(crate) fn new(fd: OwnedFd, reads: Reads) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        Ok(Socket { fd, reads })
    }

    /// The next message, once its first byte is there (the caller waits for that). `None` when the peer hung up between
    /// two messages.
    pub(crate) fn receive(&self, alarm: Alarm<'_>) -> Result<Option<Message>, End> {
        let deadline = Instant::now() + PATIENCE;
        let mut fds = Vec::new();
        let mut header = [0; HEADER];
        let got = self.fill(&mut header, &mut fds, alarm, deadline)?;
        if got == 0 {
            return Ok(None);
        }
        if got < HEADER {
            return Err(End::Truncated { got, expected: HEADER });
        }
        let word = |n: usize| u32::from_ne_bytes([header[n], header[n + 1], header[n + 2], header[n + 3]]);
        let (number, flags, size) = (word(0), word(4), word(8) as usize);
        let request = FrontendReq::try_from(number).map_err(|_| End::UnknownRequest { number })?;
        let reply = if self.reads == Reads::Replies { REPLY } else { 0 };
        if flags & !NEED_REPLY != VERSION | reply {
            return Err(End::Flags { request, flags });
        }
        if size > MAX_BODY {
            return Err(End::Oversized { request, got: size, most: MAX_BODY });
        }
        let mut body = vec![0; size];
        let got = self.fill(&mut body, &mut fds, alarm, deadline)?;
        if got < size {
            return Err(End::Truncated { got: HEADER + got, expected: HEADER + size });
        }
        Ok(Some(Message { request, flags, body, fds }))
    }

    /// Sends a whole message. [`End::HungUp`] when nobody is there to read it.
    pub(crate) fn send(&self, message: &Message, alarm: Alarm<'_>) -> Result<(), End> {
        let deadline = Instant::now() + PATIENCE;
        let bytes = [&message.header()[..], &message.body].concat();
        let fds: Vec<BorrowedFd<'_>> = message.fds.iter().map(AsFd::as_fd).collect();
        let mut sent = 0;
        while sent < bytes.len() {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if sent == 0 && !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&fds)) {
                return Err(End::Fds { request: message.request, got: fds.len(), expected: MAX_FDS });
            }
            let rest = [IoSlice::new(&bytes[sent..])];
            match rustix::net::sendmsg(&self.fd, &rest, &mut control, SendFlags::NOSIGNAL) {
                Ok(count) => sent += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.wait(PollFlags::OUT, alarm, deadline)?,
                Err(Errno::PIPE | Errno::CONNRESET) => return Err(End::HungUp),
                Err(error) => return Err(End::Io(error.into())),
            }
        }
        Ok(())
    }

    /// Waits until the next message begins, or the peer hangs up.
    pub(crate) fn wait_readable(&self, alarm: Alarm<'_>) -> Result<(), End> {
        wait(&[], Some((self.as_fd(), PollFlags::IN)), alarm, None).map(|_| ())
    }

    /// Reads until `bytes` is full or the peer hangs up, collecting descriptors on the way.
    fn fill(
        &self,
        bytes: &mut [u8],
        fds: &mut Vec<OwnedFd>,
        alarm: Alarm<'_>,
        deadline: Instant,
    ) -> Result<usize, End> {
        let mut got = 0;
        while got < bytes.len() {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FD_ROOM))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut rest = [IoSliceMut::new(&mut bytes[got..])];
            let flags = RecvFlags::CMSG_CLOEXEC;
            let received = rustix::net::recvmsg(&self.fd, &mut rest, &mut control, flags);
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(rights) = message {
                    fds.extend(rights);
                }
            }
            match received {
                Ok(message) if message.flags.contains(ReturnFlags::CTRUNC) || fds.len() > MAX_FDS => {
                    return Err(End::TooManyFds { got: fds.len(), most: MAX_FDS });
                }
                Ok(message) if message.bytes == 0 => break,
                Ok(message) => got += message.bytes,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.wait(PollFlags::IN, alarm, deadline)?,
                Err(Errno::CONNRESET) => break,
                Err(error) => return Err(End::Io(error.into())),
            }
        }
        Ok(got)
    }

    fn wait(&self, events: PollFlags, alarm: Alarm<'_>, deadline: Instant) -> Result<(), End> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(End::Stalled { seconds: PATIENCE.as_secs() });
        }
        wait(&[], Some((self.as_fd(), events)), alarm, Some(left)).map(|_| ())
    }
}

/// Waits until one of `fds` is ready or `timeout` passed (`None`: for ever); the events of each. `End::PortClosed` when
/// the alarm goes off.
pub(crate) fn wait(
    fds: &[(BorrowedFd<'_>, PollFlags)],
    and: Option<(BorrowedFd<'_>, PollFlags)>,
    alarm: Alarm<'_>,
    timeout: Option<Duration>,
) -> Result<Vec<PollFlags>, End> {
    let mut polled: Vec<PollFd<'_>> =
        fds.iter().chain(&and).map(|(fd, events)| PollFd::from_borrowed_fd(*fd, *events)).collect();
    polled.push(PollFd::from_borrowed_fd(alarm.0, PollFlags::IN));
    let timeout = timeout.and_then(|timeout| timeout.try_into().ok());
    loop {
        match poll(&mut polled, timeout.as_ref()) {
            Ok(_) => break,
            Err(Errno::INTR) => {}
            Err(error) => return Err(End::Io(error.into())),
        }
    }
    let mut events: Vec<PollFlags> = polled.iter().map(PollFd::revents).collect();
    match events.pop() {
        Some(flags) if !flags.is_empty() => Err(End::PortClosed),
        _ => Ok(events),
    }
}

/// A connected pair over a listener, for who can only accept: the crate's daemon. The listener takes one connection, and
/// that is ours: with a backlog of zero the kernel queues a single one, and ours is made before anybody accepts.
pub(crate) fn private_pair(name: &str) -> io::Result<(OwnedFd, OwnedFd)> {
    let address = SocketAddrUnix::new_abstract_name(name.as_bytes())?;
    let listener = stream_socket()?;
    rustix::net::bind(&listener, &address)?;
    rustix::net::listen(&listener, 0)?;
    let stream = stream_socket()?;
    rustix::net::connect(&stream, &address)?;
    rustix::io::ioctl_fionbio(&listener, false)?;
    Ok((listener, stream))
}

/// A listener at `path`, for owner and group. A file that nobody listens on any more is replaced.
pub(crate) fn listen_at(path: &Path) -> io::Result<OwnedFd> {
    let address = SocketAddrUnix::new(path).map_err(|error| match error {
        Errno::NAMETOOLONG => io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("socket path has {} bytes, at most 107 are possible", path.as_os_str().len()),
        ),
        error => error.into(),
    })?;
    match connect_to(path) {
        Ok(_) | Err(Errno::AGAIN) => {
            let text = format!("somebody listens on {} already", path.display());
            return Err(io::Error::new(io::ErrorKind::AddrInUse, text));
        }
        Err(Errno::CONNREFUSED) => {
            // Any file that is no socket refuses connections too.
            if !std::fs::symlink_metadata(path)?.file_type().is_socket() {
                let text = format!("{} exists and is not a socket", path.display());
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
            }
            std::fs::remove_file(path)?;
        }
        Err(Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    let listener = stream_socket()?;
    // Before the name exists, so that there is no moment in which others may connect; the umask still applies.
    rustix::fs::fchmod(&listener, MODE)?;
    rustix::net::bind(&listener, &address)?;
    rustix::fs::chmod(path, MODE)?;
    rustix::net::listen(&listener, BACKLOG)?;
    Ok(listener)
}

/// Owner and group: the VMM often runs as another user of the same group.
const MODE: rustix::fs::Mode = rustix::fs::Mode::from_raw_mode(0o660);
/// A VMM that restarts connects while its old connection is being taken down; more than a few are no VMMs.
const BACKLOG: i32 = 16;

/// Connects to a listener at `path` without waiting for room in its queue.
pub(crate) fn connect_to(path: &Path) -> Result<OwnedFd, Errno> {
    let stream = stream_socket()?;
    rustix::net::connect(&stream, &SocketAddrUnix::new(path)?)?;
    Ok(stream)
}

fn stream_socket() -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixStream;

    struct Ends {
        ours: Socket,
        theirs: UnixStream,
        alarm: OwnedFd,
    }

    fn ends() -> Ends {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let alarm = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap();
        Ends { ours: Socket::new(ours.into(), Reads::Requests).unwrap(), theirs, alarm }
    }

    fn header(request: u32, flags: u32, size: u32) -> Vec<u8> {
        [request, flags, size].iter().flat_map(|word| word.to_ne_bytes()).collect()
    }

    #[test]
    fn a_message_arrives_whole_even_when_sent_byte_by_byte() {
        let mut ends = ends();
        let bytes = [header(2, 1 | 8, 8), 77u64.to_ne_bytes().to_vec()].concat();
        let mut theirs = ends.theirs.try_clone().unwrap();
        let sender = std::thread::spawn(move || {
            for byte in bytes {
                theirs.write_all(&[byte]).unwrap();
            }
        });
        let message = ends.ours.receive(Alarm(ends.alarm.as_fd())).unwrap().unwrap();
        sender.join().unwrap();
        assert_eq!(
            (message.request, message.u64(0), message.wants_reply()),
            (FrontendReq::SET_FEATURES, 77, true)
        );
        let reply = Message::new(FrontendReq::SET_FEATURES, REPLY, &5u64.to_ne_bytes());
        ends.ours.send(&reply, Alarm(ends.alarm.as_fd())).unwrap();
        let mut back = [0; 20];
        ends.theirs.read_exact(&mut back).unwrap();
        assert_eq!(back[..12], header(2, 5, 8));
    }

    #[test]
    fn what_is_no_message_ends_the_connection_by_name() {
        let cases = [
            (header(0, 1, 0), "unknown-request"),
            (header(45, 1, 0), "unknown-request"),
            (header(1, 0, 0), "flags"),
            (header(1, 5, 0), "flags"),
            (header(1, 0x11, 0), "flags"),
            (header(1, 1, 4097), "oversized"),
            (header(1, 1, u32::MAX), "oversized"),
            (header(1, 1, 8), "truncated"),
            (header(1, 1, 0)[..11].to_vec(), "truncated"),
        ];
        for (bytes, name) in cases {
            let mut ends = ends();
            ends.theirs.write_all(&bytes).unwrap();
            drop(ends.theirs);
            let end = ends.ours.receive(Alarm(ends.alarm.as_fd())).unwrap_err();
            assert_eq!(end.name(), name, "{bytes:?}: {end}");
        }
        let ends = ends();
        drop(ends.theirs);
        assert!(ends.ours.receive(Alarm(ends.alarm.as_fd())).unwrap().is_none());
    }

    #[test]
    fn descriptors_come_through_and_too_many_are_closed() {
        for (count, fits) in
            [(0, true), (1, true), (MAX_FDS, true), (MAX_FDS + 1, false), (MAX_FDS + 50, false)]
        {
            let ends = ends();
            let (read, write) = rustix::pipe::pipe().unwrap();
            let fds = vec![read.as_fd(); count];
            let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            assert!(count == 0 || control.push(SendAncillaryMessage::ScmRights(&fds)));
            let bytes = header(1, 1, 0);
            let flags = SendFlags::empty();
            rustix::net::sendmsg(&ends.theirs, &[IoSlice::new(&bytes)], &mut control, flags).unwrap();
            match ends.ours.receive(Alarm(ends.alarm.as_fd())) {
                Ok(message) => assert_eq!((message.unwrap().fds.len(), fits), (count, true)),
                Err(end) => assert_eq!((end.name(), fits), ("too-many-fds", false)),
            }
            // Once the last reader is closed, the pipe is broken: no copy is left anywhere.
            drop(read);
            assert_eq!(rustix::io::write(&write, b"x"), Err(Errno::PIPE));
        }
    }

    #[test]
    fn an_alarm_interrupts_a_half_sent_message() {
        let mut ends = ends();
        ends.theirs.write_all(&header(1, 1, 8)).unwrap();
        rustix::io::write(&ends.alarm, &1u64.to_ne_bytes()).unwrap();
        let end = ends.ours.receive(Alarm(ends.alarm.as_fd())).unwrap_err();
        assert_eq!(end.name(), "port-closed");
    }

    #[test]
    fn only_a_dead_socket_file_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        let listener = listen_at(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        assert_eq!(listen_at(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(listener);
        drop(listen_at(&path).unwrap());
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "precious").unwrap();
        assert_eq!(listen_at(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
        let long = dir.path().join("x".repeat(120));
        assert!(listen_at(&long).unwrap_err().to_string().contains("107"));
    }

    #[test]
    fn nobody_else_can_queue_on_a_private_pair() {
        let name = format!("palisade-test-{}", std::process::id());
        let (listener, stream) = private_pair(&name).unwrap();
        let stranger = stream_socket().unwrap();
        let address = SocketAddrUnix::new_abstract_name(name.as_bytes()).unwrap();
        assert_eq!(rustix::net::connect(&stranger, &address), Err(Errno::AGAIN));
        let accepted = rustix::net::accept(&listener).unwrap();
        rustix::io::write(&accepted, b"x").unwrap();
        let mut byte = [0; 1];
        rustix::io::read(&stream, &mut byte).unwrap();
        assert_eq!(&byte, b"x");
    }
}
