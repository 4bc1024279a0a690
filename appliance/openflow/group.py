"""Groups: GroupMod and the multipart bodies (specification 1.3.5, sections 7.3.4.2, 7.3.5.9 to 7.3.5.11)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from struct import Struct

from appliance.model.actions import Action
from appliance.model.ports import PortNo
from appliance.openflow.actions import decode_actions, encode_actions
from appliance.openflow.constants import HEADER_BYTES, MAX_MESSAGE_BYTES, OFPG_ALL, OFPG_ANY, MessageType, MultipartType
from appliance.openflow.errors import ErrorType, GroupModFailed, ProtocolError
from appliance.openflow.message import MessageBase
from appliance.openflow.wire import BodyCodec, Codec, at_least, bad_length, empty_body, exactly, member

MAX_GROUP_MOD_BYTES = MAX_MESSAGE_BYTES - 40
"""A group's statistics and description take up to 40 bytes more than the group-mod that made it, and must fit in one message."""

_MOD = Struct("!HBxI")
_BUCKET = Struct("!HHII4x")
_STATS_REQUEST = Struct("!I4x")
_STATS = Struct("!H2xII4xQQII")
_COUNTER = Struct("!QQ")
_DESC = Struct("!HBxI")
_FEATURES = Struct("!II4I4I")


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
class GroupMod(MessageBase):
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


# ── buckets ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def _group_error(code: GroupModFailed, reason: str) -> ProtocolError:
    return ProtocolError(ErrorType.GROUP_MOD_FAILED, code, reason)


def _buckets(data: bytes, position: int, end: int) -> Iterator[Bucket]:
    while position < end:
        start = position + _BUCKET.size
        if start > end:
            raise _group_error(GroupModFailed.BAD_BUCKET, "the list ends inside a bucket")
        length, weight, watch_port, watch_group = _BUCKET.unpack_from(data, position)
        if length < _BUCKET.size or length % 8 or position + length > end:
            raise _group_error(GroupModFailed.BAD_BUCKET, f"bucket of {length} bytes")
        position += length
        yield Bucket(weight, watch_port, watch_group, decode_actions(data, start, position))


def _encode_bucket(bucket: Bucket) -> bytes:
    actions = encode_actions(bucket.actions)
    return _BUCKET.pack(_BUCKET.size + len(actions), bucket.weight, bucket.watch_port, bucket.watch_group) + actions


def _encode_buckets(buckets: Iterable[Bucket]) -> bytes:
    return b"".join([_encode_bucket(bucket) for bucket in buckets])


# ── GroupMod ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def decode_group_mod(data: bytes, xid: int) -> GroupMod:
    start = HEADER_BYTES + _MOD.size
    at_least(data, start)
    command, kind, group_id = _MOD.unpack_from(data, HEADER_BYTES)
    known = member(GroupModCommand, command, ErrorType.GROUP_MOD_FAILED, GroupModFailed.BAD_COMMAND)
    type_ = member(GroupType, kind, ErrorType.GROUP_MOD_FAILED, GroupModFailed.BAD_TYPE)
    if len(data) > MAX_GROUP_MOD_BYTES:
        raise _group_error(GroupModFailed.OUT_OF_BUCKETS, f"a group-mod of {len(data)} bytes")
    return GroupMod(known, type_, group_id, tuple(_buckets(data, start, len(data))), xid=xid)


def encode_group_mod(message: GroupMod) -> bytes:
    return _MOD.pack(message.command, message.type, message.group_id) + _encode_buckets(message.buckets)


# ── bodies of multipart messages ───────────────────────────────────────────────────────────────────────────────────────
def decode_group_stats_request(data: bytes) -> GroupStatsRequest:
    exactly(data, _STATS_REQUEST.size)
    return GroupStatsRequest(*_STATS_REQUEST.unpack(data))


def encode_group_stats_request(body: GroupStatsRequest) -> list[bytes]:
    return [_STATS_REQUEST.pack(body.group_id)]


def _stats(data: bytes) -> Iterator[GroupStats]:
    position = 0
    while position < len(data):
        start = position + _STATS.size
        at_least(data, start)
        length, group_id, ref_count, packets, octets, sec, nsec = _STATS.unpack_from(data, position)
        position += length
        if start > position or position > len(data) or (length - _STATS.size) % _COUNTER.size:
            raise bad_length(f"group statistics of {length} bytes")
        counters = tuple(BucketCounter(*row) for row in _COUNTER.iter_unpack(data[start:position]))
        yield GroupStats(group_id, ref_count, packets, octets, sec, nsec, counters)


def _encode_stats(entry: GroupStats) -> bytes:
    head = _STATS.pack(
        _STATS.size + _COUNTER.size * len(entry.bucket_stats),
        entry.group_id,
        entry.ref_count,
        entry.packet_count,
        entry.byte_count,
        entry.duration_sec,
        entry.duration_nsec,
    )
    return head + b"".join([_COUNTER.pack(counter.packet_count, counter.byte_count) for counter in entry.bucket_stats])


def _descriptions(data: bytes) -> Iterator[GroupDesc]:
    position = 0
    while position < len(data):
        start = position + _DESC.size
        at_least(data, start)
        length, kind, group_id = _DESC.unpack_from(data, position)
        position += length
        if start > position or position > len(data):
            raise bad_length(f"group description of {length} bytes")
        type_ = member(GroupType, kind, ErrorType.GROUP_MOD_FAILED, GroupModFailed.BAD_TYPE)
        yield GroupDesc(type_, group_id, tuple(_buckets(data, start, position)))


def _encode_description(entry: GroupDesc) -> bytes:
    buckets = _encode_buckets(entry.buckets)
    return _DESC.pack(_DESC.size + len(buckets), entry.type, entry.group_id) + buckets


def decode_group_features(data: bytes) -> GroupFeatures:
    exactly(data, _FEATURES.size)
    types, capabilities, *rest = _FEATURES.unpack(data)
    g0, g1, g2, g3, a0, a1, a2, a3 = rest
    return GroupFeatures(types, GroupCapabilities(capabilities), (g0, g1, g2, g3), (a0, a1, a2, a3))


def encode_group_features(body: GroupFeatures) -> list[bytes]:
    return [_FEATURES.pack(body.types, body.capabilities, *body.max_groups, *body.actions)]


CODECS = (Codec(MessageType.GROUP_MOD, GroupMod, decode_group_mod, encode_group_mod),)
REQUESTS = (
    BodyCodec(MultipartType.GROUP, GroupStatsRequest, decode_group_stats_request, encode_group_stats_request),
    empty_body(MultipartType.GROUP_DESC, GroupDescRequest),
    empty_body(MultipartType.GROUP_FEATURES, GroupFeaturesRequest),
)
REPLIES = (
    BodyCodec(
        MultipartType.GROUP,
        GroupStatsReply,
        lambda data: GroupStatsReply(tuple(_stats(data))),
        lambda body: [_encode_stats(entry) for entry in body.entries],
    ),
    BodyCodec(
        MultipartType.GROUP_DESC,
        GroupDescReply,
        lambda data: GroupDescReply(tuple(_descriptions(data))),
        lambda body: [_encode_description(entry) for entry in body.entries],
    ),
    BodyCodec(MultipartType.GROUP_FEATURES, GroupFeatures, decode_group_features, encode_group_features),
)
