"""Bytes to flow key: the exact rules of what the switch sees in a packet. bpf_prog/ follows the same ones.

Invariant: any bytes have one flow key, and no bytes raise. A header is there whole or not at all: all its bytes lie in the
frame and it ends no further than MAX_HEADER_BYTES from the frame's start, the parsed VLAN tags not counted (at TC the outermost
one may lie in metadata). A header that is not there leaves its members of the key 0 and its Layer bit clear, and ends the parse.

Ethernet
    Fewer than 14 bytes: the key holds ``in_port`` and the tunnel's fields alone (the fast path drops such a frame as RUNT).
    Up to MAX_VLAN_TAGS tags are looked through, of type 0x8100 or 0x88a8 in any mixture. A tag is there if the 4 bytes behind
    its type (the TCI and the next type) lie in the frame; else the parse ends with ``eth_type`` that type. A further tag
    likewise: ``eth_type`` 0x8100 or 0x88a8. ``vlan_tci`` is the outermost tag's TCI, ``inner_vlan_tci`` the next one's, with
    VLAN_PRESENT in the place of the drop-eligible bit; 0 without a tag. ``eth_type`` is the type behind the parsed tags. One
    below 0x600, an 802.3 length, is a value like any other, with nothing parsed behind it.
MPLS (0x8847, 0x8848)
    4 bytes: the label stack entry as it is. Nothing behind it is parsed.
PBB (0x88e7)
    16 bytes, the I-TAG and the customer's MAC addresses: ``pbb`` is the I-SID. Nothing behind it is parsed.
ARP (0x0806)
    28 bytes of hardware type 1, protocol type 0x0800, address lengths 6 and 4; otherwise it is not there. The opcode is in
    ``l4_src``, the addresses in ``ip_src``, ``ip_dst``, ``nd_sll`` (sender) and ``nd_tll`` (target).
IPv4 (0x0800)
    Version 4, IHL at least 5, options included; not the checksum nor the total length. ``ip_frag`` is LATER if the fragment
    offset is not 0, FIRST if it is 0 and MF is set.
IPv6 (0x86dd)
    Version 6, 40 bytes; not the payload length. ``ip_ttl`` is the hop limit, ``ip_tos`` the traffic class. Then the next headers
    are walked, at most MAX_IPV6_EXTENSION_HEADERS of them (ESP and NONEXT included): HOP 0, ROUTER 43, FRAG 44, AUTH 51, DEST 60
    are walked over, ESP 50 and NONEXT 59 end the walk. Lengths: (len + 1) * 8, FRAG 8, AUTH (len + 2) * 4. The walk also ends,
    without their bits, at a header that is not whole (ESP and NONEXT need no bytes), or past the greatest number of headers, or at
    a number that is none of these. ``ip_proto`` is the number that it ended at.
    FRAG: an offset other than 0 makes ``ip_frag`` LATER and ends the walk, ``ip_proto`` being its next header; offset 0 with
    M makes it FIRST; offset 0 without M (atomic) changes nothing.
    ``ipv6_exthdr``: the ExtHdr bit of each header walked. UNREP: one had come before, except that DEST may come twice once
    ROUTER has come. UNSEQ: one's rank is lower than the highest so far, ranks being HOP 0, DEST 1 while none of ROUTER, FRAG,
    AUTH, ESP has come and 6 afterwards, ROUTER 2, FRAG 3, AUTH 4, ESP 5; NONEXT has none.
Layer 4, unless ``ip_frag`` is LATER
    TCP 6: 20 bytes (``tcp_flags``: the low 12 bits of bytes 12 and 13). UDP 17: 8. SCTP 132: 12. ICMP 1 in IPv4 and ICMPv6 58 in
    IPv6: 4, the type in ``l4_src`` and the code in ``l4_dst``. Any other number has no layer 4.
Neighbour discovery
    ICMPv6 type 135 or 136 with code 0 and 24 bytes. Options follow, at most MAX_ND_OPTIONS; one of length 0 or not whole ends
    the walk. ``nd_sll`` is the first option of type 1 and length 1 in a 135, ``nd_tll`` the first of type 2 and length 1 in a 136.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from struct import Struct
from typing import NamedTuple

from appliance.model.fields import (
    ETH_TYPE_ARP,
    ETH_TYPE_IPV4,
    ETH_TYPE_IPV6,
    ETH_TYPE_MPLS,
    ETH_TYPE_MPLS_MULTICAST,
    ETH_TYPE_PBB,
    ETH_TYPE_QINQ,
    ETH_TYPE_VLAN,
    ICMPV6_ND_ADVERT,
    ICMPV6_ND_SOLICIT,
    IP_PROTO_ICMP,
    IP_PROTO_ICMPV6,
    IP_PROTO_SCTP,
    IP_PROTO_TCP,
    IP_PROTO_UDP,
    LAYOUT,
    MAX_HEADER_BYTES,
    MAX_IPV6_EXTENSION_HEADERS,
    MAX_ND_OPTIONS,
    TUN_DST,
    TUN_SRC,
    VLAN_PRESENT,
    ExtHdr,
    Fragment,
    Layer,
)

ETHERNET_BYTES = 14
IPV4_BYTES = 20
IPV6_BYTES = 40
TCP_BYTES = 20
UDP_BYTES = 8
SCTP_BYTES = 12
ICMP_BYTES = 4
TAG_TYPES = frozenset((ETH_TYPE_VLAN, ETH_TYPE_QINQ))
MPLS_TYPES = frozenset((ETH_TYPE_MPLS, ETH_TYPE_MPLS_MULTICAST))
PBB_ISID_MASK = 0xFFFFFF
FLABEL_MASK = 0xFFFFF
TCP_FLAGS_MASK = 0x0FFF

IP_PROTO_HOP = 0
IP_PROTO_ROUTER = 43
IP_PROTO_FRAG = 44
IP_PROTO_ESP = 50
IP_PROTO_AUTH = 51
IP_PROTO_NONEXT = 59
IP_PROTO_DEST = 60


class ParsedPacket(NamedTuple):
    """What ``parse`` found. Offsets count from the frame's start; 0 says that there is no such header."""

    key: int
    """The flow key: KEY_BITS bits, big-endian ``struct flow_key``; ``metadata`` is 0."""
    layers: int = 0
    """Bits of Layer (a plain int: operations on IntFlag are slow)."""
    tags: int = 0
    """VLAN tags parsed."""
    eth_type_offset: int = 0
    """Offset of the type behind the parsed tags, 0 in a frame without an Ethernet header."""
    l3_offset: int = 0
    """Offset of what follows that type: MPLS entry, I-TAG, ARP, IPv4 or IPv6 header, if ``layers`` has one."""
    ip_proto_offset: int = 0
    """Offset of the byte that ``ip_proto`` was read from: IPv4 protocol, or the last next-header byte of IPv6."""
    l4_offset: int = 0
    """Offset of the TCP, UDP, SCTP, ICMP or ICMPv6 header."""
    nd_lladdr_offset: int = 0
    """Offset of the address in the option behind ND_SLL or ND_TLL. The ND target is at ``l4_offset`` + 8."""


