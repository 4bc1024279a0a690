"""OFPT_GROUP_MOD, and what is told of groups (specification 1.3.5, sections 5.6, 6.5, 7.3.4.2 and 7.3.5.9 to 7.3.5.11).

Invariant: a group-mod is done as a whole or refused as a whole, and the live megaflows are told of every change.
"""

from __future__ import annotations

from appliance.model.ports import PortNo, is_port_number
from appliance.openflow.constants import OFPG_ALL, OFPG_ANY, OFPG_MAX
from appliance.openflow.errors import ErrorType, GroupModFailed, ProtocolError
from appliance.openflow.messages import (
    Bucket,
    BucketCounter,
    FlowRemovedReason,
    GroupCapabilities,
    GroupDesc,
    GroupFeatures,
    GroupMod,
    GroupModCommand,
    GroupStats,
    GroupType,
)
from appliance.pipeline import group_table
from appliance.pipeline.flow_table import Pipeline
from appliance.pipeline.group_table import GroupEntry
from appliance.switch.duration import duration
from appliance.switch.flow_mods import FlowMods
from appliance.switch.megaflows import Megaflows
from appliance.switch.validate import SUPPORTED_ACTIONS, Validator

MAX_GROUPS = 65536
MAX_BUCKETS = 1024
"""Of one group."""
_CAPABILITIES = (
    GroupCapabilities.SELECT_WEIGHT
    | GroupCapabilities.SELECT_LIVENESS
    | GroupCapabilities.CHAINING
    | GroupCapabilities.CHAINING_CHECKS
)


