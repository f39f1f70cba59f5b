#!/usr/bin/python3
"""Records TCP connections between two real stacks, as somebody between them sees them.

    sudo /usr/bin/python3 record.py [NAME..]

Two network namespaces have a TUN device each; this script carries packets between the devices, loses, delays, swaps and
repeats them as a scene asks for, and writes NAME.pcap (raw IP, 128 bytes of each packet) of what passes it. Times in the
file are real. What each scene must come to stands in ../captures.rs.
"""
import ctypes
import fcntl
import os
import select
import socket
import struct
import subprocess
import sys
import threading
import time

TUNSETIFF, TUNSETOFFLOAD = 0x400454CA, 0x400454D0
IFF_TUN, IFF_NO_PI, IFF_VNET_HDR = 1, 0x1000, 0x4000
TCP_REPAIR, MSG_FASTOPEN = 19, 0x20000000
CLONE_NEWNET = 0x40000000
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
PASS, LOSE, LOSE_BEFORE, HOLD, TWICE = "pass", "lose", "lose before", "hold", "twice"


libc = ctypes.CDLL(None, use_errno=True)


def check(result):
    if result:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


class Packet:
    def __init__(self, net, data):
        self.net, self.data = net, data
        ip = 40 if data[0] >> 4 == 6 else (data[0] & 15) * 4
        self.tcp = data[6 if ip == 40 else 9] == 6
        tcp = data[ip:]
        if self.tcp:
            self.flags, self.len = tcp[13] & 0x3F, len(tcp) - (tcp[12] >> 4) * 4


class Host:
    """A namespace with a TUN device."""

    def __init__(self, number, offloads):
        check(libc.unshare(CLONE_NEWNET))
        self.ns = os.open("/proc/self/ns/net", os.O_RDONLY)
        self.tun = os.open("/dev/net/tun", os.O_RDWR)
        fcntl.ioctl(self.tun, TUNSETIFF, struct.pack("16sH", b"tun", IFF_TUN | IFF_NO_PI | IFF_VNET_HDR))
        # Checksums and segments of TCP over IPv4 and IPv6 may be left open.
        fcntl.ioctl(self.tun, TUNSETOFFLOAD, 7 if offloads else 0)
        self.v4, self.v6 = f"10.0.0.{number}", f"fd00::{number}"
        self.run(f"ip address add {self.v4}/24 dev tun; ip address add {self.v6}/64 dev tun nodad;"
                 "ip link set lo up; ip link set tun up mtu 1500")

    def run(self, command):
        self.enter()
        subprocess.run(command, shell=True, check=True)

    def enter(self):
        check(libc.setns(self.ns, CLONE_NEWNET))

    def socket(self, v6=False, port=0, **options):
        self.enter()
        s = socket.socket(socket.AF_INET6 if v6 else socket.AF_INET)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for name, value in options.items():
            level = socket.SOL_SOCKET if name.startswith("SO_") else socket.IPPROTO_TCP
            s.setsockopt(level, getattr(socket, name), value)
        s.bind((self.v6 if v6 else self.v4, port))
        s.settimeout(20)
        return s

    def listen(self, **more):
        s = self.socket(port=443, **more)
        s.listen(4)
        return s


