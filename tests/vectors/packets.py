"""The packet table: what the parser makes of each frame. It runs through Python (tests/unit) and eBPF (tests/bpf).

``PACKETS`` holds frames and the members of their flow keys that are not 0, as ``struct flow_key`` names them; ``.key`` is it all.
Where scapy can build a packet, it does, so that the table does not depend on our own idea of the wire format.
"""

from __future__ import annotations

import struct
from ipaddress import ip_address
from typing import NamedTuple

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, ICMPv6ND_NA, ICMPv6ND_NS, ICMPv6NDOptDstLLAddr, ICMPv6NDOptSrcLLAddr, IPv6
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from scapy.layers.sctp import SCTP
from scapy.packet import Packet, Raw
from vectors import frames
from vectors.frames import IPV6_A, MAC_A, MAC_B, chain, ethernet, extension, ipv4, ipv6, lladdr_option, nd

from appliance.model.fields import KEY_BYTES, LAYOUT, SHARED, Fragment, Layer

IN_PORT = 7


class PacketVector(NamedTuple):
    name: str
    frame: bytes
    in_port: int
    members: dict[str, int]
    """Members of struct flow_key; the others are 0."""

    @property
    def key(self) -> int:
        key = 0
        for name, value in self.members.items():
            offset, size = (LAYOUT | SHARED)[name]
            key |= value << (KEY_BYTES - offset - size) * 8
        return key


PACKETS: list[PacketVector] = []


def _add(name: str, frame: bytes | Packet, **members: int) -> None:
    frame = bytes(frame)
    if len(frame) >= 14:
        members |= {"eth_dst": int.from_bytes(frame[:6], "big"), "eth_src": int.from_bytes(frame[6:12], "big")}
    PACKETS.append(PacketVector(name, frame, IN_PORT, {"in_port": IN_PORT} | members))


def ip(text: str) -> int:
    return int(ip_address(text))


def mac(text: str) -> int:
    return int(text.replace(":", ""), 16)


ETH = Ether(src=MAC_A.hex(":"), dst=MAC_B.hex(":"))
IP4 = IP(src="192.0.2.1", dst="198.51.100.2", ttl=64)
IP6 = IPv6(src="2001:db8::1", dst="2001:db8::ff", hlim=64)
SRC4, DST4, SRC6, DST6 = ip("192.0.2.1"), ip("198.51.100.2"), ip("2001:db8::1"), ip("2001:db8::ff")
IPV4 = {"eth_type": 0x0800, "ip_src": SRC4, "ip_dst": DST4 << 96, "ip_ttl": 64}
IPV6 = {"eth_type": 0x86DD, "ip_src": SRC6, "ip_dst": DST6, "ip_ttl": 64}
PORTS = {"l4_src": 1000, "l4_dst": 2000}
L4_TCP = TCP(sport=1000, dport=2000, flags="S")
L4_UDP = UDP(sport=1000, dport=2000)

# ── Ethernet and tags ──────────────────────────────────────────────────────────────────────────────────────────────────
_add("empty", b"")
_add("runt of 13 bytes", bytes(ETH)[:13])
_add("bare Ethernet header", ethernet(0x88CC, b""), eth_type=0x88CC)
_add("802.3 length with LLC and SNAP", ethernet(46, bytes.fromhex("aaaa030000000800") + bytes(38)), eth_type=46)
_add(
    "multicast, unknown type",
    Ether(src="02:00:00:00:00:03", dst="01:80:c2:00:00:0e", type=0x88B5) / Raw(b"x" * 46),
    eth_type=0x88B5,
)

