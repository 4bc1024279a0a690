"""The fast path's clock: ticks of the kernel (jiffies), because eBPF reads them by a load and the time by a call.

Invariant: what was used now is told as now, to a tick or two; not as later.
"""

from __future__ import annotations

import time
from collections.abc import Callable

_COARSE = 6
"""CLOCK_MONOTONIC_COARSE: CLOCK_MONOTONIC at the last tick. Its resolution is a tick."""
_TRUSTED_SECONDS = 60.0
"""With high-resolution timers ticks are counted by CLOCK_MONOTONIC; without, they drift from it by parts in a million."""
_ATTEMPTS = 10


class TickClock:
    """``read`` returns the ticks now."""

    def __init__(self, read: Callable[[], int]) -> None:
        self._read = read
        self._seconds = time.clock_getres(_COARSE)
        self._zero = 0.0
        self._trusted_until = float("-inf")

    def seconds(self, ticks: int) -> float:
        """``time.monotonic`` at that tick; 0.0 for 0."""
        if not ticks:
            return 0.0
        if time.monotonic() > self._trusted_until:
            self._compare()
        return self._zero + ticks * self._seconds

    def _compare(self) -> None:
        for _ in range(_ATTEMPTS):
            before = time.clock_gettime(_COARSE)
            ticks = self._read()
            if before == time.clock_gettime(_COARSE):
                break
        self._zero = before - ticks * self._seconds
        self._trusted_until = before + _TRUSTED_SECONDS
