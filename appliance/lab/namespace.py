"""Network namespaces: make, remove, and do something inside one.

Invariant: the caller's own namespace never changes; what happens inside happens in a thread that ends with it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import threading
from collections.abc import Callable
from typing import TypeVar

from pyroute2 import netns

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)

T = TypeVar("T")


def create(name: str) -> None:
    """Make a named namespace, as ``ip netns add`` does, with its loopback up. Raises OSError."""
    netns.create(name)


def remove(name: str) -> None:
    """Remove it; one that is not there is passed over. Its interfaces go with the last process in it."""
    try:
        netns.remove(name)
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise


def exists(name: str) -> bool:
    return os.path.exists(_path(name))


def _path(name: str) -> str:
    return f"{netns.NETNS_RUN_DIR}/{name}"


def inside(name: str | None, function: Callable[[], T]) -> T:
    """Call ``function`` in a namespace (None: here); its result, or its exception.

    Plain sockets and processes that it makes stay in that namespace and may be used from anywhere (a pyroute2 object may not:
    it belongs to its thread).
    """
    if name is None:
        return function()
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            fd = os.open(_path(name), os.O_RDONLY)
            try:
                if _libc.setns(fd, _CLONE_NEWNET) != 0:
                    code = ctypes.get_errno()
                    raise OSError(code, f"enter namespace {name}: {os.strerror(code)}")
            finally:
                os.close(fd)
            results.append(function())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name=f"inside {name}")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def write_sysctl(path: str, value: int | str) -> None:
    """Set ``/proc/sys/PATH`` in the namespace of the caller; one that this kernel does not have is passed over."""
    try:
        with open(f"/proc/sys/{path}", "w", encoding="ascii") as file:
            file.write(str(value))
    except FileNotFoundError:
        return