_TAGGED_UDP = IPV4 | PORTS | {"ip_proto": 17, "layers": Layer.IPV4 | Layer.UDP}
_add("802.1Q", ETH / Dot1Q(vlan=5, prio=3) / IP4 / L4_UDP / b"x", vlan_tci=0x7005, **_TAGGED_UDP)
_add("802.1Q, VID 0", ETH / Dot1Q(vlan=0, prio=0) / IP4 / L4_UDP, vlan_tci=0x1000, **_TAGGED_UDP)
_add("802.1Q, drop eligible", ethernet(0x88B5, b"", ((0x8100, 0xF00A),)), vlan_tci=0xF00A, eth_type=0x88B5)
_add("802.1Q, PCP 7, VID 4095", ethernet(0x88B5, b"", ((0x8100, 0xEFFF),)), vlan_tci=0xFFFF, eth_type=0x88B5)
_add("802.1ad alone", ETH / Dot1AD(vlan=9) / IP4 / L4_UDP, vlan_tci=0x1009, **_TAGGED_UDP)
_add(
    "802.1ad with 802.1Q",
    ETH / Dot1AD(vlan=100, prio=1) / Dot1Q(vlan=200, prio=2) / IP4 / L4_UDP,
    vlan_tci=0x3064,
    inner_vlan_tci=0x50C8,
    **_TAGGED_UDP,
)
_add(
    "802.1Q with 802.1ad",
    ETH / Dot1Q(vlan=1) / Dot1AD(vlan=2) / IP4 / L4_UDP,
    vlan_tci=0x1001,
    inner_vlan_tci=0x1002,
    **_TAGGED_UDP,
)
_add(
    "three tags",
    ETH / Dot1Q(vlan=1) / Dot1Q(vlan=2) / Dot1Q(vlan=3) / IP4 / L4_UDP,
    vlan_tci=0x1001,
    inner_vlan_tci=0x1002,
    eth_type=0x8100,
)
_add("three 802.1ad tags", ethernet(0x0800, b"", ((0x88A8, 1),) * 3), vlan_tci=0x1001, inner_vlan_tci=0x1001, eth_type=0x88A8)
_add("tag without its type", ethernet(0x8100, b"\0\5\x08"), eth_type=0x8100)
_add("802.1ad type and nothing more", ethernet(0x88A8, b""), eth_type=0x88A8)
_add("second tag without its type", ethernet(0x8100, b"\0\6\x08", ((0x8100, 5),)), vlan_tci=0x1005, eth_type=0x8100)
_add("length behind a tag", ethernet(40, bytes(40), ((0x8100, 5),)), vlan_tci=0x1005, eth_type=40)

# ── MPLS, PBB, ARP ─────────────────────────────────────────────────────────────────────────────────────────────────────
_LABEL = 0xABCDE << 12 | 5 << 9 | 1 << 8 | 63
_add("MPLS", ethernet(0x8847, struct.pack(">I", _LABEL) + bytes(IP4)), eth_type=0x8847, mpls=_LABEL, layers=Layer.MPLS)
_add("MPLS multicast", ethernet(0x8848, struct.pack(">I", 0xFFFFFFFF)), eth_type=0x8848, mpls=0xFFFFFFFF, layers=Layer.MPLS)
_add(
    "MPLS in a tag", ethernet(0x8847, bytes(3) + b"\7", ((0x8100, 5),)), vlan_tci=0x1005, eth_type=0x8847, mpls=7, layers=Layer.MPLS
)
_add("MPLS of 3 bytes", ethernet(0x8847, b"\xff" * 3), eth_type=0x8847)
_add("PBB", ethernet(0x88E7, b"\xff\x12\x34\x56" + bytes(14)), eth_type=0x88E7, pbb=0x123456, layers=Layer.PBB)
_add("PBB of 15 bytes", ethernet(0x88E7, b"\xff" * 15), eth_type=0x88E7)
_add("PBB of 16 bytes", ethernet(0x88E7, b"\xff" * 16), eth_type=0x88E7, pbb=0xFFFFFF, layers=Layer.PBB)
_ARP = {"eth_type": 0x0806, "ip_src": SRC4, "ip_dst": DST4 << 96, "nd_sll": mac("02:00:00:00:00:0a"), "layers": Layer.ARP}
_REQUEST = ARP(op=1, hwsrc="02:00:00:00:00:0a", psrc="192.0.2.1", hwdst="00:00:00:00:00:00", pdst="198.51.100.2")
_REPLY = ARP(op=2, hwsrc="02:00:00:00:00:0a", psrc="192.0.2.1", hwdst="02:00:00:00:00:0b", pdst="198.51.100.2")
_add("ARP request", ETH / _REQUEST, l4_src=1, **_ARP)
_add("ARP reply, padded", ETH / _REPLY / Raw(bytes(18)), l4_src=2, nd_tll=mac("02:00:00:00:00:0b"), **_ARP)
_add("ARP in two tags", ETH / Dot1Q(vlan=1) / Dot1Q(vlan=2) / _REQUEST, l4_src=1, vlan_tci=0x1001, inner_vlan_tci=0x1002, **_ARP)
_add("ARP of 27 bytes", bytes(ETH / _REQUEST)[:-1], eth_type=0x0806)
for _name, _at, _byte in (
    ("hardware type 6", 1, 6),
    ("protocol type 0x86dd", 2, 0x86),
    ("address length 8", 4, 8),
    ("protocol length 16", 5, 16),
):
    _body = bytearray(frames.arp())
    _body[_at] = _byte
    _add(f"ARP, {_name}", ethernet(0x0806, bytes(_body)), eth_type=0x0806)

