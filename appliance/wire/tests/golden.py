#!/usr/bin/python3
"""Prints golden.hex: frames as a sender with offloads hands them over, and the segments they must become.

    /usr/bin/python3 golden.py > golden.hex

scapy builds every segment by itself, checksums included; nothing here cuts anything.
"""
from scapy.all import Ether, Dot1Q, IP, IPv6, IPv6ExtHdrDestOpt, PadN, TCP, UDP, in4_chksum, in6_chksum, raw

ETH = dict(dst="02:00:00:00:00:02", src="02:00:00:00:00:01")
V4 = dict(src="10.0.1.11", dst="10.0.1.12")
V6 = dict(src="fd00:1::11", dst="fd00:1::12")
DATA = bytes((7 * i + 3) & 0xFF for i in range(250))
OPTIONS = [("NOP", None), ("NOP", None), ("Timestamp", (123456, 654321))]


def partial(frame, protocol, at):
    """The frame with the pseudo header's sum in its checksum field, as NEEDS_CSUM means it."""
    transport = frame[protocol]
    length = len(raw(transport))
    number = 6 if protocol is TCP else 17
    # in[46]_chksum over nothing but the pseudo header: the length is that of the real data.
    import struct, socket

    if IP in frame:
        pseudo = socket.inet_aton(V4["src"]) + socket.inet_aton(V4["dst"]) + struct.pack("!BBH", 0, number, length)
    else:
        pseudo = (
            socket.inet_pton(socket.AF_INET6, V6["src"])
            + socket.inet_pton(socket.AF_INET6, V6["dst"])
            + struct.pack("!I3xB", length, number)
        )
    total = sum(struct.unpack("!%dH" % (len(pseudo) // 2), pseudo))
    while total >> 16:
        total = (total >> 16) + (total & 0xFFFF)
    data = bytearray(raw(frame))
    data[at : at + 2] = struct.pack("!H", total)
    return bytes(data)


def show(name, kind, size, start, offset, whole, segments):
    print(name, kind, size, start, offset, whole.hex(), *[raw(s).hex() for s in segments])


def tcp(l3, seq, flags, data):
    return Ether(**ETH) / l3 / TCP(sport=40000, dport=443, seq=seq, ack=99, flags=flags, window=501, options=OPTIONS) / data


# TSO4: FIN and PSH on the last, CWR on the first, identification and sequence number wrap around.
SEQ = 0xFFFFFFF0
whole = tcp(IP(id=0xFFFF, flags="DF", **V4), SEQ, "FPAC", DATA)
parts = [
    tcp(IP(id=0xFFFF, flags="DF", **V4), SEQ, "AC", DATA[:100]),
    tcp(IP(id=0x0000, flags="DF", **V4), (SEQ + 100) & 0xFFFFFFFF, "A", DATA[100:200]),
    tcp(IP(id=0x0001, flags="DF", **V4), (SEQ + 200) & 0xFFFFFFFF, "FPA", DATA[200:]),
]
show("tso4", 0x81, 100, 34, 16, partial(whole, TCP, 34 + 16), parts)

# TSO6 behind a VLAN tag and a destination options header.
def six(seq, flags, data):
    l3 = IPv6(**V6) / IPv6ExtHdrDestOpt(options=[PadN(optdata=b"\0\0\0\0")])
    return Ether(**ETH) / Dot1Q(vlan=5) / l3 / TCP(sport=40000, dport=443, seq=seq, ack=99, flags=flags, window=501) / data

whole = six(1, "PA", DATA)
parts = [six(1, "A", DATA[:125]), six(126, "PA", DATA[125:])]
show("tso6", 4, 125, 66, 16, partial(whole, TCP, 66 + 16), parts)

# USO: every segment is a datagram with its own length.
def datagram(l3, data):
    return Ether(**ETH) / l3 / UDP(sport=5000, dport=5001) / data

whole = datagram(IP(id=5, **V4), DATA)
parts = [
    datagram(IP(id=5, **V4), DATA[:120]),
    datagram(IP(id=6, **V4), DATA[120:240]),
    datagram(IP(id=7, **V4), DATA[240:]),
]
show("uso4", 5, 120, 34, 6, partial(whole, UDP, 34 + 6), parts)

whole = datagram(IPv6(**V6), DATA[:241])
parts = [datagram(IPv6(**V6), DATA[:120]), datagram(IPv6(**V6), DATA[120:240]), datagram(IPv6(**V6), DATA[240:241])]
show("uso6", 5, 120, 54, 6, partial(whole, UDP, 54 + 6), parts)
