"""What one datapath action does to a frame. bpf_prog/ follows the same rules.

Invariant: an action sees the packet as ``parse`` sees it at that moment, and an action on what is not there does nothing.
So a tag that is pushed on two others makes three, and the headers behind them are not there until one is popped; behind an
MPLS entry or an I-TAG that was pushed is nothing, tags included; and after ``eth_type``, ``ip_proto`` or an ICMP type or code has
been set, the headers are those that the new value makes.

Setting a field
    changes those bits of the frame and no others, if the packet has a header of ``field.layer``; ``icmpv4_*`` also needs IPv4,
    ``icmpv6_*`` IPv6; ``vlan_vid`` and ``vlan_pcp`` need a parsed tag (the outermost is changed; its drop-eligible bit and its type
    stay, and VLAN_PRESENT in the value does not count); Ethernet fields need a frame of 14 bytes. ``eth_type`` is the type
    behind the parsed tags. ``ip_proto`` is IPv4's protocol byte, or the byte of IPv6 where the walk along the next headers ended.
    ``mpls_*`` are the outermost entry's; nothing checks that ``mpls_bos`` tells the truth. ``pbb_isid`` leaves the I-TAG's flags.
    ``tunnel_id``, ``tun_src`` and ``tun_dst`` are not in the frame but beside it.
VLAN tags
    PushTag puts type and TCI behind the MAC addresses; PopTag takes off the outermost parsed tag.
MPLS (OpenFlow 1.3.5, 5.12: "immediately after the Ethernet header and before other tags")
    PushMpls makes ``ethertype`` the frame's first type, in the place of the one that was there, and puts an entry behind it. That
    is also before VLAN tags (OpenFlow 1.1 and 1.2 had it behind them): a tag then loses its own type to MPLS, as IP does, and
    PopMpls with that type makes it a tag again. The entry copies (table 7) label, traffic class and TTL from the outermost MPLS
    entry, be it behind tags; without one, it has label and class 0 and the TTL of IPv4 or IPv6, else 0. The bottom-of-stack bit is
    set unless an MPLS entry follows at once.
    PopMpls takes off the outermost entry, and ``eth_type`` becomes ``ethertype``; tags before the entry stay. What lies behind is
    nobody's business: nothing checks that ``ethertype`` fits.
PBB (7.2.5)
    PushPbb puts the MAC addresses once more, ``ethertype`` and an I-TAG before the frame, whose own addresses thereby become
    the customer's; its tags stay with it. The I-TAG has the I-PCP of the outermost tag's PCP, else 0, and the I-SID of the
    outermost I-TAG (be it behind tags), else 0; its other bits are 0.
    PopPbb makes the customer's addresses those of the frame and takes off I-TAG and its type; tags before it (the B-TAG) stay. It
    needs the customer's Ethernet header to be there whole, its type too.
TTLs (where they are: ``packet.ttl``)
    DecTtl takes one from that of IP, DecMplsTtl from that of the outermost MPLS entry; a packet whose TTL is 0 or 1 stops there.
    CopyTtlOut copies from the next header with a TTL to the outermost, CopyTtlIn the other way: MPLS and MPLS, MPLS and IP, IP
    and IP; a packet without two such headers stays as it is.
Checksums are updated by the difference (``packet.checksum``), whether or not they were right
    IPv4's: DSCP, ECN, TTL, protocol, addresses.
    TCP's, UDP's, ICMP's and ICMPv6's, if the packet has that layer (a later fragment has none): fields of their own, and but
    for ICMP those of the pseudo-header: ``ip_proto`` (into the checksum of the protocol that the packet had before) and the
    addresses, except the IPv6 destination in a packet with a ROUTER header (the pseudo-header has the final one instead). A
    UDP checksum of 0 is none and stays 0; one that becomes 0 is written 0xffff.
    SCTP's: ports, into the CRC32c of as many bytes as the IP header says (a first fragment's comes out wrong: it covers all of
    them). It stays as it is if the IP header says less than 4 bytes, and if it is 0: Linux leaves it so for the device to fill in.
    With ``partial_checksum`` the TCP and UDP fields hold the sum of the pseudo-header: fields of their own do not change it, and
    those of the pseudo-header change the sum itself, not its complement.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import NamedTuple

from appliance.model.fields import BY_NAME, IP_TTL, MPLS_TTL, ExtHdr, Field, Layer
from appliance.model.tunnel import NO_TUNNEL, TUNNEL_FIELDS, Tunnel
from appliance.packet import checksum
from appliance.packet.parse import ETHERNET_BYTES, ParsedPacket, parse
from appliance.packet.ttl import IPV4_CHECKSUM, MPLS_BOS, MPLS_BYTES, TtlPlace, next_ttl, outermost_ttl

_MPLS = Layer.MPLS.value
_PBB = Layer.PBB.value
_IPV6 = Layer.IPV6.value
_IPV4 = Layer.IPV4.value
_IP = Layer.IP.value
_TCP = Layer.TCP.value
_UDP = Layer.UDP.value
_SCTP = Layer.SCTP.value
_ICMP = Layer.ICMP.value

ICMP_CHECKSUM = 2
"""Offset in its header."""
MACS_BYTES = 12
I_TAG_BYTES = 4
I_PCP_SHIFT = 29
SCTP_PORTS_BYTES = 4
_IPV6_EXTHDR = BY_NAME["ipv6_exthdr"]
_ROUTER = ExtHdr.ROUTER.value

# What a field counts in.
_IPV4_HEADER = 1
_PSEUDO_HEADER = 2
_L4_HEADER = 4


class _Place(NamedTuple):
    """Where a field is: ``size`` bytes at ``offset`` from ``base``, its lowest bit ``shift`` up.

    The bytes are whole 16-bit words wherever a checksum covers them (but for IPv6's next header: the pseudo-header widens it).
    """

    base: Callable[[ParsedPacket], int]
    offset: int
    size: int
    shift: int = 0
    sums: int = 0
    parse_again: bool = False


def _frame(_: ParsedPacket) -> int:
    return 0


_eth_type = attrgetter("eth_type_offset")
_l3 = attrgetter("l3_offset")
_ip_proto = attrgetter("ip_proto_offset")
_l4 = attrgetter("l4_offset")
_nd_lladdr = attrgetter("nd_lladdr_offset")

_PLACES: dict[str, _Place] = {
    "eth_dst": _Place(_frame, 0, 6),
    "eth_src": _Place(_frame, 6, 6),
    "eth_type": _Place(_eth_type, 0, 2, parse_again=True),
    "vlan_vid": _Place(_frame, 14, 2),
    "vlan_pcp": _Place(_frame, 14, 2, 13),
    "mpls_label": _Place(_l3, 0, 4, 12),
    "mpls_tc": _Place(_l3, 0, 4, 9),
    "mpls_bos": _Place(_l3, 0, 4, 8),
    "mpls_ttl": _Place(_l3, 0, 4),
    "pbb_isid": _Place(_l3, 0, 4),
    "arp_op": _Place(_l3, 6, 2),
    "arp_sha": _Place(_l3, 8, 6),
    "arp_spa": _Place(_l3, 14, 4),
    "arp_tha": _Place(_l3, 18, 6),
    "arp_tpa": _Place(_l3, 24, 4),
    "ip_dscp": _Place(_l3, 0, 2, 2, _IPV4_HEADER),
    "ip_ecn": _Place(_l3, 0, 2, 0, _IPV4_HEADER),
    "ip_ttl": _Place(_l3, 8, 2, 8, _IPV4_HEADER),
    "ip_proto": _Place(_l3, 8, 2, 0, _IPV4_HEADER | _PSEUDO_HEADER, parse_again=True),
    "ipv4_src": _Place(_l3, 12, 4, 0, _IPV4_HEADER | _PSEUDO_HEADER),
    "ipv4_dst": _Place(_l3, 16, 4, 0, _IPV4_HEADER | _PSEUDO_HEADER),
    "ipv6_src": _Place(_l3, 8, 16, 0, _PSEUDO_HEADER),
    "ipv6_dst": _Place(_l3, 24, 16, 0, _PSEUDO_HEADER),
    "ipv6_flabel": _Place(_l3, 0, 4),
    "tcp_src": _Place(_l4, 0, 2, 0, _L4_HEADER),
    "tcp_dst": _Place(_l4, 2, 2, 0, _L4_HEADER),
    "udp_src": _Place(_l4, 0, 2, 0, _L4_HEADER),
    "udp_dst": _Place(_l4, 2, 2, 0, _L4_HEADER),
    "sctp_src": _Place(_l4, 0, 2, 0, _L4_HEADER),
    "sctp_dst": _Place(_l4, 2, 2, 0, _L4_HEADER),
    "icmpv4_type": _Place(_l4, 0, 2, 8, _L4_HEADER, parse_again=True),
    "icmpv4_code": _Place(_l4, 0, 2, 0, _L4_HEADER, parse_again=True),
    "icmpv6_type": _Place(_l4, 0, 2, 8, _L4_HEADER, parse_again=True),
    "icmpv6_code": _Place(_l4, 0, 2, 0, _L4_HEADER, parse_again=True),
    "ipv6_nd_target": _Place(_l4, 8, 16, 0, _L4_HEADER),
    "ipv6_nd_sll": _Place(_nd_lladdr, 0, 6, 0, _L4_HEADER),
    "ipv6_nd_tll": _Place(_nd_lladdr, 0, 6, 0, _L4_HEADER),
}

_IN_IPV6: dict[str, _Place] = {
    # fields of both versions of IP, where they are in IPv6
    "ip_dscp": _Place(_l3, 0, 2, 6),
    "ip_ecn": _Place(_l3, 0, 2, 4),
    "ip_ttl": _Place(_l3, 7, 1),
    "ip_proto": _Place(_ip_proto, 0, 1, 0, _PSEUDO_HEADER, parse_again=True),
}
_ICMP_VERSION = {"icmpv4_type": _IPV4, "icmpv4_code": _IPV4, "icmpv6_type": _IPV6, "icmpv6_code": _IPV6}
"""Layer.ICMP is either; these tell which."""


class Rewriter:
    """One packet while actions are done to it."""

    def __init__(self, frame: bytes, in_port: int, *, partial_checksum: bool = False, tunnel: Tunnel = NO_TUNNEL) -> None:
        self.tunnel = tunnel
        """The packet's tunnel fields."""
        self._frame = bytearray(frame)
        self._in_port = in_port
        self._partial_checksum = partial_checksum
        self._bytes: bytes | None = frame
        self._parsed: ParsedPacket | None = None

    @property
    def frame(self) -> bytes:
        """The frame as it is now."""
        if self._bytes is None:
            self._bytes = bytes(self._frame)
        return self._bytes

    @property
    def _headers(self) -> ParsedPacket:
        """Layers and offsets as they are now. Of its key, only what no field can set without another parse holds still."""
        if self._parsed is None:
            self._parsed = parse(self._frame, self._in_port)
        return self._parsed

    def push_tag(self, tpid: int, tci: int) -> None:
        if self._headers.eth_type_offset:
            self._frame[MACS_BYTES:MACS_BYTES] = tpid.to_bytes(2, "big") + tci.to_bytes(2, "big")
            self._headers_moved()

    def pop_tag(self) -> None:
        if self._headers.tags:
            del self._frame[MACS_BYTES : MACS_BYTES + 4]
            self._headers_moved()

    def push_mpls(self, ethertype: int) -> None:
        headers = self._headers
        if not headers.eth_type_offset:
            return
        entry = MPLS_BOS
        if headers.layers & _MPLS:
            entry |= int.from_bytes(self._frame[headers.l3_offset : headers.l3_offset + MPLS_BYTES], "big")
            if not headers.tags:
                entry &= ~MPLS_BOS
        elif (ttl := outermost_ttl(headers)) is not None:
            entry |= self._frame[ttl.offset]
        self._frame[MACS_BYTES:ETHERNET_BYTES] = ethertype.to_bytes(2, "big") + entry.to_bytes(MPLS_BYTES, "big")
        self._headers_moved()

    def pop_mpls(self, ethertype: int) -> None:
        headers = self._headers
        if headers.layers & _MPLS:
            self._frame[headers.eth_type_offset : headers.l3_offset + MPLS_BYTES] = ethertype.to_bytes(2, "big")
            self._headers_moved()

    def push_pbb(self, ethertype: int) -> None:
        headers = self._headers
        if not headers.eth_type_offset:
            return
        i_tag = self._frame[ETHERNET_BYTES] >> 5 << I_PCP_SHIFT if headers.tags else 0
        if headers.layers & _PBB:
            i_tag |= int.from_bytes(self._frame[headers.l3_offset + 1 : headers.l3_offset + I_TAG_BYTES], "big")
        self._frame[:0] = self._frame[:MACS_BYTES] + ethertype.to_bytes(2, "big") + i_tag.to_bytes(I_TAG_BYTES, "big")
        self._headers_moved()

    def pop_pbb(self) -> None:
        headers = self._headers
        customer = headers.l3_offset + I_TAG_BYTES
        if headers.layers & _PBB and customer + ETHERNET_BYTES <= len(self._frame):
            addresses = self._frame[customer : customer + MACS_BYTES]
            tags = self._frame[MACS_BYTES : headers.eth_type_offset]
            self._frame[: customer + MACS_BYTES] = addresses + tags
            self._headers_moved()

    def dec_ttl(self) -> bool:
        """False if the TTL is used up: the packet is then as it was. A packet without TTL has nothing to use up."""
        return self._dec_ttl(_IP, IP_TTL)

    def dec_mpls_ttl(self) -> bool:
        """The same of the outermost MPLS entry's TTL."""
        return self._dec_ttl(_MPLS, MPLS_TTL)

    def _dec_ttl(self, layer: int, field: Field) -> bool:
        place = outermost_ttl(self._headers)
        if place is None or not self._headers.layers & layer:
            return True
        ttl = self._frame[place.offset]
        if ttl <= 1:
            return False
        self.set_field(field, ttl - 1)
        return True

    def copy_ttl_out(self) -> None:
        self._copy_ttl(next_ttl(self._frame, self._headers), outermost_ttl(self._headers))

    def copy_ttl_in(self) -> None:
        self._copy_ttl(outermost_ttl(self._headers), next_ttl(self._frame, self._headers))

    def _copy_ttl(self, source: TtlPlace | None, target: TtlPlace | None) -> None:
        if source is None or target is None:
            return
        at = target.offset
        old = int.from_bytes(self._frame[at : at + 2], "big")
        self._frame[at] = self._frame[source.offset]
        if target.checksum_offset:
            self._update(target.checksum_offset, old, int.from_bytes(self._frame[at : at + 2], "big"))
        self._bytes = None

    def _headers_moved(self) -> None:
        self._bytes = self._parsed = None

    def set_field(self, field: Field, value: int) -> None:
        """Raises ValueError for a field that nothing can set, or a value wider than the field."""
        if not field.settable or not 0 <= value <= field.max:
            raise ValueError(f"{field.name} cannot be set to {value:#x}")
        if field.name in TUNNEL_FIELDS:
            self.tunnel = self.tunnel.put(field.name, value)
            return
        headers = self._headers
        if not self._has(field, headers):
            return
        place = _PLACES[field.name]
        if headers.layers & _IPV6:
            place = _IN_IPV6.get(field.name, place)
        bits = field.max
        if field.name == "vlan_vid":
            bits = 0xFFF
            value &= bits
        at = place.base(headers) + place.offset
        behind = at + place.size
        old = int.from_bytes(self._frame[at:behind], "big")
        new = old & ~(bits << place.shift) | value << place.shift
        self._frame[at:behind] = new.to_bytes(place.size, "big")
        if place.sums & _IPV4_HEADER:
            self._update(headers.l3_offset + IPV4_CHECKSUM, old, new)
        if place.sums & _L4_HEADER:
            self._l4_changed(old, new, at, place.size)
        elif place.sums & _PSEUDO_HEADER and not (field.name == "ipv6_dst" and _IPV6_EXTHDR.get(headers.key) & _ROUTER):
            self._pseudo_header_changed(old, new)
        self._bytes = None
        if place.parse_again:
            self._parsed = None

    @staticmethod
    def _has(field: Field, headers: ParsedPacket) -> bool:
        if field.name in _ICMP_VERSION and not headers.layers & _ICMP_VERSION[field.name]:
            return False
        if field.layer:
            return bool(headers.layers & field.layer.value)
        if field.name in ("vlan_vid", "vlan_pcp"):
            return headers.tags > 0
        return field.name in _PLACES and headers.eth_type_offset > 0

    def _l4_changed(self, old: int, new: int, at: int, size: int) -> None:
        """The ``size`` bytes at ``at``, in the layer-4 header, were ``old`` and are ``new``."""
        layers, l4 = self._headers.layers, self._headers.l4_offset
        if layers & _ICMP:
            self._update(l4 + ICMP_CHECKSUM, old, new)
        elif layers & _SCTP:
            self._sctp_changed((old ^ new).to_bytes(size, "big"), at + size)
        elif not self._partial_checksum:
            self._update_tcp_or_udp(old, new)

    def _pseudo_header_changed(self, old: int, new: int) -> None:
        layers = self._headers.layers
        if layers & (_TCP | _UDP):
            self._update_tcp_or_udp(old, new)
        elif layers & _ICMP and layers & _IPV6:
            self._update(self._headers.l4_offset + ICMP_CHECKSUM, old, new)

    def _update(self, at: int, old: int, new: int) -> None:
        """Update the checksum at ``at`` by ones-complement difference."""
        before = int.from_bytes(self._frame[at : at + 2], "big")
        self._frame[at : at + 2] = checksum.update(before, old, new).to_bytes(2, "big")

    def _update_tcp_or_udp(self, old: int, new: int) -> None:
        udp = self._headers.layers & _UDP
        at = self._headers.l4_offset + (checksum.UDP_CHECKSUM if udp else checksum.TCP_CHECKSUM)
        before = int.from_bytes(self._frame[at : at + 2], "big")
        if udp and before == 0:
            return
        after = (checksum.update_partial if self._partial_checksum else checksum.update)(before, old, new)
        if udp and after == 0:
            after = 0xFFFF
        self._frame[at : at + 2] = after.to_bytes(2, "big")

    def _sctp_changed(self, delta: bytes, behind: int) -> None:
        """``delta``, old XOR new, ends at offset ``behind`` of the frame."""
        l4 = self._headers.l4_offset
        length = checksum.l4_length(self._frame, self._headers)
        at = l4 + checksum.SCTP_CHECKSUM
        before = int.from_bytes(self._frame[at : at + 4], "little")
        if before == 0 or length < SCTP_PORTS_BYTES:
            return
        after = checksum.update_sctp(before, delta, length - (behind - l4))
        self._frame[at : at + 4] = after.to_bytes(4, "little")
