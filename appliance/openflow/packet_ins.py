"""Many packet-ins at once (specification 1.3.5, section 7.4.1), without an object and an encoding for each.

Invariant: their bytes are those that ``encode`` gives of one PacketIn for each frame.
"""

from __future__ import annotations

from itertools import accumulate, chain, islice, takewhile
from struct import Struct
from typing import NamedTuple

from appliance.model.actions import OFP_NO_BUFFER
from appliance.model.match import Match
from appliance.model.megaflow import PacketInReason
from appliance.openflow.codec import encode
from appliance.openflow.constants import MAX_MESSAGE_BYTES, OFP_VERSION, MessageType
from appliance.openflow.packet import PacketIn

_PACKET_IN = int(MessageType.PACKET_IN)
_START = Struct("!BBHIIH")
"""The header, buffer_id and total_len: of these, the two lengths tell the packet-ins of frames apart."""


class PacketInHead:
    """What packet-ins that say the same begin with: all but the frame."""

    __slots__ = ("_behind", "_cookie", "_match", "_reason", "_table_id", "octets")

    def __init__(self, reason: PacketInReason, table_id: int, cookie: int, match: Match) -> None:
        self._reason = reason
        self._table_id = table_id
        self._cookie = cookie
        self._match = match
        bare = encode(self.message(b""))
        self._behind = bare[_START.size :]
        self.octets = len(bare)

    def message(self, frame: bytes) -> PacketIn:
        """The packet-in with the whole frame, as far as a message has room for it."""
        return PacketIn(OFP_NO_BUFFER, len(frame), self._reason, self._table_id, self._cookie, self._match, frame)

    def before(self, octets: int) -> bytes:
        """What stands before a frame of this length."""
        length = min(self.octets + octets, MAX_MESSAGE_BYTES)
        return _START.pack(OFP_VERSION, _PACKET_IN, length, 0, OFP_NO_BUFFER, min(octets, 0xFFFF)) + self._behind


class PacketIns(NamedTuple):
    """One packet-in for each frame; there is one at least."""

    head: PacketInHead
    frames: list[bytes]

    def within(self, room: int) -> int:
        """How many of them begin in so many bytes."""
        before = self.head.octets
        if len(self.frames) * before + sum(map(len, self.frames)) <= room:
            return len(self.frames)
        ends = accumulate(before + len(frame) for frame in self.frames)
        return sum(1 for _ in takewhile(lambda begins: begins <= room, chain((0,), islice(ends, len(self.frames) - 1))))


def encode_packet_ins(packet_ins: PacketIns) -> bytes:
    """The messages, one behind the other."""
    head = packet_ins.head
    most = MAX_MESSAGE_BYTES - head.octets
    by_length: dict[int, bytes] = {}
    parts: list[bytes] = []
    for frame in packet_ins.frames:
        octets = len(frame)
        before = by_length.get(octets)
        if before is None:
            before = by_length[octets] = head.before(octets)
        parts += before, frame if octets <= most else frame[:most]
    return b"".join(parts)
