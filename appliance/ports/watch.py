"""What happens to interfaces, as it happens: up, down, added, removed, renamed.

Invariant: after every ``changes``, ``known`` is what the kernel last said of each interface; a change is told once, and none is
lost: when the kernel's queue has run over, everything is asked again and compared. There is no thread: the netlink socket itself is
the file descriptor to wait on.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from pyroute2.netlink.rtnl import RTM_DELLINK, RTM_NEWLINK
from pyroute2.netlink.rtnl.marshal import MarshalRtnl

from appliance.ports.interface import Interface, from_message, interfaces

_RTMGRP_LINK = 1
_RECEIVE_BYTES = 1 << 16
_QUEUE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class LinkChange:
    """``before`` None: added; ``after`` None: removed; both: something differs (name, MAC, MTU, up, carrier …)."""

    before: Interface | None
    after: Interface | None

    @property
    def ifindex(self) -> int:
        return (self.after or self.before).ifindex  # type: ignore[union-attr]  # one of them is there


class LinkWatcher:
    """Watches the interfaces of the namespace that it is made in. Wait until ``fileno`` is readable, then take ``changes``."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _QUEUE_BYTES)
        self._socket.bind((0, _RTMGRP_LINK))
        self._marshal = MarshalRtnl()
        # Subscribed first, asked second: nothing can happen between the two.
        self.known: dict[int, Interface] = {interface.ifindex: interface for interface in interfaces()}

    def fileno(self) -> int:
        return self._socket.fileno()

    def changes(self) -> list[LinkChange]:
        """What has happened since the last call, in order; empty if nothing. Does not block."""
        found: list[LinkChange] = []
        while True:
            try:
                data = self._socket.recv(_RECEIVE_BYTES)
            except BlockingIOError:
                return found
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                found.extend(self._ask_again())
                continue
            for message in self._marshal.parse(data):
                if message["family"] == socket.AF_BRIDGE:
                    continue  # a bridge tells of its ports in the same words: one that leaves it is not gone
                found.extend(self._heard(message["header"]["type"], from_message(message)))

    def _heard(self, kind: int, interface: Interface) -> Iterator[LinkChange]:
        before = self.known.get(interface.ifindex)
        if kind == RTM_NEWLINK and interface != before:
            self.known[interface.ifindex] = interface
            yield LinkChange(before, interface)
        elif kind == RTM_DELLINK and before is not None:
            del self.known[interface.ifindex]
            yield LinkChange(before, None)

    def _ask_again(self) -> Iterator[LinkChange]:
        now = {interface.ifindex: interface for interface in interfaces()}
        for ifindex in [index for index in self.known if index not in now]:
            yield LinkChange(self.known.pop(ifindex), None)
        for interface in now.values():
            yield from self._heard(RTM_NEWLINK, interface)

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
