"""Packets that a controller has seen the start of, and may send on by number (specification 1.3.5, sections 6.1.2 and 7.4.1).

Invariant: a number always means the same packet; it is given out once, and taken back once.
"""

from __future__ import annotations

from typing import NamedTuple

from appliance.model.actions import OFP_NO_BUFFER
from appliance.model.tunnel import NO_TUNNEL, Tunnel
from appliance.openflow.errors import BadRequest, ErrorType, ProtocolError

N_BUFFERS = 256
HOLD_SECONDS = 5.0
"""So long a packet waits for its controller at least; then its place may be taken by another."""


class BufferedPacket(NamedTuple):
    """As the packet was when it went to the controller, with its tunnel fields; ``gso_size`` as in Upcall."""

    frame: bytes
    in_port: int
    gso_size: int
    tunnel: Tunnel = NO_TUNNEL


class PacketBuffers:
    """The packets kept for one controller."""

    def __init__(self, size: int = N_BUFFERS) -> None:
        self._size = size
        self._kept: dict[int, tuple[BufferedPacket, float]] = {}
        """By buffer id, oldest first, with the time at which it came."""
        self._given_out = 0

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, packet: BufferedPacket, now: float) -> int:
        """Its buffer id; OFP_NO_BUFFER if all places hold packets that their controller must be given time for."""
        if len(self._kept) >= self._size:
            oldest, (_, since) = next(iter(self._kept.items()))
            if now - since < HOLD_SECONDS:
                return OFP_NO_BUFFER
            del self._kept[oldest]
        buffer_id = self._given_out % OFP_NO_BUFFER
        self._given_out += 1
        self._kept[buffer_id] = (packet, now)
        return buffer_id

    def find(self, buffer_id: int) -> BufferedPacket:
        """The packet, which stays. Raises BAD_REQUEST/BUFFER_UNKNOWN or BUFFER_EMPTY."""
        kept = self._kept.get(buffer_id)
        if kept is not None:
            return kept[0]
        if buffer_id < self._given_out:
            raise ProtocolError(ErrorType.BAD_REQUEST, BadRequest.BUFFER_EMPTY, f"the packet of buffer {buffer_id:#x} is gone")
        raise ProtocolError(ErrorType.BAD_REQUEST, BadRequest.BUFFER_UNKNOWN, f"there was no buffer {buffer_id:#x}")

    def release(self, buffer_id: int) -> None:
        """The packet has been dealt with. It must be there (``find``)."""
        del self._kept[buffer_id]
