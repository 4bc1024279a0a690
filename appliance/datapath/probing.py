"""Which subtables eBPF probes, and in what order: the busiest first.

Invariant: a packet goes through one list that is whole: a new subtable is added behind the others, and another order is written
where no packet reads, then put in the place of the first.
"""

from __future__ import annotations

import ctypes
import struct

from appliance.datapath.index import Index, Subtable
from appliance.datapath.layout import MAX_SUBTABLES, Settings, words
from appliance.datapath.loader import Programs
from appliance.datapath.quiesce import keep_order, wait_for_packets_under_way
from appliance.model.fields import KEY_BYTES

_SUBTABLE = struct.Struct("=48s16x80s48x")
_SETTING = int(Settings.subtables.offset) // 4


class Probing:
    """The subtables of ``index``, as eBPF has them."""

    def __init__(self, programs: Programs, index: Index) -> None:
        self._programs = programs
        self._index = index
        self._orders = programs.shared_memory("subtable_orders", 2 * MAX_SUBTABLES)
        self._in_use = 0
        self._settings = memoryview(programs.shared_memory("settings", ctypes.sizeof(Settings))).cast("I")
        self.listed: dict[int, None] = {}
        """Numbers of subtables, as the order in use has them."""

    def add(self, subtable: Subtable) -> None:
        """From now on it is probed too, after the others."""
        self._programs.update("subtables", subtable.number, _SUBTABLE.pack(*words(subtable.mask.to_bytes(KEY_BYTES, "big"))))
        self._orders[self._in_use * MAX_SUBTABLES + len(self.listed)] = subtable.number
        self.listed[subtable.number] = None
        self._write()

    def arrange(self) -> None:
        """The order of the index from now on; subtables without megaflows go. Returns when no packet reads the order before."""
        self._index.arrange()
        order = self._index.order
        if order == list(self.listed):
            return
        # The other list, which no packet reads: it has not been in use since the last wait.
        other = 1 - self._in_use
        self._orders[other * MAX_SUBTABLES : other * MAX_SUBTABLES + len(order)] = bytes(order)
        self._in_use, self.listed = other, dict.fromkeys(order)
        self._write()
        wait_for_packets_under_way()

    def _write(self) -> None:
        keep_order()
        self._settings[_SETTING] = len(self.listed) | self._in_use << 16
