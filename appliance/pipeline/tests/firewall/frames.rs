//! Frames, built by smoltcp.

use std::net::IpAddr;

use smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, Icmpv4Message, Icmpv4Packet, Icmpv6Message,
    Icmpv6Packet, IpProtocol, Ipv4Packet, Ipv6Packet, TcpPacket, TcpSeqNumber, UdpPacket,
};

use crate::world::{Guest, called};

/// From whom to whom, with all that stands in the headers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Path {
    pub(crate) from_mac: [u8; 6],
    pub(crate) to_mac: [u8; 6],
    pub(crate) from: IpAddr,
    pub(crate) to: IpAddr,
}

/// The way between two guests over IPv4.
pub(crate) fn v4(from: &str, to: &str) -> Path {
    between(called(from), called(to), false)
}

pub(crate) fn v6(from: &str, to: &str) -> Path {
    between(called(from), called(to), true)
}

pub(crate) fn between(from: Guest, to: Guest, v6: bool) -> Path {
    Path { from_mac: from.mac(), to_mac: to.mac(), from: from.address(v6), to: to.address(v6) }
}

impl Path {
    pub(crate) fn back(self) -> Self {
        Self { from_mac: self.to_mac, to_mac: self.from_mac, from: self.to, to: self.from }
    }

    pub(crate) fn to(self, address: &str) -> Self {
        Self { to: address.parse().expect("an address"), ..self }
    }

    pub(crate) fn to_mac(self, to_mac: [u8; 6]) -> Self {
        Self { to_mac, ..self }
    }

    /// A packet of any protocol.
    pub(crate) fn packet(self, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let header = if self.from.is_ipv4() { 20 } else { 40 };
        let mut bytes = vec![0; 14 + header + payload.len()];
        let mut ethernet = EthernetFrame::new_unchecked(&mut bytes[..]);
        ethernet.set_src_addr(EthernetAddress(self.from_mac));
        ethernet.set_dst_addr(EthernetAddress(self.to_mac));
        match (self.from, self.to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                ethernet.set_ethertype(EthernetProtocol::Ipv4);
                let mut packet = Ipv4Packet::new_unchecked(ethernet.payload_mut());
                packet.set_version(4);
                packet.set_header_len(20);
                packet.set_total_len((20 + payload.len()) as u16);
                packet.set_hop_limit(64);
                packet.set_next_header(IpProtocol::from(protocol));
                packet.set_src_addr(from);
                packet.set_dst_addr(to);
                packet.payload_mut().copy_from_slice(payload);
                packet.fill_checksum();
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                ethernet.set_ethertype(EthernetProtocol::Ipv6);
                let mut packet = Ipv6Packet::new_unchecked(ethernet.payload_mut());
                packet.set_version(6);
                packet.set_payload_len(payload.len() as u16);
                packet.set_hop_limit(64);
                packet.set_next_header(IpProtocol::from(protocol));
                packet.set_src_addr(from);
                packet.set_dst_addr(to);
                packet.payload_mut().copy_from_slice(payload);
            }
            _ => panic!("one family"),
        }
        bytes
    }

    pub(crate) fn udp(self, from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 8 + payload.len()];
        let mut datagram = UdpPacket::new_unchecked(&mut bytes[..]);
        datagram.set_src_port(from);
        datagram.set_dst_port(to);
        datagram.set_len(8 + payload.len() as u16);
        datagram.payload_mut().copy_from_slice(payload);
        datagram.fill_checksum(&self.from.into(), &self.to.into());
        self.packet(17, &bytes)
    }

    /// `flags` by their letters: S, A, F, R, P, U.
    pub(crate) fn tcp(
        self,
        ports: (u16, u16),
        flags: &str,
        (seq, ack): (u32, u32),
        payload: &[u8],
    ) -> Vec<u8> {
        let mut bytes = vec![0; 20 + payload.len()];
        let mut segment = TcpPacket::new_unchecked(&mut bytes[..]);
        segment.set_src_port(ports.0);
        segment.set_dst_port(ports.1);
        segment.set_seq_number(TcpSeqNumber(seq as i32));
        segment.set_ack_number(TcpSeqNumber(ack as i32));
        segment.clear_flags();
        segment.set_header_len(20);
        segment.set_syn(flags.contains('S'));
        segment.set_ack(flags.contains('A'));
        segment.set_fin(flags.contains('F'));
        segment.set_rst(flags.contains('R'));
        segment.set_psh(flags.contains('P'));
        segment.set_urg(flags.contains('U'));
        segment.set_window_len(8192);
        segment.payload_mut().copy_from_slice(payload);
        segment.fill_checksum(&self.from.into(), &self.to.into());
        self.packet(6, &bytes)
    }

    /// An ICMP or ICMPv6 message: type, code, the four bytes behind the checksum, and the rest.
    pub(crate) fn icmp(self, kind: u8, code: u8, rest: [u8; 4], data: &[u8]) -> Vec<u8> {
        let mut bytes = [&[0; 4][..], &rest, data].concat();
        match (self.from, self.to) {
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let mut message = Icmpv6Packet::new_unchecked(&mut bytes[..]);
                message.set_msg_type(Icmpv6Message::from(kind));
                message.set_msg_code(code);
                message.fill_checksum(&from, &to);
                self.packet(58, &bytes)
            }
            _ => {
                let mut message = Icmpv4Packet::new_unchecked(&mut bytes[..]);
                message.set_msg_type(Icmpv4Message::from(kind));
                message.set_msg_code(code);
                message.fill_checksum();
                self.packet(1, &bytes)
            }
        }
    }

    pub(crate) fn ping(self, id: u16) -> Vec<u8> {
        let [high, low] = id.to_be_bytes();
        self.icmp(if self.from.is_ipv4() { 8 } else { 128 }, 0, [high, low, 0, 1], b"ping")
    }

    pub(crate) fn pong(self, id: u16) -> Vec<u8> {
        let [high, low] = id.to_be_bytes();
        self.icmp(if self.from.is_ipv4() { 0 } else { 129 }, 0, [high, low, 0, 1], b"ping")
    }

    /// Port unreachable: quotes a frame's packet.
    pub(crate) fn unreachable(self, quoted: &[u8]) -> Vec<u8> {
        let quoted = &quoted[14..quoted.len().min(14 + 60)];
        let (kind, code) = if self.from.is_ipv4() { (3, 3) } else { (1, 4) };
        self.icmp(kind, code, [0; 4], quoted)
    }
}
