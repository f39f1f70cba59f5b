#!/usr/bin/python3
"""Prints geneve.tsv: GENEVE as others send it, taken from the wire.

    sudo /usr/bin/python3 geneve.py KERNEL INITRD > geneve.tsv

Open vSwitch's user-space datapath and a QEMU guest with Debian's kernel (the image of the end-to-end tests, found in
target/e2e-cache/guest-*/) encapsulate a frame and send it over a veth to a namespace, where tcpdump takes it. Scapy
makes what neither of them sends. Needs root, openvswitch-switch, qemu-system-x86, tcpdump, ethtool and python3-scapy.

Columns: case; who sent it; what it says (vni, O bit, C bit, options as class/type/body); the underlay packet from its IP
header on. In the inner frame 02:00:00:00:00:0a 10.0.1.11 speaks to 02:00:00:00:00:0b 10.0.1.12: a
UDP datagram of "palisade", from the guest a TCP SYN.
"""
import base64, os, re, shutil, socket, subprocess, sys, tempfile, time
from scapy.all import IP, UDP, Ether, IPv6, Raw, raw, rdpcap
from scapy.contrib.geneve import GENEVE

KERNEL, INITRD = sys.argv[1:3]
WORK = tempfile.mkdtemp(prefix="geneve-golden-")
PEER, ENV = f"gold-{os.getpid()}", dict(os.environ, OVS_RUNDIR=WORK, OVS_LOGDIR=WORK, OVS_DBDIR=WORK)
HERE = f"{PEER}-p"
INNER = Ether(src="02:00:00:00:00:0a", dst="02:00:00:00:00:0b") / IP(src="10.0.1.11", dst="10.0.1.12")
running = []


