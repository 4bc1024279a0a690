"""Packet sockets that show what came in by an interface, and nothing of what left, with its tags in it."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

ETH_P_ALL, SOL_PACKET, AUXDATA, IGNORE_OUTGOING = 3, 263, 8, 23
TAG_IS_BESIDE = 0x10


def packet_socket(interface: str) -> socket.socket:
    raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    raw.setsockopt(SOL_PACKET, AUXDATA, 1)
    raw.setsockopt(SOL_PACKET, IGNORE_OUTGOING, 1)
    raw.bind((interface, ETH_P_ALL))
    raw.setblocking(False)
    return raw


def waiting_at(wire: socket.socket) -> Iterator[bytes]:
    """The frames that have arrived, with the tag that the kernel put beside them."""
    while True:
        try:
            frame, beside, _, _ = wire.recvmsg(1 << 16, 256)
        except BlockingIOError:
            return
        status, tci, tpid = struct.unpack_from("I12xHH", beside[0][2])
        yield frame[:12] + struct.pack(">HH", tpid, tci) + frame[12:] if status & TAG_IS_BESIDE else frame
