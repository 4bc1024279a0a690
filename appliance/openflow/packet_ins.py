"""Many packet-ins at once (specification 1.3.5, section 7.4.1), without an object and an encoding for each.

Invariant: their bytes are those that ``encode`` gives of one PacketIn for each frame.
"""

from __future__ import annotations

from itertools import accumulate, chain, islice, takewhile
from typing import NamedTuple

from appliance.model.actions import OFP_NO_BUFFER
from appliance.model.match import Match
from appliance.model.megaflow import PacketInReason
from appliance.openflow.codec import encode
from appliance.openflow.constants import MAX_MESSAGE_BYTES
from appliance.openflow.packet import PacketIn

_MAX_LENGTHS = 2048


class PacketInHead:
    """What packet-ins that say the same begin with: all but the frame. It is worth keeping: each is made once for a length."""

    __slots__ = ("_cookie", "_match", "_reason", "_table_id", "by_length", "octets")

    def __init__(self, reason: PacketInReason, table_id: int, cookie: int, match: Match) -> None:
        self._reason = reason
        self._table_id = table_id
        self._cookie = cookie
        self._match = match
        self.by_length: dict[int, bytes] = {}
        """Those made lately."""
        self.octets = len(encode(self.message(b"")))

    def message(self, frame: bytes) -> PacketIn:
        """The packet-in with the whole frame, as far as a message has room for it."""
        return PacketIn(OFP_NO_BUFFER, len(frame), self._reason, self._table_id, self._cookie, self._match, frame)

    def made(self, frame: bytes) -> bytes:
        """What stands before this frame, which is of a new length."""
        if len(self.by_length) >= _MAX_LENGTHS:
            self.by_length.clear()
        head = self.by_length[len(frame)] = encode(self.message(frame))[: self.octets]
        return head


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
    by_length, most = head.by_length, MAX_MESSAGE_BYTES - head.octets
    parts: list[bytes] = []
    for frame in packet_ins.frames:
        octets = len(frame)
        parts += by_length.get(octets) or head.made(frame), frame if octets <= most else frame[:most]
    return b"".join(parts)
