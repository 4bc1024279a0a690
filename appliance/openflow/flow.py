"""FlowMod and FlowRemoved (specification 1.3.5, sections 7.3.4.1 and 7.4.2)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, IntFlag

from appliance.model.actions import OFP_NO_BUFFER, Instruction
from appliance.model.match import MATCH_ALL, Match
from appliance.model.ports import PortNo
from appliance.openflow.constants import OFPG_ANY
from appliance.openflow.message import Message


class FlowModCommand(IntEnum):
    """OFPFC_*."""

    ADD = 0
    MODIFY = 1
    MODIFY_STRICT = 2
    DELETE = 3
    DELETE_STRICT = 4


class FlowModFlags(IntFlag):
    """OFPFF_*."""

    NONE = 0
    SEND_FLOW_REM = 1 << 0
    CHECK_OVERLAP = 1 << 1
    RESET_COUNTS = 1 << 2
    NO_PKT_COUNTS = 1 << 3
    NO_BYT_COUNTS = 1 << 4


class FlowRemovedReason(IntEnum):
    """OFPRR_*."""

    IDLE_TIMEOUT = 0
    HARD_TIMEOUT = 1
    DELETE = 2
    GROUP_DELETE = 3


@dataclass(frozen=True, slots=True)
class FlowMod(Message):
    cookie: int = 0
    cookie_mask: int = 0
    table_id: int = 0
    command: FlowModCommand = FlowModCommand.ADD
    idle_timeout: int = 0
    hard_timeout: int = 0
    priority: int = 0x8000
    buffer_id: int = OFP_NO_BUFFER
    out_port: int = PortNo.ANY
    out_group: int = OFPG_ANY
    flags: FlowModFlags = FlowModFlags.NONE
    match: Match = MATCH_ALL
    instructions: tuple[Instruction, ...] = ()


@dataclass(frozen=True, slots=True)
class FlowRemoved(Message):
    cookie: int
    priority: int
    reason: FlowRemovedReason
    table_id: int
    duration_sec: int
    duration_nsec: int
    idle_timeout: int
    hard_timeout: int
    packet_count: int
    byte_count: int
    match: Match
