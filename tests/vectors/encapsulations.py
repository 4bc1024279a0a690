"""The action table's second part: MPLS, PBB and TTLs that are copied. ``executions`` is the first.

Frames that are expected are not worked out from those that go in: scapy builds them, and the I-TAG is put together here.
"""

from __future__ import annotations

import struct

from scapy.contrib.mpls import MPLS
from scapy.layers.inet import IP, UDP, IPOption_Router_Alert
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from scapy.packet import Packet, Raw
from vectors.executions import INVALID_TTL, OUT, ExecutionVector
from vectors.packets import ip, mac

from appliance.model.actions import CopyTtlIn, CopyTtlOut, DecMplsTtl, PopMpls, PopPbb, PushMpls, PushPbb, SetField
from appliance.model.fields import BY_NAME
from appliance.model.megaflow import Controller, DatapathAction, DecTtl, Flood, Forward, PopTag, PushTag

ENCAPSULATIONS: list[ExecutionVector] = []
Emissions = tuple[tuple[Forward | Flood | Controller, bytes], ...]


def _add(name: str, before: bytes | Packet, actions: list[DatapathAction], after: bytes | Packet) -> None:
    """One output after ``actions``."""
    ENCAPSULATIONS.append(ExecutionVector(name, bytes(before), (*actions, OUT), ((OUT, bytes(after)),)))


def _put(field: str, value: int) -> SetField:
    return SetField(BY_NAME[field], value)


UC, MC = 0x8847, 0x8848
SRC, DST = "02:00:00:00:00:01", "02:00:00:00:00:02"
TEXT = b"an odd number of bytes."
NEW_MAC = "0a:0b:0c:0d:0e:0f"


def _ether(*layers: Packet, eth_type: int | None = None, src: str = SRC, dst: str = DST) -> Packet:
    """``eth_type`` where scapy does not know it by what follows."""
    packet = Ether(src=src, dst=dst) if eth_type is None else Ether(src=src, dst=dst, type=eth_type)
    for layer in layers:
        packet = packet / layer
    return packet


def _entry(label: int = 0x12345, tc: int = 5, bos: int = 1, ttl: int = 60) -> Packet:
    return MPLS(label=label, cos=tc, s=bos, ttl=ttl)


def _bare(packet: Packet) -> Packet:
    """Bytes, so that scapy fills in no type or length for what it carries."""
    return Raw(bytes(packet))


def _v4(ttl: int = 30, **new: object) -> Packet:
    return IP(src="192.0.2.1", dst="198.51.100.2", id=7, ttl=ttl, **new) / UDP(sport=1000, dport=2000) / TEXT


def _v6(hlim: int = 30) -> Packet:
    return IPv6(src="2001:db8::1", dst="2001:db8::ff", hlim=hlim) / UDP(sport=1000, dport=2000) / TEXT


def _arp() -> Packet:
    return ARP(op=1, hwsrc=SRC, psrc="192.0.2.1", pdst="198.51.100.2")


def _mpls(*layers: Packet, eth_type: int = UC) -> Packet:
    return _ether(*layers, eth_type=eth_type)


RUNT = bytes(13)
C, S = Dot1Q(vlan=5, prio=3, dei=1), Dot1AD(vlan=6, prio=6)