class Path:
    """What lies between: carries packets and records them."""

    def __init__(self, name, a, b):
        self.ends, self.rule, self.held, self.stop = (a.tun, b.tun), lambda side, packet: PASS, [], False
        self.file = open(f"{name}.pcap", "wb")
        self.file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 128, 101))
        self.lock = threading.Lock()
        self.thread = threading.Thread(target=self.carry)
        self.thread.start()

    def carry(self):
        while not self.stop:
            for fd in select.select(self.ends, [], [], 0.05)[0]:
                bytes_ = os.read(fd, 80000)
                packet = Packet(bytes_[:10], bytes_[10:])
                side = self.ends.index(fd)
                if packet.tcp:
                    with self.lock:
                        self.act(self.rule(side, packet), side, packet)

    def act(self, verdict, side, packet):
        if verdict == HOLD:
            self.held.append((side, packet))
        elif verdict != LOSE_BEFORE:
            for _ in range(2 if verdict == TWICE else 1):
                self.record(packet)
                if verdict != LOSE:
                    os.write(self.ends[1 - side], packet.net + packet.data)

    def record(self, packet):
        now, head = time.time(), packet.data[:128]
        self.file.write(struct.pack("<IIII", int(now), int(now % 1 * 1e6), len(head), len(packet.data)) + head)

    def release(self, order=lambda held: held):
        """Lets go what is held, and from now on everything."""
        with self.lock:
            held, self.held, self.rule = order(self.held), [], lambda side, packet: PASS
            for side, packet in held:
                self.act(PASS, side, packet)

    def wait_held(self, count):
        until = time.time() + 10
        while len(self.held) < count:
            assert time.time() < until, "nothing to hold"
            time.sleep(0.01)

    def close(self):
        time.sleep(0.3)
        self.stop = True
        self.thread.join()
        self.file.close()


def counted(*verdicts, where=lambda side, packet: True, then=PASS):
    """A rule: the n-th packet that `where` is true of gets the n-th verdict, others and those after it pass."""
    left = list(verdicts)
    return lambda side, packet: (left.pop(0) if left else then) if where(side, packet) else PASS


def data_of(side_wanted):
    return lambda side, packet: side == side_wanted and packet.len > 0


def flags_of(wanted, side_wanted=None):
    return lambda side, packet: packet.flags & ~PSH == wanted and side_wanted in (None, side)


def connect(a, b, v6=False, port=0, server=None, accept=True, listen={}, **options):
    server = server or b.listen(v6=v6, **listen)
    client = a.socket(v6=v6, port=port, **options)
    client.connect(server.getsockname()[:2])
    return (client, server.accept()[0], server) if accept else (client, None, server)


def receive(s, count):
    while count > 0:
        got = s.recv(count)
        assert got, "the end came early"
        count -= len(got)


def exchange(one, other, there=1000, back=3000):
    one.sendall(b"q" * there)
    receive(other, there)
    other.sendall(b"a" * back)
    receive(one, back)


def finish(first, second):
    first.shutdown(socket.SHUT_WR)
    assert second.recv(1) == b""
    second.close()
    assert first.recv(1) == b""
    first.close()


def handshake(a, b, path):
    client, peer, _ = connect(a, b)
    exchange(client, peer)
    finish(client, peer)


def server_closes(a, b, path):
    client, peer, _ = connect(a, b, v6=True)
    exchange(client, peer)
    finish(peer, client)


def simultaneous_open(a, b, path):
    path.rule = lambda side, packet: HOLD if packet.flags == SYN else PASS
    one, other = a.socket(port=5001), b.socket(port=5002)
    for s, peer in ((one, other), (other, one)):
        s.setblocking(False)
        s.connect_ex(peer.getsockname())
    path.wait_held(2)
    path.release()
    for s in (one, other):
        assert select.select([], [s], [], 5)[1]
        s.settimeout(20)
    exchange(one, other)
    finish(one, other)


def late_crossing(a, b, path):
    """The second SYN is sent before the first arrives, which then is lost: one end saw a crossing, the other did not."""
    path.rule = counted(LOSE, where=flags_of(SYN, 0))
    one, other = a.socket(port=5001), b.socket(port=5002)
    for s, peer in ((one, other), (other, one)):
        s.setblocking(False)
        s.connect_ex(peer.getsockname())
        time.sleep(0.05)
    for s in (one, other):
        assert select.select([], [s], [], 5)[1]
        s.settimeout(20)
    exchange(other, one)
    finish(other, one)


def simultaneous_close(a, b, path):
    client, peer, _ = connect(a, b)
    exchange(client, peer)
    time.sleep(0.1)
    path.rule = lambda side, packet: HOLD if packet.flags & FIN else PASS
    client.shutdown(socket.SHUT_WR)
    peer.shutdown(socket.SHUT_WR)
    path.wait_held(2)
    path.release()
    assert client.recv(1) == b"" and peer.recv(1) == b""
    client.close(), peer.close()


