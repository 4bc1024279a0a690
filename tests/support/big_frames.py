"""Frames longer than IPv4's header can say (Linux's BIG TCP), at the ends of veths: packet sockets with virtio headers."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

import pytest

from appliance.packet import checksum
from appliance.packet.parse import parse
from appliance.ports import frame_sizes

GSO_SIZE = 1448
SOURCE = bytes.fromhex("0200000000b1")
"""Of these frames: no stack sends any by it."""
LONGEST = 524_280
"""The kernel's GSO_MAX_SIZE."""
_SOL_PACKET, _PACKET_AUXDATA, _PACKET_VNET_HDR = 263, 8, 15
_SO_RCVBUFFORCE = 33
_ETH_P_ALL = 3
_TAGGED = 1 << 4
_VNET = struct.Struct("=BBHHHH")
_AUX = struct.Struct("=IIIHHHH")
_L4, _TCP_CHECKSUM = 34, 16


def needs_big_tcp() -> None:
    """Skip the test where the kernel has none."""
    loopback = frame_sizes.read(1)
    if loopback is None or loopback.gso is None:
        pytest.skip("this kernel has no BIG TCP for IPv4")


def big_frame(size: int, *, sport: int = 1, flags: int = 0x10) -> bytes:
    """Of ``size`` bytes in all, as a local stack makes it: total length 0, a partial checksum."""
    tcp = struct.pack(">HHIIBBHHH", sport, 2, 7, 9, 5 << 4, flags, 1000, 0, 0)
    ip = bytearray(struct.pack(">BBHHHBBH4s4s", 0x45, 0, 0, 1, 0x4000, 64, 6, 0, bytes((10, 0, 0, 1)), bytes((10, 0, 0, 2))))
    ip[10:12] = (checksum.ones_complement_sum(ip) ^ 0xFFFF).to_bytes(2, "big")
    head = bytes.fromhex("020000000002") + SOURCE + bytes.fromhex("0800") + ip
    payload = bytes(range(251)) * (size // 251 + 1)
    partial = checksum.fold(int.from_bytes(ip[12:20], "big") + 6 + size - _L4)
    tcp = tcp[:_TCP_CHECKSUM] + partial.to_bytes(2, "big") + tcp[_TCP_CHECKSUM + 2 :]
    frame = (head + tcp + payload)[:size]
    assert checksum.is_partial(frame, parse(frame, 1))
    return frame


class Wire:
    """A host's interface, in the namespace of the caller. Frames of its own stack are not seen."""

    def __init__(self, interface: str) -> None:
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 1 << 26)
        self._socket.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
        self._socket.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
        self._socket.bind((interface, _ETH_P_ALL))

    def send(self, frame: bytes, l4: int = _L4) -> None:
        header = l4 + (frame[l4 + 12] >> 4) * 4
        self._socket.send(_VNET.pack(1, 1, header, GSO_SIZE, l4, _TCP_CHECKSUM) + frame)

    def receive(self, seconds: float) -> Iterator[tuple[bytes, int]]:
        """Such frames, a tag that the kernel took off put back, each with its gso_size. Raises TimeoutError."""
        while True:
            self._socket.settimeout(seconds)
            data, about, _, address = self._socket.recvmsg(LONGEST + 1000, 256)
            frame = data[_VNET.size :]
            for level, kind, value in about:
                if (level, kind) == (_SOL_PACKET, _PACKET_AUXDATA):
                    status, *_, tci, tpid = _AUX.unpack(value)
                    if status & _TAGGED:
                        frame = frame[:12] + struct.pack(">HH", tpid, tci) + frame[12:]
            if address[2] != socket.PACKET_OUTGOING and frame[6:12] == SOURCE:
                yield frame, _VNET.unpack_from(data)[3]

    def close(self) -> None:
        self._socket.close()
