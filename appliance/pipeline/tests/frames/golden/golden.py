#!/usr/bin/python3
"""Prints golden.tsv: frames that a workload sends, what must become of them, and the answers.

    /usr/bin/python3 golden.py > golden.tsv

Columns: group, case, sender, virtio_net_hdr or -, verdict, frame, answer or -. The world they are sent into is
`../world.rs`. Frames and answers are built by scapy, field by field; answers are never derived from requests.
"""
import re
import struct

from scapy.all import (
    ARP, BOOTP, DHCP, DHCP6_Advertise, DHCP6_RelayForward, DHCP6_Solicit, Dot1AD, Dot1Q, Dot3, Ether, GRE, ICMP,
    ICMPv6DestUnreach, ICMPv6EchoReply, ICMPv6EchoRequest, ICMPv6MLReport2, ICMPv6MLQuery, ICMPv6ND_INDSol, ICMPv6ND_NA,
    ICMPv6ND_NS, ICMPv6ND_RA, ICMPv6ND_Redirect, ICMPv6ND_RS, ICMPv6NDOptDstLLAddr, ICMPv6NDOptSrcLLAddr,
    ICMPv6Unknown, IP, IPOption_LSRR, IPOption_RR, IPOption_SSRR, IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop, IPv6ExtHdrRouting, Jumbo, LLC, PadN, RouterAlert, SCTP, STP, TCP, UDP, Raw, raw,
)

A, B, C, D, E, F, GW = ["02:00:00:00:00:%02x" % i for i in range(1, 7)] + ["02:00:00:00:ff:01"]
ALL = "ff:ff:ff:ff:ff:ff"
A4, B4, C4, E4, GW4 = "10.0.1.11", "10.0.1.12", "10.0.1.13", "10.0.1.15", "10.0.1.1"
A6, B6, C6, GW6 = "fd00:1::11", "fd00:1::12", "fd00:1::13", "fd00:1::1"
ALL6, ALL6_MAC = "ff02::1", "33:33:00:00:00:01"


def link_local(mac):
    b = [int(x, 16) for x in mac.split(":")]
    return "fe80::%02x%02x:%02xff:fe%02x:%02x%02x" % (b[0] ^ 2, b[1], b[2], b[3], b[4], b[5])


ALL_, BLL, GWLL = link_local(A), link_local(B), link_local(GW)
RANDOM_LL = "fe80::1234:5678:9abc:def0"


def eth(src=A, dst=B, **more):
    return Ether(src=src, dst=dst, **more)


def ip(src=A4, dst=B4, **more):
    return IP(src=src, dst=dst, **more)


def ip6(src=A6, dst=B6, **more):
    return IPv6(src=src, dst=dst, **more)


def solicited(address):
    """The solicited-node group of an address, and its MAC."""
    import ipaddress

    last = ipaddress.ip_address(address).packed[-3:]
    return "ff02::1:ff%02x:%02x%02x" % tuple(last), "33:33:ff:%02x:%02x:%02x" % tuple(last)


GROUP = None


def group(name):
    global GROUP
    GROUP = name


def net(flags=0, kind=0, header=0, size=0, start=0, offset=0):
    return struct.pack("<BBHHHHH", flags, kind, header, size, start, offset, 0).hex()


def show(data):
    """Hexadecimal; runs of 32 and more equal bytes as (byte*count); - for nothing."""
    pieces = re.split(rb"((?s:(.)\2{31,}))", data)
    # Every third piece is plain, the next a run, the next its byte.
    text = [p.hex() if i % 3 == 0 else "(%02x*%d)" % (p[0], len(p)) for i, p in enumerate(pieces) if i % 3 < 2]
    return "".join(text) or "-"


def case(name, verdict, frame, answer=None, sender="a", net="-"):
    frame = frame if isinstance(frame, bytes) else raw(frame)
    print(GROUP, name, sender, net, verdict, show(frame), show(raw(answer or b"")), sep="\t")


def edit(frame, at, value):
    data = bytearray(raw(frame))
    data[at : at + len(value)] = value
    return bytes(data)


UDP_ = UDP(sport=5000, dport=5001)
DATA = Raw(b"x" * 18)

group("unicast_goes_to_the_port_that_has_the_mac")
case("udp over ipv4", "deliver b", eth() / ip() / UDP_ / DATA)
case("tcp over ipv4", "deliver b", eth() / ip() / TCP(sport=1, dport=2, flags="S", options=[("MSS", 1460)]))
case("tcp over ipv6", "deliver b", eth() / ip6() / TCP(sport=1, dport=2, flags="S"))
case("udp over ipv6", "deliver b", eth() / ip6() / UDP_ / DATA)
case("padded to 60 bytes", "deliver b", raw(eth() / ip() / UDP_) + bytes(18))
case("icmp echo", "deliver b", eth() / ip() / ICMP() / DATA)
case("icmp error", "deliver b", eth() / ip() / ICMP(type=3, code=3) / ip(B4, A4) / UDP_)
case("icmpv6 echo", "deliver b", eth() / ip6() / ICMPv6EchoRequest(data=b"x"))
case("icmpv6 error", "deliver b", eth() / ip6() / ICMPv6DestUnreach() / ip6(B6, A6) / UDP_)
case("sctp", "deliver b", eth() / ip() / SCTP(sport=1, dport=2) / DATA)
case("gre", "deliver b", eth() / ip() / GRE() / ip() / UDP_)
case("a protocol nobody knows", "deliver b", eth() / ip(proto=253) / DATA)
case("record route option", "deliver b", eth() / ip(options=[IPOption_RR(length=7, routers=["0.0.0.0"])]) / UDP_ / DATA)
case("options headers", "deliver b", eth() / ip6() / IPv6ExtHdrHopByHop(options=[PadN(optdata=b"\0" * 4)]) / IPv6ExtHdrDestOpt(options=[PadN(optdata=b"\0" * 4)]) / UDP_ / DATA)
case("first fragment", "deliver b", eth() / ip(flags="MF", id=7) / UDP(sport=5000, dport=5001, len=100) / Raw(b"x" * 16))
case("later fragment", "deliver b", eth() / ip(frag=3, id=7, proto=17) / DATA)
case("first fragment, ipv6", "deliver b", eth() / ip6() / IPv6ExtHdrFragment(m=1, id=7) / UDP(sport=5000, dport=5001, len=100, chksum=1) / Raw(b"x" * 16))
case("later fragment, ipv6", "deliver b", eth() / ip6() / IPv6ExtHdrFragment(offset=3, id=7, nh=17) / DATA)
case("link-local address of the mac", "deliver b", eth() / ip6(ALL_, BLL) / UDP_ / DATA)
case("last of many ipv4 addresses", "deliver b", eth(F) / ip("10.0.1.26") / UDP_ / DATA, sender="f")
case("last of many ipv6 addresses", "deliver b", eth(F) / ip6("fd00:1::26") / UDP_ / DATA, sender="f")
case("a declared link-local address", "deliver b", eth(F) / ip6("fe80::5:1") / UDP_ / DATA, sender="f")
case("multicast ip to one mac", "deliver b", eth() / ip(dst="224.0.0.251") / UDP_ / DATA)
case("answer to an arp request", "deliver b", eth() / ARP(op=2, hwsrc=A, psrc=A4, hwdst=B, pdst=B4))
case("answer to a solicitation", "deliver b", eth() / ip6(hlim=255) / ICMPv6ND_NA(tgt=A6, S=1, R=0) / ICMPv6NDOptDstLLAddr(lladdr=A))
case("no further header", "deliver b", eth() / ip6(nh=59))

