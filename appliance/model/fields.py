"""The one table of header fields: everything that knows where a field lies, how wide it is or who may set it reads it here.

A *flow key* is one integer of 1,024 bits, laid out byte for byte, big-endian, as ``struct flow_key`` in ``bpf_prog/abi.h``;
``int.from_bytes(raw, "big")`` turns one into the other. A field is a run of bits in it. Fields that can never be in the same
packet share bits (IPv4, IPv6 and ARP addresses; TCP, UDP and SCTP ports, ICMP type and code, ARP opcode; MPLS and PBB, behind
which nothing is parsed, with what only IPv6 has): their prerequisites keep them apart, because every match on one of them also
matches on ``eth_type`` (and ``ip_proto``).

Invariant: no other module knows an offset.
Source: OpenFlow Switch Specification 1.3.5, section 7.2.3.7, tables 11 and 12.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum, IntFlag

KEY_BYTES = 128
KEY_BITS = KEY_BYTES * 8
KEY_MASK = (1 << KEY_BITS) - 1

OFPXMC_NXM_1 = 0x0001
"""Nicira's extensions: what OpenFlow has no number of its own for goes by theirs, as in Open vSwitch."""
OFPXMC_OPENFLOW_BASIC = 0x8000
OFPXMC_EXPERIMENTER = 0xFFFF

ETH_TYPE_IPV4 = 0x0800
ETH_TYPE_ARP = 0x0806
ETH_TYPE_VLAN = 0x8100
ETH_TYPE_IPV6 = 0x86DD
ETH_TYPE_MPLS = 0x8847
ETH_TYPE_MPLS_MULTICAST = 0x8848
ETH_TYPE_QINQ = 0x88A8
ETH_TYPE_PBB = 0x88E7

IP_PROTO_ICMP = 1
IP_PROTO_TCP = 6
IP_PROTO_UDP = 17
IP_PROTO_ICMPV6 = 58
IP_PROTO_SCTP = 132

ICMPV6_ND_SOLICIT = 135
ICMPV6_ND_ADVERT = 136

VLAN_PRESENT = 0x1000
"""OFPVID_PRESENT: the bit of ``vlan_vid`` that says that the packet has a tag (in the frame, the drop-eligible bit's place)."""

MAX_VLAN_TAGS = 2
"""Tags that the parser looks through; a packet with more has ``eth_type`` 0x8100 or 0x88a8."""

MAX_IPV6_EXTENSION_HEADERS = 8
MAX_ND_OPTIONS = 4
MAX_HEADER_BYTES = 512
"""A header that would end further than this from the start of the frame (tags in metadata not counted) is treated as absent."""


class Layer(IntFlag):
    """Which headers the parser found whole: the ``layers`` word of the flow key.

    An action on a header that is not there does nothing, in every tier; a translation that sets a field therefore depends on
    the field's layer bit, and says so in the megaflow's mask.
    """

    NONE = 0
    MPLS = 1 << 0
    PBB = 1 << 1
    ARP = 1 << 2
    IPV4 = 1 << 3
    IPV6 = 1 << 4
    TCP = 1 << 5
    UDP = 1 << 6
    SCTP = 1 << 7
    ICMP = 1 << 8
    """ICMP in IPv4, or ICMPv6 in IPv6."""
    ND = 1 << 9
    """Neighbour solicitation or advertisement with its target."""
    ND_SLL = 1 << 10
    ND_TLL = 1 << 11
    IP = IPV4 | IPV6


class Fragment(int, Enum):
    """The ``ip_frag`` byte of the flow key. Only a packet that is not a later fragment has layer-4 fields."""

    NONE = 0
    FIRST = 1
    LATER = 2


class ExtHdr(IntFlag):
    """OFPIEH_*: IPv6 extension header pseudo-field (specification 1.3.5, section 7.2.3.8)."""

    NONEXT = 1 << 0
    ESP = 1 << 1
    AUTH = 1 << 2
    DEST = 1 << 3
    FRAG = 1 << 4
    ROUTER = 1 << 5
    HOP = 1 << 6
    UNREP = 1 << 7
    UNSEQ = 1 << 8


