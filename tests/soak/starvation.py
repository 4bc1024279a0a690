"""How long the agent waits for a CPU: where others keep it from one, nobody can say what the switch itself has lost.

Invariant: no wait is missed. It may be told together with others, when this thread had to wait, too.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

LOOK_SECONDS = 0.02


class Starvation:
    """A context manager. ``pid`` tells the agent's, or None while there is none."""

    def __init__(self, pid: Callable[[], int | None]) -> None:
        self._pid = pid
        self._waited = (0, 0.0)
        """The agent's pid, and how long it had waited when it was looked at last."""
        self._longest = 0.0
        self._telling = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="starvation", daemon=True)

    def __enter__(self) -> Starvation:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def longest(self) -> float:
        """The longest wait since this was asked last, in seconds; 0 where the kernel does not tell (CONFIG_SCHED_INFO)."""
        with self._telling:
            longest, self._longest = self._longest, 0.0
        return longest

    def _watch(self) -> None:
        while not self._ended.wait(LOOK_SECONDS):
            pid = self._pid()
            with suppress(OSError):  # if there is none any more
                if pid is not None:
                    self._look(pid, Path(f"/proc/{pid}/schedstat"))

    def _look(self, pid: int, schedstat: Path) -> None:
        """Second of its figures: nanoseconds in which it could have run, and had to wait."""
        waited = int(schedstat.read_text().split()[1]) / 1e9
        before = self._waited[1] if self._waited[0] == pid else waited
        self._waited = pid, waited
        with self._telling:
            self._longest = max(self._longest, waited - before)