group("multicast_goes_to_everybody")
case("ipv4 broadcast", "flood", eth(dst=ALL) / ip(dst="255.255.255.255") / UDP_ / DATA)
case("subnet broadcast", "flood", eth(dst=ALL) / ip(dst="10.0.1.255") / UDP_ / DATA)
case("mdns", "flood", eth(dst="01:00:5e:00:00:fb") / ip(dst="224.0.0.251") / UDP(sport=5353, dport=5353) / DATA)
case("mdns over ipv6", "flood", eth(dst="33:33:00:00:00:fb") / ip6(ALL_, "ff02::fb") / UDP(sport=5353, dport=5353) / DATA)
case("arp announcement", "flood", eth(dst=ALL) / ARP(op=1, hwsrc=A, psrc=A4, pdst=A4))
case("arp announcement as a reply", "flood", eth(dst=ALL) / ARP(op=2, hwsrc=A, psrc=A4, hwdst=ALL, pdst=A4))
case("unsolicited advertisement", "flood", eth(dst=ALL6_MAC) / ip6(A6, ALL6, hlim=255) / ICMPv6ND_NA(tgt=A6, S=0, R=0, O=1) / ICMPv6NDOptDstLLAddr(lladdr=A))
case("ping to all nodes", "flood", eth(dst=ALL6_MAC) / ip6(ALL_, ALL6) / ICMPv6EchoRequest())

group("frames_that_end_early_are_dropped")
case("nothing", "drop truncated", b"")
case("half an ethernet header", "drop truncated", raw(eth())[:13])
case("half an ipv4 header", "drop truncated", raw(eth() / ip() / UDP_)[:33])
case("half an ipv4 option", "drop truncated", raw(eth() / ip(options=[IPOption_RR(length=7, routers=["0.0.0.0"])]))[:38])
case("half an ipv6 header", "drop truncated", raw(eth() / ip6())[:53])
case("half an arp request", "drop truncated", raw(eth(dst=ALL) / ARP(hwsrc=A, psrc=A4, pdst=B4))[:41])
case("half an extension header", "drop truncated", edit(eth() / ip6(nh=60) / Raw(b"\x11\x00\x01\x00"), 18, b"\x00\x04"))
case("jumbogram", "drop truncated", edit(eth() / ip6() / IPv6ExtHdrHopByHop(options=[Jumbo(jumboplen=70000)]) / UDP_, 18, b"\0\0"))

group("headers_beyond_the_head_are_dropped")
LONG = IPv6ExtHdrDestOpt(options=[PadN(optdata=b"\0" * 156)])
case("udp behind long options", "drop headers-too-long", eth() / ip6() / LONG / UDP_ / DATA)
case("advertisement behind long options", "drop headers-too-long", eth(dst=ALL6_MAC) / ip6(A6, ALL6, hlim=255) / LONG / ICMPv6ND_RA())
case("tcp options out of sight", "drop headers-too-long", edit(eth() / ip6() / IPv6ExtHdrDestOpt(options=[PadN(optdata=b"\0" * 100)]) / TCP(sport=1, dport=2) / Raw(b"\1" * 40), 14 + 40 + 104 + 12, b"\xf0"))

group("tags_are_dropped")
case("802.1q", "drop vlan-tagged", eth() / Dot1Q(vlan=7) / ip() / UDP_)
case("priority tag", "drop vlan-tagged", eth() / Dot1Q(vlan=0, prio=7) / ip(B4) / UDP_)
case("802.1ad", "drop vlan-tagged", eth() / Dot1AD(vlan=7) / Dot1Q(vlan=7) / ip() / UDP_)
case("old 802.1ad", "drop vlan-tagged", eth(type=0x9100) / ip())
case("spoofed arp behind a tag", "drop vlan-tagged", eth(dst=ALL) / Dot1Q(vlan=1) / ARP(op=2, hwsrc=A, psrc=B4))

group("other_ethertypes_are_dropped")
case("stp", "drop unknown-ethertype", Dot3(src=A, dst="01:80:c2:00:00:00") / LLC() / STP())
case("ipv4 in snap", "drop unknown-ethertype", Dot3(src=A, dst=B) / LLC(dsap=0xAA, ssap=0xAA, ctrl=3) / Raw(b"\0\0\0\x08\0") / ip(B4) / UDP_)
for name, number in [("lldp", 0x88CC), ("rarp", 0x8035), ("mpls", 0x8847), ("pppoe", 0x8864), ("eapol", 0x888E), ("pause", 0x8808), ("largest length", 0x05DC), ("nothing", 0), ("experimental", 0xFFFF)]:
    case(name, "drop unknown-ethertype", eth(type=number) / DATA)

group("arp_that_is_not_ethernet_ipv4_is_dropped")
case("ieee 802 hardware", "drop malformed-arp", eth(dst=ALL) / ARP(hwtype=6, hwsrc=A, psrc=B4, pdst=A4))
case("inverse arp", "drop malformed-arp", eth(dst=ALL) / ARP(op=8, hwsrc=A, psrc=A4, pdst=B4))
case("operation zero", "drop malformed-arp", eth(dst=ALL) / ARP(op=0, hwsrc=A, psrc=A4, pdst=B4))
case("addresses of other lengths", "drop malformed-arp", edit(eth(dst=ALL) / ARP(hwsrc=A, psrc=A4, pdst=B4), 18, b"\x08\x04"))