# ── IPv4 ───────────────────────────────────────────────────────────────────────────────────────────────────────────────
_TCP4 = IPV4 | PORTS | {"ip_proto": 6, "layers": Layer.IPV4 | Layer.TCP}
_UDP4 = IPV4 | PORTS | {"ip_proto": 17, "layers": Layer.IPV4 | Layer.UDP}
_add("IPv4 TCP SYN", ETH / IP4 / L4_TCP, tcp_flags=0x002, **_TCP4)
_add("IPv4 TCP, all 12 bits", ethernet(0x0800, ipv4(6, frames.tcp(flags=0xFFF))), tcp_flags=0xFFF, **_TCP4)
_add("IPv4 TCP, NS CWR ECE URG ACK PSH", ETH / IP4 / TCP(sport=1000, dport=2000, flags="NCEUAP"), tcp_flags=0x1F8, **_TCP4)
_add("IPv4 UDP", ETH / IP4 / L4_UDP / b"hello", **_UDP4)
_add(
    "IPv4 UDP, tos 0xb9, ttl 1, DF",
    ETH / IP(src="192.0.2.1", dst="198.51.100.2", tos=0xB9, ttl=1, flags="DF") / L4_UDP,
    **_UDP4 | {"ip_tos": 0xB9, "ip_ttl": 1},
)
_add("IPv4 SCTP", ETH / IP4 / SCTP(sport=1000, dport=2000), **IPV4 | PORTS, ip_proto=132, layers=Layer.IPV4 | Layer.SCTP)
_ICMP4 = IPV4 | {"ip_proto": 1, "layers": Layer.IPV4 | Layer.ICMP}
_add("IPv4 ICMP echo", ETH / IP4 / ICMP(type=8, code=0), l4_src=8, **_ICMP4)
_add("IPv4 ICMP unreachable, port", ETH / IP4 / ICMP(type=3, code=3) / Raw(bytes(28)), l4_src=3, l4_dst=3, **_ICMP4)
_add("IPv4 ICMP type 135 is no ND", ethernet(0x0800, ipv4(1, nd(135, IPV6_A))), l4_src=135, **_ICMP4)
_add("IPv4 GRE", ETH / IP(src="192.0.2.1", dst="198.51.100.2", proto=47) / Raw(bytes(20)), **IPV4, ip_proto=47, layers=Layer.IPV4)
_add("IPv4 with ICMPv6", ethernet(0x0800, ipv4(58, nd(135, IPV6_A))), **IPV4, ip_proto=58, layers=Layer.IPV4)
_add("IPv4 with 4 bytes of options", ethernet(0x0800, ipv4(6, frames.tcp(), options=b"\x94\x04\0\0")), tcp_flags=2, **_TCP4)
_add("IPv4 with 40 bytes of options", ethernet(0x0800, ipv4(17, frames.udp(), options=b"\x01" * 40)), **_UDP4)
_add("IPv4 total length 0", ethernet(0x0800, ipv4(17, frames.udp())[:2] + bytes(2) + ipv4(17, frames.udp())[4:]), **_UDP4)
_FIRST = {"ip_frag": Fragment.FIRST}
_LATER4 = IPV4 | {"ip_proto": 17, "ip_frag": Fragment.LATER, "layers": Layer.IPV4}
_add("IPv4 first fragment", ETH / IP(src="192.0.2.1", dst="198.51.100.2", flags="MF") / L4_UDP, **_UDP4, **_FIRST)
_add("IPv4 middle fragment", ethernet(0x0800, ipv4(17, bytes(64), fragment=0x2001)), **_LATER4)
_add("IPv4 last fragment", ethernet(0x0800, ipv4(17, bytes(64), fragment=0x1FFF)), **_LATER4)
_add("IPv4 reserved flag and DF", ethernet(0x0800, ipv4(17, frames.udp(), fragment=0xC000)), **_UDP4)
_add("IPv4 version 5", ethernet(0x0800, b"\x55" + ipv4(17, frames.udp())[1:]), eth_type=0x0800)
_add("IPv4 IHL 4", ethernet(0x0800, b"\x44" + ipv4(17, frames.udp())[1:]), eth_type=0x0800)
_add("IPv4 of 19 bytes", ethernet(0x0800, ipv4(17, b"")[:19]), eth_type=0x0800)
_add("IPv4 of 20 bytes", ethernet(0x0800, ipv4(17, b"")), **IPV4, ip_proto=17, layers=Layer.IPV4)
_add("IPv4 with options cut off", ethernet(0x0800, ipv4(17, b"", options=b"\x01" * 8)[:-1]), eth_type=0x0800)
_add("IPv6 header under 0x0800", ethernet(0x0800, ipv6(17, frames.udp())), eth_type=0x0800)
for _name, _proto, _header in (
    ("TCP", 6, frames.tcp()),
    ("UDP", 17, frames.udp()),
    ("SCTP", 132, frames.sctp()),
    ("ICMP", 1, frames.icmp(8, 0, payload=b"")),
):
    _add(f"IPv4 {_name}, one byte short", ethernet(0x0800, ipv4(_proto, _header[:-1])), **IPV4, ip_proto=_proto, layers=Layer.IPV4)