_CODES = {1: "B", 2: "H", 4: "I", 6: "6s", 8: "Q", 16: "16s"}
_HEAD = tuple(LAYOUT)[: tuple(LAYOUT).index("layers")]
_TAIL = tuple(LAYOUT)[len(_HEAD) :]


def _packer(members: Iterable[str], given: Iterable[str], special: Mapping[str, str] | None = None) -> Callable[..., bytes]:
    """A function from the ``given`` members, in the order of LAYOUT, to the bytes of ``members`` in the key; the others are 0."""
    wanted = set(given)
    size = {name: LAYOUT[name][1] for name in members}
    codes = (
        f"{size[name]}x" if name not in wanted else special[name] if special and name in special else _CODES[size[name]]
        for name in members
    )
    return Struct(">" + "".join(codes)).pack


_ADDRESSES_4 = {"ip_src": "12xI", "ip_dst": "I12x"}
"""IPv4 addresses in 16-byte members: one word of the key."""
_IP_MEMBERS = ("layers", "ip_src", "ip_dst", "l4_src", "l4_dst", "ip_ttl", "ip_proto", "ip_frag", "ip_tos", "tcp_flags")
_pack_head = _packer(_HEAD, ("tunnel_id", "in_port", "vlan_tci", "inner_vlan_tci", "eth_dst", "eth_src", "eth_type"))
_pack_arp = _packer(_TAIL, ("layers", "ip_src", "ip_dst", "nd_sll", "nd_tll", "l4_src"), _ADDRESSES_4)
_pack_ipv4 = _packer(_TAIL, _IP_MEMBERS, _ADDRESSES_4)
_pack_ipv6 = _packer(_TAIL, (*_IP_MEMBERS, "nd_target", "nd_sll", "nd_tll", "ipv6_flabel", "ipv6_exthdr"))
# An MPLS entry and an I-SID share the place of an IPv6 header's members (``SHARED``): the first bytes of the one, all of the other.
_pack_mpls = _packer(_TAIL, ("layers", "nd_target"))
_pack_pbb = _packer(_TAIL, ("layers", "ipv6_flabel"))
_pack_layers = _packer(_TAIL, ("layers",))