group("ipv4_headers_that_lie_are_dropped")
BAD4 = eth() / ip() / UDP_ / DATA
case("version 5", "drop malformed-ipv4", edit(BAD4, 14, b"\x55"))
case("ipv6 inside", "drop malformed-ipv4", eth(type=0x0800) / ip6() / UDP_)
case("header of 16 bytes", "drop malformed-ipv4", edit(BAD4, 14, b"\x44"))
case("longer than the frame", "drop malformed-ipv4", edit(BAD4, 16, b"\x00\x2f"))
case("shorter than its header", "drop malformed-ipv4", edit(BAD4, 16, b"\x00\x13"))
case("of no length", "drop malformed-ipv4", edit(BAD4, 16, b"\x00\x00"))
case("fragment of 7 bytes with more to come", "drop malformed-ipv4", eth() / ip(flags="MF", proto=17) / Raw(b"x" * 7))
case("empty fragment", "drop malformed-ipv4", eth() / ip(frag=8, proto=17))
case("fragment beyond 64 KiB", "drop malformed-ipv4", eth() / ip(frag=8190, proto=17) / Raw(b"x" * 100))

group("ipv6_headers_that_lie_are_dropped")
BAD6 = eth() / ip6() / UDP_ / DATA
case("version 4", "drop malformed-ipv6", edit(BAD6, 14, b"\x45"))
case("longer than the frame", "drop malformed-ipv6", edit(BAD6, 18, b"\x00\x1b"))
case("fragment of 7 bytes with more to come", "drop malformed-ipv6", eth() / ip6() / IPv6ExtHdrFragment(m=1, nh=17) / Raw(b"x" * 7))
case("empty fragment", "drop malformed-ipv6", eth() / ip6() / IPv6ExtHdrFragment(offset=8, nh=17))

group("extension_headers_made_to_confuse_are_dropped")
PAD = IPv6ExtHdrDestOpt(options=[PadN(optdata=b"\0" * 4)])
case("five of them", "drop ipv6-extension-header", eth() / ip6() / PAD / PAD / PAD / PAD / PAD / UDP_)
case("hop-by-hop not first", "drop ipv6-extension-header", eth() / ip6() / PAD / IPv6ExtHdrHopByHop(options=[PadN(optdata=b"\0" * 4)]) / UDP_)
case("advertisement hidden behind a fragment header", "drop ipv6-extension-header", eth(dst=ALL6_MAC) / ip6(A6, ALL6, hlim=255) / IPv6ExtHdrFragment(m=1) / PAD / Raw(b""))
case("two fragment headers", "drop ipv6-extension-header", eth() / ip6() / IPv6ExtHdrFragment() / IPv6ExtHdrFragment() / UDP_)

group("source_routes_are_dropped")
case("loose", "drop source-route", eth() / ip(options=[IPOption_LSRR(routers=["10.0.1.13"])]) / UDP_)
case("strict", "drop source-route", eth() / ip(options=[IPOption_SSRR(routers=["10.0.1.13"])]) / UDP_)
case("ipv6 type 0", "drop source-route", eth() / ip6() / IPv6ExtHdrRouting(type=0, segleft=1, addresses=[C6]) / UDP_)
case("spent ipv6 routing header", "deliver b", eth() / ip6() / IPv6ExtHdrRouting(type=0, segleft=0, addresses=[]) / UDP_)

group("transport_headers_that_lie_are_dropped")
case("udp shorter than its header", "drop malformed-transport", eth() / ip() / UDP(sport=1, dport=2, len=7) / DATA)
case("udp longer than its packet", "drop malformed-transport", eth() / ip() / UDP(sport=1, dport=2, len=27) / DATA)
case("half a udp header", "drop malformed-transport", raw(eth() / ip(len=27) / UDP_))
case("ports in the padding", "drop malformed-transport", raw(eth() / ip(len=20, proto=17)) + raw(UDP(sport=67, dport=68)))
case("tcp header of 16 bytes", "drop malformed-transport", eth() / ip() / TCP(dataofs=4))
case("tcp header longer than its packet", "drop malformed-transport", eth() / ip6() / TCP(dataofs=15) / Raw(b"x" * 39))
case("half a tcp header", "drop malformed-transport", eth() / ip(flags="MF", proto=6) / Raw(b"\0\1\0\2" + bytes(12)))
case("tcp header continued in a fragment", "drop malformed-transport", eth() / ip(frag=1, proto=6) / DATA)
case("tcp header replaced by a fragment, ipv6", "drop malformed-transport", eth() / ip6() / IPv6ExtHdrFragment(offset=2, nh=6) / DATA)
case("half an icmp header", "drop malformed-transport", eth() / ip(proto=1) / Raw(b"\x08\x00\x00\x00"))
case("half an icmpv6 header", "drop malformed-transport", eth() / ip6(nh=58) / Raw(b"\x86\x00\x00\x00"))
case("half an sctp header", "drop malformed-transport", eth() / ip(proto=132) / Raw(b"\0\1\0\2\0\0\0\0"))

group("other_source_macs_are_dropped")
for name, mac in [("a neighbour's", B), ("the gateway's", GW), ("nobody's", "02:00:00:00:00:99"), ("zero", "00:00:00:00:00:00"), ("broadcast", ALL), ("a group's", "01:00:5e:00:00:01")]:
    case(name, "drop spoofed-mac", eth(src=mac, dst=C) / ip() / UDP_ / DATA)
case("in arp", "drop spoofed-mac", eth(src=B, dst=ALL) / ARP(hwsrc=A, psrc=A4, pdst=B4))
case("in neighbour discovery", "drop spoofed-mac", eth(src=B, dst=ALL6_MAC) / ip6(A6, ALL6, hlim=255) / ICMPv6ND_NA(tgt=A6) / ICMPv6NDOptDstLLAddr(lladdr=A))

group("other_ipv4_sources_are_dropped")
for name, address in [("a neighbour's", "10.0.1.12"), ("the gateway's", GW4), ("nobody's", "10.0.1.99"), ("another network's", "10.0.2.11"), ("the internet's", "192.0.2.1"), ("loopback", "127.0.0.1"), ("broadcast", "255.255.255.255"), ("a group's", "224.0.0.1"), ("unspecified", "0.0.0.0"), ("the subnet", "10.0.1.0")]:
    case(name, "drop spoofed-ipv4", eth() / ip(src=address, dst=B4) / UDP_ / DATA)
