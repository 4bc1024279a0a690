"""Upcalls: packets that eBPF leaves to the slow path, out of its ring buffer.

Each stands in a *line*, with all packets of its flow and of some others: while nobody is in that line, a packet which comes to a
megaflow's closed gate (``gates``) has nothing to wait for. Invariant: each is handed out once, in the order in which they came;
what it took of its port's share is given back with it (of one that came alone, when it has been dealt with), its place in the line
when it has been dealt with.
"""

from __future__ import annotations

import ctypes
import mmap
import struct
from collections.abc import Sequence

from appliance.datapath.layout import LINES, PORT_PLACES, UPCALL_UNIT, Line, UpcallShare, port_place
from appliance.datapath.layout import Upcall as UpcallRecord
from appliance.datapath.loader import Programs, Sizes
from appliance.model.fields import IN_PORT, KEY_BYTES
from appliance.model.megaflow import IN_BURSTS, Burst, Controller, PacketInReason, Upcall, UpcallReason
from appliance.model.tunnel import NO_TUNNEL, Tunnel

_MAP = "upcalls"
_RECORD_BYTES = ctypes.sizeof(UpcallRecord)
_ORIGIN = struct.Struct("=8sHH")
"""Of a copy cookie, table, and reason of the packet-in. Of others in the cookie's place: ``_came``."""
_RECORD = struct.Struct(f"={KEY_BYTES}sQIIIIHHHH{_ORIGIN.size}sI")
_MAC_BYTES = 12
_METADATA_BYTES = 8
"""The first of a key."""
_WAY_BYTES = 28
"""Of a key: metadata, tunnel and port."""
_REASONS = tuple(UpcallReason)
# Plain integers, and no calls of Field's: this is in the way of each flow's first packet.
_new = tuple.__new__
_MISS = UpcallReason.MISS
_COPY = int(UpcallReason.COPY)
_IN_BURSTS = frozenset(int(reason) for reason in IN_BURSTS)
_IN_PORT_SHIFT = IN_PORT.shift
_IN_PORT_ONES = IN_PORT.mask >> IN_PORT.shift
_SERVED_OF_ALL = 1
"""Where ``upcall_shares`` has what was taken out for all ports together: in the place of port 0."""


_About = tuple[int, int, int]
"""Megaflow, port, reason."""
_NOTHING = (0, 0, 0)
_Open = tuple[bytes, tuple[int, bytes] | None, int, list[bytes], list[bytes]]
"""A burst: the part of the key that its packets agree in, what its copies say, the port, keys, frames."""