# ── push MPLS ──────────────────────────────────────────────────────────────────────────────────────────────────────────
_add("push MPLS on IPv4: its TTL", _ether(_v4()), [PushMpls(UC)], _mpls(_entry(0, 0, 1, 30), _v4()))
_add("push MPLS on IPv6: its hop limit", _ether(_v6()), [PushMpls(UC)], _mpls(_entry(0, 0, 1, 30), _v6()))
_add("push MPLS on ARP: TTL 0", _ether(_arp()), [PushMpls(UC)], _mpls(_entry(0, 0, 1, 0), _bare(_arp())))
_add("push multicast MPLS", _ether(_v4()), [PushMpls(MC)], _mpls(_entry(0, 0, 1, 30), _v4(), eth_type=MC))
_add(
    "push MPLS on MPLS: a copy, not at the bottom",
    _mpls(_entry(), _v4()),
    [PushMpls(UC)],
    _mpls(_entry(bos=0), _entry(), _v4()),
)
_add(
    "push MPLS on a stack",
    _mpls(_entry(bos=0), _entry(9, 1), _v4()),
    [PushMpls(MC)],
    _mpls(_entry(bos=0), _entry(bos=0), _entry(9, 1), _v4(), eth_type=MC),
)
_add("push MPLS twice", _ether(_v4()), [PushMpls(UC), PushMpls(UC)], _mpls(_entry(0, 0, 0, 30), _entry(0, 0, 1, 30), _v4()))
_add(
    "push MPLS, then set its fields",
    _ether(_v4()),
    [PushMpls(UC), _put("mpls_label", 77), _put("mpls_tc", 4), _put("mpls_ttl", 200)],
    _mpls(_entry(77, 4, 1, 200), _v4()),
)
# The tag's type gives way to MPLS, as that of IP does.
_add(
    "push MPLS before a tag, TTL of the IP behind it",
    _ether(C, _v4()),
    [PushMpls(UC)],
    _mpls(_entry(0, 0, 1, 30), _bare(_ether(C, _v4()).payload)),
)
_add(
    "push MPLS before two tags",
    _ether(S, C, _v6()),
    [PushMpls(UC)],
    _mpls(_entry(0, 0, 1, 30), _bare(_ether(S, C, _v6()).payload)),
)
_TAGGED_MPLS = _ether(Dot1Q(vlan=5, prio=3, type=UC), _entry(), _v4())
_add(
    "push MPLS before a tag and MPLS: a copy, but at the bottom",
    _TAGGED_MPLS,
    [PushMpls(UC)],
    _mpls(_entry(), _bare(_TAGGED_MPLS.payload)),
)
_add(
    "push MPLS before three tags, which hide the TTL",
    _ether(Dot1Q(vlan=1), S, C, _v4()),
    [PushMpls(UC)],
    _mpls(_entry(0, 0, 1, 0), _bare(_ether(Dot1Q(vlan=1), S, C, _v4()).payload)),
)
_add(
    "MPLS hides tags, IP and layer 4",
    _ether(C, _v4()),
    [PushMpls(UC), _put("vlan_vid", 0x1009), PopTag(), _put("ipv4_src", 1), _put("udp_src", 1), DecTtl()],
    _mpls(_entry(0, 0, 1, 30), _bare(_ether(C, _v4()).payload)),
)
_add(
    "push MPLS, then a tag",
    _ether(_v4()),
    [PushMpls(UC), PushTag(0x8100, 0x6005), _put("mpls_label", 9)],
    _ether(Dot1Q(vlan=5, prio=3, type=UC), _entry(9, 0, 1, 30), _v4()),
)
_add("push MPLS on an unknown type", _ether(Raw(TEXT), eth_type=0x88B5), [PushMpls(UC)], _mpls(_entry(0, 0, 1, 0), Raw(TEXT)))
_CUT = bytes(_mpls())[:14] + b"\1\2\3"
_add("push MPLS on half an entry", _CUT, [PushMpls(UC)], _CUT[:14] + b"\0\0\1\0" + _CUT[14:])