@dataclass(frozen=True, slots=True)
class Prerequisite:
    """The match must hold ``field`` with one of ``values``; with no values, any value but "no tag" will do (``vlan_vid``)."""

    field: str
    values: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Field:
    """One field of the flow key. There is one object of each: compared by identity.

    ``bits`` is the width of a value, ``shift`` the place of its lowest bit in the key. ``oxm`` is the number in the class
    ``oxm_class`` and ``oxm_length`` the bytes of a value on the wire; -1 and 0 for fields that cannot be matched.
    ``layer`` is the header that a packet must have for the field to exist (any of its bits is enough).
    """

    name: str
    bits: int
    shift: int
    oxm: int = -1
    oxm_length: int = 0
    maskable: bool = False
    settable: bool = False
    layer: Layer = Layer.NONE
    prerequisites: tuple[Prerequisite, ...] = ()
    display: str = "dec"
    """How a value is printed: dec, hex, mac, ipv4 or ipv6."""
    oxm_class: int = OFPXMC_OPENFLOW_BASIC
    max: int = field(init=False, repr=False)
    """The largest value, also the mask of an exact match, not shifted."""
    mask: int = field(init=False, repr=False)
    """The field's bits in the flow key."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "max", (1 << self.bits) - 1)
        object.__setattr__(self, "mask", self.max << self.shift)

    def get(self, key: int) -> int:
        """The field's value in a flow key (or in a mask)."""
        return (key >> self.shift) & self.max

    def put(self, key: int, value: int) -> int:
        """The flow key with this field changed to ``value``."""
        return (key & ~self.mask) | (value << self.shift)


# ── the layout: byte offsets of struct flow_key ────────────────────────────────────────────────────────────────────────
LAYOUT: dict[str, tuple[int, int]] = {
    # member of struct flow_key: (offset, size) in bytes; the test of abi.h against this table compiles the header
    "metadata": (0, 8),
    "tunnel_id": (8, 8),
    "tun_src": (16, 4),
    "tun_dst": (20, 4),
    "in_port": (24, 4),
    "vlan_tci": (28, 2),
    "inner_vlan_tci": (30, 2),
    "eth_dst": (32, 6),
    "eth_src": (38, 6),
    "eth_type": (44, 2),
    "layers": (46, 2),
    "l4_src": (48, 2),
    "l4_dst": (50, 2),
    "ip_ttl": (52, 1),
    "ip_proto": (53, 1),
    "ip_frag": (54, 1),
    "ip_tos": (55, 1),
    "ipv6_flabel": (56, 4),
    "ip_src": (60, 16),
    "ip_dst": (76, 16),
    "tcp_flags": (92, 2),
    "ipv6_exthdr": (94, 2),
    "nd_target": (96, 16),
    "nd_sll": (112, 6),
    "nd_tll": (118, 6),
    "plugin_bits": (124, 4),
}
"""Every byte of the key once. What most packets have lies close together: of an IPv4 packet only words 3, 4, 5, 6, 9 and, for TCP's
flags, 11 are not 0, so that eBPF hashes and compares no more. IPv4 and ARP addresses are the last four bytes of ``ip_src`` and the
first four of ``ip_dst``: one word."""

SHARED: dict[str, tuple[int, int]] = {
    "mpls": (LAYOUT["nd_target"][0], 4),
    "pbb": LAYOUT["ipv6_flabel"],
}
"""Members that lie where another one does."""


def _shift(member: str, low: int = 0) -> int:
    """The place in the key of bit ``low`` of a member of struct flow_key."""
    offset, size = LAYOUT.get(member) or SHARED[member]
    return (KEY_BYTES - offset - size) * 8 + low


def _eth_type(*values: int) -> tuple[Prerequisite, ...]:
    return (Prerequisite("eth_type", values),)


def _ip_proto(value: int) -> tuple[Prerequisite, ...]:
    return (Prerequisite("ip_proto", (value,)),)


_IP = _eth_type(ETH_TYPE_IPV4, ETH_TYPE_IPV6)
_IPV4 = _eth_type(ETH_TYPE_IPV4)
_IPV6 = _eth_type(ETH_TYPE_IPV6)
_ARP = _eth_type(ETH_TYPE_ARP)
_MPLS = _eth_type(ETH_TYPE_MPLS, ETH_TYPE_MPLS_MULTICAST)
_ND = (Prerequisite("icmpv6_type", (ICMPV6_ND_SOLICIT, ICMPV6_ND_ADVERT)),)


def _oxm(
    oxm: int,
    name: str,
    bits: int,
    length: int,
    shift: int,
    *,
    mask: bool = False,
    settable: bool = True,
    layer: Layer = Layer.NONE,
    needs: tuple[Prerequisite, ...] = (),
    display: str = "dec",
) -> Field:
    return Field(name, bits, shift, oxm, length, mask, settable, layer, needs, display)


