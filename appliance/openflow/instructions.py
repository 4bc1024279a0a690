"""Instructions on the wire (specification 1.3.5, section 7.2.4).

Invariant: what comes out of here has at most one instruction of each type, each of the length that its type has, in the order in
which they came.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Any

from appliance.model.actions import (
    ApplyActions,
    ClearActions,
    ExperimenterInstruction,
    GotoTable,
    Instruction,
    Meter,
    WriteActions,
    WriteMetadata,
)
from appliance.openflow.actions import decode_actions, encode_actions
from appliance.openflow.constants import InstructionType
from appliance.openflow.errors import BadInstruction, ErrorType, ProtocolError
from appliance.openflow.wire import TYPE_LENGTH, pad

INSTRUCTION_BYTES = 8
"""The shortest instruction; the length of every instruction is a multiple of it."""

_BYTE = Struct("!HHB3x")
_WORD = Struct("!HHI")
_BARE = Struct("!HH4x")
_METADATA = Struct("!HH4xQQ")
_METADATA_BODY = Struct("!QQ")
_U32 = Struct("!I")


def _bad_instruction(code: BadInstruction, reason: str) -> ProtocolError:
    return ProtocolError(ErrorType.BAD_INSTRUCTION, code, reason)


def _decode_experimenter(data: bytes, position: int, _: int) -> Instruction:
    (experimenter,) = _U32.unpack_from(data, position + 4)
    raise _bad_instruction(BadInstruction.BAD_EXPERIMENTER, f"instruction of experimenter {experimenter:#010x}")


_DECODERS: dict[int, tuple[int, Callable[[bytes, int, int], Instruction]]] = {
    # length in bytes (0: any multiple of 8), decoder of (data, position, end)
    InstructionType.GOTO_TABLE: (8, lambda data, position, _: GotoTable(data[position + 4])),
    InstructionType.WRITE_METADATA: (24, lambda data, position, _: WriteMetadata(*_METADATA_BODY.unpack_from(data, position + 8))),
    InstructionType.WRITE_ACTIONS: (0, lambda data, position, end: WriteActions(decode_actions(data, position + 8, end))),
    InstructionType.APPLY_ACTIONS: (0, lambda data, position, end: ApplyActions(decode_actions(data, position + 8, end))),
    InstructionType.CLEAR_ACTIONS: (8, lambda _data, _position, _end: ClearActions()),
    InstructionType.METER: (8, lambda data, position, _: Meter(_U32.unpack_from(data, position + 4)[0])),
    InstructionType.EXPERIMENTER: (0, _decode_experimenter),
}


_MAX_REMEMBERED = 1024
_MAX_REMEMBERED_BYTES = 256
"""Of one list."""
_remembered: dict[bytes, tuple[Instruction, ...]] = {}
"""Lists that have been read and found right: flow entries by the thousand have few different ones, and share them."""


def decode_instructions(data: bytes, position: int, end: int) -> tuple[Instruction, ...]:
    """The instructions between two positions. Raises BAD_INSTRUCTION, or BAD_ACTION for what is inside one."""
    raw = data[position:end]
    instructions = _remembered.get(raw)
    if instructions is None:
        instructions = _decode(data, position, end)
        if len(raw) <= _MAX_REMEMBERED_BYTES:
            if len(_remembered) >= _MAX_REMEMBERED:
                _remembered.clear()
            _remembered[raw] = instructions
    return instructions


def _decode(data: bytes, position: int, end: int) -> tuple[Instruction, ...]:
    """A second instruction of one type is UNSUP_INST: OpenFlow 1.3 forbids it (section 5.9) and has no code of its own for it."""
    instructions: list[Instruction] = []
    seen: list[int] = []
    while position < end:
        if position + INSTRUCTION_BYTES > end:
            raise _bad_instruction(BadInstruction.BAD_LEN, "the list ends inside an instruction")
        kind, length = TYPE_LENGTH.unpack_from(data, position)
        row = _DECODERS.get(kind)
        if row is None:
            raise _bad_instruction(BadInstruction.UNKNOWN_INST, f"instruction type {kind}")
        size, decode = row
        if length < INSTRUCTION_BYTES or length % 8 or position + length > end or (size and length != size):
            raise _bad_instruction(BadInstruction.BAD_LEN, f"{InstructionType(kind).name} of {length} bytes")
        if kind in seen:
            raise _bad_instruction(BadInstruction.UNSUP_INST, f"{InstructionType(kind).name} twice")
        seen.append(kind)
        instructions.append(decode(data, position, position + length))
        position += length
    return tuple(instructions)


def _encode_with_actions(kind: InstructionType, instruction: WriteActions | ApplyActions) -> bytes:
    actions = encode_actions(instruction.actions)
    return _BARE.pack(kind, 8 + len(actions)) + actions


def _encode_experimenter(instruction: ExperimenterInstruction) -> bytes:
    length = 8 + len(instruction.data)
    length += pad(length)
    return (_WORD.pack(InstructionType.EXPERIMENTER, length, instruction.experimenter) + instruction.data).ljust(length, b"\0")


_ENCODERS: dict[type[Instruction], Callable[[Any], bytes]] = {
    GotoTable: lambda i: _BYTE.pack(InstructionType.GOTO_TABLE, 8, i.table_id),
    WriteMetadata: lambda i: _METADATA.pack(InstructionType.WRITE_METADATA, 24, i.metadata, i.metadata_mask),
    WriteActions: lambda i: _encode_with_actions(InstructionType.WRITE_ACTIONS, i),
    ApplyActions: lambda i: _encode_with_actions(InstructionType.APPLY_ACTIONS, i),
    ClearActions: lambda _: _BARE.pack(InstructionType.CLEAR_ACTIONS, 8),
    Meter: lambda i: _WORD.pack(InstructionType.METER, 8, i.meter_id),
    ExperimenterInstruction: _encode_experimenter,
}


_written: dict[int, tuple[tuple[Instruction, ...], bytes]] = {}
"""By the identity of the list, which is kept alive with its bytes."""


def encode_instructions(instructions: tuple[Instruction, ...]) -> bytes:
    """The list as it stands in a message."""
    known = _written.get(id(instructions))
    if known is not None:
        return known[1]
    raw = b"".join([_ENCODERS[type(instruction)](instruction) for instruction in instructions])
    if len(raw) <= _MAX_REMEMBERED_BYTES:
        if len(_written) >= _MAX_REMEMBERED:
            _written.clear()
        _written[id(instructions)] = instructions, raw
    return raw
