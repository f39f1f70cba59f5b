#!/usr/bin/python3
"""Prints fragments.tsv: packets in pieces, from 02:00:00:00:00:0b (10.0.1.11, fd00:1::11) to :0c (10.0.1.12, fd00:1::12).

    /usr/bin/python3 fragments.py > fragments.tsv

Columns: packet, and its fragments in the order of their offsets. Built and cut by scapy.
"""
from scapy.all import (
    ICMP, ICMPv6EchoRequest, IP, IPv6, IPv6ExtHdrFragment, TCP, UDP, Ether, Raw, fragment, fragment6, raw,
)

ETHERNET = Ether(src="02:00:00:00:00:0b", dst="02:00:00:00:00:0c")
V4 = dict(src="10.0.1.11", dst="10.0.1.12")
V6 = dict(src="fd00:1::11", dst="fd00:1::12")
DATA = Raw(bytes(range(256)) * 12)


def show(data):
    """Hexadecimal; what lies behind the first 80 bytes is left to the reader: so many bytes of 0x78."""
    head, rest = data[:80], len(data) - 80
    return head.hex() + ("(78*%d)" % rest if rest > 0 else "")


def packet(name, pieces):
    print(name, *[show(raw(ETHERNET / piece)) for piece in pieces], sep="\t")


def v4(name, transport, id):
    packet(name, fragment(IP(id=id, **V4) / transport, 1480))


def v6(name, transport, id):
    whole = IPv6(**V6) / IPv6ExtHdrFragment(id=id) / transport
    packet(name, [IPv6(raw(piece)) for piece in fragment6(whole, 1280)])


v4("udp", UDP(sport=4000, dport=53) / DATA, 1)
v4("udp again", UDP(sport=4000, dport=53) / DATA, 2)
v4("udp to a port that is not allowed", UDP(sport=4000, dport=54) / DATA, 3)
v4("ping", ICMP(id=7) / DATA, 4)
v4("tcp data", TCP(sport=4000, dport=80, seq=1001, ack=5001, flags="A", window=65535) / DATA, 5)
v6("udp, ipv6", UDP(sport=4000, dport=53) / DATA, 1)
v6("udp to a port that is not allowed, ipv6", UDP(sport=4000, dport=54) / DATA, 3)
v6("ping, ipv6", ICMPv6EchoRequest(id=7, data=raw(DATA)), 4)

# The port is allowed in one first fragment and not in the other.
FIRSTS = [IP(id=6, flags="MF", **V4) / UDP(sport=4000, dport=port, len=3000, chksum=1) / Raw(b"x" * 24) for port in (53, 54)]
packet("two firsts", FIRSTS)
LATER = IP(id=6, flags="MF", frag=1, proto=17, **V4) / Raw(b"x" * 24)
packet("a first and one that begins within it", [FIRSTS[0], LATER])
SIX = [IPv6(**V6) / IPv6ExtHdrFragment(id=6, m=1, nh=17) / UDP(sport=4000, dport=port, len=3000, chksum=1) / Raw(b"x" * 24) for port in (53, 54)]
packet("two firsts, ipv6", SIX)
packet("a first and one that begins within it, ipv6", [SIX[0], IPv6(**V6) / IPv6ExtHdrFragment(id=6, m=1, nh=17, offset=1) / Raw(b"x" * 24)])
# RFC 1858, section 3: the flags lie in the second fragment; section 4: the second begins behind the ports.
TINY = raw(TCP(sport=4000, dport=80, flags="S"))
packet("tiny", [IP(id=7, flags="MF", proto=6, **V4) / Raw(TINY[:8]), IP(id=7, frag=1, proto=6, **V4) / Raw(TINY[8:])])
packet("tcp overlap", [IP(id=8, flags="MF", **V4) / TCP(sport=4000, dport=80, flags="A", seq=1, ack=1) / Raw(b"x" * 4), IP(id=8, frag=1, proto=6, **V4) / Raw(TINY[8:])])
# RFC 6946: a fragment's header around a whole packet.
packet("atomic", [IPv6(**V6) / IPv6ExtHdrFragment(id=9) / UDP(sport=4000, dport=53) / Raw(b"x")])