# ── pop MPLS ───────────────────────────────────────────────────────────────────────────────────────────────────────────
_add("pop MPLS to IPv4", _mpls(_entry(), _v4()), [PopMpls(0x0800)], _ether(_v4()))
_add("pop MPLS to IPv6", _mpls(_entry(), _v6()), [PopMpls(0x86DD)], _ether(_v6()))
_add("pop MPLS to ARP", _mpls(_entry(), _bare(_arp())), [PopMpls(0x0806)], _ether(_arp()))
_add("pop multicast MPLS", _mpls(_entry(), _v4(), eth_type=MC), [PopMpls(0x0800)], _ether(_v4()))
_add("pop MPLS to MPLS", _mpls(_entry(1, bos=0), _entry(2), _v4()), [PopMpls(UC)], _mpls(_entry(2), _v4()))
_add("pop two entries", _mpls(_entry(1, bos=0), _entry(2), _v4()), [PopMpls(UC), PopMpls(0x0800)], _ether(_v4()))
_add("pop one entry more than there are", _mpls(_entry(), _v4()), [PopMpls(0x0800), PopMpls(0x86DD)], _ether(_v4()))
_add("pop no MPLS", _ether(_v4()), [PopMpls(0x86DD)], _ether(_v4()))
_add("pop half an entry", _CUT, [PopMpls(0x0800), DecMplsTtl(), _put("mpls_ttl", 9)], _CUT)
_add(
    "pop MPLS behind tags, which stay",
    _ether(S, Dot1Q(vlan=5, prio=3, dei=1, type=UC), _entry(), _v4()),
    [PopMpls(0x0800)],
    _ether(S, C, _v4()),
)
_add(
    "pop MPLS to a tag",
    _mpls(_entry(), _bare(_ether(C, _v4()).payload)),
    [PopMpls(0x8100), _put("vlan_pcp", 7)],
    _ether(Dot1Q(vlan=5, prio=7, dei=1), _v4()),
)
_add("pop MPLS to a type that does not fit", _mpls(_entry(), _v4()), [PopMpls(0x86DD), DecTtl()], _ether(_v4(), eth_type=0x86DD))
_add(
    "pop MPLS, then rewrite what comes to light",
    _mpls(_entry(), _v4()),
    [PopMpls(0x0800), _put("ipv4_src", ip("203.0.113.77")), _put("udp_dst", 53), DecTtl(), _put("eth_dst", mac(NEW_MAC))],
    _ether(IP(src="203.0.113.77", dst="198.51.100.2", id=7, ttl=29), UDP(sport=1000, dport=53), Raw(TEXT), dst=NEW_MAC),
)
_add("push MPLS, then pop it", _ether(S, C, _v4()), [PushMpls(UC), PopMpls(0x88A8)], _ether(S, C, _v4()))

# ── TTL of MPLS ────────────────────────────────────────────────────────────────────────────────────────────────────────
_STACK = (_entry(1, bos=0, ttl=60), _entry(2, ttl=50))
_add("mpls_ttl", _mpls(*_STACK, _v4()), [_put("mpls_ttl", 255)], _mpls(_entry(1, bos=0, ttl=255), _STACK[1], _v4()))
_add("mpls_ttl behind a tag", _TAGGED_MPLS, [_put("mpls_ttl", 9)], _ether(Dot1Q(vlan=5, prio=3, type=UC), _entry(ttl=9), _v4()))
_add("mpls_ttl of no MPLS", _ether(_v4()), [_put("mpls_ttl", 9)], _ether(_v4()))
_add("dec_mpls_ttl", _mpls(*_STACK, _v4()), [DecMplsTtl()], _mpls(_entry(1, bos=0, ttl=59), _STACK[1], _v4()))
_add("dec_mpls_ttl to 1", _mpls(_entry(ttl=2), _v4()), [DecMplsTtl()], _mpls(_entry(ttl=1), _v4()))
_add("dec_mpls_ttl of no MPLS", _ether(_v4(1)), [DecMplsTtl()], _ether(_v4(1)))
_add("mpls_bos cleared and set", _mpls(_entry(), _v4()), [_put("mpls_bos", 0)], _mpls(_entry(bos=0), _v4()))

# ── copy TTL ───────────────────────────────────────────────────────────────────────────────────────────────────────────
for _ip, _name in ((_v4, "IPv4"), (_v6, "IPv6")):
    _add(f"copy TTL out, {_name} to MPLS", _mpls(_entry(), _ip()), [CopyTtlOut()], _mpls(_entry(ttl=30), _ip()))
    _add(f"copy TTL in, MPLS to {_name}", _mpls(_entry(), _ip()), [CopyTtlIn()], _mpls(_entry(), _ip(60)))
    _add(f"copy TTL of {_name} alone", _ether(_ip()), [CopyTtlOut(), CopyTtlIn()], _ether(_ip()))