def run(command):
    done = subprocess.run(command, shell=True, env=ENV, capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise SystemExit(f"{command}: {done.stdout}{done.stderr}")
    return done.stdout


def start(command, **more):
    running.append(subprocess.Popen(command, shell=True, env=ENV, start_new_session=True, **more))
    return running[-1]


def until(what, ready):
    end = time.monotonic() + 90
    while not ready():
        if time.monotonic() > end:
            raise SystemExit(f"not in time: {what}")
        time.sleep(0.05)


def inner(port):
    return INNER / UDP(sport=5000, dport=port) / Raw(b"palisade")


def packet(frame):
    """The underlay packet, without padding."""
    ip = frame.payload
    return raw(ip)[: ip.len if ip.version == 4 else 40 + ip.plen]


def line(case, sender, says, packet):
    print(case, sender, says, packet.hex(), sep="\t")


class Capture:
    def __init__(self):
        self.file = f"{WORK}/{len(running)}.pcap"
        said = open(f"{self.file}.err", "w")
        self.process = start(f"exec ip netns exec {HERE} tcpdump -i u0 -U -w {self.file} udp dst port 6081", stderr=said)
        until("tcpdump", lambda: "listening" in open(f"{self.file}.err").read())

    def frames(self, ports):
        """One packet for each UDP port of the inner frame: the newest."""
        found = {}
        for frame in rdpcap(self.file) if os.path.getsize(self.file) else []:
            for port in ports:
                # The inner destination address and, behind the source port, the destination port.
                if re.search(rb"\x0a\x00\x01\x0c.." + re.escape(port.to_bytes(2, "big")), raw(frame), re.DOTALL):
                    found[port] = packet(frame)
        return found

    def wait(self, ports, send):
        def ready():
            send()
            return len(self.frames(ports)) == len(ports)
        until(f"packets {ports}", ready)
        return self.frames(ports)


def open_vswitch():
    cases = {
        1000: ("plain", "vni=0x1234", "output:10"),
        1001: ("over ipv6", "vni=0x1234", "output:11"),
        1002: ("our options", "vni=0x1234 C ff00/81/00010203 ff00/83/0000002a",
               "set_field:0x00010203->tun_metadata0,set_field:0x2a->tun_metadata1,output:10"),
        1003: ("an identity alone", "vni=0x1234 C ff00/81/fffefdfc", "set_field:0xfffefdfc->tun_metadata0,output:10"),
        1004: ("unknown critical option", "vni=0x1234 C ff00/fe/deadbeef", "set_field:0xdeadbeef->tun_metadata2,output:10"),
        1005: ("unknown option", "vni=0x1234 0102/05/0011223344556677",
               "set_field:0x0011223344556677->tun_metadata3,output:10"),
    }
    run(f"ip netns exec {PEER} ethtool -K u0 tx off")
    run(f"ovsdb-tool create {WORK}/conf.db /usr/share/openvswitch/vswitch.ovsschema")
    start(f"exec ovsdb-server {WORK}/conf.db --remote=punix:{WORK}/db.sock --unixctl={WORK}/db.ctl -vconsole:off")
    until("ovsdb-server", lambda: os.path.exists(f"{WORK}/db.sock"))
    vsctl = f"ovs-vsctl --db=unix:{WORK}/db.sock --timeout=20"
    run(f"{vsctl} --no-wait init")
    start(f"exec ip netns exec {PEER} ovs-vswitchd unix:{WORK}/db.sock --unixctl={WORK}/v.ctl --disable-system "
          f"-vconsole:off --log-file={WORK}/v.log")
    run(f"{vsctl} add-br phy -- set bridge phy datapath_type=netdev -- add-port phy u0")
    run(f"ip -n {PEER} addr flush dev u0; ip -n {PEER} addr add 192.0.2.1/24 dev phy;"
        f"ip -n {PEER} addr add 2001:db8::1/64 dev phy nodad; ip -n {PEER} link set phy up")
    run(f"ip -n {PEER} link add w0 type veth peer name e0; ip -n {PEER} link set w0 up; ip -n {PEER} link set e0 up")
    tunnel = "type=geneve options:key=flow options:remote_ip"
    run(f"{vsctl} add-br int -- set bridge int datapath_type=netdev -- "
        f"add-port int w0 -- set interface w0 ofport_request=1 -- "
        f"add-port int g4 -- set interface g4 ofport_request=10 {tunnel}=192.0.2.2 -- "
        f"add-port int g6 -- set interface g6 ofport_request=11 {tunnel}=2001\\:db8\\:\\:2")
    ofctl = "ovs-ofctl -O OpenFlow15"
    options = [("0xff00", "0x81", 4), ("0xff00", "0x83", 4), ("0xff00", "0xfe", 4), ("0x0102", "0x05", 8)]
    fields = ",".join(f"{{class={c},type={t},len={n}}}->tun_metadata{i}" for i, (c, t, n) in enumerate(options))
    run(f"{ofctl} add-tlv-map int '{fields}'")
    for port, (_, _, actions) in cases.items():
        run(f"{ofctl} add-flow int 'priority=10,in_port=1,udp,tp_dst={port},actions=set_field:0x1234->tun_id,{actions}'")
    capture = Capture()
    frames = b"\n".join(base64.b64encode(raw(inner(port))) for port in cases)
    code = ("import socket,sys,base64; s=socket.socket(socket.AF_PACKET,socket.SOCK_RAW); s.bind(('e0',0)); "
            "[s.send(base64.b64decode(l)) for l in sys.stdin]")
    seen = capture.wait(cases, lambda: subprocess.run(
        ["ip", "netns", "exec", PEER, sys.executable, "-c", code], input=frames, check=True))
    for port, (case, says, _) in cases.items():
        line(case, "Open vSwitch " + run("ovs-vsctl --version").split()[3], says, seen[port])
    end(running[1:])  # the daemon's packets must not mix with the guest's
    run(f"ip -n {PEER} link del w0")


class Console:
    """The guest's command channel: number, seconds, script in base64; see tests/src/init.sh."""

    def __init__(self, path):
        until("QEMU", lambda: os.path.exists(path))
        self.socket, self.seen, self.number = socket.socket(socket.AF_UNIX), b"", 0
        self.socket.connect(path)
        self.read(b"@@ready")

    def read(self, mark):
        self.socket.settimeout(90)
        while mark not in self.seen:
            self.seen += self.socket.recv(4096)
        text, self.seen = self.seen.split(mark, 1)
        return text

    def run(self, script):
        self.number += 1
        self.socket.sendall(f"{self.number} 20 {base64.b64encode(script.encode()).decode()}\n".encode())
        text = self.read(f"@@end:{self.number}:".encode()).decode()
        if self.read(b"\n").strip() != b"0":
            raise SystemExit(f"{script}: {text}")
        return text.replace("\r", "").strip()


def linux():
    run(f"ip -n {PEER} link add br0 type bridge; ip -n {PEER} tuntap add dev t0 mode tap")
    for device in ("br0", "t0", "u0"):
        run(f"ip -n {PEER} link set {device} up" + ("" if device == "br0" else " master br0"))
    start(f"exec ip netns exec {PEER} qemu-system-x86_64 -accel tcg -cpu qemu64 -nodefaults -display none -m 256 "
          f"-serial null -chardev socket,id=con,path={WORK}/con,server=on,wait=off -serial chardev:con "
          f"-serial null -kernel {KERNEL} -initrd {INITRD} -append 'quiet panic=-1 tsc=unstable' "
          f"-netdev tap,id=n0,ifname=t0,script=no,downscript=no "
          f"-device virtio-net-pci,netdev=n0,mac=02:00:00:00:99:02,disable-legacy=on,romfile=,csum=off,gso=off")
    console = Console(f"{WORK}/con")
    console.run("ip link set eth0 up; ip addr add 192.0.2.1/24 dev eth0; ip -6 addr add 2001:db8::1/64 dev eth0")
    sender = "Linux " + console.run("uname -r")

    def device(words):
        """In the place of the one before: a port has one device that takes all it is told by routes, or others."""
        return (f"ip link del g0 2>/dev/null; /usr/bin/ip link add g0 type geneve {words} && "
                "ip link set g0 address 02:00:00:00:00:0a up && ip addr add 10.0.1.11/24 dev g0 && "
                "/usr/bin/ip neigh add 10.0.1.12 lladdr 02:00:00:00:00:0b dev g0")

    def option(option):
        route = f"/usr/bin/ip route add 10.0.1.12/32 encap ip id 4660 dst 192.0.2.2 ttl 64 geneve_opts {option} dev g0"
        return f"{device('external')} && {route}"

    cases = {
        2000: ("plain", "vni=0x1234", device("id 4660 remote 192.0.2.2")),
        2001: ("over ipv6", "vni=0x1234", device("id 4660 remote 2001:db8::2")),
        # It does not set the header's bit for critical options.
        2002: ("our options", "vni=0x1234 ff00/81/00010203 ff00/83/0000002a",
               option("65280:129:00010203,65280:131:0000002a")),
        2003: ("unknown critical option", "vni=0x1234 ff00/fe/deadbeef", option("65280:254:deadbeef")),
        2004: ("unknown option", "vni=0x1234 0102/05/0011223344556677", option("258:5:0011223344556677")),
    }
    capture = Capture()
    for port, (case, says, change) in cases.items():
        console.run(change)
        send = f"nc -w 1 10.0.1.12 {port} < /dev/null || true"
        seen = capture.wait([port], lambda: console.run(send))
        line(case, sender, says, seen[port])


def scapy():
    outer = IP(src="192.0.2.1", dst="192.0.2.2", flags="DF") / UDP(sport=50000, dport=6081)

    def made(case, says, **header):
        line(case, "scapy", says, raw(outer / GENEVE(vni=0x1234, proto=0x6558, **header) / inner(3000)))

    made("control packet", "vni=0x1234 O", oam=1)
    made("version 1", "version=1", version=1)


def end(processes):
    for process in reversed(processes):
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


try:
    run(f"ip netns add {PEER}; ip netns add {HERE}; ip -n {PEER} link set lo up")
    run(f"ip link add u0 netns {PEER} type veth peer name u0 netns {HERE}")
    for name, last in ((PEER, 1), (HERE, 2)):
        run(f"ip -n {name} link set u0 up; ip -n {name} addr add 192.0.2.{last}/24 dev u0;"
            f"ip -n {name} addr add 2001:db8::{last}/64 dev u0 nodad")
    open_vswitch()
    run(f"ip -n {PEER} addr flush dev u0")
    linux()
    scapy()
finally:
    end(running)
    for name in (PEER, HERE):
        subprocess.run(["ip", "netns", "del", name], check=False)
    shutil.rmtree(WORK, ignore_errors=True)
