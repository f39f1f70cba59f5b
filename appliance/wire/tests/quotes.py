#!/usr/bin/python3
"""Prints quotes.tsv: ICMP errors with the packets they quote, built by scapy.

    /usr/bin/python3 quotes.py > quotes.tsv

Columns: case, 4 or 6, what must be read (protocol source destination ports sequence) or the kind of error, the ICMP
message without its IP header.
"""
from scapy.all import (
    ICMP, ICMPv6DestUnreach, ICMPv6EchoReply, ICMPv6EchoRequest, ICMPv6ND_NS, ICMPv6PacketTooBig, ICMPv6ParamProblem,
    ICMPv6TimeExceeded, IP, IPOption_RR, IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting, SCTP, TCP, UDP, Raw, raw,
)

A4, B4, A6, B6 = "10.0.1.11", "10.0.1.12", "fd00:1::11", "fd00:1::12"


def line(name, version, what, message):
    print(name, version, what, message.hex(), sep="\t")


def v4(name, what, quoted, cut=None, **error):
    error = raw(ICMP(**(error or dict(type=3, code=1))))
    assert len(error) == 8
    line(name, 4, what, error + raw(quoted)[:cut])


def v6(name, what, quoted, cut=None, error=None):
    # The checksum needs the outer header; nothing here looks at it.
    error = raw(error or ICMPv6DestUnreach(cksum=0))[:8]
    line(name, 6, what, error + raw(quoted)[:cut])


ip, ip6 = IP(src=A4, dst=B4), IPv6(src=A6, dst=B6)
udp, tcp = UDP(sport=5000, dport=53), TCP(sport=40000, dport=443, seq=0xFEDCBA98, ack=7, flags="A")
to4, to6 = f"{A4} {B4}", f"{A6} {B6}"

v4("port unreachable", f"17 {to4} 5000 53 -", ip / udp / Raw(b"x" * 32), type=3, code=3)
v4("fragmentation needed", f"6 {to4} 40000 443 4275878552", ip / tcp / Raw(b"x" * 500), type=3, code=4)
v4("eight bytes of tcp", f"6 {to4} 40000 443 4275878552", ip / tcp, cut=28, type=11)
v4("seven bytes of tcp", "transport 7", ip / tcp, cut=27, type=11)
v4("parameter problem", f"17 {to4} 5000 53 -", ip / udp, type=12)
v4("source quench", f"17 {to4} 5000 53 -", ip / udp, type=4)
v4("sctp", f"132 {to4} 9 10 -", ip / SCTP(sport=9, dport=10, tag=3))
v4("echo request", f"1 {to4} 7 7 -", ip / ICMP(type=8, id=7, seq=9))
v4("echo reply", f"1 {to4} 7 7 -", ip / ICMP(type=0, id=7, seq=9))
v4("timestamp", f"1 {to4} 77 77 -", ip / ICMP(type=13, id=77))
v4("an error", "no-query 3", ip / ICMP(type=3) / ip / udp)
v4("a redirect", "no-query 5", ip / ICMP(type=5) / ip / udp)
v4("icmpv6 over ipv4", f"58 {to4} 0 0 -", IP(src=A4, dst=B4, proto=58) / Raw(b"\x01" * 8))
v4("options", f"17 {to4} 5000 53 -", IP(src=A4, dst=B4, options=[IPOption_RR(routers=["0.0.0.0"] * 9)]) / udp)
v4("half of the options", "header", IP(src=A4, dst=B4, options=[IPOption_RR(routers=["0.0.0.0"] * 9)]) / udp, cut=40)
v4("half a header", "header", ip / udp, cut=19)
v4("nothing", "header", b"")
v4("a length in the wrong order", f"17 {to4} 5000 53 -", IP(src=A4, dst=B4, len=0x1C00) / udp)
v4("a length of nothing", f"17 {to4} 5000 53 -", IP(src=A4, dst=B4, len=0) / udp)
v4("a header of 16 bytes", "header", IP(src=A4, dst=B4, ihl=4) / udp)
v4("the wrong version", "header", ip6 / udp)
v4("first fragment", f"17 {to4} 5000 53 -", IP(src=A4, dst=B4, flags="MF") / udp)
v4("later fragment", "fragment 185", IP(src=A4, dst=B4, frag=185) / Raw(b"x" * 8))
v4("gre", f"47 {to4} 0 0 -", IP(src=A4, dst=B4, proto=47) / Raw(b"\0" * 8))
v4("seven bytes of gre", "transport 7", IP(src=A4, dst=B4, proto=47) / Raw(b"\0" * 7))

v6("port unreachable, ipv6", f"17 {to6} 5000 53 -", ip6 / udp / Raw(b"x" * 32))
v6("packet too big", f"6 {to6} 40000 443 4275878552", ip6 / tcp, error=ICMPv6PacketTooBig(cksum=0))
v6("time exceeded", f"6 {to6} 40000 443 4275878552", ip6 / tcp, error=ICMPv6TimeExceeded(cksum=0))
v6("parameter problem, ipv6", f"17 {to6} 5000 53 -", ip6 / udp, error=ICMPv6ParamProblem(cksum=0))
v6("seven bytes of udp, ipv6", "transport 7", ip6 / udp, cut=47)
v6("echo request, ipv6", f"58 {to6} 7 7 -", ip6 / ICMPv6EchoRequest(id=7))
v6("echo reply, ipv6", f"58 {to6} 7 7 -", ip6 / ICMPv6EchoReply(id=7))
v6("a solicitation", "no-query 135", ip6 / ICMPv6ND_NS(tgt=B6))
v6("an error, ipv6", "no-query 1", ip6 / ICMPv6DestUnreach() / ip6 / udp)
v6("icmp over ipv6", f"1 {to6} 0 0 -", IPv6(src=A6, dst=B6, nh=1) / Raw(b"\x03" * 8))
v6("options headers", f"17 {to6} 5000 53 -", ip6 / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / udp)
v6("cut in the options", "header", ip6 / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / udp, cut=50)
v6("a route that goes on", "header", ip6 / IPv6ExtHdrRouting(type=2, segleft=1, addresses=[B6]) / udp)
v6("first fragment, ipv6", f"17 {to6} 5000 53 -", ip6 / IPv6ExtHdrFragment(m=1, id=5) / udp)
v6("later fragment, ipv6", "fragment 181", ip6 / IPv6ExtHdrFragment(offset=181, nh=17, id=5) / Raw(b"x" * 8))
v6("half a header, ipv6", "header", ip6 / udp, cut=39)
v6("the wrong version, ipv6", "header", ip / udp / Raw(b"x" * 40))
