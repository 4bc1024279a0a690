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


class PacketIns(NamedTuple):
    """One packet-in for each frame, with the whole of it, as far as PacketIn can have that. There is one frame at least."""

    reason: PacketInReason
    table_id: int
    cookie: int
    match: Match
    frames: list[bytes]

    def one(self, frame: bytes) -> PacketIn:
        return PacketIn(OFP_NO_BUFFER, len(frame), self.reason, self.table_id, self.cookie, self.match, frame)

    @property
    def bytes_before(self) -> int:
        """Of each message, before the frame."""
        return len(encode(self.one(b"")))

    def within(self, room: int) -> int:
        """How many of them begin in so many bytes."""
        before = self.bytes_before
        if len(self.frames) * before + sum(map(len, self.frames)) <= room:
            return len(self.frames)
        ends = accumulate(before + len(frame) for frame in self.frames)
        return sum(1 for _ in takewhile(lambda begins: begins <= room, chain((0,), islice(ends, len(self.frames) - 1))))


def encode_packet_ins(packet_ins: PacketIns) -> bytes:
    """The messages, one behind the other. What stands before a frame is made once for all frames of a length."""
    before = packet_ins.bytes_before
    most = MAX_MESSAGE_BYTES - before
    heads: dict[int, bytes] = {}
    parts: list[bytes] = []
    for frame in packet_ins.frames:
        octets = len(frame)
        head = heads.get(octets)
        if head is None:
            head = heads[octets] = encode(packet_ins.one(frame))[:before]
        parts += head, frame if octets <= most else frame[:most]
    return b"".join(parts)
