"""Individual and aggregate flow statistics: bodies of multipart messages (specification 1.3.5, sections 7.3.5.2 and 7.3.5.3)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from struct import Struct
from typing import NamedTuple

from appliance.model.actions import Instruction
from appliance.model.match import MATCH_ALL, Match
from appliance.model.ports import PortNo
from appliance.openflow.constants import OFPG_ANY, OFPTT_ALL, MultipartType
from appliance.openflow.flow import FlowModFlags, flow_mod_flags
from appliance.openflow.instructions import decode_instructions, encode_instructions
from appliance.openflow.oxm import decode_match, encode_match
from appliance.openflow.wire import BodyCodec, at_least, bad_length, exactly

_REQUEST = Struct("!B3xII4xQQ")
_FLOW = Struct("!HBxIIHHHH4xQQQ")
_AGGREGATE = Struct("!QQI4x")


@dataclass(frozen=True, slots=True)
class FlowStatsRequest:
    table_id: int = OFPTT_ALL
    out_port: int = PortNo.ANY
    out_group: int = OFPG_ANY
    cookie: int = 0
    cookie_mask: int = 0
    match: Match = MATCH_ALL


class FlowStats(NamedTuple):
    table_id: int
    duration_sec: int
    duration_nsec: int
    priority: int
    idle_timeout: int
    hard_timeout: int
    flags: FlowModFlags
    cookie: int
    packet_count: int
    byte_count: int
    match: Match
    instructions: tuple[Instruction, ...]


@dataclass(frozen=True, slots=True)
class FlowStatsReply:
    """Entries that are not in a tuple are made each time that they are gone through: those of a long answer while it is sent."""

    entries: tuple[FlowStats, ...] | Iterable[FlowStats] = ()

    @property
    def is_long(self) -> bool:
        return not isinstance(self.entries, tuple)


@dataclass(frozen=True, slots=True)
class AggregateStatsRequest:
    table_id: int = OFPTT_ALL
    out_port: int = PortNo.ANY
    out_group: int = OFPG_ANY
    cookie: int = 0
    cookie_mask: int = 0
    match: Match = MATCH_ALL


@dataclass(frozen=True, slots=True)
class AggregateStats:
    packet_count: int
    byte_count: int
    flow_count: int


def _decode_request(data: bytes) -> tuple[int, int, int, int, int, Match]:
    at_least(data, _REQUEST.size)
    table_id, out_port, out_group, cookie, cookie_mask = _REQUEST.unpack_from(data)
    match, length = decode_match(data, _REQUEST.size)
    exactly(data, _REQUEST.size + length)
    return table_id, out_port, out_group, cookie, cookie_mask, match


def encode_request(body: FlowStatsRequest | AggregateStatsRequest) -> list[bytes]:
    head = _REQUEST.pack(body.table_id, body.out_port, body.out_group, body.cookie, body.cookie_mask)
    return [head + encode_match(body.match)]


def _entries(data: bytes) -> Iterator[FlowStats]:
    position = 0
    while position < len(data):
        start = position + _FLOW.size
        at_least(data, start)
        (length, table_id, sec, nsec, priority, idle, hard, flags, cookie, packets, octets) = _FLOW.unpack_from(data, position)
        end = position + length
        if start > end or end > len(data):
            raise bad_length(f"flow statistics of {length} bytes")
        match, match_length = decode_match(data, start, end)
        instructions = decode_instructions(data, start + match_length, end)
        known = flow_mod_flags(flags)
        yield FlowStats(table_id, sec, nsec, priority, idle, hard, known, cookie, packets, octets, match, instructions)
        position = end


def _encode_entry(entry: FlowStats) -> bytes:
    table_id, sec, nsec, priority, idle, hard, flags, cookie, packets, octets, match, instructions = entry
    tail = encode_match(match) + encode_instructions(instructions)
    length = _FLOW.size + len(tail)
    return _FLOW.pack(length, table_id, sec, nsec, priority, idle, hard, flags, cookie, packets, octets) + tail


def decode_aggregate(data: bytes) -> AggregateStats:
    exactly(data, _AGGREGATE.size)
    return AggregateStats(*_AGGREGATE.unpack(data))


def encode_aggregate(body: AggregateStats) -> list[bytes]:
    return [_AGGREGATE.pack(body.packet_count, body.byte_count, body.flow_count)]


REQUESTS = (
    BodyCodec(MultipartType.FLOW, FlowStatsRequest, lambda data: FlowStatsRequest(*_decode_request(data)), encode_request),
    BodyCodec(
        MultipartType.AGGREGATE, AggregateStatsRequest, lambda data: AggregateStatsRequest(*_decode_request(data)), encode_request
    ),
)
REPLIES = (
    BodyCodec(
        MultipartType.FLOW,
        FlowStatsReply,
        lambda data: FlowStatsReply(tuple(_entries(data))),
        lambda body: map(_encode_entry, body.entries),
    ),
    BodyCodec(MultipartType.AGGREGATE, AggregateStats, decode_aggregate, encode_aggregate),
)
