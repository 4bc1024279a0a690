"""What happens to interfaces, as it happens: up, down, added, removed, renamed; and to what is beside them: the other end of a
veth, whichever namespace that is in, the root qdisc, and TC's filters.

Invariant: after every ``changes``, ``known`` is what the kernel last said of each interface; a change is told once, and none is
lost: when the kernel's queue has run over, everything is asked again and compared. There is no thread: the netlink socket itself is
the file descriptor to wait on.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from pyroute2.netlink.rtnl import RTM_DELLINK, RTM_DELQDISC, RTM_DELTFILTER, RTM_NEWLINK, RTM_NEWQDISC, RTM_NEWTFILTER
from pyroute2.netlink.rtnl.marshal import MarshalRtnl

from appliance.ports.interface import Interface, from_message, interfaces

_RTMGRP_LINK, _RTMGRP_TC = 1 << 0, 1 << 3
_SOL_NETLINK, _NETLINK_LISTEN_ALL_NSID = 270, 8
_ROOT, _CLSACT = 0xFFFFFFFF, 0xFFFFFFF1
_NAMESPACE = struct.Struct("=i")
_HEAD = struct.Struct("=4xH10x4xi")
"""Type of a message, and the index of the interface that it is about: struct nlmsghdr, then ifinfomsg or tcmsg."""
_RECEIVE_BYTES = 1 << 16
_QUEUE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class LinkChange:
    """``before`` None: added; ``after`` None: removed; both: something differs (name, MAC, MTU, up, carrier …), or, if they are the
    same, something beside it.
    """

    before: Interface | None
    after: Interface | None
    filters: bool = False
    """All there is to it: TC's filters came or went, as they do with their qdisc."""

    @property
    def ifindex(self) -> int:
        return (self.after or self.before).ifindex  # type: ignore[union-attr]  # one of them is there


class LinkWatcher:
    """Watches the interfaces of the namespace that it is made in. Wait until ``fileno`` is readable, then take ``changes``."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _QUEUE_BYTES)
        self.hears_other_ends = self._listen_to_all()
        """Whether it is told what happens in other namespaces: that takes CAP_NET_BROADCAST."""
        self._socket.bind((0, _RTMGRP_LINK | _RTMGRP_TC))
        self._marshal = MarshalRtnl()
        # Subscribed first, asked second: nothing can happen between the two.
        self.known: dict[int, Interface] = {interface.ifindex: interface for interface in interfaces()}

    def _listen_to_all(self) -> bool:
        try:
            self._socket.setsockopt(_SOL_NETLINK, _NETLINK_LISTEN_ALL_NSID, 1)
        except OSError:
            return False
        return True

    def fileno(self) -> int:
        return self._socket.fileno()

    def changes(self) -> list[LinkChange]:
        """What has happened since the last call, in order; empty if nothing. Does not block."""
        found: list[LinkChange] = []
        while True:
            try:
                data, about, _, _ = self._socket.recvmsg(_RECEIVE_BYTES, socket.CMSG_SPACE(_NAMESPACE.size))
            except BlockingIOError:
                return found
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                found.extend(self._ask_again())
                continue
            kind, index = _HEAD.unpack_from(data)
            namespace = next((_NAMESPACE.unpack(value)[0] for level, _, value in about if level == _SOL_NETLINK), None)
            if namespace is not None:  # there may be many, so no more is looked at than who is meant
                found.extend(self._beside(item for item in self.known.values() if item.other_end == (namespace, index)))
            elif kind in (RTM_NEWLINK, RTM_DELLINK, RTM_NEWQDISC, RTM_DELQDISC):
                for message in self._marshal.parse(data):
                    found.extend(self._understood(message))
            elif kind in (RTM_NEWTFILTER, RTM_DELTFILTER):  # there may be many
                found.extend(self._filters(index))

    def _understood(self, message: Any) -> Iterator[LinkChange]:
        kind = message["header"]["type"]
        if kind in (RTM_NEWLINK, RTM_DELLINK):
            # A bridge tells of its ports in the same words: one that leaves it is not gone.
            if message["family"] != socket.AF_BRIDGE:
                yield from self._heard(kind, from_message(message))
        elif message["parent"] == _ROOT and message["index"] in self.known:
            yield from self._beside([self.known[message["index"]]])
        elif message["parent"] == _CLSACT and kind == RTM_DELQDISC:
            yield from self._filters(message["index"])

    @staticmethod
    def _beside(these: Iterable[Interface]) -> Iterator[LinkChange]:
        return (LinkChange(interface, interface) for interface in list(these))

    def _filters(self, ifindex: int) -> Iterator[LinkChange]:
        if ifindex in self.known:
            yield LinkChange(self.known[ifindex], self.known[ifindex], filters=True)

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
        yield from self._beside(now.values())

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
