"""Upcalls: packets that eBPF leaves to the slow path, out of its ring buffer.

Invariant: each is handed out once, in the order in which they came, and what it took of its port's share is given back with it.
"""

from __future__ import annotations

import ctypes
import mmap
import struct
from collections.abc import Sequence

from appliance.datapath.layout import PORT_PLACES, UPCALL_UNIT, UpcallShare, port_place
from appliance.datapath.layout import Upcall as UpcallRecord
from appliance.datapath.loader import Programs, Sizes
from appliance.model.fields import IN_PORT, KEY_BYTES
from appliance.model.megaflow import Controller, PacketInReason, Upcall, UpcallReason

_MAP = "upcalls"
_RECORD_BYTES = ctypes.sizeof(UpcallRecord)
_RECORD = struct.Struct(f"={KEY_BYTES}sQIIIIHHHH")
_BEHIND = struct.Struct("=8sHHI")
"""What stands behind that: of a copy cookie, table, and reason of the packet-in; of all the bytes that the packet had."""
_MAC_BYTES = 12
_METADATA_BYTES = 8
"""The first of a key."""
_REASONS = tuple(UpcallReason)
_ALL_PORTS = 0
"""In place of a port number, in ``upcall_shares``."""


class Upcalls:
    """Those that wait."""

    def __init__(self, programs: Programs, sizes: Sizes) -> None:
        self.fd = programs.map_fd(_MAP)
        """Readable while there are any."""
        self._ring = programs.ring_buffer(_MAP, sizes.upcall_pages * mmap.PAGESIZE)
        self._shares = memoryview(programs.shared_memory("upcall_shares", PORT_PLACES * ctypes.sizeof(UpcallShare))).cast("I")

    def take(self, limit: int) -> Sequence[Upcall]:
        """See ``driver.Datapath``."""
        memory = self._ring.memory
        received: list[Upcall] = []
        units: dict[int, int] = {}
        for at, size in self._ring.take(limit):
            key, megaflow_id, in_port, reason, length, gso_size, vlan_present, tpid, tci, max_len = _RECORD.unpack_from(memory, at)
            controller = _controller(memory, at, max_len) if reason == UpcallReason.COPY else None
            at += _RECORD_BYTES
            if vlan_present:
                frame = memory[at : at + _MAC_BYTES] + struct.pack(">HH", tpid, tci) + memory[at + _MAC_BYTES : at + length]
            else:
                frame = memory[at : at + length]
            number = int.from_bytes(key, "big")
            octets = 0 if IN_PORT.get(number) == in_port else _BEHIND.unpack_from(memory, at - _BEHIND.size)[-1]
            received.append(Upcall(in_port, _REASONS[reason], megaflow_id, number, frame, gso_size, controller, octets))
            units[in_port] = units.get(in_port, 0) + -(-size // UPCALL_UNIT)
        self._ring.release()
        if received:
            shares = self._shares
            units[_ALL_PORTS] = sum(units.values())
            for number, taken_out in units.items():
                place = 2 * port_place(number) + 1
                shares[place] = shares[place] + taken_out & 0xFFFFFFFF
        return received


def _controller(memory: bytes | mmap.mmap, at: int, max_len: int) -> Controller:
    """The action by which a copy came, from its record at this offset."""
    cookie, table_id, reason, _ = _BEHIND.unpack_from(memory, at + _RECORD.size)
    metadata = int.from_bytes(memory[at : at + _METADATA_BYTES], "big")
    return Controller(PacketInReason(reason), table_id, int.from_bytes(cookie, "big"), max_len, metadata)