case("in a fragment", "drop spoofed-ipv4", eth() / ip(src=B4, frag=3, proto=17) / DATA)
case("in a ping of the gateway", "drop spoofed-ipv4", eth(dst=GW) / ip(src=B4, dst=GW4) / ICMP())
case("from a port without ipv4", "drop spoofed-ipv4", eth(E) / ip(src=E4) / UDP_, sender="e")
case("unspecified from a port without ipv4", "drop spoofed-ipv4", eth(E) / ip(src="0.0.0.0") / UDP_, sender="e")
DISCOVER = BOOTP(chaddr=bytes.fromhex("020000000005")) / DHCP(options=[("message-type", "discover"), "end"])
case("dhcp to one address", "drop spoofed-ipv4", eth(E) / ip("0.0.0.0", B4) / UDP(sport=68, dport=67) / DISCOVER, sender="e")
case("dhcp from another port", "drop spoofed-ipv4", eth(E, ALL) / ip("0.0.0.0", "255.255.255.255") / UDP(sport=69, dport=67) / DISCOVER, sender="e")
case("dhcp in fragments", "drop spoofed-ipv4", eth(E, ALL) / ip("0.0.0.0", "255.255.255.255", flags="MF") / UDP(sport=68, dport=67, len=100) / Raw(b"x" * 16), sender="e")
case("with a neighbour's ipv6 source in ipv4-mapped form", "drop spoofed-ipv6", eth() / ip6("::ffff:10.0.1.11") / UDP_)

group("other_ipv6_sources_are_dropped")
for name, address in [("a neighbour's", B6), ("a neighbour's link-local", BLL), ("the gateway's", GW6), ("the gateway's link-local", GWLL), ("nobody's", "fd00:1::99"), ("random link-local", RANDOM_LL), ("unspecified", "::"), ("loopback", "::1"), ("a group's", "ff02::1"), ("privacy address", "fd00:1::1234:5678:9abc:def0")]:
    case(name, "drop spoofed-ipv6", eth() / ip6(src=address) / UDP_ / DATA)
case("a random link-local advertising", "drop spoofed-ipv6", eth(dst=ALL6_MAC) / ip6(RANDOM_LL, ALL6, hlim=255) / ICMPv6ND_NA(tgt=RANDOM_LL) / ICMPv6NDOptDstLLAddr(lladdr=A))
case("unspecified advertising", "drop spoofed-ipv6", eth(dst=ALL6_MAC) / ip6("::", ALL6, hlim=255) / ICMPv6ND_NA(tgt=A6) / ICMPv6NDOptDstLLAddr(lladdr=A))
case("unspecified asking for addresses", "drop spoofed-ipv6", eth(dst="33:33:00:01:00:02") / ip6("::", "ff02::1:2") / UDP(sport=546, dport=547) / DHCP6_Solicit())
case("a neighbour's global soliciting", "drop spoofed-ipv6", eth(dst="33:33:ff:00:00:13") / ip6(B6, solicited(C6)[0], hlim=255) / ICMPv6ND_NS(tgt=C6) / ICMPv6NDOptSrcLLAddr(lladdr=A))
case("later fragment from a random link-local", "drop spoofed-ipv6", eth() / ip6(RANDOM_LL) / IPv6ExtHdrFragment(offset=3, nh=58) / DATA)

group("arp_for_others_is_dropped")
for name, op, mac, address in [("request with a neighbour's address", 1, A, B4), ("request with a neighbour's mac", 1, B, A4), ("request with the gateway's address", 1, A, GW4), ("reply with a neighbour's address", 2, A, B4), ("reply with a neighbour's mac", 2, B, A4), ("reply from nobody", 2, A, "0.0.0.0"), ("probe with a neighbour's mac", 1, B, "0.0.0.0")]:
    case(name, "drop spoofed-arp", eth(dst=ALL) / ARP(op=op, hwsrc=mac, psrc=address, pdst=C4))
case("announcement of a neighbour's address", "drop spoofed-arp", eth(dst=ALL) / ARP(op=1, hwsrc=A, psrc=B4, pdst=B4))
case("announcement of the gateway's address", "drop spoofed-arp", eth(dst=ALL) / ARP(op=2, hwsrc=A, psrc=GW4, pdst=GW4))
case("to one neighbour", "drop spoofed-arp", eth(dst=B) / ARP(op=2, hwsrc=A, psrc=GW4, hwdst=B, pdst=B4))
case("from a port without ipv4", "drop spoofed-arp", eth(E, ALL) / ARP(op=1, hwsrc=E, psrc=E4, pdst=B4), sender="e")

group("neighbour_discovery_for_others_is_dropped")
def ns(target=B6, src=A6, lladdr=A, hlim=255, dst=None, **more):
    frame = eth(dst=solicited(target)[1]) / ip6(src, dst or solicited(target)[0], hlim=hlim) / ICMPv6ND_NS(tgt=target, **more)
    return frame / ICMPv6NDOptSrcLLAddr(lladdr=lladdr) if lladdr else frame
def na(target=A6, lladdr=A, src=A6, hlim=255, **more):
    frame = eth(dst=ALL6_MAC) / ip6(src, ALL6, hlim=hlim) / ICMPv6ND_NA(tgt=target, R=0, S=0, **more)
    return frame / ICMPv6NDOptDstLLAddr(lladdr=lladdr) if lladdr else frame
case("solicitation with a neighbour's mac", "drop spoofed-nd", ns(lladdr=B))
case("solicitation with the gateway's mac", "drop spoofed-nd", ns(lladdr=GW))
case("advertisement of a neighbour's address", "drop spoofed-nd", na(B6))
case("advertisement of the gateway's address", "drop spoofed-nd", na(GW6))
case("advertisement of the gateway's link-local", "drop spoofed-nd", na(GWLL))
case("advertisement with a neighbour's mac", "drop spoofed-nd", na(lladdr=B))
case("advertisement without a mac", "drop spoofed-nd", na(B6, lladdr=None))
case("advertisement behind options", "drop spoofed-nd", eth(dst=ALL6_MAC) / ip6(A6, ALL6, hlim=255) / PAD / ICMPv6ND_NA(tgt=B6) / ICMPv6NDOptDstLLAddr(lladdr=A))
case("inverse solicitation", "drop spoofed-nd", eth(dst=ALL6_MAC) / ip6(A6, ALL6, hlim=255) / ICMPv6ND_INDSol())

