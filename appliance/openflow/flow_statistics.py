"""Individual and aggregate flow statistics: bodies of multipart messages (specification 1.3.5, sections 7.3.5.2 and 7.3.5.3)."""

from __future__ import annotations

from dataclasses import dataclass

from appliance.model.actions import Instruction
from appliance.model.match import MATCH_ALL, Match
from appliance.model.ports import PortNo
from appliance.openflow.constants import OFPG_ANY, OFPTT_ALL
from appliance.openflow.flow import FlowModFlags


@dataclass(frozen=True, slots=True)
class FlowStatsRequest:
    table_id: int = OFPTT_ALL
    out_port: int = PortNo.ANY
    out_group: int = OFPG_ANY
    cookie: int = 0
    cookie_mask: int = 0
    match: Match = MATCH_ALL


@dataclass(frozen=True, slots=True)
class FlowStats:
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
    entries: tuple[FlowStats, ...] = ()


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
