"""Groups: GroupMod and the multipart bodies (specification 1.3.5, sections 7.3.4.2, 7.3.5.9 to 7.3.5.11)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, IntFlag

from appliance.model.actions import Action
from appliance.model.ports import PortNo
from appliance.openflow.constants import OFPG_ALL, OFPG_ANY
from appliance.openflow.message import Message


class GroupModCommand(IntEnum):
    """OFPGC_*."""

    ADD = 0
    MODIFY = 1
    DELETE = 2


class GroupType(IntEnum):
    """OFPGT_*."""

    ALL = 0
    SELECT = 1
    INDIRECT = 2
    FF = 3


class GroupCapabilities(IntFlag):
    """OFPGFC_*."""

    NONE = 0
    SELECT_WEIGHT = 1 << 0
    SELECT_LIVENESS = 1 << 1
    CHAINING = 1 << 2
    CHAINING_CHECKS = 1 << 3


@dataclass(frozen=True, slots=True)
class Bucket:
    """``weight`` counts for SELECT groups, ``watch_port`` and ``watch_group`` for FF groups."""

    weight: int = 0
    watch_port: int = PortNo.ANY
    watch_group: int = OFPG_ANY
    actions: tuple[Action, ...] = ()


@dataclass(frozen=True, slots=True)
class GroupMod(Message):
    command: GroupModCommand
    type: GroupType
    group_id: int
    buckets: tuple[Bucket, ...] = ()


@dataclass(frozen=True, slots=True)
class GroupStatsRequest:
    group_id: int = OFPG_ALL


@dataclass(frozen=True, slots=True)
class BucketCounter:
    packet_count: int
    byte_count: int


@dataclass(frozen=True, slots=True)
class GroupStats:
    group_id: int
    ref_count: int
    packet_count: int
    byte_count: int
    duration_sec: int
    duration_nsec: int
    bucket_stats: tuple[BucketCounter, ...] = ()


@dataclass(frozen=True, slots=True)
class GroupStatsReply:
    entries: tuple[GroupStats, ...] = ()


@dataclass(frozen=True, slots=True)
class GroupDescRequest:
    pass


@dataclass(frozen=True, slots=True)
class GroupDesc:
    type: GroupType
    group_id: int
    buckets: tuple[Bucket, ...] = ()


@dataclass(frozen=True, slots=True)
class GroupDescReply:
    entries: tuple[GroupDesc, ...] = ()


@dataclass(frozen=True, slots=True)
class GroupFeaturesRequest:
    pass


@dataclass(frozen=True, slots=True)
class GroupFeatures:
    """``types`` is a bitmap of 1 << GroupType. ``max_groups`` and ``actions`` have one item for each GroupType, in order.

    An item of ``actions`` is a bitmap of 1 << OFPAT_*.
    """

    types: int = 0
    capabilities: GroupCapabilities = GroupCapabilities.NONE
    max_groups: tuple[int, int, int, int] = (0, 0, 0, 0)
    actions: tuple[int, int, int, int] = (0, 0, 0, 0)