group("neighbour_discovery_that_hosts_must_discard_is_dropped")
case("routed", "drop malformed-nd", ns(hlim=254))
case("routed advertisement", "drop malformed-nd", na(hlim=64))
case("in one fragment", "drop malformed-nd", eth(dst=ALL6_MAC) / ip6(A6, ALL6, hlim=255) / IPv6ExtHdrFragment() / ICMPv6ND_NA(tgt=A6) / ICMPv6NDOptDstLLAddr(lladdr=A))
case("probe with a mac", "drop malformed-nd", ns(src="::"))
case("probe to everybody", "drop malformed-nd", ns(src="::", lladdr=None, dst=ALL6))
case("probe to another group", "drop malformed-nd", ns(src="::", lladdr=None, dst=solicited(C6)[0]))
case("wrong checksum", "drop malformed-nd", ns(cksum=0x1234))
case("code 1", "drop malformed-nd", ns(code=1))
case("option of no length", "drop malformed-nd", ns(lladdr=None) / Raw(bytes(8)))
case("option beyond the end", "drop malformed-nd", ns(lladdr=None) / Raw(b"\x01\x02" + bytes(6)))
case("two macs", "drop malformed-nd", na() / ICMPv6NDOptDstLLAddr(lladdr=B))
case("a mac of the other kind", "drop malformed-nd", na(lladdr=None) / ICMPv6NDOptSrcLLAddr(lladdr=B))
case("options out of sight", "drop malformed-nd", na(lladdr=None) / Raw((b"\x0e\x01" + bytes(6)) * 15) / ICMPv6NDOptDstLLAddr(lladdr=B))
case("multicast target", "drop malformed-nd", na("ff02::1"))

group("what_hides_in_what_is_dropped")
case("arp in a vlan in a vlan", "drop vlan-tagged", eth(dst=ALL) / Dot1AD(vlan=1) / Dot1Q(vlan=2) / ARP(op=2, hwsrc=A, psrc=GW4))
case("arp in snap", "drop unknown-ethertype", Dot3(src=A, dst=ALL) / LLC(dsap=0xAA, ssap=0xAA, ctrl=3) / Raw(b"\0\0\0\x08\x06") / ARP(op=2, hwsrc=A, psrc=GW4))
case("arp with ipv6's ethertype", "drop malformed-ipv6", eth(dst=ALL, type=0x86DD) / Raw(raw(ARP(op=2, hwsrc=A, psrc=GW4)) + bytes(20)))
case("ipv6 with ipv4's ethertype", "drop malformed-ipv4", eth(type=0x0800) / ip6(B6) / UDP_)
case("ipv4 with ipv6's ethertype", "drop malformed-ipv6", eth(type=0x86DD) / ip(B4) / UDP_ / DATA)
case("advertisement of a router behind four headers", "drop rogue-router", eth(dst=ALL6_MAC) / ip6(ALL_, ALL6, hlim=255) / PAD / PAD / PAD / PAD / ICMPv6ND_RA())
case("advertisement of a router behind five headers", "drop ipv6-extension-header", eth(dst=ALL6_MAC) / ip6(ALL_, ALL6, hlim=255) / PAD / PAD / PAD / PAD / PAD / ICMPv6ND_RA())
case("advertisement of a router behind a spent routing header", "drop rogue-router", eth(dst=ALL6_MAC) / ip6(ALL_, ALL6, hlim=255) / IPv6ExtHdrRouting(type=0, segleft=0, addresses=[]) / ICMPv6ND_RA())
case("advertisement of a router to one mac", "drop rogue-router", eth() / ip6(ALL_, ALL6, hlim=255) / ICMPv6ND_RA())
case("advertisement of a router that is cut off", "drop malformed-transport", raw(eth(dst=ALL6_MAC) / ip6(ALL_, ALL6, hlim=255, nh=58, plen=4) / Raw(b"\x86\0\0\0")))
case("advertisement of a router in the padding of another message", "flood", raw(eth(dst=ALL6_MAC) / ip6(ALL_, ALL6) / ICMPv6EchoRequest()) + raw(ICMPv6ND_RA()))
case("second first fragment with a server's ports", "drop rogue-dhcp-server", eth() / ip(flags="MF", id=7) / UDP(sport=67, dport=68, len=100) / Raw(b"x" * 16))
case("a fragment that is not one", "drop rogue-dhcp-server", eth() / ip(flags="DF", id=7) / UDP(sport=67, dport=68) / Raw(b"x" * 16))
case("dhcp offer with the reserved flag", "drop rogue-dhcp-server", eth(dst=ALL) / ip(dst="255.255.255.255", flags="evil") / UDP(sport=67, dport=68) / Raw(b"x"))
case("solicitation for two", "drop malformed-nd", ns(lladdr=None) / ICMPv6NDOptSrcLLAddr(lladdr=A) / ICMPv6NDOptSrcLLAddr(lladdr=B))
case("redirect as a fragment", "drop rogue-redirect", eth() / ip(flags="MF") / ICMP(type=5, gw=A4) / Raw(b"x" * 24))
case("address of a neighbour, mapped", "drop spoofed-ipv6", eth() / ip6("::ffff:" + B4) / UDP_)
case("address of a neighbour, compatible", "drop spoofed-ipv6", eth() / ip6("::" + B4) / UDP_)

group("dhcp_servers_are_dropped")
OFFER = BOOTP(op=2, yiaddr=B4) / DHCP(options=[("message-type", "offer"), ("router", A4), "end"])
case("offer to everybody", "drop rogue-dhcp-server", eth(dst=ALL) / ip(dst="255.255.255.255") / UDP(sport=67, dport=68) / OFFER)
case("offer to one", "drop rogue-dhcp-server", eth() / ip() / UDP(sport=67, dport=68) / OFFER)
case("offer from another port", "drop rogue-dhcp-server", eth() / ip() / UDP(sport=1067, dport=68) / OFFER)
case("relay", "drop rogue-dhcp-server", eth() / ip() / UDP(sport=67, dport=67) / OFFER)
case("first fragment of an offer", "drop rogue-dhcp-server", eth() / ip(flags="MF") / UDP(sport=67, dport=68, len=300) / Raw(b"x" * 16))
case("behind options", "drop rogue-dhcp-server", eth() / ip(options=[IPOption_RR(length=7, routers=["0.0.0.0"])]) / UDP(sport=67, dport=68) / OFFER)
case("dhcpv6 advertise", "drop rogue-dhcp-server", eth() / ip6(ALL_, BLL) / UDP(sport=547, dport=546) / DHCP6_Advertise())
case("dhcpv6 advertise from another port", "drop rogue-dhcp-server", eth() / ip6() / UDP(sport=999, dport=546) / DHCP6_Advertise())
case("dhcpv6 relay", "drop rogue-dhcp-server", eth() / ip6() / UDP(sport=547, dport=547) / DHCP6_RelayForward())
case("dhcpv6 behind options", "drop rogue-dhcp-server", eth() / ip6() / PAD / UDP(sport=547, dport=546) / DHCP6_Advertise())