_TUN_SRC = TUN_SRC.shift
_TUN_DST = TUN_DST.shift

_ethernet = Struct(">6s6sH").unpack_from
_tag = Struct(">HH").unpack_from
_word = Struct(">I").unpack_from
_arp = Struct(">HHBBH6sI6sI").unpack_from
_ipv4 = Struct(">BB4xHBB2xII").unpack_from
_ipv6 = Struct(">I2xBB16s16s").unpack_from
_tcp = Struct(">HH8xH").unpack_from
_ports = Struct(">HH").unpack_from
_type_and_code = Struct(">BB").unpack_from
_fragment = Struct(">H").unpack_from
_nd_target = Struct(">16s").unpack_from
_lladdr = Struct(">6s").unpack_from

_ARP_IPV4_OVER_ETHERNET = (1, ETH_TYPE_IPV4, 6, 4)
_IPV4_FRAGMENT_OFFSET = 0x1FFF
_IPV4_MORE_FRAGMENTS = 0x2000
_IPV6_FRAGMENT_OFFSET = 0xFFF8
_IPV6_MORE_FRAGMENTS = 0x0001
_ND_OPTION = {
    # ICMPv6 type: (type and length of the option, bit)
    ICMPV6_ND_SOLICIT: ((1, 1), Layer.ND_SLL.value),
    ICMPV6_ND_ADVERT: ((2, 1), Layer.ND_TLL.value),
}

# IntFlag members as plain integers: an operation on IntFlag costs a microsecond.
_MPLS = Layer.MPLS.value
_PBB = Layer.PBB.value
_ARP = Layer.ARP.value
_IPV4 = Layer.IPV4.value
_IPV6 = Layer.IPV6.value
_TCP = Layer.TCP.value
_UDP = Layer.UDP.value
_SCTP = Layer.SCTP.value
_ICMP = Layer.ICMP.value
_ND = Layer.ND.value
_ND_SLL = Layer.ND_SLL.value
_WHOLE = Fragment.NONE.value
_FIRST = Fragment.FIRST.value
_LATER = Fragment.LATER.value

_EXTENSIONS = {
    # number: (bit, rank)
    IP_PROTO_HOP: (ExtHdr.HOP.value, 0),
    IP_PROTO_ROUTER: (ExtHdr.ROUTER.value, 2),
    IP_PROTO_FRAG: (ExtHdr.FRAG.value, 3),
    IP_PROTO_AUTH: (ExtHdr.AUTH.value, 4),
    IP_PROTO_ESP: (ExtHdr.ESP.value, 5),
    IP_PROTO_DEST: (ExtHdr.DEST.value, 6),
    IP_PROTO_NONEXT: (ExtHdr.NONEXT.value, 7),
}
_EARLY_DEST_RANK = 1
_BEFORE_LATE_DEST = (ExtHdr.ROUTER | ExtHdr.FRAG | ExtHdr.AUTH | ExtHdr.ESP).value
_ROUTER = ExtHdr.ROUTER.value
_UNREP = ExtHdr.UNREP.value
_UNSEQ = ExtHdr.UNSEQ.value

_Network = tuple[bytes, int, int, int, int]
"""The key's bytes from ``layers`` on, ``layers``, and the offsets of ``ip_proto``, layer 4 and the link-layer address."""
_NOTHING: _Network = (_pack_layers(0), 0, 0, 0, 0)


