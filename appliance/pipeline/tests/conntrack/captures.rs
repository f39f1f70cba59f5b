//! Connections between real stacks, recorded between them: `golden/record.py` says how each came about.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use pipeline::DropReason;
use pipeline::conntrack::tcp::{Kind, Segment, Settings, State, Tcp};
use pipeline::conntrack::{Change, Side};
use smoltcp::wire::{IpAddress, IpProtocol, Ipv4Packet, Ipv6Packet, TcpControl, TcpPacket, TcpRepr};

/// A packet of a capture.
struct Packet {
    /// Address and port of its sender.
    from: (IpAddress, u16),
    segment: Segment,
    /// What smoltcp reads.
    theirs: TcpRepr<'static>,
    /// smoltcp does not tell apart RST with and without ACK from the control field alone.
    flags: u8,
}

fn word(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
}

/// The packets of a file of raw IP, of which the first 128 bytes each were kept.
fn packets(name: &str) -> Vec<Packet> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/conntrack/golden/{name}.pcap"));
    let file = fs::read(path).unwrap();
    assert_eq!((word(&file, 0), word(&file, 20)), (0xa1b2_c3d4, 101), "{name}: a pcap of raw IP");
    let (mut at, mut packets) = (24, Vec::new());
    while at < file.len() {
        let (kept, len) = (word(&file, at + 8), word(&file, at + 12));
        packets.push(packet(&file[at + 16..at + 16 + kept], len));
        at += 16 + kept;
    }
    packets
}

fn packet(head: &[u8], len: usize) -> Packet {
    // smoltcp wants the payload to be there; what it holds was not kept.
    let mut whole = head.to_vec();
    whole.resize(len, 0);
    let whole: &'static [u8] = whole.leak();
    let (from, to, header_len) = if head[0] >> 4 == 4 {
        let ip = Ipv4Packet::new_checked(whole).unwrap();
        assert_eq!(ip.next_header(), IpProtocol::Tcp);
        (ip.src_addr().into(), ip.dst_addr().into(), usize::from(ip.header_len()))
    } else {
        let ip = Ipv6Packet::new_checked(whole).unwrap();
        assert_eq!(ip.next_header(), IpProtocol::Tcp);
        (ip.src_addr().into(), ip.dst_addr().into(), ip.header_len())
    };
    let tcp = TcpPacket::new_checked(&whole[header_len..]).unwrap();
    let no_checksums = smoltcp::phy::ChecksumCapabilities::ignored();
    let theirs = TcpRepr::parse(&tcp, &from, &to, &no_checksums).unwrap();
    let tcp_len = usize::from(tcp.header_len());
    let payload = (len - header_len - tcp_len) as u32;
    let segment = Segment::parse(&head[header_len..header_len + tcp_len], payload).unwrap();
    Packet { from: (from, theirs.src_port), segment, theirs, flags: head[header_len + 13] }
}

/// A connection that is followed as the flow table would.
struct Follower {
    tcp: Tcp,
    initiator: (IpAddress, u16),
    /// The names of the states, each once, with `|` where another connection began.
    path: String,
}

impl Follower {
    fn open(packet: &Packet) -> Result<Self, DropReason> {
        let tcp = Tcp::open(&packet.segment, &Settings::default())?;
        Ok(Self { tcp, initiator: packet.from, path: tcp.state().name().to_string() })
    }

    fn side(&self, packet: &Packet) -> Side {
        if packet.from == self.initiator { Side::Initiator } else { Side::Responder }
    }

    fn follow(&mut self, packet: &Packet) -> Result<(), DropReason> {
        let (was, side) = (self.tcp.state(), self.side(packet));
        let change = self.tcp.track(side, &packet.segment)?;
        if change == Change::Reopens {
            let next = Self::open(packet)?;
            *self = Self { path: format!("{} | {}", self.path, next.path), ..next };
            return Ok(());
        }
        let now = self.tcp.state();
        assert_eq!(change == Change::None, was == now, "{change:?}: {was:?} to {now:?}");
        if was.name() != now.name() {
            self.path = format!("{} {}", self.path, now.name());
        }
        Ok(())
    }
}