group("routers_are_dropped")
case("advertisement", "drop rogue-router", eth(dst=ALL6_MAC) / ip6(ALL_, ALL6, hlim=255) / ICMPv6ND_RA())
case("advertisement to one", "drop rogue-router", eth() / ip6(ALL_, BLL, hlim=255) / ICMPv6ND_RA())
case("advertisement behind options", "drop rogue-router", eth(dst=ALL6_MAC) / ip6(ALL_, ALL6, hlim=255) / IPv6ExtHdrHopByHop(options=[RouterAlert()]) / PAD / ICMPv6ND_RA())
case("advertisement in one fragment", "drop rogue-router", eth(dst=ALL6_MAC) / ip6(ALL_, ALL6, hlim=255) / IPv6ExtHdrFragment() / ICMPv6ND_RA())
case("first fragment of an advertisement", "drop rogue-router", eth(dst=ALL6_MAC) / ip6(ALL_, ALL6, hlim=255) / IPv6ExtHdrFragment(m=1) / ICMPv6ND_RA())
case("router renumbering", "drop rogue-router", eth() / ip6() / ICMPv6Unknown(type=138) / DATA)
case("icmp router advertisement", "drop rogue-router", eth(dst=ALL) / ip(dst="255.255.255.255") / ICMP(type=9) / DATA)

group("redirects_are_dropped")
case("icmp", "drop rogue-redirect", eth() / ip() / ICMP(type=5, gw=A4) / ip(B4, C4) / UDP_)
case("icmpv6", "drop rogue-redirect", eth() / ip6(ALL_, BLL, hlim=255) / ICMPv6ND_Redirect(tgt=ALL_, dst=C6))

group("loopback_destinations_are_dropped")
case("127.0.0.1", "drop loopback-destination", eth() / ip(dst="127.0.0.1") / TCP(dport=80))
case("127.255.255.254 to everybody", "drop loopback-destination", eth(dst=ALL) / ip(dst="127.255.255.254") / UDP_)
case("::1", "drop loopback-destination", eth() / ip6(dst="::1") / TCP(dport=80))

group("offloads_that_do_not_fit_are_dropped")
BAD = "drop bad-offload"
DATAGRAM = eth() / ip() / UDP_ / DATA
SEGMENT = eth() / ip() / TCP(sport=1, dport=2) / Raw(b"x" * 1000)
SEGMENT6 = eth() / ip6() / TCP(sport=1, dport=2) / Raw(b"x" * 1000)
case("checksum before the transport", BAD, DATAGRAM, net=net(1, start=14, offset=10))
case("checksum on the source address", BAD, DATAGRAM, net=net(1, start=26, offset=0))
case("checksum on the source port", BAD, DATAGRAM, net=net(1, start=34, offset=0))
case("checksum on the udp length", BAD, DATAGRAM, net=net(1, start=34, offset=4))
case("tcp's checksum in udp", BAD, eth() / ip() / UDP_ / DATA, net=net(1, start=30, offset=16))
case("checksum on tcp flags", BAD, SEGMENT, net=net(1, start=34, offset=12))
case("checksum on tcp options", BAD, eth() / ip() / TCP(options=[("MSS", 1460)]) / DATA, net=net(1, start=34, offset=20))
case("checksum on a target", BAD, na(), net=net(1, start=62, offset=0))
case("checksum on an icmp type", BAD, eth() / ip() / ICMP(type=13) / DATA, net=net(1, start=34, offset=0))
case("checksum on sctp ports", BAD, eth() / ip() / SCTP(sport=1, dport=2) / DATA, net=net(1, start=34, offset=8))
case("checksum beyond the frame", BAD, DATAGRAM, net=net(1, start=59, offset=0))
case("checksum far beyond the frame", BAD, DATAGRAM, net=net(1, start=65535, offset=65535))
case("checksum in the padding", BAD, raw(eth() / ip() / UDP_) + bytes(18), net=net(1, start=44, offset=0))
case("checksum in a fragment", BAD, eth() / ip(frag=3, proto=17) / DATA, net=net(1, start=34, offset=6))
case("checksum in arp", BAD, eth(dst=ALL) / ARP(hwsrc=A, psrc=A4, pdst=B4), net=net(1, start=34, offset=6))
case("segments without a checksum", BAD, SEGMENT, net=net(0, 1, 54, 500, 34, 16))
case("segments with another checksum", BAD, SEGMENT, net=net(1, 1, 54, 500, 54, 16))
case("segments of no size", BAD, SEGMENT, net=net(1, 1, 54, 0, 34, 16))
case("segments of ipv6 in ipv4", BAD, SEGMENT, net=net(1, 4, 54, 500, 34, 16))
case("segments of ipv4 in ipv6", BAD, SEGMENT6, net=net(1, 1, 74, 500, 54, 16))
case("segments of udp in tcp", BAD, SEGMENT, net=net(1, 5, 54, 500, 34, 16))
case("segments of tcp in udp", BAD, DATAGRAM, net=net(1, 1, 42, 500, 34, 6))
case("fragments of udp", BAD, DATAGRAM, net=net(1, 3, 42, 500, 34, 6))
case("unknown type", BAD, SEGMENT, net=net(1, 2, 54, 500, 34, 16))
case("congestion marks alone", BAD, SEGMENT, net=net(1, 0x80, 54, 500, 34, 16))
case("congestion marks on udp", BAD, DATAGRAM, net=net(1, 0x85, 42, 500, 34, 6))
case("segments of a fragment", BAD, eth() / ip(flags="MF") / TCP() / Raw(b"x" * 1004), net=net(1, 1, 54, 500, 34, 16))
case("segments of arp", BAD, eth(dst=ALL) / ARP(hwsrc=A, psrc=A4, pdst=B4), net=net(1, 1, 54, 500, 34, 16))
case("segments and bytes behind the packet", BAD, raw(SEGMENT) + b"y", net=net(1, 1, 54, 500, 34, 16))
case("a short packet in a frame of 60000 bytes", BAD, raw(eth() / ip() / TCP()) + bytes(60000), net=net(1, 1, 54, 500, 34, 16))
case("200 datagrams of 5 bytes", BAD, eth() / ip() / UDP_ / Raw(b"x" * 1000), net=net(1, 5, 42, 5, 34, 6))
case("1200 segments of one byte", BAD, eth() / ip() / TCP() / Raw(b"x" * 1200), net=net(1, 1, 54, 1, 34, 16))