_add("copy TTL out, MPLS to MPLS", _mpls(*_STACK, _v4()), [CopyTtlOut()], _mpls(_entry(1, bos=0, ttl=50), _STACK[1], _v4()))
_add("copy TTL in, MPLS to MPLS", _mpls(*_STACK, _v4()), [CopyTtlIn()], _mpls(_STACK[0], _entry(2, ttl=60), _v4()))
_OPTIONS = {"options": [IPOption_Router_Alert()]}
_add("copy TTL in to IPv4 with options", _mpls(_entry(), _v4(**_OPTIONS)), [CopyTtlIn()], _mpls(_entry(), _v4(60, **_OPTIONS)))
_add("copy TTL behind tags", _TAGGED_MPLS, [CopyTtlIn()], _ether(Dot1Q(vlan=5, prio=3, type=UC), _entry(), _v4(60)))
_add(
    "copy TTL of a label switch's last hop",
    _mpls(_entry(), _v4()),
    [DecMplsTtl(), CopyTtlIn(), PopMpls(0x0800)],
    _ether(_v4(59)),
)
_add(
    "copy TTL after a push",
    _mpls(_entry(), _v4()),
    [PushMpls(UC), _put("mpls_ttl", 9), CopyTtlIn()],
    _mpls(_entry(bos=0, ttl=9), _entry(ttl=9), _v4()),
)
_add("copy TTL with ARP in MPLS", _mpls(_entry(), _bare(_arp())), [CopyTtlOut(), CopyTtlIn()], _mpls(_entry(), _bare(_arp())))
_SHORT = bytes(_mpls(_entry(), _v4()))[: 14 + 4 + 19]
_add("copy TTL with 19 bytes of IPv4", _SHORT, [CopyTtlOut(), CopyTtlIn()], _SHORT)
_SHORT = bytes(_mpls(_entry(), _v6()))[: 14 + 4 + 39]
_add("copy TTL with 39 bytes of IPv6", _SHORT, [CopyTtlOut(), CopyTtlIn()], _SHORT)
_SHORT = bytes(_mpls(_entry(bos=0)))[:18] + b"\1\2\3"
_add("copy TTL with half an entry", _SHORT, [CopyTtlOut(), CopyTtlIn()], _SHORT)
_SHORT = bytes(_mpls(_entry()))[:18]
_add("copy TTL with nothing behind the bottom", _SHORT, [CopyTtlOut(), CopyTtlIn()], _SHORT)
_SHORT = bytes(_mpls(_entry(), _v4(**_OPTIONS)))[: 14 + 4 + 23]
_add("copy TTL with half of IPv4's options", _SHORT, [CopyTtlOut(), CopyTtlIn()], _SHORT)
_IHL = bytes(_mpls(_entry()))[:18] + b"\x44" + bytes(30)
_add("copy TTL with an IHL of 4", _IHL, [CopyTtlOut(), CopyTtlIn()], _IHL)


def _outer4(ttl: int = 90, **new: object) -> Packet:
    return IP(src="203.0.113.1", dst="203.0.113.2", id=9, ttl=ttl, **new)


def _outer6(hlim: int = 90) -> Packet:
    return IPv6(src="2001:db8:1::1", dst="2001:db8:1::2", hlim=hlim)


for _outer in (_outer4, _outer6):
    for _ip in (_v4, _v6):
        _name = f"{_outer().name} and {_ip().name}"
        _add(f"copy TTL out, {_name}", _ether(_outer(), _ip()), [CopyTtlOut()], _ether(_outer(30), _ip()))
        _add(f"copy TTL in, {_name}", _ether(_outer(), _ip()), [CopyTtlIn()], _ether(_outer(), _ip(90)))
_add(
    "copy TTL in behind options",
    _ether(_outer4(**_OPTIONS), _v4()),
    [CopyTtlIn()],
    _ether(_outer4(**_OPTIONS), _v4(90)),
)
_EXTENSIONS = (IPv6ExtHdrHopByHop(), IPv6ExtHdrDestOpt())
_add(
    "copy TTL in behind extension headers",
    _ether(_outer6(), *_EXTENSIONS, _v4()),
    [CopyTtlIn()],
    _ether(_outer6(), *_EXTENSIONS, _v4(90)),
)
_LATER = _ether(_outer4(proto=4, frag=3), _bare(_v4()))
_add("copy TTL of a later IPv4 fragment", _LATER, [CopyTtlOut(), CopyTtlIn()], _LATER)
_LATER = _ether(_outer6(), IPv6ExtHdrFragment(nh=4, offset=3, id=9), _bare(_v4()))
_add("copy TTL of a later IPv6 fragment", _LATER, [CopyTtlOut(), CopyTtlIn()], _LATER)
_FIRST = IPv6ExtHdrFragment(nh=4, m=1, id=9)
_add("copy TTL of a first fragment", _ether(_outer6(), _FIRST, _v4()), [CopyTtlIn()], _ether(_outer6(), _FIRST, _v4(90)))
_WRONG = _ether(_outer4(proto=41), _bare(_v4()))
_add("copy TTL with IPv4 said to be IPv6", _WRONG, [CopyTtlOut(), CopyTtlIn()], _WRONG)


