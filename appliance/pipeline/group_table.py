"""Group entries and the group table (specification 1.3.5, sections 5.6 and 6.5).

Liveness: a bucket that watches nothing is live; one that watches a port, a group or both is live while one of them is. A group is
live while one of its buckets is. So whether a bucket is live is a matter of whether any of some ports is, or of nothing at all:
``GroupTable.watched_ports``.

Invariant: no group forwards to itself, directly or by way of others, if ``add`` and ``modify`` are called only where ``loops`` says
no. Watching in a circle is possible, and makes nothing live.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import IntEnum
from typing import NamedTuple

from appliance.model.actions import Action, Group
from appliance.model.ports import PortNo

OFPG_MAX = 0xFFFFFF00
OFPG_ALL = 0xFFFFFFFC
OFPG_ANY = 0xFFFFFFFF

PortIsLive = Callable[[int], bool]
"""Whether the port of this number is live (OFPPS_LIVE)."""


class GroupType(IntEnum):
    """OFPGT_*."""

    ALL = 0
    SELECT = 1
    INDIRECT = 2
    FF = 3


class Bucket:
    """One bucket. Compared and hashed by identity, because it counts. ``watch_*`` are PortNo.ANY and OFPG_ANY to watch nothing."""

    __slots__ = ("actions", "byte_count", "packet_count", "watch_group", "watch_port", "weight")

    def __init__(
        self, actions: tuple[Action, ...] = (), *, weight: int = 0, watch_port: int = PortNo.ANY, watch_group: int = OFPG_ANY
    ) -> None:
        self.actions = actions
        self.weight = weight
        self.watch_port = watch_port
        self.watch_group = watch_group
        self.packet_count = 0
        self.byte_count = 0

    def __repr__(self) -> str:
        watched = f"watch_port={self.watch_port:#x}, watch_group={self.watch_group:#x}"
        return f"Bucket({self.actions}, weight={self.weight}, {watched})"

    @property
    def groups(self) -> frozenset[int]:
        """Ids of the groups that it forwards to."""
        return frozenset(action.group_id for action in self.actions if isinstance(action, Group))


class GroupEntry:
    """One group. Compared and hashed by identity; a modified group is the same one, with new buckets that have counted nothing."""

    __slots__ = ("buckets", "byte_count", "created_at", "group_id", "packet_count", "type")

    def __init__(self, group_id: int, type: GroupType, buckets: Sequence[Bucket] = (), *, created_at: float = 0.0) -> None:  # noqa: A002
        self.group_id = group_id
        self.type = type
        self.buckets = tuple(buckets)
        self.created_at = created_at
        self.packet_count = 0
        self.byte_count = 0

    def __repr__(self) -> str:
        return f"GroupEntry({self.group_id}, {self.type.name}, {self.buckets})"

    @property
    def groups(self) -> frozenset[int]:
        """Ids of the groups that its buckets forward to."""
        return frozenset(group_id for bucket in self.buckets for group_id in bucket.groups)


class GroupHit(NamedTuple):
    """Who counts a packet: a group that ran, or (with its group) a bucket that ran."""

    group: GroupEntry
    bucket: Bucket | None = None


def count(hits: Iterable[GroupHit], packets: int, octets: int) -> None:
    """Count packets in the groups and buckets that they met. What has been deleted or replaced meanwhile counts for nobody."""
    for hit in hits:
        counter = hit.group if hit.bucket is None else hit.bucket
        counter.packet_count += packets
        counter.byte_count += octets


class GroupTable:
    """Groups by id."""

    __slots__ = ("_groups",)

    def __init__(self) -> None:
        self._groups: dict[int, GroupEntry] = {}

    def __len__(self) -> int:
        return len(self._groups)

    def __contains__(self, group_id: int) -> bool:
        return group_id in self._groups

    def __iter__(self) -> Iterator[GroupEntry]:
        """In the order of their ids."""
        return (self._groups[group_id] for group_id in sorted(self._groups))

    def get(self, group_id: int) -> GroupEntry | None:
        return self._groups.get(group_id)

    # ── changing ───────────────────────────────────────────────────────────────────────────────────────────────────────
    def add(self, group: GroupEntry) -> None:
        """Raises KeyError if there is one of that id."""
        if group.group_id in self._groups:
            raise KeyError(group.group_id)
        self._groups[group.group_id] = group

    def modify(self, group_id: int, type: GroupType, buckets: Sequence[Bucket]) -> GroupEntry:  # noqa: A002
        """New type and buckets; the group's own counters and age stay. Raises KeyError if there is no such group."""
        group = self._groups[group_id]
        group.type = type
        group.buckets = tuple(buckets)
        return group

    def delete(self, group_id: int) -> list[GroupEntry]:
        """Take out the group, or all with OFPG_ALL; returns what was there. Flow entries that use it are the caller's."""
        if group_id == OFPG_ALL:
            gone = list(self)
            self._groups.clear()
            return gone
        group = self._groups.pop(group_id, None)
        return [] if group is None else [group]

    # ── who refers to whom ─────────────────────────────────────────────────────────────────────────────────────────────
    def loops(self, group_id: int, buckets: Iterable[Bucket]) -> bool:
        """Whether a group with this id and these buckets would forward to itself, by whatever way."""
        seen: set[int] = set()
        waiting = [other for bucket in buckets for other in bucket.groups]
        while waiting:
            other = waiting.pop()
            if other == group_id:
                return True
            if other not in seen:
                seen.add(other)
                group = self._groups.get(other)
                if group is not None:
                    waiting.extend(group.groups)
        return False

    def missing(self, buckets: Iterable[Bucket]) -> set[int]:
        """Ids of groups that the buckets forward to and that do not exist."""
        return {group_id for bucket in buckets for group_id in bucket.groups if group_id not in self._groups}

    def forwarding_to(self, group_id: int) -> list[GroupEntry]:
        """Groups with a bucket that forwards to this one, directly."""
        return [group for group in self if group_id in group.groups]

    def references(self) -> Counter[int]:
        """How many groups forward to each group, directly. Add ``Pipeline.group_references`` for ``ref_count``."""
        return Counter(group_id for group in self._groups.values() for group_id in group.groups)

    # ── liveness ───────────────────────────────────────────────────────────────────────────────────────────────────────
    def watched_ports(self, bucket: Bucket, consulted: set[int] | None = None) -> frozenset[int] | None:
        """The ports of which one must be live for the bucket to be; None if it is live whatever the ports do.

        Adds to ``consulted`` the ids of the groups that this depends on, whether they exist or not.
        """
        if bucket.watch_port == PortNo.ANY and bucket.watch_group == OFPG_ANY:
            return None
        ports: dict[int, None] = {}
        seen: set[int] = set() if consulted is None else consulted
        waiting = [bucket]
        visited: set[int] = set()
        while waiting:
            watching = waiting.pop()
            if watching.watch_port != PortNo.ANY:
                ports[watching.watch_port] = None
            group_id = watching.watch_group
            if group_id == OFPG_ANY:
                if watching.watch_port == PortNo.ANY:
                    return None
                continue
            seen.add(group_id)
            if group_id not in visited:
                visited.add(group_id)
                group = self._groups.get(group_id)
                waiting.extend(() if group is None else group.buckets)
        return frozenset(ports)

    def bucket_is_live(self, bucket: Bucket, port_is_live: PortIsLive) -> bool:
        ports = self.watched_ports(bucket)
        return ports is None or any(port_is_live(port) for port in ports)

    def is_live(self, group_id: int, port_is_live: PortIsLive) -> bool:
        """Whether the group exists and one of its buckets is live."""
        group = self._groups.get(group_id)
        return group is not None and any(self.bucket_is_live(bucket, port_is_live) for bucket in group.buckets)
