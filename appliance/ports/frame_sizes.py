"""How long an IPv4 frame may be that is still to be cut into segments, or has been put together from them: attributes of an
interface that pyroute2 does not know, by rtnetlink itself (linux/if_link.h, Linux 6.3 and later).

Invariant: a kernel that does not know the attributes passes over them when they are set, and leaves them out when it is asked: what
has been set counts only when it was read back.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from appliance.ports.interface import GONE, IFF_LOOPBACK, IFF_PROMISC, IFF_UP, PortError

_RTM_NEWLINK, _RTM_GETLINK, _RTM_SETLINK = 16, 18, 19
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_REQUEST, _ACK, _DUMP = 1, 4, 0x300
_IFNAME, _LINK, _MASTER, _AF_SPEC, _EXT_MASK, _LINK_NETNSID, _TARGET_NETNSID = 3, 5, 10, 26, 29, 37, 46
_TSO_MAX_SIZE, _GSO_IPV4_MAX_SIZE, _GRO_IPV4_MAX_SIZE = 59, 63, 64
_INET_CONF = 1
_SKIP_STATS = 1 << 3
_NLA_TYPE = 0x3FFF
_HEADER = struct.Struct("=IHHII")
_IFINFO = struct.Struct("=BxHiII")
_ATTRIBUTE = struct.Struct("=HH")
_U32, _S32 = struct.Struct("=I"), struct.Struct("=i")
_RECEIVE_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class FrameSizes:
    """One interface, and what says where its frames go. Sizes are in bytes."""

    ifindex: int
    name: str
    up: bool
    loopback: bool
    promiscuous: bool
    """By order, not because somebody listens there for a while."""
    limit: int
    """What the device can take at most, whatever is set."""
    gso: int | None
    """Longest IPv4 frame that it is given to cut; longer ones are cut before. None: this kernel knows no other than 64 KB."""
    gro: int | None
    """Longest IPv4 frame that is put together of what it receives."""
    other_end: int
    """Of a veth: its index. 0: none."""
    other_namespace: int | None
    """Where that is, if elsewhere: its number in the namespace of this interface."""
    master: int
    """The bridge, bond or the like that it is part of. 0: none."""
    routes: bool
    """IPv4 packets that come in by it may be forwarded."""


def read(ifindex: int, namespace: int | None = None) -> FrameSizes | None:
    """None if there is no such interface, or we may not ask. ``namespace``: the number of the one that it is in."""
    try:
        return next(_ask(ifindex, namespace), None)
    except OSError:
        return None


def read_all(namespace: int | None = None) -> list[FrameSizes]:
    """Those of a whole namespace. Raises OSError."""
    return list(_ask(0, namespace))


def write(ifindex: int, *, gso: int, gro: int) -> None:
    """In the namespace of the caller. Read back: see above. Raises PortError."""
    attributes = _attribute(_GSO_IPV4_MAX_SIZE, gso) + _attribute(_GRO_IPV4_MAX_SIZE, gro)
    try:
        for _ in _messages(_RTM_SETLINK, _ACK, ifindex, attributes):
            pass
    except OSError as error:
        if error.errno not in GONE:
            raise PortError(f"interface {ifindex}: cannot set how long its frames may be: {error.strerror}") from error


def _ask(ifindex: int, namespace: int | None) -> Iterator[FrameSizes]:
    where = b"" if namespace is None else _attribute(_TARGET_NETNSID, namespace)
    attributes = _attribute(_EXT_MASK, _SKIP_STATS) + where
    for kind, body in _messages(_RTM_GETLINK, 0 if ifindex else _DUMP, ifindex, attributes):
        if kind == _RTM_NEWLINK:
            yield _understood(body)


def _messages(request: int, flags: int, ifindex: int, attributes: bytes) -> Iterator[tuple[int, memoryview]]:
    """What the kernel answers. Raises OSError."""
    body = _IFINFO.pack(socket.AF_UNSPEC, 0, ifindex, 0, 0) + attributes
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as asked:
        asked.send(_HEADER.pack(_HEADER.size + len(body), request, _REQUEST | flags, 1, 0) + body)
        while True:
            data = memoryview(asked.recv(_RECEIVE_BYTES))
            while data:
                length, kind, *_ = _HEADER.unpack_from(data)
                if kind == _NLMSG_DONE:
                    return
                if kind == _NLMSG_ERROR:
                    code = -_S32.unpack_from(data, _HEADER.size)[0]
                    if code:
                        raise OSError(code, os.strerror(code))
                    return
                yield kind, data[_HEADER.size : length]
                data = data[length + 3 & ~3 :]
            if not flags & (_DUMP | _ACK):
                return


def _understood(body: memoryview) -> FrameSizes:
    _, _, ifindex, flags, _ = _IFINFO.unpack_from(body)
    found = dict(_attributes(body[_IFINFO.size :]))

    def number(attribute: int) -> int | None:
        return _U32.unpack(found[attribute])[0] if attribute in found else None

    inet = dict(_attributes(dict(_attributes(found.get(_AF_SPEC, memoryview(b"")))).get(socket.AF_INET, memoryview(b""))))
    # An array of struct ipv4_devconf's values, the first of which is `forwarding`.
    settings = inet.get(_INET_CONF, memoryview(b""))
    namespace = found.get(_LINK_NETNSID)
    return FrameSizes(
        ifindex=ifindex,
        name=bytes(found.get(_IFNAME, b"")).rstrip(b"\0").decode(errors="replace"),
        up=bool(flags & IFF_UP),
        loopback=bool(flags & IFF_LOOPBACK),
        promiscuous=bool(flags & IFF_PROMISC),
        limit=number(_TSO_MAX_SIZE) or 0,
        gso=number(_GSO_IPV4_MAX_SIZE),
        gro=number(_GRO_IPV4_MAX_SIZE),
        other_end=number(_LINK) or 0,
        other_namespace=None if namespace is None else _S32.unpack(namespace)[0],
        master=number(_MASTER) or 0,
        routes=len(settings) >= _S32.size and _S32.unpack_from(settings)[0] != 0,
    )


def _attributes(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        if length < _ATTRIBUTE.size:
            raise OSError(errno.EBADMSG, "an attribute of no length")
        yield kind & _NLA_TYPE, data[_ATTRIBUTE.size : length]
        data = data[length + 3 & ~3 :]


def _attribute(kind: int, value: int) -> bytes:
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + _U32.size, kind) + _U32.pack(value)
