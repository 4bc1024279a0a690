"""FlowMod and FlowRemoved (specification 1.3.5, sections 7.3.4.1 and 7.4.2)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, IntFlag
from struct import Struct
from typing import NamedTuple

from appliance.model.actions import OFP_NO_BUFFER, Instruction
from appliance.model.match import MATCH_ALL, Match
from appliance.model.ports import PortNo
from appliance.openflow.constants import HEADER_BYTES, MAX_MESSAGE_BYTES, OFPG_ANY, MessageType
from appliance.openflow.errors import BadAction, BadRequest, ErrorType, FlowModFailed, ProtocolError
from appliance.openflow.instructions import decode_instructions, encode_instructions
from appliance.openflow.message import MessageBase
from appliance.openflow.oxm import decode_match, encode_match
from appliance.openflow.wire import Codec, at_least, bad_length, exactly, member

_new = tuple.__new__
_FLOW_MOD = Struct("!QQBBHHHIIIH2x")
_MATCH_BEGINS = HEADER_BYTES + _FLOW_MOD.size
_FLOW_REMOVED = Struct("!QHBBIIHHQQ")

MAX_FLOW_MOD_BYTES = MAX_MESSAGE_BYTES - 16
"""A flow entry's statistics take 16 bytes more than the flow-mod that made it, and must fit in one message as well."""


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


class FlowMod(NamedTuple):
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
    xid: int = 0


@dataclass(frozen=True, slots=True)
class FlowRemoved(MessageBase):
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


_COMMANDS: dict[int, FlowModCommand] = {int(command): command for command in FlowModCommand}
_FLAGS: dict[int, FlowModFlags] = {bits: FlowModFlags(bits) for bits in range(1 << 5)}


def flow_mod_flags(bits: int) -> FlowModFlags:
    """FLOW_MOD_FAILED/BAD_FLAGS for a bit that OpenFlow 1.3 does not know."""
    flags = _FLAGS.get(bits)
    if flags is None:
        raise _bad_flags(bits)
    return flags


def _bad_flags(bits: int) -> ProtocolError:
    return ProtocolError(ErrorType.FLOW_MOD_FAILED, FlowModFailed.BAD_FLAGS, f"flags {bits:#x}")


def decode_flow_mod(data: bytes, xid: int) -> FlowMod:
    if len(data) < _MATCH_BEGINS:
        raise bad_length(f"a flow-mod of {len(data)} bytes")
    (cookie, cookie_mask, table_id, command, idle_timeout, hard_timeout, priority, buffer_id, out_port, out_group, flags) = (
        _FLOW_MOD.unpack_from(data, HEADER_BYTES)
    )
    known, known_flags = _COMMANDS.get(command), _FLAGS.get(flags)
    if known is None:
        raise ProtocolError(ErrorType.FLOW_MOD_FAILED, FlowModFailed.BAD_COMMAND, f"command {command}")
    if len(data) > MAX_FLOW_MOD_BYTES:
        raise ProtocolError(ErrorType.BAD_ACTION, BadAction.TOO_MANY, f"a flow-mod of {len(data)} bytes")
    match, length = decode_match(data, _MATCH_BEGINS)
    if known_flags is None:
        raise _bad_flags(flags)
    instructions = decode_instructions(data, _MATCH_BEGINS + length, len(data))
    return _new(
        FlowMod,
        (
            cookie,
            cookie_mask,
            table_id,
            known,
            idle_timeout,
            hard_timeout,
            priority,
            buffer_id,
            out_port,
            out_group,
            known_flags,
            match,
            instructions,
            xid,
        ),
    )


def encode_flow_mod(message: FlowMod) -> bytes:
    head = _FLOW_MOD.pack(
        message.cookie,
        message.cookie_mask,
        message.table_id,
        message.command,
        message.idle_timeout,
        message.hard_timeout,
        message.priority,
        message.buffer_id,
        message.out_port,
        message.out_group,
        message.flags,
    )
    return head + encode_match(message.match) + encode_instructions(message.instructions)


def decode_flow_removed(data: bytes, xid: int) -> FlowRemoved:
    start = HEADER_BYTES + _FLOW_REMOVED.size
    at_least(data, start)
    (cookie, priority, reason, table_id, sec, nsec, idle, hard, packets, octets) = _FLOW_REMOVED.unpack_from(data, HEADER_BYTES)
    match, length = decode_match(data, start)
    exactly(data, start + length)
    known = member(FlowRemovedReason, reason, ErrorType.BAD_REQUEST, BadRequest.BAD_TYPE)
    return FlowRemoved(cookie, priority, known, table_id, sec, nsec, idle, hard, packets, octets, match, xid=xid)


def encode_flow_removed(message: FlowRemoved) -> bytes:
    head = _FLOW_REMOVED.pack(
        message.cookie,
        message.priority,
        message.reason,
        message.table_id,
        message.duration_sec,
        message.duration_nsec,
        message.idle_timeout,
        message.hard_timeout,
        message.packet_count,
        message.byte_count,
    )
    return head + encode_match(message.match)


CODECS = (
    Codec(MessageType.FLOW_MOD, FlowMod, decode_flow_mod, encode_flow_mod),
    Codec(MessageType.FLOW_REMOVED, FlowRemoved, decode_flow_removed, encode_flow_removed),
)
