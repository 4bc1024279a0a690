"""Other network namespaces: where a veth's other end is, and what is to be done there.

Invariant: the caller's own namespace never changes; what happens inside another happens in a thread that ends with it.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from glob import iglob
from typing import Any, TypeVar

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

T = TypeVar("T")
_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)
_NAMESPACES = ("/run/netns/*", "/proc/[0-9]*/ns/net")


@dataclass(frozen=True, slots=True)
class Place:
    """An interface in a network namespace; ``namespace`` None: that of the caller, else a path."""

    namespace: str | None
    ifindex: int


def other_end_of(ifindex: int) -> Place | None:
    """The other end of a veth; None if it is in a namespace that we do not find, or may not enter."""
    with IPRoute() as ip:
        try:
            message = ip.link("get", index=ifindex)[0]
        except NetlinkError:
            return None
        peer, nsid = message.get_attr("IFLA_LINK"), message.get_attr("IFLA_LINK_NETNSID")
        if not peer:
            return None
        if nsid is None:
            return Place(None, peer)
        path = next(_namespaces_called(ip, nsid), None)
    if path is None:
        return None
    try:
        inside(path, lambda: None)
    except OSError:
        return None
    return Place(path, peer)


class Paths:
    """Of namespaces, by the number that ours knows each by; what has been found is kept."""

    def __init__(self) -> None:
        self._found: dict[int, str] = {}

    def get(self, nsid: int) -> str | None:
        """None if there is none that we may see."""
        with IPRoute() as ip:
            known = self._found.get(nsid)
            if known is None or _number(ip, known) != nsid:  # a process' number may be another's by now
                self._found = {number: path for path, number in _numbered(ip) if number is not None}
        return self._found.get(nsid)


def _namespaces_called(ip: Any, nsid: int) -> Iterator[str]:
    """Paths of the namespace that ours knows by this number."""
    return (path for path, number in _numbered(ip) if number == nsid)


def _numbered(ip: Any) -> Iterator[tuple[str, int | None]]:
    """One path of each namespace, and the number that ours knows it by, if any."""
    seen = set()
    for pattern in _NAMESPACES:
        for path in iglob(pattern):
            try:
                inode = os.stat(path).st_ino
            except OSError:
                continue
            if inode not in seen:
                seen.add(inode)
                yield path, _number(ip, path)


def _number(ip: Any, path: str) -> int | None:
    try:
        fd = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        number: int | None = (ip.get_netnsid(fd=fd) or {}).get("nsid")
        return number
    except NetlinkError:
        return None
    finally:
        os.close(fd)


def inside(namespace: str | None, function: Callable[[], T]) -> T:
    """Call it in a namespace, given by its path (None: here); its result, or its exception. Raises OSError.

    Plain sockets and processes that it makes stay in that namespace and may be used from anywhere (a pyroute2 object may not:
    it belongs to its thread).
    """
    if namespace is None:
        return function()
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            fd = os.open(namespace, os.O_RDONLY)
            try:
                if _libc.setns(fd, _CLONE_NEWNET) != 0:
                    code = ctypes.get_errno()
                    raise OSError(code, f"enter {namespace}: {os.strerror(code)}")
            finally:
                os.close(fd)
            results.append(function())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name=f"inside {namespace}")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]