def parse(frame: bytes | bytearray, in_port: int, tunnel_id: int = 0, tun_src: int = 0, tun_dst: int = 0) -> ParsedPacket:
    """The flow key and the offsets of the headers, by the rules above. Takes any bytes and never raises.

    ``in_port`` (32 bits), ``tunnel_id`` (64 bits) and the tunnel's addresses (IPv4, 32 bits) go into the key as they are.
    """
    length = len(frame)
    tunnel = tun_src << _TUN_SRC | tun_dst << _TUN_DST if tun_src or tun_dst else 0
    if length < ETHERNET_BYTES:
        return ParsedPacket(int.from_bytes(_pack_head(tunnel_id, in_port, 0, 0, b"", b"", 0) + _NOTHING[0], "big") | tunnel)

    eth_dst, eth_src, eth_type = _ethernet(frame)
    type_offset = 12
    vlan_tci = inner_vlan_tci = 0
    if eth_type in TAG_TYPES and length >= 18:
        vlan_tci, eth_type = _tag(frame, 14)
        vlan_tci |= VLAN_PRESENT
        type_offset = 16
        if eth_type in TAG_TYPES and length >= 22:
            inner_vlan_tci, eth_type = _tag(frame, 18)
            inner_vlan_tci |= VLAN_PRESENT
            type_offset = 20

    l3 = type_offset + 2
    end = end_of_headers(length, type_offset)
    network = _NOTHING
    if eth_type == ETH_TYPE_IPV4:
        network = _parse_ipv4(frame, l3, end)
    elif eth_type == ETH_TYPE_IPV6:
        network = _parse_ipv6(frame, l3, end)
    elif eth_type == ETH_TYPE_ARP:
        network = _parse_arp(frame, l3, end)
    elif eth_type in MPLS_TYPES and l3 + 4 <= end:
        network = (_pack_mpls(_MPLS, frame[l3 : l3 + 4]), _MPLS, 0, 0, 0)
    elif eth_type == ETH_TYPE_PBB and l3 + 16 <= end:
        network = (_pack_pbb(_PBB, _word(frame, l3)[0] & PBB_ISID_MASK), _PBB, 0, 0, 0)

    head = _pack_head(tunnel_id, in_port, vlan_tci, inner_vlan_tci, eth_dst, eth_src, eth_type)
    tail, layers, proto_offset, l4, nd_lladdr = network
    return ParsedPacket(
        int.from_bytes(head + tail, "big") | tunnel, layers, (type_offset - 12) >> 2, type_offset, l3, proto_offset, l4, nd_lladdr
    )


def end_of_headers(length: int, eth_type_offset: int) -> int:
    """Where a header must end at the latest, in a frame of ``length`` bytes."""
    return min(length, MAX_HEADER_BYTES + eth_type_offset - 12)


def ip_payload_offset(frame: bytes | bytearray, parsed: ParsedPacket) -> int:
    """Offset of what follows the IP header with its options, or the extension headers walked. ``parsed`` must have IPv4 or IPv6."""
    l3 = parsed.l3_offset
    if parsed.layers & _IPV4:
        return l3 + (frame[l3] & 15) * 4
    end = end_of_headers(len(frame), parsed.eth_type_offset)
    return _walk_extensions(frame, l3 + 6, l3 + IPV6_BYTES, end)[1]


def _parse_arp(frame: bytes | bytearray, l3: int, end: int) -> _Network:
    if l3 + 28 > end:
        return _NOTHING
    hardware, protocol, hlen, plen, op, sha, spa, tha, tpa = _arp(frame, l3)
    if (hardware, protocol, hlen, plen) != _ARP_IPV4_OVER_ETHERNET:
        return _NOTHING
    return _pack_arp(_ARP, op, spa, tpa, sha, tha), _ARP, 0, 0, 0


def _parse_ipv4(frame: bytes | bytearray, l3: int, end: int) -> _Network:
    if l3 + IPV4_BYTES > end:
        return _NOTHING
    version_ihl, tos, fragment_word, ttl, proto, src, dst = _ipv4(frame, l3)
    l4 = l3 + (version_ihl & 15) * 4
    if not 0x45 <= version_ihl <= 0x4F or l4 > end:
        return _NOTHING
    layer = l4_src = l4_dst = flags = 0
    if fragment_word & _IPV4_FRAGMENT_OFFSET:
        fragment = _LATER
    else:
        fragment = _FIRST if fragment_word & _IPV4_MORE_FRAGMENTS else _WHOLE
        layer, l4_src, l4_dst, flags = _parse_l4(frame, l4, end, proto, IP_PROTO_ICMP)
    layers = _IPV4 | layer
    tail = _pack_ipv4(layers, l4_src, l4_dst, ttl, proto, fragment, tos, src, dst, flags)
    return tail, layers, l3 + 9, l4 if layer else 0, 0