/// A connection that both ends close.
const CLOSED: &str = "syn-sent syn-received established half-closed closing time-wait";

/// Each capture, and the states that its connection must go through.
const SCENES: [(&str, &str); 23] = [
    ("handshake", CLOSED),
    ("server_closes", CLOSED),
    ("simultaneous_open", "syn-sent syn-crossed syn-received established half-closed closing time-wait"),
    ("late_crossing", "syn-sent syn-crossed syn-received established half-closed closing time-wait"),
    ("simultaneous_close", CLOSED),
    ("lost_handshake", CLOSED),
    ("retransmission", CLOSED),
    ("lost_fins", CLOSED),
    ("reordered", CLOSED),
    ("half_close", CLOSED),
    ("reset", "syn-sent syn-received established reset"),
    ("reset_of_unread", "syn-sent syn-received established reset"),
    ("refused", "syn-sent reset"),
    ("keepalive", CLOSED),
    ("bulk", CLOSED),
    ("no_scaling", CLOSED),
    ("zero_window", CLOSED),
    (
        "reuse_of_time_wait",
        "syn-sent syn-received established half-closed closing time-wait | \
         syn-sent syn-received established half-closed closing time-wait",
    ),
    (
        "client_forgets",
        "syn-sent syn-received established reset | \
         syn-sent syn-received established half-closed closing time-wait",
    ),
    (
        "both_forget",
        "syn-sent syn-received established syn-received established half-closed closing time-wait",
    ),
    (
        "reset_meets_syn",
        "syn-sent syn-received established reset syn-received established half-closed closing time-wait",
    ),
    ("server_forgets", "syn-sent syn-received established reset"),
    ("fast_open", CLOSED),
];

#[test]
fn every_packet_of_a_real_connection_passes_and_its_states_are_right() {
    for (name, path) in SCENES {
        let packets = packets(name);
        let mut follower = Follower::open(&packets[0]).unwrap();
        for (number, packet) in packets.iter().enumerate().skip(1) {
            let side = follower.side(packet);
            follower.follow(packet).unwrap_or_else(|reason| {
                panic!(
                    "{name}: packet {number}: {reason}: {:?} from {side:?} at {:?}",
                    packet.segment, follower.tcp
                )
            });
        }
        assert_eq!(follower.path, path, "{name}");
    }
}

#[test]
fn no_capture_is_forgotten() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conntrack/golden");
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut there: Vec<String> =
        names.filter_map(|name| Some(name.strip_suffix(".pcap")?.to_string())).collect();
    let mut wanted = SCENES.map(|(name, _)| name);
    there.sort();
    wanted.sort();
    assert_eq!(there, wanted);
}

#[test]
fn segments_are_read_as_smoltcp_reads_them() {
    for (name, _) in SCENES {
        for Packet { segment, theirs, flags, .. } in packets(name) {
            let kind = match (theirs.control, theirs.ack_number) {
                (TcpControl::Syn, None) => Kind::Syn,
                (TcpControl::Syn, Some(_)) => Kind::SynAck,
                (TcpControl::Fin, Some(_)) => Kind::Fin,
                (TcpControl::None | TcpControl::Psh, Some(_)) => Kind::Ack,
                (TcpControl::Rst, None) => Kind::Rst,
                (TcpControl::Rst, Some(_)) => Kind::RstAck,
                (TcpControl::Fin | TcpControl::None | TcpControl::Psh, None) => panic!("{flags:#x}"),
            };
            assert_eq!(segment.kind, kind);
            assert_eq!(segment.seq, theirs.seq_number.0 as u32);
            if let Some(ack) = theirs.ack_number {
                assert_eq!(segment.ack, ack.0 as u32);
            }
            assert_eq!((segment.window, segment.len as usize), (theirs.window_len, theirs.payload.len()));
            assert_eq!(segment.scale, theirs.window_scale);
            let numbers = theirs.segment_len() as u32;
            assert_eq!(segment.end(), segment.seq.wrapping_add(numbers));
        }
    }
}