def lost_handshake(a, b, path):
    """The first SYN, the first answer and the first ACK are lost, each behind the recorder."""
    lose = [counted(LOSE, where=flags_of(SYN)), counted(LOSE, where=flags_of(SYN | ACK)),
            counted(LOSE, where=lambda side, packet: side == 0 and packet.flags == ACK)]
    path.rule = lambda side, packet: next((LOSE for rule in lose if rule(side, packet) == LOSE), PASS)
    client, peer, _ = connect(a, b)
    exchange(client, peer)
    finish(client, peer)


def retransmission(a, b, path):
    """Data and acknowledgements are lost on both sides of the recorder, and repeated."""
    client, peer, _ = connect(a, b)
    data = counted(PASS, LOSE, PASS, LOSE_BEFORE, TWICE, PASS, LOSE, LOSE, PASS, PASS, TWICE, LOSE_BEFORE, where=data_of(0))
    acks = counted(PASS, LOSE, LOSE_BEFORE, PASS, LOSE, TWICE, where=lambda side, packet: side == 1)
    path.rule = lambda side, packet: data(side, packet) if side == 0 else acks(side, packet)
    exchange(client, peer, 40000, 20000)
    path.release()
    finish(client, peer)


def lost_fins(a, b, path):
    client, peer, _ = connect(a, b)
    exchange(client, peer)
    path.rule = counted(LOSE, LOSE_BEFORE, PASS, LOSE, where=lambda side, packet: packet.flags & FIN)
    finish(client, peer)
    time.sleep(1)


def reordered(a, b, path):
    client, peer, _ = connect(a, b, v6=True)
    path.rule = lambda side, packet: HOLD if side == 0 and packet.len else PASS
    client.sendall(b"x" * 12000)
    path.wait_held(8)
    path.release(lambda held: held[::-1])
    receive(peer, 12000)
    exchange(peer, client)
    finish(client, peer)


def half_close(a, b, path):
    client, peer, _ = connect(a, b)
    client.sendall(b"question")
    client.shutdown(socket.SHUT_WR)
    receive(peer, 8)
    assert peer.recv(1) == b""
    for _ in range(4):
        time.sleep(0.1)
        peer.sendall(b"x" * 5000)
        receive(client, 5000)
    peer.close()
    assert client.recv(1) == b""
    client.close()


def reset(a, b, path):
    client, peer, _ = connect(a, b)
    exchange(client, peer)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    time.sleep(0.1)


def reset_of_unread(a, b, path):
    """The server closes with data unread; what was under way meets a RST each."""
    client, peer, _ = connect(a, b)
    client.sendall(b"x" * 3000)
    time.sleep(0.1)
    path.rule = lambda side, packet: HOLD if packet.flags & RST else PASS
    peer.close()
    path.wait_held(1)
    for _ in range(3):
        client.sendall(b"y" * 1000)
    path.release()
    time.sleep(0.3)
    client.close()


def refused(a, b, path):
    try:
        a.socket().connect((b.v4, 80))
        raise SystemExit("somebody listens")
    except ConnectionRefusedError:
        pass


def keepalive(a, b, path):
    alive = dict(SO_KEEPALIVE=1, TCP_KEEPIDLE=1, TCP_KEEPINTVL=1)
    client, peer, _ = connect(a, b, **alive)
    exchange(client, peer)
    time.sleep(3.5)
    exchange(client, peer)
    finish(client, peer)


def bulk(a, b, path):
    """Windows far above 64 KiB, frames far above the MTU."""
    client, peer, _ = connect(a, b, listen=dict(SO_RCVBUF=4000000))
    sent = threading.Thread(target=client.sendall, args=(b"x" * 3000000,))
    sent.start()
    receive(peer, 3000000)
    sent.join()
    finish(client, peer)


def no_scaling(a, b, path):
    b.run("sysctl -qw net.ipv4.tcp_window_scaling=0")
    client, peer, _ = connect(a, b)
    exchange(client, peer, 80000, 70000)
    finish(client, peer)


