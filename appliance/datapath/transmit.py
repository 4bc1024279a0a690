"""Putting frames out on ports: one packet socket a port.

Invariant: a port that is gone, down or whose queue is full costs that frame, never an exception.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable

from appliance.datapath.driver import DatapathError
from appliance.datapath.tunnels import Tunnels
from appliance.model.fields import Layer
from appliance.model.queues import queue_class
from appliance.model.tunnel import NO_TUNNEL, Tunnel
from appliance.packet.checksum import TCP_CHECKSUM, UDP_CHECKSUM
from appliance.packet.parse import parse

_SOL_PACKET = 263
_PACKET_VNET_HDR = 15
_NEEDS_CSUM = 1
_GSO_NONE, _GSO_TCPV4, _GSO_TCPV6, _GSO_UDP_L4 = 0, 1, 4, 5
_VNET_HEADER = struct.Struct("=BBHHHH")
"""struct virtio_net_hdr: flags, gso_type, hdr_len, gso_size, csum_start, csum_offset (linux/virtio_net.h)."""
_PLAIN = _VNET_HEADER.pack(0, _GSO_NONE, 0, 0, 0, 0)
_UDP_HEADER_BYTES = 8


def _vnet_header(frame: bytes, gso_size: int) -> bytes:
    """How the kernel is to cut the frame into segments of ``gso_size``, and where it finishes their checksums."""
    parsed = parse(frame, 0)
    l4 = parsed.l4_offset
    if parsed.layers & Layer.TCP:
        kind = _GSO_TCPV6 if parsed.layers & Layer.IPV6 else _GSO_TCPV4
        header, checksum = l4 + (frame[l4 + 12] >> 4) * 4, TCP_CHECKSUM
    elif parsed.layers & Layer.UDP:
        kind, header, checksum = _GSO_UDP_L4, l4 + _UDP_HEADER_BYTES, UDP_CHECKSUM
    else:
        return _PLAIN
    return _VNET_HEADER.pack(_NEEDS_CSUM, kind, header, gso_size, l4, checksum)


class Transmitter:
    """Sockets by port number. ``tunnels`` are those of tunnel ports."""

    def __init__(self, tunnels: Tunnels | None = None) -> None:
        self._tunnels = tunnels
        self._sockets: dict[int, socket.socket] = {}
        self._marked: set[int] = set()
        """Tunnel ports."""
        self._plain: dict[int, Callable[[bytes], int]] = {}
        """``send`` of the sockets that a frame can be given to with nothing but an empty header."""
        self._classes: dict[int, int] = {}
        """Traffic class of each socket, 0 for none."""
        self.failed = 0
        """Frames that the kernel did not take."""

    def open(self, port: int, ifindex: int, mark: int = 0) -> None:
        """``mark`` is that of the frames of a tunnel port (SO_MARK). Raises DatapathError."""
        self.close(port)
        out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
        try:
            out.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
            if mark:
                out.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
            # As it is called now: another may have the name that it had.
            out.bind((socket.if_indextoname(ifindex), 0))
        except OSError as error:
            out.close()
            raise DatapathError(f"cannot send by interface {ifindex}: {error.strerror}") from error
        self._sockets[port] = out
        self._classes[port] = 0
        if mark:
            self._marked.add(port)
        else:
            self._plain[port] = out.send

    def send(self, port: int, frame: bytes, gso_size: int = 0, queue_id: int | None = None, tunnel: Tunnel = NO_TUNNEL) -> bool:
        """See ``driver.Datapath``."""
        plain = self._plain.get(port)
        try:
            if plain is None or gso_size or queue_id is not None:
                return self._send(port, frame, gso_size, queue_id, tunnel)
            plain(_PLAIN + frame)
        except OSError:
            self.failed += 1
            return False
        return True

    def _send(self, port: int, frame: bytes, gso_size: int, queue_id: int | None, tunnel: Tunnel) -> bool:
        """Raises OSError."""
        out = self._sockets.get(port)
        if out is None:
            return False
        header = _vnet_header(frame, gso_size) if gso_size else _PLAIN
        traffic_class = 0 if queue_id is None else queue_class(queue_id)
        if traffic_class != self._classes[port]:
            out.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, traffic_class)
            self._classes[port] = traffic_class
            if traffic_class:
                self._plain.pop(port, None)
            elif port not in self._marked:
                self._plain[port] = out.send
        if self._tunnels is None or port not in self._marked:
            out.send(header + frame)
        else:
            with self._tunnels.sending(port, frame, tunnel):
                out.send(header + frame)
        return True

    def close(self, port: int) -> None:
        self._plain.pop(port, None)
        self._marked.discard(port)
        out = self._sockets.pop(port, None)
        if out is not None:
            out.close()

    def close_all(self) -> None:
        for port in list(self._sockets):
            self.close(port)