# ── PBB ────────────────────────────────────────────────────────────────────────────────────────────────────────────────
def _pbb(
    customer: Packet | bytes, isid: int = 0, pcp: int = 0, flags: int = 0, b_tag: bytes = b"", src: str = SRC, dst: str = DST
) -> bytes:
    """MAC addresses, B-TAG, I-TAG of ``pcp``, 5 bits of ``flags`` and I-SID, and the customer's frame."""
    macs = bytes.fromhex((dst + src).replace(":", ""))
    return macs + b_tag + struct.pack(">HI", 0x88E7, pcp << 29 | flags << 24 | isid) + bytes(customer)


_B_TAG = bytes.fromhex("88a8a064")
for _name, _inner in (("IPv4", _ether(_v4())), ("IPv6", _ether(_v6())), ("ARP", _ether(_arp())), ("MPLS", _mpls(_entry(), _v4()))):
    _add(f"push PBB on {_name}", _inner, [PushPbb(0x88E7)], _pbb(_inner))
    _add(f"pop PBB to {_name}", _pbb(_inner, 100, 7, 31, src=NEW_MAC), [PopPbb()], _inner)
_add("push PBB on a tag: its PCP", _ether(C, _v4()), [PushPbb(0x88E7)], _pbb(_ether(C, _v4()), pcp=3))
_add("push PBB on two tags: the outer one's PCP", _ether(S, C, _v4()), [PushPbb(0x88E7)], _pbb(_ether(S, C, _v4()), pcp=6))
_INNER = _pbb(_ether(C, _v4()), 0x123456, 7, 31)
_add("push PBB on PBB: its I-SID alone", _INNER, [PushPbb(0x88E7)], _pbb(_INNER, 0x123456))
_INNER = _pbb(_ether(C, _v4()), 0x123456, b_tag=_B_TAG)
_add("push PBB on a B-TAG and PBB: PCP and I-SID", _INNER, [PushPbb(0x88E7)], _pbb(_INNER, 0x123456, 5))
_add(
    "push PBB, then set what is outside, then a B-TAG",
    _ether(C, _v4()),
    [PushPbb(0x88E7), _put("eth_src", mac(NEW_MAC)), _put("eth_dst", 1), _put("pbb_isid", 0xFEDCBA), PushTag(0x88A8, 0xA064)],
    _pbb(_ether(C, _v4()), 0xFEDCBA, 3, b_tag=_B_TAG, src=NEW_MAC, dst="00:00:00:00:00:01"),
)
_add(
    "PBB hides tags, IP and layer 4",
    _ether(C, _v4()),
    [PushPbb(0x88E7), _put("vlan_vid", 0x1009), PopTag(), _put("ipv4_src", 1), _put("udp_src", 1), DecTtl(), CopyTtlIn()],
    _pbb(_ether(C, _v4()), pcp=3),
)
_add(
    "pop PBB to two tags",
    _pbb(_ether(S, C, _v4()), 100),
    [PopPbb(), _put("vlan_vid", 0x1009)],
    _ether(Dot1AD(vlan=9, prio=6), C, _v4()),
)
_add("pop PBB to PBB", _pbb(_pbb(_ether(_v4()), 2), 1, src=NEW_MAC), [PopPbb()], _pbb(_ether(_v4()), 2))
_add(
    "pop PBB behind a B-TAG, which stays",
    _pbb(_ether(_v4()), 100, b_tag=_B_TAG, src=NEW_MAC, dst=NEW_MAC),
    [PopPbb()],
    _ether(Dot1AD(vlan=100, prio=5), _v4()),
)
_add("pop a B-TAG, then PBB", _pbb(_ether(_v4()), 100, b_tag=_B_TAG, src=NEW_MAC), [PopTag(), PopPbb()], _ether(_v4()))
_add(
    "pop PBB, then rewrite what comes to light",
    _pbb(_ether(C, _v6()), 100),
    [PopPbb(), PopTag(), DecTtl(), _put("eth_dst", mac(NEW_MAC))],
    _ether(_v6(29), dst=NEW_MAC),
)
_add("pop no PBB", _ether(_v4()), [PopPbb()], _ether(_v4()))
_SHORT = _pbb(bytes(13))
_add("pop PBB with 13 bytes of the customer's header", _SHORT, [PopPbb(), _put("pbb_isid", 1)], _pbb(bytes(13), 1))
_add("pop PBB with the customer's header alone", _pbb(_ether(eth_type=0x88B5)), [PopPbb()], _ether(eth_type=0x88B5))
_SHORT = _pbb(bytes(11))
_add("half a PBB header", _SHORT, [PopPbb(), _put("pbb_isid", 1)], _SHORT)
_add(
    "MPLS, then PBB, then a tag, and back",
    _ether(_v4()),
    [PushMpls(UC), PushPbb(0x88E7), PushTag(0x8100, 5), PopTag(), PopPbb(), PopMpls(0x0800)],
    _ether(_v4()),
)
_add(
    "the order of the action set",
    _ether(_v4()),
    [PushMpls(UC), PushPbb(0x88E7), PushTag(0x88A8, 0xA064)],
    _pbb(_mpls(_entry(0, 0, 1, 30), _v4()), b_tag=_B_TAG),
)
_add(
    "a runt is left as it is",
    RUNT,
    [PushMpls(UC), PopMpls(0x0800), PushPbb(0x88E7), PopPbb(), DecMplsTtl(), CopyTtlOut(), CopyTtlIn()],
    RUNT,
)