_add("IPv4 ICMP of 4 bytes", ethernet(0x0800, ipv4(1, frames.icmp(11, 1, payload=b""))), l4_src=11, l4_dst=1, **_ICMP4)

# ── IPv6 ───────────────────────────────────────────────────────────────────────────────────────────────────────────────
_TCP6 = IPV6 | PORTS | {"ip_proto": 6, "tcp_flags": 2, "layers": Layer.IPV6 | Layer.TCP}
_UDP6 = IPV6 | PORTS | {"ip_proto": 17, "layers": Layer.IPV6 | Layer.UDP}
_add("IPv6 TCP", ETH / IP6 / L4_TCP, **_TCP6)
_add("IPv6 UDP in a tag", ETH / Dot1Q(vlan=5) / IP6 / L4_UDP / b"hello", vlan_tci=0x1005, **_UDP6)
_add(
    "IPv6 traffic class and flow label",
    ETH / IPv6(src="2001:db8::1", dst="2001:db8::ff", tc=0xB9, fl=0xABCDE, hlim=255) / L4_UDP,
    **_UDP6 | {"ip_tos": 0xB9, "ipv6_flabel": 0xABCDE, "ip_ttl": 255},
)
_add("IPv6 SCTP", ETH / IP6 / SCTP(sport=1000, dport=2000), **IPV6 | PORTS, ip_proto=132, layers=Layer.IPV6 | Layer.SCTP)
_ICMP6 = IPV6 | {"ip_proto": 58, "layers": Layer.IPV6 | Layer.ICMP}
_add("ICMPv6 echo", ETH / IP6 / ICMPv6EchoRequest(), l4_src=128, **_ICMP6)
_add("IPv6 with ICMP", ethernet(0x86DD, ipv6(1, frames.icmp(8, 0))), **IPV6, ip_proto=1, layers=Layer.IPV6)
_add("IPv6 version 4", ethernet(0x86DD, b"\x45" + ipv6(17, frames.udp())[1:]), eth_type=0x86DD)
_add("IPv6 of 39 bytes", ethernet(0x86DD, ipv6(59, b"")[:39]), eth_type=0x86DD)
_add("IPv6 of 40 bytes", ethernet(0x86DD, ipv6(17, b"")), **IPV6, ip_proto=17, layers=Layer.IPV6)
_add("IPv6 payload length 0", ethernet(0x86DD, ipv6(17, b"") + frames.udp()), **_UDP6)
for _name, _proto, _header in (
    ("TCP", 6, frames.tcp()),
    ("UDP", 17, frames.udp()),
    ("SCTP", 132, frames.sctp()),
    ("ICMPv6", 58, frames.icmp(8, 0, payload=b"")),
):
    _add(f"IPv6 {_name}, one byte short", ethernet(0x86DD, ipv6(_proto, _header[:-1])), **IPV6, ip_proto=_proto, layers=Layer.IPV6)

