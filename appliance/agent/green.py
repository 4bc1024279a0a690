"""The one module that imports eventlet; the rest of the agent imports what it needs from here, so it could be exchanged.

Invariant: nothing is monkey-patched (pyroute2 is asyncio inside, and bcc blocks in C): what must yield uses these names.
"""

from __future__ import annotations

import os
import warnings
from typing import Any, Protocol

with warnings.catch_warnings():
    # Eventlet is in bug-fix mode and says so to every user; that is our business, not theirs.
    warnings.filterwarnings("ignore", message=r"\s*Eventlet is deprecated")
    # Its own resolver is not wanted: names are looked up by the system's, in a native thread (``resolve``).
    _before = os.environ.get("EVENTLET_NO_GREENDNS")
    os.environ["EVENTLET_NO_GREENDNS"] = "yes"
    try:
        import eventlet
        import eventlet.event
        import eventlet.tpool
        from eventlet.green import socket
        from eventlet.hubs import trampoline as _trampoline
    finally:
        if _before is None:
            del os.environ["EVENTLET_NO_GREENDNS"]
        else:
            os.environ["EVENTLET_NO_GREENDNS"] = _before

import socket as native_socket

__all__ = ["Greenlet", "Signal", "Timeout", "native_socket", "resolve", "sleep", "socket", "spawn", "wait_readable"]

Timeout = eventlet.Timeout
"""``with Timeout(seconds):`` raises itself in the block. ``with Timeout(seconds, False):`` ends the block silently."""

sleep = eventlet.sleep


class Greenlet(Protocol):
    """What ``spawn`` returns."""

    def kill(self) -> None:
        """End it at the point where it waits."""

    def wait(self) -> Any:
        """Its result, once it has ended; raises what it raised (GreenletExit becomes a result)."""


def spawn(function: Any, *arguments: Any) -> Greenlet:
    greenlet: Greenlet = eventlet.spawn(function, *arguments)
    return greenlet


def wait_readable(fd: int) -> None:
    """Wait until a file descriptor is readable (or at its end)."""
    _trampoline(fd, read=True)


def resolve(host: str, port: int) -> list[tuple[int, Any]]:
    """(address family, socket address) of each address of a host, by the system's resolver; raises OSError."""
    found = eventlet.tpool.execute(native_socket.getaddrinfo, host, port, type=native_socket.SOCK_STREAM)
    return [(family, address) for family, _, _, _, address in found]


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
