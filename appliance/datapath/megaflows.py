"""Megaflows in the fast path: which are there, and with what.

A megaflow's slots are written first and found through its bucket after that, which one store does; it goes the other way round
when it is removed. Invariant: what ``remove`` took away handles no packet once it has returned, and all that it counted has been
told.
"""

from __future__ import annotations

import ctypes
import struct
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from appliance.datapath.clock import TickClock
from appliance.datapath.compile import Compiled, CompiledChoice, compile_actions, in_slots
from appliance.datapath.edit import Edit
from appliance.datapath.gates import Gates
from appliance.datapath.index import Index, Place, Subtable
from appliance.datapath.layout import BUCKET_WAYS, MAX_CHOICES, Bucket, Choice, MegaflowFlag, MegaflowStats, common_words, words
from appliance.datapath.loader import Programs, Sizes
from appliance.datapath.meters import Meters
from appliance.datapath.probing import Probing
from appliance.datapath.quiesce import IN_ORDER, keep_order, wait_for_packets_under_way
from appliance.datapath.slot_statistics import NOTHING, SlotStatistics, Totals
from appliance.datapath.slots import Slots
from appliance.model.actions import Meter
from appliance.model.fields import IN_PORT, KEY_BYTES, PLUGIN_BITS
from appliance.model.megaflow import DatapathAction, Megaflow, MegaflowStatistics, is_again

_, _NO_OTHERS = words(bytes(KEY_BYTES))
_CHOICE_BYTES = ctypes.sizeof(Choice)
_NO_STATISTICS = MegaflowStatistics(0, 0, 0.0)
# Plain integers: what happens for each megaflow is in the way of its first packet.
_PUNT, _WIDE = (int(flag) for flag in (MegaflowFlag.PUNT, MegaflowFlag.WIDE))
_EXPRESS = int(MegaflowFlag.DIRECT | MegaflowFlag.EDITS | MegaflowFlag.RETAGS)
_TOO_SOON = int(MegaflowFlag.XDP) | _EXPRESS
"""Plug-ins' matches run at TC, and not on the express way: a megaflow that depends on them takes neither."""
_MAX_PLANS = 256
"""Of one mask."""


@dataclass(slots=True)
class _Installed:
    """A megaflow in the fast path."""

    slot: int
    place: Place
    choice: int | None = None
    ways: tuple[int, ...] = ()
    """Slots of the choice's ways."""
    stops: tuple[int, ...] = ()
    """Slots that count what each meter and plug-in drops."""
    further: tuple[int, ...] = ()
    """Slots with the rest of its ops."""
    totals: Totals = NOTHING
    statistics: MegaflowStatistics = _NO_STATISTICS
    """As read last; the same object as long as nothing is counted."""


class _Plan(NamedTuple):
    """What megaflows with the same mask and actions have in common."""

    actions: tuple[DatapathAction, ...]
    """Live as long as their identity is in use here."""
    subtable: Subtable
    compiled: Compiled
    takes_one_slot: bool
    flags: int
    """MegaflowFlag, without what depends on the key."""
    edit: Edit | None