def _parse_ipv6(frame: bytes | bytearray, l3: int, end: int) -> _Network:
    l4 = l3 + IPV6_BYTES
    if l4 > end or frame[l3] >> 4 != 6:
        return _NOTHING
    word, proto, ttl, src, dst = _ipv6(frame, l3)
    proto_offset = l3 + 6
    fragment = _WHOLE
    extensions = layer = l4_src = l4_dst = flags = nd_lladdr = 0
    target = sll = tll = b""
    if proto in _EXTENSIONS:
        proto_offset, l4, extensions, fragment = _walk_extensions(frame, proto_offset, l4, end)
        proto = frame[proto_offset]
    if fragment != _LATER:
        layer, l4_src, l4_dst, flags = _parse_l4(frame, l4, end, proto, IP_PROTO_ICMPV6)
        if layer == _ICMP and l4_src in _ND_OPTION and l4_dst == 0 and l4 + 24 <= end:
            (target,) = _nd_target(frame, l4 + 8)
            option, nd_lladdr = _find_nd_option(frame, l4 + 24, end, l4_src)
            layer |= _ND | option
            if option:
                (address,) = _lladdr(frame, nd_lladdr)
                sll, tll = (address, b"") if option == _ND_SLL else (b"", address)
    layers = _IPV6 | layer
    tail = _pack_ipv6(
        layers,
        l4_src,
        l4_dst,
        ttl,
        proto,
        fragment,
        word >> 20 & 0xFF,
        word & FLABEL_MASK,
        src,
        dst,
        flags,
        extensions,
        target,
        sll,
        tll,
    )
    return tail, layers, proto_offset, l4 if layer else 0, nd_lladdr


def _walk_extensions(frame: bytes | bytearray, proto_offset: int, offset: int, end: int) -> tuple[int, int, int, int]:
    """Offset of the last next-header byte, offset behind the headers walked, ExtHdr bits, Fragment.

    ``proto_offset`` and ``offset`` are the first next-header byte and what follows the fixed header.
    """
    seen = highest = destinations = 0
    fragment = _WHOLE
    for _ in range(MAX_IPV6_EXTENSION_HEADERS):
        number = frame[proto_offset]
        if number not in _EXTENSIONS:
            break
        last = number in (IP_PROTO_ESP, IP_PROTO_NONEXT)
        size = 0
        if not last:
            if offset + 8 > end:
                break
            if number == IP_PROTO_FRAG:
                size = 8
            else:
                size = (frame[offset + 1] + 2) * 4 if number == IP_PROTO_AUTH else (frame[offset + 1] + 1) * 8
            if offset + size > end:
                break
        bit, rank = _EXTENSIONS[number]
        again = bool(seen & bit)
        if number == IP_PROTO_DEST:
            if not seen & _BEFORE_LATE_DEST:
                rank = _EARLY_DEST_RANK
            if destinations == 1 and seen & _ROUTER:
                again = False
            destinations += 1
        if again:
            seen |= _UNREP
        if rank < highest:
            seen |= _UNSEQ
        highest = max(highest, rank)
        seen |= bit
        if last:
            break
        proto_offset = offset
        if number == IP_PROTO_FRAG:
            (word,) = _fragment(frame, offset + 2)
            if word & _IPV6_FRAGMENT_OFFSET:
                return proto_offset, offset + size, seen, _LATER
            if word & _IPV6_MORE_FRAGMENTS:
                fragment = _FIRST
        offset += size
    return proto_offset, offset, seen, fragment


def _parse_l4(frame: bytes | bytearray, l4: int, end: int, proto: int, icmp: int) -> tuple[int, int, int, int]:
    """Layer bit, ``l4_src``, ``l4_dst``, ``tcp_flags``; ``icmp`` is the number that means ICMP in this version of IP."""
    if proto == IP_PROTO_TCP:
        if l4 + TCP_BYTES <= end:
            src, dst, flags = _tcp(frame, l4)
            return _TCP, src, dst, flags & TCP_FLAGS_MASK
    elif proto == IP_PROTO_UDP:
        if l4 + UDP_BYTES <= end:
            return _UDP, *_ports(frame, l4), 0
    elif proto == icmp:
        if l4 + ICMP_BYTES <= end:
            return _ICMP, *_type_and_code(frame, l4), 0
    elif proto == IP_PROTO_SCTP and l4 + SCTP_BYTES <= end:
        return _SCTP, *_ports(frame, l4), 0
    return 0, 0, 0, 0


def _find_nd_option(frame: bytes | bytearray, offset: int, end: int, icmp_type: int) -> tuple[int, int]:
    """Layer bit and offset of the link-layer address; ``offset`` is the first option's. (0, 0) if there is none."""
    wanted, layer = _ND_OPTION[icmp_type]
    for _ in range(MAX_ND_OPTIONS):
        if offset + 8 > end:
            break
        size = frame[offset + 1]
        if (frame[offset], size) == wanted:
            return layer, offset + 2
        if size == 0 or offset + size * 8 > end:
            break
        offset += size * 8
    return 0, 0
