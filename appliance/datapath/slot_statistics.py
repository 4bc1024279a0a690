"""What eBPF has counted for each slot of the megaflow table, over all CPUs.

The counters lie in shared memory, CPU by CPU. They are read in chunks of slots: one that is as it was is known by one comparison
for each CPU, and of another all sums are made in a few calls. So reading thousands of idle megaflows costs next to nothing.

Invariant: ``read`` after ``look`` returns what was counted before ``look``, and maybe more.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import reduce
from mmap import mmap
from operator import or_

from appliance.model.fields import LAYOUT

_TCP_FLAGS = LAYOUT["tcp_flags"][0] % 8
_CHUNK = 64
"""Slots."""
_WORDS = 4
_SLOT_BYTES = 8 * _WORDS
_CHUNK_BYTES = _CHUNK * _SLOT_BYTES
_ONE = struct.Struct(f"={_WORDS}Q")
_WORTH_A_CHUNK = 10
"""As many slots take as long one by one."""
_COUNTERS = struct.Struct(f"={_CHUNK * _WORDS}Q")


Totals = tuple[int, int, int, int]
"""struct megaflow_stats, over all CPUs: packets, bytes, last use in ticks (``clock``; 0 for never), TCP flags seen."""

NOTHING: Totals = (0, 0, 0, 0)


class SlotStatistics:
    """``memory`` is that of the map ``megaflow_stats``. Chunks begin at the same slots on every CPU."""

    def __init__(self, memory: mmap, slots: int, cpus: int) -> None:
        self._memory = memory
        self._stride = slots * _SLOT_BYTES
        self._starts = range(0, cpus * self._stride, self._stride)
        self._raw: dict[int, list[bytes]] = {}
        """Chunks as they were when they were looked at last."""
        self._totals: dict[int, list[Totals]] = {}
        self._seen: set[int] = set()
        """Chunks looked at since ``look``."""

    def look(self) -> None:
        """From now on ``read`` returns what is counted now."""
        self._seen.clear()

    def read(self, slot: int) -> Totals:
        """The same object as before if nothing in the chunk has changed."""
        chunk = slot // _CHUNK
        if chunk not in self._seen:
            self._seen.add(chunk)
            at = chunk * _CHUNK_BYTES
            raw = [self._memory[start + at : min(start + at + _CHUNK_BYTES, start + self._stride)] for start in self._starts]
            if raw != self._raw.get(chunk):
                self._raw[chunk] = raw
                self._totals[chunk] = _totals(raw)
        return self._totals[chunk][slot % _CHUNK]

    def reader(self, slots: Sequence[int]) -> Callable[[int], Totals]:
        """``read`` or ``read_one``, whichever is faster for these."""
        chunks = len({slot // _CHUNK for slot in slots})
        return self.read_one if len(slots) < _WORTH_A_CHUNK * chunks else self.read

    def read_one(self, slot: int) -> Totals:
        """What is counted now, of one slot by itself."""
        at = slot * _SLOT_BYTES
        packets, octets, last_used, flags = zip(
            *(_ONE.unpack_from(self._memory, start + at) for start in self._starts), strict=True
        )
        return sum(packets), sum(octets), max(last_used), _tcp_flags(reduce(or_, flags))

    def clear(self, slot: int) -> None:
        """Begin anew. No packet may be counted meanwhile."""
        at = slot * _SLOT_BYTES
        for start in self._starts:
            self._memory[start + at : start + at + _SLOT_BYTES] = bytes(_SLOT_BYTES)
        self._seen.discard(slot // _CHUNK)


def _totals(raw: Sequence[bytes]) -> list[Totals]:
    counters = [_COUNTERS.unpack(of_cpu.ljust(_CHUNK_BYTES, b"\0")) for of_cpu in raw]
    packets, octets, last_used, flags = ([of_cpu[word::_WORDS] for of_cpu in counters] for word in range(_WORDS))
    seen: Iterable[int] = flags[0]
    for of_cpu in flags[1:]:
        seen = map(or_, seen, of_cpu)
    return list(zip(_each(sum, packets), _each(sum, octets), _each(max, last_used), map(_tcp_flags, seen), strict=True))


def _each(function: Callable[[Iterable[int]], int], rows: Iterable[Iterable[int]]) -> Iterable[int]:
    """What it makes of the values of each slot, one a CPU."""
    return map(function, zip(*rows, strict=True))


def _tcp_flags(word: int) -> int:
    """They are in a word of the key, as the packet has them."""
    return int.from_bytes(word.to_bytes(8, sys.byteorder)[_TCP_FLAGS : _TCP_FLAGS + 2], "big") if word else 0