group("offloads_that_fit_go_on")
case("udp checksum", "deliver b", DATAGRAM, net=net(1, start=34, offset=6))
case("checksum of a packet in a tunnel", "deliver b", eth() / ip() / UDP(dport=4789) / Raw(bytes(8)) / eth() / ip() / UDP_ / DATA, net=net(1, start=84, offset=6))
case("segments of ipv4", "deliver b", SEGMENT, net=net(1, 0x81, 0, 500, 34, 16))
case("segments of ipv6", "deliver b", SEGMENT6, net=net(1, 4, 9999, 500, 54, 16))
case("datagrams", "deliver b", eth() / ip() / UDP_ / Raw(b"x" * 1000), net=net(1, 5, 42, 500, 34, 6))
case("a checksum the sender vouches for", "deliver b", DATAGRAM, net=net(2, 0, 7, 7, 7, 7))
case("a frame of 6000 bytes in segments", "deliver b", eth() / ip() / TCP() / Raw(b"x" * 6000), net=net(1, 1, 54, 1460, 34, 16))

group("arp_is_answered_from_declared_state")
def arp(target, psrc=A4, dst=ALL):
    return eth(dst=dst) / ARP(op=1, hwsrc=A, psrc=psrc, pdst=target)
def is_at(mac, address, pdst=A4):
    return eth(src=mac, dst=A) / ARP(op=2, hwsrc=mac, psrc=address, hwdst=A, pdst=pdst)
case("a neighbour", "reply", arp(B4), is_at(B, B4))
case("a neighbour on another host", "reply", arp(C4), is_at(C, C4))
case("the gateway", "reply", arp(GW4), is_at(GW, GW4))
case("asked directly", "reply", arp(B4, dst=B), is_at(B, B4))
case("padded", "reply", raw(arp(B4)) + bytes(18), is_at(B, B4))
case("one of many addresses", "reply", arp("10.0.1.26"), is_at(F, "10.0.1.26"))
case("a probe for a neighbour's address is a conflict", "reply", arp(B4, psrc="0.0.0.0"), is_at(B, B4, "0.0.0.0"))

group("neighbours_that_nobody_has_are_not_asked_for")
UNKNOWN = "drop unknown-neighbour"
case("arp", UNKNOWN, arp("10.0.1.99"))
case("arp for another network's address", UNKNOWN, arp("10.0.2.11"))
case("arp for nothing", UNKNOWN, arp("0.0.0.0"))
case("probe for nothing", UNKNOWN, arp("0.0.0.0", psrc="0.0.0.0"))
case("solicitation", UNKNOWN, ns("fd00:1::99"))
case("probe for a random link-local address", UNKNOWN, ns(RANDOM_LL, src="::", lladdr=None))

group("probes_for_the_own_address_are_not_answered")
OWN = "drop address-probe"
case("arp probe", OWN, arp(A4, psrc="0.0.0.0"))
case("ipv6 probe", OWN, ns(A6, src="::", lladdr=None))
case("ipv6 probe for the link-local address", OWN, ns(ALL_, src="::", lladdr=None))
case("solicitation", OWN, ns(A6))

group("solicitations_are_answered_from_declared_state")
def is_at6(mac, target, dst=A6, router=0):
    to = A if dst != ALL6 else ALL6_MAC
    return eth(src=mac, dst=to) / ip6(target, dst, hlim=255) / ICMPv6ND_NA(tgt=target, R=router, S=int(dst != ALL6), O=1) / ICMPv6NDOptDstLLAddr(lladdr=mac)
case("a neighbour", "reply", ns(B6), is_at6(B, B6))
case("a neighbour on another host", "reply", ns(C6), is_at6(C, C6))
case("a neighbour's link-local address", "reply", ns(BLL, src=ALL_), is_at6(B, BLL, ALL_))
case("the gateway", "reply", ns(GW6), is_at6(GW, GW6, router=1))
case("the gateway's link-local address", "reply", ns(GWLL), is_at6(GW, GWLL, router=1))
case("asked directly, without a mac", "reply", eth() / ip6(hlim=255) / ICMPv6ND_NS(tgt=B6), is_at6(B, B6))
case("asked from a random link-local address", "reply", ns(B6, src=RANDOM_LL), is_at6(B, B6, RANDOM_LL))
case("a probe for a neighbour's address is a conflict", "reply", ns(B6, src="::", lladdr=None), is_at6(B, B6, ALL6))
case("asked behind options", "reply", eth() / ip6(hlim=255) / PAD / ICMPv6ND_NS(tgt=B6) / ICMPv6NDOptSrcLLAddr(lladdr=A), is_at6(B, B6))
case("a checksum left open", "reply", ns(B6, cksum=0x1234), is_at6(B, B6), net=net(1, start=54, offset=2))

group("nobody_else_sees_requests_to_the_network")
case("dhcp discover", "drop no-dhcp-server", eth(E, ALL) / ip("0.0.0.0", "255.255.255.255") / UDP(sport=68, dport=67) / DISCOVER, sender="e")
case("dhcp renewal", "drop no-dhcp-server", eth() / ip() / UDP(sport=68, dport=67) / DISCOVER)
case("dhcpv6 solicit", "drop no-dhcp-server", eth(dst="33:33:00:01:00:02") / ip6(ALL_, "ff02::1:2") / UDP(sport=546, dport=547) / DHCP6_Solicit())
case("dhcpv6 solicit from a random link-local address", "drop no-dhcp-server", eth(dst="33:33:00:01:00:02") / ip6(RANDOM_LL, "ff02::1:2") / UDP(sport=546, dport=547) / DHCP6_Solicit())
case("router solicitation", "drop router-solicitation", eth(dst="33:33:00:00:00:02") / ip6(ALL_, "ff02::2", hlim=255) / ICMPv6ND_RS())
case("router solicitation from nobody", "drop router-solicitation", eth(dst="33:33:00:00:00:02") / ip6("::", "ff02::2", hlim=255) / ICMPv6ND_RS())
case("igmp report from nobody", "drop group-membership", eth(dst="01:00:5e:00:00:16") / ip("0.0.0.0", "224.0.0.22", proto=2) / Raw(bytes.fromhex("2200f9fd0000000104000000e00000fb")))
case("igmp query", "drop group-membership", eth(dst="01:00:5e:00:00:01") / ip(dst="224.0.0.1", proto=2) / Raw(bytes.fromhex("1164ee9b00000000")))
case("mld report from nobody", "drop group-membership", eth(dst="33:33:00:00:00:16") / ip6("::", "ff02::16", hlim=1) / IPv6ExtHdrHopByHop(options=[RouterAlert()]) / ICMPv6MLReport2())
case("mld query", "drop group-membership", eth(dst=ALL6_MAC) / ip6(ALL_, ALL6, hlim=1) / IPv6ExtHdrHopByHop(options=[RouterAlert()]) / ICMPv6MLQuery())

