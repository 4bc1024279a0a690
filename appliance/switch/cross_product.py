"""Tables that multiply: where they do, a packet's way through them is kept in two parts, each a megaflow of its own.

A megaflow is for a whole way. Where one table asks for the source and the next for the destination, each pair of them is a way, and
takes a packet to the slow path: m × n for m + n entries. Cut before the second table there are m first parts, whose packets are
looked up once more (``recirculation``), and n rests. That costs every such packet the second look-up, so ways are cut only while
megaflows are being made in numbers, and before a table where few first parts and few rests make up most of them.

Invariant: a cut changes which megaflows there are, never what becomes of a packet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import NamedTuple

from appliance.model.fields import IN_PORT, METADATA
from appliance.model.megaflow import is_again
from appliance.pipeline.first_part import only_goes_on
from appliance.pipeline.translation import Translation

FEWEST, MOST = 1024, 4096
"""New megaflows that are looked at together."""
LAST = 4 * MOST
"""So many are made between two looks that were in vain: a look takes a quarter of what it takes to make those that it is at."""
_TIMES = 4
"""So many times fewer first parts, and so many times fewer rests, than ways: then a cut pays."""
_FEW = 256
"""So few megaflows need no cut."""
_GROUPS, _MEMBERS = 4, 8


class Parts(NamedTuple):
    """A packet's way in two parts. The rest's key is the packet's with a place for a port (``model.megaflow.Again``)."""

    first: Translation
    rest: Translation


Cut = Callable[[int, int], Parts | None]
"""The way of a packet with this key, cut before the look-up in a table; None where that cannot be."""


class _Ways:
    """Those that come to one table, by their first parts and by their rests, as far as their entries tell."""

    __slots__ = ("by_first", "by_rest", "count")

    def __init__(self) -> None:
        self.count = 0
        self.by_first: dict[object, list[Translation]] = {}
        self.by_rest: dict[object, list[Translation]] = {}

    def add(self, translation: Translation, first: object, rest: object) -> None:
        self.count += 1
        self.by_first.setdefault(first, []).append(translation)
        self.by_rest.setdefault(rest, []).append(translation)

    @property
    def pays(self) -> bool:
        return self.count >= max(_FEW, _TIMES * len(self.by_first), _TIMES * len(self.by_rest))

    @property
    def parts(self) -> int:
        return len(self.by_first) + len(self.by_rest)


class CrossProduct:
    """Whether, and where, the ways of new packets are cut."""

    def __init__(self) -> None:
        self.table: int | None = None
        """They are cut before the look-up in this one."""
        self._made = 0
        self._due = FEWEST

    def made(self, megaflows: int) -> bool:
        """So many were made. Whether it is time to ``judge``."""
        self._made += megaflows
        return self._made >= self._due

    def judge(self, newest: Iterable[Translation], cut: Cut) -> None:
        """See to it that ways are cut where it pays, by the translations of the newest megaflows.

        After many parts whole ways are made again for a while: only they show whether it still pays.
        """
        self._made = 0
        if self.table is not None:
            self.table, self._due = None, FEWEST
            return
        self._due = min(2 * self._due, LAST)
        by_table = _ways(islice(newest, MOST))
        tables = sorted(by_table, key=lambda table_id: by_table[table_id].parts / by_table[table_id].count)
        for table_id in tables:
            ways = by_table[table_id]
            if ways.pays and _holds(ways, table_id, cut):
                self.table, self._due = table_id, MOST
                return

    def swept(self, live: int) -> None:
        """There are so many megaflows."""
        if live < _FEW:
            self.table, self._due = None, FEWEST


def _ways(translations: Iterable[Translation]) -> dict[int, _Ways]:
    """By table, those that come there by entries that do no more than that."""
    found: dict[int, _Ways] = {}
    for translation in translations:
        lookups = translation.lookups
        in_port = IN_PORT.get(translation.key)
        if is_again(in_port) or translation.again is not None:
            continue
        entries = tuple([id(lookup.entry) for lookup in lookups])
        for at in range(1, len(lookups)):
            before = lookups[at - 1].entry
            if before is None or not only_goes_on(before.program):
                break
            lookup = lookups[at]
            first, rest = (in_port, entries[:at]), (in_port, METADATA.get(lookup.key), entries[at:])
            ways = found.get(lookup.table_id)
            if ways is None:
                ways = found[lookup.table_id] = _Ways()
            ways.add(translation, first, rest)
    return found


def _holds(ways: _Ways, table_id: int, cut: Cut) -> bool:
    """Whether ways that have a part in common by their entries have it in common as a megaflow, too."""
    for groups, part in ((ways.by_first, 0), (ways.by_rest, 1)):
        largest = sorted(groups.values(), key=len, reverse=True)[:_GROUPS]
        looked_at = megaflows = 0
        for group in largest:
            parts = [cut(translation.key, table_id) for translation in _spread(group)]
            if None in parts:
                return False
            looked_at += len(parts)
            megaflows += len({_region(both[part]) for both in parts if both is not None})
        if looked_at < _TIMES // 2 * megaflows:
            return False
    return True


def _spread(group: Sequence[Translation]) -> Sequence[Translation]:
    return group[:: max(1, len(group) // _MEMBERS)][:_MEMBERS]


def _region(translation: Translation) -> tuple[int, int]:
    return translation.mask, translation.key & translation.mask
