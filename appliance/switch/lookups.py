"""The look-ups that live megaflows made in one table, and which of them a new flow entry may change.

Those of which the same bits are known are kept together. A new entry may change a look-up whose key it matches, as far as that is
known, and that found nothing of a higher priority. For an entry with a new mask all look-ups are gone through. When another one
comes with this mask they are put in a *view*: by the priority of what they found, and by the bits that the mask shares with those
known. So thousands of flow-mods cost a few dictionary look-ups each, however many megaflows there are. A view has to be kept
up for each megaflow that comes or goes, and is dropped when that has cost more than making it again.

Invariant: a view holds all look-ups, and says of every entry what going through them would.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from appliance.pipeline.flow_table import FlowEntry
from appliance.pipeline.translation import Lookup

_ENTRIES_PER_TRANSLATION = 100
"""About how many new entries can be sorted by their masks in the time of one translation."""
_FEW = 64
"""So many are always gone through."""
_MAX_VIEWS = 8
_MAX_ASKED = 256
_NOTHING_FOUND = -1
"""In place of a priority."""


class Lookups:
    """Those of one table with the same bits ``known``."""

    __slots__ = ("_asked", "_by_megaflow", "_known", "_views")

    def __init__(self, known: int) -> None:
        self._known = known
        self._by_megaflow: dict[int, Lookup] = {}
        self._views: dict[int, _View] = {}
        """By the bits that they are sorted by."""
        self._asked: set[int] = set()
        """Bits that a view would have been of use for."""

    def __len__(self) -> int:
        return len(self._by_megaflow)

    def add(self, megaflow_id: int, lookup: Lookup) -> None:
        self._by_megaflow[megaflow_id] = lookup
        if self._views:
            for view in self._kept_up():
                view.add(megaflow_id, lookup)

    def remove(self, megaflow_id: int) -> None:
        lookup = self._by_megaflow.pop(megaflow_id)
        if self._views:
            for view in self._kept_up():
                view.remove(megaflow_id, lookup)

    def changed_by(self, entries: Collection[FlowEntry]) -> Iterable[int]:
        """Megaflows whose look-ups one of these new entries may change."""
        if len(entries) > _ENTRIES_PER_TRANSLATION * len(self):
            return self._by_megaflow
        by_mask: dict[int, dict[int, int]] = {}
        for entry in entries:
            # What the look-ups have in common with this entry decides; of the entries that agree in it, the highest priority does.
            shared = entry.match.mask & self._known
            priorities = by_mask.setdefault(shared, {})
            value = entry.match.value & shared
            if entry.priority > priorities.get(value, _NOTHING_FOUND):
                priorities[value] = entry.priority
        found: set[int] = set()
        for shared, priorities in by_mask.items():
            view = self._view(shared, len(priorities))
            if view is not None:
                for value, priority in priorities.items():
                    found.update(*view.find(value, priority))
                continue
            for megaflow_id, lookup in self._by_megaflow.items():
                highest = priorities.get(lookup.key & shared)
                if highest is not None and _priority(lookup) <= highest:
                    found.add(megaflow_id)
        return found

    def _view(self, shared: int, values: int) -> _View | None:
        """To find so many values in; None where going through all look-ups is as good."""
        if len(self) <= max(_FEW, values):
            return None
        view = self._views.get(shared)
        if view is not None:
            view.unasked = 0
        elif shared in self._asked and len(self._views) < _MAX_VIEWS:
            view = self._views[shared] = _View(shared)
            for megaflow_id, lookup in self._by_megaflow.items():
                view.add(megaflow_id, lookup)
        else:
            if len(self._asked) >= _MAX_ASKED:
                self._asked.clear()
            self._asked.add(shared)
        return view

    def _kept_up(self) -> Iterable[_View]:
        """The views that are worth a change."""
        for view in tuple(self._views.values()):
            view.unasked += 1
            if view.unasked > len(self):
                del self._views[view.shared]
                self._asked.discard(view.shared)
        return self._views.values()


class _View:
    """``unasked`` is how many changes it was told of since it was of use."""

    __slots__ = ("_by_priority", "shared", "unasked")

    def __init__(self, shared: int) -> None:
        self.shared = shared
        self.unasked = 0
        self._by_priority: dict[int, dict[int, set[int]]] = {}

    def add(self, megaflow_id: int, lookup: Lookup) -> None:
        by_value = self._by_priority.setdefault(_priority(lookup), {})
        by_value.setdefault(lookup.key & self.shared, set()).add(megaflow_id)

    def remove(self, megaflow_id: int, lookup: Lookup) -> None:
        priority, value = _priority(lookup), lookup.key & self.shared
        by_value = self._by_priority[priority]
        by_value[value].discard(megaflow_id)
        if not by_value[value]:
            del by_value[value]
            if not by_value:
                del self._by_priority[priority]

    def find(self, value: int, priority: int) -> list[set[int]]:
        """The megaflows that an entry of this value and priority may change."""
        found = (by_value.get(value) for own, by_value in self._by_priority.items() if own <= priority)
        return [megaflow_ids for megaflow_ids in found if megaflow_ids]


def _priority(lookup: Lookup) -> int:
    return _NOTHING_FOUND if lookup.entry is None else lookup.entry.priority
