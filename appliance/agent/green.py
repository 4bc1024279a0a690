"""The one module that imports eventlet; the rest of the agent imports what it needs from here, so it could be exchanged.

Invariant: nothing is monkey-patched (pyroute2 is asyncio inside, and bcc blocks in C). Sockets and pipes are plain ones, made
non-blocking; what must wait for one says so by ``wait_readable`` or ``wait_writable``.
"""

from __future__ import annotations

import os
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Protocol, TypeVar

with warnings.catch_warnings():
    # Eventlet is in bug-fix mode and says so to every user; that is our business, not theirs.
    warnings.filterwarnings("ignore", message=r"\s*Eventlet is deprecated")
    # Its own resolver is not wanted: names are looked up by the system's, ``in_thread``.
    _before = os.environ.get("EVENTLET_NO_GREENDNS")
    os.environ["EVENTLET_NO_GREENDNS"] = "yes"
    try:
        import eventlet
        import eventlet.event
        from eventlet.hubs import get_hub as _get_hub
        from eventlet.hubs import trampoline as _trampoline
        from eventlet.hubs.epolls import Hub as _EpollHub
    finally:
        if _before is None:
            del os.environ["EVENTLET_NO_GREENDNS"]
        else:
            os.environ["EVENTLET_NO_GREENDNS"] = _before

__all__ = ["Greenlet", "Readable", "Signal", "Timeout", "in_thread", "sleep", "spawn", "wait_readable", "wait_writable"]

_T = TypeVar("_T")

Timeout = eventlet.Timeout
"""``with Timeout(seconds):`` raises itself in the block. ``with Timeout(seconds, False):`` ends the block silently."""

sleep = eventlet.sleep


class Greenlet(Protocol):
    """What ``spawn`` returns."""

    def kill(self) -> None:
        """End it at the point where it waits."""

    def wait(self) -> Any:
        """Its result, once it has ended; raises what it raised (GreenletExit becomes a result)."""

    def link(self, function: Callable[[Greenlet], None]) -> None:
        """Call ``function`` with it when it has ended."""


def spawn(function: Callable[..., Any], *arguments: Any) -> Greenlet:
    greenlet: Greenlet = eventlet.spawn(function, *arguments)
    return greenlet


def wait_readable(fd: int) -> None:
    """Wait until a file descriptor is readable (or at its end). It must stay open meanwhile, and have one waiter."""
    _trampoline(fd, read=True)


def wait_writable(fd: int) -> None:
    """The same for writing."""
    _trampoline(fd, write=True)


class Readable:
    """A file descriptor that one greenlet waits for again and again: cheaper than ``wait_readable``, because it stays registered.

    It is to be read soon after each wait. ``close`` comes before that of the descriptor. ``at_once`` is called first when it is
    readable, before anything else that the thread has woken up for, and with no greenlet switched to for it: it must not wait nor
    raise, and says whether the wait is over. One descriptor of a thread may have it.
    """

    def __init__(self, fd: int, at_once: Callable[[], bool] | None = None) -> None:
        self._fd = fd
        self._at_once = at_once
        self._hub: Any = None
        self._listener: Any = None
        self._waiting: Any = None

    def wait(self) -> None:
        """Until it is readable (or at its end)."""
        if self._hub is None:
            self._hub = hub = _get_hub()
            self._listener = hub.add(hub.READ, self._fd, self._ready, self._gone, self._gone)
            if self._at_once is not None and isinstance(hub, _EpollHub):
                hub.do_poll = self._poll
        self._waiting = eventlet.getcurrent()
        try:
            self._hub.switch()
        finally:
            self._waiting = None

    def soon(self, seconds: float) -> bool:
        """Whether it is readable within so short a time, in which the thread does not sleep, because waking it would take longer.

        False before the first ``wait``, and as soon as anything else is to be done.
        """
        hub = self._hub
        if not isinstance(hub, _EpollHub) or hub.next_timers:
            return False
        ready = hub.poll.poll
        now = time.monotonic()
        end = min(now + seconds, hub.timers[0][0]) if hub.timers else now + seconds
        while now < end:
            found = ready(0, 2)
            if found:
                return len(found) == 1 and bool(found[0][0] == self._fd)
            now = time.monotonic()
        return False

    def _poll(self, seconds: float) -> list[tuple[int, int]]:
        """In the place of the hub's own, which has some way to go until it calls ``_ready``."""
        found: list[tuple[int, int]] = self._hub.poll.poll(seconds)
        for at, (fd, _) in enumerate(found):
            if fd == self._fd:
                del found[at]
                self._ready(fd)
                break
        return found

    def _ready(self, _: int) -> None:
        """Called by the hub, also when nobody waits yet."""
        if self._waiting is not None and (self._at_once is None or self._at_once()):
            self._waiting.switch()

    def _gone(self, *_: object) -> None:
        """The hub has let it go: the next wait registers it again."""
        if self._at_once is not None:
            self._hub.__dict__.pop("do_poll", None)
        self._hub = None

    def close(self) -> None:
        if self._hub is not None:
            self._hub.remove(self._listener)
            self._gone()


def in_thread(function: Callable[..., _T], *arguments: Any) -> _T:
    """The result of a call that blocks, or its exception, made in a native thread while the other greenlets go on."""
    outcome: Future[_T] = Future()
    ended, end = os.pipe()

    def call() -> None:
        try:
            outcome.set_result(function(*arguments))
        except BaseException as error:
            outcome.set_exception(error)
        finally:
            os.close(end)

    threading.Thread(target=call, daemon=True).start()
    try:
        wait_readable(ended)
    finally:
        os.close(ended)
    return outcome.result()


class Signal:
    """A flag that greenlets wait for. ``set`` wakes them; it stays set until ``clear``."""

    def __init__(self) -> None:
        self._is_set = False
        self._event = eventlet.event.Event()

    def is_set(self) -> bool:
        return self._is_set

    def set(self) -> None:
        if not self._is_set:
            self._is_set = True
            self._event.send()

    def clear(self) -> None:
        if self._is_set:
            self._is_set = False
            self._event = eventlet.event.Event()

    def wait(self) -> None:
        if not self._is_set:
            self._event.wait()