def zero_window(a, b, path):
    """The receiver does not read; the sender probes; then all goes on."""
    client, peer, _ = connect(a, b, listen=dict(SO_RCVBUF=2304))
    client.setblocking(False)
    sent = 0
    until = time.time() + 3
    while time.time() < until:
        try:
            sent += client.send(b"x" * 4000)
        except BlockingIOError:
            time.sleep(0.05)
    client.setblocking(True)
    receive(peer, sent)
    exchange(client, peer, 10, 10)
    finish(client, peer)


def reuse_of_time_wait(a, b, path):
    """The server waits; the client uses its port again."""
    client, peer, server = connect(a, b, port=5001)
    exchange(client, peer)
    finish(peer, client)
    client, peer, _ = connect(a, b, port=5001, server=server)
    exchange(client, peer)
    finish(client, peer)


def forget(s):
    """Closes a socket so that nobody hears of it."""
    s.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
    s.close()


def client_forgets(a, b, path):
    """RFC 9293, figure 9: a half-open connection is found and reset, then a new one opened."""
    client, peer, server = connect(a, b, port=5001)
    exchange(client, peer)
    forget(client)
    client, peer, _ = connect(a, b, port=5001, server=server)
    exchange(client, peer)
    finish(client, peer)


def both_forget(a, b, path):
    """Nobody knows of the old connection any more, but who stands between."""
    client, peer, server = connect(a, b, port=5001)
    exchange(client, peer)
    time.sleep(0.2)
    forget(client), forget(peer)
    client, peer, _ = connect(a, b, port=5001, server=server)
    exchange(client, peer, 10000, 20000)
    finish(client, peer)


def reset_meets_syn(a, b, path):
    """As before, and an ACK of the old connection is still under way: RST and the answer to the SYN come together."""
    client, peer, server = connect(a, b, port=5001)
    peer.sendall(b"x" * 1000)
    receive(client, 1000)
    time.sleep(0.2)
    path.rule = lambda side, packet: HOLD if side == 0 else PASS
    peer.sendall(b"x" * 1000)
    receive(client, 1000)
    path.wait_held(1)
    forget(client), forget(peer)
    again = threading.Thread(target=lambda: path.wait_held(2) or path.release())
    again.start()
    client, peer, _ = connect(a, b, port=5001, server=server)
    again.join()
    exchange(client, peer)
    finish(client, peer)


def server_forgets(a, b, path):
    client, peer, _ = connect(a, b)
    exchange(client, peer)
    forget(peer)
    client.sendall(b"still there?")
    time.sleep(0.2)


def fast_open(a, b, path):
    """The question comes with the SYN, and the answer before the ACK."""
    a.run("sysctl -qw net.ipv4.tcp_fastopen=0x5")
    b.run("sysctl -qw net.ipv4.tcp_fastopen=0x602")
    server = b.listen()
    client = a.socket()
    path.rule = lambda side, packet: HOLD if side == 0 and packet.flags == ACK else PASS
    client.sendto(b"question", MSG_FASTOPEN, server.getsockname())
    peer, _ = server.accept()
    receive(peer, 8)
    peer.sendall(b"answer")
    receive(client, 6)
    path.release()
    finish(client, peer)


SCENES = [handshake, server_closes, simultaneous_open, late_crossing, simultaneous_close, lost_handshake, retransmission,
          lost_fins, reordered, half_close, reset, reset_of_unread, refused, keepalive, bulk, no_scaling, zero_window,
          reuse_of_time_wait, client_forgets, both_forget, reset_meets_syn, server_forgets, fast_open]

for scene in SCENES:
    if not sys.argv[1:] or scene.__name__ in sys.argv[1:]:
        a, b = Host(1, scene is bulk), Host(2, scene is bulk)
        path = Path(scene.__name__, a, b)
        try:
            scene(a, b, path)
        except Exception as error:
            print(scene.__name__, repr(error))
        finally:
            path.close()
            os.close(a.tun), os.close(b.tun)
