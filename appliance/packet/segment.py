"""Segmentation in software: what a network card makes of a frame that a local stack left too long (TSO, USO).

Needed where the kernel cannot cut a frame any more because the slow path puts a header before IP, or where a controller is to see
packets as they would be on a wire. Invariant: the segments' payloads, in order, are the frame's, and all their checksums are right.
"""

from __future__ import annotations

from appliance.model.fields import Layer
from appliance.packet import mpls
from appliance.packet.checksum import TCP_CHECKSUM, UDP_CHECKSUM, complete, ones_complement_sum
from appliance.packet.parse import IPV6_BYTES, UDP_BYTES, ParsedPacket, parse
from appliance.packet.ttl import IPV4_CHECKSUM

_IPV4_LENGTH, _IPV4_ID, _IPV6_LENGTH, _UDP_LENGTH = 2, 4, 4, 4
_TCP_SEQUENCE, _TCP_DATA_OFFSET, _TCP_FLAGS = 4, 12, 13
_FIN_PSH, _CWR = 0x09, 0x80


def segment(frame: bytes, gso_size: int) -> list[bytes]:
    """Frames with at most ``gso_size`` bytes of TCP or UDP payload each (RFC 9293, 3.7); any other frame as it is, alone.

    What a label stack carries is cut like the packet alone, each segment behind the stack.
    """
    parsed = parse(frame, 0)
    carried = mpls.split(frame, parsed)
    if carried is not None:
        head, bare = carried
        return [mpls.joined(head, part) for part in segment(bare, gso_size)]
    if not gso_size or not parsed.layers & (Layer.TCP | Layer.UDP):
        return [frame]
    is_tcp = bool(parsed.layers & Layer.TCP)
    headers = parsed.l4_offset + ((frame[parsed.l4_offset + _TCP_DATA_OFFSET] >> 4) * 4 if is_tcp else UDP_BYTES)
    payload = frame[headers:]
    if len(payload) <= gso_size:
        return [complete(frame, parsed)]
    starts = range(0, len(payload), gso_size)
    return [
        _one(frame[:headers], payload[start : start + gso_size], parsed, number, start, last=start + gso_size >= len(payload))
        for number, start in enumerate(starts)
    ]


def _one(headers: bytes, payload: bytes, parsed: ParsedPacket, number: int, start: int, *, last: bool) -> bytes:
    """Segment ``number``, whose payload begins ``start`` bytes into the frame's."""
    out = bytearray(headers + payload)
    l3, l4 = parsed.l3_offset, parsed.l4_offset
    if parsed.layers & Layer.TCP:
        checksum_at = l4 + TCP_CHECKSUM
        _add(out, l4 + _TCP_SEQUENCE, 4, start)
        if not last:
            out[l4 + _TCP_FLAGS] &= ~_FIN_PSH & 0xFF
        if number:
            out[l4 + _TCP_FLAGS] &= ~_CWR & 0xFF
    else:
        checksum_at = l4 + UDP_CHECKSUM
        _put(out, l4 + _UDP_LENGTH, len(out) - l4)
    if parsed.layers & Layer.IPV4:
        _put(out, l3 + _IPV4_LENGTH, len(out) - l3)
        _add(out, l3 + _IPV4_ID, 2, number)
        _put(out, l3 + IPV4_CHECKSUM, 0)
        _put(out, l3 + IPV4_CHECKSUM, ones_complement_sum(bytes(out[l3 : l3 + (out[l3] & 0xF) * 4])) ^ 0xFFFF)
        addresses = out[l3 + 12 : l3 + 20]
    else:
        _put(out, l3 + _IPV6_LENGTH, len(out) - l3 - IPV6_BYTES)
        addresses = out[l3 + 8 : l3 + 40]
    _put(out, checksum_at, 0)
    proto = out[parsed.ip_proto_offset]
    # The pseudo-header: a zero byte and the protocol are one word with the length behind it.
    total = ones_complement_sum(bytes(addresses) + (proto << 16 | len(out) - l4).to_bytes(4, "big") + bytes(out[l4:]))
    checksum = total ^ 0xFFFF
    _put(out, checksum_at, 0xFFFF if checksum == 0 and parsed.layers & Layer.UDP else checksum)
    return bytes(out)


def _put(out: bytearray, at: int, value: int) -> None:
    out[at : at + 2] = value.to_bytes(2, "big")


def _add(out: bytearray, at: int, size: int, more: int) -> None:
    value = int.from_bytes(out[at : at + size], "big") + more
    out[at : at + size] = (value % (1 << 8 * size)).to_bytes(size, "big")