HOP, ROUTER, FRAG, ESP, AUTH, NONEXT, DEST = 0, 43, 44, 50, 51, 59, 60
# OFPIEH_*, as the specification numbers them
X_NONEXT, X_ESP, X_AUTH, X_DEST, X_FRAG, X_ROUTER, X_HOP, X_UNREP, X_UNSEQ = (1 << bit for bit in range(9))


def _chain(
    name: str, numbers: tuple[int, ...], exthdr: int, *, units: int = 0, fragment: int = 0, l4: bytes = b"", **members: int
) -> None:
    """A chain of extension headers in front of UDP, all of which is parsed unless ``members`` say otherwise."""
    first, headers = chain(numbers, 17, units=units, fragment=fragment)
    _add(name, ethernet(0x86DD, ipv6(first, headers + (l4 or frames.udp()))), ipv6_exthdr=exthdr, **_UDP6 | members)


_NO_L4 = {"l4_src": 0, "l4_dst": 0, "layers": Layer.IPV6}
_chain("HOP", (HOP,), X_HOP)
_chain("HOP of 24 bytes", (HOP,), X_HOP, units=2)
_chain("AUTH of 12 bytes", (AUTH,), X_AUTH, units=1)
_chain("AUTH of 8 bytes", (AUTH,), X_AUTH)
_chain("all in the order of RFC 8200", (HOP, DEST, ROUTER, FRAG, AUTH, DEST), X_HOP | X_DEST | X_ROUTER | X_FRAG | X_AUTH)
_chain("DEST late", (HOP, FRAG, AUTH, DEST), X_HOP | X_DEST | X_FRAG | X_AUTH)
_chain("DEST, then HOP", (DEST, HOP), X_DEST | X_HOP | X_UNSEQ)
_chain("FRAG, then ROUTER", (FRAG, ROUTER), X_FRAG | X_ROUTER | X_UNSEQ)
_chain("AUTH, then FRAG", (AUTH, FRAG), X_AUTH | X_FRAG | X_UNSEQ)
_chain("late DEST, then AUTH", (ROUTER, DEST, AUTH), X_ROUTER | X_DEST | X_AUTH | X_UNSEQ)
_chain("early DEST, then ROUTER", (DEST, ROUTER), X_DEST | X_ROUTER)
_chain("HOP twice", (HOP, HOP), X_HOP | X_UNREP)
_chain("DEST twice without ROUTER", (DEST, DEST), X_DEST | X_UNREP)
_chain("DEST twice around ROUTER", (DEST, ROUTER, DEST), X_DEST | X_ROUTER)
_chain("DEST twice before ROUTER", (DEST, DEST, ROUTER), X_DEST | X_ROUTER | X_UNREP)
_chain("DEST twice after ROUTER", (ROUTER, DEST, DEST), X_DEST | X_ROUTER)
_chain("DEST three times", (ROUTER, DEST, DEST, DEST), X_DEST | X_ROUTER | X_UNREP)
_chain("ROUTER twice", (ROUTER, ROUTER), X_ROUTER | X_UNREP)
_chain("atomic fragment", (FRAG,), X_FRAG)
_chain("first fragment", (FRAG,), X_FRAG, fragment=1, **_FIRST)
_chain("reserved bits of FRAG", (FRAG,), X_FRAG, fragment=6)
_chain("later fragment", (HOP, FRAG), X_HOP | X_FRAG, fragment=8, ip_frag=Fragment.LATER, **_NO_L4)
_chain("last fragment", (FRAG,), X_FRAG, fragment=0xFFF8, ip_frag=Fragment.LATER, **_NO_L4)
_chain("later fragment, then DEST", (FRAG, DEST), X_FRAG, fragment=9, ip_frag=Fragment.LATER, ip_proto=DEST, **_NO_L4)
_chain("ESP", (HOP, ESP), X_HOP | X_ESP, ip_proto=ESP, **_NO_L4)
_chain("late DEST, then ESP", (AUTH, DEST, ESP), X_AUTH | X_DEST | X_ESP | X_UNSEQ, ip_proto=ESP, **_NO_L4)
_chain("NONEXT", (NONEXT,), X_NONEXT, ip_proto=NONEXT, **_NO_L4)
_chain("eight headers", (DEST,) * 8, X_DEST | X_UNREP)
_chain("nine headers", (HOP,) * 9, X_HOP | X_UNREP, ip_proto=HOP, **_NO_L4)
_chain("ESP as the ninth", (HOP,) * 8 + (ESP,), X_HOP | X_UNREP, ip_proto=ESP, **_NO_L4)
_chain("NONEXT as the eighth", (HOP,) * 7 + (NONEXT,), X_HOP | X_UNREP | X_NONEXT, ip_proto=NONEXT, **_NO_L4)
_add("ESP and nothing more", ethernet(0x86DD, ipv6(ESP, b"")), **IPV6, ip_proto=ESP, layers=Layer.IPV6, ipv6_exthdr=X_ESP)
_add(
    "atomic fragment after a first one",
    ethernet(0x86DD, ipv6(FRAG, extension(FRAG, FRAG, fragment=1) + extension(FRAG, 17) + frames.udp())),
    ipv6_exthdr=X_FRAG | X_UNREP,
    **_UDP6,
    **_FIRST,
)
_add("HOP of 7 bytes", ethernet(0x86DD, ipv6(HOP, extension(HOP, 17)[:7])), **IPV6, layers=Layer.IPV6)
_add(
    "ROUTER cut off",
    ethernet(0x86DD, ipv6(HOP, extension(HOP, ROUTER) + extension(ROUTER, 17, 1)[:15])),
    **IPV6,
    ip_proto=ROUTER,
    layers=Layer.IPV6,
    ipv6_exthdr=X_HOP,
)
# The end of a header of IPv6 and what is behind it is even but no multiple of 4: 510 is the last within 512 bytes.
_chain("UDP to 510", (HOP,), X_HOP, units=55)
_chain("UDP to 518", (HOP,), X_HOP, units=56, **_NO_L4)
_chain("HOP to 518", (HOP,), 0, units=57, ip_proto=HOP, **_NO_L4)
_TWO_TAGS = ((0x88A8, 1), (0x8100, 2))
_IN_TWO_TAGS = {"vlan_tci": 0x1001, "inner_vlan_tci": 0x1002}
_TO_490 = extension(HOP, AUTH, 52) + extension(AUTH, 6, 1)
_TO_494 = extension(HOP, AUTH, 52) + extension(AUTH, 6, 2)
_add("TCP to 510", ethernet(0x86DD, ipv6(HOP, _TO_490 + frames.tcp())), ipv6_exthdr=X_HOP | X_AUTH, **_TCP6)
_add(
    "TCP to 514",
    ethernet(0x86DD, ipv6(HOP, _TO_494 + frames.tcp())),
    ipv6_exthdr=X_HOP | X_AUTH,
    **IPV6,
    ip_proto=6,
    layers=Layer.IPV6,
)
_add(
    "TCP to 510 and two tags",
    ethernet(0x86DD, ipv6(HOP, _TO_490 + frames.tcp()), _TWO_TAGS),
    ipv6_exthdr=X_HOP | X_AUTH,
    **_TCP6,
    **_IN_TWO_TAGS,
)
_add(
    "TCP to 514 and two tags",
    ethernet(0x86DD, ipv6(HOP, _TO_494 + frames.tcp()), _TWO_TAGS),
    ipv6_exthdr=X_HOP | X_AUTH,
    **IPV6,
    **_IN_TWO_TAGS,
    ip_proto=6,
    layers=Layer.IPV6,
)