#[test]
fn a_connection_may_be_picked_up_at_any_ack() {
    let mut picked_up = 0;
    for (name, path) in SCENES {
        let packets = packets(name);
        let acks = (1..packets.len()).filter(|start| packets[*start].segment.kind == Kind::Ack);
        for rest in acks.map(|start| &packets[start..]) {
            let mut follower = Follower::open(&rest[0]).unwrap();
            picked_up += 1;
            for (number, packet) in rest.iter().enumerate().skip(1) {
                // A SYN of whom we took for the responder began a connection; a RST to the old one, which nobody who
                // waits for an answer to a SYN heeds (RFC 9293, section 3.10.7.3), does not belong to it.
                let late = (State::SynSent, Side::Responder, Kind::Rst);
                if (follower.tcp.state(), follower.side(packet), packet.segment.kind) == late {
                    assert_eq!(follower.follow(packet), Err(DropReason::TcpInvalidState));
                    continue;
                }
                follower.follow(packet).unwrap_or_else(|reason| {
                    let (segment, left, tcp) = (packet.segment, rest.len(), follower.tcp);
                    panic!("{name}, the last {left}: packet {number}: {reason}: {segment:?} at {tcp:?}")
                });
            }
            // What was missed cannot be known: it takes the FINs of both ends, or the RST.
            let fins =
                rest.iter().filter(|packet| packet.segment.kind == Kind::Fin).map(|packet| packet.from);
            let resets = rest.iter().any(|packet| matches!(packet.segment.kind, Kind::Rst | Kind::RstAck));
            if resets || fins.collect::<HashSet<_>>().len() == 2 {
                let last = path.rsplit(' ').next().unwrap();
                assert!(follower.path.ends_with(last), "{name}, the last {}: {}", rest.len(), follower.path);
            }
        }
    }
    assert!(picked_up > 500, "{picked_up}");
}

/// What somebody would send who does not see the connection, at every packet of every capture.
#[test]
fn what_lies_far_outside_is_refused_and_changes_nothing() {
    let mut refused = 0;
    for (name, _) in SCENES {
        let packets = packets(name);
        let mut follower = Follower::open(&packets[0]).unwrap();
        for (number, packet) in packets.iter().enumerate().skip(1) {
            // From the handshake's second packet on both ends are known.
            let known = !matches!(follower.tcp.state().name(), "syn-sent" | "time-wait" | "reset");
            for kind in [Kind::Ack, Kind::Fin, Kind::Rst, Kind::RstAck].into_iter().filter(|_| known) {
                let side = follower.side(packet);
                let sent = follower.tcp.windows()[side.index()];
                let honest = Segment { kind, seq: sent.end, len: 1, ..packet.segment };
                let mut forged = Vec::new();
                for far in [0x0100_0000, 0x4000_0000, 0x8000_0000, 0xc000_0000, 0xff00_0000] {
                    forged.push(Segment { seq: honest.seq.wrapping_add(far), ..honest });
                    if matches!(kind, Kind::Ack | Kind::Fin) {
                        forged.push(Segment { ack: honest.ack.wrapping_add(far), ..honest });
                    }
                }
                for segment in forged {
                    let mut tcp = follower.tcp;
                    let result = tcp.track(side, &segment);
                    assert_eq!(
                        result,
                        Err(DropReason::TcpOutOfWindow),
                        "{name}: at {number}: {segment:?} {tcp:?}"
                    );
                    assert_eq!(tcp, follower.tcp);
                    refused += 1;
                }
            }
            follower.follow(packet).unwrap();
        }
    }
    assert!(refused > 5000, "{refused}");
}

#[test]
fn windows_are_scaled_as_both_ends_agreed() {
    let windows = |name: &str| {
        let packets = packets(name);
        let mut follower = Follower::open(&packets[0]).unwrap();
        for packet in &packets[1..] {
            follower.follow(packet).unwrap();
        }
        follower.tcp.windows().map(|window| (window.max_win, window.scale))
    };
    // As tcpdump shows: "win 65535 .. wscale 6" of the receiver of bulk, whose peer has wscale 10.
    assert_eq!(windows("bulk")[1], (65535 << 6, 6));
    assert_eq!(windows("bulk")[0].1, 10);
    assert_eq!(windows("no_scaling").map(|(_, scale)| scale), [0, 0]);
    assert!(windows("no_scaling").iter().all(|(max_win, _)| *max_win <= 65535));
}
