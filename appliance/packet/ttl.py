"""Where the TTLs of a packet are: in the outermost header that has one, and in the next (OpenFlow 1.3.5, section 5.12, copy TTL).

Invariant: the parser's rule of headers holds here too: one is there whole or not at all, in the same part of the frame.

The outermost header with a TTL is the one that follows ``eth_type``: an MPLS entry, IPv4 or IPv6. The next one is
    behind an MPLS entry without the bottom-of-stack bit the entry after it; behind one with it IPv4 or IPv6, which the version in
    the first byte tells (with IPv4 an IHL of at least 5), for an entry does not name its payload;
    behind IP, not in a later fragment, IPv4 if the protocol is 4, IPv6 if it is 41, with that version.
Behind a VLAN tag that MPLS carries, behind PBB and behind any other protocol there is none.
"""

from __future__ import annotations

from typing import NamedTuple

from appliance.model.fields import IP_FRAG, IP_PROTO, Fragment, Layer
from appliance.packet.parse import IPV6_BYTES, ParsedPacket, end_of_headers, ip_payload_offset

MPLS_BYTES = 4
MPLS_BOS = 0x100
"""The bottom-of-stack bit of an MPLS entry."""
IPV4_TTL = 8
IPV4_CHECKSUM = 10
IPV6_HOP_LIMIT = 7
MPLS_TTL = 3
"""Offsets in their headers."""

_MPLS = Layer.MPLS.value
_IPV4 = Layer.IPV4.value
_IPV6 = Layer.IPV6.value
_LATER = Fragment.LATER.value
_IP_VERSION = {4: 4, 41: 6}
"""IP protocol: the version of IP that it carries."""


class TtlPlace(NamedTuple):
    """The offset of the TTL's byte, and of the checksum over it and the byte behind; 0 if there is no checksum."""

    offset: int
    checksum_offset: int = 0


def outermost_ttl(parsed: ParsedPacket) -> TtlPlace | None:
    """Of the outermost header with a TTL; None if the packet has no such header."""
    l3 = parsed.l3_offset
    if parsed.layers & _MPLS:
        return TtlPlace(l3 + MPLS_TTL)
    if parsed.layers & _IPV4:
        return TtlPlace(l3 + IPV4_TTL, l3 + IPV4_CHECKSUM)
    if parsed.layers & _IPV6:
        return TtlPlace(l3 + IPV6_HOP_LIMIT)
    return None


def next_ttl(frame: bytes | bytearray, parsed: ParsedPacket) -> TtlPlace | None:
    """Of the next header with a TTL behind the outermost; None if there are not two. ``parsed`` is of this frame."""
    end = end_of_headers(len(frame), parsed.eth_type_offset)
    if parsed.layers & _MPLS:
        behind = parsed.l3_offset + MPLS_BYTES
        if int.from_bytes(frame[behind - MPLS_BYTES : behind], "big") & MPLS_BOS:
            return _ip_ttl(frame, behind, end)
        return TtlPlace(behind + MPLS_TTL) if behind + MPLS_BYTES <= end else None
    if parsed.layers & (_IPV4 | _IPV6) and IP_FRAG.get(parsed.key) != _LATER:
        version = _IP_VERSION.get(IP_PROTO.get(parsed.key))
        if version:
            return _ip_ttl(frame, ip_payload_offset(frame, parsed), end, version)
    return None


def _ip_ttl(frame: bytes | bytearray, at: int, end: int, version: int | None = None) -> TtlPlace | None:
    """Of the IP header at offset ``at``, which must be of ``version`` if that is given."""
    found = frame[at] >> 4 if at < end else 0
    if version not in (None, found):
        return None
    if found == 4 and frame[at] & 15 >= 5 and at + (frame[at] & 15) * 4 <= end:
        return TtlPlace(at + IPV4_TTL, at + IPV4_CHECKSUM)
    if found == 6 and at + IPV6_BYTES <= end:
        return TtlPlace(at + IPV6_HOP_LIMIT)
    return None