# ── a TTL that is used up ──────────────────────────────────────────────────────────────────────────────────────────────
def _emit(
    name: str, before: Packet, actions: list[DatapathAction], *emissions: tuple[Forward | Flood | Controller, Packet]
) -> None:
    leaving: Emissions = tuple((action, bytes(after)) for action, after in emissions)
    ENCAPSULATIONS.append(ExecutionVector(name, bytes(before), tuple(actions), leaving))


for _ttl in (0, 1):
    _packet = _mpls(_entry(ttl=_ttl), _v4())
    _emit(f"MPLS TTL {_ttl}", _packet, [DecMplsTtl(), OUT], (INVALID_TTL, _packet))
    _emit(f"MPLS TTL {_ttl}, DecTtl", _packet, [DecTtl(), OUT], (OUT, _packet))
for _tag in ((S, C), (C,)):
    _add(
        "a tag pushed on MPLS and popped again, with " + " and ".join(str(layer.vlan) for layer in _tag) + " below",
        _ether(*_tag, _v4()),
        [PushMpls(UC), PushTag(0x8100, 1), PopTag()],
        _mpls(_entry(0, 0, 1, 30), _bare(_ether(*_tag, _v4()).payload)),
    )
_two_tags = (S, C, _entry(ttl=255), _bare(_v4()))
_emit(
    "a third tag hides the TTL that a new entry copies",
    _ether(*_two_tags, eth_type=0x88A8),
    [PushTag(0x8100, 1), PushMpls(UC), DecMplsTtl(), OUT],
    (INVALID_TTL, _mpls(_entry(label=0, tc=0, ttl=0), _bare(Dot1Q(vlan=1, type=0x88A8) / S / C / _entry(ttl=255) / _bare(_v4())))),
)
_emit(
    "MPLS TTL used up on the way",
    _mpls(_entry(ttl=2), _v4()),
    [DecMplsTtl(), Forward(1), DecMplsTtl(), PopMpls(0x0800), OUT],
    (Forward(1), _mpls(_entry(ttl=1), _v4())),
    (INVALID_TTL, _mpls(_entry(ttl=1), _v4())),
)
_emit(
    "each output as it is then, in MPLS",
    _ether(_v4()),
    [PushMpls(UC), Forward(1), DecMplsTtl(), Flood(), PopMpls(0x0800), OUT],
    (Forward(1), _mpls(_entry(0, 0, 1, 30), _v4())),
    (Flood(), _mpls(_entry(0, 0, 1, 29), _v4())),
    (OUT, _ether(_v4())),
)
