"""When Python looks for objects that only refer to each other.

Each live megaflow is some ten objects, none of which is ever such garbage. Python by itself goes through all of them whenever there
are a quarter more, which with 20,000 megaflows stops the slow path for a tenth of a second. So the young are looked through often,
in small lots, and all together only now and then, after a while in which no packets came up.

Invariant: garbage is found in the end, also in a switch that is never quiet.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

from appliance.agent.green import sleep

YOUNG = 10_000
"""Objects made until the young ones are looked through, which then takes about half a millisecond."""
QUIET_SECONDS = 60.0
"""From one full collection to the next, at least."""
BUSY_SECONDS = 3600.0
"""At most, whether or not packets come up."""
_TICK_SECONDS = 1.0
_NEVER = 1 << 30


class Schedule:
    """When a full collection is due. ``work`` is a number that grows with each packet that comes up."""

    def __init__(self, now: float) -> None:
        self._last = now
        self._work = 0

    def due(self, now: float, work: int) -> bool:
        """To be asked about once a second; the caller collects if so."""
        quiet = work == self._work
        self._work = work
        if now - self._last < (QUIET_SECONDS if quiet else BUSY_SECONDS):
            return False
        self._last = now
        return True


def collect_garbage(work: Callable[[], int]) -> None:
    """For ever, in a greenlet of its own, in the place of Python's own rule."""
    gc.collect()
    gc.freeze()  # modules, and what else is there from the start
    gc.set_threshold(YOUNG, 2, _NEVER)
    schedule = Schedule(time.monotonic())
    while True:
        sleep(_TICK_SECONDS)
        if schedule.due(time.monotonic(), work()):
            gc.collect()
