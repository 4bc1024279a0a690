"""Tunnel ports in the fast path: what each has fixed, how packets of a shared device find theirs, what the slow path's frames say.

Userspace cannot give a frame of its own a tunnel. So a program at the device's egress does, for frames with our socket's mark, from
one place in shared memory. Invariant: that place says something only while a frame is being sent, which is one system call.
"""

from __future__ import annotations

import ctypes
import mmap
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv6Address

from appliance.datapath.driver import DatapathPort
from appliance.datapath.layout import Injection, SendFlag, TunnelEnd, TunnelFlag
from appliance.datapath.layout import Tunnel as TunnelSlot
from appliance.datapath.loader import Programs
from appliance.model.fields import BY_NAME, IP_TTL
from appliance.model.tunnel import DEFAULT_TTL, Tunnel, TunnelPort
from appliance.packet.parse import parse

_IP_DSCP = BY_NAME["ip_dscp"]
_ENDS_FIXED = TunnelFlag.REMOTE | TunnelFlag.LOCAL


class Tunnels:
    """The tunnel ports by number."""

    MEMORY_BYTES = ctypes.sizeof(Injection)

    def __init__(self, programs: Programs, memory: mmap.mmap) -> None:
        """``memory`` is that of the map "injection"."""
        self.mark = secrets.randbits(31) | 1
        """Of the sockets that frames for tunnel devices are sent by."""
        self._programs = programs
        self._injection = Injection.from_buffer(memory)
        self._ports: dict[int, DatapathPort] = {}

    def add(self, port: DatapathPort) -> None:
        """Raises DatapathError."""
        if port.tunnel is None:
            raise ValueError(f"port {port.number} is no tunnel port")
        self._programs.update("tunnels", port.number, bytes(_slot(port.tunnel)))
        self._programs.update("tunnel_ends", bytes(_end(port.ifindex, port.tunnel)), port.number.to_bytes(4, sys.byteorder))
        self._ports[port.number] = port

    def remove(self, number: int) -> None:
        port = self._ports.pop(number, None)
        if port is not None and port.tunnel is not None:
            self._programs.delete("tunnel_ends", bytes(_end(port.ifindex, port.tunnel)))

    def ways(self, ifindex: int) -> int:
        """In which ways the device's ports match: see struct ingress. 0 if it has no port (any more)."""
        ways = 0
        for port in self._ports.values():
            if port.ifindex == ifindex and port.tunnel is not None:
                ways |= 1 << _fixed(port.tunnel)
        return ways

    @contextmanager
    def sending(self, number: int, frame: bytes, tunnel: Tunnel) -> Iterator[None]:
        """While the frame is handed to the kernel, on a socket with our mark."""
        slot, port = self._injection, self._ports[number].tunnel
        slot.tunnel_id, slot.tun_src, slot.tun_dst = tunnel
        slot.number = number
        slot.tos = slot.ttl = 0
        if port is not None and None in (port.tos, port.ttl):
            key = parse(frame, number).key
            slot.tos, slot.ttl = _IP_DSCP.get(key) << 2, IP_TTL.get(key)
        slot.mark = self.mark
        try:
            yield
        finally:
            slot.mark = 0


def _fixed(port: TunnelPort) -> TunnelFlag:
    fixed = TunnelFlag(0)
    if port.remote is not None:
        fixed |= TunnelFlag.REMOTE
    if port.local is not None:
        fixed |= TunnelFlag.LOCAL
    return fixed if port.key is None else fixed | TunnelFlag.KEY


def _words(address: IPv4Address | IPv6Address | None) -> tuple[int, ...]:
    """As struct tunnel has it."""
    if isinstance(address, IPv6Address):
        return tuple(int.from_bytes(address.packed[at : at + 4], sys.byteorder) for at in range(0, 16, 4))
    return (0 if address is None else int(address), 0, 0, 0)


def _open(fixed: object, bits: int = 32) -> int:
    return (1 << bits) - 1 if fixed is None else 0


def _slot(port: TunnelPort) -> TunnelSlot:
    flags = SendFlag(0)
    for flag, on in (
        (SendFlag.IPV6, port.ipv6),
        (SendFlag.WITHOUT_CHECKSUM, not port.checksum),
        (SendFlag.WHOLE, port.dont_fragment),
        (SendFlag.WITHOUT_KEY, port.keyless),
    ):
        if on:
            flags |= flag
    return TunnelSlot(
        flags=flags,
        remote=_words(port.remote),
        local=_words(port.local),
        id=port.key or 0,
        remote_open=_open(port.remote),
        # What is in a packet's field is IPv4.
        local_open=0 if port.ipv6 else _open(port.local),
        id_open=_open(port.key),
        tos=port.tos or 0,
        tos_open=_open(port.tos, 8),
        ttl=DEFAULT_TTL if port.ttl is None else port.ttl,
        ttl_open=_open(port.ttl, 8),
    )


def _end(ifindex: int, port: TunnelPort) -> TunnelEnd:
    fixed = _fixed(port)
    if fixed & _ENDS_FIXED and port.ipv6:
        fixed |= TunnelFlag.IPV6
    return TunnelEnd(_words(port.remote), _words(port.local), port.key or 0, ifindex, fixed)
