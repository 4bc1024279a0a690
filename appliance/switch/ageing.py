"""How many megaflows there may be, and which of them goes first.

A megaflow whose packets have come but once may be one of thousands that nobody will ask for again: a scan, or an attack. It goes
before any that the fast path has used; so new ones do not push out the busy ones. Among themselves the longest unused goes first.

All megaflows are looked at in a *sweep*, about once a second, which costs the slow path time. When a sweep takes too long the limit
sinks, and it grows again when there is time to spare, as Open vSwitch's flow limit does.

Invariant: a megaflow that was used since the last sweep goes only if all that were not are gone.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

SWEEP_SECONDS = 0.25
"""What a sweep may take of the slow path's time."""
LEAST = 1024
"""The limit sinks no lower."""
GROWTH = 1000
"""By so much it grows with each sweep."""


class Limit:
    """``now`` is the limit, ``most`` what it is when there is time enough."""

    __slots__ = ("most", "now")

    def __init__(self, most: int) -> None:
        self.most = most
        self.now = most

    def swept(self, seconds: float, megaflows: int) -> None:
        """A sweep of so many megaflows took so long."""
        if seconds > 2 * SWEEP_SECONDS:
            lower = int(megaflows * SWEEP_SECONDS / seconds)
        elif seconds > 1.3 * SWEEP_SECONDS:
            lower = megaflows * 3 // 4
        else:
            if seconds < SWEEP_SECONDS:
                self.now = min(self.now + GROWTH, self.most)
            return
        self.now = min(self.now, max(lower, LEAST), self.most)


class Order:
    """Megaflows by their ids, in the order in which they go."""

    __slots__ = ("_new", "_used")

    def __init__(self) -> None:
        self._new: OrderedDict[int, None] = OrderedDict()
        """Not used by the fast path, as far as is known; the oldest first."""
        self._used: OrderedDict[int, None] = OrderedDict()
        """The longest unused first."""

    def __len__(self) -> int:
        return len(self._new) + len(self._used)

    def first(self, most: int, may_go: Callable[[int], bool]) -> list[int]:
        """At most so many, in order, up to the first new and the first used one that may not go."""
        found: list[int] = []
        for ids in (self._new, self._used):
            for megaflow_id in ids:
                if len(found) == most:
                    return found
                if not may_go(megaflow_id):
                    break
                found.append(megaflow_id)
        return found

    def add(self, megaflow_id: int) -> None:
        self._new[megaflow_id] = None

    def used(self, megaflow_id: int) -> None:
        """Its packets have come again."""
        if megaflow_id in self._used:
            self._used.move_to_end(megaflow_id)
        else:
            del self._new[megaflow_id]
            self._used[megaflow_id] = None

    def remove(self, megaflow_id: int) -> None:
        if megaflow_id in self._new:
            del self._new[megaflow_id]
        else:
            del self._used[megaflow_id]
