"""A packet's way through groups (specification 1.3.5, section 5.6).

A group works on copies: the key is put back after each, and what was done to it becomes a ``Copy``. A bucket's actions are done
as an action set (section 5.10). SELECT and FAST FAILOVER become a choice that the datapath makes for each packet, so all buckets
that may be taken are followed. FAST FAILOVER depends on no port's liveness: a bucket that watches ports (or a group, which comes
down to ports) is a way for each of them. SELECT leaves out buckets that are dead now.

If a copy cannot be followed to its end without another parse, the way ends there in forks: one continuation for each bucket that
the packet takes, and one for the packet itself.

Invariant: a packet makes at most MAX_COPIES copies, whatever the groups: chained ones multiply.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import NamedTuple

from appliance.model.actions import Action
from appliance.model.fields import LAYERS
from appliance.model.megaflow import MAX_WAYS, DatapathAction, Failover, PacketInReason, Select, Way
from appliance.packet.select import SELECT_BITS, select_way
from appliance.pipeline.action_list import needed
from appliance.pipeline.action_set import ActionSet
from appliance.pipeline.action_walk import ActionWalk, Normal, StopError
from appliance.pipeline.copies import Copy, flat, merged
from appliance.pipeline.flow_table import Pipeline
from appliance.pipeline.group_table import Bucket, GroupEntry, GroupHit, GroupType, PortIsLive
from appliance.pipeline.tracked_key import CARRIED_BITS, ParseAgainError
from appliance.pipeline.translation import Continuation, Origin, Stage

MAX_COPIES = 4096
"""Copies that groups make of one packet. What there would be beyond them is dropped."""

_SELECT_BITS = SELECT_BITS | LAYERS.mask


class ForkError(Exception):
    """A group's copies have to go their own ways."""

    def __init__(self, forks: tuple[Continuation, ...]) -> None:
        super().__init__()
        self.forks = forks


class _Candidate(NamedTuple):
    """A bucket that packets may take: its place in the group, its weight, and the port that must be live for it (0 for none)."""

    at: int
    bucket: Bucket
    weight: int = 1
    watch_port: int = 0