# ── neighbour discovery ────────────────────────────────────────────────────────────────────────────────────────────────
TARGET = ip("fe80::1:2")
_TARGET = TARGET.to_bytes(16, "big")
LLADDR = bytes.fromhex("0200000000aa")
_NS = IPV6 | {"ip_proto": 58, "l4_src": 135, "nd_target": TARGET, "layers": Layer.IPV6 | Layer.ICMP | Layer.ND}
_NA = _NS | {"l4_src": 136}
_SLL = {"nd_sll": mac("02:00:00:00:00:aa"), "layers": Layer.IPV6 | Layer.ICMP | Layer.ND | Layer.ND_SLL}
_TLL = {"nd_tll": mac("02:00:00:00:00:aa"), "layers": Layer.IPV6 | Layer.ICMP | Layer.ND | Layer.ND_TLL}
_add(
    "NS with source address",
    ETH / IP6 / ICMPv6ND_NS(tgt="fe80::1:2") / ICMPv6NDOptSrcLLAddr(lladdr="02:00:00:00:00:aa"),
    **_NS | _SLL,
)
_add(
    "NA with target address",
    ETH / IP6 / ICMPv6ND_NA(tgt="fe80::1:2") / ICMPv6NDOptDstLLAddr(lladdr="02:00:00:00:00:aa"),
    **_NA | _TLL,
)
_add("NS without option", ETH / IP6 / ICMPv6ND_NS(tgt="fe80::1:2"), **_NS)


