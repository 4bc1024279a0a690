"""The table of slots: what a megaflow is to eBPF, and who has which slot.

A slot is struct megaflow, struct megaflow_body and struct megaflow_stats at one index. A megaflow has one that its bucket leads
to, and may have further ones that this one leads to. Invariant: a slot is written before it is put to use, by one store, and
rests after it was given back, longer than any packet is under way. So eBPF never sees half a megaflow.
"""

from __future__ import annotations

import ctypes
import struct
from collections import deque
from collections.abc import Container, Iterable

from appliance.datapath.compile import PUNTED, Compiled
from appliance.datapath.edit import Edit
from appliance.datapath.layout import EDIT_OPS, NO_SUBTABLE, Megaflow, MegaflowBody, Op, Repeated, words
from appliance.datapath.loader import Programs, Sizes
from appliance.datapath.slot_statistics import SlotStatistics
from appliance.model.fields import KEY_BYTES
from appliance.model.megaflow import NO_MEGAFLOW

REST_SECONDS = 0.02
"""Packets are handled in microseconds, without being preempted."""

_SLOT_BYTES = ctypes.sizeof(Megaflow)
_BODY_BYTES = ctypes.sizeof(MegaflowBody)
_SLOT = struct.Struct("=IIIHH48s")
_BODY_HEAD = struct.Struct("=QII80s")
_NO_WORDS = words(bytes(KEY_BYTES))
_SUBTABLE_WORD, _FLAGS = (int(getattr(Megaflow, member).offset) // 4 for member in ("subtable", "flags"))
_SERVED, _TICKET = (int(getattr(MegaflowBody, member).offset) // 4 for member in ("served", "ticket"))
_SLOT_WORDS = _SLOT_BYTES // 4
_REPEATED_BYTES = ctypes.sizeof(Repeated)
_BODY_WORDS = _BODY_BYTES // 4
_EDIT = int(MegaflowBody.ops.offset) + EDIT_OPS * ctypes.sizeof(Op)


class Slots:
    """``statistics`` are theirs."""

    def __init__(self, programs: Programs, sizes: Sizes, statistics: SlotStatistics) -> None:
        self._statistics = statistics
        self._slots = programs.shared_memory("megaflows", sizes.megaflows * _SLOT_BYTES)
        self._slot_words = memoryview(self._slots).cast("I")
        self._bodies = programs.shared_memory("megaflow_bodies", sizes.megaflows * _BODY_BYTES)
        self._body_words = memoryview(self._bodies).cast("I")
        repeated = programs.shared_memory("repeated", sizes.cpus * _REPEATED_BYTES)
        self._repeated = memoryview(repeated).cast("I")[int(Repeated.slot.offset) // 4 :: _REPEATED_BYTES // 4]
        """Of each CPU, the slot of the packet that was repeated last, plus one."""
        self._free = deque((slot, float("-inf")) for slot in range(sizes.megaflows))
        """In the order in which they were given back, and when."""

    def rested(self, count: int, now: float) -> bool:
        """Whether so many may be taken."""
        return len(self._free) >= count and self._free[count - 1][1] <= now - REST_SECONDS

    def take(self) -> int:
        return self._free.popleft()[0]

    def take_rested(self, now: float) -> int | None:
        """One, if there is one."""
        free = self._free
        return free.popleft()[0] if free and free[0][1] <= now - REST_SECONDS else None

    def forget(self, slots: Container[int]) -> None:
        """No packet is taken for one that these were for. They have been retired, and none is under way by them any more."""
        for cpu, repeated in enumerate(self._repeated):
            if repeated - 1 in slots:
                self._repeated[cpu] = 0

    def give_back(self, slots: Iterable[int], now: float) -> None:
        """No packet is under way by them any more."""
        for slot in slots:
            self._statistics.clear(slot)
            self._free.append((slot, now))

    def write(
        self,
        slot: int,
        ops: bytes,
        compiled: Compiled = PUNTED,
        key: tuple[bytes, bytes] = _NO_WORDS,
        megaflow_id: int = NO_MEGAFLOW,
        flags: int = 0,
    ) -> None:
        """All of a slot but for the word that puts it to use. Its statistics are 0. ``key``: see ``layout.words``."""
        at = slot * _SLOT_BYTES
        # One copy, which leaves the first word as it is: pack_into would write 0 there first, which is a subtable's number.
        self._slots[at : at + _SLOT_BYTES] = _SLOT.pack(
            NO_SUBTABLE, flags, compiled.xdp_port, compiled.ttl_needed, compiled.growth, key[0]
        )
        body = _BODY_HEAD.pack(megaflow_id, 0, 1, key[1]) + ops
        at = slot * _BODY_BYTES
        self._bodies[at : at + len(body)] = body

    def write_edit(self, slot: int, edit: Edit) -> None:
        """Beside the ops."""
        at = slot * _BODY_BYTES + _EDIT
        self._bodies[at : at + len(edit.raw)] = edit.raw

    def put_to_use(self, slot: int, subtable: int) -> None:
        """From here on packets that the bucket or the cache leads to it fit it."""
        self._slot_words[slot * _SLOT_WORDS + _SUBTABLE_WORD] = subtable

    def retire(self, slot: int) -> None:
        """From here on nothing fits it: no bucket's way, no entry of the cache."""
        self._slot_words[slot * _SLOT_WORDS + _SUBTABLE_WORD] = NO_SUBTABLE

    def serve(self, slot: int, served: int, flags: int, *, at_last: bool) -> bool:
        """So many of the packets that drew a ticket have been served. If none waits, or ``at_last``, these are the slot's flags
        from now on: whether that is so."""
        words, at = self._body_words, slot * _BODY_WORDS
        words[at + _SERVED] = served
        if words[at + _TICKET] != served and not at_last:
            return False
        self._slot_words[slot * _SLOT_WORDS + _FLAGS] = flags
        return True