group("the_gateway_answers_ping")
PAYLOAD = Raw(bytes(i & 0xFF for i in range(1472)))
def pong(request, answer):
    return eth(dst=GW) / ip(dst=GW4, id=9, ttl=33) / ICMP(type=8, id=3, seq=4) / request, eth(GW, A) / ip(GW4, A4, id=9, ttl=64) / ICMP(type=0, id=3, seq=4) / answer
case("small", "reply", *pong(Raw(b"abc"), Raw(b"abc")))
case("as large as the mtu", "reply", *pong(PAYLOAD, PAYLOAD))
OPTION = [IPOption_RR(length=7, routers=["0.0.0.0"])]
case("with options", "reply", eth(dst=GW) / ip(dst=GW4, options=OPTION) / ICMP() / DATA, eth(GW, A) / ip(GW4, A4, options=OPTION) / ICMP(type=0) / DATA)
whole = raw(ICMP(type=8, id=3, seq=4) / PAYLOAD / PAYLOAD)
after = raw(ICMP(type=0, id=3, seq=4) / PAYLOAD / PAYLOAD)
case("first fragment", "reply", eth(dst=GW) / ip(dst=GW4, flags="MF", proto=1) / Raw(whole[:1480]), eth(GW, A) / ip(GW4, A4, flags="MF", proto=1) / Raw(after[:1480]))
case("later fragment", "reply", eth(dst=GW) / ip(dst=GW4, frag=185, proto=1) / Raw(whole[1480:]), eth(GW, A) / ip(GW4, A4, frag=185, proto=1) / Raw(after[1480:]))
case("ipv6", "reply", eth(dst=GW) / ip6(dst=GW6, hlim=3) / ICMPv6EchoRequest(id=1, seq=2, data=b"abc"), eth(GW, A) / ip6(GW6, A6, hlim=64) / ICMPv6EchoReply(id=1, seq=2, data=b"abc"))
case("ipv6 as large as the mtu", "reply", eth(dst=GW) / ip6(dst=GW6) / ICMPv6EchoRequest(data=raw(PAYLOAD)[:1452]), eth(GW, A) / ip6(GW6, A6) / ICMPv6EchoReply(data=raw(PAYLOAD)[:1452]))
case("ipv6 link-local", "reply", eth(dst=GW) / ip6(ALL_, GWLL) / ICMPv6EchoRequest(), eth(GW, A) / ip6(GWLL, ALL_) / ICMPv6EchoReply())
case("ipv6 later fragment", "reply", eth(dst=GW) / ip6(dst=GW6) / IPv6ExtHdrFragment(offset=3, nh=58) / DATA, eth(GW, A) / ip6(GW6, A6) / IPv6ExtHdrFragment(offset=3, nh=58) / DATA)
case("a checksum left open", "reply", eth(dst=GW) / ip(dst=GW4) / ICMP(chksum=0) / DATA, eth(GW, A) / ip(GW4, A4) / ICMP(type=0, chksum=0) / DATA, net=net(1, start=34, offset=2))

group("nothing_else_goes_through_the_gateway")
case("udp to it", "drop no-route", eth(dst=GW) / ip(dst=GW4) / UDP_ / DATA)
case("to a neighbour", "drop no-route", eth(dst=GW) / ip() / UDP_ / DATA)
case("to the internet", "drop no-route", eth(dst=GW) / ip(dst="192.0.2.1") / TCP())
case("ping of a neighbour", "drop no-route", eth(dst=GW) / ip() / ICMP())
case("ping of nobody, ipv6", "drop no-route", eth(dst=GW) / ip6(dst="2001:db8::1") / ICMPv6EchoRequest())
case("later fragment of udp", "drop no-route", eth(dst=GW) / ip(dst=GW4, frag=3, proto=17) / DATA)
case("echo reply to it", "drop no-route", eth(dst=GW) / ip(dst=GW4) / ICMP(type=0))
case("advertisement to it", "drop no-route", eth(dst=GW) / ip6(dst=GW6, hlim=255) / ICMPv6ND_NA(tgt=A6) / ICMPv6NDOptDstLLAddr(lladdr=A))
case("arp reply to it", "drop no-route", eth(dst=GW) / ARP(op=2, hwsrc=A, psrc=A4, hwdst=GW, pdst=GW4))

group("what_nobody_has_goes_nowhere")
case("unknown mac", "drop unknown-destination", eth(dst="02:00:00:00:00:99") / ip() / UDP_)
case("zero mac", "drop unknown-destination", eth(dst="00:00:00:00:00:00") / ip() / UDP_)
case("a mac of another network", "drop unknown-destination", eth(dst="02:00:00:00:00:07") / ip() / UDP_)
case("to itself", "drop to-itself", eth(dst=A) / ip(dst=A4) / UDP_)
case("a port of another host", "drop remote-destination", eth(dst=C) / ip(dst=C4) / UDP_)
case("one mac in two networks", "deliver s", Ether(src=B, dst="02:00:00:00:00:07") / ip(B4, "10.0.1.17") / UDP_, sender="r")
case("the other network's port has it not", "drop unknown-destination", Ether(src=B, dst=A) / ip(B4, A4) / UDP_, sender="r")

group("frames_for_everybody_carry_packets_for_everybody")
HIDDEN = "drop unicast-in-multicast"
case("broadcast mac, unicast ipv4", HIDDEN, eth(dst=ALL) / ip() / UDP_)
case("broadcast mac, unicast ipv6", HIDDEN, eth(dst=ALL) / ip6() / UDP_)
case("multicast mac, unicast ipv4", HIDDEN, eth(dst="01:00:5e:00:00:01") / ip() / TCP())
case("multicast mac, unicast ipv6", HIDDEN, eth(dst=ALL6_MAC) / ip6() / ICMPv6EchoRequest())
case("broadcast of another subnet", HIDDEN, eth(dst=ALL) / ip(dst="10.0.2.255") / UDP_)
case("ping of the gateway to everybody", HIDDEN, eth(dst=ALL) / ip(dst=GW4) / ICMP())

group("packets_above_the_mtu_are_dropped")
case("the mtu", "deliver b", eth() / ip() / UDP_ / Raw(b"x" * 1472))
case("one byte more", "drop over-mtu", eth() / ip() / UDP_ / Raw(b"x" * 1473))
case("one byte more to everybody", "drop over-mtu", eth(dst=ALL) / ip(dst="255.255.255.255") / UDP_ / Raw(b"x" * 1473))
case("segments of the mtu", "deliver b", eth() / ip() / TCP() / Raw(b"x" * 3000), net=net(1, 1, 54, 1460, 34, 16))
case("segments of one byte more", "drop over-mtu", eth() / ip() / TCP() / Raw(b"x" * 3000), net=net(1, 1, 54, 1461, 34, 16))
