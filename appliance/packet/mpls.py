"""What a label stack carries. Nothing in MPLS says it, and the flow key does not look behind an entry; but where a local stack left
a checksum to be finished, or a frame to be cut into segments, that has to be done there too.

Invariant: what does not look like an IP packet in every respect is left alone.
"""

from __future__ import annotations

from appliance.model.fields import ETH_TYPE_IPV4, ETH_TYPE_IPV6, Layer
from appliance.packet import checksum
from appliance.packet.parse import ETHERNET_BYTES, IPV4_BYTES, IPV6_BYTES, TAG_TYPES, ParsedPacket, parse
from appliance.packet.ttl import MPLS_BOS, MPLS_BYTES

_MACS_BYTES = 12
_TAG_BYTES = 4
_IP_TYPES = (ETH_TYPE_IPV4, ETH_TYPE_IPV6)


def split(frame: bytes, parsed: ParsedPacket) -> tuple[bytes, bytes] | None:
    """All before the IP packet that the MPLS frame carries, and a frame with that packet alone; None if it carries none.

    ``joined`` puts them together. ``parsed`` is of ``frame``.
    """
    if not parsed.layers & Layer.MPLS:
        return None
    at = parsed.l3_offset
    while not int.from_bytes(frame[at : at + MPLS_BYTES], "big") & MPLS_BOS:
        at += MPLS_BYTES
        if at >= len(frame):
            return None
    found = _find_ip(frame, at + MPLS_BYTES)
    if found is None:
        return None
    at, ethertype = found
    return frame[:at], frame[:_MACS_BYTES] + ethertype.to_bytes(2, "big") + frame[at:]


def joined(head: bytes, bare: bytes) -> bytes:
    """The inverse of ``split``, the IP packet perhaps a changed one."""
    return head + bare[ETHERNET_BYTES:]


def finished(frame: bytes, parsed: ParsedPacket) -> bytes:
    """``checksum.complete``, for frames that may have MPLS before IP."""
    parts = split(frame, parsed)
    if parts is None:
        return checksum.complete(frame, parsed)
    head, bare = parts
    return joined(head, checksum.complete(bare, parse(bare, 0)))


def _find_ip(frame: bytes, at: int) -> tuple[int, int] | None:
    """Offset and ethertype of an IP packet behind the stack. Of tags that MPLS was pushed before, the first's type is gone."""
    tag = at
    while tag + _TAG_BYTES <= len(frame):
        ethertype = int.from_bytes(frame[tag + 2 : tag + _TAG_BYTES], "big")
        tag += _TAG_BYTES
        if ethertype in _IP_TYPES and _is_ip(frame[tag:], ethertype):
            return tag, ethertype
        if ethertype not in TAG_TYPES:
            break
    return next(((at, ethertype) for ethertype in _IP_TYPES if _is_ip(frame[at:], ethertype)), None)


def _is_ip(packet: bytes, ethertype: int) -> bool:
    if ethertype == ETH_TYPE_IPV4:
        header = (packet[0] & 15) * 4 if packet and packet[0] >> 4 == 4 else 0
        whole = IPV4_BYTES <= header <= len(packet) and int.from_bytes(packet[2:4], "big") <= len(packet)
        return whole and checksum.ones_complement_sum(packet[:header]) == 0xFFFF
    return len(packet) >= IPV6_BYTES and packet[0] >> 4 == 6 and IPV6_BYTES + int.from_bytes(packet[4:6], "big") <= len(packet)
