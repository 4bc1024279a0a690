"""The action table: what datapath actions make of each frame. It runs through Python (tests/unit) and eBPF (tests/bpf).

Frames that are expected are not worked out from those that go in: scapy builds them with the new values, checksums included.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple

from scapy.contrib.mpls import MPLS
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_Router_Alert
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptMTU,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from scapy.layers.sctp import SCTP, SCTPChunkData
from scapy.packet import Packet, Padding, Raw
from vectors import frames
from vectors.packets import IN_PORT, ip, mac

from appliance.model.actions import SetField
from appliance.model.fields import BY_NAME
from appliance.model.megaflow import Clone, Controller, DatapathAction, DecTtl, Flood, Forward, PacketInReason, PopTag, PushTag
from appliance.model.ports import LOCAL_PORT
from appliance.model.tunnel import NO_TUNNEL, Tunnel


class ExecutionVector(NamedTuple):
    name: str
    frame: bytes
    actions: tuple[DatapathAction, ...]
    emissions: tuple[tuple[Forward | Flood | Controller, bytes], ...]
    """What leaves, in order."""
    in_port: int = IN_PORT
    tunnels: tuple[Tunnel, ...] = ()
    """The tunnel fields of each of them; none: NO_TUNNEL."""

    @property
    def leaving(self) -> list[tuple[Forward | Flood | Controller, str, Tunnel]]:
        """``emissions`` and ``tunnels``, for comparison."""
        tunnels = self.tunnels or (NO_TUNNEL,) * len(self.emissions)
        return [(action, frame.hex(), tunnel) for (action, frame), tunnel in zip(self.emissions, tunnels, strict=True)]


EXECUTIONS: list[ExecutionVector] = []
OUT = Forward(2)
INVALID_TTL = Controller(PacketInReason.INVALID_TTL, 0xFF, 0xFFFFFFFFFFFFFFFF, 0xFFFF)
New = dict[str, object]


def _add(name: str, before: bytes | Packet, actions: list[DatapathAction], after: bytes | Packet) -> None:
    """One output after ``actions``."""
    EXECUTIONS.append(ExecutionVector(name, bytes(before), (*actions, OUT), ((OUT, bytes(after)),)))


def _put(field: str, value: int) -> SetField:
    return SetField(BY_NAME[field], value)


ETHER: New = {"src": "02:00:00:00:00:01", "dst": "02:00:00:00:00:02"}
A4: New = {"src": "192.0.2.1", "dst": "198.51.100.2", "id": 7}
A6: New = {"src": "2001:db8::1", "dst": "2001:db8::ff"}
TEXT = b"an odd number of bytes."
NEW4, NEW6, NEW_MAC = "203.0.113.77", "2001:db8:ffff:1234:5678:9abc:def0:77", "0a:0b:0c:0d:0e:0f"

L4: dict[str, Callable[..., Packet]] = {
    "TCP": lambda **new: TCP(**{"sport": 1000, "dport": 2000, "flags": "PA", "seq": 99} | new) / TEXT,
    "UDP": lambda **new: UDP(**{"sport": 1000, "dport": 2000} | new) / TEXT,
    "SCTP": lambda **new: SCTP(**{"sport": 1000, "dport": 2000, "tag": 77} | new) / SCTPChunkData(data=b"data"),
    "ICMP": lambda **new: ICMP(**{"type": 8, "code": 0, "id": 5, "seq": 6} | new) / TEXT,
    "ICMPv6": lambda **new: ICMPv6EchoRequest(**{"id": 5, "seq": 6, "data": TEXT} | new),
}
IN_IPV4 = ("TCP", "UDP", "SCTP", "ICMP")
IN_IPV6 = ("TCP", "UDP", "SCTP", "ICMPv6")


def _ether(*layers: Packet, **new: object) -> Packet:
    packet = Ether(**ETHER | new)
    for layer in layers:
        packet = packet / layer
    return packet


def _v4(l4: str, new: New | None = None, tags: tuple[Packet, ...] = (), **new_l4: object) -> Packet:
    """Ethernet, ``tags``, IPv4 and layer 4, with other values than the usual ones where given."""
    return _ether(*tags, IP(**A4 | (new or {})), L4[l4](**new_l4))


def _v6(l4: str, new: New | None = None, tags: tuple[Packet, ...] = (), **new_l4: object) -> Packet:
    return _ether(*tags, IPv6(**A6 | (new or {})), L4[l4](**new_l4))


def _v4_fragment(l4: str, part: slice, offset: int, new: New | None = None, **new_l4: object) -> Packet:
    """A fragment of ``_v4(l4)``: the checksum in its layer 4 is that of the whole. ``offset`` counts 8 bytes."""
    whole = bytes(_v4(l4, new, **new_l4))
    more = 0 if part.stop is None else 1
    return _ether(IP(**A4 | (new or {}), proto=whole[23], frag=offset, flags=more), Raw(whole[34:][part]))


# ── Ethernet and tags ──────────────────────────────────────────────────────────────────────────────────────────────────
_add("eth_dst", _v4("UDP"), [_put("eth_dst", mac(NEW_MAC))], _ether(_v4("UDP")[IP], dst=NEW_MAC))
_add("eth_src", _v6("TCP"), [_put("eth_src", mac(NEW_MAC))], _ether(_v6("TCP")[IPv6], src=NEW_MAC))
_add("eth_type", _v4("UDP"), [_put("eth_type", 0x88B5)], _ether(_v4("UDP")[IP], type=0x88B5))
_add(
    "eth_type behind a tag",
    _ether(Dot1Q(vlan=5, type=9), Raw(TEXT)),
    [_put("eth_type", 0x88B5)],
    _ether(Dot1Q(vlan=5, type=0x88B5), Raw(TEXT)),
)
_add("eth_type of a length", _ether(Raw(TEXT), type=23), [_put("eth_type", 0x88B5)], _ether(Raw(TEXT), type=0x88B5))
_add(
    "eth_type takes the headers away",
    _v4("UDP"),
    [_put("eth_type", 0x88B5), _put("ipv4_src", 1), _put("udp_src", 1), DecTtl()],
    _ether(_v4("UDP")[IP], type=0x88B5),
)
_add(
    "eth_type brings headers",
    _ether(_v4("UDP")[IP], type=0x88B5),
    [_put("eth_type", 0x0800), _put("ipv4_src", ip(NEW4)), _put("udp_src", 1)],
    _v4("UDP", {"src": NEW4}, sport=1),
)
_add(
    "eth_type makes a tag",
    _ether(Raw(struct.pack(">HH", 5, 0x88B5) + TEXT), type=0x88B6),
    [_put("eth_type", 0x8100), _put("vlan_pcp", 7), _put("eth_type", 0x88B7)],
    _ether(Dot1Q(vlan=5, prio=7, type=0x88B7), Raw(TEXT)),
)

_C = Dot1Q(vlan=5, prio=1, dei=1)
_S = Dot1AD(vlan=6, prio=2)
_ONE, _TWO, _THREE = (_v4("TCP", tags=tags) for tags in ((_C,), (_S, _C), (Dot1Q(vlan=7), _S, _C)))
_UNTAGGED = _v4("TCP")
_add("vlan_vid", _ONE, [_put("vlan_vid", 0x1FFE)], _v4("TCP", tags=(Dot1Q(vlan=0xFFE, prio=1, dei=1),)))
_add("vlan_vid without OFPVID_PRESENT", _ONE, [_put("vlan_vid", 9)], _v4("TCP", tags=(Dot1Q(vlan=9, prio=1, dei=1),)))
_add("vlan_pcp", _ONE, [_put("vlan_pcp", 6)], _v4("TCP", tags=(Dot1Q(vlan=5, prio=6, dei=1),)))
_add("vlan_vid and vlan_pcp of no tag", _UNTAGGED, [_put("vlan_vid", 0x1009), _put("vlan_pcp", 6)], _UNTAGGED)
_add(
    "vlan_vid and vlan_pcp of the outer tag",
    _TWO,
    [_put("vlan_vid", 0x1009), _put("vlan_pcp", 7)],
    _v4("TCP", tags=(Dot1AD(vlan=9, prio=7), _C)),
)
_add("push a tag", _UNTAGGED, [PushTag(0x8100, 0x6005)], _v4("TCP", tags=(Dot1Q(vlan=5, prio=3),)))
_add("push a second tag", _ONE, [PushTag(0x88A8, 0x4006)], _TWO)
_add("push a third tag", _TWO, [PushTag(0x8100, 7)], _THREE)
_add("pop the only tag", _ONE, [PopTag()], _UNTAGGED)
_add("pop one of two tags", _TWO, [PopTag()], _ONE)
_add("pop one of three tags", _THREE, [PopTag()], _TWO)
_add("pop one tag more than there are", _TWO, [PopTag(), PopTag(), PopTag()], _UNTAGGED)
_add("pop no tag", _UNTAGGED, [PopTag()], _UNTAGGED)
_add("push, set, pop", _ONE, [PushTag(0x88A8, 6), _put("vlan_vid", 0x1009), PopTag()], _ONE)
_CUT_OFF = bytes(_ether())[:12] + b"\x81\0\0\5"
_add("pop a tag without its type", _CUT_OFF, [PopTag(), _put("vlan_vid", 0x1009)], _CUT_OFF)
_add("push on a tag without its type", _CUT_OFF, [PushTag(0x88A8, 6)], _CUT_OFF[:12] + b"\x88\xa8\0\6" + _CUT_OFF[12:])
_add(
    "a runt is left as it is",
    bytes(13),
    [_put("eth_dst", 1), _put("eth_type", 1), PushTag(0x8100, 1), PopTag(), DecTtl()],
    bytes(13),
)
_add(
    "push, then rewrite behind the tag",
    _v4("UDP"),
    [PushTag(0x8100, 5), _put("vlan_pcp", 3), _put("ipv4_dst", ip(NEW4)), _put("udp_dst", 53)],
    _v4("UDP", {"dst": NEW4}, (Dot1Q(vlan=5, prio=3),), dport=53),
)
_add(
    "pop, then rewrite",
    _v6("UDP", tags=(Dot1Q(vlan=5),)),
    [PopTag(), _put("ipv6_dst", ip(NEW6)), _put("udp_dst", 53)],
    _v6("UDP", {"dst": NEW6}, dport=53),
)
_add(
    "rewrite behind two tags",
    _TWO,
    [_put("ipv4_src", ip(NEW4)), _put("tcp_src", 65535), DecTtl()],
    _v4("TCP", {"src": NEW4, "ttl": 63}, (_S, _C), sport=65535),
)
_add("three tags hide the headers", _THREE, [_put("ipv4_src", ip(NEW4)), _put("tcp_src", 65535), DecTtl()], _THREE)
_add(
    "a new type in the place of a third tag's",
    _TWO,
    [PushTag(0x8100, 7), _put("eth_type", 0x1234)],
    bytes(_THREE)[:20] + b"\x12\x34" + bytes(_THREE)[22:],
)
_add("a third tag hides the headers", _TWO, [PushTag(0x8100, 7), _put("ipv4_src", ip(NEW4)), DecTtl()], _THREE)
_add("a pop shows the headers", _THREE, [PopTag(), DecTtl()], _v4("TCP", {"ttl": 63}, (_S, _C)))


# ── MPLS, PBB, ARP ─────────────────────────────────────────────────────────────────────────────────────────────────────
def _mpls(**new: object) -> Packet:
    return _ether(MPLS(**{"label": 0x12345, "cos": 5, "s": 0, "ttl": 63} | new), Raw(TEXT), type=0x8847)


def _arp(**new: object) -> Packet:
    usual = {"op": 1, "hwsrc": "02:00:00:00:00:01", "psrc": "192.0.2.1", "hwdst": "00:00:00:00:00:00", "pdst": "198.51.100.2"}
    return _ether(ARP(**usual | new))


_add("mpls_label", _mpls(), [_put("mpls_label", 0xEDCBA)], _mpls(label=0xEDCBA))
_add("mpls_tc", _mpls(), [_put("mpls_tc", 2)], _mpls(cos=2))
_add("mpls_bos", _mpls(), [_put("mpls_bos", 1)], _mpls(s=1))
_add("MPLS fields of no MPLS", _UNTAGGED, [_put("mpls_label", 1), _put("mpls_tc", 1), _put("mpls_bos", 1)], _UNTAGGED)
_add("IP TTL of MPLS", _mpls(), [DecTtl(), _put("ip_ttl", 9)], _mpls())
_PBB = bytes.fromhex("020000000002 020000000001 88e7 d0123456") + bytes(range(12)) + b"\x08\0" + TEXT
_add("pbb_isid", _PBB, [_put("pbb_isid", 0xFEDCBA)], _PBB[:15] + b"\xfe\xdc\xba" + _PBB[18:])
_add("arp_op", _arp(), [_put("arp_op", 2)], _arp(op=2))
_add("arp_spa", _arp(), [_put("arp_spa", ip(NEW4))], _arp(psrc=NEW4))
_add("arp_tpa", _arp(), [_put("arp_tpa", ip(NEW4))], _arp(pdst=NEW4))
_add("arp_sha", _arp(), [_put("arp_sha", mac(NEW_MAC))], _arp(hwsrc=NEW_MAC))
_add("arp_tha", _arp(), [_put("arp_tha", mac(NEW_MAC))], _arp(hwdst=NEW_MAC))
_add(
    "IP and layer-4 fields of ARP",
    _arp(),
    [_put(name, 1) for name in ("ipv4_src", "tcp_src", "icmpv4_type", "ip_dscp", "ip_ttl")],
    _arp(),
)
_add(
    "a request becomes its answer",
    _arp(),
    [
        _put("arp_op", 2),
        _put("arp_tha", mac("02:00:00:00:00:01")),
        _put("arp_sha", mac(NEW_MAC)),
        _put("arp_tpa", ip("192.0.2.1")),
        _put("arp_spa", ip("198.51.100.2")),
    ],
    _arp(op=2, hwsrc=NEW_MAC, psrc="198.51.100.2", hwdst="02:00:00:00:00:01", pdst="192.0.2.1"),
)

# ── IPv4 ───────────────────────────────────────────────────────────────────────────────────────────────────────────────
for _l4 in IN_IPV4:
    _add(f"ipv4_src over {_l4}", _v4(_l4), [_put("ipv4_src", ip(NEW4))], _v4(_l4, {"src": NEW4}))
    _add(f"ipv4_dst over {_l4}", _v4(_l4), [_put("ipv4_dst", ip(NEW4))], _v4(_l4, {"dst": NEW4}))
_OPTIONS = {"options": [IPOption_Router_Alert()]}
_add(
    "ipv4_src and ipv4_dst with options",
    _v4("TCP", _OPTIONS),
    [_put("ipv4_src", 1), _put("ipv4_dst", ip(NEW4))],
    _v4("TCP", _OPTIONS | {"src": "0.0.0.1", "dst": NEW4}),
)
_add("ip_dscp", _v4("UDP", {"tos": 0xFF}), [_put("ip_dscp", 0x15)], _v4("UDP", {"tos": 0x57}))
_add("ip_ecn", _v4("UDP", {"tos": 0xFC}), [_put("ip_ecn", 2)], _v4("UDP", {"tos": 0xFE}))
_add("ip_ttl", _v4("UDP"), [_put("ip_ttl", 200)], _v4("UDP", {"ttl": 200}))
_add("dec_ttl", _v4("UDP", {"ttl": 2}), [DecTtl()], _v4("UDP", {"ttl": 1}))
_add("dec_ttl of nothing", _arp(), [DecTtl()], _arp())
_add("nothing changes", _v4("TCP"), [_put("ipv4_src", ip("192.0.2.1")), _put("tcp_dst", 2000), _put("ip_ttl", 64)], _v4("TCP"))
_add(
    "IPv6 fields of IPv4",
    _v4("UDP"),
    [_put(name, 1) for name in ("ipv6_src", "ipv6_dst", "ipv6_flabel", "icmpv6_type")],
    _v4("UDP"),
)
_add(
    "ARP fields of IPv4", _v4("UDP"), [_put(name, 1) for name in ("arp_op", "arp_spa", "arp_tpa", "arp_sha", "arp_tha")], _v4("UDP")
)
for _l4 in ("TCP", "UDP"):
    _is, _part, _port = f"IPv4 first fragment of {_l4}", slice(0, 24), _put(f"{_l4.lower()}_dst", 1)
    _add(f"{_is}: ipv4_dst", _v4_fragment(_l4, _part, 0), [_put("ipv4_dst", 1)], _v4_fragment(_l4, _part, 0, {"dst": "0.0.0.1"}))
    _add(f"{_is}: port", _v4_fragment(_l4, _part, 0), [_port], _v4_fragment(_l4, _part, 0, dport=1))
    _is, _part = f"IPv4 later fragment of {_l4}", slice(24, None)
    _add(f"{_is}: ipv4_dst", _v4_fragment(_l4, _part, 3), [_put("ipv4_dst", 1)], _v4_fragment(_l4, _part, 3, {"dst": "0.0.0.1"}))
    _add(f"{_is}: port", _v4_fragment(_l4, _part, 3), [_port], _v4_fragment(_l4, _part, 3))

# ── IPv6 ───────────────────────────────────────────────────────────────────────────────────────────────────────────────
for _l4 in IN_IPV6:
    _add(f"ipv6_src over {_l4}", _v6(_l4), [_put("ipv6_src", ip(NEW6))], _v6(_l4, {"src": NEW6}))
    _add(f"ipv6_dst over {_l4}", _v6(_l4), [_put("ipv6_dst", ip(NEW6))], _v6(_l4, {"dst": NEW6}))
_add("ip_dscp of IPv6", _v6("UDP", {"tc": 0xFF, "fl": 0xFFFFF}), [_put("ip_dscp", 0x15)], _v6("UDP", {"tc": 0x57, "fl": 0xFFFFF}))
_add("ip_ecn of IPv6", _v6("UDP", {"tc": 0xFC}), [_put("ip_ecn", 2)], _v6("UDP", {"tc": 0xFE}))
_add("ipv6_flabel", _v6("UDP", {"tc": 0xFF}), [_put("ipv6_flabel", 0x54321)], _v6("UDP", {"tc": 0xFF, "fl": 0x54321}))
_add("ip_ttl of IPv6", _v6("UDP"), [_put("ip_ttl", 200)], _v6("UDP", {"hlim": 200}))
_add("dec_ttl of IPv6", _v6("UDP", {"hlim": 2}), [DecTtl()], _v6("UDP", {"hlim": 1}))
_add("IPv4 fields of IPv6", _v6("UDP"), [_put(name, 1) for name in ("ipv4_src", "ipv4_dst", "arp_spa", "arp_op")], _v6("UDP"))
_add("ICMP fields of ICMPv6", _v6("ICMPv6"), [_put("icmpv4_type", 1), _put("icmpv4_code", 1)], _v6("ICMPv6"))


def _extended(new: New, *extensions: Packet, **new_l4: object) -> Packet:
    return _ether(IPv6(**A6 | new), *extensions, L4["TCP"](**new_l4))


_HOP_DEST = (IPv6ExtHdrHopByHop(), IPv6ExtHdrDestOpt())
_add(
    "addresses, port and hop limit with extension headers",
    _extended({}, *_HOP_DEST),
    [_put("ipv6_src", ip(NEW6)), _put("ipv6_dst", 1), _put("tcp_src", 1), DecTtl()],
    _extended({"src": NEW6, "dst": "::1", "hlim": 63}, *_HOP_DEST, sport=1),
)
# With segments left, the pseudo-header has the last address of the routing header.
_ROUTER = IPv6ExtHdrRouting(addresses=["2001:db8::abc", "2001:db8::def"], segleft=2)
_add(
    "addresses with a routing header",
    _extended({}, _ROUTER),
    [_put("ipv6_dst", ip(NEW6)), _put("ipv6_src", 1)],
    _extended({"dst": NEW6, "src": "::1"}, _ROUTER),
)
_FIRST, _LAST = IPv6ExtHdrFragment(nh=17, m=1, id=9), IPv6ExtHdrFragment(nh=17, offset=2, id=9)
_OLD_UDP, _NEW_UDP = bytes(_v6("UDP"))[54:], bytes(_v6("UDP", {"dst": NEW6}, sport=1))[54:]
_add(
    "IPv6 first fragment",
    _ether(IPv6(**A6), _FIRST, Raw(_OLD_UDP[:16])),
    [_put("ipv6_dst", ip(NEW6)), _put("udp_src", 1)],
    _ether(IPv6(**A6 | {"dst": NEW6}), _FIRST, Raw(_NEW_UDP[:16])),
)
_add(
    "IPv6 later fragment",
    _ether(IPv6(**A6), _LAST, Raw(_OLD_UDP[16:])),
    [_put("ipv6_dst", ip(NEW6)), _put("udp_src", 1)],
    _ether(IPv6(**A6 | {"dst": NEW6}), _LAST, Raw(_OLD_UDP[16:])),
)

# ── layer 4 ────────────────────────────────────────────────────────────────────────────────────────────────────────────
for _version, _make, _address in (("IPv4", _v4, NEW4), ("IPv6", _v6, NEW6)):
    for _l4, _field in (("TCP", "tcp"), ("UDP", "udp"), ("SCTP", "sctp")):
        _add(f"{_field}_src in {_version}", _make(_l4), [_put(f"{_field}_src", 0xFFFF)], _make(_l4, sport=0xFFFF))
        _add(f"{_field}_dst in {_version}", _make(_l4), [_put(f"{_field}_dst", 0)], _make(_l4, dport=0))
        _others = [_put(f"{name}_src", 1) for name in ("tcp", "udp", "sctp") if name != _field]
        _add(
            f"fields of others on {_l4} in {_version}",
            _make(_l4),
            [*_others, _put("icmpv4_type", 1), _put("icmpv6_code", 1)],
            _make(_l4),
        )
    _add(
        f"UDP without checksum in {_version}",
        _make("UDP", chksum=0),
        [_put("udp_dst", 53), _put("ipv4_dst", ip(NEW4)), _put("ipv6_dst", ip(NEW6) if _version == "IPv6" else 0)],
        _make("UDP", {"dst": _address}, chksum=0, dport=53),
    )
    # With this source port the sum becomes 0xffff, so that its complement, 0, is written 0xffff.
    _port = int.from_bytes(_make("UDP", sport=0)[UDP].build()[6:8], "big")
    _add(
        f"UDP checksum that becomes 0 in {_version}",
        _make("UDP"),
        [_put("udp_src", _port)],
        _make("UDP", sport=_port, chksum=0xFFFF),
    )
    _add(f"SCTP without checksum in {_version}", _make("SCTP", chksum=0), [_put("sctp_src", 1)], _make("SCTP", chksum=0, sport=1))

_add("SCTP in a padded frame", _v4("SCTP") / Padding(bytes(9)), [_put("sctp_dst", 1)], _v4("SCTP", dport=1) / Padding(bytes(9)))
_add("icmpv4_type", _v4("ICMP"), [_put("icmpv4_type", 0)], _v4("ICMP", type=0))
_add("icmpv4_code", _v4("ICMP"), [_put("icmpv4_code", 200)], _v4("ICMP", code=200))
_add("ICMPv6 fields of ICMP", _v4("ICMP"), [_put("icmpv6_type", 0), _put("icmpv6_code", 1)], _v4("ICMP"))
_add("icmpv6_type", _v6("ICMPv6"), [_put("icmpv6_type", 129)], _v6("ICMPv6", type=129))
_add("icmpv6_code", _v6("ICMPv6"), [_put("icmpv6_code", 200)], _v6("ICMPv6", code=200))
_add(
    "routing and source NAT",
    _v4("TCP"),
    [_put("ipv4_src", ip(NEW4)), _put("tcp_src", 40000), DecTtl(), _put("eth_dst", mac(NEW_MAC))],
    _ether(_v4("TCP", {"src": NEW4, "ttl": 63}, sport=40000)[IP], dst=NEW_MAC),
)


# ── neighbour discovery ────────────────────────────────────────────────────────────────────────────────────────────────
def _ns(target: str = "fe80::1:2", lladdr: str = "02:00:00:00:00:aa", **new: object) -> Packet:
    return _ether(IPv6(**A6), ICMPv6ND_NS(tgt=target, **new), ICMPv6NDOptMTU(), ICMPv6NDOptSrcLLAddr(lladdr=lladdr))


def _na(target: str = "fe80::1:2", lladdr: str = "02:00:00:00:00:aa") -> Packet:
    return _ether(IPv6(**A6), ICMPv6ND_NA(tgt=target), ICMPv6NDOptDstLLAddr(lladdr=lladdr))


_add("ipv6_nd_target of a solicitation", _ns(), [_put("ipv6_nd_target", ip(NEW6))], _ns(target=NEW6))
_add("ipv6_nd_target of an advertisement", _na(), [_put("ipv6_nd_target", ip(NEW6))], _na(target=NEW6))
_add("ipv6_nd_sll", _ns(), [_put("ipv6_nd_sll", mac(NEW_MAC))], _ns(lladdr=NEW_MAC))
_add("ipv6_nd_tll", _na(), [_put("ipv6_nd_tll", mac(NEW_MAC))], _na(lladdr=NEW_MAC))
_add("ipv6_nd_tll of a solicitation", _ns(), [_put("ipv6_nd_tll", mac(NEW_MAC))], _ns())
_add("ipv6_nd_sll of an advertisement", _na(), [_put("ipv6_nd_sll", mac(NEW_MAC))], _na())
_add(
    "ND fields of an echo",
    _v6("ICMPv6"),
    [_put("ipv6_nd_target", 1), _put("ipv6_nd_sll", 1), _put("ipv6_nd_tll", 1)],
    _v6("ICMPv6"),
)
_add(
    "a code takes the ND fields away",
    _ns(),
    [_put("icmpv6_code", 1), _put("ipv6_nd_target", 1), _put("ipv6_nd_sll", 1)],
    _ns(code=1),
)
_add("a code brings the ND fields", _ns(code=1), [_put("icmpv6_code", 0), _put("ipv6_nd_sll", 5)], _ns(lladdr="00:00:00:00:00:05"))


# ── ip_proto: the checksum of the protocol that the packet had follows, then the packet is one of the new protocol ─────
def _renamed(version: int, l4: str, now: int, **new_l4: object) -> bytes:
    """Layer 4 of one protocol under the number of another, its own checksum right with that number in the pseudo-header."""
    packet = bytes((_v4 if version == 4 else _v6)(l4, **new_l4))
    at, l4_at = (23, 34) if version == 4 else (20, 54)
    renamed = packet[:at] + bytes((now,)) + packet[at + 1 :]
    return frames.Sample(renamed, version, 14, l4_at, packet[at], pseudo_proto=now).finished().frame


for _version, _make, _protocols in ((4, _v4, IN_IPV4), (6, _v6, IN_IPV6)):
    for _l4 in _protocols:
        _add(f"ip_proto of {_l4} in IPv{_version}", _make(_l4), [_put("ip_proto", 99)], _renamed(_version, _l4, 99))
_add(
    "ip_proto takes the ports away",
    _v4("UDP"),
    [_put("ip_proto", 99), _put("udp_src", 1), _put("udp_dst", 1)],
    _renamed(4, "UDP", 99),
)
# Bytes 6 and 7 of this TCP header, UDP's checksum, are 0: none.
_TO_UDP = _renamed(4, "TCP", 17, seq=0x990000)
_add(
    "ip_proto, TCP to UDP",
    _v4("TCP", seq=0x990000),
    [_put("ip_proto", 17), _put("tcp_src", 1), _put("udp_src", 0x1234), _put("ipv4_dst", ip("198.51.100.2"))],
    _TO_UDP[:34] + b"\x12\x34" + _TO_UDP[36:],
)
_add(
    "ip_proto behind extension headers",
    _ether(IPv6(**A6), IPv6ExtHdrHopByHop(), IPv6ExtHdrDestOpt(nh=99), Raw(TEXT)),
    [_put("ip_proto", 47)],
    _ether(IPv6(**A6), IPv6ExtHdrHopByHop(), IPv6ExtHdrDestOpt(nh=47), Raw(TEXT)),
)
_add(
    "ip_proto of a later fragment",
    _v4_fragment("UDP", slice(24, None), 3),
    [_put("ip_proto", 6)],
    _ether(IP(**A4, proto=6, frag=3), Raw(_OLD_UDP[24:])),
)


# ── what leaves, and when ──────────────────────────────────────────────────────────────────────────────────────────────
def _emit(
    name: str, before: Packet, actions: list[DatapathAction], *emissions: tuple[Forward | Flood | Controller, Packet]
) -> None:
    EXECUTIONS.append(
        ExecutionVector(name, bytes(before), tuple(actions), tuple((action, bytes(after)) for action, after in emissions))
    )


_UP = Controller(PacketInReason.ACTION, table_id=3, cookie=0x1234, max_len=128, metadata=9)
_emit("drop", _v4("UDP"), [])
_emit("changed, then dropped", _v4("UDP"), [_put("udp_dst", 1), DecTtl()])
_emit("two outputs", _v4("UDP"), [Forward(1), Forward(4095)], (Forward(1), _v4("UDP")), (Forward(4095), _v4("UDP")))
_emit("flood", _v4("UDP"), [Flood()], (Flood(), _v4("UDP")))
_emit("to the machine itself", _v4("UDP"), [Forward(2), Forward(LOCAL_PORT)], (OUT, _v4("UDP")), (Forward(LOCAL_PORT), _v4("UDP")))
_emit("to the machine alone", _v4("UDP"), [Forward(LOCAL_PORT)], (Forward(LOCAL_PORT), _v4("UDP")))
_emit("back where it came from", _v4("UDP"), [Forward(IN_PORT)], (Forward(IN_PORT), _v4("UDP")))
_emit(
    "each output as it is then",
    _v4("UDP"),
    [Forward(1), _put("udp_dst", 53), Flood(), PushTag(0x8100, 5), _UP, PopTag(), DecTtl(), Forward(1), _put("udp_dst", 54)],
    (Forward(1), _v4("UDP")),
    (Flood(), _v4("UDP", dport=53)),
    (_UP, _v4("UDP", tags=(Dot1Q(vlan=5),), dport=53)),
    (Forward(1), _v4("UDP", {"ttl": 63}, dport=53)),
)

_emit(
    "forty outputs, each to an address of its own",
    _v4("UDP"),
    [action for number in range(40) for action in (_put("eth_dst", number), Forward(number + 1))],
    *((Forward(number + 1), _ether(_v4("UDP")[IP], dst=f"00:00:00:00:00:{number:02x}")) for number in range(40)),
)
_add("a hundred changes", _v4("UDP"), [_put("udp_dst", number) for number in range(1, 101)], _v4("UDP", dport=100))

for _name, _tags in (
    ("no tag", ()),
    ("a tag", (Dot1Q(vlan=7, prio=3, dei=1),)),
    ("two tags", (Dot1AD(vlan=8, dei=1), Dot1Q(vlan=7))),
):
    _emit(
        f"copies with changes of their own, {_name}",
        _v4("UDP", tags=_tags),
        [
            Clone((_put("ipv4_dst", ip(NEW4)), _put("udp_dst", 53), Forward(1), PushTag(0x88A8, 0xFFFF), Flood())),
            Clone((PopTag(), DecTtl(), Forward(2), _UP)),
            _put("udp_src", 9),
            Clone((PopTag(), PopTag(), PushTag(0x8100, 5), _put("vlan_vid", 0x1006), _put("eth_dst", mac(NEW_MAC)), Forward(3))),
            Forward(4),
        ],
        (Forward(1), _v4("UDP", {"dst": NEW4}, tags=_tags, dport=53)),
        (Flood(), _v4("UDP", {"dst": NEW4}, tags=(Dot1AD(vlan=0xFFF, prio=7, dei=1), *_tags), dport=53)),
        (Forward(2), _v4("UDP", {"ttl": 63}, tags=_tags[1:])),
        (_UP, _v4("UDP", {"ttl": 63}, tags=_tags[1:])),
        (Forward(3), _ether(Dot1Q(vlan=6), _v4("UDP", sport=9)[IP], dst=NEW_MAC)),
        (Forward(4), _v4("UDP", tags=_tags, sport=9)),
    )

# The ops of a copy go on in another slot: what comes behind it is there too.
_sets = tuple(_put("ipv4_dst", number) for number in range(1, 27))
_emit(
    "a copy over the end of a slot",
    _UNTAGGED,
    [Clone((*_sets, _put("ipv4_dst", ip(NEW4)), OUT, _put("ipv4_src", ip(NEW4)), OUT)), _put("eth_dst", mac(NEW_MAC)), Forward(3)],
    (OUT, _v4("TCP", {"dst": NEW4})),
    (OUT, _v4("TCP", {"dst": NEW4, "src": NEW4})),
    (Forward(3), _ether(_v4("TCP")[IP], dst=NEW_MAC)),
)

# Tunnel fields are beside the frame; they are carried on from output to output.
for _name, _actions, *_tunnels in (
    ("tunnel_id", [_put("tunnel_id", 5), OUT], Tunnel(5)),
    ("tunnel_id of 48 bits", [_put("tunnel_id", 0xFEDCBA987654), OUT], Tunnel(0xFEDCBA987654)),
    ("tunnel_id of 64 bits", [_put("tunnel_id", 0xFEDCBA9876543210), OUT], Tunnel(0xFEDCBA9876543210)),
    ("tunnel addresses", [_put("tun_src", ip(NEW4)), _put("tun_dst", 9), OUT], Tunnel(0, ip(NEW4), 9)),
    (
        "two remotes",
        [_put("tunnel_id", 5), _put("tun_dst", 1), OUT, _put("tun_dst", 2), Forward(3), _put("tunnel_id", 0), Flood()],
        Tunnel(5, 0, 1),
        Tunnel(5, 0, 2),
        Tunnel(0, 0, 2),
    ),
):
    _sent = tuple((action, bytes(_UNTAGGED)) for action in _actions if isinstance(action, Forward | Flood))
    EXECUTIONS.append(ExecutionVector(_name, bytes(_UNTAGGED), tuple(_actions), _sent, tunnels=tuple(_tunnels)))

for _ttl in (0, 1):
    _emit(f"TTL {_ttl}", _v4("UDP", {"ttl": _ttl}), [DecTtl(), OUT], (INVALID_TTL, _v4("UDP", {"ttl": _ttl})))
    _emit(f"hop limit {_ttl}", _v6("UDP", {"hlim": _ttl}), [DecTtl(), OUT], (INVALID_TTL, _v6("UDP", {"hlim": _ttl})))
_emit(
    "TTL used up on the way",
    _v4("UDP", {"ttl": 2}),
    [DecTtl(), Forward(1), PushTag(0x8100, 5), DecTtl(), PopTag(), Forward(2)],
    (Forward(1), _v4("UDP", {"ttl": 1})),
    (INVALID_TTL, _v4("UDP", {"ttl": 1}, (Dot1Q(vlan=5),))),
)
_emit("TTL set, then taken from", _v4("UDP", {"ttl": 1}), [_put("ip_ttl", 2), DecTtl(), OUT], (OUT, _v4("UDP", {"ttl": 1})))
_emit("TTL set to 0, then taken from", _v4("UDP"), [_put("ip_ttl", 0), DecTtl(), OUT], (INVALID_TTL, _v4("UDP", {"ttl": 0})))