class Upcalls:
    """Those that wait."""

    def __init__(self, programs: Programs, sizes: Sizes) -> None:
        self.fd = programs.map_fd(_MAP)
        """Readable while there are any."""
        self._ring = programs.ring_buffer(_MAP, sizes.upcall_pages * mmap.PAGESIZE)
        self._shares = memoryview(programs.shared_memory("upcall_shares", PORT_PLACES * ctypes.sizeof(UpcallShare))).cast("I")
        self._lines = memoryview(programs.shared_memory("lines", LINES * ctypes.sizeof(Line))).cast("I")
        self._taken: list[int] = []
        """The lines in which those stand that have been handed out."""
        self._units: dict[int, int] = {}
        """What they took of their ports' shares, as far as it has not been given back."""

    def take(self, limit: int) -> Sequence[Upcall | Burst]:
        """See ``driver.Datapath``."""
        if self._units:
            self._give_back()
        found = self._ring.take(limit)
        if not found:
            self._ring.release()
            return ()
        memory = self._ring.memory
        received: list[Upcall | Burst] = []
        units = self._units
        bursts: dict[_About, _Open] = {}
        """That may go on, by what their packets are about; one a port, for between ports no order is kept."""
        of_port: dict[int, _About] = {}
        lines = self._taken
        unpack, from_bytes = _RECORD.unpack_from, int.from_bytes
        for at, size in found:
            key, megaflow_id, in_port, reason, length, gso_size, vlan_present, tpid, tci, line, origin, octets = unpack(memory, at)
            at += _RECORD_BYTES
            if not (reason or gso_size or vlan_present or bursts):
                number = from_bytes(key, "big")
                if number >> _IN_PORT_SHIFT & _IN_PORT_ONES == in_port:
                    # As most are: what follows comes to the same.
                    lines.append(line)
                    units[in_port] = units.get(in_port, 0) + -(-size // UPCALL_UNIT)
                    received.append(
                        _new(Upcall, (in_port, _MISS, megaflow_id, number, memory[at : at + length], 0, None, 0, NO_TUNNEL))
                    )
                    continue
            if vlan_present:
                frame = memory[at : at + _MAC_BYTES] + struct.pack(">HH", tpid, tci) + memory[at + _MAC_BYTES : at + length]
            else:
                frame = memory[at : at + length]
            burst = bursts.get((megaflow_id, in_port, reason)) if bursts else None
            if burst is not None:
                way, said, in_port, keys, frames = burst
                if key[:_WAY_BYTES] == way and not gso_size and (said is None or said == (line, origin)):
                    if said is None:
                        lines.append(line)
                    keys.append(key)
                    frames.append(frame)
                    units[in_port] += -(-size // UPCALL_UNIT)
                    continue
            if reason == _COPY:
                controller = _controller(key, line, origin)
            else:
                controller = None
                lines.append(line)
            number = from_bytes(key, "big")
            if number >> _IN_PORT_SHIFT & _IN_PORT_ONES == in_port:
                octets, came = 0, NO_TUNNEL
            else:
                came = _came(origin) if controller is None else NO_TUNNEL
            upcall = _new(Upcall, (in_port, _REASONS[reason], megaflow_id, number, frame, gso_size, controller, octets, came))
            units[in_port] = units.get(in_port, 0) + -(-size // UPCALL_UNIT)
            if bursts:
                bursts.pop(of_port.get(in_port, _NOTHING), None)
            if reason in _IN_BURSTS and not gso_size and not octets:
                about = megaflow_id, in_port, reason
                keys, frames = [key], [frame]
                said = (line, origin) if controller is not None else None
                bursts[about] = key[:_WAY_BYTES], said, in_port, keys, frames
                of_port[in_port] = about
                received.append(Burst(upcall, keys, frames))
            else:
                received.append(upcall)
        if len(found) > 1:  # else somebody may be waiting for this one packet: it is sent before anything is done that can wait
            self._give_back()
        if not of_port:
            return received  # there was no burst
        return [item.first if isinstance(item, Burst) and len(item.frames) == 1 else item for item in received]

    def _give_back(self) -> None:
        self._ring.release()
        shares = self._shares
        for number, taken_out in self._units.items():
            for served in (2 * port_place(number) + 1, _SERVED_OF_ALL):
                shares[served] = shares[served] + taken_out & 0xFFFFFFFF
        self._units.clear()

    def dealt_with(self) -> None:
        """See ``driver.Datapath``."""
        if self._units:
            self._give_back()
        lines = self._lines
        for line in self._taken:
            place = 2 * line + 1
            lines[place] = lines[place] + 1 & 0xFFFFFFFF
        self._taken.clear()


def _came(origin: bytes) -> Tunnel:
    """The addresses of the tunnel by which a packet came that has been parsed again."""
    return Tunnel(0, int.from_bytes(origin[:4], "big"), int.from_bytes(origin[4:8], "big"))


def _controller(key: bytes, max_len: int, origin: bytes) -> Controller:
    """The action by which a copy came."""
    cookie, table_id, reason = _ORIGIN.unpack(origin)
    metadata = int.from_bytes(key[:_METADATA_BYTES], "big")
    return Controller(PacketInReason(reason), table_id, int.from_bytes(cookie, "big"), max_len, metadata)
