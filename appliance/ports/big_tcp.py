"""BIG TCP: a veth's two ends let TCP over IPv4 hand over frames of 185 KB instead of 64 KB, to be cut into segments later or never.
Only larger frames make TCP between containers faster than a veth pair without a switch is.

Such a frame must never meet an interface that cannot take it whole: the kernel would cut it there, in software, which is slower
than before. So whoever is to have them sent asks first what every port leads to (``hindrance``).

Invariant: only what stands at the kernel's default is raised, and to a size that nobody else writes. So at any time it is known,
also to an agent that did not do it, what was raised here, and what it was before.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from appliance.ports import frame_sizes, namespaces
from appliance.ports.frame_sizes import FrameSizes
from appliance.ports.interface import Interface, PortError

BIG_BYTES = 184_997
"""What has been found fastest, less three: our mark."""
DEFAULT_BYTES = 65_536
"""The kernel's GSO_LEGACY_MAX_SIZE."""

OUT_OF_REACH = "its other end, which sends none, is in a namespace out of reach"

_TAKERS = ("", "veth")
"""Kinds of interfaces that are not on the way to others."""


@dataclass(frozen=True, slots=True)
class End:
    """An interface by its index, and the number of its namespace in ours; None: ours."""

    namespace: int | None
    ifindex: int


class BigTcp:
    """Sizes of ports' interfaces, and of their other ends."""

    def __init__(self) -> None:
        self._paths = namespaces.Paths()

    @staticmethod
    def ends(interface: Interface) -> list[End]:
        """The interface and, of a veth, its other end, as far as there is one."""
        own = frame_sizes.read(interface.ifindex)
        other = _other_end(interface, own)
        return [End(None, interface.ifindex), *([other] if other is not None else [])]

    def hindrance(self, interface: Interface, ours: Collection[End]) -> str:
        """Why frames of BIG_BYTES should not be sent to the interface, in words; empty if they may. ``ours``: ends of all ports."""
        own = frame_sizes.read(interface.ifindex)
        if own is None:
            return ""  # it is gone
        if own.gso is None:
            return "this kernel has no BIG TCP for IPv4, which Linux 6.3 brought"
        if interface.kind not in _TAKERS:
            return f"a {interface.kind} may lead to where frames are cut"
        if own.limit < BIG_BYTES:
            return f"it takes frames of {own.limit:,} bytes at most"
        if own.gso < BIG_BYTES and own.gso != DEFAULT_BYTES:
            return f"somebody has set its gso_ipv4_max_size to {own.gso}"
        other = _other_end(interface, own)
        there = None if other is None else frame_sizes.read(other.ifindex, other.namespace)
        if other is None or there is None or not there.up:
            return ""
        if there.master or there.promiscuous:
            return "its other end is part of a bridge or switch"
        if there.routes and (way := _narrow_way(other, ours)):
            return f"behind its other end packets are forwarded, and {way} takes no such frames"
        return ""

    def enlarge(self, interface: Interface) -> str:
        """Let its frames be of BIG_BYTES, both ways; what cannot be had of that, in words. Raises PortError."""
        self._set(End(None, interface.ifindex), DEFAULT_BYTES, BIG_BYTES)
        own = frame_sizes.read(interface.ifindex)
        if own is None:
            return ""
        if own.gso is None or own.gso < BIG_BYTES:
            raise PortError(f"the kernel leaves its gso_ipv4_max_size at {own.gso}")
        other = _other_end(interface, own)
        if other is None:
            return ""
        try:
            self._set(other, DEFAULT_BYTES, BIG_BYTES)
        except PortError as error:
            return str(error)
        there = frame_sizes.read(other.ifindex, other.namespace)
        if there is None or there.gso is None:
            return OUT_OF_REACH
        return "" if there.gso >= BIG_BYTES else f"somebody has set its other end's gso_ipv4_max_size to {there.gso}"

    def restore(self, interface: Interface) -> None:
        """Take back what ``enlarge`` did, whenever that was; what is gone is passed over. Raises PortError."""
        for end in reversed(self.ends(interface)):
            self._set(end, BIG_BYTES, DEFAULT_BYTES)

    def _set(self, end: End, before: int, after: int) -> None:
        """Those of the end's two sizes that are ``before``. Raises PortError."""
        sizes = frame_sizes.read(end.ifindex, end.namespace)
        if sizes is None or sizes.gso is None or sizes.gro is None or before not in (sizes.gso, sizes.gro):
            return
        gso, gro = (after if size == before else size for size in (sizes.gso, sizes.gro))
        path = None if end.namespace is None else self._paths.get(end.namespace)
        if path is None and end.namespace is not None:
            raise PortError(OUT_OF_REACH)
        try:
            namespaces.inside(path, lambda: frame_sizes.write(end.ifindex, gso=gso, gro=gro))
        except OSError as error:
            raise PortError(f"{OUT_OF_REACH}: {error.strerror}") from error


def _other_end(interface: Interface, own: FrameSizes | None) -> End | None:
    """Of a veth; None if there is none."""
    if own is None or interface.kind != "veth" or not own.other_end:
        return None
    return End(own.other_namespace, own.other_end)


def _narrow_way(end: End, ours: Collection[End]) -> str:
    """The name of an interface beside the end that would have such frames cut; empty if there is none."""
    try:
        beside = frame_sizes.read_all(end.namespace)
    except OSError:
        return ""
    others = (item for item in beside if End(end.namespace, item.ifindex) not in (end, *ours))
    return next((item.name for item in others if item.up and not item.loopback and (item.gso or 0) < BIG_BYTES), "")