def _l4(oxm: int, name: str, member: str, layer: Layer, proto: int, bits: int = 16) -> Field:
    return _oxm(oxm, name, bits, bits // 8, _shift(member), layer=layer, needs=_ip_proto(proto))


OXM_FIELDS: tuple[Field, ...] = (
    _oxm(0, "in_port", 32, 4, _shift("in_port"), settable=False),
    # This switch has no port groups: the physical port is the port. The key therefore holds it once.
    _oxm(1, "in_phy_port", 32, 4, _shift("in_port"), settable=False, needs=(Prerequisite("in_port", ()),)),
    _oxm(2, "metadata", 64, 8, _shift("metadata"), mask=True, settable=False, display="hex"),
    _oxm(3, "eth_dst", 48, 6, _shift("eth_dst"), mask=True, display="mac"),
    _oxm(4, "eth_src", 48, 6, _shift("eth_src"), mask=True, display="mac"),
    _oxm(5, "eth_type", 16, 2, _shift("eth_type"), display="hex"),
    _oxm(6, "vlan_vid", 13, 2, _shift("vlan_tci"), mask=True),
    _oxm(7, "vlan_pcp", 3, 1, _shift("vlan_tci", 13), needs=(Prerequisite("vlan_vid", ()),)),
    _oxm(8, "ip_dscp", 6, 1, _shift("ip_tos", 2), layer=Layer.IP, needs=_IP),
    _oxm(9, "ip_ecn", 2, 1, _shift("ip_tos"), layer=Layer.IP, needs=_IP),
    _oxm(10, "ip_proto", 8, 1, _shift("ip_proto"), layer=Layer.IP, needs=_IP),
    _oxm(11, "ipv4_src", 32, 4, _shift("ip_src"), mask=True, layer=Layer.IPV4, needs=_IPV4, display="ipv4"),
    _oxm(12, "ipv4_dst", 32, 4, _shift("ip_dst", 96), mask=True, layer=Layer.IPV4, needs=_IPV4, display="ipv4"),
    _l4(13, "tcp_src", "l4_src", Layer.TCP, IP_PROTO_TCP),
    _l4(14, "tcp_dst", "l4_dst", Layer.TCP, IP_PROTO_TCP),
    _l4(15, "udp_src", "l4_src", Layer.UDP, IP_PROTO_UDP),
    _l4(16, "udp_dst", "l4_dst", Layer.UDP, IP_PROTO_UDP),
    _l4(17, "sctp_src", "l4_src", Layer.SCTP, IP_PROTO_SCTP),
    _l4(18, "sctp_dst", "l4_dst", Layer.SCTP, IP_PROTO_SCTP),
    _l4(19, "icmpv4_type", "l4_src", Layer.ICMP, IP_PROTO_ICMP, 8),
    _l4(20, "icmpv4_code", "l4_dst", Layer.ICMP, IP_PROTO_ICMP, 8),
    _oxm(21, "arp_op", 16, 2, _shift("l4_src"), layer=Layer.ARP, needs=_ARP),
    _oxm(22, "arp_spa", 32, 4, _shift("ip_src"), mask=True, layer=Layer.ARP, needs=_ARP, display="ipv4"),
    _oxm(23, "arp_tpa", 32, 4, _shift("ip_dst", 96), mask=True, layer=Layer.ARP, needs=_ARP, display="ipv4"),
    _oxm(24, "arp_sha", 48, 6, _shift("nd_sll"), mask=True, layer=Layer.ARP, needs=_ARP, display="mac"),
    _oxm(25, "arp_tha", 48, 6, _shift("nd_tll"), mask=True, layer=Layer.ARP, needs=_ARP, display="mac"),
    _oxm(26, "ipv6_src", 128, 16, _shift("ip_src"), mask=True, layer=Layer.IPV6, needs=_IPV6, display="ipv6"),
    _oxm(27, "ipv6_dst", 128, 16, _shift("ip_dst"), mask=True, layer=Layer.IPV6, needs=_IPV6, display="ipv6"),
    _oxm(28, "ipv6_flabel", 20, 4, _shift("ipv6_flabel"), mask=True, layer=Layer.IPV6, needs=_IPV6, display="hex"),
    _l4(29, "icmpv6_type", "l4_src", Layer.ICMP, IP_PROTO_ICMPV6, 8),
    _l4(30, "icmpv6_code", "l4_dst", Layer.ICMP, IP_PROTO_ICMPV6, 8),
    _oxm(31, "ipv6_nd_target", 128, 16, _shift("nd_target"), layer=Layer.ND, needs=_ND, display="ipv6"),
    _oxm(
        32,
        "ipv6_nd_sll",
        48,
        6,
        _shift("nd_sll"),
        layer=Layer.ND_SLL,
        needs=(Prerequisite("icmpv6_type", (ICMPV6_ND_SOLICIT,)),),
        display="mac",
    ),
    _oxm(
        33,
        "ipv6_nd_tll",
        48,
        6,
        _shift("nd_tll"),
        layer=Layer.ND_TLL,
        needs=(Prerequisite("icmpv6_type", (ICMPV6_ND_ADVERT,)),),
        display="mac",
    ),
    _oxm(34, "mpls_label", 20, 4, _shift("mpls", 12), layer=Layer.MPLS, needs=_MPLS),
    _oxm(35, "mpls_tc", 3, 1, _shift("mpls", 9), layer=Layer.MPLS, needs=_MPLS),
    _oxm(36, "mpls_bos", 1, 1, _shift("mpls", 8), layer=Layer.MPLS, needs=_MPLS),
    _oxm(37, "pbb_isid", 24, 3, _shift("pbb"), mask=True, layer=Layer.PBB, needs=_eth_type(ETH_TYPE_PBB)),
    _oxm(38, "tunnel_id", 64, 8, _shift("tunnel_id"), mask=True, display="hex"),
    _oxm(39, "ipv6_exthdr", 9, 2, _shift("ipv6_exthdr"), mask=True, settable=False, layer=Layer.IPV6, needs=_IPV6, display="hex"),
)
"""The 40 fields of OpenFlow 1.3, in the order of their numbers."""

EXTENSION_FIELDS: tuple[Field, ...] = (
    # The addresses of the tunnel that the packet came by, or is to go by (ovs-fields(7)).
    replace(_oxm(31, "tun_src", 32, 4, _shift("tun_src"), mask=True, display="ipv4"), oxm_class=OFPXMC_NXM_1),
    replace(_oxm(32, "tun_dst", 32, 4, _shift("tun_dst"), mask=True, display="ipv4"), oxm_class=OFPXMC_NXM_1),
)

MATCH_FIELDS: tuple[Field, ...] = (*OXM_FIELDS, *EXTENSION_FIELDS)
"""All that can be matched."""

INTERNAL_FIELDS: tuple[Field, ...] = (
    # Not to be matched in OpenFlow 1.3, but read from the packet: actions and translation need them.
    Field("mpls_ttl", 8, _shift("mpls"), settable=True, layer=Layer.MPLS),
    Field("inner_vlan_tci", 16, _shift("inner_vlan_tci"), display="hex"),
    Field("layers", 16, _shift("layers"), display="hex"),
    Field("ip_ttl", 8, _shift("ip_ttl"), settable=True, layer=Layer.IP),
    Field("ip_frag", 8, _shift("ip_frag")),
    Field("tcp_flags", 16, _shift("tcp_flags"), layer=Layer.TCP, display="hex"),
    Field("vlan_tci", 16, _shift("vlan_tci"), display="hex"),
)

PLUGIN_BITS = Field("plugin_bits", 32, _shift("plugin_bits"), 0, 4, maskable=True, display="hex", oxm_class=OFPXMC_EXPERIMENTER)
"""What plug-ins' matches say of the packet as it came in (``model.plugin``). Only a switch that has some can match it."""

BY_NAME: dict[str, Field] = {field.name: field for field in (*MATCH_FIELDS, *INTERNAL_FIELDS, PLUGIN_BITS)}
BY_OXM: dict[tuple[int, int], Field] = {(field.oxm_class, field.oxm): field for field in MATCH_FIELDS}
"""By class and number."""

IN_PORT = BY_NAME["in_port"]
METADATA = BY_NAME["metadata"]
TUNNEL_ID = BY_NAME["tunnel_id"]
TUN_SRC = BY_NAME["tun_src"]
TUN_DST = BY_NAME["tun_dst"]
ETH_DST = BY_NAME["eth_dst"]
ETH_SRC = BY_NAME["eth_src"]
ETH_TYPE = BY_NAME["eth_type"]
VLAN_VID = BY_NAME["vlan_vid"]
VLAN_PCP = BY_NAME["vlan_pcp"]
VLAN_TCI = BY_NAME["vlan_tci"]
INNER_VLAN_TCI = BY_NAME["inner_vlan_tci"]
LAYERS = BY_NAME["layers"]
IP_PROTO = BY_NAME["ip_proto"]
IP_TTL = BY_NAME["ip_ttl"]
IP_FRAG = BY_NAME["ip_frag"]
MPLS_TTL = BY_NAME["mpls_ttl"]