class Megaflows:
    """By id. ``constants`` are those of the hash, ``matched`` the bits of ``plugin_bits`` that plug-ins tell."""

    def __init__(self, programs: Programs, sizes: Sizes, constants: tuple[int, ...], meters: Meters, matched: int) -> None:
        self._programs = programs
        self._meters = meters
        self._matched_by_plugins = matched << PLUGIN_BITS.shift
        counted = programs.shared_memory("megaflow_stats", sizes.megaflows * sizes.cpus * ctypes.sizeof(MegaflowStats))
        self._counted = SlotStatistics(counted, sizes.megaflows, sizes.cpus)
        self._clock = TickClock(programs.ticks)
        self._slots = Slots(programs, sizes, self._counted)
        self._index = Index(sizes.buckets, constants)
        self._ways = memoryview(programs.shared_memory("buckets", sizes.buckets * ctypes.sizeof(Bucket))).cast("Q")
        self._free_choices = deque(range(MAX_CHOICES))
        self.probing = Probing(programs, self._index)
        self.gates = Gates(self._slots)
        self.installed: dict[int, _Installed] = {}

    def install(self, megaflow: Megaflow) -> bool:
        """See ``driver.Datapath``."""
        megaflow_id, key, mask, actions = megaflow
        subtable = self._index.subtable(mask)
        plan = self._plan(megaflow) if subtable is None else subtable.plans.get(id(actions)) or self._plan(megaflow)
        if plan is None:
            return False
        _, subtable, compiled, takes_one_slot, flags, edit = plan
        raw = key.to_bytes(KEY_BYTES, "big")
        place = self._index.take(subtable, raw)
        if place is None:
            return False
        slots = self._slots
        now = time.monotonic()
        slot = slots.take_rested(now) if takes_one_slot or self._has_room(compiled, now) else None
        if slot is None:
            self._index.release(place)
            return False
        if edit is not None and edit.suits(key, mask):
            flags |= edit.flags
        common, others = words(raw) if subtable.is_wide else (common_words(raw), _NO_OTHERS)
        if others != _NO_OTHERS:
            flags = flags & ~_EXPRESS | _WIDE
        self.installed[megaflow_id] = installed = _Installed(slot, place)
        ops = compiled.ops if takes_one_slot else self._write_others(installed, compiled)
        # A megaflow whose packets all go through the slow path needs no gate: they stay in order anyway.
        if not flags & _PUNT:
            flags = self.gates.close(megaflow_id, slot, flags, now)
        slots.write(slot, ops, compiled, (common, others), megaflow_id, flags)
        if edit is not None:
            slots.write_edit(slot, edit)
        number = subtable.number
        if number not in self.probing.listed:
            self.probing.add(subtable)
        if not IN_ORDER:
            keep_order()
        slots.put_to_use(slot, number)
        _, bucket, way, tag = place
        self._ways[bucket * BUCKET_WAYS + way] = tag << 32 | slot + 1
        return True

    def _plan(self, megaflow: Megaflow) -> _Plan | None:
        """None if there are too many masks."""
        _, key, mask, actions = megaflow
        indices, parsed_again = self._meters.indices, is_again(IN_PORT.get(key))
        compiled = compile_actions(actions, indices, parsed_again=parsed_again)
        subtable = self._index.subtable(mask)
        if subtable is None:
            self.probing.arrange()  # some may be empty
            subtable = self._index.subtable(mask)
        if subtable is None:
            return None
        flags, edit = int(compiled.flags), compiled.edit
        if mask & self._matched_by_plugins:
            flags, edit = flags & ~_TOO_SOON, None
        plan = _Plan(actions, subtable, compiled, compiled.takes_one_slot, flags, edit)
        metered = bool(actions) and isinstance(actions[0], Meter)  # which may get another index
        if not metered and compiled == compile_actions(actions, indices, parsed_again=not parsed_again):
            if len(subtable.plans) >= _MAX_PLANS:
                subtable.plans.clear()
            subtable.plans[id(actions)] = plan
        return plan

    def _has_room(self, compiled: Compiled, now: float) -> bool:
        ways = compiled.choice.ways if compiled.choice else ()
        slots = 1 + len(ways) + len(compiled.stops) + compiled.further_slots
        return self._slots.rested(slots, now) and bool(self._free_choices or not ways)

    def _write_others(self, installed: _Installed, compiled: Compiled) -> bytes:
        """What the megaflow's own slot leads to; the ops that go in that."""
        choice = self._write_choice(installed, compiled.choice) if compiled.choice else None
        if compiled.stops:
            installed.stops = tuple(self._slots.take() for _ in compiled.stops)
            for counting in installed.stops:
                self._slots.write(counting, b"")
        ops = compiled.linked(choice, installed.stops)
        further = compiled.further_slots
        return self._write_further(installed, ops, further) if further else ops

    def _write_further(self, installed: _Installed, ops: bytes, slots: int) -> bytes:
        """All of a long list of ops but the part that goes in the megaflow's own slot: that is returned."""
        installed.further = tuple(self._slots.take() for _ in range(slots))
        own, *others = in_slots(ops, installed.further)
        for slot, part in zip(installed.further, others, strict=True):
            self._slots.write(slot, part)
        return own

    def _write_choice(self, installed: _Installed, choice: CompiledChoice) -> int:
        """Each way gets a slot that no bucket leads to; returns the index of the choice."""
        installed.choice = self._free_choices.popleft()
        installed.ways = tuple(self._slots.take() for _ in choice.ways)
        for slot, way in zip(installed.ways, choice.ways, strict=True):
            self._slots.write(slot, way.ops)
        ways = (number for slot, way in zip(installed.ways, choice.ways, strict=True) for number in (way.value, slot))
        record = struct.pack(f"=II{2 * len(choice.ways)}I", choice.kind, len(choice.ways), *ways)
        self._programs.update("choices", installed.choice, record.ljust(_CHOICE_BYTES, b"\0"))
        return installed.choice

    def remove(self, megaflow_ids: Iterable[int]) -> dict[int, MegaflowStatistics]:
        """See ``driver.Datapath``."""
        known = [megaflow_id for megaflow_id in megaflow_ids if megaflow_id in self.installed]
        for megaflow_id in known:
            installed = self.installed[megaflow_id]
            self._slots.retire(installed.slot)
            self._index.release(installed.place)
            self._ways[installed.place.bucket * BUCKET_WAYS + installed.place.way] = 0
        if not known:
            return {}
        wait_for_packets_under_way()
        self._slots.forget({self.installed[megaflow_id].slot for megaflow_id in known})
        final = self.statistics(known)
        now = time.monotonic()
        for megaflow_id in known:
            installed = self.installed.pop(megaflow_id)
            self._slots.give_back((installed.slot, *installed.ways, *installed.stops, *installed.further), now)
            if installed.choice is not None:
                self._free_choices.append(installed.choice)
            self.gates.forget(megaflow_id)
        return final

    def statistics(self, megaflow_ids: Iterable[int]) -> dict[int, MegaflowStatistics]:
        """See ``driver.Datapath``."""
        found = [(number, installed) for number in megaflow_ids if (installed := self.installed.get(number)) is not None]
        read = self._counted.reader([installed.slot for _, installed in found])
        # First what is counted last: no part is then more than the whole.
        self._counted.look()
        parts = {
            number: (tuple(read(slot)[:2] for slot in installed.ways), tuple(read(slot)[:2] for slot in installed.stops))
            for number, installed in found
            if installed.ways or installed.stops
        }
        self._counted.look()
        result: dict[int, MegaflowStatistics] = {}
        for number, installed in found:
            totals = read(installed.slot)
            if totals != installed.totals or number in parts:
                installed.place.subtable.hits += totals[0] - installed.totals[0]
                installed.totals = totals
                packets, octets, last_used, flags = totals
                installed.statistics = MegaflowStatistics(
                    packets, octets, self._clock.seconds(last_used), flags, *parts.get(number, ())
                )
            result[number] = installed.statistics
        return result