class GroupMods:
    """Changes the group table of a pipeline and keeps its megaflows told."""

    def __init__(
        self,
        pipeline: Pipeline,
        megaflows: Megaflows,
        validator: Validator,
        flow_mods: FlowMods,
        max_groups: int = MAX_GROUPS,
    ) -> None:
        self.max_groups = max_groups
        self._pipeline = pipeline
        self._groups = pipeline.groups
        self._megaflows = megaflows
        self._validator = validator
        self._flow_mods = flow_mods
        self._sent: dict[int, tuple[Bucket, ...]] = {}
        """Each group's buckets as its controller sent them."""

    # ── changing ───────────────────────────────────────────────────────────────────────────────────────────────────────
    def apply(self, mod: GroupMod, now: float) -> None:
        """Do it. Raises ProtocolError, having changed nothing."""
        match mod.command:
            case GroupModCommand.ADD:
                self._add(mod, now)
            case GroupModCommand.MODIFY:
                self._modify(mod)
            case GroupModCommand.DELETE:
                self._delete(mod, now)

    def _add(self, mod: GroupMod, now: float) -> None:
        if mod.group_id > OFPG_MAX:
            raise _failed(GroupModFailed.INVALID_GROUP, f"group {mod.group_id:#x}")
        if mod.group_id in self._groups:
            raise _failed(GroupModFailed.GROUP_EXISTS, f"group {mod.group_id:#x} exists")
        if len(self._groups) >= self.max_groups:
            raise _failed(GroupModFailed.OUT_OF_GROUPS, f"there are {len(self._groups)} groups")
        buckets = self._checked(mod)
        self._groups.add(GroupEntry(mod.group_id, group_table.GroupType(mod.type), buckets, created_at=now))
        self._sent[mod.group_id] = mod.buckets
        self._megaflows.group_changed(mod.group_id)

    def _modify(self, mod: GroupMod) -> None:
        """The group's own counters and age go on, those of its buckets start anew (section 7.3.4.2)."""
        if mod.group_id not in self._groups:
            raise _failed(GroupModFailed.UNKNOWN_GROUP, f"there is no group {mod.group_id:#x}")
        self._groups.modify(mod.group_id, group_table.GroupType(mod.type), self._checked(mod))
        self._sent[mod.group_id] = mod.buckets
        self._megaflows.group_changed(mod.group_id)

    def _delete(self, mod: GroupMod, now: float) -> None:
        """With the flow entries that use it. To delete what is not there is no error."""
        if mod.group_id != OFPG_ALL and self._groups.forwarding_to(mod.group_id):
            raise _failed(GroupModFailed.CHAINED_GROUP, f"another group forwards to group {mod.group_id:#x}")
        gone = {group.group_id for group in self._groups.delete(mod.group_id)}
        self._flow_mods.remove_where(lambda entry: not gone.isdisjoint(entry.groups), FlowRemovedReason.GROUP_DELETE, now)
        for group_id in gone:
            del self._sent[group_id]
            self._megaflows.group_changed(group_id)

    def _checked(self, mod: GroupMod) -> list[group_table.Bucket]:
        """Raises ProtocolError unless the group may have its buckets."""
        if len(mod.buckets) > MAX_BUCKETS:
            raise _failed(GroupModFailed.OUT_OF_BUCKETS, f"{len(mod.buckets)} buckets")
        if mod.type is GroupType.INDIRECT and len(mod.buckets) != 1:
            raise _failed(GroupModFailed.INVALID_GROUP, f"an indirect group of {len(mod.buckets)} buckets")
        buckets = [_bucket(mod.type, bucket) for bucket in mod.buckets]
        if self._groups.loops(mod.group_id, buckets):
            raise _failed(GroupModFailed.LOOP, f"group {mod.group_id:#x} would forward to itself")
        for bucket in buckets:
            self._validator.check_bucket(bucket.actions)
        return buckets

    # ── telling ────────────────────────────────────────────────────────────────────────────────────────────────────────
    def statistics(self, group_id: int, now: float) -> tuple[GroupStats, ...]:
        """Of one group, or of all for OFPG_ALL; nothing for a group that is not there (section 7.3.5.9)."""
        references = self._pipeline.group_references()
        return tuple(
            GroupStats(
                group.group_id,
                references[group.group_id],
                group.packet_count,
                group.byte_count,
                *duration(group.created_at, now),
                tuple(BucketCounter(bucket.packet_count, bucket.byte_count) for bucket in group.buckets),
            )
            for group in self._groups
            if group_id in (OFPG_ALL, group.group_id)
        )

    def descriptions(self) -> tuple[GroupDesc, ...]:
        return tuple(GroupDesc(GroupType(group.type), group.group_id, self._sent[group.group_id]) for group in self._groups)

    def features(self) -> GroupFeatures:
        types, actions = sum(1 << kind for kind in GroupType), sum(1 << kind for kind in SUPPORTED_ACTIONS.values())
        groups = self.max_groups
        return GroupFeatures(types, _CAPABILITIES, (groups, groups, groups, groups), (actions, actions, actions, actions))


def _bucket(kind: GroupType, bucket: Bucket) -> group_table.Bucket:
    """Raises GROUP_MOD_FAILED for what it watches.

    FAST FAILOVER buckets must watch something and SELECT ones may; those of other groups do not. Where a bucket that need not watch
    has both fields 0, which is no port, its controller has left them out.
    """
    port, group = bucket.watch_port, bucket.watch_group
    if kind is not GroupType.FF and (port, group) in ((PortNo.ANY, OFPG_ANY), (0, 0)):
        return group_table.Bucket(bucket.actions, weight=bucket.weight)
    if kind not in (GroupType.FF, GroupType.SELECT):
        raise _failed(GroupModFailed.WATCH_UNSUPPORTED, f"a bucket of type {kind.name} watches port {port:#x}, group {group:#x}")
    if (port, group) == (PortNo.ANY, OFPG_ANY):
        raise _failed(GroupModFailed.BAD_WATCH, "a bucket watches nothing")
    if not (is_port_number(port) or port == PortNo.ANY) or OFPG_MAX < group != OFPG_ANY:
        raise _failed(GroupModFailed.BAD_WATCH, f"a bucket watches port {port:#x}, group {group:#x}")
    return group_table.Bucket(bucket.actions, weight=bucket.weight, watch_port=port, watch_group=group)


def _failed(code: GroupModFailed, reason: str) -> ProtocolError:
    return ProtocolError(ErrorType.GROUP_MOD_FAILED, code, reason)
