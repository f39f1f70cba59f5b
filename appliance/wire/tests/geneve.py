#!/usr/bin/python3
"""Prints geneve.tsv: GENEVE headers built by scapy. A name, a tab, the bytes.

/usr/bin/python3 geneve.py > geneve.tsv
"""

from scapy.all import raw
from scapy.contrib.geneve import GENEVE, GeneveOptions


def option(classid, kind, data=b""):
    return GeneveOptions(classid=classid, type=kind, data=data)


def header(name, **fields):
    print(name, raw(GENEVE(proto=fields.pop("proto", 0x6558), **fields)).hex(), sep="\t")


identity = option(0xFF00, 0x81, (7).to_bytes(4, "big"))
tags = option(0xFF00, 0x02, (1).to_bytes(4, "big") + (2).to_bytes(4, "big"))
port = option(0xFF00, 0x83, (42).to_bytes(4, "big"))
longest = [option(0x0103, kind, bytes(4 * 30)) for kind in (1, 2)] + [option(0x0103, 3)]

header("bare", vni=100)
header("control", vni=100, oam=1)
header("all options", vni=0x123456, critical=1, options=[identity, tags, port])
header("identity", vni=0xFFFFFF, critical=1, options=[identity])
header("port", vni=0, critical=1, options=[port])
header("tags", vni=1, options=[tags])
header("no C bit", vni=0x123456, options=[identity, port])
header("C bit and nothing critical", vni=1, critical=1, options=[tags])
header("unknown option", vni=1, critical=1, options=[option(0x0103, 0x01), identity])
header("unknown option of our class", vni=1, options=[option(0xFF00, 0x01, b"abcd"), option(0xFF00, 0x7F)])
# scapy keeps only some bits of the length that it computes itself.
header("longest", vni=1, optionlen=63, options=longest)
header("unknown critical option", vni=1, critical=1, options=[identity, option(0x0103, 0x80, b"abcd")])
header("unknown critical option of our class", vni=1, critical=1, options=[option(0xFF00, 0x82, bytes(8))])
header("identity twice", vni=1, critical=1, options=[identity, identity])
header("identity of two words", vni=1, critical=1, options=[option(0xFF00, 0x81, bytes(8))])
header("port of no word", vni=1, critical=1, options=[option(0xFF00, 0x83)])
header("tags of one word", vni=1, options=[option(0xFF00, 0x02, bytes(4))])
header("IPv4 inside", vni=1, proto=0x0800)
header("version 1", vni=1, version=1)
