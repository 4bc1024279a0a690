"""Network namespaces: make, remove, and do something inside one.

Invariant: the caller's own namespace never changes (``ports/namespaces.py``).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import TypeVar

from pyroute2 import netns

from appliance.ports import namespaces

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
    """Call ``function`` in a namespace (None: here); its result, or its exception. See ``ports/namespaces.py``."""
    return namespaces.inside(None if name is None else _path(name), function)


def write_sysctl(path: str, value: int | str) -> None:
    """Set ``/proc/sys/PATH`` in the namespace of the caller; one that this kernel does not have is passed over."""
    try:
        with open(f"/proc/sys/{path}", "w", encoding="ascii") as file:
            file.write(str(value))
    except FileNotFoundError:
        return