def _nd(name: str, body: bytes, **members: int) -> None:
    _add(name, ethernet(0x86DD, ipv6(58, body)), **members)


_nd("NS with target address", nd(135, _TARGET, lladdr_option(2, LLADDR)), **_NS)
_nd("NA with source address", nd(136, _TARGET, lladdr_option(1, LLADDR)), **_NA)
_nd("NS with code 1", nd(135, _TARGET, lladdr_option(1, LLADDR), code=1), **_ICMP6, l4_src=135, l4_dst=1)
_nd("NS of 23 bytes", nd(135, _TARGET)[:23], **_ICMP6, l4_src=135)
_nd("router solicitation", nd(133, _TARGET, lladdr_option(1, LLADDR)), **_ICMP6, l4_src=133)
_OTHER = lladdr_option(14, bytes(6))
_nd("NS, second option", nd(135, _TARGET, lladdr_option(14, bytes(6), 3), lladdr_option(1, LLADDR)), **_NS | _SLL)
_nd("NS, fourth option", nd(135, _TARGET, _OTHER, _OTHER, _OTHER, lladdr_option(1, LLADDR)), **_NS | _SLL)
_nd("NS, fifth option", nd(135, _TARGET, *(_OTHER,) * 4, lladdr_option(1, LLADDR)), **_NS)
_nd("NS, the first of two", nd(135, _TARGET, lladdr_option(1, LLADDR), lladdr_option(1, b"\xff" * 6)), **_NS | _SLL)
_nd("NS, a long one first", nd(135, _TARGET, lladdr_option(1, b"\xff" * 6, 2), lladdr_option(1, LLADDR)), **_NS | _SLL)
_nd("NS, option of length 0", nd(135, _TARGET, b"\x0e\0" + bytes(6), lladdr_option(1, LLADDR)), **_NS)
_nd("NS, option cut off", nd(135, _TARGET, lladdr_option(1, LLADDR)[:7]), **_NS)
_nd("NS, option too long", nd(135, _TARGET, b"\x0e\x03" + bytes(6), lladdr_option(1, LLADDR)), **_NS)
_nd("NS, option to 510", nd(135, _TARGET, lladdr_option(14, bytes(6), 53), lladdr_option(1, LLADDR)), **_NS | _SLL)
_nd("NS, option to 518", nd(135, _TARGET, lladdr_option(14, bytes(6), 54), lladdr_option(1, LLADDR)), **_NS)
