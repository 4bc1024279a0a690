"""Megaflows that are made before their packets come, once it has been seen which will be wanted.

Where a table has an entry for each connection, address or port, each takes a megaflow of its own, and with it a packet to the slow
path. When the newest megaflows differ in nothing but which of a table's entries with one mask they are of, the others of these are
likely to be wanted next. So their megaflows are made too, in the shell's spare time: an entry's value is put into the key of a
packet that came, and that is translated as if it had come up.

Invariant: a megaflow that is made ahead is the one that its packet would have made; it brings no mask that there was not, and takes
no room that others need.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from appliance.model.fields import METADATA
from appliance.pipeline.flow_table import FlowEntry, Pipeline
from appliance.pipeline.translation import Translation

FEWEST, MOST = 16, 4096
"""New megaflows that are looked at together, and how many must have been alike: more for a table's entries that led to little."""
_ALIKE = 0.75
"""So many of those that are looked at together must be."""
_KINDS = 1024
"""Tables' entries with one mask that are remembered."""
_LONGEST_PAUSE = 240
"""To look at one takes as long as a tenth of all that it takes to make one: where nothing is alike, one in sixteen is looked at."""
_UNFIT = 64
"""So many entries more that were of no use than of use, and the rest is left."""


class Ahead(NamedTuple):
    """A packet that may come: its key, and the entry that it is to meet. ``like`` is one that came."""

    key: int
    entry: FlowEntry
    like: Translation


class _Pattern(NamedTuple):
    """What megaflows have in common that are of entries with one mask in one table."""

    table_id: int
    entry_mask: int
    mask: int
    others: int
    """The key, where the entry has no say."""
    metadata: int
    """As the packet came to the table."""


@dataclass(slots=True)
class _Kind:
    """Entries with one mask in one table."""

    due: int
    seen: int = 0
    """Megaflows that were of such entries, since some were last made ahead."""


class Prefetch:
    """Whether, and of which packets, megaflows are made ahead."""

    def __init__(self, pipeline: Pipeline, fewest: int = FEWEST) -> None:
        self._pipeline = pipeline
        self._fewest = fewest
        self._newest: list[Translation] = []
        self._kinds: dict[tuple[int, int], _Kind] = {}
        """By table and mask."""
        self._ahead: Iterator[Ahead] | None = None
        self._kind = _Kind(fewest)
        """What ``_ahead`` is of."""
        self._made = self._unfit = 0
        self._pause = self._passed_over = 0
        """So many are not looked at after some that had little in common; how many of these are still to come."""

    def __bool__(self) -> bool:
        """Whether there are any to be made."""
        return self._ahead is not None

    def came(self, translation: Translation) -> None:
        """A packet came up, and a megaflow has been made of this."""
        if self._ahead is not None:
            return
        if self._passed_over:
            self._passed_over -= 1
            return
        self._newest.append(translation)
        if len(self._newest) >= self._fewest:
            self._pause = 0 if self._judge() else min(2 * self._pause + self._fewest, _LONGEST_PAUSE)
            self._passed_over = self._pause
            self._newest.clear()

    def next(self) -> Ahead | None:
        """To be answered by ``made`` or ``unfit``, unless there is such a megaflow; None if nothing is left."""
        if self._ahead is None:
            return None
        ahead = next(self._ahead, None)
        if ahead is None:
            self._end()
        return ahead

    def made(self) -> None:
        self._made += 1

    def unfit(self) -> None:
        """It comes to something else than its entry, or to what has no place among the megaflows."""
        self._unfit += 1
        if self._ahead is not None and self._unfit > self._made + _UNFIT:
            self._end()

    def refused(self) -> None:
        """What was made, ahead or not, found no place in the fast path."""
        self._made -= 1
        self.unfit()

    def stop(self) -> None:
        """There is no room, or everything has changed."""
        self._newest.clear()
        if self._ahead is not None:
            self._end()

    def _end(self) -> None:
        self._kind.due = self._fewest if self._made >= self._fewest else min(2 * self._kind.due, MOST)
        self._ahead = None

    def _judge(self) -> bool:
        """Whether most of the newest are alike."""
        patterns = Counter(pattern for translation in self._newest for pattern, _ in _patterns(translation))
        pattern, count = max(patterns.items(), key=lambda item: item[1], default=(None, 0))
        if pattern is None or count < _ALIKE * len(self._newest):
            return False
        if len(self._kinds) >= _KINDS:
            self._kinds.clear()
        kind = self._kind = self._kinds.setdefault((pattern.table_id, pattern.entry_mask), _Kind(self._fewest))
        kind.seen += count
        if kind.seen >= _ALIKE * kind.due:
            kind.seen = 0
            like, entry = next(
                (translation, entry)
                for translation in reversed(self._newest)
                for found, entry in _patterns(translation)
                if found == pattern
            )
            self._made = self._unfit = 0
            self._ahead = self._others(pattern, entry, like)
        return True

    def _others(self, pattern: _Pattern, entry: FlowEntry, like: Translation) -> Iterator[Ahead]:
        """From the entry on, in the order in which they were added, and then those before."""
        bits = pattern.entry_mask & ~METADATA.mask
        metadata = pattern.metadata & pattern.entry_mask
        entries = self._pipeline.table(pattern.table_id).with_mask(pattern.entry_mask)
        at = entries.index(entry) if entry in entries else 0
        for place in range(at - len(entries) + 1, at):
            value = entries[place].match.value
            if value & METADATA.mask == metadata:
                yield Ahead(like.key & ~bits | value & bits, entries[place], like)


def _patterns(translation: Translation) -> Iterator[tuple[_Pattern, FlowEntry]]:
    """For each entry on its way whose fields were still the packet's."""
    key, mask = translation.key, translation.mask
    for table_id, at, _, entry in translation.lookups:
        if entry is not None:
            entry_mask = entry.match.mask
            bits = entry_mask & ~METADATA.mask
            if bits and not bits & ~mask and not (at ^ key) & bits:
                yield _Pattern(table_id, entry_mask, mask, key & mask & ~bits, at & METADATA.mask), entry