class GroupWalk(ActionWalk):
    """A packet on its way through actions and groups."""

    __slots__ = (
        "_copies_left",
        "_depth",
        "_groups",
        "_hits",
        "_pipeline",
        "_port_is_live",
        "_too_many_ways",
        "_watched_ports",
        "_way_hits",
    )

    def __init__(
        self, pipeline: Pipeline, key: int, normal: Normal | None, port_is_live: PortIsLive | None, origin: Origin
    ) -> None:
        super().__init__(key, normal, origin)
        self._pipeline = pipeline
        self._port_is_live = port_is_live
        self._copies_left = MAX_COPIES
        self._depth = 0
        self._too_many_ways = False
        self._hits: list[GroupHit] = []
        self._way_hits: dict[tuple[int, int], tuple[GroupHit, ...]] = {}
        self._groups: set[int] = set()
        self._watched_ports: set[int] = set()

    def _group(self, group_id: int) -> None:
        self._groups.add(group_id)
        group = self._pipeline.groups.get(group_id)
        if group is None:
            return
        hits, out = len(self._hits), len(self._out)
        self._hits.append(GroupHit(group))
        try:
            if group.type in (GroupType.SELECT, GroupType.FF):
                self._choice(group)
            else:
                self._all(group, group.buckets)
        except ParseAgainError:
            if self._depth:
                raise
            del self._hits[hits:], self._out[out:]
            raise ForkError(self._fork(group)) from None

    # ── copies ─────────────────────────────────────────────────────────────────────────────────────────────────────────
    def _all(self, group: GroupEntry, buckets: Iterable[Bucket]) -> None:
        parts = []
        for bucket in buckets:
            self._hits.append(GroupHit(group, bucket))
            parts.append(self._copy(bucket))
        for actions in merged(parts):
            self._add_copy(actions)

    def _copy(self, bucket: Bucket) -> tuple[DatapathAction, ...]:
        """What becomes of a copy that goes through a bucket. The packet stays as it is."""
        if not self._copies_left:
            return ()
        self._copies_left -= 1
        key, out, origin, queue_id = self._key.save(), self._out, self._origin, self._queue_id
        new_protocol, ttl_changed = self._new_protocol, self._ttl_changed
        self._out = []
        self._origin = origin._replace(reason=PacketInReason.ACTION)
        self._depth += 1
        try:
            for action in _in_order(bucket):
                self._do(action)
        except StopError:
            pass
        finally:
            made = self._out
            self._key.restore(key)
            self._out, self._origin, self._queue_id = out, origin, queue_id
            self._new_protocol, self._ttl_changed = new_protocol, ttl_changed
            self._depth -= 1
        return needed(flat(needed(made, frame_needed=False), self._key.recall), frame_needed=False)

    def _add_copy(self, actions: tuple[DatapathAction, ...]) -> None:
        self._out.append(Copy(actions, self._key.snapshot(), self._queue_id))

    # ── choices ────────────────────────────────────────────────────────────────────────────────────────────────────────
    def _choice(self, group: GroupEntry) -> None:
        candidates = self._candidates(group)
        if len(candidates) == 1 and not candidates[0].watch_port:
            self._all(group, (candidates[0].bucket,))
            return
        done: dict[int, tuple[DatapathAction, ...]] = {}
        for at, bucket, _, _ in candidates:
            if at not in done:
                done[at] = self._way(group, at, bucket)
        ways = tuple([Way(at, done[at], weight, watch_port) for at, _, weight, watch_port in candidates])
        self._too_many_ways |= len(ways) > MAX_WAYS
        choice = Select if group.type is GroupType.SELECT else Failover
        self._add_copy((choice(group.group_id, ways),))

    def _way(self, group: GroupEntry, at: int, bucket: Bucket) -> tuple[DatapathAction, ...]:
        hits = self._hits
        self._hits = [GroupHit(group, bucket)]
        try:
            actions = self._copy(bucket)
            self._way_hits[group.group_id, at] = tuple(self._hits)
        finally:
            self._hits = hits
        return actions

    def _candidates(self, group: GroupEntry) -> list[_Candidate]:
        if group.type is GroupType.FF:
            return self._failover_candidates(group)
        live = [(at, bucket) for at, bucket in enumerate(group.buckets) if self._is_live(bucket)]
        if any(bucket.weight for _, bucket in live):
            return [_Candidate(at, bucket, bucket.weight) for at, bucket in live if bucket.weight]
        # No weights: equal shares.
        return [_Candidate(at, bucket) for at, bucket in live]

    def _failover_candidates(self, group: GroupEntry) -> list[_Candidate]:
        candidates: list[_Candidate] = []
        for at, bucket in enumerate(group.buckets):
            ports = self._pipeline.groups.watched_ports(bucket, self._groups)
            if ports is None:
                candidates.append(_Candidate(at, bucket))
                break
            candidates += [_Candidate(at, bucket, watch_port=port) for port in sorted(ports)]
        if len(candidates) > MAX_WAYS:
            return [candidate._replace(watch_port=0) for candidate in self._first_live(candidates)]
        return candidates

    def _first_live(self, candidates: Iterable[_Candidate]) -> list[_Candidate]:
        live = (candidate for candidate in candidates if not candidate.watch_port or self._watch(candidate.watch_port))
        return list(islice(live, 1))

    def _is_live(self, bucket: Bucket) -> bool:
        ports = self._pipeline.groups.watched_ports(bucket, self._groups)
        return ports is None or any(self._watch(port) for port in sorted(ports))

    def _watch(self, port: int) -> bool:
        """Whether the port is live, which the translation depends on from now on."""
        self._watched_ports.add(port)
        return self._port_is_live is None or self._port_is_live(port)

    # ── forks ──────────────────────────────────────────────────────────────────────────────────────────────────────────
    def _fork(self, group: GroupEntry) -> tuple[Continuation, ...]:
        """How to go on with each copy. Raises ParseAgainError if what tells which bucket to take is not known."""
        buckets = list(group.buckets)
        if group.type in (GroupType.SELECT, GroupType.FF):
            if not self._one_packet:
                raise ParseAgainError
            buckets = [group.buckets[at] for at in self._taken(group)]
        del buckets[self._copies_left :]
        self._hits.append(GroupHit(group))
        self._hits += [GroupHit(group, bucket) for bucket in buckets]
        self._copies_left = (self._copies_left - len(buckets)) // (len(buckets) + 1)
        origin = self._origin._replace(reason=PacketInReason.ACTION)
        carried = self._key.key & CARRIED_BITS
        return tuple(
            [
                Continuation(
                    Stage.BUCKET,
                    origin.table_id,
                    None,
                    _in_order(bucket),
                    (),
                    origin,
                    carried,
                    submit=False,
                    queue_id=self._queue_id,
                    copies=self._copies_left,
                )
                for bucket in buckets
            ]
        )

    def _taken(self, group: GroupEntry) -> list[int]:
        """The place of the bucket that this packet takes; none if there is none."""
        candidates = self._candidates(group)
        if group.type is GroupType.SELECT:
            self._key.need(_SELECT_BITS)
            way = select_way(self._key.key, [Way(at, (), weight) for at, _, weight, _ in candidates])
            return [] if way is None else [way.bucket]
        return [candidate.at for candidate in self._first_live(candidates)]


def _in_order(bucket: Bucket) -> tuple[Action, ...]:
    nobody = Origin(0, 0, PacketInReason.ACTION)
    return tuple([action for action, _ in ActionSet((action, nobody) for action in bucket.actions).in_order()])
